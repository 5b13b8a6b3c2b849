//! The daemon with the capabilities that the package's unit gives it.

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::call::{
    PoolStart, VolumeClone, VolumeCreate, VolumeDelete, VolumeWipe, WipeAlgorithm,
};
use reeve_ipc::model::{NewVolume, Permissions};
use reeve_ipc::spec::DiskFormat;

use super::{Stage, define, named, volume};

/// The number of a capability that no package gives.
const SYS_ADMIN: u32 = 21;

fn of_another() -> Permissions {
    Permissions {
        mode: Some(0o640),
        owner: Some(64055),
        group: Some(107),
    }
}

#[test]
fn what_is_packaged_makes_pools_and_volumes_that_belong_to_others() -> Result<()> {
    let mut stage = Stage::prepare()?;
    stage.daemon.confine_as_packaged()?;
    stage.daemon.spawn()?;
    let pid = stage.daemon.pid().context("a daemon")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let effective = line("CapEff:").context("its capabilities")?.trim();
    let effective = u64::from_str_radix(effective, 16)?;
    ensure!(effective & (1 << SYS_ADMIN) == 0, "{effective:x}");

    let mut connection = stage.daemon.connect()?;
    let mut pool = stage.pool("images");
    pool.permissions = Permissions {
        mode: Some(0o751),
        ..of_another()
    };
    define(&mut connection, &pool)?;
    let build = true;
    connection.call(PoolStart {
        pool: named("images"),
        build,
    })?;
    let stat = std::fs::metadata(&pool.target)?;
    ensure!((stat.mode() & 0o7777, stat.uid(), stat.gid()) == (0o751, 64055, 107));
    connection.call(VolumeCreate {
        pool: named("images"),
        volume: Box::new(NewVolume {
            format: DiskFormat::Qcow2,
            permissions: of_another(),
            ..NewVolume::raw("disk".parse()?, 4 << 20)
        }),
        preallocate_metadata: false,
    })?;
    // As libvirt's clients clone: with the owner of the original.
    let copy = connection.call(VolumeClone {
        pool: named("images"),
        volume: Box::new(NewVolume {
            permissions: of_another(),
            allocation: Some(4 << 20),
            ..NewVolume::raw("copy".parse()?, 4 << 20)
        }),
        from: volume("images", "disk"),
        from_format: None,
        preallocate_metadata: false,
        reflink: false,
    })?;
    let stat = std::fs::metadata(&copy.path)?;
    ensure!((stat.mode() & 0o7777, stat.uid(), stat.gid()) == (0o640, 64055, 107));
    // And all that is theirs is changed and removed.
    connection.call(VolumeWipe {
        volume: volume("images", "copy"),
        algorithm: WipeAlgorithm::Zero,
    })?;
    for name in ["copy", "disk"] {
        connection.call(VolumeDelete {
            volume: volume("images", name),
            zeroed: false,
        })?;
    }
    Ok(())
}
