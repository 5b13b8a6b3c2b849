//! The calls by which the kernel is told of the queues of one pair (`linux/vhost.h`), and `/dev/vhost-net`,
//! which takes them.
//!
//! No other is used, so that the thread's filter can name them:
//!
//! | ioctl | number | when |
//! |---|---|---|
//! | `VHOST_GET_FEATURES` | 0x8008_af00 | once, when the [`VhostNet`] is made |
//! | `VHOST_SET_OWNER`, `VHOST_RESET_OWNER` | 0xaf01, 0xaf02 | when the device starts, and when it stops |
//! | `VHOST_SET_FEATURES` | 0x4008_af00 | when it starts |
//! | `VHOST_SET_MEM_TABLE` | 0x4008_af03 | before queues are handed over, and when blocks of memory come or go |
//! | `VHOST_SET_VRING_NUM`, `_ADDR`, `_BASE` | 0x4008_af10, 0x4028_af11, 0x4008_af12 | as well |
//! | `VHOST_SET_VRING_KICK`, `_CALL`, `_ERR` | 0x4008_af20, 0x4008_af21, 0x4008_af22 | as well |
//! | `VHOST_NET_SET_BACKEND` | 0x4008_af30 | hands a queue over, and takes it back |
//! | `VHOST_GET_VRING_BASE` | 0xc008_af12 | when it was taken back |

use std::fmt::Debug;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::ioctl::{Getter, NoArg, Opcode, Setter, Updater, ioctl, opcode};

use crate::event::Event;
use crate::memory::GuestRam;
use crate::virtio::queue::Queue;
use crate::virtio::vhost::{
    REGION_BYTES, TABLE_BYTES, VRING_ADDR_BYTES, memory_table, take_vring_state, vring_addr,
    vring_state,
};
use crate::virtio::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1};

use super::super::features::F_MRG_RXBUF;

/// `VHOST_VIRTIO`.
const GROUP: u8 = 0xaf;
const GET_FEATURES: Opcode = opcode::read::<u64>(GROUP, 0x00);
const SET_FEATURES: Opcode = opcode::write::<u64>(GROUP, 0x00);
const SET_OWNER: Opcode = opcode::none(GROUP, 0x01);
const RESET_OWNER: Opcode = opcode::none(GROUP, 0x02);
const SET_MEM_TABLE: Opcode = opcode::write::<[u8; TABLE_BYTES]>(GROUP, 0x03);
const SET_VRING_NUM: Opcode = opcode::write::<[u8; 8]>(GROUP, 0x10);
const SET_VRING_ADDR: Opcode = opcode::write::<[u8; VRING_ADDR_BYTES]>(GROUP, 0x11);
const SET_VRING_BASE: Opcode = opcode::write::<[u8; 8]>(GROUP, 0x12);
const GET_VRING_BASE: Opcode = opcode::read_write::<[u8; 8]>(GROUP, 0x12);
const SET_VRING_KICK: Opcode = opcode::write::<[u8; 8]>(GROUP, 0x20);
const SET_VRING_CALL: Opcode = opcode::write::<[u8; 8]>(GROUP, 0x21);
const SET_VRING_ERR: Opcode = opcode::write::<[u8; 8]>(GROUP, 0x22);
const NET_SET_BACKEND: Opcode = opcode::write::<[u8; 8]>(GROUP, 0x30);

/// What of a driver's features is the kernel's business: how rings and headers are laid out. Every kernel that
/// is supported offers all of it.
pub(in super::super) const FEATURES: u64 =
    F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX | F_MRG_RXBUF;
/// The most regions that a memory table has: what the kernel takes if it is not told otherwise.
const MAX_REGIONS: usize = 64;
/// In place of a descriptor: none.
const NO_DESCRIPTOR: i32 = -1;

