//! The volumes of pools.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use reeve_ipc::api::call::{
    NewCapacity, PoolGet, VolumeClone, VolumeCreate, VolumeDelete, VolumeGet, VolumeList,
    VolumeRef, VolumeResize, VolumeWipe, WipeAlgorithm,
};
use reeve_ipc::api::storage::{Volume, VolumeKind};
use reeve_ipc::model::{NewVolume, VolumeName};

use super::super::Context;
use super::super::failure::{Code, Failure, Origin};
use super::super::list::{count, most};
use super::{
    absent_volume, as_storage, call, check_flags, invalid, no_volume_of_name, of_pool, of_volume,
    plain, pool_reference, volume_handle, volume_reference,
};
use crate::wire::types::OBJECTS_MAX;
use crate::wire::types::handles;
use crate::wire::types::storage as wire;
use crate::wire::xdr::List;
use crate::xml;
use crate::xml::XmlErrorKind;
use crate::xml::storage::VolumeDocument;

/// Every volume of a pool, by name.
async fn volumes(context: &Context, of: &handles::Pool) -> Result<Vec<Volume>, Failure> {
    let mut all: Vec<Volume> = Vec::new();
    loop {
        let list = VolumeList {
            pool: pool_reference(of),
            after: all.last().map(|last| last.name.clone()),
        };
        let page = of_pool(context, of, list).await?;
        let more = page.more && !page.volumes.is_empty();
        all.extend(page.volumes);
        if !more {
            return Ok(all);
        }
    }
}

pub(in super::super) async fn all(
    context: Arc<Context>,
    of: wire::StoragePoolListAllVolumes,
) -> Result<wire::VolumeList, Failure> {
    check_flags(of.flags, 0, "virStoragePoolListAllVolumes")?;
    let all = volumes(&context, &of.pool).await?;
    let ret = u32::try_from(all.len()).unwrap_or(u32::MAX);
    let volumes = match of.need_results {
        true => all.iter().map(volume_handle).collect(),
        false => List::default(),
    };
    Ok(wire::VolumeList { volumes, ret })
}

pub(in super::super) async fn how_many(
    context: Arc<Context>,
    of: wire::StoragePoolNumOfVolumes,
) -> Result<i32, Failure> {
    Ok(count(volumes(&context, &of.pool).await?.len()))
}

pub(in super::super) async fn names(
    context: Arc<Context>,
    of: wire::StoragePoolListVolumes,
) -> Result<List<String, OBJECTS_MAX>, Failure> {
    let all = volumes(&context, &of.pool).await?;
    let names = all.iter().map(|volume| volume.name.as_str().to_owned());
    Ok(names.take(most(of.maxnames).min(OBJECTS_MAX)).collect())
}

pub(in super::super) async fn by_name(
    context: Arc<Context>,
    of: wire::StorageVolLookupByName,
) -> Result<handles::Volume, Failure> {
    let absent = || no_volume_of_name(&of.name);
    let name: VolumeName = of.name.parse().map_err(|_| absent())?;
    let pool = pool_reference(&of.pool);
    let volume = VolumeRef::Name { pool, name };
    match of_pool(&context, &of.pool, VolumeGet { volume }).await {
        Ok(volume) => Ok(volume_handle(&volume)),
        Err(failure) if failure.code == Code::NoVolume => Err(absent()),
        Err(failure) => Err(failure),
    }
}

/// The volume of a path, which is its key.
async fn at(
    context: &Context,
    path: &str,
    absent: impl Fn() -> Failure,
) -> Result<handles::Volume, Failure> {
    let path = plain(path).ok_or_else(&absent)?;
    let volume = VolumeRef::Path(path);
    match call(context, VolumeGet { volume }).await {
        Ok(volume) => Ok(volume_handle(&volume)),
        Err(failure) if matches!(failure.code, Code::NoVolume | Code::NoPool) => Err(absent()),
        Err(failure) => Err(failure),
    }
}

pub(in super::super) async fn by_key(
    context: Arc<Context>,
    of: wire::StorageVolLookupByKey,
) -> Result<handles::Volume, Failure> {
    let absent = || {
        let why = format!("no storage vol with matching key {}", of.key);
        Failure::not_found(Code::NoVolume, why)
    };
    at(&context, &of.key, absent).await
}

pub(in super::super) async fn by_path(
    context: Arc<Context>,
    of: wire::StorageVolLookupByPath,
) -> Result<handles::Volume, Failure> {
    let absent = || {
        let why = format!("no storage vol with matching path '{}'", of.path);
        Failure::not_found(Code::NoVolume, why)
    };
    at(&context, &of.path, absent).await
}

/// The volume of a handle.
async fn volume(context: &Context, of: &handles::Volume) -> Result<Box<Volume>, Failure> {
    let volume = volume_reference(of)?;
    of_volume(context, of, VolumeGet { volume }).await
}

