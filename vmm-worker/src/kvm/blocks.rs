//! Memory slots that come and go with blocks of guest memory (virtio 1.3 §5.15): one for each block.
//!
//! A slot of its own is what makes a block no memory at all while it is not plugged: KVM has nothing to
//! map, so that a guest that touches it finds what is at any address without a device, and the host pays
//! for nothing. Slots that grew with their neighbours would be fewer, but a slot is changed by taking it
//! away and making another, and meanwhile the guest's other memory in it would be gone.
//!
//! Called on the thread of the memory device, or on the one that builds the machine.

use std::io;
use std::sync::Arc;

use reeve_devices::virtio::mem::BlockBacking;

use super::Vm;
use crate::memory::{GuestMemory, RamRegion};

/// The blocks of a VM's memory.
#[derive(Debug)]
pub struct KvmBlocks {
    vm: Arc<Vm>,
    memory: GuestMemory,
}

impl KvmBlocks {
    /// Those of `memory`, which `vm` was made with.
    #[must_use]
    pub fn new(vm: Arc<Vm>, memory: GuestMemory) -> Self {
        Self { vm, memory }
    }

    /// Sets the slot of each block of the range; of one that fails, takes back those before it.
    fn set(&self, address: u64, len: u64, present: bool) -> io::Result<()> {
        let blocks: Vec<_> = self.memory.block_regions(address, len).collect();
        for (done, (number, region)) in blocks.iter().enumerate() {
            if let Err(error) = self.vm.set_block_slot(*number, region, present) {
                for (number, region) in blocks.iter().take(done) {
                    if let Err(error) = self.vm.set_block_slot(*number, region, !present) {
                        tracing::error!(%error, "memory slot {number} is lost");
                    }
                }
                return Err(error);
            }
        }
        match blocks.is_empty() {
            true => Err(io::ErrorKind::InvalidInput.into()),
            false => Ok(()),
        }
    }
}

impl BlockBacking for KvmBlocks {
    fn plug(&self, address: u64, len: u64) -> io::Result<()> {
        self.set(address, len, true)
    }

    fn unplug(&self, address: u64, len: u64) -> io::Result<()> {
        self.take_out(address, len)?;
        if let Err(error) = self.memory.give_back(address, len) {
            // It is out of the guest all the same; what it costs is freed when it is unplugged again.
            tracing::warn!(address, len, %error, "unplugged memory could not be freed");
        }
        Ok(())
    }

    fn take_out(&self, address: u64, len: u64) -> io::Result<()> {
        self.set(address, len, false)
    }
}

impl Vm {
    /// Makes the memory slot of block `number`, which is at `region`, or takes it away.
    #[expect(unsafe_code, reason = "a memory slot is a raw mapping")]
    fn set_block_slot(&self, number: u32, region: &RamRegion, present: bool) -> io::Result<()> {
        let slot = kvm_bindings::kvm_userspace_memory_region {
            slot: self.first_block_slot().saturating_add(number),
            flags: 0,
            guest_phys_addr: region.guest_address,
            memory_size: if present { region.size } else { 0 },
            userspace_addr: region.host_address,
        };
        // SAFETY: the mapping is owned by the memory that this VM was made with, of which it keeps a clone
        // for longer than its descriptor. The guest writes to it, which is sound because guest memory is
        // only reached through volatile accesses.
        unsafe { self.fd().set_user_memory_region(slot) }
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }
}
