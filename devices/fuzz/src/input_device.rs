//! An input device, of either kind, and a person who does anything.

use std::sync::Arc;

use reeve_devices::memory::GuestRam;
use reeve_devices::virtio::VirtioDevice;
use reeve_devices::virtio::input::{Input as InputDevice, InputEvents, InputKind, PointerEvent};

use super::driver::Piece;
use super::guest::{Subject, pieces};
use super::input::Input;

/// The most events that may wait: the mark, one report beyond it, and a release with its end for each key.
const MOST: usize = 1024 + 8 + 2 * 0x300;

/// The device.
#[derive(Debug)]
pub struct Device {
    kind: InputKind,
    events: Arc<InputEvents>,
}

fn events() -> Arc<InputEvents> {
    Arc::new(InputEvents::new().expect("an eventfd"))
}

impl Subject for Device {
    fn new(input: &mut Input<'_>) -> Self {
        let kind = match input.u8() & 1 {
            0 => InputKind::Keyboard,
            _ => InputKind::Tablet,
        };
        Self {
            kind,
            events: events(),
        }
    }

    fn device(&mut self, _ram: &GuestRam) -> Box<dyn VirtioDevice> {
        self.events = events();
        Box::new(InputDevice::new(self.kind, Arc::clone(&self.events)))
    }

    fn request(&mut self, queue: usize, input: &mut Input<'_>) -> Vec<Piece> {
        if input.u8() & 7 == 0 {
            return pieces(input);
        }
        match queue {
            0 => vec![Piece::In(8)],
            _ => vec![Piece::Out(input.bytes(8).to_vec())],
        }
    }

    fn host(&mut self, input: &mut Input<'_>) {
        let many = input.u8();
        for _ in 0..=many >> 4 {
            if many & 1 == 0 {
                self.events.key(input.u16() & 0x3ff, many & 2 != 0);
                continue;
            }
            self.events.pointer(PointerEvent {
                x: input.u16(),
                y: input.u16(),
                buttons: input.u8(),
                wheel: i8::from_le_bytes([input.u8()]),
                horizontal: 0,
            });
        }
    }

    fn check(&mut self) {
        assert!(self.events.waiting() <= MOST);
    }
}
