//! Which pools there are, and how one stands.

use std::sync::Arc;

use reeve_ipc::api::call::{PoolFilter, PoolGet, PoolList, PoolRef};
use reeve_ipc::api::storage::{PoolDetails, PoolState, PoolSummary};
use reeve_ipc::model::{Permissions, Pool, PoolName, PoolUuid};
use uuid::Uuid;

use super::super::Context;
use super::super::failure::{Code, Failure};
use super::super::list::{count, most, wanted};
use super::{call, check_flags, no_pool_of_name, of_pool, plain, pool_handle, pool_reference};
use crate::wire::types::OBJECTS_MAX;
use crate::wire::types::handles;
use crate::wire::types::storage as wire;
use crate::wire::xdr::List;
use crate::xml;

/// Filters (libvirt `virConnectListAllStoragePoolsFlags`): in pairs, where neither or both of a pair are set it
/// filters nothing; and a bit for each type.
mod only {
    pub(super) const INACTIVE: u32 = 0x1;
    pub(super) const ACTIVE: u32 = 0x2;
    pub(super) const PERSISTENT: u32 = 0x4;
    pub(super) const TRANSIENT: u32 = 0x8;
    pub(super) const AUTOSTART: u32 = 0x10;
    pub(super) const NO_AUTOSTART: u32 = 0x20;
    pub(super) const DIRECTORY: u32 = 0x40;
    pub(super) const TYPES: u32 = 0xf_ffc0;
    pub(super) const ALL: u32 = 0xf_ffff;
}

/// The pools that filters leave; `None` where that is none whatever there is.
fn filter(flags: u32) -> Option<PoolFilter> {
    let pair = |yes, no| wanted(flags, yes, no);
    let types = flags & only::TYPES;
    (types == 0 || types & only::DIRECTORY != 0).then(|| PoolFilter {
        active: pair(only::ACTIVE, only::INACTIVE),
        persistent: pair(only::PERSISTENT, only::TRANSIENT),
        autostart: pair(only::AUTOSTART, only::NO_AUTOSTART),
    })
}

/// Every pool that passes, by name.
async fn pools(context: &Context, filter: PoolFilter) -> Result<Vec<PoolSummary>, Failure> {
    let mut all: Vec<PoolSummary> = Vec::new();
    loop {
        let after: Option<PoolName> = all.last().map(|last| last.name.clone());
        let page = call(context, PoolList { after, filter }).await?;
        let more = page.more && !page.pools.is_empty();
        all.extend(page.pools);
        if !more {
            return Ok(all);
        }
    }
}

async fn with_activity(context: &Context, active: bool) -> Result<Vec<PoolSummary>, Failure> {
    let filter = PoolFilter {
        active: Some(active),
        ..PoolFilter::default()
    };
    pools(context, filter).await
}

fn names(pools: &[PoolSummary], asked: i32) -> List<String, OBJECTS_MAX> {
    let names = pools.iter().map(|pool| pool.name.as_str().to_owned());
    names.take(most(asked).min(OBJECTS_MAX)).collect()
}

pub(in super::super) async fn all(
    context: Arc<Context>,
    call: wire::ConnectListAllStoragePools,
) -> Result<wire::PoolList, Failure> {
    check_flags(call.flags, only::ALL, "virConnectListAllStoragePools")?;
    let found = match filter(call.flags) {
        Some(filter) => pools(&context, filter).await?,
        None => Vec::new(),
    };
    let handles: Vec<_> = found.iter().map(pool_handle).collect();
    let ret = u32::try_from(handles.len()).unwrap_or(u32::MAX);
    let pools = match call.need_results {
        true => handles,
        false => Vec::new(),
    };
    Ok(wire::PoolList {
        pools: pools.into(),
        ret,
    })
}

pub(in super::super) async fn active_count(
    context: Arc<Context>,
    _: wire::ConnectNumOfStoragePools,
) -> Result<i32, Failure> {
    Ok(count(with_activity(&context, true).await?.len()))
}

pub(in super::super) async fn active_names(
    context: Arc<Context>,
    call: wire::ConnectListStoragePools,
) -> Result<List<String, OBJECTS_MAX>, Failure> {
    Ok(names(&with_activity(&context, true).await?, call.maxnames))
}

pub(in super::super) async fn inactive_count(
    context: Arc<Context>,
    _: wire::ConnectNumOfDefinedStoragePools,
) -> Result<i32, Failure> {
    Ok(count(with_activity(&context, false).await?.len()))
}

pub(in super::super) async fn inactive_names(
    context: Arc<Context>,
    call: wire::ConnectListDefinedStoragePools,
) -> Result<List<String, OBJECTS_MAX>, Failure> {
    Ok(names(&with_activity(&context, false).await?, call.maxnames))
}

/// The pool of that reference; there is none by what was asked for otherwise.
async fn find(
    context: &Context,
    pool: PoolRef,
    absent: impl FnOnce() -> Failure,
) -> Result<handles::Pool, Failure> {
    match call(context, PoolGet { pool }).await {
        Ok(details) => Ok(pool_handle(&details.summary)),
        Err(failure) if failure.code == Code::NoPool => Err(absent()),
        Err(failure) => Err(failure),
    }
}

