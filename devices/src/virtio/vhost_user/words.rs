//! What a back end writes for people to read: lines of a pipe, logged at a limited rate. A line that is
//! too long is cut; one that comes too soon after too many others is counted and lost.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// The most bytes of a line.
const MAX_LINE_BYTES: usize = 512;
/// Bytes read in a turn.
const TURN_BYTES: usize = 4096;
/// Turns at the end of a back end: all that a pipe holds.
const LAST_TURNS: usize = 16;
/// The most lines in a period ...
const MAX_LINES: u32 = 32;
/// ... of this length.
const PERIOD: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Words {
    pipe: OwnedFd,
    /// Read already, without the end of its line.
    line: Vec<u8>,
    begun: Instant,
    lines: u32,
    lost: u64,
}

/// Whether there may be more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Later.
    Later,
    /// At once.
    More,
    /// Nobody writes any more.
    End,
}

impl Words {
    pub(super) fn new(pipe: OwnedFd) -> Result<Self, Errno> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self {
            pipe,
            line: Vec::new(),
            begun: Instant::now(),
            lines: 0,
            lost: 0,
        })
    }

    /// Takes what is there, some of it.
    pub(super) fn turn(&mut self) -> Turn {
        let mut buffer = [0; TURN_BYTES];
        match rustix::io::read(&self.pipe, &mut buffer) {
            Ok(0) => Turn::End,
            Ok(got) => {
                for byte in buffer.iter().take(got) {
                    self.byte(*byte);
                }
                Turn::More
            }
            Err(Errno::AGAIN | Errno::INTR) => Turn::Later,
            Err(_) => Turn::End,
        }
    }

    /// Takes all there is: the back end is given up.
    pub(super) fn log_all(&mut self) {
        for _ in 0..LAST_TURNS {
            if self.turn() != Turn::More {
                break;
            }
        }
        if !self.line.is_empty() {
            self.end_line();
        }
    }

    fn byte(&mut self, byte: u8) {
        if byte == b'\n' {
            self.end_line();
        } else if self.line.len() < MAX_LINE_BYTES {
            self.line.push(byte);
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let now = Instant::now();
        if now.duration_since(self.begun) >= PERIOD {
            self.begun = now;
            self.lines = 0;
            let lost = std::mem::take(&mut self.lost);
            if lost > 0 {
                tracing::warn!("a back end said {lost} lines more than are logged");
            }
        }
        if self.lines >= MAX_LINES {
            self.lost += 1;
            return;
        }
        self.lines += 1;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim();
        if !line.is_empty() {
            tracing::info!("back end: {line}");
        }
    }
}

impl AsFd for Words {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
