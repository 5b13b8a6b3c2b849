//! A conversation with a guest's agent: a line of JSON each way, by way of its channel.
//!
//! ```text
//!   ──► 0xFF {"execute": "guest-sync-delimited", "arguments": {"id": N}}
//!   ◄── whatever was left of before ... 0xFF {"return": N}
//!   ──► {"execute": ...}
//!   ◄── {"return": ...}, or {"error": ...}
//! ```
//!
//! A channel serves one client at a time, so that whoever connects meanwhile waits for its turn, as long as it
//! gives the agent for the first answer. What comes is the guest's: bounded, and believed in nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use tokio::net::UnixStream;

use crate::calls::failure::{Code, Failure};

/// The most bytes of an answer.
pub(super) const MAX_ANSWER: usize = 1 << 20;
/// The most bytes that are heard before an agent has answered the first time.
const MAX_STALE: usize = 8 << 20;
/// Bytes that are read at a time.
const CHUNK: usize = 16 << 10;
/// What marks the beginning of an answer that is not of before.
const MARK: u8 = 0xFF;

/// An open conversation.
#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    /// What was read and not taken.
    read: Vec<u8>,
    /// Bytes that were heard since the last question, and the most that may be.
    heard: usize,
    most: usize,
}

/// An answer to the first question.
#[derive(Deserialize)]
struct Synced {
    #[serde(rename = "return")]
    id: i64,
}

fn gone(error: &io::Error) -> Failure {
    let why = format!("guest agent disappeared: {error}");
    Failure::new(Code::AgentUnresponsive, why)
}

/// That nothing came at all since a conversation was asked for: it is not known whether the agent was asked yet.
fn unheard() -> Failure {
    let why =
        "Guest agent not available for now: it says nothing, or another client has its channel";
    Failure::new(Code::AgentUnresponsive, why)
}

/// That the agent says nothing.
pub(super) fn silent() -> Failure {
    Failure::new(Code::AgentUnresponsive, "Guest agent not available for now")
}

fn too_long() -> Failure {
    let why = format!("the guest's agent says more than {MAX_ANSWER} bytes");
    Failure::new(Code::InternalError, why)
}

impl Link {
    /// By way of the host's end of a channel.
    pub(super) fn new(fd: OwnedFd) -> Result<Self, Failure> {
        let broken = |error: io::Error| Failure::new(Code::SystemError, error.to_string());
        let stream = std::os::unix::net::UnixStream::from(fd);
        stream.set_nonblocking(true).map_err(broken)?;
        let stream = UnixStream::from_std(stream).map_err(broken)?;
        let read = Vec::new();
        Ok(Self {
            stream,
            read,
            heard: 0,
            most: MAX_STALE,
        })
    }

    /// Sends all of it.
    pub(super) async fn send(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        self.heard = 0;
        while !bytes.is_empty() {
            self.stream.writable().await.map_err(|error| gone(&error))?;
            match self.stream.try_write(bytes) {
                Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(gone(&error)),
            }
        }
        Ok(())
    }

    async fn more(&mut self) -> Result<(), Failure> {
        let mut chunk = [0; CHUNK];
        loop {
            // A guest that never stops must not keep everything else from its turn, deadlines among it.
            tokio::task::coop::consume_budget().await;
            self.stream.readable().await.map_err(|error| gone(&error))?;
            match self.stream.try_read(&mut chunk) {
                Ok(0) => return Err(gone(&io::ErrorKind::UnexpectedEof.into())),
                Ok(length) => {
                    self.heard = self.heard.saturating_add(length);
                    if self.heard > self.most {
                        return Err(too_long());
                    }
                    self.read
                        .extend_from_slice(chunk.get(..length).unwrap_or_default());
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(gone(&error)),
            }
        }
    }

    /// The next line that says anything, without its end.
    pub(super) async fn line(&mut self) -> Result<Vec<u8>, Failure> {
        let mut looked = 0;
        loop {
            if looked == 0 {
                let blank = self.read.iter().take_while(|it| it.is_ascii_whitespace());
                let blank = blank.count();
                self.read.drain(..blank);
            }
            let rest = self.read.get(looked..).unwrap_or_default();
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.read.drain(..=looked + length).collect();
                looked = 0;
                while line.last().is_some_and(u8::is_ascii_whitespace) {
                    line.pop();
                }
                if !line.is_empty() {
                    return Ok(line);
                }
                continue;
            }
            looked = self.read.len();
            if looked > MAX_ANSWER {
                return Err(too_long());
            }
            self.more().await?;
        }
    }

    /// Makes sure that what comes next answers what is said next.
    pub(super) async fn sync(&mut self, patience: Duration) -> Result<(), Failure> {
        match tokio::time::timeout(patience, self.synced()).await {
            Ok(synced) => synced,
            Err(_) if self.heard == 0 => Err(unheard()),
            Err(_) => Err(silent()),
        }
    }

    async fn synced(&mut self) -> Result<(), Failure> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = since.map_or(1, |since| since.as_micros());
        let id = i64::try_from(now & 0xFFFF_FFFF_FFFF).unwrap_or(1);
        let question =
            format!("{{\"execute\":\"guest-sync-delimited\",\"arguments\":{{\"id\":{id}}}}}\n");
        let mut bytes = vec![MARK];
        bytes.extend_from_slice(question.as_bytes());
        self.send(&bytes).await?;
        loop {
            // All up to the last mark is of before.
            match self.read.iter().rposition(|byte| *byte == MARK) {
                Some(at) => {
                    self.read.drain(..=at);
                    let line = self.line().await?;
                    let answer = serde_json::from_slice::<Synced>(&line);
                    if answer.is_ok_and(|answer| answer.id == id) {
                        self.most = MAX_ANSWER + CHUNK;
                        return Ok(());
                    }
                }
                None => {
                    self.read.clear();
                    self.more().await?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_an_agent_of_which_nothing_is_heard_more_is_said_than_of_one_that_is_slow() {
        for (heard, why) in [
            (&b""[..], "another client has its channel"),
            (b"{}\n", "for now"),
        ] {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            rustix::io::write(&theirs, heard).unwrap();
            let mut link = Link::new(ours.into()).unwrap();
            let failure = link.sync(Duration::from_millis(50)).await.unwrap_err();
            assert_eq!(failure.code, Code::AgentUnresponsive);
            assert!(failure.message().ends_with(why), "{}", failure.message());
        }
    }
}
