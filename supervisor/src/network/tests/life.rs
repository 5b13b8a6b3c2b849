//! Definitions, starts, stops and changes, and what is refused.

use super::*;

#[tokio::test]
async fn a_network_is_defined_started_stopped_and_forgotten() {
    let stage = Stage::new();
    let network = stage.define(&served(1, "lan")).await.unwrap();
    let named = NetworkRef::Name("lan".parse().unwrap());
    let bridge = network.bridge.name.clone().unwrap();
    assert!(bridge.as_str().starts_with("virbr"), "{bridge}");
    assert!(network.mac.is_some());
    stage.ask(&network, Request::Start).await.unwrap();
    let details = stage.networks.get(&named).unwrap();
    assert!(details.summary.active && details.summary.persistent);
    assert_eq!(details.summary.bridge, Some(bridge.clone()));
    assert_eq!((details.changes, details.fault), (false, None));
    assert!(stage.networks.get(&NetworkRef::Bridge(bridge)).is_ok());
    assert!(stage.networks.leases(&named).await.unwrap().is_some());
    stage.ask(&network, Request::Autostart(true)).await.unwrap();
    stage.ask(&network, Request::Stop).await.unwrap();
    assert!(!stage.is_active(&network));
    let (code, why) = refusal(stage.networks.leases(&named).await);
    assert_eq!(
        (code, why.as_str()),
        (ApiErrorCode::WrongState, "network 'lan' is not active")
    );
    stage.ask(&network, Request::Undefine).await.unwrap();
    let (code, _) = refusal(stage.networks.get(&named));
    assert_eq!(code, ApiErrorCode::NoNetwork);
    assert_eq!(stage.host.take(), ["start lan", "leases lan", "stop lan"]);
    assert_eq!(
        stage.told(),
        [
            NetworkEventKind::Defined { changed: false },
            NetworkEventKind::Started,
            NetworkEventKind::Autostart { on: true },
            NetworkEventKind::Stopped,
            NetworkEventKind::Undefined,
        ]
    );
}

#[tokio::test]
async fn a_network_that_is_created_is_gone_when_it_is_stopped() {
    let stage = Stage::new();
    let network = plain(1, "lan");
    let summary = stage.networks.create(network.clone()).await.unwrap();
    assert!(summary.active && !summary.persistent);
    let (code, why) = refusal(stage.ask(&network, Request::Autostart(true)).await);
    assert_eq!(
        (code, why.as_str()),
        (
            ApiErrorCode::WrongState,
            "cannot set autostart for transient network"
        )
    );
    let definition = stage
        .networks
        .definition(&NetworkRef::Uuid(network.uuid), true);
    assert_eq!(refusal(definition).0, ApiErrorCode::WrongState);
    let (code, _) = refusal(stage.networks.create(network.clone()).await);
    assert_eq!(code, ApiErrorCode::WrongState, "it is active already");
    stage.ask(&network, Request::Stop).await.unwrap();
    let gone = stage.networks.get(&NetworkRef::Uuid(network.uuid));
    assert_eq!(refusal(gone).0, ApiErrorCode::NoNetwork);
}

#[tokio::test]
async fn a_definition_that_changes_while_the_network_is_active_holds_from_the_next_start_on() {
    let stage = Stage::new();
    let network = stage.started(&plain(1, "lan")).await;
    let mut other = network.clone();
    other.mtu = Some(9000);
    stage.define(&other).await.unwrap();
    let named = NetworkRef::Uuid(network.uuid);
    let mtu = |persistent| stage.networks.definition(&named, persistent).unwrap().mtu;
    assert_eq!((mtu(false), mtu(true)), (None, Some(9000)));
    assert!(stage.networks.get(&named).unwrap().changes);
    // Forgotten while it is active it lives on, and is transient from then.
    stage.ask(&network, Request::Undefine).await.unwrap();
    let details = stage.networks.get(&named).unwrap();
    assert!(details.summary.active && !details.summary.persistent && !details.changes);
    let (code, why) = refusal(stage.ask(&network, Request::Undefine).await);
    assert_eq!(code, ApiErrorCode::WrongState);
    assert!(why.contains("transient network"), "{why}");
    stage.define(&other).await.unwrap();
    stage.ask(&network, Request::Stop).await.unwrap();
    assert_eq!((mtu(false), mtu(true)), (Some(9000), Some(9000)));
}

