//! Storage pools and volumes as their clients see them: a real `reeved`, its command line and native clients, and
//! qemu-img as the judge of what it writes.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "storage/crash.rs"]
mod crash;
#[path = "storage/ends.rs"]
mod ends;
#[path = "storage/hostile.rs"]
mod hostile;
#[path = "storage/packaged.rs"]
mod packaged;
#[path = "storage/streams.rs"]
mod streams;
#[path = "storage/use_by_domains.rs"]
mod use_by_domains;
#[path = "storage/volumes.rs"]
mod volumes;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::api::call::{
    PoolAutostartSet, PoolBuild, PoolCreate, PoolDefine, PoolDelete, PoolFilter, PoolGet, PoolList,
    PoolRef, PoolRefresh, PoolStart, PoolStop, PoolUndefine, SupervisorInfoGet, VolumeGet,
    VolumeRef,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::event::{Event, PoolEventKind};
use reeve_ipc::api::storage::{PoolState, Volume};
use reeve_ipc::model::{Permissions, Pool, PoolUuid};
use reeve_tests::daemon::Daemon;
use uuid::Uuid;

/// A daemon whose one allowed directory is its own.
struct Stage {
    daemon: Daemon,
    directory: tempfile::TempDir,
}

impl Stage {
    fn start() -> Result<Self> {
        let mut stage = Self::prepare()?;
        stage.daemon.spawn()?;
        Ok(stage)
    }

    fn prepare() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("pools-").tempdir()?;
        let mut daemon = Daemon::prepare()?;
        let config = directory.path().join("reeve.toml");
        let allowed = directory.path().join("images");
        std::fs::create_dir(&allowed)?;
        let text = format!("libvirt = false\nallowed_directories = [{allowed:?}]\n");
        std::fs::write(&config, text)?;
        daemon.argument(&format!("--config={}", config.display()));
        Ok(Self { daemon, directory })
    }

    /// The allowed directory.
    fn allowed(&self) -> PathBuf {
        self.directory.path().join("images")
    }

    fn pool(&self, name: &str) -> Pool {
        Pool {
            name: name.parse().unwrap(),
            uuid: PoolUuid(Uuid::new_v4()),
            target: self.allowed().join(name),
            permissions: Permissions::default(),
        }
    }

    /// A connection, and an active pool of that name whose directory was made.
    fn with_pool(&self, name: &str) -> Result<(Connection, Pool)> {
        let mut connection = self.daemon.connect()?;
        let pool = self.pool(name);
        define(&mut connection, &pool)?;
        let build = true;
        connection.call(PoolStart {
            pool: named(name),
            build,
        })?;
        Ok((connection, pool))
    }
}

fn named(name: &str) -> PoolRef {
    PoolRef::Name(name.parse().unwrap())
}

fn volume(pool: &str, name: &str) -> VolumeRef {
    VolumeRef::Name {
        pool: named(pool),
        name: name.parse().unwrap(),
    }
}

fn define(connection: &mut Connection, pool: &Pool) -> Result<()> {
    connection.call(PoolDefine {
        pool: Box::new(pool.clone()),
        only_new: false,
    })?;
    Ok(())
}

fn get(connection: &mut Connection, pool: &str, name: &str) -> Result<Volume> {
    let volume = volume(pool, name);
    Ok(*connection.call(VolumeGet { volume })?)
}

/// The code of a refusal.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, CallError>) -> ApiErrorCode {
    let error = result.expect_err("a refusal");
    error.refused().map(|error| error.code).expect("a refusal")
}

fn qemu_img(arguments: &[&str], path: &Path) -> Result<String> {
    let mut command = Command::new("qemu-img");
    let output = command.args(arguments).arg(path).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{arguments:?}: {said} {output:?}");
    Ok(said)
}

/// What qemu-img says of an image that it finds no fault with.
fn judged(path: &Path) -> Result<serde_json::Value> {
    qemu_img(&["check", "-q", "-f", "qcow2"], path)?;
    let said = qemu_img(&["info", "-f", "qcow2", "--output=json"], path)?;
    serde_json::from_str(&said).context("what qemu-img says")
}

