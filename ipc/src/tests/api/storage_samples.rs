//! One of each call about storage, of each answer and of each event, in which no field has its neighbour's value.

use uuid::Uuid;

use crate::api::call::{
    AnswerBody as Answer, Call, NewCapacity, PoolAutostartSet, PoolBuild, PoolCreate, PoolDefine,
    PoolDelete, PoolFilter, PoolGet, PoolList, PoolPage, PoolRef, PoolRefresh, PoolStart, PoolStop,
    PoolUndefine, VolumeClone, VolumeCreate, VolumeDelete, VolumeDownload, VolumeGet, VolumeList,
    VolumePage, VolumeRef, VolumeResize, VolumeStream, VolumeUpload, VolumeWipe, WipeAlgorithm,
};
use crate::api::event::{Cursor, Event, PoolEvent, PoolEventKind};
use crate::api::message::{CallId, FromClient, ToClient};
use crate::api::storage::{
    FileOwner, FileTime, FileTimes, OtherFormat, PoolDetails, PoolSizes, PoolState, PoolSummary,
    Volume, VolumeBacking, VolumeFormat, VolumeJob, VolumeKind,
};
use crate::model::{
    Layer, NewVolume, Permissions, Pool, PoolName, PoolUuid, Qcow2Compat, Qcow2Options, VolumeName,
};
use crate::spec::DiskFormat;

fn pool_name() -> PoolName {
    "images".parse().unwrap()
}

fn volume_name() -> VolumeName {
    "disk".parse().unwrap()
}

fn uuid() -> PoolUuid {
    PoolUuid(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff))
}

fn pool() -> Pool {
    Pool {
        name: pool_name(),
        uuid: uuid(),
        target: "/a".into(),
        permissions: Permissions {
            mode: Some(0o2750),
            owner: Some(3),
            group: None,
        },
    }
}

fn by_name() -> PoolRef {
    PoolRef::Name(pool_name())
}

fn volume_ref() -> VolumeRef {
    VolumeRef::Name {
        pool: PoolRef::Uuid(uuid()),
        name: volume_name(),
    }
}

const LAYOUT: Qcow2Options = Qcow2Options {
    compat: Qcow2Compat::V2,
    cluster_bytes: 1 << 12,
    lazy_refcounts: true,
};

fn new_volume() -> NewVolume {
    NewVolume {
        name: volume_name(),
        capacity: Some(1 << 33),
        allocation: Some(300),
        format: DiskFormat::Qcow2,
        qcow2: LAYOUT,
        backing: Some(Layer {
            path: "/b".into(),
            format: DiskFormat::Raw,
        }),
        permissions: Permissions {
            mode: None,
            owner: None,
            group: Some(7),
        },
    }
}

fn call<C: Call>(call: C) -> FromClient {
    FromClient::Call {
        id: CallId(7),
        body: call.into_body(),
    }
}

