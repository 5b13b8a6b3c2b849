//! The host's interfaces and neighbours, as a client sees those of a supervisor that says what they are.

use std::net::IpAddr;

use reeve_ipc::api::call::{AnswerBody, CallBody};
use reeve_ipc::api::interface::{
    HostInterface, HostInterfaceKind, HostInterfacePage, LinkState, NicNeighbour,
};

use super::harness::{Act, Client, handle};
use super::one::{One, definition};
use crate::wire::types::guest::DomainInterfaceAddresses;
use crate::wire::types::handles::Interface;
use crate::wire::types::network as net;

fn interface(name: &str, last: u8) -> HostInterface {
    HostInterface {
        name: name.to_owned(),
        address: vec![0x52, 0x54, 0, 0, 0, last],
        mtu: 1500,
        state: LinkState::Up,
        speed: None,
        kind: HostInterfaceKind::Ethernet,
        tap: false,
        part_of: None,
        addresses: Vec::new(),
        routers: Vec::new(),
        on_boot: None,
    }
}

/// One at a time, so that there are pages.
fn page(after: Option<&str>) -> HostInterfacePage {
    let mut down = interface("eth1", 1);
    down.state = LinkState::Down;
    let mut tap = interface("vnet0", 3);
    tap.tap = true;
    let mut rest: Vec<_> = [interface("eth0", 0), down, interface("eth2", 1), tap]
        .into_iter()
        .filter(|one| after.is_none_or(|after| one.name.as_str() > after))
        .collect();
    let more = rest.len() > 1;
    rest.truncate(1);
    HostInterfacePage {
        interfaces: rest,
        more,
    }
}

fn names(all: &[Interface]) -> Vec<&str> {
    all.iter().map(|one| one.name.as_str()).collect()
}

#[test]
fn interfaces_of_the_host_are_listed_found_and_shown() {
    let mut client = Client::open_with(|_, call| match call {
        CallBody::HostInterfaceList(list) => {
            Act::Answer(AnswerBody::HostInterfaceList(page(list.after.as_deref())))
        }
        other => panic!("{other:?}"),
    });
    let listed = |client: &mut Client, flags| {
        let need_results = true;
        client.ask(&net::ConnectListAllInterfaces {
            need_results,
            flags,
        })
    };
    let all = listed(&mut client, 0);
    assert_eq!(names(&all.interfaces.0), ["eth0", "eth1", "eth2"]);
    assert_eq!(all.interfaces.0[0].mac, "52:54:00:00:00:00");
    assert_eq!(listed(&mut client, 3).ret, 3);
    assert_eq!(names(&listed(&mut client, 1).interfaces.0), ["eth1"]);
    assert_eq!(
        names(&listed(&mut client, 2).interfaces.0),
        ["eth0", "eth2"]
    );
    assert_eq!(client.ask(&net::ConnectNumOfInterfaces {}), 2);
    assert_eq!(client.ask(&net::ConnectNumOfDefinedInterfaces {}), 1);
    let maxnames = 1;
    let active = client.ask(&net::ConnectListInterfaces { maxnames });
    assert_eq!(active.0, ["eth0"]);
    let inactive = client.ask(&net::ConnectListDefinedInterfaces { maxnames });
    assert_eq!(inactive.0, ["eth1"]);
    // A guest's is found by its name.
    let name = "vnet0".to_owned();
    let interface = client.ask(&net::InterfaceLookupByName { name });
    assert!(client.ask(&net::InterfaceIsActive {
        interface: interface.clone()
    }));
    let shown = client.ask(&net::InterfaceGetXmlDesc {
        interface,
        flags: 0,
    });
    assert!(shown.contains("<mac address='52:54:00:00:00:03'/>"));
    let mut by_mac = |mac: &str| {
        let mac = mac.to_owned();
        let call = net::InterfaceLookupByMacString { mac };
        let said = client.refused(&call);
        (said.code, said.domain)
    };
    assert_eq!(by_mac("52:54:00:00:00:09"), (57, 26));
    assert_eq!(by_mac("52:54:00:00:00:01"), (59, 26));
    let mac = "52:54:00:00:00:00".to_owned();
    let found = client.ask(&net::InterfaceLookupByMacString { mac });
    assert_eq!(found.name, "eth0");
    let name = "nope".to_owned();
    let said = client.refused(&net::InterfaceLookupByName { name });
    assert_eq!((said.code, said.domain), (57, 26));
    let gone = Interface {
        name: "nope".to_owned(),
        mac: String::new(),
    };
    let said = client.refused(&net::InterfaceIsActive { interface: gone });
    assert_eq!((said.code, said.domain), (57, 26));
}

#[test]
fn neighbours_are_told_by_the_interface_that_they_are() {
    let mut one = One::running(definition("", ""));
    let mut client = Client::open_with(move |_, call| match call {
        CallBody::DomainNeighboursGet(_) => {
            Act::Answer(AnswerBody::DomainNeighboursGet(vec![NicNeighbour {
                mac: "52:54:00:00:00:01".parse().unwrap(),
                host: "vnet4".to_owned(),
                addresses: vec![IpAddr::from([10, 0, 0, 7]), "fd00::7".parse().unwrap()],
            }]))
        }
        _ => one.act(call),
    });
    let found = client.ask(&DomainInterfaceAddresses {
        domain: handle("a", 5),
        source: 2,
        flags: 0,
    });
    let [interface] = found.0.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(interface.name, "vnet4");
    assert_eq!(interface.hwaddr.as_deref(), Some("52:54:00:00:00:01"));
    let addresses: Vec<_> = interface
        .addresses
        .0
        .iter()
        .map(|address| (address.kind, address.address.as_str(), address.prefix))
        .collect();
    assert_eq!(addresses, [(0, "10.0.0.7", 0), (1, "fd00::7", 0)]);
}
