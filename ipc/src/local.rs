//! UNIX sockets by path, of any length: `SOCK_SEQPACKET`, and for protocols of others `SOCK_STREAM`.
//!
//! An address has room for 107 bytes (unix(7)); a state directory deep in a tree has longer paths. So
//! the directory is opened, and the address names the socket through its descriptor in `/proc`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::scm::refuse_rights;

/// Room in an address, without its terminator.
const MAX_ADDRESS_BYTES: usize = 107;

/// Connects to a socket, without waiting. The connection is non-blocking and close-on-exec.
///
/// # Errors
/// `ENOENT`, `ECONNREFUSED`: nobody listens there; `EAGAIN`: too many wait to be accepted; any other
/// of connect(2).
pub fn connect(path: &Path) -> Result<OwnedFd, Errno> {
    connect_socket(socket(SocketType::SEQPACKET)?, path)
}

/// As [`connect`], to a socket of the `SOCK_STREAM` kind.
///
/// # Errors
/// As for [`connect`]; `EPROTOTYPE`: a socket of another kind listens there.
pub fn connect_stream(path: &Path) -> Result<OwnedFd, Errno> {
    connect_socket(socket(SocketType::STREAM)?, path)
}

/// As [`connect`], to an end that is not trusted: from its first message on the kernel says who sends
/// it (unix(7), `SO_PASSCRED`), and refuses descriptors where it can. A message that was sent before
/// that is asked for has no sender.
///
/// # Errors
/// As for [`connect`].
pub fn connect_warily(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = socket(SocketType::SEQPACKET)?;
    refuse_rights(socket.as_fd());
    set_socket_passcred(&socket, true)?;
    connect_socket(socket, path)
}

fn connect_socket(socket: OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let place = Place::of(path)?;
    rustix::net::connect(&socket, &place.address()?)?;
    Ok(socket)
}

/// Binds a socket and listens. What is at the path already must be gone. The listener is non-blocking
/// and close-on-exec; whoever may write to the directory decides who can replace it.
///
/// # Errors
/// `EADDRINUSE`: there is something; any other of bind(2) and listen(2).
pub fn listen(path: &Path, mode: Mode, backlog: i32) -> Result<OwnedFd, Errno> {
    listen_socket(socket(SocketType::SEQPACKET)?, path, mode, backlog)
}

/// As [`listen`], with a socket of the `SOCK_STREAM` kind.
///
/// # Errors
/// As for [`listen`].
pub fn listen_stream(path: &Path, mode: Mode, backlog: i32) -> Result<OwnedFd, Errno> {
    listen_socket(socket(SocketType::STREAM)?, path, mode, backlog)
}

fn listen_socket(socket: OwnedFd, path: &Path, mode: Mode, backlog: i32) -> Result<OwnedFd, Errno> {
    let place = Place::of(path)?;
    // On Linux the mode of the new socket is that of the descriptor, less the umask: set before it
    // has a name, so that there is no moment in which others may connect.
    rustix::fs::fchmod(&socket, mode)?;
    rustix::net::bind(&socket, &place.address()?)?;
    rustix::fs::chmodat(CWD, place.path(), mode, rustix::fs::AtFlags::empty())?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

fn socket(kind: SocketType) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)
}

/// A path that fits an address, directly or through its directory.
enum Place<'a> {
    Direct(&'a Path),
    Beneath(OwnedFd, &'a OsStr),
}

impl<'a> Place<'a> {
    fn of(path: &'a Path) -> Result<Self, Errno> {
        if path.as_os_str().len() <= MAX_ADDRESS_BYTES {
            return Ok(Self::Direct(path));
        }
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::INVAL);
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, Mode::empty())?;
        Ok(Self::Beneath(directory, name))
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Direct(path) => path.to_path_buf(),
            Self::Beneath(directory, name) => {
                Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name)
            }
        }
    }

    fn address(&self) -> Result<SocketAddrUnix, Errno> {
        SocketAddrUnix::new(self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_deep_in_a_tree_is_bound_and_found() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        for path in [root.path().join("s"), deep.join("s")] {
            assert_eq!(connect(&path).unwrap_err(), Errno::NOENT);
            let listener = listen(&path, Mode::from_raw_mode(0o600), 1).unwrap();
            let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
            assert_eq!(mode & 0o777, 0o600);
            connect(&path).unwrap();
            assert_eq!(
                listen(&path, Mode::from_raw_mode(0o600), 1).unwrap_err(),
                Errno::ADDRINUSE
            );
            assert_eq!(connect_stream(&path).unwrap_err(), Errno::PROTOTYPE);
            drop(listener);
            assert_eq!(connect(&path).unwrap_err(), Errno::CONNREFUSED);
            std::fs::remove_file(&path).unwrap();
            let listener = listen_stream(&path, Mode::from_raw_mode(0o600), 1).unwrap();
            connect_stream(&path).unwrap();
            assert_eq!(connect(&path).unwrap_err(), Errno::PROTOTYPE);
            drop(listener);
        }
    }
}
