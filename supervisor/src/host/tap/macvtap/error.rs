//! Why there is no macvtap.

use reeve_ipc::model::{DirectMode, InterfaceName};
use reeve_ipc::spec::MacAddress;
use rustix::io::Errno;

use super::TapError;
use crate::host::reason;

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
    /// What another guest is on the network by.
    #[error(
        "'{0}' is a tap or a macvtap, which is for a guest or a program to be on a network by: give the network \
         interface a device of the host's, or the bridge that the other is a port of"
    )]
    OfGuest(InterfaceName),
    /// Guests would reach one another, and the host.
    #[error(
        "'{0}' is no device of its own ({1}), and a guest upon it would reach guests and the host past their \
         isolation, which are kept apart (multi_tenant): give the network interface a card, or a bridge"
    )]
    Shared(InterfaceName, String),
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
