//! A process that serves a client of another host, and one that signs for it.

use std::future::pending;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::api::Access;
use reeve_ipc::codec;
use reeve_ipc::gateway::{
    Certificate, Checked, FromStranger, FromVerifier, HandOver, MAX_STRANGER_BYTES,
    MAX_WORDS_BYTES, ToStranger,
};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::socket::Socket;
use reeve_ipc::strays::NoRights;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::pool::Client;
use super::super::process::{Idle, Process};
use super::checks::{Check, Verdict};
use super::guests::Who;
use super::{Credentials, Current, HANDSHAKE, LOGIN, Signing, Stranger, Verifying, not_named};
use crate::api::Serve;

/// How long a process may take to tell a client that it is not let in, though its password holds: it takes as long as
/// with one that does not, a second, and waits half a one for the client to leave.
const TELLING: Duration = Duration::from_secs(3);

impl Process {
    /// Serves a client that has to say who it is first.
    pub(in super::super) async fn serve_stranger<S: Serve>(
        mut self,
        stranger: Stranger<S>,
    ) -> Idle<S> {
        let address = stranger.address;
        self.serves(format!("{address}"));
        self.is_strangers(Arc::clone(&stranger.lines));
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
            login,
            deadline,
            current,
            credentials,
            place,
            shared,
            lines,
            ..
        } = stranger;
        let login = login.map(|login| login.door);
        // They are that process's now.
        drop((connection, signer));
        let refuse = |why: &dyn std::fmt::Display| {
            if let Some(left_out) = lines.may() {
                tracing::info!(%address, left_out, "a remote client was refused: {why}");
            }
        };
        let is_login = login.is_some();
        let who = self
            .identify(&door, login, deadline, &current, &credentials)
            .await;
        let let_in = who.and_then(|who| {
            let guest = current.guests.comes(who.clone());
            let access = guest.decide(|| {
                let now = current.get();
                let used = now.credentials.as_ref();
                if !used.is_some_and(|now| Arc::ptr_eq(now, &credentials)) {
                    return Err("the files of TLS were read again meanwhile".to_owned());
                }
                now.access(&who)
            })?;
            let entry = shared.admit_remote(access);
            let entry = entry.map_err(|error| error.to_string())?;
            Ok((entry, who, guest))
        });
        let (entry, who, guest) = match let_in {
            Ok(let_in) => let_in,
            Err(why) => {
                refuse(&why);
                drop(door);
                if is_login {
                    // It has its client told.
                    let _ = timeout(TELLING, self.until_gone()).await;
                }
                self.end().await;
                return Idle::Served;
            }
        };
        drop(place);
        self.is_admitted();
        let access = entry.access();
        tracing::info!(%address, %access, "a remote client is connected: {who}");
        match admit(&door, access) {
            Ok(session) => self.attend(entry, session, guest.put_out()).await,
            Err(error) => {
                refuse(&error);
                self.end().await;
            }
        }
        tracing::info!(%address, "a remote client has left: {who}");
        Idle::Served
    }

    /// Finds out who a stranger is: what its gateway says, and then, where it has to log in, what the verifier does.
    async fn identify(
        &mut self,
        door: &Socket<NoRights<OwnedFd>>,
        login: Option<OwnedFd>,
        deadline: Instant,
        current: &Current,
        credentials: &Credentials,
    ) -> Result<Who, String> {
        let late = |_| "it did not say in time who it is".to_owned();
        let proved = timeout_at(deadline, self.until(hear(door))).await;
        let certificate = proved.map_err(late)??;
        // Where none is asked for a name could only be one that it has made up.
        if certificate.is_some() != credentials.proof().has_certificate() {
            return Err("its process broke the form".to_owned());
        }
        let mut who = Who {
            certificate: certificate.map(|Certificate { name, chain }| (name, chain)),
            user: None,
        };
        let Some(login) = login else {
            return Ok(who);
        };
        // Whose certificate lets nobody in need not log in.
        if let Some((name, _)) = &who.certificate {
            let names = &current.get().names;
            names.access(name).ok_or_else(|| not_named(name))?;
        }
        let failed = |error: ScmError| format!("it cannot log in: {error}");
        let login = Socket::new(NoRights::new(login)).map_err(|_| failed(ScmError::Closed))?;
        scm::send(
            door.as_fd(),
            &encode(&ToStranger::Authenticate).map_err(failed)?,
            &[],
        )
        .map_err(failed)?;
        let both = async {
            tokio::select! {
                biased;
                user = hear_user(&login) => user,
                said = hear(door) => match said {
                    Err(why) => Err(why),
                    Ok(_) => Err("its process broke the form".to_owned()),
                },
            }
        };
        let user = timeout_at(deadline + LOGIN, self.until(both)).await;
        let user = user.map_err(|_| "it did not log in in time".to_owned())??;
        // The file that its verifier was given.
        let entry = credentials
            .entry(&user)
            .ok_or("its process named no user")?;
        who.user = Some((user, entry));
        Ok(who)
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
        let login = stranger.login.as_ref();
        handed.extend(login.map(|login| login.verifier.as_fd()));
        handed.extend(files.iter().map(AsFd::as_fd));
        let proof = stranger.credentials.proof();
        self.hand(&HandOver::Remote { proof }, &handed)?;
        Ok(ours)
    }

    /// Signs for the handshake of a stranger.
    pub(in super::super) async fn serve_signing<S: Serve>(mut self, signing: Signing) -> Idle<S> {
        self.is_strangers(Arc::clone(&signing.lines));
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

    /// Checks the passwords of a stranger.
    pub(in super::super) async fn serve_verifying<S: Serve>(
        mut self,
        verifying: Verifying,
    ) -> Idle<S> {
        let Verifying {
            socket,
            door,
            users,
            deadline,
            lines,
        } = &verifying;
        self.is_strangers(Arc::clone(lines));
        let handed = [socket.as_fd(), door.as_fd(), users.as_fd()];
        let deadline = *deadline;
        match self.hand(&HandOver::Verifier, &handed) {
            Ok(()) => {}
            Err(ScmError::Closed) => {
                self.end().await;
                return Idle::Missed(Client::Verifying(verifying));
            }
            Err(error) => tracing::error!("a remote client cannot log in: {error}"),
        }
        drop(verifying);
        // It ends by itself, with its work or with whoever asks for it.
        let _ = timeout_at(deadline, self.until_gone()).await;
        self.end().await;
        Idle::Served
    }

    /// Looks at files that are to hold.
    pub(in super::super) async fn serve_check<S: Serve>(mut self, check: Check) -> Idle<S> {
        let deadline = Instant::now() + HANDSHAKE;
        let answers = match self.hand_check(&check) {
            Ok(answers) => answers,
            Err(ScmError::Closed) => {
                self.end().await;
                return Idle::Missed(Client::Check(check));
            }
            Err(error) => {
                let _ = check.verdict.send(Err(error.to_string()));
                self.end().await;
                return Idle::Served;
            }
        };
        let said = timeout_at(deadline, self.until(hear_verdict(&answers))).await;
        let late = |_| Err("no process could look at them in time".to_owned());
        let verdict = match said.unwrap_or_else(late) {
            Ok(_) => Ok(self.hear_ended(&answers, check.number).await),
            Err(why) => Err(why),
        };
        let _ = check.verdict.send(verdict);
        self.end().await;
        Idle::Served
    }

    /// Which of so many connections end by files that can be used. Those who are in do not keep them from holding: where
    /// their certificates take too long, or end the process, all of them end.
    async fn hear_ended(&mut self, answers: &Socket<NoRights<OwnedFd>>, number: u32) -> Vec<u32> {
        let why = match timeout(HANDSHAKE, self.until(hear_verdict(answers))).await {
            Ok(Ok(ended)) => return ended,
            Ok(Err(why)) => why,
            Err(_) => "it takes too long".to_owned(),
        };
        tracing::error!("the certificates of remote clients who are in cannot be looked at: {why}");
        (0..number).collect()
    }

    fn hand_check(&self, check: &Check) -> Result<Socket<NoRights<OwnedFd>>, ScmError> {
        let (ours, theirs) = scm::pair()?;
        let ours = Socket::new(NoRights::new(ours)).map_err(|_| ScmError::WouldBlock)?;
        let credentials = &check.credentials;
        let files = credentials.public();
        let files = files.map_err(|error| ScmError::Os(os(&error)))?;
        let mut handed = vec![theirs.as_fd(), check.chains.as_fd()];
        handed.extend(files.iter().map(AsFd::as_fd));
        let message = HandOver::Check {
            key: credentials.key().to_vec(),
            proof: credentials.proof(),
        };
        self.hand(&message, &handed)?;
        Ok(ours)
    }

    fn hand(&self, message: &HandOver, fds: &[BorrowedFd<'_>]) -> Result<(), ScmError> {
        scm::send(self.control(), &encode(message)?, fds)
    }
}

/// What a stranger's gateway says: the client's certificate, where it has to have one, or why it is refused.
async fn hear(door: &Socket<NoRights<OwnedFd>>) -> Result<Option<Certificate>, String> {
    match receive(door, MAX_STRANGER_BYTES).await? {
        FromStranger::Proved { certificate } => Ok(certificate),
        FromStranger::Refused { reason } => Err(reason.escape_debug().to_string()),
    }
}

/// What the verifier says: whose password it was.
async fn hear_user(door: &Socket<NoRights<OwnedFd>>) -> Result<String, String> {
    match receive(door, MAX_WORDS_BYTES).await {
        Ok(FromVerifier { user }) => Ok(user),
        // It has ended, and the gateway says why the client has not logged in.
        Err(_) => pending().await,
    }
}

/// What a process says of files.
async fn hear_verdict(answers: &Socket<NoRights<OwnedFd>>) -> Verdict {
    match receive(answers, MAX_STRANGER_BYTES).await? {
        Checked::Usable { ended } => Ok(ended),
        Checked::Unusable { reason } => Err(reason.escape_debug().to_string()),
    }
}

/// The next message of a process.
async fn receive<T: DeserializeOwned>(
    socket: &Socket<NoRights<OwnedFd>>,
    room: usize,
) -> Result<T, String> {
    let mut buffer = vec![0; room];
    let received = socket
        .receive(|socket| scm::receive_bare(socket, &mut buffer))
        .await;
    let (length, _) = received.map_err(|error| format!("its process has ended: {error}"))?;
    codec::decode(buffer.get(..length).unwrap_or_default())
        .map_err(|error| format!("its process broke the form: {error}"))
}

/// Gives the process a session; gives our end.
fn admit(door: &Socket<NoRights<OwnedFd>>, access: Access) -> Result<NoRights<OwnedFd>, ScmError> {
    let (ours, theirs) = scm::pair()?;
    // Before the other end is anybody's.
    let ours = NoRights::new(ours);
    scm::send(
        door.as_fd(),
        &encode(&ToStranger::Admitted { access })?,
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
