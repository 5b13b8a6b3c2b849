//! Clients of other hosts: who may knock, how many of them and for how long, and whom their names let in.
//!
//! ```text
//!   tls_listen ── accept ─► strangers: so many of one address, so many in all, each for ten seconds
//!                              │ a connection, and the way to a signer
//!                              ▼
//!   Pool: two processes ── one does TLS, one has the key and signs once ─► Proved {name}
//!                                                                             │ names: tls_allowed, tls_read_only
//!                                                                             ▼
//!                            places as everybody's (`api::doors`), and a session with those rights
//! ```
//!
//! The supervisor reads no byte of TLS and no certificate: it hands the files on as they are, with the connection,
//! and is told a name. The key goes to the signer alone.
//!
//! What may not live here: TLS, X.509.

mod credentials;
mod names;
mod serving;
mod strangers;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reeve_ipc::scm;
use rustix::net::sockopt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use self::credentials::{CredentialError, Credentials, Files};
pub use self::names::Names;
use self::strangers::{Place, Strangers};
use super::pool::Client;
use crate::api::{Serve, Shared};
use crate::logging::seldom::Seldom;

/// How long a client may take, from when it is accepted, to prove who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Processes that strangers may have at most: each a gateway and a signer.
pub(super) const MOST_PROCESSES: usize = 2 * strangers::MOST;
/// How long a listener rests when the host has no descriptor for a client.
const REST: Duration = Duration::from_millis(50);
/// A client of which nothing is heard is asked by the kernel whether it is there after so long, then so often, so many
/// times.
const SILENCE: Duration = Duration::from_secs(60);
const ASK_EACH: Duration = Duration::from_secs(10);
const ASK_TIMES: u32 = 6;

/// What remote clients are let in by. A reload changes it, for those that come after it.
#[derive(Debug, Default)]
pub struct Remote {
    /// What the server shows and what it asks for; `None` where that cannot be had, and nobody is let in.
    pub credentials: Option<Arc<Credentials>>,
    /// Whom that lets in.
    pub names: Names,
}

/// What is in force.
pub type Current = Arc<RwLock<Arc<Remote>>>;

/// One socket on which remote clients knock.
#[derive(Debug)]
pub(super) struct Door {
    listener: TcpListener,
    address: SocketAddr,
}

/// A client that has not said who it is, on its way to a process.
pub(super) struct Stranger<S: Serve> {
    connection: OwnedFd,
    address: SocketAddr,
    /// The way to its signer.
    signer: OwnedFd,
    /// Until when it must have proved who it is.
    deadline: Instant,
    remote: Arc<Remote>,
    credentials: Arc<Credentials>,
    place: Place,
    shared: Arc<Shared<S>>,
    lines: Arc<Seldom>,
}

/// A signature that a stranger's handshake takes, on its way to a process.
pub(super) struct Signing {
    socket: OwnedFd,
    credentials: Arc<Credentials>,
    deadline: Instant,
}

impl Door {
    /// Listens at `address`.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        // With port 0 the kernel chooses one.
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        Ok(Self { listener, address })
    }

    /// Lets clients knock, for ever.
    pub(super) async fn serve<S: Serve>(
        self,
        strangers: Arc<Strangers>,
        current: Current,
        shared: Arc<Shared<S>>,
        clients: mpsc::Sender<Client<S>>,
    ) {
        tracing::info!(
            "clients of other hosts are served at {} by TLS",
            self.address
        );
        let (lines, exhausted) = (Arc::new(Seldom::default()), Seldom::default());
        loop {
            let (connection, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                // One that went before it was let in.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    if let Some(left_out) = exhausted.may() {
                        tracing::error!(%error, left_out, "no remote client can be let in");
                    }
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            let deadline = Instant::now() + HANDSHAKE;
            let refuse = |why: &dyn std::fmt::Display| {
                if let Some(left_out) = lines.may() {
                    tracing::info!(%address, left_out, "a remote client was refused: {why}");
                }
            };
            let Some(place) = strangers.admit(address.ip()) else {
                refuse(&"too many are connected that have not said who they are");
                continue;
            };
            let remote = Arc::clone(&current.read().unwrap_or_else(PoisonError::into_inner));
            let Some(credentials) = remote.credentials.clone() else {
                refuse(&"there are no certificates; the log says why, where they were read");
                continue;
            };
            let prepared = prepare(connection)
                .and_then(|connection| Ok((connection, scm::pair().map_err(io::Error::other)?)));
            let (connection, (asks, signs)) = match prepared {
                Ok(prepared) => prepared,
                Err(error) => {
                    refuse(&error);
                    continue;
                }
            };
            let signing = Signing {
                socket: signs,
                credentials: Arc::clone(&credentials),
                deadline,
            };
            let stranger = Stranger {
                connection,
                address,
                signer: asks,
                deadline,
                remote,
                credentials,
                place,
                shared: Arc::clone(&shared),
                lines: Arc::clone(&lines),
            };
            let handed = clients.send(Client::Stranger(stranger)).await;
            if handed.is_err() || clients.send(Client::Signing(signing)).await.is_err() {
                return;
            }
        }
    }
}

/// Makes what was accepted what a gateway takes. A client whose host is gone is noticed some time.
fn prepare(connection: tokio::net::TcpStream) -> io::Result<OwnedFd> {
    let connection = OwnedFd::from(connection.into_std()?);
    let socket = connection.as_fd();
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, SILENCE)?;
    sockopt::set_tcp_keepintvl(socket, ASK_EACH)?;
    sockopt::set_tcp_keepcnt(socket, ASK_TIMES)?;
    Ok(connection)
}
