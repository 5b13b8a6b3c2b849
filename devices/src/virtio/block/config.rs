//! The configuration space of virtio-blk (virtio 1.3 §5.2.4).

use super::request::{MAX_DISCARD_SECTORS, MAX_ZERO_SECTORS};
use crate::block::SECTOR_BYTES;
use crate::virtio::read_config_space;

/// Bytes up to the fields of features that are not offered.
const BYTES: usize = 60;

/// What is in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Config {
    /// The disk's size in bytes.
    pub(super) capacity: u64,
    /// The most data buffers of one request.
    pub(super) seg_max: u32,
    /// Bytes of a logical block.
    pub(super) block: u32,
    /// Bytes of a physical block.
    pub(super) physical_block: u32,
    /// Bytes that discards are best aligned to.
    pub(super) discard_granularity: u32,
    /// Queues.
    pub(super) queues: u16,
    /// Whether zeroed ranges may give their room back.
    pub(super) unmap: bool,
}

impl Config {
    /// Fills `data` from byte `offset` of the space on; what is beyond it is zero.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&self.bytes(), offset, data);
    }

    fn bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let mut put = |offset: usize, value: &[u8]| {
            if let Some(place) = bytes.get_mut(offset..offset + value.len()) {
                place.copy_from_slice(value);
            }
        };
        let granularity = u64::from(self.discard_granularity) / SECTOR_BYTES;
        let blocks = (self.physical_block / self.block).max(1);
        put(0, &(self.capacity / SECTOR_BYTES).to_le_bytes());
        put(12, &self.seg_max.to_le_bytes());
        put(20, &self.block.to_le_bytes());
        // Topology: the exponent, and the least size of efficient requests, in logical blocks.
        put(24, &[u8::try_from(blocks.ilog2()).unwrap_or_default()]);
        put(26, &u16::try_from(blocks).unwrap_or(u16::MAX).to_le_bytes());
        put(34, &self.queues.to_le_bytes());
        put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
        put(40, &1_u32.to_le_bytes());
        put(
            44,
            &u32::try_from(granularity).unwrap_or(1).max(1).to_le_bytes(),
        );
        put(48, &MAX_ZERO_SECTORS.to_le_bytes());
        put(52, &1_u32.to_le_bytes());
        put(56, &[self.unmap.into()]);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: Config = Config {
        capacity: 0x1234_5678 * 512,
        seg_max: 254,
        block: 512,
        physical_block: 4096,
        discard_granularity: 4096,
        queues: 4,
        unmap: true,
    };

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let field = |offset, len: usize| {
            let mut bytes = [0; 8];
            CONFIG.read(offset, &mut bytes[..len]);
            u64::from_le_bytes(bytes)
        };
        for (offset, len, value) in [
            (0, 8, 0x1234_5678),
            (8, 4, 0),
            (12, 4, 254),
            (20, 4, 512),
            (24, 1, 3),
            (26, 2, 8),
            (34, 2, 4),
            (36, 4, 1 << 21),
            (40, 4, 1),
            (44, 4, 8),
            (48, 4, 1 << 18),
            (52, 4, 1),
            (56, 1, 1),
        ] {
            assert_eq!(field(offset, len), value, "at {offset}");
        }
    }

    #[test]
    fn what_is_beyond_the_space_reads_as_zero() {
        for offset in [56, 60, 4096, u64::MAX] {
            let mut bytes = [9; 8];
            CONFIG.read(offset, &mut bytes);
            assert_eq!(bytes[1..], [0; 7], "at {offset:#x}");
        }
    }
}
