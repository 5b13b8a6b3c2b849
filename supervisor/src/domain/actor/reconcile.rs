//! Which devices the worker has: asked for wherever it may have told and nobody heard.
//!
//! ```text
//!   events lost, an answer after silence, another worker, a detach without an end
//!       └─► AskDevices ─► Notice::Devices, in order behind what the worker told before
//!                              └─► what is known and not there is gone
//! ```
//! The answer is of the moment in which the worker gave it. A device that was being made meanwhile may be
//! missing in it and be there by now, so that one during which anything was being made is asked for again.

use reeve_ipc::model::DevicePlace;

use super::DomainActor;
use super::message::Effect;
use super::planted::{self, Bug};

/// The worker is asked where it has devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asking {
    /// What the answer is known by.
    number: u64,
    /// A device was being made meanwhile, or there was another reason to ask.
    again: bool,
}

impl DomainActor {
    /// Asks the worker where it has devices. Of an answer that is on its way already it is not known
    /// whether it is late enough.
    pub(super) fn ask_devices(&mut self) {
        match self.live_mut().and_then(|live| live.asking.as_mut()) {
            Some(asking) => asking.again = true,
            None => self.ask_devices_anew(),
        }
    }

    /// As [`ask_devices`](Self::ask_devices), where what was asked before may never be answered.
    pub(super) fn ask_devices_anew(&mut self) {
        self.serial += 1;
        let number = self.serial;
        let Some(live) = self.live_mut() else { return };
        live.asking = Some(Asking {
            number,
            again: false,
        });
        let id = live.id;
        self.effects.push(Effect::AskDevices(number, id));
    }

    /// A device is about to be made, or has just been, or not.
    pub(super) fn device_was_made(&mut self) {
        if let Some(asking) = self.live_mut().and_then(|live| live.asking.as_mut()) {
            asking.again = true;
        }
    }

    /// The worker has said where it has devices.
    pub(super) fn devices_told(&mut self, number: u64, there: &[DevicePlace]) {
        let Some(live) = self.live_mut() else { return };
        let Some(asking) = live.asking.take_if(|asking| asking.number == number) else {
            return;
        };
        if asking.again {
            return self.ask_devices_anew();
        }
        self.compare_devices(Some(there));
        self.detach_overdue();
    }

    /// What was removed while nobody heard, or was never made, is known now.
    pub(super) fn compare_devices(&mut self, there: Option<&[DevicePlace]>) {
        let (Some(there), Some(live)) = (there, self.live()) else {
            return;
        };
        if planted::has(Bug::ForgetsSilentDevices) {
            return;
        }
        let known = live.record.definition.devices.placed().into_iter();
        // One that is being made now is none of those.
        let making = self.attaching();
        let is_made = |place| making.is_some_and(|making| making.has(place));
        let missing = known.map(|(place, _)| place);
        let missing: Vec<DevicePlace> = missing
            .filter(|place| !there.contains(place) && !is_made(*place))
            .collect();
        for place in missing {
            self.device_removed(place);
        }
    }
}
