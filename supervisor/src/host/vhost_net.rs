//! vhost-net: the host's kernel serves queues of guests, between their memory and their taps.
//!
//! The supervisor opens the device and no more: who owns a descriptor is who calls the kernel first, and
//! it is the owner's memory that is served. That is the worker's to do.

use std::os::fd::OwnedFd;

use reeve_ipc::spec::MacAddress;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::reason;

/// Where the kernel is asked.
const PATH: &str = "/dev/vhost-net";

/// Why the kernel does not serve an interface. One line: what failed, on what, what to do.
#[derive(Debug, thiserror::Error)]
pub enum VhostNetError {
    /// The host's policy.
    #[error(
        "network interface {0} has the driver vhost, and this host lets no guest have it (vhost_net in \
         reeve.toml; never with multi_tenant): say driver=user, or nothing"
    )]
    Refused(MacAddress),
    /// No such device, or not for us.
    #[error(
        "network interface {nic} has the driver vhost, and {PATH} cannot be opened: {}; {}, or say driver=user",
        reason(*.errno),
        mend(*.errno)
    )]
    Device {
        /// The interface.
        nic: MacAddress,
        /// Why.
        errno: Errno,
    },
}

const fn mend(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => "load it with 'sudo modprobe vhost_net'",
        Errno::ACCESS => "allow it with 'sudo usermod -aG kvm $USER', where it is that group's",
        Errno::PERM => "it takes 'DeviceAllow=/dev/vhost-net rw' in reeved.service and a restart",
        _ => "look at it with 'ls -l /dev/vhost-net'",
    }
}

/// Opens it for a pair of queues of that interface, unless the host's policy `refuses`.
///
/// # Errors
/// [`VhostNetError`].
pub(crate) fn open(nic: MacAddress, refuses: bool) -> Result<OwnedFd, VhostNetError> {
    if refuses {
        return Err(VhostNetError::Refused(nic));
    }
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(PATH, flags, Mode::empty())
        .map_err(|errno| VhostNetError::Device { nic, errno })
}
