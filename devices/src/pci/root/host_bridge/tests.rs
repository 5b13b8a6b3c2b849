//! Tests of the memory controller hub: what firmware does with it, and what a hostile guest does.

use proptest::prelude::*;

use super::super::{ConfigPorts, Root, Windows};
use crate::bus::{BusDevice, MmioAddress, MmioBus};
use crate::legacy::reset::ResetControl;
use crate::pci::Slot;
use crate::power::Reset;
use crate::shared::share;
use crate::state::Saveable;
use crate::testing::RecordPower;
use std::sync::Arc;

const WINDOW: std::ops::Range<u64> = 0x8000_0000..0xfec0_0000;

fn machine() -> (Arc<MmioBus>, Root, ConfigPorts) {
    let mmio = Arc::new(MmioBus::new());
    let windows = Windows {
        memory32: WINDOW,
        memory64: 0..0,
    };
    let root = Root::with_memory_controller(Arc::clone(&mmio), windows);
    let reset = share(ResetControl::new(Arc::new(RecordPower::default())));
    let ports = ConfigPorts::new(root.clone(), reset);
    (mmio, root, ports)
}

fn write(ports: &mut ConfigPorts, register: u8, value: u32) {
    let address = 0x8000_0000 | u32::from(register);
    ports.write(0, &address.to_le_bytes()).unwrap();
    ports.write(4, &value.to_le_bytes()).unwrap();
}

fn read(ports: &mut ConfigPorts, register: u8) -> u32 {
    let address = 0x8000_0000 | u32::from(register);
    ports.write(0, &address.to_le_bytes()).unwrap();
    let mut value = [0; 4];
    ports.read(4, &mut value).unwrap();
    u32::from_le_bytes(value)
}

/// The id of the host bridge as memory at `address` has it.
fn id_at(mmio: &MmioBus, address: u64) -> u32 {
    let mut id = [0; 4];
    mmio.read(MmioAddress(address), &mut id);
    u32::from_le_bytes(id)
}

#[test]
fn configuration_space_is_where_either_firmware_puts_it() {
    let (mmio, root, mut ports) = machine();
    let place = root.ecam_place().unwrap();
    assert_eq!(place.base(), None);
    assert_eq!(read(&mut ports, 0), 0x29c0_8086);
    // SeaBIOS, and then UEFI firmware, which disables it first.
    for (low, base) in [(0xb000_0001, 0xb000_0000), (0xe000_0001, 0xe000_0000)] {
        write(&mut ports, 0x60, 0);
        assert_eq!(place.base(), None);
        write(&mut ports, 0x64, 0);
        write(&mut ports, 0x60, low);
        assert_eq!(place.base(), Some(base));
        assert_eq!(id_at(&mmio, base), 0x29c0_8086);
        assert_eq!(id_at(&mmio, base + (1 << 20)), u32::MAX);
    }
    assert_eq!(id_at(&mmio, 0xb000_0000), u32::MAX);
    root.clone().reset();
    assert_eq!(place.base(), None);
    assert_eq!(id_at(&mmio, 0xe000_0000), u32::MAX);
}

#[test]
fn it_can_be_moved_by_itself() {
    let (mmio, root, mut ports) = machine();
    write(&mut ports, 0x60, 0xb000_0001);
    mmio.write(MmioAddress(0xb000_0060), &0xc000_0001_u32.to_le_bytes());
    assert_eq!(root.ecam_place().unwrap().base(), Some(0xc000_0000));
    assert_eq!(id_at(&mmio, 0xc000_0000), 0x29c0_8086);
    assert_eq!(id_at(&mmio, 0xb000_0000), u32::MAX);
}

#[test]
fn it_is_nowhere_outside_the_window_and_of_no_other_length() {
    let (_, root, mut ports) = machine();
    let place = root.ecam_place().unwrap();
    for low in [
        1,
        0x7000_0001,
        // Its end is behind the window's.
        0xf000_0001,
        0xb000_0003,
        0xb000_0005,
        0xb000_0000,
    ] {
        write(&mut ports, 0x60, low);
        assert_eq!(place.base(), None, "{low:#x}");
    }
}

#[test]
fn it_is_never_above_4_gib() {
    let windows = Windows {
        memory32: WINDOW,
        memory64: 1 << 32..1 << 40,
    };
    let root = Root::with_memory_controller(Arc::new(MmioBus::new()), windows);
    let reset = share(ResetControl::new(Arc::new(RecordPower::default())));
    let mut ports = ConfigPorts::new(root.clone(), reset);
    write(&mut ports, 0x64, 0xf);
    assert_eq!(read(&mut ports, 0x64), 0);
    write(&mut ports, 0x60, 0xb000_0001);
    assert_eq!(root.ecam_place().unwrap().base(), Some(0xb000_0000));
}

#[test]
fn firmware_has_to_copy_itself_below_1_mib_after_each_reset() {
    let (_, root, mut ports) = machine();
    assert_eq!(read(&mut ports, 0x90) & 0x10, 0);
    write(&mut ports, 0x90, 0x3333_3330);
    assert_eq!(read(&mut ports, 0x90), 0x3333_3330);
    root.clone().reset();
    assert_eq!(read(&mut ports, 0x90), 0);
}

#[test]
fn a_restored_bridge_has_configuration_space_where_it_was_once_it_is_remapped() {
    let (_, root, mut ports) = machine();
    write(&mut ports, 0x60, 0xb000_0001);
    let saved = root.save();
    let (mmio, mut other, _) = machine();
    other.restore(root.schema().version, &saved).unwrap();
    assert_eq!(other.ecam_place().unwrap().base(), None);
    other.remap(Slot::HOST_BRIDGE);
    assert_eq!(other.ecam_place().unwrap().base(), Some(0xb000_0000));
    assert_eq!(id_at(&mmio, 0xb000_0000), 0x29c0_8086);
    // What could not have been written is refused.
    let mut changed = saved.clone();
    for byte in &mut changed {
        *byte = !*byte;
    }
    let version = root.schema().version;
    assert!(other.restore(version, &changed).is_err());
}

#[test]
fn the_bus_is_not_kept_by_what_is_on_it() {
    let (mmio, root, mut ports) = machine();
    write(&mut ports, 0x60, 0xb000_0001);
    drop((root, ports));
    assert_eq!(id_at(&mmio, 0xb000_0000), u32::MAX);
    assert_eq!(Arc::strong_count(&mmio), 1);
}

proptest! {
    /// Whatever is written to its registers, it is in the window or nowhere.
    #[test]
    fn any_writes_hold(writes in proptest::collection::vec((0u8..64, any::<u32>()), 0..40)) {
        let (mmio, root, mut ports) = machine();
        let place = root.ecam_place().unwrap();
        for (register, value) in writes {
            write(&mut ports, register << 2, value);
            if let Some(base) = place.base() {
                prop_assert!(WINDOW.start <= base && base + (256 << 20) <= WINDOW.end);
                prop_assert_eq!(id_at(&mmio, base), 0x29c0_8086);
            }
        }
    }
}