#[tokio::test]
async fn names_uuids_and_bridges_are_of_one_network_each() {
    let stage = Stage::new();
    let mut first = plain(1, "lan");
    first.bridge.name = Some("virbr90".parse().unwrap());
    stage.define(&first).await.unwrap();
    let exists = ApiErrorCode::NetworkExists;
    let (code, why) = refusal(stage.define(&plain(2, "lan")).await);
    assert_eq!(code, exists);
    assert!(
        why.contains("network 'lan' already exists with uuid"),
        "{why}"
    );
    let (code, why) = refusal(stage.define(&plain(1, "other")).await);
    assert_eq!(code, exists);
    assert!(
        why.contains("network 'lan' is already defined with uuid"),
        "{why}"
    );
    let (code, _) = refusal(stage.networks.define(first.clone(), true).await);
    assert_eq!(code, exists);
    let mut same_bridge = plain(3, "other");
    same_bridge.bridge.name.clone_from(&first.bridge.name);
    let (code, why) = refusal(stage.define(&same_bridge).await);
    assert_eq!(
        (code, why.as_str()),
        (exists, "bridge name 'virbr90' already in use.")
    );
    // What was refused leaves nothing.
    let page = stage.networks.page(None, NetworkFilter::default());
    assert_eq!(page.networks.len(), 1);
    // A name that is drawn is another's neither, and stays with its network.
    let a = stage.define(&plain(4, "a")).await.unwrap();
    let b = stage.define(&plain(5, "b")).await.unwrap();
    assert_ne!(a.bridge.name, b.bridge.name);
    let again = stage.define(&plain(4, "a")).await.unwrap();
    assert_eq!(again.bridge.name, a.bridge.name);
    let lo = std::path::Path::new("/sys/class/net");
    assert!(!lo.join(a.bridge.name.unwrap().as_str()).exists());
}

#[tokio::test]
async fn what_makes_no_sense_as_it_stands_is_refused() {
    let stage = Stage::new();
    let network = stage.define(&plain(1, "lan")).await.unwrap();
    let part = NetworkPart::PortGroup(group("a"));
    let change = |live, persistent| Request::Change {
        change: Change::Part(Box::new(NetworkEdit {
            command: EditCommand::AddLast,
            part: part.clone(),
        })),
        live,
        persistent,
    };
    for request in [Request::Stop, change(true, false), change(true, true)] {
        let (code, why) = refusal(stage.ask(&network, request).await);
        assert_eq!(
            (code, why.as_str()),
            (ApiErrorCode::WrongState, "network 'lan' is not active")
        );
    }
    stage.ask(&network, Request::Start).await.unwrap();
    let (code, why) = refusal(stage.ask(&network, Request::Start).await);
    assert_eq!(code, ApiErrorCode::WrongState);
    assert_eq!(why, "network is already active as 'lan'");
    let (code, _) = refusal(stage.ask(&network, change(false, false)).await);
    assert_eq!(code, ApiErrorCode::InvalidArgument);
    let mut invalid = plain(2, "bad");
    invalid.mtu = Some(1);
    let (code, why) = refusal(stage.define(&invalid).await);
    assert_eq!(code, ApiErrorCode::InvalidArgument);
    assert!(why.starts_with("network 'bad': "), "{why}");
}

#[tokio::test]
async fn pools_of_host_devices_are_kept_and_not_started() {
    let stage = Stage::new();
    let mut network = plain(1, "vfs");
    network.forward = Forward::HostDevices {
        managed: true,
        source: HostDeviceSource::PhysicalFunction("eth9".parse().unwrap()),
    };
    stage.define(&network).await.unwrap();
    let (code, _) = refusal(stage.ask(&network, Request::Start).await);
    assert_eq!(code, ApiErrorCode::Unsupported);
    let mut other = network.clone();
    other.name = "more".parse().unwrap();
    other.uuid = NetworkUuid(Uuid::from_u128(2));
    let (code, _) = refusal(stage.networks.create(other).await);
    assert_eq!(code, ApiErrorCode::Unsupported);
    assert!(stage.host.take().is_empty());
}

#[tokio::test]
async fn two_networks_with_the_same_addresses_are_kept_and_not_both_active() {
    let stage = Stage::new();
    let first = stage.started(&served(1, "lan")).await;
    let mut second = served(2, "other");
    second.addresses.clone_from(&first.addresses);
    let second = stage.define(&second).await.unwrap();
    let (code, why) = refusal(stage.ask(&second, Request::Start).await);
    assert_eq!(code, ApiErrorCode::Host);
    assert!(why.contains("10.77.1.1/24 is on network 'lan'"), "{why}");
    stage.ask(&first, Request::Stop).await.unwrap();
    stage.ask(&second, Request::Start).await.unwrap();
    let (code, _) = refusal(stage.ask(&first, Request::Start).await);
    assert_eq!(code, ApiErrorCode::Host);
}

