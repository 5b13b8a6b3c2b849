//! The VM: its memory slots, and what makes vCPUs.

use std::sync::Arc;

use kvm_bindings::{
    KVM_CAP_X2APIC_API, KVM_MEM_READONLY, kvm_enable_cap, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, VmFd};
use reeve_devices::display::VideoMemory;

use super::saved::StateFeatures;
use super::{ControllerKind, InterruptController, KvmError, Vcpu, irqchip};
use crate::arch::x86_64::layout;
use crate::memory::{GuestMemory, RamRegion, Rom};

/// From this many vCPUs on, some have a local APIC whose id does not fit into a classic message.
const WIDE_APIC_IDS: u32 = 256;
/// `KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK`.
const X2APIC_API_FLAGS: u64 = 0b11;

/// A VM that has no interrupt controller yet, and takes memory.
#[derive(Debug)]
pub struct BareVm {
    fd: VmFd,
    features: StateFeatures,
    memory: Vec<GuestMemory>,
    roms: Vec<Arc<Rom>>,
    video: Option<(u32, VideoMemory)>,
    slots: u32,
    pages: KvmPages,
}

/// Where KVM may keep pages of its own in the guest's address space, for processors that cannot run real mode:
/// there is nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvmPages {
    /// Its TSS, three pages.
    pub tss: u64,
    /// Its page table, one page; where KVM has it by itself if this is not said.
    pub page_table: Option<u64>,
}

impl BareVm {
    pub(super) fn new(fd: VmFd, features: StateFeatures) -> Self {
        Self {
            fd,
            features,
            memory: Vec::with_capacity(1),
            roms: Vec::new(),
            video: None,
            slots: 0,
            pages: KvmPages {
                tss: layout::KVM_TSS,
                page_table: None,
            },
        }
    }

    /// Gives the guest `memory`, one slot a region, without its blocks, which come and go later. Touches no
    /// page of it.
    ///
    /// # Errors
    /// `KVM_SET_USER_MEMORY_REGION` failed.
    pub fn add_memory(&mut self, memory: &GuestMemory) -> Result<(), KvmError> {
        // Kept for as long as the VM exists, from before the first slot on.
        self.memory.push(memory.clone());
        for region in memory.regions() {
            self.add_slot(region, 0)?;
        }
        Ok(())
    }

    /// Gives the guest `rom`, which it reads and runs from. Writes to it leave the guest as accesses to a device.
    ///
    /// # Errors
    /// This KVM has no memory that cannot be written, or `KVM_SET_USER_MEMORY_REGION` failed.
    pub fn add_rom(&mut self, rom: &Arc<Rom>) -> Result<(), KvmError> {
        if !self.fd.check_extension(Cap::ReadonlyMem) {
            return Err(KvmError::MissingCapability("KVM_CAP_READONLY_MEM"));
        }
        self.roms.push(Arc::clone(rom));
        match rom.region() {
            Some(region) => self.add_slot(region, KVM_MEM_READONLY),
            None => Ok(()),
        }
    }

    /// Keeps a slot for `memory`, a display's, which the guest has nowhere until its BAR is somewhere.
    pub fn add_video_memory(&mut self, memory: &VideoMemory) {
        self.video = Some((self.slots, memory.clone()));
        self.slots += 1;
    }

    /// Says where KVM may keep pages of its own. Before [`interrupt_controller`](Self::interrupt_controller).
    pub fn place_pages(&mut self, pages: KvmPages) {
        self.pages = pages;
    }

    #[expect(unsafe_code, reason = "a memory slot is a raw mapping")]
    fn add_slot(&mut self, region: RamRegion, flags: u32) -> Result<(), KvmError> {
        let slot = kvm_userspace_memory_region {
            slot: self.slots,
            flags,
            guest_phys_addr: region.guest_address,
            memory_size: region.size,
            userspace_addr: region.host_address,
        };
        // SAFETY: the mapping is owned by a `GuestMemory` or a `Rom`, of which `self` and then the `Vm` keep a
        // clone that is dropped after the VM's descriptor. The guest writes to it, which is sound because guest
        // memory is only reached through volatile accesses.
        unsafe { self.fd.set_user_memory_region(slot) }.map_err(|error| KvmError::MemorySlot {
            mebibytes: region.size >> 20,
            source: error.into(),
        })?;
        self.slots += 1;
        Ok(())
    }

