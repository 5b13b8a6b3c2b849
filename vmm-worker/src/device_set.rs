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
use reeve_devices::state::Saveable;
use reeve_devices::virtio::VirtioDevice;
use reeve_devices::virtio::balloon::BalloonControl;
use reeve_devices::virtio::console::ConsoleControl;
use reeve_devices::virtio::net::NetHandle;
use reeve_devices::virtio::transport::pci::{Surroundings, VirtioPci, VirtioPciError};
use reeve_devices::virtio::transport::registers::{BAR_BYTES, Registers};
use reeve_devices::virtio::vsock::VsockControl;
use reeve_ipc::device::DeviceChange;

use crate::arch::x86_64::layout;
use crate::hand_over::Kept;
use crate::io::device::{DeviceExecutor, DeviceThread};
use crate::state::{ContainerError, Recorder, Records, RestoreError};

/// How long the devices may take to finish what they have begun. Storage that takes longer fails what
/// was asked, and is told by name.
const STOP_DEADLINE: Duration = Duration::from_secs(4);

/// Why a device could not be put on the bus, or does not stop.
#[derive(Debug, thiserror::Error)]
pub enum DeviceSetError {
    /// Its slot is taken, or there is no such slot.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// There is nothing in the slot.
    #[error("there is no device in slot {0}")]
    Empty(Slot),
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

/// A device that is ready to be put on the bus.
#[derive(Debug)]
pub struct Built {
    slot: Slot,
    what: &'static str,
    function: Shared<VirtioPci>,
    registers: Shared<Registers>,
    handle: Handle,
    kept: Kept,
    /// Kept so that they end after the device was stopped.
    _threads: Vec<Arc<DeviceThread>>,
}

impl Built {
    /// `device`, served by `threads`, for `slot`. `what` is its name in messages: "disk".
    ///
    /// # Errors
    /// [`VirtioPciError`].
    pub(crate) fn new(
        slot: Slot,
        what: &'static str,
        device: Box<dyn VirtioDevice>,
        threads: Vec<Arc<DeviceThread>>,
        handle: Handle,
        kept: Kept,
        surroundings: Surroundings,
    ) -> Result<Self, VirtioPciError> {
        let executor = Arc::new(DeviceExecutor::new(threads.clone()));
        let function = VirtioPci::new(device, executor, surroundings, bar_address(slot))?;
        Ok(Self {
            slot,
            what,
            registers: function.registers(),
            function: share(function),
            handle,
            kept,
            _threads: threads,
        })
    }

    /// Where it goes.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }
}

#[derive(Debug)]
struct Attached {
    device: Built,
    /// The guest was asked to let go of it.
    leaving: bool,
}

/// The devices.
#[derive(Debug)]
pub struct DeviceSet {
    root: Root,
    attached: Vec<Attached>,
}

impl DeviceSet {
    /// None, on the bus of `root`.
    #[must_use]
    pub fn new(root: Root) -> Self {
        Self {
            root,
            attached: Vec::new(),
        }
    }

    /// Puts `device` on the bus.
    ///
    /// # Errors
    /// [`DeviceSetError::Slot`]; it is dropped then.
    pub fn insert(&mut self, device: Built) -> Result<(), DeviceSetError> {
        let function = Arc::clone(&device.function);
        self.root.insert(device.slot, function as _)?;
        self.attached.push(Attached {
            device,
            leaving: false,
        });
        Ok(())
    }

    /// Notes that the guest is asked to let go of what is in `slot`.
    ///
    /// # Errors
    /// [`DeviceSetError::Empty`].
    pub fn mark_leaving(&mut self, slot: Slot) -> Result<(), DeviceSetError> {
        let entry = self
            .attached
            .iter_mut()
            .find(|entry| entry.device.slot == slot);
        entry.ok_or(DeviceSetError::Empty(slot))?.leaving = true;
        Ok(())
    }

    /// Whether the guest was asked to let go of what is in `slot`.
    #[must_use]
    pub fn is_leaving(&self, slot: Slot) -> bool {
        let mut entries = self.attached.iter();
        entries.any(|entry| entry.leaving && entry.device.slot == slot)
    }

    /// The slots of which the guest was asked to let go.
    #[must_use]
    pub fn leaving(&self) -> Vec<Slot> {
        let leaving = self.attached.iter().filter(|entry| entry.leaving);
        leaving.map(|entry| entry.device.slot).collect()
    }

    /// Takes what is in `slot` off the bus, once it has finished what it had begun. Its descriptors are
    /// closed and its threads ended then.
    ///
    /// # Errors
    /// [`DeviceSetError::Empty`]; [`DeviceSetError::Unresponsive`], after which it is still there.
    pub fn remove(&mut self, slot: Slot) -> Result<(), DeviceSetError> {
        let position = self
            .attached
            .iter()
            .position(|entry| entry.device.slot == slot)
            .ok_or(DeviceSetError::Empty(slot))?;
        if let Some(entry) = self.attached.get(position) {
            entry.device.order_stop();
            if !entry.device.wait_stopped(Instant::now() + STOP_DEADLINE) {
                return Err(entry.device.unresponsive());
            }
        }
        self.root.remove(slot);
        self.attached.remove(position);
        Ok(())
    }

