//! Memory sizes in CMOS RAM, where firmware for PCs leaves them for its later stages.

/// RAM as CMOS tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CmosMemory {
    /// Bytes of RAM from address 0 up to the hole below 4 GiB.
    pub below_4g: u64,
    /// Bytes of RAM from 4 GiB.
    pub above_4g: u64,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

impl CmosMemory {
    /// The registers that tell the sizes, each with its value.
    pub(super) fn registers(self) -> [(u8, u8); 11] {
        let base = self.below_4g.min(640 * KIB) / KIB;
        let extended = self.below_4g.saturating_sub(MIB) / KIB;
        let above_16m = self.below_4g.saturating_sub(16 * MIB) / (64 * KIB);
        let above_4g = self.above_4g / (64 * KIB);
        let [base_low, base_high] = word(base);
        let [extended_low, extended_high] = word(extended);
        let [above_16m_low, above_16m_high] = word(above_16m);
        let [high_low, high_mid, high_high, ..] = above_4g.min(0xff_ffff).to_le_bytes();
        [
            (0x15, base_low),
            (0x16, base_high),
            (0x17, extended_low),
            (0x18, extended_high),
            (0x30, extended_low),
            (0x31, extended_high),
            (0x34, above_16m_low),
            (0x35, above_16m_high),
            (0x5b, high_low),
            (0x5c, high_mid),
            (0x5d, high_high),
        ]
    }
}

/// What fits into 16 bits.
fn word(value: u64) -> [u8; 2] {
    u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes()
}
