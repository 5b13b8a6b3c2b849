//! A file that is appended to and never grows beyond its bounds.
//!
//! ```text
//!   web.log ──(full)──► web.log.1 ──► web.log.2 ──► ... ──► web.log.<keep> ──► gone
//! ```
//!
//! What cannot be written (a full or read-only disk) is dropped and counted; the next write that
//! succeeds says so in its place. Writing never fails to its caller and never waits for a reader.
//!
//! Invariant: `size` is the size of the open file as far as this process wrote it; it does not exceed
//! `max_bytes` by what is written here.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The most rotated files that may be kept.
pub const MAX_KEEP: u32 = 99;

/// Room for the line that tells of a loss.
const NOTICE_ROOM: u64 = 128;
/// The least size of a file.
const MIN_BYTES: u64 = 1024;

/// A log file with its rotated predecessors.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    max_bytes: u64,
    keep: u32,
    file: Option<File>,
    size: u64,
    ends_line: bool,
    /// Lost since the last line that told of it.
    unreported: u64,
    dropped: u64,
}

impl RotatingFile {
    /// Opens or makes the file (mode 0600), with its directory (0700) if there is none. Each file has
    /// at most `max_bytes` (1024 at least), and `keep` (at most [`MAX_KEEP`]) rotated ones are kept.
    ///
    /// # Errors
    /// It cannot be opened, or is no file.
    pub fn open(path: &Path, max_bytes: u64, keep: u32) -> io::Result<Self> {
        let mut this = Self::unopened(path, max_bytes, keep);
        this.reopen()?;
        Ok(this)
    }

    /// As [`RotatingFile::open`], but where it cannot be opened what is written is dropped and
    /// counted until it can be.
    #[must_use]
    pub fn open_or_drop(path: &Path, max_bytes: u64, keep: u32) -> Self {
        let mut this = Self::unopened(path, max_bytes, keep);
        if let Err(error) = this.reopen() {
            tracing::warn!(path = %path.display(), %error, "a log file cannot be opened; what it would have is lost");
        }
        this
    }

    fn unopened(path: &Path, max_bytes: u64, keep: u32) -> Self {
        Self {
            path: path.to_owned(),
            max_bytes: max_bytes.max(MIN_BYTES),
            keep: keep.min(MAX_KEEP),
            file: None,
            size: 0,
            ends_line: true,
            unreported: 0,
            dropped: 0,
        }
    }

    /// The file that is written.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that could not be written so far.
    #[must_use]
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped
    }

    /// Other bounds from now on.
    pub fn set_limits(&mut self, max_bytes: u64, keep: u32) {
        self.max_bytes = max_bytes.max(MIN_BYTES);
        self.keep = keep.min(MAX_KEEP);
        self.prune();
    }

    /// Opens the file anew: after it was moved away by somebody else.
    ///
    /// # Errors
    /// It cannot be opened; what is written is dropped until it can be.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = None;
        let open = || {
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                // A pipe of this name must not hold the supervisor up.
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(&self.path)
        };
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(directory) = self.path.parent() {
                    DirBuilder::new()
                        .recursive(true)
                        .mode(0o700)
                        .create(directory)?;
                }
                open()?
            }
            opened => opened?,
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
        }
        self.size = metadata.len();
        self.ends_line = true;
        self.file = Some(file);
        self.prune();
        Ok(())
    }

    /// Appends; a piece of at most `max_bytes` stays in one file where it can.
    pub fn write(&mut self, bytes: &[u8]) {
        let most = usize::try_from(self.max_bytes - NOTICE_ROOM).unwrap_or(usize::MAX);
        for piece in bytes.chunks(most) {
            let written = self.put(piece).unwrap_or(0);
            let lost = (piece.len() - written) as u64;
            self.unreported = self.unreported.saturating_add(lost);
            self.dropped = self.dropped.saturating_add(lost);
        }
    }

    /// How much of a piece was written.
    fn put(&mut self, piece: &[u8]) -> io::Result<usize> {
        let notice_bytes = if self.unreported > 0 { NOTICE_ROOM } else { 0 };
        let wanted = piece.len() as u64 + notice_bytes;
        if self.file.is_some() && self.size > 0 && self.size + wanted > self.max_bytes {
            self.rotate()?;
        }
        if self.file.is_none() {
            self.reopen()?;
        }
        if self.unreported > 0 {
            let newline = if self.ends_line { "" } else { "\n" };
            let lost = self.unreported;
            let notice = format!("{newline}[reeve: {lost} bytes are lost here]\n");
            if self.append(notice.as_bytes())? < notice.len() {
                return Ok(0);
            }
            self.unreported = 0;
        }
        self.append(piece)
    }

    /// How much was written; an error if nothing was.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(file) = &mut self.file else {
            return Ok(0);
        };
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match file.write(rest) {
                Ok(0) => break,
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if written == 0 => return Err(error),
                Err(_) => break,
            }
        }
        self.size += written as u64;
        if let Some(last) = written.checked_sub(1).and_then(|last| bytes.get(last)) {
            self.ends_line = *last == b'\n';
        }
        Ok(written)
    }

    fn rotated(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// Makes room. On an error the file stays as it is, full.
    fn rotate(&mut self) -> io::Result<()> {
        if self.keep == 0 {
            if let Some(file) = &self.file {
                file.set_len(0)?;
            }
            self.size = 0;
            return Ok(());
        }
        // Up to the first gap only: were the last step to fail again and again, each try would
        // otherwise push one more file out at the end.
        let gap = (1..self.keep)
            .find(|number| self.rotated(*number).symlink_metadata().is_err())
            .unwrap_or(self.keep);
        for number in (1..gap).rev() {
            std::fs::rename(self.rotated(number), self.rotated(number + 1))?;
        }
        match std::fs::rename(&self.path, self.rotated(1)) {
            // Somebody moved it: a new one is made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        self.file = None;
        self.size = 0;
        self.ends_line = true;
        Ok(())
    }

    /// Removes rotated files beyond those that are kept.
    fn prune(&self) {
        for number in self.keep + 1..=MAX_KEEP {
            if std::fs::remove_file(self.rotated(number)).is_err() {
                break;
            }
        }
    }
}
