//! A flash: cycles that the guest makes as it likes, a store that fails at times, and records of other machines.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use reeve_devices::bus::BusDevice;
use reeve_devices::legacy::flash::{BLOCK_BYTES, Flash, FlashStore, NotKept};
use reeve_devices::memory::GuestRam;
use reeve_devices::power::Reset;
use reeve_devices::shared::lock;
use reeve_devices::state::Saveable;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::input::Input;

/// The most steps of one input.
const STEPS: usize = 2000;
const BASE: u64 = 0xffff_0000;
const BLOCKS: u64 = 3;
const SIZE: usize = 3 * 4096;
/// How long a record is without the content.
const HEAD: usize = 15;
const READ_ARRAY: u8 = 0xff;

#[derive(Debug)]
struct Store {
    content: Mutex<Vec<u8>>,
    full: AtomicBool,
    /// How often it was asked.
    asked: Mutex<usize>,
}

impl FlashStore for Store {
    fn keep(&self, offset: u64, bytes: &[u8]) -> Result<(), NotKept> {
        *lock(&self.asked) += 1;
        let start = usize::try_from(offset).expect("inside");
        assert!(!bytes.is_empty() && offset % BLOCK_BYTES + bytes.len() as u64 <= BLOCK_BYTES);
        let mut content = lock(&self.content);
        let target = &mut content[start..start + bytes.len()];
        if self.full.load(Ordering::Relaxed) {
            // The first of them may be kept.
            target[0] = bytes[0];
            return Err(NotKept);
        }
        target.copy_from_slice(bytes);
        Ok(())
    }
}

/// What a flash without a store does: the array of a chip.
#[derive(Debug)]
struct Chip {
    content: Vec<u8>,
    setup: Option<u8>,
}

impl Chip {
    /// One cycle, which changes what is programmed only if the chip `accepts`.
    fn cycle(&mut self, offset: usize, byte: u8, accepts: bool) {
        match (self.setup.take(), byte) {
            (Some(0x10), byte) if accepts => self.content[offset] &= byte,
            (Some(0x20), 0xd0) if accepts => {
                let block = offset / 4096 * 4096;
                self.content[block..block + 4096].fill(0xff);
            }
            (Some(_), _) => {}
            (None, 0x10 | 0x40) => self.setup = Some(0x10),
            (None, 0x20) => self.setup = Some(0x20),
            (None, _) => {}
        }
    }
}

struct Machine {
    array: GuestRam,
    store: Arc<Store>,
    flash: Flash,
    chip: Chip,
    /// It failed once, and may refuse since.
    failed: bool,
    /// Where the guest writes on.
    next: u64,
}

impl Machine {
    fn new() -> Self {
        let map = GuestMemoryMmap::from_ranges(&[(GuestAddress(BASE), SIZE)]).expect("memory");
        let array = GuestRam::new(map);
        let content = vec![0xff; SIZE];
        array.write(BASE, &content).expect("there");
        let store = Arc::new(Store {
            content: Mutex::new(content.clone()),
            full: AtomicBool::new(false),
            asked: Mutex::new(0),
        });
        let flash = Flash::new(array.clone(), BASE, SIZE as u64, store.clone()).expect("a flash");
        Self {
            array,
            store,
            flash,
            chip: Chip {
                content,
                setup: None,
            },
            failed: false,
            next: 0,
        }
    }

    fn cycle(&mut self, offset: u64, byte: u8) {
        *lock(&self.store.asked) = 0;
        self.flash.write(offset, &[byte]).expect("a cycle");
        assert!(*lock(&self.store.asked) <= 2, "at most two steps");
        let offset = usize::try_from(offset).expect("inside");
        self.chip.cycle(offset, byte, !self.failed);
        self.next = (offset as u64 + 1) % (BLOCKS * BLOCK_BYTES);
    }

    fn seen(&self) -> Vec<u8> {
        let mut seen = vec![0; SIZE];
        self.array.read(BASE, &mut seen).expect("there");
        seen
    }

    fn offset(&self, input: &mut Input<'_>) -> u64 {
        match input.u8() {
            0..=127 => self.next,
            128..=159 => u64::from(input.u16()) % (SIZE as u64),
            _ => u64::from(input.u8()),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() {
            0..=99 => {
                let (offset, byte) = (self.offset(input), input.u8());
                self.cycle(offset, 0x10);
                self.cycle(offset, byte);
            }
            100..=129 => {
                let (offset, byte) = (self.offset(input), input.u8());
                self.cycle(offset, byte);
            }
            130..=149 => {
                let offset = self.offset(input);
                self.cycle(offset, 0x20);
                self.cycle(offset, 0xd0);
            }
            150..=189 => self.end_of_run(),
            190..=199 => {
                let mut data = vec![0x10; 1 << (1 + input.below(3))];
                assert!(self.flash.write(self.next, &data).is_err());
                let _ = self.flash.read(self.next, &mut data);
            }
            200..=209 => {
                self.flash.reset();
                self.chip.setup = None;
                self.is_the_chip();
            }
            210..=229 => {
                let saved = self.flash.save();
                assert_eq!(self.flash.restore(1, &saved), Ok(()));
                assert_eq!(self.flash.save(), saved);
                if !self.failed {
                    assert_eq!(saved[HEAD..], self.chip.content);
                }
            }
            230..=244 => self.restore(input),
            245..=249 => {
                self.store.full.store(true, Ordering::Relaxed);
                self.failed = true;
            }
            _ => self.store.full.store(false, Ordering::Relaxed),
        }
    }

    /// The guest sees the array, which is in the store.
    fn end_of_run(&mut self) {
        // The first may be what a command waits for, and each keeps one step of a restored state.
        for _ in 0..BLOCKS + 2 {
            self.cycle(0, READ_ARRAY);
        }
        self.is_the_chip();
    }

    fn is_the_chip(&mut self) {
        let full = self.store.full.load(Ordering::Relaxed);
        if !full {
            assert_eq!(self.seen(), *lock(&self.store.content));
        }
        if !self.failed {
            assert_eq!(self.seen(), self.chip.content);
        }
    }

    /// A record that is partly ours and partly anything.
    fn restore(&mut self, input: &mut Input<'_>) {
        let before = self.flash.save();
        let mut record = VecDeque::from(before.clone());
        match input.below(3) {
            0 => {
                let patch = input.bytes(HEAD);
                for (byte, patch) in record.iter_mut().zip(patch) {
                    *byte = *patch;
                }
            }
            1 => record.truncate(input.u16().into()),
            _ => {
                let at = HEAD + usize::from(input.u16()) % SIZE;
                record[at] = input.u8();
            }
        }
        let record = Vec::from(record);
        let version = u32::from(input.u8() != 0);
        match self.flash.restore(version, &record) {
            Err(_) => assert_eq!(self.flash.save(), before),
            Ok(()) => {
                assert_eq!(self.flash.save()[HEAD..], record[HEAD..]);
                self.chip.content = record[HEAD..].to_vec();
                self.chip.setup = match record[0] {
                    2 => Some(0x10),
                    3 => Some(0x20),
                    _ => None,
                };
                // It may say that it refuses.
                self.failed |= record[2] != 0;
                let kept = self.flash.settle();
                assert!(kept.is_ok() || self.failed);
            }
        }
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
