//! The console of a test machine: a bounded ring, some clients, and an echo.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Pair;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::domain::driver::CallFailure;

/// Bytes that the ring holds.
const RING_BYTES: usize = 64 << 10;
/// The most bytes that are moved at once.
const CHUNK_BYTES: usize = 4096;
/// The most clients of one.
const MAX_CLIENTS: u32 = 16;
/// The most clients of all machines of a driver: for each a descriptor is open here, where a real machine has
/// its own process for them.
const MAX_SEATS: u32 = 64;

/// How many clients the consoles of a driver have.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<AtomicU32>);

impl Seats {
    /// Takes one, if there is any.
    fn take(&self) -> Option<Seat> {
        let one_more = |taken: u32| (taken < MAX_SEATS).then_some(taken + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let taken = self.0.fetch_update(set, fetch, one_more);
        taken.ok().map(|_| Seat(self.clone()))
    }
}

/// A client's, given back when it is dropped.
struct Seat(Seats);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One console, shared by the machine, its instance and its clients' tasks.
#[derive(Clone)]
pub(super) struct Console {
    ring: Arc<Mutex<Ring>>,
    /// The position behind the last byte; `None` once the machine is gone.
    end: Arc<watch::Sender<Option<u64>>>,
    seats: Seats,
}

struct Ring {
    bytes: VecDeque<u8>,
    /// Position of the first byte that is held.
    start: u64,
    clients: u32,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}

impl Console {
    pub(super) fn new(greeting: &[u8], seats: Seats) -> Self {
        let console = Self {
            ring: Arc::new(Mutex::new(Ring {
                bytes: VecDeque::new(),
                start: 0,
                clients: 0,
            })),
            end: Arc::new(watch::Sender::new(Some(0))),
            seats,
        };
        console.write(greeting);
        console
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics while it is held.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest writes.
    fn write(&self, bytes: &[u8]) {
        let mut ring = self.ring();
        ring.bytes.extend(bytes);
        let excess = ring.bytes.len().saturating_sub(RING_BYTES);
        ring.bytes.drain(..excess);
        ring.start += excess as u64;
        let end = ring.start + ring.bytes.len() as u64;
        drop(ring);
        self.end.send_modify(|position| {
            if let Some(position) = position {
                *position = end;
            }
        });
    }

    /// What follows `position`, and where that begins: later, if the ring has lost it.
    fn read(&self, position: u64) -> (u64, Vec<u8>) {
        let ring = self.ring();
        let end = ring.start + ring.bytes.len() as u64;
        let from = position.clamp(ring.start, end);
        let skip = usize::try_from(from - ring.start).unwrap_or(usize::MAX);
        let chunk = ring.bytes.iter().skip(skip).take(CHUNK_BYTES);
        (from, chunk.copied().collect())
    }

    pub(super) fn close(&self) {
        self.end.send_replace(None);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.end.borrow().is_none()
    }

    pub(super) fn clients(&self) -> u32 {
        self.ring().clients
    }

    /// Attaches a client.
    pub(super) fn attach(
        &self,
        from: Option<u64>,
        input: bool,
    ) -> Result<(OwnedFd, u64), CallFailure> {
        if self.is_closed() {
            return Err(CallFailure::Gone);
        }
        let refuse = |error: std::io::Error| CallFailure::Refused(error.to_string());
        let Some(seat) = self.seats.take() else {
            return Err(CallFailure::Refused(format!(
                "the consoles of all domains have {MAX_SEATS} clients already"
            )));
        };
        let (theirs, ours) = Pair::pair().map_err(refuse)?;
        ours.set_nonblocking(true).map_err(refuse)?;
        let stream = UnixStream::from_std(ours).map_err(refuse)?;
        {
            let mut ring = self.ring();
            if ring.clients >= MAX_CLIENTS {
                return Err(CallFailure::Refused(format!(
                    "the console has {MAX_CLIENTS} clients already"
                )));
            }
            ring.clients += 1;
        }
        let (position, _) = self.read(from.unwrap_or(0));
        tokio::spawn(self.clone().serve(stream, position, input, seat));
        Ok((theirs.into(), position))
    }

    /// One client's task.
    async fn serve(self, mut stream: UnixStream, mut position: u64, input: bool, seat: Seat) {
        let mut end = self.end.subscribe();
        let (mut reader, mut writer) = stream.split();
        let mut typed = [0; CHUNK_BYTES];
        loop {
            let (from, bytes) = self.read(position);
            if !bytes.is_empty() {
                let length = bytes.len() as u64;
                if writer.write_all(&bytes).await.is_err() {
                    break;
                }
                position = from + length;
                continue;
            }
            if self.is_closed() {
                break;
            }
            tokio::select! {
                _ = end.changed() => {}
                read = reader.read(&mut typed) => match read {
                    Ok(0) | Err(_) => break,
                    Ok(length) if input => self.write(typed.get(..length).unwrap_or_default()),
                    Ok(_) => {}
                },
            }
        }
        self.ring().clients -= 1;
        drop(seat);
    }
}
