//! One supervisor from its start to its death: the real registry, shells and recovery, on a runtime
//! that has neither timers nor descriptors.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Poll, Waker};

use reeve_ipc::changes::ChangeCount;
use reeved::daemon::recovery;
use reeved::domain::registry::{Registry, Remains};
use reeved::domain::world::World;
use reeved::logging::{LogBounds, LogFiles};
use tokio::runtime::{Builder, Runtime};

use crate::clock::SimClock;
use crate::disk::SimStorage;
use crate::driver::SimDriver;
use crate::events::SimEvents;
use crate::universe::Shared;

#[derive(Debug)]
pub struct Life {
    pub registry: Registry,
    /// `None` after its end.
    runtime: Option<Runtime>,
    rest: Arc<Rest>,
    recovered: Arc<AtomicBool>,
}

/// Tells when the runtime has nothing left to do.
#[derive(Debug, Default)]
struct Rest {
    waiting: Mutex<Option<Waker>>,
    reached: AtomicBool,
}

impl Rest {
    fn parked(&self) {
        if let Some(waker) = self.waiting.lock().unwrap().take() {
            self.reached.store(true, Ordering::Relaxed);
            waker.wake();
        }
    }
}

impl Life {
    /// Starts with what an earlier supervisor left; with the host, where `autostart` says so.
    pub fn begin(shared: &Shared, remains: Vec<Remains>, autostart: bool) -> Self {
        let rest = Arc::new(Rest::default());
        let parked = Arc::clone(&rest);
        let runtime = Builder::new_current_thread()
            .on_thread_park(move || parked.parked())
            .build()
            .unwrap();
        let registry = Registry::new(Arc::new(World {
            driver: Arc::new(SimDriver(shared.clone())),
            storage: Arc::new(SimStorage(shared.clone())),
            clock: Arc::new(SimClock(shared.clone())),
            events: Arc::new(SimEvents(shared.clone())),
            logs: Some(logs()),
            ids: Arc::new(AtomicU32::new(1)),
            changes: Arc::new(ChangeCount::new().unwrap()),
            networks: None,
        }));
        let recovered = Arc::new(AtomicBool::new(false));
        let (done, taking_up) = (Arc::clone(&recovered), registry.clone());
        let shared = shared.clone();
        runtime.spawn(async move {
            let recovery = recovery::recover(&taking_up, remains).await;
            if let Some(refused) = recovery.refused.first() {
                shared.lock().broken(format!("not taken up: {refused}"));
            }
            done.store(true, Ordering::Relaxed);
            if autostart {
                recovery::autostart(&taking_up, 2).await;
            }
        });
        let life = Self {
            registry,
            runtime: Some(runtime),
            rest,
            recovered,
        };
        life.settle();
        life
    }

    /// Whether it serves clients.
    pub fn has_recovered(&self) -> bool {
        self.recovered.load(Ordering::Relaxed)
    }

    /// Drops all that runs, as it is.
    pub fn end(&mut self) {
        self.runtime = None;
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().unwrap()
    }

    /// Lets everything run that can.
    pub fn settle(&self) {
        self.rest.reached.store(false, Ordering::Relaxed);
        self.runtime().block_on(poll_fn(|context| {
            if self.rest.reached.load(Ordering::Relaxed) {
                return Poll::Ready(());
            }
            *self.rest.waiting.lock().unwrap() = Some(context.waker().clone());
            Poll::Pending
        }));
    }

    pub fn spawn(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::AbortHandle {
        self.runtime().spawn(task).abort_handle()
    }

    /// Tasks that have not ended.
    pub fn tasks(&self) -> usize {
        self.runtime().metrics().num_alive_tasks()
    }
}

/// Nobody writes to them here: no worker has a console.
fn logs() -> LogFiles {
    static LOGS: OnceLock<LogFiles> = OnceLock::new();
    let bounds = LogBounds {
        log_bytes: 1 << 20,
        log_keep: 1,
        console_bytes: 1 << 20,
        console_keep: 1,
    };
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("simulation");
    LOGS.get_or_init(|| LogFiles::start(&directory, bounds).unwrap())
        .clone()
}
