//! One connection: a client of libvirt's on one side, the supervisor on the other, and everything that is
//! between the bytes of the two.
//!
//! ```text
//!   client ─► Assembler ─► dispatch ─┬─ answered at once (keepalive, authentication, features, versions) ─┐
//!                                    ├─ a call: a task of its own, in any order ──────────────────────────┤
//!                                    └─ a stream's data ─► streams                                        │
//!   client ◄─ Outbox ◄───────────────┴─ replies, events of `watch`, data of `streams` ◄──────────────────┘
//! ```
//!
//! One task, which never waits for a call. Everything is bounded: calls in flight and their bytes (beyond them
//! nothing more is read), what waits to be sent (while it is much, nothing is taken that can wait elsewhere),
//! and how long a client may take over it. What a client does harms its own connection and no other: that is
//! another process.

mod callbacks;
mod dispatch;
mod keepalive;
mod outbox;
mod pace;
mod run;
mod streams;
#[cfg(test)]
mod tests;
mod transport;
mod watch;

use std::os::fd::OwnedFd;

use reeve_ipc::api::Access;
use reeve_ipc::api::blocking::ConnectError;
use reeve_ipc::api::client::Client;
use reeve_ipc::changes::Changes;
use reeve_ipc::socket::Socket;

use self::transport::Transport;
use crate::remote::Guest;
use crate::wire::frame::FrameError;

/// What a client may do, as the supervisor decided when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// It may look, or do everything. One that may everything can ask to be held to looking when it opens.
    pub access: Access,
}

/// Why a connection ended that the client did not close.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is no supervisor to speak to.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The supervisor closed the connection.
    #[error("the supervisor is gone")]
    Supervisor,
    /// What it sent is no packet.
    #[error("it sent {0}")]
    Frame(#[from] FrameError),
    /// It does not read.
    #[error("it does not read what is sent to it")]
    Stalled,
    /// It answers no keepalive.
    #[error("it does not answer")]
    Silent,
    /// A call ended without an answer.
    #[error("a call failed: {0}")]
    Call(#[from] tokio::task::JoinError),
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Socket(#[from] std::io::Error),
}

/// Serves a client until it closes the connection or must be given up. `client` is its stream socket; `api` is
/// a connected `SOCK_SEQPACKET` socket to the supervisor over which nothing was said. Both are non-blocking.
/// `changes` is the number of that supervisor.
/// Runs on tokio's current-thread runtime, with its time and I/O drivers.
///
/// # Errors
/// [`SessionError`]: it ended otherwise.
pub async fn serve(
    client: OwnedFd,
    api: OwnedFd,
    rights: Rights,
    changes: Changes,
) -> Result<(), SessionError> {
    let client = Transport::Local(Socket::new(client)?);
    begin(client, api, rights, changes).await
}

/// Serves a client of another host, as [`serve`] does.
///
/// # Errors
/// As for [`serve`].
pub async fn serve_remote(guest: Guest, changes: Changes) -> Result<(), SessionError> {
    let rights = Rights {
        access: guest.access,
    };
    let client = Transport::Remote(Box::new(guest.stream));
    begin(client, guest.api, rights, changes).await
}

async fn begin(
    client: Transport,
    api: OwnedFd,
    rights: Rights,
    changes: Changes,
) -> Result<(), SessionError> {
    let (api, events) = Client::over(api, "reeve-gateway").await?;
    let access = rights.access.min(api.access());
    run::Session::new(client, api, events, Rights { access }, changes)
        .run()
        .await
}
