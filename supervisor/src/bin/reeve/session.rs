//! One run from start to report: waits for the guest's end and for everything that can bring it.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::model::Domain;
use reeve_ipc::spec::ControlLoss;
use reeved::domain::worker::{self, Death, StartError, StartOptions, Worker};
use reeved::host::Host;
use rustix::stdio::stdin;
use rustix::termios::isatty;
use tokio::sync::mpsc;

use super::args::RunArgs;
use super::console::{self, Note, Output};
use super::control::{ControlError, ControlSocket};
use super::messages;
use super::report::{Report, Times};
use super::signals::{Ending, Signals};
use super::terminal::{RawMode, is_foreground};

/// How long the last output of a destroyed guest may take to be written.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The domain did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The host cannot run workers.
    #[error(transparent)]
    Host(#[from] reeved::host::HostError),
    /// No control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A signal came before the guest stood.
    #[error("ended by a signal before the guest was started")]
    Signal(Ending),
    /// Something of our own process.
    #[error("{what}: {source}")]
    Own {
        /// What failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl SessionError {
    /// The exit code of the command.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Signal(ending) => 128 + ending.number(),
            _ => 1,
        }
    }
}

/// Why we destroyed the guest.
#[derive(Debug)]
pub enum Reason {
    /// Ctrl-].
    Escape,
    /// A destroy from the control socket.
    Control,
    /// A signal.
    Signal(Ending),
    /// The terminal is gone.
    TerminalClosed,
    /// Output cannot be written.
    OutputLost(io::Error),
}

impl Reason {
    /// The exit code of a run that ended so.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Escape | Self::Control => 0,
            Self::Signal(ending) => 128 + ending.number(),
            Self::TerminalClosed => 128 + Ending::Hangup.number(),
            Self::OutputLost(error) if error.kind() == io::ErrorKind::BrokenPipe => 141,
            Self::OutputLost(_) => 1,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Escape => f.write_str("Ctrl-] was typed"),
            Self::Control => f.write_str("the control socket asked for it"),
            Self::Signal(ending) => write!(
                f,
                "{} came",
                match ending {
                    Ending::Hangup => "SIGHUP",
                    Ending::Interrupt => "SIGINT",
                    Ending::Quit => "SIGQUIT",
                    Ending::Terminate => "SIGTERM",
                }
            ),
            Self::TerminalClosed => f.write_str("the terminal was closed"),
            Self::OutputLost(error) => write!(f, "its output cannot be written: {error}"),
        }
    }
}

fn own(what: &'static str) -> impl FnOnce(io::Error) -> SessionError {
    move |source| SessionError::Own { what, source }
}

/// Runs `domain` until it ends.
///
/// # Errors
/// [`SessionError`]; nothing is left of the domain.
pub async fn session(args: &RunArgs, domain: &Domain) -> Result<Report, SessionError> {
    let mut signals = Signals::catch().map_err(own("cannot catch signals"))?;
    let control = args
        .control
        .as_deref()
        .map(ControlSocket::bind)
        .transpose()?;
    let host = Host::open()?.with_virtiofsd(args.virtiofsd.clone());
    let (notes, mut noted) = mpsc::channel(4);
    let pair = UnixStream::pair().and_then(|(ours, theirs)| Ok((ours.try_clone()?, ours, theirs)));
    let (input, output, theirs) = pair.map_err(own("cannot make the console's sockets"))?;
    let thread = "cannot start the console's thread";
    let output = console::start_output(output, args.json, notes.clone()).map_err(own(thread))?;

    let options = StartOptions {
        hold: false,
        console: Some(theirs.into()),
        on_control_loss: ControlLoss::Stop,
    };
    let worker = tokio::select! {
        biased;
        // Dropping the start undoes it.
        ending = signals.next() => return Err(SessionError::Signal(ending)),
        started = worker::start(&host, domain, options) => Arc::new(started?),
    };
    let started = worker.facts().accepted.elapsed();

    let raw = RawMode::enter().map_err(own("cannot put the terminal into raw mode"))?;
    if raw.is_some() || !isatty(stdin()) || is_foreground() {
        console::start_input(input, raw.is_some(), notes).map_err(own(thread))?;
    }
    if raw.is_some() {
        messages::say(&format!(
            "console of '{}'; Ctrl-] destroys the guest and leaves",
            domain.name
        ));
    }
    let (reason, death) = supervise(&worker, &mut signals, &mut noted, control.as_ref()).await;
    let total = worker.facts().accepted.elapsed();
    let first_byte = Arc::clone(&output.first_byte);
    last_output(output, reason.is_some(), &mut signals).await;
    drop(raw);
    Ok(Report::new(
        domain,
        worker.facts(),
        &worker.view(),
        worker
            .launched()
            .map(|launched| launched.boot_protocol.to_string()),
        &death.cause,
        reason.as_ref(),
        Times {
            started,
            first_output: first_byte
                .get()
                .map(|first| first.saturating_duration_since(worker.facts().accepted)),
            total,
        },
    ))
}

/// Waits for the end, and brings it where something asks for it.
async fn supervise(
    worker: &Arc<Worker>,
    signals: &mut Signals,
    noted: &mut mpsc::Receiver<Note>,
    control: Option<&ControlSocket>,
) -> (Option<Reason>, Arc<Death>) {
    let (destroys, mut destroyed) = mpsc::channel(1);
    let serve = async {
        match control {
            Some(control) => control.serve(worker, &destroys).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(serve);
    let mut interrupts = 0_u32;
    let reason = loop {
        tokio::select! {
            biased;
            death = worker.death() => return (None, death),
            ending = signals.next() => {
                if ending != Ending::Interrupt || interrupts > 0 {
                    break Reason::Signal(ending);
                }
                interrupts += 1;
                press_power_button(worker);
            }
            Some(note) = noted.recv() => break match note {
                Note::Escape => Reason::Escape,
                Note::TerminalClosed => Reason::TerminalClosed,
                Note::OutputLost(error) => Reason::OutputLost(error),
            },
            Some(()) = destroyed.recv() => break Reason::Control,
            () = &mut serve => {}
        }
    };
    match worker.destroy().await {
        Ok(death) => (Some(reason), death),
        Err(reaping) => {
            messages::say(&reaping.to_string());
            (Some(reason), worker.unreaped())
        }
    }
}

/// The first interrupt asks the guest; the answer is not waited for, so that a second one counts.
fn press_power_button(worker: &Arc<Worker>) {
    messages::say("asked the guest to shut down; interrupt again to destroy it");
    let worker = Arc::clone(worker);
    tokio::spawn(async move {
        if let Err(error) = worker.power_button().await {
            messages::say(&format!("the power button could not be pressed: {error}"));
        }
    });
}

/// Lets the last output out: as long as its reader takes for a guest that ended by itself, a moment
/// for one that was destroyed, and never past another signal.
async fn last_output(output: Output, destroyed: bool, signals: &mut Signals) {
    let limit = async {
        if destroyed {
            tokio::time::sleep(LAST_OUTPUT).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = output.done => {}
        () = limit => {}
        _ = signals.next() => {}
    }
}
