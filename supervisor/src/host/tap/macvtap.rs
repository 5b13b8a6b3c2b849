//! Macvtaps: the host's ends of guests' network interfaces that are upon a device of the host without a bridge
//! (libvirt `<interface type='direct'>`; `drivers/net/macvlan.c`, `drivers/net/tap.c` of the kernel).
//!
//! ```text
//!   Draft::choose ─ recorded ─ Draft::make ─► Macvtap + Tap ─ guard ─ up
//!                                               │
//!                          dropped, or taken over by the next supervisor and dropped there
//! ```
//!
//! Unlike a tap a macvtap does not end with its descriptors. So all that tells it from others is chosen and recorded
//! before it is made, and whoever has the record deletes it: [`Macvtap`] does so when it is dropped. It is deleted by
//! its number, whatever its name is by then, and only if that number is a macvtap's.
//!
//! ## Decisions
//!
//! 1. 2026-11: the number is drawn here, at random and far above those that the kernel deals out, for two reasons. It
//!    can be recorded before there is a link, so that no moment is left in which a link is there and only its name is
//!    known, which may be another's. And it is in the name of the character device, `/dev/tapN`, of which there is one
//!    directory for all network namespaces: numbers that are dealt out from 1 in each meet there, and somebody who
//!    may make links in a namespace of his own could lay one out for us to open.
//! 2. 2026-11: no device node is made where `/dev` is not the kernel's own. That would take a right to make any
//!    device, which reeved does not have.
//! 3. 2026-11: all multicast is let through to the guest, as it is by a bridge. Else the kernel would let through what
//!    the host's end of it has subscribed to, and a guest would not be found by IPv6.

mod draft;
mod error;
mod held;

use std::sync::{Mutex, MutexGuard, PoisonError};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use reeve_ipc::spec::MacAddress;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

pub(crate) use self::draft::{Draft, FIRST_NUMBER};
pub use self::error::MacvtapError;
use self::held::Going;
pub(crate) use self::held::WorkerMacvtaps;
use super::{TapError, TapId, link};
use crate::host::netlink::{self, ACK, REQUEST, attribute};
use crate::host::network::links::Links;
use crate::host::reason;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const IFLA_ADDRESS: u16 = 1;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// What the kernel and libvirt call it.
const KIND: &str = "macvtap";
/// Bytes of an answer that says how a request ended.
const ANSWER_BYTES: usize = 8 << 10;

/// A macvtap as it is recorded: before it is made and for as long as it may be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MacvtapRecord {
    /// Its name when it was made.
    pub name: String,
    /// Its number, which no other link has.
    pub index: i32,
    /// What of the device is other for it, which is put back after it.
    pub lent: Option<LentAddress>,
}

impl MacvtapRecord {
    /// What tells it from others.
    #[must_use]
    pub fn id(&self) -> TapId {
        TapId {
            name: self.name.clone(),
            index: Some(self.index),
        }
    }
}

/// The Ethernet address of a device that a guest has for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LentAddress {
    /// The device's number.
    pub index: i32,
    /// What it was.
    pub was: MacAddress,
    /// The guest's, which it has meanwhile.
    pub given: MacAddress,
}

/// One that is there, or may be: deleted when this is dropped, and the address of its device put back, which waits for
/// the kernel.
#[derive(Debug)]
pub(crate) struct Macvtap {
    record: Option<MacvtapRecord>,
    // Behind what deletes it.
    going: Option<Going>,
}

impl Macvtap {
    /// One that was recorded, whether it was made or not.
    pub(crate) fn recorded(record: MacvtapRecord) -> Self {
        Self {
            record: Some(record),
            going: None,
        }
    }

    /// It stays.
    fn leave(mut self) {
        drop(self.record.take());
    }

    fn is(&self, record: &MacvtapRecord) -> bool {
        self.record
            .as_ref()
            .is_some_and(|own| own.index == record.index)
    }
}

