//! Frames that tests send.

/// A datagram of UDP upon IPv4 from `address` to 192.0.2.77, with at most some hundred bytes of data and without a
/// checksum of its own (RFC 768 lets it be).
#[must_use]
pub fn datagram(
    (to, from): ([u8; 6], [u8; 6]),
    address: [u8; 4],
    (from_port, to_port): (u16, u16),
    data: &[u8],
) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
    let mut packet = vec![0x45, 0];
    packet.extend(length(28 + data.len()));
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(address);
    packet.extend([192, 0, 2, 77]);
    let words = packet.chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    // Twenty bytes make no sum that folds to more than two.
    let checksum = !u16::try_from(folded).unwrap_or(u16::MAX);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(from_port.to_be_bytes());
    packet.extend(to_port.to_be_bytes());
    packet.extend(length(8 + data.len()));
    packet.extend([0, 0]);
    packet.extend(data);
    let mut frame = [to, from].concat();
    frame.extend([8, 0]);
    frame.extend(packet);
    frame
}
