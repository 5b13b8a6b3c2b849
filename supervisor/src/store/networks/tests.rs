//! What is kept is found again, and what is no file of this store is left alone.

use reeve_ipc::model::{
    Bootp, Dhcp, DhcpHost, DhcpRange, DirectMode, DnsForwarder, DnsHost, DnsService, DnsText,
    Forward, HostDeviceSource, LeaseTime, MetadataElement, Nat, NetworkAddress, NetworkDomain,
    NetworkRoute, PortGroup, PortRange, Vlan, VlanTag,
};
use reeve_ipc::spec::{Burst, Rate};
use uuid::Uuid;

use super::*;
use crate::network::host::ServerProcess;

const BOOT: &str = "this boot";

fn network(number: u128, name: &str) -> Network {
    let mut network = Network::new(name.parse().unwrap(), NetworkUuid(Uuid::from_u128(number)));
    network.bridge.name = Some("virbr7".parse().unwrap());
    network
}

fn record(number: u128, name: &str) -> NetworkRecord {
    NetworkRecord {
        network: network(number, name),
        autostart: number % 2 == 1,
    }
}

fn status(number: u128, name: &str, boot_id: &str) -> NetworkStatus {
    NetworkStatus {
        boot_id: boot_id.to_owned(),
        phase: NetworkPhase::Active,
        network: network(number, name),
        resources: NetworkResources {
            bridge: Some("virbr7".parse().unwrap()),
            settings: vec![("net/ipv4/ip_forward".to_owned(), "0".to_owned())],
            links: Some(12),
            server: Some(ServerProcess {
                pid: 7,
                start_time: 300,
            }),
        },
    }
}

/// A network in which everything is said that can be of one with a bridge of its own.
fn full() -> Network {
    let rate = |per_second| {
        Some(Rate {
            per_second,
            burst: Some(Burst {
                per_second: 2 * per_second,
                seconds: 3,
            }),
        })
    };
    let mut network = network(9, "full");
    network.labels.title = Some("a title".to_owned());
    network.labels.description = Some("two\nlines".to_owned());
    network.labels.metadata.push(MetadataElement {
        uri: "http://example.org/".to_owned(),
        content: "<a/>".to_owned(),
    });
    network.forward = Forward::Nat(Nat {
        device: Some("eth0".parse().unwrap()),
        ipv6: true,
        addresses: Some(("192.0.2.1".parse().unwrap(), "192.0.2.9".parse().unwrap())),
        ports: Some(PortRange {
            first: 500,
            last: 1000,
        }),
    });
    network.bridge.stp = false;
    network.bridge.delay = 5;
    network.mac = Some("52:54:00:01:02:03".parse().unwrap());
    network.mtu = Some(9000);
    network.domain = Some(NetworkDomain {
        name: "example.org".to_owned(),
        local_only: true,
    });
    network.dns.enabled = false;
    network.dns.forward_plain_names = false;
    network.dns.forwarders.push(DnsForwarder {
        address: Some("192.0.2.53".parse().unwrap()),
        domain: Some("a.example".to_owned()),
    });
    network.dns.hosts.push(DnsHost {
        address: "198.51.100.7".parse().unwrap(),
        names: vec!["a".to_owned(), "b".to_owned()],
    });
    network.dns.texts.push(DnsText {
        name: "t".to_owned(),
        value: "v=1 a".to_owned(),
    });
    network.dns.services.push(DnsService {
        service: "ldap".to_owned(),
        protocol: "tcp".to_owned(),
        domain: Some("d.example".to_owned()),
        target: Some("t.example".to_owned()),
        port: Some(389),
        priority: Some(1),
        weight: Some(2),
    });
    network.addresses.push(NetworkAddress {
        address: "10.0.0.1".parse().unwrap(),
        prefix: 24,
        local_ptr: true,
        dhcp: Some(Dhcp {
            ranges: vec![DhcpRange {
                first: "10.0.0.10".parse().unwrap(),
                last: "10.0.0.20".parse().unwrap(),
                lease: Some(LeaseTime::Minutes(5)),
            }],
            hosts: vec![DhcpHost {
                mac: Some("52:54:00:00:00:07".parse().unwrap()),
                id: None,
                name: Some("web".to_owned()),
                address: Some("10.0.0.7".parse().unwrap()),
                lease: Some(LeaseTime::Infinite),
            }],
            bootp: Some(Bootp {
                file: "pxelinux.0".to_owned(),
                server: Some("10.0.0.2".to_owned()),
            }),
        }),
        tftp_root: Some("/srv/tftp".into()),
    });
    network.addresses.push(NetworkAddress {
        address: "fd00::1".parse().unwrap(),
        prefix: 64,
        local_ptr: false,
        dhcp: Some(Dhcp {
            hosts: vec![DhcpHost {
                id: Some("0:3:0:1".to_owned()),
                name: Some("six".to_owned()),
                lease: Some(LeaseTime::Hours(2)),
                ..DhcpHost::default()
            }],
            ..Dhcp::default()
        }),
        tftp_root: None,
    });
    network.routes.push(NetworkRoute {
        destination: "10.9.0.0".parse().unwrap(),
        prefix: 16,
        gateway: "10.0.0.9".parse().unwrap(),
        metric: Some(7),
    });
    network.ipv6 = true;
    network.inbound = rate(1000);
    network.outbound = rate(2000);
    network.port_groups.push(PortGroup {
        name: "gold".to_owned(),
        default: true,
        inbound: rate(3000),
        outbound: rate(4000),
        vlan: None,
        trust_guest: Some(true),
        isolated: Some(false),
    });
    network.trust_guest = true;
    network.isolated = true;
    network.validate().unwrap();
    network
}

