//! Events on their way to a driver, in evdev's numbers (Linux, include/uapi/linux/input-event-codes.h).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;

use crate::event::Event;
use crate::shared::lock;

pub(super) const EV_SYN: u16 = 0x00;
pub(super) const EV_KEY: u16 = 0x01;
pub(super) const EV_REL: u16 = 0x02;
pub(super) const EV_ABS: u16 = 0x03;
pub(super) const EV_LED: u16 = 0x11;
pub(super) const EV_REP: u16 = 0x14;
pub(super) const REL_HWHEEL: u16 = 0x06;
pub(super) const REL_WHEEL: u16 = 0x08;
pub(super) const ABS_X: u16 = 0x00;
pub(super) const ABS_Y: u16 = 0x01;
/// Left, middle, right.
pub(super) const BUTTONS: [u16; 3] = [0x110, 0x112, 0x111];
/// Keys have smaller numbers.
const KEYS_END: u16 = 0x300;

/// The right and the lower edge of a tablet.
pub const MAX_POSITION: u16 = 0x7fff;
/// While so many events wait, nothing but releases is taken: of each key that is down, one more.
const MAX_WAITING: usize = 1024;

/// One event as a driver gets it: type, code, value.
pub(super) type Item = (u16, u16, u32);

/// Where a pointer is, and what of it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PointerEvent {
    /// From the left, 0 to [`MAX_POSITION`].
    pub x: u16,
    /// From the top, 0 to [`MAX_POSITION`].
    pub y: u16,
    /// Buttons that are down: bit 0 is the left one, 1 the middle one, 2 the right one.
    pub buttons: u8,
    /// Steps of the wheel, upwards positive.
    pub wheel: i8,
    /// The same, to the right positive.
    pub horizontal: i8,
}

#[derive(Debug, Default)]
struct Pending {
    /// A driver runs.
    open: bool,
    events: VecDeque<Item>,
    /// What the driver has been told, or will be, that is down.
    down: BTreeSet<u16>,
}

impl Pending {
    fn has_room(&self) -> bool {
        self.events.len() < MAX_WAITING
    }

    /// A key or a button; whether it was taken.
    fn set(&mut self, code: u16, pressed: bool) -> bool {
        let taken = match pressed {
            true => self.has_room() && self.down.insert(code),
            false => self.down.remove(&code),
        };
        if taken {
            self.events.push_back((EV_KEY, code, pressed.into()));
        }
        taken
    }

    /// What came before belongs together.
    fn end_report(&mut self) {
        self.events.push_back((EV_SYN, 0, 0));
    }
}

/// The events of one device. Any thread may put some in.
#[derive(Debug)]
pub struct InputEvents {
    pending: Mutex<Pending>,
    /// Tells the device's thread.
    offered: Event,
}

impl InputEvents {
    /// None.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new() -> rustix::io::Result<Self> {
        Ok(Self {
            pending: Mutex::default(),
            offered: Event::new()?,
        })
    }

    /// A key goes down or up. What is no change is dropped, and what is no key.
    pub fn key(&self, code: u16, pressed: bool) {
        if (1..KEYS_END).contains(&code) {
            self.put(|pending| pending.set(code, pressed));
        }
    }

    /// The pointer is there.
    pub fn pointer(&self, event: PointerEvent) {
        self.put(|pending| {
            let mut any = false;
            if pending.has_room() {
                let place = |place: u16| u32::from(place.min(MAX_POSITION));
                pending.events.push_back((EV_ABS, ABS_X, place(event.x)));
                pending.events.push_back((EV_ABS, ABS_Y, place(event.y)));
                for (code, steps) in [(REL_WHEEL, event.wheel), (REL_HWHEEL, event.horizontal)] {
                    if steps != 0 {
                        let steps = u32::from_le_bytes(i32::from(steps).to_le_bytes());
                        pending.events.push_back((EV_REL, code, steps));
                    }
                }
                any = true;
            }
            for (bit, code) in BUTTONS.into_iter().enumerate() {
                any |= pending.set(code, event.buttons >> bit & 1 != 0);
            }
            any
        });
    }

    fn put(&self, make: impl FnOnce(&mut Pending) -> bool) {
        let mut pending = lock(&self.pending);
        if pending.open && make(&mut pending) {
            pending.end_report();
            drop(pending);
            self.offered.signal();
        }
    }

    /// A driver runs from now on.
    pub(super) fn open(&self) {
        lock(&self.pending).open = true;
    }

    /// None does any more: what waits is forgotten, and nothing is down.
    pub(super) fn close(&self) {
        *lock(&self.pending) = Pending::default();
    }

    pub(super) fn offered(&self) -> &Event {
        &self.offered
    }

    /// The oldest.
    pub(super) fn take(&self) -> Option<Item> {
        lock(&self.pending).events.pop_front()
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.pending).events.len()
    }
}
