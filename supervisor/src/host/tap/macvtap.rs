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

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reeve_ipc::model::{DirectMode, InterfaceName};
use reeve_ipc::spec::MacAddress;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::rand::{GetRandomFlags, getrandom};

use super::ioctl::{self, Control};
use super::{Tap, TapError, TapId, link};
use crate::host::netlink::{self, ACK, CREATE, EXCLUSIVE, NESTED, REQUEST, attribute};
use crate::host::reason;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
/// `IFF_ALLMULTI`.
const ALL_MULTICAST: u32 = 0x200;
/// What the kernel and libvirt call it.
const KIND: &str = "macvtap";
/// The least number that is drawn.
const FIRST_NUMBER: u32 = 1 << 30;
/// Names that are tried.
const NAMES: u32 = 1 << 16;
/// Bytes of an answer that says how a request ended.
const ANSWER_BYTES: usize = 8 << 10;
/// How long what is to go is waited for before another is made: it may be upon the same device.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no macvtap. One line: what failed, on what, what to do.
#[derive(Debug, thiserror::Error)]
pub enum MacvtapError {
    /// They are root's to make.
    #[error("a network interface of type direct takes root to make; have reeved start the domain")]
    Privilege,
    /// Nothing would take it away after a death of this process.
    #[error(
        "a network interface of type direct stays on the host until somebody takes it away, which is reeved's \
         to do: have reeved start the domain"
    )]
    Unrecorded,
    /// Nothing of that name to be upon.
    #[error(
        "there is no network interface '{0}' on the host that a guest's could be upon; name another"
    )]
    NoDevice(InterfaceName),
    /// Something of its own name.
    #[error("there is a network interface '{0}' already; give the guest's another target, or none")]
    Exists(InterfaceName),
    /// All of the names are taken.
    #[error("no name is free of macvtap0, macvtap1, ...; give the network interface a target")]
    NoName,
    /// The device is not to be had like that.
    #[error(
        "'{0}' cannot be had in mode {1}: another guest has it by passthrough, it is a port of a bridge or of a bond, \
         or it is no Ethernet device; look at it with 'ip -details link show'"
    )]
    InUse(InterfaceName, DirectMode),
    /// It is there for others.
    #[error(
        "'{0}' cannot be had by passthrough, which is for one guest alone: others are upon it, it is a port of a \
         bridge or of a bond, or it is no Ethernet device; look at it with 'ip -details link show'"
    )]
    NotAlone(InterfaceName),
    /// Another has the address.
    #[error("another interface upon '{0}' has the address {1}; give the guest's another")]
    Address(InterfaceName, MacAddress),
    /// Frames that are too long.
    #[error(
        "'{device}' has an MTU of {mtu}, and the guest's is not to be larger; give the guest's less, or none"
    )]
    Mtu {
        /// The device.
        device: InterfaceName,
        /// Its own.
        mtu: i32,
    },
    /// A kernel without.
    #[error("the host's kernel has no macvtap; load it with 'sudo modprobe macvtap'")]
    Kernel,
    /// Ports are isolated from one another.
    #[error(
        "the network interface is to be isolated, and those in mode bridge on '{0}' reach one another: give it mode \
         private, vepa or passthrough"
    )]
    Isolated(InterfaceName),
    /// No character device.
    #[error(
        "there is no /dev/tap{0}: /dev of reeved must be the kernel's own (devtmpfs), which it is not in most \
         containers"
    )]
    NoNode(i32),
    /// The character device.
    #[error("cannot open /dev/tap{number}: {}; {}", reason(*.errno), mend(*.errno))]
    Node {
        /// The link's number.
        number: i32,
        /// Why.
        errno: Errno,
    },
    /// The kernel made none.
    #[error("cannot make the network interface '{name}' upon '{device}': {}", reason(*.errno))]
    Make {
        /// Its name.
        name: String,
        /// The device.
        device: InterfaceName,
        /// Why.
        errno: Errno,
    },
    /// A setting of the device.
    #[error("cannot set {what} of the network interface '{device}': {}", reason(*.errno))]
    Device {
        /// Which.
        what: &'static str,
        /// The device.
        device: InterfaceName,
        /// Why.
        errno: Errno,
    },
    /// A setting of the macvtap.
    #[error(transparent)]
    Tap(#[from] TapError),
}

const fn mend(errno: Errno) -> &'static str {
    match errno {
        Errno::PERM | Errno::ACCESS => {
            "its unit lets it open those that the kernel had when it was started: load macvtap at boot \
             (modules-load.d(5)), and restart reeved"
        }
        _ => "look at it with 'ls -l /dev/tap*'",
    }
}

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

