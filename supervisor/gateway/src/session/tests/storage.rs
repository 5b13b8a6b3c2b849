//! Pools and volumes, as a client sees those of a supervisor that has them in real directories.

use std::path::Path;
use std::sync::{Arc, Mutex};

use reeve_ipc::api::Access;
use reeve_ipc::api::call::{AnswerBody, CallBody};
use reeve_ipc::api::error::ApiErrorCode;
use tempfile::TempDir;

use super::harness::{Act, Client};
use super::store::Store;
use crate::wire::frame::{Kind, Status};
use crate::wire::types::event as events;
use crate::wire::types::handles::{Pool, Volume};
use crate::wire::types::storage::{
    ConnectFindStoragePoolSources, ConnectListAllStoragePools, ConnectListDefinedStoragePools,
    ConnectListStoragePools, ConnectNumOfDefinedStoragePools, ConnectNumOfStoragePools,
    StoragePoolBuild, StoragePoolCreate, StoragePoolCreateXml, StoragePoolDefineXml,
    StoragePoolDelete, StoragePoolDestroy, StoragePoolGetAutostart, StoragePoolGetInfo,
    StoragePoolGetXmlDesc, StoragePoolIsActive, StoragePoolIsPersistent, StoragePoolListAllVolumes,
    StoragePoolListVolumes, StoragePoolLookupByName, StoragePoolLookupByTargetPath,
    StoragePoolLookupByUuid, StoragePoolLookupByVolume, StoragePoolNumOfVolumes,
    StoragePoolRefresh, StoragePoolSetAutostart, StoragePoolUndefine, StorageVolCreateXml,
    StorageVolCreateXmlFrom, StorageVolDelete, StorageVolDownload, StorageVolGetInfo,
    StorageVolGetInfoFlags, StorageVolGetPath, StorageVolGetXmlDesc, StorageVolLookupByKey,
    StorageVolLookupByName, StorageVolLookupByPath, StorageVolResize, StorageVolWipe,
    StorageVolWipePattern,
};

/// A client of a host with storage, in a directory.
pub(super) fn host() -> (Client, TempDir) {
    let store = Arc::new(Mutex::new(Store::default()));
    let client =
        Client::open_with(move |supervisor, call| store.lock().unwrap().act(supervisor, call));
    (client, tempfile::tempdir().unwrap())
}

fn document(name: &str, target: &Path) -> String {
    format!(
        "<pool type='dir'><name>{name}</name><target><path>{}</path></target></pool>",
        target.display()
    )
}

/// An active pool whose directory is there.
pub(super) fn pool(client: &mut Client, name: &str, target: &Path) -> Pool {
    let pool = client.ask(&StoragePoolDefineXml {
        xml: document(name, target),
        flags: 0,
    });
    client.ask(&StoragePoolCreate {
        pool: pool.clone(),
        flags: 1,
    });
    pool
}

pub(super) fn volume(client: &mut Client, pool: &Pool, name: &str, bytes: u64) -> Volume {
    let xml = format!("<volume><name>{name}</name><capacity>{bytes}</capacity></volume>");
    client.ask(&StorageVolCreateXml {
        pool: pool.clone(),
        xml,
        flags: 0,
    })
}

