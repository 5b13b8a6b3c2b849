//! The order in which a machine's records are taken and put back, and the record of what it is.

use reeve_devices::shared::lock;
use reeve_devices::state::{Saveable, Schema, StateError, StateReader, StateWriter, check};
use reeve_devices::virtio::mem::MemControl;
use reeve_ipc::spec::{MAX_VCPUS, MachineSpec, MachineType};

use super::time::{Moment, Origin, Passage};
use super::{
    ClockStateV1, IrqchipStateV1, Recorder, Records, RestoreError, SaveError, Tsc, VcpuStateV1,
};
use crate::boot::Protocol;
use crate::build::Chipset;
use crate::device_set::DeviceSet;
use crate::io::{IoThread, MAX_PENDING_INPUT};
use crate::kvm::Vm;
use crate::processors::Processors;
use crate::vcpu::Platform;

const MACHINE: &str = "machine";
const VCPUS: &str = "vcpus";
const CLOCK: &str = "clock";
const IOAPIC: &str = "ioapic";
const CONSOLE_INPUT: &str = "console-input";
const GENERATION_ID: &str = "generation-id";
const PLUGGED: &str = "plugged-memory";
const IRQCHIP: &str = "interrupt-controllers";

/// The name of a vCPU's record.
fn vcpu_unit(index: u32) -> String {
    format!("vcpu/{index}")
}

/// What a machine is, as far as its other records depend on it, and what it remembers of its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineStateV1 {
    /// How many vCPUs.
    pub vcpus: u32,
    /// Bytes of guest memory.
    pub memory_bytes: u64,
    /// The frequency of the guest's TSC in kHz; 0 if it is not known.
    pub tsc_khz: u32,
    /// How the kernel was entered.
    pub protocol: Protocol,
    /// Resets since launch.
    pub resets: u64,
}

impl MachineStateV1 {
    /// The layout's name and version.
    pub const SCHEMA: Schema = Schema {
        name: "machine",
        version: 1,
    };

    /// The record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        StateWriter::new()
            .u32(self.vcpus)
            .u64(self.memory_bytes)
            .u32(self.tsc_khz)
            .u8(match self.protocol {
                Protocol::Pvh => 0,
                Protocol::Linux64 => 1,
                Protocol::ResetVector => 2,
            })
            .u64(self.resets)
            .finish()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Another version, another length, or a protocol there is not.
    pub fn decode(version: u32, record: &[u8]) -> Result<Self, StateError> {
        Self::SCHEMA.expect_version(version)?;
        let mut reader = StateReader::new(record);
        let state = Self {
            vcpus: reader.u32()?,
            memory_bytes: reader.u64()?,
            tsc_khz: reader.u32()?,
            protocol: match reader.u8()? {
                0 => Protocol::Pvh,
                1 => Protocol::Linux64,
                _ => return Err(StateError::Invalid { field: "protocol" }),
            },
            resets: reader.u64()?,
        };
        reader.finish()?;
        Ok(state)
    }

    /// Takes the record, and refuses the state of another machine than `spec` describes.
    pub(crate) fn take(
        records: &mut Records<'_>,
        spec: &MachineSpec,
    ) -> Result<Self, RestoreError> {
        records.expect_machine(spec.machine)?;
        let (version, bytes) = records.take(MACHINE, Self::SCHEMA.name)?;
        let state = Self::decode(version, bytes).map_err(RestoreError::record(MACHINE))?;
        let expect = |what, saved, wanted| {
            if saved == wanted {
                Ok(())
            } else {
                Err(RestoreError::Mismatch {
                    what,
                    saved,
                    wanted,
                })
            }
        };
        let memory = spec.memory.size_bytes;
        expect("memory in bytes", state.memory_bytes, memory)?;
        Ok(state)
    }
}

/// Which vCPUs a machine has, by rising index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VcpusStateV1 {
    /// How many it can have.
    pub possible: u32,
    /// Those that are there; 0 is the first.
    pub present: Vec<u32>,
    /// Those of them that the guest was asked to let go of.
    pub leaving: Vec<u32>,
    /// Those of them that came since the machine started and that the guest has not said it has taken up.
    pub new: Vec<u32>,
}

impl VcpusStateV1 {
    /// The layout's name and version.
    pub const SCHEMA: Schema = Schema {
        name: "vcpus",
        version: 1,
    };

