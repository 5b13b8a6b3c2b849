//! Rectangles as they are sent (RFC 6143, 7.7).

use miniz_oxide::deflate::core::{CompressorOxide, create_comp_flags_from_zip_params};
use miniz_oxide::deflate::stream::deflate;
use miniz_oxide::{DataFormat, MZFlush};

use crate::canvas::{Area, TILE};
use crate::message::{Encoding, number};
use crate::pixel::PixelFormat;

/// The fastest that zlib has: what changes on a screen is compared with nothing else.
const LEVEL: i32 = 1;
/// Window of zlib's own format; positive for its header.
const WINDOW_BITS: i32 = 15;
/// Room that is added for what is compressed.
const ROOM: usize = 4096;
/// The most colours that are sent as a palette.
const PALETTE: usize = 16;
/// Subencodings of a tile of ZRLE (7.7.6).
const RAW_TILE: u8 = 0;
const SOLID_TILE: u8 = 1;

/// Makes rectangles of one client. Their compression goes on from one to the next.
pub(crate) struct Encoder {
    stream: Option<Box<CompressorOxide>>,
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl Encoder {
    pub(crate) const fn new() -> Self {
        Self {
            stream: None,
            plain: Vec::new(),
            packed: Vec::new(),
        }
    }

    /// Appends the rectangle of `pixels` at `area`, no larger than a tile.
    pub(crate) fn append(
        &mut self,
        encoding: Encoding,
        format: &PixelFormat,
        area: &Area,
        pixels: &[u32],
        out: &mut Vec<u8>,
    ) {
        debug_assert!(area.width <= TILE && area.height <= TILE, "one tile");
        match encoding {
            Encoding::Raw => {
                append_header(area, number::RAW, out);
                format.append(pixels, out);
            }
            Encoding::Zrle => {
                append_header(area, number::ZRLE, out);
                self.plain.clear();
                append_tile(format, area.width, pixels, &mut self.plain);
                self.compress();
                let len = u32::try_from(self.packed.len()).unwrap_or(u32::MAX);
                out.extend(len.to_be_bytes());
                out.extend(&self.packed);
            }
        }
    }

    /// Compresses `plain` into `packed`, to where all of it can be read.
    fn compress(&mut self) {
        let stream = self.stream.get_or_insert_with(|| {
            let flags = create_comp_flags_from_zip_params(LEVEL, WINDOW_BITS, 0);
            let mut stream = CompressorOxide::new(flags);
            stream.set_format_and_level(DataFormat::Zlib, 1);
            Box::new(stream)
        });
        let mut input = self.plain.as_slice();
        self.packed.clear();
        loop {
            let start = self.packed.len();
            self.packed.resize(start + ROOM, 0);
            let room = self.packed.get_mut(start..).unwrap_or_default();
            let result = deflate(stream, input, room, MZFlush::Sync);
            input = input.get(result.bytes_consumed..).unwrap_or_default();
            let full = result.bytes_written == ROOM;
            self.packed.truncate(start + result.bytes_written);
            if input.is_empty() && !full || result.bytes_written == 0 {
                return;
            }
        }
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("streaming", &self.stream.is_some())
            .finish_non_exhaustive()
    }
}

/// The head of a rectangle (7.6.1).
pub(crate) fn append_header(area: &Area, encoding: i32, out: &mut Vec<u8>) {
    for field in [area.x, area.y, area.width, area.height] {
        out.extend(field.to_be_bytes());
    }
    out.extend(encoding.to_be_bytes());
}

/// A tile of ZRLE: one colour, a few, or all pixels.
fn append_tile(format: &PixelFormat, width: u16, pixels: &[u32], out: &mut Vec<u8>) {
    let Some(palette) = palette(pixels) else {
        out.push(RAW_TILE);
        for pixel in pixels {
            format.append_compact(*pixel, out);
        }
        return;
    };
    let bits = match palette.len() {
        0 | 1 => 0,
        2 => 1,
        3 | 4 => 2,
        _ => 4,
    };
    out.push(match bits {
        0 => SOLID_TILE,
        _ => u8::try_from(palette.len()).unwrap_or(SOLID_TILE),
    });
    for colour in &palette {
        format.append_compact(*colour, out);
    }
    if bits == 0 {
        return;
    }
    for line in pixels.chunks(width.max(1).into()) {
        // The first pixel is in the highest bits; each line begins with a byte.
        for part in line.chunks(8 / bits) {
            let mut byte = 0_u8;
            for (place, pixel) in part.iter().enumerate() {
                let index = palette.iter().position(|colour| colour == pixel);
                let index = index.and_then(|index| u8::try_from(index).ok());
                byte |= index.unwrap_or(0) << (8 - bits * (place + 1));
            }
            out.push(byte);
        }
    }
}

/// The colours of a tile, if they are few.
fn palette(pixels: &[u32]) -> Option<Vec<u32>> {
    let mut palette: Vec<u32> = Vec::with_capacity(PALETTE);
    for pixel in pixels {
        if palette.last() == Some(pixel) || palette.contains(pixel) {
            continue;
        }
        if palette.len() == PALETTE {
            return None;
        }
        palette.push(*pixel);
    }
    Some(palette)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::unpack_zrle;

    fn area(width: u16, height: u16) -> Area {
        Area {
            x: 64,
            y: 128,
            width,
            height,
        }
    }

    #[test]
    fn a_raw_rectangle_is_its_head_and_its_pixels() {
        let mut out = Vec::new();
        let format = PixelFormat::OFFERED;
        Encoder::new().append(
            Encoding::Raw,
            &format,
            &area(2, 1),
            &[1, 0x02_0304],
            &mut out,
        );
        let head = [0, 64, 0, 128, 0, 2, 0, 1, 0, 0, 0, 0];
        assert_eq!(out, [&head[..], &[1, 0, 0, 0, 4, 3, 2, 0]].concat());
    }

    #[test]
    fn zrle_gives_the_same_pixels_back() {
        let mut encoder = Encoder::new();
        let mut stream = miniz_oxide::inflate::stream::InflateState::new(DataFormat::Zlib);
        let format = PixelFormat::OFFERED;
        let noise = |index: u32| index.wrapping_mul(2_654_435_761) >> 8;
        let tiles: Vec<Vec<u32>> = vec![
            vec![7; 64 * 64],
            (0..64 * 64).map(|index| index / 7 % 2).collect(),
            (0..64 * 64).map(|index| index / 5 % 4 * 1000).collect(),
            (0..64 * 64).map(|index| index % 16).collect(),
            (0..64 * 64).map(|index| index % 17).collect(),
            (0..64 * 64).map(noise).collect(),
        ];
        for (width, height) in [(64, 64), (13, 5), (1, 1)] {
            for tile in &tiles {
                let pixels = &tile[..usize::from(width) * usize::from(height)];
                let mut out = Vec::new();
                encoder.append(
                    Encoding::Zrle,
                    &format,
                    &area(width, height),
                    pixels,
                    &mut out,
                );
                let len = u32::from_be_bytes(out[12..16].try_into().unwrap());
                assert_eq!(usize::try_from(len).unwrap(), out.len() - 16);
                assert_eq!(out[8..12], [0, 0, 0, 16]);
                assert_eq!(unpack_zrle(&mut stream, &out[16..], width, height), pixels);
            }
        }
    }

    #[test]
    fn one_colour_takes_little() {
        let mut out = Vec::new();
        let format = PixelFormat::OFFERED;
        Encoder::new().append(Encoding::Zrle, &format, &area(64, 64), &[9; 4096], &mut out);
        assert!(out.len() < 50, "{}", out.len());
    }
}
