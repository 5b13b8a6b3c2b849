//! A display: the `bochs-display` of QEMU, a function of the PCI bus on which firmware and kernels draw without a
//! driver of ours (QEMU docs/specs/standard-vga.rst).
//!
//! ```text
//!  BAR 0, 16 MiB ── video memory, as memory of the guest where the worker has made it that
//!  BAR 2, 4 KiB  ── 0x000 EDID: what the monitor can
//!                   0x400 what would be the registers of a VGA, which are not there
//!                   0x500 the mode (Bochs' VBE "DISPI" registers): width, height, depth, place
//!                   0x600 byte order
//! ```
//! There is no VGA: no text mode, no ports, no palette, no legacy memory below 1 MiB. So all of it is [`registers`],
//! sixteen bits each, that the guest sets to anything, and memory. Whoever looks at the picture ([`Framebuffer`]) works
//! out each time what the registers mean, and finds no picture where they mean none.
//!
//! vCPU threads read and write registers under their lock, as whoever looks does for a moment; video memory has no lock.
//! It is written by the guest at any instant, and reached by volatile accesses only.

mod edid;
mod framebuffer;
mod function;
pub mod registers;
#[cfg(test)]
mod tests;
mod video_memory;

pub use self::framebuffer::{Framebuffer, Mode, PixelFormat};
pub use self::function::{DisplayFunction, DisplayParams, VideoMemorySlot};
pub use self::video_memory::{VideoMemory, VideoMemoryError};

/// The largest picture, in pixels of each direction.
pub const MAX_WIDTH: u16 = 2560;
/// The largest picture, in lines.
pub const MAX_HEIGHT: u16 = 1600;
/// The smallest that a monitor is said to prefer, in pixels.
pub const MIN_WIDTH: u16 = 640;
/// The smallest that a monitor is said to prefer, in lines.
pub const MIN_HEIGHT: u16 = 480;
