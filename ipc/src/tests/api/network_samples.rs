//! One of each call about virtual networks, of each answer and of each event, in which no field has its neighbour's
//! value; and interfaces on networks.

use uuid::Uuid;

use crate::api::call::{
    AnswerBody as Answer, Call, DomainDeviceAttach, DomainRef, LabelChange, NetworkAutostartSet,
    NetworkCreate, NetworkDefine, NetworkDefinitionGet, NetworkFilter, NetworkGet, NetworkLabelSet,
    NetworkLeasesGet, NetworkList, NetworkPage, NetworkPortList, NetworkPortPage, NetworkRef,
    NetworkStart, NetworkStop, NetworkUndefine, NetworkUpdate,
};
use crate::api::event::{Cursor, Event, Label, NetworkEvent, NetworkEventKind};
use crate::api::message::{CallId, FromClient, ToClient};
use crate::api::network::{NetworkDetails, NetworkForward, NetworkSummary, PortDetails};
use crate::model::{
    Bootp, BridgeSettings, Device, Dhcp, DhcpHost, DhcpRange, DirectMode, Dns, DnsForwarder,
    DnsHost, DnsService, DnsText, DomainUuid, EditCommand, Forward, HostDeviceSource, Labels,
    LeaseTime, MetadataElement, Nat, Network, NetworkAddress, NetworkDomain, NetworkEdit,
    NetworkName, NetworkPart, NetworkPort, NetworkRoute, NetworkUuid, Nic, NicSource, PortGroup,
    PortLink, PortRange, PortUuid, Vlan, VlanTag,
};
use crate::spec::{Burst, Rate};

pub(in crate::tests) fn network_name() -> NetworkName {
    "lan".parse().unwrap()
}

fn uuid() -> NetworkUuid {
    NetworkUuid(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff))
}

fn port_uuid() -> PortUuid {
    PortUuid(Uuid::from_u128(0xffee_ddcc_bbaa_9988_7766_5544_3322_1100))
}

const fn rate(per_second: u64) -> Rate {
    Rate {
        per_second,
        burst: None,
    }
}

fn vlan() -> Vlan {
    let tag = |id, native| VlanTag { id, native };
    Vlan {
        trunk: true,
        tags: vec![tag(42, Some(true)), tag(43, None)],
    }
}

fn group() -> PortGroup {
    PortGroup {
        name: "gold".to_owned(),
        default: true,
        inbound: Some(rate(5)),
        outbound: Some(rate(6)),
        vlan: None,
        trust_guest: Some(true),
        isolated: Some(false),
    }
}

fn dhcp_host() -> DhcpHost {
    DhcpHost {
        mac: Some("52:54:00:0a:0b:0c".parse().unwrap()),
        id: None,
        name: Some("web".to_owned()),
        address: Some("10.0.0.7".parse().unwrap()),
        lease: Some(LeaseTime::Hours(3)),
    }
}

fn range() -> DhcpRange {
    DhcpRange {
        first: "10.0.0.10".parse().unwrap(),
        last: "10.0.0.20".parse().unwrap(),
        lease: Some(LeaseTime::Minutes(5)),
    }
}

fn dns_host() -> DnsHost {
    DnsHost {
        address: "198.51.100.7".parse().unwrap(),
        names: vec!["a".to_owned(), "b".to_owned()],
    }
}

fn dns_text() -> DnsText {
    DnsText {
        name: "t".to_owned(),
        value: "v=1".to_owned(),
    }
}

fn service() -> DnsService {
    DnsService {
        service: "ldap".to_owned(),
        protocol: "tcp".to_owned(),
        domain: Some("d.example".to_owned()),
        target: Some("t.example".to_owned()),
        port: Some(389),
        priority: Some(1),
        weight: Some(2),
    }
}

