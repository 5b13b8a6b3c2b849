//! Pixels as a client wants them (RFC 6143, 7.4).

/// A pixel format, in true colour: the only one there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelFormat {
    /// Bytes of a pixel: 1, 2 or 4.
    bytes: u8,
    /// Bits that mean something.
    depth: u8,
    big_endian: bool,
    /// For red, green and blue: the largest value, and how far it is shifted left.
    colours: [(u16, u8); 3],
}

/// A format that cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A palette, which nothing needs any more.
    #[error("a client wants a palette")]
    Palette,
    /// Not 8, 16 or 32 bits.
    #[error("a client wants pixels of {0} bits")]
    Bits(u8),
    /// A colour without values, or outside the pixel.
    #[error("a client wants a colour of at most {max}, shifted by {shift}")]
    Colour {
        /// Its largest value.
        max: u16,
        /// How far it is shifted.
        shift: u8,
    },
}

impl PixelFormat {
    /// Bytes of one in a message.
    pub const WIRE_BYTES: usize = 16;

    /// What the server offers: 32 bits, of which 24 are red, green and blue, little-endian.
    pub const OFFERED: Self = Self {
        bytes: 4,
        depth: 24,
        big_endian: false,
        colours: [(255, 16), (255, 8), (255, 0)],
    };

