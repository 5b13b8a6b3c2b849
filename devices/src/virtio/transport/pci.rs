//! Virtio over PCI (virtio 1.3 §4.1), the modern interface only: a function whose capabilities say
//! where in its BAR the registers are.

use std::sync::Arc;
use std::time::Instant;

use super::super::{DeviceId, Executor, VirtioDevice};
use super::line::{Line, Vectors};
use super::negotiation::Negotiation;
use super::registers::{
    BAR_BYTES, COMMON, COMMON_BYTES, CONFIG, CONFIG_BYTES, Doorbells, ISR, MAX_VECTORS,
    MSIX_PENDING, MSIX_TABLE, NOTIFY, NOTIFY_BYTES, NOTIFY_STRIDE, Registers,
};
use crate::bus::BusDevice;
use crate::irq::MsiSink;
use crate::memory::GuestRam;
use crate::pci::config_space::{
    BarWidth, Change, ConfigSpace, ConfigStateV1, Identity, LayoutError,
};
use crate::pci::msix::{BarOffset, Msix, MsixStateV1};
use crate::pci::{Bar, Bars, PciFunction};
use crate::power::Reset;
use crate::shared::{Shared, lock, share};
use crate::state::{Saveable, Schema, StateError, StateReader, StateWriter};

/// The vendor of all virtio devices.
const VENDOR: u16 = 0x1af4;
/// The device id of a modern device is this and its virtio id.
const DEVICE_BASE: u16 = 0x1040;
/// The subsystem's device id of a modern device: 0x40 or higher (§4.1.2.1).
const SUBSYSTEM: u16 = 0x1100;
/// A modern device's revision (§4.1.2).
const REVISION: u8 = 1;
/// The one BAR.
const BAR: u8 = 0;

/// Capability: vendor-specific.
const VENDOR_SPECIFIC: u8 = 0x09;

/// `cfg_type` of the capabilities (§4.1.4).
const TYPE_COMMON: u8 = 1;
const TYPE_NOTIFY: u8 = 2;
const TYPE_ISR: u8 = 3;
const TYPE_DEVICE: u8 = 4;
const TYPE_WINDOW: u8 = 5;

/// From a capability's start: `bar`, `offset`, `length` and the data of the window (§4.1.4.9).
const WINDOW_BAR: u16 = 4;
const WINDOW_OFFSET: u16 = 8;
const WINDOW_LENGTH: u16 = 12;
const WINDOW_DATA: u16 = 16;

/// The second version begins with the configuration generation (§4.1.4.3.1), and goes on as the first.
const SCHEMA: Schema = Schema {
    name: "virtio-pci",
    version: 2,
};

impl Vectors for Msix {
    fn trigger(&self, vector: u16) {
        Msix::trigger(self, vector);
    }

    fn count(&self) -> u16 {
        Msix::count(self)
    }
}

/// Why a device could not be put on PCI.
#[derive(Debug, thiserror::Error)]
pub enum VirtioPciError {
    /// Its configuration space has no room for what it needs, or its BAR cannot be there.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The host has no descriptor left.
    #[error("the host has no descriptor left")]
    Descriptor(#[from] rustix::io::Errno),
}

/// What a device on PCI is given of the machine.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Guest memory.
    pub ram: GuestRam,
    /// Where its interrupts go.
    pub messages: Arc<dyn MsiSink>,
    /// What takes its notifications.
    pub doorbells: Arc<dyn Doorbells>,
}

/// A virtio device as a PCI function.
#[derive(Debug)]
pub struct VirtioPci {
    config: ConfigSpace,
    msix: Arc<Msix>,
    /// Where the capability of MSI-X is.
    msix_capability: u8,
    registers: Shared<Registers>,
    /// Where the capability is by which the BAR is reached through configuration space.
    window: u16,
}

