//! Connections that guests open to programs of the host: to port P from a guest whose socket is `PATH`, to the
//! stream socket `PATH_P` beside it, on which such a program listens.
//!
//! ```text
//!   guest ── REQUEST P ──► worker ── question ──► Acceptor ─ a thread ─► openat, connect: PATH_P
//!         ◄── RESPONSE or RST ──   ◄─── answer ─┘      the connected stream, or a refusal
//! ```
//!
//! The worker can connect to nothing and asks for each connection (`reeve_ipc::acceptor`). Of what it says
//! only the port is used, as a number that is written here; the directory is the one that the policy for
//! paths allowed when the device came, whatever its name means by now. Only what is itself a socket there
//! counts, and no link to one, nor a socket of another domain's device: those have a mark.
//!
//! What a guest can have done here is bounded, whatever has become of its worker: [`MAX_CALLS`] connections
//! that are being made, on [`MAX_THREADS_OF_ONE`] threads; [`RATE`] a second after the first [`BURST`];
//! nothing waits for longer than [`PATIENCE`], be it for a program whose queue is full or for a file system.
//! What is asked for beyond that waits in the worker's socket, where there is room for a few hundred
//! questions; and as long as the worker reads no answers, nothing is done for it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::acceptor::{QUESTION_BYTES, Question};
use reeve_ipc::model::{DomainName, DomainUuid};
use reeve_ipc::scm::{self, ScmError};
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::{MARK, Place, SocketError, connect_to, open_itself, place};
use crate::domain::plan::PathPolicy;
use crate::host::watch::watch_for;

/// Connections that are being made for one guest at a time.
const MAX_CALLS: usize = 16;
/// Threads on which that is done for one guest, which a file system may hold up for ever.
const MAX_THREADS_OF_ONE: usize = 2;
/// The same, for all guests.
const MAX_THREADS: usize = 16;
/// How long a program may take to have room in its queue, and a file system to find its socket.
const PATIENCE: Duration = Duration::from_secs(1);
/// How soon a queue that was full is tried again; then after twice as long, and so on.
const AGAIN: Duration = Duration::from_millis(10);
/// Connections that a guest may ask for in a second.
const RATE: u32 = 100;
/// As many it may ask for at once before that counts.
const BURST: u32 = 128;
/// Bytes of answers that wait for a worker, as the kernel counts them: about ten, each with its descriptor.
const UNREAD_BYTES: usize = 4096;

/// The threads on which connections are made for all guests. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connectors(Arc<Semaphore>);

impl Connectors {
    /// None of them is taken.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_THREADS)))
    }
}

/// Who answers for the connections of one guest, until this is dropped.
#[derive(Debug)]
pub(crate) struct Acceptor {
    /// Where the guest's own socket is.
    pub(super) path: PathBuf,
    /// Until [`serve`](Self::serve).
    waiting: Option<(OwnedFd, Place)>,
    task: Option<AbortHandle>,
}

impl Acceptor {
    /// For a guest whose socket is at `path`, and the worker's end. May wait for a file system.
    ///
    /// # Errors
    /// [`SocketError`].
    pub(crate) fn new(
        paths: &dyn PathPolicy,
        what: &'static str,
        path: &Path,
    ) -> Result<(Self, OwnedFd), SocketError> {
        let os = |errno| SocketError::Os {
            what,
            path: path.to_owned(),
            errno,
        };
        let place = place(paths, what, path, os)?;
        let (ours, theirs) = scm::pair().map_err(|error| match error {
            ScmError::Os(errno) => os(errno),
            _ => os(Errno::INVAL),
        })?;
        scm::refuse_rights(ours.as_fd());
        sockopt::set_socket_send_buffer_size(&ours, UNREAD_BYTES).map_err(os)?;
        let acceptor = Self {
            path: path.to_owned(),
            waiting: Some((ours, place)),
            task: None,
        };
        Ok((acceptor, theirs))
    }

