//! What somebody else put into a pool's directory, and a file system that is full.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reeve_ipc::api::call::{
    PoolGet, PoolRefresh, PoolStart, VolumeCreate, VolumeDelete, VolumeDownload, VolumeGet,
    VolumeList, VolumeUpload,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::model::{NewVolume, UNFINISHED_PREFIX};

use super::{Stage, define, get, named, refused, volume};

#[test]
fn a_directory_full_of_traps_is_read_and_leads_nowhere() -> Result<()> {
    let stage = Stage::start()?;
    let (mut connection, pool) = stage.with_pool("images")?;
    let path = |name: &str| pool.target.join(name);
    let secret = stage.directory.path().join("secret");
    std::fs::write(&secret, "nobody's business")?;
    std::fs::write(path("disk"), [0; 4096])?;
    symlink(&secret, path("out"))?;
    symlink("../../secret", path("up"))?;
    symlink("/proc/self/environ", path("magic"))?;
    symlink("nowhere", path("dangling"))?;
    symlink("loop", path("loop"))?;
    symlink("disk", path("within"))?;
    let fifo = std::process::Command::new("mkfifo")
        .arg(path("fifo"))
        .status()?;
    ensure!(fifo.success());
    let _socket = std::os::unix::net::UnixListener::bind(path("socket"))?;
    std::fs::write(path("new\nline"), "")?;
    std::fs::write(path(" "), "")?;
    std::fs::write(pool.target.join(std::ffi::OsStr::from_bytes(b"\xff")), "")?;
    std::fs::write(path(&format!("{UNFINISHED_PREFIX}1")), "")?;
    let begin = Instant::now();
    connection.call(PoolRefresh {
        pool: named("images"),
    })?;
    ensure!(
        begin.elapsed() < Duration::from_secs(10),
        "nothing is waited for"
    );
    let page = connection.call(VolumeList {
        pool: named("images"),
        after: None,
    })?;
    let names: Vec<_> = page.volumes.iter().map(|it| it.name.as_str()).collect();
    ensure!(names == ["disk", "within"], "{names:?}");
    let details = connection.call(PoolGet {
        pool: named("images"),
    })?;
    ensure!(details.passed_over == 10, "{details:?}");
    for name in ["out", "up", "magic", "dangling", "loop", "fifo", "socket"] {
        let of = || volume("images", name);
        let asked = [
            refused(connection.call(VolumeGet { volume: of() })),
            refused(connection.call(VolumeDownload {
                volume: of(),
                offset: 0,
                length: 0,
            })),
            refused(connection.call(VolumeUpload {
                volume: of(),
                offset: 0,
                length: 0,
            })),
            refused(connection.call(VolumeDelete {
                volume: of(),
                zeroed: true,
            })),
        ];
        ensure!(asked == [ApiErrorCode::NoVolume; 4], "{name}: {asked:?}");
        let make = VolumeCreate {
            pool: named("images"),
            volume: Box::new(NewVolume::raw(name.parse()?, 512)),
            preallocate_metadata: false,
        };
        let made = refused(connection.call(make));
        ensure!(made == ApiErrorCode::VolumeExists, "{name}: {made:?}");
    }
    let own = format!("{UNFINISHED_PREFIX}2");
    let make = VolumeCreate {
        pool: named("images"),
        volume: Box::new(NewVolume::raw(own.parse()?, 512)),
        preallocate_metadata: false,
    };
    ensure!(refused(connection.call(make)) == ApiErrorCode::InvalidArgument);
    // A name that is known, behind which there is a link now.
    std::fs::remove_file(path("disk"))?;
    symlink(&secret, path("disk"))?;
    let download = VolumeDownload {
        volume: volume("images", "disk"),
        offset: 0,
        length: 0,
    };
    ensure!(refused(connection.call(download)) == ApiErrorCode::PathRefused);
    let wipe = stage.daemon.reeve(&["volume", "wipe", "images", "disk"]);
    ensure!(wipe.is_err());
    ensure!(std::fs::read(&secret)? == b"nobody's business");
    // And the directory itself.
    std::fs::rename(&pool.target, stage.allowed().join("aside"))?;
    symlink(stage.directory.path(), &pool.target)?;
    ensure!(
        refused(connection.call(PoolRefresh {
            pool: named("images")
        })) == ApiErrorCode::PathRefused
    );
    let make = VolumeCreate {
        pool: named("images"),
        volume: Box::new(NewVolume::raw("planted".parse()?, 512)),
        preallocate_metadata: false,
    };
    ensure!(refused(connection.call(make)) == ApiErrorCode::PathRefused);
    ensure!(!stage.directory.path().join("planted").exists());
    Ok(())
}

