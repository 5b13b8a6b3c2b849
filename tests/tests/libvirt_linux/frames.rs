//! Frames that no honest guest sends, as the hexadecimal digits that the guest's program takes.

use std::net::{Ipv4Addr, Ipv6Addr};

/// To everybody.
const ALL: [u8; 6] = [0xff; 6];

/// Its digits.
pub fn digits(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ethernet(from: [u8; 6], kind: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = [ALL, from].concat();
    frame.extend(kind.to_be_bytes());
    frame.extend(body);
    frame.resize(frame.len().max(60), 0);
    frame
}

/// Asks for the address that it says it has (RFC 826).
pub fn arp(from: [u8; 6], mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 1];
    body.extend(mac);
    body.extend(address.octets());
    body.extend([0; 6]);
    body.extend(address.octets());
    ethernet(from, 0x0806, &body)
}

/// A datagram to everybody.
pub fn udp(mac: [u8; 6], address: Ipv4Addr, from: u16, to: u16) -> Vec<u8> {
    let mut body = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
    body.extend(address.octets());
    body.extend([255; 4]);
    body.extend(from.to_be_bytes());
    body.extend(to.to_be_bytes());
    body.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    let words = body[..20].chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from(folded).unwrap_or(0);
    body[10..12].copy_from_slice(&checksum.to_be_bytes());
    ethernet(mac, 0x0800, &body)
}

/// A message of ICMPv6 of that kind, about an address, to all of the link.
pub fn icmpv6(mac: [u8; 6], address: Ipv6Addr, kind: u8, about: Ipv6Addr) -> Vec<u8> {
    let mut payload = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    payload.extend(about.octets());
    let mut body = vec![0x60, 0, 0, 0, 0, 24, 58, 255];
    body.extend(address.octets());
    body.extend(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets());
    body.extend(payload);
    ethernet(mac, 0x86dd, &body)
}
