//! What devices and the guest's ACPI methods tell the control thread: memory of fixed size that any thread
//! writes, and an event that the control thread waits for.
//!
//! A guest can cause these as fast as it likes; what is told twice before it was looked at is told once.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use reeve_devices::event::Event;
use reeve_devices::legacy::hotplug::{EjectSink, Ejected};
use reeve_devices::shared::Wake;

/// The notices.
#[derive(Debug)]
pub struct Notices {
    event: Event,
    /// One bit for each slot of the bus whose device the guest has let go of.
    slots: AtomicU32,
    /// The guest has let go of a vCPU, or said something of one: the registers have which and what.
    vcpus: AtomicBool,
}

impl Notices {
    /// None so far.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new() -> rustix::io::Result<Self> {
        Ok(Self {
            event: Event::new()?,
            slots: AtomicU32::new(0),
            // A machine that is made from its records may have been saved with something to do.
            vcpus: AtomicBool::new(true),
        })
    }

    /// On the control thread, before it looks at everything there may be to look at.
    pub fn clear(&self) {
        self.event.take();
    }

    /// On the control thread, after [`take_slots`](Self::take_slots): whether the guest has done anything
    /// with its vCPUs since it last asked. True at first.
    pub fn take_vcpus(&self) -> bool {
        self.vcpus.swap(false, Ordering::AcqRel)
    }

    /// On the control thread: the slots let go of since it last asked.
    pub fn take_slots(&self) -> impl Iterator<Item = u8> + use<> {
        self.clear();
        let slots = self.slots.swap(0, Ordering::AcqRel);
        (0..32).filter(move |slot| slots & 1 << slot != 0)
    }
}

impl EjectSink for Notices {
    fn ejected(&self, what: Ejected) {
        match what {
            Ejected::Slot(slot) => {
                let bit = 1_u32.checked_shl(slot.into()).unwrap_or(0);
                self.slots.fetch_or(bit, Ordering::AcqRel);
                self.event.signal();
            }
            Ejected::Vcpu(_) => self.answered(),
        }
    }

    fn answered(&self) {
        self.vcpus.store(true, Ordering::Release);
        self.event.signal();
    }
}

/// A device has something to tell; which, the control thread finds out.
impl Wake for Notices {
    fn wake(&self) {
        self.event.signal();
    }
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ejections_are_told_once_however_often_a_guest_repeats_them() {
        let notices = Notices::new().expect("an eventfd");
        for slot in [3, 31, 3, 3] {
            notices.ejected(Ejected::Slot(slot));
        }
        notices.ejected(Ejected::Vcpu(3));
        assert_eq!(notices.take_slots().collect::<Vec<_>>(), [3, 31]);
        assert_eq!(notices.take_slots().count(), 0);
        assert!(notices.take_vcpus());
        assert!(!notices.take_vcpus());
    }
}
