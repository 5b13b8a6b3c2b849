//! What an actor's shell acts upon: disk, run directory, driver, clock and the log of events. Each is a
//! trait, so that the simulation drives the same shell in a world of its own.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reeve_ipc::api::error::ApiError;
use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::network::PortDetails;
use reeve_ipc::api::view::DomainDefinition;
use reeve_ipc::changes::ChangeCount;
use reeve_ipc::model::{
    DevicePlace, Domain, DomainName, DomainUuid, InterfaceName, NetworkName, NetworkPort, PortUuid,
    VirtualPort,
};
use reeve_ipc::spec::{MacAddress, PciSlot};

use super::actor::{LiveRecord, Now};
use super::driver::{
    DeviceLedger, DeviceResources, Driver, Later, ProcessIdentity, Recorder, Resources,
    SuccessionLedger,
};
use crate::crash::{self, Moment, Operation};
use crate::logging::LogFiles;

/// Everything outside of one domain's own state.
#[derive(Debug)]
pub struct World {
    /// What runs domains.
    pub driver: Arc<dyn Driver>,
    /// What survives.
    pub storage: Arc<dyn Storage>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Who is told.
    pub events: Arc<dyn EventSink>,
    /// Where logs are written, where any are.
    pub logs: Option<LogFiles>,
    /// The next worker's number; from 1.
    pub ids: Arc<AtomicU32>,
    /// Raised whenever a look at a domain would show something else than before.
    pub changes: Arc<ChangeCount>,
    /// What gives ports of virtual networks; without it an interface of one stays as it is defined.
    pub networks: Option<Arc<dyn Ports>>,
}

/// An interface that is to be connected to a virtual network.
#[derive(Debug, Clone, Copy)]
pub struct PortRequest<'a> {
    /// Which.
    pub network: &'a NetworkName,
    /// The kind of port, where one is named.
    pub port_group: Option<&'a str>,
    /// What the interface says of it itself.
    pub virtual_port: Option<&'a VirtualPort>,
    /// Its domain.
    pub uuid: DomainUuid,
    /// The domain's name.
    pub name: &'a DomainName,
    /// Its address on the link.
    pub mac: MacAddress,
}

/// Gives interfaces of domains ports of virtual networks. Nothing here blocks.
pub trait Ports: Debug + Send + Sync {
    /// Gives a port.
    ///
    /// # Errors
    /// [`NoNetwork`](reeve_ipc::api::error::ApiErrorCode::NoNetwork), and
    /// [`WrongState`](reeve_ipc::api::error::ApiErrorCode::WrongState) where the network is not active, among others.
    fn connect(&self, wanted: PortRequest<'_>) -> Result<NetworkPort, ApiError>;

    /// Notes one that was given by an earlier supervisor.
    fn restore(&self, network: &NetworkName, details: PortDetails);

    /// The tap of an interface is made.
    fn made(&self, port: PortUuid, interface: InterfaceName);

    /// The interface is gone; it may have been before.
    fn disconnect(&self, port: PortUuid);
}

/// Where definitions and run-time status are kept. Errors are one line each.
pub trait Storage: Debug + Send + Sync {
    /// Writes a record; it is durable when the answer comes.
    fn write_record(&self, record: DomainDefinition) -> Later<Result<(), String>>;

    /// Removes one, durably.
    fn remove_record(&self, uuid: DomainUuid) -> Later<Result<(), String>>;

    /// Writes the status of a domain's worker. Does not block.
    ///
    /// # Errors
    /// It could not be written; the status before it stands.
    fn write_status(&self, uuid: DomainUuid, status: &Status) -> Result<(), String>;

    /// How much of a domain's console has been logged, in bytes, if it is known.
    fn console_position(&self, uuid: DomainUuid) -> Option<u64>;

    /// Notes that so much has been logged. Does not block; lost is lost.
    fn set_console_position(&self, uuid: DomainUuid, bytes: u64);

    /// Removes the status and the domain's directory.
    fn remove_status(&self, uuid: DomainUuid);

    /// The domain's own directory in the run directory, made if need be.
    ///
    /// # Errors
    /// It cannot be made.
    fn directory(&self, uuid: DomainUuid) -> Result<PathBuf, String>;
}

/// The run-time status of a domain: all that a supervisor after this one must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What the actor noted.
    pub record: LiveRecord,
    /// What the worker holds of the host.
    pub resources: Resources,
}

/// Takes events; never blocks.
pub trait EventSink: Debug + Send + Sync {
    /// Something happened to a domain.
    fn domain_event(&self, uuid: DomainUuid, name: &DomainName, kind: EventKind);
}

/// The time, and waiting for it.
pub trait Clock: Debug + Send + Sync {
    /// Now.
    fn now(&self) -> Now;

    /// Resolves after so many milliseconds.
    fn sleep_ms(&self, after_ms: u64) -> Later<()>;
}

/// The host's clock, and the runtime's timers.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostClock;

