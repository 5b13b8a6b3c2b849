//! Virtual networks of a daemon that dies: the next one keeps its word. What is on the host only looks like it is
//! there, as the machines of that driver do.

use anyhow::{Result, ensure};
use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{
    NetworkDefine, NetworkDefinitionGet, NetworkFilter, NetworkList, NetworkRef, NetworkStart,
    NetworkStop, NetworkUndefine, NetworkUpdate,
};
use reeve_ipc::api::network::NetworkSummary;
use reeve_ipc::model::{EditCommand, Network, NetworkEdit, NetworkPart, NetworkUuid, PortGroup};
use reeve_tests::daemon::Daemon;

fn lan() -> NetworkRef {
    let uuid = NetworkUuid(uuid::Uuid::from_u128(7));
    NetworkRef::Uuid(uuid)
}

fn define(connection: &mut Connection) -> Result<()> {
    let uuid = NetworkUuid(uuid::Uuid::from_u128(7));
    let network = Box::new(Network::new("lan".parse()?, uuid));
    let only_new = false;
    connection.call(NetworkDefine { network, only_new })?;
    Ok(())
}

fn update(connection: &mut Connection) -> Result<()> {
    let group = PortGroup {
        name: "gold".to_owned(),
        default: true,
        inbound: None,
        outbound: None,
        vlan: None,
        trust_guest: None,
        isolated: None,
    };
    connection.call(NetworkUpdate {
        network: lan(),
        edit: Box::new(NetworkEdit {
            command: EditCommand::AddLast,
            part: NetworkPart::PortGroup(group),
        }),
        live: true,
        persistent: true,
    })?;
    Ok(())
}

fn groups(connection: &mut Connection, persistent: bool) -> Result<usize> {
    let network = connection.call(NetworkDefinitionGet {
        network: lan(),
        persistent,
    })?;
    Ok(network.port_groups.len())
}

/// How far it came, in steps that were answered.
fn live(connection: &mut Connection) -> usize {
    let mut steps = 0;
    let mut go_on = || -> Result<()> {
        define(connection)?;
        steps = 1;
        connection.call(NetworkStart { network: lan() })?;
        steps = 2;
        update(connection)?;
        steps = 3;
        connection.call(NetworkStop { network: lan() })?;
        steps = 4;
        connection.call(NetworkUndefine { network: lan() })?;
        steps = 5;
        Ok(())
    };
    let _ = go_on();
    steps
}

#[test]
fn a_network_is_as_it_was_answered_wherever_the_daemon_dies() -> Result<()> {
    let points = reeved::crash::names().filter(|name| name.starts_with("network-"));
    for point in points {
        let mut daemon = Daemon::prepare()?;
        daemon.argument("--driver=test");
        daemon.set("REEVE_CRASH", &point);
        daemon.spawn()?;
        let steps = live(&mut daemon.connect()?);
        ensure!(steps < 5, "{point}: nothing comes to it");
        daemon.wait_for_end()?;
        daemon.set("REEVE_CRASH", "");
        daemon.spawn()?;
        let mut connection = daemon.connect()?;
        let page = connection.call(NetworkList {
            after: None,
            filter: NetworkFilter::default(),
        })?;
        let there = page.networks.first();
        let is = |wanted: fn(&NetworkSummary) -> bool| there.is_some_and(wanted);
        // What was answered holds; what was not is done or not.
        match steps {
            0 => ensure!(
                there.is_none_or(|it| it.persistent && !it.active),
                "{point}"
            ),
            1 => ensure!(is(|it| it.persistent), "{point}"),
            2 => ensure!(is(|it| it.persistent && it.active), "{point}"),
            3 => ensure!(is(|it| it.persistent), "{point}"),
            _ => ensure!(there.is_none_or(|it| !it.active), "{point}"),
        }
        if steps >= 3 && there.is_some() {
            ensure!(groups(&mut connection, true)? == 1, "{point}");
        }
        let noted = std::fs::read_dir(daemon.run().join("networks"))?.count();
        let active = there.is_some_and(|it| it.active);
        ensure!(noted == usize::from(active), "{point}: {noted} statuses");
        // And it goes on from there.
        if active {
            connection.call(NetworkStop { network: lan() })?;
        }
        if there.is_some() {
            connection.call(NetworkUndefine { network: lan() })?;
        }
        ensure!(live(&mut connection) == 5, "{point}");
        daemon.terminate()?;
    }
    Ok(())
}
