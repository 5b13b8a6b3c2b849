//! The server: one thread, a socket that listens, and its clients.
//!
//! Nothing waits for a client: what cannot be read or sent at once is left for later, and in a turn each client has one
//! read and is sent 64 KiB or so, for which much of a picture may be encoded that compresses well. A client that takes nothing for [`PATIENCE`], or does not come past the
//! questions in that time, is closed. Where there are too many, one that is not past them makes room.
//!
//! The descriptors' options are whoever's that made them: `TCP_NODELAY` on the listening socket is inherited.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};

use crate::auth::{Attempts, Security};
use crate::canvas::Canvas;
use crate::client::{Client, Event, Service};
use crate::message::MAX_BYTES;
use crate::{InputSink, Screen};

/// The most connections.
pub const MAX_CLIENTS: usize = 16;
/// How long a client may take nothing, or be asked.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The least time between two looks at the screen, which is the least between two updates.
const MIN_LOOK: Duration = Duration::from_millis(33);
/// The same when nothing has changed for a while.
const MAX_LOOK: Duration = Duration::from_millis(250);
/// After which connections are accepted again, if the host had no descriptor for one.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// The longest name that clients are told.
const MAX_NAME: usize = 200;

/// Who may look at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SharePolicy {
    /// A client that does not share has the others closed, and is alone until it goes.
    #[default]
    AllowExclusive,
    /// A client that does not share is closed.
    ForceShared,
    /// What clients say of it does not matter.
    Ignore,
}

/// How clients are served.
#[derive(Debug, Clone)]
pub struct Config {
    /// What they are told that they look at: printable text, of which the first 200 bytes count.
    pub name: String,
    /// What they have to show.
    pub security: Security,
    /// Who may look at the same time.
    pub sharing: SharePolicy,
}

struct Connection {
    socket: OwnedFd,
    client: Client,
    /// When it came, or last took something that waited for it.
    progress: Instant,
    /// Whether it shares, once it is in.
    shared: Option<bool>,
    over: bool,
}

impl Connection {
    /// Until when it has to have done something, if it has.
    fn deadline(&self) -> Option<Instant> {
        let awaited = !self.client.is_running() || self.client.has_output();
        awaited.then(|| self.progress + PATIENCE)
    }

    fn send(&mut self, now: Instant) {
        while !self.client.output().is_empty() {
            match send(&self.socket, self.client.output(), SendFlags::NOSIGNAL) {
                Ok(bytes) => {
                    self.client.note_sent(bytes);
                    if self.client.is_running() {
                        self.progress = now;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.over = true;
                    return;
                }
            }
        }
    }
}

/// The server.
pub struct Server {
    listener: OwnedFd,
    config: Config,
    screen: Box<dyn Screen>,
    input: Arc<dyn InputSink>,
    connections: Vec<Connection>,
    attempts: Attempts,
    canvas: Canvas,
    last_look: Instant,
    interval: Duration,
    accept_from: Instant,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("clients", &self.connections.len())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Serves whoever connects to `listener`, a stream socket that listens, with `screen` and `input`.
    ///
    /// # Errors
    /// The socket cannot be made not to block.
    pub fn new(
        listener: OwnedFd,
        mut config: Config,
        screen: Box<dyn Screen>,
        input: Arc<dyn InputSink>,
    ) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        while config.name.len() > MAX_NAME {
            config.name.pop();
        }
        let now = Instant::now();
        Ok(Self {
            listener,
            config,
            screen,
            input,
            connections: Vec::new(),
            attempts: Attempts::default(),
            canvas: Canvas::default(),
            last_look: now,
            interval: MIN_LOOK,
            accept_from: now,
        })
    }

    /// Serves until `stop` can be read.
    ///
    /// # Errors
    /// The host cannot wait for descriptors.
    pub fn run(mut self, stop: &impl AsFd) -> io::Result<()> {
        while self.turn(stop)? {}
        Ok(())
    }

