//! The actor as clients see it.

use reeve_ipc::api::view::{DomainDetails, DomainSummary, WorkerDetails};

use super::DomainActor;

impl DomainActor {
    /// As in a list; `None` of a domain that has neither record nor worker.
    #[must_use]
    pub fn summary(&self) -> Option<DomainSummary> {
        let domain = self.definition(false)?;
        Some(DomainSummary {
            name: domain.name.clone(),
            uuid: self.uuid,
            id: self
                .live()
                .filter(|live| live.killed.is_none())
                .map(|live| live.id),
            state: self.state(),
            persistent: self.record.is_some(),
            autostart: self.record.as_ref().and_then(|record| record.autostart),
            vcpus: domain.vcpus.count(),
            memory: domain.memory,
            title: domain.labels.title.clone(),
            unresponsive: self.is_silent(),
            reaping: self.is_reaping(),
            job: self.standing().job,
            max_vcpus: domain.max_vcpus.count(),
            current_memory: match self.live() {
                Some(live) => live.memory(live.guest),
                None => domain.tuning.current_memory.unwrap_or(domain.memory),
            },
            max_memory: domain.max_memory(),
        })
    }

    /// With all that is known without asking the worker; `worker` is what the driver says of it.
    #[must_use]
    pub fn details(&self, worker: Option<WorkerDetails>) -> Option<DomainDetails> {
        let live = self.live();
        Some(DomainDetails {
            summary: self.summary()?,
            started_ms: live.map(|live| live.record.started_ms),
            worker,
            resets: live.map_or(0, |live| live.resets),
            last_failure: self.last_failure.clone(),
            redefined: match (live, &self.record) {
                (Some(live), Some(record)) => live.record.definition != record.domain,
                _ => false,
            },
            agent_timeout: self.agent_timeout,
        })
    }
}
