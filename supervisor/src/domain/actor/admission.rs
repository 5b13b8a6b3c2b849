//! Whether a request becomes a job, is answered now, waits or is refused: pure, and tested on all of
//! its inputs.

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::view::{DomainState, JobKind, PausedReason};

use super::message::Request;
use super::standing::Standing;

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It becomes the domain's job.
    Job(JobKind),
    /// It is so already.
    Answer,
    /// It waits for the job before it.
    Wait,
    /// It cannot be done; the reason says in which state it could.
    Refuse(ApiError),
    /// The worker is killed now, whatever job runs.
    Destroy,
}

/// Judges `request` of a domain that stands as `standing` says.
#[must_use]
pub fn admit(standing: &Standing, request: &Request) -> Admission {
    if let Request::Destroy = request {
        return destroy(standing);
    }
    if standing.job.is_some() {
        return Admission::Wait;
    }
    match judge(standing, request) {
        Ok(admission) => admission,
        Err((code, reason)) => Admission::Refuse(refusal(standing, code, reason)),
    }
}

type Refusal = (ApiErrorCode, &'static str);

const GONE: Refusal = (ApiErrorCode::NoDomain, "it does not exist any more");
const OFF: Refusal = (
    ApiErrorCode::WrongState,
    "it is not running; start it first",
);

/// It passes by itself, and nearly always at once: whoever waits for another job waits for this.
const NOT_RELEASED: Refusal = (
    ApiErrorCode::Busy,
    "the kernel has not released its last worker yet; try again",
);

fn refusal(standing: &Standing, code: ApiErrorCode, reason: &str) -> ApiError {
    let message = match &standing.name {
        Some(name) => format!("domain '{name}': {reason}"),
        None => reason.to_owned(),
    };
    ApiError::new(code, message)
}

fn destroy(standing: &Standing) -> Admission {
    if standing.state.is_active() || standing.reaping {
        Admission::Destroy
    } else if standing.exists {
        Admission::Refuse(refusal(
            standing,
            ApiErrorCode::WrongState,
            "it is not running",
        ))
    } else {
        Admission::Refuse(refusal(standing, GONE.0, GONE.1))
    }
}

fn judge(standing: &Standing, request: &Request) -> Result<Admission, Refusal> {
    use Admission::{Answer, Job};
    let state = standing.state;
    let wrong = |reason| Err((ApiErrorCode::WrongState, reason));
    match request {
        Request::Define { only_new, .. } => {
            if *only_new && standing.exists {
                return Err((ApiErrorCode::DomainExists, "it is defined already"));
            }
            return Ok(Job(JobKind::Define));
        }
        Request::Create(..) if standing.exists && state.is_active() => {
            return wrong("it is running already");
        }
        Request::Create(..) if standing.reaping => return Err(NOT_RELEASED),
        // What is kept of it stays, whatever it is created with.
        Request::Create(..) => return Ok(Job(JobKind::Start)),
        _ if !standing.exists => return Err(GONE),
        _ => {}
    }
    let needs_record = matches!(
        request,
        Request::Undefine | Request::SetAutostart(_) | Request::Rename(_)
    ) || request.reach().is_some_and(|(_, persistent)| persistent);
    if needs_record && !standing.persistent {
        return wrong("it is transient: define it first");
    }
    match request {
        Request::Define { .. } | Request::Create(..) | Request::Destroy => Err(GONE),
        Request::Undefine => Ok(Job(JobKind::Undefine)),
        Request::SetAutostart(_) => Ok(Job(JobKind::Define)),
        Request::Rename(_) if state.is_active() => {
            wrong("it is running: shut it down to rename it")
        }
        Request::Rename(_) if standing.reaping => Err(NOT_RELEASED),
        Request::Rename(_) => Ok(Job(JobKind::Define)),
        _ if request.reach() == Some((false, false)) => Err((
            ApiErrorCode::InvalidArgument,
            "neither the running nor the kept definition was named",
        )),
        _ if request.reach().is_some_and(|(live, _)| live) && !state.is_active() => Err(OFF),
        Request::SetLabel { .. } => Ok(Job(JobKind::Define)),
        Request::Attach { .. }
        | Request::Detach { .. }
        | Request::Update { .. }
        | Request::ChangeMedium { .. }
        | Request::ChangeTags { .. }
        | Request::ChangeFilter { .. }
        | Request::SetMemory { .. }
        | Request::Tune { .. }
        | Request::SetVcpus { .. }
            if standing.starting && request.reach().is_some_and(|(live, _)| live) =>
        {
            wrong("its worker has not answered since it was found")
        }
        Request::Attach { live: true, .. } | Request::SetVcpus { live: true, .. }
            if matches!(
                state,
                DomainState::Paused(PausedReason::PoweredOff)
                    | DomainState::Crashed
                    | DomainState::Panicked
            ) =>
        {
            wrong("its guest has ended; reset or destroy it")
        }
        Request::Attach { .. } => Ok(Job(JobKind::Attach)),
        Request::Detach { .. } => Ok(Job(JobKind::Detach)),
        Request::Update { .. }
        | Request::ChangeMedium { .. }
        | Request::ChangeTags { .. }
        | Request::ChangeFilter { .. }
        | Request::SetMemory { .. } => Ok(Job(JobKind::Update)),
        Request::SetMaxMemory(_) | Request::SetAgentTimeout(_) => Ok(Job(JobKind::Define)),
        Request::Tune { .. } => Ok(Job(JobKind::Tune)),
        Request::Upgrade if standing.starting => {
            wrong("its worker has not answered since it was found")
        }
        Request::Upgrade => match state {
            DomainState::ShutOff(_) => Err(OFF),
            DomainState::Paused(PausedReason::PoweredOff)
            | DomainState::Crashed
            | DomainState::Panicked => wrong("its guest has ended; reset or destroy it"),
            _ => Ok(Job(JobKind::Upgrade)),
        },
        Request::SetVcpus { .. } => Ok(Job(JobKind::SetVcpus)),
        Request::Start(..) if standing.reaping => Err(NOT_RELEASED),
        Request::Start(..) if state.is_active() => wrong("it is running already"),
        Request::Start(..) => Ok(Job(JobKind::Start)),
        Request::Shutdown { for_host: true, .. } => match state {
            DomainState::Paused(PausedReason::PoweredOff)
            | DomainState::Crashed
            | DomainState::Panicked => Ok(Admission::Destroy),
            DomainState::ShutOff(_) => Err(OFF),
            _ => Ok(Job(JobKind::Shutdown)),
        },
        Request::Shutdown { .. } => pressable(state).map(|()| Job(JobKind::Shutdown)),
        Request::Reboot => pressable(state).map(|()| Job(JobKind::Reboot)),
        Request::Reset if state.is_active() => Ok(Job(JobKind::Reset)),
        Request::Pause => match state {
            DomainState::Running(_) | DomainState::ShuttingDown => Ok(Job(JobKind::Pause)),
            DomainState::Paused(PausedReason::PoweredOff)
            | DomainState::Crashed
            | DomainState::Panicked => wrong("its guest has ended; reset or destroy it"),
            DomainState::Paused(_) => Ok(Answer),
            DomainState::ShutOff(_) => Err(OFF),
        },
        Request::Resume => match state {
            DomainState::Running(_) | DomainState::ShuttingDown => Ok(Answer),
            DomainState::Paused(PausedReason::PoweredOff)
            | DomainState::Crashed
            | DomainState::Panicked => wrong("its guest has ended; reset or destroy it"),
            DomainState::Paused(_) => Ok(Job(JobKind::Resume)),
            DomainState::ShutOff(_) => Err(OFF),
        },
        Request::Reset => Err(OFF),
    }
}

/// Whether anybody would notice the power button.
fn pressable(state: DomainState) -> Result<(), Refusal> {
    match state {
        DomainState::Running(_) | DomainState::ShuttingDown => Ok(()),
        DomainState::Paused(PausedReason::PoweredOff)
        | DomainState::Crashed
        | DomainState::Panicked => Err((
            ApiErrorCode::WrongState,
            "its guest has ended; reset or destroy it",
        )),
        DomainState::Paused(_) => Err((
            ApiErrorCode::WrongState,
            "it is paused and would not notice; resume it first",
        )),
        DomainState::ShutOff(_) => Err(OFF),
    }
}
