//! How many there are that have not said who they are: so many in all, and so many of one address, so that
//! whoever opens as many connections as he can keeps nobody out but his neighbours.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Of all addresses.
pub(super) const MOST: usize = 64;
/// Of one.
const OF_ONE: usize = 8;
/// Of one site of IPv6.
const OF_SITE: usize = 16;

/// The bits of an IPv6 address that its host chooses itself.
const HOST_BITS: u32 = 64;
/// Those that a site chooses itself, which has so many networks (RFC 6177).
const SITE_BITS: u32 = 80;

/// Those there are, by address.
#[derive(Debug, Default)]
pub(in super::super) struct Strangers {
    inside: Mutex<HashMap<IpAddr, usize>>,
}

/// One of them; dropping it makes room.
#[derive(Debug)]
pub(super) struct Place {
    strangers: Arc<Strangers>,
    address: IpAddr,
}

impl Strangers {
    fn with<T>(&self, look: impl FnOnce(&mut HashMap<IpAddr, usize>) -> T) -> T {
        // Nothing panics while it is held.
        look(&mut self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A place for one of that address, where there is room.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = who_counts(address);
        let is_room = self.with(|inside| {
            let all: usize = inside.values().sum();
            let own = inside.get(&address).copied().unwrap_or(0);
            let of_site: usize = inside
                .iter()
                .filter(|(other, _)| is_one_site(**other, address))
                .map(|(_, count)| count)
                .sum();
            let is_room = all < MOST && own < OF_ONE && of_site < OF_SITE;
            if is_room {
                inside.insert(address, own + 1);
            }
            is_room
        });
        is_room.then(|| Place {
            strangers: Arc::clone(self),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.strangers.with(|inside| {
            let own = inside.get(&self.address).copied().unwrap_or(0);
            if own > 1 {
                inside.insert(self.address, own - 1);
            } else {
                inside.remove(&self.address);
            }
        });
    }
}

/// The address by which one is counted: of IPv6 the network, in which a host has as many addresses as it likes.
fn who_counts(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> HOST_BITS << HOST_BITS;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address => address,
    }
}

/// Whether both are of one site of IPv6.
fn is_one_site(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            one.to_bits() >> SITE_BITS == other.to_bits() >> SITE_BITS
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_keeps_no_other_out_and_all_together_are_bounded() {
        let strangers = Arc::new(Strangers::default());
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut places: Vec<Place> = Vec::new();
        places.extend((0..200).filter_map(|_| strangers.admit(address(1))));
        assert_eq!(places.len(), OF_ONE);
        for other in 2..=8 {
            places.extend((0..OF_ONE).filter_map(|_| strangers.admit(address(other))));
        }
        assert_eq!(places.len(), MOST);
        assert!(strangers.admit(address(9)).is_none());
        places.truncate(MOST - 1);
        assert!(strangers.admit(address(1)).is_none(), "it has its eight");
        assert!(strangers.admit(address(9)).is_some());
        drop(places);
        assert!(strangers.inside.lock().unwrap().is_empty());
    }

    #[test]
    fn a_site_of_ipv6_does_not_fill_all_places_by_its_networks() {
        let strangers = Arc::new(Strangers::default());
        let admit = |text: String| strangers.admit(text.parse().unwrap());
        let places: Vec<Place> = (0..64)
            .filter_map(|network| admit(format!("2001:db8:1:{network}::1")))
            .collect();
        assert_eq!(places.len(), OF_SITE);
        assert!(admit("2001:db8:2::1".to_owned()).is_some());
        assert!(admit("10.0.0.1".to_owned()).is_some());
        drop(places);
        assert!(admit("2001:db8:1:1::1".to_owned()).is_some());
        assert!(strangers.inside.lock().unwrap().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_and_an_address_of_ipv4_are_one_each() {
        let of = |text: &str| who_counts(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
