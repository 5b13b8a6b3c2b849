//! The calls that make and set up taps (netdevice(7), `linux/if_tun.h`, `linux/sockios.h`).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;

/// Bytes of a name with its terminator.
const NAME_BYTES: usize = libc::IFNAMSIZ;
/// Fails where there is such an interface already (`IFF_TUN_EXCL`).
pub(super) const EXCLUSIVE: u16 = 0x8000;
/// Bytes of the header in front of each frame (`struct virtio_net_hdr_v1`).
const HEADER_BYTES: i32 = 12;

const TAP: u16 = 0x0002; // IFF_TAP
const MULTI_QUEUE: u16 = 0x0100; // IFF_MULTI_QUEUE
const PERSISTENT: u16 = 0x0800; // IFF_PERSIST
const BARE: u16 = 0x1000; // IFF_NO_PI
const HEADER: u16 = 0x4000; // IFF_VNET_HDR
const UP: u16 = 0x0001; // IFF_UP
const ETHERNET: u16 = libc::ARPHRD_ETHER;

/// What a tap of so many queues is opened with.
pub(super) const fn flags(queues: u16) -> u16 {
    let flags = TAP | BARE | HEADER;
    if queues > 1 {
        flags | MULTI_QUEUE
    } else {
        flags
    }
}

/// `struct ifreq`: a name, and 24 bytes that hold whatever a call is about, from the first on.
#[repr(C, align(8))]
struct Request {
    name: [u8; NAME_BYTES],
    value: [u8; 24],
}

const _: () = assert!(
    size_of::<Request>() == size_of::<libc::ifreq>()
        && align_of::<Request>() >= align_of::<libc::ifreq>()
);

impl Request {
    /// About an interface; a name too long for one is of none.
    fn about(name: &str) -> Result<Self, Errno> {
        if name.len() >= NAME_BYTES {
            return Err(Errno::NODEV);
        }
        let mut request = Self {
            name: [0; NAME_BYTES],
            value: [0; 24],
        };
        for (to, from) in request.name.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Ok(request)
    }

    fn put<const N: usize>(&mut self, value: [u8; N]) {
        for (to, from) in self.value.iter_mut().zip(value) {
            *to = from;
        }
    }

    fn number(&self) -> i32 {
        let [a, b, c, d, ..] = self.value;
        i32::from_ne_bytes([a, b, c, d])
    }

    fn flags(&self) -> u16 {
        let [a, b, ..] = self.value;
        u16::from_ne_bytes([a, b])
    }

    fn name(&self) -> String {
        let bytes = self.name.split(|byte| *byte == 0).next();
        String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
    }
}

/// The calls of this file, all of which take a `struct ifreq`.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Call {
    GetName = 0x8910,     // SIOCGIFNAME
    GetFlags = 0x8913,    // SIOCGIFFLAGS
    SetFlags = 0x8914,    // SIOCSIFFLAGS
    GetMtu = 0x8921,      // SIOCGIFMTU
    SetMtu = 0x8922,      // SIOCSIFMTU
    SetAddress = 0x8924,  // SIOCSIFHWADDR
    GetIndex = 0x8933,    // SIOCGIFINDEX
    AddToBridge = 0x89a2, // SIOCBRADDIF
    Attach = 0x4004_54ca, // TUNSETIFF
    GetTap = 0x8004_54d2, // TUNGETIFF
}

#[expect(unsafe_code, reason = "rustix has no calls about interfaces")]
fn call(fd: impl AsFd, call: Call, request: &mut Request) -> Result<(), Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: each of these calls reads and writes one `struct ifreq` through the pointer during the
    // call; `Request` has its size and at least its alignment, all of it is initialised, and any bytes
    // are a value of it. None of these calls takes a pointer in it.
    let result = unsafe { libc::ioctl(fd, call as u32 as libc::Ioctl, &raw mut *request) };
    if result < 0 { Err(last()) } else { Ok(()) }
}

/// The calls that take an `int`.
#[derive(Clone, Copy)]
#[repr(u32)]
enum NumberCall {
    SendBuffer = 0x4004_54d4,   // TUNSETSNDBUF
    HeaderSize = 0x4004_54d8,   // TUNSETVNETHDRSZ
    LittleEndian = 0x4004_54dc, // TUNSETVNETLE
}

#[expect(unsafe_code, reason = "rustix has no calls about taps")]
fn call_number(fd: impl AsFd, call: NumberCall, value: i32) -> Result<(), Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: each of these calls reads one `int` through the pointer during the call.
    let result = unsafe { libc::ioctl(fd, call as u32 as libc::Ioctl, &raw const value) };
    if result < 0 { Err(last()) } else { Ok(()) }
}

