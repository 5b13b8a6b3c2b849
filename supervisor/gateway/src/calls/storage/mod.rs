//! Storage pools and volumes.
//!
//! A pool is found by the UUID of its handle, a volume by the names in its own; a volume's key is its path. What is
//! wrong is said by libvirt's storage driver, not by its hypervisor.

pub(super) mod life;
pub(super) mod pools;
mod transfer;
pub(super) mod volumes;

use std::path::PathBuf;
use std::time::Duration;

use reeve_ipc::api::call::{Call, PoolRef, VolumeRef};
use reeve_ipc::api::storage::{PoolSummary, Volume};
use reeve_ipc::model::PoolUuid;
use uuid::Uuid;

pub(crate) use self::transfer::{HOLES, Transfer, download, upload};
use super::Context;
use super::failure::{Code, Failure, Origin, said_by};
use crate::wire::types::handles;

/// How long a call waits for what is being done to its pool or volume: libvirt does not at all.
const PATIENCE: Duration = Duration::from_secs(1);

/// Calls the supervisor.
///
/// # Errors
/// Its own, as libvirt's storage driver says them.
async fn call<C: Call + Clone>(context: &Context, call: C) -> Result<C::Answer, Failure> {
    let answer = context.call_within(call, PATIENCE).await;
    answer.map(|(answer, _)| answer).map_err(as_storage)
}

fn as_storage(failure: Failure) -> Failure {
    let mut failure = said_by(Origin::Storage, failure);
    if failure.code == Code::OperationTimeout {
        // Something is done to it.
        failure.code = Code::OperationInvalid;
    }
    failure
}

/// Refuses flags that `function` does not know.
///
/// # Errors
/// [`Failure::unknown_flags`].
fn check_flags(flags: u32, known: u32, function: &str) -> Result<(), Failure> {
    super::failure::check_flags(flags, known, function).map_err(as_storage)
}

/// An argument that makes no sense.
fn invalid(why: impl Into<String>) -> Failure {
    Failure::of(Origin::Storage, Code::InvalidArgument, why)
}

/// As [`call`], about the pool of a handle.
async fn of_pool<C: Call + Clone>(
    context: &Context,
    pool: &handles::Pool,
    call: C,
) -> Result<C::Answer, Failure> {
    self::call(context, call).await.map_err(|failure| {
        if failure.code != Code::NoPool {
            return failure;
        }
        let (uuid, name) = (Uuid::from_bytes(pool.uuid), &pool.name);
        let why = format!("no storage pool with matching uuid '{uuid}' ({name})");
        Failure::not_found(Code::NoPool, why)
    })
}

/// As [`call`], about the volume of a handle.
async fn of_volume<C: Call + Clone>(
    context: &Context,
    volume: &handles::Volume,
    call: C,
) -> Result<C::Answer, Failure> {
    let answer = self::call(context, call).await;
    answer.map_err(|failure| absent_volume(failure, volume))
}

fn absent_volume(failure: Failure, volume: &handles::Volume) -> Failure {
    match failure.code {
        Code::NoPool => no_pool_of_name(&volume.pool),
        Code::NoVolume => no_volume_of_name(&volume.name),
        _ => failure,
    }
}

fn no_pool_of_name(name: &str) -> Failure {
    let why = format!("no storage pool with matching name '{name}'");
    Failure::not_found(Code::NoPool, why)
}

fn no_volume_of_name(name: &str) -> Failure {
    let why = format!("no storage vol with matching name '{name}'");
    Failure::not_found(Code::NoVolume, why)
}

/// The pool of a handle: its UUID names it, whatever else the handle says.
const fn pool_reference(pool: &handles::Pool) -> PoolRef {
    PoolRef::Uuid(PoolUuid(Uuid::from_bytes(pool.uuid)))
}

/// The volume of a handle. There is none of a name that none may have.
///
/// # Errors
/// Such a name.
fn volume_reference(volume: &handles::Volume) -> Result<VolumeRef, Failure> {
    let pool = volume.pool.parse();
    let name = volume.name.parse();
    Ok(VolumeRef::Name {
        pool: PoolRef::Name(pool.map_err(|_| no_pool_of_name(&volume.pool))?),
        name: name.map_err(|_| no_volume_of_name(&volume.name))?,
    })
}

/// The handle of a pool.
fn pool_handle(pool: &PoolSummary) -> handles::Pool {
    handles::Pool {
        name: pool.name.as_str().to_owned(),
        uuid: *pool.uuid.0.as_bytes(),
    }
}

/// The handle of a volume.
fn volume_handle(volume: &Volume) -> handles::Volume {
    handles::Volume {
        pool: volume.pool.as_str().to_owned(),
        name: volume.name.as_str().to_owned(),
        key: volume.path.display().to_string(),
    }
}

/// A path as a client writes it, without what means nothing in it; none that is relative.
fn plain(path: &str) -> Option<PathBuf> {
    let path: PathBuf = std::path::Path::new(path).components().collect();
    path.is_absolute().then_some(path)
}
