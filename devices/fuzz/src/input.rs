//! The fuzzer's bytes as numbers and pieces. What is asked for beyond their end is zero or empty.

/// A string of bytes that is used up from its front.
#[derive(Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether everything was used.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let bytes = self.bytes(N);
        taken[..bytes.len()].copy_from_slice(bytes);
        taken
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    /// Two.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    /// Four.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// Eight.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// A number below `count`, by one byte.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.u8()) % count.max(1)
    }

    /// As many bytes as there are, at most `len`.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Bytes whose number is one byte.
    pub fn short(&mut self) -> &'a [u8] {
        let len = self.u8().into();
        self.bytes(len)
    }

    /// A length: mostly a small one, at times one that fits nowhere.
    pub fn len(&mut self) -> u32 {
        let value = self.u16();
        match value >> 13 {
            0..=3 => u32::from(value & 0xff),
            4 | 5 => u32::from(value & 0x1fff),
            6 => u32::from(value & 0x1fff) << 6,
            _ => self.u32(),
        }
    }
}
