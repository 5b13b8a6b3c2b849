//! A serial controller and its ports.

use std::sync::Arc;

use reeve_devices::shared::Wake;
use reeve_devices::virtio::console::{Console, PortEnd, PortSpec};
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{PortKind, PortsSpec};

use super::BuildError;

/// Ports that a controller has room for at least, so that some can come later.
const LEAST_ROOM: u32 = 8;
/// What a terminal is taken for until somebody says its size.
const TERMINAL: (u16, u16) = (80, 24);

pub(super) fn make(
    spec: PortsSpec,
    descriptors: &mut FdTable,
    opened: Arc<dyn Wake>,
) -> Result<Console, BuildError> {
    let room = spec
        .ports
        .iter()
        .map(|port| u32::from(port.number) + 1)
        .max()
        .unwrap_or(0)
        .max(LEAST_ROOM);
    let console = Console::new(room, TERMINAL, opened)?;
    let control = console.control();
    for port in spec.ports {
        let (console, name) = match port.kind {
            PortKind::Console => (true, String::new()),
            PortKind::Channel { name } => (false, name),
        };
        control.attach(PortSpec {
            id: port.number.into(),
            name,
            console,
            end: PortEnd::Listener(descriptors.take(port.listener)?),
        })?;
    }
    Ok(console)
}
