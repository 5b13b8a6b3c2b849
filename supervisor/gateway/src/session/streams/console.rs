//! A console's task: a socket to a worker on one side, the connection's stream on the other.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::{Said, What};
use crate::calls::failure::{Code, Failure, Origin};

/// Bytes that are taken from a console at a time.
const CHUNK: usize = 16 << 10;
/// How long a guest may take over what was typed before its client left.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A console with its client.
#[derive(Debug)]
pub(super) struct Console {
    pub(super) socket: UnixStream,
    pub(super) serial: u32,
    /// What the client typed; closed when it has finished.
    pub(super) typed: mpsc::Receiver<Vec<u8>>,
    /// Its bytes that are not written.
    pub(super) queued: Arc<AtomicUsize>,
    pub(super) say: mpsc::Sender<Said>,
}

/// What came next.
enum Next<'a> {
    /// There is something to read, and a place for it.
    Read(mpsc::Permit<'a, Said>),
    /// There is room to write.
    Write,
    /// The client typed.
    Typed(Vec<u8>),
    /// The client has finished.
    Finished,
}

impl Console {
    /// Runs until the client has finished, or the console broke.
    pub(super) async fn run(mut self) {
        let mut pending = Pending::default();
        let mut open = true;
        loop {
            let next = tokio::select! {
                permit = readable(&self.socket, &self.say), if open => match permit {
                    Some(permit) => Next::Read(permit),
                    None => return,
                },
                _ = self.socket.writable(), if !pending.is_empty() => Next::Write,
                // What is pending is bounded by what the stream lets be queued.
                typed = self.typed.recv() => typed.map_or(Next::Finished, Next::Typed),
            };
            let result = match next {
                Next::Read(permit) => read(&self.socket).map(|bytes| {
                    if let Some(bytes) = bytes {
                        open = !bytes.is_empty();
                        let what = if open { What::Data(bytes) } else { What::End };
                        permit.send(self.said(what));
                    }
                }),
                Next::Typed(bytes) => {
                    pending.push(&bytes);
                    self.write(&mut pending)
                }
                Next::Write => self.write(&mut pending),
                Next::Finished => {
                    // The guest is given a moment for what it was typed.
                    let _ = tokio::time::timeout(LAST_WORDS, self.flush(&mut pending)).await;
                    let _ = self.say.send(self.said(What::Finished)).await;
                    return;
                }
            };
            if let Err(error) = result {
                let failure = Failure::of(Origin::Streams, Code::SystemError, error.to_string());
                let _ = self.say.send(self.said(What::Failed(failure))).await;
                return;
            }
        }
    }

    const fn said(&self, what: What) -> Said {
        Said {
            serial: self.serial,
            what,
        }
    }

    /// Writes what there is room for. Where the worker has ended, what was typed goes nowhere: its last words
    /// may still come.
    fn write(&self, pending: &mut Pending) -> io::Result<()> {
        let done = match self.socket.try_write(pending.rest()) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) if is_end(&error) => pending.rest().len(),
            Err(error) => return Err(error),
        };
        pending.wrote(done);
        self.queued.fetch_sub(done, Ordering::Relaxed);
        Ok(())
    }

    /// Writes all that is left.
    async fn flush(&self, pending: &mut Pending) -> io::Result<()> {
        while !pending.is_empty() {
            self.socket.writable().await?;
            self.write(pending)?;
        }
        Ok(())
    }
}

/// What was typed and is not written.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    written: usize,
}

impl Pending {
    fn push(&mut self, bytes: &[u8]) {
        if self.written > 0 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn wrote(&mut self, length: usize) {
        self.written += length;
        if self.is_empty() {
            *self = Self::default();
        }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }
}

/// Waits until there is something to read and a place for it; `None` when nobody listens any more.
async fn readable<'a>(
    socket: &UnixStream,
    say: &'a mpsc::Sender<Said>,
) -> Option<mpsc::Permit<'a, Said>> {
    // An error is found by reading.
    let _ = socket.readable().await;
    say.reserve().await.ok()
}

/// What is there; `None` if nothing is after all, and no bytes at the end.
fn read(socket: &UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; CHUNK];
    match socket.try_read(&mut bytes) {
        Ok(length) => {
            bytes.truncate(length);
            bytes.shrink_to_fit();
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if is_end(&error) => Ok(Some(Vec::new())),
        Err(error) => Err(error),
    }
}

/// Whether it only says that the other end is gone.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}
