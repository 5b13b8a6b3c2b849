//! What a driver does with a device before and after it uses it (virtio 1.3 §2.1, §2.2, §3.1), whatever
//! the transport.
//!
//! ```text
//!             status written, queues set up                    DRIVER_OK
//!  idle ────────────────────────────────────► idle, negotiated ─────────► running
//!   ▲                                                                      │  │
//!   │        workers have ended             stopping ◄── status 0 ─────────┘  │
//!   └────────────────────────────────────────  │  ◄──── stop() of the host ───┘
//!                                              └──► idle, negotiated: start again by resume()
//! ```
//!
//! A reset of a running device takes as long as its storage does, so it does not wait: the status reads
//! as it was until the workers have ended, and then as 0, for which a driver is told to wait (§2.4.1).
//! What a driver writes to a queue once the device runs is ignored, and the device asks to be reset.
//!
//! Workers run only while the device may reach memory by itself ([`set_bus_master`]). Where that comes
//! after `DRIVER_OK`, or comes back while those that it stopped are still ending, a start is owed:
//! whoever accesses a register next makes it ([`catch_up`]), as nothing here may wait.
//!
//! [`set_bus_master`]: Negotiation::set_bus_master
//! [`catch_up`]: Negotiation::catch_up

use std::sync::Arc;

use super::super::queue::{MAX_SIZE, QueueLayout, QueueProgress};
use super::super::{Executor, F_VERSION_1, Interrupts, VirtioDevice};
use super::ending::Ending;
use super::line::Line;
use crate::event::Event;
use crate::memory::GuestRam;

pub use super::ending::Stopping;

mod running;
mod state;

/// `ACKNOWLEDGE`.
pub const ACKNOWLEDGE: u8 = 1;
/// `DRIVER`.
pub const DRIVER: u8 = 2;
/// `DRIVER_OK`.
pub const DRIVER_OK: u8 = 4;
/// `FEATURES_OK`.
pub const FEATURES_OK: u8 = 8;
/// `DEVICE_NEEDS_RESET`; the device's own.
pub const NEEDS_RESET: u8 = 64;
/// `FAILED`.
pub const FAILED: u8 = 128;

/// Everything a driver may set.
const SETTABLE: u8 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED;

/// One queue's registers.
#[derive(Debug)]
struct QueueRegisters {
    /// The most entries.
    max_size: u16,
    layout: QueueLayout,
    enabled: bool,
    /// Where it was when it last stopped.
    progress: QueueProgress,
    kick: Arc<Event>,
}

impl QueueRegisters {
    fn reset(&mut self) {
        self.layout = QueueLayout {
            size: self.max_size,
            ..QueueLayout::default()
        };
        self.enabled = false;
        self.progress = QueueProgress::default();
        self.kick.take();
    }
}

#[derive(Debug)]
enum Run {
    /// No worker runs.
    Idle,
    /// They run.
    Running,
    /// They were told to end. `reset` says that the device goes to its power-on state then.
    Stopping { ending: Arc<Ending>, reset: bool },
}

/// A device, and where its driver is with it.
pub struct Negotiation {
    device: Box<dyn VirtioDevice>,
    executor: Arc<dyn Executor>,
    ram: GuestRam,
    line: Arc<Line>,
    status: u8,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u16,
    queues: Vec<QueueRegisters>,
    run: Run,
    /// It serves no driver any more.
    retired: bool,
    /// The device may reach memory.
    bus_master: bool,
    /// Workers are to run as soon as it may, and those before have ended.
    owed: bool,
}

impl std::fmt::Debug for Negotiation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Negotiation")
            .field("device", &self.device.id())
            .field("status", &self.status)
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

