//! Guests of virtual networks: what a newcomer gets who asks for nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use reeve_tests::lab::assets::{COMMAND_LINE, drivers};
use reeve_tests::lab::{assets, inside_outer_guest};
use reeve_tests::leftovers::Snapshot;
use reeve_tests::namespace::{NetNamespace, program};
use reeve_tests::reeve::{Builder, Reeve};
use reeve_tests::tool::output;

use super::host::{BOOT, Host, SHELL, expect_up, guest, guest_until};

/// A server outside, and the host's own address towards it (RFC 5737).
const SERVER: &str = "203.0.113.1";
const HOST: &str = "203.0.113.2";

/// A part of the world behind the host that knows nothing of its networks, with a server of files.
fn outside(directory: &str) -> Result<NetNamespace> {
    let mut namespace = NetNamespace::new('o')?;
    let link = format!("rto{}", std::process::id());
    output(
        Command::new(program("ip"))
            .args(["link", "add", &link, "type", "veth", "peer", "name", "eth0"])
            .args(["netns", namespace.name()]),
    )?;
    output(Command::new(program("ip")).args(["addr", "add", &format!("{HOST}/24"), "dev", &link]))?;
    output(Command::new(program("ip")).args(["link", "set", &link, "up"]))?;
    namespace.ip(&["addr", "add", &format!("{SERVER}/24"), "dev", "eth0"])?;
    namespace.ip(&["link", "set", "eth0", "up"])?;
    let busybox = assets().tool("busybox").display().to_string();
    namespace.serve(&busybox, &["httpd", "-f", "-h", directory, "-p", "80"])?;
    Ok(namespace)
}

/// Puts dnsmasq and its libraries where a distribution has them: its jail reads what is beneath `/usr` and nothing of the
/// lab's. Where there is a distribution it has them already.
pub fn install_dnsmasq() -> Result<()> {
    const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
    if !inside_outer_guest() {
        return Ok(());
    }
    let program = assets().tool("dnsmasq").display().to_string();
    let listed = output(Command::new(LOADER).args(["--list", &program]))?;
    let libraries = Path::new("/usr/lib/network");
    fs::create_dir_all(libraries)?;
    fs::create_dir_all("/usr/sbin")?;
    for line in listed.lines() {
        if let Some(path) = line.split_whitespace().find(|word| word.starts_with('/')) {
            let path = Path::new(path);
            fs::copy(path, libraries.join(path.file_name().context("a file")?))?;
        }
    }
    fs::copy(LOADER, libraries.join("ld-linux-x86-64.so.2"))?;
    for (link, to) in [
        ("/lib/x86_64-linux-gnu", "/usr/lib/network"),
        (LOADER, "/usr/lib/network/ld-linux-x86-64.so.2"),
    ] {
        // In one step: this very program may be loaded by it.
        symlink(to, "/new")?;
        fs::rename("/new", link)?;
    }
    fs::copy(&program, "/usr/sbin/dnsmasq")?;
    fs::write("/etc/resolv.conf", "")?;
    Ok(())
}

/// Puts passt there, which needs no library that dnsmasq does not. Its jail reads what is beneath `/usr`, too.
pub fn install_passt() -> Result<()> {
    if inside_outer_guest() {
        fs::create_dir_all("/usr/bin")?;
        fs::copy(assets().tool("passt"), "/usr/bin/passt")?;
    }
    Ok(())
}

/// A guest by virt-install, of which nothing is said but its kernel.
fn install(host: &Host, name: &str, mac: &str) -> Result<Reeve> {
    let (kernel, initrd) = (assets().vmlinux.display(), assets().initramfs.display());
    let mut command = host.client("virt-install");
    command
        .args(["--name", name, "--memory", "256", "--vcpus", "1"])
        .args(["--osinfo", "linux2022", "--import", "--disk", "none"])
        .arg("--boot")
        .arg(format!(
            "kernel={kernel},initrd={initrd},kernel_args=\"{COMMAND_LINE} {}\"",
            drivers(&["virtio_net"])
        ))
        .args(["--graphics", "none"]);
    if !mac.is_empty() {
        command.args([
            "--network",
            &format!("network=default,mac={mac},model=virtio"),
        ]);
    }
    let mut console = Builder::new(command).on_terminal().spawn()?;
    console.expect("Creating domain...", BOOT)?;
    expect_up(&mut console)?;
    Ok(console)
}

