//! A flash memory of the Intel command set, as UEFI firmware drives it to keep its variables (edk2, OvmfPkg
//! QemuFlashFvbServicesRuntimeDxe; QEMU, hw/block/pflash_cfi01).
//!
//! Reads are not ours: the array is memory that the guest sees and cannot write (a read-only memory slot). Each byte
//! that the guest writes there is a cycle of a command:
//!
//! ```text
//!             0x10, 0x40             any byte: programs it           0xff, 0x50, unknown
//!  ┌───────┐ ─────────────► Program ─────────────────────► ┌────────┐ ──────────────► ┌───────┐
//!  │ Array │  0x20                 0xd0: erases the block  │ Status │                 │ Array │
//!  │       │ ─────────────► Erase ───────────────────────► │        │ ── 0x10, ... ─► └───────┘
//!  └───────┘  0x70                 else: both error bits   └────────┘
//!            ────────────────────────────────────────────►
//! ```
//! Programming clears bits and never sets one; erasing sets all of a block of [`BLOCK_BYTES`]. In every state but Array
//! the byte that was addressed last reads as the status register, and no other byte does: the slot stays, and nothing
//! but that one byte of it changes. Firmware reads the status where it wrote the command. The device's identification
//! and its query table (0x90, 0x98), buffers and locks are not there: such a command is an unknown one. Clearing the
//! status clears its ready bit too, as QEMU does and no real chip: that zero is the sign by which firmware knows a flash.
//!
//! # What is kept
//!
//! The guest sees in the array what it has programmed, at once. The [`FlashStore`] gets it in steps: a run of bytes that
//! were programmed one behind the other within a block, when 0xff ends the run or another place begins one; and each
//! erased block. The guest goes on when the step is kept, so what the store has is always what the guest did up to some
//! moment, and behind 0xff all that it did.
//!
//! A step that the store does not keep sets an error bit, and the device then refuses to program and to erase, with the
//! same bit: what came later must not be kept without it. It is tried again, and the refusals end, when the status is
//! cleared and when the machine is reset. Firmware that starts meanwhile finds the error bit and so no flash.
//!
//! One access is one cycle: at most two steps, and no memory is allocated. vCPU threads, under the device's lock; the
//! control thread while no vCPU runs.

mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::bus::{AccessError, BusDevice};
use crate::memory::{GuestRam, OutsideRam};
use crate::power::Reset;

/// What is erased at once, and the most bytes of a step. The array is a multiple of it.
pub const BLOCK_BYTES: u64 = 4096;
const BLOCK: usize = 4096;
/// The largest array: its content is in the saved state, whose records end at 1 MiB.
pub const MAX_BYTES: u64 = (1 << 20) - BLOCK_BYTES;

const READ_ARRAY: u8 = 0xff;
const READ_STATUS: u8 = 0x70;
const CLEAR_STATUS: u8 = 0x50;
const PROGRAM: u8 = 0x10;
const PROGRAM_TOO: u8 = 0x40;
const ERASE: u8 = 0x20;
const CONFIRM: u8 = 0xd0;

/// No command is being carried out.
const READY: u8 = 1 << 7;
const ERASE_ERROR: u8 = 1 << 5;
const PROGRAM_ERROR: u8 = 1 << 4;

/// Where the content is kept.
///
/// Called on vCPU threads with the device's lock held; an implementation waits for its host for a bounded time only.
pub trait FlashStore: fmt::Debug + Send + Sync {
    /// Keeps `bytes`, which are of one block, at `offset`, behind all that was kept before.
    ///
    /// # Errors
    /// They are not kept, and perhaps the first of them are; the same will be asked again before anything else is.
    fn keep(&self, offset: u64, bytes: &[u8]) -> Result<(), NotKept>;
}

/// A step was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the content of the flash could not be kept")]
pub struct NotKept;

