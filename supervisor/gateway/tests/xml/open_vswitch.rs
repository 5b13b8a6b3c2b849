//! Interfaces on bridges of Open vSwitch.

use std::path::Path;

use reeve_gateway::xml::domain::{Hypervisor, Parse, parse};
use reeve_ipc::model::{DomainUuid, Nic, NicSource, OpenVswitchPort, VirtualPort, Vlan, VlanTag};
use uuid::Uuid;

fn nic(interface: &str) -> Result<Nic, String> {
    let text = format!(
        "<domain type='kvm'><name>a</name><memory>65536</memory><os><type>hvm</type></os>\
         <devices><interface {interface}</interface></devices></domain>"
    );
    let how = Parse {
        uuid: DomainUuid(Uuid::from_u128(9)),
        sockets: Path::new("/run/reeve/sockets"),
        hypervisor: Hypervisor::Kvm,
    };
    let parsed = parse(&text, &how).map_err(|error| error.to_string())?;
    let mut domain = parsed.domain;
    domain.complete().map_err(|error| error.to_string())?;
    domain.validate().map_err(|error| error.to_string())?;
    Ok(domain.devices.nics.remove(0))
}

fn port(interface: &str) -> OpenVswitchPort {
    match nic(interface).unwrap().source {
        NicSource::OpenVswitch(port) => *port,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_libvirts_page_says_is_read() {
    let read = port(
        "type='bridge'><source bridge='ovsbr'/><virtualport type='openvswitch'>\
         <parameters profileid='menial' interfaceid='09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f'/></virtualport>\
         <vlan trunk='yes'><tag id='42'/><tag id='123' nativeMode='untagged'/></vlan>",
    );
    let id = "09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f".parse().unwrap();
    let tag = |id, native| VlanTag { id, native };
    let wanted = OpenVswitchPort {
        interface_id: Some(id),
        profile: Some("menial".to_owned()),
        vlan: Some(Vlan {
            trunk: true,
            tags: vec![tag(42, None), tag(123, Some(false))],
        }),
        ..OpenVswitchPort::of("ovsbr".parse().unwrap())
    };
    assert_eq!(read, wanted);
    // What is not said is made of the domain's UUID and the interface's address: the same each time.
    let bare = "type='bridge'><source bridge='ovsbr'/><virtualport type='openvswitch'/>";
    assert!(port(bare).interface_id.is_some());
    assert_eq!(port(bare), port(bare));
}

#[test]
fn what_an_interface_of_a_network_says_of_its_port_is_read() {
    let id: Uuid = "09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f".parse().unwrap();
    let vlan = Vlan {
        trunk: false,
        tags: vec![VlanTag {
            id: 42,
            native: None,
        }],
    };
    let whole = "<virtualport type='openvswitch'><parameters interfaceid='09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f' \
                 profileid='menial'/></virtualport><vlan><tag id='42'/></vlan>";
    let whole_port = VirtualPort {
        open_vswitch: true,
        interface_id: Some(id),
        profile: Some("menial".to_owned()),
        vlan: Some(vlan.clone()),
    };
    let tags = VirtualPort {
        vlan: Some(vlan),
        ..VirtualPort::default()
    };
    // As the document of a domain that runs has it, too.
    for begin in [
        "type='network'><source network='lan'/>",
        "type='bridge'><source network='lan' bridge='ovsbr'/>",
    ] {
        for (rest, wanted) in [
            (whole, Some(&whole_port)),
            ("<vlan><tag id='42'/></vlan>", Some(&tags)),
            ("", None),
        ] {
            let read = nic(&format!("{begin}{rest}")).unwrap();
            assert!(matches!(read.source, NicSource::Network { .. }));
            assert_eq!(read.virtual_port.as_deref(), wanted, "{begin}{rest}");
        }
    }
    let refused = nic("type='network'><source network='lan'/><virtualport type='802.1Qbg'/>");
    assert!(
        refused.as_ref().unwrap_err().contains("802.1Qbg"),
        "{refused:?}"
    );
    let isolated = format!("type='network'><source network='lan'/>{whole}<port isolated='yes'/>");
    let refused = nic(&isolated).unwrap_err();
    assert!(refused.contains("isolates no port by itself"), "{refused}");
}

#[test]
fn what_a_switch_or_a_bridge_cannot_do_is_refused_with_the_reason() {
    let on =
        |rest: &str| nic(&format!("type='bridge'><source bridge='ovsbr'/>{rest}")).unwrap_err();
    let refused = on("<vlan><tag id='1'/></vlan>");
    assert!(
        refused.contains("put on frames by Open vSwitch"),
        "{refused}"
    );
    let switch = "<virtualport type='openvswitch'/>";
    let refused = on(&format!("{switch}<port isolated='yes'/>"));
    assert!(refused.contains("isolates no port by itself"), "{refused}");
    let refused = on(&format!("{switch}<vlan><tag id='4096'/></vlan>"));
    assert!(refused.contains("tags are 0 to 4095"), "{refused}");
    let refused = on("<virtualport type='802.1Qbh'/>");
    assert!(refused.contains("802.1Qbh"), "{refused}");
    let refused = on("<virtualport type='midonet'><parameters interfaceid='x'/></virtualport>");
    assert!(refused.contains("midonet"), "{refused}");
}
