//! What a job has done and noted, taken back where what comes after it fails.

use reeve_ipc::model::DeviceName;

use super::DomainActor;
use super::message::{Effect, LiveRecord};
use super::steps::Step;
use crate::domain::driver::DeviceCall;

impl DomainActor {
    /// What takes back what the worker is asked in `steps`, for where something behind that fails: the last first.
    pub(super) fn undo_of(&self, steps: &[Step]) -> Vec<DeviceCall> {
        let Some(live) = self.live() else {
            return Vec::new();
        };
        let devices = &live.record.definition.devices;
        let undo = steps.iter().rev().filter_map(|step| match step {
            Step::Device(DeviceCall::Attach { place, .. }) => Some(DeviceCall::Detach {
                place: *place,
                force: true,
            }),
            Step::Device(DeviceCall::Update { slot, change }) => {
                let before = || devices.clone().change(&DeviceName::Slot(*slot), *change);
                let change = live.memory_before(*change).or_else(|| before().ok());
                Some(DeviceCall::Update {
                    slot: *slot,
                    change: change?,
                })
            }
            Step::Device(DeviceCall::Medium { slot, .. }) => Some(DeviceCall::Medium {
                domain: Box::new(live.record.definition.clone()),
                slot: *slot,
            }),
            Step::Device(DeviceCall::Tags { slot, .. }) => Some(DeviceCall::Tags {
                domain: Box::new(live.record.definition.clone()),
                slot: *slot,
            }),
            Step::Device(DeviceCall::Filter { slot, .. }) => Some(DeviceCall::Filter {
                domain: Box::new(live.record.definition.clone()),
                slot: *slot,
            }),
            Step::Device(DeviceCall::Tune { domain, before }) => Some(DeviceCall::Tune {
                domain: before.clone()?,
                before: Some(domain.clone()),
            }),
            Step::Device(DeviceCall::Vcpus { domain, .. }) => Some(DeviceCall::Vcpus {
                domain: domain.clone(),
                count: domain.vcpus.count(),
            }),
            _ => None,
        });
        undo.collect()
    }

    /// Has what the worker did undone; whether the status that was before holds again with that.
    pub(super) fn undo(
        &mut self,
        undo: Vec<DeviceCall>,
        before: &mut Option<Box<LiveRecord>>,
    ) -> bool {
        let mut changed = true;
        for call in undo {
            let Some(live) = self.live_mut() else {
                return changed;
            };
            match &call {
                // As what an earlier supervisor did not come to: noted, then done, with nothing beside it.
                DeviceCall::Tune { before: now, .. } => {
                    live.unfinished = true;
                    if let Some(before) = before {
                        before.intents.tuning = true;
                        before.intents.tuned_before.clone_from(now);
                    }
                    continue;
                }
                DeviceCall::Update { change, .. } => live.note_asked(*change),
                DeviceCall::Medium { .. } | DeviceCall::Tags { .. } | DeviceCall::Filter { .. } => {
                }
                // That a device is gone is a notice.
                _ => changed = false,
            }
            // Nobody waits for the answer.
            let effect = Effect::Device(0, live.id, call);
            self.effects.push(effect);
        }
        changed
    }

    /// Takes back what a job noted first that failed later. That it is being ended stays.
    pub(super) fn take_back(&mut self, mut before: LiveRecord) {
        let Some(live) = self.live_mut() else { return };
        before.intents.stopping = live.record.intents.stopping;
        if live.record != before {
            let deadline = live.record.intents.destroy_at_boot_ms;
            live.record = before.clone();
            let id = live.id;
            self.effects
                .push(Effect::WriteStatus(None, id, Box::new(before)));
            self.keep_deadline(deadline);
        }
    }
}
