//! A worker that is killed while its guest writes: what the guest was told is on the disk is there.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use reeve_tests::daemon::signal;
use reeve_tests::lab::assets;
use reeve_tests::tool::{output, tool};
use rustix::process::Signal;

use super::disk::{allowed_status, overlay};
use super::guest::{Guest, SHELL};

/// How many files are on the disk, as the guest was told, before the worker dies.
const FILES: u32 = 5;
/// The bytes of each, which is no multiple of a block.
const BYTES: usize = 150_001;
/// Writes file after file to both disks, and says which are there when both were told to be; for as long as
/// [`VERIFIED`] goes well.
const WRITER: &str = "i=0; while [ ! -e /run/ended ]; do i=$((i+1)); for d in /kept /mnt/kept; do \
    yes \"file $i\" | head -c 150001 | dd of=$d/$i bs=16k conv=fsync 2>/dev/null; done; \
    echo \"synced $i.\"; done";
/// Runs beside it, and checks what it has written as it goes.
const VERIFIED: &str = "--size=4M --bs=4k --rw=randrw --fsync=16 --time_based --runtime=600 \
    --ioengine=libaio --iodepth=4 --rate_iops=30 --verify=crc32c --verify_backlog=64 --verify_fatal=1";

/// Debian's own disk, which is raw, and an overlay are written to from both sides of the page cache, in any
/// order, when it happens.
#[reeve_tests::in_lab(timeout = "600s", root)]
fn what_debian_has_synced_outlives_a_worker_that_is_killed() -> Result<()> {
    let place = tempfile::tempdir()?;
    let path = |name: &str| place.path().join(name).display().to_string();
    let [raw, base, image, converted] = ["raw", "base", "image", "converted"].map(path);
    let debian = assets().disk.display().to_string();
    tool(
        "qemu-img",
        ["convert", "-f", "raw", "-O", "raw", &debian, &raw],
    )?;
    fs::File::create(&base)?.set_len(64 << 20)?;
    tool("mke2fs", ["-q", "-t", "ext4", &base])?;
    let overlay = overlay(&image, &base)?;

    let mut guest = Guest::debian(|builder| {
        builder
            .arg("--disk")
            .arg(format!("{raw},format=raw"))
            .arg("--disk")
            .arg(overlay)
    })?;
    let console = guest.reeve.output();
    ensure!(console.contains("login: "), "{console}");
    guest.run("mount -t ext4 /dev/vdb /mnt && mkdir /kept /mnt/kept")?;
    guest.run(&format!(
        "((fio --minimal {VERIFIED} --name=a --filename=/var/tmp/a \
         --name=b --filename=/mnt/b; touch /run/ended) >/dev/null 2>&1 &)"
    ))?;
    guest.reeve.send(format!("{WRITER}\n").as_bytes())?;
    guest.reeve.expect(&format!("synced {FILES}."), 2 * SHELL)?;
    let worker = guest.control.worker()?;
    signal(worker, Signal::KILL)?;

    let status = guest.reeve.wait(SHELL)?;
    let said = guest.reeve.errors();
    ensure!(status.code() == Some(4), "{status}: {said}");
    ensure!(said.contains("SIGKILL"), "{said}");
    let synced = last_synced(&guest.reeve.output())?;
    ensure!(synced >= FILES, "{synced}");

    // Clusters that were taken and not used yet are lost at worst.
    allowed_status(
        Command::new(assets().tool("qemu-img")).args(["check", "-q", &image]),
        &[0, 3],
    )?;
    tool("qemu-img", ["check", "-q", "-r", "leaks", &image])?;
    tool("qemu-img", ["convert", "-O", "raw", &image, &converted])?;
    for disk in [&converted, &raw] {
        // Replays the journal.
        allowed_status(
            Command::new(assets().tool("e2fsck")).args(["-p", disk]),
            &[0, 1],
        )?;
        tool("e2fsck", ["-fn", disk])?;
        let kept = place.path().join("kept");
        expect_files(disk, &kept, synced).with_context(|| disk.clone())?;
        fs::remove_dir_all(kept)?;
    }
    Ok(())
}

/// The highest file that the guest said is there; what it was saying when it died may be cut.
fn last_synced(console: &str) -> Result<u32> {
    let said = console.split("synced ").skip(1);
    let numbers = said.filter_map(|rest| rest.split_once('.')?.0.parse().ok());
    numbers.max().context("nothing was synced")
}

/// Every file up to `last` is whole.
fn expect_files(disk: &str, copy: &Path, last: u32) -> Result<()> {
    fs::create_dir(copy)?;
    let dump = format!("rdump /kept {}", copy.display());
    output(Command::new(assets().tool("debugfs")).args(["-R", &dump, disk]))?;
    for number in 1..=last {
        let file = copy.join("kept").join(number.to_string());
        let found = fs::read(&file).with_context(|| format!("file {number} is lost"))?;
        let line = format!("file {number}\n");
        let meant: Vec<u8> = line.bytes().cycle().take(BYTES).collect();
        ensure!(
            found == meant,
            "file {number} has {} bytes, and not those that were written",
            found.len()
        );
    }
    Ok(())
}
