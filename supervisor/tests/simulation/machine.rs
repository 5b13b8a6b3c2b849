//! One guest's machine, as a worker serves it: phases as `ipc/src/phase.rs` draws them.

use std::collections::BTreeSet;

use reeve_ipc::event::{CrashCause, CrashReport};
use reeve_ipc::model::{Domain, LifecycleAction, OnReboot};
use reeve_ipc::phase::Phase;
use reeve_ipc::spec::PciSlot;
use reeved::domain::driver::{GuestEnd, Notice, WorkerCall};

use crate::host::DeviceAsk;

#[derive(Debug)]
pub struct Machine {
    pub phase: Phase,
    pub resets: u64,
    /// Why it stands, in [`Phase::Off`] and [`Phase::Crashed`].
    pub end: Option<GuestEnd>,
    /// Its power button was, and the guest has not noticed.
    pub pressed: bool,
    /// Where it has devices.
    pub devices: BTreeSet<PciSlot>,
    /// Those that its guest was asked for.
    pub leaving: BTreeSet<PciSlot>,
    actions: LifecycleAction,
}

/// What a guest does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    PowerOff,
    Reset,
    Crash,
}

impl Machine {
    pub fn unlaunched(domain: &Domain) -> Self {
        let named = domain.devices.named().into_iter();
        Self {
            devices: named.map(|(slot, _)| slot).collect(),
            leaving: BTreeSet::new(),
            phase: Phase::AwaitingLaunch,
            resets: 0,
            end: None,
            pressed: false,
            actions: domain.lifecycle,
        }
    }

    pub fn launch(&mut self, paused: bool) {
        self.phase = if paused {
            Phase::Paused
        } else {
            Phase::Running
        };
    }

    /// Serves a request; what it tells unasked comes with the answer.
    pub fn serve(&mut self, call: WorkerCall) -> (Result<(), String>, Vec<Notice>) {
        let runs = matches!(self.phase, Phase::Running | Phase::Paused);
        let refused = || {
            (
                Err(format!("cannot: the machine is {}", self.phase)),
                Vec::new(),
            )
        };
        match call {
            WorkerCall::Pause if runs => self.phase = Phase::Paused,
            WorkerCall::Resume if runs => self.phase = Phase::Running,
            WorkerCall::PowerButton if runs => self.pressed = true,
            WorkerCall::Reset if self.phase != Phase::AwaitingLaunch => {
                return (Ok(()), self.reset());
            }
            WorkerCall::Stop => {}
            _ => return refused(),
        }
        (Ok(()), Vec::new())
    }

    /// Serves what is asked of a device.
    pub fn serve_device(&mut self, ask: DeviceAsk) -> (Result<(), String>, Vec<Notice>) {
        let runs = matches!(self.phase, Phase::Running | Phase::Paused);
        let refused = |why: &str| (Err(why.to_owned()), Vec::new());
        match ask {
            DeviceAsk::Attach(_) if !runs => return refused("the machine does not run"),
            DeviceAsk::Attach(slot) if !self.devices.insert(slot) => {
                return refused("there is a device");
            }
            DeviceAsk::Attach(_) => {}
            DeviceAsk::Detach(slot, _) | DeviceAsk::Update(slot)
                if !self.devices.contains(&slot) =>
            {
                return refused("there is no device");
            }
            DeviceAsk::Detach(slot, true) => return (Ok(()), vec![self.gone(slot)]),
            DeviceAsk::Detach(slot, false) => {
                self.leaving.insert(slot);
            }
            DeviceAsk::Update(_) => {}
            DeviceAsk::Places(number) => {
                let there = self.devices.iter().map(|slot| (*slot).into()).collect();
                return (Ok(()), vec![Notice::Devices(number, there)]);
            }
        }
        (Ok(()), Vec::new())
    }

    fn gone(&mut self, slot: PciSlot) -> Notice {
        self.devices.remove(&slot);
        self.leaving.remove(&slot);
        Notice::DeviceRemoved(slot.into())
    }

    /// The guest, which runs, lets go of what it was asked for.
    pub fn let_go(&mut self) -> Vec<Notice> {
        let leaving = std::mem::take(&mut self.leaving).into_iter();
        leaving.map(|slot| self.gone(slot)).collect()
    }

    fn reset(&mut self) -> Vec<Notice> {
        if !matches!(self.phase, Phase::Running | Phase::Paused) {
            self.phase = Phase::Paused;
        }
        self.end = None;
        self.pressed = false;
        self.resets += 1;
        // Without its driver nothing keeps a device that was to go.
        let mut notices = self.let_go();
        notices.push(Notice::Reset(self.resets));
        notices
    }

    /// The guest, which runs, does something.
    pub fn act(&mut self, deed: Deed) -> Vec<Notice> {
        let (phase, end) = match deed {
            Deed::Reset if self.actions.on_reboot == OnReboot::Restart => return self.reset(),
            Deed::Reset => (Phase::Off, GuestEnd::Reset),
            Deed::PowerOff => (Phase::Off, GuestEnd::PoweredOff),
            Deed::Crash => (Phase::Crashed, crash()),
        };
        self.phase = phase;
        self.pressed = false;
        self.end = Some(end.clone());
        vec![Notice::GuestEnded(end)]
    }
}

fn crash() -> GuestEnd {
    GuestEnd::Crashed(CrashReport {
        vcpu: 0,
        cause: CrashCause::TripleFault,
        registers: None,
    })
}
