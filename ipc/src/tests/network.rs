//! The rules of virtual networks, each broken once, and changes of their parts.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::api::network_samples::{network, others};
use crate::model::{
    BridgeSettings, Dhcp, DhcpHost, DhcpRange, DirectMode, DnsForwarder, DnsHost, DnsService,
    DnsText, EditCommand, Forward, HostDeviceSource, LeaseTime, MAX_NETWORK_BYTES, MetadataElement,
    Nat, Network, NetworkAddress, NetworkDomain, NetworkEdit, NetworkError as E, NetworkPart,
    NetworkRoute, PortGroup, PortRange, Vlan, VlanTag, networks_overlap,
};
use crate::spec::Rate;

fn with(change: impl FnOnce(&mut Network)) -> Result<(), E> {
    let mut network = network();
    change(&mut network);
    network.validate()
}

/// Of a network with the first other way of forwarding that is so.
fn other(wanted: impl Fn(&Forward) -> bool, change: impl FnOnce(&mut Network)) -> Result<(), E> {
    let mut others = others().into_iter().map(|(_, network)| network);
    let mut network = others.find(|network| wanted(&network.forward)).unwrap();
    change(&mut network);
    network.validate()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn dhcp(network: &mut Network, index: usize) -> &mut Dhcp {
    network.addresses[index].dhcp.as_mut().unwrap()
}

fn range(first: &str, last: &str) -> DhcpRange {
    DhcpRange {
        first: ip(first),
        last: ip(last),
        lease: None,
    }
}

#[track_caller]
fn is_text(result: Result<(), E>, wanted: &str) {
    match result {
        Err(E::Text { what, .. }) => assert_eq!(what, wanted),
        other => panic!("{other:?}"),
    }
}

#[test]
fn networks_of_every_kind_are_valid() {
    assert_eq!(network().validate(), Ok(()));
    for (name, network) in others() {
        assert_eq!(network.validate(), Ok(()), "{name}");
    }
}

#[test]
fn what_is_left_out_is_filled_in() {
    let mut bare = Network::new("lan".parse().unwrap(), network().uuid);
    bare.complete();
    let mac = bare.mac.unwrap().octets();
    assert_eq!(mac[..3], [0x52, 0x54, 0]);
    let mut full = network();
    full.complete();
    assert_eq!(full, network());
    for (_, mut other) in others() {
        other.complete();
        assert_eq!(other.mac.is_some(), other.forward.makes_bridge());
        assert_eq!(other.validate(), Ok(()));
    }
}

#[test]
fn what_only_a_bridge_of_its_own_has_is_refused_of_others() {
    let direct = |forward: &Forward| matches!(forward, Forward::Direct { .. });
    let changes: [fn(&mut Network); 7] = [
        |it| it.bridge.name = Some("virbr7".parse().unwrap()),
        |it| it.mac = network().mac,
        |it| it.domain = network().domain,
        |it| it.dns = network().dns,
        |it| it.addresses = network().addresses,
        |it| it.routes = network().routes,
        |it| it.ipv6 = true,
    ];
    for change in changes {
        let refused = other(direct, change).unwrap_err();
        let is = matches!(
            refused,
            E::NoBridge {
                forward: "private",
                ..
            }
        );
        assert!(is, "{refused:?}");
    }
    let tags = || Vlan {
        trunk: false,
        tags: vec![VlanTag {
            id: 1,
            native: None,
        }],
    };
    assert_eq!(
        with(|it| it.vlan = Some(tags())),
        Err(E::OwnBridge("a VLAN"))
    );
    let refused = with(|it| it.open_vswitch = true);
    assert_eq!(refused, Err(E::OwnBridge("a port of Open vSwitch")));
    let refused = with(|it| it.port_groups[0].vlan = Some(tags()));
    assert_eq!(refused, Err(E::OwnBridge("a VLAN")));
}

#[test]
fn what_forwards_needs_what_it_forwards_by() {
    let direct = |forward: &Forward| matches!(forward, Forward::Direct { .. });
    let none = other(direct, |it| {
        it.forward = Forward::Direct {
            mode: DirectMode::Vepa,
            devices: Vec::new(),
        };
    });
    assert_eq!(none, Err(E::NoDevice("vepa")));
    let twice = other(direct, |it| {
        if let Forward::Direct { devices, .. } = &mut it.forward {
            devices.push(devices[0].clone());
        }
    });
    assert_eq!(twice, Err(E::DeviceTwice("eth0".parse().unwrap())));
    let devices = |forward: &Forward| matches!(forward, Forward::HostDevices { .. });
    let none = other(devices, |it| {
        it.forward = Forward::HostDevices {
            managed: false,
            source: HostDeviceSource::Functions(Vec::new()),
        };
    });
    assert_eq!(none, Err(E::NoDevice("hostdev")));
    let nat = |change: fn(&mut Nat)| {
        with(|it| {
            if let Forward::Nat(nat) = &mut it.forward {
                change(nat);
            }
        })
    };
    let ports = nat(|nat| nat.ports = Some(PortRange { first: 2, last: 1 }));
    assert_eq!(ports, Err(E::Ports(2, 1)));
    let ports = nat(|nat| nat.ports = Some(PortRange { first: 0, last: 1 }));
    assert_eq!(ports, Err(E::Ports(0, 1)));
    let span = nat(|nat| {
        nat.addresses = Some((Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 1)));
    });
    assert_eq!(span, Err(E::Range(ip("192.0.2.2"), ip("192.0.2.1"))));
    let span = nat(|nat| nat.addresses = Some((Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)));
    assert_eq!(span, Err(E::Station(ip("0.0.0.0"))));
}

