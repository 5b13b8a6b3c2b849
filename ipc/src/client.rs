//! The supervisor's end of a worker's control socket: typed calls, events, and a judge of what a
//! worker may say.
//!
//! Runs on tokio. [`WorkerClient`] is cheap to clone; one task reads the socket. The worker is
//! hostile: a reply must answer a pending call with that call's own type, events come at a bounded
//! rate, nothing carries descriptors (the kernel refuses them where it can), and the first message is
//! its hello. Whatever breaks a rule ends the connection with [`Closed::Violation`]; the owner then
//! kills the worker. A call whose deadline passes leaves its id pending, so that a late reply is no violation.

mod adopt;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

pub use self::adopt::{AdoptError, Adopted, Adopting, Hello};

use crate::codec::{self, CodecError};
use crate::error::WireError;
use crate::event::Event;
use crate::fd::FdTable;
use crate::message::{FromWorker, JailFacts, RequestId, ToWorker};
use crate::reading::Reading;
use crate::request::{Operation, ReplyBody, Request};
use crate::scm::{self, BareMessage, ScmError};
use crate::strays::NoRights;
use crate::{BuildId, MAX_MESSAGE_FDS, PROTOCOL};

/// The most calls in flight on one connection.
const MAX_PENDING: usize = 64;
/// The most calls that were given up and whose late reply is no violation.
const MAX_ABANDONED: usize = 1024;
/// Events that may come at once, and how many more a second.
const EVENT_BURST: u32 = 1024;
const EVENTS_PER_SECOND: u32 = 256;
/// Events that wait for their reader; what comes when it is full is dropped.
const EVENT_QUEUE: usize = 256;

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The worker refused.
    #[error(transparent)]
    Refused(#[from] WireError),
    /// The deadline passed.
    #[error("the worker did not answer '{0}' within {1:?}")]
    Deadline(&'static str, Duration),
    /// The connection is closed.
    #[error("the worker closed the control socket before it answered '{0}'")]
    Closed(&'static str),
    /// Too many calls wait already.
    #[error("too many calls wait for the worker")]
    Busy,
    /// The request does not fit a message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The socket failed.
    #[error(transparent)]
    Socket(ScmError),
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The worker's end was closed: it exited.
    #[error("the worker closed the control socket")]
    ByWorker,
    /// The worker broke a rule of the protocol.
    #[error("protocol violation: {0}")]
    Violation(String),
}

/// What a worker says unasked.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "those that wait are bounded, and nearly all are events"
)]
pub enum Incoming {
    /// Its first message; what it reports of its jail is for display.
    Hello(JailFacts),
    /// An event with its number.
    Event(u64, Event),
    /// The last item: no more will come.
    Closed(Closed),
}

type Answer = Result<ReplyBody, WireError>;

/// The calls that wait, until the connection is closed.
type Pending = Option<HashMap<RequestId, (Operation, oneshot::Sender<Answer>)>>;

