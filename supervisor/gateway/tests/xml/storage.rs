//! Pools, volumes, and what pools there can be.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use reeve_gateway::xml::XmlError;
use reeve_gateway::xml::storage::{
    BackingStore, VolumeDocument, disk_volumes, format_capabilities, format_pool, format_volume,
    parse_volume, with_disk_paths,
};
use reeve_ipc::api::storage::{
    FileOwner, FileTime, FileTimes, OtherFormat, PoolSizes, Volume, VolumeBacking, VolumeFormat,
    VolumeKind,
};
use reeve_ipc::model::{
    Layer, Permissions, Pool, PoolName, PoolUuid, Qcow2Compat, Qcow2Options, VolumeName,
};
use reeve_ipc::spec::DiskFormat;

use super::schema::validate;

fn parse_pool(text: &str) -> Result<Pool, XmlError> {
    let uuid = PoolUuid(uuid::Uuid::from_u128(9));
    reeve_gateway::xml::storage::parse_pool(text, uuid)
}

#[test]
fn a_pool_of_virshs_is_read_and_what_is_printed_of_it_is_defined_the_same() {
    // As virt-install and `virsh pool-define-as` write it.
    let text = "<pool type='dir'><name>images</name><source></source>\
                <target><path>/var/lib/libvirt/images</path><permissions><mode>0711</mode>\
                <owner>-1</owner></permissions></target></pool>";
    let pool = parse_pool(text).unwrap();
    assert_eq!(pool.permissions.mode, Some(0o711));
    assert_eq!(pool.permissions.owner, None);
    assert_eq!(pool.uuid.0.as_u128(), 9);
    let printed = format_pool(&pool, Some(PoolSizes::default()));
    let again = parse_pool(&printed).unwrap();
    assert_eq!(again, pool);
    assert_eq!(format_pool(&again, None), printed);
    validate("storagepool", &[printed]);
}

#[test]
fn a_pool_that_is_no_directory_or_asks_for_more_is_refused_by_name() {
    let with = |elements: &str| {
        format!("<pool type='dir'><name>a</name><target><path>/a</path></target>{elements}</pool>")
    };
    let unsupported = [
        (
            "<pool type='logical'><name>a</name></pool>".to_owned(),
            "pool/@type: 'logical' is not provided; there is dir",
        ),
        (
            with("<features><cow state='yes'/></features>"),
            "pool/features",
        ),
        (
            with("<source><device path='/dev/sda'/></source>"),
            "pool/source/device",
        ),
        (with("<x xmlns='urn:y'/>"), "pool/x"),
    ];
    for (text, part) in unsupported {
        let refused = parse_pool(&text).unwrap_err();
        assert_eq!(refused.code(), 67, "{text}");
        assert!(refused.message.contains(part), "{}", refused.message);
    }
    for text in [
        "<volume><name>a</name></volume>",
        "<pool><name>a</name><target><path>/a</path></target></pool>",
        "<pool type='dir'><name>a/b</name><target><path>/a</path></target></pool>",
        "<pool type='dir'><name>a</name><target><path>a</path></target></pool>",
        "<pool type='dir'><name>a</name></pool>",
        "<pool type='dir'><target><path>/a</path></target></pool>",
        "<pool type='dir'><name>a</name><name>b</name><target><path>/a</path></target></pool>",
        "<pool type='dir'><name>a</name><uuid>1</uuid><target><path>/a</path></target></pool>",
        "<pool type='dir'><name>a</name><target><path>/a</path><permissions><mode>0888</mode>\
         </permissions></target></pool>",
        "<pool type='dir'><name>a</name><target><path>/a</path><permissions><owner>-2</owner>\
         </permissions></target></pool>",
    ] {
        assert_eq!(parse_pool(text).unwrap_err().code(), 27, "{text}");
    }
}

const fn moment(seconds: i64, nanoseconds: u32) -> FileTime {
    FileTime {
        seconds,
        nanoseconds,
    }
}

