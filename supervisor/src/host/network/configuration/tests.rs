//! Texts as dnsmasq reads them; whether it takes them, `tests/networks` tries.

use reeve_ipc::model::{
    Bootp, Dns, DnsForwarder, DnsHost, DnsText, NetworkAddress, NetworkDomain, NetworkUuid,
};

use super::*;

fn network() -> Network {
    Network::new("n".parse().unwrap(), NetworkUuid(uuid::Uuid::from_u128(7)))
}

fn address(text: &str, prefix: u8) -> NetworkAddress {
    NetworkAddress {
        address: text.parse().unwrap(),
        prefix,
        local_ptr: false,
        dhcp: None,
        tftp_root: None,
    }
}

fn range(first: &str, last: &str, lease: Option<LeaseTime>) -> DhcpRange {
    DhcpRange {
        first: first.parse().unwrap(),
        last: last.parse().unwrap(),
        lease,
    }
}

/// The lines between those that every network has.
fn lines(network: &Network) -> Vec<String> {
    network.validate().unwrap();
    let path = |name: &'static str| Path::new(name);
    let files = Files {
        dhcp_hosts: path("/h"),
        dns_hosts: path("/a"),
        leases: path("/l"),
        copies: None,
    };
    let text = configuration(network, "virbr0", files);
    let end = [
        "dhcp-hostsfile=\"/h\"",
        "addn-hosts=\"/a\"",
        "dhcp-leasefile=\"/l\"",
        "user=",
        "pid-file=",
        "keep-in-foreground",
        "log-facility=-",
        "quiet-dhcp",
        "quiet-dhcp6",
        "quiet-ra",
    ];
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("# Written by reeved"), "{text}");
    assert_eq!(lines[1], "strict-order");
    let (rest, last) = lines[2..].split_at(lines.len() - 2 - end.len());
    assert_eq!(last, end);
    rest.to_vec()
}

#[test]
fn a_server_that_does_not_get_to_the_host_s_names_has_copies() {
    let path = |name: &'static str| Path::new(name);
    let files = Files {
        dhcp_hosts: path("/h"),
        dns_hosts: path("/a"),
        leases: path("/l"),
        copies: Some(Copies {
            hosts: path("/c"),
            resolvers: path("/r"),
        }),
    };
    let text = configuration(&network(), "virbr0", files);
    for line in ["no-hosts", "addn-hosts=\"/c\"", "resolv-file=\"/r\""] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}

#[test]
fn the_default_network_is_served_as_libvirt_serves_it() {
    let mut network = network();
    network.forward = Forward::Nat(reeve_ipc::model::Nat::default());
    let mut own = address("192.168.122.1", 24);
    own.dhcp = Some(Dhcp {
        ranges: vec![range("192.168.122.2", "192.168.122.254", None)],
        ..Dhcp::default()
    });
    network.addresses.push(own);
    assert_eq!(
        lines(&network),
        [
            "except-interface=lo",
            "bind-dynamic",
            "interface=virbr0",
            "dhcp-range=192.168.122.2,192.168.122.254,255.255.255.0",
            "dhcp-no-override",
            "dhcp-authoritative",
            "dhcp-ignore-clid",
            "dhcp-lease-max=253",
        ]
    );
    assert_eq!(dhcp_hosts(&network), "");
    assert_eq!(dns_hosts(&network), "");
}

#[test]
fn all_that_can_be_said_of_names_is_said() {
    let mut network = network();
    network.domain = Some(NetworkDomain {
        name: "example.org".to_owned(),
        local_only: true,
    });
    let forwarder = |address: Option<&str>, domain: Option<&str>| DnsForwarder {
        address: address.map(|text| text.parse().unwrap()),
        domain: domain.map(str::to_owned),
    };
    let service = |target: Option<&str>, numbers: [Option<u16>; 3]| DnsService {
        service: "ldap".to_owned(),
        protocol: "tcp".to_owned(),
        domain: Some("example.org".to_owned()),
        target: target.map(str::to_owned),
        port: numbers[0],
        priority: numbers[1],
        weight: numbers[2],
    };
    network.dns = Dns {
        enabled: true,
        forward_plain_names: false,
        forwarders: vec![
            forwarder(Some("192.0.2.1"), None),
            forwarder(Some("2001:db8::1"), Some("a.example")),
            forwarder(None, Some("b.example")),
        ],
        hosts: vec![DnsHost {
            address: "192.0.2.7".parse().unwrap(),
            names: vec!["x".to_owned(), "y.example.org".to_owned()],
        }],
        texts: vec![DnsText {
            name: "t".to_owned(),
            value: "v=spf1 a, mx # all".to_owned(),
        }],
        services: vec![
            service(Some("s.example.org"), [None, None, Some(3)]),
            service(Some("."), [None; 3]),
            service(Some("u.example.org"), [Some(389), None, None]),
        ],
    };
    let mut first = address("10.1.0.1", 16);
    first.local_ptr = true;
    let mut second = address("2001:db8:1::1", 64);
    second.local_ptr = true;
    network.addresses = vec![first, second];
    network.forward = Forward::Open;
    assert_eq!(
        lines(&network),
        [
            "server=192.0.2.1",
            "server=/a.example/2001:db8::1",
            "server=/b.example/#",
            "no-resolv",
            "local=/example.org/",
            "domain=example.org",
            "expand-hosts",
            "domain-needed",
            "except-interface=lo",
            "bind-dynamic",
            "interface=virbr0",
            "local=/1.10.in-addr.arpa/",
            "local=/0.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa/",
            "txt-record=t,\"v=spf1 a, mx # all\"",
            "srv-host=_ldap._tcp.example.org,s.example.org,1,0,3",
            "srv-host=_ldap._tcp.example.org",
            "srv-host=_ldap._tcp.example.org,u.example.org,389",
            "dhcp-range=2001:db8:1::1,ra-only",
        ]
    );
    assert_eq!(dns_hosts(&network), "192.0.2.7\tx y.example.org\n");
}

