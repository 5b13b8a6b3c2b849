//! Ports: what interfaces are given, and that they are connected again.

use super::*;

#[tokio::test]
async fn a_port_is_of_an_active_network() {
    let stage = Stage::new();
    let network = plain(1, "lan");
    let (code, why) = refusal(stage.port(&network, 1));
    assert_eq!(code, ApiErrorCode::NoNetwork);
    assert!(why.contains("there is no network 'lan'"), "{why}");
    stage.define(&network).await.unwrap();
    let (code, why) = refusal(stage.port(&network, 1));
    assert_eq!(
        (code, why.as_str()),
        (ApiErrorCode::WrongState, "network 'lan' is not active")
    );
    stage.ask(&network, Request::Start).await.unwrap();
    let (first, link) = stage.port(&network, 1).unwrap();
    let (second, _) = stage.port(&network, 2).unwrap();
    assert_ne!(first, second);
    let named = NetworkRef::Uuid(network.uuid);
    let bridge = stage
        .networks
        .definition(&named, false)
        .unwrap()
        .bridge
        .name;
    assert_eq!(link, PortLink::Bridge(bridge.unwrap()));
    let page = stage.networks.ports(&named, None).unwrap();
    assert_eq!((page.ports.len(), page.more), (2, false));
    let behind = page.ports.first().unwrap().port.uuid;
    let page = stage.networks.ports(&named, Some(behind)).unwrap();
    assert_eq!(page.ports.len(), 1);
    assert_eq!(stage.networks.get(&named).unwrap().summary.ports, 2);
    stage.networks.disconnect(first);
    stage.networks.disconnect(first);
    assert_eq!(stage.networks.get(&named).unwrap().summary.ports, 1);
    let told = stage.told();
    assert!(told.ends_with(&[
        NetworkEventKind::PortAdded { port: first },
        NetworkEventKind::PortAdded { port: second },
        NetworkEventKind::PortRemoved { port: first },
    ]));
}

#[tokio::test]
async fn a_port_has_what_its_group_and_its_network_say() {
    let stage = Stage::new();
    let rate = |per_second| {
        Some(Rate {
            per_second,
            burst: None,
        })
    };
    let mut network = plain(1, "lan");
    network.mtu = Some(9000);
    network.isolated = true;
    let group = |name: &str, default, isolated, inbound| PortGroup {
        name: name.to_owned(),
        default,
        inbound,
        outbound: None,
        vlan: None,
        trust_guest: Some(default),
        isolated,
    };
    network.port_groups = vec![
        group("usual", true, None, rate(1000)),
        group("gold", false, Some(false), rate(2000)),
    ];
    stage.started(&network).await;
    let given = |port_group| {
        stage.networks.connect(PortRequest {
            network: &network.name,
            port_group,
            virtual_port: None,
            uuid: DomainUuid(Uuid::from_u128(1)),
            name: &"web".parse().unwrap(),
            mac: mac(1),
        })
    };
    let usual = given(None).unwrap();
    assert_eq!((usual.mtu, usual.inbound), (Some(9000), rate(1000)));
    assert!(usual.isolated && usual.trust_guest);
    let gold = given(Some("gold")).unwrap();
    assert_eq!((gold.inbound, gold.outbound), (rate(2000), None));
    assert!(!gold.isolated && !gold.trust_guest);
    let (code, why) = refusal(given(Some("no")));
    assert_eq!(code, ApiErrorCode::InvalidArgument);
    assert!(why.contains("there is no port group 'no'"), "{why}");
}

#[tokio::test]
async fn a_port_is_on_the_bridge_of_the_host_or_on_the_interface_with_the_fewest() {
    let stage = Stage::new();
    let mut bridged = plain(1, "bridged");
    bridged.forward = Forward::Bridge("br0".parse().unwrap());
    stage.started(&bridged).await;
    let (_, link) = stage.port(&bridged, 1).unwrap();
    assert_eq!(link, PortLink::Bridge("br0".parse().unwrap()));
    let direct = |number, mode| {
        let mut network = plain(number, if number == 2 { "vepa" } else { "through" });
        network.forward = Forward::Direct {
            mode,
            devices: vec!["eth8".parse().unwrap(), "eth9".parse().unwrap()],
        };
        network
    };
    let through = direct(3, DirectMode::Passthrough);
    stage.started(&through).await;
    let device = |link| match link {
        PortLink::Direct { device, .. } => device.to_string(),
        other => panic!("{other:?}"),
    };
    let (first, link) = stage.port(&through, 1).unwrap();
    assert_eq!(device(link), "eth8");
    assert_eq!(device(stage.port(&through, 2).unwrap().1), "eth9");
    assert_eq!(refusal(stage.port(&through, 3)).0, ApiErrorCode::Busy);
    stage.networks.disconnect(first);
    assert_eq!(device(stage.port(&through, 3).unwrap().1), "eth8");
    // Tags that nobody would put on its frames are no port at all.
    let mut tagged = plain(4, "tagged");
    tagged.forward = Forward::Bridge("br0".parse().unwrap());
    tagged.vlan = Some(Vlan {
        trunk: false,
        tags: vec![VlanTag {
            id: 42,
            native: None,
        }],
    });
    stage.started(&tagged).await;
    assert_eq!(refusal(stage.port(&tagged, 1)).0, ApiErrorCode::Unsupported);
    // A switch does.
    let mut switched = tagged.clone();
    (switched.name, switched.uuid) = (plain(5, "switched").name, plain(5, "switched").uuid);
    switched.open_vswitch = true;
    stage.started(&switched).await;
    let (uuid, link) = stage.port(&switched, 1).unwrap();
    let PortLink::OpenVswitch(port) = link else {
        panic!("{link:?}");
    };
    assert_eq!(port.bridge.as_str(), "br0");
    assert_eq!(port.interface_id, Some(uuid.0));
    assert_eq!(port.vlan, switched.vlan);
}

