//! A serial controller and its ports.

use std::sync::Arc;

use reeve_devices::shared::Wake;
use reeve_devices::virtio::console::{Console, PortEnd, PortSpec as DevicePort, PreparedPort};
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
        control.add(prepare(port, descriptors)?)?;
    }
    Ok(console)
}

/// Makes a port of a controller ready, which has it when it is given it.
///
/// # Errors
/// Its descriptor cannot be used; nothing of it is left.
pub(crate) fn prepare(
    port: PortSpec,
    descriptors: &mut FdTable,
) -> Result<PreparedPort, BuildError> {
    let (console, name) = match port.kind {
        PortKind::Console => (true, String::new()),
        PortKind::Channel { name } => (false, name),
    };
    Ok(PreparedPort::new(DevicePort {
        id: port.number.into(),
        name,
        console,
        end: PortEnd::Listener(descriptors.take(port.listener)?),
    })?)
}
