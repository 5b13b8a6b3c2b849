//! Networks, as a client sees those of a supervisor that has them in memory.

use std::sync::{Arc, Mutex};

use reeve_ipc::api::Access;
use reeve_ipc::api::call::CallBody;
use reeve_ipc::api::network::PortDetails;
use reeve_ipc::api::view::DeviceStats;
use reeve_ipc::device::{DeviceFigures, NicFigures};
use reeve_ipc::model::{DeviceName, DomainUuid, NetworkPort, PortLink, PortUuid};
use reeve_ipc::spec::Rate;
use uuid::Uuid;

use super::harness::{Client, handle};
use super::nets::Nets;
use super::one::{One, definition};
use crate::wire::call::{Call, Event};
use crate::wire::frame::Kind;
use crate::wire::types::event as events;
use crate::wire::types::guest::DomainInterfaceAddresses;
use crate::wire::types::handles::{Network, NetworkPort as Port};
use crate::wire::types::network as net;
use crate::wire::types::params::Param;
use crate::wire::xdr::decode;

/// A client of a host with networks.
fn host() -> (Client, Arc<Mutex<Nets>>) {
    let nets = Arc::new(Mutex::new(Nets::default()));
    let acting = Arc::clone(&nets);
    let client =
        Client::open_with(move |supervisor, call| acting.lock().unwrap().act(supervisor, call));
    (client, nets)
}

fn document(name: &str) -> String {
    format!(
        "<network><name>{name}</name><bridge name='vb{name}'/><ip address='192.168.5.1' prefix='24'>\
         <dhcp><range start='192.168.5.2' end='192.168.5.9'/></dhcp></ip></network>"
    )
}

fn defined(client: &mut Client, name: &str) -> Network {
    client.ask(&net::NetworkDefineXml {
        xml: document(name),
    })
}

fn xml(client: &mut Client, network: &Network, flags: u32) -> String {
    client.ask(&net::NetworkGetXmlDesc {
        network: network.clone(),
        flags,
    })
}

#[test]
fn a_network_is_defined_started_stopped_and_undefined() {
    let (mut client, _) = host();
    let network = defined(&mut client, "one");
    assert_eq!(network.name, "one");
    let handle = || network.clone();
    let name = "one".to_owned();
    assert_eq!(client.ask(&net::NetworkLookupByName { name }), network);
    let uuid = network.uuid;
    assert_eq!(client.ask(&net::NetworkLookupByUuid { uuid }), network);
    assert!(!client.ask(&net::NetworkIsActive { network: handle() }));
    assert!(client.ask(&net::NetworkIsPersistent { network: handle() }));
    assert!(!client.ask(&net::NetworkGetAutostart { network: handle() }));
    client.ask(&net::NetworkSetAutostart {
        network: handle(),
        autostart: true,
    });
    assert!(client.ask(&net::NetworkGetAutostart { network: handle() }));
    let refused = client.refused(&net::NetworkDestroy { network: handle() });
    assert_eq!((refused.code, refused.domain), (55, 19));
    assert!(refused.message.ends_with("network 'one' is not active"));
    client.ask(&net::NetworkCreate { network: handle() });
    assert!(client.ask(&net::NetworkIsActive { network: handle() }));
    let refused = client.refused(&net::NetworkCreate { network: handle() });
    assert_eq!((refused.code, refused.domain), (55, 19));
    assert!(refused.message.ends_with("network is already active"));
    let bridge = client.ask(&net::NetworkGetBridgeName { network: handle() });
    assert_eq!(bridge, "vbone");
    // It lives on without its definition, and goes with its end.
    client.ask(&net::NetworkUndefine { network: handle() });
    assert!(!client.ask(&net::NetworkIsPersistent { network: handle() }));
    let refused = client.refused(&net::NetworkUndefine { network: handle() });
    assert!(
        refused
            .message
            .ends_with("can't undefine transient network")
    );
    let refused = client.refused(&net::NetworkSetAutostart {
        network: handle(),
        autostart: true,
    });
    let line = "cannot set autostart for transient network";
    assert!(refused.message.ends_with(line), "{refused:?}");
    client.ask(&net::NetworkDestroy { network: handle() });
    let refused = client.refused(&net::NetworkIsActive { network: handle() });
    assert_eq!((refused.code, refused.domain), (43, 19));
    let uuid = Uuid::from_bytes(network.uuid);
    let line = format!("Network not found: no network with matching uuid '{uuid}' (one)");
    assert_eq!(refused.message, line);
}

