//! How a device goes, by force, because the guest has let go of it, or at a reset.
//!
//! ```text
//!  retired: told to stop, for good ──► stopped ──► off the bus ──► nobody else holds it ──► closed: gone
//!                                        │                            │
//!                        as long as its storage takes       a vCPU that was at its registers
//! ```
//! Nothing here waits but a removal by force, and that not for ever: what is not gone yet goes on going,
//! by [`turn`](DeviceSet::turn).
//!
//! The registers have descriptors: files, events, rings, threads. A vCPU that found them on the bus before
//! they were taken off holds them as well, and may be the last to; it may close nothing. So a device that
//! is off the bus is kept until nobody else has it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reeve_devices::pci::Slot;
use reeve_devices::shared::lock;

use super::{Attached, Built, DeviceSet, DeviceSetError, Stay};

/// How soon a device that a vCPU still held is looked at again. An access takes microseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl DeviceSet {
    /// Notes that the guest is asked to let go of what is in `slot`.
    ///
    /// # Errors
    /// [`DeviceSetError::Empty`].
    pub fn mark_leaving(&mut self, slot: Slot) -> Result<(), DeviceSetError> {
        let entry = self.entry(slot)?;
        if entry.stay == Stay::Stays {
            entry.stay = Stay::Asked;
        }
        Ok(())
    }

    /// Whether the guest was asked to let go of what is in `slot`.
    #[must_use]
    pub fn is_leaving(&self, slot: Slot) -> bool {
        self.leaving().contains(&slot)
    }

    /// Whether nobody wants what is in `slot` gone.
    #[must_use]
    pub fn stays(&self, slot: Slot) -> bool {
        let mut entries = self.attached.iter();
        let entry = entries.find(|entry| entry.device.slot == slot);
        entry.is_some_and(|entry| entry.stay == Stay::Stays)
    }

    /// The slots of which the guest was asked to let go, and has not.
    #[must_use]
    pub fn leaving(&self) -> Vec<Slot> {
        let leaving = self.attached.iter();
        leaving
            .filter(|entry| entry.stay == Stay::Asked)
            .map(|entry| entry.device.slot)
            .collect()
    }

    /// Begins to take away what is in `slot`: it serves its driver no longer. [`turn`](Self::turn) finishes
    /// that.
    ///
    /// # Errors
    /// [`DeviceSetError::Empty`].
    pub fn begin_removal(&mut self, slot: Slot) -> Result<(), DeviceSetError> {
        let stopped = Arc::clone(&self.stopped);
        let entry = self.entry(slot)?;
        entry.stay = Stay::Going;
        entry.device.retire();
        if let Some(stopping) = entry.device.stopping() {
            stopping.watch(stopped);
        }
        Ok(())
    }

    /// Refuses while a device is being taken away: whoever is told that it is gone must not find it in the
    /// state that was saved before.
    ///
    /// # Errors
    /// [`DeviceSetError::Unresponsive`].
    pub fn check_none_goes(&self) -> Result<(), DeviceSetError> {
        let mut entries = self.attached.iter();
        match entries.find(|entry| entry.stay == Stay::Going) {
            Some(entry) => Err(entry.device.unresponsive()),
            None => Ok(()),
        }
    }

    /// Goes on with what is being taken away, as far as that needs no waiting: off the bus with what has
    /// stopped, closed what nobody else holds. [`take_gone`](Self::take_gone) tells what came of it.
    pub fn turn(&mut self) {
        let stopped =
            |entry: &Attached| entry.stay == Stay::Going && entry.device.stopping().is_none();
        while let Some(place) = self.attached.iter().position(stopped) {
            let Attached { device, .. } = self.attached.remove(place);
            self.root.remove(device.slot);
            self.departed.push(device);
        }
        while let Some(place) = self.departed.iter().position(Built::is_alone) {
            let device = self.departed.remove(place);
            self.gone.push(device.slot);
        }
    }

    /// When [`turn`](Self::turn) is due without anything having happened.
    #[must_use]
    pub fn next_turn(&self) -> Option<Duration> {
        (!self.departed.is_empty()).then_some(LOOK_AGAIN)
    }

    /// The slots whose devices are gone, their descriptors closed and their threads ended. Told once.
    pub fn take_gone(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.gone)
    }

    /// Takes what is in `slot` away, and waits for it.
    ///
    /// # Errors
    /// [`DeviceSetError::Empty`]; [`DeviceSetError::Unresponsive`] when it is not gone after `patience`. It
    /// goes later then.
    pub fn remove(&mut self, slot: Slot, patience: Duration) -> Result<(), DeviceSetError> {
        let deadline = Instant::now() + patience;
        // One that is off the bus is only waited for.
        if !self.departed.iter().any(|device| device.slot == slot) {
            self.begin_removal(slot)?;
            let device = &self.entry(slot)?.device;
            if device.wait_stopped(deadline).is_some() {
                return Err(device.unresponsive());
            }
        }
        loop {
            self.turn();
            let departed = self.departed.iter().find(|device| device.slot == slot);
            match departed {
                None => return Ok(()),
                Some(device) if Instant::now() >= deadline => return Err(device.unresponsive()),
                Some(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn entry(&mut self, slot: Slot) -> Result<&mut Attached, DeviceSetError> {
        let mut entries = self.attached.iter_mut();
        entries
            .find(|entry| entry.device.slot == slot)
            .ok_or(DeviceSetError::Empty(slot))
    }
}

impl Built {
    fn retire(&self) {
        let mut registers = lock(&self.registers);
        registers.negotiation().retire();
        registers.rebind();
    }

    /// Off the bus: whether nobody else holds any of it, nor can come to.
    fn is_alone(&self) -> bool {
        // In this order: who has the function can get the registers from it. The function has them too.
        Arc::strong_count(&self.function) == 1 && Arc::strong_count(&self.registers) == 2
    }
}
