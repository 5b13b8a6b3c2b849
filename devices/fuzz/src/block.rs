//! A disk: raw or qcow2, by either engine, in memory.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use reeve_devices::block::bounce::Direct;
use reeve_devices::block::cache::CacheMode;
use reeve_devices::block::engine::Engine;
use reeve_devices::block::qcow2::{self, CreateOptions, Qcow2};
use reeve_devices::block::raw::Raw;
use reeve_devices::block::throttle::{Limit, Limits, Throttle};
use reeve_devices::block::uring::Ring;
use reeve_devices::block::{Layout, SizeChange};
use reeve_devices::memory::GuestRam;
use reeve_devices::shared::{Shared, lock, share};
use reeve_devices::state::StateError;
use reeve_devices::virtio::block::{Block, BlockParams};
use reeve_devices::virtio::{
    DeviceId, QueueWorker, Remains, Start, StartError, Unwritten, VirtioDevice,
};
use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};

use super::driver::Piece;
use super::guest::{Subject, pieces};
use super::input::Input;

/// Bytes of the disk to begin with.
const DISK: u64 = 0x4_0000;
/// Bytes beyond which it is not made larger.
const LARGEST: u64 = 2 * DISK;
/// More than an image of it can need: every cluster twice, its tables, and what a file grows by.
const IMAGE: u64 = 4 << 20;
/// What it needs more, at most, for each time it was made larger: its table moves behind the end.
const GROWTH: u64 = 2 << 20;

/// The device, reached by its control thread as well.
struct Held {
    block: Shared<Block>,
    queue_sizes: Vec<u16>,
}

impl VirtioDevice for Held {
    fn id(&self) -> DeviceId {
        lock(&self.block).id()
    }

    fn features(&self) -> u64 {
        lock(&self.block).features()
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        lock(&self.block).read_config(offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        lock(&self.block).write_config(offset, data);
    }

    fn start(&mut self, start: Start) -> Result<Vec<Box<dyn QueueWorker>>, StartError> {
        lock(&self.block).start(start)
    }

    fn stopped(&mut self) {
        lock(&self.block).stopped();
    }

    fn reset(&mut self) {
        lock(&self.block).reset();
    }

    fn take_remains(&mut self) -> Option<Remains> {
        lock(&self.block).take_remains()
    }

    fn check_saveable(&self) -> Result<(), Unwritten> {
        lock(&self.block).check_saveable()
    }

    fn save(&self) -> Vec<u8> {
        lock(&self.block).save()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        lock(&self.block).restore(version, bytes)
    }
}

/// The disk.
#[derive(Debug)]
pub struct Disk {
    file: OwnedFd,
    qcow2: bool,
    uring: bool,
    queues: usize,
    cache: CacheMode,
    params: BlockParams,
    size: u64,
    /// How often the size has changed.
    grown: u64,
    block: Option<Shared<Block>>,
    throttle: Option<Arc<Throttle>>,
}

impl Disk {
    /// Makes the disk so much larger, or tries to.
    fn grow(&mut self, by: u64) {
        let Some(block) = &self.block else { return };
        let size = (self.size + by).min(LARGEST);
        self.grown += u64::from(size != self.size);
        self.size = size;
        if !self.qcow2 {
            ftruncate(&self.file, self.size).expect("a size");
        }
        let grow = SizeChange::grow(self.size);
        lock(block).control().resize(grow, Box::new(|_| ()));
    }

    fn copy(&self) -> OwnedFd {
        self.file.try_clone().expect("a descriptor")
    }

    fn layout(&self) -> Box<dyn Layout> {
        if self.qcow2 {
            let options = qcow2::Options {
                writable: !self.params.read_only,
                // The least: tables are written out all the time.
                l2_cache_bytes: 0,
                refcount_cache_bytes: 0,
            };
            let image = Qcow2::open(self.copy(), Vec::new(), options);
            Box::new(image.expect("an image of ours stays good"))
        } else {
            let raw = Raw::new(self.copy(), self.params.read_only, Direct::none());
            Box::new(raw.expect("a file"))
        }
    }

