//! The variables of UEFI firmware: a flash below the code, and the file that it is kept in.
//!
//! ```text
//!  vCPU ── a byte ──► Flash ── a step ──► StoreFile ──► thread "variables": pwrite, fdatasync
//!                       ◄─────────────── kept, or not ─────┘
//! ```
//! The file is read once, into memory that the guest sees and cannot write. From then on the thread alone has it, open
//! for reading and writing; its filter is that of the threads that serve disks, as a vCPU's has no call that writes a
//! file. Each step is written and made durable before the next one is begun, so the file is at every moment what the
//! guest did up to some moment, but for what the disk makes of a block of 4 KiB that was being written when the power
//! went.
//!
//! The vCPU waits for its step, [`PATIENCE`] at most in one call. If the host takes longer the guest goes on, and waits
//! with its next step; that one is an error if the first is still not done. So a file that hangs holds no pause up. There
//! is one step under way, in memory that is there from the start.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reeve_devices::bus::{MmioAddress, MmioBus};
use reeve_devices::legacy::flash::{BLOCK_BYTES, Flash, FlashStore, NotKept};
use reeve_devices::shared::{Shared, lock, share};
use reeve_sandbox::seccomp::{Role, enter_role};

use super::FirmwareError;
use crate::build::BuildError;
use crate::memory::Rom;

#[cfg(test)]
mod tests;

/// How long a step is waited for; two of them are less than a pause waits for a vCPU. Where several vCPUs use the flash,
/// each waits for those before it, too.
const PATIENCE: Duration = Duration::from_millis(1500);
const BLOCK: usize = 4096;
/// Room for the buffer and the deepest call, with much to spare; untouched pages cost nothing.
const STACK_BYTES: usize = 128 << 10;

/// A flash with its memory.
#[derive(Debug)]
pub struct Variables {
    rom: Arc<Rom>,
    flash: Shared<Flash>,
}

impl Variables {
    /// Reads `file`, which from then on is what the guest makes of it, into memory that ends at the guest-physical
    /// address `end`.
    ///
    /// # Errors
    /// [`FirmwareError`].
    pub fn take(file: File, end: u64) -> Result<Self, FirmwareError> {
        let rom = Arc::new(Rom::load(&file, end).map_err(FirmwareError::Store)?);
        let store = StoreFile::start(file).map_err(FirmwareError::StoreThread)?;
        let flash = Flash::new(rom.ram(), rom.address(), rom.size(), Arc::new(store))?;
        Ok(Self {
            rom,
            flash: share(flash),
        })
    }

    /// The memory.
    #[must_use]
    pub fn rom(&self) -> &Arc<Rom> {
        &self.rom
    }

    /// The device.
    #[must_use]
    pub fn flash(&self) -> &Shared<Flash> {
        &self.flash
    }

    /// Gives the device its place, where writes to the memory arrive.
    pub(crate) fn insert(&self, mmio: &MmioBus) -> Result<(), BuildError> {
        let place = MmioAddress(self.rom.address());
        mmio.insert(place, self.rom.size(), Arc::clone(&self.flash) as _)?;
        Ok(())
    }

    /// Has the file get what the guest did and the file has not. No vCPU runs. What cannot be kept is told to the guest
    /// by the device, and to the log by the thread.
    pub fn settle(&self) {
        let _ = lock(&self.flash).settle();
    }
}

/// The file of a flash's content.
#[derive(Debug)]
pub struct StoreFile(Arc<Desk>);

/// Where the thread gets its work.
#[derive(Debug)]
struct Desk {
    sheet: Mutex<Sheet>,
    asked: Condvar,
    done: Condvar,
}

#[derive(Debug)]
struct Sheet {
    work: Work,
    offset: u64,
    len: usize,
    bytes: Box<[u8; BLOCK]>,
    quits: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// There is none.
    Done,
    /// The step is to be kept, or just being kept.
    Asked,
    /// It could not be kept.
    Failed,
}