#[test]
fn numbers_are_in_their_ranges() {
    assert_eq!(with(|it| it.mtu = Some(67)), Err(E::Mtu(67)));
    assert_eq!(with(|it| it.mtu = Some(68)), Ok(()));
    let delay = |delay| {
        with(|it| {
            it.bridge = BridgeSettings {
                delay,
                ..it.bridge.clone()
            }
        })
    };
    assert_eq!((delay(30), delay(31)), (Ok(()), Err(E::Delay(31))));
    let rate = with(|it| {
        it.inbound = Some(Rate {
            per_second: 0,
            burst: None,
        });
    });
    assert!(matches!(rate, Err(E::Rate(_))), "{rate:?}");
    for prefix in [0, 33] {
        let address = ip("10.0.0.1");
        let refused = with(|it| it.addresses[0].prefix = prefix);
        assert_eq!(refused, Err(E::Prefix { address, prefix }));
    }
    let refused = with(|it| it.addresses[1].prefix = 48);
    assert_eq!(refused, Err(E::Dhcp6Prefix(48)));
    let metric = with(|it| it.routes[0].metric = Some(0));
    assert_eq!(metric, Err(E::Metric));
    let lease = |lease| with(|it| dhcp(it, 0).ranges[0].lease = Some(lease));
    for short in [
        LeaseTime::Seconds(119),
        LeaseTime::Minutes(1),
        LeaseTime::Hours(0),
    ] {
        assert_eq!(lease(short), Err(E::Lease));
    }
    assert_eq!(lease(LeaseTime::Seconds(120)), Ok(()));
    let lease = with(|it| dhcp(it, 0).hosts[0].lease = Some(LeaseTime::Minutes(0)));
    assert_eq!(lease, Err(E::Lease));
}

