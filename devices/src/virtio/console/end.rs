//! The host's end of a port: a descriptor that was handed over.
//!
//! ```text
//!  listener ──accept──► stream ──end of input──► still written to ──hung up──► what it left is read
//!     ▲                                                                              │
//!     └──────────────────────────────────── closed ◄─────────────────────────────────┘
//! ```
//!
//! One client at a time: the next waits in the listener's own backlog. A pty's master is a stream
//! that comes back: while nobody has the other side open it is looked at once a second, as nothing
//! can be waited for.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, accept_with, shutdown};

use crate::reactor::{Interest, Sources};

/// How long until a pty without another side, or a listener that has failed, is looked at again.
const RETRY: Duration = Duration::from_secs(1);

/// What came of reading or writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// So many bytes.
    Bytes(usize),
    /// None now; it will be ready again.
    Later,
    /// None, and none later.
    Ended,
}

/// A descriptor, and what is waited for on it.
#[derive(Debug)]
struct Source {
    fd: OwnedFd,
    waiting: Option<Interest>,
}

impl Source {
    fn new(fd: OwnedFd) -> Self {
        Self { fd, waiting: None }
    }

    fn wait(
        &mut self,
        sources: &Sources<'_>,
        token: u32,
        wanted: Option<Interest>,
    ) -> rustix::io::Result<()> {
        match (self.waiting, wanted) {
            (None, Some(interest)) => sources.add(&self.fd, token, interest)?,
            (Some(old), Some(new)) if old != new => sources.modify(&self.fd, token, new)?,
            (Some(_), None) => sources.remove(&self.fd)?,
            _ => {}
        }
        self.waiting = wanted;
        Ok(())
    }
}

/// Whether nobody holds a stream's other end.
fn is_gone(stream: &OwnedFd) -> bool {
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    let mut fds = [PollFd::new(stream, PollFlags::IN)];
    match poll(&mut fds, Some(&Timespec::default())) {
        Ok(_) => fds.iter().any(|fd| fd.revents().intersects(gone)),
        Err(_) => true,
    }
}

/// The other side of a port, by descriptor.
#[derive(Debug)]
pub(super) struct Peer {
    listener: Option<Source>,
    stream: Option<Source>,
    pty: bool,
    /// It sends no more.
    input_ended: bool,
    /// Nobody holds the other end.
    hung_up: bool,
    /// Nothing more can come of the stream.
    lost: bool,
    retry: Option<Instant>,
}

impl Peer {
    fn with(listener: Option<OwnedFd>, stream: Option<OwnedFd>, pty: bool) -> Self {
        Self {
            listener: listener.map(Source::new),
            stream: stream.map(Source::new),
            pty,
            input_ended: false,
            hung_up: false,
            lost: false,
            retry: None,
        }
    }

    pub(super) fn stream(stream: OwnedFd) -> Self {
        Self::with(None, Some(stream), false)
    }

    pub(super) fn listener(listener: OwnedFd) -> Self {
        Self::with(Some(listener), None, false)
    }

    pub(super) fn pty(master: OwnedFd) -> Self {
        Self::with(None, Some(master), true)
    }

    /// Whether somebody takes what is written.
    pub(super) fn is_connected(&self) -> bool {
        self.stream.is_some() && !self.hung_up && !self.lost
    }

    /// Whether something may be read, now or later.
    pub(super) fn is_readable(&self) -> bool {
        self.stream.is_some() && !self.lost && !self.input_ended
    }