/// One in which everything is said that can be of one with a bridge of its own; valid.
pub(in crate::tests) fn network() -> Network {
    Network {
        name: network_name(),
        uuid: uuid(),
        labels: Labels {
            title: Some("T".to_owned()),
            description: Some("D".to_owned()),
            metadata: vec![MetadataElement {
                uri: "u".to_owned(),
                content: "<c/>".to_owned(),
            }],
        },
        forward: Forward::Nat(Nat {
            device: Some("eth0".parse().unwrap()),
            ipv6: true,
            addresses: Some(("192.0.2.1".parse().unwrap(), "192.0.2.9".parse().unwrap())),
            ports: Some(PortRange {
                first: 500,
                last: 1000,
            }),
        }),
        bridge: BridgeSettings {
            name: Some("virbr7".parse().unwrap()),
            stp: false,
            delay: 3,
        },
        mac: Some("52:54:00:01:02:03".parse().unwrap()),
        mtu: Some(1400),
        domain: Some(NetworkDomain {
            name: "example.org".to_owned(),
            local_only: true,
        }),
        dns: Dns {
            enabled: true,
            forward_plain_names: false,
            forwarders: vec![DnsForwarder {
                address: Some("192.0.2.53".parse().unwrap()),
                domain: Some("a.example".to_owned()),
            }],
            hosts: vec![dns_host()],
            texts: vec![dns_text()],
            services: vec![service()],
        },
        addresses: vec![
            NetworkAddress {
                address: "10.0.0.1".parse().unwrap(),
                prefix: 24,
                local_ptr: true,
                dhcp: Some(Dhcp {
                    ranges: vec![range()],
                    hosts: vec![dhcp_host()],
                    bootp: Some(Bootp {
                        file: "pxelinux.0".to_owned(),
                        server: Some("10.0.0.2".to_owned()),
                    }),
                }),
                tftp_root: Some("/srv/tftp".into()),
            },
            NetworkAddress {
                address: "fd00::1".parse().unwrap(),
                prefix: 64,
                local_ptr: false,
                dhcp: Some(Dhcp {
                    hosts: vec![DhcpHost {
                        id: Some("0:3".to_owned()),
                        name: Some("six".to_owned()),
                        lease: Some(LeaseTime::Infinite),
                        ..DhcpHost::default()
                    }],
                    ..Dhcp::default()
                }),
                tftp_root: None,
            },
        ],
        routes: vec![NetworkRoute {
            destination: "10.9.0.0".parse().unwrap(),
            prefix: 16,
            gateway: "10.0.0.9".parse().unwrap(),
            metric: Some(8),
        }],
        ipv6: true,
        inbound: Some(Rate {
            per_second: 2,
            burst: Some(Burst {
                per_second: 3,
                seconds: 4,
            }),
        }),
        outbound: Some(rate(9)),
        vlan: None,
        open_vswitch: false,
        port_groups: vec![group()],
        trust_guest: true,
        isolated: false,
    }
}

/// Bare networks, one of each way of forwarding but NAT; valid.
pub(in crate::tests) fn others() -> Vec<(&'static str, Network)> {
    let with = |forward| {
        let mut network = Network::new(network_name(), uuid());
        network.forward = forward;
        network
    };
    let devices = |source| Forward::HostDevices {
        managed: true,
        source,
    };
    let mut open_vswitch = with(Forward::Bridge("br0".parse().unwrap()));
    open_vswitch.open_vswitch = true;
    open_vswitch.vlan = Some(vlan());
    let device = Some("eth1".parse().unwrap());
    vec![
        ("define an isolated network", with(Forward::Isolated)),
        ("define a routed network", with(Forward::Route { device })),
        ("define an open network", with(Forward::Open)),
        ("define a network of Open vSwitch", open_vswitch),
        ("define a direct network", {
            with(Forward::Direct {
                mode: DirectMode::Private,
                devices: vec!["eth0".parse().unwrap(), "eth1".parse().unwrap()],
            })
        }),
        ("define a network of functions", {
            let functions = vec![(1, 2, 3, 4)];
            with(devices(HostDeviceSource::Functions(functions)))
        }),
        ("define a network of a physical function", {
            let name = "eth3".parse().unwrap();
            with(devices(HostDeviceSource::PhysicalFunction(name)))
        }),
    ]
}

fn port(link: PortLink) -> NetworkPort {
    NetworkPort {
        uuid: port_uuid(),
        link,
        mtu: Some(1400),
        inbound: Some(rate(5)),
        outbound: Some(rate(6)),
        trust_guest: true,
        isolated: false,
    }
}

