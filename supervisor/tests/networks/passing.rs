//! What passes between a guest, the host and what is outside: real packets between namespaces.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use reeve_ipc::model::{Dhcp, DhcpRange, DnsForwarder, DnsHost, Forward, Nat, Network, PortRange};
use reeved::network::host::NetworkHost;

use super::bench::{Bench, alone, ip, nft, run, until};
use super::stations::Station;
use super::{address, network};

/// As `docs/security.md` says.
const MAX_LEASES_OF_IPV6: usize = 1024;

/// A network with a guest, and a station outside that knows the way to it.
struct World {
    bench: Bench,
    network: Network,
    guest: Station,
    outside: Station,
}

impl World {
    fn new(network: Network) -> Self {
        let bench = Bench::new();
        let outside = Station::at("eth0");
        ip(&["addr", "add", "203.0.113.1/24", "dev", "eth0"]);
        ip(&["addr", "add", "2001:db8:ffff::1/64", "dev", "eth0", "nodad"]);
        outside.ip(&["addr", "add", "203.0.113.2/24", "dev", "eth0"]);
        outside.ip(&["addr", "add", "2001:db8:ffff::2/64", "dev", "eth0", "nodad"]);
        outside.ip(&["route", "add", "default", "via", "203.0.113.1"]);
        outside.ip(&["route", "add", "default", "via", "2001:db8:ffff::1"]);
        bench.start(&network).unwrap();
        let bridge = network.bridge.name.clone().unwrap();
        let guest = Station::on(bridge.as_str(), "plug0");
        Self {
            bench,
            network,
            guest,
            outside,
        }
    }

    /// With an address that it gives itself.
    fn with_address(network: Network) -> Self {
        let world = Self::new(network);
        world
            .guest
            .ip(&["addr", "add", "192.168.51.9/24", "dev", "eth0"]);
        world
            .guest
            .ip(&["route", "add", "default", "via", "192.168.51.1"]);
        world
            .guest
            .ip(&["addr", "add", "fd00:51::9/64", "dev", "eth0", "nodad"]);
        world
            .guest
            .ip(&["route", "add", "default", "via", "fd00:51::1"]);
        world
    }

    /// Sends from the guest to outside: who it was seen as, and whether an answer came.
    fn out(&self, from: &str, to: &str) -> Option<(SocketAddr, bool)> {
        passes(&self.guest, from, &self.outside, to)
    }

    fn reaches(&self, from: &str, to: &str) -> bool {
        passes(&self.outside, from, &self.guest, to).is_some()
    }

    fn stop(self) {
        let resources = self.bench.noted.borrow().clone().unwrap();
        self.bench.host.stop(&self.network, &resources).unwrap();
    }
}

/// Sends a datagram, twice, in case the first asks for the way.
fn passes(from: &Station, source: &str, to: &Station, target: &str) -> Option<(SocketAddr, bool)> {
    let (sender, receiver) = (from.socket(source), to.socket(target));
    for _ in 0..2 {
        // One that was refused is told of it by the next call.
        let _ = sender.send_to(b"x", target);
        let mut buffer = [0; 8];
        if let Ok((_, seen)) = receiver.recv_from(&mut buffer) {
            receiver.send_to(b"y", seen).unwrap();
            return Some((seen, sender.recv(&mut buffer).is_ok()));
        }
    }
    None
}

fn refused(chain: &str) -> bool {
    let rules = nft(&["list", "chain", "inet", "reeve-networks", chain]);
    let last = rules.lines().find(|line| line.contains("reject")).unwrap();
    assert!(last.contains("counter packets"), "{rules}");
    !last.contains("packets 0")
}

