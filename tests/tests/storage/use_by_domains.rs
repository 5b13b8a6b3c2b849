//! A volume that a domain's machine has.

use std::time::Duration;

use anyhow::{Result, ensure};
use reeve_ipc::api::call::{
    DomainCreate, DomainDestroy, StartOptions, VolumeClone, VolumeCreate, VolumeDelete,
    VolumeDownload, VolumeResize, VolumeUpload, VolumeWipe, WipeAlgorithm,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::model::{Disk, Layer, NewVolume};
use reeve_ipc::spec::DiskFormat;
use reeve_tests::daemon::{built_in, named as domain};

use super::{Stage, named, refused, volume};

#[test]
fn what_a_machine_uses_is_left_alone() -> Result<()> {
    let stage = Stage::start()?;
    let (mut connection, pool) = stage.with_pool("images")?;
    connection.call(VolumeCreate {
        pool: named("images"),
        volume: Box::new(NewVolume::raw("disk".parse()?, 1 << 20)),
        preallocate_metadata: false,
    })?;
    let mut web = built_in("web", "mode=echo");
    let layer = Layer {
        path: pool.target.join("disk"),
        format: DiskFormat::Raw,
    };
    web.devices
        .disks
        .push(Disk::new("vda".parse()?, Some(layer)));
    connection.call(DomainCreate {
        definition: Box::new(web),
        options: StartOptions::default(),
    })?;
    let of = || volume("images", "disk");
    let zeroed = false;
    let capacity = reeve_ipc::api::call::NewCapacity::More(512);
    let (allocate, shrink) = (false, false);
    let codes = [
        refused(connection.call(VolumeDelete {
            volume: of(),
            zeroed,
        })),
        refused(connection.call(VolumeWipe {
            volume: of(),
            algorithm: WipeAlgorithm::Zero,
        })),
        refused(connection.call(VolumeResize {
            volume: of(),
            capacity,
            allocate,
            shrink,
            format: None,
        })),
        refused(connection.call(VolumeUpload {
            volume: of(),
            offset: 0,
            length: 0,
        })),
        refused(connection.call(VolumeClone {
            pool: named("images"),
            volume: Box::new(NewVolume::raw("copy".parse()?, 0)),
            from: of(),
            preallocate_metadata: false,
            reflink: false,
            from_format: None,
        })),
    ];
    ensure!(codes == [ApiErrorCode::InUse; 5], "{codes:?}");
    // Looking at it is another matter.
    let (stream, _) = connection.call_with_fds(VolumeDownload {
        volume: of(),
        offset: 0,
        length: 0,
    })?;
    ensure!(stream.length == 1 << 20);
    connection.call(DomainDestroy {
        domain: domain("web"),
    })?;
    // The kernel releases the machine a moment later.
    let mut last = Ok(());
    for _ in 0..200 {
        last = connection.call(VolumeDelete {
            volume: of(),
            zeroed,
        });
        match &last {
            Err(error)
                if error
                    .refused()
                    .is_some_and(|it| it.code == ApiErrorCode::InUse) =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            _ => break,
        }
    }
    last?;
    Ok(())
}
