//! The worker's log: `tracing` events as single lines on a socket the supervisor reads.
//!
//! Any thread may log. A line that finds no room is dropped and counted, so a supervisor that does
//! not read blocks nobody. Lines hold at most [`MAX_LINE_BYTES`] and no control characters; the
//! domain's name and UUID are added by the supervisor, which knows whose socket it is.

use std::fmt::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The most bytes of a line.
pub const MAX_LINE_BYTES: usize = 1024;

/// How many lines were dropped since the worker started.
#[derive(Debug, Clone, Default)]
pub struct Dropped(Arc<AtomicU64>);

impl Dropped {
    /// The count.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Makes `socket` (non-blocking, message-keeping) the log of this process.
///
/// Called once, before any other thread exists; a second call changes nothing.
pub fn install(socket: OwnedFd) -> Dropped {
    let dropped = Dropped::default();
    let log = SocketLog {
        socket,
        dropped: dropped.clone(),
    };
    let _ = tracing::subscriber::set_global_default(log);
    dropped
}

struct SocketLog {
    socket: OwnedFd,
    dropped: Dropped,
}

impl Subscriber for SocketLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut line = Line(String::with_capacity(256));
        // A `Line` takes what fits and never fails.
        let _ = write!(line, "{} {}:", metadata.level(), metadata.target());
        event.record(&mut line);
        if rustix::io::write(&self.socket, line.0.as_bytes()).is_err() {
            self.dropped.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    // Spans carry nothing here: a worker runs one domain, and its threads have names.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// A bounded line: what does not fit is cut, control characters become spaces.
struct Line(String);

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.0.len() + c.len_utf8() > MAX_LINE_BYTES {
                break;
            }
            self.0.push(if c.is_control() { ' ' } else { c });
        }
        Ok(())
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self, " {value:?}"),
            name => write!(self, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => write!(self, " {value}"),
            name => write!(self, " {name}={value}"),
        };
    }
}
