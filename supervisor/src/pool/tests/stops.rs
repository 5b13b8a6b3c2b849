//! Stops: what they end, what they are refused for, and what comes after them.

use super::*;

/// What was given up did nothing when its threads came back.
#[track_caller]
fn nothing_was_left(of: &Pool) {
    let left: Vec<_> = std::fs::read_dir(&of.target)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["disk"]);
    assert_eq!(std::fs::read(of.target.join("disk")).unwrap(), b"x");
}

fn resize(pools: &Pools, of: &Pool) -> JoinHandle<Result<VolumeAnswer, ApiError>> {
    let (pools, volume) = (pools.clone(), disk(of));
    let change = Change::Resize {
        capacity: NewCapacity::To(1024),
        allocate: false,
        shrink: false,
        format: Some(DiskFormat::Raw),
    };
    asked(async move {
        let request = |name| VolumeRequest::Change(name, change);
        pools.ask_volume(&volume, request).await
    })
}

#[tokio::test]
async fn a_pool_that_hangs_is_stopped_undefined_and_comes_again() {
    let stage = Stage::new();
    let pool = stage.pool(1, "hung");
    let pools = stage.pools();
    started(&pools, &pool).await;
    let of = named(&pool);
    let refresh = || pools.ask(&of, Request::Refresh);
    let stop = || pools.ask(&of, Request::Stop);
    let hanging = stage.hang(&[&pool]);
    // The actor hears of them in this order.
    let (first, second, third, stopped) = tokio::join!(refresh(), refresh(), refresh(), stop());
    stopped.unwrap();
    // Those behind it found a pool that is not active.
    assert_eq!(code(first), ApiErrorCode::Cancelled);
    assert_eq!(code(second), ApiErrorCode::WrongState);
    assert_eq!(code(third), ApiErrorCode::WrongState);
    assert!(
        open_store(&stage.root)
            .load_all()
            .unwrap()
            .active
            .is_empty()
    );
    // A start that hangs is ended in the same way, and claims nothing when its thread comes back.
    let (start, stopped) = tokio::join!(pools.ask(&of, START), stop());
    stopped.unwrap();
    assert_eq!(code(start), ApiErrorCode::Cancelled);
    pools.ask(&of, Request::Undefine).await.unwrap();
    drop(hanging);
    stage.idle().await;
    let mut other = stage.pool(2, "other");
    other.target.clone_from(&pool.target);
    started(&pools, &other).await;
    pools.ask(&named(&other), Request::Refresh).await.unwrap();
}

#[tokio::test]
async fn a_stop_that_is_refused_costs_nobody_a_start_or_a_refresh() {
    let stage = Stage::with(LONG, Duration::ZERO);
    let pool = stage.pool(1, "slow");
    let pools = stage.pools();
    pools.define(pool.clone(), true).await.unwrap();
    let of = named(&pool);
    let stop = || pools.ask(&of, Request::Stop);
    let hanging = stage.hang_work(&pool);
    let start = async {
        let (start, stopped) = tokio::join!(pools.ask(&of, START), async {
            let stopped = stop().await;
            drop(hanging);
            stopped
        });
        start.unwrap();
        stopped.unwrap_err()
    };
    let refusal = start.await;
    assert_eq!(refusal.code, ApiErrorCode::WrongState);
    assert!(refusal.message.contains("being started"), "{refusal}");

    let hanging = stage.hang_work(&pool);
    let volume = NewVolume::raw("new".parse().unwrap(), 512);
    let (made, refreshed, stopped) = tokio::join!(
        pools.make(&of, volume, false),
        pools.ask(&of, Request::Refresh),
        async {
            let stopped = stop().await;
            drop(hanging);
            stopped
        }
    );
    let refusal = stopped.unwrap_err();
    assert_eq!(refusal.code, ApiErrorCode::Busy);
    let words = "a client waits for its volume 'new', which is being built";
    assert!(refusal.message.contains(words), "{refusal}");
    made.unwrap();
    refreshed.unwrap();
    stop().await.unwrap();
}

