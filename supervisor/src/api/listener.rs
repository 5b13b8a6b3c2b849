//! The sockets on which clients knock.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::message::ToClient;
use reeve_ipc::api::{Access, SOCKET_NAME};
use reeve_ipc::strays::NoRights;
use reeve_ipc::{codec, local, scm};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::net::UnixListener;

use super::access::Peer;
use super::{Serve, Shared};
use crate::logging::seldom::Seldom;

/// Connections that may wait to be let in.
const BACKLOG: i32 = 512;
/// How long the listener rests when the host has no descriptor for it.
const REST: Duration = Duration::from_millis(50);
/// How long a client of the native API may take to say who it is.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody listens there.
    #[error("another supervisor listens at {path}; end it, or use another --run-dir", path = .0.display())]
    Taken(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen at {path}: {error}", path = .path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// What kind of socket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `SOCK_SEQPACKET`, of the native API.
    Native,
    /// `SOCK_STREAM`, of libvirt's protocol.
    Libvirt,
}

/// A bound socket. Dropping it removes its name, as long as that is its own.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// The device and the number of what has the name.
    identity: (u64, u64),
    /// Given up to tell a client that there is no descriptor for it.
    spare: Option<OwnedFd>,
    /// That there was none.
    exhausted: Seldom,
}

impl Drop for Listener {
    fn drop(&mut self) {
        if look(&self.path).is_ok_and(|found| found == Some(self.identity)) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A client that cannot be let in for want of descriptors, to be told so.
#[derive(Debug)]
pub(crate) struct TooMany(pub(crate) NoRights<OwnedFd>);

impl Listener {
    /// Binds the native API's socket in `run_directory`, in place of one that nobody listens on any more.
    /// Clients may connect from then on, and are let in when [`Self::serve`] runs.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind(run_directory: &Path) -> Result<Self, ListenError> {
        Self::bind_at(&run_directory.join(SOCKET_NAME), Kind::Native)
    }

    /// Binds a socket at `path`, in place of one that nobody listens on any more.
    pub(crate) fn bind_at(path: &Path, kind: Kind) -> Result<Self, ListenError> {
        let refuse = |error: io::Error| ListenError::Listen {
            path: path.to_owned(),
            error,
        };
        let (connected, name) = match kind {
            Kind::Native => (local::connect(path), path.file_name()),
            Kind::Libvirt => (local::connect_stream(path), path.file_name()),
        };
        match connected {
            Ok(_) | Err(Errno::AGAIN | Errno::PROTOTYPE) => {
                return Err(ListenError::Taken(path.to_owned()));
            }
            Err(_) => {}
        }
        look(path).map_err(refuse)?;
        // Bound under another name first, so that no client finds one on which nobody listens.
        let name = name.unwrap_or_default().to_string_lossy();
        let new = path.with_file_name(format!(".{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&new);
        // Everybody may connect, and is asked who it is then.
        let anybody = Mode::from_raw_mode(0o666);
        let socket = match kind {
            Kind::Native => local::listen(&new, anybody, BACKLOG),
            Kind::Libvirt => local::listen_stream(&new, anybody, BACKLOG),
        };
        let socket = socket.map_err(|errno| refuse(errno.into()))?;
        // Those that are accepted have this from it, before their clients can send any.
        scm::refuse_rights(socket.as_fd());
        let renamed = std::fs::rename(&new, path);
        if renamed.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        renamed.map_err(refuse)?;
        let identity = look(path).map_err(refuse)?.unwrap_or_default();
        let socket = UnixListener::from_std(socket.into()).map_err(refuse)?;
        Ok(Self {
            socket,
            path: path.to_owned(),
            identity,
            spare: spare(),
            exhausted: Seldom::default(),
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next client. What goes wrong with one that has gone, or with the host's descriptors, does not
    /// end it.
    pub(crate) async fn accept(&mut self) -> Result<NoRights<OwnedFd>, TooMany> {
        loop {
            if self.spare.is_none() {
                self.spare = spare();
                tokio::time::sleep(REST).await;
            }
            let error = match self.next().await {
                Ok(socket) => return Ok(socket),
                Err(error) => error,
            };
            let exhausted = matches!(
                error.raw_os_error(),
                Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
            );
            if !exhausted {
                // A client that went before it was let in.
                continue;
            }
            if let Some(left_out) = self.exhausted.may() {
                tracing::error!(%error, left_out, "no client can be let in; raise LimitNOFILE");
            }
            self.spare = None;
            let accepted = tokio::time::timeout(REST, self.next()).await;
            if let Ok(Ok(socket)) = accepted {
                return Err(TooMany(socket));
            }
        }
    }

    async fn next(&self) -> io::Result<NoRights<OwnedFd>> {
        let (socket, _) = self.socket.accept().await?;
        Ok(NoRights::new(socket.into_std()?.into()))
    }

    /// Lets clients of the native API in, for ever.
    pub async fn serve<S: Serve>(mut self, shared: Arc<Shared<S>>) {
        loop {
            let socket = match self.accept().await {
                Ok(socket) => socket,
                Err(TooMany(socket)) => {
                    let message = "the supervisor has no descriptor left; try again later";
                    refuse(&socket, ApiError::new(ApiErrorCode::Host, message));
                    continue;
                }
            };
            let Ok(peer) = Peer::of(&socket) else {
                continue;
            };
            match shared.admit(peer, Access::ReadWrite) {
                Ok(entry) => {
                    tokio::spawn(entry.attend(socket, Some(HELLO_DEADLINE)));
                }
                Err(error) => refuse(&socket, error),
            }
        }
    }
}

/// The device and the number of the socket at `path`, itself, if there is any.
fn look(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match path.symlink_metadata() {
        Ok(found) if found.file_type().is_socket() => Ok(Some((found.dev(), found.ino()))),
        Ok(_) => Err(io::Error::other("something else is there; remove it")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn spare() -> Option<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn refuse(socket: &NoRights<OwnedFd>, error: ApiError) {
    if let Ok(bytes) = codec::encode(&ToClient::Refused(error)) {
        // One that is gone, or has no room for it, need not know.
        let _ = scm::send(socket.as_fd(), &bytes, &[]);
    }
}