/// What a volume is, in libvirt's numbers (`virStorageVolType`).
const fn kind(kind: VolumeKind) -> u8 {
    match kind {
        VolumeKind::File => 0,
        VolumeKind::Directory => 2,
    }
}

pub(in super::super) async fn info(
    context: Arc<Context>,
    of: wire::StorageVolGetInfo,
) -> Result<wire::VolumeInfo, Failure> {
    let volume = volume(&context, &of.volume).await?;
    Ok(wire::VolumeInfo {
        kind: kind(volume.kind),
        capacity: volume.capacity,
        allocation: volume.allocation,
    })
}

pub(in super::super) async fn info_flags(
    context: Arc<Context>,
    of: wire::StorageVolGetInfoFlags,
) -> Result<wire::VolumeInfo, Failure> {
    const PHYSICAL: u32 = 1;
    check_flags(of.flags, PHYSICAL, "virStorageVolGetInfoFlags")?;
    let volume = volume(&context, &of.volume).await?;
    Ok(wire::VolumeInfo {
        kind: kind(volume.kind),
        capacity: volume.capacity,
        allocation: match of.flags & PHYSICAL {
            0 => volume.allocation,
            _ => volume.physical,
        },
    })
}

pub(in super::super) async fn xml_desc(
    context: Arc<Context>,
    of: wire::StorageVolGetXmlDesc,
) -> Result<String, Failure> {
    check_flags(of.flags, 0, "virStorageVolGetXMLDesc")?;
    let volume = volume(&context, &of.volume).await?;
    Ok(xml::storage::format_volume(&volume))
}

pub(in super::super) async fn path(
    context: Arc<Context>,
    of: wire::StorageVolGetPath,
) -> Result<String, Failure> {
    let volume = volume(&context, &of.volume).await?;
    Ok(volume.path.display().to_string())
}

/// A document whose disks name volumes, with the paths of those; any other as it is. As a path is what is kept, the
/// volume has to be there when its domain is defined, and not only when it starts.
///
/// # Errors
/// It is no document, or there is no such volume.
pub(in super::super) async fn in_documents<'a>(
    context: &Context,
    text: &'a str,
) -> Result<Cow<'a, str>, Failure> {
    let disks = xml::storage::disk_volumes(text)?;
    if disks.is_empty() {
        return Ok(Cow::Borrowed(text));
    }
    let mut found = Vec::new();
    for disk in &disks {
        let named = handles::Volume {
            pool: disk.pool.clone(),
            name: disk.volume.clone(),
            key: String::new(),
        };
        found.push(volume(context, &named).await?);
    }
    let paths: Vec<&Path> = found.iter().map(|volume| volume.path.as_path()).collect();
    Ok(Cow::Owned(xml::storage::with_disk_paths(
        text, &disks, &paths,
    )))
}

/// How a volume is made (libvirt `virStorageVolCreateFlags`).
mod making {
    pub(super) const PREALLOC_METADATA: u32 = 1;
    pub(super) const REFLINK: u32 = 2;
    pub(super) const VALIDATE: u32 = 4;
    pub(super) const ALL: u32 = PREALLOC_METADATA | REFLINK | VALIDATE;
}

fn parse(text: &str, flags: u32) -> Result<VolumeDocument, Failure> {
    let validate = flags & making::VALIDATE != 0;
    let parsed = xml::storage::parse_volume(text).map_err(|error| match error.kind {
        XmlErrorKind::Invalid if validate => Failure::new(Code::XmlInvalidSchema, error.message),
        _ => error.into(),
    });
    parsed.map_err(as_storage)
}

/// That there is one of that name already, as libvirt says it.
fn exists(failure: Failure, name: &VolumeName) -> Failure {
    match failure.code {
        Code::VolumeExists => Failure::of(Origin::Storage, Code::VolumeExists, format!("'{name}'")),
        _ => failure,
    }
}

/// That the pool a volume is to be made in is not active, as libvirt says it.
async fn not_active(context: &Context, of: &handles::Pool, failure: Failure) -> Failure {
    if failure.code != Code::OperationInvalid {
        return failure;
    }
    let pool = pool_reference(of);
    match call(context, PoolGet { pool }).await {
        Ok(pool) if !pool.summary.state.is_active() => {
            let why = format!("storage pool '{}' is not active", pool.summary.name);
            Failure::of(Origin::Storage, Code::OperationInvalid, why)
        }
        _ => failure,
    }
}

fn from_document(document: Result<NewVolume, xml::XmlError>) -> Result<Box<NewVolume>, Failure> {
    document
        .map(Box::new)
        .map_err(|error| as_storage(error.into()))
}

