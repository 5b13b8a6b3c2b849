//! The picture, for who looks at it.

use super::registers::Registers;
use super::{MAX_HEIGHT, MAX_WIDTH, VideoMemory};
use crate::shared::{Shared, lock};

/// How a pixel is in video memory, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelFormat {
    /// Four bytes: blue, green, red, nothing.
    Rgb888,
    /// Two bytes: five bits of blue, six of green, five of red, from the lowest.
    Rgb565,
}

impl PixelFormat {
    /// Bytes of a pixel.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Rgb888 => 4,
            Self::Rgb565 => 2,
        }
    }
}

/// What there is to see: all of it lies in video memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    width: u16,
    height: u16,
    format: PixelFormat,
    /// Bytes from a line to the next.
    stride: u64,
    /// Where the first pixel is in video memory.
    start: u64,
}

impl Mode {
    /// The picture of registers with these values; none if there is no such.
    pub(super) fn new(
        width: u16,
        height: u16,
        depth: u16,
        virtual_width: u16,
        (x, y): (u16, u16),
    ) -> Option<Self> {
        let format = match depth {
            16 => PixelFormat::Rgb565,
            32 => PixelFormat::Rgb888,
            _ => return None,
        };
        let sized = (1..=MAX_WIDTH).contains(&width) && (1..=MAX_HEIGHT).contains(&height);
        let stride = u64::from(virtual_width.max(width)) * format.bytes();
        let start = u64::from(y) * stride + u64::from(x) * format.bytes();
        // All of this is below 2^40.
        let last_line = start + u64::from(height.saturating_sub(1)) * stride;
        let end = last_line + u64::from(width) * format.bytes();
        (sized && end <= VideoMemory::BYTES).then_some(Self {
            width,
            height,
            format,
            stride,
            start,
        })
    }

    /// Pixels of a line, 1 to [`MAX_WIDTH`].
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Lines, 1 to [`MAX_HEIGHT`].
    #[must_use]
    pub fn height(&self) -> u16 {
        self.height
    }

    /// What a pixel is.
    #[must_use]
    pub fn format(&self) -> PixelFormat {
        self.format
    }
}

/// A display's picture. A clone is of the same display; any thread may look.
#[derive(Debug, Clone)]
pub struct Framebuffer {
    registers: Shared<Registers>,
    memory: VideoMemory,
}

impl Framebuffer {
    pub(super) fn new(registers: Shared<Registers>, memory: VideoMemory) -> Self {
        Self { registers, memory }
    }

    /// What there is to see now, if anything. The guest may change that at any time, in which a picture that is read by
    /// this mode is of what lies there then.
    #[must_use]
    pub fn mode(&self) -> Option<Mode> {
        lock(&self.registers).picture()
    }

    /// Reads a line into `pixels`, as 0x00RRGGBB, from its left; what of either is longer is left as it is. `scratch` is
    /// room that is used again. A line that is not there is black.
    pub fn read_line(&self, mode: &Mode, line: u16, pixels: &mut [u32], scratch: &mut Vec<u8>) {
        let width = usize::from(mode.width).min(pixels.len());
        let bytes = usize::try_from(mode.format.bytes()).unwrap_or(4);
        scratch.clear();
        scratch.resize(width * bytes, 0);
        if line < mode.height {
            let start = mode.start + u64::from(line) * mode.stride;
            // The mode was made for this memory.
            let _ = self.memory.read(start, scratch);
        }
        match mode.format {
            PixelFormat::Rgb888 => {
                for (pixel, raw) in pixels.iter_mut().zip(scratch.chunks_exact(4)) {
                    let raw = raw.try_into().unwrap_or_default();
                    *pixel = u32::from_le_bytes(raw) & 0x00ff_ffff;
                }
            }
            PixelFormat::Rgb565 => {
                for (pixel, raw) in pixels.iter_mut().zip(scratch.chunks_exact(2)) {
                    *pixel = widen(u16::from_le_bytes(raw.try_into().unwrap_or_default()));
                }
            }
        }
    }
}

/// 5, 6 and 5 bits to 8 each: all ones stay all ones.
fn widen(raw: u16) -> u32 {
    let raw = u32::from(raw);
    let (red, green, blue) = (raw >> 11, raw >> 5 & 0x3f, raw & 0x1f);
    let five = |value: u32| value << 3 | value >> 2;
    five(red) << 16 | (green << 2 | green >> 4) << 8 | five(blue)
}
