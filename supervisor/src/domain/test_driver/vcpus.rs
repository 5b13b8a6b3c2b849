//! The vCPUs of a machine that only looks like one: how many there are, and how many shall be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use reeve_ipc::model::Domain;
use reeve_ipc::phase::Phase;
use reeve_ipc::vcpus::VcpuStanding;

use crate::domain::driver::CallFailure;

/// What is known of a machine without asking it.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing(Arc<(AtomicU32, AtomicBool)>);

impl Standing {
    pub(super) fn set(&self, vcpus: u32, runs: bool) {
        self.0.0.store(vcpus, Ordering::Relaxed);
        self.0.1.store(runs, Ordering::Relaxed);
    }

    /// How many vCPUs it has.
    pub(super) fn vcpus(&self) -> u32 {
        self.0.0.load(Ordering::Relaxed)
    }

    /// Whether they run.
    pub(super) fn runs(&self) -> bool {
        self.0.1.load(Ordering::Relaxed)
    }
}

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

    pub(super) const fn present(&self) -> u32 {
        self.present
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
