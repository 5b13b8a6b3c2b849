//! Virtual networks of a real `reeved` by a real `virsh`: what an administrator types, what of it is on the host, and
//! that all of it is gone afterwards. Each test has network namespaces of its own.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_tests::daemon::signal;
use reeve_tests::namespace::NetNamespace;
use reeve_tests::virsh::{Host, REAL};
use reeve_tests::world::{PATIENCE, World, guest};
use rustix::process::Signal;

/// The servers of names and addresses that run in its namespace.
fn servers(world: &World) -> Result<Vec<u32>> {
    let own = fs::read_link(format!(
        "/proc/{}/ns/net",
        world.host.daemon.pid().context("no daemon")?
    ))?;
    let mut servers = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let inside = fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| ns == own);
        if name.trim() == "dnsmasq" && inside {
            servers.push(pid);
        }
    }
    Ok(servers)
}

/// A network that translates.
const NAT: &str = "<network>\
    <name>blue</name>\
    <forward mode='nat'/>\
    <bridge name='virbr7' stp='on' delay='0'/>\
    <domain name='blue.test'/>\
    <ip address='10.71.0.1' netmask='255.255.255.0'>\
      <dhcp>\
        <range start='10.71.0.2' end='10.71.0.100'/>\
        <host mac='52:54:00:00:00:05' name='five' ip='10.71.0.5'/>\
      </dhcp>\
    </ip>\
    <ip family='ipv6' address='2001:db8:71::1' prefix='64'/>\
  </network>";

/// The interface of a guest of the network `blue`.
const INTERFACE: &str = "<interface type='network'>\
    <mac address='52:54:00:00:00:05'/>\
    <source network='blue'/>\
    <model type='virtio'/>\
  </interface>";

#[test]
fn a_network_lives_as_its_administrator_types_and_leaves_no_trace() -> Result<()> {
    let world = World::start('l', "")?;
    let host = &world.host;
    let before = world.namespace.state()?;
    let events = host.listen(&[
        "net-event",
        "--event",
        "lifecycle",
        "--loop",
        "--timeout",
        "60",
    ])?;

    let file = host.file("blue.xml", NAT)?;
    host.good(&["net-define", &file])?;
    let kept = host.good(&["net-dumpxml", "blue"])?;
    let again = host.file("again.xml", &kept)?;
    host.good(&["net-define", &again])?;
    ensure!(host.good(&["net-dumpxml", "blue"])? == kept, "{kept}");

    host.good(&["net-start", "blue"])?;
    let info = host.good(&["net-info", "blue"])?;
    for part in ["Active:", "yes", "virbr7"] {
        ensure!(info.contains(part), "{part}: {info}");
    }
    let list = host.good(&["net-list", "--all"])?;
    ensure!(list.contains("blue") && list.contains("active"), "{list}");
    let addresses = world.namespace.ip(&["-o", "addr", "show", "virbr7"])?;
    for part in ["10.71.0.1/24", "2001:db8:71::1/64"] {
        ensure!(addresses.contains(part), "{part}: {addresses}");
    }
    ensure!(servers(&world)?.len() == 1, "{:?}", servers(&world)?);
    let live = host.good(&["net-dumpxml", "blue"])?;
    ensure!(live.contains("virbr7"), "{live}");

    let added = "<host mac='52:54:00:00:00:06' name='six' ip='10.71.0.6'/>";
    host.good(&[
        "net-update",
        "blue",
        "add",
        "ip-dhcp-host",
        added,
        "--live",
        "--config",
    ])?;
    for arguments in [
        &["net-dumpxml", "blue"][..],
        &["net-dumpxml", "--inactive", "blue"],
    ] {
        let document = host.good(arguments)?;
        ensure!(document.contains("52:54:00:00:00:06"), "{document}");
    }
    let refused = host.refused(&["net-update", "blue", "add", "ip-dhcp-host", added, "--live"])?;
    ensure!(refused.contains("already"), "{refused}");

    host.good(&["net-autostart", "blue"])?;
    ensure!(host.good(&["net-dhcp-leases", "blue"])?.lines().count() <= 2);
    host.good(&["net-destroy", "blue"])?;
    host.good(&["net-undefine", "blue"])?;
    ensure!(!host.good(&["net-list", "--all"])?.contains("blue"));
    world.until("the servers end", |world| Ok(servers(world)?.is_empty()))?;
    let after = world.namespace.state()?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");

    let mut seen = Vec::new();
    while let Some(line) = events.next(Duration::from_secs(10)) {
        seen.push(line);
        if seen.iter().any(|line| line.contains("Undefined")) {
            break;
        }
    }
    let words: Vec<&str> = ["Defined", "Started", "Stopped", "Undefined"]
        .into_iter()
        .filter(|word| seen.iter().any(|line| line.contains(word)))
        .collect();
    ensure!(words.len() == 4, "{seen:?}");
    Ok(())
}

