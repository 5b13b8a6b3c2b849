//! A disk: the format its files are in, and an engine for each of its queues.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use reeve_devices::block::absent::Absent;
use reeve_devices::block::bounce::{Direct, MAX_BLOCK};
use reeve_devices::block::cache;
use reeve_devices::block::engine::{Engine, Medium};
use reeve_devices::block::qcow2::{Format, Options, Qcow2};
use reeve_devices::block::raw::Raw;
use reeve_devices::block::reserve::RingReserve;
use reeve_devices::block::throttle::{Limit, Limits};
use reeve_devices::block::uring::Ring;
use reeve_devices::virtio::block::{Block, BlockParams};
use reeve_ipc::fd::{FdError, FdTable};
use reeve_ipc::spec::{CacheMode, Discard, DiskFormat, DiskSpec, DiskThrottle, IoEngine, Rate};
use rustix::fs::{AtFlags, OFlags, StatxFlags};

use super::{BuildError, Made, start_thread};
use crate::device_set::Handle;

/// `STATX_DIOALIGN` (Linux 6.1).
const DIRECT_ALIGNMENT: StatxFlags = StatxFlags::from_bits_retain(0x2000);

pub(super) fn make(
    spec: DiskSpec,
    descriptors: &mut FdTable,
    rings: Option<&Arc<RingReserve>>,
) -> Result<Made, BuildError> {
    let layers = layers(&spec, descriptors)?;
    let engines = engines(&spec, layers, rings).map_err(|source| BuildError::Disk {
        name: spec.name.clone(),
        source,
    })?;
    let threads = (0..engines.len())
        .map(|_| start_thread(&format!("disk {}", spec.name)))
        .collect::<Result<Vec<_>, _>>()?;
    let params = BlockParams {
        serial: serial(&spec.serial),
        read_only: spec.read_only,
        block_bytes: spec.block_bytes,
        physical_block_bytes: spec.block_bytes.max(4096),
        discard_granularity: spec.block_bytes.max(4096),
        discard: spec.discard == Discard::Unmap,
        limits: limits(spec.throttle),
        ..BlockParams::default()
    };
    let block = Block::new(params, engines)?;
    let handle = Handle::Disk(block.control());
    Ok(Made {
        device: Box::new(block),
        threads,
        handle,
    })
}

/// What is in the drive that `spec` describes, for a disk that is there.
pub(crate) fn medium(spec: &DiskSpec, descriptors: &mut FdTable) -> Result<Medium, BuildError> {
    let layers = layers(spec, descriptors)?;
    opened(spec, layers)
        .map(Opened::into_medium)
        .map_err(|source| BuildError::Disk {
            name: spec.name.clone(),
            source,
        })
}

fn layers(
    spec: &DiskSpec,
    descriptors: &mut FdTable,
) -> Result<Vec<(OwnedFd, DiskFormat)>, FdError> {
    let layers = spec.layers.iter();
    layers
        .map(|layer| Ok((descriptors.take(layer.fd)?, layer.format)))
        .collect()
}

/// The files of a disk, opened as what they are.
enum Opened {
    Absent,
    Raw(Raw, Direct),
    Qcow2(Box<Qcow2>),
}

impl Opened {
    fn into_medium(self) -> Medium {
        match self {
            Self::Absent => Medium {
                layout: Box::new(Absent),
                direct: Direct::none(),
            },
            Self::Raw(raw, direct) => Medium {
                layout: Box::new(raw),
                direct,
            },
            Self::Qcow2(qcow2) => Medium {
                layout: qcow2,
                direct: Direct::none(),
            },
        }
    }
}

/// A disk that is made of these files, the image first; without any there is no medium.
fn opened(spec: &DiskSpec, layers: Vec<(OwnedFd, DiskFormat)>) -> io::Result<Opened> {
    let mut layers = layers.into_iter();
    let Some((image, format)) = layers.next() else {
        return Ok(Opened::Absent);
    };
    match format {
        DiskFormat::Raw => {
            if layers.next().is_some() {
                return Err(io::Error::other("a raw image is based on no other"));
            }
            let direct = if spec.cache.is_direct() {
                direct_alignment(&image)
            } else {
                Direct::none()
            };
            let raw = Raw::new(image, spec.read_only, direct.clone())?;
            Ok(Opened::Raw(raw, direct))
        }
        DiskFormat::Qcow2 => {
            // Its tables are read and written in pieces that no direct file takes.
            let backing = layers
                .map(|(file, format)| {
                    through_page_cache(&file)?;
                    let format = match format {
                        DiskFormat::Raw => Format::Raw,
                        DiskFormat::Qcow2 => Format::Qcow2,
                    };
                    Ok((file, format))
                })
                .collect::<io::Result<Vec<_>>>()?;
            through_page_cache(&image)?;
            let options = Options {
                writable: !spec.read_only,
                ..Options::default()
            };
            let qcow2 = Qcow2::open(image, backing, options).map_err(io::Error::other)?;
            Ok(Opened::Qcow2(Box::new(qcow2)))
        }
    }
}

