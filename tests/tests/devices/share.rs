//! Shared directories: files go both ways, their owner is who it should be, and what serves them leaves
//! the guest alone when it dies.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reeve_tests::lab::assets;
use reeve_tests::reeve::Builder;
use reeve_tests::tool::md5;

use super::guest::{Guest, SOON};

/// Whoever owns the directories.
const OWNER: u32 = 1000;

fn directory() -> Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    chown(directory.path(), Some(OWNER), Some(OWNER))?;
    Ok(directory)
}

fn sharing(builder: Builder, directory: &Path, more: &str) -> Builder {
    let program = assets().tool("virtiofsd").display().to_string();
    builder
        .arg("--share")
        .arg(format!("{},{more}", directory.display()))
        .arg("--virtiofsd")
        .arg(program)
}

/// The processes of that name, as `ps` has it.
fn processes(name: &str) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim() == name {
            found.extend(entry.file_name().to_string_lossy().parse::<i32>());
        }
    }
    Ok(found)
}

fn nothing_is_left() -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        let left = [processes("virtiofsd")?, processes("reeve-jail")?].concat();
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "processes are left: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[reeve_tests::in_lab(timeout = "400s", root)]
fn a_directory_is_mounted_and_files_go_both_ways() -> Result<()> {
    let (shared, fixed) = (directory()?, directory()?);
    let path = |name: &str| shared.path().join(name);
    fs::write(path("from-host"), "written by the host\n")?;
    chown(path("from-host"), Some(OWNER), Some(OWNER))?;
    fs::write(fixed.path().join("only"), "to be read")?;
    let mut guest = Guest::small(&["virtiofs"], |builder| {
        let builder = sharing(builder, shared.path(), "tag=host");
        builder
            .arg("--share")
            .arg(format!("{},tag=fixed,ro", fixed.path().display()))
    })?;

    guest.run("mkdir /mnt /fixed && mount -t virtiofs host /mnt")?;
    let read = guest.run("cat /mnt/from-host && stat -c %u:%g /mnt/from-host")?;
    ensure!(read.lines().eq(["written by the host", "0:0"]), "{read}");
    guest.run("dd if=/dev/urandom of=/mnt/big bs=64k count=64 2>/dev/null && sync")?;
    let sum = guest.run("md5sum </mnt/big")?;
    ensure!(
        sum.starts_with(&md5(&path("big"))?),
        "what was written: {sum}"
    );
    let owner = fs::metadata(path("big"))?;
    ensure!((owner.uid(), owner.gid()) == (OWNER, OWNER), "{owner:?}");
    guest.run("mkdir /mnt/d && mv /mnt/big /mnt/d/moved && ln -s d/moved /mnt/link")?;
    ensure!(
        fs::metadata(path("link"))?.len() == 4 << 20,
        "through a link"
    );
    fs::write(path("d/later"), "written while it runs")?;
    let later = guest.run("cat /mnt/d/later && ls /mnt")?;
    ensure!(
        later
            .split_whitespace()
            .eq("written while it runsd from-host link".split_whitespace()),
        "{later}"
    );
    // A link that leads out leads to a place in the guest.
    std::os::unix::fs::symlink("/etc/passwd", path("out"))?;
    let out = guest.run("cat /mnt/out 2>&1 || true")?;
    ensure!(!out.contains("root:"), "{out}");
    guest.run("rm -r /mnt/d /mnt/link /mnt/out && umount /mnt")?;
    ensure!(
        fs::read_dir(shared.path())?.count() == 1,
        "one file is left"
    );

    guest.run("mount -t virtiofs fixed /fixed && grep -q read /fixed/only")?;
    let refused = guest.run("touch /fixed/new 2>&1 || true")?;
    ensure!(refused.contains("Read-only file system"), "{refused}");
    guest.run("umount /fixed")?;
    ensure!(processes("virtiofsd")?.len() == 2, "a process for each");
    guest.shut_down()?;
    nothing_is_left()
}

#[reeve_tests::in_lab(timeout = "400s", root)]
fn a_guest_that_is_reset_mounts_again() -> Result<()> {
    let shared = directory()?;
    let mut guest = Guest::small(&["virtiofs"], |builder| {
        sharing(builder, shared.path(), "tag=host")
    })?;
    guest.run("mkdir /mnt && mount -t virtiofs host /mnt && echo 1 >/mnt/first && sync")?;
    guest.reset()?;
    guest.run(
        "mkdir /mnt && mount -t virtiofs host /mnt && cat /mnt/first && echo 2 >/mnt/second",
    )?;
    guest.run("umount /mnt")?;
    ensure!(
        fs::read_to_string(shared.path().join("second"))? == "2\n",
        "written"
    );
    guest.shut_down()?;
    nothing_is_left()
}

#[reeve_tests::in_lab(timeout = "400s", root)]
fn the_death_of_what_serves_it_leaves_the_guest_alive() -> Result<()> {
    let shared = directory()?;
    let mut guest = Guest::small(&["virtiofs"], |builder| {
        sharing(builder, shared.path(), "tag=host").arg("-v")
    })?;
    guest.run("mkdir /mnt && mount -t virtiofs host /mnt && echo 1 >/mnt/first")?;
    for pid in processes("virtiofsd")? {
        let pid = rustix::process::Pid::from_raw(pid);
        let pid = pid.ok_or_else(|| anyhow::anyhow!("no pid"))?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    }
    nothing_is_left()?;
    ensure!(guest.run("echo alive")? == "alive", "the guest");
    guest.reeve.expect_error("its back end is gone", SOON)?;
    // What waits for it waits, an orderly shutdown too; the machine can be ended as any.
    guest.control.order("destroy")?;
    ensure!(guest.reeve.wait(SOON)?.code() == Some(0), "destroyed");
    Ok(())
}
