//! Tests of the firmware configuration device, as firmware uses it and as a hostile guest does.

use proptest::prelude::*;

use super::*;
use crate::memory::testing::ram;

const RAM: usize = 64 << 10;
const DESCRIPTION: u64 = 0x1000;
const TARGET: u64 = 0x2000;

fn device() -> FwCfg {
    let mut items = Items::new();
    items.add(key::CPUS, vec![2, 0]);
    items.add_file("etc/second", b"second".to_vec()).unwrap();
    items.add_file("etc/first", (0..200).collect()).unwrap();
    let mut device = FwCfg::new(ram(RAM));
    device.set_items(items);
    device
}

fn select(device: &mut FwCfg, key: u16) {
    device.write(SELECTOR, &key.to_le_bytes()).unwrap();
}

fn read(device: &mut FwCfg, count: usize) -> Vec<u8> {
    let mut next = || {
        let mut byte = [0xee];
        device.read(DATA, &mut byte).unwrap();
        byte[0]
    };
    (0..count).map(|_| next()).collect()
}

/// The directory as firmware reads it: names with length and key.
fn directory(device: &mut FwCfg) -> Vec<(String, u32, u16)> {
    select(device, key::DIRECTORY);
    let count = u32::from_be_bytes(read(device, 4).try_into().unwrap());
    let mut entry = || {
        let entry = read(device, ENTRY_LEN);
        let name = entry[8..].split(|byte| *byte == 0).next().unwrap();
        (
            String::from_utf8(name.to_vec()).unwrap(),
            u32::from_be_bytes(entry[..4].try_into().unwrap()),
            u16::from_be_bytes(entry[4..6].try_into().unwrap()),
        )
    };
    (0..count).map(|_| entry()).collect()
}

const ENTRY_LEN: usize = 64;

/// Has a transfer done, and gives what its control field then says.
fn transfer(device: &mut FwCfg, control: u32, len: u32, target: u64) -> u32 {
    let description = [
        control.to_be_bytes().as_slice(),
        &len.to_be_bytes(),
        &target.to_be_bytes(),
    ]
    .concat();
    device.ram.write(DESCRIPTION, &description).unwrap();
    let low = u32::try_from(DESCRIPTION).unwrap();
    device.write(DMA_LOW, &low.to_be_bytes()).unwrap();
    let mut answer = [0; 4];
    device.ram.read(DESCRIPTION, &mut answer).unwrap();
    u32::from_be_bytes(answer)
}

fn at_target(device: &FwCfg, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    device.ram.read(TARGET, &mut bytes).unwrap();
    bytes
}

#[test]
fn firmware_finds_the_device_and_its_dma() {
    let mut device = device();
    select(&mut device, key::SIGNATURE);
    assert_eq!(read(&mut device, 6), b"QEMU\0\0");
    select(&mut device, key::ID);
    assert_eq!(read(&mut device, 4), [3, 0, 0, 0]);
    let (mut high, mut low) = ([0; 4], [0; 4]);
    device.read(DMA_HIGH, &mut high).unwrap();
    device.read(DMA_LOW, &mut low).unwrap();
    assert_eq!([high, low].concat(), b"QEMU CFG");
}

#[test]
fn files_are_listed_by_name_and_read_by_key() {
    let mut device = device();
    let files = directory(&mut device);
    assert_eq!(
        files,
        [
            ("etc/first".to_owned(), 200, 0x20),
            ("etc/second".to_owned(), 6, 0x21)
        ]
    );
    select(&mut device, 0x21);
    assert_eq!(read(&mut device, 8), b"second\0\0");
    select(&mut device, key::CPUS);
    assert_eq!(read(&mut device, 2), [2, 0]);
    select(&mut device, 0x4000);
    assert_eq!(read(&mut device, 2), [0, 0]);
}

#[test]
fn a_transfer_selects_skips_and_reads() {
    let mut device = device();
    let select_first = 0x20 << 16 | CONTROL_SELECT;
    assert_eq!(transfer(&mut device, select_first | CONTROL_SKIP, 5, 0), 0);
    assert_eq!(transfer(&mut device, CONTROL_READ, 3, TARGET), 0);
    assert_eq!(at_target(&device, 4), [5, 6, 7, 0]);
    assert_eq!(
        transfer(&mut device, select_first | CONTROL_READ, 2, TARGET),
        0
    );
    assert_eq!(at_target(&device, 3), [0, 1, 7]);
}

#[test]
fn behind_the_end_there_are_zeros() {
    let mut device = device();
    device.ram.write(TARGET, &[0xaa; 9000]).unwrap();
    let control = 0x21 << 16 | CONTROL_SELECT | CONTROL_READ;
    assert_eq!(transfer(&mut device, control, 8999, TARGET), 0);
    let bytes = at_target(&device, 9000);
    assert_eq!(bytes[..6], *b"second");
    assert!(bytes[6..8999].iter().all(|byte| *byte == 0));
    assert_eq!(bytes[8999], 0xaa);
    assert_eq!(transfer(&mut device, CONTROL_SKIP, u32::MAX, 0), 0);
    assert_eq!(device.offset, 6);
}

