//! The callbacks that a client has registered, and what is sent to each when something happens.

use std::collections::BTreeMap;

use reeve_ipc::model::DomainUuid;

use super::watch::{Happening, Subject};
use crate::calls::failure::{Code, Failure, Origin, invalid_argument};
use crate::wire::call::Event;
use crate::wire::frame;
use crate::wire::types::event as events;
use crate::wire::types::handles::Domain;

/// Callbacks of one connection.
const MAX_CALLBACKS: usize = 1024;

/// Kinds of events (libvirt `virDomainEventID`): those that are ever sent.
mod kind {
    pub(super) const LIFE: i32 = 0;
    pub(super) const REBOOT: i32 = 1;
    pub(super) const WATCHDOG: i32 = 3;
    pub(super) const BALLOON: i32 = 13;
    pub(super) const DEVICE_REMOVED: i32 = 15;
    pub(super) const DEVICE_ADDED: i32 = 19;
    pub(super) const METADATA: i32 = 23;
    /// The last kind that a client may ask for; newer libvirts have more than 9.0, and all get none.
    pub(super) const LAST: i32 = 27;
}

/// One callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Callback {
    kind: i32,
    /// Of this domain only.
    filter: Option<DomainUuid>,
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
    /// Whether a callback for events of that kind may be registered.
    ///
    /// # Errors
    /// There are no such events, or there are too many callbacks.
    pub(super) fn check(&self, kind: i32) -> Result<(), Failure> {
        if !(kind::LIFE..=kind::LAST).contains(&kind) {
            return Err(internal(format!("unsupported event ID {kind}")));
        }
        if self.callbacks.len() >= MAX_CALLBACKS {
            return Err(internal("too many callbacks are registered"));
        }
        Ok(())
    }

    /// Registers one; its number.
    ///
    /// # Errors
    /// As for [`Self::check`].
    pub(super) fn register(
        &mut self,
        kind: i32,
        filter: Option<DomainUuid>,
    ) -> Result<i32, Failure> {
        self.check(kind)?;
        while self.callbacks.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1) & i32::MAX;
        }
        let id = self.next;
        self.callbacks.insert(id, Callback { kind, filter });
        self.next = self.next.wrapping_add(1) & i32::MAX;
        Ok(id)
    }

    /// Gives one up.
    ///
    /// # Errors
    /// There is none of that number.
    pub(super) fn deregister(&mut self, id: i32) -> Result<(), Failure> {
        match self.callbacks.remove(&id) {
            Some(_) => Ok(()),
            None => Err(internal(format!(
                "domain event callback {id} not registered"
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
    pub(super) fn packets(&self, subject: &Subject, happening: &Happening) -> Vec<Vec<u8>> {
        let kind = kind_of(happening);
        let mut packets = Vec::new();
        for (id, callback) in &self.callbacks {
            let wanted = callback.filter.is_none_or(|uuid| uuid == subject.uuid);
            if callback.kind == kind && wanted {
                packets.extend(told(*id, handle(subject), happening));
            }
        }
        packets
    }
}

/// Whether what is told of events of that kind needs more than the supervisor's own say.
pub(super) const fn needs_details(kind: i32) -> bool {
    matches!(
        kind,
        kind::DEVICE_ADDED | kind::DEVICE_REMOVED | kind::METADATA
    )
}

const fn kind_of(happening: &Happening) -> i32 {
    match happening {
        Happening::Lifecycle(..) => kind::LIFE,
        Happening::Reboot => kind::REBOOT,
        Happening::Watchdog(_) => kind::WATCHDOG,
        Happening::Balloon(_) => kind::BALLOON,
        Happening::DeviceAdded(_) => kind::DEVICE_ADDED,
        Happening::DeviceRemoved(_) => kind::DEVICE_REMOVED,
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

/// A packet to the callback of that number.
fn told(callback: i32, domain: Domain, happening: &Happening) -> Option<Vec<u8>> {
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
