//! Which operation something is part of, for the names of crash points ([`crate::crash`]). Pure.

use reeve_ipc::api::view::{JobKind, ShutOffReason};

use super::actor::{LiveRecord, Request};
use super::driver::WorkerCall;
use crate::crash::Operation;

/// Of what a client asks for.
pub(super) const fn requested(request: &Request) -> Operation {
    match request {
        Request::Define { .. }
        | Request::SetAutostart(_)
        | Request::Rename(_)
        | Request::SetLabel { .. }
        | Request::Attach { .. }
        | Request::Detach { .. }
        | Request::Update { .. }
        | Request::ChangeMedium { .. }
        | Request::ChangeTags { .. }
        | Request::ChangeFilter { .. }
        | Request::SetMemory { .. }
        | Request::SetMaxMemory(_)
        | Request::SetVcpus { .. }
        | Request::SetAgentTimeout(_) => Operation::Define,
        Request::Tune { .. } => Operation::Tune,
        Request::Upgrade => Operation::HandOver,
        Request::Undefine => Operation::Undefine,
        Request::Start(..) | Request::Create(..) => Operation::Start,
        Request::Shutdown { .. } | Request::Reboot | Request::Reset => Operation::Shutdown,
        Request::Pause | Request::Resume => Operation::Pause,
        Request::Destroy => Operation::Destroy,
    }
}

/// Of a call to the worker, made for this job.
pub(super) const fn called(call: WorkerCall, job: Option<JobKind>) -> Operation {
    match (call, job) {
        (WorkerCall::Pause | WorkerCall::Resume, Some(JobKind::Pause | JobKind::Resume)) => {
            Operation::Pause
        }
        _ => Operation::Shutdown,
    }
}

/// Of a status that is written, for this job or for none.
pub(super) const fn noted(record: &LiveRecord, job: Option<JobKind>) -> Operation {
    match (record.intents.stopping, job) {
        (Some(ShutOffReason::Destroyed), _) => Operation::Destroy,
        (
            None,
            Some(
                JobKind::Define
                | JobKind::Attach
                | JobKind::Detach
                | JobKind::Update
                | JobKind::SetVcpus,
            ),
        ) => Operation::Define,
        (None, Some(JobKind::Tune)) => Operation::Tune,
        _ => Operation::Shutdown,
    }
}
