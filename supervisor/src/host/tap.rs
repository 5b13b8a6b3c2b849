//! Taps: the host's ends of guests' network interfaces (tuntap of the kernel's documentation).
//!
//! Runs in the supervisor, in the host's network namespace; a worker gets a tap's queues and can make or
//! name no other. A tap that is made here is not persistent: it ends with the last descriptor of its
//! queues, and so with its worker, whoever has died by then. Its name is new, or nothing is made: a tap
//! that somebody else set up is only ever taken by [`Tap::existing`].
//!
//! The steps are apart, so that what guards a port ([`super::filter`]) has its place: [`Tap::make`],
//! [`Tap::join`], guards, and last [`Tap::up`], before which no frame passes.

mod figures;
mod ioctl;
mod link;
mod macvtap;
mod names;

use std::os::fd::OwnedFd;
use std::sync::Once;
use std::time::Duration;

use reeve_ipc::model::InterfaceName;
use reeve_ipc::spec::MacAddress;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

pub(crate) use self::figures::count;
use self::ioctl::Control;
pub(crate) use self::macvtap::{Draft, FIRST_NUMBER, Macvtap, WorkerMacvtaps};
pub use self::macvtap::{LentAddress, MacvtapError, MacvtapRecord};
pub(crate) use self::names::TapNames;
use super::reason;

/// Where the kernel makes taps.
const TUN_PATH: &str = "/dev/net/tun";
/// What the kernel names a tap for which no name is said: the first that is free.
const PATTERN: &str = "vnet%d";
/// How often it is looked whether a tap is free. Whoever let go of it may have copies of its descriptors for a
/// moment, in a process that is being made and has not executed its program.
const TRIES: u32 = 11;
/// How long each look waits for the next.
const PAUSE: Duration = Duration::from_millis(10);
/// The MTU of Ethernet, which a guest takes where it is told nothing.
pub(crate) const ETHERNET_MTU: u16 = 1500;

/// Why there is no tap. One line: what failed, on what, what to do.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// `/dev/net/tun`.
    #[error("cannot open {TUN_PATH}: {}; load it with 'sudo modprobe tun'", reason(*.0))]
    Device(Errno),
    /// Taps are root's to make.
    #[error(
        "a network interface for a guest takes root to make; have reeved start the domain, or name a tap \
         that is yours: 'sudo ip tuntap add NAME mode tap user $USER', then tap=NAME"
    )]
    Privilege,
    /// Something of that name.
    #[error("there is a network interface '{0}' already; give the guest's another target, or none")]
    Exists(InterfaceName),
    /// The kernel made none.
    #[error("cannot make the network interface '{name}': {}", reason(*.errno))]
    Make {
        /// Its name, or the pattern of names.
        name: String,
        /// Why.
        errno: Errno,
    },
    /// No tap of that name.
    #[error(
        "there is no tap '{0}'; make it with 'sudo ip tuntap add {0} mode tap', and with 'multi_queue' \
         where the guest has several queues"
    )]
    Missing(InterfaceName),
    /// A tap that is not to be had.
    #[error("cannot use the tap '{name}': {}; {}", reason(*.errno), mend(*.errno))]
    Existing {
        /// Its name.
        name: InterfaceName,
        /// Why.
        errno: Errno,
    },
    /// No bridge of that name.
    #[error(
        "there is no bridge '{0}' on the host; make it with 'sudo ip link add {0} type bridge', or name \
         another"
    )]
    NoBridge(InterfaceName),
    /// The tap is no port of the bridge.
    #[error("cannot make '{tap}' a port of the bridge '{bridge}': {}", reason(*.errno))]
    Join {
        /// The tap.
        tap: String,
        /// The bridge.
        bridge: InterfaceName,
        /// Why.
        errno: Errno,
    },
    /// A setting.
    #[error("cannot set {what} of the network interface '{tap}': {}", reason(*.errno))]
    Set {
        /// Which.
        what: &'static str,
        /// The tap.
        tap: String,
        /// Why.
        errno: Errno,
    },
}

const fn mend(errno: Errno) -> &'static str {
    match errno {
        Errno::BUSY => "another machine has it",
        Errno::PERM | Errno::ACCESS => {
            "it is another user's; 'sudo ip tuntap add NAME mode tap user $USER' makes one that is yours"
        }
        Errno::INVAL => {
            "it is no tap, or was made for one queue where the guest has several, or the other way round"
        }
        _ => "look at it with 'ip -details link show'",
    }
}