impl Clock for HostClock {
    fn now(&self) -> Now {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let boot = Duration::try_from(boot).unwrap_or_default();
        Now {
            unix_ms: now_ms(),
            boot_ms: u64::try_from(boot.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn sleep_ms(&self, after_ms: u64) -> Later<()> {
        Box::pin(async move { tokio::time::sleep(Duration::from_millis(after_ms)).await })
    }
}

/// Now, in milliseconds since the epoch.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Writes one worker's status: its actor's part and its driver's part, each as they change.
#[derive(Debug)]
pub(super) struct StatusWriter {
    uuid: DomainUuid,
    storage: Arc<dyn Storage>,
    parts: Mutex<Parts>,
}

#[derive(Debug)]
struct Parts {
    record: LiveRecord,
    /// `None` until there is something to be found again.
    resources: Option<Resources>,
    /// The worker is gone: nothing is written any more.
    removed: bool,
}

impl StatusWriter {
    pub(super) fn new(uuid: DomainUuid, storage: Arc<dyn Storage>, record: LiveRecord) -> Self {
        Self {
            uuid,
            storage,
            parts: Mutex::new(Parts {
                record,
                resources: None,
                removed: false,
            }),
        }
    }

    /// For a worker that was found, with what its status says it holds.
    pub(super) fn found(uuid: DomainUuid, storage: Arc<dyn Storage>, status: Status) -> Self {
        let writer = Self::new(uuid, storage, status.record);
        writer.parts().resources = Some(status.resources);
        writer
    }

    /// The actor's part has changed.
    pub(super) fn set_record(
        &self,
        operation: Operation,
        record: LiveRecord,
    ) -> Result<(), String> {
        let mut parts = self.parts();
        let before = std::mem::replace(&mut parts.record, record);
        self.write(operation, &parts)
            .inspect_err(|_| parts.record = before)
    }

    /// The devices of the definition that it runs with are those of `domain` now: an interface of it has been given a
    /// port.
    pub(super) fn set_devices(&self, domain: &Domain) -> Result<(), String> {
        let mut record = self.parts().record.clone();
        record.definition.devices = domain.devices.clone();
        self.set_record(Operation::Define, record)
    }

    /// The taps of its network interfaces, by their places on the bus.
    pub(super) fn taps(&self) -> Vec<(PciSlot, String)> {
        let parts = self.parts();
        let devices = parts.resources.iter().flat_map(|held| &held.devices);
        devices
            .filter_map(|device| Some((device.place.slot, device.taps.first()?.name.clone())))
            .collect()
    }

    /// Takes out what a device holds that is gone, with all of its ports, to be written with whatever is
    /// written next: what is recorded and not there any more does no harm. A macvtap stays recorded, since it goes a
    /// moment later, until another device of that place is gone too.
    pub(super) fn take_device(&self, place: DevicePlace) -> Vec<DeviceResources> {
        let mut parts = self.parts();
        let Some(resources) = parts.resources.as_mut() else {
            return Vec::new();
        };
        let devices = std::mem::take(&mut resources.devices).into_iter();
        let (taken, left): (Vec<_>, _) = devices.partition(|device| place.has(device.place));
        resources.devices = left;
        let remains = taken.iter().filter_map(DeviceResources::remains);
        resources.devices.extend(remains);
        taken
    }

    /// The worker is gone.
    pub(super) fn remove(&self, operation: Operation) {
        self.parts().removed = true;
        crash::point(operation, Moment::BeforeStatusRemove);
        self.storage.remove_status(self.uuid);
        crash::point(operation, Moment::AfterStatusRemove);
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        // Nothing panics while it is held.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, operation: Operation, parts: &Parts) -> Result<(), String> {
        match &parts.resources {
            Some(resources) if !parts.removed => {
                let status = Status {
                    record: parts.record.clone(),
                    resources: resources.clone(),
                };
                crash::point(operation, Moment::BeforeStatus);
                self.storage.write_status(self.uuid, &status)?;
                crash::point(operation, Moment::AfterStatus);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Recorder for StatusWriter {
    fn record(&self, resources: &Resources) -> Result<(), String> {
        let mut parts = self.parts();
        parts.resources = Some(resources.clone());
        self.write(Operation::Start, &parts)
    }
}

impl SuccessionLedger for StatusWriter {
    fn appoint(&self, successor: Option<ProcessIdentity>) -> Result<(), String> {
        let mut parts = self.parts();
        let Some(resources) = parts.resources.as_mut() else {
            return Err("nothing is recorded of its worker".to_owned());
        };
        let before = std::mem::replace(&mut resources.successor, successor);
        let written = self.write(Operation::HandOver, &parts);
        if let (Err(_), Some(resources)) = (&written, parts.resources.as_mut()) {
            resources.successor = before;
        }
        written
    }

    fn succeeded(&self) {
        let mut parts = self.parts();
        let Some(resources) = parts.resources.as_mut() else {
            return;
        };
        resources.process = resources.successor.take();
        if let Err(error) = self.write(Operation::HandOver, &parts) {
            // The record before names both, and whoever reads it finds out which of them lives.
            tracing::warn!(uuid = %self.uuid, error, "the status could not be written");
        }
    }
}

impl DeviceLedger for StatusWriter {
    fn hold(&self, device: DeviceResources) -> Result<(), String> {
        if device.is_empty() {
            return Ok(());
        }
        let place = device.place;
        let mut parts = self.parts();
        let Some(resources) = parts.resources.as_mut() else {
            return Err("nothing is recorded of its worker".to_owned());
        };
        resources.devices.push(device);
        let written = self.write(Operation::Define, &parts);
        if written.is_err() {
            parts.drop_device(place);
        }
        written
    }

    fn let_go(&self, place: DevicePlace) {
        let mut parts = self.parts();
        if parts.drop_device(place) {
            if let Err(error) = self.write(Operation::Define, &parts) {
                tracing::warn!(uuid = %self.uuid, error, "the status could not be written");
            }
        }
    }
}

impl Parts {
    fn drop_device(&mut self, place: DevicePlace) -> bool {
        let Some(resources) = &mut self.resources else {
            return false;
        };
        let before = resources.devices.len();
        resources.devices.retain(|device| !place.has(device.place));
        resources.devices.len() < before
    }
}
