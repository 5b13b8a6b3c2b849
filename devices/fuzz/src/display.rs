//! A display: its registers, its BARs and where they are moved to, and who looks at the picture meanwhile.

use std::sync::{Arc, Mutex};

use reeve_devices::bus::{BusDevice, MmioAddress, MmioBus};
use reeve_devices::display::{
    DisplayFunction, DisplayParams, Framebuffer, MAX_HEIGHT, MAX_WIDTH, VideoMemory,
    VideoMemorySlot, registers,
};
use reeve_devices::pci::Slot;
use reeve_devices::pci::root::{Ecam, Root, Windows};
use reeve_devices::power::Reset;
use reeve_devices::shared::{Shared, lock, share};
use reeve_devices::state::Saveable;

use super::input::Input;

/// The most steps of one input.
const STEPS: usize = 200;
/// Where BARs may be.
const WINDOW: std::ops::Range<u64> = 0xc000_0000..0xd000_0000;
const SLOT: u8 = 2;

/// Where the worker has video memory.
#[derive(Debug, Default)]
struct Place(Mutex<Option<u64>>);

impl VideoMemorySlot for Place {
    fn place(&self, address: u64) {
        let before = lock(&self.0).replace(address);
        assert_eq!(before, None, "it was taken away before");
    }

    fn take_away(&self) {
        assert!(lock(&self.0).take().is_some(), "it was there");
    }
}

struct Machine {
    mmio: Arc<MmioBus>,
    root: Root,
    ecam: Ecam,
    place: Arc<Place>,
    function: Shared<DisplayFunction>,
    framebuffer: Framebuffer,
}

impl Machine {
    fn new() -> Self {
        let mmio = Arc::new(MmioBus::new());
        let windows = Windows {
            memory32: WINDOW,
            memory64: 0..0,
        };
        let root = Root::new(Arc::clone(&mmio), windows);
        let place = Arc::new(Place::default());
        let params = DisplayParams {
            width: 1024,
            height: 768,
            rom: vec![0x55; 100],
            memory: VideoMemory::new().expect("memory"),
            slot: Some(Arc::clone(&place) as _),
        };
        let function = share(DisplayFunction::new(params).expect("a display"));
        let framebuffer = lock(&function).framebuffer();
        let slot = Slot::new(SLOT).expect("a slot");
        root.insert(slot, function.clone()).expect("a free slot");
        Self {
            mmio,
            ecam: Ecam::new(root.clone()),
            root,
            place,
            function,
            framebuffer,
        }
    }

    fn config(&mut self, register: u64, data: &[u8]) {
        let place = u64::from(SLOT) << 15 | register;
        self.ecam.write(place, data).expect("configuration space");
    }

    /// Where a BAR is, by its register.
    fn bar(&mut self, index: u64) -> u64 {
        let place = u64::from(SLOT) << 15 | (0x10 + 4 * index);
        let mut bytes = [0; 4];
        self.ecam.read(place, &mut bytes).expect("a register");
        u64::from(u32::from_le_bytes(bytes))
    }

    fn access(&self, address: u64, input: &mut Input<'_>) {
        let width = 1 << input.below(4);
        let value = input.u64().to_le_bytes();
        if input.u8() & 1 == 0 {
            self.mmio.read(MmioAddress(address), &mut vec![0; width]);
        } else {
            self.mmio.write(MmioAddress(address), &value[..width]);
        }
    }

    fn look(&self, input: &mut Input<'_>) {
        let Some(mode) = self.framebuffer.mode() else {
            return;
        };
        assert!((1..=MAX_WIDTH).contains(&mode.width()));
        assert!((1..=MAX_HEIGHT).contains(&mode.height()));
        let line = match input.u8() {
            0 => input.u16(),
            1 => mode.height() - 1,
            any => u16::from(any),
        };
        let mut pixels = vec![u32::MAX; input.below(3) * 700];
        let mut scratch = Vec::new();
        self.framebuffer
            .read_line(&mode, line, &mut pixels, &mut scratch);
        let seen = pixels.iter().take(mode.width().into());
        assert!(seen.copied().all(|pixel| pixel <= 0xff_ffff));
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 10 {
            0 => {
                let (place, width) = (u64::from(input.u16() & 0xffc), 1 << input.below(3));
                let value = input.u32().to_le_bytes();
                self.config(place, &value[..width]);
            }
            1 => {
                let bar = 0x10 + 4 * u64::from(input.u8() & 3);
                let address = 0xc000_0000 | u32::from(input.u16()) << 12;
                self.config(bar, &address.to_le_bytes());
                self.config(4, &[input.u8() | 2, 0]);
            }
            2 | 3 => {
                let address = self.bar(2) + u64::from(input.u16() & 0x1fff);
                self.access(address, input);
            }
            4 | 5 => {
                let register = registers::MODE + 2 * u64::from(input.u8() % 12);
                let value = match input.u8() & 3 {
                    0 => input.u16(),
                    1 => 32,
                    2 => 16 | u16::from(input.u8()) << 2,
                    _ => 1,
                };
                let place = MmioAddress(self.bar(2) + register);
                self.mmio.write(place, &value.to_le_bytes());
            }
            6 => {
                let address = self
                    .bar(0)
                    .wrapping_add(u64::from(input.u32() & 0x1ff_ffff));
                self.access(address, input);
            }
            7 | 8 => self.look(input),
            _ => match input.below(3) {
                0 => {
                    self.root.clone().reset();
                    assert_eq!(self.framebuffer.mode(), None);
                    assert_eq!(*lock(&self.place.0), None);
                }
                1 => {
                    let mut function = lock(&self.function);
                    let saved = function.save();
                    assert_eq!(function.restore(1, &saved), Ok(()));
                    assert_eq!(function.save(), saved);
                }
                _ => {
                    let mut saved = lock(&self.function).save();
                    let at = 256 + usize::from(input.u8());
                    match saved.get_mut(at) {
                        Some(byte) => *byte = input.u8(),
                        None => saved.truncate(at),
                    }
                    let _ = lock(&self.function).restore(1, &saved);
                }
            },
        }
        // What the guest can reach as memory, it can reach as a device too.
        if let Some(address) = *lock(&self.place.0) {
            assert!(WINDOW.start <= address && address + VideoMemory::BYTES <= WINDOW.end);
            assert!(self.mmio.read(MmioAddress(address), &mut [0; 8]));
        }
    }
}

/// What configuration space is reached by holds the bus.
impl Drop for Machine {
    fn drop(&mut self) {
        self.root.remove(Slot::new(SLOT).expect("a slot"));
    }
}

/// Does what the bytes say.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut machine = Machine::new();
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        machine.step(&mut input);
    }
}
