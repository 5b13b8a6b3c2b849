//! The devices of a machine that only looks like one: where they are, and which its guest was asked for.

use std::collections::BTreeMap;

use reeve_ipc::device::{
    BalloonFigures, DeviceChange, DeviceFigures, DeviceReport, DiskFigures, NicFigures,
};
use reeve_ipc::model::{DeviceName, Domain};
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

/// By their places on the bus.
#[derive(Debug)]
pub(super) struct TestDevices(BTreeMap<PciSlot, TestDevice>);

impl TestDevices {
    pub(super) fn new(domain: &Domain) -> Self {
        let named = domain.devices.named().into_iter();
        Self(named.map(|(slot, name)| (slot, device(&name))).collect())
    }

    pub(super) fn obey(&mut self, call: DeviceCall, phase: Phase) -> Result<(), CallFailure> {
        match call {
            DeviceCall::Attach { domain, slot } => {
                if !matches!(phase, Phase::Running | Phase::Paused) {
                    return Err(refused(format!("the machine is {phase}")));
                }
                let found = domain.devices.find(&DeviceName::Slot(slot));
                match found {
                    Some((_, name)) if !self.0.contains_key(&slot) => {
                        self.0.insert(slot, device(&name));
                        Ok(())
                    }
                    _ => Err(refused(format!("no device can be put at address {slot}"))),
                }
            }
            DeviceCall::Detach { slot, force } => {
                let device = self.at(slot)?;
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
            DeviceCall::Vcpus { .. } => Err(refused("vCPUs are no devices".to_owned())),
        }
    }

    /// Every device whose guest was asked for it goes: the guest has no driver any more.
    pub(super) fn leave_all(&mut self) {
        for device in self.0.values_mut() {
            device.taken |= device.leaving;
        }
    }

    /// What goes now: of a guest that runs all it was asked for.
    pub(super) fn let_go(&mut self, runs: bool) -> Vec<PciSlot> {
        let goes = |device: &TestDevice| device.leaving && (runs || device.taken);
        let gone: Vec<PciSlot> = self
            .0
            .iter()
            .filter(|(_, device)| goes(device))
            .map(|(slot, _)| *slot)
            .collect();
        self.0.retain(|slot, _| !gone.contains(slot));
        gone
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

fn device(name: &DeviceName) -> TestDevice {
    let figures = match name {
        DeviceName::Disk(_) => DeviceFigures::Disk(DiskFigures::default()),
        DeviceName::Nic(_) | DeviceName::Interface(_) => DeviceFigures::Nic(NicFigures::default()),
        DeviceName::Balloon => DeviceFigures::Balloon(BalloonFigures::default()),
        DeviceName::Rng
        | DeviceName::Vsock
        | DeviceName::Ports
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
