//! One guest's machine, as a worker serves it: phases as `ipc/src/phase.rs` draws them.

use reeve_ipc::event::{CrashCause, CrashReport};
use reeve_ipc::model::{LifecycleAction, OnReboot};
use reeve_ipc::phase::Phase;
use reeved::domain::driver::{GuestEnd, Notice, WorkerCall};

#[derive(Debug)]
pub struct Machine {
    pub phase: Phase,
    pub resets: u64,
    /// Why it stands, in [`Phase::Off`] and [`Phase::Crashed`].
    pub end: Option<GuestEnd>,
    /// Its power button was, and the guest has not noticed.
    pub pressed: bool,
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
    pub fn unlaunched(actions: LifecycleAction) -> Self {
        Self {
            phase: Phase::AwaitingLaunch,
            resets: 0,
            end: None,
            pressed: false,
            actions,
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
    pub fn serve(&mut self, call: WorkerCall) -> (Result<(), String>, Option<Notice>) {
        let runs = matches!(self.phase, Phase::Running | Phase::Paused);
        let refused = || (Err(format!("cannot: the machine is {}", self.phase)), None);
        match call {
            WorkerCall::Pause if runs => self.phase = Phase::Paused,
            WorkerCall::Resume if runs => self.phase = Phase::Running,
            WorkerCall::PowerButton if runs => self.pressed = true,
            WorkerCall::Reset if self.phase != Phase::AwaitingLaunch => {
                return (Ok(()), Some(self.reset()));
            }
            WorkerCall::Stop => {}
            _ => return refused(),
        }
        (Ok(()), None)
    }

    fn reset(&mut self) -> Notice {
        if !matches!(self.phase, Phase::Running | Phase::Paused) {
            self.phase = Phase::Paused;
        }
        self.end = None;
        self.pressed = false;
        self.resets += 1;
        Notice::Reset(self.resets)
    }

    /// The guest, which runs, does something.
    pub fn act(&mut self, deed: Deed) -> Notice {
        let (phase, end) = match deed {
            Deed::Reset if self.actions.on_reboot == OnReboot::Restart => return self.reset(),
            Deed::Reset => (Phase::Off, GuestEnd::Reset),
            Deed::PowerOff => (Phase::Off, GuestEnd::PoweredOff),
            Deed::Crash => (Phase::Crashed, crash()),
        };
        self.phase = phase;
        self.pressed = false;
        self.end = Some(end.clone());
        Notice::GuestEnded(end)
    }
}

fn crash() -> GuestEnd {
    GuestEnd::Crashed(CrashReport {
        vcpu: 0,
        cause: CrashCause::TripleFault,
        registers: None,
    })
}
