//! What goes wrong: servers that are missing, that do not come up, that die or hang, rules and addresses that somebody
//! takes away, a supervisor that is another than before.

use std::io::Read;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use reeve_ipc::model::{Dhcp, DhcpHost, DhcpRange, DnsHost, Network};
use reeved::host::paths::AllowedPaths;
use reeved::network::host::{NetworkFailure, NetworkHost, NetworkResources};

use super::bench::{Bench, alone, ip, ip_shows, nft, run, until};
use super::network;
use super::stations::Station;

fn signal(resources: &NetworkResources, signal: Signal) {
    let pid = i32::try_from(resources.server.as_ref().unwrap().pid).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn is_alive(resources: &NetworkResources) -> bool {
    let pid = resources.server.as_ref().unwrap().pid;
    Path::new(&format!("/proc/{pid}/exe")).exists()
}

fn adopt(bench: &Bench, network: &Network, resources: &NetworkResources) -> NetworkResources {
    let note = &mut |noted: &_| bench.note(noted);
    bench.host.adopt(network, resources, note).unwrap()
}

#[test]
fn without_dnsmasq_its_package_is_named_and_nothing_is_left() {
    alone(|| {
        let mut bench = Bench::new();
        let before = bench.dump();
        let host = Bench::supervisor(bench.directory.path());
        bench.host = host.with_dnsmasq("/nowhere/dnsmasq".into());
        let network = network(61);
        let error = bench.start(&network).unwrap_err();
        assert_eq!(error.kind, NetworkFailure::Host);
        let line = "there is no /nowhere/dnsmasq, which gives out addresses and names: install it with \
            'sudo apt install dnsmasq-base'";
        assert_eq!(error.message, line);
        assert_eq!(bench.dump(), before);
    });
}

#[test]
fn a_server_that_does_not_come_up_says_why_and_nothing_is_left() {
    alone(|| {
        let bench = Bench::new();
        let before = bench.dump();
        let other = UdpSocket::bind("0.0.0.0:53").unwrap();
        let error = bench.start(&network(62)).unwrap_err();
        assert_eq!(error.kind, NetworkFailure::Host);
        assert!(error.message.contains("ddress already in use"), "{error}");
        assert!(error.message.contains("network 'net62'"), "{error}");
        assert_eq!(bench.dump(), before);
        drop(other);
        let network = network(62);
        let resources = bench.start(&network).unwrap();
        bench.host.stop(&network, &resources).unwrap();
    });
}

#[test]
fn a_server_that_is_killed_is_heard_of_and_started_again() {
    alone(|| {
        let bench = Bench::new();
        let before = bench.dump();
        let network = network(63);
        let resources = bench.start(&network).unwrap();
        let watched = bench.host.watch(network.uuid, &resources).unwrap();
        signal(&resources, Signal::KILL);
        let timeout = Timespec {
            tv_sec: 20,
            tv_nsec: 0,
        };
        let mut polled = [PollFd::new(&watched, PollFlags::IN)];
        assert_eq!(poll(&mut polled, Some(&timeout)), Ok(1));
        assert!(bench.host.watch(network.uuid, &resources).is_none());
        let again = adopt(&bench, &network, &resources);
        assert_ne!(again.server, resources.server);
        assert_eq!(*bench.noted.borrow(), Some(again.clone()));
        assert!(bench.host.watch(network.uuid, &again).is_some());
        bench.host.stop(&network, &again).unwrap();
        assert_eq!(bench.dump(), before);
    });
}

#[test]
fn a_server_that_hangs_does_not_keep_its_network_from_ending() {
    alone(|| {
        let bench = Bench::new();
        let before = bench.dump();
        let network = network(64);
        let resources = bench.start(&network).unwrap();
        signal(&resources, Signal::STOP);
        bench.host.stop(&network, &resources).unwrap();
        until("it is there", || !is_alive(&resources));
        assert_eq!(bench.dump(), before);
    });
}

#[test]
fn a_server_that_hangs_is_ended_when_it_was_missed_twice_and_its_leases_are_kept() {
    alone(|| {
        let bench = Bench::new();
        let before = bench.dump();
        let network = network(60);
        let resources = bench.start(&network).unwrap();
        let check = |of: &NetworkResources| bench.host.check(&network, of).unwrap();
        let guest = Station::on("virbr60", "plug0");
        let (own, ..) = guest.lease("sleeper");
        for _ in 0..3 {
            check(&resources);
        }
        assert!(is_alive(&resources));
        signal(&resources, Signal::STOP);
        check(&resources);
        assert!(is_alive(&resources), "once is nothing");
        check(&resources);
        until("it is there", || !is_alive(&resources));
        // As whoever is told of its end does.
        let again = adopt(&bench, &network, &resources);
        assert_ne!(again.server, resources.server);
        check(&again);
        assert!(is_alive(&again));
        assert_eq!(guest.resolve("192.168.60.1", "sleeper"), Some(own));
        bench.host.stop(&network, &again).unwrap();
        // The station's namespace, and its cable, would go some time after it.
        ip(&["link", "delete", "plug0"]);
        assert_eq!(bench.dump(), before);
    });
}

#[test]
fn a_bridge_that_somebody_deletes_is_missed_and_made_again() {
    alone(|| {
        let bench = Bench::new();
        let before = bench.dump();
        let mut network = network(59);
        network.outbound = Some(reeve_ipc::spec::Rate {
            per_second: 1_000_000,
            burst: None,
        });
        let resources = bench.start(&network).unwrap();
        bench.host.check(&network, &resources).unwrap();
        ip(&["link", "delete", "virbr59"]);
        let gone = bench.host.check(&network, &resources).unwrap_err();
        assert_eq!(gone.message, "its bridge virbr59 is gone");
        let again = adopt(&bench, &network, &resources);
        bench.host.check(&network, &again).unwrap();
        let limits = nft(&["list", "table", "netdev", "reeve_network-virbr59"]);
        assert!(limits.contains("limit rate over 1000000"), "{limits}");
        bench.host.stop(&network, &again).unwrap();
        assert_eq!(bench.dump(), before);
    });
}

#[test]
fn rules_that_somebody_takes_away_come_back() {
    alone(|| {
        let bench = Bench::new();
        let (first, second) = (network(65), network(66));
        let resources = [bench.start(&first).unwrap(), bench.start(&second).unwrap()];
        let rules = nft(&["list", "ruleset"]);
        for taken in [
            &["flush", "ruleset"][..],
            &["flush", "table", "inet", "reeve-networks"],
            &["flush", "chain", "inet", "reeve-networks", "forward"],
            &["flush", "chain", "inet", "reeve-networks", "nat-virbr66"],
            &[
                "delete",
                "element",
                "inet",
                "reeve-networks",
                "into",
                "{ \"virbr65\" }",
            ],
        ] {
            nft(taken);
            until(&format!("{taken:?}"), || nft(&["list", "ruleset"]) == rules);
        }
        bench.host.stop(&first, &resources[0]).unwrap();
        assert!(!nft(&["list", "ruleset"]).contains("virbr65"));
        assert!(nft(&["list", "ruleset"]).contains("from-virbr66"));
        bench.host.stop(&second, &resources[1]).unwrap();
        assert_eq!(nft(&["list", "ruleset"]), "");
    });
}

#[test]
fn two_supervisors_share_the_table_and_do_not_disturb_each_other() {
    alone(|| {
        let (one, other) = (Bench::new(), Bench::new());
        let (first, second) = (network(67), network(68));
        let resources = [one.start(&first).unwrap(), other.start(&second).unwrap()];
        let rules = nft(&["list", "ruleset"]);
        assert!(rules.contains("from-virbr67") && rules.contains("from-virbr68"));
        nft(&["flush", "ruleset"]);
        until("both put theirs back", || {
            let rules = nft(&["list", "ruleset"]);
            rules.contains("\"virbr67\" : jump from-virbr67")
                && rules.contains("\"virbr68\" : jump from-virbr68")
        });
        one.host.stop(&first, &resources[0]).unwrap();
        assert!(nft(&["list", "ruleset"]).contains("jump from-virbr68"));
        other.host.stop(&second, &resources[1]).unwrap();
        assert_eq!(nft(&["list", "ruleset"]), "");
    });
}

#[test]
fn the_next_supervisor_makes_again_what_is_gone_and_leaves_what_is_there() {
    alone(|| {
        let mut bench = Bench::new();
        let before = bench.dump();
        let network = network(69);
        let resources = bench.start(&network).unwrap();
        let whole = ip_shows(&["addr", "show", "virbr69"]);
        let rules = nft(&["list", "ruleset"]);
        let mtime = |bench: &Bench| {
            let file = format!("run/servers/{}/dnsmasq.conf", network.uuid);
            let path = bench.directory.path().join(file);
            std::fs::metadata(path).unwrap().modified().unwrap()
        };
        let written = mtime(&bench);
        bench.host = Bench::supervisor(bench.directory.path());
        ip(&["addr", "flush", "dev", "virbr69"]);
        nft(&["flush", "ruleset"]);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let adopted = adopt(&bench, &network, &resources);
        assert_eq!(adopted, resources, "its server is the same process");
        assert_eq!(mtime(&bench), written);
        assert_eq!(ip_shows(&["addr", "show", "virbr69"]), whole);
        assert_eq!(nft(&["list", "ruleset"]), rules);
        assert_eq!(super::setting("net/ipv4/ip_forward"), "1");
        // All of it.
        ip(&["link", "delete", "virbr69"]);
        let adopted = adopt(&bench, &network, &adopted);
        assert!(ip_shows(&["addr", "show", "virbr69"]).contains("192.168.69.1/24"));
        bench.host.stop(&network, &adopted).unwrap();
        assert_eq!(bench.dump(), before);
    });
}

#[test]
fn hosts_are_changed_under_the_server_and_ranges_with_another() {
    alone(|| {
        let bench = Bench::new();
        let before = bench.dump();
        let first = network(70);
        let resources = bench.start(&first).unwrap();
        let mut second = first.clone();
        let dhcp = second.addresses[0].dhcp.as_mut().unwrap();
        dhcp.hosts.push(DhcpHost {
            mac: Some("52:54:00:00:00:01".parse().unwrap()),
            address: Some("192.168.70.9".parse().unwrap()),
            ..DhcpHost::default()
        });
        second.dns.hosts.push(DnsHost {
            address: "192.168.70.9".parse().unwrap(),
            names: vec!["nine".to_owned()],
        });
        // The most leases at a time are part of what is read at the start; a name alone is not.
        let mut named = first.clone();
        named.dns.hosts.clone_from(&second.dns.hosts);
        let update = |from: &Network, to: &Network, resources: &_| {
            bench.update(from, to, resources).unwrap()
        };
        let same = update(&first, &named, &resources);
        assert_eq!(same, resources);
        let file = format!("run/servers/{}/dns-hosts", first.uuid);
        let names = std::fs::read_to_string(bench.directory.path().join(file)).unwrap();
        assert_eq!(names, "192.168.70.9\tnine\n");
        let other = update(&named, &second, &same);
        assert_ne!(other.server, same.server);
        assert!(!is_alive(&same) && is_alive(&other));
        // Another address, and the old one gone.
        let mut third = second.clone();
        third.addresses.push(super::address("10.70.0.1", 24));
        third.routes.clear();
        let more = update(&second, &third, &other);
        assert!(ip_shows(&["addr", "show", "virbr70"]).contains("10.70.0.1/24"));
        let back = update(&third, &second, &more);
        assert!(!ip_shows(&["addr", "show", "virbr70"]).contains("10.70.0.1/24"));
        bench.host.stop(&second, &back).unwrap();
        assert_eq!(bench.dump(), before);
    });
}

#[test]
fn a_change_that_cannot_be_is_not_half_made() {
    alone(|| {
        let mut bench = Bench::new();
        let allowed = AllowedPaths::new(vec![bench.directory.path().to_owned()]);
        bench.host = Bench::supervisor(bench.directory.path()).with_paths(Arc::new(allowed));
        ip(&["link", "add", "eth0", "type", "bridge"]);
        ip(&["addr", "add", "10.71.0.9/24", "dev", "eth0"]);
        ip(&["link", "set", "eth0", "up"]);
        let first = network(71);
        std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1").unwrap();
        let resources = bench.start(&first).unwrap();
        let before = bench.dump();
        let mut second = first.clone();
        second.addresses.push(super::address("10.71.0.1", 24));
        let refused = bench.update(&first, &second, &resources);
        assert_eq!(refused.unwrap_err().kind, NetworkFailure::Taken);
        assert_eq!(bench.dump(), before);
        // Its own start fails where it does not get to its files.
        let closed = bench.directory.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        let mut third = first.clone();
        third.addresses[0].tftp_root = Some(closed);
        let refused = bench.update(&first, &third, &resources);
        let error = refused.unwrap_err();
        assert!(error.message.contains("'chmod o+x' lets it"), "{error}");
        let noted = bench.noted.borrow().clone().unwrap();
        assert!(is_alive(&noted), "the server of before is there again");
        bench.host.stop(&first, &noted).unwrap();
    });
}

#[test]
fn a_book_with_more_than_is_given_keeps_no_server_from_starting() {
    alone(|| {
        let bench = Bench::new();
        let mut first = network(72);
        let range = |first: &str, last: &str| DhcpRange {
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
            lease: None,
        };
        let mut six = super::address("fd00:72::1", 64);
        six.dhcp = Some(Dhcp {
            ranges: vec![range("fd00:72::1:0", "fd00:72::1:ffff")],
            ..Dhcp::default()
        });
        first.addresses.push(six);
        let book = bench.directory.path().join("state/leases");
        std::fs::create_dir_all(&book).unwrap();
        let book = book.join(first.uuid.to_string());
        let link = "52:54:00:12:34:56";
        let mut lent = format!("0 {link} 192.168.72.7 kept *\n1 {link} 192.168.72.8 * *\n");
        lent += "duid 00:01:00:01:30:f1:52:54:00:be:d7:03:aa:bb\n";
        // As of a time when it gave out more: four times as many as now, and expired ones.
        for at in 0..0x1000 {
            lent += &format!(
                "0 {at} fd00:72::1:{at:x} * 00:04:{:02x}:{:02x}\n",
                at >> 8,
                at & 255
            );
            lent += &format!("1 {at} fd00:72::2:{at:x} * 00:04:aa\n");
        }
        std::fs::write(&book, lent).unwrap();
        let resources = bench.start(&first).unwrap();
        assert!(is_alive(&resources));
        let of_ipv6 = |text: &str| text.contains(" fd00:72::");
        let lines = |of: &Network| {
            let mut text = String::new();
            let book = bench.host.leases(of).unwrap().unwrap();
            std::fs::File::from(book).read_to_string(&mut text).unwrap();
            let (six, rest): (Vec<_>, Vec<_>) = text.lines().partition(|line| of_ipv6(line));
            assert!(rest.iter().any(|line| line.contains(" kept ")), "{rest:?}");
            (six.len(), rest.len())
        };
        assert_eq!(lines(&first), (1024, 2));
        // All that the first range gives is taken, of which it then gives less.
        let mut second = first.clone();
        let dhcp = second.addresses[1].dhcp.as_mut().unwrap();
        dhcp.ranges.push(range("fd00:72::3:0", "fd00:72::3:ff"));
        let other = bench.update(&first, &second, &resources).unwrap();
        assert_ne!(other.server, resources.server);
        assert!(is_alive(&other));
        assert_eq!(lines(&second), (768, 2));
        bench.host.stop(&second, &other).unwrap();
    });
}

#[test]
fn names_of_the_host_that_cannot_be_copied_break_no_network_and_hide_no_server_that_hangs() {
    alone(|| {
        let mut bench = Bench::new();
        let at = |name: &str| bench.directory.path().join(name);
        let (root, hosts) = (at("tftp"), at("hosts"));
        std::fs::create_dir(&root).unwrap();
        std::fs::write(&hosts, "198.51.100.1 one.example\n").unwrap();
        run("mount", &["--bind", hosts.to_str().unwrap(), "/etc/hosts"]);
        let mut network = network(73);
        let way = at(&format!("run/servers/{}/hosts.new", network.uuid));
        let allowed = AllowedPaths::new(vec![bench.directory.path().to_owned()]);
        bench.host = Bench::supervisor(bench.directory.path()).with_paths(Arc::new(allowed));
        network.addresses[0].tftp_root = Some(root);
        let resources = bench.start(&network).unwrap();
        let check = |of: &NetworkResources| bench.host.check(&network, of).unwrap();
        check(&resources);
        // What is in the way of the copy.
        std::fs::create_dir(&way).unwrap();
        std::fs::write(&hosts, "198.51.100.2 two.example\n").unwrap();
        check(&resources);
        signal(&resources, Signal::STOP);
        check(&resources);
        check(&resources);
        until("it is there", || !is_alive(&resources));
        std::fs::remove_dir(&way).unwrap();
        // It has ended, and there is something to tell it.
        check(&resources);
        let again = adopt(&bench, &network, &resources);
        let guest = Station::on("virbr73", "plug0");
        guest.lease("asker");
        let resolve = |name: &str| guest.resolve("192.168.73.1", name);
        assert_eq!(resolve("two.example"), Some([198, 51, 100, 2].into()));
        bench.host.stop(&network, &again).unwrap();
    });
}

#[test]
fn what_a_supervisor_wrote_and_did_not_have_read_the_next_has_read() {
    alone(|| {
        let mut bench = Bench::new();
        let first = network(74);
        let resources = bench.start(&first).unwrap();
        let guest = Station::on("virbr74", "plug0");
        guest.lease("asker");
        let resolve = |name: &str| guest.resolve("192.168.74.1", name);
        assert_eq!(resolve("nine"), None);
        let mut second = first.clone();
        second.dns.hosts.push(DnsHost {
            address: "192.168.74.9".parse().unwrap(),
            names: vec!["nine".to_owned()],
        });
        let files = format!("run/servers/{}", first.uuid);
        let files = bench.directory.path().join(files);
        // As one leaves it that ends between the two.
        std::fs::write(files.join("unread-hosts"), "").unwrap();
        std::fs::write(files.join("dns-hosts"), "192.168.74.9\tnine\n").unwrap();
        bench.host = Bench::supervisor(bench.directory.path());
        let same = adopt(&bench, &second, &resources);
        assert_eq!(same, resources);
        until("it does not know the name", || {
            resolve("nine") == Some([192, 168, 74, 9].into())
        });
        std::fs::write(files.join("unread-configuration"), "").unwrap();
        let other = adopt(&bench, &second, &same);
        assert_ne!(other.server, same.server);
        // Once read is enough.
        assert_eq!(adopt(&bench, &second, &other), other);
        assert!(!files.join("unread-hosts").exists());
        bench.host.stop(&second, &other).unwrap();
    });
}
