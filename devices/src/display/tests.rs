use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::registers::{self, MODE, VGA_PORTS};
use super::*;
use crate::bus::{BusDevice, MmioAddress, MmioBus};
use crate::pci::root::{Ecam, Root, Windows};
use crate::pci::{PciFunction, Slot};
use crate::power::Reset;
use crate::shared::{Shared, lock, share};
use crate::state::Saveable;

const WINDOW: Range<u64> = 0xc000_0000..0xd000_0000;
const MEMORY: u64 = 0xc100_0000;
const REGISTERS: u64 = 0xc300_0000;

/// Where the worker was told to put video memory.
#[derive(Debug, Default)]
struct Moves(Mutex<Vec<Option<u64>>>);

impl VideoMemorySlot for Moves {
    fn place(&self, address: u64) {
        self.0.lock().unwrap().push(Some(address));
    }

    fn take_away(&self) {
        self.0.lock().unwrap().push(None);
    }
}

struct Rig {
    mmio: Arc<MmioBus>,
    root: Root,
    function: Shared<DisplayFunction>,
    moves: Arc<Moves>,
    framebuffer: Framebuffer,
}

fn function(moves: &Arc<Moves>) -> DisplayFunction {
    DisplayFunction::new(DisplayParams {
        width: 1024,
        height: 768,
        rom: vec![0x55, 0xaa, 3],
        memory: VideoMemory::new().unwrap(),
        slot: Some(Arc::clone(moves) as _),
    })
    .unwrap()
}

impl Rig {
    fn new() -> Self {
        let mmio = Arc::new(MmioBus::new());
        let windows = Windows {
            memory32: WINDOW,
            memory64: 0..0,
        };
        let root = Root::new(Arc::clone(&mmio), windows);
        let moves = Arc::new(Moves::default());
        let function = share(function(&moves));
        let slot = Slot::new(2).unwrap();
        root.insert(slot, Shared::clone(&function) as _).unwrap();
        let framebuffer = lock(&function).framebuffer();
        let rig = Self {
            mmio,
            root,
            function,
            moves,
            framebuffer,
        };
        rig.config(0x10, &0xc100_0000_u32.to_le_bytes());
        rig.config(0x18, &0xc300_0000_u32.to_le_bytes());
        rig
    }

    fn config(&self, register: u16, data: &[u8]) {
        let mut ecam = Ecam::new(self.root.clone());
        ecam.write(2 << 15 | u64::from(register), data).unwrap();
    }

    fn enable(&self) {
        self.config(4, &[2, 0]);
    }

    fn set(&self, register: u64, value: u16) {
        let place = MmioAddress(REGISTERS + MODE + 2 * register);
        assert!(self.mmio.write(place, &value.to_le_bytes()));
    }

    fn get<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        assert!(self.mmio.read(MmioAddress(REGISTERS + offset), &mut bytes));
        bytes
    }

    fn show(&self, width: u16, height: u16, depth: u16) {
        self.set(4, 0);
        for (register, value) in [(1, width), (2, height), (3, depth), (6, width)] {
            self.set(register, value);
        }
        self.set(4, 0x41);
    }

    fn line(&self, line: u16) -> Vec<u32> {
        let mode = self.framebuffer.mode().unwrap();
        let mut pixels = vec![0; mode.width().into()];
        let mut scratch = Vec::new();
        self.framebuffer
            .read_line(&mode, line, &mut pixels, &mut scratch);
        pixels
    }
}

#[test]
fn what_firmware_and_kernels_look_for_is_there() {
    let rig = Rig::new();
    let config = |register| {
        let mut bytes = [0; 4];
        lock(&rig.function).read_config(register, &mut bytes);
        u32::from_le_bytes(bytes)
    };
    assert_eq!(config(0), 0x1111_1234);
    assert_eq!(config(8) >> 8, 0x03_80_00);
    assert_eq!(config(0x2c), 0x1100_1af4);
    rig.enable();
    assert_eq!(rig.get(MODE), 0xb0c5_u16.to_le_bytes());
    assert_eq!(u16::from_le_bytes(rig.get(MODE + 20)), 256);
    assert_eq!(rig.get(0x600), 8_u32.to_le_bytes());
    assert_eq!(rig.get(0x604), 0x1e1e_1e1e_u32.to_le_bytes());
    // Unblanking the VGA that is not there, as Linux does.
    let port = MmioAddress(REGISTERS + VGA_PORTS);
    assert!(rig.mmio.write(port, &[0x20]));
    rig.config(4, &[7, 0]);
    assert_eq!(config(4) & 7, 7, "UEFI enables ports as well");
}

