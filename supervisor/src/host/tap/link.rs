//! What is set of an interface by messages to the kernel alone (rtnetlink(7)): files beneath `/sys` and
//! `/proc/sys` would do it too, and are not to be written where the daemon is confined.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `struct nlmsghdr` and `struct ifinfomsg`.
const HEADERS_BYTES: usize = 16 + 16;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const FLAGS: u16 = 0x1 | 0x4;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

const RTM_SETLINK: u16 = 19;
const NLMSG_ERROR: u16 = 2;
const IFLA_PROTINFO: u16 = 12;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

/// Has a port of a bridge reach no other isolated one.
pub(super) fn isolate(index: i32) -> Result<(), Errno> {
    let isolated = attribute(IFLA_BRPORT_ISOLATED, &[1]);
    let port = attribute(IFLA_PROTINFO | NESTED, &isolated);
    set(libc::AF_BRIDGE, index, &port)
}

/// Has the host give itself no IPv6 address on an interface.
pub(super) fn without_own_address(index: i32) -> Result<(), Errno> {
    let mode = attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
    let family = u16::try_from(libc::AF_INET6).map_err(|_| Errno::INVAL)?;
    let family = attribute(family | NESTED, &mode);
    set(
        libc::AF_UNSPEC,
        index,
        &attribute(IFLA_AF_SPEC | NESTED, &family),
    )
}

/// `struct nlattr` with its value, filled up to a multiple of four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    // Each is a few bytes long.
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(value.len() + 8);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn set(family: i32, index: i32, attributes: &[u8]) -> Result<(), Errno> {
    let length = u32::try_from(HEADERS_BYTES + attributes.len()).map_err(|_| Errno::INVAL)?;
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(RTM_SETLINK.to_ne_bytes());
    message.extend(FLAGS.to_ne_bytes());
    message.extend(1_u32.to_ne_bytes()); // the message's number
    message.extend(0_u32.to_ne_bytes()); // from whom, which the kernel fills in
    message.push(u8::try_from(family).map_err(|_| Errno::INVAL)?);
    message.push(0);
    message.extend(0_u16.to_ne_bytes()); // any type of device
    message.extend(index.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes()); // no flag is set,
    message.extend(0_u32.to_ne_bytes()); // and none is changed
    message.extend(attributes);
    let socket = socket()?;
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0_u8; 4096];
    let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    verdict(answer.get(..length).unwrap_or_default())
}

fn socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // protocol 0: NETLINK_ROUTE
    )
}

/// The kernel's answer: `struct nlmsghdr`, then 0 or an error number, negated.
fn verdict(answer: &[u8]) -> Result<(), Errno> {
    match answer {
        [
            _,
            _,
            _,
            _,
            a,
            b,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            c,
            d,
            e,
            f,
            ..,
        ] if u16::from_ne_bytes([*a, *b]) == NLMSG_ERROR => {
            match i32::from_ne_bytes([*c, *d, *e, *f]) {
                0 => Ok(()),
                error => Err(Errno::from_raw_os_error(error.saturating_neg())),
            }
        }
        _ => Err(Errno::PROTO),
    }
}
