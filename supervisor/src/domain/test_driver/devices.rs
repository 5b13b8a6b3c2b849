//! The devices of a machine that only looks like one: where they are, and which its guest was asked for.

use std::collections::BTreeMap;

use reeve_ipc::device::{
    BalloonFigures, DeviceChange, DeviceFigures, DeviceReport, DiskFigures, MemoryFigures,
    NicFigures, PortsFigures,
};
use reeve_ipc::model::{DeviceName, DevicePlace, Domain};
use reeve_ipc::phase::Phase;
use reeve_ipc::spec::PciSlot;

use crate::domain::driver::{CallFailure, DeviceCall};

#[derive(Debug)]
struct TestDevice {
    figures: DeviceFigures,
    /// Its guest was asked to let go of it.
    leaving: bool,
    /// It goes whatever its guest does.
    taken: bool,
}

/// By their places on the bus, and ports that are gone and of which nobody was told.
#[derive(Debug)]
pub(super) struct TestDevices(BTreeMap<PciSlot, TestDevice>, Vec<DevicePlace>);

impl TestDevices {
    pub(super) fn new(domain: &Domain) -> Self {
        let named = domain.devices.named().into_iter();
        let named = named.map(|(slot, name)| (slot, device(&name, domain)));
        Self(named.collect(), Vec::new())
    }

    pub(super) fn obey(&mut self, call: DeviceCall, phase: Phase) -> Result<(), CallFailure> {
        match call {
            DeviceCall::Attach { domain, place } => {
                if !matches!(phase, Phase::Running | Phase::Paused) {
                    return Err(refused(format!("the machine is {phase}")));
                }
                let slot = place.slot;
                if let Some(port) = place.port {
                    return self.attach_port(slot, port);
                }
                let found = domain.devices.find(&DeviceName::Slot(slot));
                match found {
                    Some((_, name)) if !self.0.contains_key(&slot) => {
                        self.0.insert(slot, device(&name, &domain));
                        Ok(())
                    }
                    _ => Err(refused(format!("no device can be put at address {slot}"))),
                }
            }
            DeviceCall::Detach { place, force } => {
                if let Some(port) = place.port {
                    return self.detach_port(place.slot, port);
                }
                let device = self.at(place.slot)?;
                device.leaving = true;
                device.taken |= force;
                Ok(())
            }
            DeviceCall::Update { slot, change } => match (&mut self.at(slot)?.figures, change) {
                (DeviceFigures::Balloon(balloon), DeviceChange::BalloonTarget { bytes }) => {
                    balloon.target_bytes = bytes;
                    balloon.actual_bytes = bytes;
                    Ok(())
                }
                (DeviceFigures::Memory(memory), DeviceChange::MemoryRequest { bytes }) => {
                    memory.requested_bytes = bytes;
                    memory.plugged_bytes = bytes;
                    Ok(())
                }
                (DeviceFigures::Balloon(_), DeviceChange::BalloonPoll)
                | (
                    DeviceFigures::Nic(_),
                    DeviceChange::Link { .. } | DeviceChange::NicRates { .. },
                )
                | (
                    DeviceFigures::Disk(_),
                    DeviceChange::DiskThrottle(_) | DeviceChange::DiskSize { .. },
                ) => Ok(()),
                _ => Err(refused("it cannot be changed like that".to_owned())),
            },
            DeviceCall::Medium { slot, .. } => match self.at(slot)?.figures {
                DeviceFigures::Disk(_) => Ok(()),
                _ => Err(refused("it is no disk".to_owned())),
            },
            DeviceCall::Tune { .. } => Ok(()),
            DeviceCall::Vcpus { .. } => Err(refused("vCPUs are no devices".to_owned())),
        }
    }

    /// Every device whose guest was asked for it goes: the guest has no driver any more.
    pub(super) fn leave_all(&mut self) {
        for device in self.0.values_mut() {
            device.taken |= device.leaving;
        }
    }

