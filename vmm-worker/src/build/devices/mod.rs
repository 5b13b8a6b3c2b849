//! From a device's specification to the device: the only place that maps one to the other.
//!
//! At launch this runs on the main thread, later on the spawner: descriptors are at hand, threads can be
//! made, and rings are made or in reserve. Disks and network interfaces have threads of their own, one for each queue or pair
//! of queues; the others, which move little, share one.

pub(crate) mod disk;
pub(crate) mod nic;
pub(crate) mod ports;
mod share;
mod switched;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use reeve_devices::block::reserve::RingReserve;
use reeve_devices::pci::Slot;
use reeve_devices::virtio::VirtioDevice;
use reeve_devices::virtio::balloon::{Balloon, BalloonParams};
use reeve_devices::virtio::mem::Mem;
use reeve_devices::virtio::rng::{Entropy, EntropyLimit};
use reeve_devices::virtio::transport::pci::Surroundings;
use reeve_devices::virtio::vsock::Vsock;
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{DeviceSpec, PciSlot, Rate};
use reeve_sandbox::seccomp::Role;

use super::BuildError;
use crate::device_set::{Built, Handle};
use crate::hand_over::Kept;
use crate::io::device::DeviceThread;
use crate::kvm::KvmBlocks;
use crate::memory::{GuestMemory, PageReturner};
use crate::notices::Notices;

/// A device, what serves it, and what the control thread keeps of it.
struct Made {
    device: Box<dyn VirtioDevice>,
    threads: Vec<Arc<DeviceThread>>,
    handle: Handle,
}

/// What devices are made with.
pub struct Workshop {
    memory: GuestMemory,
    surroundings: Surroundings,
    notices: Arc<Notices>,
    /// The thread of those that move little, once there is one.
    shared: Option<Arc<DeviceThread>>,
    /// Where disks have their rings from, once none can be made.
    rings: Option<Arc<RingReserve>>,
    /// What plugs the blocks of memory, until there is the device for it.
    blocks: Option<KvmBlocks>,
}

impl Workshop {
    /// One for a machine with this memory. Devices tell `notices` what the control thread is to know.
    #[must_use]
    pub fn new(memory: GuestMemory, surroundings: Surroundings, notices: Arc<Notices>) -> Self {
        Self {
            memory,
            surroundings,
            notices,
            shared: None,
            rings: None,
            blocks: None,
        }
    }

    /// The memory device, which comes with the machine, plugs by these.
    pub fn use_blocks(&mut self, blocks: KvmBlocks) {
        self.blocks = Some(blocks);
    }

    /// Disks have their rings from this reserve from now on, and make none; and no memory device is made, whose
    /// thread the spawner could not make.
    pub fn use_reserve(&mut self, rings: Arc<RingReserve>) {
        self.blocks = None;
        self.rings = Some(rings);
    }

    /// Makes the device that `spec` describes, ready to be put on the bus. On a thread that may make
    /// threads, and rings unless there is a reserve.
    ///
    /// # Errors
    /// [`BuildError`]; nothing of it is left.
    pub fn build(
        &mut self,
        spec: DeviceSpec,
        descriptors: &mut FdTable,
    ) -> Result<Built, BuildError> {
        let (slot, what) = (pci_slot(spec.slot()), spec.kind());
        let kept = Kept::of(&spec, descriptors)?;
        let Made {
            device,
            threads,
            handle,
        } = self.make(spec, descriptors)?;
        Ok(Built::new(
            slot,
            what,
            device,
            threads,
            handle,
            kept,
            self.surroundings.clone(),
        )?)
    }

