//! The host's two ways in and out: clients that connect to the listener, and whoever is asked for the
//! connections of the guest.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::acceptor::{Acceptor, Answer};
use super::connection::{Connection, Ports, Stage};
use super::engine::{ANSWER_TIME, Engine, GREETINGS, MAX_CONNECTIONS, MAX_QUESTIONS};
use super::greeting::{Greeted, Greeting};
use crate::reactor::{Interest, Sources};

/// How long until a listener that has failed is looked at again.
const RETRY_TIME: Duration = Duration::from_secs(1);

/// The range in which the host's own ports are, when it connects.
pub(super) const FIRST_PORT: u32 = 1 << 30;
const LAST_PORT: u32 = (1 << 31) - 1;

/// Tokens of the two sockets.
pub(super) const LISTENER: u32 = 0;
pub(super) const ACCEPTOR: u32 = 1;

#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
    waiting: bool,
    pub(super) retry: Option<Instant>,
}

impl Engine {
    /// Takes a listening socket in place of the one there is.
    pub(super) fn set_listener(&mut self, socket: Option<OwnedFd>, sources: &Sources<'_>) {
        if let Some(listener) = &mut self.listener {
            listener.unlisten(sources);
        }
        self.listener = socket.map(|socket| Listener {
            socket,
            waiting: false,
            retry: None,
        });
        self.listen(sources);
    }

    /// Takes a socket on which connections are asked for, in place of the one there is.
    pub(super) fn set_acceptor(&mut self, socket: Option<OwnedFd>, sources: &Sources<'_>) {
        self.drop_acceptor(sources);
        self.acceptor = socket.map(Acceptor::new);
        self.listen(sources);
    }

    /// Nobody will answer what was asked.
    fn drop_acceptor(&mut self, sources: &Sources<'_>) {
        if let Some(mut acceptor) = self.acceptor.take() {
            acceptor.leave(sources);
        }
        let asked = std::mem::take(&mut self.questions);
        for token in asked.into_values() {
            if let Some(connection) = self.connections.get(token) {
                connection.stage = Stage::Reset;
            }
            self.queue(token);
        }
    }

    pub(super) fn listen(&mut self, sources: &Sources<'_>) {
        if let Some(listener) = &mut self.listener {
            let wanted = !self.greetings.is_full() && listener.retry.is_none();
            if !wanted {
                listener.unlisten(sources);
            } else if !listener.waiting {
                match sources.add(&listener.socket, LISTENER, Interest::Read) {
                    Ok(()) => listener.waiting = true,
                    Err(error) => {
                        tracing::error!(%error, "a vsock listener cannot be waited for");
                        self.listener = None;
                    }
                }
            }
        }
        if let Some(Err(error)) = self.acceptor.as_mut().map(|a| a.listen(sources, ACCEPTOR)) {
            tracing::error!(%error, "a vsock acceptor cannot be waited for");
            self.drop_acceptor(sources);
        }
    }

    pub(super) fn accept(&mut self, sources: &Sources<'_>) {
        let now = Instant::now();
        while let (Some(listener), false) = (&mut self.listener, self.greetings.is_full()) {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let stream = match accept_with(&listener.socket, flags) {
                Ok(stream) => stream,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    tracing::warn!(%error, "a vsock client could not be accepted");
                    listener.retry = Some(now + RETRY_TIME);
                    self.wake_at(now + RETRY_TIME);
                    break;
                }
            };
            let deadline = now + ANSWER_TIME;
            if let Some(token) = self.greetings.insert(Greeting::new(stream, deadline)) {
                self.wake_at(deadline);
                let greeting = self.greetings.get(token);
                let added = greeting.map(|greeting| {
                    sources.add(&greeting.stream, GREETINGS | token, Interest::Read)
                });
                if added != Some(Ok(())) {
                    self.greetings.remove(token);
                }
            }
        }
        self.listen(sources);
    }

    pub(super) fn greet(&mut self, token: u32, sources: &Sources<'_>) {
        let Some(greeting) = self.greetings.get(token) else {
            return;
        };
        let port = match greeting.read() {
            Greeted::Later => return,
            Greeted::Port(port) => Some(port),
            Greeted::Wrong => None,
        };
        if let Some(greeting) = self.greetings.remove(token) {
            // Nothing to be done about a failure: it is closed, or waited for anew.
            let _ = sources.remove(&greeting.stream);
            if let Some(port) = port {
                self.call(port, greeting.stream, sources);
            }
        }
        self.listen(sources);
    }

    /// The holder of `stream` wants `port` of the guest.
    fn call(&mut self, port: u32, stream: OwnedFd, sources: &Sources<'_>) {
        let host = (0..=MAX_CONNECTIONS).find_map(|_| {
            let host = self.next_port;
            self.next_port = if host == LAST_PORT {
                FIRST_PORT
            } else {
                host + 1
            };
            let ports = Ports { host, guest: port };
            (!self.by_ports.contains_key(&ports)).then_some(host)
        });
        let Some(host) = host else {
            return;
        };
        let ports = Ports { host, guest: port };
        let connection = Connection::wanted_by_host(ports, stream, self.window());
        if let Some(token) = self.insert(connection) {
            self.set_deadline(token, ANSWER_TIME);
            self.settle(token, sources);
        }
    }

    /// Answers have come from whom connections were asked of.
    pub(super) fn answers(&mut self, sources: &Sources<'_>) {
        // As many as can be outstanding; more are told of again.
        for _ in 0..MAX_QUESTIONS {
            let Some(acceptor) = &self.acceptor else {
                return;
            };
            let (id, stream) = match acceptor.receive() {
                Answer::Stream(id, stream) => (id, stream),
                Answer::Later => return,
                Answer::Ended => {
                    tracing::warn!("nobody is there any more to be asked for vsock connections");
                    self.drop_acceptor(sources);
                    return;
                }
            };
            // One that nobody waits for any more is closed.
            let Some(token) = self.questions.remove(&id) else {
                continue;
            };
            if let Some(connection) = self.connections.get(token) {
                match stream {
                    Some(stream) => connection.accept(stream),
                    None => connection.stage = Stage::Reset,
                }
            }
            self.settle(token, sources);
        }
    }
}

impl Listener {
    pub(super) fn unlisten(&mut self, sources: &Sources<'_>) {
        if std::mem::take(&mut self.waiting) {
            // Nothing to be done about a failure: the descriptor is not in the set.
            let _ = sources.remove(&self.socket);
        }
    }
}
