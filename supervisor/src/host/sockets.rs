//! Sockets that a domain's devices listen on: bound by the supervisor at paths of the definition, served by
//! the worker, and unlinked when it is gone.
//!
//! Whoever may write to a directory may put anything in a socket's place, so that a name is used through
//! the directory that was opened under the policy for paths, and only what is still the socket is unlinked.
//!
//! A socket gets its name when it listens already: one that is there and refuses is dead, and may be replaced,
//! whoever else comes to the same name meanwhile. What a supervisor that was killed has left half-way goes when
//! somebody next listens, or clears up, in the same directory.

pub(crate) mod acceptor;
mod draft;

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reeve_ipc::model::{DomainName, DomainUuid};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::sync::watch;

use self::acceptor::{Acceptor, Connectors};
use self::draft::{Draft, Put};
use super::reason;
use crate::domain::plan::{PathError, PathPolicy};

/// Programs that may wait to be accepted.
const BACKLOG: i32 = 16;
/// Whoever runs the supervisor connects; and the mark.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(MARK);
/// What marks a socket that a domain's device listens on, for any supervisor. The kernel makes nothing of it
/// on a socket.
const MARK: Mode = Mode::SVTX;

/// Why nobody listens. One line: what failed, on what, what to do.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The policy forbids the path.
    #[error("{0}")]
    Forbidden(String),
    /// Somebody listens there.
    #[error(
        "the {what} '{path}' is in use by another program; give this domain another path",
        path = .path.display()
    )]
    InUse {
        /// What it is for.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// Something that is not a socket.
    #[error(
        "the {what} '{path}' is there and is not a socket; remove it, or name another path",
        path = .path.display()
    )]
    NotASocket {
        /// What it is for.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// Nobody listens where somebody should.
    #[error(
        "nobody listens on the {what} '{path}'; start what serves it first",
        path = .path.display()
    )]
    NobodyListens {
        /// What it is for.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("cannot connect to the {what} '{path}': {}", reason(*.errno), path = .path.display())]
    Connect {
        /// What it is for.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// The kernel refused.
    #[error("cannot listen on the {what} '{path}': {}", reason(*.errno), path = .path.display())]
    Os {
        /// What it is for.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
}

/// A place in a directory that the policy for paths allowed: what is made there is made in that directory
/// whatever its name means by now.
#[derive(Debug)]
pub struct Place {
    /// The directory, only looked at (`O_PATH`).
    pub directory: OwnedFd,
    /// The name in it.
    pub name: OsString,
}

impl Place {
    fn address(&self) -> Result<SocketAddrUnix, Errno> {
        address(&self.directory, &self.name)
    }

    /// What is there, itself.
    fn look(&self) -> Result<Found, Errno> {
        look(&self.directory, &self.name)
    }

    fn unlink(&self) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty())
    }
}

fn address(directory: &OwnedFd, name: &OsStr) -> Result<SocketAddrUnix, Errno> {
    let directory = format!("/proc/self/fd/{}", directory.as_raw_fd());
    SocketAddrUnix::new(Path::new(&directory).join(name))
}

fn look(directory: &OwnedFd, name: &OsStr) -> Result<Found, Errno> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(Found {
        is_socket: FileType::from_raw_mode(stat.st_mode) == FileType::Socket,
        identity: (stat.st_dev, stat.st_ino),
        owner: stat.st_uid,
        changed_s: stat.st_ctime,
    })
}

#[derive(Clone, Copy)]
struct Found {
    is_socket: bool,
    /// Device and inode.
    identity: (u64, u64),
    owner: u32,
    /// When it was made, linked or renamed last, in seconds of the host's clock.
    changed_s: i64,
}

/// A socket that is unlinked when this is dropped, if it is still there.
#[derive(Debug)]
struct BoundSocket {
    path: PathBuf,
    place: Place,
    identity: (u64, u64),
    /// It is a later supervisor's to unlink.
    left: bool,
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let still = self.place.look();
        if still.is_ok_and(|found| found.is_socket && found.identity == self.identity) {
            // Gone in this instant, or its directory is not to be written any more.
            let _ = self.place.unlink();
        }
    }
}

/// Sockets that devices listen on; unlinked when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct DeviceSockets {
    /// Bound by this supervisor.
    bound: Vec<BoundSocket>,
    /// Recorded by an earlier one, with who resolves their paths.
    recorded: Option<(Arc<dyn PathPolicy>, Vec<PathBuf>)>,
    /// Who answers for the connections of guests.
    acceptors: Vec<Acceptor>,
}

impl DeviceSockets {
    /// Those that an earlier supervisor recorded.
    pub(crate) fn recorded(paths: Arc<dyn PathPolicy>, recorded: Vec<PathBuf>) -> Self {
        Self {
            bound: Vec::new(),
            recorded: Some((paths, recorded)).filter(|(_, recorded)| !recorded.is_empty()),
            acceptors: Vec::new(),
        }
    }