#[test]
fn a_pool_of_very_many_volumes_is_listed_and_one_process_reads_many_of_them() -> Result<()> {
    const MANY: usize = 16_384;
    let stage = Stage::start()?;
    let mut connection = stage.daemon.connect()?;
    let pool = stage.pool("images");
    std::fs::create_dir(&pool.target)?;
    for number in 0..MANY {
        std::fs::write(
            pool.target.join(format!("v{number:05}")),
            b"QFI\xfb\0\0\0\x03",
        )?;
    }
    define(&mut connection, &pool)?;
    let build = false;
    connection.call(PoolStart {
        pool: named("images"),
        build,
    })?;
    let mut names = Vec::new();
    loop {
        let after = names.last().cloned();
        let page = connection.call(VolumeList {
            pool: named("images"),
            after,
        })?;
        ensure!(page.volumes.iter().all(|it| it.format.word() == "qcow2"));
        names.extend(page.volumes.into_iter().map(|it| it.name));
        if !page.more {
            break;
        }
    }
    ensure!(names.len() == MANY && names.is_sorted(), "{}", names.len());
    // What has not changed is not read again.
    let begin = Instant::now();
    connection.call(PoolRefresh {
        pool: named("images"),
    })?;
    let details = connection.call(PoolGet {
        pool: named("images"),
    })?;
    ensure!(details.summary.volumes == u32::try_from(MANY)?, "{begin:?}");
    Ok(())
}

struct Mount(std::path::PathBuf);

impl Mount {
    fn tmpfs(at: &std::path::Path, options: &str) -> Result<Self> {
        std::fs::create_dir_all(at)?;
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "reeve-test"])
            .arg(at)
            .status()?;
        ensure!(status.success(), "{status}");
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

#[test]
fn a_full_file_system_refuses_a_volume_and_keeps_nothing_of_it() -> Result<()> {
    let stage = Stage::start()?;
    let mut connection = stage.daemon.connect()?;
    let pool = stage.pool("images");
    let _mount = Mount::tmpfs(&pool.target, "size=4m")?;
    define(&mut connection, &pool)?;
    let build = true;
    let started = connection.call(PoolStart {
        pool: named("images"),
        build,
    })?;
    ensure!(started.volumes == 0);
    let sizes = connection
        .call(PoolGet {
            pool: named("images"),
        })?
        .sizes;
    ensure!(
        sizes.is_some_and(|sizes| sizes.capacity == 4 << 20),
        "{sizes:?}"
    );
    let make = |name: &str, allocation| VolumeCreate {
        pool: named("images"),
        volume: Box::new(NewVolume {
            allocation,
            ..NewVolume::raw(name.parse().unwrap(), 8 << 20)
        }),
        preallocate_metadata: false,
    };
    let full = refused(connection.call(make("full", Some(8 << 20))));
    ensure!(full == ApiErrorCode::NoSpace, "{full:?}");
    ensure!(
        std::fs::read_dir(&pool.target)?.count() == 0,
        "nothing is left"
    );
    connection.call(make("sparse", None))?;
    let source = pool.target.join("sparse");
    std::fs::write(&source, vec![1; 3 << 20])?;
    let copy = stage
        .daemon
        .reeve(&["volume", "clone", "images", "sparse", "copy"]);
    ensure!(copy.unwrap_err().to_string().contains("No space left"));
    ensure!(
        std::fs::read_dir(&pool.target)?.count() == 1,
        "nothing is left"
    );
    ensure!(get(&mut connection, "images", "sparse")?.physical == 3 << 20);
    Ok(())
}

#[test]
fn who_may_only_look_looks() -> Result<()> {
    // The rights of every call are in one table (`supervisor/tests/api/calls.rs`); here what a reader is shown.
    let stage = Stage::start()?;
    let (mut connection, _) = stage.with_pool("images")?;
    let listed = stage.daemon.reeve(&["--json", "pool", "list"])?;
    let listed: serde_json::Value = serde_json::from_str(&listed)?;
    ensure!(listed[0]["name"] == "images" && listed[0]["state"] == "running");
    for command in ["refresh", "autostart"] {
        let done = stage.daemon.reeve(&["--json", "pool", command, "images"])?;
        let done: serde_json::Value = serde_json::from_str(&done)?;
        ensure!(done["name"] == "images" && done["result"] == "ok", "{done}");
    }
    let info = stage.daemon.reeve(&["--json", "pool", "info", "images"])?;
    let info: serde_json::Value = serde_json::from_str(&info)?;
    ensure!(info["capacity_bytes"].as_u64().is_some(), "{info}");
    let output = stage
        .daemon
        .reeve_command(&["--json", "volume", "info", "images", "none"])?
        .output()?;
    let error: serde_json::Value = serde_json::from_slice(&output.stderr)?;
    ensure!(error["error"]["code"] == "no-volume", "{error}");
    ensure!(get(&mut connection, "images", "none").is_err());
    Ok(())
}