#[tokio::test]
async fn a_start_that_the_host_refuses_leaves_the_network_as_it_was() {
    let stage = Stage::new();
    let network = stage.define(&served(1, "lan")).await.unwrap();
    for (kind, code) in [
        (NetworkFailure::Taken, ApiErrorCode::Host),
        (NetworkFailure::Host, ApiErrorCode::Host),
        (NetworkFailure::Unsupported, ApiErrorCode::Unsupported),
        (NetworkFailure::Storage, ApiErrorCode::Storage),
    ] {
        stage.host.refuse("start", kind);
        let (refused, why) = refusal(stage.ask(&network, Request::Start).await);
        assert_eq!(refused, code, "{kind:?}");
        assert_eq!(why, "network 'lan': no start today");
        assert!(!stage.is_active(&network));
        let run = stage.root.path().join("run/networks");
        assert_eq!(std::fs::read_dir(run).unwrap().count(), 0);
    }
    // Its addresses are free again.
    stage.ask(&network, Request::Start).await.unwrap();
    stage.host.refuse("stop", NetworkFailure::Host);
    let (code, _) = refusal(stage.ask(&network, Request::Stop).await);
    assert_eq!(code, ApiErrorCode::Host);
    assert!(stage.is_active(&network), "something of it is left");
    stage.ask(&network, Request::Stop).await.unwrap();
    let created = stage.networks.create(served(2, "once"));
    stage.host.refuse("start", NetworkFailure::Host);
    assert_eq!(refusal(created.await).0, ApiErrorCode::Host);
    let page = stage.networks.page(None, NetworkFilter::default());
    assert_eq!(page.networks.len(), 1, "nothing is left of the other");
}

fn group(name: &str) -> PortGroup {
    PortGroup {
        name: name.to_owned(),
        default: false,
        inbound: None,
        outbound: None,
        vlan: None,
        trust_guest: None,
        isolated: None,
    }
}

fn dns_host(last: u8) -> Change {
    Change::Part(Box::new(NetworkEdit {
        command: EditCommand::AddLast,
        part: NetworkPart::DnsHost {
            address: Some(std::net::Ipv4Addr::new(10, 77, 1, last).into()),
            names: vec![format!("host{last}")],
        },
    }))
}

/// Whether a network is active when it has just been told of.
fn when_told(
    stage: &Arc<Stage>,
    network: &Network,
    kind: NetworkEventKind,
) -> std::thread::JoinHandle<bool> {
    let (stage, network) = (Arc::clone(stage), network.clone());
    std::thread::spawn(move || {
        while !stage.told().contains(&kind) {
            std::thread::yield_now();
        }
        stage.is_active(&network)
    })
}

#[tokio::test]
async fn what_is_told_can_be_read() {
    let stage = Arc::new(Stage::new());
    let network = stage.define(&served(1, "lan")).await.unwrap();
    let started = when_told(&stage, &network, NetworkEventKind::Started);
    stage.ask(&network, Request::Start).await.unwrap();
    assert!(started.join().unwrap());
    let stopped = when_told(&stage, &network, NetworkEventKind::Stopped);
    stage.ask(&network, Request::Stop).await.unwrap();
    assert!(!stopped.join().unwrap());
}

