//! Shared directories: a virtiofsd for each, in a jail of its own, which serves one directory to one
//! worker.
//!
//! ```text
//!   path policy ─ the directory, only looked at ─┐
//!   a listening socket of a name that nobody ────┼─► launcher ─► virtiofsd, root of a user namespace
//!     knows, and a connection to it              │                 that is the directory's owner
//!   the domain's cgroup ─────────────────────────┘
//!       worker ◄─ connected socket, reading end of its messages
//! ```
//!
//! Once the worker has both, the process is its own affair: it ends when the worker closes them, by
//! unplugging the device or by its own end, and outlives this supervisor as the worker does. Nothing of it
//! is recorded, as nothing of it has to be found again.
//!
//! # Who owns the files
//! virtiofsd is root where it runs, and there is one user of the host that this root is: the owner of the
//! directory. So the guest's root finds the owner's files as its own, what it makes is the owner's on the
//! host, and it can do there what the owner can. Everything else seems to be nobody's. A directory of the
//! host's root is shared for reading only, by the uid of the worker, which may read what anybody may: no
//! guest is root on the host. Without privilege the one user there is is the caller.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reeve_ipc::spec::PciSlot;
use reeve_sandbox::program::{self, Program, ProgramError, Serves};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Resource;
use rustix::rand::{GetRandomFlags, getrandom};

use super::identity::Level;
use super::reason;

/// Where distributions have it: Debian 13 and Fedora, Debian 12 (with QEMU), Arch, and by hand.
pub const PLACES: [&str; 4] = [
    "/usr/libexec/virtiofsd",
    "/usr/lib/qemu/virtiofsd",
    "/usr/lib/virtiofsd",
    "/usr/local/libexec/virtiofsd",
];
/// What mends its absence.
pub const MEND: &str = "install it with 'sudo apt install virtiofsd' (Debian 12: qemu-system-common), or \
    name it with 'virtiofsd = \"/path\"' in reeve.toml, '--virtiofsd /path' of 'reeve run'";
/// The most files that it may have open; it has one open for each that its guest knows.
const MAX_OPEN: u64 = 1_000_000;

/// Why a directory is not shared. One line: what failed, on what, what to do.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The policy forbids the path.
    #[error("{0}")]
    Forbidden(String),
    /// The directory cannot be opened.
    #[error("cannot open the directory {path} of share '{tag}': {}", reason(*.errno), path = .path.display())]
    Directory {
        /// The share.
        tag: String,
        /// The path.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// It is root's, and is to be written.
    #[error(
        "the directory {path} of share '{tag}' is root's, and no guest is root on the host: give it to \
         another user with chown, or share it read-only",
        path = .path.display()
    )]
    Root {
        /// The share.
        tag: String,
        /// The path.
        path: PathBuf,
    },
    /// There is no program for it.
    #[error("no virtiofsd is there to share '{tag}': {MEND}")]
    Missing {
        /// The share.
        tag: String,
    },
    /// No socket.
    #[error("cannot make the socket of share '{tag}': {}", reason(*.errno))]
    Socket {
        /// The share.
        tag: String,
        /// Why.
        errno: Errno,
    },
    /// No process.
    #[error("cannot start {program} for share '{tag}': {error}", program = .program.display())]
    Program {
        /// The share.
        tag: String,
        /// The program.
        program: PathBuf,
        /// Why.
        error: ProgramError,
    },
}

impl ShareError {
    /// Whether the definition asks for what cannot be.
    pub(crate) const fn is_of_definition(&self) -> bool {
        matches!(self, Self::Directory { .. } | Self::Root { .. })
    }
}

/// A directory that is to be shared, open.
#[derive(Debug)]
pub(crate) struct OpenShare {
    pub(crate) slot: PciSlot,
    pub(crate) tag: String,
    pub(crate) source: PathBuf,
    pub(crate) read_only: bool,
    /// Only looked at (`O_PATH`).
    pub(crate) directory: OwnedFd,
}

