//! What a domain boots, and the memory it boots in.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use reeve_ipc::fd::FdTable;
use reeve_ipc::model::{BootSource, MemorySize};
use reeve_ipc::spec::BootSpec;
use rustix::fs::{FileType, MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::PlanError;
use super::paths::{PathError, PathPolicy, called};

pub(super) fn plan_boot(
    boot: &BootSource,
    paths: &dyn PathPolicy,
    fds: &mut FdTable,
) -> Result<BootSpec, PlanError> {
    match boot {
        BootSource::BuiltIn { command_line } => Ok(BootSpec {
            kernel: fds.push(built_in_image(command_line)?)?,
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
        BootSource::Firmware => Err(PlanError::NoFirmware),
    }
}

/// Opens a regular file for reading. A FIFO does not hold the supervisor up, and is refused.
pub(super) fn open_image(
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
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(fd),
        kind => Err(PlanError::NotAFile {
            what,
            path: path.to_owned(),
            kind: called(kind),
        }),
    }
}

/// The guest's memory: a memfd of its size that can neither shrink nor grow, nor be executed.
pub(super) fn guest_memory(size: MemorySize) -> Result<OwnedFd, PlanError> {
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

/// The built-in guest's image, as `command_line` needs it, in a memfd that nobody can change. One for each worker: a shared one
/// would let two hostile workers talk through its file position and locks.
pub(super) fn built_in_image(command_line: &str) -> Result<OwnedFd, PlanError> {
    let image = reeve_guest::image(command_line);
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
