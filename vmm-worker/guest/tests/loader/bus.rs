//! The test machine's PCI bus: Reeve's own, with its own virtio devices, on this machine's KVM.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvm_bindings::kvm_msi;
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use reeve_devices::bus::{MmioAddress, MmioBus, Port, PortBus};
use reeve_devices::event::Event;
use reeve_devices::irq::{MsiMessage, MsiSink};
use reeve_devices::legacy::reset::ResetControl;
use reeve_devices::memory::GuestRam;
use reeve_devices::pci::Slot;
use reeve_devices::pci::root::{ConfigPorts, Ecam, Root, Windows};
use reeve_devices::power::PowerSink;
use reeve_devices::shared::{Shared, lock, share};
use reeve_devices::virtio::transport::pci::{Surroundings, VirtioPci};
use reeve_devices::virtio::transport::registers::{BAR_BYTES, Doorbells, NoDoorbells, Registers};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::acpi;
use super::devices::make;
use super::executor::DeviceThread;
use super::machine::Setup;

/// Where BARs are at first.
const WINDOW: std::ops::Range<u64> = 0xc000_0000..acpi::ECAM;
/// Where they may be moved to besides.
const WINDOW_64: std::ops::Range<u64> = 0x1_0000_0000..0x9_0000_0000;

/// The bus and what is on it.
#[derive(Debug)]
pub struct Bus {
    mmio: Arc<MmioBus>,
    ports: PortBus,
    registers: Vec<Shared<Registers>>,
}

impl Bus {
    /// With the devices that are asked for. Without any there is no bus.
    pub fn new(vm: &Arc<VmFd>, memory: &GuestMemoryMmap, file: &File, setup: &Setup) -> Self {
        let mut bus = Self {
            mmio: Arc::new(MmioBus::new()),
            ports: PortBus::new(),
            registers: Vec::new(),
        };
        if setup.virtio.is_empty() {
            return bus;
        }
        let root = Root::new(
            Arc::clone(&bus.mmio),
            Windows {
                memory32: WINDOW,
                memory64: WINDOW_64,
            },
        );
        let reset = share(ResetControl::new(Arc::new(NoPower)));
        let ports = share(ConfigPorts::new(root.clone(), reset));
        bus.ports
            .insert(Port(ConfigPorts::FIRST_PORT), ConfigPorts::PORTS, ports)
            .expect("the ports are free");
        let ecam = share(Ecam::new(root.clone()));
        bus.mmio
            .insert(MmioAddress(acpi::ECAM), Ecam::BUS_LEN, ecam)
            .expect("the place is free");
        let surroundings = Surroundings {
            ram: GuestRam::new(memory.clone()),
            messages: Arc::new(Messages(Arc::clone(vm))),
            doorbells: if setup.doorbells {
                Arc::new(KvmDoorbells(Arc::clone(vm)))
            } else {
                Arc::new(NoDoorbells)
            },
        };
        for (slot, device) in (1..).zip(&setup.virtio) {
            let device = make(device, setup.memory, file);
            let function = VirtioPci::new(
                device,
                Arc::new(DeviceThread::start(setup.outlives_resets)),
                surroundings.clone(),
                WINDOW.start + u64::from(slot) * BAR_BYTES,
            )
            .expect("the device has room");
            bus.registers.push(function.registers());
            let slot = Slot::new(slot).expect("few devices");
            root.insert(slot, share(function))
                .expect("the slot is free");
        }
        bus
    }

    pub fn read(&self, address: u64, data: &mut [u8]) {
        self.mmio.read(MmioAddress(address), data);
    }

    pub fn write(&self, address: u64, data: &[u8]) {
        self.mmio.write(MmioAddress(address), data);
    }

    /// True if the port is one of the bus's.
    pub fn read_port(&self, port: u16, data: &mut [u8]) -> bool {
        is_ours(port) && self.ports.read(Port(port), data)
    }

    /// As [`read_port`](Self::read_port). The reset register among them is the machine's.
    pub fn write_port(&self, port: u16, data: &[u8]) -> bool {
        let reset = (port, data.len()) == (0xcf9, 1);
        is_ours(port) && !reset && self.ports.write(Port(port), data)
    }
}

fn is_ours(port: u16) -> bool {
    (0xcf8..0xd00).contains(&port)
}

/// A device that does not stop has lost a request.
impl Drop for Bus {
    fn drop(&mut self) {
        for registers in &self.registers {
            let deadline = Instant::now() + Duration::from_secs(5);
            let stopped = lock(registers).negotiation().stop(deadline);
            assert!(
                stopped || std::thread::panicking(),
                "a device does not stop"
            );
            lock(registers).rebind();
        }
    }
}

#[derive(Debug)]
struct NoPower;

impl PowerSink for NoPower {
    fn power_off(&self) {}

    fn reset(&self) {}
}

#[derive(Debug)]
struct Messages(Arc<VmFd>);

impl MsiSink for Messages {
    fn send(&self, message: MsiMessage) -> bool {
        let [a0, a1, a2, a3, b0, b1, b2, b3] = message.address.to_le_bytes();
        let message = kvm_msi {
            address_lo: u32::from_le_bytes([a0, a1, a2, a3]),
            address_hi: u32::from_le_bytes([b0, b1, b2, b3]),
            data: message.data,
            ..Default::default()
        };
        self.0.signal_msi(message).is_ok_and(|taken| taken > 0)
    }
}

#[derive(Debug)]
struct KvmDoorbells(Arc<VmFd>);

impl Doorbells for KvmDoorbells {
    fn bind(&self, address: u64, event: &Event) -> bool {
        let place = IoEventAddress::Mmio(address);
        self.0
            .register_ioevent(&borrowed(event), &place, NoDatamatch)
            .is_ok()
    }

    fn unbind(&self, address: u64, event: &Event) {
        let place = IoEventAddress::Mmio(address);
        self.0
            .unregister_ioevent(&borrowed(event), &place, NoDatamatch)
            .expect("it was bound");
    }
}

#[expect(unsafe_code, reason = "kvm-ioctls takes its own type of eventfd")]
fn borrowed(event: &Event) -> ManuallyDrop<EventFd> {
    // SAFETY: the descriptor stays open for as long as `event` is borrowed, which is longer than the
    // one call the result is made for, and is not closed by the result, which is never dropped.
    ManuallyDrop::new(unsafe { EventFd::from_raw_fd(event.as_fd().as_raw_fd()) })
}
