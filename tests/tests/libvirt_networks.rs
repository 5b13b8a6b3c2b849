//! Networks as a real `virsh` has them, on the test hypervisor, whose networks are nothing but what is said of them:
//! documents, life, updates of each part, ports, events and metadata.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reeve_tests::virsh::{Host, REAL, TEST};

const PATIENCE: Duration = Duration::from_secs(60);

/// `default`, as libvirt's test driver prints it.
const DEFAULT: &str = "\
<network connections='1'>
  <name>default</name>
  <uuid>dd8fe884-6c02-601e-7551-cca97df1c5df</uuid>
  <forward mode='nat'/>
  <bridge name='virbr0' stp='on' delay='0'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.122.2' end='192.168.122.254'/>
    </dhcp>
  </ip>
</network>";

fn document(name: &str, octet: u8) -> String {
    format!(
        "<network><name>{name}</name><forward mode='nat'/><ip address='192.168.{octet}.1' prefix='24'><dhcp>\
         <range start='192.168.{octet}.2' end='192.168.{octet}.99'/></dhcp></ip></network>"
    )
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn refused(host: &Host, arguments: &[&str], part: &str) -> Result<()> {
    let said = host.refused(arguments)?;
    ensure!(said.contains(part), "{arguments:?}: {said}");
    Ok(())
}

#[test]
fn the_network_of_libvirts_test_driver_is_active_from_the_start() -> Result<()> {
    let host = Host::start(TEST)?;
    let listed = host.good(&["net-list", "--all"])?;
    ensure!(
        words(&listed) == ["default", "active", "no", "yes"],
        "{listed}"
    );
    let shown = host.good(&["net-dumpxml", "default"])?;
    ensure!(shown == DEFAULT, "{shown}");
    let info = host.good(&["net-info", "default"])?;
    for line in [
        "Active:         yes",
        "Persistent:     yes",
        "Bridge:         virbr0",
    ] {
        ensure!(info.contains(line), "{line}: {info}");
    }
    ensure!(host.good(&["net-uuid", "default"])? == "dd8fe884-6c02-601e-7551-cca97df1c5df");
    ensure!(host.good(&["net-dhcp-leases", "default"])?.is_empty());
    ensure!(
        !Path::new("/sys/class/net/virbr0").exists(),
        "it is on the host"
    );
    Ok(())
}

#[test]
fn a_network_lives_as_libvirts_do() -> Result<()> {
    let host = Host::start(TEST)?;
    let file = host.file("lan.xml", &document("lan", 77))?;
    host.good(&["net-define", &file])?;
    let listed = host.good(&["net-list", "--inactive"])?;
    ensure!(
        words(&listed) == ["lan", "inactive", "no", "yes"],
        "{listed}"
    );
    // The next bridge that is free, and an address of its own.
    let shown = host.good(&["net-dumpxml", "lan"])?;
    ensure!(
        shown.contains("<bridge name='virbr1' stp='on' delay='0'/>"),
        "{shown}"
    );
    ensure!(shown.contains("<mac address='52:54:00:"), "{shown}");
    // What was printed is defined the same.
    let again = host.file("again.xml", &shown)?;
    host.good(&["net-define", &again])?;
    ensure!(host.good(&["net-dumpxml", "lan"])? == shown);

    host.good(&["net-autostart", "lan"])?;
    ensure!(host.good(&["net-list", "--all", "--autostart", "--name"])? == "lan");
    host.good(&["net-start", "lan"])?;
    refused(&host, &["net-start", "lan"], "network is already active")?;
    ensure!(
        host.good(&["net-list", "--name"])?
            .lines()
            .eq(["default", "lan"])
    );
    let (name, uuid) = (host.good(&["net-uuid", "lan"])?, "lan");
    ensure!(host.good(&["net-name", &name])? == uuid);
    host.good(&["net-undefine", "lan"])?;
    ensure!(words(&host.good(&["net-list", "--transient"])?) == ["lan", "active", "no", "no"]);
    refused(
        &host,
        &["net-undefine", "lan"],
        "can't undefine transient network",
    )?;
    let part = "cannot set autostart for transient network";
    refused(&host, &["net-autostart", "lan"], part)?;
    host.good(&["net-destroy", "lan"])?;
    let part = "Network not found: no network with matching name 'lan'";
    refused(&host, &["net-info", "lan"], part)?;

    host.good(&["net-create", &file])?;
    refused(&host, &["net-create", &file], "already exists with uuid")?;
    host.good(&["net-destroy", "lan"])?;
    // Of what is real nothing is there.
    let real = host.virsh_of(REAL, &["net-info", "lan"]).output()?;
    ensure!(!real.status.success());
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_by_name() -> Result<()> {
    let host = Host::start(TEST)?;
    let with = |elements: &str| format!("<network><name>bad</name>{elements}</network>");
    for (elements, part) in [
        ("<bridge name='b' zone='public'/>", "network/bridge/@zone"),
        (
            "<bandwidth><inbound average='1' floor='1'/></bandwidth>",
            "@floor",
        ),
        (
            "<bridge name='virbr0'/>",
            "bridge name 'virbr0' already in use",
        ),
        (
            "<forward mode='nat'/>",
            "no IP address provided for network 'bad'",
        ),
        (
            "<ip address='10.0.0.1' prefix='24'><dhcp><range start='10.0.0.9' end='10.0.0.2'/></dhcp></ip>",
            "is no range",
        ),
        (
            "<dnsmasq:options xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>\
             <dnsmasq:option value='x'/></dnsmasq:options>",
            "dnsmasq:options: this element is not provided",
        ),
    ] {
        let file = host.file("bad.xml", &with(elements))?;
        refused(&host, &["net-define", &file], part)?;
    }
    let file = host.file("same.xml", &document("default", 9))?;
    refused(
        &host,
        &["net-define", &file],
        "network 'default' already exists with uuid",
    )?;
    let file = host.file("taken.xml", &document("taken", 122))?;
    host.good(&["net-define", &file])?;
    refused(
        &host,
        &["net-start", "taken"],
        "is on network 'default' already",
    )?;
    let pool = with("<forward mode='hostdev'><pf dev='eth0'/></forward>");
    let file = host.file("pool.xml", &pool)?;
    host.good(&["net-define", &file])?;
    refused(&host, &["net-start", "bad"], "devices of the host")
}

/// An update of `default`, of what is active and of what is kept.
fn both(of: [&str; 3]) -> Vec<&str> {
    [&["net-update", "default"][..], &of, &["--live", "--config"]].concat()
}

#[test]
fn each_part_is_updated_as_it_goes() -> Result<()> {
    let host = Host::start(TEST)?;
    let lines = [
        (
            "add",
            "ip-dhcp-host",
            "<host mac='52:54:00:00:00:05' name='five' ip='192.168.122.5'/>",
        ),
        (
            "add",
            "dns-host",
            "<host ip='192.168.122.5'><hostname>five</hostname></host>",
        ),
        ("add", "dns-txt", "<txt name='a' value='b c'/>"),
        (
            "add",
            "dns-srv",
            "<srv service='ldap' protocol='tcp' target='five' port='389'/>",
        ),
        ("add", "portgroup", "<portgroup name='slow'/>"),
    ];
    for (command, section, xml) in lines {
        host.good(&both([command, section, xml]))?;
        let said = host.refused(&both([command, section, xml]))?;
        ensure!(said.contains("already"), "{said}");
    }
    let shown = host.good(&["net-dumpxml", "default"])?;
    for part in [
        "<host mac='52:54:00:00:00:05' name='five' ip='192.168.122.5'/>",
        "<hostname>five</hostname>",
        "<txt name='a' value='b c'/>",
        "<srv service='ldap' protocol='tcp' target='five' port='389'/>",
        "<portgroup name='slow'>",
    ] {
        ensure!(shown.contains(part), "{part}: {shown}");
    }
    let kept = host.good(&["net-dumpxml", "default", "--inactive"])?;
    ensure!(kept == shown.replace(" connections='1'", ""), "{kept}");

    let host_of = "<host mac='52:54:00:00:00:05' name='other' ip='192.168.122.6'/>";
    host.good(&both(["modify", "ip-dhcp-host", host_of]))?;
    host.good(&[
        "net-update",
        "default",
        "delete",
        "dns-txt",
        "<txt name='a'/>",
    ])?;
    let shown = host.good(&["net-dumpxml", "default"])?;
    ensure!(
        shown.contains("name='other'") && !shown.contains("<txt"),
        "{shown}"
    );
    // Only what is active was meant.
    let kept = host.good(&["net-dumpxml", "default", "--inactive"])?;
    ensure!(kept.contains("<txt"), "{kept}");
    let range = "<range start='192.168.122.2' end='192.168.122.254'/>";
    let said = host.refused(&both(["modify", "ip-dhcp-range", range]))?;
    ensure!(said.contains("Operation not supported"), "{said}");
    host.good(&both(["delete", "ip-dhcp-range", range]))?;
    let said = host.refused(&both(["add", "bridge", "<bridge name='x'/>"]))?;
    ensure!(
        said.contains("can't update 'bridge' section of network 'default'"),
        "{said}"
    );
    let said = host.refused(&both(["add", "dns-txt", "<text/>"]))?;
    ensure!(
        said.contains("unexpected element <text>, expecting <txt>"),
        "{said}"
    );
    let outside = "<host mac='52:54:00:00:00:07' ip='10.0.0.7'/>";
    let said = host.refused(&both(["add", "ip-dhcp-host", outside]))?;
    ensure!(said.contains("10.0.0.7"), "{said}");

    let direct = "<network><name>direct</name><forward mode='bridge' dev='eth0'/></network>";
    let file = host.file("direct.xml", direct)?;
    host.good(&["net-define", &file])?;
    let add = [
        "net-update",
        "direct",
        "add",
        "forward-interface",
        "<interface dev='eth1'/>",
    ];
    host.good(&add)?;
    let shown = host.good(&["net-dumpxml", "direct"])?;
    ensure!(shown.contains("<interface dev='eth1'/>"), "{shown}");
    refused(
        &host,
        &[&add[..], &["--live"]].concat(),
        "network is not running",
    )
}

#[test]
fn a_domain_is_connected_while_it_runs_and_does_not_start_without_its_network() -> Result<()> {
    let host = Host::start(TEST)?;
    let listed = host.good(&["net-port-list", "default"])?;
    let port = words(&listed).first().map(|port| (*port).to_owned());
    let port = port.context("the first domain has no port")?;
    let shown = host.good(&["net-port-dumpxml", "default", &port])?;
    for part in [
        "<name>test</name>",
        "<mac address='aa:bb:cc:dd:ee:ff'/>",
        "<plug type='network' bridge='virbr0'/>",
    ] {
        ensure!(shown.contains(part), "{part}: {shown}");
    }
    let file = host.file("port.xml", &shown)?;
    let create = ["net-port-create", "default", &file];
    refused(&host, &create, "ports are made by starting domains")?;
    // Which virsh complains of, and ends as if nothing were wrong.
    let output = host
        .virsh(&["net-port-delete", "default", &port])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("Failed to delete network port"), "{said}");
    ensure!(words(&host.good(&["net-port-list", "default"])?) == [port.as_str()]);
    host.good(&["destroy", "test"])?;
    ensure!(host.good(&["net-port-list", "default"])?.is_empty());
    host.good(&["net-destroy", "default"])?;
    refused(&host, &["start", "test"], "network 'default' is not active")?;
    host.good(&["net-start", "default"])?;
    host.good(&["start", "test"])?;
    // It is the same port.
    ensure!(words(&host.good(&["net-port-list", "default"])?) == [port]);
    let interfaces = host.good(&["domiflist", "test"])?;
    ensure!(interfaces.contains("network   default"), "{interfaces}");
    ensure!(
        host.good(&["domifaddr", "test", "--source", "lease"])?
            .is_empty()
    );
    Ok(())
}

#[test]
fn what_happens_to_networks_is_told_in_its_order() -> Result<()> {
    let host = Host::start(TEST)?;
    let heard = host.listen(&["net-event", "--event", "lifecycle", "--loop"])?;
    let deadline = Instant::now() + PATIENCE;
    // It has asked for them when the first is heard.
    let heard_first = (0..).find_map(|number| {
        let file = host
            .file("call.xml", &document(&format!("call{number}"), 200))
            .ok()?;
        host.good(&["net-define", &file]).ok()?;
        let first = heard.next(Duration::from_millis(200));
        (first.is_some() || Instant::now() > deadline).then_some(first.is_some())
    });
    ensure!(heard_first == Some(true), "no event is heard");
    let file = host.file("lan.xml", &document("lan", 77))?;
    host.good(&["net-define", &file])?;
    for command in ["net-start", "net-destroy", "net-undefine"] {
        host.good(&[command, "lan"])?;
    }
    let mut told = Vec::new();
    while told.len() < 4 {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = heard.next(left).with_context(|| format!("only {told:?}"))?;
        if let Some((_, happened)) = line.split_once(" for network lan: ") {
            told.push(happened.trim().to_owned());
        }
    }
    ensure!(
        told == ["Defined", "Started", "Stopped", "Undefined"],
        "{told:?}"
    );
    Ok(())
}

#[test]
fn who_only_looks_changes_no_network() -> Result<()> {
    let host = Host::start(TEST)?;
    let look = |arguments: &[&str]| host.virsh(&[&["-r"][..], arguments].concat()).output();
    ensure!(look(&["net-dumpxml", "default"])?.status.success());
    for command in ["net-destroy", "net-undefine", "net-autostart"] {
        let output = look(&[command, "default"])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(said.contains("read only"), "{command}: {said}");
    }
    Ok(())
}
