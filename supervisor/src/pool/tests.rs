//! Pools whose file systems do not answer: threads are held up where they are taken.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::api::call::{NewCapacity, PoolFilter, PoolRef, VolumeRef};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::storage::PoolState;
use reeve_ipc::model::{NewVolume, Permissions, Pool, PoolUuid};
use reeve_ipc::spec::DiskFormat;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::change::Change;
use super::handle::{Request, VolumeAnswer, VolumeRequest};
use super::host::Host;
use super::lanes::Lanes;
use super::registry::Pools;
use crate::api::events::EventLog;
use crate::daemon::ConfiguredPaths;
use crate::host::paths::AllowedPaths;
use crate::store::{LoadedPools, PoolRecord, PoolStore, UnfinishedMark};

mod stops;

/// A host with one allowed directory, patience and grace short, and nothing that reads images.
pub(super) struct Stage {
    pub(super) host: Host,
    root: tempfile::TempDir,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self::with(Duration::from_secs(1), Duration::from_millis(50))
    }

    /// With so long for an answer, and so long for what was told to end.
    fn with(patience: Duration, grace: Duration) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("allowed")).unwrap();
        let allowed = AllowedPaths::new(vec![root.path().join("allowed")]);
        let paths = Arc::new(ConfiguredPaths::with(allowed));
        let mut host = Host::new(paths, None, open_store(&root));
        let mut lanes = Lanes::default();
        lanes.patience = patience;
        lanes.grace = grace;
        host.lanes = Arc::new(lanes);
        Self { host, root }
    }

    /// A directory that was made.
    pub(super) fn directory(&self, name: &str) -> PathBuf {
        let path = self.root.path().join("allowed").join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// A pool of a directory that was made.
    pub(super) fn pool(&self, number: u128, name: &str) -> Pool {
        Pool {
            name: name.parse().unwrap(),
            uuid: PoolUuid(Uuid::from_u128(number)),
            target: self.directory(name),
            permissions: Permissions::default(),
        }
    }

    /// What the next supervisor finds unfinished.
    pub(super) fn reload(&self) -> Vec<UnfinishedMark> {
        open_store(&self.root).load_all().unwrap().unfinished
    }

    fn pools(&self) -> Pools {
        Pools::new(Arc::new(self.host.clone()), Arc::new(EventLog::new(1)))
    }

    /// From now on nothing that touches a pool's directory comes back, until what this gives is dropped.
    fn hang(&self, pools: &[&Pool]) -> Hanging {
        for pool in pools {
            self.host.lanes.hung.hang(pool.uuid);
        }
        Hanging(Arc::clone(&self.host.lanes))
    }

    /// As [`Self::hang`] of one whose file system answers all the same.
    fn hang_work(&self, pool: &Pool) -> Hanging {
        self.host.lanes.hung.hang_work(pool.uuid);
        Hanging(Arc::clone(&self.host.lanes))
    }

    /// Until no thread works any more.
    async fn idle(&self) {
        while !self.host.lanes.are_idle() {
            a_while().await;
        }
    }
}

/// Longer than anything that is not held up takes on any machine.
const LONG: Duration = Duration::from_secs(100);

struct Hanging(Arc<Lanes>);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.hung.answer();
    }
}

fn open_store(root: &tempfile::TempDir) -> PoolStore {
    PoolStore::open(&root.path().join("state"), &root.path().join("run")).unwrap()
}

fn named(pool: &Pool) -> PoolRef {
    PoolRef::Name(pool.name.clone())
}

fn disk(pool: &Pool) -> VolumeRef {
    VolumeRef::Name {
        pool: named(pool),
        name: "disk".parse().unwrap(),
    }
}

const START: Request = Request::Start {
    transient: None,
    build: false,
};

async fn started(pools: &Pools, pool: &Pool) {
    pools.define(pool.clone(), true).await.unwrap();
    pools.ask(&named(pool), START).await.unwrap();
}

#[track_caller]
fn code<T: std::fmt::Debug>(result: Result<T, ApiError>) -> ApiErrorCode {
    result.expect_err("a refusal").code
}

fn asked<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work)
}

async fn a_while() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

