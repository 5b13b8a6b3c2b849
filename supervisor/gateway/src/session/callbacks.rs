//! The callbacks that a client has registered, and what is sent to each when something happens.

use std::collections::BTreeMap;

use reeve_ipc::model::{DomainUuid, NetworkUuid, PoolUuid};
use uuid::Uuid;

use super::watch::{
    Happening, NetworkHappening, NetworkSubject, PoolHappening, PoolSubject, Subject, Told,
};
use crate::calls::failure::{Code, Failure, Origin, invalid_argument};
use crate::wire::call::Event;
use crate::wire::frame;
use crate::wire::types::event as events;
use crate::wire::types::handles::{Domain, Network, Pool};

/// Callbacks of one connection.
const MAX_CALLBACKS: usize = 1024;

/// Kinds of events (libvirt `virDomainEventID`): those that are ever sent.
mod kind {
    pub(super) const LIFE: i32 = 0;
    pub(super) const REBOOT: i32 = 1;
    pub(super) const WATCHDOG: i32 = 3;
    pub(super) const TRAY_CHANGE: i32 = 10;
    pub(super) const BALLOON: i32 = 13;
    pub(super) const DEVICE_REMOVED: i32 = 15;
    pub(super) const TUNABLE: i32 = 17;
    pub(super) const AGENT: i32 = 18;
    pub(super) const DEVICE_ADDED: i32 = 19;
    pub(super) const METADATA: i32 = 23;
    /// The last kind that a client may ask for; newer libvirts have more than 9.0, and all get none.
    pub(super) const LAST: i32 = 27;
}

/// Kinds of events of pools (libvirt `virStoragePoolEventID`).
mod pool_kind {
    pub(super) const LIFE: i32 = 0;
    pub(super) const REFRESH: i32 = 1;
}

/// Kinds of events of networks (libvirt `virNetworkEventID`).
mod network_kind {
    pub(super) const LIFE: i32 = 0;
    pub(super) const METADATA: i32 = 1;
}

/// What a callback is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Objects {
    /// Domains.
    Domains,
    /// Storage pools.
    Pools,
    /// Virtual networks.
    Networks,
}

/// One callback: of which kind of events, and of one object only or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Callback {
    of: Objects,
    kind: i32,
    filter: Option<Uuid>,
}

impl Callback {
    /// One for a kind of events of domains.
    ///
    /// # Errors
    /// There are no such events.
    pub(super) fn of_domains(kind: i32, filter: Option<DomainUuid>) -> Result<Self, Failure> {
        known(kind, kind::LAST)?;
        Ok(Self {
            of: Objects::Domains,
            kind,
            filter: filter.map(|uuid| uuid.0),
        })
    }

    /// One for a kind of events of storage pools.
    ///
    /// # Errors
    /// There are no such events.
    pub(super) fn of_pools(kind: i32, filter: Option<PoolUuid>) -> Result<Self, Failure> {
        known(kind, pool_kind::REFRESH)?;
        Ok(Self {
            of: Objects::Pools,
            kind,
            filter: filter.map(|uuid| uuid.0),
        })
    }

    /// One for a kind of events of virtual networks.
    ///
    /// # Errors
    /// There are no such events.
    pub(super) fn of_networks(kind: i32, filter: Option<NetworkUuid>) -> Result<Self, Failure> {
        known(kind, network_kind::METADATA)?;
        Ok(Self {
            of: Objects::Networks,
            kind,
            filter: filter.map(|uuid| uuid.0),
        })
    }

    /// Whether what it is told needs more than the supervisor's own say.
    pub(super) fn needs_details(self) -> bool {
        let kinds = [
            kind::DEVICE_ADDED,
            kind::DEVICE_REMOVED,
            kind::TRAY_CHANGE,
            kind::AGENT,
        ];
        self.of == Objects::Domains && kinds.contains(&self.kind)
    }

