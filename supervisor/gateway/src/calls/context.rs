//! What every call of an open connection has at hand: the supervisor, and how the client opened.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reeve_ipc::api::SOCKETS_DIRECTORY;
use reeve_ipc::api::blocking::CallError;
use reeve_ipc::api::call::{
    Call, DomainDefinitionGet, DomainFiguresList, DomainGet, DomainList, DomainRef, Operation,
    SupervisorInfoGet,
};
use reeve_ipc::api::client::Client;
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::figures::{DomainFigures, FigureGroups, FiguresOf};
use reeve_ipc::api::view::{DomainDetails, DomainState, DomainSummary};
use reeve_ipc::changes::Changes;
use reeve_ipc::model::{Domain as Definition, DomainName, DomainUuid};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::failure::{Code, Failure, invalid_argument};
use super::known::Known;
use super::state;
use crate::wire::types::handles::Domain;

/// What libvirt says of a domain that does not run.
const NOT_RUNNING: &str = "domain is not running";
/// How long a call waits for another job of its domain, as in libvirt.
const JOB_PATIENCE: Duration = Duration::from_secs(30);
/// How long an end waits for the kernel to release the domain's worker, as libvirt does for a process that it kills.
const RELEASE_PATIENCE: Duration = Duration::from_secs(15);
/// How soon it is tried again, at first and at last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// In what a change takes effect (libvirt `virDomainModificationImpact`).
pub(super) mod impact {
    /// In the machine that runs.
    pub(in crate::calls) const LIVE: u32 = 1;
    /// In the definition that is kept.
    pub(in crate::calls) const CONFIG: u32 = 2;
    /// Both.
    pub(in crate::calls) const ANY: u32 = LIVE | CONFIG;
}

/// Where a change goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Impact {
    pub(super) live: bool,
    pub(super) persistent: bool,
}

/// An open connection.
#[derive(Debug)]
pub struct Context {
    api: Client,
    known: Known,
    sockets: OnceCell<PathBuf>,
    /// The URI that was accepted.
    pub(crate) uri: String,
    /// The client may look only, or asked for no more.
    pub(crate) read_only: bool,
}

impl Context {
    pub(super) fn new(api: Client, changes: Arc<Changes>, uri: String, read_only: bool) -> Self {
        Self {
            api,
            known: Known::new(changes),
            sockets: OnceCell::const_new(),
            uri,
            read_only,
        }
    }

    /// Calls the supervisor. A domain that has another job is waited for, as libvirt does.
    ///
    /// # Errors
    /// Its own, as libvirt says them.
    pub(super) async fn call<C: Call + Clone>(&self, call: C) -> Result<C::Answer, Failure> {
        Ok(self.call_with_fds(call).await?.0)
    }

    /// As [`Self::call`], with the descriptors that came with the answer.
    ///
    /// # Errors
    /// As for [`Self::call`].
    pub(super) async fn call_with_fds<C: Call + Clone>(
        &self,
        call: C,
    ) -> Result<(C::Answer, Vec<OwnedFd>), Failure> {
        self.call_within(call, JOB_PATIENCE).await
    }

    /// As [`Self::call_with_fds`]; what is busy is waited for no longer than that.
    ///
    /// # Errors
    /// As for [`Self::call`].
    pub(super) async fn call_within<C: Call + Clone>(
        &self,
        call: C,
        patience: Duration,
    ) -> Result<(C::Answer, Vec<OwnedFd>), Failure> {
        Ok(self.asked_within(call, patience).await?)
    }

    /// As [`Self::call_with_fds`], with the supervisor's own error.
    pub(super) async fn asked<C: Call + Clone>(
        &self,
        call: C,
    ) -> Result<(C::Answer, Vec<OwnedFd>), CallError> {
        self.asked_within(call, JOB_PATIENCE).await
    }

    async fn asked_within<C: Call + Clone>(
        &self,
        call: C,
        patience: Duration,
    ) -> Result<(C::Answer, Vec<OwnedFd>), CallError> {
        let mut wait = AGAIN.0;
        let begun = Instant::now();
        loop {
            match self.api.call_with_fds(call.clone()).await {
                // It was refused before anything was done.
                Err(CallError::Refused(error))
                    if error.code == ApiErrorCode::Busy && begun.elapsed() < patience =>
                {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(AGAIN.1);
                }
                result => return result,
            }
        }
    }

