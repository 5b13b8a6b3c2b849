//! The test hypervisor (libvirt's `test:///default`): the service of every other instance, with the same actors,
//! over a driver, a storage and a host that are nothing but memory.
//!
//! ```text
//!   a session ── TestHypervisorUse ─► this service ─► Registry ─► actors ─► TestDriver: machines that are tasks
//!                                         │                          └────► InMemory: nothing is written
//!                                         └─► TestHost: a host of fixed numbers
//! ```
//!
//! It is there beside real domains, which are not seen here, or alone (`reeved --test`), without KVM and without
//! root. One domain runs and one network is active from the start, as in libvirt. Every client of one supervisor sees the same domains, and
//! they go with it. Whoever may write can fill it: it has a bound for everything that a client can make.
//!
//! What may live here: what makes it. What may not: anything by which a call is answered otherwise.

mod host;
mod networks;
mod storage;

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};

use reeve_ipc::api::call::{CallBody, DomainRef, StartOptions};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::changes::ChangeCount;
use reeve_ipc::model::{
    Balloon, BootSource, DeviceError, Devices, Disk, Domain, DomainUuid, InvalidName, Labels,
    Layer, LifecycleAction, MemorySize, ModelError, Nic, NicSource, Platform, ResourceLimits,
    Tuning, Vcpus,
};
use reeve_ipc::spec::{
    CacheMode, CpuSwitches, Discard, DiskFormat, DiskThrottle, InvalidMac, IoEngine, MacAddress,
    MachineType,
};
use tokio::sync::OnceCell;
use uuid::Uuid;

use self::host::TestHost;
use self::networks::Networked;
pub(super) use self::networks::TestNetworks;
use self::storage::InMemory;
use super::start::{Signals, draw_epoch, front_door};
use super::{Daemon, Driven, Looks, Recovery, Settings, StartError, descriptors};
use crate::api::Answer;
use crate::api::events::EventLog;
use crate::api::listener::Listener;
use crate::domain::actor::SessionId;
use crate::domain::registry::Registry;
use crate::domain::test_driver::TestDriver;
use crate::domain::world::{HostClock, World, now_ms};
use crate::store::RunDir;

/// The most domains that it has.
pub(super) const MOST_DOMAINS: usize = 256;
/// The connection that nobody has.
const NOBODY: SessionId = SessionId(0);
/// The UUID of the domain that libvirt's test driver has from the start.
const UUID: Uuid = Uuid::from_u128(0x6695_eb01_f6a4_8304_79aa_97f2_502e_193f);

impl Daemon {
    /// The one that is there beside real domains, made for the first client that asks.
    ///
    /// # Errors
    /// It is not to be there.
    pub(super) async fn beside(&self) -> Result<Arc<Self>, ApiError> {
        if !self.settings.configured.config().test_hypervisor {
            let why = "cannot use the test hypervisor: it is turned off in this supervisor's configuration \
                       (test_hypervisor)";
            return Err(ApiError::new(ApiErrorCode::Unsupported, why));
        }
        let making = || {
            let changes = Arc::clone(&self.registry.world().changes);
            make(self.settings.clone(), Arc::clone(&self.clients), changes)
        };
        Ok(Arc::clone(self.test.get_or_init(making).await))
    }
}

impl Daemon {
    /// Answers `call`, if it is about networks and this is the test hypervisor.
    #[expect(
        clippy::result_large_err,
        reason = "not an error: the call, for whoever serves it"
    )]
    pub(super) fn of_test_networks(&self, call: CallBody) -> Result<Answer, CallBody> {
        match &self.test_networks {
            Some(networks) => networks.answer(call, || self.registry.views()),
            None => Err(call),
        }
    }
}