#[derive(Debug)]
struct Shared {
    /// A sequenced-packet socket in the type tokio has for UNIX sockets; used through `scm` alone.
    socket: NoRights<UnixStream>,
    /// Held while a request and its descriptors are sent.
    turn: tokio::sync::Mutex<()>,
    next: AtomicU64,
    pending: Mutex<Pending>,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing panics while it is held; a poisoned map is still a map.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, message: &ToWorker, fds: &[BorrowedFd<'_>]) -> Result<(), CallError> {
        let bytes = codec::encode(message)?;
        // The socket is nearly always writable, so an attempt comes before any wait.
        let attempt = || match scm::send(self.socket.as_fd(), &bytes, fds) {
            Err(ScmError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            result => Ok(result),
        };
        if let Ok(result) = attempt() {
            return result.map_err(CallError::Socket);
        }
        match self.socket.async_io(Interest::WRITABLE, attempt).await {
            Ok(result) => result.map_err(CallError::Socket),
            Err(_) => Err(CallError::Socket(ScmError::Closed)),
        }
    }

    /// Sends descriptors and the request that names them, with no other message between.
    async fn send_request(&self, request: &ToWorker, table: FdTable) -> Result<(), CallError> {
        let _turn = self.turn.lock().await;
        let fds = table.into_fds();
        let mut rest: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        while rest.len() > MAX_MESSAGE_FDS {
            let later = rest.split_off(MAX_MESSAGE_FDS);
            let count = u16::try_from(rest.len()).unwrap_or(u16::MAX);
            self.send(&ToWorker::Descriptors { count }, &rest).await?;
            rest = later;
        }
        // One datagram for nearly every request: a call that is given up leaves no strays behind.
        self.send(request, &rest).await
    }

    async fn receive(&self) -> Result<BareMessage, ScmError> {
        let attempt = || match scm::receive_bare_message(self.socket.as_fd()) {
            Err(ScmError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            result => Ok(result),
        };
        match self.socket.async_io(Interest::READABLE, attempt).await {
            Ok(result) => result,
            Err(_) => Err(ScmError::Closed),
        }
    }
}

/// Calls one worker.
#[derive(Debug, Clone)]
pub struct WorkerClient {
    shared: Arc<Shared>,
    _reader: Arc<Reading>,
}

impl WorkerClient {
    /// Takes the supervisor's end of a control socket, says who speaks, and starts the reader on
    /// the current tokio runtime. What the worker says unasked comes from the receiver; it ends
    /// with [`Incoming::Closed`].
    ///
    /// A worker that is gone already is no error here: the receiver ends, and each call says so.
    ///
    /// # Errors
    /// [`CallError::Socket`] if the socket cannot be watched, or fails.
    pub async fn start(
        socket: OwnedFd,
        domain: &str,
    ) -> Result<(Self, mpsc::Receiver<Incoming>), CallError> {
        let socket =
            UnixStream::from_std(socket.into()).map_err(|_| CallError::Socket(ScmError::Closed))?;
        let (client, receiver) = Self::over(NoRights::new(socket), false);
        let welcome = ToWorker::Welcome {
            protocol: PROTOCOL,
            build: BuildId::this(),
            domain: domain.to_owned(),
        };
        match client.shared.send(&welcome, &[]).await {
            Ok(()) | Err(CallError::Socket(ScmError::Closed)) => Ok((client, receiver)),
            Err(error) => Err(error),
        }
    }

    /// Reads from `socket`, whose worker was `greeted` already or is to say its hello first.
    fn over(socket: NoRights<UnixStream>, greeted: bool) -> (Self, mpsc::Receiver<Incoming>) {
        let shared = Arc::new(Shared {
            socket,
            turn: tokio::sync::Mutex::new(()),
            next: AtomicU64::new(1),
            pending: Mutex::new(Some(HashMap::new())),
        });
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
        let reading = tokio::spawn(read(Arc::clone(&shared), sender, greeted));
        let reader = Arc::new(Reading(reading.abort_handle()));
        let client = Self {
            shared,
            _reader: reader,
        };
        (client, receiver)
    }

    /// Goes on with ids behind `last`: what the worker finished for a supervisor before this one.
    pub fn go_on_after(&self, last: RequestId) {
        let next = last.0.saturating_add(1);
        self.shared.next.fetch_max(next, Ordering::Relaxed);
    }

    /// As [`Self::call_with`], for a request that names no descriptors.
    ///
    /// # Errors
    /// As for [`Self::call_with`].
    pub async fn call<R: Request>(
        &self,
        request: R,
        deadline: Duration,
    ) -> Result<R::Reply, CallError> {
        self.call_with(request, FdTable::new(), deadline).await
    }

    /// Calls the worker and waits for the reply, at most `deadline`. The request's slots name the
    /// descriptors of `table`, which are sent ahead of it and closed here.
    ///
    /// # Errors
    /// [`CallError`]; after [`CallError::Deadline`] the request may still take effect.
    pub async fn call_with<R: Request>(
        &self,
        request: R,
        table: FdTable,
        deadline: Duration,
    ) -> Result<R::Reply, CallError> {
        let name = R::OPERATION.name();
        let id = RequestId(self.shared.next.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        {
            let mut pending = self.shared.pending();
            let Some(calls) = pending.as_mut() else {
                return Err(CallError::Closed(name));
            };
            let waiting = calls.values().filter(|(_, sender)| !sender.is_closed());
            if waiting.count() >= MAX_PENDING || calls.len() >= MAX_PENDING + MAX_ABANDONED {
                return Err(CallError::Busy);
            }
            calls.insert(id, (R::OPERATION, sender));
        }
        let exchange = async {
            let message = ToWorker::Request {
                id,
                body: request.into_body(),
            };
            if let Err(error) = self.shared.send_request(&message, table).await {
                if let Some(calls) = self.shared.pending().as_mut() {
                    calls.remove(&id);
                }
                return Err(match error {
                    CallError::Socket(ScmError::Closed) => CallError::Closed(name),
                    other => other,
                });
            }
            let body = receiver.await.map_err(|_| CallError::Closed(name))??;
            // The reader compared operations before it handed the reply over.
            R::reply_from(body).ok_or(CallError::Closed(name))
        };
        match tokio::time::timeout(deadline, exchange).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Deadline(name, deadline)),
        }
    }
}

/// Reads until the end; one task a connection.
async fn read(shared: Arc<Shared>, sender: mpsc::Sender<Incoming>, greeted: bool) {
    let closed = read_until_closed(&shared, &sender, greeted).await;
    // Every call in flight fails now, and later ones at once.
    shared.pending().take();
    let _ = sender.send(Incoming::Closed(closed)).await;
}

async fn read_until_closed(
    shared: &Shared,
    sender: &mpsc::Sender<Incoming>,
    mut greeted: bool,
) -> Closed {
    let mut last_event = 0;
    let mut rate = EventRate::new(Instant::now());
    loop {
        let (bytes, strays, credentials) = match shared.receive().await {
            Ok(datagram) => datagram,
            Err(ScmError::Closed | ScmError::Os(_)) => return Closed::ByWorker,
            Err(error) => return Closed::Violation(error.to_string()),
        };
        if strays {
            return Closed::Violation("a worker sends no descriptors".to_owned());
        }
        if credentials.is_some() {
            return Closed::Violation(ScmError::UnexpectedControlData.to_string());
        }
        let message = match codec::decode(&bytes) {
            Ok(message) => message,
            Err(error) => return Closed::Violation(error.to_string()),
        };
        let incoming = match (message, greeted) {
            (
                FromWorker::Hello {
                    protocol,
                    build,
                    jail,
                },
                false,
            ) => {
                if protocol != PROTOCOL || build != BuildId::this() {
                    return Closed::Violation(format!(
                        "the worker is of build {} with protocol {}, not of this one",
                        build
                            .as_str()
                            .chars()
                            .take(BuildId::MAX_BYTES)
                            .collect::<String>(),
                        protocol.0
                    ));
                }
                greeted = true;
                Incoming::Hello(jail)
            }
            (FromWorker::Hello { .. }, true) => {
                return Closed::Violation("a second hello".to_owned());
            }
            (_, false) => return Closed::Violation("the first message is no hello".to_owned()),
            (FromWorker::Reply { id, result }, true) => match deliver(shared, id, result) {
                Ok(()) => continue,
                Err(violation) => return Closed::Violation(violation),
            },
            (FromWorker::Event { number, event }, true) => {
                if number <= last_event {
                    return Closed::Violation(format!("event {number} after {last_event}"));
                }
                if !rate.admit(Instant::now()) {
                    return Closed::Violation("events beyond the allowed rate".to_owned());
                }
                last_event = number;
                Incoming::Event(number, event)
            }
        };
        // A reader that is behind, or gone, must not hold up the replies: the event is dropped and
        // leaves a gap in the numbers.
        let _ = sender.try_send(incoming);
    }
}

fn deliver(shared: &Shared, id: RequestId, result: Answer) -> Result<(), String> {
    let mut pending = shared.pending();
    let Some(calls) = pending.as_mut() else {
        return Ok(());
    };
    let Some((operation, sender)) = calls.remove(&id) else {
        return Err(format!("a reply to request {}, which nobody made", id.0));
    };
    if let Ok(body) = &result {
        let answered = body.operation();
        if answered != operation {
            return Err(format!(
                "'{}' was answered as '{}'",
                operation.name(),
                answered.name()
            ));
        }
    }
    // A caller that gave up has dropped its receiver.
    let _ = sender.send(result);
    Ok(())
}

/// A token bucket over events.
#[derive(Debug)]
struct EventRate {
    tokens: u32,
    since: Instant,
}

impl EventRate {
    fn new(now: Instant) -> Self {
        Self {
            tokens: EVENT_BURST,
            since: now,
        }
    }

    fn admit(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        if seconds > 0 {
            let earned = u32::try_from(seconds)
                .unwrap_or(u32::MAX)
                .saturating_mul(EVENTS_PER_SECOND);
            self.tokens = self.tokens.saturating_add(earned).min(EVENT_BURST);
            self.since = now;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}
