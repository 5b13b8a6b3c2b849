//! Ports of virtual networks: given to a domain's interfaces before their taps are made, and given back.
//!
//! A port is given without waiting for anything. It is in the run-time status and in what the actor knows of the
//! worker before anybody is asked to make a tap, so that whoever comes after this supervisor finds it.

use std::sync::Arc;

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::network::PortDetails;
use reeve_ipc::model::{DevicePlace, Domain, InterfaceName, NetworkPort, NicSource, PortUuid};
use reeve_ipc::spec::PciSlot;

use super::Shell;
use crate::domain::actor::Input;
use crate::domain::driver::{StartFailure, StartFailureKind};
use crate::domain::world::{PortRequest, Ports, Status, StatusWriter};

/// The port of one interface.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connected {
    slot: Option<PciSlot>,
    port: PortUuid,
}

impl<F: FnOnce() + Send + 'static> Shell<F> {
    /// Gives a port to each interface of `domain` that is on a virtual network, or only to the one at that place. On
    /// an error none of them has one.
    pub(super) fn connect(
        &mut self,
        id: u32,
        domain: &mut Domain,
        only: Option<DevicePlace>,
    ) -> Result<Vec<Connected>, StartFailure> {
        let Some(networks) = self.world.networks.clone() else {
            return Ok(Vec::new());
        };
        // A definition that was taken is complete.
        let _ = domain.complete();
        let (uuid, name) = (domain.uuid, domain.name.clone());
        let mut given: Vec<(usize, NetworkPort)> = Vec::new();
        let mut connected = Vec::new();
        for (index, nic) in domain.devices.nics.iter_mut().enumerate() {
            if only.is_some_and(|only| nic.address != Some(only.slot)) {
                continue;
            }
            let (slot, mac) = (nic.address, nic.mac);
            let (
                NicSource::Network {
                    network,
                    port_group,
                    port,
                },
                Some(mac),
            ) = (&mut nic.source, mac)
            else {
                continue;
            };
            let wanted = PortRequest {
                network,
                port_group: port_group.as_deref(),
                virtual_port: nic.virtual_port.as_deref(),
                uuid,
                name: &name,
                mac,
            };
            match networks.connect(wanted) {
                Ok(found) => {
                    let uuid = found.uuid;
                    connected.push(Connected { slot, port: uuid });
                    given.push((index, found.clone()));
                    *port = Some(Box::new(found));
                }
                Err(error) => {
                    give_back(networks.as_ref(), &connected);
                    return Err(refused(error));
                }
            }
        }
        self.connected.extend(&connected);
        if !given.is_empty() {
            self.inputs.push_back(Input::Connected(id, given));
        }
        Ok(connected)
    }

    /// Notes the ports that a domain has had since before this supervisor.
    pub(super) fn restore(&mut self, status: &Status) {
        let Some(networks) = self.world.networks.clone() else {
            return;
        };
        let domain = &status.record.definition;
        for nic in &domain.devices.nics {
            let NicSource::Network {
                network,
                port_group,
                port: Some(port),
            } = &nic.source
            else {
                continue;
            };
            let Some(mac) = nic.mac else { continue };
            let mut devices = status.resources.devices.iter();
            let device = devices
                .find(|device| Some(device.place.slot) == nic.address && !device.taps.is_empty());
            let tap = device.and_then(|device| device.taps.first());
            let details = PortDetails {
                port: (**port).clone(),
                domain: domain.uuid,
                name: domain.name.clone(),
                mac,
                interface: tap.and_then(|tap| tap.name.parse().ok()),
                port_group: port_group.clone(),
            };
            networks.restore(network, details);
            self.connected.push(Connected {
                slot: nic.address,
                port: port.uuid,
            });
        }
    }

    /// The interface at that place is gone.
    pub(super) fn disconnect(&mut self, place: DevicePlace) {
        let all = std::mem::take(&mut self.connected).into_iter();
        let (gone, left): (Vec<_>, _) =
            all.partition(|connected| connected.slot == Some(place.slot));
        self.connected = left;
        if let Some(networks) = &self.world.networks {
            give_back(networks.as_ref(), &gone);
        }
    }

    /// All of them are.
    pub(super) fn disconnect_all(&mut self) {
        let gone = std::mem::take(&mut self.connected);
        if let Some(networks) = &self.world.networks {
            give_back(networks.as_ref(), &gone);
        }
    }

    /// The taps of a domain that was started are made.
    pub(super) fn tell_of_taps(&self) {
        if let (Some(networks), Some(status)) = (&self.world.networks, &self.status) {
            tell_of_taps(networks, status, &self.connected);
        }
    }
}

pub(super) fn give_back(networks: &dyn Ports, connected: &[Connected]) {
    for connected in connected {
        networks.disconnect(connected.port);
    }
}

pub(super) fn tell_of_taps(
    networks: &Arc<dyn Ports>,
    status: &StatusWriter,
    connected: &[Connected],
) {
    let taps = status.taps();
    for connected in connected {
        let mut taps = taps.iter();
        let tap = taps.find(|(slot, _)| Some(*slot) == connected.slot);
        let name = tap.and_then(|(_, name)| name.parse::<InterfaceName>().ok());
        if let Some(name) = name {
            networks.made(connected.port, name);
        }
    }
}

fn refused(error: ApiError) -> StartFailure {
    let kind = match error.code {
        ApiErrorCode::NoNetwork => StartFailureKind::NoNetwork,
        ApiErrorCode::WrongState => StartFailureKind::WrongState,
        ApiErrorCode::InvalidArgument => StartFailureKind::Definition,
        ApiErrorCode::Unsupported => StartFailureKind::Unsupported,
        _ => StartFailureKind::Host,
    };
    StartFailure {
        kind,
        message: error.message,
    }
}