/// A tap, told from every other that had its name before it or has it after.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TapId {
    /// Its name.
    pub name: String,
    /// The interface's number, which the kernel does not give twice; `None` in a record that was written before
    /// it was.
    pub index: Option<i32>,
}

impl TapId {
    /// The tap that has that name now.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let index = Control::open().and_then(|control| control.index(name));
        Self {
            name: name.to_owned(),
            index: index.ok(),
        }
    }

    /// The same with its number. A record of before there were numbers means the tap that has the name.
    #[must_use]
    pub(crate) fn numbered(&self) -> Self {
        match self.index {
            Some(_) => self.clone(),
            None => Self::named(&self.name),
        }
    }

    /// The same by the name that it has now; `ENODEV` where it is gone.
    pub(super) fn now(&self) -> Result<Self, Errno> {
        let control = Control::open()?;
        let name = match self.index {
            Some(index) => control.name(index)?,
            None => control.index(&self.name).map(|_| self.name.clone())?,
        };
        let index = self.index;
        Ok(Self { name, index })
    }

    /// Whether there is no such tap any more, by whatever name. Where that cannot be found out there may be.
    pub(super) fn is_gone(&self) -> bool {
        let found = Control::open().and_then(|control| match self.index {
            Some(index) => control.name(index).map(|_| ()),
            None => control.index(&self.name).map(|_| ()),
        });
        matches!(found, Err(Errno::NODEV | Errno::NXIO))
    }
}

/// A tap with all its queues open: each is non-blocking and close-on-exec, and its frames have a virtio
/// header of 12 bytes in little endian in front.
#[derive(Debug)]
pub struct Tap {
    name: String,
    queues: Vec<OwnedFd>,
    control: Control,
}

impl Tap {
    /// Makes a tap that is down, for a guest's interface with this address. Without a name it gets the
    /// first that is free of `vnet0`, `vnet1`, ...
    ///
    /// # Errors
    /// [`TapError`].
    pub fn make(
        name: Option<&InterfaceName>,
        guest: MacAddress,
        queues: u16,
    ) -> Result<Self, TapError> {
        let wanted = name.map_or(PATTERN, InterfaceName::as_str);
        let refuse = |errno| match (errno, name) {
            (Errno::PERM | Errno::ACCESS, _) => TapError::Privilege,
            // IFF_TUN_EXCL for a tap, and for anything else.
            (Errno::BUSY | Errno::EXIST | Errno::INVAL, Some(name)) => {
                TapError::Exists(name.clone())
            }
            (errno, _) => TapError::Make {
                name: wanted.to_owned(),
                errno,
            },
        };
        let first = open()?;
        let flags = ioctl::flags(queues) | ioctl::EXCLUSIVE;
        let name = ioctl::attach(&first, wanted, flags).map_err(refuse)?;
        let mut tap = Self::with(name, first)?;
        tap.open_others(queues).map_err(refuse)?;
        // The bridge takes the lowest address of its ports for its own: this is above any card's.
        let [first, b, c, d, e, f] = guest.octets();
        let own = [if first == 0xfe { 0xfa } else { 0xfe }, b, c, d, e, f];
        tap.set("the address", |tap| tap.control.set_address(&tap.name, own))?;
        // The host is no station on the guest's network by this interface.
        tap.set("IPv6", |tap| {
            match link::without_own_address(tap.index()?) {
                // A kernel without IPv6.
                Err(Errno::AFNOSUPPORT) => Ok(()),
                set => set,
            }
        })?;
        Ok(tap)
    }

