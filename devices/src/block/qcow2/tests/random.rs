//! Random work on a disk, beside a vector that has the same done to it.

use std::io;

use super::support::{Dice, read, write};
use crate::block::Layout;
use crate::block::qcow2::{Qcow2, Storage};

/// Something that a guest asks for, in bytes of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    Write(u64, Vec<u8>),
    Discard(u64, u64),
    Zero(u64, u64, bool),
    Flush,
}

/// The next piece of work on a disk of `size` bytes, about `unit` bytes each.
pub(super) fn work(dice: &mut Dice, size: u64, unit: u64) -> Work {
    let sectors = size / 512;
    let start = dice.below(sectors);
    let most = (4 * unit / 512).max(8).min(sectors - start);
    let mut len = 1 + dice.below(most);
    let mut offset = start * 512;
    if dice.below(3) == 0 {
        // Aligned, as large requests often are.
        offset -= offset % unit;
        len = len.next_multiple_of(unit / 512);
    }
    let len = (len * 512).min(size - offset);
    match dice.below(20) {
        0..=10 => Work::Write(offset, dice.bytes(len as usize)),
        11..=13 => Work::Discard(offset, len),
        14..=15 => Work::Zero(offset, len, true),
        16..=17 => Work::Zero(offset, len, false),
        _ => Work::Flush,
    }
}

/// Does it to the disk and to the vector. What was discarded may read as zero or as before; the
/// vector takes over which.
pub(super) fn perform<S: Storage>(
    disk: &mut Qcow2<S>,
    model: &mut [u8],
    work: &Work,
) -> io::Result<()> {
    let range = |offset: u64, len: u64| offset as usize..(offset + len) as usize;
    match work {
        Work::Write(offset, bytes) => {
            write(disk, *offset, bytes)?;
            model[range(*offset, bytes.len() as u64)].copy_from_slice(bytes);
        }
        Work::Discard(offset, len) => {
            disk.discard(*offset, *len)?;
            let now = read(disk, *offset, *len as usize)?;
            let old = &mut model[range(*offset, *len)];
            for (now, old) in now.chunks(512).zip(old.chunks_mut(512)) {
                assert!(now == old || now.iter().all(|&byte| byte == 0), "discarded");
                old.copy_from_slice(now);
            }
        }
        Work::Zero(offset, len, unmap) => {
            disk.write_zeroes(*offset, *len, *unmap)?;
            model[range(*offset, *len)].fill(0);
        }
        Work::Flush => disk.flush()?,
    }
    Ok(())
}
