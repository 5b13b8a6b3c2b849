//! Pools, volumes, and what pools there can be.

use std::path::PathBuf;

use proptest::prelude::*;
use reeve_gateway::xml::storage::{
    Backing, Permissions, Pool, PoolSizes, Timestamps, VolumeView, format_capabilities,
    format_pool, format_volume, parse_pool, parse_volume,
};
use reeve_ipc::model::PoolName;
use reeve_ipc::spec::DiskFormat;

use super::schema::validate;

#[test]
fn a_pool_of_virshs_is_read_and_what_is_printed_of_it_is_defined_the_same() {
    // As virt-install and `virsh pool-define-as` write it.
    let text = "<pool type='dir'><name>images</name><source></source>\
                <target><path>/var/lib/libvirt/images</path><permissions><mode>0711</mode>\
                <owner>-1</owner></permissions></target></pool>";
    let mut pool = parse_pool(text).unwrap();
    assert_eq!(pool.permissions.mode, Some(0o711));
    assert_eq!(pool.permissions.owner, None);
    pool.uuid = Some(uuid::Uuid::from_u128(9));
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

fn view() -> VolumeView {
    VolumeView {
        name: "a.qcow2".to_owned(),
        path: "/srv/a.qcow2".into(),
        format: Some(DiskFormat::Qcow2),
        capacity: 20 << 30,
        allocation: 4096,
        physical: 8192,
        permissions: Permissions {
            mode: Some(0o600),
            owner: Some(0),
            group: Some(0),
        },
        timestamps: Some(Timestamps {
            accessed: (1_700_000_000, 1),
            modified: (1_700_000_001, 999_999_999),
            changed: (-5, 0),
        }),
        cluster_size: Some(65_536),
        lazy_refcounts: true,
        backing: Some(Backing {
            path: "/b.raw".into(),
            format: Some(DiskFormat::Raw),
        }),
    }
}

#[test]
fn a_volume_of_virt_installs_is_read_as_it_asks() {
    let text = "<volume><name>a.qcow2</name><capacity unit='GiB'>20</capacity><allocation>0</allocation>\
                <target><format type='qcow2'/><compat>1.1</compat><features><lazy_refcounts/></features>\
                </target><backingStore><path>/b.raw</path><format type='raw'/></backingStore></volume>";
    let volume = parse_volume(text).unwrap();
    assert_eq!(volume.capacity, Some(20 << 30));
    assert_eq!(volume.allocation, Some(0));
    assert_eq!(volume.format, DiskFormat::Qcow2);
    assert_eq!(volume.backing, Some(("/b.raw".into(), DiskFormat::Raw)));
    assert!(volume.lazy_refcounts);
    let iso =
        "<volume type='file'><name>a.iso</name><target><format type='iso'/></target></volume>";
    let iso = parse_volume(iso).unwrap();
    assert_eq!((iso.format, iso.capacity), (DiskFormat::Raw, None));
}

#[test]
fn a_volume_as_it_was_printed_is_what_a_clone_is_made_of() {
    let printed = format_volume(&view());
    for part in [
        "<key>/srv/a.qcow2</key>",
        "<capacity unit='bytes'>21474836480</capacity>",
        "<mtime>1700000001.999999999</mtime>",
        "<ctime>0.000000000</ctime>",
        "<clusterSize unit='B'>65536</clusterSize>",
    ] {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
    // Its name is all that `virsh vol-clone` changes.
    let clone = parse_volume(&printed.replace("<name>a.qcow2<", "<name>b.qcow2<")).unwrap();
    assert_eq!(clone.name.as_str(), "b.qcow2");
    assert_eq!(clone.capacity, Some(20 << 30));
    assert_eq!(clone.cluster_size, Some(65_536));
    assert_eq!(clone.permissions.mode, Some(0o600));
    assert_eq!(clone.backing, Some(("/b.raw".into(), DiskFormat::Raw)));
    let raw = VolumeView {
        format: None,
        timestamps: None,
        cluster_size: None,
        lazy_refcounts: false,
        permissions: Permissions::default(),
        backing: None,
        ..view()
    };
    let plain = VolumeView {
        lazy_refcounts: false,
        ..view()
    };
    validate(
        "storagevol",
        &[printed, format_volume(&raw), format_volume(&plain)],
    );
}

#[test]
fn documents_of_libvirts_own_are_read() {
    let pool = parse_pool(include_str!("../data/pool.xml")).unwrap();
    assert_eq!(pool.permissions.group, Some(0));
    let volume = parse_volume(include_str!("../data/volume.xml")).unwrap();
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
        parse_volume(&text).map(|volume| volume.capacity.unwrap())
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
            "<volume><name>a</name><target><format type='qcow2'/><compat>0.10</compat></target></volume>",
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
        let refused = parse_volume(text).unwrap_err();
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
        assert_eq!(parse_volume(text).unwrap_err().code(), 27, "{text}");
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
    let mode = prop::option::of(0_u32..=0o7777);
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
    (name(), any::<u128>(), path(), permissions()).prop_map(
        |(name, uuid, directory, permissions)| Pool {
            name: PoolName::try_from(name).unwrap(),
            uuid: Some(uuid::Uuid::from_u128(uuid)),
            directory,
            permissions,
        },
    )
}

fn volume() -> impl Strategy<Value = VolumeView> {
    let format = prop::option::of(prop::sample::select(vec![
        DiskFormat::Raw,
        DiskFormat::Qcow2,
    ]));
    let backing = (path(), format.clone());
    let sizes = (any::<u64>(), any::<u64>(), any::<u64>());
    let time = || (any::<i64>(), 0..1_000_000_000_u32);
    let times = prop::option::of((time(), time(), time()));
    let qcow2 = (prop::option::of(512_u64..1 << 21), any::<bool>());
    let backing = prop::option::of(backing);
    (
        name(),
        path(),
        format,
        sizes,
        permissions(),
        times,
        qcow2,
        backing,
    )
        .prop_map(
            |(name, path, format, sizes, permissions, times, qcow2, backing)| VolumeView {
                name,
                path,
                format,
                capacity: sizes.0,
                allocation: sizes.1,
                physical: sizes.2,
                permissions,
                timestamps: times.map(|(accessed, modified, changed)| Timestamps {
                    accessed,
                    modified,
                    changed,
                }),
                cluster_size: qcow2.0,
                lazy_refcounts: qcow2.1,
                backing: backing.map(|(path, format)| Backing { path, format }),
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
    fn any_volume_is_read_as_it_was_printed(volume in volume()) {
        let text = format_volume(&volume);
        let format = volume.format.unwrap_or(DiskFormat::Raw);
        match parse_volume(&text) {
            Ok(read) => {
                prop_assert_eq!(read.name.as_str(), &volume.name);
                prop_assert_eq!(read.capacity, Some(volume.capacity));
                prop_assert_eq!(read.allocation, Some(volume.allocation));
                prop_assert_eq!(read.format, format);
                prop_assert_eq!(read.permissions, volume.permissions);
                let qcow2 = format == DiskFormat::Qcow2;
                prop_assert_eq!(read.cluster_size, volume.cluster_size.filter(|_| qcow2));
                prop_assert_eq!(read.lazy_refcounts, volume.lazy_refcounts && qcow2);
                let backing = volume.backing.map(|it| (it.path, it.format.unwrap_or(DiskFormat::Raw)));
                prop_assert_eq!(read.backing, backing);
            }
            Err(_) => prop_assert!(volume.backing.is_some() && format == DiskFormat::Raw, "{}", text),
        }
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
        .map(|_| format_volume(&volume().new_tree(&mut runner).unwrap().current()))
        .collect();
    validate("storagevol", &volumes);
}