    fn make(&mut self, spec: DeviceSpec, descriptors: &mut FdTable) -> Result<Made, BuildError> {
        match spec {
            DeviceSpec::Disk(spec) => disk::make(spec, descriptors, self.rings.as_ref()),
            DeviceSpec::Nic(spec) => nic::make(spec, descriptors),
            DeviceSpec::UserNic(spec) => nic::make_user(spec, descriptors),
            DeviceSpec::Rng(spec) => {
                let limit = spec.rate.and_then(entropy_limit);
                self.on_shared_thread(Box::new(Entropy::new(limit)), Handle::Rng)
            }
            DeviceSpec::Balloon(spec) => {
                let params = BalloonParams {
                    memory_bytes: self.memory.size(),
                    backing_page_bytes: self.memory.backing().page_bytes(),
                    deflate_on_oom: spec.deflate_on_oom,
                    free_page_reporting: spec.free_page_reporting,
                };
                let pages = Arc::new(PageReturner::new(self.memory.clone()));
                let balloon = Balloon::new(params, pages, Arc::clone(&self.notices) as _)?;
                let control = balloon.control();
                self.on_shared_thread(Box::new(balloon), Handle::Balloon(control))
            }
            DeviceSpec::Vsock(spec) => {
                let vsock = Vsock::new(spec.cid)?;
                let control = vsock.control();
                control.set_listener(Some(descriptors.take(spec.listener)?))?;
                if let Some(acceptor) = spec.acceptor {
                    control.set_acceptor(Some(descriptors.take(acceptor)?))?;
                }
                self.on_shared_thread(Box::new(vsock), Handle::Vsock(control))
            }
            DeviceSpec::Ports(spec) => {
                let console = ports::make(spec, descriptors, Arc::clone(&self.notices) as _)?;
                let control = console.control();
                self.on_shared_thread(Box::new(console), Handle::Ports(control))
            }
            DeviceSpec::Share(spec) => share::make(spec, &self.memory, descriptors),
            DeviceSpec::SwitchedNic(spec) => switched::make(spec, &self.memory, descriptors),
            DeviceSpec::Memory(_) => self.make_memory(),
        }
    }

    /// The only device with a thread that may give the guest memory: it shares it with none.
    fn make_memory(&mut self) -> Result<Made, BuildError> {
        let backing = self.blocks.take().ok_or(BuildError::NoBlocks)?;
        let blocks = self.memory.blocks().ok_or(BuildError::NoBlocks)?;
        let mem = Mem::new(
            Arc::clone(blocks),
            Arc::new(backing),
            Arc::clone(&self.notices) as _,
        );
        let thread = start_thread_as("memory", Role::Memory)?;
        let handle = Handle::Memory(mem.control(), Arc::clone(&thread));
        Ok(Made {
            device: Box::new(mem),
            threads: vec![thread],
            handle,
        })
    }

    fn on_shared_thread(
        &mut self,
        device: Box<dyn VirtioDevice>,
        handle: Handle,
    ) -> Result<Made, BuildError> {
        let thread = match &self.shared {
            Some(thread) => Arc::clone(thread),
            None => {
                let thread = start_thread("devices")?;
                self.shared = Some(Arc::clone(&thread));
                thread
            }
        };
        Ok(Made {
            device,
            threads: vec![thread],
            handle,
        })
    }
}

impl std::fmt::Debug for Workshop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workshop").finish_non_exhaustive()
    }
}

fn start_thread(name: &str) -> Result<Arc<DeviceThread>, BuildError> {
    start_thread_as(name, Role::Io)
}

fn start_thread_as(name: &str, role: Role) -> Result<Arc<DeviceThread>, BuildError> {
    DeviceThread::start(name, role)
        .map(Arc::new)
        .map_err(BuildError::DeviceThread)
}

/// The same slot, as the bus has it.
pub(crate) fn pci_slot(slot: PciSlot) -> Slot {
    // Both have 31 of them.
    Slot::new(slot.number()).unwrap_or(Slot::HOST_BRIDGE)
}

fn entropy_limit(rate: Rate) -> Option<EntropyLimit> {
    Some(EntropyLimit {
        bytes: NonZeroU64::new(rate.per_second)?,
        period: Duration::from_secs(1),
    })
}

#[cfg(test)]
mod tests;