#[test]
fn look_ups_that_find_nothing_say_so_as_libvirt_does() {
    let (mut client, _) = host();
    for name in ["x", "", "a/b"] {
        let name = name.to_owned();
        let refused = client.refused(&net::NetworkLookupByName { name: name.clone() });
        assert_eq!((refused.code, refused.domain), (43, 19));
        let line = format!("Network not found: no network with matching name '{name}'");
        assert_eq!(refused.message, line);
    }
    let refused = client.refused(&net::NetworkLookupByUuid { uuid: [0; 16] });
    assert!(
        refused
            .message
            .ends_with("no network with matching uuid '00000000-0000-0000-0000-000000000000'")
    );
}

#[test]
fn lists_and_counts_tell_active_networks_from_others() {
    let (mut client, _) = host();
    let names = ["a", "b", "c"];
    let all: Vec<Network> = names.map(|name| defined(&mut client, name)).into();
    client.ask(&net::NetworkCreate {
        network: all[1].clone(),
    });
    let created = client.ask(&net::NetworkCreateXml { xml: document("d") });
    assert_eq!(client.ask(&net::ConnectNumOfNetworks {}), 2);
    assert_eq!(client.ask(&net::ConnectNumOfDefinedNetworks {}), 2);
    let active = client.ask(&net::ConnectListNetworks { maxnames: 9 });
    assert_eq!(active.0, ["b", "d"]);
    let some = client.ask(&net::ConnectListDefinedNetworks { maxnames: 1 });
    assert_eq!(some.0, ["a"]);
    let mut list = |flags| {
        let found = client.ask(&net::ConnectListAllNetworks {
            need_results: true,
            flags,
        });
        assert_eq!(usize::try_from(found.ret).unwrap(), found.networks.0.len());
        let names = found.networks.0.into_iter().map(|network| network.name);
        names.collect::<Vec<_>>()
    };
    assert_eq!(list(0), ["a", "b", "c", "d"]);
    assert_eq!(list(1), ["a", "c"]);
    assert_eq!(list(2 | 4), ["b"]);
    assert_eq!(list(8), ["d"]);
    let count = net::ConnectListAllNetworks {
        need_results: false,
        flags: 0,
    };
    let counted = client.ask(&count);
    assert_eq!((counted.ret, counted.networks.0.len()), (4, 0));
    let refused = client.refused(&net::ConnectListAllNetworks {
        need_results: true,
        flags: 0x40,
    });
    assert_eq!((refused.code, refused.domain), (8, 19));
    let line = "unsupported flags (0x40) in function virConnectListAllNetworks";
    assert!(refused.message.ends_with(line), "{refused:?}");
    // Of one that was only created there is but one definition.
    assert!(xml(&mut client, &created, 1).contains("<name>d</name>"));
}

#[test]
fn documents_that_are_refused_say_why() {
    let (mut client, _) = host();
    let mut refused = |xml: &str| {
        let refused = client.refused(&net::NetworkDefineXml {
            xml: xml.to_owned(),
        });
        assert_eq!(refused.domain, 19, "{refused:?}");
        (refused.code, refused.message)
    };
    assert_eq!(refused("<network").0, 35);
    assert_eq!(refused("<network/>").0, 21);
    let (code, why) = refused("<network><name>a</name><forward/></network>");
    assert_eq!(code, 27);
    assert!(
        why.contains("nat forwarding requested, but no IP address"),
        "{why}"
    );
    let (code, why) = refused("<network><name>a</name><bridge zone='b'/></network>");
    assert_eq!(code, 67);
    assert!(why.contains("network/bridge/@zone"), "{why}");
    // What the supervisor makes of it.
    let (code, why) = refused("<network><name>a</name><mtu size='9'/></network>");
    assert_eq!(code, 67);
    assert!(why.contains("MTU"), "{why}");
    let flags = 1;
    let xml = "<network><name>a</name><ip/></network>".to_owned();
    let invalid = client.refused(&net::NetworkDefineXmlFlags { xml, flags });
    assert_eq!(invalid.code, 92);
    let xml = document("a");
    let unknown = client.refused(&net::NetworkCreateXmlFlags { xml, flags: 2 });
    assert_eq!(unknown.code, 8);
}

