//! Forwarding, which is the host's: what it was before networks had it switched on is what it is after them, unless
//! somebody else has come to need it.

use reeve_ipc::model::Network;
use reeved::network::host::NetworkHost;

use super::bench::{Bench, alone, ip};
use super::{address, network, setting};

const REDIRECTS: &str = "net/ipv4/conf/all/accept_redirects";

fn set(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{name}"), value).unwrap();
}

/// A network that has both kinds of packets forwarded.
fn both(number: u8) -> Network {
    let mut network = network(number);
    network
        .addresses
        .push(address(&format!("fd00:{number}::1"), 64));
    network
}

#[test]
fn what_single_interfaces_and_those_to_come_had_is_put_back() {
    alone(|| {
        let mut bench = Bench::new();
        for link in ["own0", "own1"] {
            ip(&["link", "add", link, "type", "bridge"]);
        }
        set("net/ipv4/conf/own0/forwarding", "1");
        set("net/ipv6/conf/own1/forwarding", "1");
        set("net/ipv4/conf/default/forwarding", "1");
        set(REDIRECTS, "0");
        let before = bench.dump();
        let (first, second) = (both(41), both(42));
        let (one, two) = (bench.start(&first).unwrap(), bench.start(&second).unwrap());
        for family in ["ipv4", "ipv6"] {
            for of in ["own0", "own1", "default"] {
                let name = format!("net/{family}/conf/{of}/forwarding");
                assert_eq!(setting(&name), "1", "{name}");
            }
        }
        bench.host.stop(&first, &one).unwrap();
        assert_eq!(setting("net/ipv4/conf/own1/forwarding"), "1");
        // By another supervisor, from what was noted.
        bench.host = Bench::supervisor(bench.directory.path());
        bench.host.stop(&second, &two).unwrap();
        assert_eq!(bench.dump(), before);
    });
}

#[test]
fn what_somebody_has_set_meanwhile_stays_as_he_set_it() {
    alone(|| {
        let bench = Bench::new();
        ip(&["link", "add", "own0", "type", "bridge"]);
        let network = both(43);
        let resources = bench.start(&network).unwrap();
        set("net/ipv6/conf/own0/forwarding", "0");
        set("net/ipv4/conf/default/forwarding", "0");
        // He wants none of it.
        set("net/ipv4/ip_forward", "0");
        set("net/ipv4/conf/own0/forwarding", "1");
        set(REDIRECTS, "0");
        bench.host.stop(&network, &resources).unwrap();
        assert_eq!(setting("net/ipv4/ip_forward"), "0");
        assert_eq!(setting(REDIRECTS), "0");
        assert_eq!(setting("net/ipv4/conf/own0/forwarding"), "1");
        assert_eq!(setting("net/ipv6/conf/own0/forwarding"), "0");
        assert_eq!(setting("net/ipv6/conf/all/forwarding"), "0");
        // Of the switch nothing, and of redirects alone.
        let resources = bench.start(&network).unwrap();
        set(REDIRECTS, "1");
        bench.host.stop(&network, &resources).unwrap();
        assert_eq!(setting("net/ipv4/ip_forward"), "0");
        assert_eq!(setting(REDIRECTS), "1");
    });
}

#[test]
fn whoever_has_come_since_keeps_forwarding_and_what_has_no_address_does_not() {
    alone(|| {
        let bench = Bench::new();
        let (network, other) = (both(44), both(45));
        // As a macvtap's, whose number is drawn: those of later links are less.
        ip(&[
            "link",
            "add",
            "own0",
            "index",
            "1500000000",
            "type",
            "bridge",
        ]);
        let resources = bench.start(&network).unwrap();
        // As containers do.
        ip(&["link", "add", "docker0", "type", "bridge"]);
        ip(&["addr", "add", "172.17.0.1/16", "dev", "docker0"]);
        ip(&["link", "set", "docker0", "up"]);
        bench.host.stop(&network, &resources).unwrap();
        assert_eq!(setting("net/ipv4/ip_forward"), "1");
        assert_eq!(setting("net/ipv4/conf/docker0/forwarding"), "1");
        // It has no address of IPv6.
        assert_eq!(setting("net/ipv6/conf/all/forwarding"), "0");
        // And whoever finds it on leaves it on.
        let resources = bench.start(&other).unwrap();
        ip(&["link", "delete", "docker0"]);
        bench.host.stop(&other, &resources).unwrap();
        assert_eq!(setting("net/ipv4/ip_forward"), "1");
    });
}

#[test]
fn a_network_of_ours_is_nobody_else() {
    alone(|| {
        let bench = Bench::new();
        let before = bench.dump();
        let first = both(46);
        let mut alone = both(47);
        alone.forward = reeve_ipc::model::Forward::Isolated;
        let resources = bench.start(&first).unwrap();
        let isolated = bench.start(&alone).unwrap();
        bench.host.stop(&first, &resources).unwrap();
        assert_eq!(setting("net/ipv4/ip_forward"), "0");
        bench.host.stop(&alone, &isolated).unwrap();
        assert_eq!(bench.dump(), before);
    });
}
