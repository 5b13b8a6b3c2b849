//! A volume's file on one side, the connection's stream on the other: what comes is written, or what is there is
//! sent. The file stands where its stream begins, and nobody else moves it.
//!
//! A file is always ready, so that a task reads or writes it where it is, a packet at a time: a disk that takes
//! long over one lets this connection wait, and no other.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use tokio::sync::{Notify, mpsc};

use super::{Input, Said, What};
use crate::calls::failure::{Code, Failure, Origin};
use crate::wire::frame::STREAM_CHUNK;

/// Bytes of `length`, at most `most`, that are written or read at once.
fn chunk(length: u64, most: usize) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX).min(most)
}

fn broken(what: &str, error: &io::Error) -> What {
    let why = format!("{what}: {error}");
    What::Failed(Failure::of(Origin::Streams, Code::SystemError, why))
}

/// What an upload is written to.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    position: u64,
    /// The most bytes that it still takes.
    room: u64,
}

impl Sink {
    pub(super) fn new(file: OwnedFd, position: u64, room: u64) -> Self {
        Self {
            file: file.into(),
            position,
            room,
        }
    }

    fn take(&mut self, input: &Input) -> io::Result<()> {
        let length = match input {
            Input::Data(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Input::Hole(length) => *length,
        };
        self.room = self.room.checked_sub(length).ok_or(Errno::NOSPC)?;
        let end = self.position.checked_add(length).ok_or(Errno::FBIG)?;
        match input {
            Input::Data(bytes) => self.file.write_all(bytes)?,
            Input::Hole(0) => {}
            Input::Hole(_) => self.empty(end)?,
        }
        self.position = end;
        Ok(())
    }

    /// Makes zeros of all up to `end`, which is not here.
    fn empty(&mut self, end: u64) -> io::Result<()> {
        let size = seek(&self.file, SeekFrom::End(0))?;
        let there = end.min(size).saturating_sub(self.position);
        if there > 0 {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match fallocate(&self.file, punch, self.position, there) {
                Ok(()) => {}
                // Of a file system that has no holes.
                Err(Errno::OPNOTSUPP) => self.zero(there)?,
                Err(errno) => return Err(errno.into()),
            }
        }
        if end > size {
            // The last byte makes the file as large; a hole is before it.
            seek(&self.file, SeekFrom::Start(end - 1))?;
            self.file.write_all(&[0])?;
        }
        seek(&self.file, SeekFrom::Start(end))?;
        Ok(())
    }

    fn zero(&mut self, mut length: u64) -> io::Result<()> {
        seek(&self.file, SeekFrom::Start(self.position))?;
        let zeros = vec![0; chunk(length, STREAM_CHUNK)];
        while length > 0 {
            let part = chunk(length, zeros.len());
            self.file.write_all(zeros.get(..part).unwrap_or_default())?;
            length -= u64::try_from(part).unwrap_or(length);
        }
        Ok(())
    }
}

/// A file that is written.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) to: Sink,
    pub(super) serial: u32,
    /// What the client sends; closed when it has finished.
    pub(super) sent: mpsc::Receiver<Input>,
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
        while let Some(input) = self.sent.recv().await {
            let written = self.to.take(&input);
            self.queued.fetch_sub(input.held(), Ordering::Relaxed);
            self.drained.notify_one();
            if let Err(error) = written {
                what = broken("cannot write to stream", &error);
                break;
            }
        }
        let serial = self.serial;
        // Whoever looks at the volume when its client is told finds it closed.
        drop(self.to);
        let _ = self.say.send(Said { serial, what }).await;
    }
}

/// What a download is read from.
#[derive(Debug)]
pub(super) struct Source {
    file: File,
    position: u64,
    /// The bytes that are left to be sent.
    left: u64,
    /// Whether holes are told of, and not read.
    holes: bool,
    /// Until where there is no hole, as far as it is known.
    solid: u64,
}

impl Source {
    pub(super) fn new(file: OwnedFd, position: u64, left: u64, holes: bool) -> Self {
        Self {
            file: file.into(),
            position,
            left,
            holes,
            solid: 0,
        }
    }

    /// What comes next. A file that has become shorter ends where it does.
    fn next(&mut self) -> io::Result<What> {
        if self.left > 0 && self.holes && self.position >= self.solid {
            let length = self.hole()?.min(self.left);
            if length > 0 {
                self.passed(length);
                return Ok(What::Hole(length));
            }
        }
        let bytes = self.read()?;
        if bytes.is_empty() {
            return Ok(What::End);
        }
        self.passed(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(What::Data(bytes))
    }

    fn passed(&mut self, length: u64) {
        self.position = self.position.saturating_add(length);
        self.left = self.left.saturating_sub(length);
    }

    /// How long the hole is that begins here; then the file stands behind it, and what is no hole is known.
    fn hole(&mut self) -> io::Result<u64> {
        let data = match seek(&self.file, SeekFrom::Data(self.position)) {
            Ok(data) => data,
            // There is nothing else up to its end.
            Err(Errno::NXIO) => seek(&self.file, SeekFrom::End(0))?.max(self.position),
            Err(errno) => return Err(errno.into()),
        };
        self.solid = match seek(&self.file, SeekFrom::Hole(data)) {
            Ok(hole) => hole,
            Err(Errno::NXIO) => data,
            Err(errno) => return Err(errno.into()),
        };
        seek(&self.file, SeekFrom::Start(data))?;
        Ok(data - self.position)
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut most = self.left;
        if self.holes {
            most = most.min(self.solid.saturating_sub(self.position));
        }
        let mut bytes = vec![0; chunk(most, STREAM_CHUNK)];
        let mut length = 0;
        while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match self.file.read(rest) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// A file that is sent.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) from: Source,
    pub(super) serial: u32,
    /// Nothing that counts; closed when the client has finished.
    pub(super) sent: mpsc::Receiver<Input>,
    /// Its bytes that are not thrown away.
    pub(super) queued: Arc<AtomicUsize>,
    pub(super) say: mpsc::Sender<Said>,
}

impl Download {
    /// Runs until the client has finished, or the file cannot be read.
    pub(super) async fn run(mut self) {
        let serial = self.serial;
        let mut more = true;
        loop {
            tokio::select! {
                biased;
                sent = self.sent.recv() => match sent {
                    Some(input) => {
                        self.queued.fetch_sub(input.held(), Ordering::Relaxed);
                    }
                    None => break,
                },
                // Read when there is a place for it, and not before.
                permit = self.say.reserve(), if more => {
                    let Ok(permit) = permit else { return };
                    let what = match self.from.next() {
                        Ok(what) => what,
                        Err(error) => broken("cannot read from stream", &error),
                    };
                    more = matches!(what, What::Data(_) | What::Hole(_));
                    permit.send(Said { serial, what });
                }
            }
        }
        let what = What::Finished;
        let _ = self.say.send(Said { serial, what }).await;
    }
}