/// An interface of each source that has to do with networks.
fn interfaces() -> Vec<(&'static str, Nic)> {
    let network = |port_group: Option<&str>, port| {
        Nic::new(NicSource::Network {
            network: network_name(),
            port_group: port_group.map(str::to_owned),
            port,
        })
    };
    let (device, mode) = ("eth0".parse().unwrap(), DirectMode::Passthrough);
    let bridge = port(PortLink::Bridge("virbr7".parse().unwrap()));
    let direct = port(PortLink::Direct { device, mode });
    let device = "eth1".parse().unwrap();
    let mode = DirectMode::Vepa;
    vec![
        ("attach to a network", network(None, None)),
        (
            "attached to a network",
            network(Some("gold"), Some(Box::new(bridge))),
        ),
        (
            "attached to a direct network",
            network(None, Some(Box::new(direct))),
        ),
        (
            "attach directly",
            Nic::new(NicSource::Direct { device, mode }),
        ),
        ("attach by user", Nic::new(NicSource::User)),
    ]
}

fn call<C: Call>(call: C) -> FromClient {
    FromClient::Call {
        id: CallId(7),
        body: call.into_body(),
    }
}

fn by_name() -> NetworkRef {
    NetworkRef::Name(network_name())
}

fn parts() -> Vec<(&'static str, EditCommand, NetworkPart)> {
    use EditCommand as E;
    use NetworkPart as P;
    let (host, range) = (dhcp_host(), range());
    let address = Some(1);
    vec![
        ("update a host of DHCP", E::Modify, {
            P::DhcpHost { address, host }
        }),
        ("update a range of DHCP", E::AddFirst, {
            P::DhcpRange {
                address: None,
                range,
            }
        }),
        ("update an interface", E::Delete, {
            P::ForwardInterface("eth2".parse().unwrap())
        }),
        ("update a port group", E::Modify, P::PortGroup(group())),
        ("update a host of DNS", E::AddLast, {
            let DnsHost { address, names } = dns_host();
            P::DnsHost {
                address: Some(address),
                names,
            }
        }),
        ("update a text of DNS", E::Delete, P::DnsText(dns_text())),
        (
            "update a service of DNS",
            E::AddLast,
            P::DnsService(service()),
        ),
    ]
}

/// The calls.
pub(super) fn calls() -> Vec<(&'static str, FromClient)> {
    let network = || Box::new(self::network());
    let mut calls = vec![
        ("list networks", {
            call(NetworkList {
                after: Some(network_name()),
                filter: NetworkFilter {
                    active: Some(true),
                    persistent: None,
                    autostart: Some(false),
                },
            })
        }),
        ("get a network", {
            let network = NetworkRef::Bridge("virbr7".parse().unwrap());
            call(NetworkGet { network })
        }),
        ("get a network's definition", {
            let (network, persistent) = (NetworkRef::Uuid(uuid()), true);
            call(NetworkDefinitionGet {
                network,
                persistent,
            })
        }),
        ("define a network", {
            let (network, only_new) = (network(), true);
            call(NetworkDefine { network, only_new })
        }),
        ("create a network", {
            call(NetworkCreate { network: network() })
        }),
        ("start a network", {
            call(NetworkStart { network: by_name() })
        }),
        ("stop a network", call(NetworkStop { network: by_name() })),
        ("undefine a network", {
            call(NetworkUndefine { network: by_name() })
        }),
        ("network autostart", {
            let (network, autostart) = (by_name(), true);
            call(NetworkAutostartSet { network, autostart })
        }),
        ("label a network", {
            call(NetworkLabelSet {
                network: by_name(),
                label: LabelChange::Title(Some("T".to_owned())),
                live: true,
                persistent: false,
            })
        }),
        ("get leases", call(NetworkLeasesGet { network: by_name() })),
        ("list ports", {
            let (network, after) = (by_name(), Some(port_uuid()));
            call(NetworkPortList { network, after })
        }),
    ];
    calls.extend(parts().into_iter().map(|(name, command, part)| {
        let edit = Box::new(NetworkEdit { command, part });
        let update = NetworkUpdate {
            network: by_name(),
            edit,
            live: true,
            persistent: false,
        };
        (name, call(update))
    }));
    calls.extend(others().into_iter().map(|(name, network)| {
        let network = Box::new(network);
        let only_new = false;
        (name, call(NetworkDefine { network, only_new }))
    }));
    calls.extend(interfaces().into_iter().map(|(name, nic)| {
        let attach = DomainDeviceAttach {
            domain: DomainRef::Id(3),
            device: Box::new(Device::Nic(nic)),
            live: true,
            persistent: false,
        };
        (name, call(attach))
    }));
    calls
}

