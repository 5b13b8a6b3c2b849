//! What is done for a network, each on a thread that may wait for the kernel, a server or a disk.

use std::sync::Arc;

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::NetworkEventKind;
use reeve_ipc::model::{Network, NetworkError, PortUuid};

use super::claims::Claims;
use super::handle::{Change, Made, Outcome};
use super::host::{Connection, NetworkFailure, NetworkHost, NetworkHostError, NetworkResources};
use super::ports::PortTable;
use super::server::Delays;
use crate::crash::{self, Moment, Operation};
use crate::domain::actor::change_labels;
use crate::store::{NetworkPhase, NetworkRecord, NetworkStatus, NetworkStore, StoreError};

/// What the actors of an instance's networks work with.
#[derive(Debug)]
pub struct Means {
    /// Who makes what is on the host.
    pub host: Arc<dyn NetworkHost>,
    /// What is kept.
    pub store: NetworkStore,
    /// Addresses that are taken.
    pub claims: Claims,
    /// Who is connected.
    pub ports: PortTable,
    /// The boot that this is.
    pub boot_id: String,
    /// How long is waited before a server is started again.
    pub delays: Delays,
}

fn kept(network: &Network) -> impl Fn(StoreError) -> ApiError {
    move |error| {
        ApiError::new(
            ApiErrorCode::Storage,
            format!("network '{}': {error}", network.name),
        )
    }
}

fn failed(network: &Network, error: &NetworkHostError) -> ApiError {
    let code = match error.kind {
        NetworkFailure::Taken | NetworkFailure::Host => ApiErrorCode::Host,
        NetworkFailure::Unsupported => ApiErrorCode::Unsupported,
        NetworkFailure::Storage => ApiErrorCode::Storage,
    };
    ApiError::new(code, format!("network '{}': {error}", network.name))
}

impl Means {
    fn note(
        &self,
        operation: Operation,
        phase: NetworkPhase,
        network: &Network,
        resources: &NetworkResources,
    ) -> Result<(), StoreError> {
        let status = NetworkStatus {
            boot_id: self.boot_id.clone(),
            phase,
            network: network.clone(),
            resources: resources.clone(),
        };
        self.store.set_status(operation, &status)
    }