#[tokio::test]
async fn reads_of_a_pool_that_hangs_are_answered_take_few_threads_and_hold_up_no_other() {
    let stage = Stage::new();
    let (hung, healthy) = (stage.pool(1, "hung"), stage.pool(2, "healthy"));
    let pools = stage.pools();
    for pool in [&hung, &healthy] {
        std::fs::write(pool.target.join("disk"), "x").unwrap();
        started(&pools, pool).await;
    }
    let _hanging = stage.hang(&[&hung]);
    // More than the runtime has threads, and their clients go.
    for _ in 0..8 {
        let all: Vec<_> = (0..100)
            .map(|_| {
                let (pools, pool) = (pools.clone(), named(&hung));
                asked(async move { pools.get(&pool).await })
            })
            .collect();
        a_while().await;
        all.into_iter().for_each(|one| one.abort());
    }
    assert_eq!(code(pools.volume(&disk(&hung)).await), ApiErrorCode::Busy);
    let details = pools.get(&named(&hung)).await.unwrap();
    assert_eq!(details.summary.state, PoolState::Inaccessible);
    assert!(details.sizes.is_none());
    // Lists wait for nothing, and other pools and threads are as they were.
    assert_eq!(
        pools
            .volumes(&named(&hung), None)
            .await
            .unwrap()
            .volumes
            .len(),
        1
    );
    assert!(pools.get(&named(&healthy)).await.unwrap().sizes.is_some());
    assert_eq!(pools.volume(&disk(&healthy)).await.unwrap().physical, 1);
    assert_eq!(tokio::task::spawn_blocking(|| 7).await.unwrap(), 7);
}

#[tokio::test]
async fn one_look_that_hangs_is_told_in_words() {
    let stage = Stage::new();
    let pool = stage.pool(1, "hung");
    let pools = stage.pools();
    started(&pools, &pool).await;
    let _hanging = stage.hang(&[&pool]);
    let error = pools.volume(&disk(&pool)).await.unwrap_err();
    assert_eq!(error.code, ApiErrorCode::Timeout);
    assert!(error.message.contains("does not answer in time"), "{error}");
}

#[tokio::test]
async fn a_start_of_what_is_not_kept_is_given_up_when_its_client_goes() {
    let stage = Stage::new();
    let pool = stage.pool(1, "transient");
    let pools = stage.pools();
    let hanging = stage.hang(&[&pool]);
    let create = asked({
        let (pools, pool) = (pools.clone(), pool.clone());
        async move { pools.create(pool, false).await }
    });
    a_while().await;
    let again = pools.create(pool.clone(), false).await;
    assert_eq!(code(again), ApiErrorCode::PoolExists);
    create.abort();
    a_while().await;
    drop(hanging);
    let created = pools.create(pool.clone(), false).await.unwrap();
    assert_eq!(created.state, PoolState::Running);
}

#[tokio::test]
async fn copies_from_a_pool_that_hangs_take_no_places_of_the_one_they_are_made_in() {
    let stage = Stage::with(LONG, Duration::from_millis(50));
    let (hung, healthy) = (stage.pool(1, "hung"), stage.pool(2, "healthy"));
    std::fs::write(hung.target.join("disk"), "x").unwrap();
    let pools = stage.pools();
    started(&pools, &hung).await;
    started(&pools, &healthy).await;
    let _hanging = stage.hang(&[&hung]);
    let copies: Vec<_> = (0..20)
        .map(|n| {
            let (pools, to, from) = (pools.clone(), named(&healthy), disk(&hung));
            let volume = NewVolume::raw(format!("v{n}").parse().unwrap(), 0);
            asked(async move { pools.copy(&to, volume, &from, false, false, None).await })
        })
        .collect();
    let of = named(&healthy);
    while pools.find(&of).unwrap().view.borrow().jobs.len() < 20 {
        a_while().await;
    }
    // It is as far as here, where no process can be started.
    let mut allocated = NewVolume::raw("beside".parse().unwrap(), 512);
    allocated.allocation = Some(512);
    let beside = pools.make(&of, allocated, false).await;
    assert_eq!(code(beside), ApiErrorCode::Worker);
    copies.into_iter().for_each(|copy| copy.abort());
}

#[tokio::test]
async fn what_was_seen_of_a_volume_before_it_was_removed_brings_it_not_back() {
    let stage = Stage::new();
    let pool = stage.pool(1, "pool");
    std::fs::write(pool.target.join("disk"), "x").unwrap();
    let pools = stage.pools();
    started(&pools, &pool).await;
    let handle = pools.find(&named(&pool)).unwrap();
    let before = handle.view.borrow().clone();
    let name = || "disk".parse().unwrap();
    let entry = || before.volumes.get(&name()).cloned();
    let delete = |name| VolumeRequest::Change(name, Change::Delete { zeroed: false });
    pools.ask_volume(&disk(&pool), delete).await.unwrap();
    handle.seen(before.changes, name(), entry());
    let new = NewVolume::raw(name(), 512);
    pools.make(&named(&pool), new, false).await.unwrap();
    pools.ask_volume(&disk(&pool), delete).await.unwrap();
    // What is seen from now on counts.
    handle.seen(handle.view.borrow().changes, name(), entry());
    let new = NewVolume::raw(name(), 512);
    let again = pools.make(&named(&pool), new, false).await;
    assert_eq!(code(again), ApiErrorCode::VolumeExists);
}

