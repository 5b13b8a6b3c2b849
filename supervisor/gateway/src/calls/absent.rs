//! Objects that a host of Reeve has none of: asked for all of them a client is told so.
//!
//! These are answered, and not refused, because clients ask for them as they start or as they deal with a domain,
//! and take a refusal for a broken connection.

use std::sync::Arc;

use super::Context;
use super::failure::{Code, Failure};
use crate::wire::types::OBJECTS_MAX;
use crate::wire::types::handles::Snapshot;
use crate::wire::types::save::{
    CheckpointList, DomainHasCurrentSnapshot, DomainListAllCheckpoints, DomainListAllSnapshots,
    DomainSnapshotCurrent, DomainSnapshotListNames, DomainSnapshotLookupByName, DomainSnapshotNum,
    SnapshotList,
};
use crate::wire::xdr::List;

pub(super) async fn snapshot_count(
    context: Arc<Context>,
    call: DomainSnapshotNum,
) -> Result<i32, Failure> {
    context.summary(&call.domain).await?;
    Ok(0)
}

pub(super) async fn snapshot_names(
    context: Arc<Context>,
    call: DomainSnapshotListNames,
) -> Result<List<String, OBJECTS_MAX>, Failure> {
    context.summary(&call.domain).await?;
    Ok(List::default())
}

pub(super) async fn snapshots(
    context: Arc<Context>,
    call: DomainListAllSnapshots,
) -> Result<SnapshotList, Failure> {
    context.summary(&call.domain).await?;
    Ok(SnapshotList {
        snapshots: List::default(),
        ret: 0,
    })
}

pub(super) async fn has_current_snapshot(
    context: Arc<Context>,
    call: DomainHasCurrentSnapshot,
) -> Result<bool, Failure> {
    context.summary(&call.domain).await?;
    Ok(false)
}

pub(super) async fn current_snapshot(
    context: Arc<Context>,
    call: DomainSnapshotCurrent,
) -> Result<Snapshot, Failure> {
    context.summary(&call.domain).await?;
    let why = "the domain does not have a current snapshot";
    Err(Failure::not_found(Code::NoSnapshot, why))
}

pub(super) async fn snapshot(
    context: Arc<Context>,
    call: DomainSnapshotLookupByName,
) -> Result<Snapshot, Failure> {
    context.summary(&call.domain).await?;
    let why = format!("no domain snapshot with matching name '{}'", call.name);
    Err(Failure::not_found(Code::NoSnapshot, why))
}

pub(super) async fn checkpoints(
    context: Arc<Context>,
    call: DomainListAllCheckpoints,
) -> Result<CheckpointList, Failure> {
    context.summary(&call.domain).await?;
    Ok(CheckpointList {
        checkpoints: List::default(),
        ret: 0,
    })
}
