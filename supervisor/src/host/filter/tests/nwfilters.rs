//! Network filters: what of frames they let pass, both ways, by the rules that libvirt gives them.

use reeve_ipc::model::{
    FilterEntry, Nwfilter, RuleAction as A, RuleDirection as D, RuleProtocol as P,
};

use super::*;
use crate::nwfilter::Nwfilters;
use crate::nwfilter::book::SharedBook;
use crate::nwfilter::tests::{filter, reference, rule};
use crate::store::NwfilterStore;

/// The filters that an instance has, with some more, and the taps that get their rules.
struct Filters {
    book: SharedBook,
    filters: Nwfilters,
    taps: TapFilters,
    _state: tempfile::TempDir,
}

impl Filters {
    fn with(own: Vec<Nwfilter>) -> Self {
        let state = tempfile::tempdir().unwrap();
        let (book, taps) = (SharedBook::default(), TapFilters::default());
        let store = NwfilterStore::open(state.path()).unwrap();
        let filters = Nwfilters::new(book.clone(), taps.clone(), Arc::new(store));
        filters.load().unwrap();
        for filter in own {
            filters.define(filter, true).unwrap();
        }
        Self {
            book,
            filters,
            taps,
            _state: state,
        }
    }

    fn bound(&self, filter: &str, parameters: &[(&str, &str)]) -> Guarded {
        let reference = reference(filter, parameters);
        let mac = OWN.try_into().unwrap();
        Guarded {
            sender: None,
            bound: Some(Bound::new(&self.book.read(), &reference, mac).unwrap()),
            guest: guarded_guest().guest,
        }
    }

    /// What is said of a guest that has no filter.
    fn bound_to_nothing(&self) -> Guarded {
        Guarded {
            sender: None,
            bound: None,
            guest: guarded_guest().guest,
        }
    }

    /// A guest's wire with that filter alone.
    fn wire(&self, filter: &str, parameters: &[(&str, &str)]) -> Wire {
        let mut wire = Wire::new(guarded(&["192.0.2.5"]));
        wire.filters = self.taps.clone();
        wire.filters
            .guard(&id("guest"), self.bound(filter, parameters))
            .unwrap();
        wire
    }
}

fn prioritised(mut entry: FilterEntry, priority: i16) -> FilterEntry {
    if let FilterEntry::Rule(rule) = &mut entry {
        rule.priority = priority;
    }
    entry
}

/// Any frame of that kind, all of whose protocol is not said.
fn all(action: A, direction: D, priority: i16) -> FilterEntry {
    prioritised(rule(action, direction, P::Mac, &[]), priority)
}

fn from(mac: [u8; 6], frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[6..12].copy_from_slice(&mac);
    frame
}

#[test]
fn clean_traffic_lets_a_guest_be_what_it_is_and_nothing_else() {
    alone(|| {
        let filters = Filters::with(Vec::new());
        let wire = filters.wire("clean-traffic", &[("IP", "192.0.2.5"), ("IP", "192.0.2.8")]);
        let pass = |what: &str, frame: Vec<u8>| assert!(wire.passes(&frame), "{what}");
        let stop = |what: &str, frame: Vec<u8>| assert!(!wire.passes(&frame), "{what}");
        pass("its own ARP", honest());
        pass("its other address in ARP", arp(OWN, OWN, [192, 0, 2, 8]));
        stop("another frame's address", from(OTHER, &honest()));
        stop("another sender's in ARP", arp(OWN, OTHER, [192, 0, 2, 5]));
        stop("another address in ARP", arp(OWN, OWN, [192, 0, 2, 1]));
        pass("its own IPv4", udp([192, 0, 2, 5], 1000, 2000));
        pass("its other address", udp([192, 0, 2, 8], 1000, 2000));
        stop("another's IPv4", udp([192, 0, 2, 6], 1000, 2000));
        stop(
            "another's Ethernet address",
            from(OTHER, &udp([192, 0, 2, 5], 1000, 2000)),
        );
        pass("a client of DHCP", udp([0; 4], 68, 67));
        stop("IPv6", ipv6("fe80::5054:ff:fe0a:b0c", 59, &[]));
        stop("a tag", ethernet(OWN, 0x8100, &[0, 5, 8, 6]));
        stop("anything else", ethernet(OWN, 0x88cc, &[]));
        pass("what QEMU announces", ethernet(OWN, 0x0835, &[]));
        let rarp = |own: [u8; 6]| {
            let mut body = vec![0, 1, 8, 0, 6, 4, 0, 3];
            body.extend(own);
            body.extend([0; 4]);
            body.extend(own);
            body.extend([0; 4]);
            ethernet(OWN, 0x8035, &body)
        };
        pass("its announcement", rarp(OWN));
        stop("another's announcement", rarp(OTHER));
        assert_eq!(wire.filters.dropped([&id("guest")]), 9);
        assert!(
            wire.reaches(&from(OTHER, &udp([203, 0, 113, 1], 67, 68))),
            "an answer of DHCP"
        );
        assert!(
            wire.reaches(&arp(OTHER, OTHER, [192, 0, 2, 1])),
            "ARP of others"
        );
        assert!(
            !wire.reaches(&from(OTHER, &ipv6("fe80::1", 59, &[]))),
            "IPv6 of others"
        );
        assert_eq!(
            wire.filters.dropped([&id("guest")]),
            9,
            "what was lost of others is not its own"
        );
    });
}

