//! What the host's KVM can show a guest by CPUID: asked once, sent with every launch.
//!
//! `KVM_GET_SUPPORTED_CPUID` executes CPUID for each leaf; on a host that is itself a guest each of
//! them traps, and the answer takes 0.26 to 0.5 ms, a third of a whole start. It is the same for as
//! long as the host runs, so it is asked on a thread of its own when the host is opened, and the
//! first start waits for it only if it comes before.

use std::sync::{Arc, OnceLock};
use std::thread;

use kvm_ioctls::Kvm;
use reeve_ipc::spec::{CpuidEntry, MAX_CPUID_ENTRIES};
use rustix::io::Errno;

/// The answer, once there is one.
#[derive(Debug, Clone, Default)]
pub struct HostCpuid(Arc<OnceLock<Result<Vec<CpuidEntry>, Errno>>>);

impl HostCpuid {
    /// Begins to ask. Where the thread cannot be made the first start asks.
    #[must_use]
    pub fn ask_early() -> Self {
        let cpuid = Self::default();
        let early = cpuid.clone();
        let _ = thread::Builder::new()
            .name("cpuid".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                early.0.get_or_init(ask);
            });
        cpuid
    }

    /// The leaves. A refusal is not kept: the administrator may have mended it.
    pub(crate) fn entries(&self) -> Result<Vec<CpuidEntry>, Errno> {
        match self.0.get_or_init(ask) {
            Ok(entries) => Ok(entries.clone()),
            Err(_) => ask(),
        }
    }
}

fn ask() -> Result<Vec<CpuidEntry>, Errno> {
    let errno = |error: kvm_ioctls::Error| Errno::from_raw_os_error(error.errno());
    let kvm = Kvm::new().map_err(errno)?;
    let supported = kvm.get_supported_cpuid(MAX_CPUID_ENTRIES).map_err(errno)?;
    Ok(supported
        .as_slice()
        .iter()
        .map(|leaf| CpuidEntry {
            function: leaf.function,
            index: leaf.index,
            flags: leaf.flags,
            registers: [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx],
        })
        .collect())
}