fn volume() -> Volume {
    Volume {
        pool: "images".parse().unwrap(),
        name: "a.qcow2".parse().unwrap(),
        path: "/srv/a.qcow2".into(),
        kind: VolumeKind::File,
        format: VolumeFormat::Qcow2,
        capacity: 20 << 30,
        allocation: 4096,
        physical: 8192,
        owner: FileOwner {
            mode: 0o600,
            owner: 0,
            group: 0,
        },
        times: FileTimes {
            accessed: moment(1_700_000_000, 1),
            modified: moment(1_700_000_001, 999_999_999),
            changed: moment(-5, 0),
            born: None,
        },
        backing: Some(VolumeBacking {
            written: "b.raw".to_owned(),
            path: Some("/srv/b.raw".into()),
            format: Some(VolumeFormat::Raw),
        }),
        qcow2: Some(Qcow2Options {
            lazy_refcounts: true,
            ..Qcow2Options::default()
        }),
        encrypted: false,
        job: None,
        unreadable: None,
    }
}

#[test]
fn a_volume_of_virt_installs_is_read_as_it_asks() {
    let text = "<volume><name>a.qcow2</name><capacity unit='GiB'>20</capacity><allocation>0</allocation>\
                <target><format type='qcow2'/><compat>1.1</compat><features><lazy_refcounts/></features>\
                </target><backingStore><path>/b.raw</path><format type='raw'/></backingStore></volume>";
    let volume = parse_volume(text).unwrap().made().unwrap();
    volume.validate(false).unwrap();
    assert_eq!(volume.capacity, Some(20 << 30));
    assert_eq!(volume.allocation, None);
    assert_eq!(volume.format, DiskFormat::Qcow2);
    let backing = Layer {
        path: "/b.raw".into(),
        format: DiskFormat::Raw,
    };
    assert_eq!(volume.backing, Some(backing));
    assert!(volume.qcow2.lazy_refcounts);
    let iso = "<volume type='file'><name>a.iso</name><capacity>9</capacity><target>\
               <format type='iso'/></target></volume>";
    let iso = parse_volume(iso).unwrap().made().unwrap();
    assert_eq!(iso.format, DiskFormat::Raw);
}

#[test]
fn what_is_allocated_is_what_libvirt_says_it_is() {
    let sized = |format: &str, allocation: &str| {
        let text = format!(
            "<volume><name>a</name><capacity>9000</capacity>{allocation}\
             <target><format type='{format}'/></target></volume>"
        );
        parse_volume(&text).unwrap()
    };
    let table = [
        // Where nothing is said a raw volume is allocated whole, and a copy as its original.
        ("raw", "", Some(9000), None),
        ("raw", "<allocation>0</allocation>", Some(0), None),
        ("raw", "<allocation>4096</allocation>", Some(4096), None),
        (
            "raw",
            "<allocation>9000</allocation>",
            Some(9000),
            Some(9000),
        ),
        // More than it holds is all of it.
        (
            "raw",
            "<allocation>12000</allocation>",
            Some(9000),
            Some(9000),
        ),
        ("qcow2", "", None, None),
        ("qcow2", "<allocation>4096</allocation>", None, None),
        (
            "qcow2",
            "<allocation>12000</allocation>",
            Some(9000),
            Some(9000),
        ),
    ];
    for (format, allocation, made, copied) in table {
        let document = sized(format, allocation);
        let whole = document.clone().made().unwrap().allocation;
        assert_eq!(whole, made, "{format} {allocation}");
        let copy = document.copied(None).unwrap().allocation;
        assert_eq!(copy, copied, "{format} {allocation}");
    }
}

