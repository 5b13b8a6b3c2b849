//! Stock Linux that is given memory while it runs, in the lab: its own driver takes it up, programs use it, a
//! fresh worker keeps it, vhost-net sends from it, and what it gives back the host is charged for no longer.
//! Debian's kernel for machines of any kind, which has the driver.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reeve_tests::lab::assets::drivers;
use reeve_tests::lab::{assets, inside_outer_guest};
use reeve_tests::leftovers::Snapshot;
use reeve_tests::network::Network;
use reeve_tests::reeve::Reeve;
use reeve_tests::tool::md5;

use super::linux::{Host, NAME};

const SHELL: Duration = Duration::from_secs(150);
const MIB: u64 = 1 << 20;

/// What is asked for beyond the 256 MiB that it starts with.
const EXTRA: u64 = 256 * MIB;
/// More than it had without.
const FILE_MIB: u64 = 224;

/// What a command prints; an error if it fails.
fn run(console: &mut Reeve, line: &str) -> Result<String> {
    let printed = console.shell(&format!("{line}; echo \"status $?\""), SHELL)?;
    let (printed, status) = printed
        .trim_end()
        .rsplit_once("status ")
        .with_context(|| format!("{line}: {printed}"))?;
    ensure!(status == "0", "{line}: status {status}: {printed}");
    Ok(printed.trim().to_owned())
}

/// MemTotal in bytes.
fn total(console: &mut Reeve) -> Result<u64> {
    let kibibytes = run(console, "awk '/MemTotal:/ { print $2 }' /proc/meminfo")?;
    Ok(kibibytes.parse::<u64>()? << 10)
}

/// Bytes that are plugged, by `reeve stats`.
fn plugged(host: &Host) -> Result<u64> {
    let stats: serde_json::Value =
        serde_json::from_str(&host.daemon.reeve(&["--json", "stats", NAME])?)?;
    let mut stats = stats.as_array().context("a list")?.iter();
    let memory = stats.find(|one| one["kind"] == "memory");
    let memory = memory.context("no memory device")?;
    memory["figures"]["plugged_bytes"]
        .as_u64()
        .with_context(|| memory.to_string())
}