/// One that is to be made, and that nobody else of this process makes meanwhile.
#[derive(Debug)]
pub(crate) struct Draft {
    record: MacvtapRecord,
    device: InterfaceName,
    lower: i32,
    mode: DirectMode,
    mac: MacAddress,
    /// Whether the definition says the name.
    named: bool,
    _promised: Promised,
}

impl Draft {
    /// Chooses the name and the number of a macvtap upon `device`, and sees what will have to be put back.
    ///
    /// # Errors
    /// [`MacvtapError::NoDevice`], [`MacvtapError::Exists`], [`MacvtapError::NoName`], [`MacvtapError::Make`].
    pub(crate) fn choose(
        target: Option<&InterfaceName>,
        (device, mode): (&InterfaceName, DirectMode),
        mac: MacAddress,
    ) -> Result<Self, MacvtapError> {
        let refuse = |errno| MacvtapError::Make {
            name: target.map_or(KIND, InterfaceName::as_str).to_owned(),
            device: device.clone(),
            errno,
        };
        let control = Control::open().map_err(refuse)?;
        let lower = match control.index(device.as_str()) {
            Err(Errno::NODEV | Errno::NXIO) => {
                return Err(MacvtapError::NoDevice(device.clone()));
            }
            found => found.map_err(refuse)?,
        };
        let promised = match target {
            Some(name) => {
                let free = Promised::take(name.as_str(), &control);
                free.ok_or_else(|| MacvtapError::Exists(name.clone()))?
            }
            None => (0..NAMES)
                .find_map(|number| Promised::take(&format!("{KIND}{number}"), &control))
                .ok_or(MacvtapError::NoName)?,
        };
        let lent = match mode {
            DirectMode::Passthrough => Some(LentAddress {
                index: lower,
                was: address(lower).map_err(refuse)?,
                given: mac,
            }),
            DirectMode::Bridge | DirectMode::Private | DirectMode::Vepa => None,
        };
        Ok(Self {
            record: MacvtapRecord {
                name: promised.0.clone(),
                index: draw().map_err(refuse)?,
                lent,
            },
            device: device.clone(),
            lower,
            mode,
            mac,
            named: target.is_some(),
            _promised: promised,
        })
    }

    /// What is to be noted before it is made.
    pub(crate) fn record(&self) -> &MacvtapRecord {
        &self.record
    }

    /// Makes it, down, with all its queues open, and gives the MTU that it has: that of the device where none is said.
    /// The device is set up if it is down, and stays so.
    ///
    /// # Errors
    /// [`MacvtapError`]; it is gone again.
    pub(crate) fn make(
        &self,
        mtu: Option<u16>,
        queues: u16,
    ) -> Result<(Macvtap, Tap, u16), MacvtapError> {
        let control = Control::open().map_err(|errno| self.refused(errno))?;
        if let Some(wanted) = mtu {
            let mtu = control.mtu(self.device.as_str());
            let mtu = mtu.map_err(|errno| self.refused(errno))?;
            if i32::from(wanted) > mtu {
                let device = self.device.clone();
                return Err(MacvtapError::Mtu { device, mtu });
            }
        }
        settle();
        // Before it is there: what is not there is not deleted.
        let made = Macvtap::recorded(self.record.clone());
        let (name, index) = (&self.record.name, self.record.index);
        let mut attributes = attribute(IFLA_IFNAME, &terminated(name));
        attributes.extend(attribute(IFLA_LINK, &self.lower.to_ne_bytes()));
        attributes.extend(attribute(IFLA_ADDRESS, &self.mac.octets()));
        if let Some(mtu) = mtu {
            attributes.extend(attribute(IFLA_MTU, &u32::from(mtu).to_ne_bytes()));
        }
        let mode = attribute(IFLA_MACVLAN_MODE, &mode(self.mode).to_ne_bytes());
        let mut info = attribute(IFLA_INFO_KIND, KIND.as_bytes());
        info.extend(attribute(IFLA_INFO_DATA | NESTED, &mode));
        attributes.extend(attribute(IFLA_LINKINFO | NESTED, &info));
        let flags = CREATE | EXCLUSIVE;
        tell(RTM_NEWLINK, flags, index, ALL_MULTICAST, &attributes)
            .map_err(|errno| self.refused(errno))?;
        // The host is no station on the guest's network by this interface.
        self.set(
            "IPv6",
            match link::without_own_address(index) {
                // A kernel without IPv6.
                Err(Errno::AFNOSUPPORT) => Ok(()),
                set => set,
            },
        )?;
        let device = |what| {
            let device = self.device.clone();
            move |errno| MacvtapError::Device {
                what,
                device,
                errno,
            }
        };
        if self.record.lent.is_some() {
            // One by passthrough begins with the address of its device, and gives it its own.
            let address = attribute(IFLA_ADDRESS, &self.mac.octets());
            tell(RTM_NEWLINK, 0, index, 0, &address).map_err(device("the address"))?;
        }
        control
            .set_up(self.device.as_str())
            .map_err(device("it up"))?;
        let mtu = match mtu {
            Some(mtu) => mtu,
            None => {
                let mtu = control.mtu(name);
                u16::try_from(mtu.map_err(|errno| self.refused(errno))?).unwrap_or(u16::MAX)
            }
        };
        let mut opened = Vec::new();
        for _ in 0..queues.max(1) {
            opened.push(self.open(queues)?);
        }
        let tap = Tap {
            name: name.clone(),
            queues: opened,
            control,
        };
        Ok((made, tap, mtu))
    }

