//! The daemon's own log: one JSON object a line, bounded, never waiting.
//!
//! ```text
//!   tracing events ──► filter (changes at run time) ──► queue of lines ──► thread ──► standard error
//!                                                       full: dropped and counted
//! ```
//!
//! A standard error that nobody reads stops the thread alone. Once it moves again it says how many
//! lines are missing.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::LogFiles;
use super::filter::{self, FilterError};
use super::layer::DomainLines;

/// Lines that wait at most.
const QUEUE_LINES: usize = 512;
/// The most bytes of a line; a longer one is dropped.
const MAX_LINE: usize = 16 * 1024;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// What is to be logged.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// No thread.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(#[source] io::Error),
    /// There is one already.
    #[error("this process logs already")]
    Twice(#[from] TryInitError),
}

/// What can be done about the log while it runs.
#[derive(Debug)]
pub struct DaemonLog {
    filter: reload::Handle<EnvFilter, Registry>,
    lines: Lines,
}

impl DaemonLog {
    /// Logs something else from now on.
    ///
    /// # Errors
    /// [`FilterError`]; what was logged before is.
    pub fn set_filter(&self, filter: &str) -> Result<(), FilterError> {
        let parsed = filter::parse(filter)?;
        // It fails only when the subscriber is gone, and then nothing is logged at all.
        let _ = self.filter.reload(parsed);
        Ok(())
    }

    /// Lines that were dropped so far.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        self.lines.dropped.total.load(Ordering::Relaxed)
    }

    /// Waits until what was logged so far is written, but no longer than this; whether it is.
    pub fn flush(&self, patience: Duration) -> bool {
        let (done, written) = sync_channel(1);
        // A queue that is full belongs to a thread that is stuck.
        self.lines.queue.try_send(Message::Flush(done)).is_ok()
            && written.recv_timeout(patience).is_ok()
    }
}

/// Logs to standard error from now on, for the whole process, and what concerns one domain into that
/// domain's file, where there are `files`.
///
/// # Errors
/// [`LogError`].
pub fn install(filter: &str, files: Option<LogFiles>) -> Result<DaemonLog, LogError> {
    let (subscriber, log) = subscriber(filter, io::stderr())?;
    subscriber.with(files.map(DomainLines::new)).try_init()?;
    Ok(log)
}

/// The log alone, into `out`, which may block.
///
/// # Errors
/// [`LogError::Filter`], [`LogError::Thread`].
pub fn subscriber(
    filter: &str,
    out: impl Write + Send + 'static,
) -> Result<
    (
        impl Subscriber + for<'a> LookupSpan<'a> + Send + Sync + 'static,
        DaemonLog,
    ),
    LogError,
> {
    let (filter_layer, filter) = reload::Layer::new(filter::parse(filter)?);
    let lines = Lines::start(out).map_err(LogError::Thread)?;
    let format = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        // Its own complaints would go to standard error, and wait for it.
        .log_internal_errors(false)
        .with_writer(lines.clone())
        .with_filter(filter_layer);
    let subscriber = tracing_subscriber::registry().with(format);
    Ok((subscriber, DaemonLog { filter, lines }))
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

#[derive(Debug, Default)]
struct Dropped {
    total: AtomicU64,
    unreported: AtomicU64,
}

/// The queue's end where lines come in.
#[derive(Debug, Clone)]
struct Lines {
    queue: SyncSender<Message>,
    dropped: Arc<Dropped>,
}

impl Lines {
    fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, messages) = sync_channel(QUEUE_LINES);
        let dropped = Arc::new(Dropped::default());
        let counted = Arc::clone(&dropped);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&messages, &counted, out))?;
        Ok(Self { queue, dropped })
    }
}

/// The thread: ends with the last sender.
fn write_lines(messages: &Receiver<Message>, dropped: &Dropped, mut out: impl Write) {
    // A standard error that is closed is nobody's any more: lines go nowhere.
    for message in messages {
        match message {
            Message::Line(line) => {
                let _ = out.write_all(&line);
            }
            Message::Flush(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
        }
        let lost = dropped.unreported.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(
                out,
                "{{\"level\":\"WARN\",\"message\":\"log lines were dropped here\",\"lines\":{lost}}}"
            );
        }
    }
}

impl Write for Lines {
    /// Takes one whole line: the formatter writes each at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let full = line.len() > MAX_LINE
            || matches!(
                self.queue.try_send(Message::Line(line.to_vec())),
                Err(TrySendError::Full(_))
            );
        if full {
            self.dropped.total.fetch_add(1, Ordering::Relaxed);
            self.dropped.unreported.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