/// The worker that a directory is shared with.
#[derive(Debug, Clone)]
pub(crate) struct Sharer {
    /// Its uid, which is its gid too.
    pub(crate) uid: u32,
    /// Whether that is its own.
    pub(crate) level: Level,
    /// Its cgroup.
    pub(crate) cgroup: Option<PathBuf>,
}

/// What the worker gets.
#[derive(Debug)]
pub(crate) struct Serving {
    /// Connected to the process.
    pub(crate) socket: OwnedFd,
    /// What it has to say; its life.
    pub(crate) words: OwnedFd,
}

/// Starts virtiofsd. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ShareServers {
    launcher: Arc<OwnedFd>,
    program: Option<PathBuf>,
}

impl ShareServers {
    /// With the launcher in the executable of the worker; the program is looked for where none is named.
    pub(crate) fn new(launcher: OwnedFd, program: Option<PathBuf>) -> Self {
        Self {
            launcher: Arc::new(launcher),
            program,
        }
    }

    /// The same with another program.
    pub(crate) fn with_program(self, program: Option<PathBuf>) -> Self {
        Self { program, ..self }
    }

    /// What starts a program in a jail.
    pub(crate) fn launcher(&self) -> BorrowedFd<'_> {
        self.launcher.as_fd()
    }

    /// Starts a process that serves `share` to `sharer`; waits for it to be executed.
    ///
    /// # Errors
    /// [`ShareError`]; nothing is left of it.
    pub(crate) fn serve(&self, share: &OpenShare, sharer: &Sharer) -> Result<Serving, ShareError> {
        let tag = || share.tag.clone();
        let program = self.program.clone().or_else(find);
        let program = program.ok_or_else(|| ShareError::Missing { tag: tag() })?;
        let identity = identity(share, sharer)?;
        let (listener, socket) =
            sockets().map_err(|errno| ShareError::Socket { tag: tag(), errno })?;
        let words = program::launch(&Program {
            launcher: self.launcher.as_fd(),
            path: &program,
            arguments: &arguments(),
            serves: Serves::Directory {
                directory: share.directory.as_fd(),
                read_only: share.read_only,
            },
            identity,
            cgroup: sharer.cgroup.as_deref(),
            handed: listener.as_fd(),
        });
        match words {
            Ok(words) => Ok(Serving { socket, words }),
            Err(error) => Err(ShareError::Program {
                tag: tag(),
                program,
                error,
            }),
        }
    }
}

/// The first that is there.
#[must_use]
pub fn find() -> Option<PathBuf> {
    let mut places = PLACES.iter().map(PathBuf::from);
    places.find(|place| place.is_file())
}

/// What both virtiofsds understand, that of QEMU and the one in Rust. Its jail has no way out of the
/// directory but the programs of the host, and it gives those up by itself (`sandbox=chroot`).
fn arguments() -> Vec<OsString> {
    let open = rustix::process::getrlimit(Resource::Nofile).maximum;
    let open = open.unwrap_or(MAX_OPEN).min(MAX_OPEN);
    [
        "-f".to_owned(),
        format!("--fd={}", program::HANDED_FD),
        "-o".to_owned(),
        format!("source={}", program::DIRECTORY),
        "-o".to_owned(),
        "sandbox=chroot".to_owned(),
        "-o".to_owned(),
        "cache=auto".to_owned(),
        format!("--rlimit-nofile={open}"),
    ]
    .map(OsString::from)
    .to_vec()
}

/// Whose files they are.
fn identity(share: &OpenShare, sharer: &Sharer) -> Result<reeve_sandbox::Identity, ShareError> {
    let stat = rustix::fs::fstat(&share.directory).map_err(|errno| ShareError::Directory {
        tag: share.tag.clone(),
        path: share.source.clone(),
        errno,
    })?;
    match (sharer.level, stat.st_uid) {
        (Level::User, _) => Ok(reeve_sandbox::Identity::Caller),
        (Level::System, 0) if !share.read_only => Err(ShareError::Root {
            tag: share.tag.clone(),
            path: share.source.clone(),
        }),
        (Level::System, 0) => Ok(reeve_sandbox::Identity::Block {
            uid: sharer.uid,
            gid: sharer.uid,
        }),
        (Level::System, uid) => Ok(reeve_sandbox::Identity::Block {
            uid,
            gid: match stat.st_gid {
                0 => sharer.uid,
                gid => gid,
            },
        }),
    }
}

