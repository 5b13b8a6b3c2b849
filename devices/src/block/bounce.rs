//! Transfers that a file opened with `O_DIRECT` would refuse, by way of an aligned buffer.
//!
//! Such a file takes only whole blocks, and memory that is aligned. Guests seldom ask for anything
//! else, so this is made to be right and small, not fast: one buffer of bounded size, blocking calls,
//! and for a part of a block the whole is read, changed and written. Writers of parts of a block take
//! turns, on all queues of the disk, so that neither writes back what the other has changed; whoever
//! changes the file by other means takes a turn too.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use super::run::{Run, unplugged};
use crate::memory::GuestRam;
use crate::shared::lock;

/// Bytes moved at a time.
const BUFFER_BYTES: usize = 128 * 1024;
/// The largest block and alignment there is.
pub const MAX_BLOCK: u32 = 4096;

/// What a file asks of those who read and write it. A clone is for the same file.
#[derive(Debug, Clone)]
pub struct Direct {
    memory: u32,
    block: u32,
    turn: Arc<Mutex<()>>,
}

impl Direct {
    /// Memory aligned to `memory` bytes, and whole blocks of `block` bytes (`stx_dio_mem_align` and
    /// `stx_dio_offset_align` of statx). `None` unless both are powers of two up to [`MAX_BLOCK`].
    #[must_use]
    pub fn new(memory: u32, block: u32) -> Option<Self> {
        let is_alignment = |value: u32| value.is_power_of_two() && value <= MAX_BLOCK;
        (is_alignment(memory) && is_alignment(block)).then(|| Self {
            memory,
            block,
            turn: Arc::default(),
        })
    }

    /// A file that asks nothing.
    #[must_use]
    pub fn none() -> Self {
        Self {
            memory: 1,
            block: 1,
            turn: Arc::default(),
        }
    }

    /// Keeps others from writing back a block that they have read before. `None` for a file that asks
    /// nothing: nobody does that there.
    pub(super) fn take_turn(&self) -> Option<MutexGuard<'_, ()>> {
        (self.block > 1).then(|| lock(&self.turn))
    }

    /// Whether the file takes this as it is.
    pub(super) fn allows(&self, ram: &GuestRam, run: Run<'_>, offset: u64) -> bool {
        let (memory, block) = (u64::from(self.memory), u64::from(self.block));
        offset % block == 0 && run.len % block == 0 && run.is_aligned(ram, memory, block)
    }
}

/// The buffer, made when it is first needed.
#[derive(Debug)]
pub struct Bounce {
    direct: Direct,
    memory: Vec<u8>,
}

/// A part of a transfer that goes through the buffer at once.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// Where the first block begins.
    start: u64,
    /// Bytes of that block before the transfer.
    lead: usize,
    /// Bytes of the transfer.
    len: usize,
    /// Bytes of all blocks.
    blocks: usize,
}

impl Bounce {
    /// A buffer for a file that asks for `direct`.
    #[must_use]
    pub fn new(direct: Direct) -> Self {
        Self {
            direct,
            memory: Vec::new(),
        }
    }

    /// What its file asks for.
    #[must_use]
    pub fn direct(&self) -> &Direct {
        &self.direct
    }

