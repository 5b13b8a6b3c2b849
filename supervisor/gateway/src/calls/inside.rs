//! What is inside of a domain: bytes of its memory and its disks, the sizes of these; and an interrupt for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reeve_ipc::api::call::{
    DomainDeviceUpdate, DomainDiskSizeGet, DomainNmiInject, DomainPeek, MAX_PEEK_BYTES, PeekAt,
};
use reeve_ipc::device::DeviceChange;
use reeve_ipc::model::{DeviceName, Disk, Domain as Definition};

use super::Context;
use super::context::reference;
use super::failure::{Code, Failure, check_flags, invalid_argument};
use crate::wire::types::PEEK_MAX;
use crate::wire::types::device as devices;
use crate::wire::types::handles::Domain;
use crate::wire::types::inspect as wire;
use crate::wire::xdr::Opaque;

/// How long a look waits for storage.
const STORAGE_PATIENCE: Duration = Duration::from_secs(10);
/// How soon it is asked again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The disk that `path` means, by its target or its file.
fn disk<'a>(definition: &'a Definition, path: &str) -> Result<&'a Disk, Failure> {
    let mut disks = definition.devices.disks.iter();
    let meant = |disk: &&Disk| {
        let image = disk.image.as_ref();
        disk.target.as_str() == path || image.is_some_and(|image| image.path.as_os_str() == path)
    };
    let found = disks.find(meant);
    found.ok_or_else(|| {
        let path: String = path.chars().take(256).collect();
        invalid_argument(format!("invalid path {path} not assigned to domain"))
    })
}

/// The same, which has a medium.
fn medium<'a>(definition: &'a Definition, path: &str) -> Result<&'a Disk, Failure> {
    let disk = disk(definition, path)?;
    match disk.image {
        Some(_) => Ok(disk),
        None => {
            let why = format!("disk '{path}' does not currently have a source assigned");
            Err(invalid_argument(why))
        }
    }
}

pub(super) async fn block_info(
    context: Arc<Context>,
    call: wire::DomainGetBlockInfo,
) -> Result<wire::BlockInfo, Failure> {
    check_flags(call.flags, 0, "virDomainGetBlockInfo")?;
    let definition = context.definition(&call.domain, false).await?;
    let disk = medium(&definition, &call.path)?.target.clone();
    let get = DomainDiskSizeGet {
        domain: reference(&call.domain),
        disk,
    };
    let size = context.of(&call.domain, get).await?;
    Ok(wire::BlockInfo {
        allocation: size.allocation,
        capacity: size.capacity,
        physical: size.physical,
    })
}

pub(super) async fn block_resize(
    context: Arc<Context>,
    call: devices::DomainBlockResize,
) -> Result<(), Failure> {
    const BYTES: u32 = 1;
    check_flags(call.flags, BYTES, "virDomainBlockResize")?;
    let bytes = match call.flags & BYTES {
        0 => call.size.checked_mul(1024),
        _ => Some(call.size),
    };
    let bytes = bytes.filter(|bytes| i64::try_from(*bytes).is_ok());
    let too_large = || {
        let why = format!("size must be less than {}", i64::MAX / 1024);
        Failure::new(Code::Overflow, why)
    };
    let bytes = bytes.ok_or_else(too_large)?;
    context.active(&call.domain).await?;
    let definition = context.definition(&call.domain, false).await?;
    let target = medium(&definition, &call.disk)?.target.clone();
    let update = DomainDeviceUpdate {
        domain: reference(&call.domain),
        device: DeviceName::Disk(target),
        // What is lost at its end is the caller's to know, as with libvirt.
        change: DeviceChange::DiskSize {
            bytes: Some(bytes),
            shrink: true,
        },
        live: true,
        persistent: false,
    };
    context.of(&call.domain, update).await
}

pub(super) async fn block_peek(
    context: Arc<Context>,
    call: wire::DomainBlockPeek,
) -> Result<Opaque<PEEK_MAX>, Failure> {
    check_flags(call.flags, 0, "virDomainBlockPeek")?;
    context.active(&call.domain).await?;
    let definition = context.definition(&call.domain, false).await?;
    let at = PeekAt::Disk(medium(&definition, &call.path)?.target.clone());
    peek(&context, &call.domain, at, call.offset, call.size).await
}

pub(super) async fn memory_peek(
    context: Arc<Context>,
    call: wire::DomainMemoryPeek,
) -> Result<Opaque<PEEK_MAX>, Failure> {
    const VIRTUAL: u32 = 1;
    const PHYSICAL: u32 = 2;
    check_flags(call.flags, VIRTUAL | PHYSICAL, "virDomainMemoryPeek")?;
    match call.flags {
        PHYSICAL => {}
        VIRTUAL => {
            let why = "addresses of a guest's programs are not translated: give a physical one";
            return Err(Failure::new(Code::ArgumentUnsupported, why));
        }
        _ => {
            let why = "flags parameter must be VIR_MEMORY_VIRTUAL or VIR_MEMORY_PHYSICAL";
            return Err(invalid_argument(why));
        }
    }
    context.active(&call.domain).await?;
    peek(
        &context,
        &call.domain,
        PeekAt::Memory,
        call.offset,
        call.size,
    )
    .await
}

/// Bytes, asked for a few at a time.
async fn peek(
    context: &Context,
    of: &Domain,
    at: PeekAt,
    offset: u64,
    size: u32,
) -> Result<Opaque<PEEK_MAX>, Failure> {
    let size_usize = usize::try_from(size).unwrap_or(usize::MAX);
    if size_usize > PEEK_MAX {
        let why = format!("size {size} exceeds maximum {PEEK_MAX}");
        return Err(invalid_argument(why));
    }
    if offset.checked_add(size.into()).is_none() {
        return Err(invalid_argument("there are no bytes so far behind"));
    }
    let mut bytes: Vec<u8> = Vec::new();
    let begun = Instant::now();
    while bytes.len() < size_usize {
        let done = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let peek = DomainPeek {
            domain: reference(of),
            at: at.clone(),
            offset: offset + u64::from(done),
            length: size.saturating_sub(done).min(MAX_PEEK_BYTES),
        };
        let more = read(context, of, peek, begun).await?;
        if more.is_empty() || more.len() > size_usize - bytes.len() {
            let why = "the supervisor told of another number of bytes";
            return Err(Failure::new(Code::InternalError, why));
        }
        bytes.extend(more);
    }
    Ok(bytes.into())
}

/// Some of them, of a call that was `begun` then. A worker waits for its storage no longer than half a second, and has what it was asked for when it
/// is asked again.
async fn read(
    context: &Context,
    of: &Domain,
    peek: DomainPeek,
    begun: Instant,
) -> Result<Vec<u8>, Failure> {
    loop {
        match context.of(of, peek.clone()).await {
            Err(failure)
                if failure.code == Code::OperationTimeout && begun.elapsed() < STORAGE_PATIENCE =>
            {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            read => return read,
        }
    }
}

pub(super) async fn inject_nmi(
    context: Arc<Context>,
    call: devices::DomainInjectNmi,
) -> Result<(), Failure> {
    check_flags(call.flags, 0, "virDomainInjectNMI")?;
    let domain = reference(&call.domain);
    context.of(&call.domain, DomainNmiInject { domain }).await
}