#[test]
fn an_isolated_network_has_no_router_and_nobody_to_ask() {
    let mut network = network();
    network.dns.enabled = false;
    network.dns.forward_plain_names = false;
    let mut own = address("10.0.0.1", 8);
    own.tftp_root = Some("/srv/tftp".into());
    own.dhcp = Some(Dhcp {
        ranges: vec![range("10.0.0.10", "10.0.0.19", Some(LeaseTime::Hours(12)))],
        hosts: vec![
            DhcpHost {
                mac: Some("52:54:00:00:00:01".parse().unwrap()),
                name: Some("one".to_owned()),
                address: Some("10.0.0.11".parse().unwrap()),
                lease: Some(LeaseTime::Infinite),
                ..DhcpHost::default()
            },
            DhcpHost {
                mac: Some("52:54:00:00:00:02".parse().unwrap()),
                name: Some("two".to_owned()),
                ..DhcpHost::default()
            },
        ],
        bootp: Some(Bootp {
            file: "pxelinux.0".to_owned(),
            server: Some("10.0.0.5".to_owned()),
        }),
    });
    let mut other = address("2001:db8::1", 64);
    other.dhcp = Some(Dhcp {
        hosts: vec![DhcpHost {
            id: Some("0:3:0:1:0:16:3e:11:22:33".to_owned()),
            name: Some("six".to_owned()),
            address: Some("2001:db8::6".parse().unwrap()),
            lease: Some(LeaseTime::Minutes(5)),
            ..DhcpHost::default()
        }],
        ..Dhcp::default()
    });
    network.addresses = vec![own, other];
    assert_eq!(
        lines(&network),
        [
            "port=0",
            "except-interface=lo",
            "bind-dynamic",
            "interface=virbr0",
            "dhcp-option=3",
            "no-resolv",
            "ra-param=*,0,0",
            "enable-tftp",
            "tftp-root=\"/srv/tftp\"",
            "dhcp-range=10.0.0.10,10.0.0.19,255.0.0.0,12h",
            "dhcp-boot=pxelinux.0,,10.0.0.5",
            "dhcp-range=2001:db8::,static,64",
            "dhcp-no-override",
            "dhcp-authoritative",
            "dhcp-ignore-clid",
            "dhcp-lease-max=13",
            "enable-ra",
        ]
    );
    assert_eq!(
        dhcp_hosts(&network),
        "52:54:00:00:00:01,one,10.0.0.11,infinite\n\
         52:54:00:00:00:02,two\n\
         id:0:3:0:1:0:16:3e:11:22:33,six,[2001:db8::6],5m\n"
    );
}

#[test]
fn ranges_of_ipv6_give_out_no_more_than_a_book_holds() {
    let mut network = network();
    let with = |mut on: NetworkAddress, ranges: Vec<DhcpRange>| {
        on.dhcp = Some(Dhcp {
            ranges,
            ..Dhcp::default()
        });
        on
    };
    let four = range("10.0.0.10", "10.0.0.19", None);
    let six = [
        range("2001:db8::1:0", "2001:db8::1:ffff", None),
        range("2001:db8::100", "2001:db8::1ff", None),
    ];
    network.addresses = vec![
        with(address("10.0.0.1", 8), vec![four]),
        with(address("2001:db8::1", 64), six.to_vec()),
    ];
    let lines = lines(&network);
    for line in [
        "dhcp-range=10.0.0.10,10.0.0.19,255.0.0.0",
        // The first that the other leaves.
        "dhcp-range=2001:db8::1:0,2001:db8::1:2ff,64",
        "dhcp-range=2001:db8::100,2001:db8::1ff,64",
        // What all of them have, so that none takes another's.
        "dhcp-lease-max=1034",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line}: {lines:?}");
    }
}

#[test]
fn what_small_ranges_of_ipv6_do_not_need_the_larger_have() {
    let most = |sizes: &[u128]| {
        let mut network = network();
        let mut own = address("2001:db8::1", 64);
        let ranges = sizes.iter().zip(1_u128..).map(|(size, place)| {
            let first = (0x2001_0db8 << 96) + (place << 32);
            let range = |at| IpAddr::from(Ipv6Addr::from_bits(at));
            DhcpRange {
                first: range(first),
                last: range(first + size - 1),
                lease: None,
            }
        });
        own.dhcp = Some(Dhcp {
            ranges: ranges.collect(),
            ..Dhcp::default()
        });
        network.addresses.push(own);
        most_of_ipv6(&network)
    };
    for (sizes, part) in [
        (&[][..], 1024),
        (&[1], 1024),
        (&[1 << 20], 1024),
        (&[600, 256], 1024),
        (&[1 << 20, 256], 768),
        (&[1 << 20, 256, 2000, 10], 379),
        (&[1 << 20, 1 << 20], 512),
        (&[2; 2000], 1),
    ] {
        assert_eq!(most(sizes), part, "{sizes:?}");
    }
}
