//! Saved state of a network device: what the driver has set up by commands, and the link.

use super::control::{
    ControlState, MAX_ADDRESSES, MacAddress, MacTable, RECEIVE_MODES, is_unicast,
};
use super::features::GUEST_OFFLOADS;
use crate::state::{Schema, StateError, StateReader, StateWriter, check};

/// Everything that is neither in the transport nor in guest memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetStateV1 {
    pub(super) link_up: bool,
    pub(super) control: ControlState,
}

impl NetStateV1 {
    /// The layout's name and version.
    pub(super) const SCHEMA: Schema = Schema {
        name: "virtio-net",
        version: 1,
    };

    pub(super) fn encode(&self) -> Vec<u8> {
        let control = &self.control;
        let mut writer = StateWriter::new();
        writer
            .bool(self.link_up)
            .bytes(&control.mac)
            .u8(control.modes)
            .u16(control.pairs)
            .bool(control.offloads.is_some())
            .u64(control.offloads.unwrap_or(0))
            .bool(control.announce);
        for table in [&control.unicast, &control.multicast] {
            writer.bool(table.overflow);
            // At most MAX_ADDRESSES.
            writer.u8(u8::try_from(table.addresses.len()).unwrap_or(u8::MAX));
            for mac in &table.addresses {
                writer.bytes(mac);
            }
        }
        writer.finish()
    }

    /// Decodes a record for a device that offers `features` and has `pairs` pairs of queues.
    pub(super) fn decode(bytes: &[u8], features: u64, pairs: u16) -> Result<Self, StateError> {
        let mut reader = StateReader::new(bytes);
        let link_up = reader.bool("link")?;
        let mac: MacAddress = reader.bytes()?;
        let modes = reader.u8()?;
        let used = reader.u16()?;
        let has_offloads = reader.bool("offloads")?;
        let offloads = reader.u64()?;
        let announce = reader.bool("announce")?;
        let unicast = table(&mut reader, false)?;
        let multicast = table(&mut reader, true)?;
        reader.finish()?;
        check(is_unicast(mac), "mac")?;
        check(modes >> RECEIVE_MODES == 0, "modes")?;
        check((1..=pairs).contains(&used), "pairs")?;
        let known = features & GUEST_OFFLOADS;
        check(offloads & !known == 0, "offloads")?;
        check(has_offloads || offloads == 0, "offloads")?;
        Ok(Self {
            link_up,
            control: ControlState {
                mac,
                modes,
                unicast,
                multicast,
                pairs: used,
                offloads: has_offloads.then_some(offloads),
                announce,
            },
        })
    }
}

fn table(reader: &mut StateReader<'_>, group: bool) -> Result<MacTable, StateError> {
    let overflow = reader.bool("overflow")?;
    let count = usize::from(reader.u8()?);
    check(count <= MAX_ADDRESSES, "addresses")?;
    check(!overflow || count == MAX_ADDRESSES, "overflow")?;
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        let mac: MacAddress = reader.bytes()?;
        let [first, ..] = mac;
        check((first & 1 != 0) == group, "addresses")?;
        addresses.push(mac);
    }
    Ok(MacTable {
        addresses,
        overflow,
    })
}