#[tokio::test]
async fn a_change_is_made_to_what_is_active_to_what_is_kept_or_to_both() {
    let stage = Stage::new();
    let network = stage.started(&served(1, "lan")).await;
    let named = NetworkRef::Uuid(network.uuid);
    let hosts = |persistent| {
        let definition = stage.networks.definition(&named, persistent).unwrap();
        definition.dns.hosts.len()
    };
    let change = |last, live, persistent| Request::Change {
        change: dns_host(last),
        live,
        persistent,
    };
    stage.ask(&network, change(2, true, false)).await.unwrap();
    assert_eq!((hosts(false), hosts(true)), (1, 0));
    stage.ask(&network, change(3, false, true)).await.unwrap();
    assert_eq!((hosts(false), hosts(true)), (1, 1));
    stage.ask(&network, change(4, true, true)).await.unwrap();
    assert_eq!((hosts(false), hosts(true)), (2, 2));
    assert_eq!(
        stage.host.take(),
        ["start lan", "update lan 0->1", "update lan 1->2"]
    );
    // What is there in one of them is made in neither.
    let (code, why) = refusal(stage.ask(&network, change(2, true, true)).await);
    assert_eq!(code, ApiErrorCode::WrongState);
    assert!(why.contains("host 10.77.1.2 of DNS already"), "{why}");
    let other = |command| {
        let Change::Part(mut edit) = dns_host(9) else {
            panic!("it is a part");
        };
        edit.command = command;
        Request::Change {
            change: Change::Part(edit),
            live: true,
            persistent: true,
        }
    };
    let (code, _) = refusal(stage.ask(&network, other(EditCommand::Delete)).await);
    assert_eq!(code, ApiErrorCode::WrongState);
    let (code, _) = refusal(stage.ask(&network, other(EditCommand::Modify)).await);
    assert_eq!(code, ApiErrorCode::Unsupported);
    // Nor what the host refuses.
    stage.host.refuse("update", NetworkFailure::Host);
    let (code, _) = refusal(stage.ask(&network, change(5, true, true)).await);
    assert_eq!(code, ApiErrorCode::Host);
    assert_eq!((hosts(false), hosts(true)), (2, 2));
    // Nor what cannot be kept: what was made is taken back.
    stage.host.take();
    let state = stage.root.path().join("state/networks");
    std::fs::remove_dir_all(&state).unwrap();
    let (code, _) = refusal(stage.ask(&network, change(6, true, true)).await);
    assert_eq!(code, ApiErrorCode::Storage);
    assert_eq!(stage.host.take(), ["update lan 2->3", "update lan 3->2"]);
    assert_eq!((hosts(false), hosts(true)), (2, 2));
    let updated = stage.told().into_iter();
    let updated = updated.filter(|kind| *kind == NetworkEventKind::Updated);
    assert_eq!(updated.count(), 3);
}

#[tokio::test]
async fn labels_change_without_asking_the_host() {
    let stage = Stage::new();
    let network = stage.started(&plain(1, "lan")).await;
    let title = LabelChange::Title(Some("a title".to_owned()));
    let request = Request::Change {
        change: Change::Label(title.clone()),
        live: true,
        persistent: true,
    };
    stage.ask(&network, request).await.unwrap();
    let named = NetworkRef::Uuid(network.uuid);
    for persistent in [false, true] {
        let definition = stage.networks.definition(&named, persistent).unwrap();
        assert_eq!(definition.labels.title.as_deref(), Some("a title"));
    }
    assert_eq!(stage.host.take(), ["start lan"]);
    let label = title.label();
    assert_eq!(
        stage.told().last(),
        Some(&NetworkEventKind::Labels { label })
    );
    // What follows the network's server goes on being watched.
    assert_eq!(stage.fault(&network), None);
}

#[tokio::test]
async fn what_waits_for_a_network_that_hangs_is_bounded_and_reads_are_not_held_up() {
    let stage = Stage::new();
    let network = stage.define(&plain(1, "lan")).await.unwrap();
    let other = stage.define(&plain(2, "other")).await.unwrap();
    // The host's thread waits for this one.
    let gate = {
        let host = Arc::clone(&stage.host);
        let (held, is_held) = std::sync::mpsc::sync_channel(0);
        let (release, released) = std::sync::mpsc::sync_channel::<()>(0);
        std::thread::spawn(move || {
            let _gate = host.gate.lock().unwrap();
            held.send(()).unwrap();
            let _ = released.recv();
        });
        is_held.recv().unwrap();
        release
    };
    let networks = stage.networks.clone();
    let named = NetworkRef::Uuid(network.uuid);
    let start = {
        let (networks, named) = (networks.clone(), named.clone());
        tokio::spawn(async move { networks.ask(&named, Request::Start).await })
    };
    until(|| {
        start.is_finished()
            || stage
                .root
                .path()
                .join("run/networks")
                .read_dir()
                .unwrap()
                .count()
                > 0
    })
    .await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..super::super::actor::LINE + 1 {
        let (networks, named) = (networks.clone(), named.clone());
        waiting.spawn(async move { networks.ask(&named, Request::Autostart(true)).await });
    }
    let refused = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(refusal(refused).0, ApiErrorCode::Busy);
    assert!(!stage.is_active(&network));
    stage.ask(&other, Request::Autostart(true)).await.unwrap();
    drop(gate);
    start.await.unwrap().unwrap();
    while let Some(done) = waiting.join_next().await {
        done.unwrap().unwrap();
    }
    assert!(stage.is_active(&network));
}

