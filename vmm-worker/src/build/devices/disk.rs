//! A disk: the format its files are in, and an engine for each of its queues.

use std::os::fd::{AsFd, OwnedFd};

use reeve_devices::block::bounce::{Direct, MAX_BLOCK};
use reeve_devices::block::cache;
use reeve_devices::block::engine::Engine;
use reeve_devices::block::raw::Raw;
use reeve_devices::block::throttle::{Limit, Limits};
use reeve_devices::block::uring::Ring;
use reeve_devices::virtio::block::{Block, BlockParams};
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{CacheMode, Discard, DiskFormat, DiskSpec, DiskThrottle, IoEngine, Rate};
use rustix::fs::{AtFlags, StatxFlags};

use super::{BuildError, Made, start_thread};

/// `STATX_DIOALIGN` (Linux 6.1).
const DIRECT_ALIGNMENT: StatxFlags = StatxFlags::from_bits_retain(0x2000);

pub(super) fn make(spec: DiskSpec, descriptors: &mut FdTable) -> Result<Made, BuildError> {
    let failed = |source| BuildError::Disk {
        name: spec.name.clone(),
        source,
    };
    let [layer] = spec.layers.as_slice() else {
        return Err(BuildError::Unsupported("disk with backing images"));
    };
    if layer.format != DiskFormat::Raw {
        return Err(BuildError::Unsupported("disk format qcow2"));
    }
    let file = descriptors.take(layer.fd)?;
    let direct = if spec.cache.is_direct() {
        direct_alignment(&file)
    } else {
        Direct::none()
    };
    let raw = Raw::new(file, spec.read_only, direct.clone()).map_err(failed)?;
    let ring = || match spec.engine {
        IoEngine::IoUring => ring(&spec.name),
        IoEngine::Threads => None,
    };
    let mut layouts = Vec::new();
    for _ in 1..spec.queues {
        layouts.push(raw.try_clone().map_err(failed)?);
    }
    let first = Engine::new(Box::new(raw), ring(), cache_mode(spec.cache), direct);
    let siblings: Vec<_> = layouts
        .into_iter()
        .map(|layout| first.sibling(Box::new(layout), ring()))
        .collect();
    let engines: Vec<_> = std::iter::once(first).chain(siblings).collect();
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
    Ok(Made {
        device: Box::new(Block::new(params, engines)?),
        threads,
    })
}

/// A ring, where the host has them.
fn ring(name: &str) -> Option<Ring> {
    Ring::new()
        .inspect_err(|error| tracing::warn!(disk = name, %error, "no io_uring: its thread waits for the disk"))
        .ok()
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
pub(super) fn limits(throttle: DiskThrottle) -> Limits {
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