    /// Lets frames pass, by the macvtap that was made.
    ///
    /// # Errors
    /// [`MacvtapError::Address`], [`MacvtapError::Tap`].
    pub(crate) fn up(&self, tap: &Tap) -> Result<(), MacvtapError> {
        tap.up().map_err(|error| match error {
            TapError::Set {
                errno: errno @ Errno::ADDRINUSE,
                ..
            } => self.refused(errno),
            error => error.into(),
        })
    }

    /// One queue, which is as those of taps are.
    fn open(&self, queues: u16) -> Result<OwnedFd, MacvtapError> {
        let number = self.record.index;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let queue = match rustix::fs::open(format!("/dev/tap{number}"), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Err(MacvtapError::NoNode(number)),
            opened => opened.map_err(|errno| MacvtapError::Node { number, errno })?,
        };
        let set_up = || {
            if ioctl::name(&queue)? != self.record.name {
                return Err(Errno::NXIO);
            }
            ioctl::attach(&queue, &self.record.name, ioctl::flags(queues))?;
            ioctl::set_header(&queue)?;
            // What the guest sends is not held up for what it has sent before, as with a tap. Of a macvtap each queue
            // has a bound of its own; this is as good as none, and vhost-net takes it for one.
            ioctl::take_singly(&queue)
        };
        match set_up() {
            Ok(()) => Ok(queue),
            Err(errno) => Err(MacvtapError::Node { number, errno }),
        }
    }

    fn set(&self, what: &'static str, done: Result<(), Errno>) -> Result<(), MacvtapError> {
        done.map_err(|errno| {
            MacvtapError::Tap(TapError::Set {
                what,
                tap: self.record.name.clone(),
                errno,
            })
        })
    }

    fn refused(&self, errno: Errno) -> MacvtapError {
        let device = self.device.clone();
        match errno {
            Errno::PERM | Errno::ACCESS => MacvtapError::Privilege,
            Errno::EXIST if self.named => match self.record.name.parse() {
                Ok(name) => MacvtapError::Exists(name),
                Err(_) => self.not_made(errno),
            },
            Errno::INVAL | Errno::BUSY if self.mode == DirectMode::Passthrough => {
                MacvtapError::NotAlone(device)
            }
            Errno::INVAL | Errno::BUSY => MacvtapError::InUse(device, self.mode),
            Errno::ADDRINUSE => MacvtapError::Address(device, self.mac),
            Errno::NODEV => MacvtapError::NoDevice(device),
            Errno::OPNOTSUPP => MacvtapError::Kernel,
            errno => self.not_made(errno),
        }
    }

