//! The worker's log socket: lines for our log, and records of denied system calls.
//!
//! Each datagram is one or the other. Both are hostile: lines are cut, control characters are
//! escaped, and reading stops when they come too fast, so that a flood fills the socket (where the
//! worker drops and counts) and costs nobody else anything.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reeve_ipc::error::{WireError, truncate};
use reeve_ipc::model::{DomainName, DomainUuid};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::strays::NoRights;
use reeve_sandbox::seccomp::denial::Denial;
use tokio::io::unix::AsyncFd;
use tracing::Level;

use crate::host::watch::watch;
use crate::logging::printable;

/// The most bytes of a datagram that are read; the rest is cut.
const MAX_DATAGRAM_BYTES: usize = 1280;
/// Datagrams that may come at once, and the time in which one more is earned.
const BURST: u32 = 256;
const EARN: Duration = Duration::from_millis(20);
/// The most datagrams that are read after the worker's death; its socket holds fewer.
const MAX_LAST_WORDS: usize = 1024;

/// One datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A line, fit to print.
    Line(Level, String),
    /// A system call the sandbox denied.
    Denial(Denial),
    /// A datagram with descriptors, which are closed elsewhere.
    Strays,
}

/// The supervisor's end of a log socket.
#[derive(Debug)]
pub(super) struct LogSocket {
    socket: NoRights<AsyncFd<Arc<OwnedFd>>>,
    tokens: u32,
    earned_at: Instant,
    closed: bool,
}

impl LogSocket {
    pub(super) fn new(socket: OwnedFd) -> std::io::Result<Self> {
        Ok(Self {
            socket: NoRights::new(watch(Arc::new(socket))?),
            tokens: BURST,
            earned_at: Instant::now(),
            closed: false,
        })
    }

    /// The next datagram; pends for good once the worker's end is closed. May be dropped and called
    /// again at any time.
    pub(super) async fn next(&mut self) -> Record {
        loop {
            if self.closed {
                std::future::pending::<()>().await;
            }
            self.earn(Instant::now());
            if self.tokens == 0 {
                tokio::time::sleep(EARN).await;
                continue;
            }
            let Ok(mut ready) = self.socket.readable().await else {
                self.closed = true;
                continue;
            };
            match receive(ready.get_inner()) {
                Ok(Some(record)) => {
                    self.tokens -= 1;
                    return record;
                }
                Ok(None) => self.closed = true,
                Err(ScmError::WouldBlock) => ready.clear_ready(),
                Err(_) => self.closed = true,
            }
        }
    }

    /// What a dead worker left in its socket.
    pub(super) fn last_words(&self) -> impl Iterator<Item = Record> {
        std::iter::from_fn(|| receive(self.socket.get_ref()).ok().flatten()).take(MAX_LAST_WORDS)
    }

    fn earn(&mut self, now: Instant) {
        let earned = now.saturating_duration_since(self.earned_at).as_millis() / EARN.as_millis();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(BURST);
            self.tokens = self.tokens.saturating_add(earned).min(BURST);
            self.earned_at = now;
        }
    }
}

/// One datagram without waiting, `None` at the end.
fn receive(socket: &OwnedFd) -> Result<Option<Record>, ScmError> {
    let mut buffer = [0; MAX_DATAGRAM_BYTES];
    match scm::receive_bare_cut(socket.as_fd(), &mut buffer) {
        Ok((_, true)) => Ok(Some(Record::Strays)),
        Ok((length, false)) => Ok(Some(parse(buffer.get(..length).unwrap_or_default()))),
        Err(ScmError::Closed) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(bytes: &[u8]) -> Record {
    if let Ok(denial) = Denial::decode(bytes) {
        return Record::Denial(denial);
    }
    let text = String::from_utf8_lossy(bytes);
    let (level, text) = match text.split_once(' ') {
        Some(("ERROR", rest)) => (Level::ERROR, rest),
        Some(("WARN", rest)) => (Level::WARN, rest),
        Some(("INFO", rest)) => (Level::INFO, rest),
        Some(("DEBUG", rest)) => (Level::DEBUG, rest),
        Some(("TRACE", rest)) => (Level::TRACE, rest),
        _ => (Level::INFO, text.as_ref()),
    };
    Record::Line(level, printable(text.trim_end_matches('\n')))
}

/// What a worker says of a failure, made fit for one line of an answer: a worker that is honest sends
/// no more than is kept.
pub(super) fn quoted(text: &str) -> String {
    let mut text = printable(text);
    truncate(&mut text, WireError::MAX_MESSAGE_BYTES);
    text
}

/// Puts a worker's line into our log.
pub(super) fn relay(level: Level, domain: &DomainName, uuid: DomainUuid, line: &str) {
    macro_rules! relay {
        ($level:expr) => {
            tracing::event!(target: "reeve_worker", $level, %domain, %uuid, "{line}")
        };
    }
    match level {
        Level::ERROR => relay!(Level::ERROR),
        Level::WARN => relay!(Level::WARN),
        Level::INFO => relay!(Level::INFO),
        Level::DEBUG => relay!(Level::DEBUG),
        Level::TRACE => relay!(Level::TRACE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_level_and_no_control_character() {
        assert_eq!(
            parse(b"WARN serial: overrun\n"),
            Record::Line(Level::WARN, "serial: overrun".to_owned())
        );
        assert_eq!(
            parse(b"ERROR x: \x1b[2J\r\nfake\x00"),
            Record::Line(Level::ERROR, "x: \\u{1b}[2J\\r\\nfake\\u{0}".to_owned())
        );
        assert_eq!(
            parse(b"no level"),
            Record::Line(Level::INFO, "no level".to_owned())
        );
        let Record::Line(_, line) = parse("INFO a\u{202e}b\u{9b}".as_bytes()) else {
            panic!("a line")
        };
        assert_eq!(line, "a\\u{202e}b\\u{9b}");
    }

    #[test]
    fn bytes_that_are_no_text_are_still_a_line() {
        assert!(matches!(
            parse(&[0xff, 0xfe, b' ']),
            Record::Line(Level::INFO, _)
        ));
    }

    #[tokio::test]
    async fn a_flood_is_left_in_the_socket() {
        let (ours, theirs) = reeve_ipc::scm::pair().unwrap();
        let mut log = LogSocket::new(ours).unwrap();
        log.tokens = 3;
        let send = || reeve_ipc::scm::send(std::os::fd::AsFd::as_fd(&theirs), b"INFO a: b", &[]);
        while send().is_ok() {}
        let mut read = 0;
        let flood = async {
            loop {
                log.next().await;
                read += 1;
            }
        };
        let _ = tokio::time::timeout(EARN * 5, flood).await;
        assert!((3..=3 + 8).contains(&read), "{read} lines");
        drop(theirs);
        assert!(log.last_words().count() > 8);
    }
}