#[tokio::test]
async fn pages_are_in_the_order_of_names_and_filtered() {
    let stage = Stage::new();
    stage.started(&plain(1, "c")).await;
    stage.define(&plain(2, "a")).await.unwrap();
    stage.networks.create(plain(3, "b")).await.unwrap();
    let names = |filter| {
        let page = stage.networks.page(None, filter);
        let names = page.networks.into_iter();
        names.map(|it| it.name.to_string()).collect::<Vec<_>>()
    };
    let filter = NetworkFilter::default();
    assert_eq!(names(filter), ["a", "b", "c"]);
    let active = Some(true);
    assert_eq!(names(NetworkFilter { active, ..filter }), ["b", "c"]);
    let persistent = Some(false);
    assert_eq!(
        names(NetworkFilter {
            persistent,
            ..filter
        }),
        ["b"]
    );
    let autostart = Some(true);
    assert!(
        names(NetworkFilter {
            autostart,
            ..filter
        })
        .is_empty()
    );
    let after = "a".parse().unwrap();
    assert_eq!(stage.networks.page(Some(&after), filter).networks.len(), 2);
}

#[tokio::test]
async fn the_default_network_is_there_once_and_starts_with_the_host() {
    let stage = Stage::new();
    assert!(stage.networks.define_default().await.unwrap());
    assert!(!stage.networks.define_default().await.unwrap());
    let named = NetworkRef::Name("default".parse().unwrap());
    let details = stage.networks.get(&named).unwrap();
    assert!(details.summary.autostart && details.summary.persistent);
    stage.networks.autostart().await;
    assert!(stage.networks.get(&named).unwrap().summary.active);
    stage.networks.ask(&named, Request::Stop).await.unwrap();
    // The host has these addresses.
    stage.host.refuse("start", NetworkFailure::Taken);
    stage.networks.autostart().await;
    assert!(!stage.networks.get(&named).unwrap().summary.active);
    stage.networks.ask(&named, Request::Undefine).await.unwrap();
    let next = stage.next().await;
    assert!(!next.networks.define_default().await.unwrap());
    assert_eq!(
        refusal(next.networks.get(&named)).0,
        ApiErrorCode::NoNetwork
    );
}

#[tokio::test]
async fn the_default_network_has_addresses_that_the_host_does_not_reach() {
    let given = async |taken: Vec<[u8; 4]>| {
        let stage = Stage::new();
        let taken = taken.into_iter().map(std::net::IpAddr::from).collect();
        *stage.host.taken.lock().unwrap() = Some(taken);
        assert!(stage.networks.define_default().await.unwrap());
        let named = NetworkRef::Name("default".parse().unwrap());
        let network = stage.networks.definition(&named, true).unwrap();
        let own = network.addresses.first().unwrap();
        let range = own.dhcp.as_ref().unwrap().ranges.first().unwrap();
        (own.address.to_string(), range.last.to_string())
    };
    let of = |part: u8| {
        let text = |last: u8| format!("192.168.{part}.{last}");
        (text(1), text(254))
    };
    assert_eq!(given(vec![]).await, of(122));
    assert_eq!(given(vec![[192, 168, 122, 1]]).await, of(123));
    let all = (0..=255).map(|part| [192, 168, part, 1]);
    assert_eq!(given(all.clone().collect()).await, of(122), "as it was");
    let most = all.filter(|address| address[2] != 254);
    assert_eq!(given(most.collect()).await, of(254));
}

#[tokio::test]
async fn what_is_kept_of_a_network_beside_its_definition_goes_with_the_last_of_it() {
    let stage = Stage::new();
    let forgotten = || std::mem::take(&mut *stage.host.forgotten.lock().unwrap());
    let network = stage.started(&served(1, "lan")).await;
    stage.ask(&network, Request::Stop).await.unwrap();
    assert!(forgotten().is_empty(), "it may be started again");
    stage.ask(&network, Request::Undefine).await.unwrap();
    assert_eq!(forgotten(), ["lan"]);
    // One that is active yet goes with its stop.
    let network = stage.started(&served(1, "lan")).await;
    stage.ask(&network, Request::Undefine).await.unwrap();
    assert!(forgotten().is_empty());
    stage.ask(&network, Request::Stop).await.unwrap();
    assert_eq!(forgotten(), ["lan"]);
}