pub(in super::super) async fn create(
    context: Arc<Context>,
    of: wire::StorageVolCreateXml,
) -> Result<handles::Volume, Failure> {
    check_flags(of.flags, making::ALL, "virStorageVolCreateXML")?;
    if of.flags & making::REFLINK != 0 {
        return Err(invalid("a volume that is no copy shares nothing"));
    }
    let volume = from_document(parse(&of.xml, of.flags)?.made())?;
    let name = volume.name.clone();
    let create = VolumeCreate {
        pool: pool_reference(&of.pool),
        volume,
        preallocate_metadata: of.flags & making::PREALLOC_METADATA != 0,
    };
    match of_pool(&context, &of.pool, create).await {
        Ok(volume) => Ok(volume_handle(&volume)),
        Err(failure) => Err(exists(not_active(&context, &of.pool, failure).await, &name)),
    }
}

pub(in super::super) async fn create_from(
    context: Arc<Context>,
    of: wire::StorageVolCreateXmlFrom,
) -> Result<handles::Volume, Failure> {
    check_flags(of.flags, making::ALL, "virStorageVolCreateXMLFrom")?;
    let document = parse(&of.xml, of.flags)?;
    let from = volume_reference(&of.from)?;
    let original = volume(&context, &of.from).await?;
    let backing = original.backing.as_ref();
    let backing = backing.and_then(|backing| backing.path.as_deref());
    let volume = from_document(document.copied(backing))?;
    let name = volume.name.clone();
    let clone = VolumeClone {
        pool: pool_reference(&of.pool),
        volume,
        from,
        preallocate_metadata: of.flags & making::PREALLOC_METADATA != 0,
        reflink: of.flags & making::REFLINK != 0,
        // Nobody says it in libvirt's protocol.
        from_format: None,
    };
    match of_pool(&context, &of.pool, clone).await {
        Ok(volume) => Ok(volume_handle(&volume)),
        Err(failure) if failure.code == Code::NoVolume => Err(absent_volume(failure, &of.from)),
        Err(failure) => Err(exists(not_active(&context, &of.pool, failure).await, &name)),
    }
}

pub(in super::super) async fn delete(
    context: Arc<Context>,
    of: wire::StorageVolDelete,
) -> Result<(), Failure> {
    const ZEROED: u32 = 1;
    check_flags(of.flags, ZEROED, "virStorageVolDelete")?;
    let delete = VolumeDelete {
        volume: volume_reference(&of.volume)?,
        zeroed: of.flags & ZEROED != 0,
    };
    of_volume(&context, &of.volume, delete).await
}

pub(in super::super) async fn wipe(
    context: Arc<Context>,
    of: wire::StorageVolWipe,
) -> Result<(), Failure> {
    check_flags(of.flags, 0, "virStorageVolWipe")?;
    overwrite(&context, &of.volume, WipeAlgorithm::Zero).await
}

pub(in super::super) async fn wipe_pattern(
    context: Arc<Context>,
    of: wire::StorageVolWipePattern,
) -> Result<(), Failure> {
    /// Behind the last that libvirt 9.0 knows (`VIR_STORAGE_VOL_WIPE_ALG_LAST`).
    const BEYOND: u32 = 10;
    check_flags(of.flags, 0, "virStorageVolWipePattern")?;
    let algorithm = match of.algorithm {
        0 => WipeAlgorithm::Zero,
        number if number < BEYOND => WipeAlgorithm::Other,
        number => {
            let why = format!("wiping algorithm {number} not supported");
            return Err(invalid(why));
        }
    };
    overwrite(&context, &of.volume, algorithm).await
}

async fn overwrite(
    context: &Context,
    of: &handles::Volume,
    algorithm: WipeAlgorithm,
) -> Result<(), Failure> {
    let volume = volume_reference(of)?;
    of_volume(context, of, VolumeWipe { volume, algorithm }).await
}

pub(in super::super) async fn resize(
    context: Arc<Context>,
    of: wire::StorageVolResize,
) -> Result<(), Failure> {
    const ALLOCATE: u32 = 1;
    const DELTA: u32 = 2;
    const SHRINK: u32 = 4;
    let known = ALLOCATE | DELTA | SHRINK;
    check_flags(of.flags, known, "virStorageVolResize")?;
    let (delta, shrink) = (of.flags & DELTA != 0, of.flags & SHRINK != 0);
    let capacity = match (delta, shrink) {
        (true, true) => NewCapacity::Less(of.capacity),
        (true, false) => NewCapacity::More(of.capacity),
        (false, _) => NewCapacity::To(of.capacity),
    };
    let resize = VolumeResize {
        volume: volume_reference(&of.volume)?,
        capacity,
        allocate: of.flags & ALLOCATE != 0,
        shrink,
        format: None,
    };
    of_volume(&context, &of.volume, resize).await
}
