//! The header in front of every frame (§5.1.6), in both directions.
//!
//! A driver's header is copied out of guest memory once, checked here, and rebuilt with nothing but
//! what was checked; the host kernel sees that copy and never the guest's memory. A header from the
//! host is checked against what the driver has agreed to take: a frame may have waited in the tap
//! since before its offloads changed.

use super::features::Offloads;
use super::transport::{Ip, Protocol, Transport};

/// Bytes of the header: under virtio 1 always with `num_buffers`.
pub(super) const HEADER_BYTES: usize = 12;
/// The longest frame: with the header it makes the 65,562 bytes of §5.1.6.3.1.
pub(super) const MAX_FRAME: usize = 65_550;
/// An Ethernet header, the least a frame has.
pub(super) const MIN_FRAME: usize = 14;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`.
const DATA_VALID: u8 = 2;

/// `VIRTIO_NET_HDR_GSO_NONE`.
const GSO_NONE: u8 = 0;
/// `VIRTIO_NET_HDR_GSO_TCPV4`.
const GSO_TCP4: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV6`.
const GSO_TCP6: u8 = 4;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`.
const GSO_UDP_L4: u8 = 5;

/// `struct virtio_net_hdr`, as copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Header {
    flags: u8,
    gso_type: u8,
    hdr_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
    num_buffers: u16,
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderFault {
    /// An offload that was not agreed on, or that nobody knows.
    #[error("offload that was not negotiated")]
    NotNegotiated,
    /// The checksum is not inside the frame.
    #[error("checksum outside the frame")]
    Checksum,
    /// The headers are longer than the frame, or the segments have no size.
    #[error("segments of no size, or headers longer than the frame")]
    Segments,
    /// The frame's own headers have no checksum of TCP, UDP or GRE there, or are of another protocol than the
    /// segments are to be.
    #[error("checksum or segments of something else than the frame has")]
    Transport,
}

impl Header {
    pub(super) fn decode(bytes: [u8; HEADER_BYTES]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, n0, n1] = bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
            num_buffers: u16::from_le_bytes([n0, n1]),
        }
    }

    pub(super) fn encode(self) -> [u8; HEADER_BYTES] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        let [n0, n1] = self.num_buffers.to_le_bytes();
        [
            self.flags,
            self.gso_type,
            h0,
            h1,
            g0,
            g1,
            s0,
            s1,
            o0,
            o1,
            n0,
            n1,
        ]
    }

    /// The header to give the host, from a driver's for a frame of `frame` bytes. Flags nobody knows
    /// are ignored (§5.1.6.2.2), and so is what has no meaning without its flag.
    ///
    /// # Errors
    /// [`HeaderFault`]: the frame is to be dropped.
    pub(super) fn outgoing(self, frame: usize, offloads: Offloads) -> Result<Self, HeaderFault> {
        // Every segment gets a checksum of its own: §5.1.6.2.1 asks for the flag. The host's frames may
        // have had theirs checked already.
        if self.gso_type != GSO_NONE && self.flags & NEEDS_CSUM == 0 {
            return Err(HeaderFault::Checksum);
        }
        self.checked(frame, offloads, NEEDS_CSUM)
    }

    /// Whether the host is to write a checksum into the frame.
    pub(super) fn leaves_checksum(self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// Whether what is left to the host is about the transport that the frame which begins with `bytes` has:
    /// its checksum at its place, and segments of its kind. Whoever leaves nothing is not asked.
    ///
    /// # Errors
    /// [`HeaderFault::Transport`]: the frame is to be dropped.
    pub(super) fn fits(self, bytes: &[u8]) -> Result<(), HeaderFault> {
        if !self.leaves_checksum() {
            return Ok(());
        }
        let Some(Transport { ip, protocol, at }) = Transport::of(bytes) else {
            return Err(HeaderFault::Transport);
        };
        let segments = match self.gso_type {
            GSO_NONE => true,
            GSO_TCP4 => (ip, protocol) == (Ip::V4, Protocol::Tcp),
            GSO_TCP6 => (ip, protocol) == (Ip::V6, Protocol::Tcp),
            GSO_UDP_L4 => protocol == Protocol::Udp,
            _ => false,
        };
        let checksum = usize::from(self.csum_start) == at
            && usize::from(self.csum_offset) == protocol.checksum_at();
        if segments && checksum {
            Ok(())
        } else {
            Err(HeaderFault::Transport)
        }
    }

    /// The header to give the driver, from the host's for a frame of `frame` bytes.
    ///
    /// # Errors
    /// [`HeaderFault`]: the driver would not understand the frame.
    pub(super) fn incoming(self, frame: usize, offloads: Offloads) -> Result<Self, HeaderFault> {
        self.checked(frame, offloads, NEEDS_CSUM | DATA_VALID)
    }

    /// The same for a frame in so many buffers.
    pub(super) fn in_buffers(self, num_buffers: u16) -> Self {
        Self {
            num_buffers,
            ..self
        }
    }

    fn checked(self, frame: usize, offloads: Offloads, flags: u8) -> Result<Self, HeaderFault> {
        let mut checked = Self::default();
        if offloads.checksum {
            checked.flags = self.flags & flags;
        } else if self.flags & NEEDS_CSUM != 0 {
            return Err(HeaderFault::NotNegotiated);
        }
        if self.flags & NEEDS_CSUM != 0 {
            let end = usize::from(self.csum_start) + usize::from(self.csum_offset) + 2;
            if end > frame {
                return Err(HeaderFault::Checksum);
            }
            checked.csum_start = self.csum_start;
            checked.csum_offset = self.csum_offset;
        }
        let allowed = match self.gso_type {
            GSO_NONE => return Ok(checked),
            GSO_TCP4 => offloads.tcp4,
            GSO_TCP6 => offloads.tcp6,
            GSO_UDP_L4 => offloads.udp,
            _ => false,
        };
        if !allowed {
            return Err(HeaderFault::NotNegotiated);
        }
        if self.gso_size == 0 || usize::from(self.hdr_len) > frame {
            return Err(HeaderFault::Segments);
        }
        checked.gso_type = self.gso_type;
        checked.gso_size = self.gso_size;
        checked.hdr_len = self.hdr_len;
        Ok(checked)
    }
}

#[cfg(test)]
#[path = "tests/header.rs"]
mod tests;
