//! The socket device (virtio 1.3 §5.10): streams between the guest and the host, by port numbers.
//!
//! ```text
//!  host: UNIX stream ──CONNECT p──► listener ─► Greeting ─┐
//!                                                         ├─► Connection ──► receive queue ──► guest
//!  guest: REQUEST p ──► transmit queue ──► acceptor asked ─┘      │  ▲
//!                                                                 │  └─ credit: what the guest has room for
//!                               held, up to the window ◄──────────┘
//! ```
//!
//! On the host a connection is a UNIX stream. The process that runs this can neither bind nor
//! connect, so it is given a listening socket for the one direction and, for the other, a socket on
//! which it asks for each connection and gets a stream in return: whoever holds the other end
//! decides which ports there are.
//!
//! The driver's headers are copied once and checked; its data goes from guest memory into a buffer
//! of ours, and from there on. What one connection does not take is held for it, as much as it was
//! promised, so that the others go on.
//!
//! Connections outlive a pause of the machine. They are no part of its saved state: a restored
//! driver is told that they are gone (`VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`), and its listening
//! sockets stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;

use self::control::Given;
use self::engine::Engine;
use self::worker::VsockWorker;
use super::{
    DeviceId, QueueWorker, Remains, Start, StartError, VirtioDevice, read_config_space, take_queue,
};
use crate::event::Event;
use crate::shared::{Shared, lock, share};
use crate::state::{Schema, StateError, StateReader};

pub use self::control::VsockControl;

mod acceptor;
mod connection;
mod control;
mod credit;
mod engine;
mod greeting;
mod host;
mod packet;
mod slab;
#[cfg(test)]
mod tests;
mod worker;

/// `VIRTIO_VSOCK_F_STREAM`.
const F_STREAM: u64 = 1 << 0;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const EVENT: u16 = 2;
/// Entries of each queue.
const QUEUE_SIZES: &[u16] = &[256, 256, 16];

/// The layout of the saved state, which is empty.
const SCHEMA: Schema = Schema {
    name: "virtio-vsock",
    version: 1,
};

/// Why there is no socket device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VsockError {
    /// An address that no guest can have (§5.10.4): 0, 1, 2 and the highest are taken.
    #[error("no guest can have the context id {0}")]
    Cid(u32),
    /// The host has no descriptor left.
    #[error("a socket device cannot be made: {0}")]
    Host(#[from] Errno),
}

/// What a worker leaves behind, until the next takes it.
#[derive(Debug)]
struct Home {
    /// There while no worker runs.
    engine: Option<Engine>,
    reset_untold: bool,
}

/// The front half.
#[derive(Debug)]
pub struct Vsock {
    cid: u32,
    home: Shared<Home>,
    control: VsockControl,
    /// Connections of a driver that is gone.
    remains: Option<Engine>,
}

impl Vsock {
    /// A device by which the guest has the address `cid`, and to which nobody listens yet.
    ///
    /// # Errors
    /// [`VsockError`].
    pub fn new(cid: u32) -> Result<Self, VsockError> {
        if cid < 3 || cid == u32::MAX {
            return Err(VsockError::Cid(cid));
        }
        let home = Home {
            engine: Some(Engine::new(cid)),
            reset_untold: false,
        };
        Ok(Self {
            cid,
            home: share(home),
            control: VsockControl {
                given: share(Given::default()),
                changed: Arc::new(Event::new()?),
                connections: Arc::new(AtomicUsize::new(0)),
            },
            remains: None,
        })
    }

    /// What the control thread holds of it.
    #[must_use]
    pub fn control(&self) -> VsockControl {
        self.control.clone()
    }

    fn forget_connections(&mut self) {
        if let Some(engine) = &mut lock(&self.home).engine {
            self.remains = engine.reset();
        }
        self.control.connections.store(0, Ordering::Relaxed);
    }
}

impl VirtioDevice for Vsock {
    fn id(&self) -> DeviceId {
        DeviceId::Vsock
    }

    fn features(&self) -> u64 {
        F_STREAM
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = u64::from(self.cid).to_le_bytes();
        read_config_space(&config, offset, data);
    }

    fn start(&mut self, mut start: Start) -> Result<Vec<Box<dyn QueueWorker>>, StartError> {
        let receive = take_queue(&mut start.queues, RECEIVE)?;
        let transmit = take_queue(&mut start.queues, TRANSMIT)?;
        let event = take_queue(&mut start.queues, EVENT)?;
        let mut home = lock(&self.home);
        let engine = home.engine.take().unwrap_or_else(|| Engine::new(self.cid));
        let state = (engine, home.reset_untold);
        Ok(vec![Box::new(VsockWorker::new(
            receive,
            transmit,
            event,
            state,
            self.home.clone(),
            self.control.clone(),
        ))])
    }

    fn reset(&mut self) {
        self.forget_connections();
        lock(&self.home).reset_untold = false;
    }

    fn take_remains(&mut self) -> Option<Remains> {
        let engine = self.remains.take()?;
        Some(Box::new(engine))
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        SCHEMA.expect_version(version)?;
        StateReader::new(bytes).finish()?;
        self.forget_connections();
        lock(&self.home).reset_untold = true;
        Ok(())
    }
}