/// An array that there cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a flash of {0} bytes is no multiple of {BLOCK_BYTES} up to {MAX_BYTES}")]
pub struct FlashSizeError(u64);

/// What the next cycle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A command; the array can be read.
    Array,
    /// A command.
    Status,
    /// The byte to be programmed.
    Program,
    /// The confirmation of an erasure.
    Erase,
}

/// The byte that reads as the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    offset: u64,
    /// What the array has there.
    covered: u8,
}

/// The device.
#[derive(Debug)]
pub struct Flash {
    array: GuestRam,
    /// Where the array begins in it.
    base: u64,
    size: u64,
    store: Arc<dyn FlashStore>,
    mode: Mode,
    status: u8,
    /// In every mode but Array.
    shown: Option<Shown>,
    /// What the guest has done and the store has not, from one offset to another.
    pending: Range<u64>,
    /// Something was not kept, and the guest has not been reset or said that it knows.
    refuses: bool,
}

impl Flash {
    /// A flash whose array is the `size` bytes at `base` of `array`, which begin as what `store` has.
    ///
    /// # Errors
    /// [`FlashSizeError`].
    pub fn new(
        array: GuestRam,
        base: u64,
        size: u64,
        store: Arc<dyn FlashStore>,
    ) -> Result<Self, FlashSizeError> {
        let whole = size > 0 && size % BLOCK_BYTES == 0 && size <= MAX_BYTES;
        if !whole || !array.contains(base, size) {
            return Err(FlashSizeError(size));
        }
        Ok(Self {
            array,
            base,
            size,
            store,
            mode: Mode::Array,
            status: READY,
            shown: None,
            pending: 0..0,
            refuses: false,
        })
    }

    /// Has the store keep what it has not kept yet: at the end of a machine, and before one that was restored runs.
    ///
    /// # Errors
    /// [`NotKept`]; the guest finds the error bit.
    pub fn settle(&mut self) -> Result<(), NotKept> {
        while !self.pending.is_empty() {
            self.keep_step()
                .inspect_err(|NotKept| self.refuse(PROGRAM_ERROR))?;
        }
        Ok(())
    }

    /// The same within a cycle: one step, which is all that a guest leaves pending. More of it there is where a restored
    /// machine's could not be kept before its guest ran; that guest is refused until the last of it is kept.
    fn settle_step(&mut self, error: u8) -> Result<(), NotKept> {
        if self.keep_step().is_ok() && self.pending.is_empty() {
            return Ok(());
        }
        self.refuse(error);
        Err(NotKept)
    }

    fn refuse(&mut self, error: u8) {
        self.refuses = true;
        self.status |= READY | error;
    }

    /// One cycle: the guest wrote `byte` at `offset`.
    fn cycle(&mut self, offset: u64, byte: u8) -> Result<(), OutsideRam> {
        self.uncover()?;
        self.mode = match (self.mode, byte) {
            (Mode::Program, byte) => {
                self.program(offset, byte)?;
                Mode::Status
            }
            (Mode::Erase, CONFIRM) => {
                self.erase(offset)?;
                Mode::Status
            }
            (Mode::Erase, _) => {
                self.status |= READY | ERASE_ERROR | PROGRAM_ERROR;
                Mode::Status
            }
            (_, READ_STATUS) => Mode::Status,
            (_, PROGRAM | PROGRAM_TOO) => Mode::Program,
            (_, ERASE) => Mode::Erase,
            (_, CLEAR_STATUS) => {
                self.clear_status();
                Mode::Array
            }
            (_, READ_ARRAY | _) => {
                // An error is in the status by then.
                let _ = self.settle_step(PROGRAM_ERROR);
                Mode::Array
            }
        };
        self.cover(offset)
    }

    fn clear_status(&mut self) {
        self.status = 0;
        if self.refuses {
            self.refuses = false;
            let _ = self.settle_step(PROGRAM_ERROR);
        }
    }

