//! Networks, their parts, and their ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use reeve_gateway::xml::XmlError;
use reeve_gateway::xml::network::{
    Section, format_network, format_port, parse_network, parse_part,
};
use reeve_ipc::api::network::PortDetails;
use reeve_ipc::model::{
    Bootp, BridgeSettings, Dhcp, DhcpHost, DhcpRange, DirectMode, Dns, DnsForwarder, DnsHost,
    DnsService, DnsText, DomainUuid, EditCommand, Forward, HostDeviceSource, Labels, LeaseTime,
    MetadataElement, Nat, Network, NetworkAddress, NetworkDomain, NetworkPart, NetworkPort,
    NetworkRoute, NetworkUuid, PortGroup, PortLink, PortRange, PortUuid, Vlan, VlanTag,
};
use reeve_ipc::spec::{Burst, MacAddress, Rate};
use uuid::Uuid;

use super::schema::validate;

fn parse(text: &str) -> Result<Network, XmlError> {
    parse_network(text, NetworkUuid(Uuid::from_u128(9)))
}

fn accepted(text: &str) -> Network {
    let network = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let valid = network.validate();
    valid.unwrap_or_else(|error| panic!("{error}\n{text}"));
    network
}

/// What is printed of it is read as it was, and printed the same.
fn is_stable(network: &Network) -> String {
    let printed = format_network(network, None);
    let again = parse(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    assert_eq!(&again, network, "{printed}");
    assert_eq!(format_network(&again, None), printed);
    printed
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// As libvirt's pages about the format of networks give them.
const EXAMPLES: [&str; 15] = [
    "<network><name>default</name><bridge name='virbr0'/><forward mode='nat'/>\
     <ip address='192.168.122.1' netmask='255.255.255.0'><dhcp><range start='192.168.122.2' \
     end='192.168.122.254'/></dhcp></ip><ip family='ipv6' address='2001:db8:ca2:2::1' prefix='64'/></network>",
    "<network><name>local</name><bridge name='virbr1'/><forward mode='route' dev='eth1'/>\
     <ip address='192.168.122.1' netmask='255.255.255.0'><dhcp>\
     <range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip>\
     <ip family='ipv6' address='2001:db8:ca2:2::1' prefix='64'><dhcp>\
     <range start='2001:db8:ca2:2:1::10' end='2001:db8:ca2:2:1::ff'/></dhcp></ip></network>",
    "<network><name>private</name><bridge name='virbr2'/><ip address='192.168.152.1' netmask='255.255.255.0'>\
     <dhcp><range start='192.168.152.2' end='192.168.152.254'/></dhcp></ip>\
     <ip family='ipv6' address='2001:db8:ca2:3::1' prefix='64'/></network>",
    "<network ipv6='yes'><name>nogw</name><uuid>7a3b7497-1ec7-8aef-6d5c-38dff9109e93</uuid>\
     <bridge name='virbr2' stp='on' delay='0'/><mac address='00:16:3E:5D:C7:9E'/></network>",
    "<network><name>net</name><forward mode='nat'><nat><address start='1.2.3.4' end='1.2.3.10'/>\
     </nat></forward><ip address='10.24.0.1'/></network>",
    "<network><name>ports</name><forward mode='nat'><nat><port start='500' end='1000'/></nat></forward>\
     <ip address='172.16.0.1'/></network>",
    "<network><name>open</name><forward mode='open'/><mtu size='9000'/>\
     <ip address='192.168.100.1' prefix='26'/></network>",
    "<network><name>host-bridge</name><forward mode='bridge'/><bridge name='br0'/></network>",
    "<network><name>direct-macvtap</name><forward mode='bridge'><interface dev='eth20'/>\
     <interface dev='eth21'/><interface dev='eth22'/></forward></network>",
    "<network><name>passthrough</name><forward dev='eth10' mode='passthrough'><interface dev='eth10' \
     connections='1'/><interface dev='eth11'/></forward></network>",
    "<network><name>ovs</name><forward mode='bridge'/><bridge name='ovsbr0'/><virtualport \
     type='openvswitch'/><vlan trunk='yes'><tag id='42' nativeMode='untagged'/><tag id='47'/></vlan>\
     <portgroup name='dontpanic'><vlan><tag id='42'/></vlan></portgroup>\
     <portgroup name='vlan-all'><vlan><tag id='42'/><tag id='43'/></vlan></portgroup></network>",
    "<network><name>sriov</name><forward mode='hostdev' managed='yes'><pf dev='eth3'/></forward></network>",
    "<network><name>vfs</name><forward mode='hostdev' managed='yes'><driver name='vfio'/>\
     <address type='pci' domain='0' bus='4' slot='0' function='1'/>\
     <address type='pci' domain='0x0000' bus='0x04' slot='0x1f' function='0x7'/></forward></network>",
    "<network><name>vepa</name><forward mode='vepa'><interface dev='eth0'/></forward></network>",
    "<network><name>private</name><forward mode='private' dev='eth0'/></network>",
];

#[test]
fn the_examples_of_libvirts_pages_are_read_and_printed_the_same_ever_after() {
    let printed: Vec<String> = EXAMPLES
        .into_iter()
        .map(accepted)
        .map(|n| is_stable(&n))
        .collect();
    validate("network", &printed);
}

#[test]
fn all_that_a_network_with_nat_may_say_is_printed_as_libvirt_does() {
    let text = include_str!("../data/network-nat.xml");
    let network = accepted(text);
    let printed = format_network(&network, Some(2));
    let kept = text.replace(" macTableManager='kernel'", "");
    assert_eq!(printed, kept);
    validate("network", &[printed]);
    is_stable(&network);
    let Forward::Nat(nat) = &network.forward else {
        panic!("{:?}", network.forward);
    };
    assert!(
        nat.ipv6
            && nat.ports
                == Some(PortRange {
                    first: 500,
                    last: 1000
                })
    );
    let [v4, v6] = network.addresses.as_slice() else {
        panic!("{:?}", network.addresses);
    };
    assert_eq!(
        (v4.address, v4.prefix, v4.local_ptr),
        (address("192.168.5.1"), 24, true)
    );
    let dhcp = v4.dhcp.as_ref().unwrap();
    assert_eq!(dhcp.ranges[0].lease, Some(LeaseTime::Hours(2)));
    assert_eq!(dhcp.hosts[0].lease, Some(LeaseTime::Infinite));
    assert_eq!(
        v6.dhcp.as_ref().unwrap().hosts[0].id.as_deref(),
        Some("00:03:00:01:52:54:00:00:00:02")
    );
    let burst = network.inbound.unwrap().burst.unwrap();
    assert_eq!((burst.per_second, burst.seconds), (5000 * 1024, 2));
    assert_eq!(network.routes[1].metric, Some(3));
}

#[test]
fn a_mask_that_is_not_said_is_that_of_the_class_as_in_libvirt() {
    let prefix = |ip: &str| {
        accepted(&format!("<network><name>a</name><ip {ip}/></network>")).addresses[0].prefix
    };
    assert_eq!(prefix("address='10.1.2.3'"), 8);
    assert_eq!(prefix("address='172.16.2.3'"), 16);
    assert_eq!(prefix("address='192.168.2.3' family='ipv4'"), 24);
    assert_eq!(
        prefix("address='192.168.2.3' netmask='255.255.255.240'"),
        28
    );
    assert_eq!(prefix("address='fd00::1' family='ipv6'"), 64);
}

#[test]
fn a_network_without_a_uuid_gets_the_one_drawn_and_one_without_a_name_is_refused() {
    let network = accepted("<network><name>a</name></network>");
    assert_eq!(network.uuid.0.as_u128(), 9);
    let refused = parse("<network/>").unwrap_err();
    assert_eq!(refused.code(), 21);
}

#[test]
fn what_is_known_and_not_possible_is_refused_by_its_path() {
    let with = |elements: &str| format!("<network><name>a</name>{elements}</network>");
    let unsupported = [
        (
            with("<bridge name='a' zone='public'/>"),
            "network/bridge/@zone",
        ),
        (
            with("<bridge macTableManager='libvirt'/>"),
            "network/bridge/@macTableManager: 'libvirt'",
        ),
        (
            with(
                "<dnsmasq:options xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>\
                  <dnsmasq:option value='x'/></dnsmasq:options>",
            ),
            "network/dnsmasq:options",
        ),
        (
            with("<bandwidth><inbound average='1' floor='2'/></bandwidth>"),
            "inbound/@floor",
        ),
        (
            with("<virtualport type='802.1Qbh'/>"),
            "network/virtualport/@type: '802.1Qbh'",
        ),
        (
            with("<domain name='a' register='yes'/>"),
            "network/domain/@register",
        ),
        (
            with("<portgroup name='a'><virtualport type='openvswitch'/></portgroup>"),
            "portgroup/virtualport",
        ),
        (
            with("<forward mode='hostdev'><driver name='kvm'/><pf dev='a'/></forward>"),
            "driver/@name: 'kvm'",
        ),
        (
            with("<forward mode='sideways'/>"),
            "network/forward/@mode: 'sideways'",
        ),
        (with("<mtu size='1500'><a/></mtu>"), "mtu/a"),
        (with("<mac address='52:54:00:00:00:01'><a/></mac>"), "mac/a"),
        (with("<domain name='a'><a/></domain>"), "domain/a"),
        (with("<filterref filter='x'/>"), "network/filterref"),
        (
            "<network a='b'><name>a</name></network>".to_owned(),
            "network/@a",
        ),
    ];
    for (text, part) in unsupported {
        let refused = parse(&text).unwrap_err();
        assert_eq!(refused.code(), 67, "{text}");
        assert!(refused.message.contains(part), "{}", refused.message);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let with = |elements: &str| format!("<network><name>a</name>{elements}</network>");
    let no_address = "nat forwarding requested, but no IP address provided for network 'a'";
    for (elements, part) in [
        ("<forward/>", no_address),
        (
            "<forward mode='open' dev='a'/><ip address='10.0.0.1'/>",
            "forward dev not allowed",
        ),
        ("<forward mode='bridge'/>", "needs the name of a bridge"),
        (
            "<forward mode='bridge' dev='a'/><bridge name='b'/>",
            "not on both",
        ),
        (
            "<forward mode='route'><interface dev='a'/><interface dev='b'/></forward>",
            "only one",
        ),
        (
            "<forward mode='vepa' dev='a'><interface dev='b'/></forward>",
            "must match",
        ),
        (
            "<forward mode='route'><nat/></forward>",
            "forwards by 'route'",
        ),
        (
            "<forward mode='nat'><pf dev='a'/></forward>",
            "forwards by 'nat'",
        ),
        (
            "<ip address='10.0.0.1' netmask='255.0.255.0'/>",
            "no netmask",
        ),
        (
            "<ip address='10.0.0.1' netmask='255.0.0.0' prefix='8'/>",
            "not both",
        ),
        ("<ip address='fd00::1'/>", "no family specified"),
        ("<ip address='10.0.0.1' family='ipv6'/>", "family 'ipv6'"),
        ("<ip address='10.0.0.256'/>", "ip/@address"),
        ("<ip/>", "'address' is missing"),
        ("<name>b</name>", "a second one"),
        (
            "<vlan trunk='no'><tag id='1'/><tag id='2'/></vlan>",
            "trunk",
        ),
        ("<dns><host ip='10.0.0.1'/></dns>", "no <hostname>"),
        ("<mtu size='a'/>", "mtu/@size"),
        (
            "<metadata><r:network xmlns:r='urn:x-reeve:network:1'><r:portgroup name='no' isolated='yes'/>\
             </r:network></metadata><portgroup name='yes'/>",
            "no port group \"no\"",
        ),
        (
            "<forward mode='bridge'/><bridge name='virbr%d'/>",
            "needs the name of a bridge",
        ),
    ] {
        let refused = parse(&with(elements)).unwrap_err();
        assert_eq!(refused.code(), 27, "{elements}");
        assert!(refused.message.contains(part), "{}", refused.message);
    }
    let refused = parse("<networks><name>a</name></networks>").unwrap_err();
    assert_eq!(
        refused.message,
        "expecting root element of 'network', not 'networks'"
    );
}

#[test]
fn the_pattern_of_bridges_names_is_no_name() {
    let network = accepted("<network><name>a</name><bridge name='virbr%d' delay='3'/></network>");
    assert_eq!((network.bridge.name, network.bridge.delay), (None, 3));
}

#[test]
fn networks_of_devices_of_the_host_say_their_driver() {
    let vfs = EXAMPLES.iter().find(|text| text.contains("vfio")).unwrap();
    let printed = format_network(&accepted(vfs), None);
    let driver = "<forward mode='hostdev' managed='yes'>\n    <driver name='vfio'/>\n    <address ";
    assert!(printed.contains(driver), "{printed}");
}

#[test]
fn each_part_is_read_alone() {
    use EditCommand::{AddLast, Delete};
    let part = |text: &str, section, command| parse_part(text, section, command, Some(1), "net");
    let host = part(
        "<host mac='52:54:00:00:00:01' ip='10.0.0.2'><lease expiry='5'/></host>",
        Section::DhcpHost,
        AddLast,
    );
    let NetworkPart::DhcpHost {
        address: Some(1),
        host,
    } = host.unwrap()
    else {
        panic!("no host of DHCP");
    };
    assert_eq!(host.lease, Some(LeaseTime::Minutes(5)));
    let range = part(
        "<range start='10.0.0.2' end='10.0.0.9'/>",
        Section::DhcpRange,
        AddLast,
    );
    assert!(matches!(range.unwrap(), NetworkPart::DhcpRange { .. }));
    let interface = part(
        "<interface dev='eth1'/>",
        Section::ForwardInterface,
        AddLast,
    );
    let eth1 = "eth1".parse().unwrap();
    assert_eq!(interface.unwrap(), NetworkPart::ForwardInterface(eth1));
    let group = part(
        "<portgroup name='a' default='yes'/>",
        Section::PortGroup,
        AddLast,
    );
    assert!(matches!(group.unwrap(), NetworkPart::PortGroup(group) if group.default));
    let host = "<host ip='10.0.0.7'><hostname>seven</hostname></host>";
    let host = part(host, Section::DnsHost, AddLast);
    assert!(matches!(host.unwrap(), NetworkPart::DnsHost { names, .. } if names == ["seven"]));
    let txt = part("<txt name='a' value='b'/>", Section::DnsText, AddLast);
    assert!(matches!(txt.unwrap(), NetworkPart::DnsText(text) if text.value == "b"));
    let srv = part(
        "<srv service='a' protocol='tcp'/>",
        Section::DnsService,
        AddLast,
    );
    assert!(matches!(srv.unwrap(), NetworkPart::DnsService(_)));

    // What only has to be found.
    let (name, names) = ("<txt name='a'/>", "<host><hostname>seven</hostname></host>");
    assert!(part(name, Section::DnsText, Delete).is_ok());
    let by_name = part(names, Section::DnsHost, Delete).unwrap();
    assert!(matches!(by_name, NetworkPart::DnsHost { address: None, names } if names == ["seven"]));
    assert!(part("<host ip='10.0.0.7'/>", Section::DnsHost, Delete).is_ok());
    assert!(part("<host/>", Section::DnsHost, Delete).is_err());
    assert!(part(name, Section::DnsText, AddLast).is_err());
    assert!(part(names, Section::DnsHost, AddLast).is_err());
    let wrong = part(
        "<range start='10.0.0.2' end='10.0.0.9'/>",
        Section::DhcpHost,
        AddLast,
    );
    assert_eq!(
        wrong.unwrap_err().message,
        "unexpected element <range>, expecting <host>, while updating network 'net'"
    );
}

#[test]
fn a_host_that_is_deleted_by_a_name_is_the_one_that_has_it() {
    let network = accepted(include_str!("../data/network-nat.xml"));
    let text = "<host><hostname>myhostalias</hostname></host>";
    let command = EditCommand::Delete;
    let part = parse_part(text, Section::DnsHost, command, None, "n").unwrap();
    let edit = reeve_ipc::model::NetworkEdit { command, part };
    assert!(network.edited(&edit).unwrap().dns.hosts.is_empty());
}

#[test]
fn ports_are_printed_as_libvirt_does() {
    let port = |link| PortDetails {
        port: NetworkPort {
            uuid: PortUuid(Uuid::from_u128(1)),
            link,
            mtu: None,
            inbound: Some(Rate {
                per_second: 1500,
                burst: None,
            }),
            outbound: None,
            trust_guest: false,
            isolated: true,
        },
        domain: DomainUuid(Uuid::from_u128(2)),
        name: "a<b".parse().unwrap(),
        mac: MacAddress::try_from([0x52, 0x54, 0, 0, 0, 1]).unwrap(),
        interface: None,
        port_group: Some("engineering".to_owned()),
    };
    let bridge = format_port(&port(PortLink::Bridge("virbr0".parse().unwrap())), true);
    assert_eq!(
        bridge,
        "<networkport>\n  <uuid>00000000-0000-0000-0000-000000000001</uuid>\n  <owner>\n    \
         <name>a&lt;b</name>\n    <uuid>00000000-0000-0000-0000-000000000002</uuid>\n  </owner>\n  \
         <group>engineering</group>\n  <mac address='52:54:00:00:00:01'/>\n  <bandwidth>\n    \
         <inbound average='2'/>\n  </bandwidth>\n  <rxfilters trustGuest='no'/>\n  \
         <port isolated='yes'/>\n  <plug type='network' bridge='virbr0'/>\n</networkport>\n"
    );
    let direct = PortLink::Direct {
        device: "eth0".parse().unwrap(),
        mode: DirectMode::Private,
    };
    let direct = format_port(&port(direct), false);
    assert!(
        direct.contains("<plug type='direct' dev='eth0' mode='private'/>"),
        "{direct}"
    );
    validate("networkport", &[bridge, direct]);
}

fn label() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9-]{0,8}"
}

fn name() -> impl Strategy<Value = String> {
    vec(label(), 1..4).prop_map(|labels| labels.join("."))
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 <>&'=;]{0,20}"
}

fn rate() -> impl Strategy<Value = Rate> {
    let exact = (1..1_000_u64).prop_map(|kib| kib * 1024);
    let burst = option::of((1..4_u64, 1..=86_400_u32));
    (prop_oneof![exact, 1..10_000_000_u64], burst).prop_map(|(per_second, burst)| Rate {
        per_second,
        burst: burst.map(|(times, seconds)| Burst {
            per_second: per_second * times,
            seconds,
        }),
    })
}

fn lease() -> impl Strategy<Value = LeaseTime> {
    prop_oneof![
        Just(LeaseTime::Infinite),
        (120..u32::MAX).prop_map(LeaseTime::Seconds),
        (2..u32::MAX).prop_map(LeaseTime::Minutes),
        (1..u32::MAX).prop_map(LeaseTime::Hours),
    ]
}

/// Addresses on a network of their own, by its number.
fn network_address(number: u8) -> impl Strategy<Value = NetworkAddress> {
    let hosts = vec(
        (any::<bool>(), option::of(label()), option::of(lease())),
        0..3,
    );
    let boot = option::of((
        "/[a-z.]{1,9}",
        option::of(prop_oneof![name(), Just("192.0.2.1".to_owned())]),
    ));
    let dhcp = (option::of(option::of(lease())), hosts, boot);
    let rest = (any::<[bool; 3]>(), option::of("/[a-z/]{0,9}[a-z]"));
    (dhcp, rest).prop_map(move |((range, hosts, bootp), ([v4, dhcp, ptr], root))| {
        let at = |host: u8| -> IpAddr {
            match v4 {
                true => Ipv4Addr::new(10, 20, number, host).into(),
                false => Ipv6Addr::new(0xfd00, 0, 0, number.into(), 0, 0, 0, host.into()).into(),
            }
        };
        let hosts = hosts
            .into_iter()
            .zip(10..)
            .map(|((mac, name, lease), place)| DhcpHost {
                mac: (mac && v4)
                    .then(|| MacAddress::try_from([2, 0, 0, 0, number, place]).unwrap()),
                id: (mac && !v4).then(|| format!("00:03:00:01:02:00:00:00:00:{place:02x}")),
                name: name
                    .map(|name| format!("{name}-{place}"))
                    .or_else(|| (!mac).then(|| format!("host-{place}"))),
                address: Some(at(place)),
                lease,
            });
        NetworkAddress {
            address: at(1),
            prefix: if v4 { 24 } else { 64 },
            local_ptr: ptr,
            // One of each family gives addresses out.
            dhcp: (dhcp && number < 1).then(|| Dhcp {
                ranges: range
                    .map(|lease| DhcpRange {
                        first: at(100),
                        last: at(200),
                        lease,
                    })
                    .into_iter()
                    .collect(),
                hosts: hosts.collect(),
                bootp: bootp
                    .filter(|_| v4)
                    .map(|(file, server)| Bootp { file, server }),
            }),
            tftp_root: root.filter(|_| v4).map(Into::into),
        }
    })
}

fn dns() -> impl Strategy<Value = Dns> {
    let forwarder =
        (option::of(name()), any::<bool>()).prop_map(|(domain, by_address)| DnsForwarder {
            address: (by_address || domain.is_none()).then(|| address("192.0.2.53")),
            domain,
        });
    let service = (
        (label(), select(&["tcp", "udp"][..])),
        option::of(name()),
        option::of((
            name(),
            option::of(1..u16::MAX),
            option::of(any::<u16>()),
            option::of(any::<u16>()),
        )),
    );
    let service = service.prop_map(|((service, protocol), domain, target)| DnsService {
        service,
        protocol: protocol.to_owned(),
        domain,
        port: target.as_ref().and_then(|target| target.1),
        priority: target.as_ref().and_then(|target| target.2),
        weight: target.as_ref().and_then(|target| target.3),
        target: target.map(|target| target.0),
    });
    (
        any::<[bool; 2]>(),
        vec(forwarder, 0..3),
        vec(vec(name(), 1..3), 0..3),
        vec((label(), text()), 0..3),
        vec(service, 0..3),
    )
        .prop_map(
            |([enabled, forward_plain_names], forwarders, hosts, texts, services)| Dns {
                enabled,
                forward_plain_names,
                forwarders,
                hosts: hosts
                    .into_iter()
                    .zip(1..)
                    .map(|(names, number)| DnsHost {
                        address: Ipv4Addr::new(192, 0, 2, number).into(),
                        names,
                    })
                    .collect(),
                texts: texts
                    .into_iter()
                    .enumerate()
                    .map(|(number, (name, value))| DnsText {
                        name: format!("{name}-{number}"),
                        value,
                    })
                    .collect(),
                services,
            },
        )
}

fn vlan() -> impl Strategy<Value = Vlan> {
    let tags = proptest::sample::subsequence((0..=4095_u16).collect::<Vec<_>>(), 1..4);
    (tags, option::of(any::<bool>()), any::<bool>()).prop_map(|(tags, native, trunk)| Vlan {
        trunk: trunk || native.is_some() || tags.len() > 1,
        tags: tags
            .into_iter()
            .enumerate()
            .map(|(place, id)| VlanTag {
                id,
                native: native.filter(|_| place == 0),
            })
            .collect(),
    })
}

fn groups() -> impl Strategy<Value = Vec<PortGroup>> {
    let group = (
        label(),
        (option::of(rate()), option::of(rate())),
        option::of(vlan()),
        (option::of(any::<bool>()), option::of(any::<bool>())),
    );
    vec(group, 0..3).prop_map(|groups| {
        let groups = groups.into_iter().enumerate();
        groups
            .map(
                |(place, (name, (inbound, outbound), vlan, (trust_guest, isolated)))| PortGroup {
                    name: format!("{name}-{place}"),
                    default: place == 1,
                    inbound,
                    outbound,
                    vlan,
                    trust_guest,
                    isolated,
                },
            )
            .collect()
    })
}

fn forward() -> impl Strategy<Value = Forward> {
    let device =
        || option::of("[a-z]{1,9}[0-9]").prop_map(|name| name.map(|name| name.parse().unwrap()));
    let devices = (1..4_usize).prop_map(|count| {
        (0..count)
            .map(|n| format!("eth{n}").parse().unwrap())
            .collect::<Vec<_>>()
    });
    let nat = (
        device(),
        any::<[bool; 2]>(),
        option::of((1..9_u16, 9..=u16::MAX)),
    );
    let nat = nat.prop_map(|(device, [ipv6, addresses], ports)| {
        Forward::Nat(Nat {
            device,
            ipv6,
            addresses: addresses
                .then_some((Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 9))),
            ports: ports.map(|(first, last)| PortRange { first, last }),
        })
    });
    let functions = vec((any::<u32>(), any::<u8>(), 0..32_u8, 0..8_u8), 1..3);
    let source = prop_oneof![
        functions.prop_map(HostDeviceSource::Functions),
        Just(HostDeviceSource::PhysicalFunction("eth3".parse().unwrap())),
    ];
    prop_oneof![
        Just(Forward::Isolated),
        nat,
        device().prop_map(|device| Forward::Route { device }),
        Just(Forward::Open),
        Just(Forward::Bridge("br0".parse().unwrap())),
        (select(DirectMode::ALL), devices)
            .prop_map(|(mode, devices)| Forward::Direct { mode, devices }),
        (any::<bool>(), source)
            .prop_map(|(managed, source)| Forward::HostDevices { managed, source }),
    ]
}

