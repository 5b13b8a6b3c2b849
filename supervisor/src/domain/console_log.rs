//! What a guest writes to its console, kept in a file.
//!
//! One task a running domain, a read-only client of the console that the worker serves: it copies
//! bytes and looks at none of them. It begins where the supervisor before left off, so that what the
//! guest wrote meanwhile is there too, as far as the worker's ring still has it. A guest that writes
//! faster than the rate loses the oldest of it, in its own worker.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reeve_ipc::model::{DomainName, DomainUuid};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::strays::NoRights;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::driver::{CallFailure, Instance};
use super::world::Storage;
use crate::logging::LogFiles;

/// Bytes taken at a time, ...
const CHUNK: usize = 16 << 10;
/// ... and no sooner than this after the ones before: 3 MiB a second at most.
const PACE: Duration = Duration::from_millis(5);
/// How often the position is noted: what is written between is logged twice after a crash.
const NOTE: Duration = Duration::from_secs(1);
/// How long to wait where the files have no room.
const ROOM: Duration = Duration::from_millis(20);

/// How long after it could not be attached it is tried again: at first, and at most.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MOST: Duration = Duration::from_secs(60);

/// Whose console.
#[derive(Debug)]
pub(super) struct ConsoleLog {
    pub(super) name: DomainName,
    pub(super) uuid: DomainUuid,
    pub(super) instance: Arc<dyn Instance>,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) files: LogFiles,
    /// Closed when the worker is gone.
    pub(super) gone: oneshot::Receiver<Infallible>,
}

impl ConsoleLog {
    /// Copies until the worker closes its end, or this is dropped.
    pub(super) async fn copy(mut self) {
        let from = self.storage.console_position(self.uuid);
        let Some((stream, start)) = self.attach(from).await else {
            return;
        };
        let mut position = start;
        if let Some(lost) = from
            .map(|from| start.saturating_sub(from))
            .filter(|lost| *lost > 0)
        {
            let note = format!("\n[{lost} bytes were not logged]\n");
            self.put(note.into_bytes()).await;
        }
        let stream = StdStream::from(stream);
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        let Ok(stream) = UnixStream::from_std(stream) else {
            return;
        };
        let stream = NoRights::new(stream);
        let mut noted = Instant::now();
        let mut chunk = vec![0; CHUNK];
        let mut pending = false;
        loop {
            let read = tokio::time::timeout(NOTE, read(&stream, &mut chunk)).await;
            match read {
                Ok(None) => break,
                Ok(Some(length)) => {
                    let bytes = chunk.get(..length).unwrap_or_default().to_vec();
                    // Where it began is the worker's word.
                    position = position.saturating_add(length as u64);
                    pending = true;
                    self.put(bytes).await;
                    tokio::time::sleep(PACE).await;
                }
                // Nothing came: what is not noted yet is now, and then nothing wakes this up.
                Err(_) if !pending => {
                    if stream.readable().await.is_err() {
                        break;
                    }
                    continue;
                }
                Err(_) => {}
            }
            // With the worker its domain's status goes, for which nobody looks again; and the position in the next
            // one's console is another.
            let lives = matches!(self.gone.try_recv(), Err(TryRecvError::Empty));
            if lives && pending && noted.elapsed() >= NOTE {
                self.storage.set_console_position(self.uuid, position);
                noted = Instant::now();
                pending = false;
            }
        }
    }

    /// Attaches to the console; `None` if the worker is gone before it can be done. A worker that is
    /// silent, full of clients or busy, or a host without descriptors, may have mended itself later.
    async fn attach(&mut self, from: Option<u64>) -> Option<(OwnedFd, u64)> {
        let mut again = AGAIN;
        loop {
            let failure = match self.instance.console(from, false).await {
                Ok(attached) => return Some(attached),
                Err(CallFailure::Gone) => return None,
                Err(failure) => failure,
            };
            if again == AGAIN {
                let (domain, uuid) = (&self.name, self.uuid);
                tracing::warn!(%domain, %uuid, "its console cannot be logged yet: {failure}");
            }
            if tokio::time::timeout(again, &mut self.gone).await.is_ok() {
                return None;
            }
            again = (again * 2).min(AGAIN_MOST);
        }
    }

    async fn put(&self, mut bytes: Vec<u8>) {
        while let Err(back) = self.files.console(&self.name, self.uuid, bytes) {
            bytes = back;
            tokio::time::sleep(ROOM).await;
        }
    }
}

/// Waits for some bytes; `None` at the end, and where the worker sends descriptors instead of them.
async fn read(stream: &NoRights<UnixStream>, chunk: &mut [u8]) -> Option<usize> {
    let attempt = || match scm::receive_bare(stream.as_fd(), chunk) {
        Err(ScmError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        result => Ok(result),
    };
    match stream.async_io(Interest::READABLE, attempt).await {
        Ok(Ok((length, false))) => Some(length),
        _ => None,
    }
}
