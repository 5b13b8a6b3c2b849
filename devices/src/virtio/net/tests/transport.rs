//! Tests of where frames have their transport.

use proptest::prelude::*;

use super::*;

/// A frame's headers up to `kind`'s content, with tags.
fn link(tags: &[[u8; 2]], kind: [u8; 2]) -> Vec<u8> {
    let mut bytes = vec![2; ADDRESSES_BYTES];
    for tag in tags {
        bytes.extend(tag);
        bytes.extend([0, 5]);
    }
    bytes.extend(kind);
    bytes
}

fn ipv4(protocol: u8, words: u8, fragment: u16) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(words) * 4];
    bytes[0] = 0x40 | words;
    bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
    bytes[9] = protocol;
    bytes
}

fn ipv6(next: u8, extensions: &[(u8, u8)]) -> Vec<u8> {
    let mut bytes = vec![0; IPV6_BYTES];
    bytes[0] = 0x60;
    bytes[6] = next;
    for (following, length) in extensions {
        bytes.extend([*following, *length]);
        bytes.extend(vec![0; usize::from(*length) * 8 + 6]);
    }
    bytes
}

fn of(parts: &[Vec<u8>]) -> Option<Transport> {
    let mut bytes = parts.concat();
    bytes.extend([0; 20]);
    Transport::of(&bytes)
}

fn at(ip: Ip, protocol: Protocol, at: usize) -> Option<Transport> {
    Some(Transport { ip, protocol, at })
}

#[test]
fn tcp_udp_and_gre_are_found_behind_tags_options_and_extension_headers() {
    let (plain4, plain6) = (link(&[], KIND_IPV4), link(&[], KIND_IPV6));
    for (parts, found) in [
        (
            vec![plain4.clone(), ipv4(6, 5, 0)],
            at(Ip::V4, Protocol::Tcp, 34),
        ),
        (
            vec![plain4.clone(), ipv4(47, 5, 0), vec![0xb0, 0]],
            at(Ip::V4, Protocol::Gre, 34),
        ),
        (
            vec![plain6.clone(), ipv6(47, &[]), vec![0x80, 0]],
            at(Ip::V6, Protocol::Gre, 54),
        ),
        // "Don't fragment".
        (
            vec![plain4.clone(), ipv4(17, 5, 0x4000)],
            at(Ip::V4, Protocol::Udp, 34),
        ),
        (
            vec![plain4.clone(), ipv4(6, 15, 0)],
            at(Ip::V4, Protocol::Tcp, 74),
        ),
        (
            vec![plain6.clone(), ipv6(6, &[])],
            at(Ip::V6, Protocol::Tcp, 54),
        ),
        (
            vec![plain6.clone(), ipv6(0, &[(43, 0), (60, 2), (17, 0)])],
            at(Ip::V6, Protocol::Udp, 54 + 8 + 24 + 8),
        ),
        (
            vec![link(&TAGS[..1], KIND_IPV4), ipv4(6, 5, 0)],
            at(Ip::V4, Protocol::Tcp, 38),
        ),
        (
            vec![link(&[TAGS[1], TAGS[0]], KIND_IPV6), ipv6(17, &[])],
            at(Ip::V6, Protocol::Udp, 62),
        ),
    ] {
        assert_eq!(of(&parts), found, "{parts:02x?}");
    }
}

#[test]
fn nothing_else_has_a_checksum_to_leave_to_the_host() {
    let (plain4, plain6) = (link(&[], KIND_IPV4), link(&[], KIND_IPV6));
    let mut short = ipv4(6, 5, 0);
    short[0] = 0x44;
    let mut old = ipv4(6, 5, 0);
    old[0] = 0x65;
    let mut new = ipv6(6, &[]);
    new[0] = 0x45;
    for (what, parts) in [
        ("ARP", vec![link(&[], [8, 6]), vec![0; 28]]),
        ("ICMP", vec![plain4.clone(), ipv4(1, 5, 0)]),
        ("ICMPv6", vec![plain6.clone(), ipv6(58, &[])]),
        (
            "GRE without a checksum",
            vec![plain4.clone(), ipv4(47, 5, 0), vec![0x30, 0]],
        ),
        ("a packet in a packet", vec![plain4.clone(), ipv4(4, 5, 0)]),
        (
            "the first fragment",
            vec![plain4.clone(), ipv4(6, 5, 0x2000)],
        ),
        ("a later fragment", vec![plain4.clone(), ipv4(17, 5, 1)]),
        (
            "the reserved bit",
            vec![plain4.clone(), ipv4(17, 5, 0x8000)],
        ),
        (
            "a fragment of IPv6",
            vec![plain6.clone(), ipv6(44, &[(6, 0)])],
        ),
        ("a header too short", vec![plain4.clone(), short]),
        ("IPv6 that says it is IPv4", vec![plain4, old]),
        ("IPv4 that says it is IPv6", vec![plain6.clone(), new]),
        (
            "an extension beyond what was copied",
            vec![plain6, vec![0x60, 0, 0, 0, 0, 0, 0], vec![0xff; 60]],
        ),
        (
            "three tags",
            vec![link(&[TAGS[1], TAGS[0], TAGS[0]], KIND_IPV4), ipv4(6, 5, 0)],
        ),
    ] {
        assert_eq!(of(&parts), None, "{what}");
    }
}

proptest! {
    #[test]
    fn what_is_found_lies_in_the_bytes_behind_all_headers(
        mut bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(6), Just(60), any::<u8>()], 0..256),
        start in prop::sample::select(vec![(KIND_IPV4, 0x45_u8), (KIND_IPV6, 0x60), (TAGS[0], 0)]),
    ) {
        if let Some(place) = bytes.get_mut(12..15) {
            place.copy_from_slice(&[start.0[0], start.0[1], start.1]);
        }
        if let Some(found) = Transport::of(&bytes) {
            let least = if found.ip == Ip::V4 { 34 } else { 54 };
            prop_assert!((least..=bytes.len()).contains(&found.at));
        }
    }
}