impl Drop for Macvtap {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else {
            return;
        };
        if let Err(errno) = delete(&record) {
            let (tap, reason) = (&record.name, reason(errno));
            tracing::warn!(
                tap,
                "the network interface of a guest that is gone is left: {reason}"
            );
        }
        if let Some(errno) = record.lent.as_ref().and_then(|lent| put_back(lent).err()) {
            let (tap, reason) = (&record.name, reason(errno));
            tracing::warn!(
                tap,
                "the address of the device that a guest had is not put back: {reason}"
            );
        }
    }
}

fn delete(record: &MacvtapRecord) -> Result<(), Errno> {
    let gone = |done| match done {
        Err(Errno::NODEV | Errno::NXIO) => Ok(()),
        done => done,
    };
    match link::attributes_of(record.index) {
        Ok(attributes) if is_macvtap(&attributes) => {
            gone(tell(RTM_DELLINK, 0, record.index, 0, &[]))
        }
        Ok(_) => Ok(()),
        Err(errno) => gone(Err(errno)),
    }
}

/// The kernel does it itself as the macvtap goes, since Linux 4.13. What somebody else has set meanwhile stays, and so does
/// what another macvtap has from the device by now: that of a guest whose interface was detached and attached again.
fn put_back(lent: &LentAddress) -> Result<(), Errno> {
    let now = match address(lent.index) {
        Err(Errno::NODEV | Errno::NXIO) => return Ok(()),
        now => now?,
    };
    if now != lent.given || now == lent.was {
        return Ok(());
    }
    if has_macvtap(lent.index)? {
        return Ok(());
    }
    let was = attribute(IFLA_ADDRESS, &lent.was.octets());
    tell(RTM_NEWLINK, 0, lent.index, 0, &was)
}

/// Whether any macvtap is upon a device. It is only asked where the device has a guest's address.
fn has_macvtap(device: i32) -> Result<bool, Errno> {
    let mut found = false;
    let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
    Links::open()?.ask(NLM_F_DUMP, all, |answer| {
        let RouteNetlinkMessage::NewLink(link) = answer else {
            return;
        };
        let mut of = link.attributes.iter();
        let is_upon = of.any(
            |attribute| matches!(attribute, LinkAttribute::Link(lower) if i32::try_from(*lower) == Ok(device)),
        );
        let kind = LinkInfo::Kind(InfoKind::MacVtap);
        let mut of = link.attributes.iter();
        let is_one = of.any(
            |attribute| matches!(attribute, LinkAttribute::LinkInfo(info) if info.contains(&kind)),
        );
        found |= is_upon && is_one;
    })?;
    Ok(found)
}

/// Whether a link with these attributes is one.
pub(super) fn is_macvtap(attributes: &[u8]) -> bool {
    link::kind_of(attributes) == Some(KIND)
}

fn address(index: i32) -> Result<MacAddress, Errno> {
    let attributes = link::attributes_of(index)?;
    let octets = netlink::find(&attributes, IFLA_ADDRESS).and_then(|octets| octets.try_into().ok());
    let octets: [u8; 6] = octets.ok_or(Errno::INVAL)?;
    // One that no guest may have is no device's either.
    MacAddress::try_from(octets).map_err(|_| Errno::INVAL)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says something about a link, some flags of which are set with it.
fn tell(kind: u16, flags: u16, index: i32, set: u32, attributes: &[u8]) -> Result<(), Errno> {
    let mut body = vec![0; 4]; // any family, any type of device
    body.extend(index.to_ne_bytes());
    body.extend(set.to_ne_bytes());
    body.extend(set.to_ne_bytes()); // and no other is changed
    body.extend(attributes);
    let message = netlink::message(kind, REQUEST | ACK | flags, 1, &body);
    let socket = netlink::socket(None)?;
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = vec![0_u8; ANSWER_BYTES];
    let received =
        rustix::io::retry_on_intr(|| rustix::net::recv(&socket, &mut *answer, RecvFlags::empty()));
    let (length, _) = received?;
    answer.truncate(length);
    let verdict = netlink::messages(&answer).find_map(|answer| answer.verdict());
    verdict.unwrap_or(Err(Errno::PROTO))
}

#[cfg(test)]
mod tests;