#[test]
fn rules_are_met_by_priority_in_both_directions_and_turned_for_those_to_the_guest() {
    let own = filter(
        "own",
        7,
        vec![
            // Last, whatever stands first.
            all(A::Drop, D::InOut, 1000),
            rule(A::Accept, D::InOut, P::Arp, &[("opcode", "Request")]),
            // Of both ways: to the guest from these ports, and from the guest to them.
            rule(
                A::Accept,
                D::InOut,
                P::Ip,
                &[
                    ("protocol", "udp"),
                    ("srcportstart", "5000"),
                    ("srcportend", "5002"),
                ],
            ),
            // Before that.
            prioritised(
                rule(
                    A::Drop,
                    D::Out,
                    P::Ip,
                    &[("srcipaddr", "192.0.2.64"), ("srcipmask", "26")],
                ),
                -5,
            ),
            prioritised(
                rule(
                    A::Reject,
                    D::In,
                    P::Ip,
                    &[
                        ("srcmacaddr", "52:54:00:00:00:00"),
                        ("srcmacmask", "ff:ff:ff:00:00:00"),
                        ("srcipaddr", "198.51.100.9"),
                    ],
                ),
                10,
            ),
            rule(
                A::Accept,
                D::Out,
                P::Ipv6,
                &[("protocol", "icmpv6"), ("type", "128"), ("typeend", "136")],
            ),
            rule(A::Accept, D::Out, P::Vlan, &[("vlanid", "5")]),
        ],
    );
    alone(move || {
        let filters = Filters::with(vec![own.clone()]);
        let wire = filters.wire("own", &[]);
        let to = |port: u16| udp([192, 0, 2, 5], 1000, port);
        assert!(wire.passes(&honest()));
        assert!(wire.passes(&to(5000)) && wire.passes(&to(5002)));
        assert!(!wire.passes(&to(4999)) && !wire.passes(&to(5003)));
        assert!(
            !wire.passes(&udp([192, 0, 2, 65], 1000, 5001)),
            "it is met first"
        );
        assert!(
            wire.passes(&udp([192, 0, 2, 129], 1000, 5001)),
            "another network"
        );
        let came = |ip: [u8; 4], port: u16| from(OTHER, &udp(ip, port, 1000));
        assert!(
            wire.reaches(&came([203, 0, 113, 1], 5001)),
            "from that port"
        );
        assert!(
            !wire.reaches(&from(OTHER, &udp([203, 0, 113, 1], 1000, 5001))),
            "to that port"
        );
        assert!(
            !wire.reaches(&came([198, 51, 100, 9], 5001)),
            "it is met first"
        );
        assert!(wire.reaches(&came([198, 51, 100, 8], 5001)));
        assert!(wire.passes(&icmpv6("fe80::1", 136, "fe80::1")));
        assert!(!wire.passes(&icmpv6("fe80::1", 137, "fe80::1")));
        let tagged =
            |tag: u8| ethernet(OWN, 0x8100, &[&[0x20, tag, 8, 6], &honest()[14..]].concat());
        assert!(wire.passes(&tagged(5)), "a tag");
        assert!(!wire.passes(&tagged(6)), "another tag");

        // Replaced while the guest runs, and only where all can have it.
        let mut next = own.clone();
        next.entries = vec![rule(A::Drop, D::Out, P::Arp, &[])];
        filters.filters.define(next.clone(), false).unwrap();
        assert!(!wire.passes(&honest()));
        assert!(wire.passes(&to(4999)));
        assert!(wire.reaches(&came([198, 51, 100, 9], 5001)));
        next.entries = vec![rule(
            A::Drop,
            D::Out,
            P::Arp,
            &[("arpsrcipaddr", "$NOBODY")],
        )];
        let refused = filters.filters.define(next.clone(), false).unwrap_err();
        assert!(refused.message.contains("$NOBODY"), "{refused}");
        assert!(refused.message.contains("'guest'"), "{refused}");
        assert!(!wire.passes(&honest()));
        let name = reeve_ipc::api::call::NwfilterRef::Name(next.name.clone());
        assert_eq!(filters.filters.get(&name).unwrap().entries.len(), 1);
        let refused = filters.filters.undefine(&name).unwrap_err();
        assert!(
            refused.message.starts_with("nwfilter is in use"),
            "{refused}"
        );
        let bindings = filters.filters.bindings(None).bindings;
        assert_eq!(bindings.len(), 1);
        assert_eq!(bindings[0].interface.as_str(), "guest");
        assert_eq!(bindings[0].filter.filter, next.name);

        // Put back as every other.
        unguard("guest").unwrap();
        until("it is back", || !wire.passes(&honest()));

        let Wire { guest, other, .. } = wire;
        drop((guest, other));
        ends("guest");
        filters.filters.undefine(&name).unwrap();
    });
}

