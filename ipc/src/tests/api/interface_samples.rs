//! One of each call about the host's interfaces and neighbours, of each answer, and of interfaces on switches, in which no field has its
//! neighbour's value.

use std::net::IpAddr;

use uuid::Uuid;

use super::network_samples::network_name;
use crate::api::call::{
    AnswerBody as Answer, Call, DomainDeviceAttach, DomainNeighboursGet, DomainNicFilterSet,
    DomainPortTagsSet, DomainRef, HostInterfaceList,
};
use crate::api::interface::{
    BondMonitor, HostInterface, HostInterfaceKind, HostInterfacePage, LinkState, NicNeighbour,
};
use crate::api::message::{CallId, FromClient, ToClient};
use crate::model::{
    Device, FilterParameter, FilterReference, NetworkPort, Nic, NicSource, OpenVswitchPort,
    PortLink, PortUuid, VirtualPort, Vlan, VlanTag,
};

fn call(call: impl Call) -> FromClient {
    FromClient::Call {
        id: CallId(7),
        body: call.into_body(),
    }
}

pub(super) fn calls() -> Vec<(&'static str, FromClient)> {
    let domain = DomainRef::Name(super::samples::name("web"));
    vec![
        ("neighbours", call(DomainNeighboursGet { domain })),
        ("interfaces", call(HostInterfaceList { after: None })),
        ("more interfaces", {
            let after = Some("br0".to_owned());
            call(HostInterfaceList { after })
        }),
        ("change tags", {
            let vlan = port().vlan.map(Box::new);
            call(DomainPortTagsSet {
                domain: DomainRef::Id(3),
                device: "52:54:00:00:00:01".parse().unwrap(),
                vlan,
                live: true,
                persistent: false,
            })
        }),
        ("change the filter", {
            let filter = FilterReference {
                filter: "clean-traffic".parse().unwrap(),
                parameters: vec![FilterParameter {
                    name: "IP".to_owned(),
                    value: "10.0.0.2".to_owned(),
                }],
            };
            call(DomainNicFilterSet {
                domain: DomainRef::Id(3),
                device: "52:54:00:00:00:01".parse().unwrap(),
                filter: Some(Box::new(filter)),
                live: true,
                persistent: false,
            })
        }),
        ("attach to a switch", attach(NicSource::OpenVswitch(port()))),
        ("attach to a network by a port of its own", {
            let OpenVswitchPort {
                interface_id,
                profile,
                vlan,
                ..
            } = *port();
            let mut nic = Nic::new(NicSource::Network {
                network: network_name(),
                port_group: None,
                port: None,
            });
            nic.virtual_port = Some(Box::new(VirtualPort {
                open_vswitch: true,
                interface_id,
                profile,
                vlan,
            }));
            attach_nic(nic)
        }),
        (
            "attached to a switched network",
            attach(NicSource::Network {
                network: network_name(),
                port_group: None,
                port: Some(Box::new(NetworkPort {
                    uuid: PortUuid(Uuid::from_u128(6)),
                    link: PortLink::OpenVswitch(port()),
                    mtu: None,
                    inbound: None,
                    outbound: None,
                    trust_guest: false,
                    isolated: false,
                })),
            }),
        ),
    ]
}

fn port() -> Box<OpenVswitchPort> {
    Box::new(OpenVswitchPort {
        bridge: "ovsbr".parse().unwrap(),
        interface_id: Some(Uuid::from_u128(5)),
        profile: Some("gold".to_owned()),
        vlan: Some(Vlan {
            trunk: true,
            tags: vec![
                VlanTag {
                    id: 42,
                    native: Some(false),
                },
                VlanTag {
                    id: 4095,
                    native: None,
                },
            ],
        }),
    })
}

fn attach(source: NicSource) -> FromClient {
    attach_nic(Nic::new(source))
}

fn attach_nic(nic: Nic) -> FromClient {
    call(DomainDeviceAttach {
        domain: DomainRef::Id(3),
        device: Box::new(Device::Nic(nic)),
        live: true,
        persistent: false,
    })
}

const STATES: [LinkState; 7] = [
    LinkState::Unknown,
    LinkState::NotPresent,
    LinkState::Down,
    LinkState::LowerLayerDown,
    LinkState::Testing,
    LinkState::Dormant,
    LinkState::Up,
];

fn kinds() -> Vec<HostInterfaceKind> {
    let target = IpAddr::from([10, 0, 0, 9]);
    let bond = |mode, monitor| HostInterfaceKind::Bond { mode, monitor };
    vec![
        HostInterfaceKind::Ethernet,
        HostInterfaceKind::Bridge {
            stp: true,
            delay: 1500,
        },
        HostInterfaceKind::Vlan {
            tag: 42,
            of: Some("eth0".to_owned()),
        },
        bond(1, None),
        bond(
            2,
            Some(BondMonitor::Link {
                every_ms: 100,
                up_ms: 200,
                down_ms: 300,
                carrier: true,
            }),
        ),
        bond(
            3,
            Some(BondMonitor::Arp {
                every_ms: 400,
                target,
            }),
        ),
    ]
}

fn interfaces() -> Vec<HostInterface> {
    let mut kinds = kinds().into_iter();
    let interfaces = STATES.into_iter().map(|state| HostInterface {
        name: "eth0".to_owned(),
        address: vec![0x52, 0x54, 0, 0, 0, 1],
        mtu: 1400,
        state,
        speed: Some(2500),
        kind: kinds.next().unwrap_or(HostInterfaceKind::Ethernet),
        tap: true,
        part_of: Some("br0".to_owned()),
        addresses: vec![(IpAddr::from([10, 0, 0, 1]), 24)],
        routers: vec!["fe80::1".parse().unwrap()],
        on_boot: Some(false),
    });
    interfaces.collect()
}

pub(super) fn answers() -> Vec<(&'static str, ToClient)> {
    let reply = |answer| ToClient::Reply {
        id: CallId(7),
        result: Ok(answer),
    };
    let neighbour = NicNeighbour {
        mac: "52:54:00:00:00:01".parse().unwrap(),
        host: "vnet0".to_owned(),
        addresses: vec![IpAddr::from([10, 0, 0, 7]), "fd00::7".parse().unwrap()],
    };
    let page = HostInterfacePage {
        interfaces: interfaces(),
        more: true,
    };
    vec![
        (
            "neighbours",
            reply(Answer::DomainNeighboursGet(vec![neighbour])),
        ),
        ("interfaces", reply(Answer::HostInterfaceList(page))),
        ("tags changed", reply(Answer::DomainPortTagsSet(()))),
        ("filter changed", reply(Answer::DomainNicFilterSet(()))),
    ]
}
