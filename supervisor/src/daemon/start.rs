//! How the daemon starts and ends: one function, top to bottom.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};

use reeve_ipc::changes::ChangeCount;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::OnceCell;

use super::descriptors::{self, TooFewDescriptors};
use super::looks::Looks;
use super::recovery::{self, Recovery};
use super::{Configured, Daemon, host, strays, test_hypervisor};
use crate::api::Shared;
use crate::api::doors::Doors;
use crate::api::events::EventLog;
use crate::api::listener::{ListenError, Listener};
use crate::config::{Config, HOST_STATE_DIRECTORY};
use crate::domain::driver::Driver;
use crate::domain::registry::{Registry, Remains};
use crate::domain::test_driver::TestDriver;
use crate::domain::worker::KvmDriver;
use crate::domain::world::{HostClock, World, now_ms};
use crate::gateway::{self, FrontDoor};
use crate::host::confinement::CgroupPlace;
use crate::host::filter::TapFilters;
use crate::host::identity::Identities;
use crate::host::image_worker::ImageWorkers;
use crate::host::uid_blocks::REGISTRY;
use crate::host::worker_binary::WorkerBinary;
use crate::host::{Host, HostError};
use crate::network::host::NetworkHost;
use crate::network::{self, Networks};
use crate::nwfilter::Nwfilters;
use crate::nwfilter::book::SharedBook;
use crate::pool::{self, Pools};
use crate::store::{NetworkStore, NwfilterStore, PoolStore, RunDir, StateDir, Store, StoreError};

/// What runs the domains of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driven {
    /// KVM, in sandboxed workers.
    Kvm,
    /// Nothing: machines that only look like some, whose definitions are kept as any.
    Test,
    /// The test hypervisor alone, of which nothing is kept: for the tests of programs that use Reeve.
    TestHypervisor,
}

/// What an instance is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where definitions are kept.
    pub state_directory: PathBuf,
    /// Where the socket and the run-time status are.
    pub run_directory: PathBuf,
    /// What runs its domains.
    pub driven: Driven,
    /// Where their cgroups are.
    pub cgroups: CgroupPlace,
    /// The rest.
    pub configured: Arc<Configured>,
}

/// Why the daemon did not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its directories.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// What runs its domains.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Its descriptors.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// Its signals.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] std::io::Error),
    /// What it shares with its gateways.
    #[error("no memory that is shared with gateways: {0}")]
    Changes(#[source] std::io::Error),
}

/// The mark that this boot's domains have been started, in the run directory, which is new at each
/// boot: a supervisor that is restarted does not start what somebody has shut down since.
const AUTOSTARTED: &str = "autostarted";