#[tokio::test]
async fn what_an_interface_says_of_its_port_holds() {
    let stage = Stage::new();
    let tag = |id| {
        Some(Vlan {
            trunk: false,
            tags: vec![VlanTag { id, native: None }],
        })
    };
    let mut bridged = plain(1, "bridged");
    bridged.forward = Forward::Bridge("ovsbr".parse().unwrap());
    stage.started(&bridged).await;
    let mut switched = plain(2, "switched");
    switched.forward = Forward::Bridge("ovsbr".parse().unwrap());
    switched.open_vswitch = true;
    switched.vlan = tag(42);
    stage.started(&switched).await;
    let own = plain(3, "own");
    stage.started(&own).await;
    let given = |network: &Network, virtual_port: &VirtualPort| {
        stage.networks.connect(PortRequest {
            network: &network.name,
            port_group: None,
            virtual_port: Some(virtual_port),
            uuid: DomainUuid(Uuid::from_u128(1)),
            name: &"web".parse().unwrap(),
            mac: mac(1),
        })
    };
    let whole = VirtualPort {
        open_vswitch: true,
        interface_id: Some(Uuid::from_u128(9)),
        profile: Some("gold".to_owned()),
        vlan: tag(7),
    };
    let link = PortLink::OpenVswitch(Box::new(OpenVswitchPort {
        bridge: "ovsbr".parse().unwrap(),
        interface_id: whole.interface_id,
        profile: whole.profile.clone(),
        vlan: tag(7),
    }));
    // Whether the network says that the bridge is one of Open vSwitch or not.
    for network in [&bridged, &switched] {
        assert_eq!(given(network, &whole).unwrap().link, link);
    }
    let tags = VirtualPort {
        vlan: tag(8),
        ..VirtualPort::default()
    };
    let port = given(&switched, &tags).unwrap();
    let PortLink::OpenVswitch(link) = port.link else {
        panic!("{:?}", port.link);
    };
    assert_eq!((link.vlan, link.interface_id), (tag(8), Some(port.uuid.0)));
    // What is not said is the network's.
    let plain = VirtualPort {
        open_vswitch: true,
        ..VirtualPort::default()
    };
    let PortLink::OpenVswitch(link) = given(&switched, &plain).unwrap().link else {
        panic!("no port of a switch");
    };
    assert_eq!(link.vlan, tag(42));
    for (network, refused, part) in [
        (&bridged, &tags, "tags of VLANs"),
        (&own, &whole, "connected to a bridge of the host"),
    ] {
        let (code, why) = refusal(given(network, refused));
        assert_eq!(code, ApiErrorCode::Unsupported);
        assert!(why.contains(part), "{why}");
    }
}

#[tokio::test]
async fn what_was_connected_is_connected_again_by_the_next_start() {
    let stage = Stage::new();
    let network = stage.started(&plain(1, "lan")).await;
    let bridge = network.bridge.name.clone().unwrap();
    let (made, _) = stage.port(&network, 1).unwrap();
    let (unmade, _) = stage.port(&network, 2).unwrap();
    let (gone, _) = stage.port(&network, 3).unwrap();
    stage.networks.made(made, "vnet1".parse().unwrap());
    stage.networks.made(gone, "vnet3".parse().unwrap());
    stage.networks.disconnect(gone);
    stage.ask(&network, Request::Stop).await.unwrap();
    assert_eq!(refusal(stage.port(&network, 4)).0, ApiErrorCode::WrongState);
    // One that cannot be does not keep the network from starting.
    stage.host.refuse("connect", NetworkFailure::Host);
    stage.ask(&network, Request::Start).await.unwrap();
    stage.ask(&network, Request::Stop).await.unwrap();
    stage.host.take();
    stage.ask(&network, Request::Start).await.unwrap();
    let connect = format!("connect vnet1 to {bridge}");
    assert_eq!(stage.host.take(), ["start lan".to_owned(), connect]);
    // Its tap was made while the network was stopped and started.
    stage.networks.made(unmade, "vnet2".parse().unwrap());
    let connect = format!("connect vnet2 to {bridge}");
    until(|| stage.host.asked.lock().unwrap().contains(&connect)).await;
    let named = NetworkRef::Uuid(network.uuid);
    let page = stage.networks.ports(&named, None).unwrap();
    assert!(page.ports.iter().all(|port| port.interface.is_some()));
}

#[tokio::test]
async fn a_network_with_another_bridge_has_its_ports_on_that() {
    let stage = Stage::new();
    let mut network = stage.started(&plain(1, "lan")).await;
    let (port, _) = stage.port(&network, 1).unwrap();
    stage.networks.made(port, "vnet1".parse().unwrap());
    stage.ask(&network, Request::Stop).await.unwrap();
    network.bridge.name = Some("virbr91".parse().unwrap());
    stage.define(&network).await.unwrap();
    stage.host.take();
    stage.ask(&network, Request::Start).await.unwrap();
    assert_eq!(stage.host.take(), ["start lan", "connect vnet1 to virbr91"]);
}