    fn attach_port(&mut self, slot: PciSlot, port: u8) -> Result<(), CallFailure> {
        match &mut self.at(slot)?.figures {
            DeviceFigures::Ports(ports) if ports.port(port).is_none() => {
                ports.present |= 1 << port;
                Ok(())
            }
            _ => Err(refused(format!("port {port} cannot be had"))),
        }
    }

    fn detach_port(&mut self, slot: PciSlot, port: u8) -> Result<(), CallFailure> {
        match &mut self.at(slot)?.figures {
            DeviceFigures::Ports(ports) if ports.port(port).is_some() => {
                ports.present &= !(1 << port);
            }
            _ => return Err(refused(format!("there is no port {port}"))),
        }
        self.1.push(DevicePlace::port(slot, port));
        Ok(())
    }

    /// What goes now: of a guest that runs all it was asked for.
    pub(super) fn let_go(&mut self, runs: bool) -> Vec<DevicePlace> {
        let goes = |device: &TestDevice| device.leaving && (runs || device.taken);
        let gone: Vec<PciSlot> = self
            .0
            .iter()
            .filter(|(_, device)| goes(device))
            .map(|(slot, _)| *slot)
            .collect();
        self.0.retain(|slot, _| !gone.contains(slot));
        let ports = std::mem::take(&mut self.1).into_iter();
        ports.chain(gone.into_iter().map(Into::into)).collect()
    }

    /// Where they are, and their ports.
    pub(super) fn places(&self) -> Vec<DevicePlace> {
        let slots = self.0.keys().map(|slot| DevicePlace::from(*slot));
        let ports = self.0.iter().flat_map(|(slot, device)| {
            let numbers = match device.figures {
                DeviceFigures::Ports(ports) => Some(ports.numbers()),
                _ => None,
            };
            let numbers = numbers.into_iter().flatten();
            numbers.map(|number| DevicePlace::port(*slot, number))
        });
        slots.chain(ports).collect()
    }

    pub(super) fn reports(&self) -> Vec<DeviceReport> {
        let reports = self.0.iter().map(|(slot, device)| DeviceReport {
            slot: *slot,
            figures: device.figures,
        });
        reports.collect()
    }

    fn at(&mut self, slot: PciSlot) -> Result<&mut TestDevice, CallFailure> {
        self.0
            .get_mut(&slot)
            .ok_or_else(|| refused(format!("there is no device at address {slot}")))
    }
}

fn device(name: &DeviceName, domain: &Domain) -> TestDevice {
    let figures = match name {
        DeviceName::Disk(_) => DeviceFigures::Disk(DiskFigures::default()),
        DeviceName::Nic(_) | DeviceName::Interface(_) => DeviceFigures::Nic(NicFigures::default()),
        DeviceName::Balloon => DeviceFigures::Balloon(BalloonFigures::default()),
        DeviceName::Ports => {
            let mut ports = PortsFigures::default();
            for (place, _) in domain.devices.placed_ports() {
                ports.present |= place.port.map_or(0, |port| 1 << port);
            }
            DeviceFigures::Ports(ports)
        }
        DeviceName::Memory => {
            let pluggable = domain.pluggable();
            DeviceFigures::Memory(MemoryFigures {
                most_bytes: pluggable.map_or(0, |memory| memory.bytes),
                block_bytes: pluggable.map_or(0, |memory| memory.block_bytes),
                ..MemoryFigures::default()
            })
        }
        DeviceName::Rng
        | DeviceName::Vsock
        | DeviceName::Channel(_)
        | DeviceName::Console(_)
        | DeviceName::Slot(_)
        | DeviceName::Watchdog
        | DeviceName::Share(_) => DeviceFigures::None,
    };
    TestDevice {
        figures,
        leaving: false,
        taken: false,
    }
}

fn refused(why: String) -> CallFailure {
    CallFailure::Refused(why)
}