    fn program(&mut self, offset: u64, byte: u8) -> Result<(), OutsideRam> {
        let follows = self.pending.end == offset && offset % BLOCK_BYTES != 0;
        if !follows && !self.refuses {
            let _ = self.settle_step(PROGRAM_ERROR);
        }
        if self.refuses {
            self.status |= READY | PROGRAM_ERROR;
            return Ok(());
        }
        let before = self.byte(offset)?;
        self.put(offset, &[before & byte])?;
        if self.pending.is_empty() {
            self.pending = offset..offset;
        }
        self.pending.end = offset + 1;
        self.status |= READY;
        Ok(())
    }

    fn erase(&mut self, offset: u64) -> Result<(), OutsideRam> {
        if self.refuses || self.settle_step(ERASE_ERROR).is_err() {
            self.status |= READY | ERASE_ERROR;
            return Ok(());
        }
        let block = offset - offset % BLOCK_BYTES;
        self.put(block, &[0xff; BLOCK])?;
        self.pending = block..block + BLOCK_BYTES;
        // An error is in the status by then.
        let _ = self.settle_step(ERASE_ERROR);
        self.status |= READY;
        Ok(())
    }

    fn keep_step(&mut self) -> Result<(), NotKept> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let start = self.pending.start;
        let end = (start - start % BLOCK_BYTES + BLOCK_BYTES).min(self.pending.end);
        let mut buffer = [0; BLOCK];
        let len = usize::try_from(end - start).map_err(|_| NotKept)?;
        let bytes = buffer.get_mut(..len).ok_or(NotKept)?;
        self.content(start, bytes).map_err(|_| NotKept)?;
        self.store.keep(start, bytes)?;
        self.pending.start = end;
        if self.pending.is_empty() {
            self.pending = 0..0;
        }
        Ok(())
    }

    /// The array's bytes from `offset` on, whatever is shown of them.
    fn content(&self, offset: u64, bytes: &mut [u8]) -> Result<(), OutsideRam> {
        self.array.read(self.base + offset, bytes)?;
        let shown = self.shown.and_then(|shown| {
            let index = usize::try_from(shown.offset.checked_sub(offset)?).ok()?;
            Some((bytes.get_mut(index)?, shown.covered))
        });
        if let Some((byte, covered)) = shown {
            *byte = covered;
        }
        Ok(())
    }

    fn byte(&self, offset: u64) -> Result<u8, OutsideRam> {
        let mut byte = [0];
        self.array.read(self.base + offset, &mut byte)?;
        let [byte] = byte;
        Ok(byte)
    }

    fn put(&self, offset: u64, bytes: &[u8]) -> Result<(), OutsideRam> {
        self.array.write(self.base + offset, bytes)
    }

    /// Shows the status at `offset`, if the mode is one in which it is shown.
    fn cover(&mut self, offset: u64) -> Result<(), OutsideRam> {
        if self.mode != Mode::Array {
            let covered = self.byte(offset)?;
            self.put(offset, &[self.status])?;
            self.shown = Some(Shown { offset, covered });
        }
        Ok(())
    }

    fn uncover(&mut self) -> Result<(), OutsideRam> {
        if let Some(Shown { offset, covered }) = self.shown.take() {
            self.put(offset, &[covered])?;
        }
        Ok(())
    }
}

impl BusDevice for Flash {
    /// The guest reads the array without us; this is for the one instruction that is emulated as a whole.
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        self.array
            .read(self.base.saturating_add(offset), data)
            .map_err(|_| AccessError)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError);
        };
        if offset >= self.size {
            return Err(AccessError);
        }
        self.cycle(offset, *byte).map_err(|_| AccessError)
    }
}

impl Reset for Flash {
    fn reset(&mut self) {
        // What is shown is inside the array.
        let _ = self.uncover();
        self.mode = Mode::Array;
        self.status = READY;
        self.refuses = false;
        let _ = self.settle();
    }
}
