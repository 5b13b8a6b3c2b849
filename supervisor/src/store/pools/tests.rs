//! What is kept is found again, and what is no file of this store is left alone.

use reeve_ipc::model::Permissions;
use uuid::Uuid;

use super::*;
use crate::store::kept::file_name;

fn pool(number: u128, name: &str) -> Pool {
    Pool {
        name: name.parse().unwrap(),
        uuid: PoolUuid(Uuid::from_u128(number)),
        target: format!("/images/{name}").into(),
        permissions: Permissions {
            mode: Some(0o750),
            owner: None,
            group: Some(7),
        },
    }
}

fn record(number: u128, name: &str) -> PoolRecord {
    PoolRecord {
        pool: pool(number, name),
        autostart: number % 2 == 1,
    }
}

fn open(directory: &Path) -> PoolStore {
    PoolStore::open(&directory.join("state"), &directory.join("run")).unwrap()
}

#[test]
fn what_is_kept_is_found_by_the_next_supervisor_and_what_is_removed_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for record in [record(1, "one"), record(2, "two"), record(3, "three")] {
        store.write(&record).unwrap();
    }
    store.remove(pool(3, "three").uuid).unwrap();
    store.set_active(&pool(2, "two")).unwrap();
    store.set_active(&pool(4, "transient")).unwrap();
    store.set_active(&pool(5, "stopped")).unwrap();
    store.set_inactive(pool(5, "stopped").uuid).unwrap();
    let of = |name: &str| Unfinished {
        target: "/images/two".into(),
        name: format!("{UNFINISHED_PREFIX}{name}"),
        directory: (name != "b").then_some(7),
    };
    let finished = store.unfinished(of("a")).unwrap();
    store.unfinished(of("b")).unwrap();
    store.finished(&finished).unwrap();

    let store = open(directory.path());
    let found = store.load_all().unwrap();
    assert_eq!(found.records, [record(1, "one"), record(2, "two")]);
    assert_eq!(found.active, [pool(2, "two"), pool(4, "transient")]);
    let [left] = &found.unfinished[..] else {
        panic!("{found:?}")
    };
    assert_eq!(left.of, of("b"));
    assert!(found.refused.is_empty(), "{found:?}");
    // A later mark does not overwrite it.
    store.unfinished(of("c")).unwrap();
    assert_eq!(
        open(directory.path()).load_all().unwrap().unfinished.len(),
        2
    );
}

#[test]
fn a_file_that_is_damaged_of_a_later_version_or_under_another_name_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.write(&record(1, "one")).unwrap();
    let pools = directory.path().join("state/pools");
    let good = std::fs::read_to_string(pools.join(file_name(pool(1, "one").uuid))).unwrap();
    let put = |number: u128, text: &str| {
        let name = file_name(PoolUuid(Uuid::from_u128(number)));
        std::fs::write(pools.join(name), text).unwrap();
    };
    put(2, &good);
    put(3, &good[..good.len() / 2]);
    put(4, &good.replace("\"schema\": 1", "\"schema\": 9"));
    let own = |number: u128| PoolUuid(Uuid::from_u128(number)).to_string();
    let good = good.replace(&own(1), &own(5));
    put(5, &good.replace("/images/one", "images"));
    put(6, &good.replace(&own(5), &own(6)));
    let unfinished = directory.path().join("state/unfinished/7.json");
    std::fs::write(
        unfinished,
        r#"{"schema":1,"target":"/images","name":"disk"}"#,
    )
    .unwrap();
    let found = store.load_all().unwrap();
    assert_eq!(found.records, [record(1, "one")]);
    assert!(found.unfinished.is_empty(), "no finished file is removed");
    let reasons: Vec<&str> = found.refused.iter().map(|r| r.reason.as_str()).collect();
    assert_eq!(reasons.len(), 6, "{reasons:?}");
    for (reason, part) in reasons.iter().zip([
        "its name must be",
        "it is damaged",
        "schema 9",
        "absolute path",
        "is another pool's already",
        "no unfinished file",
    ]) {
        assert!(reason.contains(part), "{reason}");
    }
}
