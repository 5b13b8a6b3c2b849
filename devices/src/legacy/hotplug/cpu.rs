//! Hotplug of vCPUs: which are there, which come and which shall go.
//!
//! ```text
//!  offset 0  SELECT  u32  which vCPU FLAGS is about
//!         4  FLAGS   u32  read: PRESENT, INSERTED, REMOVE of that vCPU
//!                         write 1 to INSERTED, REMOVE: seen; to EJECT: ejects it
//!         8  PENDING u32  read: the lowest vCPU with INSERTED or REMOVE, all ones if there is none
//!        12  STATUS  u32  write: what came of a notification (ACPI 6.5 6.3.5, `_OST`), the source event in
//!                         the upper half and the status code in the lower; reads as 0
//! ```
//!
//! A vCPU that the machine cannot have reads as no flags. A present vCPU stays present until the
//! guest ejects it; the register shows it absent from then on, as a guest looks at once whether its
//! ejection worked. The boot processor, 0, is always present and takes no ejection.
//!
//! Registers are read and written on vCPU threads, changes come from the control thread; all under
//! the device's lock.

use std::sync::Arc;

use self::set::VcpuBits;
use super::{EjectSink, Ejected, register};
use crate::bus::{AccessError, BusDevice};
use crate::legacy::acpi_pm::GpeSource;
use crate::power::Reset;
use crate::state::{Saveable, Schema, StateError, StateReader, StateWriter, check};

mod set;
#[cfg(test)]
mod tests;

/// Offset of SELECT.
pub const SELECT: u64 = 0;
/// Offset of FLAGS.
pub const FLAGS: u64 = 4;
/// Offset of PENDING.
pub const PENDING: u64 = 8;

/// Offset of STATUS.
pub const STATUS: u64 = 12;

/// In FLAGS: the vCPU is there.
pub const PRESENT: u32 = 1 << 0;
/// In FLAGS: the vCPU is new; written: the guest has seen that.
pub const INSERTED: u32 = 1 << 1;
/// In FLAGS: the guest is asked to let go of the vCPU; written: it has seen that.
pub const REMOVE: u32 = 1 << 2;
/// In FLAGS, written: the guest has let go of the vCPU.
pub const EJECT: u32 = 1 << 3;

/// What PENDING reads as when nothing is.
const NONE: u32 = u32::MAX;

/// Source events of `_OST` (table 6.48): a device check and the insertion it led to; an eject request, and
/// an ejection that the guest began by itself.
const INSERTIONS: [u16; 2] = [0x01, 0x200];
const EJECTIONS: [u16; 2] = [0x03, 0x103];
/// Its status codes (tables 6.49 to 6.51).
const SUCCESS: u16 = 0;
/// Linux says so, too, of a notification that comes before it has looked at the device for the first time.
const FAILURE: u16 = 1;
const EJECTION_IN_PROGRESS: u16 = 0x84;
const EJECTION_PENDING: u16 = 0x83;

/// What a guest says came of what it was told of vCPUs: their numbers, rising.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// Those that it has taken up.
    pub taken: Vec<u32>,
    /// Those that it does not let go of.
    pub kept: Vec<u32>,
    /// Those that it does not let go of and does not say why: perhaps it will when it is asked again.
    pub not_yet: Vec<u32>,
}
const BOOT_PROCESSOR: u32 = 0;

/// The hotplug registers of the vCPUs.
#[derive(Debug)]
pub struct CpuHotplug {
    /// vCPUs that the machine can have.
    possible: u32,
    selected: u32,
    present: VcpuBits,
    inserted: VcpuBits,
    remove: VcpuBits,
    /// What was answered and nobody has read yet; lost in a saved state.
    taken: VcpuBits,
    kept: VcpuBits,
    not_yet: VcpuBits,
    sink: Arc<dyn EjectSink>,
}

impl CpuHotplug {
    /// Number of ports the registers take.
    pub const PORTS: u64 = super::PORTS;
    /// The most vCPUs there can be.
    pub const MAX_VCPUS: u32 = VcpuBits::CAPACITY;

