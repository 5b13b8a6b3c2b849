//! A client without a runtime: one call at a time, on the caller's thread.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::call::{AnswerBody, Call, DomainList, EventsSubscribe, Subscribed};
use super::error::ApiError;
use super::event::{Cursor, Event};
use super::judge::{self, Greeting, GreetingError, Told, Waiting};
use super::message::{FromClient, MAX_CLIENT_NAME_BYTES, ToClient};
use super::view::DomainSummary;
use super::{API, Access};
use crate::codec::{self, CodecError};
use crate::error::truncate;
use crate::local;
use crate::scm::{self, ScmError};
use crate::{BuildId, MAX_MESSAGE_BYTES};

/// How long a supervisor may take over its first message.
pub(super) const GREETING_DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait before the next attempt while too many wait to be let in.
pub(super) const CONNECT_AGAIN: Duration = Duration::from_millis(5);
/// Events that wait for [`Connection::next_event`] while calls are made; older ones give way.
const MAX_EVENTS: usize = 4096;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens.
    #[error(
        "no supervisor listens at {path}: start it with 'systemctl start reeved'",
        path = .0.display()
    )]
    Nobody(PathBuf),
    /// The caller may not connect.
    #[error("cannot connect to {path}: {error}", path = .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The supervisor refused, or is of another version.
    #[error(transparent)]
    Greeting(#[from] GreetingError),
    /// It said nothing in time.
    #[error(
        "the supervisor at {path} does not answer: 'journalctl -u reeved' may say why, 'systemctl \
         restart reeved' touches no domain",
        path = .0.display()
    )]
    Silent(PathBuf),
    /// The connection ended before it was open.
    #[error("the supervisor at {path} closed the connection: {reason}", path = .path.display())]
    Closed {
        /// The socket.
        path: PathBuf,
        /// What ended it.
        reason: String,
    },
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The supervisor's own error.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// The deadline passed; the call may still take effect.
    #[error("the supervisor did not {0} within {1:?}")]
    Deadline(&'static str, Duration),
    /// The connection ended; the call may have taken effect.
    #[error("the supervisor closed the connection: 'journalctl -u reeved' tells why")]
    Closed,
    /// It broke a rule of the protocol.
    #[error("the supervisor does not keep to the protocol: {0}")]
    Protocol(String),
    /// The call does not fit a message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Socket(std::io::Error),
}

impl CallError {
    /// The supervisor's error, where it is one.
    #[must_use]
    pub const fn refused(&self) -> Option<&ApiError> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ScmError> for CallError {
    fn from(error: ScmError) -> Self {
        match error {
            ScmError::Closed => Self::Closed,
            ScmError::Os(errno) => Self::Socket(errno.into()),
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// A connection to a supervisor.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    greeting: Greeting,
    waiting: Waiting<()>,
    events: VecDeque<(Cursor, Event)>,
    /// Room for the largest message.
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to the supervisor that listens at `socket`; `client` is what it is told the program
    /// is called.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn open(socket: &Path, client: &str) -> Result<Self, ConnectError> {
        let path = socket;
        let socket = connect(path)?;
        let closed = |error: CallError| ConnectError::Closed {
            path: path.to_owned(),
            reason: match error {
                CallError::Closed => "it is ending, or 'journalctl -u reeved' tells why".to_owned(),
                other => other.to_string(),
            },
        };
        let hello = FromClient::Hello {
            api: API,
            client: name(client),
        };
        let until = Some(Instant::now() + GREETING_DEADLINE);
        // A supervisor that refuses may have closed its end already; what it said is still there.
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        let sent = send(socket.as_fd(), &hello, until);
        let first = match receive(socket.as_fd(), &mut buffer, until) {
            Ok(Some((message, _))) => message,
            Ok(None) => return Err(ConnectError::Silent(path.to_owned())),
            Err(error) => return Err(closed(error)),
        };
        let greeting = judge::greeting(first)?;
        sent.map_err(closed)?;
        // From here on a wait without a deadline is a wait in the call itself.
        rustix::io::ioctl_fionbio(&socket, false).map_err(|errno| ConnectError::Connect {
            path: path.to_owned(),
            error: errno.into(),
        })?;
        Ok(Self {
            socket,
            greeting,
            waiting: Waiting::default(),
            events: VecDeque::new(),
            buffer,
        })
    }

    /// The supervisor's build.
    #[must_use]
    pub const fn build(&self) -> &BuildId {
        &self.greeting.build
    }

    /// What this connection may do.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.greeting.access
    }

    /// Calls, and waits for the answer as long as it takes: every job of the supervisor has deadlines
    /// of its own.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn call<C: Call>(&mut self, call: C) -> Result<C::Answer, CallError> {
        Ok(self.call_with_fds(call)?.0)
    }