#[test]
fn another_network_of_its_name_is_in_the_way() {
    let (mut client, _) = host();
    defined(&mut client, "one");
    let refused = client.refused(&net::NetworkDefineXml {
        xml: document("one"),
    });
    assert_eq!((refused.code, refused.domain), (9, 19));
}

fn update(
    network: &Network,
    (command, section): (u32, u32),
    xml: &str,
    flags: u32,
) -> net::NetworkUpdate {
    net::NetworkUpdate {
        network: network.clone(),
        command,
        section,
        parent_index: -1,
        xml: xml.to_owned(),
        flags,
    }
}

#[test]
fn parts_are_changed_in_what_is_active_what_is_kept_or_both() {
    let (mut client, _) = host();
    let client = &mut client;
    let network = defined(client, "one");
    let host = |last: u8| format!("<host mac='52:54:00:00:00:0{last}' ip='192.168.5.{last}'/>");
    // As it is not active, its definition is meant.
    let call = update(&network, (3, 4), &host(5), 0);
    client.ask(&call);
    assert!(xml(client, &network, 0).contains("192.168.5.5"));
    let call = update(&network, (3, 4), &host(6), 1);
    let refused = client.refused(&call);
    assert_eq!((refused.code, refused.domain), (55, 19));
    assert!(refused.message.ends_with("network is not running"));
    client.ask(&net::NetworkCreate {
        network: network.clone(),
    });
    let call = update(&network, (4, 4), &host(7), 1);
    client.ask(&call);
    let (live, kept) = (xml(client, &network, 0), xml(client, &network, 1));
    assert!(live.contains("192.168.5.7") && !kept.contains("192.168.5.7"));
    let places = ["192.168.5.7'", "192.168.5.5'"].map(|part| live.find(part).unwrap());
    assert!(places[0] < places[1], "it is the first: {live}");
    let txt = "<txt name='a' value='b'/>";
    let call = update(&network, (3, 11), txt, 3);
    client.ask(&call);
    assert!(xml(client, &network, 1).contains(txt) && xml(client, &network, 0).contains(txt));
    let call = update(&network, (2, 11), "<txt name='a'/>", 3);
    client.ask(&call);
    let refused = client.refused(&call);
    assert_eq!((refused.code, refused.domain), (55, 19));

    let refused = |client: &mut Client, of: (u32, u32), xml: &str| {
        let call = update(&network, of, xml, 0);
        let refused = client.refused(&call);
        assert_eq!(refused.domain, 19);
        (refused.code, refused.message)
    };
    let (code, why) = refused(client, (3, 1), "<bridge/>");
    assert_eq!(code, 84);
    assert!(
        why.ends_with("can't update 'bridge' section of network 'one'"),
        "{why}"
    );
    let (code, why) = refused(client, (9, 4), &host(8));
    assert_eq!(code, 3);
    assert!(why.contains("command code 9"), "{why}");
    assert_eq!(refused(client, (3, 13), "<x/>").0, 3);
    let (code, why) = refused(client, (3, 5), &host(8));
    assert_eq!(code, 27);
    let line = "unexpected element <host>, expecting <range>, while updating network 'one'";
    assert!(why.ends_with(line), "{why}");

    client.ask(&net::NetworkUndefine {
        network: network.clone(),
    });
    let call = update(&network, (3, 4), &host(8), 2);
    let refused = client.refused(&call);
    let line = "cannot change persistent config of a transient network";
    assert!(refused.message.ends_with(line), "{refused:?}");
}

fn port() -> PortDetails {
    PortDetails {
        port: NetworkPort {
            uuid: PortUuid(Uuid::from_u128(7)),
            link: PortLink::Bridge("vbone".parse().unwrap()),
            mtu: None,
            inbound: Some(Rate {
                per_second: 2048,
                burst: None,
            }),
            outbound: None,
            trust_guest: false,
            isolated: false,
        },
        domain: DomainUuid(Uuid::from_u128(8)),
        name: "web".parse().unwrap(),
        mac: "52:54:00:00:00:01".parse().unwrap(),
        interface: None,
        port_group: None,
    }
}