#[test]
fn guests_are_connected_and_stay_so_over_a_network_that_is_started_again() -> Result<()> {
    let mut world = World::start('g', "")?;
    let bridge_of = |world: &World| -> Result<String> {
        world
            .namespace
            .ip(&["-o", "link", "show", "master", "virbr7"])
    };
    let domain = world.host.file("web.xml", &guest("web", INTERFACE))?;
    world.host.good(&["define", &domain])?;
    let refused = world.host.refused(&["start", "web"])?;
    ensure!(refused.contains("blue"), "{refused}");
    let file = world.host.file("blue.xml", NAT)?;
    world.host.good(&["net-define", &file])?;
    let refused = world.host.refused(&["start", "web"])?;
    ensure!(refused.contains("not active"), "{refused}");

    world.host.good(&["net-start", "blue"])?;
    world.host.good(&["start", "web"])?;
    ensure!(
        bridge_of(&world)?.contains("vnet0"),
        "{}",
        bridge_of(&world)?
    );
    let interfaces = world.host.good(&["domiflist", "web"])?;
    for part in ["vnet0", "network", "blue", "52:54:00:00:00:05"] {
        ensure!(interfaces.contains(part), "{part}: {interfaces}");
    }
    let live = world.host.good(&["dumpxml", "web"])?;
    for part in ["portid='", "bridge='virbr7'"] {
        ensure!(live.contains(part), "{part}: {live}");
    }
    let kept = world.host.good(&["dumpxml", "--inactive", "web"])?;
    ensure!(!kept.contains("portid"), "{kept}");
    ensure!(world.host.good(&["net-port-list", "blue"])?.lines().count() >= 1);

    // As an administrator does who has changed its definition.
    world.host.good(&["net-destroy", "blue"])?;
    let tap = world.namespace.ip(&["-o", "link", "show", "vnet0"])?;
    ensure!(
        !tap.contains(",UP"),
        "a guest without its bridge is the host's neighbour: {tap}"
    );
    world.host.good(&["net-start", "blue"])?;
    ensure!(
        bridge_of(&world)?.contains("vnet0"),
        "it is not connected again"
    );
    let tap = world.namespace.ip(&["-o", "link", "show", "vnet0"])?;
    ensure!(tap.contains(",UP"), "{tap}");

    // Nobody notices that the supervisor is another.
    world.host.daemon.kill()?;
    world.host.daemon.spawn()?;
    let list = world.host.good(&["net-list"])?;
    ensure!(list.contains("blue"), "{list}");
    ensure!(
        bridge_of(&world)?.contains("vnet0"),
        "it is not connected any more"
    );
    ensure!(servers(&world)?.len() == 1, "{:?}", servers(&world)?);

    world.host.good(&["destroy", "web"])?;
    world.until("its port goes", |world| {
        Ok(!bridge_of(world)?.contains("vnet0"))
    })?;
    world.host.good(&["net-destroy", "blue"])?;
    Ok(())
}

