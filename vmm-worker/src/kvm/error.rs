//! What can go wrong with KVM; each message is one line for an operator.

use std::io;

/// An error of a KVM ioctl, or of a KVM that lacks what a machine needs.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// The descriptor is no KVM of the only version there ever was since 2007.
    #[error("KVM API version is {0}, not 12: is this descriptor /dev/kvm?")]
    ApiVersion(i32),
    /// KVM lacks something that every machine needs.
    #[error("this host's KVM lacks {0}")]
    MissingCapability(&'static str),
    /// More vCPUs than KVM or the machine type allows.
    #[error("{asked} vCPUs asked for, this host's KVM allows {limit}")]
    TooManyVcpus {
        /// Asked for.
        asked: u32,
        /// The limit.
        limit: u32,
    },
    /// A memory slot of this size was refused; KVM takes at most 8 TiB, and needs memory of its own
    /// for each page.
    #[error("{mebibytes} MiB of guest memory in one piece are more than this host's KVM maps")]
    MemorySlot {
        /// The size.
        mebibytes: u64,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// An ioctl failed.
    #[error("{call} failed")]
    Ioctl {
        /// The ioctl by the name it has in KVM's documentation.
        call: &'static str,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// KVM refused the value of an MSR that a machine cannot do without.
    #[error("KVM refused MSR {index:#x}")]
    RefusedMsr {
        /// The MSR's index.
        index: u32,
    },
    /// Vector state of so many bytes, which this KVM does not have or this build does not keep.
    #[error("{0} bytes of vector state are more than can be kept here")]
    WideVectors(usize),
    /// An MSR list that KVM's interface has no room for (a bug).
    #[error("list of {0} MSRs is too long")]
    TooManyMsrs(usize),
}

impl KvmError {
    /// Names the ioctl in an error of kvm-ioctls.
    pub(super) fn ioctl(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |source| Self::Ioctl {
            call,
            source: source.into(),
        }
    }
}
