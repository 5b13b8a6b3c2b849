//! Guests that do not trust each other on one bridge: what one of them says of itself that is not so, and what the other
//! hears of it.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use reeve_tests::lab::assets;
use reeve_tests::lab::assets::{COMMAND_LINE, drivers};
use reeve_tests::leftovers::Snapshot;
use reeve_tests::reeve::{Builder, Reeve, product};

use super::frames::{arp, digits, icmpv6, udp};
use super::host::{Host, SHELL, expect_up, guest, guest_until};
use super::networks::install_dnsmasq;

/// The guests' program.
const PROGRAM: &str = "reeve-test-frames";
/// Where they fetch it from: the host, on the network.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 88, 1);
/// How often each frame is sent.
const TIMES: u64 = 3;
/// Their Ethernet addresses end in this.
const FIRST: u8 = 1;
const SECOND: u8 = 2;

fn mac(last: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0x0a, 0x0e, last]
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 88, 10 + last)
}

fn address_ipv6(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 0x10 + u16::from(last))
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn network(isolated: &str) -> String {
    format!(
        "<network><name>tenants</name><bridge name='rtenants'/>{isolated}<dns enable='no'/>\
         <ip address='{GATEWAY}' netmask='255.255.255.0'/></network>"
    )
}

fn document(last: u8, filtered: bool) -> String {
    let own = address(last);
    let filter = format!(
        "<filterref filter='clean-traffic'><parameter name='IP' value='{own}'/></filterref>"
    );
    format!(
        "<domain type='kvm'><name>tenant-{last}</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='reeve'>hvm</type><kernel>{}</kernel><initrd>{}</initrd>\
         <cmdline>{COMMAND_LINE} {}</cmdline></os><features><acpi/><apic/></features>\
         <devices><interface type='network'><source network='tenants'/><mac address='{}'/>\
         <target dev='rtenant{last}'/><model type='virtio'/>\
         {}</interface>\
         <console type='pty'/></devices></domain>",
        assets().vmlinux.display(),
        assets().initramfs.display(),
        drivers(&["virtio_net"]),
        text(mac(last)),
        if filtered { &filter } else { "" },
    )
}

/// A guest with its addresses and its program.
fn start(host: &Host, last: u8, filtered: bool) -> Result<Reeve> {
    let file = host.file(&format!("tenant-{last}.xml"), &document(last, filtered))?;
    host.virsh(&format!("create {file}"))?;
    let mut console = host.virsh_on_terminal(&format!("console tenant-{last}"))?;
    expect_up(&mut console)?;
    if filtered {
        // Its network filter lets no IPv6 pass, and what it says by itself would be counted.
        guest(
            &mut console,
            "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6",
        )?;
    }
    let own = address(last);
    guest(&mut console, "ip link set eth0 up")?;
    guest(&mut console, &format!("ip addr add {own}/24 dev eth0"))?;
    if !filtered {
        let own = address_ipv6(last);
        guest(&mut console, &format!("ip addr add {own}/64 dev eth0"))?;
    }
    guest_until(&mut console, &format!("ping -c 1 -W 2 {GATEWAY}"))?;
    let fetch = format!("wget -q -O /tmp/frames http://{GATEWAY}/{PROGRAM}");
    guest(&mut console, &fetch)?;
    guest(&mut console, "chmod +x /tmp/frames")?;
    Ok(console)
}

/// How many of the frames that a guest sent were dropped.
fn dropped(host: &Host, last: u8) -> Result<u64> {
    let stats = host.virsh(&format!("domifstat tenant-{last} rtenant{last}"))?;
    let line = stats.lines().find(|line| line.contains("tx_drop"));
    let count = line.and_then(|line| line.split_whitespace().last());
    Ok(count.context("no tx_drop")?.parse()?)
}

/// Lies, each of one kind, and what they are.
type Lies = Vec<(&'static str, Vec<u8>)>;

/// Those of one whose network filter knows its address.
fn lies_of_address() -> Lies {
    let (own, other) = (mac(FIRST), mac(SECOND));
    let (own_ip, other_ip) = (address(FIRST), address(SECOND));
    vec![
        ("another's Ethernet address", arp(other, own, own_ip)),
        ("another's Ethernet address in ARP", arp(own, other, own_ip)),
        ("another's address in ARP", arp(own, own, other_ip)),
        ("another's address", udp(own, other_ip, 1000, 2000)),
        ("a server of DHCP", udp(own, own_ip, 67, 68)),
    ]
}

/// Those that nobody may tell, whatever is known of him.
fn lies_of_role() -> Lies {
    let (own, other) = (mac(FIRST), mac(SECOND));
    let own_link = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe0a, 0x0e01);
    let nobody = Ipv6Addr::UNSPECIFIED;
    vec![
        (
            "another's Ethernet address",
            arp(other, own, address(FIRST)),
        ),
        ("a server of DHCP", udp(own, address(FIRST), 67, 68)),
        ("a router advertisement", icmpv6(own, own_link, 134, nobody)),
        ("a redirect", icmpv6(own, own_link, 137, nobody)),
    ]
}