    /// The packet for what happened, where it is for that; it has that number.
    fn packet(self, number: i32, told: &Told) -> Option<Vec<u8>> {
        let wants = |kind: i32, uuid: Uuid| {
            self.kind == kind && self.filter.is_none_or(|filter| filter == uuid)
        };
        match (self.of, told) {
            (Objects::Domains, Told::Domain(subject, happening)) => {
                wants(kind_of(happening), subject.uuid.0)
                    .then(|| of_domain(number, handle(subject), happening))
                    .flatten()
            }
            (Objects::Pools, Told::Pool(subject, happening)) => {
                wants(pool_kind_of(*happening), subject.uuid.0)
                    .then(|| of_pool(number, subject, *happening))
                    .flatten()
            }
            (Objects::Networks, Told::Network(subject, happening)) => {
                wants(network_kind_of(happening), subject.uuid.0)
                    .then(|| of_network(number, subject, happening))
                    .flatten()
            }
            _ => None,
        }
    }
}

fn known(kind: i32, last: i32) -> Result<(), Failure> {
    match (0..=last).contains(&kind) {
        true => Ok(()),
        false => Err(internal(format!("unsupported event ID {kind}"))),
    }
}

/// Every callback of a connection.
#[derive(Debug, Default)]
pub(super) struct Callbacks {
    callbacks: BTreeMap<i32, Callback>,
    next: i32,
    /// Whether the client is to be told that the supervisor is gone.
    close: bool,
}

fn internal(why: impl Into<String>) -> Failure {
    Failure::of(Origin::Rpc, Code::InternalError, why)
}

impl Callbacks {
    /// Whether one more may be registered.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.callbacks.len() >= MAX_CALLBACKS {
            return Err(internal("too many callbacks are registered"));
        }
        Ok(())
    }

    /// Registers one; its number.
    ///
    /// # Errors
    /// As for [`Self::check`].
    pub(super) fn register(&mut self, callback: Callback) -> Result<i32, Failure> {
        self.check()?;
        while self.callbacks.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1) & i32::MAX;
        }
        let id = self.next;
        self.callbacks.insert(id, callback);
        self.next = self.next.wrapping_add(1) & i32::MAX;
        Ok(id)
    }

    /// Gives one up.
    ///
    /// # Errors
    /// There is none of that number that is told of such objects.
    pub(super) fn deregister(&mut self, of: Objects, id: i32) -> Result<(), Failure> {
        let what = match of {
            Objects::Domains => "domain",
            Objects::Pools => "storage pool",
            Objects::Networks => "network",
        };
        match self.callbacks.get(&id) {
            Some(callback) if callback.of == of => {
                self.callbacks.remove(&id);
                Ok(())
            }
            _ => Err(internal(format!(
                "{what} event callback {id} not registered"
            ))),
        }
    }

    /// Registers the callback for the end of the connection to the hypervisor.
    ///
    /// # Errors
    /// It is registered.
    pub(super) fn register_close(&mut self) -> Result<(), Failure> {
        match std::mem::replace(&mut self.close, true) {
            false => Ok(()),
            true => Err(internal("A close callback is already registered")),
        }
    }

    /// Gives that callback up.
    ///
    /// # Errors
    /// It is not registered.
    pub(super) fn deregister_close(&mut self) -> Result<(), Failure> {
        match std::mem::replace(&mut self.close, false) {
            true => Ok(()),
            false => Err(invalid_argument("a close callback is not registered")),
        }
    }

    /// What is sent when the supervisor is gone.
    pub(super) fn closed(&self) -> Option<Vec<u8>> {
        /// The other side ended (`VIR_CONNECT_CLOSE_REASON_EOF`).
        const EOF: i32 = 1;
        self.close
            .then(|| packet(&events::ConnectEventConnectionClosed { reason: EOF }))
            .flatten()
    }

    /// What is sent when that happens.
    pub(super) fn packets(&self, told: &Told) -> Vec<Vec<u8>> {
        let callbacks = self.callbacks.iter();
        callbacks
            .filter_map(|(id, callback)| callback.packet(*id, told))
            .collect()
    }
}

const fn kind_of(happening: &Happening) -> i32 {
    match happening {
        Happening::Lifecycle(..) => kind::LIFE,
        Happening::Reboot => kind::REBOOT,
        Happening::Watchdog(_) => kind::WATCHDOG,
        Happening::Balloon(_) => kind::BALLOON,
        Happening::DeviceAdded(_) => kind::DEVICE_ADDED,
        Happening::DeviceRemoved(_) => kind::DEVICE_REMOVED,
        Happening::Tray(..) => kind::TRAY_CHANGE,
        Happening::Tuned(_) => kind::TUNABLE,
        Happening::Agent(..) => kind::AGENT,
        Happening::Metadata { .. } => kind::METADATA,
    }
}

