//! Where frames go on the host: a queue of a tap interface.
//!
//! The supervisor has made the interface, attached this descriptor to it and set up what the host
//! filters; the worker holds nothing but the descriptor. Of the ioctls of a tap, these three are used
//! and no other, so that the thread's filter can name them:
//!
//! | ioctl | number | when |
//! |---|---|---|
//! | `TUNSETVNETHDRSZ` | 0x4004_54d8 | once, when the [`Tap`] is made |
//! | `TUNSETOFFLOAD` | 0x4004_54d0 | when it is made, and when the driver's offloads change |
//! | `TUNSETQUEUE` | 0x4004_54d9 | when the driver changes its number of queues |

use std::fmt::Debug;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::ioctl::{IntegerSetter, Opcode, Setter, ioctl, opcode};

use super::features::Offloads;
use super::header::HEADER_BYTES;
use super::stream::Stream;

/// `TUNSETOFFLOAD`.
const TUNSETOFFLOAD: Opcode = opcode::write::<libc::c_uint>(b'T', 208);
/// `TUNSETVNETHDRSZ`.
const TUNSETVNETHDRSZ: Opcode = opcode::write::<libc::c_int>(b'T', 216);
/// `TUNSETQUEUE`.
const TUNSETQUEUE: Opcode = opcode::write::<libc::c_int>(b'T', 217);

/// `TUN_F_CSUM`.
const CHECKSUM: usize = 0x01;
/// `TUN_F_TSO4`.
const TCP4: usize = 0x02;
/// `TUN_F_TSO6`.
const TCP6: usize = 0x04;
/// `TUN_F_USO4` and `TUN_F_USO6`, which a kernel (6.2 or later) takes only together.
const UDP: usize = 0x20 | 0x40;

/// `IFF_ATTACH_QUEUE`.
const ATTACH_QUEUE: libc::c_short = 0x0200;
/// `IFF_DETACH_QUEUE`.
const DETACH_QUEUE: libc::c_short = 0x0400;

/// What serves one pair of queues: a descriptor of which each read takes one frame and each write
/// gives one, with the header of §5.1.6 in front, that never blocks.
pub trait Port: AsFd + Debug + Send + Sync {
    /// Whether the host can have UDP left uncut, both ways.
    fn cuts_udp(&self) -> bool;

    /// Says what may be left to the driver from now on, on all ports of the interface. Frames that
    /// wait already are as they were.
    ///
    /// # Errors
    /// The host's.
    fn set_offloads(&self, offloads: Offloads) -> io::Result<()>;

    /// Puts the port among those that frames are spread over, or takes it out, with the frames that
    /// wait in it. Without effect if it is so already.
    ///
    /// # Errors
    /// The host's; also when the only port is to be taken out.
    fn set_attached(&self, attached: bool) -> io::Result<()>;

    /// The port, where it is a stream, of which neither a read takes one frame nor a write gives one.
    fn stream(&self) -> Option<&Stream> {
        None
    }
}

/// One queue of a tap interface.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    cuts_udp: bool,
    /// [`UNKNOWN`], [`DETACHED`] or [`ATTACHED`].
    attached: AtomicU8,
}

/// It belongs to the open file, which another process may have used before.
const UNKNOWN: u8 = 0;
const DETACHED: u8 = 1;
const ATTACHED: u8 = 2;

impl Tap {
    /// The queue behind `fd`, attached or not, of an interface made with `IFF_TAP`, `IFF_NO_PI` and
    /// `IFF_VNET_HDR`. The interface is set to headers of 12 bytes and to no offloads.
    ///
    /// # Errors
    /// The host's: no such descriptor, or the ioctls are refused.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = fcntl_getfl(&fd)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        set_header_bytes(fd.as_fd())?;
        let everything = CHECKSUM | TCP4 | TCP6 | UDP;
        let cuts_udp = set_offload_bits(fd.as_fd(), everything).is_ok();
        set_offload_bits(fd.as_fd(), 0)?;
        Ok(Self {
            fd,
            cuts_udp,
            attached: AtomicU8::new(UNKNOWN),
        })
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Port for Tap {
    fn cuts_udp(&self) -> bool {
        self.cuts_udp
    }

    fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        let bits = [
            (offloads.checksum, CHECKSUM),
            (offloads.tcp4, TCP4),
            (offloads.tcp6, TCP6),
            (offloads.udp, UDP),
        ]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .fold(0, |bits, (_, bit)| bits | bit);
        set_offload_bits(self.as_fd(), bits)
    }

    fn set_attached(&self, attached: bool) -> io::Result<()> {
        let before = self.attached.load(Ordering::Relaxed);
        let wanted = if attached { ATTACHED } else { DETACHED };
        if before == wanted {
            return Ok(());
        }
        match set_queue(self.as_fd(), attached) {
            // It is so already.
            Err(error) if before == UNKNOWN && error.raw_os_error() == Some(libc::EINVAL) => {}
            set => set?,
        }
        self.attached.store(wanted, Ordering::Relaxed);
        Ok(())
    }
}

/// `struct ifreq`, of which the kernel looks at the flags only.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct QueueRequest {
    name: [libc::c_char; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<QueueRequest>() == size_of::<libc::ifreq>());

#[expect(unsafe_code, reason = "an ioctl of a tap")]
fn set_header_bytes(fd: BorrowedFd<'_>) -> io::Result<()> {
    const BYTES: libc::c_int = 12;
    const { assert!(BYTES.unsigned_abs() as usize == HEADER_BYTES) };
    // SAFETY: this ioctl reads an int.
    let request = unsafe { Setter::<TUNSETVNETHDRSZ, libc::c_int>::new(BYTES) };
    // SAFETY: what the kernel reads lives for the call.
    Ok(unsafe { ioctl(fd, request) }?)
}

#[expect(unsafe_code, reason = "an ioctl of a tap")]
fn set_offload_bits(fd: BorrowedFd<'_>, bits: usize) -> io::Result<()> {
    // SAFETY: this ioctl takes an integer, and accesses no memory.
    let request = unsafe { IntegerSetter::<TUNSETOFFLOAD>::new_usize(bits) };
    // SAFETY: as above.
    Ok(unsafe { ioctl(fd, request) }?)
}

#[expect(unsafe_code, reason = "an ioctl of a tap")]
fn set_queue(fd: BorrowedFd<'_>, attached: bool) -> io::Result<()> {
    let request = QueueRequest {
        name: [0; libc::IFNAMSIZ],
        flags: if attached { ATTACH_QUEUE } else { DETACH_QUEUE },
        rest: [0; 22],
    };
    // SAFETY: this ioctl reads a `struct ifreq`, as long as this one.
    let request = unsafe { Setter::<TUNSETQUEUE, QueueRequest>::new(request) };
    // SAFETY: what the kernel reads lives for the call.
    Ok(unsafe { ioctl(fd, request) }?)
}

#[cfg(test)]
mod numbers {
    use super::*;

    #[test]
    fn the_ioctls_are_those_that_a_filter_lists() {
        assert_eq!(TUNSETVNETHDRSZ, 0x4004_54d8);
        assert_eq!(TUNSETOFFLOAD, 0x4004_54d0);
        assert_eq!(TUNSETQUEUE, 0x4004_54d9);
    }
}