#[test]
fn a_volume_as_it_was_printed_is_what_a_clone_is_made_of() {
    let printed = format_volume(&volume());
    for part in [
        "<key>/srv/a.qcow2</key>",
        "<capacity unit='bytes'>21474836480</capacity>",
        "<mtime>1700000001.999999999</mtime>",
        "<ctime>0.000000000</ctime>",
        "<compat>1.1</compat>",
        "<clusterSize unit='B'>65536</clusterSize>",
        "<path>/srv/b.raw</path>",
    ] {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
    // Its name is all that `virsh vol-clone` changes.
    let document = parse_volume(&printed.replace("<name>a.qcow2<", "<name>b.qcow2<")).unwrap();
    let from = Some(Path::new("/srv/b.raw"));
    let clone = document.clone().copied(from).unwrap();
    clone.validate(true).unwrap();
    assert_eq!(clone.name.as_str(), "b.qcow2");
    assert_eq!(clone.capacity, Some(20 << 30));
    assert_eq!(Some(clone.qcow2), volume().qcow2);
    assert_eq!(clone.permissions.mode, Some(0o600));
    assert_eq!((clone.backing, clone.allocation), (None, None));
    for other in [None, Some(Path::new("/srv/c.raw"))] {
        let refused = document.clone().copied(other).unwrap_err();
        assert_eq!(refused.code(), 67);
        assert!(refused.message.contains("volume/backingStore"));
    }
    let raw = Volume {
        format: VolumeFormat::Other(OtherFormat::Vmdk),
        backing: None,
        qcow2: None,
        ..volume()
    };
    let directory = Volume {
        kind: VolumeKind::Directory,
        format: VolumeFormat::Directory,
        ..raw.clone()
    };
    let old = Volume {
        qcow2: Some(Qcow2Options {
            compat: Qcow2Compat::V2,
            ..Qcow2Options::default()
        }),
        ..volume()
    };
    let all = [raw, directory, old].map(|volume| format_volume(&volume));
    validate("storagevol", &all);
    validate("storagevol", &[printed]);
}

#[test]
fn a_backing_file_that_is_no_file_of_this_host_is_told_as_it_is_written() {
    let backing = VolumeBacking {
        written: "nbd://host/x".to_owned(),
        path: None,
        format: None,
    };
    let printed = format_volume(&Volume {
        backing: Some(backing),
        ..volume()
    });
    assert!(printed.contains("<path>nbd://host/x</path>"), "{printed}");
    let document = parse_volume(&printed).unwrap();
    let store = BackingStore {
        path: "nbd://host/x".into(),
        format: None,
    };
    assert_eq!(document.backing, Some(store));
    assert_eq!(document.made().unwrap_err().code(), 27);
}

#[test]
fn documents_of_libvirts_own_are_read() {
    let pool = parse_pool(include_str!("../data/pool.xml")).unwrap();
    assert_eq!(pool.permissions.group, Some(0));
    let volume = parse_volume(include_str!("../data/volume.xml")).unwrap();
    let volume = volume.made().unwrap();
    volume.validate(false).unwrap();
    assert_eq!(volume.capacity, Some(20 << 30));
    assert!(volume.backing.is_some());
}

#[test]
fn sizes_are_in_libvirts_units_and_bytes_where_none_is_said() {
    let sized = |unit: &str, number: &str| {
        let unit = match unit {
            "" => String::new(),
            unit => format!(" unit='{unit}'"),
        };
        let text = format!("<volume><name>a</name><capacity{unit}>{number}</capacity></volume>");
        parse_volume(&text).map(|document| document.volume.capacity.unwrap())
    };
    let units = [
        ("", 1),
        ("b", 1),
        ("B", 1),
        ("byte", 1),
        ("bytes", 1),
        ("KB", 1000),
        ("k", 1024),
        ("KiB", 1024),
        ("M", 1 << 20),
        ("mb", 1_000_000),
        ("GiB", 1 << 30),
        ("gb", 1_000_000_000),
        ("T", 1 << 40),
        ("PB", 1_000_000_000_000_000),
        ("E", 1 << 60),
    ];
    for (unit, bytes) in units {
        assert_eq!(sized(unit, "3").unwrap(), 3 * bytes, "{unit}");
    }
    for (unit, number) in [
        ("E", "16"),
        ("x", "1"),
        ("", "-1"),
        ("kiBs", "1"),
        ("é", "1"),
    ] {
        assert_eq!(sized(unit, number).unwrap_err().code(), 27, "{unit}");
    }
}

#[test]
fn what_a_volume_cannot_be_is_refused_by_name() {
    let unsupported = [
        (
            "<volume type='block'><name>a</name></volume>",
            "volume/@type",
        ),
        (
            "<volume><name>a</name><encryption/></volume>",
            "volume/encryption",
        ),
        (
            "<volume><name>a</name><target><encryption format='luks'/></target></volume>",
            "volume/target/encryption",
        ),
        (
            "<volume><name>a</name><target><nocow/></target></volume>",
            "volume/target/nocow",
        ),
        (
            "<volume><name>a</name><target><format type='vmdk'/></target></volume>",
            "volume/target/format/@type",
        ),
        (
            "<volume><name>a</name><target><format type='qcow2'/><compat>2.0</compat></target></volume>",
            "volume/target/compat",
        ),
        (
            "<volume><name>a</name><target><features><extended_l2/></features></target></volume>",
            "volume/target/features/extended_l2",
        ),
        (
            "<volume><name>a</name><backingStore><path>/b</path><format type='raw'/></backingStore></volume>",
            "only qcow2 builds upon another volume",
        ),
        (
            "<volume><name>a</name><source><device path='/dev/sda'/></source></volume>",
            "volume/source/device",
        ),
    ];
    for (text, part) in unsupported {
        let refused = parse_volume(text)
            .and_then(VolumeDocument::made)
            .unwrap_err();
        assert_eq!(refused.code(), 67, "{text}");
        assert!(refused.message.contains(part), "{}", refused.message);
    }
    for text in [
        "<pool type='dir'/>",
        "<volume><name>../a</name></volume>",
        "<volume/>",
        "<volume><name>a</name><backingStore><path>/b</path></backingStore></volume>",
        "<volume><name>a</name><backingStore><path>b</path><format type='raw'/></backingStore></volume>",
        "<volume><name>a</name><capacity>1</capacity><capacity>2</capacity></volume>",
    ] {
        let refused = parse_volume(text).and_then(VolumeDocument::made);
        assert_eq!(refused.unwrap_err().code(), 27, "{text}");
    }
}

#[test]
fn the_capabilities_of_pools_are_valid_and_have_directories() {
    let text = format_capabilities();
    assert!(text.contains("<pool type='dir' supported='yes'>"), "{text}");
    assert!(text.contains("<pool type='rbd' supported='no'/>"), "{text}");
    validate("storagepoolcaps", &[text]);
}

fn permissions() -> impl Strategy<Value = Permissions> {
    let mode = prop::option::of(0_u32..=0o777);
    let id = || prop::option::of(any::<u32>());
    (mode, id(), id()).prop_map(|(mode, owner, group)| Permissions { mode, owner, group })
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_é<&'\"][a-zA-Z0-9 ._é<&'\"-]{0,20}"
}

fn path() -> impl Strategy<Value = PathBuf> {
    "(/[a-zA-Z0-9 ._é<&'\"-]{1,8}){1,4}".prop_map(PathBuf::from)
}

fn pool() -> impl Strategy<Value = Pool> {
    (name(), any::<u128>(), path(), permissions()).prop_map(|(name, uuid, target, permissions)| {
        Pool {
            name: PoolName::try_from(name).unwrap(),
            uuid: PoolUuid(uuid::Uuid::from_u128(uuid)),
            target,
            permissions,
        }
    })
}

fn format() -> impl Strategy<Value = VolumeFormat> {
    prop::sample::select(vec![
        VolumeFormat::Raw,
        VolumeFormat::Qcow2,
        VolumeFormat::Iso,
        VolumeFormat::Directory,
        VolumeFormat::Other(OtherFormat::Qcow),
        VolumeFormat::Other(OtherFormat::Qed),
        VolumeFormat::Other(OtherFormat::Vmdk),
        VolumeFormat::Other(OtherFormat::Vdi),
        VolumeFormat::Other(OtherFormat::Vpc),
        VolumeFormat::Other(OtherFormat::Bochs),
        VolumeFormat::Other(OtherFormat::Cloop),
        VolumeFormat::Other(OtherFormat::Dmg),
        VolumeFormat::Other(OtherFormat::Cow),
        VolumeFormat::Other(OtherFormat::Ploop),
        VolumeFormat::Other(OtherFormat::Luks),
    ])
}

fn times() -> impl Strategy<Value = FileTimes> {
    let time =
        || (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(seconds, rest)| moment(seconds, rest));
    (time(), time(), time(), prop::option::of(time())).prop_map(
        |(accessed, modified, changed, born)| FileTimes {
            accessed,
            modified,
            changed,
            born,
        },
    )
}

fn any_volume() -> impl Strategy<Value = Volume> {
    let sizes = (any::<u64>(), any::<u64>(), any::<u64>());
    let owner = (0..=0o777_u32, any::<u32>(), any::<u32>());
    let qcow2 = prop::option::of((any::<bool>(), 9..=21_u32, any::<bool>()));
    let backing = prop::option::of((path(), prop::option::of(format())));
    let what = (name(), path(), format());
    (what, sizes, owner, times(), qcow2, backing).prop_map(
        |((name, path, format), sizes, owner, times, qcow2, backing)| Volume {
            pool: "p".parse().unwrap(),
            name: VolumeName::try_from(name).unwrap(),
            path,
            kind: match format {
                VolumeFormat::Directory => VolumeKind::Directory,
                _ => VolumeKind::File,
            },
            format,
            capacity: sizes.0,
            allocation: sizes.1,
            physical: sizes.2,
            owner: FileOwner {
                mode: owner.0,
                owner: owner.1,
                group: owner.2,
            },
            times,
            backing: backing.map(|(path, format)| VolumeBacking {
                written: path.display().to_string(),
                path: Some(path),
                format,
            }),
            qcow2: qcow2.map(|(old, bits, lazy)| Qcow2Options {
                compat: match old {
                    true => Qcow2Compat::V2,
                    false => Qcow2Compat::V3,
                },
                cluster_bytes: 1 << bits,
                lazy_refcounts: lazy && !old,
            }),
            encrypted: false,
            job: None,
            unreadable: None,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_pool_comes_back_the_same_and_as_the_same_text(pool in pool()) {
        let first = format_pool(&pool, None);
        let again = parse_pool(&first).unwrap();
        prop_assert_eq!(format_pool(&again, None), first);
        prop_assert_eq!(again, pool);
    }

    #[test]
    fn any_volume_is_read_as_it_was_printed_or_of_a_format_that_cannot_be_made(volume in any_volume()) {
        let text = format_volume(&volume);
        let backing_format = volume.backing.as_ref().and_then(|it| it.format.as_ref());
        let can = volume.format.disk().is_some()
            && backing_format.is_none_or(|format| format.disk().is_some());
        let Ok(VolumeDocument { volume: read, backing }) = parse_volume(&text) else {
            prop_assert!(!can, "{}", text);
            return Ok(());
        };
        prop_assert!(can, "{}", text);
        prop_assert_eq!(&read.name, &volume.name);
        prop_assert_eq!(read.capacity, Some(volume.capacity));
        prop_assert_eq!(read.allocation, Some(volume.allocation));
        prop_assert_eq!(Some(read.format), volume.format.disk());
        let owner = Permissions {
            mode: Some(volume.owner.mode),
            owner: Some(volume.owner.owner),
            group: Some(volume.owner.group),
        };
        prop_assert_eq!(read.permissions, owner);
        if let (DiskFormat::Qcow2, Some(qcow2)) = (read.format, volume.qcow2) {
            prop_assert_eq!(read.qcow2, qcow2);
        }
        let said = volume.backing.map(|it| BackingStore {
            path: it.path.unwrap(),
            format: it.format.and_then(|format| format.disk()),
        });
        prop_assert_eq!(backing, said);
    }
}

#[test]
fn any_pool_and_any_volume_are_valid() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let pools: Vec<String> = (0..60)
        .map(|_| format_pool(&pool().new_tree(&mut runner).unwrap().current(), None))
        .collect();
    validate("storagepool", &pools);
    let volumes: Vec<String> = (0..60)
        .map(|_| format_volume(&any_volume().new_tree(&mut runner).unwrap().current()))
        .collect();
    validate("storagevol", &volumes);
}

#[test]
fn disks_that_name_volumes_become_disks_of_their_files() {
    let text = "<domain type='kvm'><!-- volume --><devices>\
        <disk device='disk' type=\"volume\"><source  pool='a&amp;b' mode='host' volume = 'v'/><target dev='vda'/></disk>\
        <disk type='file'><source file='/volume'/></disk>\
        <disk type='volume'><driver name='qemu'/><source volume='w' pool='p'></source></disk>\
        <disk type='volume'><source pool='p'/></disk><disk type='volume'/>\
        </devices></domain>";
    let disks = disk_volumes(text).unwrap();
    let names = disks.iter().map(|disk| (&disk.pool[..], &disk.volume[..]));
    assert_eq!(names.collect::<Vec<_>>(), [("a&b", "v"), ("p", "w")]);
    let paths = [Path::new("/x/'<&"), Path::new("/y")];
    let wanted = "<domain type='kvm'><!-- volume --><devices>\
        <disk device='disk' type='file'><source  file='/x/&apos;&lt;&amp;' mode='host' /><target dev='vda'/></disk>\
        <disk type='file'><source file='/volume'/></disk>\
        <disk type='file'><driver name='qemu'/><source  file='/y'></source></disk>\
        <disk type='volume'><source pool='p'/></disk><disk type='volume'/>\
        </devices></domain>";
    assert_eq!(with_disk_paths(text, &disks, &paths), wanted);
    assert_eq!(disk_volumes("<disk type='file'/>").unwrap(), []);
    assert_eq!(disk_volumes("<volume").unwrap_err().code(), 35);
}
