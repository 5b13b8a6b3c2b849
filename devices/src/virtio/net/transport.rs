//! Where the headers of a frame say that TCP, UDP or GRE begins in it.
//!
//! A frame may leave a checksum to the host (§5.1.6.2), which then writes two bytes of it, wherever its header
//! says, behind whatever filter the frame has passed by then. So the place that a guest states is compared
//! with the only one that a checksum of TCP, UDP or GRE has. What is read here must be a copy, and the copy what is
//! sent: the guest may change its own memory at any instant.

/// A tag (IEEE 802.1Q), and one of a provider around it (802.1ad).
const TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
const KIND_IPV4: [u8; 2] = [0x08, 0x00];
const KIND_IPV6: [u8; 2] = [0x86, 0xdd];
/// Two Ethernet addresses.
const ADDRESSES_BYTES: usize = 12;
/// The most tags of a frame: a provider's and its customer's.
const MAX_TAGS: usize = 2;
const IPV6_BYTES: usize = 40;
/// A fragment other than the first, or one that more follow: everything but "don't fragment".
const FRAGMENT: u16 = 0xbfff;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Generic encapsulation, whose checksum Linux leaves to the host as it does those of the others (RFC 2784).
const GRE: u8 = 47;
/// Of GRE's first byte: there is a checksum.
const GRE_CHECKSUM: u8 = 0x80;
/// What may be between IPv6 and the transport and has the same shape (RFC 8200, §4): options for each hop,
/// routing, and options for the destination.
const EXTENSIONS: [u8; 3] = [0, 43, 60];

/// A version of the internet protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ip {
    /// 4.
    V4,
    /// 6.
    V6,
}

/// A protocol with a checksum that may be left to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// GRE with a checksum.
    Gre,
}

impl Protocol {
    /// Where its checksum is in its header.
    pub(super) fn checksum_at(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
            Self::Gre => 4,
        }
    }
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transport {
    pub(super) ip: Ip,
    pub(super) protocol: Protocol,
    /// Where its header begins in the frame.
    pub(super) at: usize,
}

impl Transport {
    /// That of the frame which begins with `bytes`; `None` if it is none of the three, is in fragments, or
    /// begins behind `bytes`.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let mut kind_at = ADDRESSES_BYTES;
        for _ in 0..MAX_TAGS {
            if TAGS.contains(&two(bytes, kind_at)?) {
                kind_at += 4;
            }
        }
        let at = kind_at + 2;
        match two(bytes, kind_at)? {
            KIND_IPV4 => Self::of_ipv4(bytes, at),
            KIND_IPV6 => Self::of_ipv6(bytes, at),
            _ => None,
        }
    }

    fn of_ipv4(bytes: &[u8], at: usize) -> Option<Self> {
        let first = *bytes.get(at)?;
        let length = usize::from(first & 0xf) * 4;
        let fragment = u16::from_be_bytes(two(bytes, at + 6)?);
        if first >> 4 != 4 || length < 20 || fragment & FRAGMENT != 0 {
            return None;
        }
        Self::new(Ip::V4, *bytes.get(at + 9)?, at + length, bytes)
    }

    fn of_ipv6(bytes: &[u8], at: usize) -> Option<Self> {
        if *bytes.get(at)? >> 4 != 6 {
            return None;
        }
        let mut next = *bytes.get(at + 6)?;
        let mut at = at + IPV6_BYTES;
        // Each takes eight bytes at least of what was copied.
        while EXTENSIONS.contains(&next) {
            let [following, length] = two(bytes, at)?;
            next = following;
            at += (usize::from(length) + 1) * 8;
        }
        Self::new(Ip::V6, next, at, bytes)
    }

    fn new(ip: Ip, protocol: u8, at: usize, bytes: &[u8]) -> Option<Self> {
        let protocol = match protocol {
            TCP => Protocol::Tcp,
            UDP => Protocol::Udp,
            GRE if bytes.get(at)? & GRE_CHECKSUM != 0 => Protocol::Gre,
            _ => return None,
        };
        // All headers before it were read.
        (at <= bytes.len()).then_some(Self { ip, protocol, at })
    }
}

fn two(bytes: &[u8], at: usize) -> Option<[u8; 2]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
#[path = "tests/transport.rs"]
mod tests;