    /// What notes for whoever makes something.
    fn noting<'a>(
        &'a self,
        operation: Operation,
        phase: NetworkPhase,
        network: &'a Network,
    ) -> impl FnMut(&NetworkResources) -> Result<(), NetworkHostError> + 'a {
        move |resources| {
            let noted = self.note(operation, phase, network, resources);
            noted.map_err(|error| NetworkHostError {
                kind: NetworkFailure::Storage,
                message: error.to_string(),
            })
        }
    }

    fn made(&self, network: &Network, resources: NetworkResources) -> Made {
        let watch = self.host.watch(network.uuid, &resources);
        Made { resources, watch }
    }

    /// Keeps a definition.
    pub(super) fn define(&self, record: NetworkRecord) -> Result<Outcome, ApiError> {
        let written = self.store.write(&record);
        written.map_err(kept(&record.network))?;
        Ok(Outcome::Defined(record))
    }

    /// Forgets it; where it is not active all that is left of it.
    pub(super) fn undefine(&self, network: &Network, forget: bool) -> Result<Outcome, ApiError> {
        self.store.remove(network.uuid).map_err(kept(network))?;
        if forget {
            self.host.forget(network);
        }
        Ok(Outcome::Undefined)
    }

    /// Whether it starts with the host.
    pub(super) fn autostart(&self, record: NetworkRecord) -> Result<Outcome, ApiError> {
        let written = self.store.write(&record);
        written.map_err(kept(&record.network))?;
        Ok(Outcome::Autostart(record))
    }

    /// Makes it active, and connects what was connected before it was stopped.
    pub(super) fn start(&self, network: Box<Network>, start: u64) -> Result<Outcome, ApiError> {
        let operation = Operation::NetworkStart;
        let none = NetworkResources::default();
        // What an earlier one left.
        if let Some(left) = self.store.status(network.uuid).map_err(kept(&network))? {
            self.undo(&left.network, &left.resources)?;
        }
        // Before anything is asked of the host: a start that is given up half way leaves its trace.
        self.note(operation, NetworkPhase::Starting, &network, &none)
            .map_err(kept(&network))?;
        let mut note = self.noting(operation, NetworkPhase::Starting, &network);
        let mut latest = none;
        let mut following = |resources: &NetworkResources| {
            note(resources)?;
            latest = resources.clone();
            Ok(())
        };
        let made = self.host.start(&network, &mut following);
        drop(note);
        let forget = || {
            if let Err(error) = self.store.remove_status(network.uuid) {
                tracing::error!(network = %network.name, %error, "its status could not be removed");
            }
        };
        let resources = made.map_err(|error| {
            // Once more: what cannot be taken away is for the next start, or the next supervisor.
            match self.host.stop(&network, &latest) {
                Ok(()) => forget(),
                Err(left) => self.leave(&network, &latest, &left),
            }
            failed(&network, &error)
        })?;
        crash::point(operation, Moment::AfterOutcome);
        let noted = self.note(operation, NetworkPhase::Active, &network, &resources);
        if let Err(error) = noted {
            match self.host.stop(&network, &resources) {
                Ok(()) => forget(),
                Err(left) => self.leave(&network, &resources, &left),
            }
            return Err(kept(&network)(error));
        }
        self.connect(&network, start, None);
        let made = self.made(&network, resources);
        Ok(Outcome::Started(network, made))
    }

    /// Notes what could not be taken away.
    fn leave(&self, network: &Network, resources: &NetworkResources, left: &NetworkHostError) {
        tracing::error!(network = %network.name, error = %left, "something is left of it");
        let (operation, phase) = (Operation::NetworkStop, NetworkPhase::Stopping);
        if let Err(error) = self.note(operation, phase, network, resources) {
            tracing::error!(network = %network.name, %error, "its status could not be written");
        }
    }

    /// Connects interfaces that are there already: all, or that one. One that cannot be reaches nothing, as before.
    pub(super) fn connect(&self, network: &Network, start: u64, only: Option<PortUuid>) {
        for (interface, port) in self.ports.reconnect(network, start, only) {
            let connection = Connection {
                interface: &interface,
                port: &port,
            };
            if let Err(error) = self.host.connect(&connection) {
                tracing::error!(network = %network.name, %interface, %error, "an interface could not be connected again");
            }
        }
    }

    /// Takes away all that is made for it, and where it is not kept all that is left of it.
    pub(super) fn stop(
        &self,
        network: &Network,
        resources: &NetworkResources,
        forget: bool,
    ) -> Result<Outcome, ApiError> {
        let operation = Operation::NetworkStop;
        let noted = self.note(operation, NetworkPhase::Stopping, network, resources);
        noted.map_err(kept(network))?;
        self.undo(network, resources)?;
        if forget {
            self.host.forget(network);
        }
        Ok(Outcome::Stopped)
    }

    /// The same of what was not finished by an earlier supervisor.
    pub(super) fn undo(
        &self,
        network: &Network,
        resources: &NetworkResources,
    ) -> Result<(), ApiError> {
        let operation = Operation::NetworkStop;
        let stopped = self.host.stop(network, resources);
        stopped.map_err(|error| failed(network, &error))?;
        crash::point(operation, Moment::AfterOutcome);
        crash::point(operation, Moment::BeforeStatusRemove);
        self.store
            .remove_status(network.uuid)
            .map_err(kept(network))?;
        crash::point(operation, Moment::AfterStatusRemove);
        Ok(())
    }

    /// Looks whether all that is made for it works.
    pub(super) fn check(
        &self,
        network: &Network,
        resources: &NetworkResources,
    ) -> Result<Outcome, ApiError> {
        let checked = self.host.check(network, resources);
        checked.map_err(|error| failed(network, &error))?;
        Ok(Outcome::Checked)
    }

    /// Takes over what is made for it, and makes again what of it is gone.
    pub(super) fn adopt(
        &self,
        network: &Network,
        resources: &NetworkResources,
        start: u64,
    ) -> Result<Outcome, ApiError> {
        let (operation, phase) = (Operation::NetworkUpdate, NetworkPhase::Active);
        let mut latest = resources.clone();
        let mut note = self.noting(operation, phase, network);
        let mut following = |resources: &NetworkResources| {
            note(resources)?;
            latest = resources.clone();
            Ok(())
        };
        let adopted = self.host.adopt(network, resources, &mut following);
        drop(note);
        let adopted = adopted.map_err(|error| failed(network, &error));
        let noted = adopted.and_then(|resources| {
            latest = resources;
            let noted = self.note(operation, phase, network, &latest);
            noted.map_err(kept(network))
        });
        let made = self.made(network, latest);
        match noted {
            Ok(()) => {
                // A bridge that was made again has none of them.
                self.connect(network, start, None);
                Ok(Outcome::Adopted(made))
            }
            Err(error) => Ok(Outcome::NotChanged(made, error)),
        }
    }

    /// Changes the definition that it is active with, the one that is kept, or both: all of it, or nothing.
    pub(super) fn change(
        &self,
        change: &Change,
        active: Option<(Network, NetworkResources)>,
        record: Option<NetworkRecord>,
    ) -> Result<Outcome, ApiError> {
        let wanted = |network: &Network| changed(network, change);
        let next = active.as_ref().map(|(network, _)| wanted(network));
        let next = next.transpose()?;
        let record = record.map(|record| {
            Ok::<_, ApiError>(NetworkRecord {
                network: wanted(&record.network)?,
                autostart: record.autostart,
            })
        });
        let record = record.transpose()?;
        let event = match change {
            Change::Part(_) => NetworkEventKind::Updated,
            Change::Label(change) => NetworkEventKind::Labels {
                label: change.label(),
            },
        };
        let mut done = None;
        if let (Some((before, resources)), Some(after)) = (&active, next) {
            match self.change_active(change, before, &after, resources) {
                Ok(made) => done = Some((Box::new(after), made)),
                Err((made, error)) => return Ok(Outcome::NotChanged(made, error)),
            }
        }
        if let Some(record) = &record {
            if let Err(error) = self.store.write(record) {
                if let (Some((before, _)), Some((after, made))) = (&active, &done) {
                    // Back, as far as that goes: its own error is of no use to whoever asked.
                    let back = self.change_active(change, after, before, &made.resources);
                    let made = back.unwrap_or_else(|(made, error)| {
                        tracing::error!(network = %before.name, %error, "a change could not be taken back");
                        made
                    });
                    return Ok(Outcome::NotChanged(made, kept(&record.network)(error)));
                }
                return Err(kept(&record.network)(error));
            }
        }
        Ok(Outcome::Changed {
            active: done,
            record,
            event,
        })
    }

    /// Makes of `before` what `after` says, which is noted first: whoever takes it over makes it so. Where it cannot,
    /// what was noted last is what there is.
    fn change_active(
        &self,
        change: &Change,
        before: &Network,
        after: &Network,
        resources: &NetworkResources,
    ) -> Result<Made, (Made, ApiError)> {
        let (operation, phase) = (Operation::NetworkUpdate, NetworkPhase::Active);
        if let Err(error) = self.note(operation, phase, after, resources) {
            let made = self.made(before, resources.clone());
            return Err((made, kept(after)(error)));
        }
        let Change::Part(_) = change else {
            crash::point(operation, Moment::AfterOutcome);
            return Ok(self.made(after, resources.clone()));
        };
        let mut latest = resources.clone();
        let mut note = self.noting(operation, phase, after);
        let mut following = |resources: &NetworkResources| {
            note(resources)?;
            latest = resources.clone();
            Ok(())
        };
        let updated = self.host.update(before, after, resources, &mut following);
        drop(note);
        crash::point(operation, Moment::AfterOutcome);
        let updated = updated.map_err(|error| failed(before, &error));
        let noted = updated.and_then(|resources| {
            latest = resources.clone();
            let noted = self.note(operation, phase, after, &resources);
            noted.map_err(kept(after))
        });
        match noted {
            Ok(()) => Ok(self.made(after, latest)),
            Err(error) => {
                if let Err(error) = self.note(operation, phase, before, &latest) {
                    tracing::error!(network = %before.name, %error, "its status could not be written");
                }
                Err((self.made(before, latest), error))
            }
        }
    }
}

/// What a change that cannot be made is refused as.
#[must_use]
pub const fn refused_as(error: &NetworkError) -> ApiErrorCode {
    match error {
        NetworkError::There(_) | NetworkError::NotThere(_) | NetworkError::Several(_) => {
            ApiErrorCode::WrongState
        }
        NetworkError::NeverModified(_) => ApiErrorCode::Unsupported,
        _ => ApiErrorCode::InvalidArgument,
    }
}

/// The definition with that change.
fn changed(network: &Network, change: &Change) -> Result<Network, ApiError> {
    let invalid = |error: &NetworkError| {
        let why = format!("network '{}': {error}", network.name);
        ApiError::new(refused_as(error), why)
    };
    match change {
        Change::Part(edit) => network.edited(edit).map_err(|error| invalid(&error)),
        Change::Label(change) => {
            let mut network = network.clone();
            change_labels(&mut network.labels, change.clone());
            let checked = network.validate();
            checked.map_err(|error| invalid(&error))?;
            Ok(network)
        }
    }
}
