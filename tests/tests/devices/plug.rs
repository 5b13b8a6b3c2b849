//! Devices and vCPUs that are given to a domain and taken from it while its guest works.

use std::fs;

use anyhow::{Context, Result, ensure};
use reeve_tests::network::{Network, SERVER};
use reeve_tests::soaking;
use reeve_tests::tool::{md5, tool};
use serde_json::Value;

use super::domain::{Domain, Held, sum_on};

/// The interface that comes and goes.
const MAC: &str = "52:54:00:0a:0b:0d";
const TAP: &str = "rtap1";
/// The disk that comes and goes is the third.
const DISK: &str = "vdc";
/// Makes two texts to write, and then writes one after the other to all of a disk, past the page cache,
/// and reads it again, with pauses: a guest of the lab has little time for more. Ends when told to, or
/// when what is read is not what was written.
const IO: &str = "for t in a b; do dd if=/dev/urandom of=/tmp/$t bs=64k count=4 2>/dev/null; done; \
    ( (while [ ! -e /tmp/stop ]; do for t in a b; do usleep 200000; \
    dd if=/tmp/$t of=/dev/vdb bs=64k oflag=direct 2>/dev/null && \
    dd if=/dev/vdb bs=64k iflag=direct 2>/dev/null | cmp - /tmp/$t || touch /tmp/stop /tmp/bad; \
    done; done; touch /tmp/stopped) & )";
/// How many vCPUs there are at most; there is one otherwise.
pub const VCPUS: u32 = 3;
/// The bytes of that disk.
pub const IO_BYTES: u64 = 4 << 16;

/// A removal that is asked of a guest whose ACPI is not up yet comes to an end, one way or the other, and
/// can be asked again.
pub fn a_removal_before_the_guest_is_up_ends(domain: &mut Domain) -> Result<()> {
    if let Err(error) = domain.reeve("detach", &[DISK]) {
        let said = format!("{error:#}");
        ensure!(
            said.contains("its guest has not let go of 'vdc' within 10 s, and may do so yet"),
            "{said}"
        );
    }
    domain.wait_until_up()?;
    if domain.stats(DISK).is_ok() {
        domain.reeve("detach", &[DISK])?;
    }
    domain.guest("[ ! -e /sys/block/vdc ]")?;
    Ok(())
}

/// A disk, an interface and two vCPUs come, are used, and go, again and again beside the I/O of another
/// disk.
#[expect(clippy::print_stdout, reason = "how far it is")]
pub fn devices_come_and_go_under_io(
    domain: &mut Domain,
    network: &Network,
    rounds: u32,
) -> Result<()> {
    let worker = domain.worker()?;
    let daemon = domain.daemon.pid().context("a daemon")?;
    domain.guest(IO)?;
    // What has been a vCPU once is kept for its next time: KVM takes none back.
    vcpus_come(domain)?;
    vcpus_go(domain)?;
    // As is what guards interfaces, once the daemon had one to guard.
    let option = format!("bridge={},mac={MAC},target={TAP}", network.bridge());
    domain.reeve("attach", &["--net", &option])?;
    domain.guest_until("[ -e /sys/class/net/eth0 ]")?;
    domain.reeve("detach", &[MAC])?;
    domain.note()?;
    let before = (Held::by(worker)?, Held::by(daemon)?);
    let file = network.file("file", 1 << 20)?;
    for round in 1..=rounds {
        one_round(domain, network, &md5(&file)?).with_context(|| format!("round {round}"))?;
        for (who, pid, before) in [("worker", worker, &before.0), ("daemon", daemon, &before.1)] {
            let change = Held::by(pid)?.since(before);
            ensure!(change.is_empty(), "round {round}: {who}: {change:?}");
        }
        domain
            .expect_unchanged()
            .with_context(|| format!("after round {round}"))?;
        if soaking() {
            // Half an hour is long to hear nothing.
            println!("round {round} of {rounds}");
        }
    }
    let bytes = |stats: &Value, kind: &str| {
        let pointer = format!("/figures/{kind}/bytes");
        stats.pointer(&pointer).and_then(Value::as_u64)
    };
    let stats = domain.stats("vdb")?;
    ensure!(
        bytes(&stats, "reads") > Some(4 * IO_BYTES) && bytes(&stats, "writes") > Some(4 * IO_BYTES),
        "little was written and read: {stats}"
    );
    domain.guest("[ ! -e /tmp/stop ] && touch /tmp/stop")?;
    domain.guest_until("[ -e /tmp/stopped ]")?;
    domain.guest("[ ! -e /tmp/bad ]")?;
    Ok(())
}