fn handle(subject: &Subject) -> Domain {
    Domain {
        name: subject.name.clone(),
        uuid: *subject.uuid.0.as_bytes(),
        id: crate::calls::id_of(subject.id),
    }
}

const fn pool_kind_of(happening: PoolHappening) -> i32 {
    match happening {
        PoolHappening::Lifecycle(_) => pool_kind::LIFE,
        PoolHappening::Refresh => pool_kind::REFRESH,
    }
}

fn of_pool(callback: i32, subject: &PoolSubject, happening: PoolHappening) -> Option<Vec<u8>> {
    let pool = Pool {
        name: subject.name.clone(),
        uuid: *subject.uuid.0.as_bytes(),
    };
    match happening {
        PoolHappening::Lifecycle(event) => packet(&events::StoragePoolEventLifecycle {
            callback,
            pool,
            event,
            detail: 0,
        }),
        PoolHappening::Refresh => packet(&events::StoragePoolEventRefresh { callback, pool }),
    }
}

const fn network_kind_of(happening: &NetworkHappening) -> i32 {
    match happening {
        NetworkHappening::Lifecycle(_) => network_kind::LIFE,
        NetworkHappening::Metadata { .. } => network_kind::METADATA,
    }
}

fn of_network(
    callback: i32,
    subject: &NetworkSubject,
    happening: &NetworkHappening,
) -> Option<Vec<u8>> {
    let network = Network {
        name: subject.name.clone(),
        uuid: *subject.uuid.0.as_bytes(),
    };
    match happening {
        NetworkHappening::Lifecycle(event) => packet(&events::NetworkEventLifecycle {
            callback,
            network,
            event: *event,
            detail: 0,
        }),
        NetworkHappening::Metadata { kind, uri } => {
            packet(&events::NetworkEventCallbackMetadataChange {
                callback,
                network,
                kind: *kind,
                uri: uri.clone(),
            })
        }
    }
}

/// A packet to the callback of that number.
fn of_domain(callback: i32, domain: Domain, happening: &Happening) -> Option<Vec<u8>> {
    match happening {
        Happening::Lifecycle(event, detail) => packet(&events::DomainEventCallbackLifecycle {
            callback,
            domain,
            event: *event,
            detail: *detail,
        }),
        Happening::Reboot => packet(&events::DomainEventCallbackReboot { callback, domain }),
        Happening::Watchdog(action) => packet(&events::DomainEventCallbackWatchdog {
            callback,
            domain,
            action: *action,
        }),
        Happening::Balloon(actual) => packet(&events::DomainEventCallbackBalloonChange {
            callback,
            domain,
            actual: *actual,
        }),
        Happening::DeviceAdded(alias) => packet(&events::DomainEventCallbackDeviceAdded {
            callback,
            domain,
            alias: alias.clone(),
        }),
        Happening::DeviceRemoved(alias) => packet(&events::DomainEventCallbackDeviceRemoved {
            callback,
            domain,
            alias: alias.clone(),
        }),
        Happening::Tray(alias, reason) => packet(&events::DomainEventCallbackTrayChange {
            callback,
            domain,
            alias: alias.clone(),
            reason: *reason,
        }),
        Happening::Tuned(params) => packet(&events::DomainEventCallbackTunable {
            callback,
            domain,
            params: params.clone().into(),
        }),
        Happening::Agent(state, reason) => packet(&events::DomainEventCallbackAgentLifecycle {
            callback,
            domain,
            state: *state,
            reason: *reason,
        }),
        Happening::Metadata { kind, uri } => packet(&events::DomainEventCallbackMetadataChange {
            callback,
            domain,
            kind: *kind,
            uri: uri.clone(),
        }),
    }
}

fn packet<E: Event>(event: &E) -> Option<Vec<u8>> {
    let mut packet = Vec::new();
    match frame::event(&mut packet, event) {
        Ok(()) => Some(packet),
        Err(error) => {
            tracing::error!("an event is not sent: {error}");
            None
        }
    }
}