    /// Opens the queues of a tap that exists. It is used as it is. The kernel gives a tap of one queue to one
    /// machine; one of several it would give to any number, whose frames it deals out among them, so that it
    /// is looked at before and after: of two machines that come at once both may be refused, and never none.
    ///
    /// # Errors
    /// [`TapError::Missing`], [`TapError::Existing`].
    pub fn existing(name: &InterfaceName, queues: u16) -> Result<Self, TapError> {
        let refuse = |errno| TapError::Existing {
            name: name.clone(),
            errno,
        };
        let first = open()?;
        let control = Control::open().map_err(refuse)?;
        let index = match control.index(name.as_str()) {
            Err(Errno::NODEV | Errno::NXIO) => return Err(TapError::Missing(name.clone())),
            found => found.map_err(refuse)?,
        };
        wait_for_queues(index, 0).map_err(refuse)?;
        let found = ioctl::attach(&first, name.as_str(), ioctl::flags(queues)).map_err(refuse)?;
        // One that ended between the look and this would have been made anew: it ends again with `first`.
        if found != name.as_str() || !ioctl::is_persistent(&first).map_err(refuse)? {
            return Err(TapError::Missing(name.clone()));
        }
        let mut tap = Self::with(found, first)?;
        tap.open_others(queues).map_err(refuse)?;
        has_queues(index, queues.into()).map_err(refuse)?;
        Ok(tap)
    }

    fn with(name: String, first: OwnedFd) -> Result<Self, TapError> {
        let set = |what, errno| TapError::Set {
            what,
            tap: name.clone(),
            errno,
        };
        let control = Control::open().map_err(|errno| set("anything", errno))?;
        ioctl::set_header(&first).map_err(|errno| set("the header", errno))?;
        Ok(Self {
            name,
            queues: vec![first],
            control,
        })
    }

    /// For a tap whose queues vhost-net is to serve: the kernel then looks at each frame as it does at one that a
    /// worker writes, whether the tap is up, whether it is long enough, and whether its header can be. Vhost-net's
    /// own way, several frames at a time, asks for none of these. Once all queues are open.
    ///
    /// # Errors
    /// [`TapError::Set`].
    pub fn take_singly(&self) -> Result<(), TapError> {
        let queue = self.queues.first();
        self.set("how frames are taken", |_| {
            queue.map_or(Ok(()), ioctl::take_singly)
        })
    }

    fn open_others(&mut self, queues: u16) -> Result<(), Errno> {
        for _ in 1..queues {
            let queue = open_tun()?;
            ioctl::attach(&queue, &self.name, ioctl::flags(queues))?;
            self.queues.push(queue);
        }
        Ok(())
    }

    fn set(
        &self,
        what: &'static str,
        set: impl FnOnce(&Self) -> Result<(), Errno>,
    ) -> Result<(), TapError> {
        set(self).map_err(|errno| TapError::Set {
            what,
            tap: self.name.clone(),
            errno,
        })
    }

    fn index(&self) -> Result<i32, Errno> {
        self.control.index(&self.name)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What tells it from others.
    ///
    /// # Errors
    /// [`TapError::Set`]: it is gone.
    pub fn id(&self) -> Result<TapId, TapError> {
        let mut index = None;
        self.set("a filter", |tap| {
            index = Some(tap.index()?);
            Ok(())
        })?;
        Ok(TapId {
            name: self.name.clone(),
            index,
        })
    }

    /// Makes it a port of a bridge, with the bridge's MTU where none is said: that of a bridge follows the
    /// least of its ports. Gives the MTU.
    ///
    /// # Errors
    /// [`TapError::NoBridge`], [`TapError::Join`], [`TapError::Set`].
    pub fn join(
        &self,
        bridge: &InterfaceName,
        mtu: Option<u16>,
        isolated: bool,
    ) -> Result<u16, TapError> {
        let join = |errno| TapError::Join {
            tap: self.name.clone(),
            bridge: bridge.clone(),
            errno,
        };
        // Asked of the kernel: the files beneath /sys are those of the network namespace that they were mounted in.
        let index = self.control.index(bridge.as_str());
        if !index.is_ok_and(|index| link::is_bridge(index).unwrap_or(false)) {
            return Err(TapError::NoBridge(bridge.clone()));
        }
        let mtu = match mtu {
            Some(mtu) => mtu,
            // No guest is told of more.
            None => {
                u16::try_from(self.control.mtu(bridge.as_str()).map_err(join)?).unwrap_or(u16::MAX)
            }
        };
        self.set_mtu(mtu)?;
        self.control
            .add_to_bridge(bridge.as_str(), &self.name)
            .map_err(join)?;
        if isolated {
            self.set("isolation", |tap| link::isolate(tap.index()?))?;
        }
        Ok(mtu)
    }

    /// Has the host speak no IPv6 by it, where the kernel knows any: a port's host is at the bridge. Beside that the
    /// kernel goes through all interfaces that may, whenever another is up. Where the host does not let that be
    /// switched off it stays on, which is said once.
    pub fn without_ipv6(&self) {
        static SAID: Once = Once::new();
        let path = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", self.name);
        match std::fs::write(path, "1") {
            // A kernel without it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => SAID.call_once(|| {
                let tap = &self.name;
                tracing::warn!(
                    tap,
                    "the host speaks IPv6 by taps that are ports of bridges: {error}"
                );
            }),
            Ok(()) => {}
        }
    }

    /// Gives it that MTU, or else that of the switch whose port it will be: of the host's own interface on that, where
    /// it has one. Gives the MTU.
    ///
    /// # Errors
    /// [`TapError::Set`].
    pub fn take_mtu(&self, switch: &InterfaceName, mtu: Option<u16>) -> Result<u16, TapError> {
        let of_switch = || {
            let mtu = self.control.mtu(switch.as_str()).ok()?;
            u16::try_from(mtu).ok()
        };
        let mtu = mtu.or_else(of_switch).unwrap_or(ETHERNET_MTU);
        self.set_mtu(mtu)?;
        Ok(mtu)
    }

    /// Sets its MTU.
    ///
    /// # Errors
    /// [`TapError::Set`].
    pub fn set_mtu(&self, mtu: u16) -> Result<(), TapError> {
        self.set("the MTU", |tap| tap.control.set_mtu(&tap.name, mtu))
    }

    /// Lets frames pass.
    ///
    /// # Errors
    /// [`TapError::Set`].
    pub fn up(&self) -> Result<(), TapError> {
        self.set("it up", |tap| tap.control.set_up(&tap.name))
    }

    /// Its queues.
    #[must_use]
    pub fn into_queues(self) -> Vec<OwnedFd> {
        self.queues
    }
}