/// A listening stream socket, and a connection to it. Its name is abstract and drawn at random, and it has
/// room for one connection: where that is not ours, ours fails.
fn sockets() -> Result<(OwnedFd, OwnedFd), Errno> {
    let mut name = [0; 16];
    getrandom(&mut name, GetRandomFlags::empty())?;
    let address = SocketAddrUnix::new_abstract_name(&name)?;
    let socket = || {
        let flags = SocketFlags::CLOEXEC;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
    };
    let listener = socket()?;
    rustix::net::bind(&listener, &address)?;
    rustix::net::listen(&listener, 0)?;
    let connected = socket()?;
    rustix::io::ioctl_fionbio(&connected, true)?;
    rustix::net::connect(&connected, &address)?;
    Ok((listener, connected))
}

/// The directory itself: that it is one.
pub(crate) fn open(
    tag: &str,
    path: &Path,
    opened: Result<OwnedFd, crate::domain::plan::PathError>,
) -> Result<OwnedFd, ShareError> {
    use crate::domain::plan::PathError;
    opened.map_err(|error| match error {
        PathError::Os(errno) => ShareError::Directory {
            tag: tag.to_owned(),
            path: path.to_owned(),
            errno,
        },
        PathError::Forbidden(line) => ShareError::Forbidden(line),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(path: &Path, read_only: bool) -> OpenShare {
        use crate::domain::plan::{AnyPath, PathPolicy};
        OpenShare {
            slot: PciSlot::try_from(1).unwrap(),
            tag: "t".to_owned(),
            source: path.to_owned(),
            read_only,
            directory: open("t", path, AnyPath.open_directory("share", path)).unwrap(),
        }
    }

    #[test]
    fn nobody_but_us_is_served_by_a_socket() {
        let (listener, connected) = sockets().unwrap();
        let name = rustix::net::getpeername(&connected).unwrap();
        let other = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::NONBLOCK,
            None,
        );
        let other = other.unwrap();
        let name = SocketAddrUnix::try_from(name.unwrap()).unwrap();
        assert_eq!(rustix::net::connect(&other, &name), Err(Errno::AGAIN));
        let accepted = rustix::net::accept(&listener).unwrap();
        rustix::io::write(&accepted, b"x").unwrap();
        assert_eq!(rustix::io::read(&connected, &mut [0; 2]), Ok(1));
    }

    #[test]
    fn a_directory_s_owner_is_who_serves_it_and_never_root() {
        let sharer = |level| Sharer {
            uid: 4242,
            level,
            cgroup: None,
        };
        // Everywhere root's.
        let proc = Path::new("/proc");
        let refused = identity(&share(proc, false), &sharer(Level::System));
        let line = refused.unwrap_err().to_string();
        assert!(line.contains("/proc of share 't' is root's"), "{line}");
        assert_eq!(
            identity(&share(proc, true), &sharer(Level::System)).unwrap(),
            reeve_sandbox::Identity::Block {
                uid: 4242,
                gid: 4242
            }
        );
        assert_eq!(
            identity(&share(proc, false), &sharer(Level::User)).unwrap(),
            reeve_sandbox::Identity::Caller
        );
        if rustix::process::geteuid().is_root() {
            let directory = tempfile::tempdir().unwrap();
            std::os::unix::fs::chown(directory.path(), Some(77), Some(0)).unwrap();
            assert_eq!(
                identity(&share(directory.path(), false), &sharer(Level::System)).unwrap(),
                reeve_sandbox::Identity::Block { uid: 77, gid: 4242 }
            );
        }
    }

    #[test]
    fn a_file_is_no_directory_to_share() {
        use crate::domain::plan::{AnyPath, PathPolicy};
        let path = Path::new("/proc/self/exe");
        let refused = open("t", path, AnyPath.open_directory("share", path));
        assert!(matches!(refused, Err(ShareError::Directory { .. })));
    }
}
