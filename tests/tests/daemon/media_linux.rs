//! Sizes and media of disks as stock Linux sees them, in the lab.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reeve_tests::lab::assets::drivers;
use reeve_tests::leftovers::Snapshot;
use reeve_tests::reeve::Reeve;

use super::linux::{Host, NAME};

const SHELL: Duration = Duration::from_secs(60);

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

/// Waits until a disk has so many sectors: a kernel worker hears of it.
fn wait_for_size(console: &mut Reeve, disk: &str, sectors: u64) -> Result<()> {
    let line = format!(
        "n=0; until [ $(cat /sys/block/{disk}/size) = {sectors} ] || [ $n = 300 ]; do sleep 0.1; n=$((n+1)); \
         done; cat /sys/block/{disk}/size"
    );
    let size = run(console, &line)?;
    ensure!(size == sectors.to_string(), "{disk} has {size} sectors");
    Ok(())
}

#[reeve_tests::in_lab(timeout = "600s", root)]
fn linux_sees_a_disk_grow_under_its_file_system_and_media_come_and_go() -> Result<()> {
    let before = Snapshot::take();
    let mut paths: Vec<PathBuf> = Vec::new();
    let host = Host::with(&drivers(&["virtio_blk"]), |directory| {
        for (name, byte) in [("data", 0), ("first", b'1'), ("second", b'2')] {
            let path = directory.join(name);
            let file = File::create(&path)?;
            file.set_len(16 << 20)?;
            file.write_all_at(&[byte; 4096], 0)?;
            paths.push(path);
        }
        Ok(format!(
            "[[disk]]\ntarget = \"vda\"\npath = {:?}\nformat = \"raw\"\n\
             [[disk]]\ntarget = \"vdb\"\npath = {:?}\nformat = \"raw\"\nread-only = true\nremovable = true\n",
            paths[0], paths[1]
        ))
    })?;
    let mut console = host.boot()?;
    wait_for_size(&mut console, "vda", 32_768)?;
    // A writer that does not stop meanwhile.
    run(
        &mut console,
        "( (while [ ! -e /tmp/stop ]; do \
         dd if=/dev/zero of=/dev/vda bs=64k count=64 conv=notrunc 2>/dev/null; done) & )",
    )?;
    host.daemon.reeve(&["resize", NAME, "vda", "64M"])?;
    wait_for_size(&mut console, "vda", 131_072)?;
    run(
        &mut console,
        "echo beyond | dd of=/dev/vda bs=1M seek=63 conv=sync,notrunc 2>/dev/null && sync",
    )?;
    run(&mut console, "touch /tmp/stop")?;
    let mut bytes = [0; 6];
    File::open(&paths[0])?.read_exact_at(&mut bytes, 63 << 20)?;
    ensure!(&bytes == b"beyond", "{bytes:?}");

    let first = "dd if=/dev/vdb bs=4k count=1 2>/dev/null | tr -d '\\n' | cut -c1";
    ensure!(run(&mut console, first)? == "1", "the first medium");
    host.daemon
        .reeve(&["change-media", NAME, "vdb", "--eject"])?;
    wait_for_size(&mut console, "vdb", 0)?;
    let insert = format!("{},format=raw", paths[2].display());
    host.daemon
        .reeve(&["change-media", NAME, "vdb", "--insert", &insert])?;
    wait_for_size(&mut console, "vdb", 32_768)?;
    ensure!(run(&mut console, first)? == "2", "the second medium");
    drop(console);
    host.shut_down()?;
    drop(host);
    before.assert_nothing_new(SHELL);
    Ok(())
}
