//! A daemon that dies while it makes a volume or writes a pool: the next one finds all or nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::call::{
    PoolFilter, PoolGet, PoolList, PoolStart, PoolUndefine, VolumeCreate, VolumeGet, VolumeList,
};
use reeve_ipc::api::storage::{PoolState, VolumeJob};
use reeve_ipc::model::{NewVolume, Qcow2Options};
use reeve_ipc::spec::DiskFormat;

use super::{Stage, define, get, named, volume};

fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.collect()
}

fn make(name: &str) -> VolumeCreate {
    VolumeCreate {
        pool: named("images"),
        volume: Box::new(NewVolume {
            format: DiskFormat::Qcow2,
            qcow2: Qcow2Options::default(),
            ..NewVolume::raw(name.parse().unwrap(), 1 << 20)
        }),
        preallocate_metadata: false,
    }
}

#[test]
fn a_volume_is_there_whole_or_not_at_all_wherever_the_daemon_dies() -> Result<()> {
    let points = reeved::crash::names().filter(|name| name.starts_with("volume-create."));
    let points: Vec<String> = points.collect();
    ensure!(points.len() == 5, "{points:?}");
    for point in points {
        let mut stage = Stage::prepare()?;
        stage.daemon.set("REEVE_CRASH", &point);
        stage.daemon.spawn()?;
        let (mut connection, pool) = stage.with_pool("images")?;
        ensure!(connection.call(make("disk")).is_err(), "{point}: it dies");
        stage.daemon.wait_for_end()?;
        stage.daemon.set("REEVE_CRASH", "");
        stage.daemon.spawn()?;
        let mut connection = stage.daemon.connect()?;
        let made = point.ends_with("after-rename") || point.ends_with("before-answer");
        let left = entries(&pool.target);
        match made {
            true => {
                ensure!(left == ["disk"], "{point}: {left:?}");
                super::judged(&pool.target.join("disk"))?;
            }
            false => ensure!(left.is_empty(), "{point}: {left:?}"),
        }
        let marks = entries(&stage.daemon.state().join("unfinished"));
        ensure!(marks.is_empty(), "{point}: {marks:?}");
        let page = connection.call(VolumeList {
            pool: named("images"),
            after: None,
        })?;
        ensure!(page.volumes.len() == usize::from(made), "{point}: {page:?}");
        if !made {
            connection.call(make("disk"))?;
        }
    }
    Ok(())
}

#[test]
fn a_pool_is_kept_and_forgotten_wherever_the_daemon_dies() -> Result<()> {
    let points = reeved::crash::names().filter(|name| name.starts_with("pool-"));
    let points: Vec<String> = points.collect();
    for point in points {
        let mut stage = Stage::prepare()?;
        stage.daemon.set("REEVE_CRASH", &point);
        stage.daemon.spawn()?;
        let mut connection = stage.daemon.connect()?;
        let pool = stage.pool("images");
        let mut steps = 0;
        let mut go_on = || -> Result<()> {
            define(&mut connection, &pool)?;
            steps = 1;
            let build = true;
            connection.call(PoolStart {
                pool: named("images"),
                build,
            })?;
            steps = 2;
            connection.call(reeve_ipc::api::call::PoolStop {
                pool: named("images"),
            })?;
            steps = 3;
            connection.call(PoolUndefine {
                pool: named("images"),
            })?;
            steps = 4;
            Ok(())
        };
        ensure!(go_on().is_err(), "{point}: nothing comes to it");
        stage.daemon.wait_for_end()?;
        stage.daemon.set("REEVE_CRASH", "");
        stage.daemon.spawn()?;
        let mut connection = stage.daemon.connect()?;
        let filter = PoolFilter::default();
        let page = connection.call(PoolList {
            after: None,
            filter,
        })?;
        let there = page.pools.first();
        // What was answered holds; what was not is done or not.
        match steps {
            0 => {}
            1 => ensure!(there.is_some(), "{point}"),
            2 => ensure!(
                there.is_some_and(|it| it.state == PoolState::Running),
                "{point}"
            ),
            3 => ensure!(
                there.is_none_or(|it| it.state == PoolState::Inactive),
                "{point}"
            ),
            _ => ensure!(there.is_none(), "{point}"),
        }
        if there.is_some_and(|it| it.state.is_active()) {
            let details = connection.call(PoolGet {
                pool: named("images"),
            })?;
            ensure!(details.sizes.is_some(), "{point}");
            connection.call(reeve_ipc::api::call::PoolStop {
                pool: named("images"),
            })?;
        }
        define(&mut connection, &pool)?;
    }
    Ok(())
}

#[test]
fn a_volume_that_is_being_made_is_shown_with_what_it_has_and_goes_with_its_daemon() -> Result<()> {
    let mut stage = Stage::start()?;
    let (mut connection, pool) = stage.with_pool("images")?;
    // Copying this takes a while: there are no holes in it.
    let whole = pool.target.join("whole");
    std::fs::write(&whole, vec![1; 192 << 20])?;
    get(&mut connection, "images", "whole")?;
    let mut cloning = stage
        .daemon
        .reeve_command(&[
            "volume", "clone", "images", "whole", "copy", "--format", "qcow2",
        ])?
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut seen = Vec::new();
    loop {
        let copy = connection.call(VolumeGet {
            volume: volume("images", "copy"),
        });
        if let Ok(copy) = copy {
            if copy.job != Some(VolumeJob::Building) {
                break;
            }
            seen.push(copy.allocation);
            if seen.len() == 1 {
                let busy = connection.call(make("copy"));
                let busy = busy.err().context("it is being built")?;
                ensure!(busy.to_string().contains("being built"), "{busy}");
            }
            if copy.allocation > 8 << 20 {
                break;
            }
        }
        ensure!(Instant::now() < deadline, "{seen:?}");
    }
    ensure!(!seen.is_empty() && seen.is_sorted(), "it grows: {seen:?}");
    stage.daemon.kill()?;
    cloning.wait()?;
    stage.daemon.spawn()?;
    let left = entries(&pool.target);
    let unfinished = left.iter().filter(|name| name.starts_with('.')).count();
    ensure!(unfinished == 0, "{left:?}");
    Ok(())
}
