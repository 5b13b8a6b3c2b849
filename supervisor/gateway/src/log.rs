//! The gateway's log: `tracing` events as single lines on the socket to the supervisor, which adds whose client
//! it is. Lines that find no room are lost: a supervisor that does not read must block nobody.

use std::fmt::{self, Write};
use std::os::fd::OwnedFd;

use reeve_ipc::gateway::MAX_WORDS_BYTES;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Makes `socket` (non-blocking, message-keeping) the log of this process. A second call changes nothing.
pub fn install(socket: OwnedFd) {
    let _ = tracing::subscriber::set_global_default(SocketLog { socket });
}

struct SocketLog {
    socket: OwnedFd,
}

impl Subscriber for SocketLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::with_capacity(128));
        // A `Line` takes what fits and never fails.
        let _ = write!(line, "{}:", event.metadata().level());
        event.record(&mut line);
        let _ = rustix::io::write(&self.socket, line.0.as_bytes());
    }

    // Spans carry nothing here: a gateway has one client.
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
            if self.0.len() + c.len_utf8() > MAX_WORDS_BYTES {
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use reeve_ipc::scm;

    use super::*;

    #[test]
    fn a_line_is_bounded_and_has_no_control_characters() {
        let (ours, theirs) = scm::pair().unwrap();
        let log = SocketLog { socket: theirs };
        tracing::subscriber::with_default(log, || {
            let long = "x".repeat(1000);
            tracing::info!(path = "a\nb", "taken and not provided: {long}");
            tracing::debug!("not of interest");
        });
        let (line, _) = scm::receive_message(ours.as_fd()).unwrap();
        let line = String::from_utf8(line).unwrap();
        assert!(line.starts_with("INFO:"), "{line}");
        assert!(line.contains("taken and not provided: xxx"), "{line}");
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(line.len(), MAX_WORDS_BYTES);
        assert!(scm::receive_message(ours.as_fd()).is_err());
    }
}
