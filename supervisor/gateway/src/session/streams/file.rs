//! A volume's file on one side, the connection's stream on the other: what comes is written, or what is there is
//! sent. The file stands where its stream begins, and nobody else moves it.
//!
//! A file is always ready, so that it is read and written where it is, a packet at a time: a disk that takes long over
//! one lets this connection wait, and no other.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::{Said, What};
use crate::calls::failure::{Code, Failure, Origin};
use crate::calls::storage::Transfer;
use crate::wire::frame::STREAM_CHUNK;

/// Bytes of `length`, at most `most`, that are written or read at once.
fn chunk(length: u64, most: usize) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX).min(most)
}

fn broken(what: &str, error: &io::Error) -> Failure {
    let why = format!("{what}: {error}");
    Failure::of(Origin::Streams, Code::SystemError, why)
}

/// What an upload is written to.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    position: u64,
    /// The most bytes that it still takes.
    room: u64,
    holes: bool,
}

impl Sink {
    pub(super) fn new(to: Transfer, holes: bool) -> Self {
        Self {
            file: to.file.into(),
            position: to.offset,
            room: to.length,
            holes,
        }
    }

    /// Whether holes pass, which was said when the stream was opened.
    pub(super) const fn takes_holes(&self) -> bool {
        self.holes
    }

    /// Writes what comes next.
    ///
    /// # Errors
    /// There is no room for it, or the file does not take it.
    pub(super) fn data(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.pass(length, |sink, _| sink.file.write_all(bytes))
    }

    /// Makes so many zeros of what comes next.
    ///
    /// # Errors
    /// As for [`Self::data`].
    pub(super) fn hole(&mut self, length: u64) -> Result<(), Failure> {
        self.pass(length, |sink, end| match length {
            0 => Ok(()),
            _ => sink.empty(end),
        })
    }

    fn pass(
        &mut self,
        length: u64,
        write: impl FnOnce(&mut Self, u64) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let failed = |error: io::Error| broken("cannot write to stream", &error);
        let (room, end) = (
            self.room.checked_sub(length),
            self.position.checked_add(length),
        );
        let (Some(room), Some(end)) = (room, end) else {
            return Err(failed(Errno::NOSPC.into()));
        };
        write(self, end).map_err(failed)?;
        (self.room, self.position) = (room, end);
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

/// What a download is read from.
#[derive(Debug)]
struct Source {
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
    fn new(from: Transfer, holes: bool) -> Self {
        Self {
            file: from.file.into(),
            position: from.offset,
            left: from.length,
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

/// Says what is in a file, and then that there is nothing more: a packet when there is a place for it, and not
/// before.
pub(super) async fn download(from: Transfer, holes: bool, serial: u32, say: mpsc::Sender<Said>) {
    let mut source = Source::new(from, holes);
    loop {
        let Ok(permit) = say.reserve().await else {
            return;
        };
        let what = match source.next() {
            Ok(what) => what,
            Err(error) => What::Failed(broken("cannot read from stream", &error)),
        };
        let more = matches!(what, What::Data(_) | What::Hole(_));
        permit.send(Said { serial, what });
        if !more {
            return;
        }
    }
}
