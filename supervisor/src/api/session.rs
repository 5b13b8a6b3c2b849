//! One connection: its calls, its answers, its events.
//!
//! One task. It never waits for a call: those that take time are futures beside it, as many as the
//! limit allows. What cannot be sent now waits in an outbox that holds no more than the answers to
//! those calls; events are taken from the log only when the outbox is empty.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::pending;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::api::call::{AnswerBody, CallBody};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::message::{CallId, FromClient, MAX_CLIENT_NAME_BYTES, ToClient};
use reeve_ipc::api::{API, Access};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::socket::Socket;
use reeve_ipc::strays::NoRights;
use reeve_ipc::{BuildId, MAX_MESSAGE_BYTES, codec};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::access::Peer;
use super::events::EventLog;
use super::{Answer, Answered, Serve, Shared};
use crate::domain::actor::SessionId;

/// Messages of one client that are handled before whatever else there is, where nobody else is connected.
const TURN: usize = 32;
/// As many where others are: a call of theirs waits for no more than one of each client, which may read the
/// kernel's books, however many those have sent. Between two turns the loop asks the kernel who else has come, which
/// takes some microseconds. A client that sends its next call when it has the answer never comes to the end of its
/// turn, and one that is alone has a whole one.
const SHARED_TURN: usize = 1;
/// Answers that may wait beyond the calls in flight: those given at once to a client that does not
/// read.
const OUTBOX_MARGIN: usize = 64;

/// A client that was let in.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) id: SessionId,
    pub(super) peer: Peer,
    pub(super) access: Access,
    pub(super) calls_in_flight: usize,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("it closed the connection")]
    Closed,
    #[error("{0}")]
    Violation(String),
    #[error("it does not read its answers")]
    Stalled,
}

impl From<ScmError> for End {
    fn from(error: ScmError) -> Self {
        match error {
            ScmError::Closed | ScmError::Os(_) => Self::Closed,
            other => Self::Violation(other.to_string()),
        }
    }
}

/// A message, and whether descriptors came with it.
type Received = (FromClient, bool);

thread_local! {
    /// Room for the largest message: one for all connections of the thread, which reads one message
    /// at a time.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_MESSAGE_BYTES]);
}

/// Where a subscriber is in the log.
struct Subscription {
    number: u64,
    last: watch::Receiver<u64>,
}

pub(super) struct Session<S> {
    socket: Socket<NoRights<OwnedFd>>,
    admitted: Admitted,
    /// What serves this connection.
    service: Arc<S>,
    /// What happens there.
    events: Arc<EventLog>,
    /// Those who were let in by the same doors.
    shared: Arc<Shared<S>>,
    /// Messages that were handled in this turn.
    handled: usize,
    /// Whether a call was made: what serves it cannot be chosen any more.
    called: bool,
    calls: JoinSet<(CallId, Answered)>,
    outbox: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    subscription: Option<Subscription>,
}

impl<S: Serve> Session<S> {
    pub(super) fn new(
        socket: Socket<NoRights<OwnedFd>>,
        admitted: Admitted,
        shared: Arc<Shared<S>>,
    ) -> Self {
        Self {
            socket,
            admitted,
            service: Arc::clone(&shared.service),
            events: Arc::clone(&shared.events),
            shared,
            handled: 0,
            called: false,
            calls: JoinSet::new(),
            outbox: VecDeque::new(),
            subscription: None,
        }
    }

    /// Serves until the client goes or must. It has `hello` to say who it is, or as long as it likes.
    pub(super) async fn run(mut self, hello: Option<Duration>) {
        let greeted = match hello {
            Some(deadline) => tokio::time::timeout(deadline, self.greet()).await,
            None => Ok(self.greet().await),
        };
        let end = match greeted {
            Ok(Ok(())) => match self.serve().await {
                Err(end) => end,
                Ok(never) => match never {},
            },
            Ok(Err(end)) => end,
            Err(_) => End::Violation("it did not say who it is".to_owned()),
        };
        let peer = &self.admitted.peer;
        match end {
            End::Closed => tracing::debug!(uid = peer.uid, pid = peer.pid, "client left"),
            end => {
                if let Some(left_out) = self.shared.doors.broken.may() {
                    let (uid, pid) = (peer.uid, peer.pid);
                    tracing::warn!(uid, pid, left_out, "client ended: {end}");
                }
            }
        }
    }