/// The calls.
pub(super) fn calls() -> Vec<(&'static str, FromClient)> {
    let resize = |capacity, allocate, shrink| {
        call(VolumeResize {
            volume: volume_ref(),
            capacity,
            allocate,
            shrink,
            format: None,
        })
    };
    vec![
        ("list pools", {
            call(PoolList {
                after: Some(pool_name()),
                filter: PoolFilter {
                    active: Some(true),
                    persistent: None,
                    autostart: Some(false),
                },
            })
        }),
        ("get a pool", {
            let pool = PoolRef::Target("/a".into());
            call(PoolGet { pool })
        }),
        ("define a pool", {
            let pool = Box::new(pool());
            let only_new = true;
            call(PoolDefine { pool, only_new })
        }),
        ("create a pool", {
            let pool = Box::new(pool());
            let build = true;
            call(PoolCreate { pool, build })
        }),
        ("build a pool", call(PoolBuild { pool: by_name() })),
        ("start a pool", {
            let (pool, build) = (by_name(), true);
            call(PoolStart { pool, build })
        }),
        ("stop a pool", call(PoolStop { pool: by_name() })),
        ("delete a pool", call(PoolDelete { pool: by_name() })),
        ("undefine a pool", call(PoolUndefine { pool: by_name() })),
        ("pool autostart", {
            let (pool, autostart) = (by_name(), true);
            call(PoolAutostartSet { pool, autostart })
        }),
        ("refresh a pool", call(PoolRefresh { pool: by_name() })),
        ("list volumes", {
            let (pool, after) = (by_name(), Some(volume_name()));
            call(VolumeList { pool, after })
        }),
        ("get a volume", {
            let volume = VolumeRef::Path("/a/disk".into());
            call(VolumeGet { volume })
        }),
        ("create a volume", {
            call(VolumeCreate {
                pool: by_name(),
                volume: Box::new(new_volume()),
                preallocate_metadata: true,
            })
        }),
        ("clone a volume", {
            call(VolumeClone {
                pool: by_name(),
                volume: Box::new(NewVolume::raw(volume_name(), 512)),
                from: volume_ref(),
                preallocate_metadata: false,
                reflink: true,
                from_format: Some(DiskFormat::Raw),
            })
        }),
        ("resize a volume", resize(NewCapacity::To(300), true, false)),
        (
            "enlarge a volume",
            resize(NewCapacity::More(3), false, false),
        ),
        ("shrink a volume", resize(NewCapacity::Less(5), false, true)),
        ("wipe a volume", {
            call(VolumeWipe {
                volume: volume_ref(),
                algorithm: WipeAlgorithm::Zero,
            })
        }),
        ("wipe a volume otherwise", {
            call(VolumeWipe {
                volume: volume_ref(),
                algorithm: WipeAlgorithm::Other,
            })
        }),
        ("delete a volume", {
            let (volume, zeroed) = (volume_ref(), true);
            call(VolumeDelete { volume, zeroed })
        }),
        ("upload", {
            call(VolumeUpload {
                volume: volume_ref(),
                offset: 300,
                length: 1 << 40,
            })
        }),
        ("download", {
            call(VolumeDownload {
                volume: volume_ref(),
                offset: 1 << 40,
                length: 300,
            })
        }),
    ]
}

fn summary(state: PoolState) -> PoolSummary {
    PoolSummary {
        name: pool_name(),
        uuid: uuid(),
        state,
        persistent: true,
        autostart: false,
        target: "/a".into(),
        volumes: 300,
    }
}

fn time(seconds: i64) -> FileTime {
    FileTime {
        seconds,
        nanoseconds: 5,
    }
}

fn volume(format: VolumeFormat) -> Volume {
    Volume {
        pool: pool_name(),
        name: volume_name(),
        path: "/a/disk".into(),
        kind: VolumeKind::File,
        format,
        capacity: 1 << 33,
        allocation: 4096,
        physical: 8192,
        owner: FileOwner {
            mode: 0o640,
            owner: 3,
            group: 9,
        },
        times: FileTimes {
            accessed: time(-300),
            modified: time(301),
            changed: time(302),
            born: Some(time(1)),
        },
        backing: Some(VolumeBacking {
            written: "b".to_owned(),
            path: Some("/a/b".into()),
            format: Some(VolumeFormat::Raw),
        }),
        qcow2: Some(LAYOUT),
        encrypted: true,
        job: Some(VolumeJob::Wiping),
        unreadable: Some("no".to_owned()),
    }
}

fn bare_volume(job: Option<VolumeJob>) -> Volume {
    Volume {
        kind: VolumeKind::Directory,
        backing: None,
        qcow2: None,
        encrypted: false,
        job,
        unreadable: None,
        times: FileTimes::default(),
        ..volume(VolumeFormat::Directory)
    }
}

fn reply(answer: Answer) -> ToClient {
    ToClient::Reply {
        id: CallId(7),
        result: Ok(answer),
    }
}