fn wait_for(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + SHELL;
    while !done()? {
        ensure!(Instant::now() < deadline, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

/// What the domain's cgroup is charged for that is memory of its guest, or of who runs it.
fn charge(host: &Host) -> Result<u64> {
    let worker = host.details()?.worker.context("no worker")?.pid;
    let text = fs::read_to_string(format!("/proc/{worker}/cgroup"))?;
    let path = text.trim().split("::").nth(1).context("cgroup v2")?;
    let stat = PathBuf::from(format!("/sys/fs/cgroup{path}/memory.stat"));
    let text = fs::read_to_string(stat)?;
    let field = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.with_context(|| format!("no {name}"))?.trim().parse()?)
    };
    Ok(field("anon ")? + field("shmem ")?)
}

/// Has the guest send its file, whose pages are in memory that was plugged, by an interface that the kernel
/// serves: it reads them where they are.
fn send(console: &mut Reeve, network: &Network, sum: &str) -> Result<()> {
    run(console, "httpd -h /more 2>/dev/null || true")?;
    let show = "ip -4 -o addr show dev eth0 | awk '{ sub(\"/.*\", \"\", $4); print $4 }'";
    let address = run(console, show)?;
    let copy = network.directory().join("copy");
    let url = format!("http://{address}/file");
    network.run(&["wget", "-q", "-O", &copy.display().to_string(), &url])?;
    ensure!(sum.starts_with(&md5(&copy)?), "another file was sent");
    Ok(())
}

/// As for the devices of a domain that runs: in the outer guest each page that is touched first is slow.
fn large_pages() -> Result<()> {
    if inside_outer_guest() {
        let settings = "/sys/kernel/mm/transparent_hugepage";
        fs::write(format!("{settings}/shmem_enabled"), "always")?;
        fs::write(format!("{settings}/khugepaged/max_ptes_none"), "0")?;
    }
    Ok(())
}

#[reeve_tests::in_lab(timeout = "560s", root)]
fn linux_takes_up_memory_uses_it_and_gives_it_back() -> Result<()> {
    large_pages()?;
    // A module of the host's kernel.
    let _ = Command::new("modprobe").arg("vhost_net").status();
    ensure!(fs::exists("/dev/vhost-net")?, "the lab's kernel has none");
    let network = Network::new()?;
    let before = Snapshot::take();
    let words = format!(
        "memhp_default_state=online_movable {}",
        drivers(&["virtio_mem", "virtio_net"])
    );
    let host = Host::of(
        &assets().full_vmlinux,
        &assets().full_initramfs,
        &words,
        |_| {
            Ok(format!(
                "max-memory = \"512M\"\n[limits]\nmemory = \"800M\"\n\
                 [[nic]]\nbridge = \"{}\"\ndriver = \"vhost\"\ntrust-guest = true\n",
                network.bridge()
            ))
        },
    )?;
    let mut console = host.boot()?;
    // What an emulated processor's boot complains of is not what is looked for.
    run(&mut console, "dmesg -c >/dev/null")?;
    let at_first = total(&mut console)?;
    ensure!(plugged(&host)? == 0);
    run(
        &mut console,
        "ip link set eth0 up && udhcpc -i eth0 -n -q >/dev/null 2>&1",
    )?;

    host.daemon.reeve(&["set-memory", NAME, "512M"])?;
    wait_for("a guest that takes up memory", || {
        Ok(plugged(&host)? == EXTRA)
    })?;
    let mut grown = 0;
    wait_for("memory that is online", || {
        grown = total(&mut console)?;
        Ok(grown >= at_first + EXTRA - 16 * MIB)
    })?;

    run(
        &mut console,
        "mkdir -p /more && mount -t tmpfs -o size=400m none /more",
    )?;
    // Pages of programs come from memory that can be given back first, which is what was plugged.
    run(
        &mut console,
        "dd if=/dev/urandom of=/more/file bs=1M count=8 2>/dev/null",
    )?;
    let sum = run(&mut console, "md5sum </more/file")?;
    send(&mut console, &network, &sum).context("what was plugged")?;
    let fill = format!("dd if=/dev/zero of=/more/full bs=1M count={FILE_MIB} 2>/dev/null");
    run(&mut console, &fill)?;
    let full = charge(&host)?;
    ensure!(full > FILE_MIB * MIB, "charged for {full} bytes");

    let worker = host.details()?.worker.context("no worker")?.pid;
    host.daemon.reeve(&["upgrade", NAME])?;
    let after = host.details()?.worker.context("no worker")?.pid;
    ensure!(worker != after, "it is the same worker");
    ensure!(plugged(&host)? == EXTRA);
    ensure!(
        run(&mut console, "md5sum </more/file")? == sum,
        "another file"
    );
    ensure!(total(&mut console)? == grown);
    send(&mut console, &network, &sum).context("by a fresh worker")?;

    run(
        &mut console,
        "rm /more/full && echo 3 >/proc/sys/vm/drop_caches",
    )?;
    host.daemon.reeve(&["set-memory", NAME, "256M"])?;
    // A kernel may keep a page of its own in each block; with all of it movable it has no reason to.
    wait_for("a guest that gives memory back", || {
        Ok(plugged(&host)? <= EXTRA / 8)
    })?;
    let left = charge(&host)?;
    ensure!(
        left + EXTRA / 2 < full,
        "charged for {left}, of {full} before"
    );
    let shrunk = total(&mut console)?;
    ensure!(shrunk + EXTRA / 2 < grown, "{shrunk} of {grown}");

    // Its pages have gone elsewhere, or are in one of the blocks that are left.
    send(&mut console, &network, &sum).context("what is left")?;
    let log = host.daemon.reeve(&["logs", NAME])?;
    ensure!(!log.contains("the worker does"), "vhost-net refused: {log}");

    let complaints = run(
        &mut console,
        "dmesg | grep -iE -A 12 'kernel bug|oops|call trace' || true",
    )?;
    ensure!(complaints.is_empty(), "the guest's log: {complaints}");
    drop(console);
    host.shut_down()?;
    drop(host);
    before.assert_nothing_new(SHELL);
    Ok(())
}