    /// Reads into `buffer`, which is not empty.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Moved {
        if !self.is_readable() {
            return Moved::Ended;
        }
        let Some(stream) = &self.stream else {
            return Moved::Ended;
        };
        loop {
            match rustix::io::read(&stream.fd, &mut *buffer) {
                Ok(0) => {
                    self.input_ended = true;
                    self.lost |= self.hung_up;
                    return Moved::Ended;
                }
                Ok(len) => return Moved::Bytes(len),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !self.hung_up => return Moved::Later,
                // A pty without another side: more may come once there is one.
                Err(Errno::AGAIN | Errno::IO) if self.pty => {
                    self.hung_up = true;
                    return Moved::Later;
                }
                Err(_) => {
                    self.lost = true;
                    return Moved::Ended;
                }
            }
        }
    }

    /// Writes `bytes`, which are not none.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Moved {
        let Some(stream) = self.stream.as_ref().filter(|_| self.is_connected()) else {
            return Moved::Ended;
        };
        loop {
            match rustix::io::write(&stream.fd, bytes) {
                Ok(0) | Err(Errno::AGAIN) => return Moved::Later,
                Ok(len) => return Moved::Bytes(len),
                Err(Errno::INTR) => {}
                Err(Errno::IO) if self.pty => {
                    self.hung_up = true;
                    return Moved::Ended;
                }
                Err(_) => {
                    // It may have left something to be read.
                    self.hung_up = true;
                    return Moved::Ended;
                }
            }
        }
    }

    /// The stream is said to have hung up: looked at, as what was said may be of the one before it.
    pub(super) fn note_hang_up(&mut self) {
        self.hung_up |= self
            .stream
            .as_ref()
            .is_some_and(|stream| is_gone(&stream.fd));
    }

    /// Whether it has hung up and all that it left was read.
    fn is_spent(&self) -> bool {
        self.stream.is_some() && self.hung_up && self.input_ended
    }

    /// What a client that has hung up left is not wanted.
    pub(super) fn drop_hung_up(&mut self) {
        self.lost |= self.hung_up && !self.pty;
    }

    /// The listener is ready.
    pub(super) fn accept(&mut self, now: Instant) {
        let (Some(listener), None) = (&self.listener, &self.stream) else {
            return;
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match accept_with(&listener.fd, flags) {
            Ok(stream) => {
                self.stream = Some(Source::new(stream));
                self.input_ended = false;
                self.hung_up = false;
                self.lost = false;
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => {
                tracing::warn!(%error, "a port's client could not be accepted");
                self.retry = Some(now + RETRY);
            }
        }
    }

    /// When [`tick`](Self::tick) is wanted.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry
    }

    /// Looks again at what could not be waited for.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.retry.is_none_or(|retry| now < retry) {
            return;
        }
        self.retry = None;
        if let Some(stream) = self.stream.as_ref().filter(|_| self.pty) {
            self.hung_up = is_gone(&stream.fd);
        }
    }

    /// Closes what is lost, and waits for what may come: for input and for room as wanted, for a
    /// client, and always for the end of one.
    pub(super) fn settle(
        &mut self,
        sources: &Sources<'_>,
        (stream_token, listener_token): (u32, u32),
        (read, write): (bool, bool),
        now: Instant,
    ) {
        // Its end may have been read before it was known to have hung up.
        self.lost |= self.is_spent();
        if self.lost {
            if let Some(mut stream) = self.stream.take() {
                let _ = stream.wait(sources, stream_token, None);
            }
            self.lost = false;
            self.hung_up = false;
            self.input_ended = false;
        }
        if let Some(stream) = &mut self.stream {
            let interest = match (read && !self.input_ended, write) {
                (true, true) => Interest::Both,
                (true, false) => Interest::Read,
                (false, true) => Interest::Write,
                (false, false) => Interest::Hangup,
            };
            let wanted = (!self.hung_up).then_some(interest);
            if let Err(error) = stream.wait(sources, stream_token, wanted) {
                tracing::error!(%error, "a port's client cannot be waited for");
                self.stream = None;
            } else if self.hung_up && self.pty && self.retry.is_none() {
                self.retry = Some(now + RETRY);
            }
        }
        if let Some(listener) = &mut self.listener {
            let free = self.stream.is_none() && self.retry.is_none();
            let wanted = free.then_some(Interest::Read);
            if let Err(error) = listener.wait(sources, listener_token, wanted) {
                tracing::error!(%error, "a port's listener cannot be waited for");
                self.listener = None;
            }
        }
    }

    /// Ends it for whoever is at the other end: a client has the end of the stream behind what was
    /// written for it, and none comes to the listener any more.
    pub(super) fn shut_down(&self) {
        for source in [&self.stream, &self.listener].into_iter().flatten() {
            // Fails on a pty, and on a socket whose other end is gone.
            let _ = shutdown(&source.fd, Shutdown::Both);
        }
    }

    /// Waits for nothing: the worker ends, or the peer is replaced.
    pub(super) fn leave(&mut self, sources: &Sources<'_>) {
        for source in [&mut self.stream, &mut self.listener].into_iter().flatten() {
            // Nothing to be done about a failure: the descriptor is not in the set.
            let _ = source.wait(sources, 0, None);
            source.waiting = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::{Moved, Peer};

    #[test]
    fn one_whose_end_was_read_before_it_hung_up_is_spent() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut peer = Peer::stream(ours.into());
        drop(theirs);
        assert_eq!(peer.read(&mut [0; 8]), Moved::Ended);
        assert!(!peer.is_spent());
        peer.note_hang_up();
        assert!(peer.is_spent());
    }
}