/// Networks that between them say everything that one can.
pub(crate) fn all_kinds() -> Vec<Network> {
    let with = |number, name: &str, forward| {
        let mut network = Network::new(name.parse().unwrap(), NetworkUuid(Uuid::from_u128(number)));
        network.forward = forward;
        network
    };
    let route = Forward::Route {
        device: Some("eth1".parse().unwrap()),
    };
    let direct = Forward::Direct {
        mode: DirectMode::Vepa,
        devices: vec!["eth0".parse().unwrap(), "eth1".parse().unwrap()],
    };
    let devices = |source| Forward::HostDevices {
        managed: true,
        source,
    };
    let functions = HostDeviceSource::Functions(vec![(0, 0x5e, 0x1f, 7), (1, 0, 0, 0)]);
    let physical = HostDeviceSource::PhysicalFunction("eth3".parse().unwrap());
    let mut bridged = with(14, "bridged", Forward::Bridge("br0".parse().unwrap()));
    bridged.open_vswitch = true;
    bridged.vlan = Some(Vlan {
        trunk: true,
        tags: vec![
            VlanTag {
                id: 42,
                native: Some(false),
            },
            VlanTag {
                id: 47,
                native: None,
            },
        ],
    });
    vec![
        full(),
        with(10, "isolated", Forward::Isolated),
        with(11, "route", route),
        with(12, "open", Forward::Open),
        with(13, "direct", direct),
        bridged,
        with(15, "functions", devices(functions)),
        with(16, "physical", devices(physical)),
    ]
}

fn open(directory: &Path) -> NetworkStore {
    NetworkStore::open(&directory.join("state"), &directory.join("run")).unwrap()
}

#[test]
fn everything_that_a_network_says_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut records: Vec<NetworkRecord> = all_kinds()
        .into_iter()
        .map(|network| NetworkRecord {
            network,
            autostart: true,
        })
        .collect();
    for record in &records {
        store.write(record).unwrap();
    }
    let mut loaded = store.load_all(BOOT).unwrap();
    assert_eq!(loaded.refused, []);
    loaded.records.sort_by_key(|record| record.network.uuid);
    records.sort_by_key(|record| record.network.uuid);
    assert_eq!(loaded.records, records);
}

#[test]
fn a_definition_in_words_can_be_read_by_people() {
    let text = files::encode(&NetworkRecord {
        network: full(),
        autostart: true,
    });
    let text = String::from_utf8(text.unwrap()).unwrap();
    for part in [
        "\"schema\": 1",
        "\"nat\": {",
        "\"per_second\": 1000",
        "\"lease\": \"infinite\"",
        "\"minutes\": 5",
        "\"address\": \"fd00::1\"",
        "\"mac\": \"52:54:00:00:00:07\"",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn what_is_kept_is_found_by_the_next_supervisor_and_what_is_removed_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for record in [record(1, "one"), record(2, "two"), record(3, "three")] {
        store.write(&record).unwrap();
    }
    store.remove(network(3, "three").uuid).unwrap();
    let start = Operation::NetworkStart;
    let mut stopping = status(4, "four", BOOT);
    stopping.phase = NetworkPhase::Stopping;
    for status in [&status(2, "two", BOOT), &stopping, &status(5, "five", BOOT)] {
        store.set_status(start, status).unwrap();
    }
    store.remove_status(network(5, "five").uuid).unwrap();
    store.remove_status(network(6, "none").uuid).unwrap();
    let mut loaded = open(directory.path()).load_all(BOOT).unwrap();
    loaded.records.sort_by_key(|record| record.network.uuid);
    loaded.statuses.sort_by_key(|status| status.network.uuid);
    assert_eq!(loaded.records, [record(1, "one"), record(2, "two")]);
    assert_eq!(loaded.statuses, [status(2, "two", BOOT), stopping]);
    assert_eq!(loaded.refused, []);
}

#[test]
fn what_was_active_in_another_boot_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let before = status(1, "one", "another boot");
    store.set_status(Operation::NetworkStart, &before).unwrap();
    let loaded = store.load_all(BOOT).unwrap();
    assert!(loaded.statuses.is_empty() && loaded.refused.is_empty());
    let run = directory.path().join("run/networks");
    assert_eq!(std::fs::read_dir(run).unwrap().count(), 0);
}

