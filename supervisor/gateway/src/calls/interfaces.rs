//! The host's own interfaces, as libvirt's driver for hosts without a manager of them (udev) shows them: to look at.
//! One is active whose link is up, by the kernel's word; lists leave out the ends of what processes serve, guests'
//! among them, and what is a port of a bridge, which is shown with it. By its name every one is found.

use std::sync::Arc;

use reeve_ipc::api::call::HostInterfaceList;
use reeve_ipc::api::interface::{HostInterface, HostInterfaceKind, LinkState};

use super::Context;
use super::failure::{Code, Failure, Origin, said_by};
use super::list::{count, most};
use crate::wire::types::OBJECTS_MAX;
use crate::wire::types::handles::Interface;
use crate::wire::types::network as wire;
use crate::wire::xdr::List;
use crate::xml::interface::{format_interface, link_address};

/// Filters (libvirt `virConnectListAllInterfacesFlags`): where neither or both are set they filter nothing.
mod only {
    pub(super) const INACTIVE: u32 = 0x1;
    pub(super) const ACTIVE: u32 = 0x2;
    pub(super) const ALL: u32 = 0x3;
}

fn as_interface(failure: Failure) -> Failure {
    said_by(Origin::Interface, failure)
}

fn check_flags(flags: u32, known: u32, function: &str) -> Result<(), Failure> {
    super::failure::check_flags(flags, known, function).map_err(as_interface)
}

/// Every interface, by name.
async fn every(context: &Context) -> Result<Vec<HostInterface>, Failure> {
    let mut all: Vec<HostInterface> = Vec::new();
    loop {
        let after = all.last().map(|last| last.name.clone());
        let page = context.call(HostInterfaceList { after }).await;
        let page = page.map_err(as_interface)?;
        let more = page.more && !page.interfaces.is_empty();
        all.extend(page.interfaces);
        if !more {
            return Ok(all);
        }
    }
}

fn is_up(interface: &HostInterface) -> bool {
    interface.state == LinkState::Up
}

/// Those that are listed.
fn listed(mut all: Vec<HostInterface>, active: Option<bool>) -> Vec<HostInterface> {
    let bridges = all.iter();
    let bridges = bridges.filter(|one| matches!(one.kind, HostInterfaceKind::Bridge { .. }));
    let bridges: Vec<String> = bridges.map(|bridge| bridge.name.clone()).collect();
    all.retain(|one| {
        let port = one.part_of.as_ref().is_some_and(|of| bridges.contains(of));
        !one.tap && !port && active.is_none_or(|active| active == is_up(one))
    });
    all
}

fn handle(interface: &HostInterface) -> Interface {
    Interface {
        name: interface.name.clone(),
        mac: link_address(interface),
    }
}

fn names(interfaces: &[HostInterface], asked: i32) -> List<String, OBJECTS_MAX> {
    let names = interfaces.iter().map(|interface| interface.name.clone());
    names.take(most(asked).min(OBJECTS_MAX)).collect()
}

fn absent(name: &str) -> Failure {
    let why = format!("couldn't find interface named '{name}'");
    Failure::not_found(Code::NoInterface, why)
}

pub(super) async fn all(
    context: Arc<Context>,
    call: wire::ConnectListAllInterfaces,
) -> Result<wire::InterfaceList, Failure> {
    check_flags(call.flags, only::ALL, "virConnectListAllInterfaces")?;
    let wanted = (
        call.flags & only::ACTIVE != 0,
        call.flags & only::INACTIVE != 0,
    );
    let active = (wanted.0 != wanted.1).then_some(wanted.0);
    let mut found = listed(every(&context).await?, active);
    found.truncate(OBJECTS_MAX);
    let ret = u32::try_from(found.len()).unwrap_or(u32::MAX);
    let interfaces = match call.need_results {
        true => found.iter().map(handle).collect(),
        false => List::default(),
    };
    Ok(wire::InterfaceList { interfaces, ret })
}

pub(super) async fn active_count(
    context: Arc<Context>,
    _: wire::ConnectNumOfInterfaces,
) -> Result<i32, Failure> {
    Ok(count(listed(every(&context).await?, Some(true)).len()))
}