    /// Waits until the kernel has released the worker of a domain that is off: to a client of libvirt's a domain
    /// that has ended can be started, renamed and forgotten, and nobody uses its images.
    pub(super) async fn released(&self, domain: &Domain) {
        let mut wait = AGAIN.0;
        let begun = Instant::now();
        let is_held = async || {
            let found = self.summary(domain).await;
            found.is_ok_and(|summary| summary.reaping)
        };
        while begun.elapsed() < RELEASE_PATIENCE && is_held().await {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AGAIN.1);
        }
    }

    /// The domain of a handle, without asking its worker.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn details(&self, domain: &Domain) -> Result<DomainDetails, Failure> {
        match self.find(reference(domain)).await {
            Err(failure) if failure.code == Code::NoDomain => Err(absent(domain)),
            found => found,
        }
    }

    /// A domain, without asking its worker; and without asking the supervisor, where what it answered stands.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn find(&self, domain: DomainRef) -> Result<DomainDetails, Failure> {
        if let Some(details) = self.known.domain(&domain) {
            return Ok(details);
        }
        let asked = self.known.now();
        let call = DomainGet {
            domain: domain.clone(),
        };
        let details = self.call(call).await?;
        self.known.keep(asked, domain, &details);
        Ok(details)
    }

    /// As [`Self::details`], as in a list.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn summary(&self, domain: &Domain) -> Result<DomainSummary, Failure> {
        Ok(self.details(domain).await?.summary)
    }

    /// As [`Self::summary`], of a domain that must have a worker.
    ///
    /// # Errors
    /// There is none, or it has none.
    pub(super) async fn active(&self, domain: &Domain) -> Result<DomainSummary, Failure> {
        let summary = self.summary(domain).await?;
        match summary.state.is_active() {
            true => Ok(summary),
            false => Err(Failure::not_running()),
        }
    }

    /// How a domain stands, with the figures of those groups.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn figures(
        &self,
        domain: &Domain,
        groups: FigureGroups,
    ) -> Result<DomainFigures, Failure> {
        let of = FiguresOf::Named(vec![reference(domain)]);
        let page = self.call(DomainFiguresList { of, groups }).await?;
        let found = page.domains.into_iter().next();
        found.ok_or_else(|| absent(domain))
    }

    /// As [`Self::figures`], of a domain that must have a worker.
    ///
    /// # Errors
    /// There is none, or it has none.
    pub(super) async fn active_figures(
        &self,
        domain: &Domain,
        groups: FigureGroups,
    ) -> Result<DomainFigures, Failure> {
        let figures = self.figures(domain, groups).await?;
        match figures.summary.state.is_active() {
            true => Ok(figures),
            false => Err(Failure::not_running()),
        }
    }

    /// Where the sockets of devices are whose path no document says: one place, for as long as the supervisor
    /// is there.
    ///
    /// # Errors
    /// As for [`Self::call`].
    pub(super) async fn sockets(&self) -> Result<&Path, Failure> {
        let sockets = self.sockets.get_or_try_init(|| async {
            let supervisor = self.call(SupervisorInfoGet {}).await?;
            Ok::<_, Failure>(Path::new(&supervisor.run_directory).join(SOCKETS_DIRECTORY))
        });
        Ok(sockets.await?.as_path())
    }

    /// A domain's definition: the one it runs with, or that which is kept.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn definition(
        &self,
        domain: &Domain,
        persistent: bool,
    ) -> Result<Definition, Failure> {
        let call = DomainDefinitionGet {
            domain: reference(domain),
            persistent,
        };
        Ok(self.of(domain, call).await?.domain)
    }

    /// The definition that flags mean: the one the domain runs with, or that which is kept.
    ///
    /// # Errors
    /// As for [`Self::impact`]; a client that means both is told so.
    pub(super) async fn meant(&self, domain: &Domain, flags: u32) -> Result<Definition, Failure> {
        let flags = flags & impact::ANY;
        if flags == impact::ANY {
            let why = "flags 'VIR_DOMAIN_AFFECT_LIVE' and 'VIR_DOMAIN_AFFECT_CONFIG' are mutually exclusive";
            return Err(invalid_argument(why));
        }
        let Impact { live, .. } = self.impact(domain, flags).await?;
        self.definition(domain, !live).await
    }

    /// A call about the domain of a handle: that there is none, and that it is in the wrong state, is said as
    /// libvirt says it.
    ///
    /// # Errors
    /// As for [`Self::call`].
    pub(super) async fn of<C: Call + Clone>(
        &self,
        domain: &Domain,
        call: C,
    ) -> Result<C::Answer, Failure> {
        let failure = match self.call(call).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        self.said(domain, C::OPERATION, failure).await
    }

    /// A failure of an operation on a domain in libvirt's words.
    pub(super) async fn said<T>(
        &self,
        domain: &Domain,
        operation: Operation,
        failure: Failure,
    ) -> Result<T, Failure> {
        Err(match failure.code {
            Code::NoDomain => absent(domain),
            Code::OperationInvalid => match self.find(reference(domain)).await {
                Ok(details) => {
                    wrong_state(operation, &details.summary).map_or(failure, Failure::invalid)
                }
                Err(_) => failure,
            },
            _ => failure,
        })
    }

    /// Where a change of a domain goes.
    ///
    /// # Errors
    /// There is no such place: it does not run, or nothing is kept of it.
    pub(super) async fn impact(&self, domain: &Domain, flags: u32) -> Result<Impact, Failure> {
        impact_of(&self.summary(domain).await?, flags)
    }

    /// Every domain, or those with a worker, by name.
    ///
    /// # Errors
    /// As for [`Self::call`].
    pub(super) async fn domains(&self, active_only: bool) -> Result<Vec<DomainSummary>, Failure> {
        let mut all: Vec<DomainSummary> = Vec::new();
        loop {
            let after: Option<DomainName> = all.last().map(|last| last.name.clone());
            let page = self.call(DomainList { after, active_only }).await?;
            let more = page.more && !page.domains.is_empty();
            all.extend(page.domains);
            if !more {
                return Ok(all);
            }
        }
    }
}

