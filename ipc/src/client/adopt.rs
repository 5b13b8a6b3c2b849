//! Taking over a worker of an earlier supervisor: who answers is asked of the kernel before anything
//! it says is believed.
//!
//! The socket's path proves nothing, and its `SO_PEERCRED` names whoever bound it. What proves the
//! worker is the credentials that the kernel attaches to its first message (unix(7),
//! `SCM_CREDENTIALS`), which the caller compares with what was recorded.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::sockopt::set_socket_passcred;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::{CallError, Incoming, WorkerClient};
use crate::codec::{self, CodecError};
use crate::message::{FromWorker, JailFacts, ToWorker};
use crate::scm::{self, ScmError};
use crate::strays::NoRights;
use crate::{BuildId, PROTOCOL, accepts};

/// Why a worker could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The connection could not be made into one.
    #[error("cannot speak to the worker: {0}")]
    Socket(#[from] ScmError),
    /// It broke the form of its first message.
    #[error("protocol violation: {0}")]
    Violation(String),
    /// It is of another protocol.
    #[error("the worker speaks protocol {0}, which this supervisor does not")]
    Protocol(u16),
}

impl From<CodecError> for AdoptError {
    fn from(error: CodecError) -> Self {
        Self::Violation(error.to_string())
    }
}

/// A worker that was spoken to and has not answered yet.
#[derive(Debug)]
pub struct Adopting {
    socket: NoRights<UnixStream>,
}

/// A worker that has answered.
#[derive(Debug)]
pub struct Adopted {
    /// Calls it. Ask for [`crate::request::Report`] first.
    pub client: WorkerClient,
    /// What it says unasked, its hello left out.
    pub incoming: mpsc::Receiver<Incoming>,
    /// The pid of whoever sent the hello, of the kernel's own knowledge, as this process sees it.
    pub pid: u32,
    /// Its uid, likewise.
    pub uid: u32,
    /// Its build, of its own word.
    pub build: BuildId,
    /// What it says of its jail, for display.
    pub jail: JailFacts,
}

impl Adopting {
    /// Takes a connection to a worker's adoption socket ([`crate::local::connect_warily`]) and says who
    /// speaks.
    ///
    /// # Errors
    /// [`AdoptError::Socket`].
    pub fn begin(socket: OwnedFd, domain: &str) -> Result<Self, AdoptError> {
        set_socket_passcred(&socket, true).map_err(ScmError::from)?;
        let welcome = ToWorker::Welcome {
            protocol: PROTOCOL,
            build: BuildId::this(),
            domain: domain.to_owned(),
        };
        scm::send(socket.as_fd(), &codec::encode(&welcome)?, &[])?;
        let socket = UnixStream::from_std(socket.into()).map_err(|_| ScmError::Closed)?;
        Ok(Self {
            socket: NoRights::new(socket),
        })
    }

    /// Waits for the hello, for as long as it takes; may be dropped and called again.
    ///
    /// # Errors
    /// [`AdoptError`]; the connection is of no use then.
    pub async fn hello(&mut self) -> Result<Hello, AdoptError> {
        let attempt = || match scm::receive_bare_message(self.socket.as_fd()) {
            Err(ScmError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            result => Ok(result),
        };
        let received = self.socket.async_io(Interest::READABLE, attempt).await;
        let (bytes, strays, credentials) = received.map_err(|_| ScmError::Closed)??;
        if strays {
            return Err(AdoptError::Violation(
                "a worker sends no descriptors".to_owned(),
            ));
        }
        let Some(credentials) = credentials else {
            return Err(AdoptError::Violation(
                "the kernel does not say who answered".to_owned(),
            ));
        };
        match codec::decode(&bytes)? {
            FromWorker::Hello { protocol, .. } if !accepts(protocol) => {
                Err(AdoptError::Protocol(protocol.0))
            }
            FromWorker::Hello { build, jail, .. } => Ok(Hello {
                pid: credentials.pid.as_raw_nonzero().get().unsigned_abs(),
                uid: credentials.uid.as_raw(),
                build,
                jail,
            }),
            _ => Err(AdoptError::Violation(
                "the first message is no hello".to_owned(),
            )),
        }
    }

    /// The connection of a worker whose hello is believed.
    ///
    /// # Errors
    /// [`CallError::Socket`].
    pub fn accept(self, hello: Hello) -> Result<Adopted, CallError> {
        set_socket_passcred(&self.socket, false)
            .map_err(|errno| CallError::Socket(errno.into()))?;
        let (client, incoming) = WorkerClient::over(self.socket, true);
        Ok(Adopted {
            client,
            incoming,
            pid: hello.pid,
            uid: hello.uid,
            build: hello.build,
            jail: hello.jail,
        })
    }
}

/// Who answered.
#[derive(Debug, Clone)]
pub struct Hello {
    /// The pid of the sender, of the kernel's own knowledge, as this process sees it.
    pub pid: u32,
    /// Its uid, likewise.
    pub uid: u32,
    /// Its build, of its own word.
    pub build: BuildId,
    /// What it says of its jail, for display.
    pub jail: JailFacts,
}
