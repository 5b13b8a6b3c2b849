//! Takes up what an earlier supervisor left: definitions, and workers that live on.
//!
//! All workers are asked at the same time; one that does not answer holds up nobody. Then, once for
//! each boot of the host, the domains marked so are started in their order.

use std::collections::BTreeMap;
use std::time::Instant;

use reeve_ipc::api::call::{DomainRef, StartOptions};
use reeve_ipc::api::view::DomainState;
use reeve_ipc::model::DomainUuid;
use tokio::task::JoinSet;

use crate::domain::actor::SessionId;
use crate::domain::registry::{Registry, Remains};

/// The connection that nobody has: what the supervisor starts by itself is bound to no client.
const NOBODY: SessionId = SessionId(0);

/// How long the first clients may be held up, in milliseconds. A worker that is silent is given up
/// before.
const PATIENCE_MS: u64 = 3000;

/// What was found at the start.
#[derive(Debug, Clone, Default)]
pub struct Recovery {
    /// Workers taken over.
    pub adopted: u32,
    /// How long that took, in microseconds.
    pub within_us: u64,
    /// Files that could not be loaded, each with its reason in one line.
    pub refused: Vec<String>,
}

/// Takes up everything and waits until the last worker is taken over or found gone, but not for long.
pub async fn recover(registry: &Registry, remains: Vec<Remains>) -> Recovery {
    let begin = Instant::now();
    let mut recovery = Recovery::default();
    let mut workers = Vec::new();
    for domain in remains {
        let uuid = domain.uuid;
        match registry.recover(domain) {
            Ok(recovered) => workers.push(recovered),
            Err(error) => {
                tracing::error!(%uuid, %error, "a domain could not be taken up");
                recovery.refused.push(error.to_string());
            }
        }
    }
    let mut patience = Some(registry.world().clock.sleep_ms(PATIENCE_MS));
    for mut worker in workers {
        // An actor that ended tells nothing: its domain is gone. One that goes on trying holds up no
        // client of the others.
        let adopted = match &mut patience {
            None => worker.try_recv().ok(),
            Some(passed) => tokio::select! {
                biased;
                adopted = &mut worker => adopted.ok(),
                () = passed => {
                    patience = None;
                    None
                }
            },
        };
        if adopted == Some(true) {
            recovery.adopted += 1;
        }
    }
    recovery.within_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
    recovery
}

/// Starts the domains that start with the host: those of one place at the same time, `at_once` at
/// most, and those of the next when they run or have failed.
pub async fn autostart(registry: &Registry, at_once: usize) {
    let mut places: BTreeMap<u32, Vec<DomainUuid>> = BTreeMap::new();
    for view in registry.views() {
        let summary = &view.details.summary;
        if let (Some(place), DomainState::ShutOff(_)) = (summary.autostart, summary.state) {
            places.entry(place).or_default().push(summary.uuid);
        }
    }
    for (_, domains) in places {
        let mut starting = JoinSet::new();
        for uuid in domains {
            if starting.len() >= at_once.max(1) {
                starting.join_next().await;
            }
            let registry = registry.clone();
            starting.spawn(async move {
                let domain = DomainRef::Uuid(uuid);
                let started = registry.start(&domain, StartOptions::default(), NOBODY);
                if let Err(error) = started.await {
                    tracing::error!(%uuid, %error, "a domain did not start with the host");
                }
            });
        }
        while starting.join_next().await.is_some() {}
    }
}