/// A call. Rings are numbered within their pair: 0 receives, 1 transmits.
#[derive(Debug)]
pub(in super::super) enum Call<'a> {
    /// From now on it is this process whose memory is meant.
    SetOwner,
    /// It is nobody's, and as it was at first: no queue is served.
    ResetOwner,
    /// Of [`FEATURES`], those that were negotiated.
    SetFeatures(u64),
    /// The only memory in which buffers may be.
    SetMemory(&'a GuestRam),
    /// A ring's entries.
    SetSize(u16, u16),
    /// A ring's next available entry.
    SetBase(u16, u16),
    /// Where a ring is: in memory, or there would be no [`Queue`] of it.
    SetAddresses(u16, &'a Queue),
    /// What its driver notifies by.
    SetKick(u16, &'a Event),
    /// What the kernel interrupts by.
    SetInterrupt(u16, &'a Event),
    /// What the kernel signals when a ring is not as it must be, whereupon it touches it no more.
    SetError(u16, &'a Event),
    /// Serves a ring by this queue of a tap from now on, or, by none, no longer: nothing is in flight when the
    /// call returns.
    SetPort(u16, Option<BorrowedFd<'a>>),
    /// The next available entry of a ring that is not served.
    Base(u16),
}

/// What takes the calls; a test's own where there is no `/dev/vhost-net`.
pub(in super::super) trait Calls: Debug + Send + Sync {
    /// Makes a call; gives what [`Call::Base`] asks for, and 0 of any other.
    ///
    /// Whoever hands a ring over keeps the memory of its [`Queue`] mapped until it is taken back.
    ///
    /// # Errors
    /// The kernel's.
    fn make(&self, call: &Call<'_>) -> io::Result<u64>;
}

/// An open `/dev/vhost-net`, by which the kernel serves one pair of queues. It is nobody's while no driver has
/// the device running, so that another process may have a copy of the descriptor and be the next to use it.
#[derive(Debug)]
pub struct VhostNet(OwnedFd);

impl VhostNet {
    /// The one behind `fd`, which no process owns.
    ///
    /// # Errors
    /// It is none, or of a kernel that cannot do what every network device here does.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let offered = features(fd.as_fd())?;
        if offered & FEATURES != FEATURES {
            let lacks = FEATURES & !offered;
            return Err(io::Error::other(format!(
                "vhost-net of this kernel lacks the features {lacks:#x}"
            )));
        }
        Ok(Self(fd))
    }
}

impl Calls for VhostNet {
    fn make(&self, call: &Call<'_>) -> io::Result<u64> {
        let fd = self.0.as_fd();
        match *call {
            Call::SetOwner => bare::<SET_OWNER>(fd),
            Call::ResetOwner => bare::<RESET_OWNER>(fd),
            Call::SetFeatures(features) => set::<SET_FEATURES, _>(fd, features.to_le_bytes()),
            Call::SetMemory(ram) => set::<SET_MEM_TABLE, _>(fd, table(ram)?),
            Call::SetSize(ring, size) => {
                set::<SET_VRING_NUM, _>(fd, vring_state(ring, size.into()))
            }
            Call::SetBase(ring, next) => {
                set::<SET_VRING_BASE, _>(fd, vring_state(ring, next.into()))
            }
            Call::SetAddresses(ring, queue) => {
                set::<SET_VRING_ADDR, _>(fd, vring_addr(ring, addresses(queue)?))
            }
            Call::SetKick(ring, event) => set::<SET_VRING_KICK, _>(fd, file(ring, Some(event))),
            Call::SetInterrupt(ring, event) => {
                set::<SET_VRING_CALL, _>(fd, file(ring, Some(event)))
            }
            Call::SetError(ring, event) => set::<SET_VRING_ERR, _>(fd, file(ring, Some(event))),
            Call::SetPort(ring, port) => set::<NET_SET_BACKEND, _>(fd, file(ring, port)),
            Call::Base(ring) => return base(fd, ring),
        }?;
        Ok(0)
    }
}

/// The table of what of `ram` is there now, by its addresses in this process.
fn table(ram: &GuestRam) -> io::Result<[u8; TABLE_BYTES + MAX_REGIONS * REGION_BYTES]> {
    let pieces = ram.pieces(MAX_REGIONS).into_iter();
    let table = memory_table(pieces.map(|(address, len, mapped)| [address, len, mapped, 0]));
    let mut bytes = [0; TABLE_BYTES + MAX_REGIONS * REGION_BYTES];
    let place = bytes.get_mut(..table.len());
    place
        .ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(&table);
    Ok(bytes)
}

/// Where a queue's parts are mapped in this process.
fn addresses(queue: &Queue) -> io::Result<[u64; 3]> {
    let mut addresses = [0; 3];
    for (to, (address, _, len)) in addresses.iter_mut().zip(queue.layout().parts()) {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let part = queue.ram().slice(address, len);
        *to = part.map_err(io::Error::other)?.ptr_guard().as_ptr() as u64;
    }
    Ok(addresses)
}

/// A ring's number with a descriptor (`struct vhost_vring_file`).
fn file(ring: u16, descriptor: Option<impl AsFd>) -> [u8; 8] {
    let descriptor = descriptor.map_or(NO_DESCRIPTOR, |fd| fd.as_fd().as_raw_fd());
    vring_state(ring, u32::from_ne_bytes(descriptor.to_ne_bytes()))
}

#[expect(unsafe_code, reason = "an ioctl of vhost-net")]
fn features(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: this ioctl writes 64 bits.
    let request = unsafe { Getter::<GET_FEATURES, u64>::new() };
    // SAFETY: what the kernel writes to lives for the call.
    Ok(unsafe { ioctl(fd, request) }?)
}

#[expect(unsafe_code, reason = "an ioctl of vhost-net")]
fn base(fd: BorrowedFd<'_>, ring: u16) -> io::Result<u64> {
    let mut state = vring_state(ring, 0);
    // SAFETY: this ioctl reads and writes a `struct vhost_vring_state`, of 8 bytes.
    let request = unsafe { Updater::<GET_VRING_BASE, [u8; 8]>::new(&mut state) };
    // SAFETY: what the kernel reads and writes lives for the call.
    unsafe { ioctl(fd, request) }?;
    let (_, next) = take_vring_state(u64::from_le_bytes(state));
    Ok(next)
}

/// One of the calls that take nothing.
#[expect(unsafe_code, reason = "an ioctl of vhost-net")]
fn bare<const OPCODE: Opcode>(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: these ioctls access no memory of this process.
    let request = unsafe { NoArg::<OPCODE>::new() };
    // SAFETY: as above.
    Ok(unsafe { ioctl(fd, request) }?)
}

/// One of the calls that read a structure, of which `value` is the bytes.
#[expect(unsafe_code, reason = "an ioctl of vhost-net")]
fn set<const OPCODE: Opcode, const BYTES: usize>(
    fd: BorrowedFd<'_>,
    value: [u8; BYTES],
) -> io::Result<()> {
    // SAFETY: each of these ioctls reads as many bytes as its number says, which is no more than `value` has;
    // of a memory table those of its regions besides, and `table` has room for as many as it counts.
    let request = unsafe { Setter::<OPCODE, [u8; BYTES]>::new(value) };
    // SAFETY: what the kernel reads lives for the call. Of the addresses in it, it makes use when a ring is
    // handed over: they are of guest memory, and stay mapped as long as `Calls::make` asks.
    Ok(unsafe { ioctl(fd, request) }?)
}

#[cfg(test)]
#[path = "calls/tests.rs"]
mod tests;