    async fn greet(&mut self) -> Result<(), End> {
        let (message, strays) = loop {
            self.socket.readable().await.map_err(|_| End::Closed)?;
            match self.receive() {
                Ok(Some(message)) => break message,
                Ok(None) => {}
                Err(end) => return Err(end),
            }
        };
        let FromClient::Hello { api, client } = message else {
            return Err(End::Violation("its first message is no hello".to_owned()));
        };
        if strays || client.len() > MAX_CLIENT_NAME_BYTES {
            return Err(End::Violation("its hello is malformed".to_owned()));
        }
        let Admitted { peer, access, .. } = &self.admitted;
        if api != API {
            let message = format!(
                "this supervisor speaks version {} of the API, the client version {}; install both \
                 of one build",
                API.0, api.0
            );
            let error = ApiError::new(ApiErrorCode::Unsupported, message);
            self.queue(&ToClient::Refused(error), Vec::new())?;
            return Err(End::Violation(format!("it speaks version {}", api.0)));
        }
        tracing::debug!(uid = peer.uid, pid = peer.pid, %access, client = ?client, "client");
        let welcome = ToClient::Welcome {
            api: API,
            build: BuildId::this(),
            access: *access,
        };
        self.queue(&welcome, Vec::new())
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            self.send_events()?;
            tokio::select! {
                ready = self.socket.readable() => {
                    ready.map_err(|_| End::Closed)?;
                    self.read().await?;
                }
                room = self.socket.writable(), if !self.outbox.is_empty() => {
                    room.map_err(|_| End::Closed)?;
                    self.flush()?;
                }
                Some(done) = self.calls.join_next() => {
                    // A panicked call has no answer; the client's connection ends with it.
                    let (id, answer) = done.map_err(|_| End::Violation("a call failed".to_owned()))?;
                    self.reply(id, answer)?;
                }
                () = more_events(&mut self.subscription), if self.outbox.is_empty() => {}
            }
        }
    }

    /// Handles what has come, up to a turn's worth. What is left when that is over waits for those clients whose
    /// messages have come meanwhile.
    async fn read(&mut self) -> Result<(), End> {
        for _ in 0..TURN {
            let Some((message, strays)) = self.receive()? else {
                // The loop waits now: the next message begins a turn.
                self.handled = 0;
                return Ok(());
            };
            if self.handled > 0 && self.handled >= self.turn() {
                tokio::task::yield_now().await;
                self.handled = 0;
            }
            self.handled += 1;
            match message {
                FromClient::Hello { .. } => {
                    return Err(End::Violation("a second hello".to_owned()));
                }
                FromClient::Call {
                    id,
                    body: CallBody::TestHypervisorUse(_),
                } if !strays => {
                    let chosen = self.choose().await;
                    self.reply(id, chosen)?;
                }
                FromClient::Call { id, body } => self.call(id, body, strays)?,
            }
        }
        Ok(())
    }

    fn turn(&self) -> usize {
        match self.shared.doors.are_shared() {
            true => SHARED_TURN,
            false => TURN,
        }
    }

    fn call(&mut self, id: CallId, body: CallBody, strays: bool) -> Result<(), End> {
        let operation = body.operation();
        let refuse = |code, why: String| {
            let message = format!("cannot {}: {why}", operation.name());
            Err(ApiError::new(code, message))
        };
        if strays {
            let why = "it takes no descriptors".to_owned();
            return self.reply(id, refuse(ApiErrorCode::InvalidArgument, why));
        }
        if operation.access() > self.admitted.access {
            let why = format!("this connection is {}", self.admitted.access);
            return self.reply(id, refuse(ApiErrorCode::AccessDenied, why));
        }
        self.called = true;
        match body {
            CallBody::EventsSubscribe(subscribe) => {
                let (subscribed, last) = self.events.subscribe(subscribe.after);
                let number = subscribed.cursor.number;
                self.reply(
                    id,
                    Ok((AnswerBody::EventsSubscribe(subscribed), Vec::new())),
                )?;
                self.subscription = Some(Subscription { number, last });
                Ok(())
            }
            CallBody::EventsUnsubscribe(_) => {
                self.subscription = None;
                self.reply(id, Ok((AnswerBody::EventsUnsubscribe(()), Vec::new())))
            }
            body => match Arc::clone(&self.service).serve(self.admitted.id, body) {
                Answer::Now(answer) => self.reply(id, answer),
                Answer::Later(_) if self.calls.len() >= self.admitted.calls_in_flight => {
                    let why = format!("{} calls wait already", self.calls.len());
                    self.reply(id, refuse(ApiErrorCode::Busy, why))
                }
                Answer::Later(later) => {
                    self.calls.spawn(async move { (id, later.await) });
                    Ok(())
                }
            },
        }
    }

    /// Has the test hypervisor serve the connection from now on. It is made for the first that asks, which takes
    /// no time but that of this connection, on which nothing else was asked.
    async fn choose(&mut self) -> Answered {
        let (service, events) = Arc::clone(&self.service).test_hypervisor().await?;
        if self.called && !Arc::ptr_eq(&service, &self.service) {
            let message =
                "cannot use the test hypervisor: a call was made on this connection already";
            return Err(ApiError::new(ApiErrorCode::WrongState, message));
        }
        (self.service, self.events) = (service, events);
        Ok((AnswerBody::TestHypervisorUse(()), Vec::new()))
    }

    fn reply(&mut self, id: CallId, answer: Answered) -> Result<(), End> {
        let (result, fds) = match answer {
            Ok((body, fds)) => (Ok(body), fds),
            Err(error) => (Err(error), Vec::new()),
        };
        self.queue(&ToClient::Reply { id, result }, fds)
    }

    /// Sends events while the client takes them.
    fn send_events(&mut self) -> Result<(), End> {
        while let (Some(subscription), true) = (&mut self.subscription, self.outbox.is_empty()) {
            subscription.last.mark_unchanged();
            let Some((cursor, event)) = self.events.next(subscription.number) else {
                return Ok(());
            };
            subscription.number = cursor.number;
            self.queue(&ToClient::Event { cursor, event }, Vec::new())?;
        }
        Ok(())
    }

    /// Sends a message, or keeps it until there is room.
    fn queue(&mut self, message: &ToClient, fds: Vec<OwnedFd>) -> Result<(), End> {
        let bytes = match (codec::encode(message), message) {
            (Ok(bytes), _) => bytes,
            (Err(error), ToClient::Reply { id, .. }) => {
                // An answer that does not fit is a fault of ours; the caller must not hang for it.
                let error = ApiError::new(ApiErrorCode::Host, error.to_string());
                let reply = ToClient::Reply {
                    id: *id,
                    result: Err(error),
                };
                codec::encode(&reply).map_err(|error| End::Violation(error.to_string()))?
            }
            // One that does not fit is a fault of ours too, and no reason to leave the client without all others.
            (Err(error), ToClient::Event { cursor, .. }) => {
                tracing::error!(number = cursor.number, %error, "an event does not fit a message: it is left out");
                return Ok(());
            }
            (Err(error), _) => return Err(End::Violation(error.to_string())),
        };
        if self.outbox.len() >= self.admitted.calls_in_flight + OUTBOX_MARGIN {
            return Err(End::Stalled);
        }
        if self.outbox.is_empty() && self.send(&bytes, &fds)? {
            return Ok(());
        }
        self.outbox.push_back((bytes, fds));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), End> {
        while let Some((bytes, fds)) = self.outbox.front() {
            if !self.send(bytes, fds)? {
                return Ok(());
            }
            self.outbox.pop_front();
        }
        Ok(())
    }

    /// Whether there was room.
    fn send(&self, bytes: &[u8], fds: &[OwnedFd]) -> Result<bool, End> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        match scm::send(self.socket.as_fd(), bytes, &fds) {
            Err(ScmError::WouldBlock) => Ok(false),
            sent => Ok(sent.map(|()| true)?),
        }
    }

    /// The next message, if there is one. No call takes descriptors: a kernel that can refuses them to
    /// the client, and those that come all the same are closed elsewhere.
    fn receive(&self) -> Result<Option<Received>, End> {
        BUFFER.with_borrow_mut(|buffer| {
            let attempt = |socket: BorrowedFd<'_>| scm::receive_bare(socket, buffer);
            let Some((length, strays)) = self.socket.try_receive(attempt)? else {
                return Ok(None);
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            let message =
                codec::decode(bytes).map_err(|error| End::Violation(error.to_string()))?;
            Ok(Some((message, strays)))
        })
    }
}

/// Waits until there are events that the subscriber has not been sent.
async fn more_events(subscription: &mut Option<Subscription>) {
    match subscription {
        Some(subscription) => {
            if subscription.last.changed().await.is_err() {
                pending::<()>().await;
            }
        }
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
