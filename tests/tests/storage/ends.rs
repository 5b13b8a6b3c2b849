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
    let threads = std::fs::read_dir(format!("/proc/{daemon}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let children = threads.flat_map(|thread| {
        // A thread may end meanwhile.
        let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        let each = children.split_whitespace().map(str::to_owned);
        each.collect::<Vec<_>>()
    });
    let is_worker = |pid: &String| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|it| it == IMAGE_WORKER.to_bytes())
    };
    let mut found: Vec<u32> = children
        .filter(is_worker)
        .filter_map(|pid| pid.parse().ok())
        .collect();
    found.sort_unstable();
    found
}

/// Runs a command whose process for images is held up as soon as it is there, and again where the command was done
/// before that.
fn held_up(
    stage: &Stage,
    arguments: &[&str],
    mut before: impl FnMut() -> Result<()>,
) -> Result<(Child, u32)> {
    let daemon = stage.daemon.pid().context("a daemon")?;
    for _ in 0..50 {
        before()?;
        let mut client = stage.daemon.reeve_command(arguments)?.spawn()?;
        while client.try_wait()?.is_none() {
            let Some(pid) = image_workers(daemon).first().copied() else {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            if signal(pid, Signal::STOP).is_err() {
                continue;
            }
            // One that has done what it was asked is ended all the same.
            let settled = Instant::now() + Duration::from_millis(500);
            while image_workers(daemon).contains(&pid) {
                if Instant::now() >= settled {
                    return Ok((client, pid));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    anyhow::bail!("it is always done before its process is held up")
}

#[test]
fn a_process_that_hangs_ends_with_its_client_or_by_a_stop() -> Result<()> {
    let stage = Stage::start()?;
    let (mut connection, pool) = stage.with_pool("images")?;
    let daemon = stage.daemon.pid().context("a daemon")?;
    // No block of it is zeros.
    let content = b"content ".repeat(16 << 20);
    let write = || Ok(std::fs::write(pool.target.join("disk"), &content)?);
    write()?;
    ensure!(get(&mut connection, "images", "disk")?.physical == 128 << 20);
    let of = || named("images");

    // A copy is given up when its client goes, and what it was made of is free again.
    let clone = [
        "volume", "clone", "images", "disk", "copy", "--format", "qcow2",
    ];
    let (mut client, _) = held_up(&stage, &clone, || {
        // What was made before it could be held up.
        let copy = pool.target.join("copy");
        match copy.exists() {
            true => stage
                .daemon
                .reeve(&["volume", "delete", "images", "copy"])
                .map(drop),
            false => Ok(()),
        }
    })?;
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
    let (mut client, held) = held_up(&stage, &wipe, write)?;
    ensure!(refused(connection.call(PoolStop { pool: of() })) == ApiErrorCode::Busy);
    client.kill()?;
    client.wait()?;
    std::thread::sleep(Duration::from_millis(100));
    ensure!(image_workers(daemon) == [held], "it goes on");
    // As soon as it is known that the client has gone.
    until("the pool is not stopped", || {
        Ok(connection.call(PoolStop { pool: of() }).is_ok())
    })?;
    until("its process still runs", || {
        Ok(image_workers(daemon).is_empty())
    })?;
    let build = false;
    connection.call(PoolStart { pool: of(), build })?;
    ensure!(connection.call(PoolGet { pool: of() })?.summary.volumes == 1);
    Ok(())
}