#[test]
fn a_frame_that_a_network_filter_lets_pass_has_the_source_filter_before_it() {
    let any = filter("any", 7, vec![all(A::Accept, D::InOut, -1000)]);
    let mut negated = rule(A::Drop, D::Out, P::Mac, &[("protocolid", "ipv4")]);
    if let FilterEntry::Rule(rule) = &mut negated {
        rule.negated = true;
    }
    let only = filter("only", 8, vec![negated]);
    alone(move || {
        let filters = Filters::with(vec![any, only]);
        let mut both = filters.bound("any", &[]);
        both.sender = guarded(&["192.0.2.5"]).sender;
        let mut wire = Wire::new(both.clone());
        assert!(wire.passes(&honest()));
        assert!(!wire.passes(&arp(OWN, OWN, [192, 0, 2, 6])));
        assert!(!wire.passes(&udp([192, 0, 2, 5], 67, 68)));
        both.bound = filters.bound("only", &[]).bound;
        wire.filters.guard(&id("guest"), both).unwrap();
        assert!(!wire.passes(&honest()), "all but IPv4 is dropped");
        assert!(wire.passes(&udp([192, 0, 2, 5], 1000, 2000)));
        assert!(!wire.passes(&udp([192, 0, 2, 6], 1000, 2000)));
        let blocked = Guarded {
            bound: Some(Bound::blocked(
                &reference("gone", &[]),
                OWN.try_into().unwrap(),
            )),
            ..filters.bound("any", &[])
        };
        wire.filters = TapFilters::default();
        wire.filters.guard(&id("guest"), blocked).unwrap();
        assert!(!wire.passes(&udp([192, 0, 2, 5], 1000, 2000)));
        assert!(!wire.reaches(&from(OTHER, &honest())));
    });
}

