//! Frames that a guest sends by its tap, and what of them comes out of another port of the bridge: in a
//! network namespace of the test's own thread, where there is the right to one.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::keeper::{Guarded, Kept};
use super::placed::Taken;
use super::rules::Sender;
use super::*;
use crate::host::tap::Tap;
use crate::host::tap::tests::{alone, ends, interface, ip};
use crate::nwfilter::tests::reference;

mod nwfilters;

const OWN: [u8; 6] = [0x52, 0x54, 0, 0x0a, 0x0b, 0x0c];
const OTHER: [u8; 6] = [0x52, 0x54, 0, 0x0a, 0x0b, 0x0d];
const ALL: [u8; 6] = [0xff; 6];
/// The least that anything waits for a frame which is not to come.
const SILENCE: Duration = Duration::from_millis(40);

fn guarded(addresses: &[&str]) -> Guarded {
    Guarded {
        sender: Some(Sender {
            mac: OWN.try_into().unwrap(),
            any_mac: false,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            hook: Hook::Ingress,
        }),
        bound: None,
        guest: None,
    }
}

/// What a guest's filter lets pass, whose log is told of it.
fn guarded_guest() -> Guarded {
    let guest = Guest {
        domain: "web".parse().unwrap(),
        uuid: reeve_ipc::model::DomainUuid(uuid::Uuid::from_u128(0x8a5ef1a4 << 96)),
    };
    Guarded {
        guest: Some(guest),
        ..guarded(&["192.0.2.5"])
    }
}

fn make(name: &str) -> Tap {
    Tap::make(Some(&interface(name)), OWN.try_into().unwrap(), 1).unwrap()
}

fn id(name: &str) -> TapId {
    TapId::named(name)
}

/// A guarded tap, and another port of its bridge, each by its only queue.
struct Wire {
    filters: TapFilters,
    guest: OwnedFd,
    other: OwnedFd,
}

impl Wire {
    fn new(guarded: Guarded) -> Self {
        ip(&[
            "link",
            "add",
            "br0",
            "type",
            "bridge",
            "mcast_snooping",
            "0",
        ]);
        ip(&["link", "set", "br0", "addrgenmode", "none", "up"]);
        let tap = |name: &str, mac: [u8; 6]| {
            let tap = Tap::make(Some(&interface(name)), mac.try_into().unwrap(), 1).unwrap();
            tap.join(&interface("br0"), None, false).unwrap();
            tap
        };
        let (guest, other) = (tap("guest", OWN), tap("other", OTHER));
        let filters = TapFilters::default();
        filters.guard(&id("guest"), guarded).unwrap();
        guest.up().unwrap();
        other.up().unwrap();
        let mut queues = guest.into_queues();
        queues.extend(other.into_queues());
        let [guest, other] = queues.try_into().unwrap();
        let wire = Self {
            filters,
            guest,
            other,
        };
        // Ports take a moment to forward.
        let begin = Instant::now();
        while !wire.passes(&honest()) {
            assert!(begin.elapsed().as_secs() < 10, "no frame passes");
        }
        wire
    }

    /// Whether a frame that the guest sends comes out of the other port.
    fn passes(&self, frame: &[u8]) -> bool {
        Self::carries(&self.guest, &self.other, frame)
    }

    /// Whether a frame that comes in by the other port reaches the guest.
    fn reaches(&self, frame: &[u8]) -> bool {
        Self::carries(&self.other, &self.guest, frame)
    }

    fn carries(from: &OwnedFd, to: &OwnedFd, frame: &[u8]) -> bool {
        let mut bytes = vec![0; 12];
        bytes.extend(frame);
        rustix::io::write(from, &bytes).unwrap();
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: SILENCE.subsec_nanos().into(),
        };
        let mut buffer = [0; 2048];
        loop {
            let mut polled = [PollFd::new(to, PollFlags::IN)];
            if poll(&mut polled, Some(&timeout)).unwrap() == 0 {
                return false;
            }
            let length = rustix::io::read(to, &mut buffer).unwrap();
            // The host itself may have something to say; and it may take padding away.
            let seen = &buffer[12..length];
            if seen.len() >= 42 && frame.starts_with(seen) {
                return true;
            }
        }
    }
}

fn ethernet(from: [u8; 6], kind: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = [ALL, from].concat();
    frame.extend(kind.to_be_bytes());
    frame.extend(body);
    frame.resize(frame.len().max(60), 0);
    frame
}

fn arp(from: [u8; 6], mac: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 1];
    body.extend(mac);
    body.extend(address);
    body.extend([0; 6]);
    body.extend([192, 0, 2, 1]);
    ethernet(from, 0x0806, &body)
}

/// A datagram of UDP.
fn udp(address: [u8; 4], from: u16, to: u16) -> Vec<u8> {
    let mut body = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
    body.extend(address);
    body.extend([255; 4]);
    body.extend(from.to_be_bytes());
    body.extend(to.to_be_bytes());
    body.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    let mut frame = ethernet(OWN, 0x0800, &body);
    checksum(&mut frame);
    frame
}