fn summary(forward: Option<NetworkForward>) -> NetworkSummary {
    NetworkSummary {
        name: network_name(),
        uuid: uuid(),
        active: true,
        persistent: false,
        autostart: true,
        forward,
        bridge: Some("virbr7".parse().unwrap()),
        ports: 300,
    }
}

fn reply(answer: Answer) -> ToClient {
    ToClient::Reply {
        id: CallId(7),
        result: Ok(answer),
    }
}

/// The answers.
pub(super) fn answers() -> Vec<(&'static str, ToClient)> {
    use NetworkForward as F;
    let forwards = [
        None,
        Some(F::Nat),
        Some(F::Route),
        Some(F::Open),
        Some(F::Bridge),
        Some(F::Direct(DirectMode::Bridge)),
        Some(F::HostDevices),
    ];
    vec![
        ("networks", {
            reply(Answer::NetworkList(NetworkPage {
                networks: forwards.map(summary).to_vec(),
                more: true,
            }))
        }),
        ("network", {
            reply(Answer::NetworkGet(NetworkDetails {
                summary: summary(None),
                changes: true,
                fault: Some("no".to_owned()),
            }))
        }),
        ("network definition", {
            reply(Answer::NetworkDefinitionGet(Box::new(network())))
        }),
        ("network defined", {
            reply(Answer::NetworkDefine(summary(Some(F::Nat))))
        }),
        ("network created", {
            reply(Answer::NetworkCreate(summary(Some(F::Open))))
        }),
        ("network started", {
            reply(Answer::NetworkStart(summary(Some(F::Route))))
        }),
        ("network stopped", reply(Answer::NetworkStop(()))),
        ("network undefined", reply(Answer::NetworkUndefine(()))),
        (
            "network autostart set",
            reply(Answer::NetworkAutostartSet(())),
        ),
        ("network updated", reply(Answer::NetworkUpdate(()))),
        ("network labelled", reply(Answer::NetworkLabelSet(()))),
        ("leases", reply(Answer::NetworkLeasesGet(true))),
        ("ports", {
            let link = PortLink::Bridge("virbr7".parse().unwrap());
            reply(Answer::NetworkPortList(NetworkPortPage {
                ports: vec![PortDetails {
                    port: port(link),
                    domain: DomainUuid(Uuid::from_u128(5)),
                    name: "web".parse().unwrap(),
                    mac: "52:54:00:0a:0b:0c".parse().unwrap(),
                    interface: Some("vnet3".parse().unwrap()),
                    port_group: Some("gold".to_owned()),
                }],
                more: false,
            }))
        }),
    ]
}

/// Every kind of event.
pub(super) fn event_kinds() -> Vec<NetworkEventKind> {
    use NetworkEventKind as K;
    let metadata = Label::Metadata {
        uri: "u".to_owned(),
    };
    vec![
        K::Defined { changed: true },
        K::Undefined,
        K::Started,
        K::Stopped,
        K::Autostart { on: true },
        K::Updated,
        K::Labels { label: metadata },
        K::PortAdded { port: port_uuid() },
        K::PortRemoved { port: port_uuid() },
    ]
}

/// A new kind does not compile here until it stands in the list above, too.
const fn describe(kind: &NetworkEventKind) -> &'static str {
    match kind {
        NetworkEventKind::Defined { .. } => "network event: defined",
        NetworkEventKind::Undefined => "network event: undefined",
        NetworkEventKind::Started => "network event: started",
        NetworkEventKind::Stopped => "network event: stopped",
        NetworkEventKind::Autostart { .. } => "network event: autostart",
        NetworkEventKind::Updated => "network event: updated",
        NetworkEventKind::Labels { .. } => "network event: labels",
        NetworkEventKind::PortAdded { .. } => "network event: port added",
        NetworkEventKind::PortRemoved { .. } => "network event: port removed",
    }
}

/// The events.
pub(super) fn events() -> Vec<(&'static str, ToClient)> {
    let of = |kind: NetworkEventKind| {
        let event = ToClient::Event {
            cursor: Cursor {
                epoch: 1 << 63,
                number: 302,
            },
            event: Event::Network(NetworkEvent {
                time_ms: 1_700_000_000_004,
                uuid: uuid(),
                name: network_name(),
                kind: kind.clone(),
            }),
        };
        (describe(&kind), event)
    };
    event_kinds().into_iter().map(of).collect()
}