/// Those of the host, but for whether it is still asking if others have them.
fn addresses() -> Result<String> {
    let shown = output(Command::new(program("ip")).args(["-o", "addr"]))?;
    Ok(shown.replace(" tentative", ""))
}

/// Its address, by DHCP, under that name.
fn address(console: &mut Reeve, name: &str) -> Result<String> {
    guest(console, "ip link set eth0 up")?;
    guest(
        console,
        &format!("udhcpc -q -n -t 20 -i eth0 -x hostname:{name}"),
    )?;
    let shown = guest(console, "ip -4 -o addr show dev eth0")?;
    let address = shown.split_whitespace().nth(3).context("no address")?;
    Ok(address.split('/').next().unwrap_or(address).to_owned())
}

#[reeve_tests::in_lab(timeout = "900s", root)]
fn newcomers_have_addresses_names_and_the_world_and_cannot_imitate_each_other() -> Result<()> {
    let files = tempfile::tempdir()?;
    fs::write(files.path().join("file"), "the world\n")?;
    install_dnsmasq()?;
    let outside = outside(&files.path().display().to_string())?;
    let before = Snapshot::take();
    let links = addresses()?;
    let host = Host::start_with("default_network = true\n")?;
    let list = host.virsh("net-list")?;
    ensure!(list.contains("default"), "{list}: {}", host.daemon.log());

    // One asks for no network at all.
    let mut one = install(&host, "one", "")?;
    let mut two = install(&host, "two", "52:54:00:0a:0d:02")?;
    let first = address(&mut one, "one")?;
    let second = address(&mut two, "two")?;
    ensure!(
        first.starts_with("192.168.122.") && first != second,
        "{first} {second}"
    );
    let leases = host.virsh("net-dhcp-leases default")?;
    for part in [&first, &second, "52:54:00:0a:0d:02", "two"] {
        ensure!(leases.contains(part), "{part}: {leases}");
    }
    let shown = host.virsh("domifaddr two")?;
    ensure!(shown.contains(&second), "{shown}");

    // Each other, by name; the host; and a server outside that knows no way back.
    guest_until(&mut one, "nslookup -type=a two 192.168.122.1")?;
    let named = guest(&mut one, "nslookup -type=a two 192.168.122.1")?;
    ensure!(named.contains(&second), "{named}");
    guest(&mut one, &format!("ping -c 1 -W 5 {second}"))?;
    guest(&mut two, "ping -c 1 -W 5 192.168.122.1")?;
    let fetched = guest(&mut one, &format!("wget -q -O - http://{SERVER}/file"))?;
    ensure!(fetched == "the world", "{fetched}");
    // Nobody outside reaches a guest that did not ask.
    outside.ip(&["route", "add", "192.168.122.0/24", "via", HOST])?;
    let busybox = assets().tool("busybox").display().to_string();
    let mut ping = outside.command(&busybox);
    ping.args(["ping", "-c", "1", "-W", "2", &first]);
    ensure!(
        output(&mut ping).is_err(),
        "a guest is reached from outside"
    );

    // Another's Ethernet address, and a server of addresses that is none.
    guest(
        &mut two,
        "ip link set eth0 down; ip link set eth0 address 52:54:00:0a:0d:03; ip link set eth0 up",
    )?;
    guest(&mut two, "! ping -c 2 -W 2 192.168.122.1")?;
    guest(
        &mut two,
        "ip link set eth0 down; ip link set eth0 address 52:54:00:0a:0d:02; ip link set eth0 up",
    )?;
    guest_until(&mut two, "ping -c 1 -W 2 192.168.122.1")?;

    // A network that goes and comes again has its guests again.
    host.virsh("net-destroy default")?;
    guest(&mut two, "! ping -c 1 -W 2 192.168.122.1")?;
    host.virsh("net-start default")?;
    guest_until(&mut two, "ping -c 1 -W 2 192.168.122.1")?;
    // Its way out went with its link.
    guest(&mut two, "ip route add default via 192.168.122.1")?;
    let fetched = guest(&mut two, &format!("wget -q -O - http://{SERVER}/file"))?;
    ensure!(fetched == "the world", "{fetched}");

    for name in ["one", "two"] {
        host.virsh(&format!("destroy {name}"))?;
        host.virsh(&format!("undefine {name}"))?;
    }
    host.virsh("net-destroy default")?;
    drop((one, two, host));
    before.assert_nothing_new(SHELL);
    let after = addresses()?;
    ensure!(after == links, "{links}\n{after}");
    drop(outside);
    Ok(())
}
