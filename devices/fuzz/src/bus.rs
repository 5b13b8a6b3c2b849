//! The PCI bus of the machine that the fuzz targets drive, and the worker's side of it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use reeve_devices::bus::{MmioAddress, MmioBus, Port, PortBus};
use reeve_devices::event::Event;
use reeve_devices::irq::{MsiMessage, MsiSink};
use reeve_devices::legacy::reset::ResetControl;
use reeve_devices::memory::GuestRam;
use reeve_devices::pci::Slot;
use reeve_devices::pci::root::{ConfigPorts, Ecam, Root, Windows};
use reeve_devices::power::{PowerSink, Reset};
use reeve_devices::shared::{Shared, Wake, lock, share};
use reeve_devices::state::Saveable;
use reeve_devices::virtio::transport::registers::Doorbells;
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Bytes of the piece of RAM at address 0.
pub const RAM: u64 = 0x4_0000;
/// The other piece of RAM.
pub const HIGH: u64 = 0x1_0000_0000;
/// Its bytes.
pub const HIGH_BYTES: u64 = 0x1_0000;
/// Where configuration space is.
pub const ECAM: u64 = 0xd000_0000;
/// The lower window for BARs.
pub const WINDOW: u64 = 0xe000_0000;
/// Its bytes.
pub const WINDOW_BYTES: u64 = 0x10_0000;
/// The upper one.
pub const WINDOW_HIGH: u64 = 0x80_0000_0000;

/// New RAM, in two pieces.
pub fn ram() -> GuestRam {
    let size = |bytes| usize::try_from(bytes).expect("small");
    let pieces = [
        (GuestAddress(0), size(RAM)),
        (GuestAddress(HIGH), size(HIGH_BYTES)),
    ];
    GuestRam::new(GuestMemoryMmap::from_ranges(&pieces).expect("memory"))
}

/// What the worker process supplies.
#[derive(Debug, Default)]
pub struct World {
    /// Messages sent.
    pub messages: AtomicUsize,
    /// Whether notifications become events without a register access.
    pub has_doorbells: bool,
    doorbells: Mutex<BTreeMap<u64, OwnedFd>>,
}

impl World {
    /// Notifies by a write to `address`, if an event is bound there.
    fn ring(&self, address: u64) -> bool {
        let doorbells = lock(&self.doorbells);
        let bound = doorbells.get(&address);
        if let Some(event) = bound {
            rustix::io::write(event, &1_u64.to_ne_bytes()).expect("an event");
        }
        bound.is_some()
    }
}

impl MsiSink for World {
    fn send(&self, _message: MsiMessage) -> bool {
        self.messages.fetch_add(1, Ordering::Relaxed);
        true
    }
}

impl Wake for World {
    fn wake(&self) {}
}

impl PowerSink for World {
    fn power_off(&self) {}

    fn reset(&self) {}
}

impl Doorbells for World {
    fn bind(&self, address: u64, event: &Event) -> bool {
        if !self.has_doorbells {
            return false;
        }
        let event = event.as_fd().try_clone_to_owned().expect("a descriptor");
        let before = lock(&self.doorbells).insert(address, event);
        assert!(before.is_none(), "two events are bound to {address:#x}");
        true
    }

    fn unbind(&self, address: u64, _event: &Event) {
        let bound = lock(&self.doorbells).remove(&address);
        assert!(bound.is_some(), "nothing was bound to {address:#x}");
    }
}

/// The buses, and the root bus of PCI on them.
#[derive(Debug)]
pub struct Bus {
    /// What the worker process supplies.
    pub world: Arc<World>,
    /// The root bus.
    pub root: Root,
    mmio: Arc<MmioBus>,
    ports: PortBus,
    config_ports: Shared<ConfigPorts>,
}

impl Bus {
    /// An empty one.
    pub fn new(has_doorbells: bool) -> Self {
        let world = Arc::new(World {
            has_doorbells,
            ..World::default()
        });
        let mmio = Arc::new(MmioBus::new());
        let windows = Windows {
            memory32: WINDOW..WINDOW + WINDOW_BYTES,
            memory64: WINDOW_HIGH..WINDOW_HIGH + WINDOW_BYTES,
        };
        let root = Root::new(Arc::clone(&mmio), windows);
        let reset = share(ResetControl::new(world.clone()));
        let config_ports = share(ConfigPorts::new(root.clone(), reset));
        let ports = PortBus::new();
        let first = Port(ConfigPorts::FIRST_PORT);
        ports
            .insert(first, ConfigPorts::PORTS, config_ports.clone())
            .expect("free ports");
        // Longer than there are buses.
        mmio.insert(
            MmioAddress(ECAM),
            2 * Ecam::BUS_LEN,
            share(Ecam::new(root.clone())),
        )
        .expect("a free place");
        Self {
            world,
            root,
            mmio,
            ports,
            config_ports,
        }
    }

    /// A write to configuration space as memory.
    pub fn write_config(&self, slot: Slot, register: u16, data: &[u8]) {
        let offset = u64::from(slot.number()) << 15 | u64::from(register & 0xfff);
        self.write(ECAM + offset, data);
    }

    /// A read of configuration space as memory.
    pub fn read_config(&self, slot: Slot, register: u16, data: &mut [u8]) {
        let offset = u64::from(slot.number()) << 15 | u64::from(register & 0xfff);
        self.read(ECAM + offset, data);
    }

    /// A write to memory that is no RAM.
    pub fn write(&self, address: u64, data: &[u8]) {
        if !self.world.ring(address) {
            self.mmio.write(MmioAddress(address), data);
        }
    }

    /// A read of memory that is no RAM; whether something was there.
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        self.mmio.read(MmioAddress(address), data)
    }

    /// A write to a port.
    pub fn out(&self, port: u16, data: &[u8]) {
        self.ports.write(Port(port), data);
    }

    /// A read of a port.
    pub fn input(&self, port: u16, data: &mut [u8]) {
        self.ports.read(Port(port), data);
    }

    /// As the machine's reset; the devices' workers have ended.
    pub fn reset(&self) {
        self.root.clone().reset();
        lock(&self.config_ports).reset();
        let bound = lock(&self.world.doorbells);
        assert!(bound.is_empty(), "a doorbell of a device that was reset");
    }

    /// What the bus itself saves can be restored.
    pub fn check(&self) {
        let saved = lock(&self.config_ports).save();
        let taken = lock(&self.config_ports).restore(1, &saved);
        assert_eq!(taken, Ok(()));
        let mut root = self.root.clone();
        let saved = root.save();
        assert_eq!(root.restore(root.schema().version, &saved), Ok(()));
        assert_eq!(root.save(), saved);
    }
}

/// What configuration space is reached by holds the bus, which holds it.
impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.mmio.remove(MmioAddress(ECAM));
        let _ = self.ports.remove(Port(ConfigPorts::FIRST_PORT));
        for slot in Slot::all() {
            self.root.remove(slot);
        }
    }
}
