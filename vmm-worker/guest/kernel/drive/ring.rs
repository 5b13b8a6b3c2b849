//! The arithmetic of a split virtqueue (virtio 1.3 §2.7). Pure, and compiled into the host library's
//! tests as well.

/// `VIRTQ_DESC_F_NEXT`.
pub const NEXT: u16 = 1;
/// `VIRTQ_DESC_F_WRITE`.
pub const WRITE: u16 = 2;
/// `VIRTQ_DESC_F_INDIRECT`.
pub const INDIRECT: u16 = 4;

/// The most entries of a queue for which [`Rings::at`] has room.
pub const MAX_SIZE: u16 = 1024;

/// Where the three rings of a queue are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rings {
    /// Entries: a power of two.
    pub size: u16,
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring: flags, index, entries, `used_event`.
    pub available: u64,
    /// Used ring: flags, index, entries, `avail_event`.
    pub used: u64,
}

impl Rings {
    /// The rings of a queue at `base`, a page; they take 32 KiB at most.
    pub const fn at(base: u64, size: u16) -> Self {
        Self {
            size,
            descriptors: base,
            available: base + (16 << 10),
            used: base + (20 << 10),
        }
    }

    /// The descriptor of that number, beyond the table too.
    pub const fn descriptor(&self, index: u16) -> u64 {
        self.descriptors + index as u64 * 16
    }

    /// The index of the available ring.
    pub const fn available_index(&self) -> u64 {
        self.available + 2
    }

    /// The entry of the available ring for a running count.
    pub const fn available_entry(&self, count: u16) -> u64 {
        self.available + 4 + (count % self.size) as u64 * 2
    }

    /// Where the driver says when it wants to be interrupted.
    pub const fn used_event(&self) -> u64 {
        self.available + 4 + self.size as u64 * 2
    }

    /// The index of the used ring.
    pub const fn used_index(&self) -> u64 {
        self.used + 2
    }

    /// The entry of the used ring for a running count.
    pub const fn used_entry(&self, count: u16) -> u64 {
        self.used + 4 + (count % self.size) as u64 * 8
    }

    /// Where the device says when it wants to be notified.
    pub const fn available_event(&self) -> u64 {
        self.used + 4 + self.size as u64 * 8
    }
}

/// Whether going from `old` to `new` has passed `event` (§2.7.7.1).
pub const fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// The largest power of two that is at most `limit` and [`MAX_SIZE`]; zero for zero.
pub const fn queue_size(limit: u16) -> u16 {
    let limit = if limit > MAX_SIZE { MAX_SIZE } else { limit };
    if limit == 0 {
        0
    } else {
        1 << (15 - limit.leading_zeros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_of_the_largest_queue_do_not_meet_and_are_aligned() {
        let rings = Rings::at(0x10_0000, MAX_SIZE);
        assert!(rings.descriptor(MAX_SIZE) <= rings.available);
        assert!(rings.used_event() + 2 <= rings.used);
        assert!(rings.available_event() + 2 <= 0x10_0000 + (32 << 10));
        assert_eq!(
            (
                rings.descriptors % 16,
                rings.available % 2,
                rings.used % 4,
                rings.used_entry(5) % 4
            ),
            (0, 0, 0, 0)
        );
    }

    #[test]
    fn entries_come_round_again_and_counts_wrap() {
        let rings = Rings::at(0, 8);
        assert_eq!(rings.available_entry(9), rings.available_entry(1));
        assert_eq!(
            rings.available_entry(u16::MAX),
            rings.available_entry(7),
            "65536 is a multiple of every size"
        );
        assert_eq!(rings.used_entry(8), rings.used + 4);
    }

    #[test]
    fn an_event_is_passed_once() {
        assert!(passed(0, 1, 0));
        assert!(passed(4, 6, 3));
        assert!(!passed(6, 6, 3));
        assert!(!passed(2, 6, 3));
        assert!(passed(u16::MAX, 1, 65530));
        assert!(!passed(5, 5, 5), "nothing new");
    }

    #[test]
    fn queue_sizes_are_powers_of_two_within_bounds() {
        assert_eq!(
            [0, 1, 3, 256, 1023, 1024, 32768].map(queue_size),
            [0, 1, 2, 256, 512, 1024, 1024]
        );
    }
}