    /// How many clients there are, those that are still asked among them.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.connections.len()
    }

    /// Waits for something to do, and does it; false if `stop` can be read.
    ///
    /// # Errors
    /// The host cannot wait for descriptors.
    pub fn turn(&mut self, stop: &impl AsFd) -> io::Result<bool> {
        let ready = self.wait(stop)?;
        let now = Instant::now();
        let (Some(stop), Some(listener)) = (ready.first(), ready.get(1)) else {
            return Ok(true);
        };
        if !stop.is_empty() {
            return Ok(false);
        }
        let flags = ready.iter().skip(2).copied().collect::<Vec<_>>();
        for (number, flags) in flags.into_iter().enumerate() {
            self.serve(number, flags, now);
        }
        self.look(now);
        for connection in &mut self.connections {
            connection.client.fill(&self.canvas);
            connection.send(now);
        }
        self.bury(now);
        if !listener.is_empty() {
            self.accept(now);
        }
        Ok(true)
    }

    /// What can be done: for `stop`, the listener, and each connection.
    fn wait(&self, stop: &impl AsFd) -> io::Result<Vec<PollFlags>> {
        let now = Instant::now();
        let timeout = self
            .next_event(now)
            .map(|due| due.saturating_duration_since(now))
            .map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            });
        let accepting = match now >= self.accept_from {
            true => PollFlags::IN,
            false => PollFlags::empty(),
        };
        let mut waiting = vec![
            PollFd::new(stop, PollFlags::IN),
            PollFd::new(&self.listener, accepting),
        ];
        for connection in &self.connections {
            let mut flags = PollFlags::empty();
            if connection.client.room() > 0 {
                flags |= PollFlags::IN;
            }
            if connection.client.has_output() {
                flags |= PollFlags::OUT;
            }
            waiting.push(PollFd::new(&connection.socket, flags));
        }
        match poll(&mut waiting, timeout.as_ref()) {
            Ok(_) => Ok(waiting.iter().map(PollFd::revents).collect()),
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// When something is to be done that no descriptor tells of.
    fn next_event(&self, now: Instant) -> Option<Instant> {
        let wanted = self.connections.iter().any(|one| one.client.wants());
        let look = wanted.then_some(self.last_look + self.interval);
        let accept = (now < self.accept_from).then_some(self.accept_from);
        let deadlines = self.connections.iter().filter_map(Connection::deadline);
        deadlines.chain(look).chain(accept).min()
    }

    /// Reads and does what a client has sent, and sends it what there is.
    fn serve(&mut self, number: usize, flags: PollFlags, now: Instant) {
        let Some(connection) = self.connections.get_mut(number) else {
            return;
        };
        if flags.contains(PollFlags::OUT) {
            connection.send(now);
        }
        if flags.intersects(PollFlags::IN) && connection.client.room() > 0 {
            let mut bytes = [0; MAX_BYTES];
            let room = connection.client.room();
            let room = bytes.get_mut(..room).unwrap_or_default();
            match recv(&connection.socket, room, RecvFlags::empty()) {
                Ok((0, _)) => connection.over = true,
                Ok((len, _)) => connection.client.take(bytes.get(..len).unwrap_or_default()),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => connection.over = true,
            }
            self.obey(number, now);
        } else if flags.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
            connection.over = true;
        }
    }

    /// Does what a client has sent.
    fn obey(&mut self, number: usize, now: Instant) {
        loop {
            let Some(connection) = self.connections.get_mut(number).filter(|one| !one.over) else {
                return;
            };
            let mut service = Service {
                security: &self.config.security,
                attempts: &mut self.attempts,
                input: &*self.input,
                now,
            };
            match connection.client.next_event(&mut service) {
                Ok(None) => return,
                Ok(Some(Event::Entering { shared })) => self.admit(number, shared, now),
                Ok(Some(Event::Waiting { at_once: false })) => {}
                Ok(Some(Event::Waiting { at_once: true } | Event::Input)) => {
                    self.interval = MIN_LOOK;
                }
                Err(ending) => {
                    tracing::debug!(%ending, "a VNC client is closed");
                    connection.over = true;
                    return;
                }
            }
        }
    }

    /// Lets a client in, if it and the others can be there together.
    fn admit(&mut self, number: usize, shared: bool, now: Instant) {
        let shared = shared || self.config.sharing == SharePolicy::Ignore;
        let alone = |one: &Connection| one.shared == Some(false) && !one.over;
        let others_alone = self.connections.iter().any(alone);
        let refused = match shared {
            true => others_alone,
            false => self.config.sharing == SharePolicy::ForceShared,
        };
        if !refused && !shared {
            for other in &mut self.connections {
                other.over |= other.shared.is_some();
            }
        }
        if !self.canvas.is_filled() {
            self.canvas.refresh(&mut *self.screen);
        }
        let Some(connection) = self.connections.get_mut(number) else {
            return;
        };
        if refused {
            connection.over = true;
            return;
        }
        connection.shared = Some(shared);
        connection.progress = now;
        connection
            .client
            .admit(self.canvas.size(), &self.config.name);
        self.interval = MIN_LOOK;
    }

    /// Looks at the screen, if somebody waits for that and it is time.
    fn look(&mut self, now: Instant) {
        let wanted = self.connections.iter().any(|one| one.client.wants());
        if !wanted || now < self.last_look + self.interval {
            return;
        }
        self.last_look = now;
        self.interval = match self.canvas.refresh(&mut *self.screen) {
            true => MIN_LOOK,
            false => (self.interval * 3 / 2).min(MAX_LOOK),
        };
        for connection in self.connections.iter_mut() {
            if connection.client.wants() {
                connection.client.offer(&self.canvas);
                // What it has to take is new.
                connection.progress = now;
            }
        }
    }

    /// Closes what is over.
    fn bury(&mut self, now: Instant) {
        let input = &*self.input;
        self.connections.retain_mut(|connection| {
            let late = connection
                .deadline()
                .is_some_and(|deadline| now >= deadline);
            let over = connection.over || late || connection.client.is_over();
            if over {
                connection.client.leave(input);
            }
            !over
        });
        if self.connections.is_empty() {
            self.canvas = Canvas::default();
        }
    }

    fn accept(&mut self, now: Instant) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        match accept_with(&self.listener, flags) {
            Ok(socket) => self.enter(socket, now),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => {
                tracing::warn!(%error, "a VNC client could not be accepted");
                self.accept_from = now + ACCEPT_PAUSE;
            }
        }
    }

    fn enter(&mut self, socket: OwnedFd, now: Instant) {
        if self.connections.len() >= MAX_CLIENTS {
            // They are in the order in which they came.
            let asked = |one: &Connection| !one.client.is_running();
            let Some(oldest) = self.connections.iter().position(asked) else {
                tracing::debug!("a VNC client too many is closed");
                return;
            };
            self.connections.remove(oldest);
        }
        let mut connection = Connection {
            socket,
            client: Client::new(),
            progress: now,
            shared: None,
            over: false,
        };
        connection.send(now);
        self.connections.push(connection);
    }
}

/// Everybody's keys and buttons go up.
impl Drop for Server {
    fn drop(&mut self) {
        for connection in &mut self.connections {
            connection.client.leave(&*self.input);
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