fn one_round(domain: &mut Domain, network: &Network, file_sum: &str) -> Result<()> {
    let disk = domain.path("plugged");
    fs::File::create(&disk)?.set_len(16 << 20)?;
    let option = format!("{},format=raw", disk.display());
    domain.reeve("attach", &["--disk", &option])?;
    let option = format!("bridge={},mac={MAC},target={TAP}", network.bridge());
    domain.reeve("attach", &["--net", &option])?;
    domain.stats(DISK)?;
    domain.guest_until("[ -b /dev/vdc -a -e /sys/class/net/eth0 ]")?;

    domain.guest(
        "chroot /mnt /sbin/mke2fs -q -t ext4 /dev/vdc && mkdir -p /x && mount /dev/vdc /x",
    )?;
    domain.guest("dd if=/dev/urandom of=/x/x bs=64k count=16 2>/dev/null")?;
    let written = domain.guest("md5sum </x/x && umount /x")?;
    domain.guest("ip link set eth0 up && udhcpc -i eth0 -n -q >/dev/null 2>&1")?;
    domain.guest(&format!("ping -c 1 -W 5 {SERVER}"))?;
    let fetched = domain.guest(&format!("wget -q -O - http://{SERVER}/file | md5sum"))?;
    ensure!(fetched.starts_with(file_sum), "{fetched}");

    vcpus_come(domain)?;
    vcpus_compute(domain)?;
    vcpus_go(domain)?;
    domain.reeve("detach", &[DISK])?;
    domain.reeve("detach", &[MAC])?;
    ensure!(domain.stats(DISK).is_err(), "the disk is still there");
    let links = tool("ip", ["-br", "link"])?;
    ensure!(!links.contains(TAP), "{links}");
    let found = sum_on(&disk, "/x", &domain.path("copy"))?;
    ensure!(written.starts_with(&found), "{written}, not {found}");
    fs::remove_file(disk)?;
    Ok(())
}

/// Two further vCPUs, which this guest has nothing to bring online by itself.
fn vcpus_come(domain: &mut Domain) -> Result<()> {
    domain.reeve("set-vcpus", &[&VCPUS.to_string()])?;
    for cpu in 1..VCPUS {
        let file = format!("/sys/devices/system/cpu/cpu{cpu}/online");
        domain.guest_until(&format!("[ -e {file} ]"))?;
        domain.guest(&format!("echo 1 >{file}"))?;
    }
    let count = domain.guest("nproc")?;
    ensure!(count == VCPUS.to_string(), "{count} CPUs have come");
    Ok(())
}

/// Each of them runs what the guest has for all.
fn vcpus_compute(domain: &mut Domain) -> Result<()> {
    let run = |domain: &Domain, cpu: u32| -> Result<u64> {
        let stats = domain.stats(&format!("vcpu{cpu}"))?;
        let time = stats.pointer("/figures/run_ns").and_then(Value::as_u64);
        time.with_context(|| format!("how long it ran: {stats}"))
    };
    let before: Vec<u64> = (1..VCPUS)
        .map(|cpu| run(domain, cpu))
        .collect::<Result<_>>()?;
    domain.guest(
        "(for job in 1 2 3 4; do (n=0; while [ $n -lt 1500 ]; do n=$((n+1)); done) & done; wait)",
    )?;
    for (cpu, before) in (1..VCPUS).zip(before) {
        let ran = run(domain, cpu)?.saturating_sub(before);
        ensure!(ran > 10_000_000, "vCPU {cpu} ran for {ran} ns under load");
    }
    Ok(())
}

fn vcpus_go(domain: &mut Domain) -> Result<()> {
    domain.reeve("set-vcpus", &["1"])?;
    let count = domain.guest("nproc")?;
    ensure!(count == "1", "{count} CPUs are left");
    Ok(())
}
