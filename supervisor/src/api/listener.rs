//! The socket on which clients knock.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLockReadGuard};
use std::time::Duration;

use reeve_ipc::api::SOCKET_NAME;
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::message::ToClient;
use reeve_ipc::strays::NoRights;
use reeve_ipc::{codec, local, scm};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::net::{UnixListener, UnixStream};

use super::access::Peer;
use super::session::{Admitted, Session};
use super::{Serve, Shared};
use crate::domain::actor::SessionId;

/// Connections that may wait to be let in.
const BACKLOG: i32 = 512;
/// Places beyond the limit for those whom no flood of others' clients may keep out: root and the
/// supervisor's own user.
const RESERVE: usize = 8;
/// How long the listener rests when the host has no descriptor for it.
const REST: Duration = Duration::from_millis(50);

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

/// The bound socket. Dropping it removes its name.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Given up to tell a client that there is no descriptor for it.
    spare: Option<OwnedFd>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Listener {
    /// Binds the socket in `run_directory`, in place of one that nobody listens on any more. Clients
    /// may connect from then on, and are let in when [`Self::serve`] runs.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind(run_directory: &Path) -> Result<Self, ListenError> {
        let path = run_directory.join(SOCKET_NAME);
        let refuse = |error: Errno| ListenError::Listen {
            path: path.clone(),
            error: error.into(),
        };
        match local::connect(&path) {
            Ok(_) | Err(Errno::AGAIN) => return Err(ListenError::Taken(path)),
            Err(_) => {}
        }
        // Bound under another name first, so that no client finds one on which nobody listens.
        let new = run_directory.join(format!(".{SOCKET_NAME}-{}", std::process::id()));
        let _ = std::fs::remove_file(&new);
        // Everybody may connect, and is asked who it is then.
        let socket = local::listen(&new, Mode::from_raw_mode(0o666), BACKLOG).map_err(refuse)?;
        // Those that are accepted have this from it, before their clients can send any.
        scm::refuse_rights(socket.as_fd());
        std::fs::rename(&new, &path).map_err(|error| ListenError::Listen {
            path: path.clone(),
            error,
        })?;
        let socket =
            UnixListener::from_std(socket.into()).map_err(|error| ListenError::Listen {
                path: path.clone(),
                error,
            })?;
        Ok(Self {
            socket,
            path,
            spare: spare(),
        })
    }

    /// Lets clients in, for ever. What goes wrong with one of them, or with the host's descriptors,
    /// does not end it.
    pub async fn serve<S: Serve>(mut self, shared: Arc<Shared<S>>) {
        let doors = Arc::new(Doors::default());
        let mut next = 0;
        loop {
            match self.socket.accept().await {
                Ok((socket, _)) => {
                    next += 1;
                    admit(NoRights::new(socket), SessionId(next), &shared, &doors);
                }
                Err(error) => self.accept_failed(&error).await,
            }
        }
    }

    async fn accept_failed(&mut self, error: &io::Error) {
        let exhausted = matches!(
            error.raw_os_error(),
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
        );
        if !exhausted {
            // A client that went before it was let in.
            return;
        }
        tracing::error!(%error, "no client can be let in; raise LimitNOFILE");
        self.spare = None;
        let accepted = tokio::time::timeout(REST, self.socket.accept()).await;
        if let Ok(Ok((socket, _))) = accepted {
            let message = "the supervisor has no descriptor left; try again later";
            let socket = NoRights::new(socket);
            refuse(&socket, ApiError::new(ApiErrorCode::Host, message));
        }
        self.spare = spare();
        tokio::time::sleep(REST).await;
    }
}

fn spare() -> Option<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Who is inside.
#[derive(Debug, Default)]
pub(super) struct Doors {
    inside: Mutex<HashMap<u32, usize>>,
}

/// One place inside, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    doors: Arc<Doors>,
    uid: u32,
}

impl Doors {
    fn with<T>(&self, look: impl FnOnce(&mut HashMap<u32, usize>) -> T) -> T {
        // Nothing panics while it is held.
        look(&mut self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count(&self) -> usize {
        self.with(|inside| inside.values().sum())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.doors.with(|inside| {
            if let Some(count) = inside.get_mut(&self.uid) {
                *count -= 1;
                if *count == 0 {
                    inside.remove(&self.uid);
                }
            }
        });
    }
}

/// Reads what a reload may change; nothing panics while it is changed.
pub(super) fn read<T>(lock: &std::sync::RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn admit<S: Serve>(
    socket: NoRights<UnixStream>,
    id: SessionId,
    shared: &Arc<Shared<S>>,
    doors: &Arc<Doors>,
) {
    let (policy, limits) = (*read(&shared.policy), *read(&shared.limits));
    let Ok(peer) = Peer::of(&socket) else { return };
    let Some(access) = policy.access(&peer) else {
        let message = format!(
            "user {} may not use this supervisor; its administrator can add you to the group that may",
            peer.uid
        );
        return refuse(&socket, ApiError::new(ApiErrorCode::AccessDenied, message));
    };
    let full = doors.with(|inside| {
        let own = inside.get(&peer.uid).copied().unwrap_or(0);
        let all: usize = inside.values().sum();
        let reserve = if policy.is_exempt(&peer) { RESERVE } else { 0 };
        if all >= limits.clients.saturating_add(reserve) {
            return Some(format!("{all} clients are connected; try again later"));
        }
        if own >= limits.clients_per_user && !policy.is_exempt(&peer) {
            return Some(format!("{own} clients of yours are connected; close one"));
        }
        *inside.entry(peer.uid).or_default() += 1;
        None
    });
    if let Some(message) = full {
        return refuse(&socket, ApiError::new(ApiErrorCode::Busy, message));
    }
    let place = Place {
        doors: Arc::clone(doors),
        uid: peer.uid,
    };
    let count = |doors: &Doors| u32::try_from(doors.count()).unwrap_or(u32::MAX);
    shared.service.clients(count(doors));
    let session = Session::new(
        socket,
        Admitted {
            id,
            peer,
            access,
            calls_in_flight: limits.calls_in_flight,
        },
        Arc::clone(shared),
    );
    let (shared, doors) = (Arc::clone(shared), Arc::clone(doors));
    tokio::spawn(async move {
        session.run().await;
        drop(place);
        shared.service.clients(count(&doors));
        Arc::clone(&shared.service).session_ended(id);
    });
}

fn refuse(socket: &NoRights<UnixStream>, error: ApiError) {
    if let Ok(bytes) = codec::encode(&ToClient::Refused(error)) {
        // One that is gone, or has no room for it, need not know.
        let _ = scm::send(socket.as_fd(), &bytes, &[]);
    }
}
