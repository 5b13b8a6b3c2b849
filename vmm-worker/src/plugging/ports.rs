//! Ports of a serial controller that come and go while its guest uses it. It is told by the device itself,
//! and is not asked: nothing of the machine depends on its letting go.

use std::os::fd::OwnedFd;
use std::time::Duration;

use reeve_devices::virtio::console::{ConsoleControl, PortError, PreparedPort};
use reeve_ipc::device::PortsFigures;
use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{DeviceSpec, PciSlot, PortSpec};

use super::{BUILD_PATIENCE, Plugging};
use crate::build::BuildError;
use crate::build::devices::{pci_slot, ports};
use crate::device_set::{DeviceSetError, Handle};
use crate::hand_over::Kept;
use crate::spawner::Spawner;

/// How the ports of a controller stand.
pub(super) fn figures(control: &ConsoleControl) -> PortsFigures {
    let mut figures = PortsFigures::default();
    for port in control.ports() {
        let bit = 1_u32.checked_shl(port.id).unwrap_or(0);
        figures.present |= bit;
        figures.guest_open |= if port.guest_open { bit } else { 0 };
        figures.connected |= if port.connected { bit } else { 0 };
    }
    figures
}

/// Makes a port ready within `patience`, and a copy of its descriptor for the next worker; what comes later
/// is closed.
fn prepare(
    spawner: &Spawner,
    patience: Duration,
    port: PortSpec,
    mut descriptors: FdTable,
) -> Result<(PreparedPort, OwnedFd), BuildError> {
    spawner.run_within(patience, move || {
        let kept = Kept::descriptor_of(&port, &descriptors)?;
        Ok((ports::prepare(port, &mut descriptors)?, kept))
    })?
}

impl Plugging {
    /// Gives a serial controller a further port, and tells its guest.
    ///
    /// # Errors
    /// There is no such controller, it is being taken away, or the port cannot be had; nothing of it is left.
    pub fn attach_port(
        &mut self,
        slot: PciSlot,
        port: PortSpec,
        descriptors: FdTable,
    ) -> Result<(), WireError> {
        let control = self.controller(slot)?;
        let slot = pci_slot(slot);
        if !self.devices.stays(slot) {
            let why = format!(
                "the serial controller in slot {slot} is being taken away; try again when it is gone"
            );
            return Err(WireError::new(ErrorCode::InvalidArgument, why));
        }
        let room = match self.devices.kept_mut(slot).map(|kept| kept.parts().0) {
            Some(DeviceSpec::Ports(controller)) => controller.room,
            _ => return Err(DeviceSetError::Empty(slot).into()),
        };
        if port.number >= room {
            let why = format!(
                "the serial controller in slot {slot} has ports 0 to {}, and was made so; one that starts \
                 with a port of a higher number has room for more",
                room.saturating_sub(1)
            );
            return Err(WireError::new(ErrorCode::InvalidArgument, why));
        }
        let noted = port.clone();
        let (port, listener) = prepare(&self.spawner, BUILD_PATIENCE, port, descriptors)?;
        control.add(port).map_err(BuildError::from)?;
        if let Some(kept) = self.devices.kept_mut(slot) {
            kept.add_port(noted, listener);
        }
        Ok(())
    }

    /// Takes a port from a serial controller, and tells its guest.
    ///
    /// # Errors
    /// There is none.
    pub fn detach_port(&mut self, slot: PciSlot, number: u16) -> Result<(), WireError> {
        let control = self.controller(slot)?;
        let refused =
            |error: PortError| WireError::new(ErrorCode::InvalidArgument, error.to_string());
        control.detach(number.into()).map_err(refused)?;
        if let Some(kept) = self.devices.kept_mut(pci_slot(slot)) {
            kept.remove_port(number);
        }
        Ok(())
    }

    fn controller(&self, slot: PciSlot) -> Result<ConsoleControl, WireError> {
        let slot = pci_slot(slot);
        match self.devices.handle(slot) {
            Some(Handle::Ports(control)) => Ok(control.clone()),
            Some(_) => {
                let why = format!("the device in slot {slot} is no serial controller");
                Err(WireError::new(ErrorCode::InvalidArgument, why))
            }
            None => Err(DeviceSetError::Empty(slot).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    use std::sync::mpsc::sync_channel;

    use reeve_ipc::spec::PortKind;

    use super::*;
    use crate::spawner::SpawnerError;

    #[test]
    fn a_port_that_is_made_ready_too_late_is_closed() {
        let name = format!("reeve-test-{}-late-port", std::process::id());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let mut descriptors = FdTable::new();
        let port = PortSpec {
            number: 1,
            kind: PortKind::Console,
            listener: descriptors.push(listener.into()).unwrap(),
        };
        let spawner = Spawner::start().unwrap();
        let (release, held) = sync_channel::<()>(1);
        let (begun, begins) = sync_channel(1);
        std::thread::scope(|scope| {
            let spawner = &spawner;
            // It stands before the job is begun, as a worker does that is frozen.
            scope.spawn(move || {
                spawner.run(move || {
                    begun.send(()).unwrap();
                    held.recv().unwrap();
                })
            });
            begins.recv().unwrap();
            let late = prepare(spawner, Duration::from_millis(20), port, descriptors);
            assert!(
                matches!(late, Err(BuildError::NotSpawned(SpawnerError::Slow(_)))),
                "{late:?}"
            );
            release.send(()).unwrap();
        });
        let begin = std::time::Instant::now();
        while UnixStream::connect_addr(&address).is_ok() {
            assert!(begin.elapsed().as_secs() < 10, "it listens");
            // Fewer than wait to be accepted before a connection does.
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