    /// Reads from byte `offset` of `fd` into `run`; gives how many bytes there were.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn read(
        &mut self,
        fd: BorrowedFd<'_>,
        ram: &GuestRam,
        run: Run<'_>,
        offset: u64,
    ) -> io::Result<u64> {
        let mut done = 0;
        while done < run.len {
            let window = self.window(offset, done, run.len)?;
            let buffer = self.buffer(window.blocks);
            let got = read_blocks(fd, buffer, window.start)?;
            let useful = got.saturating_sub(window.lead).min(window.len);
            let data = buffer.get(window.lead..).unwrap_or_default();
            let data = data.get(..useful).unwrap_or_default();
            if run.part(done, useful as u64).fill(ram, data) < useful {
                return Err(unplugged());
            }
            done += useful as u64;
            if useful < window.len {
                break;
            }
        }
        Ok(done)
    }

    /// Writes `run` to byte `offset` of `fd`; gives how many bytes: all.
    ///
    /// # Errors
    /// The kernel's; some bytes may have been written.
    pub(super) fn write(
        &mut self,
        fd: BorrowedFd<'_>,
        ram: &GuestRam,
        run: Run<'_>,
        offset: u64,
    ) -> io::Result<u64> {
        self.write_with(fd, offset, run.len, |done, data| {
            let part = run.part(done, data.len() as u64);
            match part.empty(ram, data) < data.len() {
                true => Err(unplugged()),
                false => Ok(()),
            }
        })?;
        Ok(run.len)
    }

    /// Writes `len` zeroes to byte `offset` of `fd`.
    ///
    /// # Errors
    /// As for a write.
    pub fn write_zeroes(&mut self, fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
        self.write_with(fd, offset, len, |_, data| {
            data.fill(0);
            Ok(())
        })
    }

    /// Writes `len` bytes; `fill` supplies them, told how many were supplied before. Nothing of a part is
    /// written that it does not have.
    fn write_with(
        &mut self,
        fd: BorrowedFd<'_>,
        offset: u64,
        len: u64,
        mut fill: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let turn = Arc::clone(&self.direct.turn);
        let block = self.direct.block as usize;
        let mut done = 0;
        while done < len {
            let window = self.window(offset, done, len)?;
            let end = window.lead + window.len;
            let buffer = self.buffer(window.blocks);
            let in_part = window.lead > 0 || end < window.blocks;
            let _turn = in_part.then(|| lock(&turn));
            if window.lead > 0 {
                let first = buffer.get_mut(..block).unwrap_or_default();
                read_rest_as_zero(fd, first, window.start)?;
            }
            let last = window.blocks - block;
            if end < window.blocks && (last > 0 || window.lead == 0) {
                let at = window.start + last as u64;
                read_rest_as_zero(fd, buffer.get_mut(last..).unwrap_or_default(), at)?;
            }
            fill(done, buffer.get_mut(window.lead..end).unwrap_or_default())?;
            write_blocks(fd, buffer, window.start)?;
            done += window.len as u64;
        }
        Ok(())
    }

    /// The next part of a transfer of `len` bytes at `offset`, of which `done` are done.
    fn window(&self, offset: u64, done: u64, len: u64) -> io::Result<Window> {
        let block = u64::from(self.direct.block);
        let at = offset
            .checked_add(done)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let lead = at % block;
        let end = lead.saturating_add(len - done).min(BUFFER_BYTES as u64);
        let narrow = |bytes: u64| usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput);
        Ok(Window {
            start: at - lead,
            lead: narrow(lead)?,
            len: narrow(end - lead)?,
            blocks: narrow(end.next_multiple_of(block))?,
        })
    }

    /// The first `len` bytes of the buffer.
    fn buffer(&mut self, len: usize) -> &mut [u8] {
        if self.memory.is_empty() {
            self.memory = vec![0; BUFFER_BYTES + MAX_BLOCK as usize];
        }
        let from = self.memory.as_ptr().align_offset(MAX_BLOCK as usize);
        self.memory.get_mut(from..from + len).unwrap_or_default()
    }
}

/// Fills `buffer` from byte `at` of `fd`, as far as the file goes.
fn read_blocks(fd: BorrowedFd<'_>, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    loop {
        let rest = buffer.get_mut(done..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(done);
        }
        match rustix::io::pread(fd, rest, at + done as u64) {
            Ok(0) => return Ok(done),
            Ok(got) => done += got,
            Err(rustix::io::Errno::INTR) => {}
            // After a short read at the end of the file, the rest is no whole block.
            Err(rustix::io::Errno::INVAL) if done > 0 => return Ok(done),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// As [`read_blocks`]; what the file does not have is zero.
fn read_rest_as_zero(fd: BorrowedFd<'_>, buffer: &mut [u8], at: u64) -> io::Result<()> {
    let got = read_blocks(fd, buffer, at)?;
    buffer.get_mut(got..).unwrap_or_default().fill(0);
    Ok(())
}

/// Writes all of `buffer` to byte `at` of `fd`.
fn write_blocks(fd: BorrowedFd<'_>, buffer: &[u8], at: u64) -> io::Result<()> {
    let mut done = 0;
    loop {
        let rest = buffer.get(done..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        match rustix::io::pwrite(fd, rest, at + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(got) => done += got,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
#[path = "bounce/tests.rs"]
mod tests;