    fn not_made(&self, errno: Errno) -> MacvtapError {
        MacvtapError::Make {
            name: self.record.name.clone(),
            device: self.device.clone(),
            errno,
        }
    }
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

/// The kernel does it itself as the macvtap goes, since Linux 4.13. What somebody else has set meanwhile stays.
fn put_back(lent: &LentAddress) -> Result<(), Errno> {
    let now = match address(lent.index) {
        Err(Errno::NODEV | Errno::NXIO) => return Ok(()),
        now => now?,
    };
    if now != lent.given || now == lent.was {
        return Ok(());
    }
    let was = attribute(IFLA_ADDRESS, &lent.was.octets());
    tell(RTM_NEWLINK, 0, lent.index, 0, &was)
}

/// Whether a link with these attributes is one.
pub(super) fn is_macvtap(attributes: &[u8]) -> bool {
    let kind = netlink::find(attributes, IFLA_LINKINFO)
        .and_then(|info| netlink::find(info, IFLA_INFO_KIND));
    kind.and_then(netlink::text) == Some(KIND)
}

fn address(index: i32) -> Result<MacAddress, Errno> {
    let attributes = link::attributes_of(index)?;
    let octets = netlink::find(&attributes, IFLA_ADDRESS).and_then(|octets| octets.try_into().ok());
    let octets: [u8; 6] = octets.ok_or(Errno::INVAL)?;
    // One that no guest may have is no device's either.
    MacAddress::try_from(octets).map_err(|_| Errno::INVAL)
}

/// The macvtaps of a worker, whoever knows of them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct WorkerMacvtaps(Arc<Mutex<Option<Vec<Macvtap>>>>);

impl WorkerMacvtaps {
    /// Those of a worker that is made or found.
    pub(crate) fn new(macvtaps: Vec<Macvtap>) -> Self {
        Self(Arc::new(Mutex::new(Some(macvtaps))))
    }

    /// Those that were recorded of one.
    pub(crate) fn recorded<'a>(records: impl IntoIterator<Item = &'a MacvtapRecord>) -> Self {
        let records = records.into_iter().cloned();
        Self::new(records.map(Macvtap::recorded).collect())
    }

    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        lock(&self.0).as_ref().is_some_and(|held| !held.is_empty())
    }

    /// Takes up further ones. Of a worker that is gone they are deleted.
    pub(crate) fn add(&self, mut macvtaps: Vec<Macvtap>) {
        if let Some(held) = lock(&self.0).as_mut() {
            held.append(&mut macvtaps);
        }
    }

    /// Takes out those of a device that is gone: they are deleted when what is given back is dropped, and none is made
    /// before that.
    #[must_use]
    pub(crate) fn take(&self, records: &[MacvtapRecord]) -> Vec<Macvtap> {
        let mut taken = Vec::new();
        if let Some(held) = lock(&self.0).as_mut() {
            let all = std::mem::take(held).into_iter();
            (taken, *held) = all.partition(|one| records.iter().any(|record| one.is(record)));
        }
        for one in &mut taken {
            one.going = Some(Going::note());
        }
        taken
    }

    /// Deletes them, and whichever come later.
    pub(crate) fn release(&self) {
        let held = lock(&self.0).take();
        drop(held);
    }

    /// Leaves them to a later supervisor.
    pub(crate) fn leave(&self) {
        let held = lock(&self.0).take();
        held.into_iter().flatten().for_each(Macvtap::leave);
    }
}

/// Names that are chosen and not made yet.
static PROMISED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
/// How many are about to be deleted.
static GOING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name that nobody else of this process chooses while this is there.
#[derive(Debug)]
struct Promised(String);

impl Promised {
    fn take(name: &str, control: &Control) -> Option<Self> {
        let mut promised = lock(&PROMISED);
        let free = matches!(control.index(name), Err(Errno::NODEV | Errno::NXIO));
        let taken = free && promised.insert(name.to_owned());
        taken.then(|| Self(name.to_owned()))
    }
}

impl Drop for Promised {
    fn drop(&mut self) {
        lock(&PROMISED).remove(&self.0);
    }
}

/// One of [`GOING`].
#[derive(Debug)]
struct Going(());

impl Going {
    fn note() -> Self {
        let mut going = lock(&GOING.0);
        *going = going.saturating_add(1);
        Self(())
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let mut going = lock(&GOING.0);
        *going = going.saturating_sub(1);
        GOING.1.notify_all();
    }
}

/// Waits for what is about to be deleted. What is not gone by then may be in the way, and is refused then.
fn settle() {
    let going = lock(&GOING.0);
    let _ = GOING
        .1
        .wait_timeout_while(going, PATIENCE, |going| *going > 0);
}

/// A number that no other link has.
fn draw() -> Result<i32, Errno> {
    let mut bytes = [0; 4];
    // Up to 256 bytes come whole, and without waiting once the host has booted (getrandom(2)).
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    let number = FIRST_NUMBER | (u32::from_ne_bytes(bytes) & (FIRST_NUMBER - 1));
    i32::try_from(number).map_err(|_| Errno::RANGE)
}

/// `enum macvlan_mode`.
const fn mode(mode: DirectMode) -> u32 {
    match mode {
        DirectMode::Private => 1,
        DirectMode::Vepa => 2,
        DirectMode::Bridge => 4,
        DirectMode::Passthrough => 8,
    }
}

fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
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
