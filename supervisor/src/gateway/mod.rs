//! libvirt's front door: who knocks there, and which process serves them.
//!
//! ```text
//!   libvirt-sock, libvirt-sock-ro ── accept ─► access, places (as the native API's: `api::doors`)
//!                                                  │ a client, its rights
//!                                                  ▼
//!   Pool, one task ── the oldest of a few warm processes ─► hand over: client's socket, a session's end
//!     │  none warm: it waits for one                           │
//!     │                                                        ▼
//!     └─ Spawner, one thread: starts one after another       keep, one task a process: session until the
//!                                                            process or the client goes, then reaped
//! ```
//!
//! Clients of other hosts come by TLS, where that is configured, and have to say who they are first ([`remote`]).
//!
//! The supervisor reads not one byte of libvirt's protocol: it accepts a connection, asks the kernel whose it
//! is, and hands it to a process of its own (`reeve-gateway`) in a jail as a worker's, with a uid that no other
//! process has, so that two of them cannot signal or trace each other. What that process asks for it asks in
//! the native API, on a session that has the client's rights and name; a process that was taken over can do
//! what its client may, and no more. One that dies takes one connection with it.
//!
//! Where the supervisor is no root, as one of tests may be, there is one uid, its own: the level `user`, as for
//! `reeve run`. All else of the jail is the same, and needs a kernel that lets users make user namespaces.
//!
//! A uid costs a gateway two system calls, and a bit of the instance's block, which has 1024; the process about
//! a millisecond of one CPU, on the spawner's thread, and is there before its client where a warm one is.
//!
//! Memory, measured with an unoptimised build and virsh connected and idle (2026-11-30): of its own a gateway has 0.1 MiB
//! of heap, 0.1 MiB of stack and 0.3 MiB of relocated tables. The rest is its program, which all gateways share: 1.4
//! MiB of PSS each while they wait, and 5 MiB of code that is touched once for all of them when one serves.
//!
//! Each has a limit of its own memory, and all together have one (`bound.rs`); where the host's is short they go
//! first.
//!
//! What may not live here: libvirt's protocol, XML, what calls mean.

mod bound;
mod pool;
mod process;
pub mod remote;
mod spawner;

use std::fs::DirBuilder;
use std::future::pending;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use reeve_ipc::api::Access;
use reeve_ipc::changes::ChangeCount;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::bound::Bound;
use self::pool::{Client, Pool};
use self::remote::{Checks, Current};
use self::spawner::Spawner;
use crate::api::access::Peer;
use crate::api::listener::{Kind, ListenError, Listener, TooMany};
use crate::api::{Limits, Serve, Shared};
use crate::host::confinement::CgroupPlace;
use crate::host::identity::{Identities, Level};
use crate::host::program::Program;
use crate::logging::seldom::Seldom;

/// The executable's name.
pub const NAME: &str = "reeve-gateway";
/// The socket's name in the run directory.
pub const SOCKET_NAME: &str = "libvirt-sock";
/// What is behind the name of a socket whose clients only look.
const READ_ONLY: &str = "-ro";
/// Clients on their way from the door to the pool.
const QUEUE: usize = 16;

/// What the front door is opened with.
#[derive(Debug)]
pub struct Settings {
    /// The directory of the sockets that are always there.
    pub run_directory: PathBuf,
    /// Where there are others: for each, a second one with `-ro` behind its name.
    pub sockets: Vec<PathBuf>,
    /// Where clients of other hosts are, by TLS.
    pub tls: Vec<SocketAddr>,
    /// What lets them in, now and whenever one comes.
    pub remote: Current,
    /// Files of TLS that were read again, and are to be looked at.
    pub checks: Option<Checks>,
    /// How many processes wait for clients.
    pub warm: usize,
    /// Where the cgroup of all those processes is made.
    pub cgroups: CgroupPlace,
    /// How many clients there may be, now and whenever it is asked.
    pub limits: Arc<RwLock<Limits>>,
    /// What tells those processes that domains have changed.
    pub changes: Arc<ChangeCount>,
}

/// The open door: clients may knock, and are let in when it is served.
#[derive(Debug)]
pub struct FrontDoor {
    listeners: Vec<(Listener, Access)>,
    doors: Vec<remote::Door>,
    remote: Current,
    checks: Option<Checks>,
    spawner: Spawner,
    warm: usize,
}

