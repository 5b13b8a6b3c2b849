//! The console's clients: each reads the ring at its own pace, and may send input.
//!
//! A client that does not read loses the oldest output and nobody else waits for it. Input is taken
//! from a client only once the serial port has had all that was taken before, so a flood stays in
//! the client's own socket.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reeve_devices::console::{ConsoleReader, ConsoleRing};
use reeve_devices::legacy::serial::Serial;
use reeve_devices::shared::{Shared, lock};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

/// More clients than anyone has terminals for; the oldest gives way.
const MAX_CLIENTS: usize = 16;
/// Bytes moved at a time.
const CHUNK: usize = 4096;
/// How long a client may take over the last output when the domain ends.
const FAREWELL: Duration = Duration::from_millis(500);

struct Client {
    stream: OwnedFd,
    reader: ConsoleReader,
    /// Whether its bytes reach the guest, and it still sends.
    input: bool,
    /// Input that the serial port had no room for yet; at most a chunk.
    pending: Vec<u8>,
    /// It has taken all there is.
    caught_up: bool,
    gone: bool,
}

/// Every client of the console.
pub(super) struct Clients {
    ring: Arc<ConsoleRing>,
    serial: Shared<Serial>,
    clients: Vec<Client>,
}

impl Clients {
    pub(super) fn new(ring: Arc<ConsoleRing>, serial: Shared<Serial>) -> Self {
        Self {
            ring,
            serial,
            clients: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn attach(&mut self, stream: OwnedFd, input: bool) {
        if self.clients.len() >= MAX_CLIENTS {
            tracing::warn!("more than {MAX_CLIENTS} console clients: the oldest is detached");
            self.clients.remove(0);
        }
        let reader = self.ring.reader();
        let pending = Vec::new();
        self.clients.push(Client {
            stream,
            reader,
            input,
            pending,
            caught_up: false,
            gone: false,
        });
    }

    /// Moves what can be moved without waiting.
    pub(super) fn serve(&mut self) {
        for client in &mut self.clients {
            client.write_output();
            client.read_input(&self.serial);
        }
        self.clients.retain(|client| !client.gone);
    }

    /// What to wait for: room at those that are behind, input from those that may send it.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.clients.iter().map(|client| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, client.input && client.pending.is_empty());
            flags.set(PollFlags::OUT, !client.caught_up);
            PollFd::new(&client.stream, flags)
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
                .map(|c| PollFd::new(&c.stream, PollFlags::OUT))
                .collect();
            if super::wait(&mut fds, Some(left)).is_err() {
                return;
            }
        }
    }
}

impl Client {
    fn write_output(&mut self) {
        let mut buffer = [0; CHUNK];
        while !self.gone {
            let chunk = self.reader.peek(&mut buffer);
            if chunk.skipped > 0 {
                tracing::debug!(bytes = chunk.skipped, "a console client missed output");
            }
            self.caught_up = chunk.len == 0;
            let bytes = buffer.get(..chunk.len).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            match rustix::io::write(&self.stream, bytes) {
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
            match rustix::io::read(&self.stream, &mut buffer) {
                // It sends no more, but may still read.
                Ok(0) => self.input = false,
                Ok(length) => self
                    .pending
                    .extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => self.gone = true,
            }
        }
    }
}
