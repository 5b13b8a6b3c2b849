//! What the two protocols have in common by which somebody else serves queues: that of the kernel
//! (`linux/vhost.h`, [`super::net`]) and vhost-user ([`super::vhost_user`]), which was made from it. Numbers are
//! in the host's order, which is little endian here.

/// Bytes of `struct vhost_vring_addr`.
pub(super) const VRING_ADDR_BYTES: usize = 40;
/// Bytes of a memory table without its regions.
pub(super) const TABLE_BYTES: usize = 8;
/// Bytes of a region of a memory table.
pub(super) const REGION_BYTES: usize = 32;

/// A ring's number with a value (`struct vhost_vring_state`).
pub(super) fn vring_state(index: u16, value: u32) -> [u8; 8] {
    let [a, b, c, d] = u32::from(index).to_le_bytes();
    let [e, f, g, h] = value.to_le_bytes();
    [a, b, c, d, e, f, g, h]
}

/// The ring's number and the value.
pub(super) fn take_vring_state(state: u64) -> (u64, u64) {
    (state & u64::from(u32::MAX), state >> 32)
}

/// Where a ring is (`struct vhost_vring_addr`): its descriptor table, driver area and device area.
pub(super) fn vring_addr(
    index: u16,
    [descriptors, available, used]: [u64; 3],
) -> [u8; VRING_ADDR_BYTES] {
    let mut bytes = [0; VRING_ADDR_BYTES];
    // And no flag: nothing is logged.
    let parts = [u64::from(index), descriptors, used, available, 0];
    for (to, from) in bytes.chunks_exact_mut(8).zip(parts) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    bytes
}

/// The guest's memory (`struct vhost_memory`, `struct VhostUserMemory`): of each region its guest-physical
/// address, its bytes, its address where the front end has it mapped, and a word of the protocol's own.
pub(super) fn memory_table(regions: impl Iterator<Item = [u64; 4]>) -> Vec<u8> {
    let mut table = vec![0; TABLE_BYTES];
    let mut count = 0_u32;
    for part in regions.inspect(|_| count += 1).flatten() {
        table.extend_from_slice(&part.to_le_bytes());
    }
    // And four bytes of padding.
    for (to, from) in table.iter_mut().zip(count.to_le_bytes()) {
        *to = from;
    }
    table
}
