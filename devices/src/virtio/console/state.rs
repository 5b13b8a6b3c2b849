//! Saved state of a console: what the driver was told and has said. The host's ends are no part of
//! it.

use crate::state::{Schema, StateError, StateReader, StateWriter, check};

/// Bits of a port's flags, in the order of [`PortStateV1`]'s fields.
const FLAGS: u16 = 0x01ff;

/// A port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortStateV1 {
    /// Its number.
    pub id: u32,
    /// There is one; otherwise the driver is still to be told that it is gone.
    pub present: bool,
    /// The driver was told of it.
    pub known: bool,
    /// The driver is to be told that the port it knew here is gone.
    pub stale: bool,
    /// The driver has made it ready.
    pub ready: bool,
    /// Somebody in the guest has it open.
    pub guest_open: bool,
    /// The driver was told that somebody on the host has.
    pub told_open: bool,
    /// The driver is to be told that it is a console.
    pub untold_console: bool,
    /// And of its size.
    pub untold_size: bool,
    /// And of its name.
    pub untold_name: bool,
    /// Bytes of the next chain to be transmitted that have gone out already.
    pub sent: u64,
}

/// A console.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsoleStateV1 {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
    /// The driver can use several ports.
    pub driver_ready: bool,
    /// The ports, by rising number.
    pub ports: Vec<PortStateV1>,
}

impl ConsoleStateV1 {
    /// The layout's name and version.
    pub const SCHEMA: Schema = Schema {
        name: "virtio-console",
        version: 1,
    };

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = StateWriter::new();
        writer
            .u16(self.columns)
            .u16(self.rows)
            .bool(self.driver_ready)
            .u8(u8::try_from(self.ports.len()).unwrap_or(u8::MAX));
        for port in &self.ports {
            let flags = [
                port.present,
                port.known,
                port.stale,
                port.ready,
                port.guest_open,
                port.told_open,
                port.untold_console,
                port.untold_size,
                port.untold_name,
            ];
            let bits = (0..).zip(flags);
            let flags = bits.fold(0_u16, |all, (bit, flag)| all | u16::from(flag) << bit);
            writer.u32(port.id).u16(flags).u64(port.sent);
        }
        writer.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let mut reader = StateReader::new(bytes);
        let mut state = Self {
            columns: reader.u16()?,
            rows: reader.u16()?,
            driver_ready: reader.bool("driver_ready")?,
            ports: Vec::new(),
        };
        let mut least = 0;
        for _ in 0..reader.u8()? {
            let id = reader.u32()?;
            check(id >= least && id < u32::MAX, "id")?;
            least = id + 1;
            let flags = reader.u16()?;
            check(flags & !FLAGS == 0, "flags")?;
            let flag = |bit: u32| flags & 1 << bit != 0;
            let port = PortStateV1 {
                id,
                present: flag(0),
                known: flag(1),
                stale: flag(2),
                ready: flag(3),
                guest_open: flag(4),
                told_open: flag(5),
                untold_console: flag(6),
                untold_size: flag(7),
                untold_name: flag(8),
                sent: reader.u64()?,
            };
            check(port.present || port.stale && !port.known, "present")?;
            check(!(port.stale && port.known), "stale")?;
            check(port.known || !port.ready, "ready")?;
            check(port.ready || !port.told_open, "told_open")?;
            state.ports.push(port);
        }
        reader.finish()?;
        Ok(state)
    }
}
