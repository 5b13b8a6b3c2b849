//! Network interfaces on a bridge of the host, with a server behind it.

use std::fs;

use anyhow::{Result, ensure};
use reeve_tests::network::{Network, SERVER};
use reeve_tests::tool::{md5, tool};

use super::guest::Guest;

#[reeve_tests::in_lab(timeout = "300s", root)]
fn a_guest_on_a_bridge_gets_an_address_and_moves_files_both_ways() -> Result<()> {
    let network = Network::new()?;
    let file = network.file("file", 4 << 20)?;
    let net = format!(
        "bridge={},mac=52:54:00:0a:0b:0c,target=rtap0",
        network.bridge()
    );
    let mut guest = Guest::small(&["virtio_net"], |builder| builder.arg("--net").arg(net))?;
    let ports = tool("bridge", ["link"])?;
    ensure!(ports.contains("rtap0"), "{ports}");
    let address = guest.run("cat /sys/class/net/eth0/address")?;
    ensure!(address == "52:54:00:0a:0b:0c", "{address}");
    let said = guest.run("ip link set eth0 up && udhcpc -i eth0 -n -q 2>&1")?;
    ensure!(said.contains("10.77.0.1"), "{said}");
    guest.run(&format!("ping -c 2 -W 5 -s 8000 {SERVER}"))?;
    guest.run(&format!("cd /tmp && wget -q http://{SERVER}/file"))?;
    let sums = guest.run("md5sum </tmp/file")?;
    ensure!(sums.starts_with(&md5(&file)?), "{sums}");
    guest.run("httpd -h /tmp")?;
    let copy = network.directory().join("copy");
    let address =
        guest.run("ip -4 -o addr show dev eth0 | awk '{ sub(\"/.*\", \"\", $4); print $4 }'")?;
    network.run(&[
        "wget",
        "-q",
        "-O",
        &copy.display().to_string(),
        &format!("http://{address}/file"),
    ])?;
    ensure!(fs::read(&copy)? == fs::read(&file)?, "what the guest sent");
    guest.shut_down()?;
    let links = tool("ip", ["-br", "link"])?;
    ensure!(!links.contains("rtap0"), "{links}");
    Ok(())
}
