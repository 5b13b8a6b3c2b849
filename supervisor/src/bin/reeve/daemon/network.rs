//! Virtual networks.

use std::os::fd::AsFd as _;
use std::time::{SystemTime, UNIX_EPOCH};

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{
    NetworkAutostartSet, NetworkCreate, NetworkDefine, NetworkDefinitionGet, NetworkFilter,
    NetworkGet, NetworkLeasesGet, NetworkList, NetworkPortList, NetworkRef, NetworkStart,
    NetworkStop, NetworkUndefine, NetworkUpdate,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::network::{NetworkDetails, NetworkForward, NetworkSummary, PortDetails};
use reeve_ipc::leases::{self, Lease};
use reeve_ipc::model::{Network, NetworkEdit, PortLink};
use reeved::logging::printable;
use reeved::store::{NetworkFile, PartFile};
use serde_json::{Value, json};

use super::file;
use super::network_args::{
    NetworkCommand, NetworkExportArgs, NetworkFileArgs, NetworkListArgs, NetworkUpdateArgs,
};
use super::table::{Table, fields};
use super::{CommandError, Output, json as print_json, print};
use crate::args::new_uuid;

pub(super) fn network(
    connection: &mut Connection,
    out: Output,
    command: NetworkCommand,
) -> Result<(), CommandError> {
    use NetworkCommand as C;
    let network = match command {
        C::List(args) => return list(connection, out, &args),
        C::Show(args) => {
            let details = connection.call(NetworkGet {
                network: args.network,
            })?;
            return out.value(&details_json(&details), || details_text(&details));
        }
        C::Define(args) => {
            let network = Box::new(read(connection, &args)?);
            let only_new = args.new;
            let summary = connection.call(NetworkDefine { network, only_new })?;
            return told(out, &summary);
        }
        C::Create(args) => {
            let network = Box::new(read(connection, &args)?);
            let summary = connection.call(NetworkCreate { network })?;
            return told(out, &summary);
        }
        C::Export(args) => return export(connection, out, &args),
        C::Start(args) => {
            let summary = connection.call(NetworkStart {
                network: args.network,
            })?;
            return told(out, &summary);
        }
        C::Stop(args) => {
            let network = args.network;
            connection.call(NetworkStop {
                network: network.clone(),
            })?;
            network
        }
        C::Undefine(args) => {
            let network = args.network;
            connection.call(NetworkUndefine {
                network: network.clone(),
            })?;
            network
        }
        C::Autostart(args) => {
            let network = args.network;
            connection.call(NetworkAutostartSet {
                network: network.clone(),
                autostart: !args.off,
            })?;
            network
        }
        C::Update(args) => {
            update(connection, &args)?;
            args.network
        }
        C::Ports(args) => return ports(connection, out, &args.network),
        C::Leases(args) => return leases(connection, out, args.network),
    };
    // People are told of failures only.
    match out.json {
        true => print_json(&done(&network)),
        false => Ok(()),
    }
}

fn told(out: Output, summary: &NetworkSummary) -> Result<(), CommandError> {
    match out.json {
        true => {
            let mut value = summary_json(summary);
            value["result"] = json!("ok");
            print_json(&value)
        }
        false => Ok(()),
    }
}

/// What it was called on the command line, and that it was done.
fn done(network: &NetworkRef) -> Value {
    match network {
        NetworkRef::Name(name) => json!({ "name": name, "result": "ok" }),
        NetworkRef::Uuid(uuid) => json!({ "uuid": uuid, "result": "ok" }),
        NetworkRef::Bridge(bridge) => json!({ "bridge": bridge, "result": "ok" }),
    }
}

/// The definition that a file says; one without a UUID keeps that of its name, or gets a new one.
fn read(connection: &mut Connection, args: &NetworkFileArgs) -> Result<Network, CommandError> {
    let path = args.file.display();
    let file: NetworkFile = file::read_network(&args.file)?;
    let drawn = new_uuid().map_err(CommandError::own("cannot make a UUID"))?;
    let (says_uuid, wrong) = (file.has_uuid(), |error| {
        CommandError::Own(format!("{path}: {error}"))
    });
    let mut network = file.into_network(drawn).map_err(wrong)?;
    if !says_uuid {
        let known = connection.call(NetworkGet {
            network: NetworkRef::Name(network.name.clone()),
        });
        match known {
            Ok(details) => network.uuid = details.summary.uuid,
            Err(error)
                if error
                    .refused()
                    .is_some_and(|error| error.code == ApiErrorCode::NoNetwork) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(network)
}

fn update(connection: &mut Connection, args: &NetworkUpdateArgs) -> Result<(), CommandError> {
    let path = args.file.display();
    let file: PartFile = file::read_network(&args.file)?;
    let part = file
        .into_part()
        .map_err(|error| CommandError::Own(format!("{path}: {error}")))?;
    let (live, persistent) = match (args.live, args.persistent) {
        (false, false) => {
            let network = args.network.clone();
            let summary = connection.call(NetworkGet { network })?.summary;
            (summary.active, summary.persistent)
        }
        said => said,
    };
    let command = args.command;
    connection.call(NetworkUpdate {
        network: args.network.clone(),
        edit: Box::new(NetworkEdit { command, part }),
        live,
        persistent,
    })?;
    Ok(())
}

fn export(
    connection: &mut Connection,
    out: Output,
    args: &NetworkExportArgs,
) -> Result<(), CommandError> {
    let network = connection.call(NetworkDefinitionGet {
        network: args.network.clone(),
        persistent: args.kept,
    })?;
    let file = NetworkFile::from(&*network);
    match out.json {
        true => print_json(&file),
        false => {
            print(&toml::to_string(&file).map_err(|error| {
                CommandError::Own(format!("cannot write the definition: {error}"))
            })?)
        }
    }
}

fn list(
    connection: &mut Connection,
    out: Output,
    args: &NetworkListArgs,
) -> Result<(), CommandError> {
    let filter = NetworkFilter {
        active: (!args.all).then_some(true),
        ..NetworkFilter::default()
    };
    let mut networks: Vec<NetworkSummary> = Vec::new();
    loop {
        let after = networks.last().map(|last| last.name.clone());
        let page = connection.call(NetworkList { after, filter })?;
        let more = page.more && !page.networks.is_empty();
        networks.extend(page.networks);
        if !more {
            break;
        }
    }
    if out.json {
        let values: Vec<Value> = networks.iter().map(summary_json).collect();
        return print_json(&values);
    }
    if args.quiet {
        let names = networks
            .iter()
            .map(|network| printable(network.name.as_str()) + "\n");
        return print(&names.collect::<String>());
    }
    let mut table = Table::new(&[
        "NAME",
        "STATE",
        "AUTOSTART",
        "PERSISTENT",
        "FORWARD",
        "BRIDGE",
        "PORTS",
    ]);
    for network in &networks {
        let bridge = network.bridge.as_ref();
        table.row(vec![
            network.name.to_string(),
            state(network).to_owned(),
            yes(network.autostart),
            yes(network.persistent),
            forward(network.forward).to_owned(),
            bridge.map_or_else(|| "-".to_owned(), ToString::to_string),
            network.ports.to_string(),
        ]);
    }
    print(&table.render())
}

fn ports(
    connection: &mut Connection,
    out: Output,
    network: &NetworkRef,
) -> Result<(), CommandError> {
    let mut ports: Vec<PortDetails> = Vec::new();
    loop {
        let after = ports.last().map(|last| last.port.uuid);
        let network = network.clone();
        let page = connection.call(NetworkPortList { network, after })?;
        let more = page.more && !page.ports.is_empty();
        ports.extend(page.ports);
        if !more {
            break;
        }
    }
    if out.json {
        let values: Vec<Value> = ports.iter().map(port_json).collect();
        return print_json(&values);
    }
    let mut table = Table::new(&["DOMAIN", "MAC", "INTERFACE", "ON", "GROUP"]);
    for port in &ports {
        let interface = port.interface.as_ref();
        table.row(vec![
            port.name.to_string(),
            port.mac.to_string(),
            interface.map_or_else(|| "-".to_owned(), ToString::to_string),
            link(&port.port.link),
            printable(port.port_group.as_deref().unwrap_or("-")),
        ]);
    }
    print(&table.render())
}

fn leases(
    connection: &mut Connection,
    out: Output,
    network: NetworkRef,
) -> Result<(), CommandError> {
    let (lends, fds) = connection.call_with_fds(NetworkLeasesGet { network })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let mut lent: Vec<Lease> = Vec::new();
    if lends {
        let none = || CommandError::Own("the daemon handed over no leases".to_owned());
        let book = fds.first().ok_or_else(none)?;
        lent = leases::read(book.as_fd(), now)
            .map_err(|error| CommandError::Own(error.to_string()))?;
    }
    if out.json {
        let values: Vec<Value> = lent.iter().map(lease_json).collect();
        return print_json(&values);
    }
    let mut table = Table::new(&["EXPIRES", "MAC", "ADDRESS", "NAME"]);
    for lease in &lent {
        let mac = lease.mac.as_ref();
        table.row(vec![
            expires(lease.expiry_unix_s, now),
            mac.map_or_else(|| "-".to_owned(), ToString::to_string),
            lease.address.to_string(),
            printable(lease.hostname.as_deref().unwrap_or("-")),
        ]);
    }
    print(&table.render())
}

/// When a lease ends, from now on.
fn expires(at: Option<u64>, now: u64) -> String {
    let Some(at) = at else {
        return "never".to_owned();
    };
    let seconds = at.saturating_sub(now);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("in {hours}:{minutes:02}:{:02}", seconds % 60)
}

fn lease_json(lease: &Lease) -> Value {
    json!({
        "expiry_unix_s": lease.expiry_unix_s,
        "mac": lease.mac.map(|mac| mac.to_string()),
        "address": lease.address,
        "name": lease.hostname,
        "client_id": lease.client_id,
        "iaid": lease.iaid,
    })
}

fn link(link: &PortLink) -> String {
    match link {
        PortLink::Bridge(bridge) => bridge.to_string(),
        PortLink::Direct { device, mode } => format!("{device} ({mode})"),
        PortLink::OpenVswitch(port) => format!("{} (Open vSwitch)", port.bridge),
    }
}

fn port_json(port: &PortDetails) -> Value {
    let (device, mode) = match &port.port.link {
        PortLink::Bridge(bridge) => (bridge, None),
        PortLink::Direct { device, mode } => (device, Some(mode.word())),
        PortLink::OpenVswitch(port) => (&port.bridge, Some("open-vswitch")),
    };
    json!({
        "uuid": port.port.uuid,
        "domain": port.name,
        "domain_uuid": port.domain,
        "mac": port.mac.to_string(),
        "interface": port.interface,
        "on": device,
        "mode": mode,
        "port_group": port.port_group,
        "isolated": port.port.isolated,
    })
}

const fn state(network: &NetworkSummary) -> &'static str {
    match network.active {
        true => "active",
        false => "inactive",
    }
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

const fn forward(forward: Option<NetworkForward>) -> &'static str {
    match forward {
        None => "isolated",
        Some(NetworkForward::Nat) => "nat",
        Some(NetworkForward::Route) => "route",
        Some(NetworkForward::Open) => "open",
        Some(NetworkForward::Bridge) => "bridge",
        Some(NetworkForward::Direct(_)) => "direct",
        Some(NetworkForward::HostDevices) => "hostdev",
    }
}

/// A network in a list, with keys that stay.
fn summary_json(network: &NetworkSummary) -> Value {
    json!({
        "name": network.name,
        "uuid": network.uuid,
        "active": network.active,
        "persistent": network.persistent,
        "autostart": network.autostart,
        "forward": forward(network.forward),
        "bridge": network.bridge,
        "ports": network.ports,
    })
}

fn details_json(details: &NetworkDetails) -> Value {
    let mut value = summary_json(&details.summary);
    value["redefined"] = json!(details.changes);
    value["fault"] = json!(details.fault);
    value
}

fn details_text(details: &NetworkDetails) -> String {
    let summary = &details.summary;
    let mut lines = vec![
        ("Name", summary.name.to_string()),
        ("UUID", summary.uuid.to_string()),
        ("State", state(summary).to_owned()),
        ("Persistent", yes(summary.persistent)),
        ("Autostart", yes(summary.autostart)),
        ("Forward", forward(summary.forward).to_owned()),
    ];
    if let Some(bridge) = &summary.bridge {
        lines.push(("Bridge", bridge.to_string()));
    }
    lines.push(("Ports", summary.ports.to_string()));
    if details.changes {
        lines.push(("Redefined", "from its next start on".to_owned()));
    }
    if let Some(fault) = &details.fault {
        lines.push(("Fault", printable(fault)));
    }
    fields(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_some_time_from_now_or_never() {
        assert_eq!(expires(None, 100), "never");
        assert_eq!(expires(Some(100 + 3600 + 61), 100), "in 1:01:01");
        assert_eq!(expires(Some(99), 100), "in 0:00:00");
    }

    #[test]
    fn a_lease_in_json_says_what_is_known_of_it() {
        let lent = leases::parse(b"0 52:54:00:12:34:56 10.0.0.2 * *\n", 1);
        let value = lease_json(&lent[0]);
        assert_eq!(value["mac"], "52:54:00:12:34:56");
        assert_eq!(value["address"], "10.0.0.2");
        assert!(value["name"].is_null() && value["expiry_unix_s"].is_null());
    }
}