impl StoreFile {
    /// Starts the thread that writes `file`, whose length stays what it is.
    ///
    /// # Errors
    /// The host has no thread left.
    pub fn start(file: File) -> io::Result<Self> {
        let desk = Arc::new(Desk::new());
        let theirs = Arc::clone(&desk);
        std::thread::Builder::new()
            .name("variables".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                crate::failure::or_exit(
                    enter_role(Role::Io),
                    "cannot close the filter of the thread that writes variables",
                );
                theirs.serve(&file);
            })?;
        Ok(Self(desk))
    }

    fn keep_until(&self, deadline: Instant, offset: u64, bytes: &[u8]) -> Result<(), NotKept> {
        let mut sheet = self.0.sheet();
        // One that failed when nobody waited for it any more.
        if sheet.work == Work::Failed {
            sheet = self.0.ask(sheet);
        }
        sheet = self.0.wait(sheet, deadline);
        if sheet.work != Work::Done {
            tracing::warn!(
                "a flash's content is not kept: its file does not take what came before"
            );
            return Err(NotKept);
        }
        sheet
            .bytes
            .get_mut(..bytes.len())
            .ok_or(NotKept)?
            .copy_from_slice(bytes);
        (sheet.offset, sheet.len) = (offset, bytes.len());
        sheet = self.0.ask(sheet);
        sheet = self.0.wait(sheet, deadline);
        if sheet.work == Work::Failed {
            // It is the device's again.
            sheet.work = Work::Done;
            return Err(NotKept);
        }
        Ok(())
    }
}

impl FlashStore for StoreFile {
    fn keep(&self, offset: u64, bytes: &[u8]) -> Result<(), NotKept> {
        self.keep_until(Instant::now() + PATIENCE, offset, bytes)
    }
}

impl Drop for StoreFile {
    /// Ends the thread, when it has kept what it was asked to.
    fn drop(&mut self) {
        self.0.sheet().quits = true;
        self.0.asked.notify_one();
    }
}

impl Desk {
    fn new() -> Self {
        Self {
            sheet: Mutex::new(Sheet {
                work: Work::Done,
                offset: 0,
                len: 0,
                bytes: Box::new([0; BLOCK]),
                quits: false,
            }),
            asked: Condvar::new(),
            done: Condvar::new(),
        }
    }

    fn sheet(&self) -> MutexGuard<'_, Sheet> {
        self.sheet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask<'a>(&self, mut sheet: MutexGuard<'a, Sheet>) -> MutexGuard<'a, Sheet> {
        sheet.work = Work::Asked;
        self.asked.notify_one();
        sheet
    }

    /// Waits until nothing is under way, or `deadline`.
    fn wait<'a>(&self, sheet: MutexGuard<'a, Sheet>, deadline: Instant) -> MutexGuard<'a, Sheet> {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self
            .done
            .wait_timeout_while(sheet, left, |sheet| sheet.work == Work::Asked);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// On the thread.
    fn serve(&self, file: &File) {
        let mut buffer = [0; BLOCK];
        let mut sheet = self.sheet();
        loop {
            if sheet.work == Work::Asked {
                let (offset, len) = (sheet.offset, sheet.len);
                buffer.copy_from_slice(sheet.bytes.as_slice());
                drop(sheet);
                let kept = write(file, offset, buffer.get(..len).unwrap_or_default());
                sheet = self.sheet();
                sheet.work = match kept {
                    Ok(()) => Work::Done,
                    Err(error) => {
                        tracing::error!(%error, offset, "a flash's content could not be written");
                        Work::Failed
                    }
                };
                self.done.notify_all();
            } else if sheet.quits {
                return;
            } else {
                sheet = self
                    .asked
                    .wait(sheet)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

fn write(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, offset)?;
    file.sync_data()
}

const _: () = assert!(BLOCK as u64 == BLOCK_BYTES);