    /// The record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = StateWriter::new();
        writer.u32(self.possible);
        for list in [&self.present, &self.leaving, &self.new] {
            writer.u32(u32::try_from(list.len()).unwrap_or(u32::MAX));
            for index in list {
                writer.u32(*index);
            }
        }
        writer.finish()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Another version, another length, or vCPUs that no machine has.
    pub fn decode(version: u32, record: &[u8]) -> Result<Self, StateError> {
        Self::SCHEMA.expect_version(version)?;
        let mut reader = StateReader::new(record);
        let possible = reader.u32()?;
        let mut list = |field| {
            let count = reader.u32()?;
            check(count <= possible.min(MAX_VCPUS), field)?;
            let list = (0..count)
                .map(|_| reader.u32())
                .collect::<Result<Vec<_>, _>>()?;
            let rises = list.windows(2).all(|pair| pair.is_sorted_by(|a, b| a < b));
            let last = list.last().is_none_or(|last| *last < possible);
            check(rises && last, field)?;
            Ok::<_, StateError>(list)
        };
        let state = Self {
            possible,
            present: list("present")?,
            leaving: list("leaving")?,
            new: list("new")?,
        };
        reader.finish()?;
        let among = |list: &[u32]| {
            let mut list = list.iter();
            list.all(|index| *index != 0 && state.present.binary_search(index).is_ok())
        };
        check(state.present.first() == Some(&0), "present")?;
        check(among(&state.leaving), "leaving")?;
        check(among(&state.new), "new")?;
        Ok(state)
    }

    /// Takes the record, and refuses that of a machine that can have others than `spec` describes. How many
    /// there are is the record's to say: a guest may have let go of some just then.
    pub(crate) fn take(
        records: &mut Records<'_>,
        spec: &MachineSpec,
        general: &MachineStateV1,
    ) -> Result<Self, RestoreError> {
        let (version, bytes) = records.take(VCPUS, Self::SCHEMA.name)?;
        let state = Self::decode(version, bytes).map_err(RestoreError::record(VCPUS))?;
        let mismatch = |what, saved: u32, wanted: u32| RestoreError::Mismatch {
            what,
            saved: saved.into(),
            wanted: wanted.into(),
        };
        let count = u32::try_from(state.present.len()).unwrap_or(u32::MAX);
        if state.possible != spec.max_vcpus {
            return Err(mismatch("most vCPUs", state.possible, spec.max_vcpus));
        }
        if count != general.vcpus {
            return Err(mismatch("number of vCPUs", count, general.vcpus));
        }
        Ok(state)
    }
}

/// The parts of a machine that have state. Its vCPUs stand.
#[derive(Debug)]
pub(crate) struct Fixture<'a> {
    pub vm: &'a Vm,
    pub chipset: &'a Chipset,
    pub devices: &'a DeviceSet,
    pub platform: &'a Platform,
    pub vcpus: &'a Processors,
    pub io: &'a IoThread,
    /// What the guest finds as its generation id, if it finds one.
    pub generation_id: Option<[u8; 16]>,
}

/// A generation id as it lies in memory.
const GENERATION_ID_SCHEMA: Schema = Schema {
    name: "generation-id",
    version: 1,
};

/// Bytes on their way to the guest's console.
const CONSOLE_INPUT_SCHEMA: Schema = Schema {
    name: "bytes",
    version: 1,
};

/// The records of a machine whose devices are stopped, and whose I/O thread holds this `input`.
pub(crate) fn save(
    fixture: &Fixture<'_>,
    machine: MachineType,
    general: &MachineStateV1,
    input: &[u8],
) -> Result<Vec<u8>, SaveError> {
    let mut records = Recorder::new();
    records.add(MACHINE, MachineStateV1::SCHEMA, &general.encode())?;
    let vcpus = fixture.vcpus.state();
    records.add(VCPUS, VcpusStateV1::SCHEMA, &vcpus.encode())?;
    // At one moment, as near as can be, with the counters of the chipset.
    let clock = fixture.vm.clock()?;
    for (unit, device) in fixture.chipset.saved() {
        let device = lock(device);
        records.add(unit, device.schema(), &device.save())?;
    }
    records.add(CLOCK, ClockStateV1::SCHEMA, &clock.encode())?;
    for (index, state) in fixture.vcpus.set().save()? {
        records.add(&vcpu_unit(index), VcpuStateV1::SCHEMA, &state.encode())?;
    }
    let interrupts = &fixture.platform.interrupts;
    if let Some(ioapic) = interrupts.ioapic() {
        let ioapic = lock(&ioapic);
        records.add(IOAPIC, ioapic.schema(), &ioapic.save())?;
    }
    if let Some(chips) = interrupts.kernel_chips()? {
        records.add(IRQCHIP, IrqchipStateV1::SCHEMA, &chips.encode())?;
    }
    if let Some((memory, _)) = fixture.devices.memory() {
        records.add(PLUGGED, MemControl::BLOCKS_SCHEMA, &memory.save_blocks())?;
    }
    fixture.devices.save(&mut records)?;
    records.add(CONSOLE_INPUT, CONSOLE_INPUT_SCHEMA, input)?;
    if let Some(id) = &fixture.generation_id {
        records.add(GENERATION_ID, GENERATION_ID_SCHEMA, id)?;
    }
    Ok(records.seal(machine))
}

