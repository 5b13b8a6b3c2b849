//! What is set and asked of an interface by messages to the kernel alone (rtnetlink(7)): files beneath `/sys`
//! and `/proc/sys` would do some of it too, and are not to be written where the daemon is confined.

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::host::netlink::{self, ACK, NESTED, REQUEST, attribute, find};

/// `struct ifinfomsg`.
const LINK_BYTES: usize = 16;
/// More than the kernel says of any interface.
const ANSWER_BYTES: usize = 64 << 10;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_TUN_NUM_QUEUES: u16 = 8;
const IFLA_TUN_NUM_DISABLED_QUEUES: u16 = 9;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
/// More than the kernel stacks links (`MAX_NEST_DEV`).
const TAGS: usize = 16;

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
    let link = attributes_of(index)?;
    let tun = find(&link, IFLA_LINKINFO).and_then(|info| find(info, IFLA_INFO_DATA));
    let count = |kind| {
        let value = find(tun?, kind)?.first_chunk()?;
        Some(u32::from_ne_bytes(*value))
    };
    let disabled = count(IFLA_TUN_NUM_DISABLED_QUEUES).unwrap_or(0);
    Ok(count(IFLA_TUN_NUM_QUEUES).map(|queues| queues.saturating_add(disabled)))
}

/// Whether an interface is a bridge.
pub(super) fn is_bridge(index: i32) -> Result<bool, Errno> {
    Ok(kind_of(&attributes_of(index)?) == Some("bridge"))
}

/// What the kernel calls the kind of a link with these attributes; none of a card.
pub(super) fn kind_of(attributes: &[u8]) -> Option<&str> {
    let kind = find(attributes, IFLA_LINKINFO).and_then(|info| find(info, IFLA_INFO_KIND));
    kind.and_then(netlink::text)
}

/// The kind of an interface; of one that is a tag of another, the kind of that.
pub(super) fn base_kind(mut index: i32) -> Result<Option<String>, Errno> {
    for _ in 0..TAGS {
        let link = attributes_of(index)?;
        let kind = kind_of(&link);
        // The other is in another network namespace, where the number is of something else.
        if find(&link, IFLA_LINK_NETNSID).is_some() {
            return Ok(kind.map(str::to_owned));
        }
        match find(&link, IFLA_LINK).and_then(|value| value.first_chunk()) {
            Some(lower) if kind == Some("vlan") => index = i32::from_ne_bytes(*lower),
            _ => return Ok(kind.map(str::to_owned)),
        }
    }
    Err(Errno::LOOP)
}

/// The number of the bridge that an interface is a port of, if it is one.
pub(super) fn master(index: i32) -> Result<Option<i32>, Errno> {
    let link = attributes_of(index)?;
    let master = find(&link, IFLA_MASTER).and_then(|value| value.first_chunk());
    Ok(master.map(|master| i32::from_ne_bytes(*master)))
}

/// What has passed through an interface, from the host's side (`struct rtnl_link_stats64`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LinkCounters {
    pub(crate) rx_packets: u64,
    pub(crate) tx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_errors: u64,
    pub(crate) tx_errors: u64,
    pub(crate) rx_dropped: u64,
    pub(crate) tx_dropped: u64,
}

impl LinkCounters {
    /// The same from the other side.
    pub(super) const fn turned(self) -> Self {
        Self {
            rx_packets: self.tx_packets,
            tx_packets: self.rx_packets,
            rx_bytes: self.tx_bytes,
            tx_bytes: self.rx_bytes,
            rx_errors: self.tx_errors,
            tx_errors: self.rx_errors,
            rx_dropped: self.tx_dropped,
            tx_dropped: self.rx_dropped,
        }
    }
}

/// Those of an interface.
pub(super) fn counters(index: i32) -> Result<LinkCounters, Errno> {
    let link = attributes_of(index)?;
    let stats = find(&link, IFLA_STATS64).ok_or(Errno::NODATA)?;
    let mut words = stats.chunks_exact(8).map_while(|word| {
        let word = word.first_chunk()?;
        Some(u64::from_ne_bytes(*word))
    });
    let mut next = || words.next().ok_or(Errno::PROTO);
    Ok(LinkCounters {
        rx_packets: next()?,
        tx_packets: next()?,
        rx_bytes: next()?,
        tx_bytes: next()?,
        rx_errors: next()?,
        tx_errors: next()?,
        rx_dropped: next()?,
        tx_dropped: next()?,
    })
}

/// What the kernel says of an interface.
pub(super) fn attributes_of(index: i32) -> Result<Vec<u8>, Errno> {
    let answer = ask(RTM_GETLINK, REQUEST, libc::AF_UNSPEC, index, &[])?;
    let Some(answer) = netlink::messages(&answer).next() else {
        return Err(Errno::PROTO);
    };
    if answer.kind != RTM_NEWLINK {
        answer.verdict().unwrap_or(Ok(()))?;
        return Err(Errno::PROTO);
    }
    Ok(answer.body.get(LINK_BYTES..).unwrap_or_default().to_vec())
}

fn set(family: i32, index: i32, attributes: &[u8]) -> Result<(), Errno> {
    let answer = ask(RTM_SETLINK, REQUEST | ACK, family, index, attributes)?;
    let verdict = netlink::messages(&answer).find_map(|answer| answer.verdict());
    verdict.unwrap_or(Err(Errno::PROTO))
}

/// Sends a message about an interface, and gives the kernel's answer.
fn ask(
    kind: u16,
    flags: u16,
    family: i32,
    index: i32,
    attributes: &[u8],
) -> Result<Vec<u8>, Errno> {
    let mut body = vec![u8::try_from(family).map_err(|_| Errno::INVAL)?, 0];
    body.extend(0_u16.to_ne_bytes()); // any type of device
    body.extend(index.to_ne_bytes());
    body.extend(0_u32.to_ne_bytes()); // no flag is set,
    body.extend(0_u32.to_ne_bytes()); // and none is changed
    body.extend(attributes);
    let message = netlink::message(kind, flags, 1, &body);
    let socket = netlink::socket(None)?;
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = vec![0_u8; ANSWER_BYTES];
    let (length, _) = rustix::net::recv(&socket, &mut *answer, RecvFlags::empty())?;
    answer.truncate(length);
    Ok(answer)
}