#[test]
fn a_pool_is_defined_built_started_stopped_and_undefined() {
    let (mut client, directory) = host();
    let target = directory.path().join("images");
    let xml = document("images", &target);
    let pool = client.ask(&StoragePoolDefineXml { xml, flags: 0 });
    assert_eq!(pool.name, "images");
    let handle = || pool.clone();
    let info = client.ask(&StoragePoolGetInfo { pool: handle() });
    assert_eq!((info.state, info.capacity), (0, 0));
    assert!(client.ask(&StoragePoolIsPersistent { pool: handle() }));
    let name = "images".to_owned();
    assert_eq!(client.ask(&StoragePoolLookupByName { name }), pool);
    let uuid = pool.uuid;
    assert_eq!(client.ask(&StoragePoolLookupByUuid { uuid }), pool);
    let path = format!("{}//", target.display());
    assert_eq!(client.ask(&StoragePoolLookupByTargetPath { path }), pool);
    // Of one that is not active there are no volumes to speak of.
    let refused = client.refused(&StoragePoolNumOfVolumes { pool: handle() });
    assert_eq!((refused.code, refused.domain), (55, 18));
    let refused = client.refused(&StorageVolCreateXml {
        pool: handle(),
        xml: "<volume><name>a</name><capacity>1</capacity></volume>".to_owned(),
        flags: 0,
    });
    assert_eq!((refused.code, refused.domain), (55, 18));
    assert!(
        refused
            .message
            .contains("storage pool 'images' is not active"),
        "{refused:?}"
    );
    let kept = client.ask(&StoragePoolGetXmlDesc {
        pool: handle(),
        flags: 1,
    });
    let again = client.ask(&StoragePoolDefineXml {
        xml: kept.clone(),
        flags: 1,
    });
    assert_eq!(again, pool);
    client.ask(&StoragePoolBuild {
        pool: handle(),
        flags: 0,
    });
    assert!(target.is_dir());
    client.ask(&StoragePoolCreate {
        pool: handle(),
        flags: 0,
    });
    assert!(client.ask(&StoragePoolIsActive { pool: handle() }));
    let info = client.ask(&StoragePoolGetInfo { pool: handle() });
    let sizes = (info.capacity, info.allocation, info.available);
    assert_eq!((info.state, sizes), (2, (10 << 30, 4 << 30, 6 << 30)));
    let printed = |client: &mut Client, flags| {
        client.ask(&StoragePoolGetXmlDesc {
            pool: pool.clone(),
            flags,
        })
    };
    let live = printed(&mut client, 0);
    assert!(live.contains("<capacity unit='bytes'>10737418240<"));
    assert!(live.contains("<mode>0711</mode>"), "{live}");
    assert_eq!(printed(&mut client, 1), kept);
    client.ask(&StoragePoolSetAutostart {
        pool: handle(),
        autostart: true,
    });
    assert!(client.ask(&StoragePoolGetAutostart { pool: handle() }));
    client.ask(&StoragePoolRefresh {
        pool: handle(),
        flags: 0,
    });
    client.ask(&StoragePoolDestroy { pool: handle() });
    client.ask(&StoragePoolDelete {
        pool: handle(),
        flags: 0,
    });
    assert!(!target.exists());
    client.ask(&StoragePoolUndefine { pool: handle() });
    let refused = client.refused(&StoragePoolGetInfo { pool: handle() });
    assert_eq!((refused.code, refused.domain), (49, 18));
    assert!(refused.message.contains("(images)"), "{}", refused.message);
}

#[test]
fn pools_are_listed_as_the_flags_say_and_by_the_old_procedures() {
    let (mut client, directory) = host();
    let active = pool(&mut client, "a", &directory.path().join("a"));
    let xml = document("b", &directory.path().join("b"));
    let off = client.ask(&StoragePoolDefineXml { xml, flags: 0 });
    let gone = directory.path().join("c");
    std::fs::create_dir(&gone).unwrap();
    let xml = document("c", &gone);
    let transient = client.ask(&StoragePoolCreateXml { xml, flags: 0 });
    let mut all = |flags: u32| {
        let list = client.ask(&ConnectListAllStoragePools {
            need_results: true,
            flags,
        });
        assert_eq!(usize::try_from(list.ret).unwrap(), list.pools.0.len());
        let names = list.pools.0.into_iter().map(|pool| pool.name);
        names.collect::<Vec<_>>().join("")
    };
    assert_eq!(all(0), "abc");
    assert_eq!(all(0x3), "abc");
    assert_eq!(all(0x1), "b");
    assert_eq!(all(0x2), "ac");
    assert_eq!(all(0x2 | 0x4), "a");
    assert_eq!(all(0x8), "c");
    assert_eq!(all(0x10), "");
    assert_eq!(all(0x40), "abc");
    assert_eq!(all(0x80), "");
    let count = client.ask(&ConnectListAllStoragePools {
        need_results: false,
        flags: 0,
    });
    assert_eq!((count.ret, count.pools.0.len()), (3, 0));
    let refused = client.refused(&ConnectListAllStoragePools {
        need_results: true,
        flags: 0x10_0000,
    });
    assert_eq!(refused.code, 8);
    assert_eq!(client.ask(&ConnectNumOfStoragePools {}), 2);
    assert_eq!(client.ask(&ConnectNumOfDefinedStoragePools {}), 1);
    let names = client.ask(&ConnectListStoragePools { maxnames: 1 });
    assert_eq!(names.0, [active.name]);
    let names = client.ask(&ConnectListDefinedStoragePools { maxnames: 9 });
    assert_eq!(names.0, [off.name]);
    assert_eq!(
        client
            .ask(&ConnectListStoragePools { maxnames: -1 })
            .0
            .len(),
        0
    );
    // One that nothing is kept of is gone when it is stopped.
    client.ask(&StoragePoolDestroy {
        pool: transient.clone(),
    });
    let refused = client.refused(&StoragePoolIsActive { pool: transient });
    assert_eq!(refused.code, 49);
}

