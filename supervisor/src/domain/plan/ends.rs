//! What a guest's ends mean to its worker.

use reeve_ipc::model::{LifecycleAction, OnCrash, OnPowerOff, OnReboot};
use reeve_ipc::spec::{EndAction, EndPolicy, ResetAction};

pub(super) fn end_policy(lifecycle: LifecycleAction) -> EndPolicy {
    EndPolicy {
        on_power_off: match lifecycle.on_power_off {
            OnPowerOff::Destroy | OnPowerOff::Restart => EndAction::Exit,
            OnPowerOff::Preserve => EndAction::Preserve,
        },
        on_reset: match lifecycle.on_reboot {
            OnReboot::Restart => ResetAction::Reset,
            OnReboot::Destroy | OnReboot::Preserve => ResetAction::Exit,
        },
        on_crash: match lifecycle.on_crash {
            OnCrash::Destroy | OnCrash::Restart => EndAction::Exit,
            OnCrash::Preserve => EndAction::Preserve,
        },
    }
}

/// A worker that outlives its supervisor keeps every end of its guest until that has seen it.
pub(super) fn kept_policy(lifecycle: LifecycleAction) -> EndPolicy {
    EndPolicy {
        on_power_off: EndAction::Preserve,
        on_reset: match lifecycle.on_reboot {
            OnReboot::Restart => ResetAction::Reset,
            OnReboot::Destroy | OnReboot::Preserve => ResetAction::Preserve,
        },
        on_crash: EndAction::Preserve,
    }
}