/// Puts the records, without that of the machine, into a machine that was built and has not run; the
/// TSC of its first vCPU was `fresh` before. Gives the generation id that the guest had, if it has one.
pub(crate) fn restore(
    fixture: &Fixture<'_>,
    mut records: Records<'_>,
    general: &MachineStateV1,
    origin: Origin,
    fresh: Tsc,
) -> Result<Option<[u8; 16]>, RestoreError> {
    // Before all that may lie in it: what the guest shares with KVM, and the rings of devices.
    if let Some((memory, _)) = fixture.devices.memory() {
        let (version, bytes) = records.take(PLUGGED, MemControl::BLOCKS_SCHEMA.name)?;
        memory
            .restore_blocks(version, bytes)
            .map_err(RestoreError::plugged(PLUGGED))?;
    }
    let (version, bytes) = records.take(CLOCK, ClockStateV1::SCHEMA.name)?;
    let saved = ClockStateV1::decode(version, bytes).map_err(RestoreError::record(CLOCK))?;
    let passage = Passage { origin, saved };

    let mut states = Vec::new();
    for index in fixture.vcpus.set().present() {
        let unit = vcpu_unit(index);
        let (version, bytes) = records.take(&unit, VcpuStateV1::SCHEMA.name)?;
        states.push(VcpuStateV1::decode(version, bytes).map_err(RestoreError::record(&unit))?);
    }
    // A machine of another kind is refused before anything is changed.
    let mut held = [false; 256];
    for (vector, held) in (0..=u8::MAX).zip(&mut held) {
        *held = states.iter().any(|state| state.holds_interrupt(vector));
    }
    // The clock before the MSRs by which the guest asked to see it.
    fixture.vm.set_clock(&passage)?;
    wind(&mut states, fresh, &passage, general.tsc_khz);
    fixture.vcpus.set().restore(states)?;

    let interrupts = &fixture.platform.interrupts;
    if let Some(ioapic) = interrupts.ioapic() {
        let mut ioapic = lock(&ioapic);
        let (version, bytes) = records.take(IOAPIC, ioapic.schema().name)?;
        ioapic
            .restore(version, bytes)
            .map_err(RestoreError::record(IOAPIC))?;
    } else {
        let (version, bytes) = records.take(IRQCHIP, IrqchipStateV1::SCHEMA.name)?;
        let chips =
            IrqchipStateV1::decode(version, bytes).map_err(RestoreError::record(IRQCHIP))?;
        interrupts.set_kernel_chips(&chips)?;
    }
    for (unit, device) in fixture.chipset.saved() {
        let mut device = lock(device);
        let (version, bytes) = records.take(unit, device.schema().name)?;
        device
            .restore(version, bytes)
            .map_err(RestoreError::record(unit))?;
    }
    fixture.chipset.restored();
    fixture.chipset.pass(passage.elapsed());
    fixture.devices.restore(&mut records)?;
    let (version, input) = records.take(CONSOLE_INPUT, CONSOLE_INPUT_SCHEMA.name)?;
    CONSOLE_INPUT_SCHEMA
        .expect_version(version)
        .and_then(|()| check(input.len() <= MAX_PENDING_INPUT, "input"))
        .map_err(RestoreError::record(CONSOLE_INPUT))?;
    fixture.io.give_input(input.to_vec());
    let generation_id = match fixture.generation_id {
        Some(_) => Some(take_generation_id(&mut records)?),
        None => None,
    };
    // The end of an interrupt whose report a pause cut short is nowhere in the records: its pin would
    // wait for it for ever.
    for (vector, held) in (0..=u8::MAX).zip(held) {
        if !held {
            interrupts.end_of_interrupt(vector);
        }
    }
    records.finish()?;
    Ok(generation_id)
}

fn take_generation_id(records: &mut Records<'_>) -> Result<[u8; 16], RestoreError> {
    let (version, bytes) = records.take(GENERATION_ID, GENERATION_ID_SCHEMA.name)?;
    let read = || {
        GENERATION_ID_SCHEMA.expect_version(version)?;
        let mut reader = StateReader::new(bytes);
        let id = reader.bytes()?;
        reader.finish()?;
        Ok::<_, StateError>(id)
    };
    read().map_err(RestoreError::record(GENERATION_ID))
}

/// Winds the TSC of every vCPU forward, all by the same.
fn wind(states: &mut [VcpuStateV1], fresh: Tsc, passage: &Passage, khz: u32) {
    let Some(first) = states.first().map(|state| state.tsc) else {
        return;
    };
    let now = Moment::now();
    let shift = passage.shift(first, fresh, now, khz);
    for state in states {
        state.tsc.value = passage.value(state.tsc, now, khz);
        state.tsc.offset = state.tsc.offset.map(|offset| offset.wrapping_add(shift));
    }
}
