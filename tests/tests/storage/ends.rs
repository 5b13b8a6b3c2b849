//! Work on volumes whose processes hang, ended with its client or by a stop of the pool.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::call::{PoolGet, PoolStart, PoolStop, VolumeGet};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::image::IMAGE_WORKER;
use reeve_tests::daemon::signal;
use rustix::process::Signal;

use super::{Stage, get, named, refused};

const SOON: Duration = Duration::from_secs(20);

fn until(what: &str, mut is: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while !is()? {
        ensure!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The processes of a daemon that handle images.
fn image_workers(daemon: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse().ok()) else {
            continue;
        };
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file));
        let (Ok(line), Ok(status)) = (read("cmdline"), read("status")) else {
            continue;
        };
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        let is_child = parent.is_some_and(|parent| parent.trim() == daemon.to_string());
        if is_child
            && line
                .split('\0')
                .any(|it| it.as_bytes() == IMAGE_WORKER.to_bytes())
        {
            found.push(pid);
        }
    }
    found
}

/// Runs a command whose process for images is held up as soon as it is there.
fn held_up(stage: &Stage, arguments: &[&str]) -> Result<(Child, u32)> {
    let daemon = stage.daemon.pid().context("a daemon")?;
    let mut client = stage.daemon.reeve_command(arguments)?.spawn()?;
    let mut held = None;
    until("no process handles the image", || {
        held = image_workers(daemon).first().copied();
        if let Some(pid) = held {
            // One that has done what it was asked ends all the same, and another one comes.
            let stopped = signal(pid, Signal::STOP).is_ok();
            std::thread::sleep(Duration::from_millis(50));
            held = held.filter(|pid| stopped && image_workers(daemon).contains(pid));
        }
        ensure!(held.is_some() || client.try_wait()?.is_none(), "it is done");
        Ok(held.is_some())
    })?;
    Ok((client, held.context("a process")?))
}

#[test]
fn a_process_that_hangs_ends_with_its_client_or_by_a_stop() -> Result<()> {
    let stage = Stage::start()?;
    let (mut connection, pool) = stage.with_pool("images")?;
    let daemon = stage.daemon.pid().context("a daemon")?;
    // No block of it is zeros.
    let content = b"content ".repeat(8 << 20);
    std::fs::write(pool.target.join("disk"), &content)?;
    ensure!(get(&mut connection, "images", "disk")?.physical == 64 << 20);
    let of = || named("images");

    // A copy is given up when its client goes, and what it was made of is free again.
    let clone = [
        "volume", "clone", "images", "disk", "copy", "--format", "qcow2",
    ];
    let (mut client, _) = held_up(&stage, &clone)?;
    ensure!(refused(connection.call(PoolStop { pool: of() })) == ApiErrorCode::Busy);
    client.kill()?;
    client.wait()?;
    until("its process still runs", || {
        Ok(image_workers(daemon).is_empty())
    })?;
    until("something is left of it", || {
        Ok(std::fs::read_dir(&pool.target)?.count() == 1)
    })?;
    until("the copy is not forgotten", || {
        let volume = super::volume("images", "copy");
        let asked = connection.call(VolumeGet { volume });
        Ok(asked.is_err() && get(&mut connection, "images", "disk")?.job.is_none())
    })?;
    stage
        .daemon
        .reeve(&["volume", "clone", "images", "disk", "copy"])?;
    stage
        .daemon
        .reeve(&["volume", "delete", "images", "copy"])?;

    // What changes a volume goes on without its client, until the pool is stopped.
    let wipe = ["volume", "wipe", "images", "disk"];
    let (mut client, held) = held_up(&stage, &wipe)?;
    ensure!(refused(connection.call(PoolStop { pool: of() })) == ApiErrorCode::Busy);
    client.kill()?;
    client.wait()?;
    std::thread::sleep(Duration::from_millis(100));
    ensure!(image_workers(daemon) == [held], "it goes on");
    connection.call(PoolStop { pool: of() })?;
    until("its process still runs", || {
        Ok(image_workers(daemon).is_empty())
    })?;
    let build = false;
    connection.call(PoolStart { pool: of(), build })?;
    ensure!(connection.call(PoolGet { pool: of() })?.summary.volumes == 1);
    Ok(())
}