#[test]
fn a_guest_gets_an_address_a_name_and_the_world_by_the_host_s_address() {
    alone(|| {
        let mut network = network(51);
        network.dns.hosts.push(DnsHost {
            address: "192.168.51.77".parse().unwrap(),
            names: vec!["seven".to_owned()],
        });
        let world = World::new(network);
        let (own, router, names) = world.guest.lease("guest1");
        let host = Some(Ipv4Addr::new(192, 168, 51, 1));
        assert_eq!((router, names), (host, host));
        assert_eq!(own.octets()[..3], [192, 168, 51]);
        let resolve = |name: &str| world.guest.resolve("192.168.51.1", name);
        assert_eq!(resolve("seven"), Some(Ipv4Addr::new(192, 168, 51, 77)));
        assert_eq!(resolve("guest1"), Some(own), "by the name that it told");
        // Its book.
        let book = world.bench.host.leases(&world.network).unwrap().unwrap();
        let mut text = String::new();
        std::fs::File::from(book).read_to_string(&mut text).unwrap();
        assert!(text.contains(&format!(" {own} guest1 ")), "{text}");

        let seen = world.out("0.0.0.0:5000", "203.0.113.2:7000");
        let (seen, answered) = seen.unwrap();
        assert_eq!(seen.ip(), Ipv4Addr::new(203, 0, 113, 1));
        assert!(answered && seen.port() >= 1024);
        let low = world.out("0.0.0.0:500", "203.0.113.2:7000").unwrap().0;
        assert!(low.port() >= 1024, "{low}");
        assert!(!world.reaches("0.0.0.0:0", &format!("{own}:6000")));
        assert!(refused("into-virbr51"));
        // One that uses an address of nobody's.
        world
            .guest
            .ip(&["addr", "add", "198.51.100.1/32", "dev", "eth0"]);
        assert_eq!(world.out("198.51.100.1:0", "203.0.113.2:7000"), None);
        assert!(refused("from-virbr51"));
        world.stop();
    });
}

#[test]
fn a_guest_that_says_it_is_many_has_one_lease() {
    alone(|| {
        let mut network = network(51);
        let dhcp = network.addresses[0].dhcp.as_mut().unwrap();
        // One for it, and one for another.
        dhcp.ranges[0].last = "192.168.51.3".parse().unwrap();
        let world = World::new(network);
        let (own, ..) = world.guest.lease("many");
        let had = world.guest.leases_as(300);
        assert_eq!(had, [own].into());
        let other = Station::on("virbr51", "plug1");
        let (neighbour, ..) = other.lease("other");
        assert_ne!(neighbour, own);
        let book = world.bench.host.leases(&world.network).unwrap().unwrap();
        let mut text = String::new();
        std::fs::File::from(book).read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        world.stop();
    });
}

#[test]
fn a_guest_that_takes_all_of_ipv6_leaves_the_server_room_for_ipv4() {
    alone(|| {
        let mut network = network(51);
        let dhcp = network.addresses[0].dhcp.as_mut().unwrap();
        dhcp.ranges[0].last = "192.168.51.2".parse().unwrap();
        let mut six = address("fd00:51::1", 64);
        six.dhcp = Some(Dhcp {
            ranges: vec![DhcpRange {
                first: "fd00:51::1:0:0:0".parse().unwrap(),
                last: "fd00:51::1:0:0:ffff".parse().unwrap(),
                lease: None,
            }],
            ..Dhcp::default()
        });
        network.addresses.push(six);
        let world = World::new(network);
        assert_eq!(world.guest.all_of_ipv6(), MAX_LEASES_OF_IPV6);
        world.guest.lease("four");
        let book = world.bench.host.leases(&world.network).unwrap().unwrap();
        let mut text = String::new();
        std::fs::File::from(book).read_to_string(&mut text).unwrap();
        let (six, four): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.contains(" fd00:"));
        assert_eq!(six.len(), MAX_LEASES_OF_IPV6, "{four:?}");
        assert!(four.iter().any(|line| line.contains(" four ")), "{four:?}");
        world.stop();
    });
}