/// Runs an instance until it is told to end; `ready` is called once it serves. No domain is touched
/// at the end.
///
/// # Errors
/// [`StartError`].
pub async fn run(settings: Settings, ready: impl FnOnce(&Recovery)) -> Result<(), StartError> {
    if settings.driven == Driven::TestHypervisor {
        return test_hypervisor::run(settings, ready).await;
    }
    let signals = Signals::new()?;
    let state = StateDir::open(&settings.state_directory)?;
    let run = RunDir::open(&settings.run_directory)?;
    let listener = Listener::bind(&settings.run_directory)?;
    let config = settings.configured.config();
    let mut own_identities = None;
    let mut images = None;
    let book = SharedBook::default();
    let mut taps = TapFilters::default();
    let driver: Arc<dyn Driver> = match settings.driven {
        Driven::Test | Driven::TestHypervisor => Arc::new(TestDriver::new()),
        Driven::Kvm => {
            let identities =
                Identities::for_instance(Path::new(REGISTRY), &settings.state_directory)
                    .map_err(HostError::Identity)?;
            own_identities = Some(identities.clone());
            let binary = WorkerBinary::find().map_err(HostError::WorkerBinary)?;
            images = Some(image_workers(&binary, &identities)?);
            let host = Host::with_identities(binary, identities)?;
            let host = host
                .with_vhost_net(config.may_use_vhost_net())
                .with_virtiofsd(config.virtiofsd.clone())
                .with_open_vswitch(config.open_vswitch.clone(), &settings.run_directory)
                .with_tenants(config.multi_tenant)
                .with_filters(book.clone());
            taps = host.network.filters.clone();
            host.sweep();
            let host = Arc::new(host.with_cgroups(settings.cgroups.clone()));
            let paths = Arc::clone(&settings.configured.paths);
            if let Err(error) = paths.keep_sockets(&settings.run_directory) {
                tracing::error!(%error, "channels without a path of their own cannot be had");
            }
            Arc::new(KvmDriver::new(host, paths))
        }
    };

    if settings.driven == Driven::Test {
        images = test_image_workers(&settings);
    }
    let pool_store = PoolStore::open(&settings.state_directory, &settings.run_directory)?;
    let changes = Arc::new(ChangeCount::new().map_err(StartError::Changes)?);
    let front_door = front_door(&settings, &config, &changes, own_identities.as_ref());
    let records = state.load_all()?;
    let uuid = host::uuid(&state);
    let statuses = run.load_all()?;
    descriptors::prepare(statuses.statuses.len())?;
    let mut refused: Vec<String> = Vec::new();
    for refusal in records.refused.iter().chain(&statuses.refused) {
        tracing::error!("{refusal}");
        refused.push(refusal.to_string());
    }
    let unread = !statuses.refused.is_empty();
    let pools_left = pool_store.load_all()?;
    for refusal in &pools_left.refused {
        tracing::error!("{refusal}");
        refused.push(refusal.to_string());
    }
    let events = Arc::new(EventLog::new(draw_epoch()));
    let networks = networks(&settings, &events)?;
    let networks_left = networks.load()?;
    for refusal in &networks_left.refused {
        tracing::error!("{refusal}");
        refused.push(refusal.to_string());
    }
    let nwfilters = Arc::new(NwfilterStore::open(&settings.state_directory)?);
    let nwfilters = Nwfilters::new(book, taps, nwfilters);
    for refusal in &nwfilters.load()?.refused {
        tracing::error!("{refusal}");
        refused.push(refusal.to_string());
    }
    let world = Arc::new(World {
        driver,
        storage: Arc::new(Store::new(state, run)),
        clock: Arc::new(HostClock),
        events: Arc::clone(&events) as _,
        logs: settings.configured.files.clone(),
        ids: Arc::new(AtomicU32::new(1)),
        changes,
        networks: Some(Arc::new(networks.clone())),
    });
    let registry = Registry::new(world);
    let paths = Arc::clone(&settings.configured.paths);
    let pool_host = pool::host::Host::new(paths, images, pool_store);
    let pools = Pools::new(Arc::new(pool_host), Arc::clone(&events));
    let node = Arc::new(host::node(&settings, uuid));
    let daemon = Arc::new(Daemon {
        registry: registry.clone(),
        pools: Some(pools.clone()),
        networks: Some(networks.clone()),
        nwfilters: Some(nwfilters),
        test_networks: None,
        events: Arc::clone(&events),
        started_ms: now_ms(),
        recovery: Mutex::new(Recovery::default()),
        clients: Arc::default(),
        node,
        looks: Looks::default(),
        streams: Arc::default(),
        test: OnceCell::new(),
        settings,
    });

    let remains = Remains::join(records.records, statuses.statuses);
    pools.recover(pools_left).await;
    // Before the domains, whose interfaces are connected to them.
    networks.recover(networks_left).await;
    let has_new_default = define_default(&daemon.settings, &networks).await;
    let mut found = recovery::recover(&registry, remains).await;
    found.refused.extend(refused);
    if let Some(identities) = own_identities {
        let strays = tokio::task::spawn_blocking(move || strays::tell(&identities));
        // Where no status was refused there is none, unless the run directory was wiped: looking at
        // every process of the host holds nobody up then.
        if unread {
            found.refused.extend(strays.await.unwrap_or_default());
        }
    }
    tracing::info!(
        adopted = found.adopted,
        within_us = found.within_us,
        refused = found.refused.len(),
        "recovered"
    );
    daemon.set_recovery(found.clone());
    ready(&found);
    let mark = daemon.settings.run_directory.join(AUTOSTARTED);
    // Marked first: a supervisor that dies in the middle does not start them all again.
    if mark.exists() {
        if has_new_default {
            // The only one that starts with the host and never had the chance to.
            tokio::spawn(async move { networks.autostart().await });
        }
    } else if std::fs::write(&mark, "").is_ok() {
        let at_once = daemon.settings.configured.config().autostart_concurrency;
        let at_once = usize::try_from(at_once).unwrap_or(1);
        let registry = registry.clone();
        tokio::spawn(async move {
            // Before the domains, whose images they hold, and which are connected to them.
            pools.autostart().await;
            networks.autostart().await;
            recovery::autostart(&registry, at_once).await;
        });
    }

    signals.serve(daemon, listener, front_door).await;
    tracing::info!("ending; domains go on");
    Ok(())
}