impl FrontDoor {
    /// Binds the sockets. What cannot be done is logged, and no reason for a daemon not to start: domains
    /// that run must not be left without one. `None` where nothing is left of the door.
    #[must_use]
    pub fn open(settings: Settings, identities: Identities) -> Option<Self> {
        let program = Program::find(NAME)
            .inspect_err(|error| {
                tracing::error!("no client of libvirt's protocol is served: {error}")
            })
            .ok()?;
        let mut listeners = Vec::new();
        let own = settings.run_directory.join(SOCKET_NAME);
        for path in std::iter::once(&own).chain(&settings.sockets) {
            make_directory(path);
            for (path, access) in [
                (path.clone(), Access::ReadWrite),
                (read_only(path), Access::ReadOnly),
            ] {
                match Listener::bind_at(&path, Kind::Libvirt) {
                    Ok(listener) => listeners.push((listener, access)),
                    Err(ListenError::Taken(path)) => tracing::error!(
                        "another program listens at {path}: no client of libvirt's protocol is served \
                         there; end it and restart reeved, or take the path out of libvirt_sockets",
                        path = path.display()
                    ),
                    Err(error) => {
                        tracing::error!("no client of libvirt's protocol is served there: {error}");
                    }
                }
            }
        }
        if identities.level() == Level::User {
            tracing::warn!(
                level = %Level::User,
                "clients of libvirt's protocol are served by processes with this user's own uid: the rest of their \
                 jail is closed as ever; started as root each has a uid of its own"
            );
        }
        let mut doors = Vec::new();
        for address in &settings.tls {
            match remote::Door::open(*address) {
                Ok(door) => doors.push(door),
                Err(error) => {
                    tracing::error!("no client of another host is served at {address}: {error}")
                }
            }
        }
        let strangers = match doors.is_empty() {
            true => 0,
            false => remote::MOST_PROCESSES,
        };
        let bound = Bound::make(
            &settings.cgroups,
            &settings.run_directory,
            Arc::clone(&settings.limits),
            settings.warm.saturating_add(strangers),
        );
        let spawner = Spawner::start(program, identities, bound, Arc::clone(&settings.changes))
            .inspect_err(|error| {
                tracing::error!("no client of libvirt's protocol is served: no thread: {error}");
            })
            .ok()?;
        (!listeners.is_empty() || !doors.is_empty()).then_some(Self {
            listeners,
            checks: settings.checks.filter(|_| !doors.is_empty()),
            doors,
            remote: settings.remote,
            spawner,
            warm: settings.warm,
        })
    }

    /// Lets clients in, for ever. Dropping this ends every process and removes the sockets.
    pub async fn serve<S: Serve>(self, shared: Arc<Shared<S>>) {
        let (clients, queue) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        tasks.spawn(Pool::new(self.spawner, self.warm).serve(queue));
        for (listener, most) in self.listeners {
            tasks.spawn(let_in(listener, most, Arc::clone(&shared), clients.clone()));
        }
        let strangers = Arc::default();
        for door in self.doors {
            let (strangers, current) = (Arc::clone(&strangers), self.remote.clone());
            tasks.spawn(door.serve(strangers, current, Arc::clone(&shared), clients.clone()));
        }
        if let Some(mut checks) = self.checks {
            tasks.spawn(async move {
                while let Some(check) = checks.recv().await {
                    if clients.send(Client::Check(check)).await.is_err() {
                        return;
                    }
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            tracing::error!(?ended, "a part of libvirt's front door has ended");
        }
        pending().await
    }
}

/// A door that may be there.
pub(crate) async fn serve<S: Serve>(door: Option<FrontDoor>, shared: Arc<Shared<S>>) {
    match door {
        Some(door) => door.serve(shared).await,
        None => pending().await,
    }
}

/// Lets clients in by one socket, for ever.
async fn let_in<S: Serve>(
    mut listener: Listener,
    most: Access,
    shared: Arc<Shared<S>>,
    clients: mpsc::Sender<Client<S>>,
) {
    let refusals = Seldom::default();
    loop {
        // One for which there is no descriptor is closed; its protocol has no words for it here.
        let Ok(socket) = listener
            .accept()
            .await
            .map_err(|TooMany(socket)| drop(socket))
        else {
            continue;
        };
        let Ok(peer) = Peer::of(&socket) else {
            continue;
        };
        let (pid, uid) = (peer.pid, peer.uid);
        match shared.admit(peer, most) {
            Ok(entry) => {
                let client = Client::Local { socket, entry };
                if clients.send(client).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if let Some(left_out) = refusals.may() {
                    let path = listener.path().display();
                    tracing::info!(pid, uid, left_out, "a client was closed at {path}: {error}");
                }
            }
        }
    }
}

/// The socket beside the one at `path` whose clients only look.
fn read_only(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(READ_ONLY);
    PathBuf::from(name)
}

/// Makes the directory of a socket, which is gone after each boot where it is in `/run`. What goes wrong shows when
/// the socket is bound.
fn make_directory(path: &Path) {
    if let Some(directory) = path.parent() {
        let _ = DirBuilder::new().mode(0o755).create(directory);
    }
}