#[test]
fn a_volume_is_made_looked_at_changed_copied_and_deleted() {
    let (mut client, directory) = host();
    let pool = pool(&mut client, "images", directory.path());
    let made = volume(&mut client, &pool, "a.raw", 1 << 20);
    let path = directory.path().join("a.raw").display().to_string();
    assert_eq!((made.pool.as_str(), &made.key), ("images", &path));
    let handle = || made.clone();
    assert_eq!(client.ask(&StorageVolGetPath { volume: handle() }), path);
    let key = path.clone();
    assert_eq!(client.ask(&StorageVolLookupByKey { key }), made);
    let doubled = path.replacen('/', "//", 1);
    assert_eq!(client.ask(&StorageVolLookupByPath { path: doubled }), made);
    let by_name = StorageVolLookupByName {
        pool: pool.clone(),
        name: "a.raw".to_owned(),
    };
    assert_eq!(client.ask(&by_name), made);
    let found = client.ask(&StoragePoolLookupByVolume { volume: handle() });
    assert_eq!(found, pool);
    let info = client.ask(&StorageVolGetInfo { volume: handle() });
    assert_eq!((info.kind, info.capacity, info.allocation), (0, 1 << 20, 0));
    let physical = client.ask(&StorageVolGetInfoFlags {
        volume: handle(),
        flags: 1,
    });
    assert_eq!(physical.allocation, 1 << 20);
    let xml = client.ask(&StorageVolGetXmlDesc {
        volume: handle(),
        flags: 0,
    });
    assert!(xml.contains("<format type='raw'/>"), "{xml}");
    client.ask(&StorageVolResize {
        volume: handle(),
        capacity: 1 << 20,
        flags: 2,
    });
    let smaller = StorageVolResize {
        volume: handle(),
        capacity: 4096,
        flags: 0,
    };
    assert_eq!(client.refused(&smaller).code, 8);
    client.ask(&StorageVolResize {
        volume: handle(),
        capacity: 4096,
        flags: 2 | 4,
    });
    let info = client.ask(&StorageVolGetInfo { volume: handle() });
    assert_eq!(info.capacity, (2 << 20) - 4096);
    client.ask(&StorageVolWipe {
        volume: handle(),
        flags: 0,
    });
    let pattern = |algorithm| StorageVolWipePattern {
        volume: handle(),
        algorithm,
        flags: 0,
    };
    client.ask(&pattern(0));
    assert_eq!(client.refused(&pattern(1)).code, 84);
    assert_eq!(client.refused(&pattern(99)).code, 8);
    // As `virsh vol-clone` does it: the document with another name.
    let copy = StorageVolCreateXmlFrom {
        pool: pool.clone(),
        xml: xml.replace("<name>a.raw<", "<name>b.raw<"),
        from: handle(),
        flags: 0,
    };
    let copied = client.ask(&copy);
    assert_eq!(copied.name, "b.raw");
    let again = client.refused(&copy);
    assert_eq!((again.code, again.domain), (90, 18));
    assert_eq!(again.message, "storage volume 'b.raw' exists already");
    volume(&mut client, &pool, "c.raw", 1);
    let all = client.ask(&StoragePoolListAllVolumes {
        pool: pool.clone(),
        need_results: true,
        flags: 0,
    });
    assert_eq!((all.ret, all.volumes.0.len()), (3, 3));
    let of = || pool.clone();
    assert_eq!(client.ask(&StoragePoolNumOfVolumes { pool: of() }), 3);
    let names = client.ask(&StoragePoolListVolumes {
        pool: of(),
        maxnames: 2,
    });
    assert_eq!(names.0, ["a.raw", "b.raw"]);
    client.ask(&StorageVolDelete {
        volume: copied.clone(),
        flags: 0,
    });
    let refused = client.refused(&StorageVolGetPath { volume: copied });
    assert_eq!((refused.code, refused.domain), (50, 18));
    let why = "Storage volume not found: no storage vol with matching name 'b.raw'";
    assert_eq!(refused.message, why);
}