impl VirtioPci {
    /// The function of `device`, whose BAR is at `bar_address` after power-on: guest-physical, aligned
    /// to [`BAR_BYTES`].
    ///
    /// # Errors
    /// [`VirtioPciError`].
    pub fn new(
        device: Box<dyn VirtioDevice>,
        executor: Arc<dyn Executor>,
        surroundings: Surroundings,
        bar_address: u64,
    ) -> Result<Self, VirtioPciError> {
        let id = device.id();
        let queues = device.queue_sizes().len();
        // One vector for each queue and one for the configuration.
        let vectors = u16::try_from(queues + 1)
            .unwrap_or(MAX_VECTORS)
            .min(MAX_VECTORS);
        let msix = Msix::new(vectors, surroundings.messages)?;
        let line = Arc::new(Line::new(Arc::clone(&msix) as _, queues));
        let mut negotiation = Negotiation::new(device, executor, surroundings.ram, line)?;
        negotiation.set_bus_master(false);
        let registers = Registers::new(negotiation, Arc::clone(&msix), surroundings.doorbells);

        let mut config = ConfigSpace::new(Identity {
            vendor: VENDOR,
            device: DEVICE_BASE + id as u16,
            revision: REVISION,
            class: class(id),
            subsystem_vendor: VENDOR,
            subsystem: SUBSYSTEM,
        });
        config.add_memory_bar(BAR, BAR_BYTES, BarWidth::Bits64)?;
        config.set_bar_address(BAR, bar_address)?;
        let msix_capability = msix.add_capability(&mut config, at(MSIX_TABLE), at(MSIX_PENDING))?;
        for (kind, offset, len) in [
            (TYPE_COMMON, COMMON, COMMON_BYTES),
            (TYPE_ISR, ISR, 1),
            (TYPE_DEVICE, CONFIG, CONFIG_BYTES),
        ] {
            let body = capability(kind, offset, len, &[]);
            config.add_capability(VENDOR_SPECIFIC, &body, &vec![0; body.len()])?;
        }
        let stride = u32::try_from(NOTIFY_STRIDE).unwrap_or(0).to_le_bytes();
        let notify = capability(TYPE_NOTIFY, NOTIFY, NOTIFY_BYTES, &stride);
        config.add_capability(VENDOR_SPECIFIC, &notify, &vec![0; notify.len()])?;
        // Bar, offset and length are the driver's to write; the data is not kept there.
        let window = capability(TYPE_WINDOW, 0, 0, &[0; 4]);
        let mut mask = [0; 18];
        for (offset, len) in [(WINDOW_BAR, 1), (WINDOW_OFFSET, 4), (WINDOW_LENGTH, 4)] {
            let start = usize::from(offset - 2);
            if let Some(bytes) = mask.get_mut(start..start + len) {
                bytes.fill(0xff);
            }
        }
        let window = config.add_capability(VENDOR_SPECIFIC, &window, &mask)?;
        Ok(Self {
            config,
            msix,
            msix_capability,
            registers: share(registers),
            window: window.into(),
        })
    }

    /// Its registers: for the control thread, which stops, resumes and saves the device by them.
    #[must_use]
    pub fn registers(&self) -> Shared<Registers> {
        Arc::clone(&self.registers)
    }

    /// What the window stands for: an offset of the BAR, if what the driver wrote is one.
    fn window_target(&self) -> Option<(u64, usize)> {
        let field = |offset, bytes: &mut [u8]| self.config.read(self.window + offset, bytes);
        let (mut bar, mut offset, mut length) = ([0; 1], [0; 4], [0; 4]);
        field(WINDOW_BAR, &mut bar);
        field(WINDOW_OFFSET, &mut offset);
        field(WINDOW_LENGTH, &mut length);
        let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
        let offset = u64::from(u32::from_le_bytes(offset));
        let fits = offset.checked_add(length as u64)? <= BAR_BYTES;
        (bar == [BAR] && matches!(length, 1 | 2 | 4) && fits).then_some((offset, length))
    }

    fn is_window_data(&self, register: u16) -> bool {
        register & !3 == self.window + WINDOW_DATA
    }

    fn read_window(&self, register: u16, data: &mut [u8]) {
        let mut bytes = [0; 4];
        if let Some((offset, length)) = self.window_target() {
            if let Some(part) = bytes.get_mut(..length) {
                if lock(&self.registers).read(offset, part).is_err() {
                    part.fill(0xff);
                }
            }
        }
        let skip = usize::from(register & 3);
        for (to, from) in data.iter_mut().zip(bytes.iter().skip(skip)) {
            *to = *from;
        }
    }

    fn write_window(&self, register: u16, data: &[u8]) {
        // Only the width that was announced, from the start of the data.
        let Some((offset, length)) = self.window_target() else {
            return;
        };
        if register & 3 == 0 {
            if let Some(part) = data.get(..length) {
                // One the registers do not take vanishes, as on the bus.
                let _ = lock(&self.registers).write(offset, part);
            }
        }
    }
}

