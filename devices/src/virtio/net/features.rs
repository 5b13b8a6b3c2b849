//! Feature bits of the device (§5.1.3), and the offloads that follow from them.

/// The device takes frames whose checksum it has to fill in.
pub(super) const F_CSUM: u64 = 1 << 0;
/// The driver takes frames whose checksum it has to check or fill in.
pub(super) const F_GUEST_CSUM: u64 = 1 << 1;
/// The driver changes its offloads while it runs.
pub(super) const F_CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
/// The device tells the MTU.
pub(super) const F_MTU: u64 = 1 << 3;
/// The device tells the MAC address.
pub(super) const F_MAC: u64 = 1 << 5;
/// The driver takes TCP over IPv4 that is not cut into segments.
pub(super) const F_GUEST_TSO4: u64 = 1 << 7;
/// The driver takes TCP over IPv6 that is not cut into segments.
pub(super) const F_GUEST_TSO6: u64 = 1 << 8;
/// The device takes TCP over IPv4 that is not cut into segments.
pub(super) const F_HOST_TSO4: u64 = 1 << 11;
/// The device takes TCP over IPv6 that is not cut into segments.
pub(super) const F_HOST_TSO6: u64 = 1 << 12;
/// A frame may be spread over several receive buffers.
pub(super) const F_MRG_RXBUF: u64 = 1 << 15;
/// The device tells the state of the link.
pub(super) const F_STATUS: u64 = 1 << 16;
/// There is a control queue.
pub(super) const F_CTRL_VQ: u64 = 1 << 17;
/// Receive modes and MAC tables.
pub(super) const F_CTRL_RX: u64 = 1 << 18;
/// More receive modes.
pub(super) const F_CTRL_RX_EXTRA: u64 = 1 << 20;
/// The device asks the driver to announce itself on the network.
pub(super) const F_GUEST_ANNOUNCE: u64 = 1 << 21;
/// Several pairs of queues.
pub(super) const F_MQ: u64 = 1 << 22;
/// The driver sets the MAC address.
pub(super) const F_CTRL_MAC_ADDR: u64 = 1 << 23;
/// The driver takes UDP over IPv4 that is not cut into datagrams.
pub(super) const F_GUEST_USO4: u64 = 1 << 54;
/// The driver takes UDP over IPv6 that is not cut into datagrams.
pub(super) const F_GUEST_USO6: u64 = 1 << 55;
/// The device takes UDP that is not cut into datagrams.
pub(super) const F_HOST_USO: u64 = 1 << 56;
/// The device tells speed and duplex.
pub(super) const F_SPEED_DUPLEX: u64 = 1 << 63;

/// What a driver may switch by `VIRTIO_NET_CTRL_GUEST_OFFLOADS`; the bits are the features' own.
pub(super) const GUEST_OFFLOADS: u64 =
    F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_USO4 | F_GUEST_USO6;

/// What one side leaves to the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Checksums of TCP and UDP.
    pub checksum: bool,
    /// Cutting TCP over IPv4 into segments.
    pub tcp4: bool,
    /// Cutting TCP over IPv6 into segments.
    pub tcp6: bool,
    /// Cutting UDP into datagrams, over either version of IP.
    pub udp: bool,
}

impl Offloads {
    /// What the driver may leave to the device, of features negotiated. A feature without the one it
    /// depends on (§5.1.3.1) counts for nothing.
    pub(super) fn of_host(features: u64) -> Self {
        let checksum = features & F_CSUM != 0;
        let segments = |bit| checksum && features & bit != 0;
        Self {
            checksum,
            tcp4: segments(F_HOST_TSO4),
            tcp6: segments(F_HOST_TSO6),
            udp: segments(F_HOST_USO),
        }
    }

    /// What the device may leave to the driver, of features negotiated or of what the driver has
    /// switched on. UDP needs both versions of IP: a tap knows no other.
    pub(super) fn of_guest(bits: u64) -> Self {
        let checksum = bits & F_GUEST_CSUM != 0;
        let segments = |wanted| checksum && bits & wanted == wanted;
        Self {
            checksum,
            tcp4: segments(F_GUEST_TSO4),
            tcp6: segments(F_GUEST_TSO6),
            udp: segments(F_GUEST_USO4 | F_GUEST_USO6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_left_to_nobody_without_checksums() {
        let all = F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_USO;
        assert_eq!(Offloads::of_host(all), Offloads::default());
        assert!(Offloads::of_host(all | F_CSUM).udp);
        let guest = GUEST_OFFLOADS & !F_GUEST_CSUM;
        assert_eq!(Offloads::of_guest(guest), Offloads::default());
    }

    #[test]
    fn udp_is_left_to_the_driver_for_both_versions_of_ip_or_not_at_all() {
        assert!(Offloads::of_guest(GUEST_OFFLOADS).udp);
        assert!(!Offloads::of_guest(F_GUEST_CSUM | F_GUEST_USO4).udp);
        assert!(!Offloads::of_guest(F_GUEST_CSUM | F_GUEST_USO6).udp);
    }
}