#[test]
fn what_others_do_to_a_network_is_mended() -> Result<()> {
    let world = World::start('m', "")?;
    let host = &world.host;
    let file = host.file("blue.xml", NAT)?;
    host.good(&["net-create", &file])?;
    let rules = |world: &World| -> Result<String> {
        reeve_tests::tool::output(world.namespace.command("nft").args(["list", "ruleset"]))
    };
    ensure!(rules(&world)?.contains("masquerade"), "{}", rules(&world)?);
    reeve_tests::tool::output(world.namespace.command("nft").args(["flush", "ruleset"]))?;
    world.until("its rules come back", |world| {
        Ok(rules(world)?.contains("masquerade"))
    })?;

    let server = servers(&world)?.pop().context("no server")?;
    signal(server, Signal::KILL)?;
    world.until("its server comes back", |world| {
        Ok(servers(world)?.iter().any(|pid| *pid != server))
    })?;

    let server = servers(&world)?.pop().context("no server")?;
    signal(server, Signal::STOP)?;
    world.until("one that hangs is replaced", |world| {
        let servers = servers(world)?;
        Ok(!servers.is_empty() && !servers.contains(&server))
    })?;

    world.namespace.ip(&["link", "delete", "virbr7"])?;
    world.until("its bridge comes back", |world| {
        let addresses = world.namespace.ip(&["-o", "addr", "show"])?;
        Ok(addresses.contains("virbr7") && addresses.contains("10.71.0.1/24"))
    })?;

    let server = servers(&world)?.pop().context("no server")?;
    signal(server, Signal::STOP)?;
    host.good(&["net-destroy", "blue"])?;
    world.until(
        "one that hangs ends",
        |world| Ok(servers(world)?.is_empty()),
    )?;
    // It was transient.
    ensure!(!host.good(&["net-list", "--all"])?.contains("blue"));
    Ok(())
}

#[test]
fn what_is_taken_already_is_refused_and_nothing_is_left_of_it() -> Result<()> {
    let world = World::start('t', "")?;
    let host = &world.host;
    world
        .namespace
        .ip(&["link", "add", "virbr7", "type", "bridge"])?;
    let file = host.file("blue.xml", NAT)?;
    let before = world.namespace.state()?;
    let refused = host.refused(&["net-create", &file])?;
    ensure!(refused.contains("virbr7"), "{refused}");
    world.namespace.ip(&["link", "del", "virbr7"])?;

    world
        .namespace
        .ip(&["link", "add", "taken", "type", "bridge"])?;
    world
        .namespace
        .ip(&["addr", "add", "10.71.0.200/24", "dev", "taken"])?;
    world.namespace.ip(&["link", "set", "taken", "up"])?;
    let refused = host.refused(&["net-create", &file])?;
    ensure!(
        refused.contains("10.71.0.0/24") && refused.contains("taken"),
        "{refused}"
    );
    world.namespace.ip(&["link", "del", "taken"])?;
    world
        .namespace
        .ip(&["link", "add", "virbr7", "type", "bridge"])?;
    let strip = |state: &str| -> String {
        // A link that is made again has another number.
        state
            .lines()
            .filter(|line| !line.contains("virbr7"))
            .collect()
    };
    ensure!(strip(&world.namespace.state()?) == strip(&before));
    ensure!(servers(&world)?.is_empty());
    Ok(())
}

#[test]
fn the_default_network_is_there_for_a_newcomer_and_stays_away_when_it_is_removed() -> Result<()> {
    let mut world = World::start('d', "default_network = true\n")?;
    let list = world.host.good(&["net-list", "--all"])?;
    ensure!(
        list.contains("default") && list.contains("active"),
        "{list}"
    );
    let document = world.host.good(&["net-dumpxml", "default"])?;
    for part in [
        "mode='nat'",
        "name='virbr0'",
        "192.168.122.1",
        "start='192.168.122.2' end='192.168.122.254'",
    ] {
        ensure!(document.contains(part), "{part}: {document}");
    }
    world.host.good(&["net-destroy", "default"])?;
    world.host.good(&["net-undefine", "default"])?;
    world.host.daemon.kill()?;
    world.host.daemon.spawn()?;
    ensure!(!world.host.good(&["net-list", "--all"])?.contains("default"));
    Ok(())
}

