//! What the monitor says of itself (VESA E-EDID 1.4): 128 bytes, with the one mode that it prefers.

/// Bytes of it.
pub(super) const EDID_BYTES: usize = 128;

const HEADER: [u8; 8] = [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];
/// "RVE", five bits a letter.
const MANUFACTURER: [u8; 2] = [0x4a, 0xc5];
/// Millimetres for a pixel, in hundredths: some 96 dots an inch.
const PIXEL_PITCH: u32 = 26;
/// Of each line and of each picture, what is not seen (CVT 1.1, reduced blanking).
const BLANK_PIXELS: u32 = 160;
const BLANK_LINES: u32 = 30;
const HORIZONTAL_FRONT: u8 = 48;
const HORIZONTAL_SYNC: u8 = 32;
const VERTICAL_FRONT: u8 = 3;
const VERTICAL_SYNC: u8 = 6;
const PICTURES_PER_SECOND: u32 = 60;
/// Digital, and eight bits a colour.
const INPUT: u8 = 0xa5;
/// Gamma 2.2, as the value with 1.00 taken off, in hundredths.
const GAMMA: u8 = 120;
/// RGB 4:4:4; the first timing is the preferred one.
const FEATURES: u8 = 0x02;
/// Chromaticities of sRGB.
const CHROMATICITY: [u8; 10] = [0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54];
/// Established timings: 640x480, 800x600, 1024x768, each at 60 Hz.
const ESTABLISHED: [u8; 3] = [1 << 5 | 1, 1 << 3, 0];
const UNUSED_TIMING: [u8; 2] = [1, 1];
const NAME: [u8; 13] = *b"Reeve\n       ";

/// That of a monitor of `width` by `height` pixels, each at most 4095.
pub(super) fn edid(width: u16, height: u16) -> [u8; EDID_BYTES] {
    let mut bytes = Vec::with_capacity(EDID_BYTES);
    bytes.extend(HEADER);
    bytes.extend(MANUFACTURER);
    // Product, serial number, week, year (2026), version.
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 36, 1, 4]);
    let millimetres = |pixels: u16| u32::from(pixels) * PIXEL_PITCH / 100;
    let (wide, high) = (millimetres(width), millimetres(height));
    bytes.extend([INPUT, low(wide / 10), low(high / 10), GAMMA, FEATURES]);
    bytes.extend(CHROMATICITY);
    bytes.extend(ESTABLISHED);
    bytes.extend([UNUSED_TIMING; 8].as_flattened());
    bytes.extend(timing(width.into(), height.into(), wide, high));
    // The name; two descriptors that say nothing.
    bytes.extend([0, 0, 0, 0xfc, 0]);
    bytes.extend(NAME);
    for _ in 0..2 {
        bytes.extend([0, 0, 0, 0x10, 0]);
        bytes.extend([0; 13]);
    }
    // No further block.
    bytes.push(0);
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes.push(sum.wrapping_neg());
    bytes.try_into().unwrap_or([0; EDID_BYTES])
}

/// The detailed timing of a mode.
fn timing(width: u32, height: u32, wide: u32, high: u32) -> [u8; 18] {
    let pixels = (width + BLANK_PIXELS) * (height + BLANK_LINES);
    // In units of 10 kHz: 26 MHz to 290 MHz.
    let clock = pixels * PICTURES_PER_SECOND / 10_000;
    let upper = |first: u32, second: u32| low(first >> 8 & 15) << 4 | low(second >> 8 & 15);
    [
        low(clock),
        low(clock >> 8),
        low(width),
        low(BLANK_PIXELS),
        upper(width, BLANK_PIXELS),
        low(height),
        low(BLANK_LINES),
        upper(height, BLANK_LINES),
        HORIZONTAL_FRONT,
        HORIZONTAL_SYNC,
        VERTICAL_FRONT << 4 | VERTICAL_SYNC,
        0,
        low(wide),
        low(high),
        upper(wide, high),
        0,
        0,
        // Digital separate syncs; the horizontal one is positive.
        0x1a,
    ]
}

/// The lowest byte.
fn low(value: u32) -> u8 {
    let [byte, ..] = value.to_le_bytes();
    byte
}