fn pool_events(connection: &mut Connection) -> Result<Vec<PoolEventKind>> {
    // What was told when this was asked comes before its answer.
    connection.call(SupervisorInfoGet {})?;
    let mut told = Vec::new();
    while let Some((_, event)) = connection.next_event(Some(Duration::from_millis(200)))? {
        if let Event::Pool(event) = event {
            told.push(event.kind);
        }
    }
    Ok(told)
}

#[test]
fn a_pool_lives_as_libvirts_do() -> Result<()> {
    let mut stage = Stage::start()?;
    let mut events = stage.daemon.connect()?;
    events.subscribe(None)?;
    let mut connection = stage.daemon.connect()?;
    let mut pool = stage.pool("images");
    pool.permissions.mode = Some(0o750);
    define(&mut connection, &pool)?;
    let of = || named("images");
    ensure!(refused(connection.call(PoolStop { pool: of() })) == ApiErrorCode::WrongState);
    ensure!(refused(connection.call(PoolRefresh { pool: of() })) == ApiErrorCode::WrongState);
    let build = false;
    ensure!(refused(connection.call(PoolStart { pool: of(), build })) == ApiErrorCode::Host);
    connection.call(PoolBuild { pool: of() })?;
    connection.call(PoolBuild { pool: of() })?;
    let mode = std::fs::metadata(&pool.target)?.permissions();
    ensure!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o7777 == 0o750);
    let summary = connection.call(PoolStart { pool: of(), build })?;
    ensure!(summary.state == PoolState::Running && summary.persistent);
    ensure!(refused(connection.call(PoolStart { pool: of(), build })) == ApiErrorCode::WrongState);
    ensure!(refused(connection.call(PoolUndefine { pool: of() })) == ApiErrorCode::WrongState);
    ensure!(refused(connection.call(PoolDelete { pool: of() })) == ApiErrorCode::WrongState);
    for by in [
        PoolRef::Uuid(pool.uuid),
        PoolRef::Target(pool.target.clone()),
        of(),
    ] {
        let details = connection.call(PoolGet { pool: by })?;
        let sizes = details.sizes.context("sizes")?;
        ensure!(sizes.capacity >= sizes.allocation && sizes.available <= sizes.capacity);
        ensure!(details.owner.context("owner")?.mode == 0o750);
    }

    // Redefined while it is active: from its next start on.
    let moved = Pool {
        target: stage.allowed().join("elsewhere"),
        ..pool.clone()
    };
    define(&mut connection, &moved)?;
    let details = connection.call(PoolGet { pool: of() })?;
    ensure!(details.pool == pool && details.next == Some(moved));
    define(&mut connection, &pool)?;

    // Nothing of it is another's.
    let mut other = stage.pool("other");
    other.target = pool.target.clone();
    let pool_of = |pool: &Pool| PoolDefine {
        pool: Box::new(pool.clone()),
        only_new: false,
    };
    ensure!(refused(connection.call(pool_of(&other))) == ApiErrorCode::PoolExists);
    other.target = stage.allowed().join("images/within");
    define(&mut connection, &other)?;
    other.uuid = PoolUuid(Uuid::new_v4());
    ensure!(refused(connection.call(pool_of(&other))) == ApiErrorCode::PoolExists);
    other.name = "renamed".parse()?;
    other.uuid = pool.uuid;
    ensure!(refused(connection.call(pool_of(&other))) == ApiErrorCode::PoolExists);
    connection.call(PoolUndefine {
        pool: named("other"),
    })?;
    let mut outside = stage.pool("outside");
    outside.target = "/var/tmp".into();
    ensure!(refused(connection.call(pool_of(&outside))) == ApiErrorCode::PathRefused);

    // What is active is so for the next daemon too, and what is not kept is gone when it is stopped.
    let transient = stage.pool("transient");
    connection.call(PoolCreate {
        pool: Box::new(transient.clone()),
        build: true,
    })?;
    let autostart = true;
    let set = |pool| PoolAutostartSet { pool, autostart };
    ensure!(refused(connection.call(set(named("transient")))) == ApiErrorCode::WrongState);
    connection.call(set(of()))?;
    std::fs::write(pool.target.join("found"), [0; 5000])?;
    stage.daemon.crash()?;
    let mut connection = stage.daemon.connect()?;
    let found = get(&mut connection, "images", "found")?;
    ensure!(
        (found.capacity, found.physical) == (5000, 5000),
        "{found:?}"
    );
    let list = |connection: &mut Connection, filter| -> Result<Vec<String>> {
        let after = None;
        let page = connection.call(PoolList { after, filter })?;
        let names = page.pools.iter().map(|pool| pool.name.to_string());
        Ok(names.collect())
    };
    let all = PoolFilter::default();
    ensure!(list(&mut connection, all)? == ["images", "transient"]);
    let kept = PoolFilter {
        persistent: Some(true),
        autostart: Some(true),
        active: Some(true),
    };
    ensure!(list(&mut connection, kept)? == ["images"]);
    connection.call(PoolStop {
        pool: named("transient"),
    })?;
    ensure!(list(&mut connection, all)? == ["images"]);
    let gone = connection.call(PoolGet {
        pool: named("transient"),
    });
    ensure!(refused(gone) == ApiErrorCode::NoPool);

    connection.call(PoolStop { pool: of() })?;
    ensure!(refused(connection.call(PoolDelete { pool: of() })) == ApiErrorCode::WrongState);
    std::fs::remove_file(pool.target.join("found"))?;
    connection.call(PoolDelete { pool: of() })?;
    ensure!(!pool.target.exists());
    connection.call(PoolUndefine { pool: of() })?;
    ensure!(list(&mut connection, all)?.is_empty());
    Ok(())
}

