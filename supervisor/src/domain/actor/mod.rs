//! One domain's state and the rules by which it changes: pure, without I/O, clock or runtime.
//!
//! ```text
//!               define                        start, autostart, restart by policy
//!   (nothing) ─────────► ShutOff ──────────────────────────► Paused(StartingUp)
//!       ▲                │  ▲  ▲                                  │       │ failed: back
//!       └── undefine ────┘  │  │                    started paused│       │started
//!                           │  │                                  ▼ resume▼
//!                           │  │                          Paused ◄──────► Running ◄──┐ reset by policy
//!                           │  └─ destroy, worker gone ────┴── pause ──┤      │      │ or for a reboot
//!                           │                                          │      ▼      │
//!                           └────────── stop by policy ──── the guest powers off, resets, crashes
//!                                                                             │ policy: preserve
//!                                                                             ▼
//!                                                                  Paused(PoweredOff) or Crashed
//! ```
//!
//! The actor is fed [`Input`]s and answers with [`Effect`]s; whoever drives it executes them in their
//! order and feeds back what came of those that have an outcome. The tokio shell does so for the
//! daemon, the simulation for its seeds.
//!
//! Rules: one modify job at a time, each a short list of steps; others wait in a bounded queue.
//! What the guest does outranks what clients ask for: an end of the guest interrupts a job that
//! waits for the worker. Destroy takes no turn at all. A step that reached the disk is never
//! interrupted, since it would be done without being known. Whatever must survive the supervisor is
//! in the record or in the run-time status *before* the worker hears of it.

mod admission;
mod bounds;
mod devices;
mod ends;
mod jobs;
mod message;
mod outcomes;
pub mod planted;
mod reconcile;
mod standing;
mod steps;
mod tuning;
mod undo;
mod vcpus;
mod view;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::view::{
    AgentTimeout, DomainDefinition, DomainState, JobKind, PausedReason, ShutOffReason,
};
use reeve_ipc::model::{Domain, DomainName, DomainUuid};

pub use self::admission::{Admission, admit};
pub use self::message::{
    Adopted, Done, Effect, Input, Intents, LiveRecord, Now, Request, SessionId, Ticket, Timer,
};
pub use self::standing::Standing;
pub use self::steps::Step;
pub(crate) use self::steps::apply as change_labels;

use self::jobs::Job;
use self::planted::Bug;
use self::standing::{Activity, Live};

/// Requests that may wait for the job before them.
pub const MAX_WAITING: usize = 16;
/// How long a destroy waits for the process to go before it is answered all the same.
pub const DESTROY_ACKNOWLEDGED_MS: u64 = 100;
/// How long a guest may take to let go of a device, or of vCPUs, before whoever asked is told that it does not.
pub const DETACH_MS: u64 = 10_000;
/// How long the worker may then take to say whether the device is there, before the same.
pub const DETACH_CHECKED_MS: u64 = 5_000;
/// A domain that its policy restarts more often than this within [`RESTART_WINDOW_MS`] is left alone.
pub const MAX_RESTARTS: usize = 5;
/// See [`MAX_RESTARTS`].
pub const RESTART_WINDOW_MS: u64 = 60_000;

/// One domain.
#[derive(Debug)]
pub struct DomainActor {
    uuid: DomainUuid,
    /// What is on disk and was acknowledged.
    record: Option<DomainDefinition>,
    activity: Activity,
    job: Option<Job>,
    waiting: VecDeque<(Ticket, Request)>,
    /// Names the outcome that is waited for; outcomes of steps that were given up have another.
    serial: u64,
    ids: Arc<AtomicU32>,
    restarts: VecDeque<u64>,
    last_failure: Option<String>,
    /// How long clients wait for its guest's agent: as its status says while it runs.
    agent_timeout: Option<AgentTimeout>,
    retired: bool,
    now: Now,
    effects: Vec<Effect>,
}

impl DomainActor {
    /// A domain of which nothing is known yet: the first request defines or creates it.
    #[must_use]
    pub fn new(uuid: DomainUuid, ids: Arc<AtomicU32>) -> Self {
        Self {
            uuid,
            record: None,
            activity: Activity::Off(ShutOffReason::Unknown),
            job: None,
            waiting: VecDeque::new(),
            serial: 0,
            ids,
            restarts: VecDeque::new(),
            last_failure: None,
            agent_timeout: None,
            retired: false,
            now: Now {
                unix_ms: 0,
                boot_ms: 0,
            },
            effects: Vec::new(),
        }
    }

    /// A domain as a supervisor finds it at its start: what is on disk, and the run-time status of a
    /// worker that may live. The first input must be [`Input::Recover`].
    #[must_use]
    pub fn recovered(
        uuid: DomainUuid,
        record: Option<DomainDefinition>,
        live: Option<LiveRecord>,
        ids: Arc<AtomicU32>,
    ) -> Self {
        let mut actor = Self::new(uuid, ids);
        // Whoever has written one by hand may have left the places on the bus to us. One for which there is no
        // room is refused where it matters.
        actor.record = record.map(|mut record| {
            let _ = record.domain.complete();
            record
        });
        if let Some(mut live) = live {
            let _ = live.definition.complete();
            actor.agent_timeout = live.agent_timeout;
            let id = actor.fresh_id();
            actor.activity = Activity::Live(Box::new(Live::found(id, live)));
        }
        actor
    }

