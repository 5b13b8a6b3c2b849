//! The signals that end `reeve run`, as a stream.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal that asks us to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The terminal or session is gone.
    Hangup,
    /// Ctrl-C where the terminal is not raw.
    Interrupt,
    /// Ctrl-\ where the terminal is not raw.
    Quit,
    /// A polite request.
    Terminate,
}

impl Ending {
    /// The signal's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Hangup => 1,
            Self::Interrupt => 2,
            Self::Quit => 3,
            Self::Terminate => 15,
        }
    }
}

/// The four signals, from when this is made on.
#[derive(Debug)]
pub struct Signals {
    hangup: Option<Signal>,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
}

impl Signals {
    /// Catches the signals. A hang-up that is ignored, as under nohup(1), stays ignored.
    ///
    /// # Errors
    /// The runtime cannot watch signals.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            hangup: if is_hangup_ignored() {
                None
            } else {
                Some(signal(SignalKind::hangup())?)
            },
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next one. May be dropped and called again.
    pub async fn next(&mut self) -> Ending {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = hangup => Ending::Hangup,
            _ = self.terminate.recv() => Ending::Terminate,
            _ = self.quit.recv() => Ending::Quit,
            _ = self.interrupt.recv() => Ending::Interrupt,
        }
    }
}

fn is_hangup_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask & (1 << (Ending::Hangup.number() - 1)) != 0)
    })
}
