//! vCPUs that come and go: the steps of what clients ask for, and what the worker tells.
//!
//! ```text
//!   set: the worker brings some ─────────────┐
//!        or asks its guest for some ··· Vcpus ┴► status with as many ─► record with as many
//!                                      └── it refuses: an error
//! ```
//! How many there are is the worker's to say: it tells at every change, and when it is adopted. The most
//! that there can be is the definition's, and so is what is planned for on the host.

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::EventKind;
use reeve_ipc::model::{Domain, Vcpus};
use reeve_ipc::vcpus::VcpuStanding;

use super::message::{Effect, Timer};
use super::steps::Step;
use super::{DETACH_MS, DomainActor};
use crate::domain::driver::DeviceCall;

impl DomainActor {
    pub(super) fn vcpu_steps(
        &self,
        vcpus: Vcpus,
        live: bool,
        persistent: bool,
    ) -> Result<(Vec<Step>, Vec<EventKind>), ApiError> {
        let fits = |domain: &Domain| {
            if vcpus <= domain.max_vcpus {
                return Ok(());
            }
            let (count, most) = (vcpus.count(), domain.max_vcpus.count());
            let why = format!(
                "{count} vCPUs are more than the {most} that it can have; 'reeve edit' changes max-cpus for \
                 the next start"
            );
            Err(self.error(ApiErrorCode::InvalidArgument, why))
        };
        let mut steps = Vec::new();
        let mut events = Vec::new();
        if live {
            let definition = &self.running()?.record.definition;
            fits(definition)?;
            steps.push(Step::Device(DeviceCall::Vcpus {
                domain: Box::new(definition.clone()),
                count: vcpus.count(),
            }));
        }
        if persistent {
            let mut record = self.kept()?.clone();
            fits(&record.domain)?;
            record.domain.vcpus = vcpus;
            steps.push(Step::WriteRecord(Box::new(record)));
            events.push(EventKind::Defined { changed: true });
        }
        Ok((steps, events))
    }

    /// The worker was asked for so many. If they are not there yet, it will be told when they are.
    pub(super) fn vcpus_asked(&mut self, count: u32) {
        let there = self.live().map(|live| live.record.definition.vcpus.count());
        if there == Some(count) {
            return self.step_done();
        }
        let Some(job) = &mut self.job else { return };
        job.answered = true;
        let timer = Timer::DetachDeadline(job.serial);
        self.effects.push(Effect::SetTimer(timer, DETACH_MS));
    }

    /// The worker says which vCPUs there are.
    pub(super) fn vcpus_stand(&mut self, standing: VcpuStanding) {
        let Some(live) = self.live_mut() else { return };
        let definition = &mut live.record.definition;
        // More than it was made with are none.
        let Ok(vcpus) = Vcpus::try_from(standing.present.count().min(definition.max_vcpus.count()))
        else {
            return;
        };
        if definition.vcpus != vcpus {
            definition.vcpus = vcpus;
            let (id, record) = (live.id, Box::new(live.record.clone()));
            if let Some(job) = &mut self.job {
                job.note_vcpus(vcpus);
            }
            self.effects.push(Effect::WriteStatus(None, id, record));
            let vcpus = vcpus.count();
            self.effects
                .push(Effect::Event(EventKind::VcpusChanged { vcpus }));
        }
        let Some(job) = self.job.as_ref().filter(|job| job.answered) else {
            return;
        };
        let Step::Device(DeviceCall::Vcpus { count, .. }) = job.step else {
            return;
        };
        if standing.wanted != count {
            return;
        }
        if vcpus.count() == count {
            self.step_done();
        } else if standing.leaving.count() == 0 {
            let why = "its guest does not let go of the vCPUs: it may have bound something to them";
            let error = self.vcpu_error(ApiErrorCode::Worker, count, why);
            self.job_failed(error);
        }
    }

    /// The guest has not let go of vCPUs in time. It may yet.
    pub(super) fn vcpu_deadline(&mut self, serial: u64) {
        let Some(job) = self.job.as_ref().filter(|job| job.serial == serial) else {
            return;
        };
        let Step::Device(DeviceCall::Vcpus { count, .. }) = job.step else {
            return;
        };
        let seconds = DETACH_MS / 1000;
        let why = format!(
            "its guest has not let go of the vCPUs within {seconds} s, and may do so yet; a reset takes them"
        );
        let error = self.vcpu_error(ApiErrorCode::Timeout, count, &why);
        self.job_failed(error);
    }

    fn vcpu_error(&self, code: ApiErrorCode, count: u32, why: &str) -> ApiError {
        let there = self
            .live()
            .map_or(0, |live| live.record.definition.vcpus.count());
        self.error(code, format!("{there} vCPUs and not {count}: {why}"))
    }
}