#[test]
fn what_there_is_not_is_told_apart() {
    let (mut client, directory) = host();
    let pool = pool(&mut client, "images", directory.path());
    for name in ["none", "a/b", ""] {
        let name = name.to_owned();
        let refused = client.refused(&StoragePoolLookupByName { name });
        assert_eq!(refused.code, 49);
    }
    for name in ["none", "..", ""] {
        let by_name = StorageVolLookupByName {
            pool: pool.clone(),
            name: name.to_owned(),
        };
        assert_eq!(client.refused(&by_name).code, 50);
    }
    // virsh asks for whatever it is given by key, and then by path.
    for key in ["a.raw", "/none", "", "../a"] {
        let refused = client.refused(&StorageVolLookupByKey {
            key: key.to_owned(),
        });
        assert_eq!((refused.code, refused.domain), (50, 18));
    }
    let path = "relative".to_owned();
    let refused = client.refused(&StoragePoolLookupByTargetPath { path });
    assert_eq!(refused.code, 49);
    let elsewhere = Volume {
        pool: "none".to_owned(),
        name: "a".to_owned(),
        key: "/a".to_owned(),
    };
    let refused = client.refused(&StorageVolGetPath { volume: elsewhere });
    assert_eq!(refused.code, 49);
    let sources = ConnectFindStoragePoolSources {
        kind: "dir".to_owned(),
        source: None,
        flags: 0,
    };
    assert_eq!(client.refused(&sources).code, 3);
    let other = "<pool type='netfs'><name>n</name><target><path>/a</path></target></pool>";
    let refused = client.refused(&StoragePoolDefineXml {
        xml: other.to_owned(),
        flags: 0,
    });
    assert_eq!((refused.code, refused.domain), (67, 18));
    assert!(refused.message.contains("netfs"), "{}", refused.message);
    let bare = StorageVolCreateXml {
        pool,
        xml: "<volume><capacity>1</capacity></volume>".to_owned(),
        flags: 4,
    };
    assert_eq!(client.refused(&bare).code, 92);
}

#[test]
fn one_that_looks_only_changes_nothing() {
    let store = Arc::new(Mutex::new(Store::default()));
    let mut client = Client::with(Access::ReadOnly, move |call| match call {
        CallBody::PoolList(_) => {
            let _ = &store;
            Act::Fail(ApiErrorCode::ShuttingDown, "asked")
        }
        other => panic!("the supervisor is asked {other:?}"),
    });
    client.open_by("qemu:///system", 1);
    let pool = Pool {
        name: "a".to_owned(),
        uuid: [1; 16],
    };
    let volume = || Volume {
        pool: "a".to_owned(),
        name: "v".to_owned(),
        key: "/v".to_owned(),
    };
    assert_eq!(client.refused(&ConnectNumOfStoragePools {}).code, 38);
    let xml = document("a", Path::new("/a"));
    let define = StoragePoolDefineXml { xml, flags: 0 };
    assert_eq!(client.refused(&define).code, 29);
    assert_eq!(client.refused(&StoragePoolDestroy { pool }).code, 29);
    let download = StorageVolDownload {
        volume: volume(),
        offset: 0,
        length: 0,
        flags: 0,
    };
    assert_eq!(client.refused(&download).code, 29);
    let delete = StorageVolDelete {
        volume: volume(),
        flags: 0,
    };
    assert_eq!(client.refused(&delete).code, 29);
}

#[test]
fn what_is_busy_is_waited_for_a_moment_and_then_in_the_wrong_state() {
    let mut answers = 0;
    let mut client = Client::open(move |call| match call {
        CallBody::PoolRefresh(_) => {
            answers += 1;
            match answers {
                3 => Act::Answer(AnswerBody::PoolRefresh(())),
                _ => Act::Fail(ApiErrorCode::Busy, "something is done to it"),
            }
        }
        other => panic!("the supervisor is asked {other:?}"),
    });
    let refresh = StoragePoolRefresh {
        pool: Pool {
            name: "a".to_owned(),
            uuid: [1; 16],
        },
        flags: 0,
    };
    client.ask(&refresh);
    let refused = client.refused(&refresh);
    assert_eq!((refused.code, refused.domain), (55, 18));
    let why = "Requested operation is not valid: something is done to it";
    assert_eq!(refused.message, why);
}

