//! The `immediate_exit` flag of a vCPU, for whoever kicks it.
//!
//! A vCPU is kicked by setting the flag and then signalling its thread: a signal that arrives before
//! `KVM_RUN` is entered would otherwise be lost. The flag is written by other threads and by signal
//! handlers while the vCPU's thread reads the rest of the structure, so it has a mapping of its own:
//! an atomic byte in memory that no Rust reference covers.

use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::kvm_run;
use rustix::mm::{MapFlags, ProtFlags};

use super::KvmError;

/// The first page of the run structure holds the flag.
const MAPPED: usize = 4096;

/// A handle on the flag of one vCPU; clones share it. Setting it is async-signal-safe.
#[derive(Debug, Clone)]
pub struct ImmediateExit(Arc<Mapping>);

#[derive(Debug)]
struct Mapping(NonNull<u8>);

impl ImmediateExit {
    /// Maps the flag of the vCPU behind `vcpu`.
    pub(super) fn map(vcpu: impl AsFd) -> Result<Self, KvmError> {
        let mapped = map_run_structure(vcpu).map_err(|errno| KvmError::Ioctl {
            call: "mmap of a vCPU",
            source: errno.into(),
        })?;
        Ok(Self(Arc::new(Mapping(mapped))))
    }

    /// Makes the next `KVM_RUN` return at once (`true`), or run (`false`).
    pub fn set(&self, exit: bool) {
        self.flag().store(u8::from(exit), Ordering::SeqCst);
    }

    /// Whether the next `KVM_RUN` returns at once.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.flag().load(Ordering::SeqCst) != 0
    }

    #[expect(unsafe_code, reason = "the flag is in memory shared with the kernel")]
    fn flag(&self) -> &AtomicU8 {
        let offset = std::mem::offset_of!(kvm_run, immediate_exit);
        // SAFETY: the offset is within the mapped page, which lives as long as `self`.
        let flag = unsafe { self.0.0.add(offset) };
        // SAFETY: the byte is valid, aligned, and in this mapping only ever accessed through this
        // atomic; the kernel reads it and expects it to change at any time.
        unsafe { AtomicU8::from_ptr(flag.as_ptr()) }
    }
}

#[expect(unsafe_code, reason = "maps a descriptor of the kernel")]
fn map_run_structure(vcpu: impl AsFd) -> Result<NonNull<u8>, rustix::io::Errno> {
    // SAFETY: a fresh mapping at an address of the kernel's choice, which disturbs no other.
    let mapped = unsafe {
        rustix::mm::mmap(
            std::ptr::null_mut(),
            MAPPED,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            vcpu,
            0,
        )
    }?;
    NonNull::new(mapped.cast()).ok_or(rustix::io::Errno::FAULT)
}

impl Drop for Mapping {
    #[expect(unsafe_code, reason = "ends its own mapping")]
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped; the last handle is gone, so nobody uses it any more.
        let unmapped = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), MAPPED) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours can be unmapped");
    }
}

#[expect(
    unsafe_code,
    reason = "a pointer to shared memory, accessed atomically"
)]
// SAFETY: the mapping is process-wide, and only accessed through an atomic.
unsafe impl Send for Mapping {}
#[expect(
    unsafe_code,
    reason = "a pointer to shared memory, accessed atomically"
)]
// SAFETY: as above.
unsafe impl Sync for Mapping {}