async fn named(context: &Context, name: &str) -> Result<handles::Pool, Failure> {
    let absent = || no_pool_of_name(name);
    // No pool has a name that none may have.
    let reference = PoolRef::Name(name.parse().map_err(|_| absent())?);
    find(context, reference, absent).await
}

pub(in super::super) async fn by_name(
    context: Arc<Context>,
    call: wire::StoragePoolLookupByName,
) -> Result<handles::Pool, Failure> {
    named(&context, &call.name).await
}

pub(in super::super) async fn by_uuid(
    context: Arc<Context>,
    call: wire::StoragePoolLookupByUuid,
) -> Result<handles::Pool, Failure> {
    let uuid = Uuid::from_bytes(call.uuid);
    let why = format!("no storage pool with matching uuid '{uuid}'");
    let absent = || Failure::not_found(Code::NoPool, why);
    find(&context, PoolRef::Uuid(PoolUuid(uuid)), absent).await
}

pub(in super::super) async fn by_volume(
    context: Arc<Context>,
    call: wire::StoragePoolLookupByVolume,
) -> Result<handles::Pool, Failure> {
    named(&context, &call.volume.pool).await
}

pub(in super::super) async fn by_target_path(
    context: Arc<Context>,
    call: wire::StoragePoolLookupByTargetPath,
) -> Result<handles::Pool, Failure> {
    let absent = || {
        let why = format!("no storage pool with matching target path '{}'", call.path);
        Failure::not_found(Code::NoPool, why)
    };
    let path = plain(&call.path).ok_or_else(absent)?;
    find(&context, PoolRef::Target(path), absent).await
}

/// The pool of a handle.
async fn details(context: &Context, of: &handles::Pool) -> Result<Box<PoolDetails>, Failure> {
    let pool = pool_reference(of);
    of_pool(context, of, PoolGet { pool }).await
}

/// A pool's state in libvirt's numbers (`virStoragePoolState`).
const fn state(state: PoolState) -> u8 {
    match state {
        PoolState::Inactive => 0,
        PoolState::Building => 1,
        PoolState::Running => 2,
        PoolState::Inaccessible => 4,
    }
}

pub(in super::super) async fn info(
    context: Arc<Context>,
    call: wire::StoragePoolGetInfo,
) -> Result<wire::PoolInfo, Failure> {
    let details = details(&context, &call.pool).await?;
    let sizes = details.sizes.unwrap_or_default();
    Ok(wire::PoolInfo {
        state: state(details.summary.state),
        capacity: sizes.capacity,
        allocation: sizes.allocation,
        available: sizes.available,
    })
}

pub(in super::super) async fn xml_desc(
    context: Arc<Context>,
    call: wire::StoragePoolGetXmlDesc,
) -> Result<String, Failure> {
    const INACTIVE: u32 = 1;
    check_flags(call.flags, INACTIVE, "virStoragePoolGetXMLDesc")?;
    let details = *details(&context, &call.pool).await?;
    if call.flags & INACTIVE != 0 {
        let definition = details.next.unwrap_or(details.pool);
        return Ok(xml::storage::format_pool(&definition, None));
    }
    let permissions = match details.owner {
        Some(found) => Permissions {
            mode: Some(found.mode),
            owner: Some(found.owner),
            group: Some(found.group),
        },
        None => details.pool.permissions,
    };
    let pool = Pool {
        permissions,
        ..details.pool
    };
    Ok(xml::storage::format_pool(&pool, details.sizes))
}

pub(in super::super) async fn autostart(
    context: Arc<Context>,
    call: wire::StoragePoolGetAutostart,
) -> Result<bool, Failure> {
    Ok(details(&context, &call.pool).await?.summary.autostart)
}

pub(in super::super) async fn is_active(
    context: Arc<Context>,
    call: wire::StoragePoolIsActive,
) -> Result<bool, Failure> {
    let details = details(&context, &call.pool).await?;
    Ok(details.summary.state.is_active())
}

pub(in super::super) async fn is_persistent(
    context: Arc<Context>,
    call: wire::StoragePoolIsPersistent,
) -> Result<bool, Failure> {
    Ok(details(&context, &call.pool).await?.summary.persistent)
}

pub(in super::super) async fn capabilities(
    _: Arc<Context>,
    call: wire::ConnectGetStoragePoolCapabilities,
) -> Result<String, Failure> {
    check_flags(call.flags, 0, "virConnectGetStoragePoolCapabilities")?;
    Ok(xml::storage::format_capabilities())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_and_both_of_a_pair_filter_nothing() {
        assert_eq!(filter(0), Some(PoolFilter::default()));
        assert_eq!(filter(0x3f), Some(PoolFilter::default()));
        let active = PoolFilter {
            active: Some(true),
            ..PoolFilter::default()
        };
        assert_eq!(filter(only::ACTIVE), Some(active));
        let kept = PoolFilter {
            active: Some(false),
            persistent: Some(true),
            autostart: Some(false),
        };
        assert_eq!(filter(0x1 | 0x4 | 0x20), Some(kept));
    }

    #[test]
    fn of_other_types_than_directories_there_is_none() {
        assert_eq!(filter(0x80), None);
        assert_eq!(filter(0x80 | 0x40), Some(PoolFilter::default()));
        assert_eq!(filter(0x8_0000 | only::ACTIVE), None);
    }
}
