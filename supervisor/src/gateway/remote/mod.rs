//! Clients of other hosts: who may knock, how many of them and for how long, and whom their names let in.
//!
//! ```text
//!   tls_listen ── accept, tls_from ─► strangers: so many of one address, so many in all, each for ten seconds
//!                                        │ a connection, and the way to a signer
//!                                        ▼
//!   Pool: two processes ── one does TLS, one has the key and signs once ─► Proved {name}
//!     or three, where clients have passwords: the third checks them, and says itself whose it was
//!                                                                             │ names: tls_allowed, tls_read_only,
//!                                                                             ▼   and the users'
//!                            places as everybody's (`api::doors`), and a session with those rights
//!
//!   reload ─► one process looks at the files (`checks`) ─► they hold; whoever may not stay is put out (`guests`)
//! ```
//!
//! The supervisor reads no byte of TLS and no certificate: it hands the files on as they are, with the connection,
//! and is told a name. The key goes to the signer alone.
//!
//! What may not live here: TLS, X.509.

mod checks;
mod credentials;
mod guests;
mod names;
mod serving;
mod strangers;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reeve_ipc::api::Access;
use reeve_ipc::gateway::Chain;
use reeve_ipc::model::IpRange;
use reeve_ipc::scm;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use self::checks::{Check, Checker, Checks};
pub use self::credentials::{CredentialError, Credentials, Files};
pub use self::guests::Guests;
use self::guests::Who;
pub use self::names::{Names, UserNames};
use self::strangers::{Place, Strangers};
use super::pool::Client;
use crate::api::{Serve, Shared};
use crate::logging::seldom::Seldom;

/// How long a client may take, from when it is accepted, to prove who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long it may take, from then on, to log in, where it has to: somebody may be typing a password.
const LOGIN: Duration = Duration::from_secs(60);
/// Processes that strangers may have at most: each a gateway, a signer, and what checks its password.
pub(super) const MOST_PROCESSES: usize = 3 * strangers::MOST;
/// How long a listener rests when the host has no descriptor for a client.
const REST: Duration = Duration::from_millis(50);
/// A client of which nothing is heard is asked by the kernel whether it is there after so long, then so often, so many
/// times.
const SILENCE: Duration = Duration::from_secs(60);
const ASK_EACH: Duration = Duration::from_secs(10);
const ASK_TIMES: u32 = 6;
/// How long what is sent to a client may be without its acknowledgement, in milliseconds.
const UNACKNOWLEDGED: u32 = 60_000;
/// Connections that wait to be accepted, of one socket.
const BACKLOG: i32 = 128;

/// What remote clients are let in by. A reload changes it, for those that come after it.
#[derive(Debug, Default)]
pub struct Remote {
    /// What the server shows and what it asks for; `None` where that cannot be had, and nobody is let in.
    pub credentials: Option<Arc<Credentials>>,
    /// Whom that lets in.
    pub names: Names,
    /// Which users may come.
    pub users: UserNames,
    /// From where they may come; from anywhere, where nothing is said.
    pub from: Option<Vec<IpRange>>,
}

impl Remote {
    /// Whether whoever is at that address may knock.
    fn may_knock(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let has = |range: &IpRange| (range.first()..=range.last()).contains(&address);
        self.from.as_deref().is_none_or(|from| from.iter().any(has))
    }

    /// What whoever has proved to be that may do: what both its names let it.
    ///
    /// # Errors
    /// Why it is not let in.
    fn access(&self, who: &Who) -> Result<Access, String> {
        let proof = self.credentials.as_deref().map(Credentials::proof);
        let proof = proof.unwrap_or_default();
        let mut access = Access::ReadWrite;
        if proof.has_certificate() {
            let (name, _) = who.certificate.as_ref().ok_or("it has no certificate")?;
            let may = self.names.access(name).ok_or_else(|| not_named(name))?;
            access = access.min(may);
        }
        if proof.has_password() {
            let (user, entry) = who.user.as_ref().ok_or("it has no password")?;
            let known = self.credentials.as_deref();
            if known.and_then(|known| known.entry(user)).as_ref() != Some(entry) {
                return Err(format!(
                    "its user has another password by now, or is no more: {}",
                    user.escape_debug()
                ));
            }
            let may = self.users.access(user).ok_or_else(|| {
                format!(
                    "tls_users_allowed does not name its user: {}",
                    user.escape_debug()
                )
            })?;
            access = access.min(may);
        }
        Ok(access)
    }
}