    /// Takes one apart.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(wire: &[u8; Self::WIRE_BYTES]) -> Result<Self, FormatError> {
        let [
            bits,
            depth,
            big_endian,
            true_colour,
            red_0,
            red_1,
            green_0,
            green_1,
            blue_0,
            blue_1,
            red_shift,
            green_shift,
            blue_shift,
            ..,
        ] = *wire;
        if true_colour == 0 {
            return Err(FormatError::Palette);
        }
        let bytes = match bits {
            8 => 1,
            16 => 2,
            32 => 4,
            _ => return Err(FormatError::Bits(bits)),
        };
        let colours = [
            (u16::from_be_bytes([red_0, red_1]), red_shift),
            (u16::from_be_bytes([green_0, green_1]), green_shift),
            (u16::from_be_bytes([blue_0, blue_1]), blue_shift),
        ];
        for (max, shift) in colours {
            let highest = u64::from(max).checked_shl(shift.into()).unwrap_or(0);
            if max == 0 || shift >= bits || highest >> bits != 0 {
                return Err(FormatError::Colour { max, shift });
            }
        }
        Ok(Self {
            bytes,
            depth,
            big_endian: big_endian != 0,
            colours,
        })
    }

    /// Puts one together.
    #[must_use]
    pub fn wire(&self) -> [u8; Self::WIRE_BYTES] {
        let [(red, red_shift), (green, green_shift), (blue, blue_shift)] = self.colours;
        let [red, green, blue] = [red, green, blue].map(u16::to_be_bytes);
        [
            self.bytes * 8,
            self.depth,
            self.big_endian.into(),
            1,
            red[0],
            red[1],
            green[0],
            green[1],
            blue[0],
            blue[1],
            red_shift,
            green_shift,
            blue_shift,
            0,
            0,
            0,
        ]
    }

    /// The value of a pixel 0x00RRGGBB.
    fn value(&self, pixel: u32) -> u32 {
        if self.colours == Self::OFFERED.colours {
            return pixel;
        }
        let [_, red, green, blue] = pixel.to_be_bytes();
        [red, green, blue]
            .into_iter()
            .zip(self.colours)
            .fold(0, |value, (level, (max, shift))| {
                let level = (u32::from(level) * u32::from(max) + 127) / 255;
                value | level << shift
            })
    }

    fn put(&self, value: u32, skip: usize, bytes: usize, out: &mut Vec<u8>) {
        let wire = if self.big_endian {
            // The last bytes are the lowest.
            (value << (32 - 8 * u32::from(self.bytes))).to_be_bytes()
        } else {
            value.to_le_bytes()
        };
        out.extend(wire.into_iter().skip(skip).take(bytes));
    }

    /// Appends `pixels` as the client wants them.
    pub fn append(&self, pixels: &[u32], out: &mut Vec<u8>) {
        for pixel in pixels {
            self.put(self.value(*pixel), 0, self.bytes.into(), out);
        }
    }

    /// Appends a pixel without the byte that means nothing, if there is one (7.7.5, CPIXEL).
    pub fn append_compact(&self, pixel: u32, out: &mut Vec<u8>) {
        let mask = self
            .colours
            .iter()
            .fold(0, |mask, (max, shift)| mask | u32::from(*max) << shift);
        let (skip, bytes) = match (self.bytes, self.depth <= 24) {
            (4, true) if mask >> 24 == 0 => (usize::from(self.big_endian), 3),
            (4, true) if mask & 0xff == 0 => (usize::from(!self.big_endian), 3),
            (bytes, _) => (0, bytes.into()),
        };
        self.put(self.value(pixel), skip, bytes, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIXEL: u32 = 0xff_8001;

    fn format(bits: u8, big: u8, max: [u16; 3], shift: [u8; 3]) -> [u8; 16] {
        let [red, green, blue] = max.map(u16::to_be_bytes);
        let [a, b, c] = shift;
        [
            bits, 24, big, 1, red[0], red[1], green[0], green[1], blue[0], blue[1], a, b, c, 0, 0,
            0,
        ]
    }

    fn both(wire: [u8; 16]) -> (Vec<u8>, Vec<u8>) {
        let format = PixelFormat::parse(&wire).unwrap();
        assert_eq!(format.wire(), wire);
        let (mut whole, mut compact) = (Vec::new(), Vec::new());
        format.append(&[PIXEL], &mut whole);
        format.append_compact(PIXEL, &mut compact);
        (whole, compact)
    }

    #[test]
    fn a_pixel_is_as_the_client_wants_it() {
        let eight = [255; 3];
        let given = both(PixelFormat::OFFERED.wire());
        assert_eq!(given, (vec![1, 0x80, 0xff, 0], vec![1, 0x80, 0xff]));
        let given = both(format(32, 1, eight, [16, 8, 0]));
        assert_eq!(given, (vec![0, 0xff, 0x80, 1], vec![0xff, 0x80, 1]));
        let given = both(format(32, 0, eight, [24, 16, 8]));
        assert_eq!(given, (vec![0, 1, 0x80, 0xff], vec![1, 0x80, 0xff]));
        let given = both(format(32, 1, eight, [24, 16, 8]));
        assert_eq!(given, (vec![0xff, 0x80, 1, 0], vec![0xff, 0x80, 1]));
        let five = both(format(16, 0, [31, 63, 31], [11, 5, 0]));
        let value = (31_u16 << 11 | 32 << 5).to_le_bytes().to_vec();
        assert_eq!(five, (value.clone(), value));
        let big = both(format(16, 1, [31, 63, 31], [11, 5, 0]));
        assert_eq!(big.0, (31_u16 << 11 | 32 << 5).to_be_bytes());
        let three = both(format(8, 0, [7, 7, 3], [0, 3, 6]));
        assert_eq!(three.0, [0x07 | 4 << 3]);
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        let mut palette = PixelFormat::OFFERED.wire();
        palette[3] = 0;
        assert_eq!(PixelFormat::parse(&palette), Err(FormatError::Palette));
        let bits = format(24, 0, [255; 3], [16, 8, 0]);
        assert_eq!(PixelFormat::parse(&bits), Err(FormatError::Bits(24)));
        for (bits, max, shift) in [
            (32, 0, 0),
            (32, 255, 25),
            (32, 1, 255),
            (8, 256, 0),
            (16, u16::MAX, 1),
        ] {
            let refused = PixelFormat::parse(&format(bits, 0, [max, 1, 1], [shift, 0, 0]));
            assert_eq!(refused, Err(FormatError::Colour { max, shift }));
        }
        assert!(PixelFormat::parse(&format(32, 0, [u16::MAX, 1, 1], [16, 0, 1])).is_ok());
    }
}