    /// Takes one input and says what is to be done, in this order.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Effect> {
        if self.retired {
            // It is another's domain now, if it is one's at all.
            return Vec::new();
        }
        self.now = now;
        let before = self.state();
        match input {
            Input::Request(ticket, request) => self.request(ticket, request),
            Input::Recover => self.recover(),
            Input::Done(serial, done) => self.done(serial, done),
            Input::Notice(id, notice) => self.notice(id, notice),
            Input::Connected(id, ports) => self.interfaces_connected(id, ports),
            Input::Timer(timer) => self.timer(timer),
            Input::SessionEnded(session) => self.session_ended(session),
        }
        self.go_on();
        let after = self.state();
        if after != before && !planted::has(Bug::TellsNobody) {
            // Told before any answer, so that a client which has its answer has seen the event.
            self.effects
                .insert(0, Effect::Event(EventKind::State(after)));
        }
        std::mem::take(&mut self.effects)
    }

    /// Whether nothing is left of the domain: neither record nor worker.
    #[must_use]
    pub const fn is_retired(&self) -> bool {
        self.retired
    }

    /// Its name: that of the worker's definition while there is one, else of the record.
    #[must_use]
    pub fn name(&self) -> Option<&DomainName> {
        self.definition(false).map(|domain| &domain.name)
    }

    /// The definition it runs with, or the one that is kept where it does not run or `persistent`
    /// asks for it.
    #[must_use]
    pub fn definition(&self, persistent: bool) -> Option<&Domain> {
        match &self.activity {
            Activity::Live(live) if !persistent => Some(&live.record.definition),
            _ => self.record.as_ref().map(|record| &record.domain),
        }
    }

    /// What is kept of it.
    #[must_use]
    pub const fn record(&self) -> Option<&DomainDefinition> {
        self.record.as_ref()
    }

    /// Its state, as clients see it.
    #[must_use]
    pub fn state(&self) -> DomainState {
        self.activity.state()
    }

    /// What is being done to it just now.
    #[must_use]
    pub fn job_kind(&self) -> Option<JobKind> {
        self.job.as_ref().map(Job::kind)
    }

    fn live(&self) -> Option<&Live> {
        match &self.activity {
            Activity::Live(live) => Some(live),
            Activity::Off(_) => None,
        }
    }

    fn live_mut(&mut self) -> Option<&mut Live> {
        match &mut self.activity {
            Activity::Live(live) => Some(live),
            Activity::Off(_) => None,
        }
    }

    fn fresh_id(&self) -> u32 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    fn answer(&mut self, ticket: Ticket, result: Result<(), ApiError>) {
        self.effects.push(Effect::Answer(ticket, result));
    }

    fn request(&mut self, ticket: Ticket, request: Request) {
        match admit(&self.standing(), &request) {
            Admission::Answer => self.answer(ticket, Ok(())),
            Admission::Refuse(error) => self.answer(ticket, Err(error)),
            Admission::Destroy => self.destroy(Some(ticket)),
            Admission::Wait if self.waiting.len() < MAX_WAITING => {
                if !planted::has(Bug::ForgetsWaiting) {
                    self.waiting.push_back((ticket, request));
                }
            }
            Admission::Wait => {
                let error = self.error(
                    ApiErrorCode::Busy,
                    format!("{MAX_WAITING} requests wait already"),
                );
                self.answer(ticket, Err(error));
            }
            Admission::Job(kind) => self.begin(Some(ticket), kind, request),
        }
    }

    /// What comes next when no job runs: the guest's own end, then whoever waits.
    fn go_on(&mut self) {
        loop {
            if self.job.is_some() {
                return;
            }
            if self.live_mut().is_some_and(Live::take_restarted) {
                self.finish_restart();
                continue;
            }
            if let Some(end) = self.live_mut().and_then(Live::take_end) {
                self.guest_ended(&end);
                continue;
            }
            if self.live_mut().is_some_and(Live::take_unfinished) {
                self.finish_tuning();
                continue;
            }
            let Some((ticket, request)) = self.waiting.pop_front() else {
                break;
            };
            self.request(ticket, request);
        }
        if self.record.is_none() && self.live().is_none() && !self.retired {
            self.retired = true;
            self.effects.push(Effect::Retire);
        }
    }

    /// An error about this domain.
    fn error(&self, code: ApiErrorCode, what: impl std::fmt::Display) -> ApiError {
        let name = self
            .name()
            .map_or_else(|| self.uuid.to_string(), ToString::to_string);
        ApiError::new(code, format!("domain '{name}': {what}"))
    }

    fn session_ended(&mut self, session: SessionId) {
        let bound = |live: &Live| live.auto_destroy == Some(session) && live.killed.is_none();
        if self.live().is_some_and(bound) && !planted::has(Bug::OutlivesTheClient) {
            self.destroy(None);
        }
        let theirs = |request: &Request| match request {
            Request::Start(options, starter) | Request::Create(_, options, starter) => {
                options.auto_destroy && *starter == session
            }
            _ => false,
        };
        let (ended, others): (Vec<_>, _) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(_, request)| theirs(request));
        self.waiting = others.into();
        for (ticket, _) in ended {
            let error = self.error(ApiErrorCode::Cancelled, "its client is gone");
            self.answer(ticket, Err(error));
        }
    }

    fn recover(&mut self) {
        if let Some(live) = self.live() {
            let id = live.id;
            let record = Box::new(live.record.clone());
            self.begin_steps(None, JobKind::Adopt, [Step::Adopt { id, record }]);
        }
    }

    /// Where the domain stands, as far as admission cares.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            name: self.name().cloned(),
            state: self.state(),
            starting: matches!(self.state(), DomainState::Paused(PausedReason::StartingUp)),
            persistent: self.record.is_some(),
            // A transient domain that is being started exists only once it runs.
            exists: self.record.is_some() || self.live().is_some(),
            reaping: self.live().is_some_and(|live| live.killed.is_some()),
            job: self.job_kind(),
        }
    }
}

#[cfg(test)]
mod tests;
