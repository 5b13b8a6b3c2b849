//! The daemon: one instance of the supervisor over one state directory and one run directory.
//!
//! ```text
//!   main ─► state directory (lock) ─► run directory (lock) ─► socket bound: clients may knock
//!                                                                 │
//!          serve ◄── autostart, once a boot ◄── adopt workers ◄── load records and statuses
//!            │
//!            ├─ SIGHUP: read the configuration again     SIGTERM, SIGINT: end, and touch no domain
//! ```
//!
//! What lives here: the order of start and end, and the calls of the API as the registry's; and the test
//! hypervisor, a second such service in memory. What may not: rules of domains (`domain::actor`), files (`store`),
//! sockets and access (`api`).

mod configured;
mod descriptors;
mod figures;
mod host;
mod inside;
mod looks;
mod networks;
mod nwfilters;
pub mod recovery;
mod service;
mod start;
mod storage;
mod strays;
mod test_hypervisor;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

pub(crate) use self::configured::ConfiguredPaths;
pub use self::configured::{Configured, bounds};
use self::looks::Looks;
pub use self::recovery::Recovery;
pub use self::start::{Driven, Settings, StartError, run};
use crate::api::events::EventLog;
use crate::domain::registry::Registry;
use crate::host::node::HostBooks;
use crate::network::Networks;
use crate::nwfilter::Nwfilters;
use crate::pool::Pools;
use crate::pool::stream::SessionStreams;

/// One instance, serving.
#[derive(Debug)]
pub struct Daemon {
    registry: Registry,
    /// Its storage pools; the test hypervisor has none.
    pools: Option<Pools>,
    /// Its virtual networks; the test hypervisor has none.
    networks: Option<Networks>,
    /// Its network filters; the test hypervisor has none.
    nwfilters: Option<Nwfilters>,
    /// The networks of the test hypervisor, where it is one.
    test_networks: Option<Arc<test_hypervisor::TestNetworks>>,
    events: Arc<EventLog>,
    settings: Settings,
    started_ms: u64,
    recovery: Mutex<Recovery>,
    clients: Arc<AtomicU32>,
    node: Arc<dyn HostBooks>,
    looks: Looks,
    /// Uploads and downloads, which end with the connection that asked for them.
    streams: Arc<SessionStreams>,
    /// The test hypervisor beside it, once a client has asked for it.
    test: OnceCell<Arc<Daemon>>,
}

impl Daemon {
    /// What was found at the start.
    fn recovery(&self) -> Recovery {
        // Nothing panics while it is held.
        let recovery = self.recovery.lock();
        recovery.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_recovery(&self, found: Recovery) {
        *self.recovery.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// Clients connected.
    fn connected(&self) -> u32 {
        self.clients.load(Ordering::Relaxed)
    }
}
