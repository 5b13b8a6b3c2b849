//! Landlock with no rule: every access that the host's kernel can restrict is denied; and with a few, for
//! programs that are not ours.
//!
//! A ruleset that handles an access and allows none of it denies it everywhere. What each ABI can
//! restrict follows linux/landlock.h; an older kernel gets its own best, a kernel without Landlock is an error.
//! Raw calls rather than the `landlock` crate: two system calls and no heap on the start path.

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::sys::{self, Errno};

/// A version of the kernel's Landlock interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Abi(u32);

impl Abi {
    /// The version this host's kernel has.
    ///
    /// # Errors
    ///
    /// `ENOSYS` or `EOPNOTSUPP` when Landlock is not built in or not switched on.
    pub fn of_host() -> std::io::Result<Self> {
        version().map_err(|Errno(errno)| std::io::Error::from_raw_os_error(errno))
    }

    /// The number.
    pub fn number(self) -> u32 {
        self.0
    }

    fn ruleset(self) -> Ruleset {
        // The last filesystem access of each ABI, so that all below it are handled.
        let filesystem = match self.0 {
            0 | 1 => 12, // EXECUTE .. MAKE_SYM
            2 => 13,     // REFER
            3 | 4 => 14, // TRUNCATE
            _ => 15,     // IOCTL_DEV (5)
        };
        Ruleset {
            filesystem: (1 << (filesystem + 1)) - 1,
            network: if self.0 >= 4 { 0b11 } else { 0 }, // BIND_TCP, CONNECT_TCP
            scoped: if self.0 >= 6 { 0b11 } else { 0 },  // ABSTRACT_UNIX_SOCKET, SIGNAL
        }
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct Ruleset {
    filesystem: u64,
    network: u64,
    scoped: u64,
}

impl Ruleset {
    /// Kernels accept a longer structure only when what they do not know is zero, which it is.
    const SIZE: usize = size_of::<Self>();
}

#[expect(unsafe_code, reason = "a query that takes no pointer")]
fn version() -> sys::Result<Abi> {
    // SAFETY: with LANDLOCK_CREATE_RULESET_VERSION (1) the pointer and size must be zero.
    let version = unsafe { sys::call(libc::SYS_landlock_create_ruleset, [0, 0, 1, 0, 0, 0]) }?;
    Ok(Abi(u32::try_from(version).unwrap_or(0)))
}

/// Denies the calling thread everything. Needs `no_new_privs`.
#[expect(unsafe_code, reason = "passes a ruleset to the kernel")]
pub(crate) fn restrict() -> sys::Result<Abi> {
    let abi = version()?;
    let attributes = abi.ruleset();
    let pointer = (&raw const attributes).addr();
    // SAFETY: the kernel reads SIZE bytes of the structure.
    let ruleset = unsafe {
        sys::call(
            libc::SYS_landlock_create_ruleset,
            [pointer, Ruleset::SIZE, 0, 0, 0, 0],
        )
    }?;
    // SAFETY: a descriptor and flags, no pointer.
    let restricted =
        unsafe { sys::call(libc::SYS_landlock_restrict_self, [ruleset, 0, 0, 0, 0, 0]) };
    // SAFETY: as above; the descriptor is ours alone.
    let closed = unsafe { sys::call(libc::SYS_close, [ruleset, 0, 0, 0, 0, 0]) };
    restricted.and(closed).map(|_| abi)
}

/// `LANDLOCK_ACCESS_FS_EXECUTE`.
pub(crate) const EXECUTE: u64 = 1 << 0;
/// `LANDLOCK_ACCESS_FS_WRITE_FILE`.
pub(crate) const WRITE_FILE: u64 = 1 << 1;
/// `LANDLOCK_ACCESS_FS_READ_FILE`.
pub(crate) const READ_FILE: u64 = 1 << 2;
/// `LANDLOCK_ACCESS_FS_READ_DIR`; of directories only.
pub(crate) const READ_DIR: u64 = 1 << 3;
/// `LANDLOCK_ACCESS_FS_TRUNCATE`; left out where the kernel does not know it.
pub(crate) const TRUNCATE: u64 = 1 << 14;

/// A file, or a directory and all beneath it, with what may be done there.
pub(crate) struct Allowed {
    pub(crate) fd: OwnedFd,
    pub(crate) rights: u64,
}

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct PathBeneath {
    rights: u64,
    fd: i32,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct Port {
    rights: u64,
    port: u64,
}

/// Denies the calling thread everything but what is allowed; ports of TCP where the kernel can tell. Needs
/// `no_new_privs`.
#[expect(unsafe_code, reason = "passes a ruleset to the kernel")]
pub(crate) fn restrict_to(allowed: &[Allowed], tcp_ports: &[u16]) -> sys::Result<Abi> {
    const BENEATH: usize = 1;
    const PORT: usize = 2;
    let abi = version()?;
    let attributes = abi.ruleset();
    let (pointer, size) = ((&raw const attributes).addr(), Ruleset::SIZE);
    // SAFETY: the kernel reads SIZE bytes of the structure.
    let ruleset = unsafe {
        sys::call(
            libc::SYS_landlock_create_ruleset,
            [pointer, size, 0, 0, 0, 0],
        )
    }?;
    for each in allowed {
        let rule = PathBeneath {
            rights: each.rights & attributes.filesystem,
            fd: each.fd.as_raw_fd(),
        };
        let pointer = (&raw const rule).addr();
        // SAFETY: the kernel reads one structure, which lives across the call.
        unsafe {
            sys::call(
                libc::SYS_landlock_add_rule,
                [ruleset, BENEATH, pointer, 0, 0, 0],
            )
        }?;
    }
    let ports = tcp_ports.iter().filter(|_| attributes.network != 0);
    for port in ports {
        let rule = Port {
            rights: attributes.network,
            port: u64::from(*port),
        };
        let pointer = (&raw const rule).addr();
        // SAFETY: as above.
        unsafe {
            sys::call(
                libc::SYS_landlock_add_rule,
                [ruleset, PORT, pointer, 0, 0, 0],
            )
        }?;
    }
    // SAFETY: a descriptor and flags, no pointer.
    unsafe { sys::call(libc::SYS_landlock_restrict_self, [ruleset, 0, 0, 0, 0, 0]) }?;
    // SAFETY: as above; the descriptor is ours alone.
    unsafe { sys::call(libc::SYS_close, [ruleset, 0, 0, 0, 0, 0]) }.map(|_| abi)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_abi_handles_what_it_introduced() {
        let bits = |abi| {
            let ruleset = Abi(abi).ruleset();
            (ruleset.filesystem, ruleset.network, ruleset.scoped)
        };
        assert_eq!(bits(1), (0x1fff, 0, 0));
        assert_eq!(bits(2), (0x3fff, 0, 0));
        assert_eq!(bits(3), (0x7fff, 0, 0));
        assert_eq!(bits(4), (0x7fff, 3, 0));
        assert_eq!(bits(5), (0xffff, 3, 0));
        assert_eq!(bits(6), (0xffff, 3, 3));
        assert_eq!(bits(99), bits(6));
    }
}
