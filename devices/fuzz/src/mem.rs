//! The memory device, with a host that refuses now and then.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use reeve_devices::memory::GuestRam;
use reeve_devices::memory::blocks::{Blocks, MIN_BLOCK_BYTES};
use reeve_devices::shared::{NoWake, lock};
use reeve_devices::virtio::VirtioDevice;
use reeve_devices::virtio::mem::{BlockBacking, Mem, MemControl};

use super::driver::Piece;
use super::guest::{Subject, pieces};
use super::input::Input;

const START: u64 = 64 << 30;

/// Which blocks are RAM. No block becomes so twice, nor is taken away when it is not.
#[derive(Debug, Default)]
struct Host {
    plugged: Mutex<BTreeSet<u64>>,
    refuses: AtomicBool,
    block: u64,
    end: u64,
}

impl Host {
    fn change(&self, plug: bool, address: u64, len: u64) -> io::Result<()> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        assert!(address >= START && len > 0 && address + len <= self.end);
        assert!(address % self.block == 0 && len % self.block == 0);
        let mut plugged = lock(&self.plugged);
        for block in 0..len / self.block {
            let address = address + block * self.block;
            let changed = match plug {
                true => plugged.insert(address),
                false => plugged.remove(&address),
            };
            assert!(changed, "{address:#x} was so already");
        }
        Ok(())
    }
}

impl BlockBacking for Host {
    fn plug(&self, address: u64, len: u64) -> io::Result<()> {
        self.change(true, address, len)
    }

    fn unplug(&self, address: u64, len: u64) -> io::Result<()> {
        self.change(false, address, len)
    }
}

/// The device.
#[derive(Debug)]
pub struct Memory {
    block: u64,
    count: u64,
    /// The most that was asked for since the least that was plugged.
    control: Option<(Arc<MemControl>, Arc<Host>)>,
}

impl Subject for Memory {
    fn new(input: &mut Input<'_>) -> Self {
        let options = input.u8();
        Self {
            block: MIN_BLOCK_BYTES << (options & 3),
            count: 1 + u64::from(input.u8()),
            control: None,
        }
    }

    fn device(&mut self, _ram: &GuestRam) -> Box<dyn VirtioDevice> {
        let bytes = self.count * self.block;
        let blocks = Blocks::new(START, bytes, self.block).expect("whole blocks");
        let host = Arc::new(Host {
            block: self.block,
            end: START + bytes,
            ..Host::default()
        });
        let mem = Mem::new(Arc::new(blocks), host.clone(), Arc::new(NoWake));
        if let Some((before, _)) = &self.control {
            // As a hand-over: which blocks are plugged goes before everything else.
            let saved = before.save_blocks();
            let taken = mem.control().restore_blocks(1, &saved);
            taken.expect("what was saved can be restored");
            assert_eq!(mem.control().save_blocks(), saved);
        }
        self.control = Some((mem.control(), host));
        Box::new(mem)
    }

    fn request(&mut self, _queue: usize, input: &mut Input<'_>) -> Vec<Piece> {
        let how = input.u8();
        if how & 15 == 0 {
            return pieces(input);
        }
        let kind = match how >> 4 {
            kind @ 0..=3 => u16::from(kind),
            4..=9 => 0,
            10..=13 => 1,
            _ => input.u16(),
        };
        let place = match how & 14 {
            2 => input.u64(),
            4 => START.wrapping_add(u64::from(input.u32())),
            _ => START + u64::from(input.u8()) * self.block,
        };
        let blocks = if how & 1 == 0 {
            input.u16()
        } else {
            u16::from(input.u8() & 7)
        };
        let mut bytes = [0; 24];
        bytes[..2].copy_from_slice(&kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&place.to_le_bytes());
        bytes[16..18].copy_from_slice(&blocks.to_le_bytes());
        vec![Piece::Out(bytes.to_vec()), Piece::In(10)]
    }

    fn host(&mut self, input: &mut Input<'_>) {
        let Some((control, host)) = &self.control else {
            return;
        };
        match input.u8() & 7 {
            0 => assert_eq!(control.request(u64::MAX), self.count * self.block),
            1 => host.refuses.store(true, Ordering::Relaxed),
            2 => {
                // What was saved, changed: refused, or so from then on.
                let mut saved = control.save_blocks();
                let at = usize::from(input.u8()) % saved.len();
                saved[at] ^= input.u8();
                if control.restore_blocks(1, &saved).is_ok() {
                    assert_eq!(control.save_blocks(), saved);
                }
            }
            3 => {
                let _ = control.take_out_all();
            }
            _ => {
                host.refuses.store(false, Ordering::Relaxed);
                control.request(u64::from(input.u8()) * self.block);
            }
        }
    }

    fn check(&mut self) {
        let Some((control, host)) = &self.control else {
            return;
        };
        let info = control.info();
        assert!(info.requested_bytes <= info.region_bytes);
        let there = lock(&host.plugged).len() as u64;
        assert_eq!(info.plugged_bytes, there * self.block);
    }
}
