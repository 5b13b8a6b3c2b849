//! One stream of a child's output: what came so far, searchable, with the oldest dropped when there
//! is too much of it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use anyhow::Result;

/// Output kept per stream; a guest that floods its console loses the oldest.
const KEPT: usize = 32 << 20;

/// One stream read from the child.
#[derive(Debug)]
pub(super) struct Stream {
    /// `None` after its end.
    pub(super) file: Option<File>,
    pub(super) bytes: Vec<u8>,
    /// How many bytes were dropped from the front.
    pub(super) dropped: usize,
}

/// Offsets count from the start of the stream, whatever was dropped since.
impl Stream {
    pub(super) fn end(&self) -> usize {
        self.dropped + self.bytes.len()
    }

    pub(super) fn find(&self, pattern: &[u8], from: usize) -> Option<usize> {
        let start = from.saturating_sub(self.dropped).min(self.bytes.len());
        let found = self.bytes[start..]
            .windows(pattern.len().max(1))
            .position(|w| w == pattern)?;
        Some(self.dropped + start + found)
    }

    pub(super) fn text(&self, range: std::ops::Range<usize>) -> String {
        let within = |offset: usize| offset.saturating_sub(self.dropped).min(self.bytes.len());
        String::from_utf8_lossy(&self.bytes[within(range.start)..within(range.end)]).into_owned()
    }

    pub(super) fn new(fd: impl Into<OwnedFd>) -> Stream {
        Stream {
            file: Some(File::from(fd.into())),
            bytes: Vec::new(),
            dropped: 0,
        }
    }

    /// Reads once; `false` at the end of the stream.
    pub(super) fn read(&mut self) -> Result<bool> {
        let Some(file) = self.file.as_mut() else {
            return Ok(false);
        };
        let mut buffer = [0; 64 << 10];
        let length = match file.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            // A terminal's master says EIO when the last one on the other side has closed it.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => 0,
            Err(error) => return Err(error.into()),
        };
        if length == 0 {
            self.file = None;
            return Ok(false);
        }
        self.bytes.extend_from_slice(&buffer[..length]);
        if self.bytes.len() > 2 * KEPT {
            let excess = self.bytes.len() - KEPT;
            self.bytes.drain(..excess);
            self.dropped += excess;
        }
        Ok(true)
    }
}
