//! Lines on COM1.
//!
//! A line is put together in memory and written in one go from ring 0. The transmitter is not
//! polled: each poll would cost as much as a byte, and the machine's UART takes bytes at any rate.
//! Used by one processor at a time.

use crate::ring0;

/// Longest line; what is longer is cut.
const CAPACITY: usize = 160;

/// A line under construction. Nothing is printed before [`Line::end`].
pub struct Line {
    bytes: [u8; CAPACITY],
    used: usize,
}

/// Starts a line.
pub fn line() -> Line {
    Line {
        bytes: [0; CAPACITY],
        used: 0,
    }
}

/// Writes bytes as they are.
pub fn print(text: &[u8]) {
    ring0::write_serial(text);
}

impl Line {
    /// Appends text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.raw(text.as_bytes())
    }

    /// Appends bytes.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        for &byte in bytes {
            self.put(byte, CAPACITY - 1);
        }
        self
    }

    /// Appends a number in decimal.
    pub fn decimal(&mut self, value: u64) -> &mut Self {
        self.padded(value, 1)
    }

    /// Appends a number in decimal with at least `width` digits (at most 20).
    pub fn padded(&mut self, mut value: u64, width: usize) -> &mut Self {
        let mut digits = [b'0'; 20];
        let mut first = digits.len();
        for (place, digit) in digits.iter_mut().enumerate().rev() {
            if value > 0 {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
                first = place;
            }
        }
        let first = first.min(digits.len().saturating_sub(width));
        self.raw(digits.get(first..).unwrap_or_default())
    }

    /// Appends a number in hexadecimal, with its prefix.
    pub fn hex(&mut self, value: u64) -> &mut Self {
        self.text("0x");
        let nibbles = (64 - value.leading_zeros()).div_ceil(4).max(1);
        for nibble in (0..nibbles).rev() {
            let digit = (value >> (4 * nibble)) as u8 & 0xf;
            self.raw(&[if digit < 10 {
                b'0' + digit
            } else {
                b'a' + digit - 10
            }]);
        }
        self
    }

    /// Ends the line and prints it.
    pub fn end(&mut self) {
        self.put(b'\n', CAPACITY);
        print(self.bytes.get(..self.used).unwrap_or_default());
    }

    /// Appends one byte if fewer than `limit` are there; text leaves the newline its place.
    fn put(&mut self, byte: u8, limit: usize) {
        let place = self
            .bytes
            .get_mut(..limit)
            .and_then(|bytes| bytes.get_mut(self.used));
        if let Some(place) = place {
            *place = byte;
            self.used += 1;
        }
    }
}
