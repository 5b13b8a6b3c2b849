//! A serial controller and its ports.

use std::sync::Arc;

use reeve_devices::shared::Wake;
use reeve_devices::virtio::console::{Console, ConsoleControl, PortEnd, PortSpec as DevicePort};
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{PortKind, PortSpec, PortsSpec};

use super::BuildError;

/// What a terminal is taken for until somebody says its size.
const TERMINAL: (u16, u16) = (80, 24);

pub(super) fn make(
    spec: PortsSpec,
    descriptors: &mut FdTable,
    opened: Arc<dyn Wake>,
) -> Result<Console, BuildError> {
    let console = Console::new(spec.room.into(), TERMINAL, opened)?;
    let control = console.control();
    for port in spec.ports {
        attach(&control, port, descriptors)?;
    }
    Ok(console)
}

/// Gives a controller a further port.
///
/// # Errors
/// Its number is taken or none of the controller's, or its descriptor cannot be used; nothing of it is left.
pub(crate) fn attach(
    control: &ConsoleControl,
    port: PortSpec,
    descriptors: &mut FdTable,
) -> Result<(), BuildError> {
    let (console, name) = match port.kind {
        PortKind::Console => (true, String::new()),
        PortKind::Channel { name } => (false, name),
    };
    control.attach(DevicePort {
        id: port.number.into(),
        name,
        console,
        end: PortEnd::Listener(descriptors.take(port.listener)?),
    })?;
    Ok(())
}