    /// Registers of a machine that has the vCPUs 0 to `present - 1` and can have those to
    /// `possible - 1`, at most [`MAX_VCPUS`](Self::MAX_VCPUS). `sink` hears of ejections, as
    /// [`Ejected::Vcpu`].
    pub fn new(present: u32, possible: u32, sink: Arc<dyn EjectSink>) -> Self {
        let possible = possible.clamp(1, Self::MAX_VCPUS);
        let mut bits = VcpuBits::default();
        for index in 0..present.clamp(1, possible) {
            bits.insert(index);
        }
        Self {
            possible,
            selected: 0,
            present: bits,
            inserted: VcpuBits::default(),
            remove: VcpuBits::default(),
            taken: VcpuBits::default(),
            kept: VcpuBits::default(),
            not_yet: VcpuBits::default(),
            sink,
        }
    }

    /// Says that the vCPU `index` is there now; the caller has made it and raises the event
    /// afterwards. False, and nothing is said, if it was there before or cannot be.
    pub fn insert(&mut self, index: u32) -> bool {
        if index >= self.possible || self.present.contains(index) {
            return false;
        }
        self.present.insert(index);
        self.inserted.insert(index);
        true
    }

    /// Says that the vCPU `index` is no longer there, whatever the guest says: it is being reset.
    pub fn take(&mut self, index: u32) {
        if index != BOOT_PROCESSOR {
            for bits in [&mut self.present, &mut self.inserted, &mut self.remove] {
                bits.remove(index);
            }
        }
    }

    /// Takes a request to let go of the vCPU `index` back, if the guest has not seen it yet; one that has
    /// may still eject it.
    pub fn withdraw_removal(&mut self, index: u32) {
        self.remove.remove(index);
    }

    /// What the guest has answered since this was last asked.
    pub fn take_answers(&mut self) -> Answers {
        let [taken, kept, not_yet] =
            [&mut self.taken, &mut self.kept, &mut self.not_yet].map(std::mem::take);
        let list = |bits: VcpuBits| (0..self.possible).filter(move |index| bits.contains(*index));
        Answers {
            taken: list(taken).collect(),
            kept: list(kept).collect(),
            not_yet: list(not_yet).collect(),
        }
    }

    /// Asks the guest to let go of the vCPU `index`; the caller raises the event afterwards. False,
    /// and nothing is asked, if it is not there or is the boot processor.
    ///
    /// The guest may take its time, refuse, or not listen at all: the answer is
    /// [`EjectSink::ejected`], if it ever comes.
    pub fn request_removal(&mut self, index: u32) -> bool {
        if index == BOOT_PROCESSOR || !self.present.contains(index) {
            return false;
        }
        self.remove.insert(index);
        true
    }

    /// True if the guest sees the vCPU `index` as there.
    pub fn is_present(&self, index: u32) -> bool {
        self.present.contains(index)
    }

    /// How many vCPUs, from 0 on without a gap, are there: those that the tables of a machine that
    /// starts again may say are enabled.
    pub fn present_without_gap(&self) -> u32 {
        (0..self.possible)
            .find(|index| !self.present.contains(*index))
            .unwrap_or(self.possible)
    }

    fn flags(&self) -> u32 {
        [
            (&self.present, PRESENT),
            (&self.inserted, INSERTED),
            (&self.remove, REMOVE),
        ]
        .into_iter()
        .filter(|(bits, _)| bits.contains(self.selected))
        .fold(0, |flags, (_, flag)| flags | flag)
    }

    fn pending(&self) -> u32 {
        let lowest = [self.inserted.first(), self.remove.first()];
        lowest.into_iter().flatten().min().unwrap_or(NONE)
    }

    fn write_flags(&mut self, flags: u32) {
        let index = self.selected;
        if flags & INSERTED != 0 {
            self.inserted.remove(index);
        }
        if flags & REMOVE != 0 {
            self.remove.remove(index);
        }
        if flags & EJECT != 0 && index != BOOT_PROCESSOR && self.present.contains(index) {
            self.present.remove(index);
            self.inserted.remove(index);
            self.remove.remove(index);
            self.sink.ejected(Ejected::Vcpu(index));
        }
    }

