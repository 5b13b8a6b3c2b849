//! What networks are made of on a host that is a network namespace of the test's own thread: what is made, what
//! passes, what faults are survived, and that nothing is left. Without the right to a namespace there is nothing to try.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod bench;
mod faults;
mod forwarding;
mod passing;
mod stations;

use std::path::{Path, PathBuf};

use reeve_ipc::model::{
    Dhcp, DhcpRange, Forward, Nat, Network, NetworkAddress, NetworkRoute, NetworkUuid,
};
use reeved::network::host::{NetworkFailure, NetworkHost, NetworkHostError, NetworkResources};

use self::bench::{Bench, alone, ip, ip_shows, nft, run};

/// A network with NAT whose bridge is `virbr{number}`, with addresses in `192.168.{number}.0/24`.
fn network(number: u8) -> Network {
    let uuid = NetworkUuid(uuid::Uuid::from_u128(0x7000 + u128::from(number)));
    let mut network = Network::new(format!("net{number}").parse().unwrap(), uuid);
    network.forward = Forward::Nat(Nat::default());
    network.bridge.name = Some(format!("virbr{number}").parse().unwrap());
    let mut own = address(&format!("192.168.{number}.1"), 24);
    own.dhcp = Some(Dhcp {
        ranges: vec![DhcpRange {
            first: format!("192.168.{number}.2").parse().unwrap(),
            last: format!("192.168.{number}.254").parse().unwrap(),
            lease: None,
        }],
        ..Dhcp::default()
    });
    network.addresses.push(own);
    network.complete();
    network.validate().unwrap();
    network
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

#[test]
fn what_a_network_is_made_of_is_there_and_gone_with_it() {
    alone(|| {
        let bench = Bench::new();
        let before = bench.dump();
        let mut network = network(91);
        network.mtu = Some(1400);
        network.addresses.push(address("10.91.0.1", 16));
        network.addresses.push(address("fd00:91::1", 64));
        network.routes.push(NetworkRoute {
            destination: "172.30.0.0".parse().unwrap(),
            prefix: 16,
            gateway: "192.168.91.7".parse().unwrap(),
            metric: Some(5),
        });
        network.validate().unwrap();
        let resources = bench.start(&network).unwrap();
        let link = ip_shows(&["-details", "link", "show", "virbr91"]);
        for part in [
            "mtu 1400",
            "52:54:00:00:00:00",
            "stp_state 1",
            "forward_delay 200",
            "UP",
        ] {
            assert!(link.contains(part), "{part}: {link}");
        }
        let addresses = ip_shows(&["addr", "show", "virbr91"]);
        for part in [
            "inet 192.168.91.1/24 brd 192.168.91.255",
            "inet 10.91.0.1/16 brd 10.91.255.255",
            "inet6 fd00:91::1/64",
        ] {
            assert!(addresses.contains(part), "{part}: {addresses}");
        }
        assert!(!addresses.contains("tentative"), "{addresses}");
        let routes = ip_shows(&["route"]);
        let route = "172.30.0.0/16 via 192.168.91.7 dev virbr91 proto static metric 5";
        assert!(routes.contains(route), "{routes}");
        assert_eq!(setting("net/ipv4/ip_forward"), "1");
        assert_eq!(setting("net/ipv6/conf/all/forwarding"), "1");
        assert_eq!(setting("net/ipv6/conf/virbr91/accept_ra"), "0");
        let noted = |name: &str, before: &str| (name.to_owned(), before.to_owned());
        let settings = [
            noted("net/ipv4/ip_forward", "0"),
            noted("net/ipv4/conf/all/accept_redirects", "1"),
            noted("net/ipv6/conf/all/forwarding", "0"),
        ];
        assert_eq!(resources.settings, settings);
        let rules = nft(&["list", "ruleset"]);
        assert!(rules.contains("table inet reeve-networks"), "{rules}");
        let server = resources.server.clone().unwrap();
        let other = self::network(90);
        let others = bench.start(&other).unwrap();
        jailed(server.pid, "virbr91");
        jailed(others.server.clone().unwrap().pid, "virbr90");
        bench.host.stop(&other, &others).unwrap();

        bench.host.stop(&network, &resources).unwrap();
        bench.host.stop(&network, &resources).unwrap();
        assert_eq!(bench.dump(), before);
        assert!(!Path::new(&format!("/proc/{}/exe", server.pid)).exists());
        assert!(bench.host.watch(network.uuid, &resources).is_none());
    });
}

/// That the server of names is somebody of no importance, and no other network's.
fn jailed(pid: u32, bridge: &str) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let index = std::fs::read_to_string(format!("/sys/class/net/{bridge}/ifindex")).unwrap();
    let uid = (0x7266_0000_u32 + index.trim().parse::<u32>().unwrap()).to_string();
    assert_eq!(field("Uid:"), [uid.as_str(); 4].join(" "));
    assert_eq!(field("Gid:"), [uid.as_str(); 4].join(" "));
    assert_eq!(field("Groups:"), "");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    // NET_BIND_SERVICE, NET_ADMIN, NET_RAW.
    assert_eq!(field("CapEff:"), "0000000000003400");
    assert_eq!(field("CapPrm:"), "0000000000003400");
    // The descriptors of the test are not there: nothing above what it opens itself.
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(environment.is_empty());
}

