//! The driver of real domains: one jailed worker each, over KVM.

use std::sync::Arc;

use reeve_ipc::model::{Domain, DomainName};
use reeve_ipc::phase::Phase;

use super::instance::KvmInstance;
use super::kept::GivenUp;
use super::planner::Planner;
use super::start::StartError;
use super::{adopt, kept};
use crate::crash::{self, Moment, Operation};
use crate::domain::driver::{
    Adoption, Driver, Later, Recorder, Resources, Running, StartFailure, StartFailureKind,
    StartOrder,
};
use crate::domain::plan::{PathPolicy, PlanError};
use crate::host::Host;
use crate::host::filter::FilterError;
use crate::host::open_vswitch::OpenVswitchError;
use crate::host::shares::ShareError;
use crate::host::sockets::SocketError;
use crate::host::tap::MacvtapError;
use crate::host::vcpus::VcpuError;

/// Runs domains over KVM, in workers that outlive it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KvmDriver {
    host: Arc<Host>,
    planner: Planner,
    given_up: Arc<GivenUp>,
}

impl KvmDriver {
    /// The driver for `host`; definitions may name the files that `paths` opens. Where systemd
    /// delegated a cgroup, this process moves into a leaf of it.
    #[must_use]
    pub fn new(host: Arc<Host>, paths: Arc<dyn PathPolicy>) -> Self {
        host.cgroups.settle();
        Self {
            planner: Planner::new(paths, &host),
            host,
            given_up: Arc::default(),
        }
    }
}

impl Driver for KvmDriver {
    fn start(
        &self,
        order: StartOrder,
        recorder: Arc<dyn Recorder>,
    ) -> Later<Result<Running, StartFailure>> {
        let driver = self.clone();
        Box::pin(async move {
            let phase = if order.paused {
                Phase::Paused
            } else {
                Phase::Running
            };
            let (host, planner) = (&driver.host, &driver.planner);
            let started = kept::start(host, planner, &order, recorder, &driver.given_up).await;
            match started {
                Ok((worker, notices)) => Ok(Running {
                    instance: Arc::new(KvmInstance::new(
                        worker,
                        Arc::clone(&driver.host),
                        planner.clone(),
                    )),
                    notices,
                    phase,
                }),
                Err(error) => {
                    crash::point(Operation::Start, Moment::AfterRelease);
                    Err(StartFailure {
                        kind: kind(&error),
                        message: told(&order.domain.name, &error),
                    })
                }
            }
        })
    }

    fn settled(&self) -> Later<()> {
        let driver = self.clone();
        Box::pin(async move {
            driver.host.spawner.settled().await;
            driver.given_up.gone().await;
        })
    }

    fn adopt(&self, domain: Domain, recorded: Resources) -> Later<Adoption> {
        // Not later: a start that comes before the future runs must not get the same uid.
        let claim = adopt::Claim::new(&self.host, self.planner.clone(), recorded);
        Box::pin(async move { adopt::adopt(&domain, claim).await })
    }
}

/// The error in one line that names the domain: what is of its host or its definition does not.
fn told(domain: &DomainName, error: &StartError) -> String {
    match error {
        StartError::Plan(_)
        | StartError::Identity(_)
        | StartError::Spawn(_)
        | StartError::Socket(_)
        | StartError::Listen { .. } => format!("cannot start '{domain}': {error}"),
        named => named.to_string(),
    }
}

/// What kind of failure a plan met.
pub(super) const fn plan_kind(error: &PlanError) -> StartFailureKind {
    match error {
        PlanError::Forbidden(_)
        | PlanError::Socket(SocketError::Forbidden(_))
        | PlanError::Share(ShareError::Forbidden(_)) => StartFailureKind::Path,
        PlanError::NoFirmware | PlanError::NicSource(_) => StartFailureKind::Unsupported,
        PlanError::Filter(
            FilterError::NotOurs(_)
            | FilterError::Switch(_)
            | FilterError::Beside(_)
            | FilterError::UponDevice(_)
            | FilterError::Nwfilter(_),
        ) => StartFailureKind::Definition,
        PlanError::Macvtap(MacvtapError::Isolated(_)) => StartFailureKind::Definition,
        PlanError::OpenVswitch(OpenVswitchError::Tenants(_) | OpenVswitchError::NoDatabase) => {
            StartFailureKind::Unsupported
        }
        PlanError::Share(error) if error.is_of_definition() => StartFailureKind::Definition,
        PlanError::Disk(error) if error.is_of_definition() => StartFailureKind::Definition,
        PlanError::Model(_) | PlanError::Image { .. } | PlanError::NotAFile { .. } => {
            StartFailureKind::Definition
        }
        _ => StartFailureKind::Host,
    }
}

fn kind(error: &StartError) -> StartFailureKind {
    match error {
        StartError::Plan(error) => plan_kind(error),
        StartError::Confinement(error) if error.is_of_definition() => StartFailureKind::Definition,
        StartError::Vcpus {
            error: VcpuError::NoSuchCpu { .. } | VcpuError::NoSuchEmulatorCpu { .. },
            ..
        } => StartFailureKind::Definition,
        StartError::Refused { .. } | StartError::Died { .. } | StartError::Call { .. } => {
            StartFailureKind::Worker
        }
        _ => StartFailureKind::Host,
    }
}