/// A message to a server of DHCP from a guest without an address, with the beginning of its own message: the kind and
/// the length of the address that it asks for, and the address.
fn dhcp(kind: [u8; 2], address: [u8; 6]) -> Vec<u8> {
    let mut frame = udp([0; 4], 68, 67);
    // Behind the headers, of which the length says less than there is.
    frame.truncate(14 + 20 + 8);
    frame.extend([1, kind[0], kind[1], 0]);
    frame.extend([0; 24]);
    frame.extend(address);
    frame.extend([0; 206]);
    long(&mut frame);
    frame
}

/// Has the headers of a datagram say how long it is.
fn long(frame: &mut [u8]) {
    let length = u16::try_from(frame.len() - 14).unwrap();
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    frame[38..40].copy_from_slice(&(length - 20).to_be_bytes());
    checksum(frame);
}

/// Bridges that have IPv4 looked at (bridge-nf-call-iptables) drop what has a wrong one.
fn checksum(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let header = 4 * usize::from(frame[14] & 0xf);
    let words = frame[14..14 + header].chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    frame[24..26].copy_from_slice(&(!folded).to_be_bytes());
}

fn ipv6(address: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let address: std::net::Ipv6Addr = address.parse().unwrap();
    let mut body = vec![0x60, 0, 0, 0];
    body.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    body.extend([next, 255]);
    body.extend(address.octets());
    body.extend("ff02::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    body.extend(payload);
    ethernet(OWN, 0x86dd, &body)
}

fn icmpv6(address: &str, kind: u8, target: &str) -> Vec<u8> {
    let mut payload = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    payload.extend(target.parse::<std::net::Ipv6Addr>().unwrap().octets());
    ipv6(address, 58, &payload)
}

fn udp_ipv6(from: u16, to: u16) -> Vec<u8> {
    let mut payload = from.to_be_bytes().to_vec();
    payload.extend(to.to_be_bytes());
    payload.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    ipv6("2001:db8::5", 17, &payload)
}

fn honest() -> Vec<u8> {
    arp(OWN, OWN, [192, 0, 2, 5])
}

/// The taps that have filters.
fn held() -> Vec<String> {
    let filters = Tables::open().unwrap().all().unwrap();
    filters.into_iter().map(|it| it.tap.name).collect()
}

/// Whether there is neither a filter nor a table.
fn nothing_is_left() -> bool {
    held().is_empty() && Tables::open().unwrap().count() == 0
}

/// Closes the socket of all tables that there are. A process that another test starts has a copy of it for a moment.
fn ended(owner: Tables) {
    drop(owner);
    until("its tables are gone", || {
        Tables::open().unwrap().count() == 0
    });
}

fn until(what: &str, is: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed().as_secs() < 10, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_guest_with_addresses_sends_from_those_only() {
    alone(|| {
        let wire = Wire::new(guarded(&["192.0.2.5", "198.51.100.0/24", "2001:db8::5"]));
        let pass = |what: &str, frame: Vec<u8>| assert!(wire.passes(&frame), "{what}");
        let stop = |what: &str, frame: Vec<u8>| assert!(!wire.passes(&frame), "{what}");
        pass("its own ARP", honest());
        pass("a probe", arp(OWN, OWN, [0; 4]));
        pass("its other addresses", arp(OWN, OWN, [198, 51, 100, 255]));
        stop("another frame's address", arp(OTHER, OTHER, [192, 0, 2, 5]));
        stop("another sender's in ARP", arp(OWN, OTHER, [192, 0, 2, 5]));
        stop("another address in ARP", arp(OWN, OWN, [192, 0, 2, 1]));
        stop("the next network", arp(OWN, OWN, [198, 51, 101, 0]));
        let mut strange = honest();
        strange[14] = 9;
        stop("ARP of another kind", strange);
        stop("half of an ARP", ethernet(OWN, 0x0806, &[0, 1, 8, 0, 6, 4]));

        pass("its own IPv4", udp([192, 0, 2, 5], 1000, 2000));
        stop("another's IPv4", udp([192, 0, 2, 6], 1000, 2000));
        pass("a client of DHCP", dhcp([1, 6], OWN));
        stop("no address otherwise", udp([0; 4], 68, 68));
        stop("a server of DHCP", udp([192, 0, 2, 5], 67, 68));
        stop("one by another port", udp([192, 0, 2, 5], 1067, 68));
        stop("a relay of DHCP", udp([192, 0, 2, 5], 67, 67));
        let mut broken = udp([192, 0, 2, 5], 1000, 2000);
        broken[14] = 0x41;
        stop("a header too short", broken);

        pass("its own IPv6", udp_ipv6(1000, 2000));
        stop("another's IPv6", ipv6("2001:db8::6", 59, &[]));
        pass("its link's", ipv6("fe80::5054:ff:fe0a:b0c", 59, &[]));
        stop(
            "another's of its link",
            ipv6("fe80::5054:ff:fe0a:b0d", 59, &[]),
        );
        pass("a look for duplicates", icmpv6("::", 135, "2001:db8::5"));
        stop("no address otherwise", ipv6("::", 59, &[]));
        pass(
            "its own neighbour",
            icmpv6("2001:db8::5", 136, "2001:db8::5"),
        );
        stop(
            "another's neighbour",
            icmpv6("2001:db8::5", 136, "2001:db8::1"),
        );
        stop("an unspecified one's", icmpv6("::", 136, "2001:db8::1"));
        stop("a router", icmpv6("fe80::5054:ff:fe0a:b0c", 134, "::"));
        stop("a redirect", icmpv6("2001:db8::5", 137, "2001:db8::1"));
        stop("a server of DHCPv6", udp_ipv6(547, 546));
        stop("one by another port", udp_ipv6(1547, 546));
        pass("a client of DHCPv6", udp_ipv6(546, 547));
        // Behind an extension header without options, and in a first fragment.
        let advertisement = |next: u8, header: [u8; 8]| {
            let mut payload = header.to_vec();
            payload[0] = 58;
            payload.extend([134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            ipv6("2001:db8::5", next, &payload)
        };
        stop(
            "a hidden router",
            advertisement(60, [0, 0, 1, 4, 0, 0, 0, 0]),
        );
        stop(
            "a router in pieces",
            advertisement(44, [0, 0, 0, 1, 0, 0, 0, 9]),
        );

        stop(
            "a tag",
            ethernet(OWN, 0x8100, &[&[0, 5, 8, 6], &honest()[14..]].concat()),
        );
        stop(
            "a service tag",
            ethernet(OWN, 0x88a8, &[&[0, 5, 8, 6], &honest()[14..]].concat()),
        );
        stop(
            "no kind but a length",
            ethernet(OWN, 46, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]),
        );
        stop("anything else", ethernet(OWN, 0x88cc, &[]));
        pass("its own ARP still", honest());
        let dropped = wire.filters.dropped([&id("guest")]);
        assert_eq!(dropped, 27);
    });
}

#[test]
fn a_guest_without_addresses_sends_from_any_with_its_own_ethernet_address() {
    alone(|| {
        let wire = Wire::new(guarded(&[]));
        assert!(wire.passes(&arp(OWN, OWN, [203, 0, 113, 9])));
        assert!(wire.passes(&udp([203, 0, 113, 9], 1000, 2000)));
        assert!(wire.passes(&ipv6("2001:db8:9::1", 59, &[])));
        assert!(!wire.passes(&arp(OTHER, OTHER, [203, 0, 113, 9])));
        assert!(!wire.passes(&arp(OWN, OTHER, [203, 0, 113, 9])));
        assert!(!wire.passes(&udp([203, 0, 113, 9], 67, 68)));
        assert!(!wire.passes(&icmpv6("fe80::1", 134, "::")));
        assert!(!wire.passes(&ethernet(OWN, 0x8100, &[0, 5, 8, 6])));
        assert_eq!(wire.filters.dropped([&id("guest")]), 5);
    });
}

/// The attributes that follow one another there.
fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while let [a, b, c, d, ..] = *bytes {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let kind = u16::from_ne_bytes([c, d]) & 0x3fff;
        all.push((kind, &bytes[4..length]));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

#[test]
fn what_is_behind_a_header_is_loaded_as_older_kernels_find_it_at_egress() {
    let mut loads = 0;
    for addresses in [&[][..], &["192.0.2.5", "2001:db8::5"]] {
        let sender = guarded(addresses).sender.unwrap();
        for rule in sender.rules() {
            for (_, expression) in attributes(&rule.expressions()) {
                let [(_, name), (_, data)] = attributes(expression)[..] else {
                    continue;
                };
                if name != b"payload\0" {
                    continue;
                }
                let numbers = attributes(data).into_iter();
                let numbers =
                    numbers.map(|(_, value)| u32::from_be_bytes(value.try_into().unwrap()));
                let [_, base, offset, length] = numbers.collect::<Vec<_>>()[..] else {
                    panic!("a load has four numbers");
                };
                // NFT_PAYLOAD_TRANSPORT_HEADER.
                if base == 2 {
                    loads += 1;
                    assert!([1, 2, 4].contains(&length) && offset % length == 0);
                }
            }
        }
    }
    assert!(loads > 20, "{loads}");
}

#[test]
fn a_guest_asks_for_a_lease_for_its_own_ethernet_address_only() {
    alone(|| {
        let wire = Wire::new(guarded(&["192.0.2.5"]));
        let pass = |what: &str, frame: Vec<u8>| assert!(wire.passes(&frame), "{what}");
        let stop = |what: &str, frame: Vec<u8>| assert!(!wire.passes(&frame), "{what}");
        pass("its own", dhcp([1, 6], OWN));
        stop("another's", dhcp([1, 6], OTHER));
        let elsewhere = [0x52, 0x54, 0, 0x0b, 0x0b, 0x0c];
        stop("one that ends as its own", dhcp([1, 6], elsewhere));
        stop("a longer one that begins so", dhcp([1, 7], OWN));
        stop("one of another kind", dhcp([6, 6], OWN));
        let renewal = |address: [u8; 6]| {
            let mut frame = dhcp([1, 6], address);
            frame[26..30].copy_from_slice(&[192, 0, 2, 5]);
            checksum(&mut frame);
            frame
        };
        pass("its own, again", renewal(OWN));
        stop("another's, by whoever has an address", renewal(OTHER));
        let mut from_elsewhere = renewal(OTHER);
        from_elsewhere[34..36].copy_from_slice(&1068_u16.to_be_bytes());
        stop("another's, by another port", from_elsewhere);
        let mut options = renewal(OTHER);
        options[14] = 0x46;
        options.splice(34..34, [1, 1, 1, 0]);
        let length = u16::try_from(options.len() - 14).unwrap();
        options[16..18].copy_from_slice(&length.to_be_bytes());
        checksum(&mut options);
        stop("another's, behind options", options);
        // Of a later piece nobody knows what it is of: it is nothing without the first.
        let mut first = dhcp([1, 6], OWN);
        first[20] = 0x20;
        checksum(&mut first);
        stop("the first piece", first);
        assert_eq!(wire.filters.dropped([&id("guest")]), 8);
    });
}

#[test]
fn a_trusted_guest_has_any_ethernet_address_and_no_other_of_ip() {
    alone(|| {
        let mut trusted = guarded(&["192.0.2.5", "2001:db8::5"]);
        trusted.sender.as_mut().unwrap().any_mac = true;
        let wire = Wire::new(trusted);
        assert!(wire.passes(&arp(OTHER, OTHER, [192, 0, 2, 5])));
        assert!(!wire.passes(&arp(OTHER, OTHER, [192, 0, 2, 6])));
        assert!(wire.passes(&ipv6("fe80::1", 59, &[])));
        assert!(!wire.passes(&ipv6("2001:db8::6", 59, &[])));
    });
}

#[test]
fn what_is_dropped_of_a_tap_whose_record_has_no_number_is_counted_among_its_device_s_drops() {
    alone(|| {
        let wire = Wire::new(guarded(&["192.0.2.5"]));
        assert!(!wire.passes(&udp([192, 0, 2, 6], 1000, 2000)));
        let slot = PciSlot::try_from(3).unwrap();
        let recorded = DeviceResources {
            place: slot.into(),
            taps: vec![TapId {
                name: "guest".to_owned(),
                index: None,
            }],
            macvtaps: Vec::new(),
            sockets: Vec::new(),
        };
        let mut reports = [DeviceReport {
            slot,
            figures: DeviceFigures::Nic(reeve_ipc::device::NicFigures::default()),
        }];
        WorkerTaps::of(&[recorded]).count(&wire.filters, &mut reports);
        let DeviceFigures::Nic(figures) = reports[0].figures else {
            panic!("{reports:?}");
        };
        assert_eq!(figures.sent.drops, 1);
    });
}

#[test]
fn nothing_is_left_of_a_filter_when_its_tap_is_gone() {
    alone(|| {
        let wire = Wire::new(guarded(&["192.0.2.5"]));
        assert_eq!(held(), ["guest"]);
        assert!(!wire.passes(&udp([192, 0, 2, 6], 1000, 2000)));
        let Wire {
            filters,
            guest,
            other,
        } = wire;
        let tap = id("guest");
        assert_eq!(filters.dropped([&tap]), 1);
        drop((guest, other));
        ends("guest");
        until("the filter is gone", nothing_is_left);
        assert_eq!(filters.dropped([&tap]), 0);
    });
}

#[test]
fn a_tap_that_is_to_have_no_filter_has_none_of_an_earlier_supervisor_either() {
    alone(|| {
        let wire = Wire::new(guarded(&["192.0.2.5"]));
        let other = make("third");
        wire.filters.guard(&id("third"), guarded(&[])).unwrap();
        wire.filters.release(&id("guest")).unwrap();
        assert_eq!(held(), ["third"]);
        assert!(wire.passes(&udp([192, 0, 2, 6], 1000, 2000)));
        // Nothing puts it back, also by another name.
        rename("guest", "named");
        assert_eq!(held(), ["third"]);
        rename("named", "guest");
        wire.filters
            .guard(&id("guest"), guarded(&["192.0.2.5"]))
            .unwrap();
        assert!(!wire.passes(&udp([192, 0, 2, 6], 1000, 2000)));
        let Wire {
            filters,
            guest,
            other: port,
        } = wire;
        drop(filters);
        let later = TapFilters::default();
        later.release_earlier(&id("guest"));
        assert_eq!(held(), ["third"]);
        later.release_earlier(&id("guest"));
        drop((guest, port, other));
    });
}

#[test]
fn a_filter_that_somebody_deletes_is_put_back() {
    alone(|| {
        let wire = Wire::new(guarded(&["192.0.2.5"]));
        let mut admin = Tables::open().unwrap();
        let filter = admin.find("guest").unwrap().unwrap();
        admin.delete(&filter).unwrap();
        until("it is back", || {
            let mut tables = Tables::open().unwrap();
            tables.find("guest").unwrap().is_some()
        });
        assert!(!wire.passes(&arp(OWN, OWN, [192, 0, 2, 6])));
        assert!(wire.passes(&honest()));
    });
}

#[test]
fn a_later_supervisor_s_filter_takes_the_place_of_the_earlier_s() {
    alone(|| {
        let wire = Wire::new(guarded(&["192.0.2.5"]));
        let Wire {
            filters,
            guest,
            other,
        } = wire;
        drop(filters);
        assert_eq!(held(), ["guest"]);
        let later = TapFilters::default();
        later
            .guard(&id("guest"), guarded(&["192.0.2.5", "192.0.2.6"]))
            .unwrap();
        let filters = later;
        let wire = Wire {
            filters,
            guest,
            other,
        };
        assert!(wire.passes(&arp(OWN, OWN, [192, 0, 2, 6])));
        assert!(!wire.passes(&arp(OWN, OWN, [192, 0, 2, 7])));
        assert_eq!(held(), ["guest"]);
        assert_eq!(wire.filters.dropped([&id("guest")]), 1);
    });
}

#[test]
fn what_a_supervisor_left_that_died_is_swept_and_nothing_else() {
    alone(|| {
        let (here, gone) = (make("here"), make("gone"));
        let here_id = id("here");
        // Nobody listens.
        let mut kept = Kept::default();
        kept.guard(&here_id, guarded(&[])).unwrap();
        kept.guard(&id("gone"), guarded(&[])).unwrap();
        drop(kept);
        drop(gone);
        ends("gone");
        assert_eq!(held().len(), 2);
        TapFilters::default().sweep();
        assert_eq!(held(), ["here"]);
        TapFilters::default().forget(&here_id);
        assert_eq!(held(), ["here"]);
        drop(here);
        ends("here");
        TapFilters::default().forget(&here_id);
        assert!(nothing_is_left());
    });
}

#[test]
fn a_later_tap_of_the_same_name_is_left_alone() {
    alone(|| {
        let filters = TapFilters::default();
        let first = make("guest");
        let first_id = id("guest");
        filters.guard(&first_id, guarded(&["192.0.2.5"])).unwrap();
        assert_eq!(
            Tables::open().unwrap().find("guest").unwrap().unwrap().tap,
            first_id
        );
        // Nobody hears of it: another supervisor guards the second one.
        let mut kept = Kept::default();
        kept.guard(&first_id, guarded(&["192.0.2.5"])).unwrap();
        drop((filters, first));
        ends("guest");
        let _second = make("guest");
        let second_id = id("guest");
        assert_ne!(first_id, second_id);
        let of = || Tables::open().unwrap().find("guest").unwrap();
        assert!(kept.guard(&first_id, guarded(&["192.0.2.5"])).is_err());
        let now = Instant::now();
        assert!(
            kept.guard_soon(&first_id, guarded(&["192.0.2.5"]), now)
                .is_err()
        );
        let other = TapFilters::default();
        other.guard(&second_id, guarded(&["192.0.2.6"])).unwrap();
        let filter = of().unwrap();
        assert_eq!(filter.tap, second_id);
        // Neither deleted as the first one's, nor put back as its own, nor counted.
        kept.retry(now + Duration::from_secs(9));
        kept.gone(&first_id);
        kept.sweep().unwrap();
        assert_eq!(of(), Some(filter.clone()));
        assert_eq!(other.dropped([&first_id]), 0);
        drop(other);
        Tables::open().unwrap().delete(&filter).unwrap();
        kept.taken_from(&Taken::Tap("guest".to_owned()), now);
        assert_eq!(of(), None);
    });
}

/// A name whose filter is in the same table.
fn beside(tap: &str) -> String {
    let mut names = (0..).map(|number| format!("beside{number}"));
    let names = names.find(|name| placed::table(name) == placed::table(tap));
    names.unwrap()
}

#[test]
fn those_of_one_table_come_and_go_alone_also_those_of_other_supervisors() {
    alone(|| {
        let wire = Wire::new(guarded(&["192.0.2.5"]));
        let strange = udp([192, 0, 2, 6], 1000, 2000);
        let name = beside("guest");
        let queue = make(&name);
        let mut other = Kept::default();
        other.guard(&id(&name), guarded(&["192.0.2.6"])).unwrap();
        let mut both = [name.clone(), "guest".to_owned()];
        both.sort();
        assert_eq!(held(), both);
        assert_eq!(Tables::open().unwrap().count(), 1);
        assert!(!wire.passes(&strange) && wire.passes(&honest()));
        // Replaced, taken away by somebody, and gone.
        other.guard(&id(&name), guarded(&[])).unwrap();
        assert_eq!(held(), both);
        unguard(&name).unwrap();
        assert_eq!(held(), ["guest"]);
        assert!(!wire.passes(&strange) && wire.passes(&honest()));
        let tap = id(&name);
        other.guard(&tap, guarded(&[])).unwrap();
        drop(queue);
        ends(&name);
        other.gone(&tap);
        until("the filter is gone", || held() == ["guest"]);
        assert!(!wire.passes(&strange) && wire.passes(&honest()));
        assert_eq!(wire.filters.dropped([&id("guest")]), 3);
        // All at once, as 'nft flush ruleset' takes them.
        let queue = make(&name);
        wire.filters
            .guard(&id(&name), guarded(&["192.0.2.6"]))
            .unwrap();
        drop({
            let mut admin = Tables::open().unwrap();
            admin.seize("guest").unwrap();
            admin
        });
        until("both are back", || held() == both);
        until("it is guarded", || !wire.passes(&strange));
        drop((wire, queue));
    });
}

#[test]
fn what_the_kernel_leaves_of_a_filter_goes_with_its_tap() {
    alone(|| {
        // Before 6.16 it deletes a hooked chain itself, and before anybody hears of it.
        let without_chain = |name: &str, kept: &mut Kept| {
            let queue = make(name);
            let tap = id(name);
            let named = reference("named", &[]);
            let with = Guarded {
                bound: Some(Bound::blocked(&named, OWN.try_into().unwrap())),
                ..guarded(&["192.0.2.5", "2001:db8::5"])
            };
            kept.guard(&tap, with).unwrap();
            let mut kernel = Tables::open().unwrap();
            kernel.delete_hooked(name).unwrap();
            assert_eq!(kernel.find(name).unwrap().unwrap().tap.index, None);
            drop(queue);
            ends(name);
            tap
        };
        let mut kept = Kept::default();
        let tap = without_chain("guest", &mut kept);
        kept.gone(&tap);
        assert!(nothing_is_left());
        // Nobody was there.
        drop(without_chain("guest", &mut Kept::default()));
        let _later = make("guest");
        kept.guard(&id("guest"), guarded(&["192.0.2.6"])).unwrap();
        assert_eq!(held(), ["guest"]);
        drop(without_chain("other", &mut Kept::default()));
        kept.sweep().unwrap();
        assert_eq!(held(), ["guest"]);
        assert_eq!(Tables::open().unwrap().count(), 1);
        // And while the tap is there.
        kept.guard(&id("guest"), guarded(&["192.0.2.6"])).unwrap();
        Tables::open().unwrap().delete_hooked("guest").unwrap();
        kept.release(&id("guest")).unwrap();
        assert!(nothing_is_left());
    });
}

#[test]
fn what_an_administrator_does_to_a_table_is_undone() {
    alone(|| {
        let wire = Wire::new(guarded(&["192.0.2.5"]));
        let tap = id("guest");
        let strange = udp([192, 0, 2, 6], 1000, 2000);
        let holds = || !wire.passes(&strange) && wire.passes(&honest());
        let mut admin = Tables::open().unwrap();
        admin.flush("guest").unwrap();
        until("its rules are back", holds);
        let nft = std::process::Command::new("nft")
            .args(["flush", "ruleset"])
            .status();
        assert!(nft.unwrap().success());
        until("all of it is back", holds);
        admin.delete_hooked("guest").unwrap();
        until("its chain is back", holds);
        // Nobody tells of that.
        admin.put_to_sleep("guest").unwrap();
        assert!(wire.passes(&strange));
        wire.filters.guard(&tap, guarded(&["192.0.2.5"])).unwrap();
        assert!(holds());
        let name = beside("guest");
        let _queue = make(&name);
        admin.put_to_sleep("guest").unwrap();
        wire.filters.guard(&id(&name), guarded(&[])).unwrap();
        assert!(holds());
    });
}

#[test]
fn what_is_taken_from_a_table_and_is_no_filter_s_replaces_none() {
    alone(|| {
        let Wire {
            filters,
            guest,
            other,
        } = Wire::new(guarded(&["192.0.2.5"]));
        drop(filters);
        let filters = TapFilters::default();
        let wire = Wire {
            filters,
            guest,
            other,
        };
        let (tap, now) = (id("guest"), Instant::now());
        let mut kept = Kept::default();
        kept.guard(&tap, guarded(&["192.0.2.5"])).unwrap();
        assert!(!wire.passes(&udp([192, 0, 2, 6], 1000, 2000)));
        let dropped = || Tables::open().unwrap().dropped(&tap).unwrap();
        assert_eq!(dropped(), Some(1));
        kept.taken_from(&Taken::Table(placed::table("guest")), now);
        assert_eq!(dropped(), Some(1));
        kept.taken_from(&Taken::Tap("guest".to_owned()), now);
        assert_eq!(dropped(), Some(0));
    });
}

#[test]
fn what_an_earlier_tap_has_left_is_not_a_later_one_s() {
    alone(|| {
        let first = make("guest");
        let mut kept = Kept::default();
        kept.guard(&id("guest"), guarded(&[])).unwrap();
        drop((kept, first));
        ends("guest");
        assert_eq!(held(), ["guest"]);
        let _second = make("guest");
        TapFilters::default().clear(&id("guest"));
        assert!(nothing_is_left());
        // Its own is.
        let filters = TapFilters::default();
        filters.guard(&id("guest"), guarded(&[])).unwrap();
        filters.clear(&id("guest"));
        assert_eq!(held(), ["guest"]);
    });
}

#[test]
fn a_filter_is_swept_if_its_tap_is_gone_though_another_has_its_name() {
    alone(|| {
        let first = make("guest");
        let mut kept = Kept::default();
        kept.guard(&id("guest"), guarded(&[])).unwrap();
        drop((kept, first));
        ends("guest");
        let _second = make("guest");
        TapFilters::default().sweep();
        assert!(nothing_is_left());
    });
}

/// Gives an interface another name; one that is up keeps its own on many kernels.
fn rename(from: &str, to: &str) {
    ip(&["link", "set", from, "down"]);
    ip(&["link", "set", from, "name", to]);
    ip(&["link", "set", to, "up"]);
}

#[test]
fn a_tap_that_is_renamed_keeps_its_filter() {
    alone(|| {
        let wire = Wire::new(guarded(&["192.0.2.5"]));
        let strange = udp([192, 0, 2, 6], 1000, 2000);
        assert!(!wire.passes(&strange));
        let tap = id("guest");
        for (from, to) in [("guest", "moved"), ("moved", "again"), ("again", "guest")] {
            rename(from, to);
            until("the filter follows", || held() == [to]);
            until("frames pass", || wire.passes(&honest()));
            let before = wire.filters.dropped([&tap]);
            assert!(!wire.passes(&strange), "{to}");
            assert_eq!(wire.filters.dropped([&tap]), before + 1);
            wire.filters.sweep();
            assert_eq!(held(), [to]);
        }
        // By its new name it is kept as by the old.
        rename("guest", "moved");
        until("the filter follows", || held() == ["moved"]);
        unguard("moved").unwrap();
        until("it is back", || held() == ["moved"]);
        until("frames pass", || wire.passes(&honest()));
        assert!(!wire.passes(&strange));
        let Wire {
            filters,
            guest,
            other,
        } = wire;
        drop((guest, other));
        ends("moved");
        until("the filter is gone", nothing_is_left);
        drop(filters);
    });
}

#[test]
fn a_tap_that_is_renamed_before_its_turn_gets_its_other_filter_all_the_same() {
    alone(|| {
        let (first, second) = (guarded(&["192.0.2.5"]), guarded(&["192.0.2.6"]));
        let wire = Wire::new(first.clone());
        let (tap, strange) = (id("guest"), udp([192, 0, 2, 6], 1000, 2000));
        rename("guest", "moved");
        until("the filter follows", || held() == ["moved"]);
        until("frames pass", || wire.passes(&honest()));
        wire.filters.renew(&tap, &first, second.clone()).unwrap();
        assert!(wire.passes(&strange) && !wire.passes(&honest()));
        // And back, by the name that it had.
        wire.filters.restore(&tap, &second, first.clone()).unwrap();
        assert!(!wire.passes(&strange) && wire.passes(&honest()));
        // What guards it otherwise by now is left.
        wire.filters.renew(&tap, &second, second.clone()).unwrap();
        assert!(!wire.passes(&strange));
        assert_eq!(held(), ["moved"]);
    });
}

#[test]
fn a_tap_that_was_renamed_while_nobody_looked_is_guarded_by_its_name_again() {
    alone(|| {
        let wire = Wire::new(guarded(&["192.0.2.5"]));
        let recorded = id("guest");
        let Wire {
            filters,
            guest,
            other,
        } = wire;
        drop(filters);
        rename("guest", "moved");
        let wire = Wire {
            filters: TapFilters::default(),
            guest,
            other,
        };
        wire.filters.guard_soon(&recorded, guarded(&["192.0.2.5"]));
        assert_eq!(held(), ["moved"]);
        until("frames pass", || wire.passes(&honest()));
        assert!(!wire.passes(&udp([192, 0, 2, 6], 1000, 2000)));
        assert_eq!(wire.filters.dropped([&recorded]), 1);
        // Another that has its old name is another.
        let _second = make("guest");
        let second = id("guest");
        wire.filters.clear(&second);
        wire.filters.guard(&second, guarded(&[])).unwrap();
        let mut both = held();
        both.sort();
        assert_eq!(both, ["guest", "moved"]);
        assert!(!wire.passes(&udp([192, 0, 2, 6], 1000, 2000)));
    });
}

#[test]
fn a_filter_that_the_kernel_refuses_is_tried_again_and_the_guest_s_log_says_so() {
    alone(|| {
        let wire = Wire::new(guarded(&["192.0.2.5"]));
        // Nobody but its socket may touch such a table, and it goes with that.
        let mut admin = Tables::open().unwrap();
        admin.seize("guest").unwrap();
        let strange = udp([192, 0, 2, 6], 1000, 2000);
        assert!(wire.passes(&strange));

        let (lines, subscriber) = Lines::subscriber();
        tracing::subscriber::with_default(subscriber, || {
            let later = guarded_guest();
            let mut kept = Kept::default();
            kept.guard(&id("guest"), later.clone()).unwrap_err();
            let mut now = Instant::now();
            let refused = kept.guard_soon(&id("guest"), later.clone(), now);
            let errno = refused.unwrap_err();
            let held = kept.is_held(&id("guest"), &later);
            later.failed("guest", errno, held);
            // Ever more rarely, and not for ever more.
            let mut pauses = Vec::new();
            for _ in 0..20 {
                let pause = kept.retry(now).unwrap();
                pauses.push(pause);
                now += pause;
            }
            let doubled = (0..).map(|times| Duration::from_millis(100 << times));
            let expected = doubled.map(|pause| pause.min(Duration::from_secs(60)));
            assert_eq!(pauses, expected.take(20).collect::<Vec<_>>());
        });
        let lines = lines.text();
        assert_eq!(lines.lines().count(), 1, "{lines}");
        for part in [
            "ERROR",
            "domain=web",
            "uuid=8a5ef1a4",
            "tap=\"guest\"",
            "may use others' addresses",
            "tried again",
        ] {
            assert!(lines.contains(part), "{lines}");
        }

        drop(admin);
        until("it is back", || !wire.passes(&strange));
        assert!(wire.passes(&honest()));
    });
}

#[test]
fn a_tap_that_is_guarded_twice_and_renamed_is_known_once_and_not_when_it_is_gone() {
    alone(|| {
        let queue = make("guest");
        let tap = id("guest");
        let now = Instant::now();
        let mut kept = Kept::default();
        assert_eq!(kept.knows(&tap), (false, false, false));
        kept.guard(&tap, guarded(&[])).unwrap();
        kept.guard(&tap, guarded(&["192.0.2.5"])).unwrap();
        assert_eq!(kept.knows(&tap), (true, true, false));
        rename("guest", "moved");
        kept.taken_from(&Taken::Tap("guest".to_owned()), now);
        assert_eq!(held(), ["moved"]);
        assert_eq!(kept.knows(&tap), (true, true, false));

        let mut admin = Tables::open().unwrap();
        admin.seize("moved").unwrap();
        kept.guard(&tap, guarded(&[])).unwrap_err();
        assert_eq!(kept.knows(&tap), (true, true, false));
        for _ in 0..2 {
            kept.guard_soon(&tap, guarded(&[]), now).unwrap_err();
            assert_eq!(kept.knows(&tap), (true, true, true));
        }
        kept.retry(now + Duration::from_secs(9)).unwrap();
        assert_eq!(kept.knows(&tap), (true, true, true));
        ended(admin);
        assert_eq!(kept.retry(now + Duration::from_secs(99)), None);
        assert_eq!(kept.knows(&tap), (true, true, false));
        assert!(kept.enter_held(&tap, guarded(&[])));
        assert_eq!(kept.knows(&tap), (true, true, false));

        // It goes while it waits, and its table, by the name that it had last, with it.
        let mut admin = Tables::open().unwrap();
        let before = guarded(&[]);
        let moved = id("moved");
        admin.put_owned(&moved, before.ruleset()).unwrap();
        kept.guard_soon(&tap, guarded(&[]), now).unwrap_err();
        assert_eq!(kept.knows(&tap), (true, true, true));
        ended(admin);
        Tables::open()
            .unwrap()
            .put(&moved, before.ruleset(), false)
            .unwrap();
        drop(queue);
        ends("moved");
        assert_eq!(kept.retry(now + Duration::from_secs(999)), None);
        assert_eq!(kept.knows(&tap), (false, false, false));
        assert!(nothing_is_left());
    });
}

#[test]
fn a_filter_that_is_not_replaced_holds_and_the_log_does_not_say_that_the_guest_has_none() {
    alone(|| {
        let wire = Wire::new(guarded(&["192.0.2.5"]));
        let mut earlier = Tables::open().unwrap();
        let earlier_one = guarded(&["192.0.2.5"]);
        earlier
            .put_owned(&id("guest"), earlier_one.ruleset())
            .unwrap();
        let (lines, subscriber) = Lines::subscriber();
        tracing::subscriber::with_default(subscriber, || {
            // A line of the guest's, which no keeper of this test says on a thread without a subscriber.
            TapFilters::default().guard_soon(&id("guest"), guarded_guest());
        });
        let lines = lines.text();
        assert!(lines.contains("the one of before holds"), "{lines}");
        assert!(!lines.contains("others' addresses"), "{lines}");
        assert!(!wire.passes(&udp([192, 0, 2, 6], 1000, 2000)));
        assert!(wire.passes(&honest()));
    });
}

/// Lines that were logged.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn subscriber() -> (Self, impl tracing::Subscriber + Send + Sync) {
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
        (lines, subscriber.finish())
    }

    fn text(&self) -> String {
        String::from_utf8(lock(&self.0).clone()).unwrap()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn whoever_has_no_filter_is_told_in_a_line_what_is_missing() {
    for errno in [
        Errno::PROTONOSUPPORT,
        Errno::OPNOTSUPP,
        Errno::NOENT,
        Errno::PERM,
    ] {
        let tap = "vnet0".to_owned();
        let line = FilterError::Refused { tap, errno }.to_string();
        assert!(
            line.starts_with("cannot keep the guest on 'vnet0' from using others'"),
            "{line}"
        );
        assert!(!line.contains('\n'), "{line}");
        let mended = errno == Errno::PERM || line.contains("modprobe nf_tables");
        assert!(mended, "{line}");
    }
}

#[test]
fn whoever_may_not_filter_is_refused() {
    alone(|| {
        let _queue = make("vnet0");
        let tap = id("vnet0");
        // A socket of another namespace's owner would do as well; a capability is all it takes.
        let filters = TapFilters::default();
        let none = rustix::thread::CapabilitySets {
            effective: rustix::thread::CapabilitySet::empty(),
            permitted: rustix::thread::CapabilitySet::empty(),
            inheritable: rustix::thread::CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, none).unwrap();
        let refused = filters.guard(&tap, guarded(&[])).unwrap_err();
        assert!(refused.to_string().contains("CAP_NET_ADMIN"), "{refused}");
    });
}

#[test]
fn each_of_many_taps_has_a_filter_of_its_own() {
    alone(|| {
        let filters = TapFilters::default();
        let taps: Vec<Tap> = (0..100)
            .map(|_| Tap::make(None, OWN.try_into().unwrap(), 1).unwrap())
            .collect();
        for tap in &taps {
            filters
                .guard(&tap.id().unwrap(), guarded(&["192.0.2.5", "2001:db8::5"]))
                .unwrap();
        }
        assert_eq!(held().len(), 100);
        drop(taps);
        until("all of them are gone", nothing_is_left);
    });
}
