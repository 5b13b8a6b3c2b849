//! The PCI bus: its two ways in, and the windows where BARs may be.

use std::sync::Arc;

use reeve_devices::bus::{MmioAddress, MmioBus, Port, PortBus};
use reeve_devices::legacy::reset::ResetControl;
use reeve_devices::pci::root::{ConfigPorts, Ecam, Root, Windows};
use reeve_devices::shared::{Shared, share};
use reeve_devices::virtio::transport::pci::Surroundings;

use super::BuildError;
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
    mmio: &Arc<MmioBus>,
    ports: &PortBus,
    reset: Shared<ResetControl>,
    window_64: std::ops::Range<u64>,
) -> Result<Pci, BuildError> {
    let root = Root::new(
        Arc::clone(mmio),
        Windows {
            memory32: layout::PCI_WINDOW_32,
            memory64: window_64,
        },
    );
    let config = share(ConfigPorts::new(root.clone(), reset));
    ports.insert(
        Port(layout::PCI_CONFIG.start),
        ConfigPorts::PORTS,
        Arc::clone(&config) as _,
    )?;
    mmio.insert(
        MmioAddress(layout::ECAM.start),
        Ecam::BUS_LEN,
        share(Ecam::new(root.clone())),
    )?;
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