#[test]
fn addresses_are_of_stations_on_the_network() {
    for bad in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
        let refused = with(|it| it.addresses[0].address = ip(bad));
        assert_eq!(refused, Err(E::Station(ip(bad))), "{bad}");
    }
    let refused = with(|it| it.addresses[1].address = ip("fe80::1"));
    assert_eq!(refused, Err(E::Station(ip("fe80::1"))));
    let on = |address| E::NotOnNetwork {
        address,
        network: ip("10.0.0.0"),
        prefix: 24,
    };
    for bad in ["10.0.0.0", "10.0.0.255"] {
        let refused = with(|it| it.addresses[0].address = ip(bad));
        assert_eq!(refused, Err(on(ip(bad))), "{bad}");
    }
    for bad in ["10.0.1.7", "fd00::7"] {
        let refused = with(|it| dhcp(it, 0).hosts[0].address = Some(ip(bad)));
        assert_eq!(refused, Err(on(ip(bad))), "{bad}");
    }
    let overlap = with(|it| {
        let mut again = it.addresses[0].clone();
        again.address = ip("10.0.0.129");
        again.prefix = 25;
        again.dhcp = None;
        it.addresses.push(again);
    });
    let (a, b) = (ip("10.0.0.1"), ip("10.0.0.129"));
    assert_eq!(overlap, Err(E::AddressesOverlap(a, b)));
    let twice = with(|it| {
        let mut again = it.addresses[0].clone();
        again.address = ip("10.1.0.1");
        again.dhcp = Some(Dhcp::default());
        it.addresses.push(again);
    });
    assert_eq!(twice, Err(E::DhcpTwice("IPv4")));
    assert!(networks_overlap((a, 24), (b, 25)) && !networks_overlap((a, 25), (b, 25)));
    assert!(!networks_overlap((a, 0), (ip("::"), 0)));
}

#[test]
fn ranges_and_hosts_of_dhcp_agree() {
    let ranges = |ranges: Vec<DhcpRange>| with(|it| dhcp(it, 0).ranges = ranges);
    let upside_down = ranges(vec![range("10.0.0.9", "10.0.0.8")]);
    assert_eq!(upside_down, Err(E::Range(ip("10.0.0.9"), ip("10.0.0.8"))));
    let shared = ranges(vec![
        range("10.0.0.8", "10.0.0.20"),
        range("10.0.0.20", "10.0.0.30"),
    ]);
    let overlap = E::RangesOverlap(ip("10.0.0.8"), ip("10.0.0.20"));
    assert_eq!(shared, Err(overlap));
    let wide = with(|it| dhcp(it, 1).ranges = vec![range("fd00::2", "fd00::1:2")]);
    assert_eq!(wide, Err(E::Range(ip("fd00::2"), ip("fd00::1:2"))));
    let host = |index: usize, host: DhcpHost| with(|it| dhcp(it, index).hosts.push(host));
    let named = |name: &str| DhcpHost {
        name: Some(name.to_owned()),
        ..DhcpHost::default()
    };
    let id = Some("0:1".to_owned());
    let mac = network().mac;
    for (index, bad) in [
        (0, DhcpHost::default()),
        (0, DhcpHost { id, ..named("a") }),
        (
            0,
            DhcpHost {
                mac,
                ..DhcpHost::default()
            },
        ),
        (1, DhcpHost { mac, ..named("a") }),
        (1, DhcpHost::default()),
    ] {
        let refused = host(index, bad.clone());
        assert!(
            matches!(refused, Err(E::DhcpHost(_))),
            "{bad:?}: {refused:?}"
        );
    }
    let twice = host(0, named("web"));
    assert_eq!(twice, Err(E::DhcpHostTwice("web".to_owned())));
    is_text(host(0, named("a,b")), "name of a host");
    let id = Some("a,b".to_owned());
    is_text(host(1, DhcpHost { id, ..named("a") }), "id of a client");
    let only4 = with(|it| it.addresses[1].tftp_root = Some("/srv".into()));
    assert_eq!(only4, Err(E::Ipv4Only("TFTP")));
    let only4 = with(|it| {
        let bootp = dhcp(it, 0).bootp.clone();
        dhcp(it, 1).bootp = bootp;
    });
    assert_eq!(only4, Err(E::Ipv4Only("<bootp>")));
    for bad in ["srv", "/srv/../etc", "/srv/a,b", "/srv/\n"] {
        let refused = with(|it| it.addresses[0].tftp_root = Some(bad.into()));
        assert_eq!(refused, Err(E::Directory(bad.into())));
    }
    let file = with(|it| dhcp(it, 0).bootp.as_mut().unwrap().file = "a,b".to_owned());
    is_text(file, "name of a file to boot");
    let server = Some("a b".to_owned());
    let server = with(|it| dhcp(it, 0).bootp.as_mut().unwrap().server = server);
    is_text(server, "address or name of a server");
}

