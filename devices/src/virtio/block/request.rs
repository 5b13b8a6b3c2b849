//! Requests of virtio-blk as they are in guest memory (virtio 1.3 §5.2.6).
//!
//! The header is copied once and only the copy is looked at; the same for the range of a discard. How
//! a request is spread over buffers is the driver's choice: the header is the first 16 readable bytes,
//! the status the last writable one.

use crate::block::SECTOR_BYTES;
use crate::block::engine::MAX_REQUEST_BYTES;
use crate::memory::GuestRam;
use crate::virtio::chain::Chain;
use crate::virtio::queue::QueueFault;

/// `VIRTIO_BLK_S_OK`.
pub(super) const OK: u8 = 0;
/// `VIRTIO_BLK_S_IOERR`.
pub(super) const IOERR: u8 = 1;
/// `VIRTIO_BLK_S_UNSUPP`.
pub(super) const UNSUPP: u8 = 2;

/// Bytes of the header, `struct virtio_blk_req` up to its data.
pub(super) const HEADER_BYTES: usize = 16;
/// Bytes of what `VIRTIO_BLK_T_GET_ID` gives.
pub(super) const ID_BYTES: usize = 20;
/// Bytes of one range, `struct virtio_blk_discard_write_zeroes`.
const RANGE_BYTES: usize = 16;
/// The flag `unmap` of a range.
const UNMAP: u32 = 1;

const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
const T_DISCARD: u32 = 11;
const T_WRITE_ZEROES: u32 = 13;

/// The most sectors of one discard: 1 GiB.
pub(super) const MAX_DISCARD_SECTORS: u32 = 1 << 21;
/// The most sectors zeroed at once, 128 MiB: storage that cannot do it is sent the zeroes.
pub(super) const MAX_ZERO_SECTORS: u32 = 1 << 18;

/// What a disk lets its driver do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    /// Change what is on it.
    pub(super) write: bool,
    /// `VIRTIO_BLK_T_DISCARD`.
    pub(super) discard: bool,
    /// `VIRTIO_BLK_T_WRITE_ZEROES`.
    pub(super) write_zeroes: bool,
    /// The flag `unmap` of those means something.
    pub(super) unmap: bool,
}

/// What a driver asks for. Offsets and lengths are in bytes, and not yet compared with the disk's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Fill the writable bytes, but for the last.
    Read { offset: u64, len: u64 },
    /// Take the readable bytes behind the header.
    Write { offset: u64, len: u64 },
    /// Make writes durable.
    Flush,
    /// Give the disk's serial number.
    Identify,
    /// Forget a range.
    Discard { offset: u64, len: u64 },
    /// Zero a range.
    WriteZeroes { offset: u64, len: u64, unmap: bool },
}

/// A request: where its status goes, and what is asked, or the status if that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// Guest-physical address of the status byte.
    pub(super) status: u64,
    /// What is asked, or why not.
    pub(super) command: Result<Command, u8>,
}

/// Reads the request that `chain` is.
///
/// # Errors
/// There is no byte for the status: nothing can be answered.
pub(super) fn parse(
    chain: &Chain,
    ram: &GuestRam,
    allowed: Allowed,
) -> Result<Request, QueueFault> {
    let last = chain
        .writable()
        .last()
        .ok_or(QueueFault::Request("block request without a status byte"))?;
    Ok(Request {
        // A span has a byte and lies in RAM.
        status: last.address + u64::from(last.len) - 1,
        command: command(chain, ram, allowed),
    })
}

fn command(chain: &Chain, ram: &GuestRam, allowed: Allowed) -> Result<Command, u8> {
    let mut header = [0; HEADER_BYTES];
    if chain.read_at(ram, 0, &mut header) < header.len() {
        return Err(IOERR);
    }
    let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
    let sector = u64::from_le_bytes(sector);
    let out = chain.readable_bytes() - HEADER_BYTES as u64;
    let into = chain.writable_bytes() - 1;
    match u32::from_le_bytes([k0, k1, k2, k3]) {
        T_IN => transfer(sector, into).map(|(offset, len)| Command::Read { offset, len }),
        T_OUT if !allowed.write => Err(IOERR),
        T_OUT => transfer(sector, out).map(|(offset, len)| Command::Write { offset, len }),
        T_FLUSH => Ok(Command::Flush),
        T_GET_ID if into < ID_BYTES as u64 => Err(IOERR),
        T_GET_ID => Ok(Command::Identify),
        T_DISCARD if allowed.discard => range(chain, ram, out, allowed, MAX_DISCARD_SECTORS)
            .and_then(|(offset, len, flags)| match flags {
                0 => Ok(Command::Discard { offset, len }),
                _ => Err(UNSUPP),
            }),
        T_WRITE_ZEROES if allowed.write_zeroes => range(chain, ram, out, allowed, MAX_ZERO_SECTORS)
            .and_then(|(offset, len, flags)| {
                if flags & !UNMAP != 0 {
                    return Err(UNSUPP);
                }
                let unmap = allowed.unmap && flags & UNMAP != 0;
                Ok(Command::WriteZeroes { offset, len, unmap })
            }),
        // Among them SCSI commands, which nobody needs and which have hurt others.
        _ => Err(UNSUPP),
    }
}

/// Where `len` bytes from `sector` on are.
fn transfer(sector: u64, len: u64) -> Result<(u64, u64), u8> {
    if len == 0 || len % SECTOR_BYTES != 0 || len > MAX_REQUEST_BYTES {
        return Err(IOERR);
    }
    Ok((sector.checked_mul(SECTOR_BYTES).ok_or(IOERR)?, len))
}

/// The one range of a discard or of zeroes, in bytes, and its flags.
fn range(
    chain: &Chain,
    ram: &GuestRam,
    out: u64,
    allowed: Allowed,
    max_sectors: u32,
) -> Result<(u64, u64, u32), u8> {
    // One range is what the device said it takes.
    if !allowed.write || out != RANGE_BYTES as u64 {
        return Err(IOERR);
    }
    let mut bytes = [0; RANGE_BYTES];
    if chain.read_at(ram, HEADER_BYTES as u64, &mut bytes) < bytes.len() {
        return Err(IOERR);
    }
    let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = bytes;
    let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
    if sectors > max_sectors {
        return Err(IOERR);
    }
    let offset = sector.checked_mul(SECTOR_BYTES).ok_or(IOERR)?;
    let len = u64::from(sectors) * SECTOR_BYTES;
    Ok((offset, len, u32::from_le_bytes(flags)))
}

#[cfg(test)]
#[path = "request/tests.rs"]
mod tests;