    /// Makes the interrupt controller for `vcpus` vCPUs, after which there can be vCPUs.
    ///
    /// # Errors
    /// A capability is missing or an ioctl failed.
    pub fn interrupt_controller(
        self,
        kind: ControllerKind,
        vcpus: u32,
    ) -> Result<(Arc<Vm>, Arc<dyn InterruptController>), KvmError> {
        // Needed on Intel without unrestricted guests, before any vCPU; ignored everywhere else.
        let tss = usize::try_from(self.pages.tss).unwrap_or(usize::MAX);
        self.fd
            .set_tss_address(tss)
            .map_err(KvmError::ioctl("KVM_SET_TSS_ADDR"))?;
        if let Some(address) = self.pages.page_table {
            self.fd
                .set_identity_map_address(address)
                .map_err(KvmError::ioctl("KVM_SET_IDENTITY_MAP_ADDR"))?;
        }
        let wide_apic_ids = vcpus >= WIDE_APIC_IDS && kind == ControllerKind::Split;
        if wide_apic_ids {
            let mut cap = kvm_enable_cap {
                cap: KVM_CAP_X2APIC_API,
                ..Default::default()
            };
            cap.args[0] = X2APIC_API_FLAGS;
            self.fd
                .enable_cap(&cap)
                .map_err(|_| KvmError::MissingCapability("KVM_CAP_X2APIC_API"))?;
        }
        irqchip::create(&self.fd, kind)?;
        let vm = Arc::new(Vm {
            fd: self.fd,
            features: self.features,
            wide_apic_ids,
            first_block_slot: self.slots,
            _memory: self.memory,
            _roms: self.roms,
            video: self.video,
        });
        let controller = irqchip::wire(&vm, kind);
        Ok((vm, controller))
    }
}

/// A VM with memory and interrupt controller.
#[derive(Debug)]
pub struct Vm {
    // Declared before the memory, so that it is closed before the memory is unmapped.
    fd: VmFd,
    features: StateFeatures,
    wide_apic_ids: bool,
    /// Behind those of the memory that is always there.
    first_block_slot: u32,
    _memory: Vec<GuestMemory>,
    _roms: Vec<Arc<Rom>>,
    /// With the number of its slot.
    video: Option<(u32, VideoMemory)>,
}

impl Vm {
    /// Makes the vCPU with this index, which is its APIC id too. KVM's power-on state: the first
    /// runnable at the reset vector, the others waiting for INIT and SIPI.
    ///
    /// # Errors
    /// `KVM_CREATE_VCPU` or the mapping of its run structure failed.
    pub fn create_vcpu(self: &Arc<Self>, index: u32) -> Result<Vcpu, KvmError> {
        let fd = self
            .fd
            .create_vcpu(u64::from(index))
            .map_err(KvmError::ioctl("KVM_CREATE_VCPU"))?;
        Vcpu::new(fd, Arc::clone(self), index)
    }

    /// Whether messages address local APICs beyond id 254.
    #[must_use]
    pub fn wide_apic_ids(&self) -> bool {
        self.wide_apic_ids
    }

    /// The number of the first memory slot for blocks of memory.
    pub(super) fn first_block_slot(&self) -> u32 {
        self.first_block_slot
    }

    /// The number of the slot of video memory, and that.
    pub(super) fn video(&self) -> Option<(u32, &VideoMemory)> {
        let (number, memory) = self.video.as_ref()?;
        Some((*number, memory))
    }

    /// What of a vCPU's state this KVM keeps.
    pub(super) fn features(&self) -> &StateFeatures {
        &self.features
    }

    /// The descriptor, for the ioctls of this module's siblings.
    pub(super) fn fd(&self) -> &VmFd {
        &self.fd
    }
}