#[test]
fn the_default_network_has_other_addresses_where_the_host_is_a_guest_of_one() -> Result<()> {
    let namespace = NetNamespace::new('n')?;
    namespace.ip(&["link", "add", "eth0", "type", "bridge"])?;
    namespace.ip(&["addr", "add", "192.168.122.57/24", "dev", "eth0"])?;
    namespace.ip(&["link", "set", "eth0", "up"])?;
    namespace.ip(&["route", "add", "192.168.123.0/24", "dev", "eth0"])?;
    let world = World::start_in(namespace, "default_network = true\n")?;
    let document = world.host.good(&["net-dumpxml", "default"])?;
    for part in [
        "192.168.124.1",
        "start='192.168.124.2' end='192.168.124.254'",
    ] {
        ensure!(document.contains(part), "{part}: {document}");
    }
    let list = world.host.good(&["net-list"])?;
    ensure!(list.contains("default"), "it is not active: {list}");
    // It stays what it was, though the first would be free now.
    world.host.good(&["net-destroy", "default"])?;
    world.namespace.ip(&["link", "delete", "eth0"])?;
    world.host.good(&["net-start", "default"])?;
    let document = world.host.good(&["net-dumpxml", "default"])?;
    ensure!(document.contains("192.168.124.1"), "{document}");
    world.host.good(&["net-destroy", "default"])?;
    Ok(())
}

/// The processes of that name.
fn named(name: &str) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir("/proc")? {
        let comm = fs::read_to_string(entry?.path().join("comm")).unwrap_or_default();
        // It puts what it does behind its name.
        count += usize::from(comm.trim().starts_with(name));
    }
    Ok(count)
}

#[test]
fn a_guest_without_any_link_of_the_host_s_has_a_process_that_ends_with_it() -> Result<()> {
    // Where passt finds a route.
    let host = Host::start(REAL)?;
    let before = named("passt")?;
    let document = guest("web", INTERFACE)
        .replace("type='network'", "type='user'")
        .replace("<source network='blue'/>", "");
    let file = host.file("web.xml", &document)?;
    host.good(&["define", &file])?;
    let kept = host.good(&["dumpxml", "--inactive", "web"])?;
    ensure!(kept.contains("<interface type='user'>"), "{kept}");
    host.good(&["start", "web"])?;
    ensure!(named("passt")? > before, "{}", host.daemon.log());
    let mac = "52:54:00:00:00:07";
    let more = host.file(
        "more.xml",
        &format!("<interface type='user'><mac address='{mac}'/><model type='virtio'/></interface>"),
    )?;
    host.good(&["attach-device", "web", &more, "--live"])?;
    let interfaces = host.good(&["domiflist", "web"])?;
    ensure!(interfaces.contains(mac), "{interfaces}");
    host.good(&["destroy", "web"])?;
    let deadline = Instant::now() + PATIENCE;
    while named("passt")? > before {
        ensure!(Instant::now() < deadline, "passt does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn the_command_line_says_what_virsh_says() -> Result<()> {
    let world = World::start('c', "")?;
    let file = world.host.file("blue.xml", NAT)?;
    world.host.good(&["net-create", &file])?;
    let list = world.host.daemon.reeve(&["network", "list"])?;
    ensure!(list.contains("blue") && list.contains("virbr7"), "{list}");
    let shown = world.host.daemon.reeve(&["network", "show", "blue"])?;
    ensure!(
        shown.contains("virbr7") && shown.contains("active"),
        "{shown}"
    );
    let exported = world.host.daemon.reeve(&["network", "export", "blue"])?;
    ensure!(exported.contains("10.71.0.1"), "{exported}");
    world.host.daemon.reeve(&["network", "stop", "blue"])?;
    ensure!(!world.host.good(&["net-list", "--all"])?.contains("blue"));
    Ok(())
}