#[test]
fn the_monitor_prefers_the_mode_that_it_was_made_for() {
    let rig = Rig::new();
    rig.enable();
    let edid: Vec<u8> = (0..128).map(|offset| rig.get::<1>(offset)[0]).collect();
    assert_eq!(edid[..8], [0, 255, 255, 255, 255, 255, 255, 0]);
    let sum = edid.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!(sum, 0);
    let twelve = |low: usize, high: usize, shift: u32| {
        u32::from(edid[low]) | u32::from(edid[high] >> shift & 15) << 8
    };
    let timing = 54;
    assert_eq!(twelve(timing + 2, timing + 4, 4), 1024);
    assert_eq!(twelve(timing + 5, timing + 7, 4), 768);
    let clock = u32::from(edid[timing]) | u32::from(edid[timing + 1]) << 8;
    assert_eq!(clock, 1184 * 798 * 60 / 10_000);
    assert_eq!(edid[126], 0);
    assert_eq!(rig.get(128), [0_u8; 4]);
}

#[test]
fn a_picture_is_what_the_guest_has_drawn() {
    let rig = Rig::new();
    rig.enable();
    assert_eq!(rig.framebuffer.mode(), None);
    rig.show(1024, 768, 32);
    let at = |pixel: u64| MmioAddress(MEMORY + 4 * pixel);
    assert!(rig.mmio.write(at(0), &0xff12_3456_u32.to_le_bytes()));
    assert!(rig.mmio.write(at(1024 * 767 + 1023), &[1, 2, 3, 4]));
    let mode = rig.framebuffer.mode().unwrap();
    assert_eq!((mode.width(), mode.height()), (1024, 768));
    assert_eq!(rig.line(0)[..2], [0x12_3456, 0]);
    assert_eq!(rig.line(767)[1023], 0x03_0201);
    assert_eq!(rig.line(768), vec![0; 1024]);
    // Two lines further down, one pixel to the right.
    rig.set(8, 1);
    rig.set(9, 2);
    rig.set(6, 1025);
    assert!(rig.mmio.write(at(2 * 1025 + 1), &7_u32.to_le_bytes()));
    assert_eq!(rig.line(0)[0], 7);
}

#[test]
fn sixteen_bits_become_twenty_four() {
    let rig = Rig::new();
    rig.enable();
    rig.show(640, 480, 16);
    for (pixel, raw) in [0xffff_u16, 0xf800, 0x07e0, 0x001f, 0x0841]
        .iter()
        .enumerate()
    {
        let place = MmioAddress(MEMORY + 2 * pixel as u64);
        assert!(rig.mmio.write(place, &raw.to_le_bytes()));
    }
    let expected = [0xff_ffff, 0xff_0000, 0xff00, 0xff, 0x08_0808];
    assert_eq!(rig.line(0)[..5], expected);
}

#[test]
fn registers_that_mean_no_picture_show_none() {
    let rig = Rig::new();
    rig.enable();
    for (width, height, depth) in [
        (0, 768, 32),
        (1024, 0, 32),
        (1024, 768, 24),
        (1024, 768, 0),
        (2561, 600, 32),
        (640, 1601, 16),
        (65535, 65535, 32),
    ] {
        rig.show(width, height, depth);
        assert_eq!(rig.framebuffer.mode(), None, "{width}x{height}x{depth}");
    }
    rig.show(2560, 1600, 32);
    assert!(rig.framebuffer.mode().is_some());
    for (register, value) in [(6, 4096), (6, u16::MAX), (9, u16::MAX), (4, 0)] {
        rig.show(2560, 1600, 32);
        rig.set(register, value);
        assert_eq!(rig.framebuffer.mode(), None, "register {register}");
        rig.set(8, 0);
        rig.set(9, 0);
    }
}