#[tokio::test]
async fn streams_of_a_pool_that_hangs_are_told_so_and_leave_places_for_those_of_others() {
    let stage = Stage::new();
    let (hung, healthy) = (stage.pool(1, "hung"), stage.pool(2, "healthy"));
    let pools = stage.pools();
    for pool in [&hung, &healthy] {
        std::fs::write(pool.target.join("disk"), "x").unwrap();
        started(&pools, pool).await;
    }
    let open = |of: &Pool| {
        let (pools, volume) = (pools.clone(), disk(of));
        asked(async move {
            let open = |name| VolumeRequest::Open {
                name,
                write: true,
                offset: 0,
                length: 0,
            };
            pools.ask_volume(&volume, open).await
        })
    };
    let hanging = stage.hang(&[&hung]);
    let all: Vec<_> = (0..100).map(|_| open(&hung)).collect();
    let mut codes = Vec::new();
    for one in all {
        codes.push(code(one.await.unwrap()));
    }
    let of = |code| codes.iter().filter(|it| **it == code).count();
    // As many as one pool may have wait for it, whether their clients are there or not.
    assert_eq!(
        (of(ApiErrorCode::Timeout), of(ApiErrorCode::Busy)),
        (16, 84)
    );
    // One of another pool is as far as here, where no process can be started.
    let beside = code(open(&healthy).await.unwrap());
    assert_eq!(beside, ApiErrorCode::Worker);
    drop(hanging);
    while code(open(&hung).await.unwrap()) != ApiErrorCode::Worker {
        a_while().await;
    }
}

#[tokio::test]
async fn a_first_scan_that_hangs_holds_up_no_healthy_pool_and_can_be_stopped() {
    let stage = Stage::new();
    let (hung, healthy) = (stage.pool(1, "hung"), stage.pool(2, "healthy"));
    std::fs::write(healthy.target.join("disk"), "x").unwrap();
    let _hanging = stage.hang(&[&hung]);
    let pools = stage.pools();
    let loaded = LoadedPools {
        active: vec![hung.clone(), healthy.clone()],
        ..LoadedPools::default()
    };
    pools.recover(loaded).await;
    assert_eq!(pools.volume(&disk(&healthy)).await.unwrap().physical, 1);
    let page = pools.page(None, PoolFilter::default());
    assert_eq!(page.pools.len(), 2);
    assert_eq!(
        pools.get(&named(&hung)).await.unwrap().summary.state,
        PoolState::Inaccessible
    );
    let list = pools.volumes(&named(&hung), None).await;
    assert_eq!(code(list), ApiErrorCode::Timeout);
    pools.ask(&named(&hung), Request::Stop).await.unwrap();
    assert_eq!(code(pools.get(&named(&hung)).await), ApiErrorCode::NoPool);
}

#[tokio::test]
async fn pools_that_start_with_the_host_are_waited_for_so_long_and_no_longer() {
    let stage = Stage::new();
    let (hung, healthy) = (stage.pool(1, "hung"), stage.pool(2, "healthy"));
    let hanging = stage.hang(&[&hung]);
    let pools = stage.pools();
    let kept = |pool: &Pool| PoolRecord {
        pool: pool.clone(),
        autostart: true,
    };
    let loaded = LoadedPools {
        records: vec![kept(&hung), kept(&healthy)],
        ..LoadedPools::default()
    };
    pools.recover(loaded).await;
    let state = |pool: &Pool| {
        let (pools, pool) = (pools.clone(), named(pool));
        async move { pools.get(&pool).await.unwrap().summary.state }
    };
    // It comes back though one pool never answers.
    pools.autostart_within(Duration::from_millis(200)).await;
    while state(&healthy).await != PoolState::Running {
        a_while().await;
    }
    assert_eq!(state(&hung).await, PoolState::Inactive);
    // Those that were not waited for go on by themselves.
    drop(hanging);
    while state(&hung).await != PoolState::Running {
        a_while().await;
    }
}

