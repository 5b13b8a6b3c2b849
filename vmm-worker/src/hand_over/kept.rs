//! What makes a device again in another worker: its specification as it is now, and its descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use reeve_ipc::device::DeviceChange;
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{DeviceSpec, PortSpec};

use crate::build::BuildError;

/// Of one device. Its descriptors are duplicates of those the device has, and closed with it: a device
/// that is gone holds no file.
#[derive(Debug)]
pub struct Kept {
    spec: DeviceSpec,
    descriptors: Vec<OwnedFd>,
}

impl Kept {
    /// Of the device that `spec` describes, whose descriptors are still in the table.
    ///
    /// # Errors
    /// One is missing, or the process can have no more.
    pub(crate) fn of(spec: &DeviceSpec, table: &FdTable) -> Result<Self, BuildError> {
        let mut spec = spec.clone();
        let mut descriptors = Vec::new();
        if matches!(spec, DeviceSpec::Share(_) | DeviceSpec::SwitchedNic(_)) {
            // A machine with one is not handed over, and its process has to see when its socket is closed.
            return Ok(Self { spec, descriptors });
        }
        if let DeviceSpec::Vsock(vsock) = &mut spec {
            // An answer to a question of this worker's must not come to another, which asks by the same
            // numbers: the supervisor gives it a socket of its own.
            vsock.acceptor = None;
        }
        for slot in spec.slots_mut() {
            let descriptor = table.get(*slot)?;
            descriptors.push(rustix::io::fcntl_dupfd_cloexec(descriptor, 0)?);
        }
        Ok(Self { spec, descriptors })
    }

    /// Its specification, and its descriptors in the order of its slots.
    pub(crate) fn parts(&self) -> (&DeviceSpec, impl Iterator<Item = BorrowedFd<'_>>) {
        (&self.spec, self.descriptors.iter().map(AsFd::as_fd))
    }

    /// Of a port that a serial controller gets, whose descriptor is still in the table.
    ///
    /// # Errors
    /// As for [`of`](Self::of).
    pub(crate) fn descriptor_of(port: &PortSpec, table: &FdTable) -> Result<OwnedFd, BuildError> {
        let listener = table.get(port.listener)?;
        Ok(rustix::io::fcntl_dupfd_cloexec(listener, 0)?)
    }

    /// Notes a port that a serial controller has got.
    pub(crate) fn add_port(&mut self, port: PortSpec, listener: OwnedFd) {
        if let DeviceSpec::Ports(controller) = &mut self.spec {
            let ports = &mut controller.ports;
            let place = ports.partition_point(|there| there.number < port.number);
            ports.insert(place, port);
            // A port has one descriptor, and so they are in the same order.
            self.descriptors.insert(place, listener);
        }
    }

    /// Notes that a serial controller has lost a port; its descriptor is closed.
    pub(crate) fn remove_port(&mut self, number: u16) {
        if let DeviceSpec::Ports(controller) = &mut self.spec {
            let ports = &mut controller.ports;
            if let Some(place) = ports.iter().position(|port| port.number == number) {
                ports.remove(place);
                drop(self.descriptors.remove(place));
            }
        }
    }

    /// Notes a change of the device, as far as it is not among its records.
    pub(crate) fn note(&mut self, change: DeviceChange) {
        match (&mut self.spec, change) {
            (DeviceSpec::Nic(nic), DeviceChange::Link { up }) => nic.link_up = up,
            (DeviceSpec::Nic(nic), DeviceChange::NicRates { inbound, outbound }) => {
                (nic.inbound, nic.outbound) = (inbound, outbound);
            }
            (DeviceSpec::UserNic(nic), DeviceChange::Link { up }) => nic.link_up = up,
            (DeviceSpec::UserNic(nic), DeviceChange::NicRates { inbound, outbound }) => {
                (nic.inbound, nic.outbound) = (inbound, outbound);
            }
            (DeviceSpec::Disk(disk), DeviceChange::DiskThrottle(throttle)) => {
                disk.throttle = throttle;
            }
            // What a balloon shall hold is in its record.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use reeve_ipc::spec::{PciSlot, VsockSpec};

    use super::*;

    #[test]
    fn of_a_socket_device_the_listener_goes_along_and_where_it_asks_does_not() {
        let mut table = FdTable::new();
        let mut descriptor = || table.push(std::fs::File::open("/dev/null").unwrap().into());
        let spec = DeviceSpec::Vsock(VsockSpec {
            slot: PciSlot::try_from(3).unwrap(),
            cid: 3,
            listener: descriptor().unwrap(),
            acceptor: Some(descriptor().unwrap()),
        });
        let kept = Kept::of(&spec, &table).unwrap();
        let (DeviceSpec::Vsock(vsock), descriptors) = kept.parts() else {
            panic!("{kept:?}")
        };
        assert_eq!(vsock.acceptor, None);
        assert_eq!(descriptors.count(), 1);
    }
}