/// Whether the host has an interface of that name. Where that cannot be asked it seems to have none.
pub(crate) fn is_interface(name: &InterfaceName) -> bool {
    Control::open().is_ok_and(|control| control.index(name.as_str()).is_ok())
}

/// Makes a tap that a guest has a port of a bridge again, which was made anew or lost it, with that MTU or else the
/// bridge's. One that is a port of it already keeps being that.
///
/// # Errors
/// As [`Tap::join`].
pub(crate) fn rejoin(
    name: &InterfaceName,
    bridge: &InterfaceName,
    mtu: Option<u16>,
    isolated: bool,
) -> Result<(), TapError> {
    let set = |what, errno| TapError::Set {
        what,
        tap: name.as_str().to_owned(),
        errno,
    };
    let tap = Tap {
        name: name.as_str().to_owned(),
        queues: Vec::new(),
        control: Control::open().map_err(|errno| set("anything", errno))?,
    };
    let wanted = tap.control.index(bridge.as_str()).ok();
    let master = tap.index().and_then(link::master).ok().flatten();
    if master.is_some() && master == wanted {
        if isolated {
            tap.set("isolation", |tap| link::isolate(tap.index()?))?;
        }
        return mtu.map_or(Ok(()), |mtu| tap.set_mtu(mtu));
    }
    tap.join(bridge, mtu, isolated)?;
    // It was set down where its bridge was taken away.
    tap.up()
}

/// That so many queues of a tap are open, where it can have several.
fn has_queues(index: i32, queues: u32) -> Result<(), Errno> {
    match link::open_queues(index)? {
        Some(open) if open != queues => Err(Errno::BUSY),
        _ => Ok(()),
    }
}

/// As [`has_queues`], or soon.
fn wait_for_queues(index: i32, queues: u32) -> Result<(), Errno> {
    for _ in 1..TRIES {
        match has_queues(index, queues) {
            Err(Errno::BUSY) => std::thread::sleep(PAUSE),
            seen => return seen,
        }
    }
    has_queues(index, queues)
}

fn open() -> Result<OwnedFd, TapError> {
    open_tun().map_err(|errno| match errno {
        Errno::ACCESS | Errno::PERM => TapError::Privilege,
        errno => TapError::Device(errno),
    })
}

fn open_tun() -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(TUN_PATH, flags, Mode::empty())
}

/// Any socket: these settings belong to no protocol.
fn control_socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
}

#[cfg(test)]
pub(super) mod tests;