/// Why nobody of that name is let in.
fn not_named(name: &str) -> String {
    format!("tls_allowed does not name it: {}", name.escape_debug())
}

/// What is in force, and who is in by it.
#[derive(Debug, Clone, Default)]
pub struct Current {
    remote: Arc<RwLock<Arc<Remote>>>,
    guests: Arc<Guests>,
}

impl Current {
    /// With that in force.
    #[must_use]
    pub fn new(remote: Remote) -> Self {
        Self {
            remote: Arc::new(RwLock::new(Arc::new(remote))),
            guests: Arc::default(),
        }
    }

    /// What is in force.
    #[must_use]
    pub fn get(&self) -> Arc<Remote> {
        Arc::clone(&self.remote.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on that is. Whoever is in and may not be any more is put out; `holds` says of certificates, by their
    /// connections' numbers, whether they still do.
    pub fn set(&self, remote: Remote, holds: impl Fn(u64) -> bool) {
        let remote = Arc::new(remote);
        let now = Arc::clone(&remote);
        *self.remote.write().unwrap_or_else(PoisonError::into_inner) = remote;
        let out = self.guests.review(holds, |who| now.access(who).ok());
        if out > 0 {
            tracing::info!(
                clients = out,
                "remote clients may not stay by what was read again"
            );
        }
    }

    /// The certificates of those who are in, by their connections' numbers.
    #[must_use]
    pub fn chains(&self) -> Vec<(u64, Chain)> {
        self.guests.chains()
    }
}

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
    /// What checks its password, where it has to have one.
    login: Option<Login>,
    /// Until when it must have proved who it is.
    deadline: Instant,
    current: Current,
    credentials: Arc<Credentials>,
    place: Place,
    shared: Arc<Shared<S>>,
    lines: Arc<Seldom>,
}

/// The ends of a stranger's login that are not the verifier's.
struct Login {
    /// The way to the verifier, for the stranger's gateway.
    verifier: OwnedFd,
    /// Where the verifier says whose password it was.
    door: OwnedFd,
}

/// A stranger's passwords, on their way to a process.
pub(super) struct Verifying {
    socket: OwnedFd,
    door: OwnedFd,
    users: OwnedFd,
    deadline: Instant,
    lines: Arc<Seldom>,
}

/// A signature that a stranger's handshake takes, on its way to a process.
pub(super) struct Signing {
    socket: OwnedFd,
    credentials: Arc<Credentials>,
    deadline: Instant,
    lines: Arc<Seldom>,
}

impl Door {
    /// Listens at `address`, which the host need not have yet.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let listener = match StdListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                tracing::warn!(
                    "the host has no address {} yet: clients of other hosts are served there from when it has",
                    address.ip()
                );
                ahead(address)?
            }
            result => result?,
        };
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
        let lines = Arc::new(Seldom::default());
        // Each of its own: whoever knocks as often as he can does not hide why others were refused.
        let (exhausted, elsewhere, crowded): (Seldom, Seldom, Seldom) = Default::default();
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
            let remote = current.get();
            if !remote.may_knock(address.ip()) {
                if let Some(left_out) = elsewhere.may() {
                    tracing::info!(%address, left_out, "a remote client was refused: tls_from does not name its address");
                }
                continue;
            }
            let deadline = Instant::now() + HANDSHAKE;
            let refuse = |why: &dyn std::fmt::Display| {
                if let Some(left_out) = lines.may() {
                    tracing::info!(%address, left_out, "a remote client was refused: {why}");
                }
            };
            let Some(place) = strangers.admit(address.ip()) else {
                if let Some(left_out) = crowded.may() {
                    tracing::info!(%address, left_out, "a remote client was refused: too many are connected that have not said who they are");
                }
                continue;
            };
            let Some(credentials) = remote.credentials.clone() else {
                refuse(&"there are no certificates; the log says why, where they were read");
                continue;
            };
            let prepared = prepare(connection).and_then(|connection| {
                let signer = scm::pair().map_err(io::Error::other)?;
                Ok((connection, signer, logins(&credentials, deadline, &lines)?))
            });
            let (connection, (asks, signs), (login, verifying)) = match prepared {
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
                lines: Arc::clone(&lines),
            };
            let stranger = Stranger {
                connection,
                address,
                signer: asks,
                login,
                deadline,
                current: current.clone(),
                credentials,
                place,
                shared: Arc::clone(&shared),
                lines: Arc::clone(&lines),
            };
            let handed = [
                Some(Client::Stranger(stranger)),
                Some(Client::Signing(signing)),
                verifying.map(Client::Verifying),
            ];
            for client in handed.into_iter().flatten() {
                if clients.send(client).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// What a stranger's passwords take, where it has to have one.
fn logins(
    credentials: &Credentials,
    deadline: Instant,
    lines: &Arc<Seldom>,
) -> io::Result<(Option<Login>, Option<Verifying>)> {
    let Some(users) = credentials.users()? else {
        return Ok((None, None));
    };
    let (asks, answers) = scm::pair().map_err(io::Error::other)?;
    let (hears, says) = scm::pair().map_err(io::Error::other)?;
    let login = Login {
        verifier: asks,
        door: hears,
    };
    let verifying = Verifying {
        socket: answers,
        door: says,
        users,
        deadline: deadline + LOGIN,
        lines: Arc::clone(lines),
    };
    Ok((Some(login), Some(verifying)))
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
    sockopt::set_tcp_user_timeout(socket, UNACKNOWLEDGED)?;
    Ok(connection)
}

/// A socket that listens at an address which the host is still to get, as it may at boot.
fn ahead(address: SocketAddr) -> io::Result<StdListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    match address {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(&socket, true)?,
        SocketAddr::V6(_) => sockopt::set_ipv6_freebind(&socket, true)?,
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_elsewhere_may_not_knock() {
        let remote = |from: Option<&[&str]>| Remote {
            from: from.map(|from| from.iter().map(|range| range.parse().unwrap()).collect()),
            ..Remote::default()
        };
        let may = |remote: &Remote, address: &str| remote.may_knock(address.parse().unwrap());
        let some = remote(Some(&["192.0.2.0/24", "198.51.100.7", "2001:db8::/32"]));
        for (address, expected) in [
            ("192.0.2.0", true),
            ("192.0.2.255", true),
            ("192.0.3.0", false),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
            // By a socket of both.
            ("::ffff:192.0.2.9", true),
            ("::ffff:192.0.3.9", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::1", false),
        ] {
            assert_eq!(may(&some, address), expected, "{address}");
        }
        assert!(may(&remote(None), "203.0.113.1"));
        assert!(!may(&remote(Some(&[])), "127.0.0.1"));
    }

    #[tokio::test]
    async fn an_address_that_the_host_does_not_have_yet_is_listened_at() {
        // For documentation, and so nobody's.
        for address in ["192.0.2.77:0", "[2001:db8::77]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            let door = Door::open(address).unwrap();
            assert_eq!(door.address.ip(), address.ip());
            assert_ne!(door.address.port(), 0);
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_let_in_does_not_wait_for_ever_for_its_client() {
        let door = Door::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = std::net::TcpStream::connect(door.address).unwrap();
        let prepared = prepare(door.listener.accept().await.unwrap().0).unwrap();
        assert_eq!(
            sockopt::tcp_user_timeout(&prepared).unwrap(),
            UNACKNOWLEDGED
        );
        assert!(sockopt::socket_keepalive(&prepared).unwrap());
    }
}
