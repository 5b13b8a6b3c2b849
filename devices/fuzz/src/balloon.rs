//! The balloon, over small pages and over huge ones.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reeve_devices::memory::GuestRam;
use reeve_devices::shared::NoWake;
use reeve_devices::virtio::VirtioDevice;
use reeve_devices::virtio::balloon::{
    Balloon, BalloonControl, BalloonParams, PAGE_BYTES, PageReturn,
};

use super::bus::{HIGH_BYTES, RAM};
use super::driver::Piece;
use super::guest::{Subject, pieces};
use super::input::Input;

/// Bytes of all RAM.
const MEMORY: u64 = RAM + HIGH_BYTES;

/// Takes memory out of the guest, and looks at what it is given.
#[derive(Debug)]
struct Pages {
    ram: GuestRam,
    page: u64,
    refuse: bool,
    returned: AtomicU64,
}

impl PageReturn for Pages {
    fn give_back(&self, address: u64, len: u64) -> io::Result<()> {
        assert!(len > 0 && address % self.page == 0 && len % self.page == 0);
        assert!(self.ram.contains(address, len), "not in one piece of RAM");
        if self.refuse {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.returned.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }
}

/// The device.
#[derive(Debug)]
pub struct Lent {
    params: BalloonParams,
    refuse: bool,
    target: u64,
    control: Option<(Arc<BalloonControl>, Arc<Pages>)>,
}

impl Subject for Lent {
    fn new(input: &mut Input<'_>) -> Self {
        let options = input.u8();
        Self {
            params: BalloonParams {
                memory_bytes: MEMORY,
                // Huge ones here are of eight pages, or nothing but the whole would be one.
                backing_page_bytes: if options & 1 == 0 { 1 } else { 8 } * PAGE_BYTES,
                deflate_on_oom: options & 2 != 0,
                free_page_reporting: options & 4 == 0,
            },
            refuse: options & 0x18 == 0x18,
            target: 0,
            control: None,
        }
    }

    fn device(&mut self, ram: &GuestRam) -> Box<dyn VirtioDevice> {
        let pages = Arc::new(Pages {
            ram: ram.clone(),
            page: self.params.backing_page_bytes,
            refuse: self.refuse,
            returned: AtomicU64::new(0),
        });
        let wake = Arc::new(NoWake);
        let balloon = Balloon::new(self.params.clone(), pages.clone(), wake).expect("a balloon");
        self.control = Some((balloon.control(), pages));
        Box::new(balloon)
    }

    fn request(&mut self, queue: usize, input: &mut Input<'_>) -> Vec<Piece> {
        let how = input.u8();
        match queue {
            0 | 1 => {
                // Pages in a row, or anywhere.
                let (first, count) = (u32::from(input.u8()), input.u8());
                let numbers = (0..u32::from(count)).flat_map(|page| {
                    let number = match how & 3 {
                        0 => (first + page) % 0x40,
                        1 => 0x10_0000 + (first + page) % 0x10,
                        2 => u32::from(input.u8()),
                        _ => input.u32(),
                    };
                    number.to_le_bytes()
                });
                vec![Piece::Out(numbers.collect())]
            }
            2 if how & 7 != 0 => {
                let entries = (0..input.below(12)).flat_map(|_| {
                    let (tag, value) = (u16::from(input.u8()), u64::from(input.u32()));
                    [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()
                });
                vec![Piece::Out(entries.collect())]
            }
            3 | 4 if how & 7 != 0 => {
                let ranges = (0..=input.below(4)).map(|_| Piece::In(input.len() << (how & 15)));
                ranges.collect()
            }
            _ => pieces(input),
        }
    }

    fn host(&mut self, input: &mut Input<'_>) {
        let Some((control, _)) = &self.control else {
            return;
        };
        match input.u8() & 3 {
            0 => {
                let bytes = u64::from(input.u16()) << 8;
                self.target = control.set_target(bytes);
                assert_eq!(self.target, bytes.min(MEMORY) / PAGE_BYTES * PAGE_BYTES);
            }
            1 => assert_eq!(control.set_target(u64::MAX), MEMORY),
            _ => control.request_stats(),
        }
    }

    fn check(&mut self) {
        let Some((control, pages)) = &self.control else {
            return;
        };
        let info = control.info();
        assert!(info.actual_bytes <= MEMORY && info.target_bytes <= MEMORY);
        let returned = pages.returned.load(Ordering::Relaxed);
        assert_eq!(info.returned_bytes, returned);
    }
}
