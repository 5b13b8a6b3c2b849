//! The PCI bus: its two ways in, and the windows where BARs may be.

use std::sync::Arc;

use reeve_devices::bus::{MmioAddress, MmioBus, Port, PortBus};
use reeve_devices::legacy::reset::ResetControl;
use reeve_devices::pci::root::{ConfigPorts, Ecam, Root, Windows};
use reeve_devices::shared::{Shared, share};
use reeve_devices::virtio::transport::pci::Surroundings;

use super::BuildError;
use super::board::{Board, Bridge};
use crate::arch::x86_64::layout;
use crate::kvm::{InterruptController, KvmDoorbells, Vm};
use crate::memory::GuestMemory;

/// What of the bus is reset with the chipset.
pub(super) struct Pci {
    /// The bus.
    pub root: Root,
    /// Its ports.
    pub ports: Shared<ConfigPorts>,
}

/// Makes the bus and gives its ways in their places. `reset` is the register that lies among them.
pub(super) fn build(
    board: &Board,
    mmio: &Arc<MmioBus>,
    ports: &PortBus,
    reset: Shared<ResetControl>,
    window_64: std::ops::Range<u64>,
) -> Result<Pci, BuildError> {
    let windows = Windows {
        memory32: board.window_32.clone(),
        memory64: window_64,
    };
    let root = match &board.bridge {
        Bridge::Generic(_) => Root::new(Arc::clone(mmio), windows),
        Bridge::Q35(_) => Root::with_memory_controller(Arc::clone(mmio), windows),
    };
    let config = share(ConfigPorts::new(root.clone(), reset));
    ports.insert(
        Port(layout::PCI_CONFIG.start),
        ConfigPorts::PORTS,
        Arc::clone(&config) as _,
    )?;
    if let Bridge::Generic(place) = &board.bridge {
        mmio.insert(
            MmioAddress(place.start),
            Ecam::BUS_LEN,
            share(Ecam::new(root.clone())),
        )?;
    }
    Ok(Pci {
        root,
        ports: config,
    })
}

/// What devices on it are given of the machine.
pub(super) fn surroundings(
    vm: &Arc<Vm>,
    interrupts: &Arc<dyn InterruptController>,
    memory: &GuestMemory,
) -> Surroundings {
    Surroundings {
        ram: memory.ram(),
        messages: interrupts.messages(),
        doorbells: Arc::new(KvmDoorbells::new(Arc::clone(vm))),
    }
}
