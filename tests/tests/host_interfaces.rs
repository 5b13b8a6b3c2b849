//! The host's own interfaces, and what it has learned of guests beside them, by a real `virsh`. Each test has a network
//! namespace of its own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use reeve_tests::virsh::{Host, TEST};
use reeve_tests::world::{World, guest};

/// The interface of a guest on a bridge of the host.
const INTERFACE: &str = "<interface type='bridge'>\
    <mac address='52:54:00:00:00:05'/>\
    <source bridge='br0'/>\
    <model type='virtio'/>\
  </interface>";

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// That libvirt's schema has such a document.
fn is_valid(host: &Host, document: &str) -> Result<()> {
    let file = host.file("interface.xml", document)?;
    let schema = Path::new("/usr/share/libvirt/schemas/interface.rng");
    let mut command = Command::new("xmllint");
    let command = command
        .args(["--nonet", "--noout", "--relaxng"])
        .arg(schema);
    let output = command
        .arg(&file)
        .output()
        .context("xmllint is missing: tests/lab/install has it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}{document}");
    Ok(())
}

#[test]
fn an_address_that_the_host_has_learned_is_told_of_the_interface_that_it_is_of() -> Result<()> {
    let world = World::start('a', "")?;
    let host = &world.host;
    let ip = |arguments: &str| world.namespace.ip(&words(arguments));
    ip("link add br0 type bridge")?;
    ip("link set br0 up")?;
    ip("addr add 10.72.0.1/24 dev br0")?;
    ip("link add br1 type bridge")?;
    ip("link set br1 up")?;
    ip("addr add 10.73.0.1/24 dev br1")?;
    let file = host.file("web.xml", &guest("web", INTERFACE))?;
    host.good(&["create", &file])?;
    let arp = &["domifaddr", "web", "--source", "arp"];
    ensure!(host.good(arp)?.is_empty());

    for neighbour in [
        "10.72.0.5 lladdr 52:54:00:00:00:05 dev br0",
        "10.72.0.6 lladdr 52:54:00:00:00:06 dev br0",
        // The same address on another link is somebody else's.
        "10.73.0.5 lladdr 52:54:00:00:00:05 dev br1",
        "fd00::5 lladdr 52:54:00:00:00:05 dev br0",
    ] {
        ip(&format!("neigh add {neighbour} nud permanent"))?;
    }
    let told = host.good(arp)?;
    ensure!(
        words(&told)
            == [
                "vnet0",
                "52:54:00:00:00:05",
                "ipv4",
                "10.72.0.5/0",
                "-",
                "-",
                "ipv6",
                "fd00::5/0"
            ],
        "{told}"
    );
    // What answers for as many as it likes is not told of without end.
    for number in 0..100 {
        let neighbour = format!("10.72.0.{} lladdr 52:54:00:00:00:05 dev br0", 100 + number);
        ip(&format!("neigh add {neighbour} nud permanent"))?;
    }
    let told = host.good(arp)?;
    ensure!(told.lines().count() == 64, "{told}");
    host.good(&["destroy", "web"])?;
    let refused = host.refused(arp)?;
    ensure!(refused.contains("failed to get domain"), "{refused}");
    Ok(())
}

#[test]
fn interfaces_of_the_host_are_there_to_look_at() -> Result<()> {
    let world = World::start('i', "")?;
    let host = &world.host;
    let ip = |arguments: &str| world.namespace.ip(&words(arguments));
    ip("link add br0 type bridge forward_delay 300")?;
    ip("link add e0 type veth peer name e1")?;
    ip("link set e1 master br0")?;
    for name in ["br0", "e0", "e1"] {
        ip(&format!("link set {name} up"))?;
    }
    ip("link set e0 address 52:54:00:00:00:0e mtu 1400")?;
    ip("addr add 10.72.0.2/24 dev e0")?;
    ip("route add default via 10.72.0.1 dev e0")?;
    let file = host.file("web.xml", &guest("web", INTERFACE))?;
    host.good(&["create", &file])?;

    // As libvirtd lists them: no port of a bridge, nothing of a guest, and active is what the kernel calls up.
    let listed = host.good(&["iface-list", "--all"])?;
    let lines: Vec<Vec<&str>> = listed.lines().map(words).collect();
    let states: Vec<_> = lines.iter().map(|line| (line[0], line[1])).collect();
    ensure!(
        states == [("br0", "active"), ("e0", "active"), ("lo", "inactive")],
        "{listed}"
    );
    let active = host.good(&["iface-list"])?;
    ensure!(active.lines().count() == 2, "{active}");
    let inactive = host.good(&["iface-list", "--inactive"])?;
    ensure!(
        words(&inactive) == ["lo", "inactive", "00:00:00:00:00:00"],
        "{inactive}"
    );
    let mac = host.good(&["iface-mac", "e0"])?;
    ensure!(mac == "52:54:00:00:00:0e", "{mac}");
    ensure!(host.good(&["iface-name", &mac])? == "e0");
    let absent = host.refused(&["iface-dumpxml", "e9"])?;
    let why = "Interface not found: couldn't find interface named 'e9'";
    ensure!(absent.contains(why), "{absent}");

    let shown = host.good(&["iface-dumpxml", "e0"])?;
    for part in [
        "<interface type='ethernet' name='e0'>",
        "<mtu size='1400'/>",
        "<ip address='10.72.0.2' prefix='24'/>",
        "<route gateway='10.72.0.1'/>",
        "<link speed='10000' state='up'/>",
        "<mac address='52:54:00:00:00:0e'/>",
    ] {
        ensure!(shown.contains(part), "{part}: {shown}");
    }
    is_valid(host, &shown)?;
    let shown = host.good(&["iface-dumpxml", "br0"])?;
    for part in [
        "<bridge stp='off' delay='300'>",
        "<interface type='ethernet' name='e1'>",
        "<interface type='ethernet' name='vnet0'>",
    ] {
        ensure!(shown.contains(part), "{part}: {shown}");
    }
    is_valid(host, &shown)?;
    is_valid(host, &host.good(&["iface-dumpxml", "lo"])?)?;

    // They are their administrator's.
    for (arguments, function) in [
        (&["iface-start", "e0"][..], "virInterfaceCreate"),
        (&["iface-destroy", "e0"], "virInterfaceDestroy"),
        (&["iface-undefine", "e0"], "virInterfaceUndefine"),
        (&["iface-begin"], "virInterfaceChangeBegin"),
    ] {
        let refused = host.refused(arguments)?;
        ensure!(
            refused.contains("not supported") && refused.contains(function),
            "{refused}"
        );
    }
    Ok(())
}

/// What libvirt's own prints.
#[test]
fn the_test_hypervisor_has_the_interface_of_libvirts() -> Result<()> {
    let host = Host::start(TEST)?;
    let listed = host.good(&["iface-list", "--all"])?;
    ensure!(
        words(&listed) == ["eth1", "active", "aa:bb:cc:dd:ee:ff"],
        "{listed}"
    );
    let shown = host.good(&["iface-dumpxml", "eth1"])?;
    let own = reeve_tests::virsh::succeed({
        let mut virsh = Command::new("virsh");
        virsh.args(["-q", "-c", "test:///default", "iface-dumpxml", "eth1"]);
        virsh
    })?;
    ensure!(shown == own, "{shown}\n{own}");
    ensure!(host.good(&["iface-name", "aa:bb:cc:dd:ee:ff"])? == "eth1");
    let arp = host.good(&["domifaddr", "test", "--source", "arp"])?;
    ensure!(arp.is_empty(), "{arp}");
    Ok(())
}