#[test]
fn names_of_dns_hold_nothing_that_a_configuration_would_take_for_more() {
    let domain = |name: &str| {
        let name = name.to_owned();
        let local_only = false;
        with(|it| it.domain = Some(NetworkDomain { name, local_only }))
    };
    for bad in ["a\nb", "a,b", "-a", "", "a b"] {
        is_text(domain(bad), "name of a domain");
    }
    let (address, none) = (None, None);
    let forwarder = DnsForwarder {
        address,
        domain: none,
    };
    let refused = with(|it| it.dns.forwarders.push(forwarder));
    assert_eq!(refused, Err(E::Forwarder));
    let domain = Some("a#b".to_owned());
    let forwarder = DnsForwarder { address, domain };
    is_text(
        with(|it| it.dns.forwarders.push(forwarder)),
        "name of a domain",
    );
    let host = |address: &str, names: &[&str]| DnsHost {
        address: ip(address),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let refused = with(|it| it.dns.hosts.push(host("10.0.0.3", &[])));
    assert_eq!(refused, Err(E::NoNames(ip("10.0.0.3"))));
    let refused = with(|it| it.dns.hosts.push(host("198.51.100.7", &["c"])));
    assert!(matches!(refused, Err(E::DnsTwice { .. })), "{refused:?}");
    is_text(
        with(|it| it.dns.hosts.push(host("10.0.0.3", &["a/b"]))),
        "name of a host",
    );
    let text = |name: &str, value: &str| DnsText {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    is_text(
        with(|it| it.dns.texts.push(text("a b", "v"))),
        "name of a text",
    );
    is_text(
        with(|it| it.dns.texts.push(text("b", "\"\n"))),
        "text of DNS",
    );
    let refused = with(|it| it.dns.texts.push(text("t", "v")));
    assert!(matches!(refused, Err(E::DnsTwice { .. })), "{refused:?}");
    let service = |change: fn(&mut DnsService)| with(|it| change(&mut it.dns.services[0]));
    let label = "name of a service or protocol";
    is_text(service(|it| it.service = "a.b".to_owned()), label);
    is_text(service(|it| it.protocol = String::new()), label);
    let name = "name of a domain or host";
    is_text(service(|it| it.target = Some("a,b".to_owned())), name);
    assert_eq!(service(|it| it.target = None), Err(E::NoTarget));
    assert_eq!(service(|it| it.target = Some(".".to_owned())), Ok(()));
}

#[test]
fn routes_lead_to_networks_by_a_guest() {
    let route = |change: fn(&mut NetworkRoute)| with(|it| change(&mut it.routes[0]));
    let refused = route(|it| it.destination = "10.9.0.1".parse().unwrap());
    assert_eq!(refused, Err(E::Destination(ip("10.9.0.1"), 16)));
    let refused = route(|it| it.prefix = 33);
    assert_eq!(refused, Err(E::Destination(ip("10.9.0.0"), 33)));
    for gateway in ["10.0.1.9", "fd00::9"] {
        let gateway = ip(gateway);
        let refused = with(|it| it.routes[0].gateway = gateway);
        assert_eq!(refused, Err(E::Gateway(gateway)));
    }
}

#[test]
fn port_groups_and_tags_are_one_of_each() {
    let again = |name: &str, default| {
        let name = name.to_owned();
        with(|it| {
            let group = it.port_groups[0].clone();
            it.port_groups.push(PortGroup {
                name,
                default,
                ..group
            });
        })
    };
    assert_eq!(again("silver", false), Ok(()));
    let twice = |name: &str| Err(E::PortGroupTwice(name.to_owned()));
    assert_eq!(again("gold", false), twice("gold"));
    assert_eq!(again("silver", true), twice("silver"));
    is_text(again("", false), "name of a port group");
    is_text(again("a\nb", false), "name of a port group");
    let tag = |id, native| VlanTag { id, native };
    let bridged = |forward: &Forward| matches!(forward, Forward::Bridge(_));
    let vlan =
        |trunk, tags: Vec<VlanTag>| other(bridged, |it| it.vlan = Some(Vlan { trunk, tags }));
    assert_eq!(vlan(false, vec![tag(4095, None)]), Ok(()));
    for (trunk, tags) in [
        (true, vec![]),
        (false, vec![tag(4096, None)]),
        (true, vec![tag(1, None), tag(1, None)]),
        (false, vec![tag(1, None), tag(2, None)]),
        (true, vec![tag(1, Some(true)), tag(2, Some(false))]),
        (false, vec![tag(1, Some(true))]),
    ] {
        assert_eq!(vlan(trunk, tags.clone()), Err(E::Vlan), "{tags:?}");
    }
    let network = network();
    assert_eq!(network.port_group(None).unwrap().unwrap().name, "gold");
    assert_eq!(
        network.port_group(Some("no")),
        Err(E::NoPortGroup("no".to_owned()))
    );
}

#[test]
fn a_definition_fits_a_message() {
    let texts = |count: usize| {
        with(|it| {
            let text = |number| DnsText {
                name: format!("t{number}"),
                value: "v".repeat(1024),
            };
            it.dns.texts = (0..count).map(text).collect();
        })
    };
    assert_eq!(texts(10), Ok(()));
    let refused = texts(MAX_NETWORK_BYTES / 1024);
    assert!(matches!(refused, Err(E::Size(_))), "{refused:?}");
    let element = |uri: &str| MetadataElement {
        uri: uri.to_owned(),
        content: "<a/>".to_owned(),
    };
    let refused = with(|it| it.labels.metadata = vec![element("u"), element("u")]);
    assert!(matches!(refused, Err(E::Labels(_))), "{refused:?}");
}

fn edited(command: EditCommand, part: NetworkPart) -> Result<Network, E> {
    network().edited(&NetworkEdit { command, part })
}

fn dns_host(address: Option<&str>, names: &[&str]) -> NetworkPart {
    NetworkPart::DnsHost {
        address: address.map(ip),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// One of each part that is not in the network, and of each that is.
fn parts() -> Vec<(NetworkPart, NetworkPart)> {
    use NetworkPart as P;
    let network = network();
    let there = network.addresses[0].dhcp.clone().unwrap();
    let dns = network.dns;
    let host = |name: &str, host: &DhcpHost| DhcpHost {
        name: Some(name.to_owned()),
        address: None,
        mac: host.mac.filter(|_| name == "web"),
        ..host.clone()
    };
    let dhcp_host = |host| P::DhcpHost {
        address: None,
        host,
    };
    let dhcp_range = |range| P::DhcpRange {
        address: Some(0),
        range,
    };
    vec![
        (
            dhcp_host(host("new", &there.hosts[0])),
            dhcp_host(host("web", &there.hosts[0])),
        ),
        (
            dhcp_range(range("10.0.0.100", "10.0.0.110")),
            dhcp_range(there.ranges[0]),
        ),
        (
            P::PortGroup(PortGroup {
                name: "silver".to_owned(),
                default: false,
                ..network.port_groups[0].clone()
            }),
            P::PortGroup(network.port_groups[0].clone()),
        ),
        (
            dns_host(Some("10.0.0.44"), &["new"]),
            dns_host(Some("198.51.100.7"), &["a", "b"]),
        ),
        (
            P::DnsText(DnsText {
                name: "new".to_owned(),
                ..dns.texts[0].clone()
            }),
            P::DnsText(dns.texts[0].clone()),
        ),
        (
            P::DnsService(DnsService {
                service: "sip".to_owned(),
                ..dns.services[0].clone()
            }),
            P::DnsService(dns.services[0].clone()),
        ),
    ]
}

#[test]
fn every_part_is_added_and_taken_away() {
    use EditCommand as C;
    for (new, there) in parts() {
        for add in [C::AddFirst, C::AddLast] {
            let with = edited(add, new.clone()).unwrap();
            assert_ne!(with, network(), "{new:?}");
            let part = new.clone();
            let command = C::Delete;
            let without = with.edited(&NetworkEdit { command, part }).unwrap();
            assert_eq!(without, network(), "{new:?}");
            let twice = edited(add, there.clone()).unwrap_err();
            assert!(matches!(twice, E::There(_)), "{twice:?}");
        }
        for command in [C::Delete, C::Modify] {
            let refused = edited(command, new.clone()).unwrap_err();
            assert!(
                matches!(refused, E::NotThere(_) | E::NeverModified(_)),
                "{refused:?}"
            );
        }
        assert_ne!(edited(C::Delete, there).unwrap(), network());
    }
}

#[test]
fn what_comes_first_is_first() {
    let part = || {
        NetworkPart::DnsText(DnsText {
            name: "new".to_owned(),
            value: String::new(),
        })
    };
    let names = |network: Network| {
        let texts = network.dns.texts.into_iter();
        texts.map(|text| text.name).collect::<Vec<_>>()
    };
    let first = edited(EditCommand::AddFirst, part()).unwrap();
    assert_eq!(names(first), ["new", "t"]);
    let last = edited(EditCommand::AddLast, part()).unwrap();
    assert_eq!(names(last), ["t", "new"]);
}

#[test]
fn hosts_and_port_groups_are_modified_and_nothing_else() {
    use EditCommand::Modify;
    for (_, there) in parts() {
        let modified = edited(Modify, there.clone());
        match there {
            NetworkPart::DhcpHost { .. } => {
                let network = modified.unwrap();
                let host = &network.addresses[0].dhcp.as_ref().unwrap().hosts[0];
                assert_eq!(host.address, None);
            }
            NetworkPart::PortGroup(_) => assert_eq!(modified, Ok(network())),
            _ => assert!(matches!(modified, Err(E::NeverModified(_))), "{modified:?}"),
        }
    }
}

#[test]
fn a_change_that_makes_no_valid_network_is_none() {
    use EditCommand as C;
    let range_of = |first, last, address| NetworkPart::DhcpRange {
        address,
        range: range(first, last),
    };
    let refused = edited(C::AddLast, range_of("10.0.0.19", "10.0.0.30", None));
    assert!(matches!(refused, Err(E::RangesOverlap(..))), "{refused:?}");
    let refused = edited(C::AddLast, range_of("10.7.0.19", "10.7.0.30", None));
    assert!(
        matches!(refused, Err(E::NotOnNetwork { .. })),
        "{refused:?}"
    );
    let refused = edited(C::AddLast, range_of("10.0.0.100", "10.0.0.110", Some(2)));
    assert_eq!(refused, Err(E::NoAddress(2)));
    let refused = edited(
        C::AddLast,
        NetworkPart::ForwardInterface("eth0".parse().unwrap()),
    );
    assert_eq!(refused, Err(E::NotOfForward("nat")));
    // Of the family that it is of, where no address is named.
    let six = edited(C::AddLast, range_of("fd00::10", "fd00::20", None)).unwrap();
    let ranges = |index: usize| six.addresses[index].dhcp.as_ref().unwrap().ranges.len();
    assert_eq!((ranges(0), ranges(1)), (1, 1));
}

#[test]
fn interfaces_of_a_direct_network_come_and_go() {
    let mut others = others().into_iter().map(|(_, network)| network);
    let direct = others.find(|network| matches!(network.forward, Forward::Direct { .. }));
    let direct = direct.unwrap();
    let edit = |network: &Network, command, name: &str| {
        let part = NetworkPart::ForwardInterface(name.parse().unwrap());
        network.edited(&NetworkEdit { command, part })
    };
    let three = edit(&direct, EditCommand::AddLast, "eth7").unwrap();
    assert_eq!(
        edit(&three, EditCommand::Delete, "eth7"),
        Ok(direct.clone())
    );
    let one = edit(&direct, EditCommand::Delete, "eth0").unwrap();
    let refused = edit(&one, EditCommand::Delete, "eth1");
    assert_eq!(refused, Err(E::NoDevice("private")));
    let refused = edit(&direct, EditCommand::Modify, "eth0");
    assert!(matches!(refused, Err(E::NeverModified(_))), "{refused:?}");
}

#[test]
fn a_host_of_dns_is_added_by_its_address_and_deleted_where_one_matches() {
    use EditCommand as C;
    let edit = |network: &Network, command, address, names: &[&str]| {
        let part = dns_host(address, names);
        network.edited(&NetworkEdit { command, part })
    };
    // A name has two addresses.
    let two = edit(&network(), C::AddLast, Some("198.51.100.8"), &["a"]).unwrap();
    let there = edit(&two, C::AddLast, Some("198.51.100.8"), &["c"]).unwrap_err();
    assert_eq!(there, E::There("host 198.51.100.8 of DNS".to_owned()));
    let several = |what: &str| Err(E::Several(format!("host {what} of DNS")));
    assert_eq!(edit(&two, C::Delete, None, &["a"]), several("a"));
    let both = edit(&two, C::Delete, Some("198.51.100.8"), &["a"]);
    assert_eq!(both, several("198.51.100.8"));
    let by_address = edit(&two, C::Delete, Some("198.51.100.8"), &[]);
    assert_eq!(by_address, Ok(network()));
    let by_name = edit(&two, C::Delete, None, &["b"]).unwrap();
    assert_eq!(by_name.dns.hosts, two.dns.hosts[1..]);
    // By a name alone, no address is meant.
    let none = edit(&two, C::AddLast, Some("0.0.0.0"), &["none"]).unwrap();
    let refused = edit(&none, C::Delete, None, &["other"]);
    assert_eq!(refused, Err(E::NotThere("host other of DNS".to_owned())));
    let refused = edit(&two, C::Delete, None, &[]).unwrap_err();
    assert!(matches!(refused, E::NotThere(_)), "{refused:?}");
    let refused = edit(&two, C::AddFirst, None, &["c"]);
    assert_eq!(refused, Err(E::DnsHostAddress));
}

#[test]
fn a_port_group_that_is_modified_keeps_what_libvirts_words_do_not_say() {
    let mut before = network();
    before.port_groups[0].isolated = Some(true);
    let group = PortGroup {
        inbound: None,
        outbound: Some(Rate {
            per_second: 9,
            burst: None,
        }),
        trust_guest: None,
        isolated: None,
        ..before.port_groups[0].clone()
    };
    let (command, part) = (EditCommand::Modify, NetworkPart::PortGroup(group.clone()));
    let after = before.edited(&NetworkEdit { command, part }).unwrap();
    let (before, after) = (&before.port_groups[0], &after.port_groups[0]);
    assert_eq!(after.isolated, Some(true));
    assert!(before.inbound.is_some() && after.inbound == before.inbound);
    assert_eq!((after.outbound, after.trust_guest), (group.outbound, None));
}

#[test]
fn a_host_of_dhcp_is_found_as_libvirt_finds_it() {
    use EditCommand as C;
    let known = DhcpHost {
        mac: Some("52:54:00:00:00:09".parse().unwrap()),
        id: None,
        name: Some("nine".to_owned()),
        address: Some(ip("10.0.0.9")),
        lease: None,
    };
    let edit = |network: &Network, command, host: DhcpHost| {
        let address = None;
        let part = NetworkPart::DhcpHost { address, host };
        network.edited(&NetworkEdit { command, part })
    };
    let with = edit(&network(), C::AddLast, known.clone()).unwrap();
    let other = DhcpHost {
        mac: Some("52:54:00:00:00:0a".parse().unwrap()),
        id: None,
        name: Some("ten".to_owned()),
        address: Some(ip("10.0.0.30")),
        lease: None,
    };
    let (mac, name, address) = (known.mac, known.name.clone(), known.address);
    for host in [
        DhcpHost {
            mac,
            ..other.clone()
        },
        DhcpHost {
            name: name.clone(),
            ..other.clone()
        },
        DhcpHost {
            address,
            ..other.clone()
        },
    ] {
        let there = edit(&with, C::AddLast, host.clone());
        assert!(matches!(there, Err(E::There(_))), "{there:?}");
        // One that is the same in one thing is not the same in all.
        let not = edit(&with, C::Delete, host.clone());
        assert!(matches!(not, Err(E::NotThere(_))), "{not:?}");
        let modified = edit(&with, C::Modify, host.clone());
        match host.address == address {
            true => assert!(matches!(modified, Err(E::NotThere(_))), "{modified:?}"),
            false => {
                let network = modified.unwrap();
                assert_eq!(network.addresses[0].dhcp.as_ref().unwrap().hosts[1], host);
            }
        }
    }
    let none = DhcpHost::default();
    for host in [
        known,
        DhcpHost {
            mac,
            ..none.clone()
        },
        DhcpHost {
            name,
            ..none.clone()
        },
        DhcpHost {
            address,
            ..none.clone()
        },
    ] {
        assert_eq!(edit(&with, C::Delete, host), Ok(network()));
    }
    let refused = edit(&with, C::Delete, none);
    assert!(matches!(refused, Err(E::NotThere(_))), "{refused:?}");
}

#[test]
fn a_service_is_deleted_by_what_is_said_where_one_matches() {
    let edit = |network: &Network, command, service| {
        let part = NetworkPart::DnsService(service);
        network.edited(&NetworkEdit { command, part })
    };
    let there = network().dns.services[0].clone();
    let bare = DnsService {
        domain: None,
        target: None,
        port: None,
        priority: None,
        weight: None,
        ..there.clone()
    };
    let gone = edit(&network(), EditCommand::Delete, bare.clone()).unwrap();
    assert!(gone.dns.services.is_empty());
    let other = DnsService {
        target: Some("other.example".to_owned()),
        ..there.clone()
    };
    let two = edit(&network(), EditCommand::AddLast, other.clone()).unwrap();
    let several = edit(&two, EditCommand::Delete, bare.clone());
    assert!(matches!(several, Err(E::Several(_))), "{several:?}");
    let target = other.target;
    let one = edit(&two, EditCommand::Delete, DnsService { target, ..bare });
    assert_eq!(one, Ok(network()));
}

fn v4() -> impl Strategy<Value = IpAddr> {
    // Few, so that they meet.
    (0..4_u8, any::<u8>()).prop_map(|(net, last)| Ipv4Addr::new(10, 0, net, last).into())
}

proptest! {
    /// Whatever is asked, what comes of it is valid, and what was valid stays as it was.
    #[test]
    fn what_is_edited_is_valid(
        edits in proptest::collection::vec((0..4_usize, 0..3_u8, v4(), v4(), "[a-c,\n]{0,2}"), 0..24)
    ) {
        let commands = [
            EditCommand::Modify,
            EditCommand::Delete,
            EditCommand::AddFirst,
            EditCommand::AddLast,
        ];
        let mut network = network();
        for (command, kind, first, last, name) in edits {
            let part = match kind {
                0 => NetworkPart::DhcpRange {
                    address: None,
                    range: DhcpRange { first, last, lease: None },
                },
                1 => NetworkPart::DhcpHost {
                    address: None,
                    host: DhcpHost {
                        name: Some(name),
                        address: Some(first),
                        ..DhcpHost::default()
                    },
                },
                _ => NetworkPart::DnsHost { address: Some(first), names: vec![name] },
            };
            let edit = NetworkEdit { command: commands[command], part };
            let before = network.clone();
            match network.edited(&edit) {
                Ok(after) => {
                    prop_assert_eq!(after.validate(), Ok(()));
                    network = after;
                }
                Err(error) => {
                    prop_assert!(!error.to_string().contains('\n'), "{}", error);
                    prop_assert_eq!(&network, &before);
                }
            }
        }
    }

    /// An address is on a network exactly where both begin with the same bits.
    #[test]
    fn addresses_are_on_networks_by_their_bits(own: u32, other: u32, prefix in 1..=32_u8) {
        let address = NetworkAddress {
            address: Ipv4Addr::from_bits(own).into(),
            prefix,
            local_ptr: false,
            dhcp: None,
            tftp_root: None,
        };
        let shift = 32 - u32::from(prefix);
        let same = own >> shift == other >> shift;
        prop_assert_eq!(address.contains(Ipv4Addr::from_bits(other).into()), same);
        prop_assert!(address.first() <= address.address && address.address <= address.last());
        let alone = (Ipv4Addr::from_bits(other).into(), 32);
        prop_assert_eq!(networks_overlap((address.address, prefix), alone), same);
    }
}