#[test]
fn ports_are_listed_shown_and_not_made_by_hand() {
    let (mut client, nets) = host();
    let second = PortDetails {
        port: NetworkPort {
            uuid: PortUuid(Uuid::from_u128(9)),
            ..port().port
        },
        ..port()
    };
    nets.lock().unwrap().ports = vec![port(), second];
    let network = defined(&mut client, "one");
    let list = net::NetworkListAllPorts {
        network: network.clone(),
        need_results: true,
        flags: 0,
    };
    let refused = client.refused(&list);
    assert_eq!((refused.code, refused.domain), (55, 19));
    assert!(refused.message.ends_with("network 'one' is not active"));
    client.ask(&net::NetworkCreate {
        network: network.clone(),
    });
    let found = client.ask(&list);
    assert_eq!(found.ret, 2);
    let handle = found.ports.0[0].clone();
    assert_eq!(handle.uuid, *Uuid::from_u128(7).as_bytes());
    let looked_up = client.ask(&net::NetworkPortLookupByUuid {
        network: network.clone(),
        uuid: handle.uuid,
    });
    assert_eq!(looked_up, handle);
    let shown = client.ask(&net::NetworkPortGetXmlDesc {
        port: handle.clone(),
        flags: 0,
    });
    assert!(shown.contains("<name>web</name>"), "{shown}");
    assert!(
        shown.contains("<plug type='network' bridge='vbone'/>"),
        "{shown}"
    );
    assert!(xml(&mut client, &network, 0).starts_with("<network connections='2'>"));
    assert!(xml(&mut client, &network, 1).starts_with("<network>"));
    let mut parameters = |nparams| {
        client.ask(&net::NetworkPortGetParameters {
            port: handle.clone(),
            nparams,
            flags: 0,
        })
    };
    assert_eq!(parameters(0).nparams, 7);
    let params = parameters(7).params;
    assert!(params.0.contains(&Param::new("inbound.average", 2_u32)));
    let absent = Port {
        network: network.clone(),
        uuid: [1; 16],
    };
    let refused = client.refused(&net::NetworkPortGetXmlDesc {
        port: absent.clone(),
        flags: 0,
    });
    assert_eq!((refused.code, refused.domain), (107, 19));
    let refused = client.refused(&net::NetworkPortDelete {
        port: absent,
        flags: 0,
    });
    assert_eq!(refused.code, 107);
    let refused = client.refused(&net::NetworkPortDelete {
        port: handle.clone(),
        flags: 0,
    });
    assert_eq!((refused.code, refused.domain), (84, 19));
    let refused = client.refused(&net::NetworkPortCreateXml {
        network,
        xml: shown,
        flags: 0,
    });
    assert_eq!(refused.code, 84);
    assert!(refused.message.contains("starting domains"), "{refused:?}");
    let refused = client.refused(&net::NetworkPortSetParameters {
        port: handle,
        params: vec![Param::new("inbound.average", 2_u32)].into(),
        flags: 0,
    });
    assert_eq!(refused.code, 84);
}

#[test]
fn what_is_lent_is_told_with_the_prefix_and_the_bridge_of_the_network() {
    let (mut client, nets) = host();
    nets.lock().unwrap().book = "4102444800 52:54:00:00:00:01 192.168.5.7 web 01:52:54\n\
         0 52:54:00:00:00:02 192.168.5.8 * *\n\
         1000 52:54:00:00:00:03 192.168.5.9 gone *\n"
        .to_owned();
    let network = defined(&mut client, "one");
    let leases = |client: &mut Client, mac: Option<&str>, need_results| {
        client.ask(&net::NetworkGetDhcpLeases {
            network: network.clone(),
            mac: mac.map(str::to_owned),
            need_results,
            flags: 0,
        })
    };
    assert_eq!(leases(&mut client, None, true).ret, 0, "it is not active");
    client.ask(&net::NetworkCreate {
        network: network.clone(),
    });
    let all = leases(&mut client, None, true);
    assert_eq!(all.ret, 2);
    assert_eq!(
        all.leases.0[0],
        net::DhcpLease {
            interface: "vbone".to_owned(),
            expiry: 4_102_444_800,
            kind: 0,
            mac: Some("52:54:00:00:00:01".to_owned()),
            iaid: None,
            address: "192.168.5.7".to_owned(),
            prefix: 24,
            hostname: Some("web".to_owned()),
            client_id: Some("01:52:54".to_owned()),
        }
    );
    assert_eq!(all.leases.0[1].expiry, 0);
    let counted = leases(&mut client, None, false);
    assert_eq!((counted.ret, counted.leases.0.len()), (2, 0));
    let one = leases(&mut client, Some("52:54:00:00:00:02"), true);
    assert_eq!(one.leases.0[0].address, "192.168.5.8");
    assert_eq!(leases(&mut client, Some("52:54:00:00:00:09"), true).ret, 0);
    let refused = client.refused(&net::NetworkGetDhcpLeases {
        network,
        mac: Some("x".to_owned()),
        need_results: true,
        flags: 0,
    });
    assert_eq!((refused.code, refused.domain), (8, 19));
}

