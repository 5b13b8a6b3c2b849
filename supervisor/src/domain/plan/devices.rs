//! Devices: model to specification, in the order of their places on the bus.

use std::path::Path;

use reeve_ipc::fd::{FdSlot, FdTable};
use reeve_ipc::model::{DeviceError, DeviceName, Devices, Domain, NicSource};
use reeve_ipc::spec::{
    BalloonSpec, DeviceSpec, LEAST_PORTS_ROOM, MIN_GUEST_CID, MemoryDeviceSpec, PciSlot, PortKind,
    PortSpec, PortsSpec, RngSpec, VsockSpec, WatchdogSpec,
};

use super::directs::{Directs, is_direct};
use super::disks::plan_disk;
use super::nics::{NicPolicy, plan_nic};
use super::paths::PathPolicy;
use super::{Files, PlanError, model_error};
use crate::domain::driver::DeviceResources;
use crate::host::sockets::DeviceSockets;
use crate::host::tap::{MacvtapRecord, TapId};

/// The devices of a domain with every address.
pub(super) fn completed(domain: &Domain) -> Result<Devices, PlanError> {
    let mut devices = domain.devices.clone();
    devices.complete(domain.uuid).map_err(model_error)?;
    Ok(devices)
}

/// Everything but what listens, what is served by processes and what is upon a device of the host.
pub(super) fn plan_devices(
    devices: &Devices,
    files: Files<'_>,
    network: &NicPolicy,
    fds: &mut FdTable,
) -> Result<Vec<DeviceSpec>, PlanError> {
    let mut specs = Vec::new();
    for disk in &devices.disks {
        let slot = placed(disk.address)?;
        specs.push(DeviceSpec::Disk(plan_disk(disk, slot, files, fds)?));
    }
    for nic in &devices.nics {
        if nic.source == NicSource::User || is_direct(nic) {
            continue;
        }
        // Both are filled in together.
        let (slot, mac) = (placed(nic.address)?, nic.mac.ok_or_else(unplaced)?);
        specs.push(plan_nic(nic, slot, mac, (files.paths, network), fds)?);
    }
    if let Some(rng) = &devices.rng {
        specs.push(DeviceSpec::Rng(RngSpec {
            slot: placed(rng.address)?,
            rate: rng.rate,
        }));
    }
    if let Some(balloon) = &devices.balloon {
        specs.push(DeviceSpec::Balloon(BalloonSpec {
            slot: placed(balloon.address)?,
            free_page_reporting: balloon.free_page_reporting,
            deflate_on_oom: balloon.deflate_on_oom,
        }));
    }
    if let Some(memory) = &devices.memory {
        specs.push(DeviceSpec::Memory(MemoryDeviceSpec {
            slot: placed(memory.address)?,
        }));
    }
    specs.sort_unstable_by_key(DeviceSpec::slot);
    Ok(specs)
}

/// The watchdog, which is no device that can be plugged.
pub(super) fn plan_watchdog(devices: &Devices) -> Result<Option<WatchdogSpec>, PlanError> {
    let watchdog = devices.watchdog.map(|watchdog| {
        Ok(WatchdogSpec {
            slot: placed(watchdog.address)?,
            action: watchdog.action,
        })
    });
    watchdog.transpose()
}

/// What listens, each with its socket bound.
pub(super) fn plan_listeners(
    devices: &Devices,
    paths: &dyn PathPolicy,
    fds: &mut FdTable,
    sockets: &mut DeviceSockets,
) -> Result<Vec<DeviceSpec>, PlanError> {
    let mut specs = Vec::new();
    if let Some(vsock) = &devices.vsock {
        let (what, path) = ("vsock", &vsock.path);
        specs.push(DeviceSpec::Vsock(VsockSpec {
            slot: placed(vsock.address)?,
            cid: vsock.cid.unwrap_or(MIN_GUEST_CID),
            listener: fds.push(sockets.listen(paths, what, path)?)?,
            acceptor: Some(fds.push(sockets.accept_beside(paths, what, path)?)?),
        }));
    }
    let mut listen = |what, path: &Path| -> Result<FdSlot, PlanError> {
        Ok(fds.push(sockets.listen(paths, what, path)?)?)
    };
    if devices.has_ports() {
        let mut ports = Vec::new();
        for console in &devices.consoles {
            ports.push(PortSpec {
                number: numbered(console.port)?,
                kind: PortKind::Console,
                listener: listen("console", &console.path)?,
            });
        }
        for channel in &devices.channels {
            ports.push(PortSpec {
                number: numbered(channel.port)?,
                kind: PortKind::Channel {
                    name: channel.name.clone(),
                },
                listener: listen("channel", &channel.path)?,
            });
        }
        ports.sort_unstable_by_key(|port| port.number);
        let needed = ports.last().map_or(0, |port| port.number.saturating_add(1));
        specs.push(DeviceSpec::Ports(PortsSpec {
            slot: placed(devices.ports_address)?,
            ports,
            room: needed.max(LEAST_PORTS_ROOM),
        }));
    }
    Ok(specs)
}

/// What each of `devices` holds that has a name, as far as `specs` tell, and what each port does; those that
/// hold nothing are left out.
pub(super) fn held(
    devices: &Devices,
    specs: &[DeviceSpec],
    directs: &Directs,
) -> Vec<DeviceResources> {
    let placed = devices.placed().into_iter();
    let held = placed.map(|(place, name)| {
        let macvtaps: Vec<_> = match place.port {
            None => directs.at(place.slot).cloned().collect(),
            Some(_) => Vec::new(),
        };
        let chosen: Vec<_> = macvtaps.iter().map(MacvtapRecord::id).collect();
        let taps = specs.iter().filter_map(|device| match device {
            DeviceSpec::Nic(nic) if place == nic.slot.into() => Some(TapId::named(&nic.name)),
            _ => None,
        });
        let alone = devices.only_at(place);
        // A controller holds what its ports do.
        let sockets = alone.sockets().filter(|_| name != DeviceName::Ports);
        let sockets = sockets.map(|(_, path)| path.to_owned());
        DeviceResources {
            place,
            taps: match chosen.is_empty() {
                true => taps.collect(),
                false => chosen,
            },
            macvtaps,
            sockets: sockets.collect(),
        }
    });
    held.filter(|device| !device.is_empty()).collect()
}

pub(super) fn placed(address: Option<PciSlot>) -> Result<PciSlot, PlanError> {
    address.ok_or_else(unplaced)
}

fn numbered(port: Option<u8>) -> Result<u16, PlanError> {
    port.map(u16::from).ok_or_else(unplaced)
}

/// A device that nothing was filled in for: there was no room.
pub(super) fn unplaced() -> PlanError {
    model_error(DeviceError::TooMany(reeve_ipc::spec::MAX_DEVICES + 1))
}
