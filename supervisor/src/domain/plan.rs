//! Model to machine specification and descriptors: the only such mapping.
//!
//! Runs in the supervisor, before a worker exists, on a thread that may wait: a file system can take as
//! long as it likes to open a file. Everything a worker will ever use is opened here;
//! the worker gets numbers. Nothing of a file's content is read: images are the worker's to parse.
//! All descriptors are close-on-exec, and dropping a [`Plan`] undoes it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use reeve_ipc::fd::{FdError, FdTable};
use reeve_ipc::model::{
    BootSource, Domain, LifecycleAction, MemorySize, ModelError, OnCrash, OnPowerOff, OnReboot,
};
use reeve_ipc::spec::{
    BootSpec, ControlLoss, EndAction, EndPolicy, MachineSpec, MemoryBacking, MemorySpec,
    ResetAction, SpecDigest,
};
use rustix::fs::{FileType, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;

use crate::host::cpuid::HostCpuid;
use crate::host::reason;

/// Where the kernel offers KVM.
pub const KVM_PATH: &str = "/dev/kvm";

/// Why a domain cannot be planned. Each line says what failed, on what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The definition itself.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// `/dev/kvm` cannot be opened.
    #[error("cannot open {KVM_PATH}: {reason}; {mend}", reason = reason(*.0), mend = mend_kvm(*.0))]
    Kvm(Errno),
    /// KVM does not say what its guests may see of the CPU.
    #[error("cannot ask {KVM_PATH} for its CPU features: {}; {}", reason(*.0), mend_kvm(*.0))]
    Cpuid(Errno),
    /// A boot image cannot be opened.
    #[error(
        "cannot open the {what} {path}: {reason}; check --{what}",
        path = .path.display(),
        reason = reason(*.errno)
    )]
    Image {
        /// "kernel" or "initrd".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// A path that may not be named: which, why, and what would allow it, in one line.
    #[error("{0}")]
    Forbidden(String),
    /// A boot image is no file.
    #[error("the {what} {path} is {kind}, not a file; check --{what}", path = .path.display())]
    NotAFile {
        /// "kernel" or "initrd".
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A memfd could not be made.
    #[error("cannot make the {what} ({size}): {reason}", reason = reason(*.errno))]
    Memfd {
        /// What it was for.
        what: &'static str,
        /// Its size.
        size: MemorySize,
        /// Why.
        errno: Errno,
    },
    /// Other starts wait for files, and may do so for ever.
    #[error(
        "{0} other starts wait for a kernel or initrd whose file system does not answer; look for a \
         network file system that is down; a restart of reeved, which no domain notices, lets go of them"
    )]
    Stalled(usize),
    /// More descriptors than a launch carries.
    #[error(transparent)]
    Descriptors(#[from] FdError),
}

/// What the command that mends an unusable `/dev/kvm` is.
#[must_use]
pub fn mend_kvm(errno: Errno) -> &'static str {
    match errno {
        Errno::ACCESS | Errno::PERM => {
            "allow it with 'sudo usermod -aG kvm $USER', then log in again"
        }
        _ => {
            "load KVM with 'sudo modprobe kvm_intel' or 'sudo modprobe kvm_amd', and switch \
             virtualisation on in the firmware if that fails"
        }
    }
}

/// Opens the files that a definition names: as its caller may, or only where a policy allows.
pub trait PathPolicy: std::fmt::Debug + Send + Sync {
    /// Opens `path` for reading, close-on-exec, without waiting for anything. `what` is what it is
    /// for: "kernel" or "initrd".
    ///
    /// # Errors
    /// [`PathError`].
    fn open_read(&self, what: &'static str, path: &Path) -> Result<OwnedFd, PathError>;
}

/// Why a file was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The kernel refused.
    #[error("{}", reason(*.0))]
    Os(Errno),
    /// The policy did: one line that names the file and says what would allow it.
    #[error("{0}")]
    Forbidden(String),
}

/// No policy but the kernel's: this process opens what it may.
#[derive(Debug, Clone, Copy)]
pub struct AnyPath;

impl PathPolicy for AnyPath {
    fn open_read(&self, _: &'static str, path: &Path) -> Result<OwnedFd, PathError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        rustix::fs::open(path, flags, Mode::empty()).map_err(PathError::Os)
    }
}

/// What is not of the definition.
#[derive(Debug)]
pub struct PlanOptions<'a> {
    /// Who opens the boot images.
    pub paths: &'a dyn PathPolicy,
    /// The worker outlives its supervisor, and leaves every end of its guest to it; what binds it to
    /// its record. [`Plan::wait_on`] is to follow.
    pub kept: Option<SpecDigest>,
    /// Build the machine and let it stand paused.
    pub hold: bool,
    /// A client of the console from the first byte on: the worker's end of a stream socket.
    pub console: Option<OwnedFd>,
    /// What the worker does without its supervisor, if it is not kept.
    pub on_control_loss: ControlLoss,
}

/// All that a launch sends.
#[derive(Debug)]
pub struct Plan {
    /// What the worker builds.
    pub spec: MachineSpec,
    /// What its slots name.
    pub fds: FdTable,
}

impl Plan {
    /// Gives the worker the listening socket on which it waits for a later supervisor.
    ///
    /// # Errors
    /// [`PlanError::Descriptors`].
    pub fn wait_on(&mut self, listener: OwnedFd) -> Result<(), PlanError> {
        self.spec.adoption = Some(self.fds.push(listener)?);
        Ok(())
    }
}