#[test]
fn a_domain_has_the_addresses_that_its_networks_lent_to_its_interfaces() {
    let nic = |last: u8, source: &str| {
        format!("<interface type='{source}<mac address='52:54:00:00:00:0{last}'/></interface>")
    };
    let devices = [
        nic(1, "network'><source network='one'/>"),
        nic(2, "bridge'><source bridge='vbone'/>"),
        nic(3, "network'><source network='one'/>"),
    ];
    let mut one = One::running(definition("", &devices.concat()));
    let nic = one.running.as_ref().unwrap().devices.nics[0].clone();
    one.stats.push(DeviceStats {
        device: DeviceName::Nic(nic.mac.unwrap()),
        slot: nic.address.unwrap(),
        host: Some("vnet4".to_owned()),
        figures: DeviceFigures::Nic(NicFigures::default()),
    });
    let mut nets = Nets::with_book(
        "0 52:54:00:00:00:01 192.168.5.7 web *\n0 52:54:00:00:00:02 192.168.5.8 * *\n",
    );
    let mut client = Client::open_with(move |supervisor, call| match call {
        CallBody::NetworkGet(_)
        | CallBody::NetworkDefinitionGet(_)
        | CallBody::NetworkDefine(_)
        | CallBody::NetworkStart(_)
        | CallBody::NetworkLeasesGet(_) => nets.act(supervisor, call),
        _ => one.act(call),
    });
    let network = defined(&mut client, "one");
    let ask = || DomainInterfaceAddresses {
        domain: handle("a", 5),
        source: 0,
        flags: 0,
    };
    assert!(client.ask(&ask()).0.is_empty(), "it is not active");
    client.ask(&net::NetworkCreate { network });
    let found = client.ask(&ask()).0;
    let [interface] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(interface.name, "vnet4");
    assert_eq!(interface.hwaddr.as_deref(), Some("52:54:00:00:00:01"));
    let [address] = interface.addresses.0.as_slice() else {
        panic!("{interface:?}");
    };
    assert_eq!((address.kind, address.prefix), (0, 24));
    assert_eq!(address.address, "192.168.5.7");
}

#[test]
fn what_is_noted_about_a_network_is_set_and_told() {
    let (mut client, _) = host();
    let network = defined(&mut client, "one");
    let set = |kind, metadata: Option<&str>, key: Option<&str>, uri: Option<&str>| {
        net::NetworkSetMetadata {
            network: network.clone(),
            kind,
            metadata: metadata.map(str::to_owned),
            key: key.map(str::to_owned),
            uri: uri.map(str::to_owned),
            flags: 2,
        }
    };
    let get = |kind, uri: Option<&str>, flags| net::NetworkGetMetadata {
        network: network.clone(),
        kind,
        uri: uri.map(str::to_owned),
        flags,
    };
    let refused = client.refused(&get(1, None, 0));
    assert_eq!((refused.code, refused.domain), (80, 19));
    client.ask(&set(1, Some("a title"), None, None));
    client.ask(&set(0, Some("a description"), None, None));
    client.ask(&set(2, Some("<a b='c'/>"), Some("p"), Some("urn:a")));
    assert_eq!(client.ask(&get(1, None, 0)), "a title");
    assert_eq!(client.ask(&get(0, None, 2)), "a description");
    assert_eq!(client.ask(&get(2, Some("urn:a"), 2)), "<a b='c'/>");
    let shown = xml(&mut client, &network, 0);
    assert!(
        shown.contains("<reeve:title>a title</reeve:title>"),
        "{shown}"
    );
    assert!(shown.contains("<p:a xmlns:p='urn:a' b='c'/>"), "{shown}");
    let refused = client.refused(&get(1, None, 1));
    assert!(refused.message.ends_with("network is not running"));
    let refused = client.refused(&get(1, None, 3));
    assert_eq!(refused.code, 8);
    let refused = client.refused(&set(7, Some("x"), None, None));
    assert_eq!(refused.code, 8);
}

