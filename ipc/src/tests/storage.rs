//! What is refused of a pool and a volume before anybody looks at the host.

use uuid::Uuid;

use crate::model::{
    Layer, NewVolume, Permissions, Pool, PoolUuid, Qcow2Compat, StorageError as E, VolumeName,
};
use crate::spec::DiskFormat;

fn pool(target: &str) -> Pool {
    Pool {
        name: "images".parse().unwrap(),
        uuid: PoolUuid(Uuid::from_u128(1)),
        target: target.into(),
        permissions: Permissions::default(),
    }
}

#[test]
fn a_target_is_a_plain_absolute_path() {
    for target in ["/var/lib/images", "/a", "/a//b/", "/a/./b"] {
        assert_eq!(pool(target).validate(), Ok(()), "{target}");
    }
    for target in ["", "a", "/", "//", "/a/../b", "/..", "./a"] {
        assert!(
            matches!(pool(target).validate(), Err(E::Target(_))),
            "{target}"
        );
    }
    let long = format!("/{}", "a/".repeat(2000));
    assert_eq!(pool(&long).validate(), Err(E::TargetLength));
    let mut bits = pool("/a");
    bits.permissions.mode = Some(0o10000);
    assert_eq!(bits.validate(), Err(E::Mode(0o10000)));
    let name = "disk".parse().unwrap();
    assert_eq!(pool("/a/b").path_of(&name).to_str(), Some("/a/b/disk"));
}

#[test]
fn a_volume_is_refused_for_what_it_contradicts() {
    let name: VolumeName = "disk".parse().unwrap();
    let raw = || NewVolume::raw(name.clone(), 1024);
    let qcow2 = || NewVolume {
        format: DiskFormat::Qcow2,
        ..raw()
    };
    let backed = |path: &str, format| NewVolume {
        backing: Some(Layer {
            path: path.into(),
            format: DiskFormat::Qcow2,
        }),
        format,
        capacity: None,
        ..raw()
    };
    let with = |change: &dyn Fn(&mut NewVolume)| {
        let mut volume = qcow2();
        change(&mut volume);
        volume.validate(false)
    };
    assert_eq!(raw().validate(false), Ok(()));
    assert_eq!(qcow2().validate(true), Ok(()));
    assert_eq!(backed("/a/b", DiskFormat::Qcow2).validate(false), Ok(()));
    let qcow2_only = backed("/a/b", DiskFormat::Raw).validate(false);
    assert_eq!(qcow2_only, Err(E::Qcow2Only("a backing file")));
    for path in ["b", "/a/../b", &format!("/{}", "b".repeat(1023))] {
        let refused = backed(path, DiskFormat::Qcow2).validate(false);
        assert!(matches!(refused, Err(E::Backing(_))), "{path}");
    }
    let sized = |capacity, allocation| {
        with(&|volume| (volume.capacity, volume.allocation) = (capacity, allocation))
    };
    assert_eq!(sized(None, None), Err(E::NoCapacity));
    assert_eq!(sized(Some(1 << 63), None), Err(E::Size(1 << 63)));
    assert_eq!(sized(Some(1), Some(u64::MAX)), Err(E::Size(u64::MAX)));
    assert!(matches!(sized(Some(1), Some(2)), Err(E::Allocation { .. })));
    for bytes in [0, 256, 513, 4 << 20] {
        let refused = with(&|volume| volume.qcow2.cluster_bytes = bytes);
        assert_eq!(refused, Err(E::Cluster(bytes)));
    }
    let lazy = |compat| {
        with(&|volume| {
            volume.qcow2.lazy_refcounts = true;
            volume.qcow2.compat = compat;
        })
    };
    assert_eq!(lazy(Qcow2Compat::V2), Err(E::LazyRefcounts));
    assert_eq!(lazy(Qcow2Compat::V3), Ok(()));
}
