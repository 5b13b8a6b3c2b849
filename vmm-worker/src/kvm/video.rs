//! The memory slot of a display's video memory, which goes where the guest puts its BAR.
//!
//! A vCPU thread has no ioctl for memory slots. So a thread with the filter of those that plug memory in does it, and
//! the vCPU that moved the BAR waits for that: when its write to configuration space is over, the BAR is where it was
//! put, as on any bus. The thread waits for nothing but the kernel, which changes the map of memory in about a
//! millisecond. Were it not done in time, accesses would go by the MMIO bus, to the same memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use reeve_devices::display::{VideoMemory, VideoMemorySlot};
use reeve_sandbox::seccomp::Role;

use super::Vm;
use crate::io::device::DeviceThread;

/// How long a vCPU waits: far more than the kernel takes, and less than the guest takes for a hang, but more than
/// a pause waits for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Puts video memory into the guest.
#[derive(Debug)]
pub struct KvmVideoMemory {
    vm: Arc<Vm>,
    thread: DeviceThread,
}

impl KvmVideoMemory {
    /// That which `vm` was made with.
    ///
    /// # Errors
    /// The host has no thread or descriptor left.
    pub fn new(vm: Arc<Vm>) -> io::Result<Self> {
        let thread = DeviceThread::start("video-memory", Role::Memory)?;
        Ok(Self { vm, thread })
    }

    fn set(&self, address: Option<u64>) {
        let vm = Arc::clone(&self.vm);
        let done = self
            .thread
            .call(PATIENCE, move || vm.set_video_slot(address));
        match done {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!(%error, "video memory is no memory of the guest"),
            None => tracing::warn!("the kernel takes long to move video memory"),
        }
    }
}

impl VideoMemorySlot for KvmVideoMemory {
    fn place(&self, address: u64) {
        self.set(Some(address));
    }

    fn take_away(&self) {
        self.set(None);
    }
}

impl Vm {
    /// Makes the memory slot of video memory, at `address`, or takes it away.
    #[expect(unsafe_code, reason = "a memory slot is a raw mapping")]
    fn set_video_slot(&self, address: Option<u64>) -> io::Result<()> {
        let (number, memory) = self.video().ok_or(io::ErrorKind::NotFound)?;
        let slot = kvm_bindings::kvm_userspace_memory_region {
            slot: number,
            flags: 0,
            guest_phys_addr: address.unwrap_or(0),
            memory_size: address.map_or(0, |_| VideoMemory::BYTES),
            userspace_addr: memory.host_address(),
        };
        // SAFETY: the mapping is owned by the video memory that this VM was made with, of which it keeps a clone
        // for longer than its descriptor. The guest writes to it, which is sound because video memory is only
        // reached through volatile accesses.
        unsafe { self.fd().set_user_memory_region(slot) }
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }
}
