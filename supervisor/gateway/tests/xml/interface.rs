//! Interfaces of the host: as libvirt prints them, and valid by its schema.

use std::net::IpAddr;

use reeve_gateway::xml::interface::format_interface;
use reeve_ipc::api::interface::{BondMonitor, HostInterface, HostInterfaceKind, LinkState};

use super::schema::validate;

fn interface(name: &str, kind: HostInterfaceKind) -> HostInterface {
    HostInterface {
        name: name.to_owned(),
        address: vec![0x52, 0x54, 0, 0xab, 0, 1],
        mtu: 1500,
        state: LinkState::Up,
        speed: Some(10_000),
        kind,
        tap: false,
        part_of: None,
        addresses: Vec::new(),
        routers: Vec::new(),
        on_boot: None,
    }
}

fn ethernet(name: &str, part_of: Option<&str>) -> HostInterface {
    HostInterface {
        part_of: part_of.map(str::to_owned),
        ..interface(name, HostInterfaceKind::Ethernet)
    }
}

fn addressed(name: &str) -> HostInterface {
    let mut interface = ethernet(name, None);
    interface.addresses = vec![
        (IpAddr::from([10, 0, 0, 5]), 24),
        ("fd00::5".parse().unwrap(), 64),
        ("fe80::5".parse().unwrap(), 64),
    ];
    interface.routers = vec![IpAddr::from([10, 0, 0, 1])];
    interface
}

fn all() -> Vec<HostInterface> {
    let bond = |name, mode, monitor| interface(name, HostInterfaceKind::Bond { mode, monitor });
    let links = BondMonitor::Link {
        every_ms: 100,
        up_ms: 200,
        down_ms: 300,
        carrier: true,
    };
    let asks = BondMonitor::Arp {
        every_ms: 100,
        target: IpAddr::from([10, 0, 0, 9]),
    };
    let bridge = HostInterfaceKind::Bridge {
        stp: true,
        delay: 1500,
    };
    let vlan = HostInterfaceKind::Vlan {
        tag: 42,
        of: Some("eth0".to_owned()),
    };
    let mut inner = bond("bond0", 1, Some(links));
    inner.part_of = Some("br0".to_owned());
    let mut tagged = interface("eth0.42", vlan.clone());
    tagged.part_of = Some("br0".to_owned());
    let mut port = ethernet("eth1", Some("br0"));
    (port.speed, port.state) = (None, LinkState::LowerLayerDown);
    let mut long = ethernet("ib0", None);
    long.address = vec![0x80; 20];
    vec![
        addressed("eth0"),
        interface("br0", bridge),
        inner,
        ethernet("eth2", Some("bond0")),
        ethernet("eth3", Some("bond0")),
        tagged,
        port,
        interface("eth4.42", vlan),
        bond("bond1", 4, Some(asks)),
        ethernet("eth5", Some("bond1")),
        long,
    ]
}

#[test]
fn each_kind_is_valid_by_the_schema() {
    let all = all();
    let printed: Vec<String> = all.iter().map(|one| format_interface(one, &all)).collect();
    validate("interface", &printed);
}

#[test]
fn they_look_as_libvirt_prints_them() {
    let all = all();
    let printed = |name: &str| {
        let interface = all.iter().find(|one| one.name == name).unwrap();
        format_interface(interface, &all)
    };
    let bridge = "<interface type='bridge' name='br0'>
  <mtu size='1500'/>
  <bridge stp='on' delay='1500'>
    <interface type='bond' name='bond0'>
      <link speed='10000' state='up'/>
      <bond mode='active-backup'>
        <miimon freq='100' downdelay='300' updelay='200' carrier='netif'/>
        <interface type='ethernet' name='eth2'>
          <link speed='10000' state='up'/>
          <mac address='52:54:00:ab:00:01'/>
        </interface>
        <interface type='ethernet' name='eth3'>
          <link speed='10000' state='up'/>
          <mac address='52:54:00:ab:00:01'/>
        </interface>
      </bond>
    </interface>
    <interface type='vlan' name='eth0.42'>
      <link speed='10000' state='up'/>
      <vlan tag='42'>
        <interface name='eth0'/>
      </vlan>
    </interface>
    <interface type='ethernet' name='eth1'>
      <link state='lowerlayerdown'/>
      <mac address='52:54:00:ab:00:01'/>
    </interface>
  </bridge>
</interface>
";
    assert_eq!(printed("br0"), bridge);
    let ethernet = "<interface type='ethernet' name='eth0'>
  <mtu size='1500'/>
  <protocol family='ipv4'>
    <ip address='10.0.0.5' prefix='24'/>
    <route gateway='10.0.0.1'/>
  </protocol>
  <protocol family='ipv6'>
    <ip address='fd00::5' prefix='64'/>
    <ip address='fe80::5' prefix='64'/>
  </protocol>
  <link speed='10000' state='up'/>
  <mac address='52:54:00:ab:00:01'/>
</interface>
";
    assert_eq!(printed("eth0"), ethernet);
}

#[test]
fn a_vlan_whose_parent_is_in_another_namespace_names_none() {
    let vlan = interface("eth0.7", HostInterfaceKind::Vlan { tag: 7, of: None });
    let expected = "<interface type='vlan' name='eth0.7'>
  <mtu size='1500'/>
  <link speed='10000' state='up'/>
  <vlan tag='7'/>
</interface>
";
    assert_eq!(
        format_interface(&vlan, std::slice::from_ref(&vlan)),
        expected
    );
}

/// What could be part of itself ends all the same.
#[test]
fn rings_end() {
    let kind = HostInterfaceKind::Bond {
        mode: 9,
        monitor: None,
    };
    let mut one = interface("a", kind.clone());
    one.part_of = Some("b".to_owned());
    let mut other = interface("b", kind);
    other.part_of = Some("a".to_owned());
    let all = [one, other];
    assert!(format_interface(&all[0], &all).contains("<bond>"));
}
