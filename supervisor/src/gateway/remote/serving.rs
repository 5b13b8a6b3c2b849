//! A process that serves a client of another host, and one that signs for it.

use reeve_ipc::api::Access;
use reeve_ipc::codec;
use reeve_ipc::gateway::{Admitted, FromStranger, HandOver, MAX_STRANGER_BYTES};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::socket::Socket;
use reeve_ipc::strays::NoRights;
use serde::Serialize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::time::timeout_at;

use super::super::pool::Client;
use super::super::process::{Idle, Process};
use super::{Signing, Stranger};
use crate::api::Serve;

impl Process {
    /// Serves a client that has to say who it is first.
    pub(in super::super) async fn serve_stranger<S: Serve>(
        mut self,
        stranger: Stranger<S>,
    ) -> Idle<S> {
        let address = stranger.address;
        self.serves(format!("{address}"));
        let door = match self.hand_stranger(&stranger) {
            Ok(door) => door,
            Err(ScmError::Closed) => {
                self.end().await;
                return Idle::Missed(Client::Stranger(stranger));
            }
            Err(error) => {
                tracing::error!(%address, "a remote client was closed: {error}");
                self.end().await;
                return Idle::Served;
            }
        };
        let Stranger {
            connection,
            signer,
            deadline,
            remote,
            place,
            shared,
            lines,
            ..
        } = stranger;
        // They are that process's now.
        drop((connection, signer));
        let refuse = |why: &dyn std::fmt::Display| {
            if let Some(left_out) = lines.may() {
                tracing::info!(%address, left_out, "a remote client was refused: {why}");
            }
        };
        let said = timeout_at(deadline, self.until(hear(&door))).await;
        let let_in = match said {
            Err(_) => Err("it did not say in time who it is".to_owned()),
            Ok(Err(why)) => Err(why),
            Ok(Ok(name)) => match remote.names.access(&name) {
                None => Err(format!(
                    "tls_allowed does not name it: {}",
                    name.escape_debug()
                )),
                Some(access) => shared
                    .admit_remote(access)
                    .map(|entry| (entry, name))
                    .map_err(|error| error.to_string()),
            },
        };
        let (entry, name) = match let_in {
            Ok(let_in) => let_in,
            Err(why) => {
                refuse(&why);
                drop(door);
                self.end().await;
                return Idle::Served;
            }
        };
        drop(place);
        let access = entry.access();
        let name = name.escape_debug();
        tracing::info!(%address, %access, "a remote client is connected: {name}");
        match admit(&door, access) {
            Ok(session) => self.attend(entry, session).await,
            Err(error) => {
                refuse(&error);
                self.end().await;
            }
        }
        tracing::info!(%address, "a remote client has left: {name}");
        Idle::Served
    }

    fn hand_stranger<S: Serve>(
        &self,
        stranger: &Stranger<S>,
    ) -> Result<Socket<NoRights<OwnedFd>>, ScmError> {
        let (ours, theirs) = scm::pair()?;
        let ours = Socket::new(NoRights::new(ours)).map_err(|_| ScmError::WouldBlock)?;
        let files = stranger.credentials.public();
        let files = files.map_err(|error| ScmError::Os(os(&error)))?;
        let mut handed = vec![
            stranger.connection.as_fd(),
            theirs.as_fd(),
            stranger.signer.as_fd(),
        ];
        handed.extend(files.iter().map(AsFd::as_fd));
        self.hand(&HandOver::Remote, &handed)?;
        Ok(ours)
    }

    /// Signs for the handshake of a stranger.
    pub(in super::super) async fn serve_signing<S: Serve>(mut self, signing: Signing) -> Idle<S> {
        let key = signing.credentials.key().to_vec();
        match self.hand(&HandOver::Signer { key }, &[signing.socket.as_fd()]) {
            Ok(()) => {}
            Err(ScmError::Closed) => {
                self.end().await;
                return Idle::Missed(Client::Signing(signing));
            }
            Err(error) => tracing::error!("a remote client has no signature: {error}"),
        }
        let Signing {
            socket, deadline, ..
        } = signing;
        drop(socket);
        // It ends by itself, with its work or with whoever asks for it.
        let _ = timeout_at(deadline, self.until_gone()).await;
        self.end().await;
        Idle::Served
    }

    fn hand(&self, message: &HandOver, fds: &[BorrowedFd<'_>]) -> Result<(), ScmError> {
        scm::send(self.control(), &encode(message)?, fds)
    }
}

/// What a stranger's gateway says: the client's name, or why it has none.
async fn hear(door: &Socket<NoRights<OwnedFd>>) -> Result<String, String> {
    let mut buffer = [0; MAX_STRANGER_BYTES];
    let received = door
        .receive(|door| scm::receive_bare(door, &mut buffer))
        .await;
    let gone = |error: ScmError| format!("its process has ended: {error}");
    let (length, _) = received.map_err(gone)?;
    match codec::decode(buffer.get(..length).unwrap_or_default()) {
        Ok(FromStranger::Proved { name }) => Ok(name),
        Ok(FromStranger::Refused { reason }) => Err(reason.escape_debug().to_string()),
        Err(error) => Err(format!("its process broke the form: {error}")),
    }
}

/// Gives the process a session; gives our end.
fn admit(door: &Socket<NoRights<OwnedFd>>, access: Access) -> Result<NoRights<OwnedFd>, ScmError> {
    let (ours, theirs) = scm::pair()?;
    // Before the other end is anybody's.
    let ours = NoRights::new(ours);
    scm::send(
        door.as_fd(),
        &encode(&Admitted { access })?,
        &[theirs.as_fd()],
    )?;
    Ok(ours)
}

fn encode(message: &impl Serialize) -> Result<Vec<u8>, ScmError> {
    codec::encode(message).map_err(|_| ScmError::Oversized)
}

fn os(error: &std::io::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(error).unwrap_or(rustix::io::Errno::IO)
}