#[tokio::test]
async fn a_removal_that_hangs_does_not_take_the_directory_from_beneath_a_start() {
    let stage = Stage::new();
    let pool = stage.pool(1, "hung");
    let pools = stage.pools();
    pools.define(pool.clone(), true).await.unwrap();
    let of = named(&pool);
    let hanging = stage.hang(&[&pool]);
    let (deleted, stopped) = tokio::join!(
        pools.ask(&of, Request::Delete),
        pools.ask(&of, Request::Stop)
    );
    stopped.unwrap();
    assert_eq!(code(deleted), ApiErrorCode::Cancelled);
    let early = pools.ask(&of, START).await.unwrap_err();
    assert_eq!(early.code, ApiErrorCode::Busy);
    assert!(early.message.contains("has not ended yet"), "{early}");
    drop(hanging);
    while let Err(error) = pools.ask(&of, START).await {
        assert_eq!(error.code, ApiErrorCode::Busy);
        a_while().await;
    }
    assert!(pool.target.is_dir());
}

#[tokio::test]
async fn jobs_that_hang_end_with_their_clients_or_by_a_stop() {
    let stage = Stage::with(LONG, Duration::from_millis(50));
    let (pool, healthy) = (stage.pool(1, "hung"), stage.pool(2, "healthy"));
    std::fs::write(pool.target.join("disk"), "x").unwrap();
    let pools = stage.pools();
    started(&pools, &pool).await;
    started(&pools, &healthy).await;
    let hanging = stage.hang_work(&pool);
    let make = |to: &Pool, name: &str| {
        let (pools, to) = (pools.clone(), named(to));
        let volume = NewVolume::raw(name.parse().unwrap(), 512);
        asked(async move { pools.make(&to, volume, false).await })
    };
    // As many as there are places of all pools, and more.
    let made: Vec<_> = (0..60).map(|n| make(&pool, &format!("v{n}"))).collect();
    let resized = resize(&pools, &pool);
    let of = named(&pool);
    let jobs = || pools.find(&of).unwrap().view.borrow().jobs.len();
    while jobs() < 61 {
        a_while().await;
    }
    make(&healthy, "beside").await.unwrap().unwrap();
    let stop = || pools.ask(&of, Request::Stop);
    let refusal = stop().await.unwrap_err();
    assert_eq!(refusal.code, ApiErrorCode::Busy, "clients wait");
    assert!(refusal.message.contains("and for 60 more"), "{refusal}");
    made.into_iter().for_each(|one| one.abort());
    // It is known by and by that they have gone; one waits still.
    let alone = "which is being resized; wait";
    loop {
        let refusal = stop().await.unwrap_err();
        assert_eq!(refusal.code, ApiErrorCode::Busy);
        if refusal.message.contains(alone) {
            break;
        }
        a_while().await;
    }
    resized.abort();
    while let Err(refusal) = stop().await {
        assert_eq!(refusal.code, ApiErrorCode::Busy);
        a_while().await;
    }
    drop(hanging);
    stage.idle().await;
    nothing_was_left(&pool);
    pools.ask(&named(&pool), START).await.unwrap();
    make(&pool, "v1").await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_waits_for_a_file_system_that_does_not_answer_keeps_no_pool() {
    let stage = Stage::new();
    let pool = stage.pool(1, "hung");
    std::fs::write(pool.target.join("disk"), "x").unwrap();
    let pools = stage.pools();
    started(&pools, &pool).await;
    let hanging = stage.hang(&[&pool]);
    let resized = resize(&pools, &pool);
    let of = named(&pool);
    while pools.find(&of).unwrap().view.borrow().jobs.is_empty() {
        a_while().await;
    }
    pools.ask(&of, Request::Stop).await.unwrap();
    assert_eq!(code(resized.await.unwrap()), ApiErrorCode::Cancelled);
    drop(hanging);
    stage.idle().await;
    nothing_was_left(&pool);
}

#[tokio::test]
async fn nothing_begins_in_a_pool_while_it_is_noted_down_that_it_is_stopped() {
    let stage = Stage::new();
    let pool = stage.pool(1, "pool");
    let pools = stage.pools();
    started(&pools, &pool).await;
    let of = named(&pool);
    let late = NewVolume::raw("late".parse().unwrap(), 512);
    // The actor hears of both before the stop's thread is done.
    let (stopped, made) = tokio::join!(pools.ask(&of, Request::Stop), pools.make(&of, late, false));
    stopped.unwrap();
    assert_eq!(code(made), ApiErrorCode::Busy, "it is being stopped");
    assert_eq!(std::fs::read_dir(&pool.target).unwrap().count(), 0);
}
