//! What a test boots as an inner guest: stock Debian's cloud kernel in both forms, an initramfs with
//! busybox, and a disk with Debian; and tools to look at it all with.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::cache::Cache;
use super::guests::Guests;

/// The variable that tells a test where its assets are.
pub(super) const DIRECTORY: &str = "REEVE_LAB_ASSETS";

/// The kernel command line that a test should start from. A plain `console=ttyS0` must work too.
/// `panic=-1 reboot=t` turn a panic into an end and `nokaslr` keeps addresses in a log readable.
/// `quiet` (errors and worse still come: a lockup, a stall), `mitigations=off` and
/// `cryptomgr.notests` save time: in the outer guest each byte on the console costs an exit of
/// 0.1 ms.
pub const COMMAND_LINE: &str =
    "console=ttyS0 quiet panic=-1 reboot=t nokaslr mitigations=off cryptomgr.notests";

/// The word of the kernel command line that has the initramfs load these drivers, out of
/// `virtio_mmio`, `virtio_blk`, `virtio_net`, `virtio_console`, `virtio_rng`, `virtio_balloon`,
/// `virtio_mem`, `vmw_vsock_virtio_transport`, `virtiofs`, `pvpanic_mmio`, `i6300esb`. Each module
/// takes 1.5 % of a boot, there are nineteen, and `virtiofs` is as much as five others.
#[must_use]
pub fn drivers(names: &[&str]) -> String {
    format!("lab.drivers={}", names.join(","))
}

/// Says that an inner guest's userspace is up: followed by the number of processors and by MemTotal
/// in KiB.
pub const UP_MARKER: &str = "REEVE-GUEST-UP";
/// The prompt of the shell on an inner guest's console.
pub const PROMPT: &str = "guest# ";
/// Printed when an inner guest sees its power button, right before it powers off.
pub const POWER_BUTTON_MARKER: &str = "REEVE-GUEST-POWER-BUTTON";

/// Paths of the inner guest's parts.
#[derive(Debug)]
pub struct Assets {
    /// Uncompressed ELF kernel with a PVH note.
    pub vmlinux: PathBuf,
    /// The same kernel as bzImage.
    pub bzimage: PathBuf,
    /// Initramfs (an uncompressed cpio archive). Its init prints [`UP_MARKER`], gives a shell with
    /// [`PROMPT`] on the console, and powers off at the power button. `now` prints the wall clock as
    /// seconds with microseconds. With [`drivers`] on the kernel's command line it loads drivers of
    /// virtio devices; with `root=DEVICE` and `rw` or `ro` it loads that of disks and goes on with
    /// the system on that one.
    pub initramfs: PathBuf,
    /// Debian's kernel for machines of any kind, as `vmlinux`: it has drivers that the other lacks, of
    /// generation ids and of watchdogs, and takes longer to boot.
    pub full_vmlinux: PathBuf,
    /// As `initramfs`, with the modules of that kernel.
    pub full_initramfs: PathBuf,
    /// A raw disk of 1 GiB that is an ext4 file system with Debian, to be read only: 260 MB of it are
    /// not holes. Root logs in on the console by itself; what is printed and how it ends is as with
    /// the initramfs. It has systemd, fio, e2fsprogs, iproute2 and socat, and no udev: the drivers
    /// are those of the initramfs. Mounted and entered with chroot it is a box of tools.
    pub disk: PathBuf,
    /// Directory of programs that run where the test runs: those in [`super::tools`], and busybox.
    pub tools: PathBuf,
    /// The top of a system with clients of libvirt's protocol, whose other directories are where it runs:
    /// [`crate::clients::Clients`] runs them.
    pub clients: PathBuf,
}

impl Assets {
    fn below(directory: &Path) -> Assets {
        Assets {
            vmlinux: directory.join("vmlinux"),
            bzimage: directory.join("bzimage"),
            initramfs: directory.join("initramfs"),
            full_vmlinux: directory.join("full-vmlinux"),
            full_initramfs: directory.join("full-initramfs"),
            disk: directory.join("disk"),
            tools: directory.join("tools/bin"),
            clients: directory.join("clients"),
        }
    }

    /// One of those programs, such as `qemu-img`.
    #[must_use]
    pub fn tool(&self, name: &str) -> PathBuf {
        self.tools.join(name)
    }
}

/// The assets, wherever the test runs. Outside of lab tests they are made on first use.
///
/// # Panics
/// When they cannot be made (no network and nothing cached).
#[must_use]
pub fn assets() -> &'static Assets {
    static ASSETS: OnceLock<Assets> = OnceLock::new();
    ASSETS.get_or_init(|| match std::env::var_os(DIRECTORY) {
        Some(directory) => Assets::below(Path::new(&directory)),
        None => match Cache::open().and_then(|cache| Guests::prepare(&cache)) {
            Ok(guests) => Assets::below(&guests.assets),
            Err(error) => panic!("no guest assets: {error:#}"),
        },
    })
}
