//! The network that an instance has from its first start: what libvirt ships as `default`.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use reeve_ipc::model::{
    Dhcp, DhcpRange, Forward, InvalidName, Nat, Network, NetworkAddress, NetworkUuid,
};
use uuid::Uuid;

/// The name that libvirt's programs look for where nobody names another.
pub const NAME: &str = "default";

/// The third parts of its address that are tried, in order: the first is libvirt's, and the others are for hosts that
/// have that themselves, as guests of such a network do.
pub const PARTS: RangeInclusive<u8> = 122..=254;

/// That network, of a UUID that was drawn for it: NAT, 192.168.122.1/24 or another `part` than 122, DHCP from .2 to .254,
/// on the first bridge that is free of `virbr0`, `virbr1`, ...
///
/// # Errors
/// Never: the name is one.
pub fn definition(uuid: Uuid, part: u8) -> Result<Network, InvalidName> {
    let address = |last| IpAddr::V4(Ipv4Addr::new(192, 168, part, last));
    let mut network = Network::new(NAME.parse()?, NetworkUuid(uuid));
    network.forward = Forward::Nat(Nat::default());
    network.addresses.push(NetworkAddress {
        address: address(1),
        prefix: 24,
        local_ptr: false,
        dhcp: Some(Dhcp {
            ranges: vec![DhcpRange {
                first: address(2),
                last: address(254),
                lease: None,
            }],
            ..Dhcp::default()
        }),
        tftp_root: None,
    });
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_network_by_all_rules() {
        let network = definition(Uuid::from_u128(1), *PARTS.start()).unwrap();
        network.validate().unwrap();
        assert!(network.needs_server());
        let address = network.addresses.first().unwrap();
        assert_eq!(address.first().to_string(), "192.168.122.0");
    }
}
