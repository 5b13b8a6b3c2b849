//! The registers of a virtio device on PCI, as they lie in its one BAR (virtio 1.3 §4.1.4).
//!
//! ```text
//!  0x0000  common configuration     0x2000  notifications, 4 bytes a queue
//!  0x0800  interrupt status         0x3000  MSI-X table
//!  0x1000  device configuration     0x4000  MSI-X pending bits          end at 0x8000
//! ```
//! Shared by the vCPU threads and the control thread, behind the mutex of the bus.

use std::fmt::Debug;
use std::sync::Arc;

use super::line::Line;
use super::negotiation::Negotiation;
use crate::bus::{AccessError, BusDevice};
use crate::event::Event;
use crate::pci::msix::Msix;

/// Size of the BAR in bytes.
pub const BAR_BYTES: u64 = 0x8000;
/// Common configuration.
pub const COMMON: u64 = 0;
/// Its bytes.
pub const COMMON_BYTES: u64 = 0x40;
/// Interrupt status.
pub const ISR: u64 = 0x800;
/// Device configuration.
pub const CONFIG: u64 = 0x1000;
/// Its bytes.
pub const CONFIG_BYTES: u64 = 0x1000;
/// Notifications.
pub const NOTIFY: u64 = 0x2000;
/// Bytes from one queue's notification to the next one's.
pub const NOTIFY_STRIDE: u64 = 4;
/// Their bytes.
pub const NOTIFY_BYTES: u64 = 0x1000;
/// MSI-X table.
pub const MSIX_TABLE: u64 = 0x3000;
/// MSI-X pending bits.
pub const MSIX_PENDING: u64 = 0x4000;
/// Most vectors for which the table has room.
pub const MAX_VECTORS: u16 = 256;

/// What makes a notification signal an event without leaving the kernel, where that is to be had.
pub trait Doorbells: Debug + Send + Sync {
    /// A write of any width at guest-physical `address` signals `event` from now on. False if it does
    /// not: the write then comes to the device's registers as any other.
    fn bind(&self, address: u64, event: &Event) -> bool;

    /// Undoes a `bind` that was true.
    fn unbind(&self, address: u64, event: &Event);
}

/// No doorbells: every notification comes as a register write.
#[derive(Debug, Clone, Copy)]
pub struct NoDoorbells;

impl Doorbells for NoDoorbells {
    fn bind(&self, _address: u64, _event: &Event) -> bool {
        false
    }

    fn unbind(&self, _address: u64, _event: &Event) {}
}

/// The registers.
#[derive(Debug)]
pub struct Registers {
    negotiation: Negotiation,
    msix: Arc<Msix>,
    doorbells: Arc<dyn Doorbells>,
    /// Where the BAR is now.
    address: Option<u64>,
    bound: Vec<(u64, Arc<Event>)>,
}

impl Registers {
    /// Those of a device in its power-on state.
    #[must_use]
    pub fn new(negotiation: Negotiation, msix: Arc<Msix>, doorbells: Arc<dyn Doorbells>) -> Self {
        Self {
            negotiation,
            msix,
            doorbells,
            address: None,
            bound: Vec::new(),
        }
    }

    /// The negotiation with the driver, and the device. Call [`rebind`](Self::rebind) after it was
    /// stopped, resumed or reset.
    pub fn negotiation(&mut self) -> &mut Negotiation {
        &mut self.negotiation
    }

    /// The device may reach memory by itself, or may not any more.
    pub fn set_bus_master(&mut self, may: bool) {
        self.negotiation.set_bus_master(may);
        self.rebind();
    }

    /// Before each access: what could not be started before.
    fn catch_up(&mut self) {
        if self.negotiation.catch_up() {
            self.rebind();
        }
    }

    /// The BAR is somewhere else now, or nowhere.
    pub fn moved(&mut self, address: Option<u64>) {
        self.address = address;
        self.rebind();
    }

    /// Binds the notifications of the queues that are served, and no others.
    pub fn rebind(&mut self) {
        let wanted: Vec<_> = match self.address {
            Some(base) if self.negotiation.is_running() => (0..self.negotiation.queue_count())
                .filter(|index| self.negotiation.is_served(*index))
                .filter_map(|index| {
                    let address = base + NOTIFY + u64::from(index) * NOTIFY_STRIDE;
                    Some((address, Arc::clone(self.negotiation.kick(index)?)))
                })
                .collect(),
            _ => Vec::new(),
        };
        let stays =
            |entry: &(u64, Arc<Event>)| wanted.iter().any(|(address, _)| *address == entry.0);
        for (address, event) in self.bound.iter().filter(|entry| !stays(entry)) {
            self.doorbells.unbind(*address, event);
        }
        self.bound.retain(stays);
        for (address, event) in wanted {
            let is_bound = self.bound.iter().any(|(bound, _)| *bound == address);
            if !is_bound && self.doorbells.bind(address, &event) {
                self.bound.push((address, event));
            }
        }
    }

    fn line(&self) -> &Line {
        self.negotiation.line()
    }

