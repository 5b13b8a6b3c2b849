//! Bits of a byte string, read from its start or from its end.

/// Bits `start` to `start + count` of `bytes`, the lowest bit of the first byte being bit 0; what
/// is behind the end is zero. At most 32 bits.
fn extract(bytes: &[u8], start: usize, count: u32) -> u64 {
    let rest = bytes.get(start / 8..).unwrap_or_default();
    let word = match rest.first_chunk() {
        Some(word) => u64::from_le_bytes(*word),
        None => super::little_endian(rest),
    };
    (word >> (start % 8)) & ((1 << count) - 1)
}

/// Reads from the start.
pub(super) struct Forward<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Forward<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next bits, which stay; what is behind the end is zero.
    pub(super) fn peek(&self, count: u32) -> u64 {
        extract(self.bytes, self.at, count)
    }

    pub(super) fn skip(&mut self, count: u32) {
        self.at += count as usize;
    }

    pub(super) fn read(&mut self, count: u32) -> u64 {
        let bits = self.peek(count);
        self.skip(count);
        bits
    }

    /// The bytes behind those of which anything was read, if that many were there.
    pub(super) fn rest(&self) -> Option<&'a [u8]> {
        self.bytes.get(self.at.div_ceil(8)..)
    }
}

/// Reads from the end, where the highest set bit of the last byte is not part of what is read.
pub(super) struct Backward<'a> {
    bytes: &'a [u8],
    /// Bits that are left, negative where more were read than there are.
    left: isize,
}

impl<'a> Backward<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let last = bytes.last().filter(|&&last| last != 0)?;
        let bits = (bytes.len() - 1) * 8 + last.ilog2() as usize;
        Some(Self {
            bytes,
            left: isize::try_from(bits).ok()?,
        })
    }

    /// The next bits, which stay; what is before the start is zero. At most 32.
    pub(super) fn peek(&self, count: u32) -> u64 {
        let start = self.left - count as isize;
        match usize::try_from(start) {
            Ok(start) => extract(self.bytes, start, count),
            Err(_) => {
                let there = u32::try_from(self.left).unwrap_or(0).min(count);
                extract(self.bytes, 0, there) << (count - there)
            }
        }
    }

    pub(super) fn skip(&mut self, count: u32) {
        self.left = self.left.saturating_sub(count as isize);
    }

    pub(super) fn read(&mut self, count: u32) -> u64 {
        let bits = self.peek(count);
        self.skip(count);
        bits
    }

    /// More was read than there is.
    pub(super) fn is_overrun(&self) -> bool {
        self.left < 0
    }

    /// All was read and no more.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0
    }
}