#[test]
fn what_is_no_register_takes_no_write_and_reads_as_zero() {
    let rig = Rig::new();
    rig.enable();
    for (offset, len) in [
        (MODE + 1, 2),
        (MODE, 4),
        (MODE, 1),
        (MODE + 22, 2),
        (0, 2),
        (0x420, 2),
    ] {
        let place = MmioAddress(REGISTERS + offset);
        assert!(!rig.mmio.write(place, &[0xff; 4][..len]), "{offset:#x}");
    }
    assert_eq!(rig.get(MODE + 22), [0_u8; 2]);
    assert_eq!(rig.get(registers::BYTES - 8), [0_u8; 8]);
    assert_eq!(rig.get(MODE), 0xb0c5_u16.to_le_bytes());
    let beyond = MmioAddress(REGISTERS + registers::BYTES - 2);
    assert!(!rig.mmio.read(beyond, &mut [0; 4]));
}

#[test]
fn the_worker_is_told_where_video_memory_is() {
    let rig = Rig::new();
    let moves = || std::mem::take(&mut *rig.moves.0.lock().unwrap());
    assert_eq!(moves(), []);
    rig.enable();
    assert_eq!(moves(), [Some(MEMORY)]);
    // As its length is found out; only with what is decoded.
    rig.config(0x10, &[0xff; 4]);
    assert_eq!(moves(), [None]);
    rig.config(0x10, &0xc400_0000_u32.to_le_bytes());
    assert_eq!(moves(), [Some(0xc400_0000)]);
    // On top of the other BAR: it waits.
    rig.config(0x10, &0xc300_0000_u32.to_le_bytes());
    assert_eq!(moves(), [None]);
    rig.config(0x18, &0xc100_0000_u32.to_le_bytes());
    assert_eq!(moves(), [Some(0xc300_0000)]);
    rig.root.clone().reset();
    assert_eq!(moves(), [None]);
}

#[test]
fn a_reset_takes_the_picture_and_a_record_brings_it_back() {
    let rig = Rig::new();
    rig.enable();
    rig.show(800, 600, 32);
    let saved = lock(&rig.function).save();
    let mode = rig.framebuffer.mode();
    let mut other = function(&Arc::new(Moves::default()));
    other.restore(1, &saved).unwrap();
    assert_eq!(other.save(), saved);
    assert_eq!(other.framebuffer().mode(), mode);
    rig.root.clone().reset();
    assert_eq!(rig.framebuffer.mode(), None);
    assert!(other.restore(2, &saved).is_err());
    assert!(other.restore(1, &saved[1..]).is_err());
    assert!(other.restore(1, &[&saved[..], &[0]].concat()).is_err());
    assert_eq!(other.save(), saved);
}

#[test]
fn firmware_finds_the_rom_where_it_puts_it() {
    let rig = Rig::new();
    rig.config(0x30, &[0xff, 0xff, 0xff, 0xff]);
    let mut size = [0; 4];
    lock(&rig.function).read_config(0x30, &mut size);
    assert_eq!(u32::from_le_bytes(size), 0xffff_0001);
    let address = MmioAddress(0xc400_0000);
    rig.config(0x30, &0xc400_0001_u32.to_le_bytes());
    let mut bytes = [0; 4];
    assert!(!rig.mmio.read(address, &mut bytes), "memory is not decoded");
    rig.enable();
    assert!(rig.mmio.read(address, &mut bytes));
    assert_eq!(bytes, [0x55, 0xaa, 3, 0xff]);
    assert!(!rig.mmio.write(address, &[0; 4]));
    assert!(rig.mmio.read(MmioAddress(0xc400_fffc), &mut bytes));
    assert_eq!(bytes, [0xff; 4]);
    rig.config(0x30, &0xc400_0000_u32.to_le_bytes());
    assert!(!rig.mmio.read(address, &mut bytes));
}