fn labels() -> impl Strategy<Value = Labels> {
    let plain = MetadataElement {
        uri: "urn:a".to_owned(),
        content: "<x:a xmlns:x='urn:a'>\n  <x:b c=\"d\"/></x:a>".to_owned(),
    };
    let other = text().prop_map(|content| MetadataElement {
        uri: "urn:c".to_owned(),
        content,
    });
    let line = || option::of("[a-zA-Z<>&][a-zA-Z0-9 <>&']{0,20}");
    (line(), line(), option::of(Just(plain)), option::of(other)).prop_map(
        |(title, description, plain, other)| Labels {
            title,
            description,
            metadata: plain.into_iter().chain(other).collect(),
        },
    )
}

fn network() -> impl Strategy<Value = Network> {
    let words = (
        text().prop_map(|text| format!("n{text}")),
        labels(),
        forward(),
    );
    let bridge = (option::of("[a-z]{1,8}[0-9]"), any::<bool>(), 0..=30_u32);
    let addresses = (
        network_address(0),
        vec(network_address(1), 0..2),
        any::<[bool; 6]>(),
    );
    let rest = (
        (option::of(68..=u16::MAX), option::of(name())),
        (option::of(rate()), option::of(rate())),
        (option::of(vlan()), groups()),
        dns(),
    );
    (words, bridge, addresses, rest).prop_map(|(words, bridge, addresses, rest)| {
        let mut network =
            Network::new(words.0.parse().unwrap(), NetworkUuid(Uuid::from_u128(0x77)));
        let (first, others, [routed, ipv6, trust, isolated, ovs, local]) = addresses;
        network.labels = words.1;
        network.forward = words.2;
        network.mtu = rest.0.0;
        (network.inbound, network.outbound) = rest.1;
        network.port_groups = rest.2.1;
        network.trust_guest = trust;
        network.isolated = isolated;
        if !network.forward.makes_bridge() {
            network.vlan = rest.2.0;
            network.open_vswitch = ovs;
            return network;
        }
        for group in &mut network.port_groups {
            group.vlan = None;
        }
        network.bridge = BridgeSettings {
            name: bridge.0.map(|name| name.parse().unwrap()),
            stp: bridge.1,
            delay: bridge.2,
        };
        network.mac = MacAddress::try_from([0x52, 0x54, 0, 1, 2, 3]).ok();
        network.ipv6 = ipv6;
        network.domain = rest.0.1.map(|name| NetworkDomain {
            name,
            local_only: local,
        });
        network.dns = rest.3;
        if routed {
            network.routes.push(match first.address {
                IpAddr::V4(_) => NetworkRoute {
                    destination: address("172.16.0.0"),
                    prefix: 12,
                    gateway: address("10.20.0.9"),
                    metric: Some(4),
                },
                IpAddr::V6(_) => NetworkRoute {
                    destination: address("2001:db8::"),
                    prefix: 32,
                    gateway: address("fd00::9"),
                    metric: None,
                },
            });
        }
        network.addresses = std::iter::once(first).chain(others).collect();
        network
    })
}