    fn ring(&self) -> Option<Ring> {
        self.uring.then(Ring::new)?.ok()
    }
}

/// A limit of the throttle.
fn limit(input: &mut Input<'_>) -> Limit {
    let scale = u64::from(input.u8());
    Limit {
        rate: scale << (scale & 31),
        burst: u64::from(input.u8()) << (scale & 31),
        burst_seconds: input.u8().into(),
    }
}

impl Subject for Disk {
    fn new(input: &mut Input<'_>) -> Self {
        let (options, more) = (input.u8(), input.u8());
        let file = memfd_create("disk", MemfdFlags::CLOEXEC).expect("a memfd");
        let qcow2 = options & 1 != 0;
        if qcow2 {
            let options = CreateOptions {
                size: DISK,
                cluster_bits: if more & 0x80 == 0 { 9 } else { 16 },
                backing: None,
            };
            let file = file.try_clone().expect("a descriptor");
            qcow2::create(file, &options).expect("an image");
        } else {
            ftruncate(&file, DISK).expect("a size");
        }
        let caches = [
            CacheMode::Writeback,
            CacheMode::Writethrough,
            CacheMode::Unsafe,
            CacheMode::None,
        ];
        Self {
            file,
            qcow2,
            // A ring costs as much as all the rest.
            uring: options & 0x0e == 0x0e,
            queues: if qcow2 { 1 } else { 1 + usize::from(more & 1) },
            cache: caches[usize::from(options >> 6)],
            params: BlockParams {
                read_only: options & 0x30 == 0x30,
                queue_size: 64,
                discard: more & 2 == 0,
                ..BlockParams::default()
            },
            size: DISK,
            grown: 0,
            block: None,
            throttle: None,
        }
    }

    fn device(&mut self, _ram: &GuestRam) -> Box<dyn VirtioDevice> {
        let direct = Direct::none();
        let mut engines = vec![Engine::new(self.layout(), self.ring(), self.cache, direct)];
        for _ in 1..self.queues {
            let sibling = engines[0].sibling(self.layout(), self.ring());
            engines.push(sibling);
        }
        let block = Block::new(self.params.clone(), engines).expect("a disk");
        self.throttle = Some(block.throttle());
        let queue_sizes = block.queue_sizes().to_vec();
        let block = share(block);
        self.block = Some(block.clone());
        Box::new(Held { block, queue_sizes })
    }

    fn request(&mut self, _queue: usize, input: &mut Input<'_>) -> Vec<Piece> {
        let what = input.u8();
        let kind = [0_u32, 1, 4, 8, 11, 13, 2, 0xffff_ffff][usize::from(what & 7)];
        let sector = match what >> 6 {
            3 => input.u64(),
            _ => u64::from(input.u16()) & 0x1ff,
        };
        let header = [kind.to_le_bytes(), [0; 4]].concat();
        let header = [header, sector.to_le_bytes().to_vec()].concat();
        let mut chain = vec![Piece::Out(header)];
        match kind {
            0 => chain.push(Piece::In(u32::from(input.u8() & 0x1f) << 9)),
            1 => {
                let mut data = input.short().to_vec();
                data.resize(data.len().next_multiple_of(512).max(512), what);
                chain.push(Piece::Out(data));
            }
            8 => chain.push(Piece::In(20)),
            11 | 13 => {
                let start = sector.to_le_bytes();
                let sectors = u32::from(input.u16() & 0x3ff).to_le_bytes();
                let flags = u32::from(input.u8() & 3).to_le_bytes();
                chain.push(Piece::Out([&start[..], &sectors, &flags].concat()));
            }
            _ => chain.extend(pieces(input)),
        }
        chain.push(Piece::In(1));
        if what & 0x38 == 0x38 {
            chain.extend(pieces(input));
        }
        chain
    }

    fn host(&mut self, input: &mut Input<'_>) {
        let Some(throttle) = self.throttle.clone() else {
            return;
        };
        let mut limits = Limits::default();
        match input.u8() & 7 {
            7 => return self.grow(u64::from(input.u8()) << 12),
            0 => limits.total_bytes = limit(input),
            1 => limits.read_bytes = limit(input),
            2 => limits.write_bytes = limit(input),
            3 => {
                limits.total_operations = limit(input);
                limits.operation_bytes = input.u16().into();
            }
            4 => limits.write_operations = limit(input),
            _ => {}
        }
        throttle.set(limits);
    }

    fn check(&mut self) {
        let size = fstat(&self.file).expect("a file").st_size;
        if self.qcow2 {
            let most = IMAGE + self.grown * GROWTH;
            assert!(
                u64::try_from(size).is_ok_and(|size| size <= most),
                "{size} bytes"
            );
        } else {
            assert_eq!(u64::try_from(size), Ok(self.size));
        }
    }
}
