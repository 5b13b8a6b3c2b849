//! The console (virtio 1.3 §5.3): ports that carry bytes, some of them terminals.
//!
//! ```text
//!                    ┌ transmit queue ──► ring (a console: the oldest give way)
//!  guest ── port n ──┤                ──► descriptor (a channel: chains wait until it has room)
//!                    └ receive queue ◄──  either, only as there are buffers
//!  guest ── control queues ──► what each port is, and who has it open
//! ```
//!
//! A port is a *console* or a *channel*. The guest's kernel waits for a console with interrupts
//! off, so that its output always goes at once, into memory of fixed size. A channel (a guest
//! agent's) has flow control from end to end: what its client does not read stays in the guest's
//! own buffers, and what the guest does not read stays in the client's socket. Without a client a
//! channel's output is dropped, since it was meant for one that is gone; drivers do not send any
//! then.
//!
//! All ports are served by one worker, each at most a few dozen KiB at a time. Nothing spins on a
//! peer that is gone: it is closed once what it left was read, and a listener then takes the next.

use std::sync::Arc;

use self::ports::{End, Ports};
use self::state::ConsoleStateV1;
use self::worker::ConsoleWorker;
use super::{DeviceId, QueueWorker, Start, StartError, VirtioDevice, read_config_space};
use crate::event::Event;
use crate::shared::{Shared, Wake, lock, share};
use crate::state::{StateError, check};

pub use self::control::{ConsoleControl, PortEnd, PortError, PortSpec, PortStatus, PreparedPort};
pub use self::input::PortInput;
pub use self::message::MAX_NAME_BYTES;

mod control;
mod end;
mod input;
mod message;
mod ports;
mod state;
#[cfg(test)]
mod tests;
mod worker;

/// `VIRTIO_CONSOLE_F_SIZE`.
const F_SIZE: u64 = 1 << 0;
/// `VIRTIO_CONSOLE_F_MULTIPORT`.
const F_MULTIPORT: u64 = 1 << 1;

/// The most ports of a device.
pub const MAX_PORTS: u32 = 31;
/// Entries of each queue.
const QUEUE_SIZE: u16 = 64;
/// The queues of the largest device: two for each port, and two for control.
const QUEUE_SIZES: &[u16] = &[QUEUE_SIZE; 2 * (MAX_PORTS as usize + 1)];
/// Bytes of the configuration space: columns, rows, and the number of ports. `emerg_wr` is not
/// there.
const CONFIG_BYTES: usize = 8;

/// A port as it comes into the table.
#[derive(Debug)]
struct PortParams {
    id: u32,
    name: String,
    console: bool,
    end: End,
}

/// The front half.
#[derive(Debug)]
pub struct Console {
    max_ports: u32,
    control: ConsoleControl,
    ports: Shared<Ports>,
}

impl Console {
    /// A console of `columns` by `rows` characters with room for `max_ports` ports (1 to
    /// [`MAX_PORTS`]), of which there is none yet. Each takes two queues, used or not. `opened` is
    /// woken, on any thread, when somebody has opened or closed a port.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new(
        max_ports: u32,
        (columns, rows): (u16, u16),
        opened: Arc<dyn Wake>,
    ) -> rustix::io::Result<Self> {
        let max_ports = max_ports.clamp(1, MAX_PORTS);
        let ports = share(Ports::new(max_ports, (columns, rows)));
        let control = ConsoleControl {
            ports: ports.clone(),
            changed: Arc::new(Event::new()?),
            opened,
        };
        Ok(Self {
            max_ports,
            control,
            ports,
        })
    }

    /// What the control thread holds of it.
    #[must_use]
    pub fn control(&self) -> ConsoleControl {
        self.control.clone()
    }
}

/// The number of the first of the two queues of port `id` (§5.3.2).
fn first_queue(id: u32) -> u32 {
    if id == 0 { 0 } else { 2 * id + 2 }
}

impl VirtioDevice for Console {
    fn id(&self) -> DeviceId {
        DeviceId::Console
    }

    fn features(&self) -> u64 {
        F_SIZE | F_MULTIPORT
    }

    fn queue_sizes(&self) -> &[u16] {
        let count = 2 * (self.max_ports as usize + 1);
        QUEUE_SIZES.get(..count).unwrap_or(QUEUE_SIZES)
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let (columns, rows) = lock(&self.ports).size;
        let ([c0, c1], [r0, r1]) = (columns.to_le_bytes(), rows.to_le_bytes());
        let [p0, p1, p2, p3] = self.max_ports.to_le_bytes();
        let config: [u8; CONFIG_BYTES] = [c0, c1, r0, r1, p0, p1, p2, p3];
        read_config_space(&config, offset, data);
    }

    fn start(&mut self, start: Start) -> Result<Vec<Box<dyn QueueWorker>>, StartError> {
        let multiport = start.features & F_MULTIPORT != 0;
        let interrupts = start.interrupts.clone();
        let worker = ConsoleWorker::new(start, self.max_ports, multiport, self.control.clone())?;
        let mut ports = lock(&self.ports);
        ports.running = true;
        ports.multiport = multiport;
        ports.interrupts = Some(interrupts);
        Ok(vec![Box::new(worker)])
    }

    fn stopped(&mut self) {
        let mut ports = lock(&self.ports);
        ports.running = false;
        // Of a worker that no thread took.
        ports.retired.clear();
        ports.interrupts = None;
    }

    fn reset(&mut self) {
        if lock(&self.ports).reset() {
            self.control.opened.wake();
        }
    }

    fn save(&self) -> Vec<u8> {
        let ports = lock(&self.ports);
        let (columns, rows) = ports.size;
        let state = ConsoleStateV1 {
            columns,
            rows,
            driver_ready: ports.driver_ready(),
            ports: ports.save(),
        };
        state.encode()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        ConsoleStateV1::SCHEMA.expect_version(version)?;
        let state = ConsoleStateV1::decode(bytes)?;
        let mut ports = lock(&self.ports);
        check(ports.can_restore(&state.ports), "ports")?;
        ports.size = (state.columns, state.rows);
        ports.restore(state.driver_ready, &state.ports);
        Ok(())
    }
}
