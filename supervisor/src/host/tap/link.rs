//! What is set and asked of an interface by messages to the kernel alone (rtnetlink(7)): files beneath `/sys`
//! and `/proc/sys` would do some of it too, and are not to be written where the daemon is confined.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `struct nlmsghdr` and `struct ifinfomsg`.
const HEADERS_BYTES: usize = 16 + 16;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
const ACKNOWLEDGE: u16 = 0x4;
/// More than the kernel says of any interface.
const ANSWER_BYTES: usize = 64 << 10;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const NLMSG_ERROR: u16 = 2;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_TUN_NUM_QUEUES: u16 = 8;
const IFLA_TUN_NUM_DISABLED_QUEUES: u16 = 9;
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

/// How many queues of a tap that can have several are open, in whatever process; `None` of one that cannot,
/// and where the kernel does not say (before Linux 4.17).
pub(super) fn open_queues(index: i32) -> Result<Option<u32>, Errno> {
    let answer = ask(RTM_GETLINK, REQUEST, libc::AF_UNSPEC, index, &[])?;
    if kind_of(&answer) != Some(RTM_NEWLINK) {
        verdict(&answer)?;
        return Err(Errno::PROTO);
    }
    let link = answer.get(HEADERS_BYTES..).unwrap_or_default();
    let tun = find(link, IFLA_LINKINFO).and_then(|info| find(info, IFLA_INFO_DATA));
    let count = |kind| {
        let value = find(tun?, kind)?.first_chunk()?;
        Some(u32::from_ne_bytes(*value))
    };
    let disabled = count(IFLA_TUN_NUM_DISABLED_QUEUES).unwrap_or(0);
    Ok(count(IFLA_TUN_NUM_QUEUES).map(|queues| queues.saturating_add(disabled)))
}

/// The value of the first attribute of that kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (header, _) = attributes.split_first_chunk::<4>()?;
        let [a, b, c, d] = *header;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([c, d]) & !NESTED == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
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
    let flags = REQUEST | ACKNOWLEDGE;
    verdict(&ask(RTM_SETLINK, flags, family, index, attributes)?)
}

/// Sends a message about an interface, and gives the kernel's answer.
fn ask(
    kind: u16,
    flags: u16,
    family: i32,
    index: i32,
    attributes: &[u8],
) -> Result<Vec<u8>, Errno> {
    let length = u32::try_from(HEADERS_BYTES + attributes.len()).map_err(|_| Errno::INVAL)?;
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
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
    let mut answer = vec![0_u8; ANSWER_BYTES];
    let (length, _) = rustix::net::recv(&socket, &mut *answer, RecvFlags::empty())?;
    answer.truncate(length);
    Ok(answer)
}

/// The type in `struct nlmsghdr`.
fn kind_of(answer: &[u8]) -> Option<u16> {
    match answer {
        [_, _, _, _, a, b, ..] => Some(u16::from_ne_bytes([*a, *b])),
        _ => None,
    }
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