/// What does not matter: the order of metadata that is an element and that which is none.
fn sorted(mut network: Network) -> Network {
    network.labels.metadata.sort_by(|a, b| a.uri.cmp(&b.uri));
    network
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_network_comes_back_the_same_and_as_the_same_text(network in network()) {
        network.validate().unwrap();
        let first = format_network(&network, None);
        let again = parse(&first).unwrap_or_else(|error| panic!("{error}\n{first}"));
        prop_assert_eq!(&format_network(&again, None), &first);
        prop_assert_eq!(sorted(again), sorted(network), "{}", first);
    }
}

#[test]
fn any_network_is_valid() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let documents: Vec<String> = (0..200)
        .map(|_| {
            let any = network().new_tree(&mut runner).unwrap().current();
            format_network(&any, Some(3))
        })
        .collect();
    validate("network", &documents);
}

#[test]
fn a_title_is_read_where_later_libvirt_has_it_and_written_where_any_takes_it() {
    let network = parse(
        "<network><name>n</name><title>T</title><description>D</description>\
         <forward mode='bridge'/><bridge name='br0'/></network>",
    );
    let network = network.unwrap();
    let labels = &network.labels;
    assert_eq!(labels.title.as_deref(), Some("T"));
    assert_eq!(labels.description.as_deref(), Some("D"));
    let text = format_network(&network, None);
    assert!(text.contains("<reeve:title>T</reeve:title>"), "{text}");
    assert!(!text.contains("<title>"), "{text}");
    validate("network", std::slice::from_ref(&text));
    assert_eq!(parse(&text).unwrap().labels, network.labels);
}
