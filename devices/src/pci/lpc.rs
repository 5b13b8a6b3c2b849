//! The bridge to the ISA bus of an ICH9 chipset (Intel 316972, 13.1), as firmware for PCs looks for it in slot 31:
//! it says where the power management registers are, and takes notes of interrupt routing.
//!
//! Those registers do not move: firmware that would put them elsewhere is not listened to, and the one that we
//! know puts them where they are. There is nothing of the bridge's other functions; the root complex' registers
//! are said to be nowhere, by which kernels know that there is no watchdog behind the bridge.

use super::config_space::{Change, ConfigSpace, ConfigStateV1, Identity};
use super::{Bars, PciFunction};
use crate::power::Reset;
use crate::state::{Saveable, Schema, StateError, StateReader, StateWriter};

const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x2918,
    revision: 2,
    class: 0x06_01_00,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// PMBASE: the first port of the power management registers; bit 0 says that they are ports.
const PM_BASE: u8 = 0x40;
const PM_BASE_PORTS: u32 = 1;
/// ACPI_CNTL: those registers are decoded; their interrupt is 9.
const ACPI_CONTROL: u8 = 0x44;
const ACPI_ENABLE: u8 = 1 << 7;
/// PIRQ[A-D]_ROUT and PIRQ[E-H]_ROUT: not routed after power-on.
const ROUTES: [u8; 2] = [0x60, 0x68];
const NOT_ROUTED: [u8; 4] = [0x80; 4];
const ROUTE_WRITABLE: [u8; 4] = [0x8f; 4];

const SCHEMA: Schema = Schema {
    name: "lpc-bridge",
    version: 1,
};

/// The bridge.
#[derive(Debug)]
pub struct LpcBridge {
    config: ConfigSpace,
}

impl LpcBridge {
    /// The slot where firmware looks for it.
    pub const SLOT: u8 = 31;

    /// A bridge that says that the power management registers are at `pm_base`, a multiple of 128.
    #[must_use]
    pub fn new(pm_base: u16) -> Self {
        let mut config = ConfigSpace::new(IDENTITY);
        // UEFI firmware looks for serial ports behind it only if it decodes ports and memory.
        config.allow_port_decoding();
        let base = u32::from(pm_base) | PM_BASE_PORTS;
        config.add_registers(PM_BASE, &base.to_le_bytes(), &[]);
        config.add_registers(ACPI_CONTROL, &[ACPI_ENABLE], &[]);
        for register in ROUTES {
            config.add_registers(register, &NOT_ROUTED, &ROUTE_WRITABLE);
        }
        Self { config }
    }
}

impl PciFunction for LpcBridge {
    fn read_config(&mut self, register: u16, data: &mut [u8]) {
        self.config.read(register, data);
    }

    fn write_config(&mut self, register: u16, data: &[u8]) -> Change {
        self.config.write(register, data)
    }

    fn bars(&self) -> Bars {
        Bars::default()
    }

    fn bar_moved(&mut self, _bar: u8, _address: Option<u64>) {}
}

impl Reset for LpcBridge {
    fn reset(&mut self) {
        self.config.reset();
    }
}

impl Saveable for LpcBridge {
    fn schema(&self) -> Schema {
        SCHEMA
    }

    fn save(&self) -> Vec<u8> {
        let mut writer = StateWriter::new();
        self.config.state().encode(&mut writer);
        writer.finish()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        SCHEMA.expect_version(version)?;
        let mut reader = StateReader::new(bytes);
        let state = ConfigStateV1::decode(&mut reader, &self.config)?;
        reader.finish()?;
        self.config.set_state(&state);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dword(bridge: &mut LpcBridge, register: u16) -> u32 {
        let mut bytes = [0; 4];
        bridge.read_config(register, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn firmware_finds_the_power_management_registers_where_it_would_put_them() {
        let mut bridge = LpcBridge::new(0x600);
        assert_eq!(dword(&mut bridge, 0), 0x2918_8086);
        assert_eq!(dword(&mut bridge, 8) >> 8, 0x06_01_00);
        for base in [0x601_u32, 0xb001, 0] {
            let change = bridge.write_config(PM_BASE.into(), &base.to_le_bytes());
            assert_eq!(change, Change::Nothing);
            assert_eq!(dword(&mut bridge, PM_BASE.into()), 0x601);
        }
        assert_eq!(dword(&mut bridge, ACPI_CONTROL.into()) & 0xff, 0x80);
    }

    #[test]
    fn notes_of_routing_are_kept_until_a_reset_and_over_a_save() {
        let mut bridge = LpcBridge::new(0x600);
        let _ = bridge.write_config(0x60, &[10, 10, 11, 0xff]);
        assert_eq!(dword(&mut bridge, 0x60), 0x8f0b_0a0a);
        let mut other = LpcBridge::new(0x600);
        other.restore(1, &bridge.save()).unwrap();
        assert_eq!(dword(&mut other, 0x60), 0x8f0b_0a0a);
        bridge.reset();
        assert_eq!(dword(&mut bridge, 0x60), 0x8080_8080);
        assert!(other.restore(1, &[]).is_err());
    }

    #[test]
    fn its_decoding_of_ports_and_memory_can_be_enabled() {
        let mut bridge = LpcBridge::new(0x600);
        assert_eq!(dword(&mut bridge, 4) & 0xffff, 0);
        assert_eq!(bridge.write_config(4, &[3, 0]), Change::Nothing);
        assert_eq!(dword(&mut bridge, 4) & 0xffff, 3);
    }

    #[test]
    fn the_root_complex_registers_stay_nowhere() {
        let mut bridge = LpcBridge::new(0x600);
        let _ = bridge.write_config(0xf0, &0xfed1_c001_u32.to_le_bytes());
        assert_eq!(dword(&mut bridge, 0xf0), 0);
    }
}