#[test]
fn what_happens_to_pools_is_told_in_one_stream_with_what_happens_to_domains() -> Result<()> {
    let stage = Stage::start()?;
    let mut events = stage.daemon.connect()?;
    let begin = events.subscribe(None)?.cursor;
    let (mut connection, pool) = stage.with_pool("images")?;
    stage
        .daemon
        .reeve(&["volume", "create", "images", "disk", "1M"])?;
    stage
        .daemon
        .reeve(&["volume", "delete", "images", "disk"])?;
    let of = || named("images");
    let autostart = true;
    connection.call(PoolAutostartSet {
        pool: of(),
        autostart,
    })?;
    connection.call(PoolRefresh { pool: of() })?;
    define(&mut connection, &pool)?;
    connection.call(PoolStop { pool: of() })?;
    connection.call(PoolDelete { pool: of() })?;
    connection.call(PoolUndefine { pool: of() })?;
    use PoolEventKind as K;
    let expected = [
        K::Defined { changed: false },
        K::Created,
        K::Started,
        K::Refreshed,
        K::Refreshed,
        K::Autostart { on: true },
        K::Refreshed,
        K::Defined { changed: true },
        K::Stopped,
        K::Deleted,
        K::Undefined,
    ];
    ensure!(pool_events(&mut events)? == expected);
    let mut again = stage.daemon.connect()?;
    ensure!(!again.subscribe(Some(begin))?.lost);
    ensure!(pool_events(&mut again)? == expected, "from where one was");
    let told = stage.daemon.reeve(&[
        "events",
        "--since",
        &format!("{}:{}", begin.epoch, begin.number),
        "--timeout",
        "1",
    ])?;
    ensure!(told.contains("pool images  started"), "{told}");
    Ok(())
}

#[test]
fn a_pool_that_starts_with_the_host_does_so_once_a_boot() -> Result<()> {
    let mut stage = Stage::start()?;
    let (mut connection, _) = stage.with_pool("images")?;
    let pool = || named("images");
    let autostart = true;
    connection.call(PoolAutostartSet {
        pool: pool(),
        autostart,
    })?;
    connection.call(PoolStop { pool: pool() })?;
    let state = |connection: &mut Connection| -> Result<PoolState> {
        Ok(connection.call(PoolGet { pool: pool() })?.summary.state)
    };
    stage.daemon.crash()?;
    ensure!(
        state(&mut stage.daemon.connect()?)? == PoolState::Inactive,
        "it was stopped"
    );
    stage.daemon.kill()?;
    // What a boot does.
    std::fs::remove_dir_all(stage.daemon.run())?;
    stage.daemon.spawn()?;
    let mut connection = stage.daemon.connect()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while state(&mut connection)? != PoolState::Running {
        ensure!(Instant::now() < deadline, "it is not started");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