#[test]
fn a_network_without_ipv6_has_none_and_an_open_one_no_rules() {
    alone(|| {
        let bench = Bench::new();
        let before = bench.dump();
        let mut open = network(92);
        open.forward = Forward::Open;
        let first = bench.start(&open).unwrap();
        assert!(!ip_shows(&["addr", "show", "virbr92"]).contains("inet6"));
        assert_eq!(setting("net/ipv6/conf/virbr92/disable_ipv6"), "1");
        assert_eq!(setting("net/ipv6/conf/all/forwarding"), "0");
        assert!(!nft(&["list", "ruleset"]).contains("reeve-networks"));
        // Another needs the same of the host, and has it for as long as it is there.
        let other = network(93);
        let second = bench.start(&other).unwrap();
        assert_eq!(second.settings, first.settings);
        bench.host.stop(&open, &first).unwrap();
        assert_eq!(setting("net/ipv4/ip_forward"), "1");
        bench.host.stop(&other, &second).unwrap();
        assert_eq!(setting("net/ipv4/ip_forward"), "0");
        assert_eq!(bench.dump(), before);
    });
}

#[test]
fn a_host_that_forwards_already_is_left_to() {
    alone(|| {
        let bench = Bench::new();
        run("sh", &["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]);
        let network = network(94);
        let resources = bench.start(&network).unwrap();
        assert!(resources.settings.is_empty());
        bench.host.stop(&network, &resources).unwrap();
        assert_eq!(setting("net/ipv4/ip_forward"), "1");
    });
}

#[test]
fn what_others_have_is_refused() {
    alone(|| {
        let bench = Bench::new();
        ip(&["link", "add", "eth0", "type", "bridge"]);
        ip(&["addr", "add", "192.168.95.130/25", "dev", "eth0"]);
        ip(&["link", "set", "eth0", "up"]);
        ip(&["route", "add", "10.0.0.0/8", "via", "192.168.95.200"]);
        ip(&["route", "add", "10.96.7.0/24", "via", "192.168.95.200"]);
        let before = bench.dump();
        let refused = |network: &Network| {
            let error = bench.start(network).unwrap_err();
            assert_eq!(error.kind, NetworkFailure::Taken);
            assert_eq!(bench.dump(), before);
            error.message
        };
        // One that has an address of the host's.
        let line = "network 192.168.95.0/24 is already in use by interface eth0";
        assert_eq!(refused(&network(95)), line);
        // One that has what a route of the host's leads to.
        let mut routed = network(96);
        routed.addresses = vec![address("10.96.0.1", 16)];
        let line = "network 10.96.0.0/16 is already in use by interface eth0";
        assert_eq!(refused(&routed), line);
        // What is on the other side of a link of the host's.
        let mut within = network(97);
        within.addresses = vec![address("192.168.95.193", 26)];
        let line = "network 192.168.95.192/26 is already in use by interface eth0";
        assert_eq!(refused(&within), line);
        // A part of what is far away is none of these.
        let mut far = network(98);
        far.addresses = vec![address("10.98.0.1", 16)];
        let resources = bench.start(&far).unwrap();
        bench.host.stop(&far, &resources).unwrap();
        // A route of the host's own is not taken for the network's.
        let mut way = network(80);
        way.routes.push(NetworkRoute {
            destination: "10.0.0.0".parse().unwrap(),
            prefix: 8,
            gateway: "192.168.80.7".parse().unwrap(),
            metric: Some(77),
        });
        ip(&[
            "route",
            "add",
            "10.0.0.0/8",
            "via",
            "192.168.95.201",
            "metric",
            "77",
        ]);
        let error = bench.start(&way).unwrap_err();
        assert_eq!(error.kind, NetworkFailure::Taken);
        ip(&["route", "del", "10.0.0.0/8", "metric", "77"]);
        assert_eq!(bench.dump(), before);
        // The bridge's name.
        let mut named = network(99);
        named.bridge.name = Some("eth0".parse().unwrap());
        let line = "there is an interface 'eth0' on the host already: give the network's bridge another name";
        assert_eq!(refused(&named), line);
        // And whoever asks for it to be stopped all the same does not take another's link.
        let record = NetworkResources {
            bridge: named.bridge.name.clone(),
            ..NetworkResources::default()
        };
        bench.host.stop(&named, &record).unwrap();
        assert_eq!(bench.dump(), before);
    });
}

#[test]
fn another_network_takes_another_name_and_its_addresses_are_refused_too() {
    alone(|| {
        let bench = Bench::new();
        let first = network(81);
        let resources = bench.start(&first).unwrap();
        let mut second = network(82);
        second.addresses = vec![address("192.168.81.65", 26)];
        let error = bench.start(&second).unwrap_err();
        let line = "network 192.168.81.64/26 is already in use by interface virbr81";
        assert_eq!(
            (error.kind, error.message.as_str()),
            (NetworkFailure::Taken, line)
        );
        second.bridge.name.clone_from(&first.bridge.name);
        second.addresses = vec![address("192.168.82.1", 24)];
        assert_eq!(
            bench.start(&second).unwrap_err().kind,
            NetworkFailure::Taken
        );
        assert!(ip_shows(&["addr", "show", "virbr81"]).contains("192.168.81.1/24"));
        bench.host.stop(&first, &resources).unwrap();
    });
}

#[test]
fn what_is_not_made_is_said() {
    alone(|| {
        let bench = Bench::new();
        let before = bench.dump();
        let mut pool = network(83);
        pool.addresses.clear();
        pool.forward = Forward::HostDevices {
            managed: true,
            source: reeve_ipc::model::HostDeviceSource::PhysicalFunction("eth0".parse().unwrap()),
        };
        assert_eq!(
            bench.start(&pool).unwrap_err().kind,
            NetworkFailure::Unsupported
        );
        let mut on_bridge = network(84);
        on_bridge.forward = Forward::Bridge("br0".parse().unwrap());
        on_bridge.addresses.clear();
        assert_eq!(
            bench.start(&on_bridge).unwrap(),
            NetworkResources::default()
        );
        assert_eq!(bench.dump(), before);
    });
}

#[test]
fn what_cannot_be_noted_is_not_made() {
    alone(|| {
        let bench = Bench::new();
        let before = bench.dump();
        let network = network(85);
        for fails in 1..=3 {
            let mut count = 0;
            let refused = bench.host.start(&network, &mut |_| {
                count += 1;
                match count == fails {
                    true => Err(NetworkHostError {
                        kind: NetworkFailure::Storage,
                        message: "no".to_owned(),
                    }),
                    false => Ok(()),
                }
            });
            assert_eq!(
                refused.unwrap_err().kind,
                NetworkFailure::Storage,
                "{fails}"
            );
            assert_eq!(bench.dump(), before, "{fails}");
        }
    });
}

fn setting(name: &str) -> String {
    let path = PathBuf::from("/proc/sys").join(name);
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}