    /// An answer about the vCPU that is selected. One that is not there has none to give: its ejection
    /// said all.
    fn write_status(&mut self, value: u32) {
        let [status_low, status_high, event_low, event_high] = value.to_le_bytes();
        let status = u16::from_le_bytes([status_low, status_high]);
        let event = u16::from_le_bytes([event_low, event_high]);
        if !self.present.contains(self.selected) {
            return;
        }
        let under_way = [SUCCESS, EJECTION_IN_PROGRESS, EJECTION_PENDING].contains(&status);
        if INSERTIONS.contains(&event) && status == SUCCESS {
            self.taken.insert(self.selected);
        } else if EJECTIONS.contains(&event) && status == FAILURE {
            self.not_yet.insert(self.selected);
        } else if EJECTIONS.contains(&event) && !under_way {
            self.kept.insert(self.selected);
        } else {
            return;
        }
        self.sink.answered();
    }
}

/// Aligned accesses of 32 bits; others are not answered.
impl BusDevice for CpuHotplug {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let value = match register(offset, data.len())? {
            SELECT => self.selected,
            FLAGS => self.flags(),
            PENDING => self.pending(),
            _ => 0,
        };
        data.copy_from_slice(&value.to_le_bytes());
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let value = <[u8; 4]>::try_from(data).map_err(|_| AccessError)?;
        let value = u32::from_le_bytes(value);
        match register(offset, data.len())? {
            SELECT => self.selected = value,
            FLAGS => self.write_flags(value),
            STATUS => self.write_status(value),
            _ => {}
        }
        Ok(())
    }
}

impl GpeSource for CpuHotplug {
    fn has_news(&self) -> bool {
        self.pending() != NONE
    }
}

/// The vCPUs that are there stay; after a reset a guest finds them by itself, and nothing is asked
/// of it.
impl Reset for CpuHotplug {
    fn reset(&mut self) {
        self.selected = 0;
        self.inserted = VcpuBits::default();
        self.remove = VcpuBits::default();
        self.taken = VcpuBits::default();
        self.kept = VcpuBits::default();
        self.not_yet = VcpuBits::default();
    }
}

/// What the vCPUs' hotplug registers remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuHotplugStateV1 {
    /// vCPUs that the machine can have; the machine that takes the state over can have as many.
    pub possible: u32,
    /// SELECT.
    pub selected: u32,
    /// vCPUs that are there: bit n of byte n / 8, as in the next two.
    pub present: [u8; 128],
    /// vCPUs that the guest has not yet been told are there.
    pub inserted: [u8; 128],
    /// vCPUs that the guest has not yet been asked to let go of.
    pub remove: [u8; 128],
}

impl CpuHotplugStateV1 {
    /// The layout's name and version.
    pub const SCHEMA: Schema = Schema {
        name: "cpu-hotplug",
        version: 1,
    };

    fn encode(&self) -> Vec<u8> {
        StateWriter::new()
            .u32(self.possible)
            .u32(self.selected)
            .bytes(&self.present)
            .bytes(&self.inserted)
            .bytes(&self.remove)
            .finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let mut reader = StateReader::new(bytes);
        let state = Self {
            possible: reader.u32()?,
            selected: reader.u32()?,
            present: reader.bytes()?,
            inserted: reader.bytes()?,
            remove: reader.bytes()?,
        };
        reader.finish()?;
        Ok(state)
    }
}

impl Saveable for CpuHotplug {
    fn schema(&self) -> Schema {
        CpuHotplugStateV1::SCHEMA
    }

    fn save(&self) -> Vec<u8> {
        CpuHotplugStateV1 {
            possible: self.possible,
            selected: self.selected,
            present: self.present.to_bytes(),
            inserted: self.inserted.to_bytes(),
            remove: self.remove.to_bytes(),
        }
        .encode()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        CpuHotplugStateV1::SCHEMA.expect_version(version)?;
        let state = CpuHotplugStateV1::decode(bytes)?;
        check(state.possible == self.possible, "possible")?;
        let present = VcpuBits::from_bytes(&state.present);
        let inserted = VcpuBits::from_bytes(&state.inserted);
        let remove = VcpuBits::from_bytes(&state.remove);
        let possible = present.last().is_some_and(|last| last < self.possible);
        check(possible && present.contains(BOOT_PROCESSOR), "present")?;
        check(inserted.is_within(&present), "inserted")?;
        let removable = !remove.contains(BOOT_PROCESSOR);
        check(removable && remove.is_within(&present), "remove")?;
        self.selected = state.selected;
        self.present = present;
        self.inserted = inserted;
        self.remove = remove;
        Ok(())
    }
}