#[test]
fn a_file_that_cannot_be_read_is_told_of_and_never_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.write(&record(1, "one")).unwrap();
    let state = directory.path().join("state/networks");
    let name = |number: u128| state.join(format!("{}.json", Uuid::from_u128(number)));
    let good = std::fs::read_to_string(name(1)).unwrap();
    let bad = [
        (2, "{".to_owned(), "damaged"),
        (
            3,
            good.replace("\"schema\": 1", "\"schema\": 9"),
            "schema 9",
        ),
        (
            4,
            good.replace("\"name\": \"one\"", "\"nome\": \"one\""),
            "nome",
        ),
        (5, good.clone(), "its name must be"),
        (
            6,
            good.replace("\"network\": {", "\"network\": {\n\"mtu\": 1,")
                .replace(
                    &Uuid::from_u128(1).to_string(),
                    &Uuid::from_u128(6).to_string(),
                ),
            "MTU",
        ),
    ];
    for (number, text, _) in &bad {
        std::fs::write(name(*number), text).unwrap();
    }
    let loaded = store.load_all(BOOT).unwrap();
    assert_eq!(loaded.records, [record(1, "one")]);
    assert_eq!(loaded.refused.len(), bad.len());
    for (number, text, why) in &bad {
        let refusal = loaded.refused.iter().find(|it| it.path == name(*number));
        let refusal = refusal.unwrap().to_string();
        assert!(
            refusal.contains(why) && !refusal.contains('\n'),
            "{refusal}"
        );
        let refused = store.write(&record(*number, "other")).unwrap_err();
        assert!(matches!(refused, StoreError::Refused(_)), "{refused}");
        assert_eq!(std::fs::read_to_string(name(*number)).unwrap(), *text);
    }
}

#[test]
fn the_default_network_is_given_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    assert!(!store.has_had_default());
    store.default_made().unwrap();
    let next = open(directory.path());
    assert!(next.has_had_default());
    assert!(next.load_all(BOOT).unwrap().refused.is_empty());
}

#[test]
fn a_status_of_another_version_says_what_it_leaves_and_is_not_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let run = directory.path().join("run/networks");
    let write = |number: u128, boot_id: &str| {
        let status = status(number, "one", boot_id);
        store.set_status(Operation::NetworkStart, &status).unwrap();
        let path = run.join(format!("{}.json", Uuid::from_u128(number)));
        let text = std::fs::read_to_string(&path).unwrap();
        let other = text.replace("\"schema\": 1", "\"schema\": 2,\n\"since\": 7");
        std::fs::write(&path, &other).unwrap();
        (path, other)
    };
    let (path, text) = write(1, BOOT);
    let (earlier, _) = write(2, "an earlier boot");
    let loaded = store.load_all(BOOT).unwrap();
    assert!(loaded.statuses.is_empty());
    let [refusal] = loaded.refused.as_slice() else {
        panic!("{:?}", loaded.refused);
    };
    assert_eq!(refusal.path, path);
    for part in ["schema 2", "network 'one'", "bridge 'virbr7'", "process 7"] {
        assert!(refusal.reason.contains(part), "{part}: {refusal}");
    }
    assert!(!earlier.exists(), "nothing of it is left");
    // Whoever starts it is told the same.
    let uuid = NetworkUuid(Uuid::from_u128(1));
    let refused = store.status(uuid).unwrap_err().to_string();
    assert!(refused.contains("bridge 'virbr7'"), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    // What is no status at all names nothing.
    std::fs::write(&path, "{").unwrap();
    let refused = store.status(uuid).unwrap_err().to_string();
    assert!(refused.contains("of a network stays"), "{refused}");
}
