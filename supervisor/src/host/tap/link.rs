//! What is set of an interface by messages to the kernel alone (rtnetlink(7)): files beneath `/sys` and
//! `/proc/sys` would do it too, and are not to be written where the daemon is confined.

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::host::netlink::{self, ACK, NESTED, REQUEST, attribute};

const RTM_SETLINK: u16 = 19;
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

fn set(family: i32, index: i32, attributes: &[u8]) -> Result<(), Errno> {
    let mut body = vec![u8::try_from(family).map_err(|_| Errno::INVAL)?, 0];
    body.extend(0_u16.to_ne_bytes()); // any type of device
    body.extend(index.to_ne_bytes());
    body.extend(0_u32.to_ne_bytes()); // no flag is set,
    body.extend(0_u32.to_ne_bytes()); // and none is changed
    body.extend(attributes);
    let message = netlink::message(RTM_SETLINK, REQUEST | ACK, 1, &body);
    let socket = netlink::socket(None)?;
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0_u8; 4096];
    let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    let answer = answer.get(..length).unwrap_or_default();
    let verdict = netlink::messages(answer).find_map(|answer| answer.verdict());
    verdict.unwrap_or(Err(Errno::PROTO))
}
