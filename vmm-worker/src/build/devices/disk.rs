//! A disk: the format its files are in, and an engine for each of its queues.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use reeve_devices::block::bounce::{Direct, MAX_BLOCK};
use reeve_devices::block::cache;
use reeve_devices::block::engine::Engine;
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
    let layers = spec
        .layers
        .iter()
        .map(|layer| Ok((descriptors.take(layer.fd)?, layer.format)))
        .collect::<Result<Vec<_>, FdError>>()?;
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
    let handle = Handle::Disk {
        stats: block.stats(),
        throttle: block.throttle(),
    };
    Ok(Made {
        device: Box::new(block),
        threads,
        handle,
    })
}

/// The engines of a disk that is made of these files, the image first: as many as it has queues, where
/// its format can have several.
fn engines(
    spec: &DiskSpec,
    layers: Vec<(OwnedFd, DiskFormat)>,
    rings: Option<&Arc<RingReserve>>,
) -> io::Result<Vec<Engine>> {
    let in_memory = layers.iter().all(|(file, _)| is_in_memory(file));
    let ring = || match spec.engine {
        IoEngine::IoUring if !in_memory => ring(&spec.name, rings),
        IoEngine::IoUring | IoEngine::Threads => None,
    };
    let cache = cache_mode(spec.cache);
    let mut layers = layers.into_iter();
    let Some((image, format)) = layers.next() else {
        return Err(io::Error::other(
            "a disk without a medium cannot be made yet",
        ));
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
            let others = (1..spec.queues)
                .map(|_| raw.try_clone())
                .collect::<io::Result<Vec<_>>>()?;
            let first = Engine::new(Box::new(raw), ring(), cache, direct);
            let others: Vec<_> = others
                .into_iter()
                .map(|layout| first.sibling(Box::new(layout), ring()))
                .collect();
            Ok(std::iter::once(first).chain(others).collect())
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
            let engine = Engine::new(Box::new(qcow2), ring(), cache, Direct::none());
            Ok(vec![engine])
        }
    }
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
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    const HUGETLBFS: i64 = 0x9584_58f6;
    rustix::fs::fstatfs(file).is_ok_and(|system| [TMPFS, RAMFS, HUGETLBFS].contains(&system.f_type))
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
