//! Messages of the vhost-user protocol: a header of three words, then a body whose length the request
//! fixes. Numbers are in the host's order, which is little endian here.

use crate::virtio::queue::QueueLayout;
use crate::virtio::vhost;

/// `VHOST_USER_F_PROTOCOL_FEATURES`.
pub(super) const F_PROTOCOL_FEATURES: u64 = 1 << 30;

/// `VHOST_USER_PROTOCOL_F_MQ`: it serves more than one pair of queues, and says how many.
pub(super) const PROTOCOL_F_MQ: u64 = 1 << 0;

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 12;
/// The version of the protocol, in the flags of every message.
const VERSION: u32 = 1;
/// In the flags of an answer.
const REPLY: u32 = 1 << 2;
/// What of the flags is looked at in an answer: version and kind.
const REPLY_MASK: u32 = 0b111;

/// What is asked of a back end. Those that have an answer are so described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Request {
    /// Its features; one word.
    GetFeatures = 1,
    /// Those agreed on.
    SetFeatures = 2,
    /// Begins the session.
    SetOwner = 3,
    /// The guest's memory, with a descriptor for each region.
    SetMemTable = 5,
    /// How many entries a ring has.
    SetVringNum = 8,
    /// Where it is.
    SetVringAddr = 9,
    /// The next available entry.
    SetVringBase = 10,
    /// Stops a ring; the next available entry, as `vring_state` has it.
    GetVringBase = 11,
    /// The event that the driver notifies by. Starts the ring.
    SetVringKick = 12,
    /// The event that the back end interrupts by.
    SetVringCall = 13,
    /// Features of the protocol; one word.
    GetProtocolFeatures = 15,
    /// Those agreed on.
    SetProtocolFeatures = 16,
    /// The most rings that it serves; one word.
    GetQueueNum = 17,
    /// Whether a ring is served.
    SetVringEnable = 18,
}

/// A header.
pub(super) fn header(request: Request, body: usize) -> [u8; HEADER_BYTES] {
    // No body here has more than some hundred bytes.
    let body = u32::try_from(body).unwrap_or(u32::MAX);
    words([request as u32, VERSION, body])
}

/// Whether `header` is that of an answer of 8 bytes to `request`.
pub(super) fn is_answer(header: [u8; HEADER_BYTES], request: Request) -> Result<(), &'static str> {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = header;
    let number = u32::from_le_bytes([a, b, c, d]);
    let flags = u32::from_le_bytes([e, f, g, h]);
    let body = u32::from_le_bytes([i, j, k, l]);
    if number != request as u32 {
        Err("it answers what it was not asked")
    } else if flags & REPLY_MASK != VERSION | REPLY {
        Err("what it says is no answer")
    } else if body != 8 {
        Err("an answer has another length than it must")
    } else {
        Ok(())
    }
}

/// Where a ring is. Addresses are "user addresses" of the front end, which here are those of the guest
/// ([`super::memory`]).
pub(super) fn vring_addr(index: u16, layout: QueueLayout) -> [u8; vhost::VRING_ADDR_BYTES] {
    let QueueLayout {
        descriptors,
        available,
        used,
        ..
    } = layout;
    vhost::vring_addr(index, [descriptors, available, used])
}

fn words(words: [u32; 3]) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    for (to, from) in bytes.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    bytes
}
