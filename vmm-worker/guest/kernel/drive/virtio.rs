//! Virtio devices on PCI (virtio 1.3 §4.1), the modern interface: finding them, and what is negotiated
//! before their queues are used (§3.1).

use super::memory::{self, Registers};
use super::options::Device as Kind;
use super::pci::{Bus, Function, IDENTITY, Msix, VENDOR_SPECIFIC};
use super::queue::{Queue, Wait};
use super::ring::{Rings, queue_size};
use crate::time;

/// `VIRTIO_F_INDIRECT_DESC`.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`.
pub const F_VERSION_1: u64 = 1 << 32;
/// What every driver here takes if it is offered.
pub const RING_FEATURES: u64 = F_INDIRECT_DESC | F_EVENT_IDX | F_VERSION_1;

/// Device status (§2.1).
pub const ACKNOWLEDGE: u8 = 1;
/// The driver knows the device.
pub const DRIVER: u8 = 2;
/// The driver is ready.
pub const DRIVER_OK: u8 = 4;
/// Features are agreed on.
pub const FEATURES_OK: u8 = 8;
/// The device cannot go on.
pub const NEEDS_RESET: u8 = 64;
/// The driver gave up.
pub const FAILED: u8 = 128;

/// Registers of the common configuration (§4.1.4.3).
pub mod common {
    /// Which 32 of the device's features are shown.
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    /// Those.
    pub const DEVICE_FEATURE: u64 = 0x04;
    /// Which 32 of the driver's are written.
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    /// Those.
    pub const DRIVER_FEATURE: u64 = 0x0c;
    /// Vector for changes of the configuration.
    pub const CONFIG_VECTOR: u64 = 0x10;
    /// Number of queues.
    pub const NUM_QUEUES: u64 = 0x12;
    /// Device status.
    pub const STATUS: u64 = 0x14;
    /// Counts changes of the configuration.
    pub const CONFIG_GENERATION: u64 = 0x15;
    /// Which queue the rest is of.
    pub const QUEUE_SELECT: u64 = 0x16;
    /// Its entries.
    pub const QUEUE_SIZE: u64 = 0x18;
    /// Its vector.
    pub const QUEUE_VECTOR: u64 = 0x1a;
    /// Whether it is used.
    pub const QUEUE_ENABLE: u64 = 0x1c;
    /// Where it is notified, in multiples.
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    /// Its descriptor table.
    pub const QUEUE_DESC: u64 = 0x20;
    /// Its available ring.
    pub const QUEUE_DRIVER: u64 = 0x28;
    /// Its used ring.
    pub const QUEUE_DEVICE: u64 = 0x30;
    /// One past the last byte.
    pub const END: u64 = 0x40;
}

/// No vector.
const NO_VECTOR: u16 = 0xffff;

/// A device and its registers.
#[derive(Clone, Copy)]
pub struct Device {
    /// The function it is.
    pub function: Function,
    /// What it is (§5).
    pub id: u16,
    /// Common configuration.
    pub common: Registers,
    /// Notifications of all queues.
    pub notify: Registers,
    /// Bytes from one queue's notification to the next one's.
    pub stride: u32,
    /// Interrupt status.
    pub isr: Registers,
    /// What is the device's own.
    pub config: Registers,
    /// Its interrupts.
    pub msix: Option<Msix>,
    /// The BAR that has the common configuration.
    pub bar: u8,
}

impl Device {
    /// The devices on the bus, in the order of their slots.
    pub fn all(bus: Bus) -> impl Iterator<Item = Self> {
        bus.slots().filter_map(Self::find)
    }

    /// The first of a kind.
    pub fn first(bus: Bus, kind: Kind) -> Option<Self> {
        Self::all(bus).find(|device| kind.is(device.id))
    }