/// Each is counted as often as it was told.
fn tell(host: &Host, console: &mut Reeve, lies: Lies) -> Result<()> {
    for (what, frame) in lies {
        let counted = dropped(host, FIRST)?;
        send(console, &digits(&frame))?;
        let now = dropped(host, FIRST)?;
        ensure!(now == counted + TIMES, "{what}: {counted}, then {now}");
    }
    Ok(())
}

fn send(console: &mut Reeve, frame: &str) -> Result<()> {
    guest(console, &format!("/tmp/frames send eth0 {frame} {TIMES}")).map(drop)
}

/// Has the second listen while the first does something; the sources that it hears.
fn heard(listener: &mut Reeve, mut meanwhile: impl FnMut() -> Result<()>) -> Result<String> {
    guest(
        listener,
        "sh -c '/tmp/frames hear eth0 /tmp/stop >/tmp/heard &'",
    )?;
    guest_until(listener, "grep -q hearing /tmp/heard")?;
    meanwhile()?;
    guest(listener, "touch /tmp/stop")?;
    guest_until(listener, "grep -q end /tmp/heard")?;
    guest(listener, "cat /tmp/heard; rm /tmp/heard /tmp/stop")
}

#[reeve_tests::in_lab(timeout = "900s", root)]
fn lies_are_dropped_and_counted_and_isolated_tenants_exchange_not_one_frame() -> Result<()> {
    install_dnsmasq()?;
    let before = Snapshot::take();
    let host = Host::start()?;
    let file = host.file("network.xml", &network(""))?;
    host.virsh(&format!("net-create {file}"))?;
    let served = tempfile::tempdir()?;
    fs::copy(product(PROGRAM)?, served.path().join(PROGRAM))?;
    let mut server = Command::new(assets().tool("busybox"));
    server.args(["httpd", "-f", "-h"]).arg(served.path());
    let server = Builder::new(server).spawn()?;
    let mut first = start(&host, FIRST, true)?;
    let mut second = start(&host, SECOND, true)?;

    // The honest frame is heard, and nothing of it is counted.
    let own = text(mac(FIRST));
    let honest = digits(&arp(mac(FIRST), mac(FIRST), address(FIRST)));
    let counted = dropped(&host, FIRST)?;
    let sources = heard(&mut second, || send(&mut first, &honest))?;
    ensure!(sources.contains(&own), "{sources}");
    ensure!(
        dropped(&host, FIRST)? == counted,
        "an honest frame is counted"
    );

    // Each lie is counted, and none is heard.
    let sources = heard(&mut second, || tell(&host, &mut first, lies_of_address()))?;
    ensure!(!sources.contains(&own), "a lie is heard: {sources}");

    // On a network of isolated ports the two exchange not one frame, and still reach the host.
    for last in [FIRST, SECOND] {
        host.virsh(&format!("destroy tenant-{last}"))?;
    }
    drop((first, second));
    host.virsh("net-destroy tenants")?;
    let file = host.file("network.xml", &network("<port isolated='yes'/>"))?;
    host.virsh(&format!("net-create {file}"))?;
    let mut first = start(&host, FIRST, false)?;
    let mut second = start(&host, SECOND, false)?;
    let sources = heard(&mut second, || {
        tell(&host, &mut first, lies_of_role())?;
        send(&mut first, &honest)?;
        let (ip, ipv6) = (address(SECOND), address_ipv6(SECOND));
        guest(&mut first, &format!("! ping -c 2 -W 1 {ip}"))?;
        guest(&mut first, &format!("! ping -6 -c 2 -W 1 {ipv6}"))?;
        guest(&mut first, &format!("ping -c 1 -W 5 {GATEWAY}")).map(drop)
    })?;
    ensure!(
        !sources.contains(&own),
        "an isolated guest is heard: {sources}"
    );

    for last in [FIRST, SECOND] {
        host.virsh(&format!("destroy tenant-{last}"))?;
    }
    host.virsh("net-destroy tenants")?;
    drop((first, second, server, host, served));
    before.assert_nothing_new(SHELL);
    Ok(())
}