/// Plans `domain` for the host whose KVM `cpuid` has asked.
///
/// # Errors
/// [`PlanError`]; nothing is left open then.
pub fn plan(
    domain: &Domain,
    cpuid: &HostCpuid,
    options: PlanOptions<'_>,
) -> Result<Plan, PlanError> {
    domain.validate()?;
    let mut fds = FdTable::new();
    let kvm = open_kvm().map_err(PlanError::Kvm)?;
    let supported_cpuid = cpuid.entries().map_err(PlanError::Cpuid)?;
    let kvm = fds.push(kvm)?;
    let boot = plan_boot(&domain.boot, options.paths, &mut fds)?;
    let size_bytes = domain.memory.bytes();
    let fd = fds.push(guest_memory(domain.memory)?)?;
    let console = options
        .console
        .map(|console| fds.push(console))
        .transpose()?;
    let (digest, policy, on_control_loss) = match options.kept {
        Some(digest) => (
            digest,
            kept_policy(domain.lifecycle),
            ControlLoss::KeepRunning,
        ),
        None => (
            SpecDigest::default(),
            end_policy(domain.lifecycle),
            options.on_control_loss,
        ),
    };
    let spec = MachineSpec {
        name: domain.name.as_str().to_owned(),
        uuid: domain.uuid.0,
        machine: domain.machine,
        vcpus: domain.vcpus.count(),
        cpu: domain.cpu,
        supported_cpuid,
        memory: MemorySpec {
            size_bytes,
            backing: MemoryBacking::Shared { fd },
        },
        kvm,
        boot,
        console,
        hold: options.hold,
        policy,
        on_control_loss,
        adoption: None,
        digest,
    };
    Ok(Plan { spec, fds })
}

fn plan_boot(
    boot: &BootSource,
    paths: &dyn PathPolicy,
    fds: &mut FdTable,
) -> Result<BootSpec, PlanError> {
    match boot {
        BootSource::BuiltIn { command_line } => Ok(BootSpec {
            kernel: fds.push(built_in_image()?)?,
            initrd: None,
            command_line: command_line.clone(),
        }),
        BootSource::Kernel(boot) => Ok(BootSpec {
            kernel: fds.push(open_image("kernel", paths, &boot.kernel)?)?,
            initrd: match &boot.initrd {
                Some(initrd) => Some(fds.push(open_image("initrd", paths, initrd)?)?),
                None => None,
            },
            command_line: boot.command_line.clone(),
        }),
    }
}

fn end_policy(lifecycle: LifecycleAction) -> EndPolicy {
    EndPolicy {
        on_power_off: match lifecycle.on_power_off {
            OnPowerOff::Destroy | OnPowerOff::Restart => EndAction::Exit,
            OnPowerOff::Preserve => EndAction::Preserve,
        },
        on_reset: match lifecycle.on_reboot {
            OnReboot::Restart => ResetAction::Reset,
            OnReboot::Destroy | OnReboot::Preserve => ResetAction::Exit,
        },
        on_crash: match lifecycle.on_crash {
            OnCrash::Destroy | OnCrash::Restart => EndAction::Exit,
            OnCrash::Preserve => EndAction::Preserve,
        },
    }
}

/// A worker that outlives its supervisor keeps every end of its guest until that has seen it.
fn kept_policy(lifecycle: LifecycleAction) -> EndPolicy {
    EndPolicy {
        on_power_off: EndAction::Preserve,
        on_reset: match lifecycle.on_reboot {
            OnReboot::Restart => ResetAction::Reset,
            OnReboot::Destroy | OnReboot::Preserve => ResetAction::Preserve,
        },
        on_crash: EndAction::Preserve,
    }
}

/// Opens `/dev/kvm` for reading and writing.
pub(crate) fn open_kvm() -> Result<OwnedFd, Errno> {
    rustix::fs::open(KVM_PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a regular file for reading. A FIFO does not hold the supervisor up, and is refused.
fn open_image(
    what: &'static str,
    paths: &dyn PathPolicy,
    path: &Path,
) -> Result<OwnedFd, PlanError> {
    let image = |errno| PlanError::Image {
        what,
        path: path.to_owned(),
        errno,
    };
    let fd = paths.open_read(what, path).map_err(|error| match error {
        PathError::Os(errno) => image(errno),
        PathError::Forbidden(message) => PlanError::Forbidden(message),
    })?;
    let stat = rustix::fs::fstat(&fd).map_err(image)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(fd),
        FileType::Directory => "a directory",
        FileType::BlockDevice => "a block device",
        FileType::Fifo => "a pipe",
        _ => "a device or socket",
    };
    Err(PlanError::NotAFile {
        what,
        path: path.to_owned(),
        kind,
    })
}

/// The guest's memory: a memfd of its size that can neither shrink nor grow, nor be executed.
fn guest_memory(size: MemorySize) -> Result<OwnedFd, PlanError> {
    let make = || {
        let fd = memfd("guest-memory")?;
        rustix::fs::ftruncate(&fd, size.bytes())?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(fd)
    };
    make().map_err(|errno| PlanError::Memfd {
        what: "guest's memory",
        size,
        errno,
    })
}

/// The built-in guest's image in a memfd that nobody can change. One for each worker: a shared one
/// would let two hostile workers talk through its file position and locks.
fn built_in_image() -> Result<OwnedFd, PlanError> {
    let image: &[u8] = reeve_guest::IMAGE;
    let make = || {
        let fd = memfd("built-in-guest")?;
        write_all(fd.as_fd(), image)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&fd, seals)?;
        Ok(fd)
    };
    make().map_err(|errno| PlanError::Memfd {
        what: "built-in guest's image",
        size: MemorySize(image.len() as u64),
        errno,
    })
}

/// A memfd that can be sealed, not executable where the kernel can say so (Linux 6.3).
fn memfd(name: &str) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        result => result,
    }
}

/// Writes at position 0 without moving the file position.
fn write_all(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        written += rustix::io::retry_on_intr(|| rustix::io::pwrite(fd, rest, written as u64))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