#[test]
fn files_of_an_allowed_directory_are_given_by_tftp_and_nothing_that_a_link_leads_to() {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use reeved::host::paths::AllowedPaths;
    use reeved::network::host::NetworkFailure;
    alone(|| {
        let mut bench = Bench::new();
        let (allowed, root) = (at(&bench, "allowed"), at(&bench, "allowed/tftp"));
        let other = at(&bench, "other");
        for directory in [&allowed, &root, &other] {
            std::fs::create_dir(directory).unwrap();
        }
        std::fs::write(root.join("boot"), "begin").unwrap();
        std::fs::write(other.join("secret"), "not this").unwrap();
        symlink(other.join("secret"), root.join("way")).unwrap();
        for name in ["hosts", "passwd", "resolv.conf"] {
            symlink(Path::new("/etc").join(name), root.join(name)).unwrap();
        }
        symlink(&other, allowed.join("out")).unwrap();
        let mut network = network(51);
        let before = bench.dump();
        let paths = Arc::new(AllowedPaths::new(vec![allowed.clone()]));
        bench.host = Bench::supervisor(bench.directory.path()).with_paths(paths);
        for refused in [
            at(&bench, "other"),
            allowed.join("out"),
            allowed.join("none"),
        ] {
            network.addresses[0].tftp_root = Some(refused);
            let error = bench.start(&network).unwrap_err();
            assert_eq!(error.kind, NetworkFailure::Host, "{error}");
            assert_eq!(bench.dump(), before);
        }
        network.addresses[0].tftp_root = Some(root.clone());
        let resources = bench.start(&network).unwrap();
        let guest = Station::on("virbr51", "plug0");
        guest.lease("booter");
        let fetch = |file: &str| guest.fetch("192.168.51.1", file);
        assert_eq!(fetch("boot"), Ok(b"begin".to_vec()));
        let refused = ["way", "hosts", "passwd", "resolv.conf"];
        for file in refused.iter().chain(&["../../other/secret", "none"]) {
            assert!(fetch(file).is_err(), "{file}");
        }
        // Another directory in its place is none that was allowed.
        std::fs::rename(&root, allowed.join("aside")).unwrap();
        symlink(&other, &root).unwrap();
        assert!(fetch("secret").is_err());
        bench.host.stop(&network, &resources).unwrap();
    });
}

#[test]
fn a_server_that_gives_files_knows_what_the_host_knows_of_names() {
    use std::sync::Arc;

    use reeved::host::paths::AllowedPaths;
    alone(|| {
        let mut bench = Bench::new();
        let (allowed, root) = (at(&bench, "allowed"), at(&bench, "allowed/tftp"));
        std::fs::create_dir_all(&root).unwrap();
        let paths = Arc::new(AllowedPaths::new(vec![allowed]));
        bench.host = Bench::supervisor(bench.directory.path()).with_paths(paths);
        // The host's own, for this namespace.
        let (hosts, resolvers) = (at(&bench, "hosts"), at(&bench, "resolv.conf"));
        std::fs::write(&hosts, "198.51.100.1 one.example\n").unwrap();
        std::fs::write(&resolvers, "nameserver 203.0.113.9\n").unwrap();
        for (file, over) in [(&hosts, "/etc/hosts"), (&resolvers, "/etc/resolv.conf")] {
            run("mount", &["--bind", file.to_str().unwrap(), over]);
        }
        let outside = Station::at("eth0");
        ip(&["addr", "add", "203.0.113.1/24", "dev", "eth0"]);
        outside.ip(&["addr", "add", "203.0.113.2/24", "dev", "eth0"]);
        let mut network = network(51);
        network.addresses[0].tftp_root = Some(root);
        let resources = bench.start(&network).unwrap();
        let guest = Station::on("virbr51", "plug0");
        guest.lease("asker");
        let resolve = |name: &str| guest.resolve("192.168.51.1", name);
        assert_eq!(resolve("one.example"), Some(Ipv4Addr::new(198, 51, 100, 1)));

        std::fs::write(&hosts, "198.51.100.2 two.example\n").unwrap();
        std::fs::write(&resolvers, "nameserver 203.0.113.2\n").unwrap();
        bench.host.check(&network, &resources).unwrap();
        until("it does not know the host's new name", || {
            resolve("two.example") == Some(Ipv4Addr::new(198, 51, 100, 2))
        });
        let upstream = outside.socket("203.0.113.2:53");
        until("it does not ask whom the host asks", || {
            let _ = resolve("far.example");
            upstream.recv_from(&mut [0; 512]).is_ok()
        });
        bench.host.stop(&network, &resources).unwrap();
    });
}

fn at(bench: &Bench, name: &str) -> std::path::PathBuf {
    bench.directory.path().join(name)
}

#[test]
fn names_that_are_not_known_are_asked_for_where_it_is_said() {
    alone(|| {
        let mut network = network(51);
        network.dns.forwarders.push(DnsForwarder {
            address: Some("203.0.113.2".parse().unwrap()),
            domain: None,
        });
        let world = World::new(network);
        world.guest.lease("asker");
        let upstream = world.outside.socket("203.0.113.2:53");
        let server = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            // It waits longer than for what may not come.
            upstream.set_read_timeout(Some(super::bench::SOON)).unwrap();
            let (length, from) = upstream.recv_from(&mut buffer).unwrap();
            let mut answer = buffer[..length].to_vec();
            // An answer to one question, with one record and nothing more.
            answer[2..4].copy_from_slice(&[0x81, 0x80]);
            answer[6..8].copy_from_slice(&[0, 1]);
            answer[10..12].copy_from_slice(&[0, 0]);
            let end = 12 + "far.example".len() + 2 + 4;
            answer.truncate(end);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 7]);
            upstream.send_to(&answer, from).unwrap();
        });
        let far = world.guest.resolve("192.168.51.1", "far.example");
        assert_eq!(far, Some(Ipv4Addr::new(198, 51, 100, 7)));
        server.join().unwrap();
        world.stop();
    });
}