    /// Begins to answer, for the guest of this domain; does nothing a second time. Runs on tokio.
    pub(crate) fn serve(&mut self, connectors: &Connectors, name: &DomainName, uuid: DomainUuid) {
        if let Some((socket, place)) = self.waiting.take() {
            let caller = Caller {
                place: Arc::new(place),
                of_one: Arc::new(Semaphore::new(MAX_THREADS_OF_ONE)),
                of_all: Arc::clone(&connectors.0),
                name: name.clone(),
                uuid,
            };
            self.task = Some(tokio::spawn(answer_all(socket, caller)).abort_handle());
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Why no more is answered.
#[derive(Debug, thiserror::Error)]
enum End {
    /// The device is gone, or asks elsewhere.
    #[error("the worker has closed its end")]
    Closed,
    #[error("protocol violation: {0}")]
    Violation(&'static str),
    #[error(transparent)]
    Os(#[from] std::io::Error),
}

async fn answer_all(socket: OwnedFd, caller: Caller) {
    let (domain, uuid) = (caller.name.clone(), caller.uuid);
    match answer_until(socket, caller).await {
        End::Closed => {}
        end => {
            tracing::error!(%domain, %uuid, "the guest's connections to the host are refused from now on: {end}");
        }
    }
}

async fn answer_until(socket: OwnedFd, caller: Caller) -> End {
    let both = Interest::READABLE | Interest::WRITABLE;
    let socket = match watch_for(Arc::new(socket), both) {
        Ok(socket) => Socket(socket),
        Err(error) => return End::Os(error),
    };
    let mut pace = Pace::new();
    let mut calls = JoinSet::new();
    loop {
        let room = calls.len() < MAX_CALLS;
        tokio::select! {
            biased;
            Some(called) = calls.join_next(), if !calls.is_empty() => {
                // One that panicked is given up by the worker.
                if let Ok((question, stream)) = called {
                    if let Err(end) = socket.answer(question, stream).await {
                        return end;
                    }
                }
            }
            question = socket.question(pace.next()), if room => match question {
                Ok(question) => {
                    pace.note();
                    calls.spawn(caller.clone().call(question));
                }
                Err(end) => return end,
            },
        }
    }
}

/// Our end.
struct Socket(AsyncFd<Arc<OwnedFd>>);

impl Socket {
    /// The next question, not before that time.
    async fn question(&self, not_before: Instant) -> Result<Question, End> {
        tokio::time::sleep_until(not_before).await;
        loop {
            let mut ready = self.0.readable().await?;
            let mut bytes = [0; QUESTION_BYTES + 1];
            match scm::receive_bare(self.0.get_ref().as_fd(), &mut bytes) {
                Ok((_, true)) => return Err(End::Violation("a worker sends no descriptors")),
                Ok((length, false)) => {
                    let question = bytes.get(..length).and_then(Question::decode);
                    return question.ok_or(End::Violation("that is no question"));
                }
                Err(ScmError::WouldBlock) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Answers, once the worker has room for it.
    async fn answer(&self, question: Question, stream: Option<OwnedFd>) -> Result<(), End> {
        let mut streams: Vec<_> = stream.iter().map(AsFd::as_fd).collect();
        loop {
            let mut ready = self.0.writable().await?;
            let bytes = question.answer(!streams.is_empty());
            match scm::send(self.0.get_ref().as_fd(), &bytes, &streams) {
                Ok(()) => return Ok(()),
                Err(ScmError::WouldBlock) => ready.clear_ready(),
                // The kernel has as many descriptors on their way as this user may.
                Err(ScmError::Oversized) if !streams.is_empty() => streams.clear(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl From<ScmError> for End {
    fn from(error: ScmError) -> Self {
        match error {
            ScmError::Closed => Self::Closed,
            ScmError::Os(errno) => Self::Os(errno.into()),
            _ => Self::Violation("that is no question"),
        }
    }
}

/// How often may be asked.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// When as many as were asked would have been, one after the other.
    spent: Instant,
}

impl Pace {
    const EACH: Duration = Duration::from_nanos(1_000_000_000 / RATE as u64);

    fn new() -> Self {
        Self {
            spent: Instant::now(),
        }
    }

    /// When the next is due; in the past if it is now.
    fn next(self) -> Instant {
        let ahead = Self::EACH * BURST;
        self.spent.checked_sub(ahead).unwrap_or(self.spent)
    }

    fn note(&mut self) {
        self.spent = self.spent.max(Instant::now()) + Self::EACH;
    }
}

/// Makes connections for one guest.
#[derive(Debug, Clone)]
struct Caller {
    place: Arc<Place>,
    of_one: Arc<Semaphore>,
    of_all: Arc<Semaphore>,
    name: DomainName,
    uuid: DomainUuid,
}

impl Caller {
    async fn call(self, question: Question) -> (Question, Option<OwnedFd>) {
        let called = tokio::time::timeout(PATIENCE, self.call_again(question.host_port)).await;
        let stream = called.unwrap_or(Err(Errno::TIMEDOUT));
        if let Err(errno) = &stream {
            let (domain, uuid, port) = (&self.name, self.uuid, question.host_port);
            tracing::trace!(%domain, %uuid, port, %errno, "a guest's connection is refused");
        }
        (question, stream.ok())
    }

    /// Until the program's queue has room.
    async fn call_again(&self, port: u32) -> Result<OwnedFd, Errno> {
        let mut pause = AGAIN;
        loop {
            match self.call_once(port).await {
                Err(Errno::AGAIN) => tokio::time::sleep(pause).await,
                called => return called,
            }
            pause *= 2;
        }
    }

    async fn call_once(&self, port: u32) -> Result<OwnedFd, Errno> {
        // Neither is ever closed.
        let of_one = Arc::clone(&self.of_one).acquire_owned().await;
        let of_all = Arc::clone(&self.of_all).acquire_owned().await;
        let place = Arc::clone(&self.place);
        let calling = tokio::task::spawn_blocking(move || {
            // Held until it is done, even where nobody waits for it any more.
            let _threads = (of_one, of_all);
            connect_beside(&place, port)
        });
        calling.await.unwrap_or(Err(Errno::CANCELED))
    }
}

/// Connects to the socket of that port: non-blocking, and it takes no descriptors.
fn connect_beside(place: &Place, port: u32) -> Result<OwnedFd, Errno> {
    let mut name = place.name.clone();
    name.push(format!("_{port}"));
    let (itself, mode) = open_itself(&place.directory, &name)?;
    if FileType::from_raw_mode(mode) != FileType::Socket {
        return Err(Errno::NOTSOCK);
    }
    // Another guest's, by a path that looks like one of this one's ports.
    if Mode::from_raw_mode(mode).contains(MARK) {
        return Err(Errno::PERM);
    }
    // Bytes are all that a program has to say to a guest.
    connect_to(&itself, |stream| {
        scm::refuse_rights(stream.as_fd());
    })
}

#[cfg(test)]
mod tests;
