//! Guests on a bridge of Open vSwitch, of a real `reeved` by a real `virsh`: Debian's switch with its datapath in user
//! space, in a network namespace of the test's own and with its sockets in a directory of the test's own. That tags
//! keep guests apart is tried with the taps themselves (`reeved`, `host::open_vswitch`).

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reeve_tests::daemon::{Daemon, signal};
use reeve_tests::namespace::NetNamespace;
use reeve_tests::open_vswitch::OpenVswitch;
use reeve_tests::virsh::{Host, REAL};
use reeve_tests::world::{PATIENCE, guest};
use rustix::process::Signal;

/// A switch with the bridge `ovsbr`, and a daemon beside it.
struct World {
    host: Host,
    switch: OpenVswitch,
    namespace: NetNamespace,
}

fn until(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        ensure!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

impl World {
    fn start(letter: char) -> Result<Self> {
        let namespace = NetNamespace::new(letter)?;
        let switch = OpenVswitch::start(&namespace)?;
        switch.control("add-br ovsbr -- set bridge ovsbr datapath_type=netdev")?;
        let mut daemon = Daemon::prepare()?;
        let socket = switch.socket();
        daemon.configure(&format!(
            "libvirt = true\nopen_vswitch = \"{}\"\n",
            socket.display()
        ))?;
        daemon.in_namespace(&namespace);
        daemon.spawn()?;
        Ok(Self {
            host: Host::of(daemon, REAL),
            switch,
            namespace,
        })
    }

    fn has_ports(&self, ports: &[&str]) -> Result<()> {
        let wanted = ports.join("\n");
        until(&format!("the ports are {ports:?}"), || {
            Ok(self.switch.control("list-ports ovsbr")? == wanted)
        })
    }
}

fn interface(mac: u8, rest: &str) -> String {
    format!(
        "<interface type='bridge'><mac address='52:54:00:00:00:0{mac}'/><source bridge='ovsbr'/>\
         <model type='virtio'/>{rest}</interface>"
    )
}

const SWITCH: &str = "<virtualport type='openvswitch'/>";

#[test]
fn an_interface_is_a_port_with_its_tags_for_as_long_as_it_is_there() -> Result<()> {
    let world = World::start('o')?;
    let host = &world.host;
    let rest = "<virtualport type='openvswitch'><parameters \
                interfaceid='09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f' profileid='menial'/></virtualport>\
                <vlan trunk='yes'><tag id='42' nativeMode='untagged'/><tag id='47'/></vlan>";
    let file = host.file("web.xml", &guest("web", &interface(1, rest)))?;
    host.good(&["define", &file])?;
    host.good(&["start", "web"])?;
    world.has_ports(&["vnet0"])?;
    let ids = world.switch.control("get Interface vnet0 external_ids")?;
    let uuid = host.good(&["domuuid", "web"])?;
    for part in [
        "attached-mac=\"52:54:00:00:00:01\"",
        "iface-id=\"09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f\"",
        "iface-status=active",
        "port-profile=menial",
        &format!("vm-id=\"{uuid}\""),
    ] {
        ensure!(ids.contains(part), "{part}: {ids}");
    }
    let set = world
        .switch
        .control("get Port vnet0 tag trunks vlan_mode")?;
    ensure!(
        set.split_whitespace().collect::<Vec<_>>() == ["42", "[42,", "47]", "native-untagged"],
        "{set}"
    );
    // What is shown is taken again, and is the same.
    let shown = host.good(&["dumpxml", "web", "--inactive"])?;
    for part in [
        "<vlan trunk='yes'>",
        "<tag id='42' nativeMode='untagged'/>",
        "<virtualport type='openvswitch'>",
        "<parameters interfaceid='09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f' profileid='menial'/>",
    ] {
        ensure!(shown.contains(part), "{part}: {shown}");
    }
    let again = host.file("again.xml", &shown)?;
    host.good(&["define", &again])?;
    ensure!(host.good(&["dumpxml", "web", "--inactive"])? == shown);

    // Its tags are others while it runs, and in what is kept.
    let other = interface(
        1,
        "<virtualport type='openvswitch'><parameters profileid='menial'/></virtualport><vlan><tag id='9'/></vlan>",
    );
    let other = host.file("other.xml", &other)?;
    host.good(&["update-device", "web", &other, "--live", "--config"])?;
    let set = world
        .switch
        .control("get Port vnet0 tag trunks vlan_mode")?;
    ensure!(
        set.split_whitespace().collect::<Vec<_>>() == ["9", "[]", "[]"],
        "{set}"
    );
    for arguments in [&["dumpxml", "web"][..], &["dumpxml", "web", "--inactive"]] {
        let shown = host.good(arguments)?;
        ensure!(
            shown.contains("<tag id='9'/>") && !shown.contains("id='42'"),
            "{shown}"
        );
    }

    // Another comes and goes while it runs.
    let more = interface(2, &format!("{SWITCH}<vlan><tag id='7'/></vlan>"));
    let more = host.file("more.xml", &more)?;
    host.good(&["attach-device", "web", &more, "--live"])?;
    world.has_ports(&["vnet0", "vnet1"])?;
    ensure!(world.switch.control("get Port vnet1 tag")? == "7");
    host.good(&["domif-setlink", "web", "52:54:00:00:00:02", "down"])?;
    host.good(&["destroy", "web"])?;
    world.has_ports(&[])
}

#[test]
fn what_is_left_is_removed_by_the_next_supervisor() -> Result<()> {
    let mut world = World::start('p')?;
    let tagged = format!("{SWITCH}<vlan><tag id='7'/></vlan>");
    let file = world
        .host
        .file("web.xml", &guest("web", &interface(1, &tagged)))?;
    world.host.good(&["create", &file])?;
    world.has_ports(&["vnet0"])?;
    world.host.daemon.kill()?;
    // As where it died before it had told the switch.
    world.switch.control("set Port vnet0 tag=8")?;
    world.host.daemon.spawn()?;
    // A guest that lives has it still, and with the tag that is recorded.
    world.has_ports(&["vnet0"])?;
    until("its tag is that of its definition", || {
        Ok(world.switch.control("get Port vnet0 tag")? == "7")
    })?;
    ensure!(world.host.good(&["domstate", "web"])? == "running");
    let workers = world.host.daemon.workers();
    world.host.daemon.kill()?;
    // Its tap goes, with nobody there to remove the port.
    for worker in workers {
        signal(worker, Signal::KILL)?;
    }
    until("its tap is gone", || {
        Ok(!world.namespace.ip(&["link"])?.contains("vnet0"))
    })?;
    world.has_ports(&["vnet0"])?;
    world.host.daemon.spawn()?;
    world.has_ports(&[])
}

#[test]
fn a_network_on_a_switch_gives_its_ports_tags() -> Result<()> {
    let world = World::start('q')?;
    let host = &world.host;
    let network = "<network><name>lan</name><forward mode='bridge'/><bridge name='ovsbr'/>\
                   <virtualport type='openvswitch'/><vlan><tag id='42'/></vlan>\
                   <portgroup name='gold'><vlan trunk='yes'><tag id='5'/><tag id='6'/></vlan></portgroup></network>";
    let file = host.file("lan.xml", network)?;
    host.good(&["net-create", &file])?;
    let on = |mac: u8, group: &str| {
        format!(
            "<interface type='network'><mac address='52:54:00:00:00:0{mac}'/><source network='lan'{group}/>\
             <model type='virtio'/></interface>"
        )
    };
    // One says more of its port itself, as of one of a network that does not say that its bridge is a switch's.
    let plain =
        "<network><name>plain</name><forward mode='bridge'/><bridge name='ovsbr'/></network>";
    let file = host.file("plain.xml", plain)?;
    host.good(&["net-create", &file])?;
    let own = "<virtualport type='openvswitch'><parameters interfaceid='09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f' \
               profileid='menial'/></virtualport><vlan><tag id='9'/></vlan>";
    let third = on(3, "")
        .replace("'lan'", "'plain'")
        .replace("<model", &format!("{own}<model"));
    let both = on(1, "") + &on(2, " portgroup='gold'") + &third;
    let file = host.file("web.xml", &guest("web", &both))?;
    host.good(&["create", &file])?;
    world.has_ports(&["vnet0", "vnet1", "vnet2"])?;
    ensure!(world.switch.control("get Port vnet2 tag")? == "9");
    let ids = world.switch.control("get Interface vnet2 external_ids")?;
    for part in [
        "09b11c53-8b5c-4eeb-8f00-d84eaa0aaa4f",
        "port-profile=menial",
    ] {
        ensure!(ids.contains(part), "{part}: {ids}");
    }
    let shown = host.good(&["dumpxml", "web"])?;
    ensure!(
        shown.contains("profileid='menial'") && shown.contains("<tag id='9'/>"),
        "{shown}"
    );
    ensure!(world.switch.control("get Port vnet0 tag")? == "42");
    ensure!(world.switch.control("get Port vnet1 trunks")? == "[5, 6]");
    let ports = host.good(&["net-port-list", "lan"])?;
    ensure!(ports.split_whitespace().count() == 2, "{ports}");
    host.good(&["net-destroy", "plain"])?;
    host.good(&["destroy", "web"])?;
    world.has_ports(&[])
}

#[test]
fn what_cannot_be_is_said_and_a_database_that_hangs_is_not_waited_for_for_ever() -> Result<()> {
    let world = World::start('r')?;
    let host = &world.host;
    let refused = |interface: &str, part: &str| -> Result<()> {
        let file = host.file("web.xml", &guest("web", interface))?;
        let said = host.refused(&["create", &file])?;
        ensure!(said.contains(part), "{said}");
        Ok(())
    };
    let nowhere = interface(1, SWITCH).replace("ovsbr", "nowhere");
    refused(&nowhere, "there is no bridge 'nowhere' of Open vSwitch")?;
    let tags = "<vlan><tag id='7'/></vlan>";
    refused(&interface(1, tags), "put on frames by Open vSwitch")?;
    signal(world.switch.database(), Signal::STOP)?;
    refused(
        &interface(1, SWITCH),
        "its database has not answered in 5 s",
    )?;
    signal(world.switch.database(), Signal::CONT)?;
    let file = host.file("web.xml", &guest("web", &interface(1, SWITCH)))?;
    host.good(&["create", &file])?;
    host.good(&["destroy", "web"])?;
    world.has_ports(&[])?;
    signal(world.switch.database(), Signal::KILL)?;
    until("its database is gone", || {
        let output = host.virsh(&["create", &file]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        Ok(said.contains("is openvswitch-switch running?"))
    })
}
