//! The virtio devices of a machine: on the PCI bus, each with the threads that serve it.
//!
//! Owned by the control thread. Devices are stopped before anything that needs guest memory to stand
//! still (reset, save, hand-over, unplug) and resumed after it, all by the one way of the transport
//! (`reeve_devices::virtio::transport::negotiation`). How one goes is in `device_set/departure.rs`.

mod departure;

use std::sync::Arc;
use std::time::{Duration, Instant};

use reeve_devices::pci::Slot;
use reeve_devices::pci::root::{Root, SlotError};
use reeve_devices::shared::{Shared, Wake, lock, share};
use reeve_devices::state::Saveable;
use reeve_devices::virtio::VirtioDevice;
use reeve_devices::virtio::balloon::BalloonControl;
use reeve_devices::virtio::block::BlockControl;
use reeve_devices::virtio::console::ConsoleControl;
use reeve_devices::virtio::mem::MemControl;
use reeve_devices::virtio::net::NetHandle;
use reeve_devices::virtio::transport::negotiation::Stopping;
use reeve_devices::virtio::transport::pci::{Surroundings, VirtioPci, VirtioPciError};
use reeve_devices::virtio::transport::registers::{BAR_BYTES, Registers};
use reeve_devices::virtio::vsock::VsockControl;
use reeve_ipc::device::DeviceChange;

use crate::arch::x86_64::layout;
use crate::hand_over::Kept;
use crate::io::device::{DeviceExecutor, DeviceThread};
use crate::state::{Recorder, Records, RestoreError, SaveError};

/// How long the devices may take to finish what they have begun. Storage that takes longer fails what
/// was asked, and is told by name.
pub const STOP_PATIENCE: Duration = Duration::from_secs(4);

/// Why a device could not be put on the bus, or does not stop.
#[derive(Debug, thiserror::Error)]
pub enum DeviceSetError {
    /// Its slot is taken, or there is no such slot.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// There is nothing in the slot.
    #[error("there is no device in slot {0}")]
    Empty(Slot),
    /// What it is doing is known to another process, which does not tell.
    #[error(
        "a machine with a {what} (in slot {slot}) cannot be saved: what its guest has open there is known to \
         another process; detach it first"
    )]
    Stateless {
        /// What it is.
        what: &'static str,
        /// Where.
        slot: Slot,
    },
    /// Its storage or network does not answer.
    #[error("the {what} in slot {slot} has not finished what it had begun")]
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
    Disk(BlockControl),
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
    /// A shared folder.
    Share,
    /// A network interface that a switch serves.
    SwitchedNic,
    /// A memory device, and its thread, which alone may plug and unplug once the machine stands.
    Memory(Arc<MemControl>, Arc<DeviceThread>),
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

/// How long a device stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stay {
    /// Until somebody wants it gone.
    Stays,
    /// Until the guest, which was asked to let go of it, does.
    Asked,
    /// Until it has finished what it had begun.
    Going,
}

#[derive(Debug)]
struct Attached {
    device: Built,
    stay: Stay,
}

/// The devices.
#[derive(Debug)]
pub struct DeviceSet {
    root: Root,
    attached: Vec<Attached>,
    /// Off the bus, of which a vCPU may hold parts yet.
    departed: Vec<Built>,
    /// Closed, and not told of yet.
    gone: Vec<Slot>,
    /// Woken when one has stopped that was not waited for to the end.
    stopped: Arc<dyn Wake>,
}