    fn find(function: Function) -> Option<Self> {
        const VENDOR: u32 = 0x1af4;
        const FIRST: u16 = 0x1040;
        const LAST: u16 = 0x107f;
        let identity = function.read_u32(IDENTITY);
        let device = (identity >> 16) as u16;
        if identity & 0xffff != VENDOR || !(FIRST..=LAST).contains(&device) {
            return None;
        }
        function.enable();
        let mut places = [None; 5];
        let (mut stride, mut bar) = (0, 0);
        for (_, capability) in function
            .capabilities()
            .filter(|(id, _)| *id == VENDOR_SPECIFIC)
        {
            let kind = function.read_u8(capability + 3);
            let in_bar = function.read_u8(capability + 4);
            let offset = function.read_u32(capability + 8);
            let length = function.read_u32(capability + 12);
            let Some(place) = places.get_mut(usize::from(kind)) else {
                continue;
            };
            // The first of a kind is the one the device wants used (§4.1.4.1).
            if place.is_none() {
                *place = function.registers(in_bar, offset, length);
                match kind {
                    1 => bar = in_bar,
                    2 => stride = function.read_u32(capability + 16),
                    _ => {}
                }
            }
        }
        let [_, common, notify, isr, config] = places;
        let (common, notify, isr) = (common?, notify?, isr?);
        Some(Self {
            function,
            id: device - FIRST,
            common,
            notify,
            stride,
            isr,
            config: config.unwrap_or(common.part(common.length(), 0)),
            msix: Msix::find(function),
            bar,
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        Kind::name_of(self.id)
    }

    /// Device status.
    pub fn status(&self) -> u8 {
        self.common.read_u8(common::STATUS)
    }

    /// How often the configuration has changed, modulo 256.
    pub fn generation(&self) -> u8 {
        self.common.read_u8(common::CONFIG_GENERATION)
    }

    /// Adds to the device status.
    pub fn add_status(&self, bits: u8) {
        let status = self.status();
        self.common.write_u8(common::STATUS, status | bits);
    }

    /// Resets it and waits until that has ended; false if it does not.
    pub fn reset(&self) -> bool {
        self.common.write_u8(common::STATUS, 0);
        time::wait_until(|| self.status() == 0)
    }

    /// The features it offers.
    pub fn offered(&self) -> u64 {
        let half = |select| {
            self.common.write_u32(common::DEVICE_FEATURE_SELECT, select);
            u64::from(self.common.read_u32(common::DEVICE_FEATURE))
        };
        half(0) | half(1) << 32
    }

    /// Writes features, whether they were offered or not.
    pub fn set_features(&self, features: u64) {
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.common.write_u32(common::DRIVER_FEATURE_SELECT, select);
            self.common.write_u32(common::DRIVER_FEATURE, half);
        }
    }

    /// Resets the device and agrees on those of the `wanted` features that it offers; which those are.
    pub fn begin(&self, wanted: u64) -> Result<u64, &'static str> {
        if !self.reset() {
            return Err("device does not reset");
        }
        self.add_status(ACKNOWLEDGE);
        self.add_status(DRIVER);
        let agreed = self.offered() & wanted;
        self.set_features(agreed);
        self.add_status(FEATURES_OK);
        if self.status() & FEATURES_OK == 0 {
            return Err("device refuses its own features");
        }
        Ok(agreed)
    }

    /// How many queues it has.
    pub fn queues(&self) -> u16 {
        self.common.read_u16(common::NUM_QUEUES)
    }

    /// The most entries of a queue; zero if there is no such queue.
    pub fn max_queue_size(&self, index: u16) -> u16 {
        self.common.write_u16(common::QUEUE_SELECT, index);
        self.common.read_u16(common::QUEUE_SIZE)
    }

    /// Where a queue is notified. The queue has to be selected.
    fn doorbell(&self) -> Registers {
        let place = self.common.read_u16(common::QUEUE_NOTIFY_OFF);
        self.notify
            .part(u64::from(place) * u64::from(self.stride), 4)
    }

    /// Sets a queue of at most `limit` entries up and enables it. Its rings are those of place `place` of
    /// the arena.
    pub fn set_up(
        &self,
        index: u16,
        place: u16,
        limit: u16,
        agreed: u64,
        wait: Wait,
    ) -> Result<Queue, &'static str> {
        let size = queue_size(self.max_queue_size(index).min(limit));
        if size == 0 {
            return Err("device lacks a queue");
        }
        let rings = Rings::at(
            memory::RINGS + u64::from(place % 32) * memory::RING_BYTES,
            size,
        );
        let queue = Queue::new(
            rings,
            index,
            self.doorbell(),
            agreed & F_EVENT_IDX != 0,
            wait,
        );
        self.write_queue(&rings);
        let vector = match (wait, self.msix) {
            (Wait::Interrupt, Some(msix)) => (index + 1) % msix.vectors.max(1),
            _ => NO_VECTOR,
        };
        self.common.write_u16(common::QUEUE_VECTOR, vector);
        self.common.write_u16(common::QUEUE_ENABLE, 1);
        Ok(queue)
    }

    /// Writes size and addresses of the selected queue.
    pub fn write_queue(&self, rings: &Rings) {
        self.common.write_u16(common::QUEUE_SIZE, rings.size);
        for (register, address) in [
            (common::QUEUE_DESC, rings.descriptors),
            (common::QUEUE_DRIVER, rings.available),
            (common::QUEUE_DEVICE, rings.used),
        ] {
            self.common.write_u32(register, address as u32);
            self.common.write_u32(register + 4, (address >> 32) as u32);
        }
    }

    /// Prepares interrupts, if they are wanted: before queues are set up.
    pub fn prepare_interrupts(&self, wait: Wait) -> Result<(), &'static str> {
        if wait == Wait::Interrupt {
            let msix = self.msix.ok_or("device has no MSI-X")?;
            msix.enable();
            self.common.write_u16(common::CONFIG_VECTOR, 0);
        }
        Ok(())
    }

    /// Lets it run.
    pub fn run(&self) -> Result<(), &'static str> {
        self.add_status(DRIVER_OK);
        if self.status() & NEEDS_RESET != 0 {
            return Err("device asks for a reset when it is started");
        }
        Ok(())
    }
}
