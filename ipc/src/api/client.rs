//! A client on tokio: calls that overlap, and events as they come.
//!
//! One task reads the connection and ends with the last handle. [`blocking`](super::blocking) is the
//! same without a runtime.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::blocking::{
    CONNECT_AGAIN, CallError, ConnectError, GREETING_DEADLINE, name, try_connect,
};
use super::call::{AnswerBody, Call, EventsSubscribe, Subscribed};
use super::error::ApiError;
use super::event::{Cursor, Event};
use super::judge::{self, Greeting, Told, Waiting};
use super::message::{FromClient, ToClient};
use super::{API, Access};
use crate::codec;
use crate::reading::Reading;
use crate::scm::{self, ScmError};
use crate::socket::Socket;
use crate::{BuildId, MAX_MESSAGE_BYTES};

/// Events that wait for their reader; what comes when it is full is dropped and leaves a gap in the
/// numbers.
const EVENT_QUEUE: usize = 1024;

thread_local! {
    /// Room for the largest message: one for all connections of the thread, which reads one message at a time.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_MESSAGE_BYTES]);
}

type Answer = (Result<AnswerBody, ApiError>, Vec<OwnedFd>);

#[derive(Debug)]
struct Shared {
    socket: Socket<OwnedFd>,
    /// `None` once the connection has ended.
    waiting: Mutex<Option<Waiting<oneshot::Sender<Answer>>>>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Option<Waiting<oneshot::Sender<Answer>>>> {
        // Nothing panics while it is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, message: &FromClient) -> Result<(), CallError> {
        let bytes = codec::encode(message)?;
        loop {
            match scm::send(self.socket.as_fd(), &bytes, &[]) {
                Err(ScmError::WouldBlock) => {
                    let room = self.socket.writable().await;
                    room.map_err(CallError::Socket)?;
                }
                sent => return Ok(sent?),
            }
        }
    }

    async fn receive(&self) -> Result<(ToClient, Vec<OwnedFd>), CallError> {
        let received = self.socket.receive(|socket| {
            BUFFER.with_borrow_mut(|buffer| {
                let (length, fds) = scm::receive(socket, buffer)?;
                let bytes = buffer.get(..length).unwrap_or_default();
                Ok((codec::decode(bytes), fds))
            })
        });
        let (message, fds) = received.await?;
        let message = message.map_err(|error| CallError::Protocol(error.to_string()))?;
        Ok((message, fds))
    }
}

/// A connection to a supervisor; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    greeting: Arc<Greeting>,
    _reader: Arc<Reading>,
}

impl Client {
    /// Connects to the supervisor that listens at `socket`. The receiver gives the events once they
    /// are subscribed to, and ends with the connection.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn open(
        socket: &Path,
        client: &str,
    ) -> Result<(Self, mpsc::Receiver<(Cursor, Event)>), ConnectError> {
        let path = socket;
        let silent = |_| ConnectError::Silent(path.to_owned());
        let connecting = tokio::time::timeout(GREETING_DEADLINE, connect(path));
        let socket = connecting.await.map_err(silent)??;
        Self::greet(socket, path, client).await
    }

    /// As [`Self::open`], over a socket that is connected already and over which nothing was said. It is a
    /// non-blocking one.
    ///
    /// # Errors
    /// [`ConnectError`], which names no path.
    pub async fn over(
        socket: OwnedFd,
        client: &str,
    ) -> Result<(Self, mpsc::Receiver<(Cursor, Event)>), ConnectError> {
        Self::greet(socket, Path::new("the other end"), client).await
    }

    async fn greet(
        socket: OwnedFd,
        path: &Path,
        client: &str,
    ) -> Result<(Self, mpsc::Receiver<(Cursor, Event)>), ConnectError> {
        let closed = |error: CallError| ConnectError::Closed {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let silent = |_| ConnectError::Silent(path.to_owned());
        let socket = Socket::new(socket).map_err(|error| closed(CallError::Socket(error)))?;
        let shared = Arc::new(Shared {
            socket,
            waiting: Mutex::new(Some(Waiting::default())),
        });
        let hello = FromClient::Hello {
            api: API,
            client: name(client),
        };
        let sent = shared.send(&hello).await;
        let first = tokio::time::timeout(GREETING_DEADLINE, shared.receive()).await;
        let first = first.map_err(silent)?;
        let greeting = judge::greeting(first.map_err(closed)?.0)?;
        sent.map_err(closed)?;
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let reading = tokio::spawn(read(Arc::clone(&shared), sender));
        let client = Self {
            shared,
            greeting: Arc::new(greeting),
            _reader: Arc::new(Reading(reading.abort_handle())),
        };
        Ok((client, events))
    }

    /// The supervisor's build.
    #[must_use]
    pub fn build(&self) -> &BuildId {
        &self.greeting.build
    }

    /// What this connection may do.
    #[must_use]
    pub fn access(&self) -> Access {
        self.greeting.access
    }

    /// Calls, and waits for the answer. A future that is dropped gives the answer up, not the call.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<C: Call>(&self, call: C) -> Result<C::Answer, CallError> {
        Ok(self.call_with_fds(call).await?.0)
    }

    /// As [`Self::call`], with the descriptors that came with the answer.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call_with_fds<C: Call>(
        &self,
        call: C,
    ) -> Result<(C::Answer, Vec<OwnedFd>), CallError> {
        let (sender, answer) = oneshot::channel();
        let id = match self.shared.waiting().as_mut() {
            Some(waiting) => waiting.begin(C::OPERATION, sender),
            None => return Err(CallError::Closed),
        };
        let message = FromClient::Call {
            id,
            body: call.into_body(),
        };
        if let Err(error) = self.shared.send(&message).await {
            if let Some(waiting) = self.shared.waiting().as_mut() {
                waiting.forget(id);
            }
            return Err(error);
        }
        let (result, fds) = answer.await.map_err(|_| CallError::Closed)?;
        let wrong = || CallError::Protocol("an answer of another call".to_owned());
        Ok((C::answer_from(result?).ok_or_else(wrong)?, fds))
    }

    /// Subscribes to events: from now on, or from behind `after`.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn subscribe(&self, after: Option<Cursor>) -> Result<Subscribed, CallError> {
        self.call(EventsSubscribe { after }).await
    }
}

/// Connects, however many wait to be let in.
async fn connect(path: &Path) -> Result<OwnedFd, ConnectError> {
    loop {
        if let Some(socket) = try_connect(path)? {
            return Ok(socket);
        }
        tokio::time::sleep(CONNECT_AGAIN).await;
    }
}

/// Reads until the end; one task a connection.
async fn read(shared: Arc<Shared>, events: mpsc::Sender<(Cursor, Event)>) {
    while let Ok((message, fds)) = shared.receive().await {
        let told = match shared.waiting().as_mut() {
            Some(waiting) => waiting.judge(message),
            None => return,
        };
        match told {
            Ok(Told::Answer(caller, result)) => {
                // A caller that gave up has dropped its receiver.
                let _ = caller.send((result, fds));
            }
            Ok(Told::Late) => {}
            Ok(Told::Event(cursor, event)) => {
                // A reader that is behind must not hold up the answers.
                let _ = events.try_send((cursor, event));
            }
            Err(_) => break,
        }
    }
    // Every call that waits fails now, and later ones at once.
    shared.waiting().take();
}