    /// The device in `slot`.
    #[must_use]
    pub fn handle(&self, slot: Slot) -> Option<&Handle> {
        let entry = self.attached.iter().find(|entry| entry.device.slot == slot);
        entry.map(|entry| &entry.device.handle)
    }

    /// What makes every device again in another worker, by rising slot.
    pub fn kept(&self) -> impl Iterator<Item = &Kept> {
        let mut entries: Vec<_> = self.attached.iter().collect();
        entries.sort_by_key(|entry| entry.device.slot);
        entries.into_iter().map(|entry| &entry.device.kept)
    }

    /// Notes a change of the device in `slot` in what makes it again.
    pub fn note(&mut self, slot: Slot, change: DeviceChange) {
        let mut entries = self.attached.iter_mut();
        if let Some(entry) = entries.find(|entry| entry.device.slot == slot) {
            entry.device.kept.note(change);
        }
    }

    /// Every device, by rising slot.
    pub fn handles(&self) -> impl Iterator<Item = (Slot, &Handle)> {
        let mut entries: Vec<_> = self.attached.iter().collect();
        entries.sort_by_key(|entry| entry.device.slot);
        entries
            .into_iter()
            .map(|entry| (entry.device.slot, &entry.device.handle))
    }

    /// Stops every device; what their drivers negotiated stays. All are told before any is waited for.
    ///
    /// # Errors
    /// [`DeviceSetError::Unresponsive`]; the others are stopped.
    pub fn stop(&self) -> Result<(), DeviceSetError> {
        for entry in &self.attached {
            entry.device.order_stop();
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        let mut unresponsive = None;
        for entry in &self.attached {
            if !entry.device.wait_stopped(deadline) {
                unresponsive = Some(entry.device.unresponsive());
            }
        }
        unresponsive.map_or(Ok(()), Err)
    }

    /// Lets every device go on that was stopped while its driver used it.
    ///
    /// # Errors
    /// [`DeviceSetError::Unresponsive`]: one that did not stop in time has not done so yet. The others
    /// go on; it goes on when this is called again after it has stopped.
    pub fn resume(&self) -> Result<(), DeviceSetError> {
        let mut unresponsive = None;
        for entry in &self.attached {
            let mut registers = lock(&entry.device.registers);
            let negotiation = registers.negotiation();
            // What is being stopped cannot go on before that is done.
            if !negotiation.is_running() && !negotiation.stop(Instant::now()) {
                unresponsive = Some(entry.device.unresponsive());
                continue;
            }
            negotiation.resume();
            registers.rebind();
        }
        unresponsive.map_or(Ok(()), Err)
    }

    /// Adds a record for each device, all of which are stopped.
    ///
    /// # Errors
    /// The container has no room.
    pub fn save(&self, records: &mut Recorder) -> Result<(), ContainerError> {
        for Attached { device, .. } in &self.attached {
            let function = lock(&device.function);
            records.add(&device.unit(), function.schema(), &function.save())?;
        }
        Ok(())
    }

    /// Puts every device back to its record, and its registers to where they were. None goes on before
    /// [`resume`](Self::resume).
    ///
    /// # Errors
    /// A record is missing or refused.
    pub fn restore(&self, records: &mut Records<'_>) -> Result<(), RestoreError> {
        for Attached { device, .. } in &self.attached {
            let unit = device.unit();
            {
                let mut function = lock(&device.function);
                let (version, bytes) = records.take(&unit, function.schema().name)?;
                function
                    .restore(version, bytes)
                    .map_err(RestoreError::record(&unit))?;
            }
            self.root.remap(device.slot);
        }
        Ok(())
    }
}

impl Built {
    fn order_stop(&self) {
        let mut registers = lock(&self.registers);
        registers.negotiation().order_stop();
        registers.rebind();
    }

    fn wait_stopped(&self, deadline: Instant) -> bool {
        lock(&self.registers).negotiation().stop(deadline)
    }

    /// The name of its record: one device cannot take another's, even in the same slot.
    fn unit(&self) -> String {
        format!("{}/{}", self.what, self.slot.number())
    }

    fn unresponsive(&self) -> DeviceSetError {
        DeviceSetError::Unresponsive {
            what: self.what,
            slot: self.slot,
        }
    }
}

/// Where the BAR of the device in `slot` is after power-on: the same at every start, whatever else is on
/// the bus.
fn bar_address(slot: Slot) -> u64 {
    layout::PCI_WINDOW_32.start + u64::from(slot.number()) * BAR_BYTES
}

#[cfg(test)]
mod tests;
