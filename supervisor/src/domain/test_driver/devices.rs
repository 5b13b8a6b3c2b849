//! The devices of a machine that only looks like one: where they are, and which its guest was asked for.

use std::collections::BTreeMap;

use reeve_ipc::device::{
    BalloonFigures, DeviceChange, DeviceFigures, DeviceReport, DiskFigures, GuestMemoryFigures,
    MemoryFigures, NicFigures, PortsFigures,
};
use reeve_ipc::model::{DeviceName, DevicePlace, Domain};
use reeve_ipc::phase::Phase;
use reeve_ipc::spec::PciSlot;

use crate::domain::driver::{CallFailure, DeviceCall, GuestMemory};

#[derive(Debug)]
struct TestDevice {
    figures: DeviceFigures,
    /// Its guest was asked to let go of it.
    leaving: bool,
    /// It goes whatever its guest does.
    taken: bool,
}

#[derive(Debug)]
pub(super) struct TestDevices {
    /// By their places on the bus.
    at: BTreeMap<PciSlot, TestDevice>,
    /// Ports that are gone and of which nobody was told.
    gone: Vec<DevicePlace>,
    /// What the machine started with, in bytes.
    memory: u64,
    /// What was last told of what its guest has done with it.
    told: GuestMemory,
}

impl TestDevices {
    /// Those of the domain; its guest is asked for its memory already, as its definition says.
    pub(super) fn new(domain: &Domain) -> Self {
        let named = domain.devices.named().into_iter();
        let named = named.map(|(slot, name)| (slot, device(&name, domain)));
        let mut at: BTreeMap<PciSlot, TestDevice> = named.collect();
        let memory = domain.memory.bytes();
        let current = domain.tuning.current_memory;
        let current = current.map_or(memory, |current| current.bytes());
        for device in at.values_mut() {
            match &mut device.figures {
                DeviceFigures::Balloon(balloon) => {
                    balloon.target_bytes = memory.saturating_sub(current);
                }
                DeviceFigures::Memory(plugged) => {
                    plugged.requested_bytes = current.saturating_sub(memory);
                }
                _ => {}
            }
        }
        Self {
            at,
            gone: Vec::new(),
            memory,
            told: GuestMemory::default(),
        }
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
                    Some((_, name)) if !self.at.contains_key(&slot) => {
                        self.at.insert(slot, device(&name, &domain));
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
                    Ok(())
                }
                (DeviceFigures::Memory(memory), DeviceChange::MemoryRequest { bytes }) => {
                    memory.requested_bytes = bytes;
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
            DeviceCall::Tags { slot, .. }
            | DeviceCall::Filter { slot, .. }
            | DeviceCall::FilterCheck { slot, .. } => match self.at(slot)?.figures {
                DeviceFigures::Nic(_) => Ok(()),
                _ => Err(refused("it is no interface".to_owned())),
            },
            DeviceCall::Tune { .. } | DeviceCall::TuneCheck { .. } => Ok(()),
            DeviceCall::Vcpus { .. } => Err(refused("vCPUs are no devices".to_owned())),
        }
    }

    /// Every device whose guest was asked for it goes: the guest has no driver any more.
    pub(super) fn leave_all(&mut self) {
        for device in self.at.values_mut() {
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
        self.gone.push(DevicePlace::port(slot, port));
        Ok(())
    }

    /// A guest that runs does with its memory as it was asked. What is news of that.
    pub(super) fn give(&mut self, runs: bool) -> Option<GuestMemory> {
        let mut now = GuestMemory::default();
        for device in self.at.values_mut() {
            match &mut device.figures {
                DeviceFigures::Balloon(balloon) => {
                    if runs {
                        balloon.actual_bytes = balloon.target_bytes;
                    }
                    now.lent = balloon.actual_bytes;
                }
                DeviceFigures::Memory(memory) => {
                    if runs {
                        memory.plugged_bytes = memory.requested_bytes;
                    }
                    now.plugged = memory.plugged_bytes;
                }
                _ => {}
            }
        }
        (std::mem::replace(&mut self.told, now) != now).then_some(now)
    }

    /// What goes now: of a guest that runs all it was asked for.
    pub(super) fn let_go(&mut self, runs: bool) -> Vec<DevicePlace> {
        let goes = |device: &TestDevice| device.leaving && (runs || device.taken);
        let gone: Vec<PciSlot> = self
            .at
            .iter()
            .filter(|(_, device)| goes(device))
            .map(|(slot, _)| *slot)
            .collect();
        self.at.retain(|slot, _| !gone.contains(slot));
        let ports = std::mem::take(&mut self.gone).into_iter();
        ports.chain(gone.into_iter().map(Into::into)).collect()
    }

    /// Where they are, and their ports.
    pub(super) fn places(&self) -> Vec<DevicePlace> {
        let slots = self.at.keys().map(|slot| DevicePlace::from(*slot));
        let ports = self.at.iter().flat_map(|(slot, device)| {
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
        let reports = self.at.iter().map(|(slot, device)| {
            let mut figures = device.figures;
            if let DeviceFigures::Balloon(balloon) = &mut figures {
                balloon.guest = Some(self.guest());
            }
            DeviceReport {
                slot: *slot,
                figures,
            }
        });
        reports.collect()
    }

    /// What a guest says of its memory, of which it uses half.
    fn guest(&self) -> GuestMemoryFigures {
        let GuestMemory { lent, plugged } = self.told;
        let total = self.memory.saturating_add(plugged).saturating_sub(lent);
        GuestMemoryFigures {
            age_ms: 0,
            swap_in: Some(0),
            swap_out: Some(0),
            major_faults: Some(0),
            minor_faults: Some(0),
            free: Some(total / 2),
            total: Some(total),
            available: Some(total / 2),
            disk_caches: Some(0),
        }
    }

    fn at(&mut self, slot: PciSlot) -> Result<&mut TestDevice, CallFailure> {
        self.at
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