    /// Whether there are any, whose removal may have to wait for a file system.
    pub(crate) fn any(&self) -> bool {
        !self.bound.is_empty() || self.recorded.is_some()
    }

    /// Leaves them to a later supervisor.
    pub(crate) fn leave(&mut self) {
        self.recorded = None;
        for socket in &mut self.bound {
            socket.left = true;
        }
    }

    /// Takes out those at `paths`.
    fn split(&mut self, paths: &[PathBuf]) -> Self {
        let of = |path: &PathBuf| paths.contains(path);
        let bound = std::mem::take(&mut self.bound).into_iter();
        let (taken, rest) = bound.partition(|socket| of(&socket.path));
        self.bound = rest;
        let recorded = self.recorded.as_mut().map(|(policy, recorded)| {
            let (taken, rest) = std::mem::take(recorded).into_iter().partition(of);
            *recorded = rest;
            (Arc::clone(policy), taken)
        });
        let acceptors = std::mem::take(&mut self.acceptors).into_iter();
        let (going, rest) = acceptors.partition(|acceptor| of(&acceptor.path));
        self.acceptors = rest;
        Self {
            bound: taken,
            recorded,
            acceptors: going,
        }
    }

    /// Gives the worker's end of who answers for the connections of the guest whose socket is at `path`. May
    /// wait for a file system. [`serve`](Self::serve) is to follow.
    ///
    /// # Errors
    /// [`SocketError`].
    pub(crate) fn accept_beside(
        &mut self,
        paths: &dyn PathPolicy,
        what: &'static str,
        path: &Path,
    ) -> Result<OwnedFd, SocketError> {
        let (acceptor, theirs) = Acceptor::new(paths, what, path)?;
        self.acceptors.push(acceptor);
        Ok(theirs)
    }

    /// Begins to answer for the guest of this domain. Runs on tokio.
    pub(crate) fn serve(&mut self, connectors: &Connectors, name: &DomainName, uuid: DomainUuid) {
        for acceptor in &mut self.acceptors {
            acceptor.serve(connectors, name, uuid);
        }
    }

    /// Binds a stream socket at `path` and listens: non-blocking, close-on-exec, for this user only. One
    /// that nobody listens on any more gives way. May wait for a file system.
    ///
    /// # Errors
    /// [`SocketError`].
    pub(crate) fn listen(
        &mut self,
        paths: &dyn PathPolicy,
        what: &'static str,
        path: &Path,
    ) -> Result<OwnedFd, SocketError> {
        let os = |errno| SocketError::Os {
            what,
            path: path.to_owned(),
            errno,
        };
        let place = place(paths, what, path, os)?;
        // Whoever is to connect uses this one.
        place.address().map_err(os)?;
        draft::sweep(&place.directory, draft::STALE);
        let (draft, socket) = Draft::make(&place.directory).map_err(os)?;
        match draft.put(&place).map_err(os)? {
            Put::There => {}
            Put::InUse => {
                let path = path.to_owned();
                return Err(SocketError::InUse { what, path });
            }
            Put::NotASocket => {
                let path = path.to_owned();
                return Err(SocketError::NotASocket { what, path });
            }
        }
        let identity = draft.identity;
        drop(draft);
        self.bound.push(BoundSocket {
            path: path.to_owned(),
            place,
            identity,
            left: false,
        });
        Ok(socket)
    }
}

impl Drop for DeviceSockets {
    fn drop(&mut self) {
        let Some((paths, recorded)) = self.recorded.take() else {
            return;
        };
        for path in recorded {
            // What is not to be found is not there to be removed.
            if let Ok(place) = paths.place("socket", &path) {
                // Whoever listens now is another.
                let is_socket = place.look().is_ok_and(|found| found.is_socket);
                if is_socket && !is_served(&place.directory, &place.name) {
                    let _ = place.unlink();
                }
                draft::sweep(&place.directory, draft::STALE);
            }
        }
    }
}

/// The sockets of one worker, whose devices come and go: held for it until it is gone, whoever knows of
/// them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct WorkerSockets {
    held: Arc<Mutex<Option<DeviceSockets>>>,
    /// Those of which the removal is under way.
    going: Arc<watch::Sender<Vec<PathBuf>>>,
}

/// Sockets that were taken from a worker; they are unlinked when this is dropped, which may wait for a file
/// system.
#[derive(Debug)]
pub(crate) struct Going {
    // Before what says that they are gone.
    _sockets: Option<DeviceSockets>,
    _noted: NotedGoing,
}

#[derive(Debug)]
struct NotedGoing {
    going: Arc<watch::Sender<Vec<PathBuf>>>,
    paths: Vec<PathBuf>,
}

impl Drop for NotedGoing {
    fn drop(&mut self) {
        self.going.send_modify(|going| {
            for path in &self.paths {
                if let Some(place) = going.iter().position(|going| going == path) {
                    going.swap_remove(place);
                }
            }
        });
    }
}