    fn read_common(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let negotiation = &mut self.negotiation;
        let layout = negotiation.queue_layout();
        let value = match (offset, data.len()) {
            (0x00, 4) => negotiation.device_features_selected().into(),
            (0x04, 4) => negotiation.device_features().into(),
            (0x08, 4) => negotiation.driver_features_selected().into(),
            (0x0c, 4) => negotiation.driver_features().into(),
            (0x10, 2) => negotiation.line().config_vector().into(),
            (0x12, 2) => negotiation.queue_count().into(),
            (0x14, 1) => negotiation.status().into(),
            (0x15, 1) => negotiation.config_generation().into(),
            (0x16, 2) => negotiation.queue_selected().into(),
            (0x18, 2) => negotiation.queue_size().into(),
            (0x1a, 2) => negotiation.queue_vector().into(),
            (0x1c, 2) => negotiation.queue_enabled().into(),
            (0x1e, 2) => negotiation.queue_selected().into(),
            (0x20 | 0x24, 4) | (0x20, 8) => part(layout.descriptors, offset),
            (0x28 | 0x2c, 4) | (0x28, 8) => part(layout.available, offset),
            (0x30 | 0x34, 4) | (0x30, 8) => part(layout.used, offset),
            _ => return Err(AccessError),
        };
        let bytes = value.to_le_bytes();
        for (to, from) in data.iter_mut().zip(bytes) {
            *to = from;
        }
        Ok(())
    }

    fn write_common(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(data) {
            *to = *from;
        }
        let value = u64::from_le_bytes(bytes);
        let [b0, b1, b2, b3, ..] = bytes;
        let (short, long) = (
            u16::from_le_bytes([b0, b1]),
            u32::from_le_bytes([b0, b1, b2, b3]),
        );
        let width = data.len();
        let negotiation = &mut self.negotiation;
        match (offset, width) {
            (0x00, 4) => negotiation.select_device_features(long),
            (0x08, 4) => negotiation.select_driver_features(long),
            (0x0c, 4) => negotiation.set_driver_features(long),
            (0x10, 2) => negotiation.line().set_config_vector(short),
            (0x14, 1) => {
                negotiation.set_status(b0);
                self.rebind();
            }
            (0x16, 2) => negotiation.select_queue(short),
            (0x18, 2) => negotiation.set_queue_size(short),
            (0x1a, 2) => negotiation.set_queue_vector(short),
            (0x1c, 2) if short == 1 => negotiation.enable_queue(),
            (0x20 | 0x24, 4) | (0x20, 8) => negotiation
                .set_queue_layout(|layout| replace(&mut layout.descriptors, offset, width, value)),
            (0x28 | 0x2c, 4) | (0x28, 8) => negotiation
                .set_queue_layout(|layout| replace(&mut layout.available, offset, width, value)),
            (0x30 | 0x34, 4) | (0x30, 8) => negotiation
                .set_queue_layout(|layout| replace(&mut layout.used, offset, width, value)),
            _ => return Err(AccessError),
        }
        Ok(())
    }
}

/// The half of a 64-bit register that begins at `offset`, or all of it.
fn part(register: u64, offset: u64) -> u64 {
    if offset & 4 == 0 {
        register
    } else {
        register >> 32
    }
}

/// Writes that half, or all of it.
fn replace(register: &mut u64, offset: u64, width: usize, value: u64) {
    const LOW: u64 = 0xffff_ffff;
    *register = match (width, offset & 4) {
        (8, _) => value,
        (_, 0) => *register & !LOW | value & LOW,
        _ => *register & LOW | (value & LOW) << 32,
    };
}

/// The offset in `start..start + len`, if an access of `width` bytes there is wholly inside.
fn within(offset: u64, width: usize, start: u64, len: u64) -> Option<u64> {
    let inner = offset.checked_sub(start)?;
    (inner.checked_add(width as u64)? <= len).then_some(inner)
}

impl BusDevice for Registers {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        self.catch_up();
        let width = data.len();
        let at = |start, len| within(offset, width, start, len);
        if let Some(offset) = at(COMMON, COMMON_BYTES) {
            self.read_common(offset, data)
        } else if at(ISR, 1).is_some() {
            data.fill(self.line().take_isr());
            Ok(())
        } else if let Some(offset) = at(CONFIG, CONFIG_BYTES) {
            data.fill(0);
            self.negotiation.device().read_config(offset, data);
            Ok(())
        } else if at(NOTIFY, NOTIFY_BYTES).is_some() {
            data.fill(0);
            Ok(())
        } else if let Some(offset) = at(MSIX_TABLE, MSIX_PENDING - MSIX_TABLE) {
            self.msix.read_table(offset, data)
        } else if let Some(offset) = at(MSIX_PENDING, BAR_BYTES - MSIX_PENDING) {
            self.msix.read_pba(offset, data)
        } else {
            Err(AccessError)
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        self.catch_up();
        let at = |start, len| within(offset, data.len(), start, len);
        if let Some(offset) = at(COMMON, COMMON_BYTES) {
            self.write_common(offset, data)
        } else if let Some(offset) = at(CONFIG, CONFIG_BYTES) {
            self.negotiation.device().write_config(offset, data);
            Ok(())
        } else if let Some(offset) = at(NOTIFY, NOTIFY_BYTES) {
            if offset % NOTIFY_STRIDE != 0 {
                return Err(AccessError);
            }
            let index = u16::try_from(offset / NOTIFY_STRIDE).map_err(|_| AccessError)?;
            self.negotiation.notify(index);
            Ok(())
        } else if let Some(offset) = at(MSIX_TABLE, MSIX_PENDING - MSIX_TABLE) {
            self.msix.write_table(offset, data)
        } else {
            Err(AccessError)
        }
    }
}