#[tokio::test]
async fn the_directory_that_was_claimed_is_the_one_that_is_used() {
    let stage = Stage::new();
    let (inner, victim) = (stage.pool(1, "inner"), stage.pool(2, "victim"));
    for pool in [&inner, &victim] {
        std::fs::write(pool.target.join("disk"), "x").unwrap();
    }
    let pools = stage.pools();
    started(&pools, &inner).await;
    started(&pools, &victim).await;
    // Whoever may write above it puts a link in its place, which leads out of nothing that is allowed.
    std::fs::rename(&inner.target, inner.target.with_file_name("aside")).unwrap();
    std::os::unix::fs::symlink("victim", &inner.target).unwrap();
    let delete = |name| VolumeRequest::Change(name, Change::Delete { zeroed: false });
    let deleted = pools.ask_volume(&disk(&inner), delete).await;
    let error = deleted.unwrap_err();
    assert_eq!(error.code, ApiErrorCode::WrongState);
    assert!(error.message.contains("refresh the pool"), "{error}");
    let planted = NewVolume::raw("planted".parse().unwrap(), 512);
    let planted = pools.make(&named(&inner), planted, false).await;
    assert_eq!(code(planted), ApiErrorCode::WrongState);
    assert_eq!(
        code(pools.volume(&disk(&inner)).await),
        ApiErrorCode::WrongState
    );
    assert_eq!(std::fs::read_dir(&victim.target).unwrap().count(), 1);
    // A refresh does not get another pool's directory either; one of its own is taken.
    let of = named(&inner);
    let refresh = || pools.ask(&of, Request::Refresh);
    assert_eq!(code(refresh().await), ApiErrorCode::PoolExists);
    std::fs::remove_file(&inner.target).unwrap();
    std::fs::create_dir(&inner.target).unwrap();
    refresh().await.unwrap();
    let mine = NewVolume::raw("mine".parse().unwrap(), 512);
    pools.make(&named(&inner), mine, false).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_is_to_be_a_pools_is_no_other_pools_meanwhile() {
    let stage = Stage::new();
    let (first, second) = (stage.pool(1, "first"), stage.pool(2, "second"));
    let pools = stage.pools();
    started(&pools, &first).await;
    let moved = Pool {
        target: second.target.clone(),
        ..first.clone()
    };
    // Its definition waits in line.
    let hanging = stage.hang(&[&first]);
    let refresh = asked({
        let (pools, pool) = (pools.clone(), named(&first));
        async move { pools.ask(&pool, Request::Refresh).await }
    });
    a_while().await;
    let define = asked({
        let pools = pools.clone();
        async move { pools.define(moved, false).await }
    });
    a_while().await;
    let taken = pools.define(second.clone(), true).await;
    assert_eq!(code(taken), ApiErrorCode::PoolExists);
    drop(hanging);
    refresh.await.unwrap().unwrap();
    define.await.unwrap().unwrap();
    let taken = pools.define(second.clone(), true).await;
    assert_eq!(code(taken), ApiErrorCode::PoolExists);
    pools.define(first, false).await.unwrap();
    pools.define(second, true).await.unwrap();
}

#[test]
fn building_a_directory_that_was_there_leaves_it_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    let stage = Stage::new();
    let mode = |pool: &Pool| {
        std::fs::metadata(&pool.target)
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    let with = |pool: &Pool, mode| Pool {
        permissions: Permissions {
            mode: Some(mode),
            ..Permissions::default()
        },
        ..pool.clone()
    };
    let there = stage.pool(1, "there");
    let narrow = std::fs::Permissions::from_mode(0o1750);
    std::fs::set_permissions(&there.target, narrow).unwrap();
    assert_eq!(stage.host.build(&there), Ok(false));
    for mode in [0o777, 0o710, 0] {
        assert_eq!(stage.host.build(&with(&there, mode)), Ok(false));
    }
    let other = Pool {
        permissions: Permissions {
            owner: Some(4321),
            ..Permissions::default()
        },
        ..there.clone()
    };
    assert_eq!(stage.host.build(&other), Ok(false));
    assert_eq!(mode(&there), 0o1750);
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&there.target).unwrap());
    assert_eq!(owner, rustix::process::geteuid().as_raw());
    // What was made is as it was asked for, whatever the umask.
    let made = stage.pool(2, "made");
    std::fs::remove_dir(&made.target).unwrap();
    assert_eq!(stage.host.build(&with(&made, 0o777)), Ok(true));
    assert_eq!(mode(&made), 0o777);
}