pub(super) async fn active_names(
    context: Arc<Context>,
    call: wire::ConnectListInterfaces,
) -> Result<List<String, OBJECTS_MAX>, Failure> {
    let found = listed(every(&context).await?, Some(true));
    Ok(names(&found, call.maxnames))
}

pub(super) async fn inactive_count(
    context: Arc<Context>,
    _: wire::ConnectNumOfDefinedInterfaces,
) -> Result<i32, Failure> {
    Ok(count(listed(every(&context).await?, Some(false)).len()))
}

pub(super) async fn inactive_names(
    context: Arc<Context>,
    call: wire::ConnectListDefinedInterfaces,
) -> Result<List<String, OBJECTS_MAX>, Failure> {
    let found = listed(every(&context).await?, Some(false));
    Ok(names(&found, call.maxnames))
}

pub(super) async fn by_name(
    context: Arc<Context>,
    call: wire::InterfaceLookupByName,
) -> Result<Interface, Failure> {
    let all = every(&context).await?;
    let found = all.iter().find(|interface| interface.name == call.name);
    found.map(handle).ok_or_else(|| absent(&call.name))
}

pub(super) async fn by_mac(
    context: Arc<Context>,
    call: wire::InterfaceLookupByMacString,
) -> Result<Interface, Failure> {
    let all = every(&context).await?;
    let mut found = all
        .iter()
        .filter(|interface| link_address(interface).eq_ignore_ascii_case(&call.mac));
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(handle(only)),
        (None, _) => {
            let why = format!("couldn't find interface with MAC address '{}'", call.mac);
            Err(Failure::not_found(Code::NoInterface, why))
        }
        (Some(_), Some(_)) => {
            let why = format!("the MAC address '{}' matches multiple interfaces", call.mac);
            Err(Failure::of(
                Origin::Interface,
                Code::MultipleInterfaces,
                why,
            ))
        }
    }
}

pub(super) async fn xml_desc(
    context: Arc<Context>,
    call: wire::InterfaceGetXmlDesc,
) -> Result<String, Failure> {
    // What is defined is what is there.
    const INACTIVE: u32 = 1;
    check_flags(call.flags, INACTIVE, "virInterfaceGetXMLDesc")?;
    let all = every(&context).await?;
    let name = &call.interface.name;
    let found = all.iter().find(|interface| interface.name == *name);
    let found = found.ok_or_else(|| absent(name))?;
    Ok(format_interface(found, &all))
}

pub(super) async fn is_active(
    context: Arc<Context>,
    call: wire::InterfaceIsActive,
) -> Result<bool, Failure> {
    let all = every(&context).await?;
    let name = &call.interface.name;
    let found = all.iter().find(|interface| interface.name == *name);
    found.map(is_up).ok_or_else(|| absent(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, part_of: Option<&str>) -> HostInterface {
        HostInterface {
            name: name.to_owned(),
            address: vec![0x52, 0x54, 0, 0, 0, 1],
            mtu: 1500,
            state: LinkState::Up,
            speed: None,
            kind: HostInterfaceKind::Ethernet,
            tap: false,
            part_of: part_of.map(str::to_owned),
            addresses: Vec::new(),
            routers: Vec::new(),
            on_boot: None,
        }
    }

    #[test]
    fn lists_leave_out_guests_and_ports_of_bridges() {
        let mut bridge = interface("br0", None);
        bridge.kind = HostInterfaceKind::Bridge {
            stp: false,
            delay: 0,
        };
        let mut bond = interface("bond0", None);
        bond.kind = HostInterfaceKind::Bond {
            mode: 1,
            monitor: None,
        };
        let mut tap = interface("vnet0", None);
        tap.tap = true;
        let mut down = interface("eth2", None);
        down.state = LinkState::Unknown;
        let all = vec![
            bond,
            bridge,
            interface("eth0", Some("br0")),
            interface("eth1", Some("bond0")),
            down,
            tap,
        ];
        let names = |active| {
            let listed = listed(all.clone(), active);
            listed.into_iter().map(|one| one.name).collect::<Vec<_>>()
        };
        assert_eq!(names(None), ["bond0", "br0", "eth1", "eth2"]);
        assert_eq!(names(Some(true)), ["bond0", "br0", "eth1"]);
        assert_eq!(names(Some(false)), ["eth2"]);
    }
}