/// Calls; the reply, and the event that comes of it, whichever is first.
fn happens<C: Call, E: Event>(client: &mut Client, call: &C) -> (C::Reply, E) {
    let serial = client.send(call);
    let (mut reply, mut event) = (None, None);
    while reply.is_none() || event.is_none() {
        let got = client.next().expect("the connection has ended");
        match got.header.kind {
            Kind::Message => {
                assert_eq!(got.header.procedure, E::NUMBER, "{got:?}");
                let told = event.replace(decode(&got.payload).unwrap());
                assert!(told.is_none(), "there are two");
            }
            _ => {
                assert_eq!(got.header.serial, serial, "{got:?}");
                reply = Some(got.reply::<C>());
            }
        }
    }
    (reply.unwrap(), event.unwrap())
}

#[test]
fn whoever_registers_is_told_of_a_networks_life_and_of_what_is_noted() {
    type Life = events::NetworkEventLifecycle;
    type Noted = events::NetworkEventCallbackMetadataChange;
    let (mut client, _) = host();
    let first = defined(&mut client, "one");
    let register = |event, network| events::ConnectNetworkEventRegisterAny { event, network };
    let life = client.ask(&register(0, None));
    let noted = client.ask(&register(1, Some(first.clone())));
    let refused = client.refused(&register(2, None));
    assert_eq!(refused.code, 1);
    let network = || first.clone();
    let define = net::NetworkDefineXml {
        xml: document("two"),
    };
    let (second, told): (_, Life) = happens(&mut client, &define);
    assert_eq!((told.callback, told.event, told.detail), (life, 0, 0));
    assert_eq!(told.network, second);
    let create = net::NetworkCreate { network: network() };
    let ((), told): (_, Life) = happens(&mut client, &create);
    assert_eq!((told.event, told.network), (2, network()));
    let set = net::NetworkSetMetadata {
        network: network(),
        kind: 1,
        metadata: Some("t".to_owned()),
        key: None,
        uri: None,
        flags: 3,
    };
    let ((), told): (_, Noted) = happens(&mut client, &set);
    assert_eq!((told.callback, told.kind, told.uri), (noted, 1, None));
    let destroy = net::NetworkDestroy { network: network() };
    let ((), told): (_, Life) = happens(&mut client, &destroy);
    assert_eq!(told.event, 3);
    let undefine = net::NetworkUndefine { network: network() };
    let ((), told): (_, Life) = happens(&mut client, &undefine);
    assert_eq!(told.event, 1);
    for callback in [life, noted] {
        client.ask(&events::ConnectNetworkEventDeregisterAny { callback });
    }
    let refused = client.refused(&events::ConnectNetworkEventDeregisterAny { callback: life });
    let line = "network event callback 0 not registered";
    assert!(refused.message.ends_with(line), "{refused:?}");
    defined(&mut client, "three");
    client.silence(50);
}

#[test]
fn whoever_may_only_look_changes_nothing() {
    let mut client = Client::with(Access::ReadOnly, |call| {
        panic!("the supervisor is asked {call:?}")
    });
    client.open_by("qemu:///system", 1);
    let network = || Network {
        name: "one".to_owned(),
        uuid: [7; 16],
    };
    let refused = [
        client.refused(&net::NetworkDefineXml {
            xml: document("one"),
        }),
        client.refused(&net::NetworkCreateXml {
            xml: document("one"),
        }),
        client.refused(&net::NetworkCreate { network: network() }),
        client.refused(&net::NetworkDestroy { network: network() }),
        client.refused(&net::NetworkUndefine { network: network() }),
    ];
    for refused in refused {
        assert_eq!((refused.code, refused.domain), (29, 20), "{refused:?}");
    }
}
