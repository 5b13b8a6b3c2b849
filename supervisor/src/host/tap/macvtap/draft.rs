//! Macvtaps that are to be made: chosen, and then made.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use reeve_ipc::model::{DirectMode, InterfaceName};
use reeve_ipc::spec::MacAddress;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::held::settle;
use super::{
    IFLA_ADDRESS, IFLA_INFO_KIND, IFLA_LINKINFO, KIND, LentAddress, Macvtap, MacvtapError,
    MacvtapRecord, RTM_NEWLINK, address, lock, tell,
};
use crate::host::netlink::{CREATE, EXCLUSIVE, NESTED, attribute};
use crate::host::tap::ioctl::{self, Control};
use crate::host::tap::{Tap, TapError, link};

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
/// `IFF_ALLMULTI`.
const ALL_MULTICAST: u32 = 0x200;
/// The least number that is drawn. The kernel deals out its own from 1 on.
pub(crate) const FIRST_NUMBER: u32 = 1 << 30;
/// Kinds of links that are a guest's, or would be a program's.
const OF_GUESTS: [&str; 2] = ["tun", KIND];
/// Kinds of links by which others than what is behind a card are reached: other guests, and the host.
const SHARED: [&str; 3] = ["bridge", "macvlan", "openvswitch"];
/// Names that are tried.
const NAMES: u32 = 1 << 16;

/// One that is to be made, and that nobody else of this process makes meanwhile.
#[derive(Debug)]
pub(crate) struct Draft {
    record: MacvtapRecord,
    device: InterfaceName,
    lower: i32,
    kind: Option<String>,
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
    /// [`MacvtapError::NoDevice`], [`MacvtapError::OfGuest`], [`MacvtapError::Exists`], [`MacvtapError::NoName`],
    /// [`MacvtapError::Make`].
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
        let kind = link::base_kind(lower).map_err(refuse)?;
        if kind
            .as_deref()
            .is_some_and(|kind| OF_GUESTS.contains(&kind))
        {
            return Err(MacvtapError::OfGuest(device.clone()));
        }
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
            kind,
            mode,
            mac,
            named: target.is_some(),
            _promised: promised,
        })
    }

    /// That a guest on it is apart from others of this host, as far as the kernel goes: upon a bridge it would be
    /// beside the ports of that, which are isolated from one another and not from it.
    ///
    /// # Errors
    /// [`MacvtapError::Shared`].
    pub(crate) fn is_apart(&self) -> Result<(), MacvtapError> {
        match &self.kind {
            Some(kind) if SHARED.contains(&kind.as_str()) => {
                let device = self.device.clone();
                Err(MacvtapError::Shared(device, kind.clone()))
            }
            _ => Ok(()),
        }
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

/// Names that are chosen and not made yet.
static PROMISED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
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