    /// As [`Self::call`], with the descriptors that came with the answer.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn call_with_fds<C: Call>(
        &mut self,
        call: C,
    ) -> Result<(C::Answer, Vec<OwnedFd>), CallError> {
        self.exchange(call, None)
    }

    /// As [`Self::call`], at most for `deadline`.
    ///
    /// # Errors
    /// [`CallError::Deadline`] among the others.
    pub fn call_within<C: Call>(
        &mut self,
        call: C,
        deadline: Duration,
    ) -> Result<C::Answer, CallError> {
        Ok(self.exchange(call, Some(deadline))?.0)
    }

    fn exchange<C: Call>(
        &mut self,
        call: C,
        deadline: Option<Duration>,
    ) -> Result<(C::Answer, Vec<OwnedFd>), CallError> {
        let until = deadline.map(|deadline| Instant::now() + deadline);
        let id = self.waiting.begin(C::OPERATION, ());
        let message = FromClient::Call {
            id,
            body: call.into_body(),
        };
        if let Err(error) = send(self.socket.as_fd(), &message, until) {
            self.waiting.forget(id);
            return Err(error);
        }
        loop {
            let received = receive(self.socket.as_fd(), &mut self.buffer, until)?;
            let Some((message, fds)) = received else {
                self.waiting.give_up(id);
                let name = C::OPERATION.name();
                return Err(CallError::Deadline(name, deadline.unwrap_or_default()));
            };
            // One call at a time: an answer is ours, or late.
            if let Some(result) = self.told(message)? {
                let wrong = || CallError::Protocol("an answer of another call".to_owned());
                return Ok((C::answer_from(result?).ok_or_else(wrong)?, fds));
            }
        }
    }

    /// Every domain, or those that have a worker, in the order of names.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn domains(&mut self, active_only: bool) -> Result<Vec<DomainSummary>, CallError> {
        let mut all: Vec<DomainSummary> = Vec::new();
        loop {
            let after = all.last().map(|last| last.name.clone());
            let page = self.call(DomainList { after, active_only })?;
            let more = page.more && !page.domains.is_empty();
            all.extend(page.domains);
            if !more {
                return Ok(all);
            }
        }
    }

    /// Subscribes to events: from now on, or from behind `after`.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn subscribe(&mut self, after: Option<Cursor>) -> Result<Subscribed, CallError> {
        self.call(EventsSubscribe { after })
    }

    /// The next event, waited for at most `timeout`, or for ever.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn next_event(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<Option<(Cursor, Event)>, CallError> {
        let until = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match receive(self.socket.as_fd(), &mut self.buffer, until)? {
                None => return Ok(None),
                Some((message, _)) => {
                    self.told(message)?;
                }
            }
        }
    }

    fn told(
        &mut self,
        message: ToClient,
    ) -> Result<Option<Result<AnswerBody, ApiError>>, CallError> {
        match self.waiting.judge(message).map_err(CallError::Protocol)? {
            Told::Answer((), result) => Ok(Some(result)),
            Told::Late => Ok(None),
            Told::Event(cursor, event) => {
                if self.events.len() >= MAX_EVENTS {
                    self.events.pop_front();
                }
                self.events.push_back((cursor, event));
                Ok(None)
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Connects; what stands in the way is said as a person would.
fn connect(path: &Path) -> Result<OwnedFd, ConnectError> {
    let deadline = Instant::now() + GREETING_DEADLINE;
    loop {
        if let Some(socket) = try_connect(path)? {
            return Ok(socket);
        }
        if Instant::now() >= deadline {
            return Err(ConnectError::Silent(path.to_owned()));
        }
        std::thread::sleep(CONNECT_AGAIN);
    }
}

/// Connects without waiting; `None` while too many wait to be let in.
pub(super) fn try_connect(path: &Path) -> Result<Option<OwnedFd>, ConnectError> {
    match local::connect(path) {
        Ok(socket) => Ok(Some(socket)),
        Err(Errno::AGAIN) => Ok(None),
        Err(Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR) => {
            Err(ConnectError::Nobody(path.to_owned()))
        }
        Err(errno) => Err(ConnectError::Connect {
            path: path.to_owned(),
            error: errno.into(),
        }),
    }
}

/// A client's name for itself, made to fit.
pub(super) fn name(client: &str) -> String {
    let mut name = client.to_owned();
    truncate(&mut name, MAX_CLIENT_NAME_BYTES);
    name
}

fn send(
    socket: BorrowedFd<'_>,
    message: &FromClient,
    until: Option<Instant>,
) -> Result<(), CallError> {
    let bytes = codec::encode(message)?;
    loop {
        match scm::send(socket, &bytes, &[]) {
            Err(ScmError::WouldBlock) => {}
            result => return Ok(result?),
        }
        if !ready(socket, PollFlags::OUT, until)? {
            return Err(CallError::Socket(std::io::ErrorKind::TimedOut.into()));
        }
    }
}

/// The next message with its descriptors; `None` when `until` has come. Without `until` the socket is
/// a blocking one, but for the greeting.
fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    until: Option<Instant>,
) -> Result<Option<(ToClient, Vec<OwnedFd>)>, CallError> {
    loop {
        // Waited for first: it is nearly never there already.
        if until.is_some() && !ready(socket, PollFlags::IN, until)? {
            return Ok(None);
        }
        let received = match until {
            Some(_) => scm::receive(socket, buffer),
            None => scm::receive_waiting(socket, buffer),
        };
        match received {
            Ok((length, fds)) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                let message =
                    codec::decode(bytes).map_err(|error| CallError::Protocol(error.to_string()))?;
                return Ok(Some((message, fds)));
            }
            Err(ScmError::WouldBlock) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until the socket is ready; false when `until` has come.
fn ready(
    socket: BorrowedFd<'_>,
    flags: PollFlags,
    until: Option<Instant>,
) -> Result<bool, CallError> {
    loop {
        let timeout = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match poll(
            &mut [PollFd::from_borrowed_fd(socket, flags)],
            timeout.as_ref(),
        ) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(CallError::Socket(errno.into())),
        }
    }
}