#[test]
fn addresses_and_ports_of_nat_are_those_that_are_said() {
    alone(|| {
        let mut network = network(51);
        network.forward = Forward::Nat(Nat {
            device: Some("eth0".parse().unwrap()),
            ipv6: true,
            addresses: Some((
                "203.0.113.20".parse().unwrap(),
                "203.0.113.21".parse().unwrap(),
            )),
            ports: Some(PortRange {
                first: 40_000,
                last: 40_001,
            }),
        });
        network.addresses.push(address("fd00:51::1", 64));
        let world = World::with_address(network);
        for own in ["203.0.113.20/32", "203.0.113.21/32"] {
            ip(&["addr", "add", own, "dev", "eth0"]);
        }
        let (seen, answered) = world.out("0.0.0.0:0", "203.0.113.2:7000").unwrap();
        let SocketAddr::V4(seen) = seen else {
            panic!("{seen}")
        };
        assert!((20..=21).contains(&seen.ip().octets()[3]), "{seen}");
        assert!(
            (40_000..=40_001).contains(&seen.port()) && answered,
            "{seen}"
        );
        let (seen, answered) = world.out("[::]:0", "[2001:db8:ffff::2]:7000").unwrap();
        assert_eq!(seen.ip().to_string(), "2001:db8:ffff::1");
        assert!(answered);
        // By another device nothing goes.
        ip(&["link", "set", "eth0", "name", "eth7"]);
        assert_eq!(world.out("0.0.0.0:0", "203.0.113.2:7000"), None);
        world.stop();
    });
}

#[test]
fn a_routed_network_is_reached_by_its_own_addresses() {
    alone(|| {
        let mut network = network(51);
        network.forward = Forward::Route { device: None };
        network.addresses.push(address("fd00:51::1", 64));
        let world = World::with_address(network);
        let (seen, answered) = world.out("0.0.0.0:5000", "203.0.113.2:7000").unwrap();
        assert_eq!(seen.to_string(), "192.168.51.9:5000");
        assert!(answered);
        assert!(world.reaches("0.0.0.0:0", "192.168.51.9:6000"));
        let (seen, answered) = world
            .out("[fd00:51::9]:5000", "[2001:db8:ffff::2]:7000")
            .unwrap();
        assert_eq!(seen.to_string(), "[fd00:51::9]:5000");
        assert!(answered);
        assert!(world.reaches("[::]:0", "[fd00:51::9]:6000"));
        world.stop();
    });
}

#[test]
fn an_isolated_network_reaches_itself_and_the_host_alone() {
    alone(|| {
        // The host forwards for others.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let mut network = network(51);
        network.forward = Forward::Isolated;
        let world = World::new(network);
        let (own, router, _) = world.guest.lease("alone");
        assert_eq!(router, None);
        world
            .guest
            .ip(&["route", "add", "default", "via", "192.168.51.1"]);
        assert_eq!(world.out("0.0.0.0:0", "203.0.113.2:7000"), None);
        assert!(refused("from-virbr51"));
        assert!(!world.reaches("0.0.0.0:0", &format!("{own}:6000")));
        assert!(refused("into-virbr51"));
        let other = Station::on("virbr51", "plug1");
        other.ip(&["addr", "add", "192.168.51.200/24", "dev", "eth0"]);
        assert!(passes(&world.guest, "0.0.0.0:0", &other, "192.168.51.200:7000").is_some());
        assert_eq!(world.guest.resolve("192.168.51.1", "alone"), Some(own));
        world.stop();
    });
}