/// The answers.
pub(super) fn answers() -> Vec<(&'static str, ToClient)> {
    use OtherFormat as O;
    let others = [
        O::Qcow,
        O::Qed,
        O::Vmdk,
        O::Vdi,
        O::Vpc,
        O::Bochs,
        O::Cloop,
        O::Dmg,
        O::Cow,
        O::Ploop,
        O::Luks,
    ];
    let formats = [VolumeFormat::Raw, VolumeFormat::Iso].into_iter();
    let formats = formats.chain(others.map(VolumeFormat::Other));
    let jobs = [
        VolumeJob::Building,
        VolumeJob::Resizing,
        VolumeJob::Deleting,
        VolumeJob::Copying,
    ];
    let jobs = jobs.map(|job| bare_volume(Some(job)));
    vec![
        ("pools", {
            let states = [PoolState::Inactive, PoolState::Building];
            reply(Answer::PoolList(PoolPage {
                pools: states.map(summary).to_vec(),
                more: true,
            }))
        }),
        ("pool", {
            reply(Answer::PoolGet(Box::new(PoolDetails {
                summary: summary(PoolState::Running),
                pool: pool(),
                next: Some(pool()),
                sizes: Some(PoolSizes {
                    capacity: 1 << 40,
                    allocation: 300,
                    available: 1 << 33,
                }),
                owner: Some(FileOwner {
                    mode: 0o711,
                    owner: 1,
                    group: 2,
                }),
                passed_over: 3,
            })))
        }),
        ("pool defined", {
            reply(Answer::PoolDefine(summary(PoolState::Inaccessible)))
        }),
        ("pool created", {
            reply(Answer::PoolCreate(summary(PoolState::Running)))
        }),
        ("pool built", reply(Answer::PoolBuild(()))),
        ("pool started", {
            reply(Answer::PoolStart(summary(PoolState::Running)))
        }),
        ("pool stopped", reply(Answer::PoolStop(()))),
        ("pool deleted", reply(Answer::PoolDelete(()))),
        ("pool undefined", reply(Answer::PoolUndefine(()))),
        ("pool autostart set", reply(Answer::PoolAutostartSet(()))),
        ("pool refreshed", reply(Answer::PoolRefresh(()))),
        ("volumes", {
            let mut volumes: Vec<Volume> = formats.map(volume).collect();
            volumes.extend(jobs);
            let more = false;
            reply(Answer::VolumeList(VolumePage { volumes, more }))
        }),
        ("volume", {
            reply(Answer::VolumeGet(Box::new(volume(VolumeFormat::Qcow2))))
        }),
        ("volume created", {
            reply(Answer::VolumeCreate(Box::new(bare_volume(None))))
        }),
        ("volume cloned", {
            reply(Answer::VolumeClone(Box::new(bare_volume(None))))
        }),
        ("volume resized", reply(Answer::VolumeResize(()))),
        ("volume wiped", reply(Answer::VolumeWipe(()))),
        ("volume deleted", reply(Answer::VolumeDelete(()))),
        ("volume to write", {
            let (offset, length) = (300, 1 << 40);
            reply(Answer::VolumeUpload(VolumeStream { offset, length }))
        }),
        ("volume to read", {
            let (offset, length) = (1 << 40, 300);
            reply(Answer::VolumeDownload(VolumeStream { offset, length }))
        }),
    ]
}

/// Every kind of event.
pub(super) const EVENTS: [PoolEventKind; 9] = [
    PoolEventKind::Defined { changed: true },
    PoolEventKind::Undefined,
    PoolEventKind::Started,
    PoolEventKind::Stopped,
    PoolEventKind::Created,
    PoolEventKind::Deleted,
    PoolEventKind::Refreshed,
    PoolEventKind::Autostart { on: true },
    PoolEventKind::Autostart { on: false },
];

/// A new kind does not compile here until it stands in the list above, too.
const fn describe(kind: PoolEventKind) -> &'static str {
    match kind {
        PoolEventKind::Defined { .. } => "pool event: defined",
        PoolEventKind::Undefined => "pool event: undefined",
        PoolEventKind::Started => "pool event: started",
        PoolEventKind::Stopped => "pool event: stopped",
        PoolEventKind::Created => "pool event: created",
        PoolEventKind::Deleted => "pool event: deleted",
        PoolEventKind::Refreshed => "pool event: refreshed",
        PoolEventKind::Autostart { on: true } => "pool event: autostart",
        PoolEventKind::Autostart { on: false } => "pool event: no autostart",
    }
}

/// The events.
pub(super) fn events() -> Vec<(&'static str, ToClient)> {
    let of = |kind| ToClient::Event {
        cursor: Cursor {
            epoch: 1 << 63,
            number: 301,
        },
        event: Event::Pool(PoolEvent {
            time_ms: 1_700_000_000_003,
            uuid: uuid(),
            name: pool_name(),
            kind,
        }),
    };
    EVENTS.map(|kind| (describe(kind), of(kind))).to_vec()
}
