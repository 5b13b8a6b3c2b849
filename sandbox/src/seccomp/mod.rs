//! System call filters, one per thread role.
//!
//! ```text
//! main thread    enter(): Base ──────────── enter_role(Control), when all threads exist
//!                          │ inherits
//! other threads            ├─ Base + Vcpu     enter_role() is the first thing in the thread
//!                          ├─ Base + Io
//!                          ├─ Base + Vhost
//!                          ├─ Base + Memory
//!                          └─ Base + Spawner ─┬─ + Vcpu   those that are made later
//!                                             ├─ + Io
//!                                             └─ + Vhost
//! reader         enter(): Base ──────────── enter_role(Reader): a process of its own, of one thread
//! gateway        enter(): Base ──────────── enter_role(Gateway): likewise
//! images         enter(): Base ──────────── enter_role(Images): likewise
//! ```
//!
//! Filters stack: a call must pass each, so Base is a superset of all roles, and Spawner of those of the
//! threads it makes. Base itself is two filters,
//! as stage B installs it before it has finished (`join.rs`). An unlisted call traps;
//! the handler of [`denial`] names it and the process dies by SIGSYS. Another architecture's entry
//! (`int 0x80`) kills at once; x32 numbers are unlisted.

pub mod denial;

mod args;
mod base;
#[cfg(test)]
mod compile;
mod control;
mod gateway;
mod images;
mod io;
mod ioctl;
#[cfg(test)]
mod join;
mod memory;
mod reader;
pub mod rule;
mod spawner;
#[cfg(test)]
mod tests;
mod vcpu;
mod vhost;

use std::fmt;
use std::io::Error;

pub use args::KICK_SIGNAL;
use rule::Rule;

/// The part a thread plays, which decides its filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// From the closing of the jail until a role is entered.
    Base = 1,
    /// The control thread.
    Control = 2,
    /// A thread that runs one vCPU.
    Vcpu = 3,
    /// A thread that owns virtqueues or the console.
    Io = 4,
    /// The thread that makes threads and devices while the machine stands.
    Spawner = 5,
    /// The process that reads the header of an image.
    Reader = 6,
    /// A thread that owns virtqueues which the kernel serves for it.
    Vhost = 7,
    /// The thread that gives the guest memory and takes it away.
    Memory = 8,
    /// The process that serves one client of libvirt's protocol.
    Gateway = 9,
    /// The process that reads and writes disk images for the supervisor.
    Images = 10,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 10] = [
        Self::Base,
        Self::Control,
        Self::Vcpu,
        Self::Io,
        Self::Spawner,
        Self::Reader,
        Self::Vhost,
        Self::Memory,
        Self::Gateway,
        Self::Images,
    ];

    /// The table, for tests and documents.
    pub fn rules(self) -> &'static [Rule] {
        match self {
            Self::Base => base::RULES,
            Self::Control => control::RULES,
            Self::Vcpu => vcpu::RULES,
            Self::Io => io::RULES,
            Self::Spawner => spawner::RULES,
            Self::Reader => reader::RULES,
            Self::Vhost => vhost::RULES,
            Self::Memory => memory::RULES,
            Self::Gateway => gateway::RULES,
            Self::Images => images::RULES,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|role| *role as u8 == number)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::Control => "control",
            Self::Vcpu => "vcpu",
            Self::Io => "io",
            Self::Spawner => "spawner",
            Self::Reader => "reader",
            Self::Vhost => "vhost",
            Self::Memory => "memory",
            Self::Gateway => "gateway",
            Self::Images => "images",
        })
    }
}

/// One BPF instruction; the layout is `struct sock_filter`'s.
#[repr(C)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

include!(concat!(env!("OUT_DIR"), "/filters.rs"));

/// Stacks the role's filter on the calling thread's and remembers the role for denial reports.
///
/// The first thing a thread does. Not undone by anything.
///
/// # Errors
///
/// `EINVAL` for [`Role::Base`], which every thread has from the start. The kernel's, when it refuses
/// the filter. From a thread that has a role already the call itself is denied, and the process dies.
pub fn enter_role(role: Role) -> Result<(), Error> {
    install(match role {
        Role::Base => return Err(Error::from_raw_os_error(libc::EINVAL)),
        Role::Control => &CONTROL,
        Role::Vcpu => &VCPU,
        Role::Io => &IO,
        Role::Spawner => &SPAWNER,
        Role::Reader => &READER,
        Role::Vhost => &VHOST,
        Role::Memory => &MEMORY,
        Role::Gateway => &GATEWAY,
        Role::Images => &IMAGES,
    })?;
    denial::set_role(role);
    Ok(())
}

/// Base, with the calls that stage B still makes.
pub(crate) fn install_base() -> Result<(), Error> {
    install(&BASE)
}

/// Takes those calls away.
pub(crate) fn seal() -> Result<(), Error> {
    install(&SEAL)
}

#[expect(
    unsafe_code,
    reason = "no crate installs a constant program without copying it to the heap"
)]
fn install(program: &'static [Instruction]) -> Result<(), Error> {
    let len = u16::try_from(program.len()).map_err(|_| Error::from_raw_os_error(libc::EINVAL))?;
    let fprog = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel only reads `len` instructions, which `Instruction` lays out as sock_filter,
    // from a static; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const fprog,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(Error::last_os_error())
    }
}
