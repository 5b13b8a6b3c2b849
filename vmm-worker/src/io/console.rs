//! The console's clients: each reads the ring at its own pace, and may send input.
//!
//! A client that does not read loses the oldest output and nobody else waits for it. Input is taken
//! from a client only once the serial port has had all that was taken before, so a flood stays in
//! the client's own socket.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reeve_devices::console::ConsoleReader;
use reeve_devices::legacy::serial::Serial;
use reeve_devices::shared::{Shared, lock};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

/// More clients than anyone has terminals for; the oldest gives way.
const MAX_CLIENTS: usize = 16;
/// Bytes moved at a time.
const CHUNK: usize = 4096;
/// Chunks moved to one client before the others have their turn.
const CHUNKS_AT_ONCE: usize = 32;
/// How long a client may take over the last output when the domain ends.
const FAREWELL: Duration = Duration::from_millis(500);

struct Client {
    stream: Arc<OwnedFd>,
    reader: ConsoleReader,
    /// Whether its bytes reach the guest, and it still sends.
    input: bool,
    /// Input that the serial port had no room for yet; at most a chunk.
    pending: Vec<u8>,
    /// It has taken all there is.
    caught_up: bool,
    /// Nobody holds the other end: it goes when the input it left has been read.
    hung_up: bool,
    gone: bool,
}

/// A client as another I/O thread could go on with it.
#[derive(Debug)]
pub struct ClientCopy {
    /// Its stream.
    pub stream: Arc<OwnedFd>,
    /// Whether its bytes reach the guest, and it still sends.
    pub input: bool,
    /// The next byte of the output that it gets.
    pub position: u64,
}

/// Every client of the console.
pub(super) struct Clients {
    serial: Shared<Serial>,
    clients: Vec<Client>,
    /// Input that was on its way to the guest when it was saved elsewhere.
    carried: Vec<u8>,
}

/// The most input that can be on its way: a chunk of each client, and what was carried before.
pub const MAX_PENDING_INPUT: usize = 2 * MAX_CLIENTS * CHUNK;

impl Clients {
    pub(super) fn new(serial: Shared<Serial>) -> Self {
        Self {
            serial,
            clients: Vec::new(),
            carried: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn attach(&mut self, stream: OwnedFd, input: bool, reader: ConsoleReader) {
        if self.clients.len() >= MAX_CLIENTS {
            tracing::warn!("more than {MAX_CLIENTS} console clients: the oldest is detached");
            self.clients.remove(0);
        }
        let pending = Vec::new();
        self.clients.push(Client {
            stream: Arc::new(stream),
            reader,
            input,
            pending,
            caught_up: false,
            hung_up: false,
            gone: false,
        });
    }

    /// Input that no client has any more and the guest has not yet.
    pub(super) fn pending_input(&self) -> Vec<u8> {
        let mut input = self.carried.clone();
        for client in &self.clients {
            input.extend_from_slice(&client.pending);
        }
        input.truncate(MAX_PENDING_INPUT);
        input
    }

    /// Every client as another I/O thread could go on with it.
    pub(super) fn copies(&self) -> Vec<ClientCopy> {
        let clients = self.clients.iter().filter(|client| !client.gone);
        let copies = clients.map(|client| ClientCopy {
            stream: Arc::clone(&client.stream),
            input: client.input,
            position: client.reader.position(),
        });
        copies.collect()
    }

    /// Such input of a machine that was saved, for the guest before any other.
    pub(super) fn give_input(&mut self, input: Vec<u8>) {
        self.carried = input;
    }

    /// Moves what can be moved without waiting; input only if it is wanted.
    pub(super) fn serve(&mut self, input: bool) {
        if input && !self.carried.is_empty() {
            let taken = lock(&self.serial).enqueue(&self.carried);
            self.carried.drain(..taken.min(self.carried.len()));
        }
        let input = input && self.carried.is_empty();
        for client in &mut self.clients {
            client.write_output();
            if input {
                client.read_input(&self.serial);
            }
        }
        self.clients.retain(|client| !client.is_done());
    }

    /// What the last wait said of each client, in the order of [`Self::poll_fds`].
    pub(super) fn mark_hung_up(&mut self, hung_up: &[bool]) {
        let waited_for = self.clients.iter_mut().filter(|client| !client.hung_up);
        for (client, hung_up) in waited_for.zip(hung_up) {
            client.hung_up = *hung_up;
        }
    }

    /// What to wait for: room at those that are behind, input from those that may send it. Not those
    /// that hung up, which would end every wait at once: what they left waits for the serial port.
    pub(super) fn poll_fds(&self, input: bool) -> impl Iterator<Item = PollFd<'_>> {
        let input = input && self.carried.is_empty();
        let waited_for = self.clients.iter().filter(|client| !client.hung_up);
        waited_for.map(move |client| {
            let mut flags = PollFlags::empty();
            let wanted = input && client.input && client.pending.is_empty();
            flags.set(PollFlags::IN, wanted);
            flags.set(PollFlags::OUT, !client.caught_up);
            PollFd::new(client.stream.as_ref(), flags)
        })
    }

    /// Gives every client the rest of the output, as long as it takes it.
    pub(super) fn finish(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        loop {
            for client in &mut self.clients {
                client.write_output();
            }
            self.clients
                .retain(|client| !client.gone && !client.caught_up);
            let left = deadline.saturating_duration_since(Instant::now());
            if self.clients.is_empty() || left.is_zero() {
                return;
            }
            let mut fds: Vec<_> = self
                .clients
                .iter()
                .map(|c| PollFd::new(c.stream.as_ref(), PollFlags::OUT))
                .collect();
            if super::wait(&mut fds, Some(left)).is_err() {
                return;
            }
        }
    }
}

impl Client {
    /// Whether nothing can come of it any more.
    fn is_done(&self) -> bool {
        self.gone || self.hung_up && !self.input && self.pending.is_empty()
    }

    /// A guest that prints as fast as this reads must not keep the thread from its other work.
    fn write_output(&mut self) {
        let mut buffer = [0; CHUNK];
        for _ in 0..CHUNKS_AT_ONCE {
            if self.gone {
                return;
            }
            let chunk = self.reader.peek(&mut buffer);
            if chunk.skipped > 0 {
                tracing::debug!(bytes = chunk.skipped, "a console client missed output");
            }
            self.caught_up = chunk.len == 0;
            let bytes = buffer.get(..chunk.len).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            match rustix::io::write(self.stream.as_ref(), bytes) {
                Ok(written) => self.reader.consume(written),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => self.gone = true,
            }
        }
    }

    fn read_input(&mut self, serial: &Shared<Serial>) {
        while !self.gone {
            if !self.pending.is_empty() {
                let taken = lock(serial).enqueue(&self.pending);
                self.pending.drain(..taken.min(self.pending.len()));
            }
            // The port wakes this thread when it has room again.
            if !self.pending.is_empty() || !self.input {
                return;
            }
            let mut buffer = [0; CHUNK];
            match rustix::io::read(self.stream.as_ref(), &mut buffer) {
                // It sends no more, but may still read.
                Ok(0) => self.input = false,
                Ok(length) => self
                    .pending
                    .extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(Errno::AGAIN) => {
                    self.gone |= self.hung_up;
                    return;
                }
                Err(Errno::INTR) => {}
                Err(_) => self.gone = true,
            }
        }
    }
}

#[cfg(test)]
mod tests;