/// The body of a capability behind its id and its link (§4.1.4); the length counts both.
fn capability(kind: u8, offset: u64, len: u64, rest: &[u8]) -> Vec<u8> {
    const HEADER: usize = 16;
    let word = |value: u64| u32::try_from(value).unwrap_or(0).to_le_bytes();
    let length = u8::try_from(HEADER + rest.len()).unwrap_or(u8::MAX);
    let mut body = vec![length, kind, BAR, 0, 0, 0];
    body.extend(word(offset));
    body.extend(word(len));
    body.extend(rest);
    body
}

/// Class, subclass and interface (PCI Code and ID Assignment 1.11).
const fn class(id: DeviceId) -> u32 {
    match id {
        DeviceId::Net => 0x02_00_00,
        DeviceId::Block => 0x01_80_00,
        DeviceId::FileSystem => 0x01_80_00,
        DeviceId::Console | DeviceId::Vsock => 0x07_80_00,
        DeviceId::Mem => 0x05_00_00,
        DeviceId::Input => 0x09_80_00,
        DeviceId::Entropy | DeviceId::Balloon => 0xff_00_00,
    }
}

/// A place in the one BAR.
fn at(offset: u64) -> BarOffset {
    BarOffset {
        bar: BAR,
        offset: u32::try_from(offset).unwrap_or(0),
    }
}

impl PciFunction for VirtioPci {
    fn read_config(&mut self, register: u16, data: &mut [u8]) {
        if self.is_window_data(register) {
            self.read_window(register, data);
        } else {
            self.config.read(register, data);
        }
    }

    fn write_config(&mut self, register: u16, data: &[u8]) -> Change {
        if self.is_window_data(register) {
            self.write_window(register, data);
            return Change::Nothing;
        }
        let before = self.config.bus_master();
        let change = self.config.write(register, data);
        self.msix.follow(&self.config, self.msix_capability);
        let may = self.config.bus_master();
        if may != before {
            lock(&self.registers).set_bus_master(may);
        }
        change
    }

    fn bars(&self) -> Bars {
        let mut bars = Bars::default();
        if let Some(bar) = bars.first_mut() {
            *bar = Some(Bar {
                size: BAR_BYTES,
                address: self.config.bar(BAR),
                device: Arc::clone(&self.registers) as _,
            });
        }
        bars
    }

    fn bar_moved(&mut self, _bar: u8, address: Option<u64>) {
        lock(&self.registers).moved(address);
    }
}

impl Reset for VirtioPci {
    /// The workers must have ended: [`Negotiation::power_on`] or [`Negotiation::stop`] before.
    fn reset(&mut self) {
        let mut registers = lock(&self.registers);
        // Ended before, so that this does not wait.
        let _ = registers.negotiation().power_on(Instant::now());
        self.config.reset();
        registers.set_bus_master(self.config.bus_master());
        drop(registers);
        self.msix.reset();
        self.msix.follow(&self.config, self.msix_capability);
    }
}

impl Saveable for VirtioPci {
    fn schema(&self) -> Schema {
        SCHEMA
    }

    /// The workers must have ended: [`Negotiation::stop`] before.
    fn save(&self) -> Vec<u8> {
        let mut writer = StateWriter::new();
        let mut registers = lock(&self.registers);
        writer.u8(registers.negotiation().config_generation());
        self.config.state().encode(&mut writer);
        self.msix.state().encode(&mut writer);
        registers.negotiation().save(&mut writer);
        writer.finish()
    }

    /// The root is to be told where the BAR is, and the device to be resumed.
    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        let mut reader = StateReader::new(bytes);
        let generation = match version {
            1 => None,
            _ => {
                SCHEMA.expect_version(version)?;
                Some(reader.u8()?)
            }
        };
        let config = ConfigStateV1::decode(&mut reader, &self.config)?;
        let msix = MsixStateV1::decode(&mut reader, &self.msix)?;
        // The last that can be refused, and the last of the record: taken over as a whole.
        let mut registers = lock(&self.registers);
        let rest = reader.rest();
        let negotiation = registers.negotiation();
        let counted = negotiation.config_changes();
        negotiation.restore(rest)?;
        if let Some(generation) = generation {
            negotiation.follow_generation(generation, counted);
        }
        self.config.set_state(&config);
        registers.set_bus_master(self.config.bus_master());
        drop(registers);
        self.msix.set_state(msix);
        self.msix.follow(&self.config, self.msix_capability);
        Ok(())
    }
}

#[cfg(test)]
#[path = "pci/tests.rs"]
mod tests;
