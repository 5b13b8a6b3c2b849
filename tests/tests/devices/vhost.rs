//! A network interface whose frames the kernel moves, in one boot of a domain: what is done with it while its
//! guest uses it, and who moves them then.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_tests::network::{Network, SERVER};
use reeve_tests::tool::{md5, tool};
use serde_json::Value;

use super::domain::Domain;
use super::guest::SOON;

const MAC: &str = "52:54:00:0a:0b:0e";
const TAP: &str = "rtap2";
/// Bytes of the file that goes both ways.
const BYTES: u32 = 2 << 20;

#[reeve_tests::in_lab(timeout = "900s", root)]
fn the_kernel_moves_the_frames_of_an_interface_through_all_that_its_domain_does() -> Result<()> {
    // A module of the host's kernel.
    let _ = Command::new("modprobe").arg("vhost_net").status();
    ensure!(fs::exists("/dev/vhost-net")?, "the lab's kernel has none");
    let network = Network::new()?;
    let file = network.file("file", BYTES)?;
    let sum = md5(&file)?;
    let option = format!(
        "bridge={},mac={MAC},target={TAP},driver=vhost,trust-guest",
        network.bridge()
    );
    let mut domain = Domain::start(&["virtio_blk", "virtio_net"], "256M", |_| {
        Ok(vec!["--net".to_owned(), option.clone()])
    })?;
    domain.wait_until_up()?;
    domain.guest("ip link set eth0 up && udhcpc -i eth0 -n -q >/dev/null 2>&1")?;
    expect_owner(true)?;
    both_ways(&mut domain, &network, &sum).context("at first")?;
    let stats = domain.stats(MAC)?;
    for direction in ["received", "sent"] {
        let pointer = format!("/figures/{direction}/bytes");
        let bytes = stats.pointer(&pointer).and_then(Value::as_u64);
        ensure!(bytes > Some(BYTES.into()), "{stats}");
    }

    domain.reeve("update", &[MAC, "--link", "down"])?;
    domain.guest_until("[ $(cat /sys/class/net/eth0/carrier) = 0 ]")?;
    ensure!(domain.guest(&format!("ping -c 1 -W 1 {SERVER}")).is_err());
    domain.reeve("update", &[MAC, "--link", "up"])?;
    domain.guest_until(&format!("ping -c 1 -W 1 {SERVER} >/dev/null"))?;
    both_ways(&mut domain, &network, &sum).context("after the link was down")?;
    domain.reeve("update", &[MAC, "--rates", "inbound=256K"])?;
    let began = Instant::now();
    domain.guest(&format!("wget -q -O /dev/null http://{SERVER}/file"))?;
    let took = began.elapsed();
    ensure!(took > Duration::from_secs(4), "{took:?}");
    domain.reeve("update", &[MAC, "--rates", "none"])?;
    both_ways(&mut domain, &network, &sum).context("after a rate")?;

    let before = domain.worker()?;
    domain.reeve("upgrade", &[])?;
    ensure!(domain.worker()? != before, "the same worker");
    both_ways(&mut domain, &network, &sum).context("by a fresh worker")?;
    expect_owner(true)?;

    domain.reeve("reset", &[])?;
    domain.wait_until_up()?;
    domain.guest("ip link set eth0 up && udhcpc -i eth0 -n -q >/dev/null 2>&1")?;
    both_ways(&mut domain, &network, &sum).context("after a reset")?;

    for round in 0..2 {
        domain.reeve("detach", &[MAC])?;
        let links = tool("ip", ["-br", "link"])?;
        ensure!(!links.contains(TAP), "{links}");
        expect_owner(false)?;
        domain.reeve("attach", &["--net", &option])?;
        domain.guest_until("[ -e /sys/class/net/eth0 ]")?;
        domain.guest("ip link set eth0 up && udhcpc -i eth0 -n -q >/dev/null 2>&1")?;
        both_ways(&mut domain, &network, &sum).with_context(|| format!("attached, {round}"))?;
        expect_owner(true)?;
    }
    expect_no_refusal(&domain)?;
    domain.shut_down()
}

#[reeve_tests::in_lab(timeout = "600s", root)]
fn a_guest_that_is_connected_to_nothing_reaches_no_host_by_the_kernel_either() -> Result<()> {
    let _ = Command::new("modprobe").arg("vhost_net").status();
    ensure!(fs::exists("/dev/vhost-net")?, "the lab's kernel has none");
    let option = format!("none,mac={MAC},target={TAP},driver=vhost");
    let mut domain = Domain::start(&["virtio_blk", "virtio_net"], "256M", |_| {
        Ok(vec!["--net".to_owned(), option])
    })?;
    domain.wait_until_up()?;
    expect_owner(true)?;
    domain.guest("ip link set eth0 up && ip addr add 10.78.0.2/24 dev eth0")?;
    // It asks everybody, on a network that has the host alone on it.
    ensure!(domain.guest("ping -c 3 -W 1 10.78.0.1").is_err());
    let sent = domain.guest("cat /sys/class/net/eth0/statistics/tx_packets")?;
    ensure!(sent.trim().parse::<u64>()? > 0, "{sent}");
    let taken = fs::read_to_string(format!("/sys/class/net/{TAP}/statistics/rx_packets"))?;
    ensure!(taken.trim() == "0", "the host took {taken} of {sent}");
    domain.shut_down()
}

/// The file to the guest, and back.
fn both_ways(domain: &mut Domain, network: &Network, sum: &str) -> Result<()> {
    domain.guest(&format!("ping -c 1 -W 5 -s 8000 {SERVER}"))?;
    domain.guest(&format!("wget -q -O /tmp/file http://{SERVER}/file"))?;
    let fetched = domain.guest("md5sum </tmp/file")?;
    ensure!(fetched.starts_with(sum), "{fetched}");
    domain.guest("httpd -h /tmp 2>/dev/null || true")?;
    let show = "ip -4 -o addr show dev eth0 | awk '{ sub(\"/.*\", \"\", $4); print $4 }'";
    let address = domain.guest(show)?;
    let copy = network.directory().join("copy");
    let url = format!("http://{address}/file");
    network.run(&["wget", "-q", "-O", &copy.display().to_string(), &url])?;
    ensure!(md5(&copy)? == sum, "what the guest sent");
    Ok(())
}

/// Whether the kernel has a thread for a worker's queues, named for the thread that made it the owner: it has
/// while the device runs. It may take a moment to come or to end.
fn expect_owner(wanted: bool) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while has_thread()? != wanted {
        ensure!(
            Instant::now() < deadline,
            "the kernel's thread: not {wanted}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// A thread of its own until Linux 6.3, one of the worker's since then.
fn has_thread() -> Result<bool> {
    for process in fs::read_dir("/proc")? {
        let Ok(tasks) = fs::read_dir(process?.path().join("task")) else {
            continue;
        };
        for task in tasks.flatten() {
            let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if comm.starts_with("vhost-") {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The kernel has refused nothing that was asked of it.
fn expect_no_refusal(domain: &Domain) -> Result<()> {
    let log = domain.reeve("logs", &[])?;
    ensure!(!log.contains("the worker does"), "{log}");
    Ok(())
}