impl WorkerSockets {
    /// Those of a worker that is made or found.
    pub(crate) fn new(sockets: DeviceSockets) -> Self {
        Self {
            held: Arc::new(Mutex::new(Some(sockets))),
            going: Arc::new(watch::Sender::new(Vec::new())),
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<DeviceSockets>> {
        // Nothing panics while it is held.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.held().as_ref().is_some_and(DeviceSockets::any)
    }

    /// Takes up a further device's. Of a worker that is gone they are unlinked.
    pub(crate) fn add(&self, mut sockets: DeviceSockets) {
        if let Some(held) = self.held().as_mut() {
            held.bound.append(&mut sockets.bound);
            held.acceptors.append(&mut sockets.acceptors);
        }
    }

    /// Takes up who answers for a device that is there, in place of who did so before.
    pub(crate) fn replace(&self, acceptor: Acceptor) {
        if let Some(held) = self.held().as_mut() {
            held.acceptors.retain(|before| before.path != acceptor.path);
            held.acceptors.push(acceptor);
        }
    }

    /// Takes out those of a device that is gone, and no other that comes to these paths from now on.
    pub(crate) fn take(&self, paths: &[PathBuf]) -> Going {
        self.going
            .send_modify(|going| going.extend_from_slice(paths));
        let noted = NotedGoing {
            going: Arc::clone(&self.going),
            paths: paths.to_vec(),
        };
        let taken = self.held().as_mut().map(|held| held.split(paths));
        Going {
            _sockets: taken,
            _noted: noted,
        }
    }

    /// Waits until what was taken at these paths is unlinked: what comes to one in the same instant may be
    /// unlinked in its place. False if it takes longer than `patience`.
    pub(crate) async fn settled<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a PathBuf>,
        patience: Duration,
    ) -> bool {
        let paths: Vec<_> = paths.into_iter().collect();
        let mut going = self.going.subscribe();
        let gone = going.wait_for(|going| !going.iter().any(|path| paths.contains(&path)));
        tokio::time::timeout(patience, gone).await.is_ok()
    }

    /// Unlinks all: the worker is gone.
    pub(crate) fn release(&self) {
        let all = self.held().take();
        drop(all);
    }

    /// Leaves them to a later supervisor.
    pub(crate) fn leave(&self) {
        if let Some(mut all) = self.held().take() {
            all.leave();
        }
    }
}

/// Connects to a program that listens at `path`: a stream socket, non-blocking and close-on-exec. What is
/// there itself is meant, and no symbolic link in its place. May wait for a file system.
///
/// # Errors
/// [`SocketError`].
pub(crate) fn connect(
    paths: &dyn PathPolicy,
    what: &'static str,
    path: &Path,
) -> Result<OwnedFd, SocketError> {
    let os = |errno| match errno {
        Errno::NOENT | Errno::CONNREFUSED => SocketError::NobodyListens {
            what,
            path: path.to_owned(),
        },
        errno => SocketError::Connect {
            what,
            path: path.to_owned(),
            errno,
        },
    };
    let place = place(paths, what, path, os)?;
    let (itself, mode) = open_itself(&place.directory, &place.name).map_err(os)?;
    if FileType::from_raw_mode(mode) != FileType::Socket {
        let path = path.to_owned();
        return Err(SocketError::NotASocket { what, path });
    }
    connect_to(&itself, |_| {}).map_err(os)
}

/// The place of `path`, under the policy.
fn place(
    paths: &dyn PathPolicy,
    what: &'static str,
    path: &Path,
    os: impl FnOnce(Errno) -> SocketError,
) -> Result<Place, SocketError> {
    paths.place(what, path).map_err(|error| match error {
        PathError::Os(errno) => os(errno),
        PathError::Forbidden(line) => SocketError::Forbidden(line),
    })
}

/// What is there itself, and no link's other end: only looked at (`O_PATH`), with its mode.
fn open_itself(directory: &OwnedFd, name: &OsStr) -> Result<(OwnedFd, u32), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let itself = openat(directory, name, flags, Mode::empty())?;
    let mode = rustix::fs::fstat(&itself)?.st_mode;
    Ok((itself, mode))
}

/// Connects to the very socket that was opened; `prepare` has the stream before anybody is at its other end.
fn connect_to(itself: &OwnedFd, prepare: impl FnOnce(&OwnedFd)) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", itself.as_raw_fd()))?;
    let socket = stream()?;
    prepare(&socket);
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

fn bind(directory: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let socket = stream()?;
    // On Linux the mode of the new socket is that of the descriptor, less the umask: set before it has a
    // name, so that there is no moment in which others may connect.
    rustix::fs::fchmod(&socket, MODE)?;
    rustix::net::bind(&socket, &address(directory, name)?)?;
    Ok(socket)
}

fn stream() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Whether anybody listens at a socket.
fn is_served(directory: &OwnedFd, name: &OsStr) -> bool {
    let connect = || rustix::net::connect(&stream()?, &address(directory, name)?);
    !matches!(connect(), Err(Errno::CONNREFUSED | Errno::NOENT))
}

#[cfg(test)]
mod tests;
