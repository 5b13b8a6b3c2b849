//! The virtio devices of a machine: on the PCI bus, each with the threads that serve it.
//!
//! Owned by the control thread. Devices are stopped before anything that needs guest memory to stand
//! still (reset, save, hand-over, unplug) and resumed after it, all by the one way of the transport
//! (`reeve_devices::virtio::transport::negotiation`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use reeve_devices::block::stats::BlockStats;
use reeve_devices::block::throttle::Throttle;
use reeve_devices::pci::Slot;
use reeve_devices::pci::root::{Root, SlotError};
use reeve_devices::shared::{Shared, lock, share};
use reeve_devices::virtio::VirtioDevice;
use reeve_devices::virtio::balloon::BalloonControl;
use reeve_devices::virtio::console::ConsoleControl;
use reeve_devices::virtio::net::NetHandle;
use reeve_devices::virtio::transport::pci::{Surroundings, VirtioPci, VirtioPciError};
use reeve_devices::virtio::transport::registers::{BAR_BYTES, Registers};
use reeve_devices::virtio::vsock::VsockControl;

use crate::arch::x86_64::layout;
use crate::io::device::{DeviceExecutor, DeviceThread};

/// How long the devices may take to finish what they have begun. Storage that takes longer fails what
/// was asked, and is told by name.
const STOP_DEADLINE: Duration = Duration::from_secs(4);

/// Why a device could not be put on the bus, or does not stop.
#[derive(Debug, thiserror::Error)]
pub enum DeviceSetError {
    /// Its slot is taken, or there is no such slot.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// No place in configuration space, or no descriptor left.
    #[error(transparent)]
    Function(#[from] VirtioPciError),
    /// Its storage or network does not answer.
    #[error("the {what} in slot {slot} did not finish what it had begun within {STOP_DEADLINE:?}")]
    Unresponsive {
        /// What it is.
        what: &'static str,
        /// Where.
        slot: Slot,
    },
}

/// What the control thread keeps of a device, by what it is.
#[derive(Debug, Clone)]
pub enum Handle {
    /// A disk.
    Disk {
        /// What it has done so far.
        stats: Arc<BlockStats>,
        /// How fast it may be used.
        throttle: Arc<Throttle>,
    },
    /// A network interface.
    Nic(NetHandle),
    /// An entropy device.
    Rng,
    /// A balloon.
    Balloon(Arc<BalloonControl>),
    /// A socket device.
    Vsock(VsockControl),
    /// A serial controller.
    Ports(ConsoleControl),
}

#[derive(Debug)]
struct Attached {
    slot: Slot,
    what: &'static str,
    registers: Shared<Registers>,
    handle: Handle,
    /// Kept so that they end after the device was stopped.
    _threads: Vec<Arc<DeviceThread>>,
}

/// The devices.
#[derive(Debug)]
pub struct DeviceSet {
    root: Root,
    surroundings: Surroundings,
    attached: Vec<Attached>,
}

impl DeviceSet {
    /// None, on the bus of `root`.
    #[must_use]
    pub fn new(root: Root, surroundings: Surroundings) -> Self {
        Self {
            root,
            surroundings,
            attached: Vec::new(),
        }
    }

    /// Puts `device`, served by `threads`, into `slot`. `what` is its name in messages: "disk".
    ///
    /// # Errors
    /// [`DeviceSetError`]; it is not on the bus then.
    pub fn attach(
        &mut self,
        slot: Slot,
        what: &'static str,
        device: Box<dyn VirtioDevice>,
        threads: Vec<Arc<DeviceThread>>,
        handle: Handle,
    ) -> Result<(), DeviceSetError> {
        let executor = Arc::new(DeviceExecutor::new(threads.clone()));
        let surroundings = self.surroundings.clone();
        let function = VirtioPci::new(device, executor, surroundings, bar_address(slot))?;
        let registers = function.registers();
        self.root.insert(slot, share(function))?;
        self.attached.push(Attached {
            slot,
            what,
            registers,
            handle,
            _threads: threads,
        });
        Ok(())
    }

    /// The device in `slot`.
    #[must_use]
    pub fn handle(&self, slot: Slot) -> Option<&Handle> {
        let device = self.attached.iter().find(|device| device.slot == slot);
        device.map(|device| &device.handle)
    }

    /// Stops every device; what their drivers negotiated stays. All are told before any is waited for.
    ///
    /// # Errors
    /// [`DeviceSetError::Unresponsive`]; the others are stopped.
    pub fn stop(&self) -> Result<(), DeviceSetError> {
        for device in &self.attached {
            let mut registers = lock(&device.registers);
            registers.negotiation().order_stop();
            registers.rebind();
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        let mut unresponsive = None;
        for device in &self.attached {
            if !lock(&device.registers).negotiation().stop(deadline) {
                unresponsive = Some(DeviceSetError::Unresponsive {
                    what: device.what,
                    slot: device.slot,
                });
            }
        }
        unresponsive.map_or(Ok(()), Err)
    }

    /// Lets every device go on that was stopped while its driver used it.
    pub fn resume(&self) {
        for device in &self.attached {
            let mut registers = lock(&device.registers);
            registers.negotiation().resume();
            registers.rebind();
        }
    }
}

/// Where the BAR of the device in `slot` is after power-on: the same at every start, whatever else is on
/// the bus.
fn bar_address(slot: Slot) -> u64 {
    layout::PCI_WINDOW_32.start + u64::from(slot.number()) * BAR_BYTES
}