#[test]
fn what_cannot_be_done_is_an_error_and_changes_nothing() {
    let mut device = device();
    let control = 0x20 << 16 | CONTROL_SELECT | CONTROL_READ;
    let end = RAM as u64;
    for (len, target) in [
        (1, end),
        (2, end - 1),
        (200, u64::MAX - 100),
        (u32::MAX, 0),
        (MAX_TRANSFER + 1, 0),
    ] {
        let answer = transfer(&mut device, control, len, target);
        assert_eq!(answer, CONTROL_ERROR, "{len:#x} {target:#x}");
        assert_eq!(device.offset, 0);
    }
    let write = 0x20 << 16 | CONTROL_SELECT | CONTROL_WRITE;
    assert_eq!(transfer(&mut device, write, 1, TARGET), CONTROL_ERROR);
    select(&mut device, 0x20);
    device.write(DATA, &[0x55]).unwrap();
    assert_eq!(read(&mut device, 2), [0, 1]);
}

#[test]
fn a_description_outside_ram_is_ignored() {
    let mut device = device();
    for address in [RAM as u64, RAM as u64 - 15, u64::MAX - 3, 1 << 40] {
        let bytes = address.to_be_bytes();
        device.write(DMA_HIGH, &bytes[..4]).unwrap();
        device.write(DMA_LOW, &bytes[4..]).unwrap();
        assert_eq!(device.dma_high, 0);
    }
}

#[test]
fn other_accesses_are_refused() {
    let mut device = device();
    assert_eq!(device.read(SELECTOR, &mut [0; 2]), Err(AccessError));
    assert_eq!(device.read(DATA, &mut [0; 2]), Err(AccessError));
    assert_eq!(device.read(2, &mut [0]), Err(AccessError));
    assert_eq!(device.read(DMA_LOW, &mut [0; 8]), Err(AccessError));
    assert_eq!(device.write(SELECTOR, &[0]), Err(AccessError));
    assert_eq!(device.write(DMA_LOW, &[0; 2]), Err(AccessError));
    assert_eq!(device.write(6, &[0; 4]), Err(AccessError));
}

struct Counts(std::sync::atomic::AtomicU8);

impl Render for Counts {
    fn render(&self, bytes: &mut [u8]) {
        bytes.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    }
}

#[test]
fn a_live_file_is_made_when_it_is_selected() {
    let mut device = device();
    let mut items = Items::new();
    items
        .add_live_file("live", vec![0; 2], Box::new(Counts(7.into())))
        .unwrap();
    device.set_items(items);
    select(&mut device, 0x20);
    assert_eq!(read(&mut device, 3), [7, 7, 0]);
    select(&mut device, 0x20);
    assert_eq!(read(&mut device, 1), [8]);
}

#[test]
fn names_are_checked() {
    let mut items = Items::new();
    let longest = "n".repeat(MAX_NAME);
    assert_eq!(items.add_file(&longest, vec![]), Ok(()));
    for name in ["", "a\0b", &longest, &"n".repeat(MAX_NAME + 1)] {
        assert_eq!(items.add_file(name, vec![]), Err(ItemsError::Name));
    }
}

#[test]
fn state_goes_on_where_it_was() {
    let mut old = device();
    select(&mut old, 0x20);
    read(&mut old, 3);
    let mut new = device();
    new.restore(1, &old.save()).unwrap();
    assert_eq!(read(&mut new, 2), [3, 4]);
    assert!(new.restore(1, &[0; 9]).is_err());
    assert!(new.restore(2, &old.save()).is_err());
    new.reset();
    assert_eq!(new.save(), [0; 10]);
}

proptest! {
    /// Whatever is written to the ports, and whatever lies in memory, nothing panics and the place where
    /// reading goes on stays inside the item.
    #[test]
    fn any_accesses_hold(
        accesses in proptest::collection::vec(
            (any::<bool>(), 0u64..16, 0usize..4, any::<u64>()), 0..60),
        memory in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut device = device();
        device.ram.write(0, &memory).unwrap();
        for (write, offset, width, value) in accesses {
            let len = 1 << width;
            if write {
                // Addresses that are low often point into what lies in memory.
                let value = if value % 2 == 0 { value } else { value % 48 };
                let _ = device.write(offset, &value.to_be_bytes()[8 - len..]);
            } else {
                let _ = device.read(offset, &mut vec![0; len]);
            }
            let len = device.items.bytes(device.selected).len();
            prop_assert!(usize::try_from(device.offset).unwrap() <= len);
        }
    }
}