/// Makes one, with its domain; `clients` are connected.
async fn make(
    settings: Settings,
    clients: Arc<AtomicU32>,
    changes: Arc<ChangeCount>,
) -> Arc<Daemon> {
    let events = Arc::new(EventLog::new(draw_epoch()));
    let networks = Arc::new(TestNetworks::new(Arc::clone(&events)));
    let driver = Networked {
        driver: TestDriver::new(),
        networks: Arc::clone(&networks),
    };
    let world = World {
        driver: Arc::new(driver),
        storage: Arc::new(InMemory),
        clock: Arc::new(HostClock),
        events: Arc::clone(&events) as _,
        logs: None,
        ids: Arc::new(AtomicU32::new(1)),
        changes,
        networks: None,
    };
    let registry = Registry::bounded(Arc::new(world), MOST_DOMAINS);
    if let Err(error) = populate(&registry).await {
        tracing::error!("the test hypervisor has no domain: {error}");
    }
    Arc::new(Daemon {
        registry,
        pools: None,
        networks: None,
        nwfilters: None,
        test_networks: Some(networks),
        events,
        settings: Settings {
            driven: Driven::TestHypervisor,
            ..settings
        },
        started_ms: now_ms(),
        recovery: Mutex::new(Recovery::default()),
        clients,
        node: Arc::new(TestHost),
        looks: Looks::default(),
        streams: Arc::default(),
        test: OnceCell::new(),
    })
}

/// Runs an instance that has nothing else, until it is told to end; `ready` is called once it serves.
///
/// # Errors
/// [`StartError`].
pub(super) async fn run(
    settings: Settings,
    ready: impl FnOnce(&Recovery),
) -> Result<(), StartError> {
    let signals = Signals::new()?;
    // For its lock: no two listen there.
    let _run = RunDir::open(&settings.run_directory)?;
    let listener = Listener::bind(&settings.run_directory)?;
    let config = settings.configured.config();
    let changes = Arc::new(ChangeCount::new().map_err(StartError::Changes)?);
    let front_door = front_door(&settings, &config, &changes, None);
    descriptors::prepare(0)?;
    let daemon = make(settings, Arc::default(), changes).await;
    tracing::info!("the test hypervisor serves: nothing of it is real, and nothing is kept");
    ready(&Recovery::default());
    signals.serve(daemon, listener, front_door).await;
    tracing::info!("ending, and every domain with it");
    Ok(())
}

/// Lets the domain run that is there from the start.
async fn populate(registry: &Registry) -> Result<(), Unpopulated> {
    registry.define(first()?, true).await?;
    let domain = DomainRef::Uuid(DomainUuid(UUID));
    let started = registry.start(&domain, StartOptions::default(), NOBODY);
    started.await?;
    Ok(())
}

/// Why it is not there.
#[derive(Debug, thiserror::Error)]
enum Unpopulated {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Mac(#[from] InvalidMac),
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// The domain that libvirt's test driver has from the start, as far as it is one of ours: 8 GiB of memory of which
/// its guest makes do with 2, two vCPUs, a disk, an interface and a balloon.
fn first() -> Result<Domain, Unpopulated> {
    let vcpus = Vcpus::try_from(2)?;
    let disk = Disk {
        target: "vda".parse()?,
        image: Some(Layer {
            path: "/guest/diskimage1".into(),
            format: DiskFormat::Raw,
        }),
        backing: Vec::new(),
        read_only: false,
        cache: CacheMode::WriteBack,
        io: IoEngine::IoUring,
        discard: Discard::Ignore,
        serial: None,
        queues: 1,
        block_size: reeve_ipc::model::BlockSize::default(),
        throttle: DiskThrottle::default(),
        address: None,
        removable: false,
        from_image: false,
    };
    let nic = Nic {
        mac: Some(MacAddress::try_from([0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff])?),
        target: Some("testnet0".parse()?),
        ..Nic::new(NicSource::Network {
            network: "default".parse()?,
            port_group: None,
            port: None,
        })
    };
    Ok(Domain {
        name: "test".parse()?,
        uuid: DomainUuid(UUID),
        machine: MachineType::Reeve1_0,
        vcpus,
        cpu: CpuSwitches::default(),
        memory: MemorySize::mebibytes(8192),
        boot: BootSource::BuiltIn {
            command_line: String::new(),
        },
        devices: Devices {
            disks: vec![disk],
            nics: vec![nic],
            balloon: Some(Balloon::default()),
            ..Devices::default()
        },
        lifecycle: LifecycleAction::default(),
        limits: ResourceLimits::default(),
        pinning: Vec::new(),
        labels: Labels::default(),
        max_vcpus: vcpus,
        platform: Platform::default(),
        kept: Vec::new(),
        tuning: Tuning {
            current_memory: Some(MemorySize::mebibytes(2048)),
            ..Tuning::default()
        },
    })
}

#[cfg(test)]
mod tests;