#[test]
fn what_happens_to_a_pool_is_told_in_order_to_those_who_asked() {
    let (mut client, directory) = host();
    let other = pool(&mut client, "other", &directory.path().join("other"));
    let register = |event, pool| events::ConnectStoragePoolEventRegisterAny { event, pool };
    let life = client.ask(&register(0, None));
    let refresh = client.ask(&register(1, Some(other.clone())));
    let domains = client.ask(&events::ConnectDomainEventCallbackRegisterAny {
        event: 0,
        domain: None,
    });
    assert_eq!(client.refused(&register(2, None)).code, 1);
    assert_eq!(client.refused(&register(-1, None)).code, 1);

    let xml = document("images", &directory.path().join("images"));
    let serial = client.send(&StoragePoolDefineXml { xml, flags: 0 });
    let mut told = Vec::new();
    // The event may come before the answer or after it.
    let mut pools = Vec::new();
    for _ in 0..2 {
        let got = client.next().unwrap();
        match got.header.kind {
            Kind::Reply => {
                assert_eq!(got.header.serial, serial);
                pools.push(got.reply::<StoragePoolDefineXml>());
            }
            _ => told.push(lifecycle(&got)),
        }
    }
    let images = pools.pop().unwrap();
    let handle = || images.clone();
    let mut also = |client: &mut Client, serial: u32, events: usize| {
        for _ in 0..=events {
            let got = client.next().unwrap();
            match got.header.kind {
                Kind::Reply => {
                    assert_eq!((got.header.serial, got.header.status), (serial, Status::Ok))
                }
                _ => told.push(lifecycle(&got)),
            }
        }
    };
    let serial = client.send(&StoragePoolBuild {
        pool: handle(),
        flags: 0,
    });
    also(&mut client, serial, 1);
    let serial = client.send(&StoragePoolCreate {
        pool: handle(),
        flags: 0,
    });
    also(&mut client, serial, 1);
    // Nobody asked for this one's refreshes.
    let serial = client.send(&StoragePoolRefresh {
        pool: handle(),
        flags: 0,
    });
    also(&mut client, serial, 0);
    let serial = client.send(&StoragePoolDestroy { pool: handle() });
    also(&mut client, serial, 1);
    let serial = client.send(&StoragePoolDelete {
        pool: handle(),
        flags: 0,
    });
    also(&mut client, serial, 1);
    let serial = client.send(&StoragePoolUndefine { pool: handle() });
    also(&mut client, serial, 1);
    let serial = client.send(&StoragePoolRefresh {
        pool: other.clone(),
        flags: 0,
    });
    also(&mut client, serial, 1);
    let wanted: Vec<_> = [0, 4, 2, 3, 5, 1]
        .into_iter()
        .map(|event| (life, images.clone(), Some(event)))
        .chain([(refresh, other, None)])
        .collect();
    assert_eq!(told, wanted);

    // Each is given up as what it is.
    let domain = |callback| events::ConnectDomainEventCallbackDeregisterAny { callback };
    let of_pools = |callback| events::ConnectStoragePoolEventDeregisterAny { callback };
    assert_eq!(client.refused(&domain(life)).code, 1);
    assert_eq!(client.refused(&of_pools(domains)).code, 1);
    client.ask(&of_pools(life));
    assert_eq!(client.refused(&of_pools(life)).code, 1);
    client.ask(&domain(domains));
}

/// An event of a pool: its callback, the pool, and what happened of its life.
fn lifecycle(got: &super::harness::Got) -> (i32, Pool, Option<i32>) {
    match got.header.procedure {
        370 => {
            let event: events::StoragePoolEventLifecycle =
                crate::wire::xdr::decode(&got.payload).unwrap();
            assert_eq!(event.detail, 0);
            (event.callback, event.pool, Some(event.event))
        }
        373 => {
            let event: events::StoragePoolEventRefresh =
                crate::wire::xdr::decode(&got.payload).unwrap();
            (event.callback, event.pool, None)
        }
        other => panic!("{other}"),
    }
}