#[test]
fn rules_of_before_stay_until_they_are_taken_away_and_nothing_passes_then_until_a_definition() {
    let arp_only = || {
        let arp = rule(A::Accept, D::InOut, P::Arp, &[]);
        filter("own", 7, vec![arp, all(A::Drop, D::InOut, 1000)])
    };
    alone(move || {
        let Wire {
            filters: earlier,
            guest,
            other,
        } = Filters::with(vec![arp_only()]).wire("own", &[]);
        drop(earlier);
        let rest = udp([192, 0, 2, 5], 1000, 2000);
        // The next supervisor does not find the filter.
        let next = Filters::with(Vec::new());
        let wire = Wire {
            filters: next.taps.clone(),
            guest,
            other,
        };
        let tap = id("guest");
        let of = |sender| Guarded {
            sender,
            bound: Some(Bound::blocked(
                &reference("own", &[]),
                OWN.try_into().unwrap(),
            )),
            guest: guarded_guest().guest,
        };
        let blocked = of(None);
        assert!(wire.filters.is_held(&tap, &blocked));
        wire.filters.guard_held(&tap, blocked.clone());
        assert!(wire.passes(&honest()) && !wire.passes(&rest));
        assert_eq!(wire.filters.bound(), [(tap.clone(), blocked.clone())]);

        // It is not left without any, and what the rules were nobody knows.
        unguard("guest").unwrap();
        until("it is blocked", || !wire.passes(&honest()));
        assert!(!wire.reaches(&from(OTHER, &honest())));
        next.filters.define(arp_only(), true).unwrap();
        assert!(wire.passes(&honest()) && !wire.passes(&rest));

        // A filter that is there again reaches it where the rules of before still are, too.
        let Wire {
            filters,
            guest,
            other,
        } = wire;
        drop((filters, next));
        let later = Filters::with(Vec::new());
        let wire = Wire {
            filters: later.taps.clone(),
            guest,
            other,
        };
        later.taps.guard_held(&tap, blocked);
        let mut all_pass = arp_only();
        all_pass.entries = Vec::new();
        later.filters.define(all_pass, true).unwrap();
        assert!(wire.passes(&honest()) && wire.passes(&rest));

        // Nobody is said to be the sender by the rules of before: where somebody is to be, they are not enough.
        let sender = of(guarded(&["192.0.2.5"]).sender);
        assert!(!later.taps.is_held(&tap, &sender));
        later.taps.guard_held(&tap, sender);
        assert!(!wire.passes(&honest()));

        let Wire {
            filters,
            guest,
            other,
        } = wire;
        drop((guest, other));
        ends("guest");
        until("the filter is gone", nothing_is_left);
        assert!(filters.bound().is_empty());
    });
}

#[test]
fn what_is_taken_at_most_the_kernel_takes() {
    let macs: Vec<String> = (0..32)
        .map(|last| format!("52:54:00:00:00:{last:02x}"))
        .collect();
    let fields = [
        ("srcmacaddr", "$M[@1]"),
        ("srcipaddr", "$A[@2]"),
        ("srcipmask", "30"),
        ("dstmacaddr", "$MAC"),
        ("protocol", "tcp"),
        ("dstportstart", "1"),
        ("dstportend", "9"),
    ];
    let many = filter("many", 9, vec![rule(A::Drop, D::InOut, P::Ip, &fields)]);
    let addresses: Vec<String> = (0..32).map(|last| format!("192.0.2.{last}")).collect();
    alone(move || {
        let filters = Filters::with(vec![many]);
        let mut parameters: Vec<(&str, &str)> =
            macs.iter().map(|mac| ("M", mac.as_str())).collect();
        parameters.extend(addresses.iter().map(|address| ("A", address.as_str())));
        let wire = filters.wire("many", &parameters);
        assert!(wire.passes(&honest()));
        let mut more = parameters.clone();
        more.push(("A", "192.0.2.99"));
        let refused = Bound::new(
            &filters.book.read(),
            &reference("many", &more),
            OWN.try_into().unwrap(),
        );
        assert!(matches!(refused, Err(InstanceError::Rules(_))));
    });
}