/// What libvirt says of an operation that a domain is in the wrong state for, if its state shows why.
fn wrong_state(operation: Operation, summary: &DomainSummary) -> Option<&'static str> {
    let active = summary.state.is_active();
    match operation {
        Operation::DomainStart => active.then_some("domain is already running"),
        Operation::DomainUndefine if !summary.persistent => {
            Some("cannot undefine transient domain")
        }
        Operation::DomainAutostartSet if !summary.persistent => {
            Some("cannot set autostart for transient domain")
        }
        Operation::DomainRename if !summary.persistent => Some("cannot rename a transient domain"),
        Operation::DomainRename => active.then_some("cannot rename active domain"),
        // Nobody would notice the power button.
        Operation::DomainShutdown if matches!(summary.state, DomainState::Paused(_)) => {
            Some(NOT_RUNNING)
        }
        _ => (!active).then_some(NOT_RUNNING),
    }
}

/// As [`Context::impact`], of a domain that is known.
///
/// # Errors
/// As for [`Context::impact`].
pub(super) fn impact_of(summary: &DomainSummary, flags: u32) -> Result<Impact, Failure> {
    let active = summary.state.is_active();
    let (mut live, mut persistent) = (flags & impact::LIVE != 0, flags & impact::CONFIG != 0);
    if !live && !persistent {
        live = active;
        persistent = !active;
    }
    if live && !active {
        return Err(Failure::not_running());
    }
    if persistent && !summary.persistent {
        let why = "transient domains do not have any persistent configuration";
        return Err(Failure::new(Code::OperationInvalid, why));
    }
    Ok(Impact { live, persistent })
}

/// That there is no domain of that handle.
fn absent(domain: &Domain) -> Failure {
    let (uuid, name) = (Uuid::from_bytes(domain.uuid), &domain.name);
    let why = format!("no domain with matching uuid '{uuid}' ({name})");
    Failure::not_found(Code::NoDomain, why)
}

/// The domain of a handle: its UUID names it, whatever else the handle says.
pub(super) const fn reference(domain: &Domain) -> DomainRef {
    DomainRef::Uuid(DomainUuid(Uuid::from_bytes(domain.uuid)))
}

/// The handle of a domain.
pub(super) fn handle(summary: &DomainSummary) -> Domain {
    Domain {
        name: summary.name.as_str().to_owned(),
        uuid: *summary.uuid.0.as_bytes(),
        id: state::id(summary),
    }
}
