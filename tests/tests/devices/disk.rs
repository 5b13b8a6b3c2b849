//! Disks: file systems and checksums across a guest's life, as the guest and the host see them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use reeve_tests::lab::assets;
use reeve_tests::tool::{md5, tool};

use super::guest::Guest;

/// A raw disk with a file system, one that is read-only, and one that takes discards.
#[reeve_tests::in_lab(timeout = "300s", root)]
fn raw_disks_are_read_written_and_discarded_by_a_stock_driver() -> Result<()> {
    let place = tempfile::tempdir()?;
    let path = |name: &str| place.path().join(name).display().to_string();
    let [data, fixed, full] = ["data", "fixed", "full"].map(path);
    fs::File::create(&data)?.set_len(64 << 20)?;
    tool("mke2fs", ["-q", "-t", "ext4", &data])?;
    let known: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    fs::write(&fixed, &known)?;
    fs::write(&full, vec![0xa5; 4 << 20])?;
    ensure!(allocated(&full)? == 4 << 20, "the disk to discard is full");

    let mut guest = Guest::small(&["virtio_blk"], |builder| {
        builder
            .arg("--disk")
            .arg(format!("{data},format=raw"))
            .arg("--disk")
            .arg(format!("{fixed},format=raw,ro,serial=FIXED-1"))
            .arg("--disk")
            .arg(format!("{full},format=raw,discard=unmap"))
    })?;
    ensure!(guest.run("cat /sys/block/vda/size")? == "131072", "size");
    ensure!(
        guest.run("cat /sys/block/vdb/serial")? == "FIXED-1",
        "serial"
    );
    ensure!(
        guest
            .run("cat /sys/block/vda/ro /sys/block/vdb/ro")?
            .split_whitespace()
            .eq(["0", "1"]),
        "ro"
    );
    let sum = guest.run("md5sum </dev/vdb")?;
    ensure!(
        sum.starts_with(&md5(Path::new(&fixed))?),
        "what is read: {sum}"
    );

    guest.run("mkdir /mnt && mount -t ext4 /dev/vda /mnt")?;
    guest.run("dd if=/dev/urandom of=/mnt/x bs=64k count=128 2>/dev/null")?;
    let written = guest.run("md5sum </mnt/x")?;
    guest.run("umount /mnt && blkdiscard -o 0 -l 3145728 /dev/vdc")?;
    ensure!(allocated(&full)? == 1 << 20, "3 MiB are discarded");
    let zeroes = guest.run("dd if=/dev/vdc bs=64k count=48 2>/dev/null | tr -d '\\0' | wc -c")?;
    ensure!(
        zeroes == "0",
        "{zeroes} bytes of what is discarded are not zero"
    );
    guest.shut_down()?;

    tool("e2fsck", ["-fn", &data])?;
    let copy = path("copy");
    tool("debugfs", ["-R", &format!("dump /x {copy}"), &data])?;
    ensure!(
        fs::metadata(&copy)?.len() == 8 << 20,
        "the size of what was written"
    );
    ensure!(
        written.starts_with(&md5(Path::new(&copy))?),
        "what was written: {written}"
    );
    ensure!(fs::read(&fixed)? == known, "a read-only disk has changed");
    Ok(())
}

/// The whole of a system's life on a disk that is an overlay.
#[reeve_tests::in_lab(timeout = "600s", root)]
fn debian_boots_from_a_qcow2_overlay_and_leaves_it_clean() -> Result<()> {
    let place = tempfile::tempdir()?;
    let path = |name: &str| place.path().join(name).display().to_string();
    let [image, raw] = ["overlay", "raw"].map(path);
    let disk = overlay(&image, &assets().disk.display().to_string())?;
    let mut guest = Guest::debian(|builder| builder.arg("--disk").arg(disk))?;
    let console = guest.reeve.output();
    ensure!(console.contains("login: "), "{console}");
    let root = guest.run("grep ' / ' /proc/mounts")?;
    ensure!(root.starts_with("/dev/vda / ext4 rw"), "{root}");
    let job = "fio --name=v --filename=/var/tmp/v --size=4M --bs=4k --rw=randwrite --direct=1 \
        --ioengine=libaio --iodepth=8 --verify=crc32c --minimal >/dev/null";
    guest.run(job)?;
    let sum = guest.run("md5sum </var/tmp/v")?;
    guest.shut_down()?;

    tool("qemu-img", ["check", "-q", &image])?;
    tool("qemu-img", ["convert", "-O", "raw", &image, &raw])?;
    tool("e2fsck", ["-fn", &raw])?;
    let copy = path("copy");
    tool("debugfs", ["-R", &format!("dump /var/tmp/v {copy}"), &raw])?;
    ensure!(
        sum.starts_with(&md5(Path::new(&copy))?),
        "what fio wrote: {sum}"
    );
    Ok(())
}

/// Makes a qcow2 image on top of a raw disk; gives what names it to `--disk`.
pub fn overlay(image: &str, base: &str) -> Result<String> {
    tool(
        "qemu-img",
        [
            "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, image,
        ],
    )?;
    Ok(format!(
        "{image},format=qcow2,backing={base},backing-format=raw"
    ))
}

/// Runs a program that says by its status what it found.
pub fn allowed_status(command: &mut Command, allowed: &[i32]) -> Result<()> {
    let output = command.output()?;
    let status = output.status.code();
    ensure!(
        status.is_some_and(|status| allowed.contains(&status)),
        "{command:?}: {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// How much of a file is not a hole.
fn allocated(path: &str) -> Result<u64> {
    Ok(fs::metadata(path)?.blocks() * 512)
}