/// Whether only ARP passes by the filter `shared`, or everything.
fn shared(arp_only: bool) -> Nwfilter {
    let arp = rule(A::Accept, D::InOut, P::Arp, &[]);
    let rest = all(if arp_only { A::Drop } else { A::Accept }, D::InOut, 1000);
    filter("shared", 11, vec![arp, rest])
}

#[test]
fn all_of_many_interfaces_take_a_filter_that_changes_or_none_does() {
    alone(|| {
        let filters = Filters::with(vec![shared(true)]);
        let wire = filters.wire("shared", &[]);
        let rest = udp([192, 0, 2, 5], 1000, 2000);
        let others: Vec<Tap> = (0..40)
            .map(|number| make(&format!("tap{number}")))
            .collect();
        for tap in &others {
            let guarded = filters.bound("shared", &[]);
            filters.taps.guard(&tap.id().unwrap(), guarded).unwrap();
        }
        let is_anew = || {
            let book = filters.book.read();
            let mut bound = filters.taps.bound().into_iter();
            bound.all(|(_, guarded)| guarded.again(&book).unwrap() == guarded)
        };
        assert_eq!(filters.taps.bound().len(), 41);
        assert!(wire.passes(&honest()) && !wire.passes(&rest));
        // What changes nothing of an interface's rules leaves what they have counted.
        let tap = id("guest");
        let dropped = filters.taps.dropped([&tap]);
        assert!(dropped > 0);
        filters.filters.define(shared(true), false).unwrap();
        assert_eq!(filters.taps.dropped([&tap]), dropped);
        filters.filters.define(shared(false), false).unwrap();
        assert!(is_anew() && wire.passes(&rest));

        // Somebody keeps the table of one of them for himself: by then the first have the rules of after.
        let before = filters.taps.bound();
        let mut admin = Tables::open().unwrap();
        admin.seize("tap25").unwrap();
        let refused = filters.filters.define(shared(true), false).unwrap_err();
        // The first of those whose filters are in that table.
        let (_, named) = refused.message.split_once("the interface '").unwrap();
        let (named, _) = named.split_once("' uses it: ").unwrap();
        assert_eq!(placed::table(named), placed::table("tap25"), "{refused:?}");
        assert_eq!(filters.taps.bound(), before);
        assert!(is_anew() && wire.passes(&rest));
        drop(admin);
        // A process that another test starts has a copy of its socket for a moment.
        until("all can have it", || {
            filters.filters.define(shared(true), false).is_ok()
        });
        assert!(is_anew() && !wire.passes(&rest));
    });
}

#[test]
fn what_starts_while_a_filter_changes_has_the_rules_of_after_as_well() {
    alone(|| {
        let filters = Filters::with(vec![shared(true)]);
        let mac = OWN.try_into().unwrap();
        let shown = reference("shared", &[]);
        let guard = |tap: &Tap| {
            // As a start does: by the filters of before for as long as the book is held.
            let book = filters.book.read();
            let bound = Bound::new(&book, &shown, mac).unwrap();
            let guarded = Guarded {
                bound: Some(bound),
                ..filters.bound_to_nothing()
            };
            filters.taps.guard(&tap.id().unwrap(), guarded).unwrap();
        };
        let mut taps: Vec<Tap> = (0..30)
            .map(|number| make(&format!("tap{number}")))
            .collect();
        taps.iter().for_each(guard);
        let (more, listed) = std::thread::scope(|scope| {
            let changing = scope.spawn(|| {
                for round in 0..6 {
                    let changed = shared(round % 2 != 0);
                    filters.filters.define(changed, false).unwrap();
                }
            });
            let (mut more, mut listed) = (Vec::new(), 0);
            while !changing.is_finished() && more.len() < 60 {
                let tap = make(&format!("more{}", more.len()));
                guard(&tap);
                more.push(tap);
                listed += filters.filters.page(None).filters.len();
            }
            (more, listed)
        });
        assert!(listed > 0);
        taps.extend(more);
        let bound = filters.taps.bound();
        assert_eq!(bound.len(), taps.len());
        let book = filters.book.read();
        for (tap, guarded) in bound {
            assert_eq!(guarded.again(&book).unwrap(), guarded, "{tap:?}");
        }
    });
}