/// The engines of a disk that is made of these files, the image first: as many as it has queues, where
/// its format can have several.
fn engines(
    spec: &DiskSpec,
    layers: Vec<(OwnedFd, DiskFormat)>,
    rings: Option<&Arc<RingReserve>>,
) -> io::Result<Vec<Engine>> {
    // What will be in a drive that is empty is not known.
    let in_memory = !layers.is_empty() && layers.iter().all(|(file, _)| is_in_memory(file));
    let ring = || match spec.engine {
        IoEngine::IoUring if !in_memory => ring(&spec.name, rings),
        IoEngine::IoUring | IoEngine::Threads => None,
    };
    let opened = opened(spec, layers)?;
    let others = match &opened {
        Opened::Raw(raw, _) => (1..spec.queues)
            .map(|_| raw.try_clone())
            .collect::<io::Result<Vec<_>>>()?,
        Opened::Absent | Opened::Qcow2(_) => Vec::new(),
    };
    let Medium { layout, direct } = opened.into_medium();
    let first = Engine::new(layout, ring(), cache_mode(spec.cache), direct);
    let others: Vec<_> = others
        .into_iter()
        .map(|layout| first.sibling(Box::new(layout), ring()))
        .collect();
    Ok(std::iter::once(first).chain(others).collect())
}

/// Has what is read and written of `file` go through the page cache, however it was opened.
fn through_page_cache(file: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    if flags.contains(OFlags::DIRECT) {
        rustix::fs::fcntl_setfl(file, flags - OFlags::DIRECT)?;
    }
    Ok(())
}

/// A ring of the reserve if there is one, otherwise a new one, where the host has them.
fn ring(name: &str, reserve: Option<&Arc<RingReserve>>) -> Option<Ring> {
    if let Some(reserve) = reserve {
        let ring = reserve.take();
        if ring.is_none() {
            tracing::info!(
                disk = name,
                "no io_uring in reserve: its thread waits for the disk"
            );
        }
        return ring;
    }
    Ring::new()
        .inspect_err(|error| tracing::warn!(disk = name, %error, "no io_uring: its thread waits for the disk"))
        .ok()
}

/// Whether a file is all in memory, where moving bytes is a copy and there is nothing to wait for. The
/// kernel does not know that of these file systems when io_uring asks, and hands each transfer to a thread
/// of its own, which costs several times as much as the copy.
fn is_in_memory(file: &OwnedFd) -> bool {
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    const HUGETLBFS: u32 = 0x9584_58f6;
    // Magic numbers are of 32 bits.
    let system = rustix::fs::fstatfs(file).ok();
    system
        .and_then(|system| u32::try_from(system.f_type).ok())
        .is_some_and(|magic| [TMPFS, RAMFS, HUGETLBFS].contains(&magic))
}

/// What the file asks of those who leave the page cache out. Where the host does not say it is what every
/// disk can do.
fn direct_alignment(file: &OwnedFd) -> Direct {
    let asked = rustix::fs::statx(file.as_fd(), "", AtFlags::EMPTY_PATH, DIRECT_ALIGNMENT)
        .ok()
        .and_then(|stat| Direct::new(stat.stx_dio_mem_align, stat.stx_dio_offset_align));
    asked
        .or_else(|| Direct::new(MAX_BLOCK, MAX_BLOCK))
        .unwrap_or_else(Direct::none)
}

fn cache_mode(mode: CacheMode) -> cache::CacheMode {
    match mode {
        CacheMode::WriteBack => cache::CacheMode::Writeback,
        CacheMode::None => cache::CacheMode::None,
        CacheMode::WriteThrough => cache::CacheMode::Writethrough,
        CacheMode::DirectSync => cache::CacheMode::DirectSync,
        CacheMode::Unsafe => cache::CacheMode::Unsafe,
    }
}

fn serial(text: &str) -> [u8; 20] {
    let mut serial = [0; 20];
    for (to, from) in serial.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    serial
}

/// The limits that a specification means.
pub(crate) fn limits(throttle: DiskThrottle) -> Limits {
    Limits {
        total_bytes: limit(throttle.bytes.total),
        read_bytes: limit(throttle.bytes.read),
        write_bytes: limit(throttle.bytes.write),
        total_operations: limit(throttle.requests.total),
        read_operations: limit(throttle.requests.read),
        write_operations: limit(throttle.requests.write),
        operation_bytes: 0,
    }
}

fn limit(rate: Option<Rate>) -> Limit {
    rate.map_or_else(Limit::default, |rate| Limit {
        rate: rate.per_second,
        burst: rate.burst.map_or(0, |burst| burst.per_second),
        burst_seconds: rate.burst.map_or(0, |burst| burst.seconds),
    })
}