impl DeviceSet {
    /// None, on the bus of `root`. `stopped` is woken, on any thread, when a device has finished that did
    /// not in time: [`turn`](Self::turn) is due then, and whatever failed for it may be tried again.
    #[must_use]
    pub fn new(root: Root, stopped: Arc<dyn Wake>) -> Self {
        Self {
            root,
            attached: Vec::new(),
            departed: Vec::new(),
            gone: Vec::new(),
            stopped,
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
            stay: Stay::Stays,
        });
        Ok(())
    }

    /// The device in `slot`.
    #[must_use]
    pub fn handle(&self, slot: Slot) -> Option<&Handle> {
        let entry = self.attached.iter().find(|entry| entry.device.slot == slot);
        entry.map(|entry| &entry.device.handle)
    }

    /// The memory device, and its thread.
    #[must_use]
    pub fn memory(&self) -> Option<(&Arc<MemControl>, &Arc<DeviceThread>)> {
        self.attached
            .iter()
            .find_map(|entry| match &entry.device.handle {
                Handle::Memory(control, thread) => Some((control, thread)),
                _ => None,
            })
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

    /// What makes the device in `slot` again in another worker.
    pub(crate) fn kept_mut(&mut self, slot: Slot) -> Option<&mut Kept> {
        let mut entries = self.attached.iter_mut();
        let entry = entries.find(|entry| entry.device.slot == slot);
        entry.map(|entry| &mut entry.device.kept)
    }

    /// Every device that is not gone yet, by rising slot.
    pub fn handles(&self) -> impl Iterator<Item = (Slot, &Handle)> {
        let attached = self.attached.iter().map(|entry| &entry.device);
        let mut devices: Vec<_> = attached.chain(&self.departed).collect();
        // Stable: of one that is off the bus and another in its place the latter counts.
        devices.sort_by_key(|device| device.slot);
        devices.dedup_by_key(|device| device.slot);
        devices
            .into_iter()
            .map(|device| (device.slot, &device.handle))
    }

    /// Stops every device; what their drivers negotiated stays. All are told before any is waited for.
    ///
    /// # Errors
    /// [`DeviceSetError::Unresponsive`] when one has not stopped after `patience`; the others have. It goes
    /// on stopping.
    pub fn stop(&self, patience: Duration) -> Result<(), DeviceSetError> {
        for entry in &self.attached {
            entry.device.order_stop();
        }
        let deadline = Instant::now() + patience;
        let mut unresponsive = None;
        for Attached { device, .. } in &self.attached {
            if let Some(stopping) = device.wait_stopped(deadline) {
                stopping.watch(Arc::clone(&self.stopped));
                unresponsive = Some(device.unresponsive());
            }
        }
        unresponsive.map_or(Ok(()), Err)
    }

    /// Lets every device go on that was stopped while its driver used it, but those that are going.
    ///
    /// # Errors
    /// [`DeviceSetError::Unresponsive`]: one that did not stop in time has not done so yet. The others
    /// go on; it goes on when this is called again after it has stopped.
    pub fn resume(&self) -> Result<(), DeviceSetError> {
        let mut unresponsive = None;
        let staying = |entry: &&Attached| entry.stay != Stay::Going;
        for Attached { device, .. } in self.attached.iter().filter(staying) {
            let mut registers = lock(&device.registers);
            let negotiation = registers.negotiation();
            // What is being stopped cannot go on before that is done.
            if negotiation.stopping().is_some() {
                unresponsive = Some(device.unresponsive());
                continue;
            }
            negotiation.resume();
            registers.rebind();
        }
        unresponsive.map_or(Ok(()), Err)
    }

    /// That each device has a state of which a record can be made.
    ///
    /// # Errors
    /// [`DeviceSetError::Stateless`].
    pub fn check_saveable(&self) -> Result<(), DeviceSetError> {
        let mut devices = self.attached.iter().map(|entry| &entry.device);
        let stateless =
            devices.find(|device| matches!(device.handle, Handle::Share | Handle::SwitchedNic));
        stateless.map_or(Ok(()), |device| {
            Err(DeviceSetError::Stateless {
                what: device.what,
                slot: device.slot,
            })
        })
    }

    /// Adds a record for each device, all of which are stopped.
    ///
    /// # Errors
    /// The container has no room; [`SaveError::Unwritten`].
    pub fn save(&self, records: &mut Recorder) -> Result<(), SaveError> {
        for Attached { device, .. } in &self.attached {
            let saveable = {
                let mut registers = lock(&device.registers);
                registers.negotiation().device().check_saveable()
            };
            saveable.map_err(|source| SaveError::Unwritten {
                what: device.what,
                slot: device.slot,
                source,
            })?;
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

    /// The stop that is under way; what there is to be done after one that is over is done.
    fn stopping(&self) -> Option<Stopping> {
        lock(&self.registers).negotiation().stopping()
    }

    /// Waits until it has stopped, without the lock that a vCPU may want; the stop that is still under way
    /// at `deadline`.
    fn wait_stopped(&self, deadline: Instant) -> Option<Stopping> {
        while let Some(stopping) = self.stopping() {
            if !stopping.wait(deadline) {
                return Some(stopping);
            }
        }
        None
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
/// Where the BAR of the function in `slot` is after power-on.
pub(crate) fn bar_address(slot: Slot) -> u64 {
    layout::PCI_WINDOW_32.start + u64::from(slot.number()) * BAR_BYTES
}

#[cfg(test)]
pub(crate) mod slow;
#[cfg(test)]
mod tests;
