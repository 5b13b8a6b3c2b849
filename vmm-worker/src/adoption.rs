//! Where the worker waits for a supervisor that comes back: its end of ARCHITECTURE's re-adoption.
//!
//! Owned by the control thread. The listening socket was bound by the supervisor, in a directory that
//! only root enters; all the same nobody who connects is believed to be one before its first message
//! is a proper welcome. Few may wait for that at a time, and none for long: a flood of connections
//! costs neither memory nor turns of the loop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use reeve_ipc::endpoint::Endpoint;
use reeve_ipc::message::ToWorker;
use reeve_ipc::{ProtocolVersion, accepts};
use rustix::event::{PollFd, PollFlags};
use rustix::net::SocketFlags;

use crate::events::Control;

/// Connections that may wait to be heard.
const MAX_CANDIDATES: usize = 4;
/// How long each may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// The listening socket and who has connected to it.
#[derive(Debug)]
pub struct Adoption {
    listener: OwnedFd,
    candidates: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    control: Control,
    until: Instant,
}

impl Adoption {
    /// Takes the listening socket and makes it non-blocking.
    ///
    /// # Errors
    /// It is no socket that can be.
    pub fn new(listener: OwnedFd) -> rustix::io::Result<Self> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        Ok(Self {
            listener,
            candidates: Vec::new(),
        })
    }

    /// The listening socket, for a worker that takes over.
    #[must_use]
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// What to wait for.
    pub fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let listener = (self.candidates.len() < MAX_CANDIDATES)
            .then(|| PollFd::new(&self.listener, PollFlags::IN));
        let candidates = self
            .candidates
            .iter()
            .map(|candidate| PollFd::new(&candidate.control, PollFlags::IN));
        listener.into_iter().chain(candidates)
    }

    /// How long the first of those that wait may wait still.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        let first = self
            .candidates
            .iter()
            .map(|candidate| candidate.until)
            .min();
        first.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// Lets in who knocks, hears who has spoken, and turns out who took too long. The connection of
    /// the supervisor that has come back, if one has, and the protocol it speaks.
    pub fn turn(&mut self) -> Option<(Control, ProtocolVersion)> {
        let now = Instant::now();
        self.let_in(now);
        let mut heard = None;
        let mut waiting = Vec::with_capacity(self.candidates.len());
        for mut candidate in self.candidates.drain(..) {
            match candidate.control.receive() {
                Ok(None) if candidate.until > now => waiting.push(candidate),
                Ok(Some((ToWorker::Welcome { protocol, .. }, fds)))
                    if accepts(protocol) && fds.is_empty() =>
                {
                    // The last to come is the one that lives.
                    heard = Some((candidate.control, protocol));
                }
                Ok(_) | Err(_) => tracing::warn!("a connection for adoption was refused"),
            }
        }
        self.candidates = waiting;
        heard
    }

    fn let_in(&mut self, now: Instant) {
        while self.candidates.len() < MAX_CANDIDATES {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(&self.listener, flags) {
                Ok(socket) => self.candidates.push(Candidate {
                    control: Endpoint::new(socket),
                    until: now + PATIENCE,
                }),
                Err(rustix::io::Errno::INTR) => {}
                // None there; or one that went again, or no descriptor left: the next turn tries.
                Err(_) => return,
            }
        }
    }
}
