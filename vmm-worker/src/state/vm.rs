//! The records of what a VM has besides its vCPUs: the guest's clock, and the interrupt controllers
//! that are in the kernel.

use kvm_bindings::{kvm_pic_state, kvm_pit_channel_state};
use reeve_devices::state::{Schema, StateError, StateReader, StateWriter};

use crate::arch::x86_64::layout;

/// The guest's clock, and the host's clocks at the same moment. All in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockStateV1 {
    /// kvmclock.
    pub kvmclock: u64,
    /// The host's time of day, since 1970.
    pub realtime: u64,
    /// The host's monotonic clock.
    pub monotonic: u64,
}

impl ClockStateV1 {
    /// The layout's name and version.
    pub const SCHEMA: Schema = Schema {
        name: "kvm-clock",
        version: 1,
    };

    /// The record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        StateWriter::new()
            .u64(self.kvmclock)
            .u64(self.realtime)
            .u64(self.monotonic)
            .finish()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Another version, or another length.
    pub fn decode(version: u32, record: &[u8]) -> Result<Self, StateError> {
        Self::SCHEMA.expect_version(version)?;
        let mut reader = StateReader::new(record);
        let state = Self {
            kvmclock: reader.u64()?,
            realtime: reader.u64()?,
            monotonic: reader.u64()?,
        };
        reader.finish()?;
        Ok(state)
    }
}

/// Pins of KVM's own IOAPIC.
pub const PINS: usize = layout::IOAPIC_PINS as usize;

/// PICs, IOAPIC and PIT of a machine whose interrupt controller is in the kernel. Their registers by
/// the names of KVM's structures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IrqchipStateV1 {
    /// Master and slave.
    pub pics: [kvm_pic_state; 2],
    /// The IOAPIC's guest-physical address.
    pub ioapic_base: u64,
    /// Its register selection.
    pub ioapic_select: u32,
    /// Its id.
    pub ioapic_id: u32,
    /// Its requested interrupts, one bit a pin.
    pub ioapic_irr: u32,
    /// Its redirection table.
    pub ioapic_table: [u64; PINS],
    /// The timer's channels; when a count was loaded is the host's.
    pub pit_channels: [kvm_pit_channel_state; 3],
    /// `KVM_PIT_FLAGS_*`.
    pub pit_flags: u32,
}

impl IrqchipStateV1 {
    /// The layout's name and version.
    pub const SCHEMA: Schema = Schema {
        name: "kvm-irqchip",
        version: 1,
    };

    /// The record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = StateWriter::new();
        for pic in &self.pics {
            writer.bytes(&[
                pic.last_irr,
                pic.irr,
                pic.imr,
                pic.isr,
                pic.priority_add,
                pic.irq_base,
                pic.read_reg_select,
                pic.poll,
                pic.special_mask,
                pic.init_state,
                pic.auto_eoi,
                pic.rotate_on_auto_eoi,
                pic.special_fully_nested_mode,
                pic.init4,
                pic.elcr,
                pic.elcr_mask,
            ]);
        }
        writer
            .u64(self.ioapic_base)
            .u32(self.ioapic_select)
            .u32(self.ioapic_id)
            .u32(self.ioapic_irr);
        for entry in self.ioapic_table {
            writer.u64(entry);
        }
        for channel in &self.pit_channels {
            writer
                .u32(channel.count)
                .u16(channel.latched_count)
                .bytes(&[
                    channel.count_latched,
                    channel.status_latched,
                    channel.status,
                    channel.read_state,
                    channel.write_state,
                    channel.write_latch,
                    channel.rw_mode,
                    channel.mode,
                    channel.bcd,
                    channel.gate,
                ]);
        }
        writer.u32(self.pit_flags).finish()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Another version, or another length.
    pub fn decode(version: u32, record: &[u8]) -> Result<Self, StateError> {
        Self::SCHEMA.expect_version(version)?;
        let mut reader = StateReader::new(record);
        let pics = [read_pic(&mut reader)?, read_pic(&mut reader)?];
        let ioapic_base = reader.u64()?;
        let (ioapic_select, ioapic_id, ioapic_irr) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let mut ioapic_table = [0; PINS];
        for entry in &mut ioapic_table {
            *entry = reader.u64()?;
        }
        let state = Self {
            pics,
            ioapic_base,
            ioapic_select,
            ioapic_id,
            ioapic_irr,
            ioapic_table,
            pit_channels: [
                read_channel(&mut reader)?,
                read_channel(&mut reader)?,
                read_channel(&mut reader)?,
            ],
            pit_flags: reader.u32()?,
        };
        reader.finish()?;
        Ok(state)
    }
}

fn read_pic(reader: &mut StateReader<'_>) -> Result<kvm_pic_state, StateError> {
    let mut pic = kvm_pic_state::default();
    [
        pic.last_irr,
        pic.irr,
        pic.imr,
        pic.isr,
        pic.priority_add,
        pic.irq_base,
        pic.read_reg_select,
        pic.poll,
        pic.special_mask,
        pic.init_state,
        pic.auto_eoi,
        pic.rotate_on_auto_eoi,
        pic.special_fully_nested_mode,
        pic.init4,
        pic.elcr,
        pic.elcr_mask,
    ] = reader.bytes()?;
    Ok(pic)
}

fn read_channel(reader: &mut StateReader<'_>) -> Result<kvm_pit_channel_state, StateError> {
    let mut channel = kvm_pit_channel_state {
        count: reader.u32()?,
        latched_count: reader.u16()?,
        ..Default::default()
    };
    [
        channel.count_latched,
        channel.status_latched,
        channel.status,
        channel.read_state,
        channel.write_state,
        channel.write_latch,
        channel.rw_mode,
        channel.mode,
        channel.bcd,
        channel.gate,
    ] = reader.bytes()?;
    Ok(channel)
}
