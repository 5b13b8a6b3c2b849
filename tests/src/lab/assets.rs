//! What a test boots as an inner guest: stock Debian's cloud kernel in both forms, and an
//! initramfs with busybox.

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
    /// seconds with microseconds.
    pub initramfs: PathBuf,
}

impl Assets {
    fn below(directory: &Path) -> Assets {
        Assets {
            vmlinux: directory.join("vmlinux"),
            bzimage: directory.join("bzimage"),
            initramfs: directory.join("initramfs"),
        }
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
