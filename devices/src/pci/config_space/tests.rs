use proptest::prelude::*;

use super::*;
use crate::state::{StateError, StateReader, StateWriter};

const IDENTITY: Identity = Identity {
    vendor: 0x1af4,
    device: 0x1042,
    revision: 1,
    class: 0x01_80_00,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

fn space() -> ConfigSpace {
    let mut space = ConfigSpace::new(IDENTITY);
    space.add_memory_bar(0, 0x4000, BarWidth::Bits64).unwrap();
    space.add_memory_bar(2, 0x1000, BarWidth::Bits32).unwrap();
    space.set_bar_address(0, 0x80_0000_0000).unwrap();
    space.set_bar_address(2, 0xe000_0000).unwrap();
    space
}

fn read(space: &ConfigSpace, register: u16) -> u32 {
    let mut data = [0; 4];
    space.read(register, &mut data);
    u32::from_le_bytes(data)
}

fn write(space: &mut ConfigSpace, register: u16, value: u32) -> Change {
    space.write(register, &value.to_le_bytes())
}

fn decode(space: &ConfigSpace, bytes: &[u8]) -> Result<ConfigStateV1, StateError> {
    let mut reader = StateReader::new(bytes);
    let state = ConfigStateV1::decode(&mut reader, space)?;
    reader.finish()?;
    Ok(state)
}

fn encode(space: &ConfigSpace) -> Vec<u8> {
    let mut writer = StateWriter::new();
    space.state().encode(&mut writer);
    writer.finish()
}

#[test]
fn the_header_says_what_the_function_is() {
    let space = space();
    assert_eq!(read(&space, 0x00), 0x1042_1af4);
    assert_eq!(read(&space, 0x08), 0x0180_0001);
    assert_eq!(read(&space, 0x2c), 0x1100_1af4);
    // A single-function type 0 header, without interrupt pin, capabilities and expansion ROM.
    for register in [0x04, 0x0c, 0x30, 0x34, 0x3c] {
        assert_eq!(read(&space, register), 0, "register {register:#x}");
    }
}

#[test]
fn the_guest_cannot_write_what_is_not_its_own() {
    let mut space = space();
    let before = space.clone();
    for register in (0..4096).step_by(4) {
        let _ = write(&mut space, register, 0xffff_ffff);
    }
    assert_eq!(read(&space, 0x00), read(&before, 0x00));
    assert_eq!(read(&space, 0x04), 0x0406);
    assert_eq!(read(&space, 0x08), read(&before, 0x08));
    assert_eq!(read(&space, 0x0c), 0xff);
    assert_eq!(read(&space, 0x3c), 0xff);
    for register in (0x40..4096).step_by(4) {
        assert_eq!(read(&space, register), 0);
    }
}

#[test]
fn all_ones_written_to_a_bar_give_its_size() {
    let mut space = space();
    for register in [0x10, 0x14, 0x18, 0x1c] {
        let _ = write(&mut space, register, 0xffff_ffff);
    }
    assert_eq!(read(&space, 0x10), 0xffff_c004);
    assert_eq!(read(&space, 0x14), 0xffff_ffff);
    assert_eq!(read(&space, 0x18), 0xffff_f000);
    assert_eq!(read(&space, 0x1c), 0);
}

#[test]
fn bars_are_decoded_only_with_memory_space_enabled() {
    let mut space = space();
    assert_eq!([0, 1, 2, 6, 255].map(|bar| space.bar(bar)), [None; 5]);
    assert_eq!(space.write(4, &[0x02]), Change::Decoding);
    assert_eq!(space.bar(0), Some(0x80_0000_0000));
    assert_eq!(space.bar(1), None);
    assert_eq!(space.bar(2), Some(0xe000_0000));
    assert_eq!(space.write(4, &[0x06, 0x04]), Change::Nothing);
    assert!(space.bus_master());
    assert_eq!(write(&mut space, 0x14, 0x81), Change::Decoding);
    assert_eq!(space.bar(0), Some(0x81_0000_0000));
    assert_eq!(space.write(4, &[0, 0]), Change::Decoding);
    assert_eq!(space.bar(0), None);
    assert_eq!(write(&mut space, 0x14, 0x80), Change::Nothing);
    assert!(!space.bus_master());
}

#[test]
fn a_bar_at_the_end_of_the_address_space_is_not_decoded() {
    let mut space = space();
    let _ = space.write(4, &[0x02]);
    let _ = write(&mut space, 0x10, 0xffff_ffff);
    let _ = write(&mut space, 0x14, 0xffff_ffff);
    assert_eq!(space.bar(0), None);
    let _ = write(&mut space, 0x10, 0xffff_8000);
    assert_eq!(space.bar(0), Some(0xffff_ffff_ffff_8000));
}

#[test]
fn bars_that_cannot_be_are_refused() {
    let mut space = space();
    for (index, width) in [
        (0, BarWidth::Bits32),
        (1, BarWidth::Bits32),
        (2, BarWidth::Bits64),
        (5, BarWidth::Bits64),
        (6, BarWidth::Bits32),
        (255, BarWidth::Bits64),
    ] {
        let refusal = Err(LayoutError::Bar { index });
        assert_eq!(space.add_memory_bar(index, 0x1000, width), refusal);
    }
    for (size, width) in [
        (0, BarWidth::Bits64),
        (0x800, BarWidth::Bits32),
        (0x3000, BarWidth::Bits32),
        (1 << 32, BarWidth::Bits32),
    ] {
        let refusal = Err(LayoutError::BarSize { index: 3, size });
        assert_eq!(space.add_memory_bar(3, size, width), refusal);
    }
    assert_eq!(space.add_memory_bar(4, 1 << 63, BarWidth::Bits64), Ok(()));
    for (index, address) in [
        (0, 0x2000),
        (0, 0xffff_ffff_ffff_e000),
        (1, 0),
        (2, 1 << 32),
        (3, 0x1000),
        (6, 0x1000),
    ] {
        let refusal = Err(LayoutError::BarAddress { index, address });
        assert_eq!(space.set_bar_address(index, address), refusal);
    }
}

#[test]
fn capabilities_are_a_list_in_the_order_in_which_they_were_added() {
    let mut space = space();
    let first = space.add_capability(0x09, &[1, 2, 3], &[0, 0xf0, 0]);
    let second = space.add_pci_express();
    assert_eq!((first, second), (Ok(0x40), Ok(0x48)));
    assert_eq!(read(&space, 0x04), 0x0010_0000);
    assert_eq!(read(&space, 0x34), 0x40);
    assert_eq!(read(&space, 0x40), 0x0201_4809);
    assert_eq!(read(&space, 0x48), 0x0092_0010);
    assert_eq!(read(&space, 0x50), 0x2810);
    let _ = write(&mut space, 0x40, 0x0707_0707);
    assert_eq!(read(&space, 0x40), 0x0201_4809);
    let _ = write(&mut space, 0x40, 0xffff_ffff);
    assert_eq!(read(&space, 0x40), 0xf201_4809);
}

#[test]
fn capabilities_end_where_the_space_does() {
    let mut space = space();
    let refusal = |len| Err(LayoutError::Capability { id: 9, len });
    assert_eq!(space.add_capability(9, &[0; 191], &[0; 191]), refusal(191));
    assert_eq!(space.add_capability(9, &[0; 4], &[0; 3]), refusal(4));
    assert_eq!(read(&space, 0x04), 0);
    assert_eq!(space.add_capability(9, &[7; 190], &[0; 190]), Ok(0x40));
    assert_eq!(space.add_capability(9, &[], &[]), refusal(0));
    assert_eq!(read(&space, 0xfc), 0x0707_0707);
    assert_eq!(read(&space, 0x40), 0x0707_0009);
}

#[test]
fn reset_brings_the_assigned_addresses_back() {
    let mut space = space();
    let before = space.state();
    for register in (0..256).step_by(4) {
        let _ = write(&mut space, register, 0xffff_ffff);
    }
    space.reset();
    assert_eq!(space.state(), before);
    assert_eq!(read(&space, 0x14), 0x80);
    assert_eq!(read(&space, 0x18), 0xe000_0000);
}

#[test]
fn saved_state_comes_back() {
    let mut saved = space();
    let _ = saved.write(4, &[0x06]);
    let _ = write(&mut saved, 0x18, 0xe100_0000);
    let _ = saved.write(0x3c, &[11]);
    let mut restored = space();
    let state = decode(&restored, &encode(&saved)).unwrap();
    restored.set_state(&state);
    assert_eq!(restored.state(), saved.state());
    assert_eq!(restored.bar(2), Some(0xe100_0000));
    restored.reset();
    assert_eq!(restored.state(), space().state());
}

#[test]
fn saved_state_of_another_function_is_refused() {
    let space = space();
    let good = encode(&space);
    for (place, value) in [
        (0x00, 0xf5),
        (0x10, 0x00),
        (0x3d, 1),
        (0x34, 0x40),
        (0xff, 1),
    ] {
        let mut bytes = good.clone();
        bytes[place] = value;
        let refusal = Err(StateError::Invalid { field: "registers" });
        assert_eq!(decode(&space, &bytes), refusal, "byte {place:#x}");
    }
    assert_eq!(decode(&space, &good[..255]), Err(StateError::Truncated));
}

proptest! {
    #[test]
    fn no_access_panics_or_touches_what_is_read_only(
        register: u16,
        data in proptest::collection::vec(any::<u8>(), 0..9),
    ) {
        let mut space = space();
        space.add_pci_express().unwrap();
        let before = space.clone();
        let decoded = [0, 1, 2, 3, 4, 5].map(|bar| space.bar(bar));
        let change = space.write(register, &data);
        let now = [0, 1, 2, 3, 4, 5].map(|bar| space.bar(bar));
        prop_assert_eq!(change == Change::Decoding, decoded != now);
        let mut back = vec![0; data.len()];
        space.read(register, &mut back);
        // What the guest has made of it is a state that can be saved and restored.
        prop_assert_eq!(decode(&before, &encode(&space)).unwrap(), space.state());
    }

    #[test]
    fn hostile_saved_state_is_refused_or_one_the_guest_could_have_made(
        flips in proptest::collection::vec((0_usize..256, any::<u8>()), 0..8),
    ) {
        let mut ours = space();
        let mut bytes = encode(&ours);
        for (place, value) in flips {
            bytes[place] = value;
        }
        let mut guest = space();
        for (register, byte) in (0..).zip(&bytes) {
            let _ = guest.write(register, &[*byte]);
        }
        match decode(&ours, &bytes) {
            Ok(state) => {
                ours.set_state(&state);
                prop_assert_eq!(ours.state(), guest.state());
            }
            Err(error) => prop_assert_eq!(error, StateError::Invalid { field: "registers" }),
        }
    }
}
