//! The KVM of the host: `/dev/kvm`, handed over as a descriptor.
//!
//! Used while the machine is built and dropped afterwards, so that a running worker cannot make
//! another VM.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};

use super::saved::StateFeatures;
use super::{BareVm, KvmError};
use crate::arch::x86_64::layout;

/// The one API version.
const API_VERSION: i32 = 12;

/// What every machine needs, by the names of KVM's documentation. What only one kind of interrupt
/// controller needs is checked when that is made.
const REQUIRED: [(Cap, &str); 12] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
    (Cap::Debugregs, "KVM_CAP_DEBUGREGS"),
    (Cap::Xsave, "KVM_CAP_XSAVE"),
    (Cap::Xcrs, "KVM_CAP_XCRS"),
];

/// The host's KVM.
#[derive(Debug)]
pub struct System {
    kvm: Kvm,
}

impl System {
    /// Takes over `/dev/kvm` and checks that this KVM can run a machine of ours.
    ///
    /// # Errors
    /// [`KvmError::ApiVersion`] if the descriptor is something else,
    /// [`KvmError::MissingCapability`] with the name of the first one missing.
    #[expect(
        unsafe_code,
        reason = "kvm-ioctls takes a descriptor over only by number"
    )]
    pub fn from_fd(kvm: OwnedFd) -> Result<Self, KvmError> {
        // SAFETY: the number comes from an `OwnedFd` given up in the same expression, so that it is
        // open and nobody else owns it. If it is not /dev/kvm, the version check below says so; an
        // ioctl of KVM on another file is an error and touches no memory.
        let kvm = unsafe { Kvm::from_raw_fd(kvm.into_raw_fd()) };
        let version = kvm.get_api_version();
        if version != API_VERSION {
            return Err(KvmError::ApiVersion(version));
        }
        match REQUIRED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
            Some((_, name)) => Err(KvmError::MissingCapability(name)),
            None => Ok(Self { kvm }),
        }
    }

    /// Makes an empty VM.
    ///
    /// # Errors
    /// `KVM_CREATE_VM` failed, or KVM does not say what of a vCPU it keeps.
    pub fn create_vm(&self) -> Result<BareVm, KvmError> {
        loop {
            match self.kvm.create_vm() {
                // A signal during the creation (the kernel starts threads in it) is no failure.
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => return Err(KvmError::ioctl("KVM_CREATE_VM")(error)),
                Ok(fd) => {
                    let features = StateFeatures::of(self, &fd)?;
                    return Ok(BareVm::new(fd, features));
                }
            }
        }
    }

    /// The handle, for what is asked of it beside the creation of a VM.
    pub(super) fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    /// What this KVM can show a guest by CPUID, unfiltered.
    ///
    /// # Errors
    /// `KVM_GET_SUPPORTED_CPUID` failed.
    pub fn supported_cpuid(&self) -> Result<CpuId, KvmError> {
        self.kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(KvmError::ioctl("KVM_GET_SUPPORTED_CPUID"))
    }

    /// Whether the local APIC's timer has a TSC-deadline mode. CPUID does not tell: KVM leaves the
    /// bit out of what it reports as supported where the local APIC may be elsewhere.
    #[must_use]
    pub fn has_tsc_deadline_timer(&self) -> bool {
        self.kvm.check_extension(Cap::TscDeadlineTimer)
    }

    /// Checks a number of vCPUs against KVM's limit and the machine type's.
    ///
    /// # Errors
    /// [`KvmError::TooManyVcpus`] with the limit.
    pub fn check_vcpu_count(&self, asked: u32) -> Result<(), KvmError> {
        let limit = self.max_vcpus();
        if asked > limit {
            Err(KvmError::TooManyVcpus { asked, limit })
        } else {
            Ok(())
        }
    }

    /// The most vCPUs a machine may have on this host.
    #[must_use]
    pub fn max_vcpus(&self) -> u32 {
        let kvm = u32::try_from(self.kvm.get_max_vcpus()).unwrap_or(u32::MAX);
        kvm.min(u32::from(layout::MAX_VCPUS))
    }
}