#[test]
fn a_guest_has_an_address_of_ipv6_from_the_host_s_advertisements() {
    alone(|| {
        let mut network = network(51);
        network.addresses.push(address("fd00:51::1", 64));
        let world = World::new(network);
        until("nothing is advertised", || {
            let addresses = world.guest.ip(&["addr", "show", "eth0"]);
            addresses.contains("inet6 fd00:51:")
        });
        until("no router is advertised", || {
            world
                .guest
                .ip(&["-6", "route"])
                .contains("default via fe80")
        });
        world.stop();
    });
}

#[test]
fn a_tap_is_connected_again_to_a_bridge_that_was_made_anew() {
    use reeve_ipc::model::{NetworkPort, PortLink, PortUuid};
    use reeved::network::host::Connection;
    alone(|| {
        let bench = Bench::new();
        let mut network = network(52);
        network.mtu = Some(1300);
        let resources = bench.start(&network).unwrap();
        ip(&["tuntap", "add", "vnet5", "mode", "tap"]);
        let port = NetworkPort {
            uuid: PortUuid(uuid::Uuid::from_u128(9)),
            link: PortLink::Bridge(network.bridge.name.clone().unwrap()),
            mtu: Some(1300),
            inbound: None,
            outbound: None,
            trust_guest: false,
            isolated: true,
        };
        let interface = "vnet5".parse().unwrap();
        let connection = Connection {
            interface: &interface,
            port: &port,
        };
        bench.host.connect(&connection).unwrap();
        bench.host.stop(&network, &resources).unwrap();
        let resources = bench.start(&network).unwrap();
        for _ in 0..2 {
            bench.host.connect(&connection).unwrap();
            let link = super::ip_shows(&["-details", "link", "show", "vnet5"]);
            for part in ["master virbr52", "mtu 1300", "isolated on"] {
                assert!(link.contains(part), "{part}: {link}");
            }
        }
        bench.host.stop(&network, &resources).unwrap();
    });
}

/// Sends so many datagrams of 1,000 bytes at once; how many of them come.
fn come(from: &Station, to: &Station, target: &str, count: u32) -> u32 {
    let (sender, receiver) = (from.socket("0.0.0.0:0"), to.socket(target));
    // The way is known.
    until("nothing comes", || {
        let _ = sender.send_to(b"x", target);
        receiver.recv(&mut [0; 8]).is_ok()
    });
    let mut came = 0;
    let mut read = || {
        while receiver.recv(&mut [0; 1500]).is_ok() {
            came += 1;
        }
    };
    receiver.set_nonblocking(true).unwrap();
    for _ in 0..count {
        sender.send_to(&[0; 1000], target).unwrap();
        // There is not room for all of them at once.
        read();
    }
    receiver.set_nonblocking(false).unwrap();
    read();
    came
}

#[test]
fn a_network_sends_no_more_than_its_share() {
    use reeve_ipc::spec::Rate;
    let rate = |per_second| {
        Some(Rate {
            per_second,
            burst: None,
        })
    };
    alone(move || {
        let mut network = network(51);
        network.outbound = rate(20_000);
        network.inbound = rate(50_000_000);
        network.forward = Forward::Route { device: None };
        let world = World::with_address(network);
        let classes = super::run("tc", &["class", "show", "dev", "virbr51"]);
        assert!(
            classes.contains("htb 1:1 root") && classes.contains("rate 400Mbit"),
            "{classes}"
        );
        let limits = || nft(&["list", "table", "netdev", "reeve_network-virbr51"]);
        assert!(
            limits().contains("limit rate over 20000 bytes/second"),
            "{}",
            limits()
        );
        // 148 kB at once.
        let came = come(&world.guest, &world.outside, "203.0.113.2:7000", 600);
        assert!((50..500).contains(&came), "{came}");
        let came = come(&world.outside, &world.guest, "192.168.51.9:7000", 200);
        assert!(came > 150, "{came}");
        nft(&["flush", "ruleset"]);
        until("the limit does not come back", || {
            nft(&["list", "ruleset"]).contains("limit rate over 20000")
        });
        // And none.
        let resources = world.bench.noted.borrow().clone().unwrap();
        let mut free = world.network.clone();
        (free.inbound, free.outbound) = (None, None);
        world
            .bench
            .update(&world.network, &free, &resources)
            .unwrap();
        assert!(!nft(&["list", "ruleset"]).contains("limit"));
        assert_eq!(super::run("tc", &["class", "show", "dev", "virbr51"]), "");
        world.stop();
        assert_eq!(nft(&["list", "ruleset"]), "");
    });
}
