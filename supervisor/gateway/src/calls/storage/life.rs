//! The life of a pool.

use std::sync::Arc;

use reeve_ipc::api::call::{
    PoolAutostartSet, PoolBuild, PoolCreate, PoolDefine, PoolDelete, PoolRefresh, PoolStart,
    PoolStop, PoolUndefine,
};
use reeve_ipc::model::{Pool, PoolUuid};

use super::super::Context;
use super::super::define::drawn;
use super::super::failure::{Code, Failure};
use super::{as_storage, call, check_flags, of_pool, pool_handle, pool_reference};
use crate::wire::types::handles;
use crate::wire::types::storage as wire;
use crate::xml::{self, XmlErrorKind};

/// What a document says; strict whether its validation is asked for or not.
fn parse(text: &str, validate: bool) -> Result<Box<Pool>, Failure> {
    let uuid = PoolUuid(drawn()?);
    let pool = xml::storage::parse_pool(text, uuid).map_err(|error| match error.kind {
        XmlErrorKind::Invalid if validate => Failure::new(Code::XmlInvalidSchema, error.message),
        _ => error.into(),
    });
    pool.map(Box::new).map_err(as_storage)
}

pub(in super::super) async fn define(
    context: Arc<Context>,
    of: wire::StoragePoolDefineXml,
) -> Result<handles::Pool, Failure> {
    const VALIDATE: u32 = 1;
    check_flags(of.flags, VALIDATE, "virStoragePoolDefineXML")?;
    let define = PoolDefine {
        pool: parse(&of.xml, of.flags & VALIDATE != 0)?,
        only_new: false,
    };
    Ok(pool_handle(&call(&context, define).await?))
}

/// Whether flags of a start (libvirt `virStoragePoolCreateFlags`) ask for the directory to be made. The others are
/// about a file system that would be made in it.
fn build(flags: u32, function: &str) -> Result<bool, Failure> {
    const WITH_BUILD: u32 = 1;
    check_flags(flags, WITH_BUILD, function)?;
    Ok(flags & WITH_BUILD != 0)
}

pub(in super::super) async fn create_xml(
    context: Arc<Context>,
    of: wire::StoragePoolCreateXml,
) -> Result<handles::Pool, Failure> {
    let create = PoolCreate {
        build: build(of.flags, "virStoragePoolCreateXML")?,
        pool: parse(&of.xml, false)?,
    };
    Ok(pool_handle(&call(&context, create).await?))
}

pub(in super::super) async fn create(
    context: Arc<Context>,
    of: wire::StoragePoolCreate,
) -> Result<(), Failure> {
    let start = PoolStart {
        pool: pool_reference(&of.pool),
        build: build(of.flags, "virStoragePoolCreate")?,
    };
    of_pool(&context, &of.pool, start).await.map(|_| ())
}

pub(in super::super) async fn build_directory(
    context: Arc<Context>,
    of: wire::StoragePoolBuild,
) -> Result<(), Failure> {
    check_flags(of.flags, 0, "virStoragePoolBuild")?;
    let pool = pool_reference(&of.pool);
    of_pool(&context, &of.pool, PoolBuild { pool }).await
}

pub(in super::super) async fn destroy(
    context: Arc<Context>,
    of: wire::StoragePoolDestroy,
) -> Result<(), Failure> {
    let pool = pool_reference(&of.pool);
    of_pool(&context, &of.pool, PoolStop { pool }).await
}

pub(in super::super) async fn delete(
    context: Arc<Context>,
    of: wire::StoragePoolDelete,
) -> Result<(), Failure> {
    check_flags(of.flags, 0, "virStoragePoolDelete")?;
    let pool = pool_reference(&of.pool);
    of_pool(&context, &of.pool, PoolDelete { pool }).await
}

pub(in super::super) async fn undefine(
    context: Arc<Context>,
    of: wire::StoragePoolUndefine,
) -> Result<(), Failure> {
    let pool = pool_reference(&of.pool);
    of_pool(&context, &of.pool, PoolUndefine { pool }).await
}

pub(in super::super) async fn refresh(
    context: Arc<Context>,
    of: wire::StoragePoolRefresh,
) -> Result<(), Failure> {
    check_flags(of.flags, 0, "virStoragePoolRefresh")?;
    let pool = pool_reference(&of.pool);
    of_pool(&context, &of.pool, PoolRefresh { pool }).await
}

pub(in super::super) async fn set_autostart(
    context: Arc<Context>,
    of: wire::StoragePoolSetAutostart,
) -> Result<(), Failure> {
    let set = PoolAutostartSet {
        pool: pool_reference(&of.pool),
        autostart: of.autostart,
    };
    of_pool(&context, &of.pool, set).await
}
