//! Whether the host's KVM can run our machine, for `reeve doctor`.

use kvm_ioctls::{Cap, Kvm};
use rustix::io::Errno;

use super::doctor::Check;
use super::reason;
use crate::domain::plan::{KVM_PATH, mend_kvm, open_kvm};

/// The one version of the KVM interface there has ever been since 2007 (KVM API §4.1).
const API_VERSION: i32 = 12;

/// What the worker cannot do without, by the kernel's names.
const NEEDED: [(Cap, &str); 9] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::SplitIrqchip, "KVM_CAP_SPLIT_IRQCHIP"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
];

/// The most vCPUs of a machine, where all that one needs is there; why none can run, in one line, otherwise.
pub(super) fn ready() -> Result<u32, String> {
    if let Some(check) = checks().into_iter().find(|check| !check.passed) {
        return Err(format!("{}: {}", check.name, check.found));
    }
    let kvm = Kvm::new().map_err(|error| error.to_string())?;
    Ok(u32::try_from(kvm.get_max_vcpus()).unwrap_or(u32::MAX))
}

/// The checks, in order; later ones need the earlier.
pub(super) fn checks() -> Vec<Check> {
    match open_kvm() {
        Ok(_) => {}
        Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => {
            return vec![Check::fail(
                "KVM",
                format!("{KVM_PATH} does not exist"),
                mend_kvm(Errno::NOENT),
            )];
        }
        Err(errno) => {
            let why = format!("{KVM_PATH} cannot be opened: {}", reason(errno));
            return vec![Check::fail("KVM", why, mend_kvm(errno))];
        }
    }
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => {
            return vec![Check::fail(
                "KVM",
                error.to_string(),
                mend_kvm(Errno::NOENT),
            )];
        }
    };
    let version = kvm.get_api_version();
    if version != API_VERSION {
        return vec![Check::fail(
            "KVM",
            format!("its interface has version {version}, not {API_VERSION}"),
            "update the kernel",
        )];
    }
    let missing: Vec<&str> = NEEDED
        .into_iter()
        .filter(|(capability, _)| !kvm.check_extension(*capability))
        .map(|(_, name)| name)
        .collect();
    let capabilities = if missing.is_empty() {
        let vcpus = kvm.get_max_vcpus();
        Check::pass(
            "KVM capabilities",
            format!("all there, up to {vcpus} vCPUs"),
        )
    } else {
        let why = format!("missing: {}", missing.join(", "));
        Check::fail("KVM capabilities", why, "update the kernel")
    };
    vec![
        Check::pass("KVM", format!("{KVM_PATH} opens, version {version}")),
        capabilities,
    ]
}