impl Negotiation {
    /// A device in its power-on state, whose workers `executor` runs.
    ///
    /// # Errors
    /// The host has no descriptor left for the queues' events.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        executor: Arc<dyn Executor>,
        ram: GuestRam,
        line: Arc<Line>,
    ) -> rustix::io::Result<Self> {
        let queues = device
            .queue_sizes()
            .iter()
            .map(|size| {
                let max_size = (*size).min(MAX_SIZE);
                Ok(QueueRegisters {
                    max_size,
                    layout: QueueLayout {
                        size: max_size,
                        ..QueueLayout::default()
                    },
                    enabled: false,
                    progress: QueueProgress::default(),
                    kick: Arc::new(Event::new()?),
                })
            })
            .collect::<rustix::io::Result<_>>()?;
        Ok(Self {
            device,
            executor,
            ram,
            line,
            status: 0,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues,
            run: Run::Idle,
            retired: false,
            bus_master: true,
            owed: false,
        })
    }

    /// The device.
    pub fn device(&mut self) -> &mut dyn VirtioDevice {
        self.device.as_mut()
    }

    /// Its way to the driver.
    #[must_use]
    pub fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// The event that a driver's notification of queue `index` signals.
    #[must_use]
    pub fn kick(&self, index: u16) -> Option<&Arc<Event>> {
        self.queues.get(usize::from(index)).map(|queue| &queue.kick)
    }

    /// How many queues there are.
    #[must_use]
    pub fn queue_count(&self) -> u16 {
        u16::try_from(self.queues.len()).unwrap_or(u16::MAX)
    }

    /// Whether workers serve the queues.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.run, Run::Running)
    }

    /// Whether queue `index` is served.
    #[must_use]
    pub fn is_served(&self, index: u16) -> bool {
        let queue = self.queues.get(usize::from(index));
        self.is_running() && queue.is_some_and(|queue| queue.enabled)
    }

    /// The device's features, 32 bits of them as selected.
    #[must_use]
    pub fn device_features(&self) -> u32 {
        half(self.offered(), self.device_features_select)
    }

    /// Selects the 32 bits.
    pub fn select_device_features(&mut self, select: u32) {
        self.device_features_select = select;
    }

    /// Which 32 bits are selected.
    #[must_use]
    pub fn device_features_selected(&self) -> u32 {
        self.device_features_select
    }

    /// The driver's features, 32 bits of them as selected.
    #[must_use]
    pub fn driver_features(&self) -> u32 {
        half(self.driver_features, self.driver_features_select)
    }

    /// Selects the 32 bits.
    pub fn select_driver_features(&mut self, select: u32) {
        self.driver_features_select = select;
    }

    /// Which 32 bits are selected.
    #[must_use]
    pub fn driver_features_selected(&self) -> u32 {
        self.driver_features_select
    }

    /// Takes 32 bits of the driver's features; not any more once they were agreed on.
    pub fn set_driver_features(&mut self, bits: u32) {
        if self.status & FEATURES_OK != 0 {
            return;
        }
        let shift = match self.driver_features_select {
            0 => 0,
            1 => 32,
            _ => return,
        };
        let mask = u64::from(u32::MAX) << shift;
        self.driver_features = self.driver_features & !mask | u64::from(bits) << shift;
    }

    fn offered(&self) -> u64 {
        self.device.features() | self.device.ring_features() | F_VERSION_1
    }

    /// The status. A reset that has ended meanwhile is carried out first.
    pub fn status(&mut self) -> u8 {
        self.settle();
        let needs_reset = if self.line.wants_reset() {
            NEEDS_RESET
        } else {
            0
        };
        self.status | needs_reset
    }

    /// Takes a status that the driver wrote. True if the device was started by it.
    pub fn set_status(&mut self, status: u8) -> bool {
        self.settle();
        if status == 0 {
            self.begin_reset();
            return false;
        }
        if matches!(self.run, Run::Stopping { .. }) {
            return false;
        }
        let mut status = status & SETTABLE;
        // §2.1.1: a driver sets bits and clears none but all.
        status |= self.status;
        if status & FEATURES_OK != 0 && self.status & FEATURES_OK == 0 {
            let unknown = self.driver_features & !self.offered();
            let required = F_VERSION_1 | self.device.required_features();
            if unknown != 0 || self.driver_features & required != required {
                status &= !FEATURES_OK;
            }
        }
        if status & FEATURES_OK == 0 {
            status &= !DRIVER_OK;
        }
        let starts = status & DRIVER_OK != 0 && self.status & DRIVER_OK == 0;
        self.status = status;
        if starts {
            self.start();
        }
        starts && self.is_running()
    }

    /// Which queue the queue registers are of.
    #[must_use]
    pub fn queue_selected(&self) -> u16 {
        self.queue_select
    }

    /// Selects it. One there is not reads as zero and takes nothing.
    pub fn select_queue(&mut self, index: u16) {
        self.queue_select = index;
    }

    fn selected(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::from(self.queue_select))
    }

    /// The selected queue's registers, while they may be written.
    fn writable(&mut self) -> Option<&mut QueueRegisters> {
        if self.status & DRIVER_OK != 0 {
            self.line.needs_reset();
            return None;
        }
        let queue = self.queues.get_mut(usize::from(self.queue_select))?;
        (!queue.enabled).then_some(queue)
    }

    /// The selected queue's size; 0 if there is no such queue.
    #[must_use]
    pub fn queue_size(&self) -> u16 {
        self.selected().map_or(0, |queue| queue.layout.size)
    }

    /// Sets it. One that is no power of two or too large is kept for [`start`](Self::set_status) to
    /// refuse.
    pub fn set_queue_size(&mut self, size: u16) {
        if let Some(queue) = self.writable() {
            queue.layout.size = size;
        }
    }

    /// Whether the selected queue is enabled.
    #[must_use]
    pub fn queue_enabled(&self) -> bool {
        self.selected().is_some_and(|queue| queue.enabled)
    }

    /// Enables it. A queue is disabled by a reset only.
    pub fn enable_queue(&mut self) {
        if let Some(queue) = self.writable() {
            queue.enabled = true;
        }
    }

    /// The selected queue's rings.
    #[must_use]
    pub fn queue_layout(&self) -> QueueLayout {
        self.selected()
            .map_or_else(QueueLayout::default, |queue| queue.layout)
    }

    /// Changes where they are.
    pub fn set_queue_layout(&mut self, change: impl FnOnce(&mut QueueLayout)) {
        if let Some(queue) = self.writable() {
            change(&mut queue.layout);
        }
    }

    /// Changes whenever the configuration space has changed (§4.1.4.3.1): with the change where a field is
    /// read in parts, and when the driver is told.
    #[must_use]
    pub fn config_generation(&self) -> u8 {
        let told = self.line.generation();
        told.wrapping_add(self.device.config_changes())
    }

    /// Has the generation go on from `before`, that of a saved state: a driver that read a part of a field has
    /// seen that one, and what has changed since the device counts.
    /// What the device has counted before it took its own state (`counted`) was of nobody's.
    pub(super) fn follow_generation(&self, before: u8, counted: u8) {
        self.line.restore_generation(before.wrapping_sub(counted));
    }

    /// What the device has counted of changes of its configuration.
    pub(super) fn config_changes(&self) -> u8 {
        self.device.config_changes()
    }

    /// The selected queue's vector.
    #[must_use]
    pub fn queue_vector(&self) -> u16 {
        self.line.queue_vector(self.queue_select)
    }

    /// Chooses it.
    pub fn set_queue_vector(&mut self, vector: u16) {
        self.line.set_queue_vector(self.queue_select, vector);
    }

    /// The driver notifies of queue `index`, in a way that no event was bound to.
    pub fn notify(&self, index: u16) {
        if self.is_served(index) {
            if let Some(kick) = self.kick(index) {
                kick.signal();
            }
        }
    }
}

/// Workers that still run are not left to themselves: their threads may serve other devices.
impl Drop for Negotiation {
    fn drop(&mut self) {
        if self.is_running() {
            self.executor.stop(Box::new(|_| ()));
        }
    }
}

/// One half of 64 features; what is beyond them is zero.
fn half(features: u64, select: u32) -> u32 {
    let shifted = match select {
        0 => features,
        1 => features >> 32,
        _ => 0,
    };
    u32::try_from(shifted & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
#[path = "negotiation/tests.rs"]
mod tests;
