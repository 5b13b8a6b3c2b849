//! A picture that a test draws on, and what a client makes of what it gets.

use std::sync::{Arc, Mutex};

use miniz_oxide::MZFlush;
use miniz_oxide::inflate::stream::{InflateState, inflate};

use crate::{InputSink, Pointer, Screen, Size};

/// The picture.
#[derive(Debug, Clone)]
pub(crate) struct Picture(Arc<Mutex<(Option<Size>, Vec<u32>)>>);

/// Who looks at it.
#[derive(Debug)]
pub(crate) struct Eye(Picture, Option<Size>);

impl Picture {
    pub(crate) fn new(width: u16, height: u16) -> Self {
        let picture = Self(Arc::default());
        picture.resize(width, height);
        picture
    }

    pub(crate) fn resize(&self, width: u16, height: u16) {
        let size = Size::new(width, height).expect("a size");
        let pixels = usize::from(width) * usize::from(height);
        *self.0.lock().unwrap() = (Some(size), vec![0; pixels]);
    }

    pub(crate) fn hide(&self) {
        self.0.lock().unwrap().0 = None;
    }

    pub(crate) fn set(&self, x: u16, y: u16, pixel: u32) {
        let mut picture = self.0.lock().unwrap();
        let width = picture.0.expect("a picture").width();
        picture.1[usize::from(y) * usize::from(width) + usize::from(x)] = pixel;
    }

    pub(crate) fn screen(&self) -> Eye {
        Eye(self.clone(), None)
    }
}

impl Screen for Eye {
    fn look(&mut self) -> Option<Size> {
        self.1 = self.0.0.lock().unwrap().0;
        self.1
    }

    fn read_line(&mut self, line: u16, pixels: &mut [u32]) {
        let width = self.1.expect("a picture").width();
        assert_eq!(pixels.len(), usize::from(width));
        let start = usize::from(line) * usize::from(width);
        let picture = self.0.0.lock().unwrap();
        pixels.copy_from_slice(&picture.1[start..start + usize::from(width)]);
    }
}

/// What people did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Key(u16, bool),
    Pointer(Pointer),
}

/// Takes notes of it.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Vec<Act>>);

impl Notes {
    pub(crate) fn take(&self) -> Vec<Act> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl InputSink for Notes {
    fn key(&self, code: u16, pressed: bool) {
        self.0.lock().unwrap().push(Act::Key(code, pressed));
    }

    fn pointer(&self, pointer: Pointer) {
        self.0.lock().unwrap().push(Act::Pointer(pointer));
    }
}

/// The pixels of a rectangle in ZRLE, in the format that the server offers.
pub(crate) fn unpack_zrle(
    stream: &mut InflateState,
    packed: &[u8],
    width: u16,
    height: u16,
) -> Vec<u32> {
    let mut plain = vec![0; 64 * 64 * 3 + 64];
    let result = inflate(stream, packed, &mut plain, MZFlush::Sync);
    assert_eq!(result.bytes_consumed, packed.len());
    plain.truncate(result.bytes_written);
    let (kind, mut rest) = plain.split_first().expect("a tile");
    let mut colour = || {
        let (pixel, after) = rest.split_at(3);
        rest = after;
        u32::from_le_bytes([pixel[0], pixel[1], pixel[2], 0])
    };
    let count = usize::from(width) * usize::from(height);
    let pixels = match *kind {
        0 => (0..count).map(|_| colour()).collect(),
        1 => vec![colour(); count],
        kind @ 2..=16 => {
            let palette: Vec<_> = (0..kind).map(|_| colour()).collect();
            let bits = match kind {
                2 => 1,
                3 | 4 => 2,
                _ => 4,
            };
            let bytes = (usize::from(width) * bits).div_ceil(8);
            let mut pixels = Vec::new();
            for line in rest.chunks(bytes) {
                for x in 0..usize::from(width) {
                    let byte = line[x * bits / 8];
                    let index = byte >> (8 - bits - x * bits % 8) & ((1 << bits) - 1);
                    pixels.push(palette[usize::from(index)]);
                }
            }
            rest = &[];
            pixels
        }
        kind => panic!("a tile of kind {kind}"),
    };
    assert_eq!(rest, []);
    pixels
}
