//! A set of vCPU indices, of fixed size.

/// The indices 0 to 1023, each in or out; others are never in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VcpuBits([u8; 128]);

impl VcpuBits {
    /// How many indices there are.
    pub(super) const CAPACITY: u32 = 1024;

    pub(super) fn from_bytes(bytes: &[u8; 128]) -> Self {
        Self(*bytes)
    }

    pub(super) fn to_bytes(self) -> [u8; 128] {
        self.0
    }

    pub(super) fn contains(&self, index: u32) -> bool {
        let (byte, bit) = Self::place(index);
        self.0.get(byte).is_some_and(|byte| byte & bit != 0)
    }

    pub(super) fn insert(&mut self, index: u32) {
        let (byte, bit) = Self::place(index);
        if let Some(byte) = self.0.get_mut(byte) {
            *byte |= bit;
        }
    }

    pub(super) fn remove(&mut self, index: u32) {
        let (byte, bit) = Self::place(index);
        if let Some(byte) = self.0.get_mut(byte) {
            *byte &= !bit;
        }
    }

    /// The lowest index that is in.
    pub(super) fn first(&self) -> Option<u32> {
        let (base, byte) = (0..).step_by(8).zip(self.0).find(|(_, byte)| *byte != 0)?;
        Some(base + byte.trailing_zeros())
    }

    /// The highest index that is in.
    pub(super) fn last(&self) -> Option<u32> {
        let bytes = (0..).step_by(8).zip(self.0);
        let (base, byte) = bytes.filter(|(_, byte)| *byte != 0).last()?;
        Some(base + byte.ilog2())
    }

    /// True if all that is in this set is in `other`.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        let mut bytes = self.0.iter().zip(other.0);
        bytes.all(|(byte, other)| byte & !other == 0)
    }

    fn place(index: u32) -> (usize, u8) {
        let byte = usize::try_from(index / 8).unwrap_or(usize::MAX);
        (byte, 1 << (index % 8))
    }
}

impl Default for VcpuBits {
    fn default() -> Self {
        Self([0; 128])
    }
}
