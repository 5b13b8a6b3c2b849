//! A volume's file on one side, the connection's stream on the other: what comes is written, or what is there is
//! sent. The file stands where its stream begins, and is read and written from there on by nobody else.
//!
//! A file is always ready, so that a task reads or writes it where it is, a packet at a time: a disk that takes
//! long over one lets this connection wait, and no other.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, mpsc};

use super::{Said, What};
use crate::calls::failure::{Code, Failure, Origin};
use crate::wire::frame::STREAM_CHUNK;

fn broken(what: &str, error: &io::Error) -> What {
    let why = format!("{what}: {error}");
    What::Failed(Failure::of(Origin::Streams, Code::SystemError, why))
}

/// A file that is written.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) file: File,
    /// The most bytes that it still takes.
    pub(super) room: u64,
    pub(super) serial: u32,
    /// What the client sends; closed when it has finished.
    pub(super) sent: mpsc::Receiver<Vec<u8>>,
    /// Its bytes that are not written.
    pub(super) queued: Arc<AtomicUsize>,
    /// Rung when some of them are.
    pub(super) drained: Arc<Notify>,
    pub(super) say: mpsc::Sender<Said>,
}

impl Upload {
    /// Runs until the client has finished, or the file takes no more.
    pub(super) async fn run(mut self) {
        let mut what = What::Finished;
        while let Some(bytes) = self.sent.recv().await {
            let written = self.write(&bytes);
            self.queued.fetch_sub(bytes.len(), Ordering::Relaxed);
            self.drained.notify_one();
            if let Err(error) = written {
                what = broken("cannot write to stream", &error);
                break;
            }
        }
        let serial = self.serial;
        // Whoever looks at the volume when its client is told finds it closed.
        drop(self.file);
        let _ = self.say.send(Said { serial, what }).await;
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let Some(room) = self.room.checked_sub(length) else {
            return Err(rustix::io::Errno::NOSPC.into());
        };
        self.room = room;
        self.file.write_all(bytes)
    }
}

/// A file that is sent.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) file: File,
    /// The bytes that are left to be sent.
    pub(super) left: u64,
    pub(super) serial: u32,
    /// Nothing that counts; closed when the client has finished.
    pub(super) sent: mpsc::Receiver<Vec<u8>>,
    /// Its bytes that are not thrown away.
    pub(super) queued: Arc<AtomicUsize>,
    pub(super) say: mpsc::Sender<Said>,
}

impl Download {
    /// Runs until the client has finished, or the file cannot be read.
    pub(super) async fn run(mut self) {
        let mut more = true;
        loop {
            tokio::select! {
                biased;
                sent = self.sent.recv() => match sent {
                    Some(bytes) => {
                        self.queued.fetch_sub(bytes.len(), Ordering::Relaxed);
                    }
                    None => break,
                },
                // Read when there is a place for it, and not before.
                permit = self.say.reserve(), if more => {
                    let Ok(permit) = permit else { return };
                    let what = match read(&mut self.file, &mut self.left) {
                        Ok(bytes) if bytes.is_empty() => What::End,
                        Ok(bytes) => What::Data(bytes),
                        Err(error) => broken("cannot read from stream", &error),
                    };
                    more = matches!(what, What::Data(_));
                    permit.send(Said { serial: self.serial, what });
                }
            }
        }
        let serial = self.serial;
        let what = What::Finished;
        let _ = self.say.send(Said { serial, what }).await;
    }
}

/// The next bytes, and none at the end. A file that has become shorter ends there.
fn read(file: &mut File, left: &mut u64) -> io::Result<Vec<u8>> {
    let most = usize::try_from(*left).unwrap_or(usize::MAX);
    let mut bytes = vec![0; most.min(STREAM_CHUNK)];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    *left = left.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
    Ok(bytes)
}