fn last() -> Errno {
    let error = std::io::Error::last_os_error();
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// Makes a descriptor of `/dev/net/tun` a queue of the tap of that name; gives the name, which the kernel
/// fills in for a pattern.
pub(super) fn attach(queue: &OwnedFd, name: &str, flags: u16) -> Result<String, Errno> {
    let mut request = Request::about(name)?;
    request.put(flags.to_ne_bytes());
    call(queue, Call::Attach, &mut request)?;
    Ok(request.name())
}

/// The name of the link that a descriptor is a queue of.
pub(super) fn name(queue: &OwnedFd) -> Result<String, Errno> {
    let mut request = Request::about("")?;
    call(queue, Call::GetTap, &mut request)?;
    Ok(request.name())
}

/// Whether the tap stays when nobody has it open.
pub(super) fn is_persistent(queue: &OwnedFd) -> Result<bool, Errno> {
    let mut request = Request::about("")?;
    call(queue, Call::GetTap, &mut request)?;
    Ok(request.flags() & PERSISTENT != 0)
}

/// Has vhost-net hand the queues of a tap each frame by itself, as a `write` of it does: only of a queue whose send
/// buffer has no bound it takes a way of its own into the kernel's network code. This bound is as good as none.
pub(super) fn take_singly(queue: &OwnedFd) -> Result<(), Errno> {
    call_number(queue, NumberCall::SendBuffer, i32::MAX - 1)
}

/// The bound on a queue's send buffer.
#[cfg(test)]
#[expect(unsafe_code, reason = "rustix has no calls about taps")]
pub(super) fn send_buffer(queue: &OwnedFd) -> Result<i32, Errno> {
    const GET_SEND_BUFFER: u32 = 0x8004_54d3; // TUNGETSNDBUF
    let (fd, mut bytes) = (queue.as_raw_fd(), 0_i32);
    // SAFETY: this call writes one `int` through the pointer during the call.
    let result = unsafe { libc::ioctl(fd, GET_SEND_BUFFER as libc::Ioctl, &raw mut bytes) };
    if result < 0 { Err(last()) } else { Ok(bytes) }
}

/// Has each frame begin with a virtio header of version 1.
pub(super) fn set_header(queue: &OwnedFd) -> Result<(), Errno> {
    call_number(queue, NumberCall::HeaderSize, HEADER_BYTES)?;
    call_number(queue, NumberCall::LittleEndian, 1)
}

/// Sets up interfaces by name.
#[derive(Debug)]
pub(super) struct Control(OwnedFd);

impl Control {
    pub(super) fn open() -> Result<Self, Errno> {
        super::control_socket().map(Self)
    }

    fn ask(&self, name: &str, which: Call) -> Result<Request, Errno> {
        let mut request = Request::about(name)?;
        call(&self.0, which, &mut request)?;
        Ok(request)
    }

    fn set<const N: usize>(&self, name: &str, which: Call, value: [u8; N]) -> Result<(), Errno> {
        let mut request = Request::about(name)?;
        request.put(value);
        call(&self.0, which, &mut request)
    }

    /// The name of the interface with that number; `ENODEV` where there is none.
    pub(super) fn name(&self, index: i32) -> Result<String, Errno> {
        let mut request = Request::about("")?;
        request.put(index.to_ne_bytes());
        call(&self.0, Call::GetName, &mut request)?;
        Ok(request.name())
    }

    /// The interface's number; `ENODEV` where there is none.
    pub(super) fn index(&self, name: &str) -> Result<i32, Errno> {
        Ok(self.ask(name, Call::GetIndex)?.number())
    }

    pub(super) fn mtu(&self, name: &str) -> Result<i32, Errno> {
        Ok(self.ask(name, Call::GetMtu)?.number())
    }

    pub(super) fn set_mtu(&self, name: &str, mtu: u16) -> Result<(), Errno> {
        self.set(name, Call::SetMtu, i32::from(mtu).to_ne_bytes())
    }

    /// A `struct sockaddr`: the family, then the address.
    pub(super) fn set_address(&self, name: &str, address: [u8; 6]) -> Result<(), Errno> {
        let [x, y] = ETHERNET.to_ne_bytes();
        let [a, b, c, d, e, f] = address;
        self.set(name, Call::SetAddress, [x, y, a, b, c, d, e, f])
    }

    pub(super) fn set_up(&self, name: &str) -> Result<(), Errno> {
        let flags = self.ask(name, Call::GetFlags)?.flags() | UP;
        self.set(name, Call::SetFlags, flags.to_ne_bytes())
    }

    /// Makes `port` one of the bridge's.
    pub(super) fn add_to_bridge(&self, bridge: &str, port: &str) -> Result<(), Errno> {
        let index = self.index(port)?;
        self.set(bridge, Call::AddToBridge, index.to_ne_bytes())
    }
}