/// The networks of an instance, none taken up yet.
fn networks(settings: &Settings, events: &Arc<EventLog>) -> Result<Networks, StoreError> {
    let (state, run) = (&settings.state_directory, &settings.run_directory);
    let host: Arc<dyn NetworkHost> = match settings.driven {
        Driven::Test | Driven::TestHypervisor => Arc::new(network::test_host::TestHost),
        Driven::Kvm => {
            let directories = crate::host::network::Directories {
                run: run.clone(),
                state: state.clone(),
            };
            let paths = Arc::clone(&settings.configured.paths);
            Arc::new(crate::host::network::Host::new(directories).with_paths(paths))
        }
    };
    let store = NetworkStore::open(state, run)?;
    Ok(Networks::new(host, store, Arc::clone(events)))
}

/// Gives an instance the network `default` at its first start, where it is to have one; whether it did.
async fn define_default(settings: &Settings, networks: &Networks) -> bool {
    let own = settings.state_directory == Path::new(HOST_STATE_DIRECTORY);
    let config = settings.configured.config();
    if settings.driven != Driven::Kvm || !config.default_network.unwrap_or(own) {
        return false;
    }
    let defined = networks.define_default().await;
    defined.unwrap_or_else(|error| {
        tracing::error!(%error, "the network 'default' could not be defined");
        false
    })
}

/// What starts the processes that handle images.
fn image_workers(
    binary: &WorkerBinary,
    identities: &Identities,
) -> Result<ImageWorkers, HostError> {
    let program = rustix::io::fcntl_dupfd_cloexec(binary, 0).map_err(HostError::Descriptor)?;
    Ok(ImageWorkers::new(program, identities.clone()))
}

/// The same for the test driver, which has no workers but keeps pools like any, where that can be had.
fn test_image_workers(settings: &Settings) -> Option<ImageWorkers> {
    let identities = Identities::for_instance(Path::new(REGISTRY), &settings.state_directory);
    let workers = identities
        .map_err(HostError::Identity)
        .and_then(|identities| {
            let binary = WorkerBinary::find().map_err(HostError::WorkerBinary)?;
            image_workers(&binary, &identities)
        });
    workers
        .inspect_err(|error| tracing::info!("images are not looked into: {error}"))
        .ok()
}

/// The signals that this process is told something by.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, StartError> {
        let listen = |kind| signal(kind).map_err(StartError::Signals);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Lets clients in until one of them says that it is the end.
    pub(super) async fn serve(
        mut self,
        daemon: Arc<Daemon>,
        listener: Listener,
        front_door: Option<FrontDoor>,
    ) {
        let configured = &daemon.settings.configured;
        let shared = Arc::new(Shared {
            service: Arc::clone(&daemon),
            events: Arc::clone(&daemon.events),
            policy: Arc::clone(&configured.policy),
            limits: Arc::clone(&configured.limits),
            doors: Doors::default(),
        });
        let libvirt = gateway::serve(front_door, Arc::clone(&shared));
        let serving = listener.serve(shared);
        tokio::pin!(libvirt, serving);
        loop {
            tokio::select! {
                () = &mut serving => {}
                () = &mut libvirt => {}
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.hang_up.recv() => drop(tokio::spawn(reload(Arc::clone(&daemon)))),
            }
        }
    }
}

/// libvirt's front door, where there is to be one.
pub(super) fn front_door(
    settings: &Settings,
    config: &Config,
    changes: &Arc<ChangeCount>,
    identities: Option<&Identities>,
) -> Option<FrontDoor> {
    if !config.libvirt {
        return None;
    }
    // The test driver has no workers, but clients of libvirt's protocol like any.
    let identities = match identities {
        Some(identities) => identities.clone(),
        None => Identities::for_instance(Path::new(REGISTRY), &settings.state_directory)
            .inspect_err(|error| {
                tracing::error!("no client of libvirt's protocol is served: {error}");
            })
            .ok()?,
    };
    let door = gateway::Settings {
        run_directory: settings.run_directory.clone(),
        sockets: config.libvirt_sockets.clone(),
        tls: config.tls_listen.clone(),
        remote: settings.configured.remote.clone(),
        checks: settings.configured.checker.door(),
        warm: usize::try_from(config.libvirt_warm_processes).unwrap_or(0),
        cgroups: settings.cgroups.clone(),
        limits: Arc::clone(&settings.configured.limits),
        changes: Arc::clone(changes),
    };
    FrontDoor::open(door, identities)
}

/// Reads the configuration again for a signal, which has no answer.
async fn reload(daemon: Arc<Daemon>) {
    match daemon.reload().await {
        Ok(changes) => tracing::info!(?changes, "configuration read again"),
        Err(error) => tracing::error!(%error, "the configuration was not read again"),
    }
}

/// A number that no other process of this instance has had.
pub(super) fn draw_epoch() -> u64 {
    let mut bytes = [0; 8];
    // Up to 256 bytes come whole, and without waiting once the host has booted (getrandom(2)).
    let _ = getrandom(&mut bytes, GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}
