//! The vCPUs of a machine that only looks like one: how many there are, and how many shall be.

use reeve_ipc::model::Domain;
use reeve_ipc::phase::Phase;
use reeve_ipc::vcpus::VcpuStanding;

use crate::domain::driver::CallFailure;

/// Those from 0 on.
#[derive(Debug)]
pub(super) struct TestVcpus {
    possible: u32,
    present: u32,
    wanted: u32,
    /// Something has happened of which nobody was told.
    changed: bool,
}

impl TestVcpus {
    pub(super) fn new(domain: &Domain) -> Self {
        Self {
            possible: domain.max_vcpus.count(),
            present: domain.vcpus.count(),
            wanted: domain.vcpus.count(),
            changed: false,
        }
    }

    pub(super) fn set(&mut self, count: u32, phase: Phase) -> Result<(), CallFailure> {
        let refused = |why: String| Err(CallFailure::Refused(why));
        if !matches!(phase, Phase::Running | Phase::Paused) {
            return refused(format!("the machine is {phase}"));
        }
        if !(1..=self.possible).contains(&count) {
            return refused(format!("{count} vCPUs: it can have 1 to {}", self.possible));
        }
        self.wanted = count;
        self.present = self.present.max(count);
        self.changed = true;
        Ok(())
    }

    /// What its guest was asked for goes: it is being reset.
    pub(super) fn leave_all(&mut self) {
        self.changed |= self.present != self.wanted;
        self.present = self.wanted;
    }

    /// A guest that runs lets go of what it was asked for. What is news of it.
    pub(super) fn let_go(&mut self, runs: bool) -> Option<VcpuStanding> {
        if runs {
            self.leave_all();
        }
        std::mem::take(&mut self.changed).then(|| VcpuStanding {
            present: (0..self.present).collect(),
            leaving: (self.wanted..self.present).collect(),
            wanted: self.wanted,
            ..VcpuStanding::default()
        })
    }
}
