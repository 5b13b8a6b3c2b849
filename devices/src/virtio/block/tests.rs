//! A disk as its driver sees it, over files, with both engines.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;

use super::request::{IOERR, OK, UNSUPP};
use super::*;
use crate::block::absent::Absent;
use crate::block::bounce::Direct;
use crate::block::engine::{KEPT_AT_MOST, Medium};
use crate::block::qcow2::{self, CreateOptions, Qcow2};
use crate::block::raw::Raw;
use crate::block::throttle::Limit;
use crate::block::uring::Ring;
use crate::block::{Extent, Layout, SizeChange};
use crate::memory::GuestRam;
use crate::memory::testing::ram;
use crate::reactor::{Reactor, Ready};
use crate::virtio::testing::{Buffer, Driver, RecordInterrupts, into, out};
use crate::virtio::{Progress, RunningQueue};

const DISK_BYTES: u64 = 1 << 20;
const QUEUE: u16 = 256;
const RINGS: u64 = 0x1000;
const RING_BYTES: u64 = Driver::bytes(QUEUE).next_multiple_of(16);
const HEADERS: u64 = 0x1_0000;
const DATA: u64 = 0x2_0000;
const RAM: usize = 0x20_0000;

const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_ID: u32 = 8;
const T_DISCARD: u32 = 11;
const T_ZEROES: u32 = 13;

/// Which engine a test is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blocking,
    Uring,
}

fn low(value: usize) -> u8 {
    u8::try_from(value).expect("small")
}

/// Both, where the host has both.
fn kinds() -> impl Iterator<Item = Kind> {
    let uring = Ring::new().is_ok().then_some(Kind::Uring);
    [Kind::Blocking].into_iter().chain(uring)
}

fn ring(kind: Kind) -> Option<Ring> {
    (kind == Kind::Uring).then(|| Ring::new().expect("was made before"))
}

/// A raw disk that keeps something to the end, and cannot write it while its storage is said to be full.
struct Keeping {
    raw: Raw,
    full: Arc<AtomicBool>,
}

impl Layout for Keeping {
    fn size(&self) -> u64 {
        self.raw.size()
    }

    fn file(&self, index: usize) -> Option<BorrowedFd<'_>> {
        self.raw.file(index)
    }

    fn map_read(&mut self, offset: u64, len: u64) -> io::Result<Extent> {
        self.raw.map_read(offset, len)
    }

    fn map_write(&mut self, offset: u64, len: u64) -> io::Result<Extent> {
        self.raw.map_write(offset, len)
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.raw.discard(offset, len)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.raw.write_zeroes(offset, len, unmap)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.raw.flush()
    }

    fn close(&mut self) -> io::Result<()> {
        if self.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn resize(&mut self, change: SizeChange) -> io::Result<()> {
        self.raw.resize(change)
    }

    fn limit(&mut self, size: u64) -> io::Result<()> {
        self.raw.limit(size)
    }
}

/// A guest with a disk.
struct Rig {
    _dir: TempDir,
    file: File,
    ram: GuestRam,
    block: Block,
    drivers: Vec<Driver>,
    interrupts: Arc<RecordInterrupts>,
    reactor: Reactor,
    workers: Vec<Box<dyn QueueWorker>>,
    kicks: Vec<Arc<crate::event::Event>>,
    requests: u64,
}

struct Options {
    kind: Kind,
    queues: usize,
    params: BlockParams,
    cache: CacheMode,
    direct: Option<u32>,
    /// Set while the disk cannot write out what it keeps.
    full: Option<Arc<AtomicBool>>,
}

impl Options {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            queues: 1,
            params: BlockParams::default(),
            cache: CacheMode::Writeback,
            direct: None,
            full: None,
        }
    }

    fn rig(self) -> Rig {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("disk");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .expect("a file");
        file.set_len(DISK_BYTES).expect("a size");
        let flags = self.direct.map_or(0, |_| libc::O_DIRECT);
        let opened = OpenOptions::new()
            .read(true)
            .write(!self.params.read_only)
            .custom_flags(flags)
            .open(&path)
            .expect("the file again");
        let direct = self.direct.map_or_else(Direct::none, |block| {
            Direct::new(block, block).expect("an alignment")
        });
        let raw = Raw::new(opened.into(), self.params.read_only, direct.clone()).expect("a disk");
        let others: Vec<Raw> = (1..self.queues)
            .map(|_| raw.try_clone().expect("a descriptor"))
            .collect();
        let layout: Box<dyn Layout> = match self.full {
            Some(full) => Box::new(Keeping { raw, full }),
            None => Box::new(raw),
        };
        let mut engines = vec![Engine::new(layout, ring(self.kind), self.cache, direct)];
        for other in others {
            let sibling = engines[0].sibling(Box::new(other), ring(self.kind));
            engines.push(sibling);
        }
        let ram = ram(RAM);
        let drivers = (0..self.queues)
            .map(|index| Driver::new(&ram, RINGS + RING_BYTES * index as u64, QUEUE))
            .collect();
        Rig {
            _dir: dir,
            file,
            ram,
            block: Block::new(self.params, engines).expect("a disk"),
            drivers,
            interrupts: Arc::default(),
            reactor: Reactor::new().expect("an epoll"),
            workers: Vec::new(),
            kicks: Vec::new(),
            requests: 0,
        }
    }

    fn started(self) -> Rig {
        let mut rig = self.rig();
        rig.start();
        rig
    }
}

impl Rig {
    fn new(kind: Kind) -> Self {
        Options::new(kind).started()
    }

    fn start(&mut self) {
        let queues: Vec<RunningQueue> = (0_u16..)
            .zip(&self.drivers)
            .map(|(index, driver)| driver.running(index, &self.interrupts))
            .collect();
        self.start_with(queues);
    }

    fn start_with(&mut self, queues: Vec<RunningQueue>) {
        self.kicks = queues.iter().map(|queue| Arc::clone(&queue.kick)).collect();
        self.workers = self
            .block
            .start(Start {
                features: self.block.features(),
                queues: queues.into_iter().map(Some).collect(),
                interrupts: Arc::clone(&self.interrupts) as _,
            })
            .expect("started");
        for (slot, worker) in (0..).zip(&mut self.workers) {
            worker.start(&self.reactor.sources(slot));
        }
    }

    /// Lets the workers run until nothing has been ready for `quiet`.
    fn run(&mut self, quiet: Duration) -> usize {
        let mut turns = 0;
        let mut ready: Vec<Ready> = Vec::new();
        let mut since = Instant::now();
        loop {
            ready.clear();
            self.reactor
                .wait(Some(quiet), &mut ready)
                .expect("a working epoll");
            if ready.is_empty() {
                // The ring's completions interrupt the wait before its event is there.
                if since.elapsed() < quiet {
                    continue;
                }
                return turns;
            }
            since = Instant::now();
            turns += 1;
            for one in &ready {
                let sources = self.reactor.sources(one.slot);
                self.workers[one.slot as usize].ready(one.token, one.hung_up, &sources);
            }
        }
    }

    fn tick(&mut self) {
        for (slot, worker) in (0..).zip(&mut self.workers) {
            worker.tick(&self.reactor.sources(slot));
        }
    }

    fn stop(&mut self) -> Progress {
        let mut progress = Progress::new();
        for (slot, worker) in (0..).zip(self.workers.drain(..)) {
            progress.extend(worker.stop(&self.reactor.sources(slot)));
        }
        self.block.stopped();
        progress
    }

    /// Makes a request available: its buffers between a header and a status byte, whose address it
    /// gives.
    fn add(&mut self, queue: usize, kind: u32, sector: u64, data: &[Buffer]) -> u64 {
        let header = HEADERS + 0x20 * self.requests;
        let status = header + 0x10;
        self.requests += 1;
        self.ram.write(header, &kind.to_le_bytes()).expect("in RAM");
        self.ram
            .write(header + 8, &sector.to_le_bytes())
            .expect("in RAM");
        self.ram.write(status, &[0xff]).expect("in RAM");
        let mut buffers = vec![out(header, 16)];
        buffers.extend_from_slice(data);
        buffers.push(into(status, 1));
        self.drivers[queue].add(&buffers);
        status
    }

    fn byte(&self, address: u64) -> u8 {
        self.bytes(address, 1)[0]
    }

    fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read(address, &mut bytes).expect("in RAM");
        bytes
    }

    /// Has everything available served on all queues.
    fn serve(&mut self) {
        for kick in &self.kicks {
            kick.signal();
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut used = 0;
        while Instant::now() < deadline {
            self.run(Duration::from_millis(5));
            used += self.take_used();
            if used > 0 {
                break;
            }
        }
        self.run(Duration::from_millis(20));
        self.take_used();
    }

    fn take_used(&mut self) -> usize {
        self.drivers
            .iter_mut()
            .map(|driver| driver.take_used().len())
            .sum()
    }

    /// One request: its status.
    fn ask(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> u8 {
        let status = self.add(0, kind, sector, data);
        self.serve();
        self.byte(status)
    }

    /// A range to discard or zero.
    fn ask_range(&mut self, kind: u32, sector: u64, sectors: u32, flags: u32) -> u8 {
        let mut bytes = sector.to_le_bytes().to_vec();
        bytes.extend(sectors.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        self.ram.write(DATA, &bytes).expect("in RAM");
        self.ask(kind, 0, &[out(DATA, 16)])
    }

    /// A change of size while the queues run.
    fn changed_to(&mut self, change: SizeChange) -> io::Result<u64> {
        let (tell, told) = sync_channel(1);
        let done: Resized = Box::new(move |size| tell.send(size).expect("heard"));
        self.block.control().resize(change, done);
        self.run(Duration::from_millis(20));
        told.try_recv().expect("told")
    }

    /// A change of medium, while the queues run or not.
    fn exchanged(&mut self, layout: Box<dyn Layout>, running: bool) -> io::Result<u64> {
        let (tell, told) = sync_channel(1);
        let done: Resized = Box::new(move |size| tell.send(size).expect("heard"));
        let direct = Direct::none();
        self.block
            .control()
            .exchange(Medium { layout, direct }, done);
        if running {
            self.run(Duration::from_millis(20));
        }
        told.try_recv().expect("told")
    }

    fn in_file(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset).expect("there");
        bytes
    }
}

/// Bytes that differ from sector to sector.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|index| low((index / 512 * 7 + index) % 256) ^ seed)
        .collect()
}

#[test]
fn what_is_written_is_on_the_disk_and_read_again() {
    for kind in kinds() {
        let mut rig = Rig::new(kind);
        let bytes = pattern(8192, 3);
        rig.ram.write(DATA + 1, &bytes).expect("in RAM");
        // In pieces of odd sizes at odd addresses.
        let pieces = [
            out(DATA + 1, 100),
            out(DATA + 101, 4000),
            out(DATA + 4101, 4092),
        ];
        assert_eq!(rig.ask(T_OUT, 5, &pieces), OK, "{kind:?}");
        assert_eq!(rig.in_file(5 * 512, 8192), bytes);
        let pieces = [into(DATA + 0x8003, 8000), into(DATA + 0xc000, 192)];
        assert_eq!(rig.ask(T_IN, 5, &pieces), OK, "{kind:?}");
        assert_eq!(rig.bytes(DATA + 0x8003, 8000), bytes[..8000]);
        assert_eq!(rig.bytes(DATA + 0xc000, 192), bytes[8000..]);
        assert_eq!(rig.ask(T_FLUSH, 0, &[]), OK, "{kind:?}");

        let stats = rig.block.stats();
        assert_eq!(stats.writes.read().operations, 1);
        assert_eq!(stats.writes.read().bytes, 8192);
        assert_eq!(stats.reads.read().bytes, 8192);
        assert_eq!(stats.flushes.read().operations, 1);
        assert!(stats.reads.read().nanoseconds > 0);
        assert!(rig.interrupts.take_queue() >= 3);
    }
}

#[test]
fn a_driver_is_told_within_a_long_turn_where_each_request_is_done_at_once() {
    for (requests, told) in [(1, 1), (3, 2), (4, 2), (8, 4)] {
        let mut rig = Options::new(Kind::Blocking).rig();
        for _ in 0..requests {
            rig.add(0, T_IN, 0, &[into(DATA, 128 << 10)]);
        }
        rig.start();
        assert_eq!(rig.take_used(), requests);
        // For every other one, and for what is left.
        assert_eq!(rig.interrupts.take_queue(), told, "{requests} requests");
    }
}

#[test]
fn the_used_length_covers_the_status() {
    let mut rig = Rig::new(Kind::Blocking);
    rig.add(0, T_IN, 0, &[into(DATA, 1024)]);
    rig.add(0, T_FLUSH, 0, &[]);
    rig.kicks[0].signal();
    rig.run(Duration::from_millis(5));
    let used = rig.drivers[0].take_used();
    assert_eq!(used, [(0, 1025), (3, 1)]);
}

#[test]
fn zeroed_and_discarded_ranges_read_as_zero() {
    for kind in kinds() {
        for unmap in [0, 1] {
            let mut rig = Rig::new(kind);
            rig.file.write_all_at(&[7; 0x10000], 0).expect("written");
            assert_eq!(rig.ask_range(T_ZEROES, 1, 16, unmap), OK);
            let bytes = rig.in_file(0, 0x10000);
            assert!(bytes[512..17 * 512].iter().all(|byte| *byte == 0));
            assert!(bytes[..512].iter().all(|byte| *byte == 7));
            assert!(bytes[17 * 512..].iter().all(|byte| *byte == 7));
            assert_eq!(rig.ask_range(T_DISCARD, 64, 8, 0), OK);
            assert_eq!(rig.in_file(64 * 512, 8 * 512), [0; 4096]);
            assert_eq!(rig.ask_range(T_DISCARD, 0, 0, 0), OK);
            assert_eq!(rig.file.metadata().expect("there").len(), DISK_BYTES);
            assert_eq!(rig.block.stats().discards.read().operations, 3);
        }
    }
}

#[test]
fn the_serial_number_is_given_as_it_is() {
    let mut options = Options::new(Kind::Blocking);
    options.params.serial = *b"a-serial-number-of20";
    let mut rig = options.started();
    assert_eq!(rig.ask(T_ID, 0, &[into(DATA, 20)]), OK);
    assert_eq!(rig.bytes(DATA, 20), b"a-serial-number-of20");
}

#[test]
fn nothing_beyond_the_end_is_touched() {
    for kind in kinds() {
        let mut rig = Rig::new(kind);
        let sectors = DISK_BYTES / 512;
        rig.ram.write(DATA, &[5; 1024]).expect("in RAM");
        for sector in [sectors - 1, sectors, u64::MAX / 512, u64::MAX, 1 << 55] {
            assert_eq!(rig.ask(T_OUT, sector, &[out(DATA, 1024)]), IOERR);
            assert_eq!(rig.ask(T_IN, sector, &[into(DATA, 1024)]), IOERR);
            assert_eq!(rig.ask_range(T_ZEROES, sector, 2, 0), IOERR);
            assert_eq!(rig.ask_range(T_DISCARD, sector, 2, 0), IOERR);
            rig.ram.write(DATA, &[5; 1024]).expect("in RAM");
        }
        assert_eq!(rig.file.metadata().expect("there").len(), DISK_BYTES);
        assert_eq!(rig.in_file(DISK_BYTES - 512, 512), [0; 512]);
        assert!(!rig.interrupts.broken());
        assert_eq!(rig.block.stats().writes.read().operations, 0);
        assert_eq!(rig.ask(T_OUT, sectors - 2, &[out(DATA, 1024)]), OK);
    }
}

#[test]
fn a_disk_that_is_read_only_says_so_and_stays_as_it_is() {
    for kind in kinds() {
        let mut options = Options::new(kind);
        options.params.read_only = true;
        let mut rig = options.started();
        assert_eq!(rig.block.features() & F_RO, F_RO);
        assert_eq!(rig.block.features() & (F_DISCARD | F_WRITE_ZEROES), 0);
        assert_eq!(rig.ask(T_OUT, 0, &[out(DATA, 512)]), IOERR);
        assert_eq!(rig.ask_range(T_ZEROES, 0, 1, 0), UNSUPP);
        assert_eq!(rig.ask(T_IN, 0, &[into(DATA, 512)]), OK);
        assert_eq!(rig.ask(T_FLUSH, 0, &[]), OK);
    }
}

#[test]
fn a_chain_without_a_status_byte_breaks_the_queue_and_no_more() {
    for kind in kinds() {
        let mut rig = Rig::new(kind);
        let status = rig.add(0, T_OUT, 0, &[out(DATA, 512)]);
        rig.drivers[0].add(&[out(HEADERS, 16)]);
        rig.add(0, T_OUT, 0, &[out(DATA, 512)]);
        rig.kicks[0].signal();
        rig.run(Duration::from_millis(20));
        assert!(rig.interrupts.broken());
        rig.kicks[0].signal();
        rig.run(Duration::from_millis(20));
        // The one before was begun, perhaps not finished in time to be given back.
        assert!([OK, 0xff].contains(&rig.byte(status)));
        rig.stop();
    }
}

#[test]
fn data_may_land_on_its_own_header_because_that_is_read_once() {
    for kind in kinds() {
        let mut rig = Rig::new(kind);
        rig.file.write_all_at(&[0xee; 512], 512).expect("written");
        let header = HEADERS;
        // The header, the data read and nothing else in one place.
        assert_eq!(rig.ask(T_IN, 1, &[into(header - 256, 512)]), OK);
        assert_eq!(rig.bytes(header, 16), [0xee; 16]);
    }
}

#[test]
fn the_same_head_twice_is_two_requests() {
    for kind in kinds() {
        let mut rig = Rig::new(kind);
        let status = rig.add(0, T_OUT, 0, &[out(DATA, 4096)]);
        for _ in 1..16 {
            rig.drivers[0].offer(0);
        }
        rig.kicks[0].signal();
        rig.run(Duration::from_millis(20));
        assert_eq!(rig.drivers[0].take_used().len(), 16);
        assert_eq!(rig.byte(status), OK);
        rig.stop();
    }
}

#[test]
fn stopping_finishes_what_is_in_flight_and_the_disk_starts_again() {
    for kind in kinds() {
        let mut rig = Rig::new(kind);
        let bytes = pattern(64 * 4096, 9);
        rig.ram.write(DATA, &bytes).expect("in RAM");
        let statuses: Vec<u64> = (0..64)
            .map(|index| {
                let data = [out(DATA + index * 4096, 4096)];
                rig.add(0, T_OUT, index * 8, &data)
            })
            .collect();
        // One turn begins them all; nothing is waited for.
        let sources = rig.reactor.sources(0);
        rig.workers[0].ready(0, false, &sources);
        let progress = rig.stop();
        assert_eq!(progress.len(), 1);
        let (index, progress) = progress[0];
        assert_eq!(
            (index, progress.next_available, progress.next_used),
            (0, 64, 64)
        );
        assert!(statuses.iter().all(|status| rig.byte(*status) == OK));
        assert_eq!(rig.in_file(0, bytes.len()), bytes);
        // So that what comes back next is waited for.
        assert_eq!(rig.take_used(), 64);

        let status = rig.add(0, T_FLUSH, 0, &[]);
        let mut queue = rig.drivers[0].running(0, &rig.interrupts);
        queue.queue = crate::virtio::queue::Queue::new(
            rig.ram.clone(),
            rig.drivers[0].layout,
            QUEUE,
            rig.drivers[0].features,
            progress,
        )
        .expect("a good layout");
        rig.start_with(vec![queue]);
        rig.serve();
        assert_eq!(rig.byte(status), OK);
    }
}

#[test]
fn more_requests_than_an_engine_takes_are_all_served() {
    for kind in kinds() {
        let mut options = Options::new(kind);
        options.params.queue_size = QUEUE;
        let mut rig = options.started();
        // Indirect tables, so that the queue's 256 descriptors make as many requests.
        let tables = 0x10_0000;
        for index in 0..QUEUE {
            let (at, header) = (u64::from(index), HEADERS + u64::from(index) * 0x20);
            rig.ram.write(header, &[0; 16]).expect("in RAM");
            rig.ram
                .write(header + 8, &at.to_le_bytes())
                .expect("in RAM");
            let table = tables + at * 48;
            let driver = &mut rig.drivers[0];
            driver.descriptor_in(table, 0, header, 16, 1, 1);
            driver.descriptor_in(table, 1, DATA + at * 512, 512, 3, 2);
            driver.descriptor_in(table, 2, header + 16, 1, 2, 0);
            driver.descriptor(index, table, 48, 4, 0);
            driver.offer(index);
        }
        rig.file
            .write_all_at(&pattern(256 * 512, 1), 0)
            .expect("written");
        rig.kicks[0].signal();
        rig.run(Duration::from_millis(50));
        assert_eq!(rig.drivers[0].take_used().len(), 256, "{kind:?}");
        assert_eq!(rig.bytes(DATA, 256 * 512), pattern(256 * 512, 1));
    }
}

#[test]
fn each_queue_serves_the_same_disk() {
    for kind in kinds() {
        let mut options = Options::new(kind);
        options.queues = 2;
        let mut rig = options.started();
        assert_eq!(rig.block.features() & F_MQ, F_MQ);
        assert_eq!(rig.workers.len(), 2);
        let mut bytes = [0; 2];
        rig.block.read_config(34, &mut bytes);
        assert_eq!(bytes, [2, 0]);
        rig.ram.write(DATA, &[4; 512]).expect("in RAM");
        let status = rig.add(0, T_OUT, 3, &[out(DATA, 512)]);
        rig.serve();
        assert_eq!(rig.byte(status), OK);
        let status = rig.add(1, T_IN, 3, &[into(DATA + 512, 512)]);
        rig.serve();
        assert_eq!(rig.byte(status), OK);
        assert_eq!(rig.bytes(DATA + 512, 512), [4; 512]);
        assert_eq!(rig.stop().len(), 2);
    }
}

#[test]
fn a_disk_that_grows_tells_its_driver_and_has_the_new_room() {
    for kind in kinds() {
        let mut options = Options::new(kind);
        options.queues = 2;
        let mut rig = options.started();
        let beyond = DISK_BYTES / 512;
        assert_eq!(rig.ask(T_OUT, beyond, &[out(DATA, 512)]), IOERR);
        let (tell, told) = sync_channel(1);
        let done: Resized = Box::new(move |size| tell.send(size).expect("heard"));
        let control = rig.block.control();
        control.resize(SizeChange::grow(DISK_BYTES * 2), done);
        control.resize(
            SizeChange::grow(DISK_BYTES * 2),
            Box::new(|size| {
                let error = size.expect_err("another is under way");
                assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
            }),
        );
        rig.run(Duration::from_millis(20));
        assert_eq!(told.recv().expect("told").expect("grown"), DISK_BYTES * 2);
        assert_eq!(rig.interrupts.take_config(), 1);
        let mut bytes = [0; 8];
        rig.block.read_config(0, &mut bytes);
        assert_eq!(u64::from_le_bytes(bytes), 2 * beyond);
        assert_eq!(rig.ask(T_OUT, beyond, &[out(DATA, 512)]), OK);
        assert_eq!(rig.file.metadata().expect("there").len(), DISK_BYTES * 2);
    }
}

#[test]
fn a_disk_shrinks_only_where_that_is_said_and_nothing_behind_its_end_comes_back() {
    for kind in kinds() {
        let mut options = Options::new(kind);
        options.queues = 2;
        let mut rig = options.started();
        let half = DISK_BYTES / 2;
        let grow = SizeChange::grow(half);
        let error = rig.changed_to(grow).expect_err("it would lose something");
        assert!(error.to_string().contains("would be lost"), "{error}");
        assert_eq!(rig.interrupts.take_config(), 0);
        // Under way on one queue as the other hears of it.
        let status = rig.add(1, T_OUT, DISK_BYTES / 512 - 1, &[out(DATA, 512)]);
        rig.kicks[1].signal();
        let shrink = SizeChange {
            to: Some(half),
            shrink: true,
        };
        assert_eq!(rig.changed_to(shrink).expect("smaller"), half);
        assert_ne!(rig.byte(status), 0xff);
        assert_eq!(rig.interrupts.take_config(), 1);
        assert_eq!(rig.file.metadata().expect("there").len(), half);
        for queue in 0..2 {
            let status = rig.add(queue, T_OUT, half / 512, &[out(DATA, 512)]);
            rig.kicks[queue].signal();
            rig.run(Duration::from_millis(5));
            assert_eq!(rig.byte(status), IOERR);
        }
        assert_eq!(rig.file.metadata().expect("there").len(), half);
    }
}

#[test]
fn a_size_that_makes_no_whole_blocks_is_refused() {
    let mut rig = Rig::new(Kind::Blocking);
    for size in [0, DISK_BYTES + 1, u64::MAX] {
        let error = rig.changed_to(SizeChange::grow(size)).expect_err("odd");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{size}");
    }
    let error = rig.changed_to(SizeChange::grow(1 << 63)).expect_err("huge");
    assert!(!error.to_string().is_empty());
    assert_eq!(rig.interrupts.take_config(), 0);
    assert_eq!(rig.ask(T_OUT, 0, &[out(DATA, 512)]), OK);
}

#[test]
fn another_medium_is_served_in_place_of_one_that_is_closed() {
    for kind in kinds() {
        let mut options = Options::new(kind);
        options.params.read_only = true;
        let mut rig = options.started();
        let capacity = |rig: &Rig| {
            let mut bytes = [0; 8];
            rig.block.read_config(0, &mut bytes);
            u64::from_le_bytes(bytes)
        };
        assert_eq!(rig.ask(T_IN, 0, &[into(DATA, 512)]), OK);
        assert_eq!(rig.exchanged(Box::new(Absent), true).expect("ejected"), 0);
        assert_eq!(rig.interrupts.take_config(), 1);
        assert_eq!(capacity(&rig), 0);
        assert_eq!(rig.ask(T_IN, 0, &[into(DATA, 512)]), IOERR);
        assert_eq!(rig.ask(T_FLUSH, 0, &[]), IOERR);
        assert_eq!(rig.exchanged(Box::new(Absent), true).expect("ejected"), 0);
        assert_eq!(rig.interrupts.take_config(), 0, "it was out already");

        let file = tempfile::tempfile().expect("a file");
        file.set_len(8192).expect("a size");
        file.write_all_at(&[7; 512], 1024).expect("written");
        let watched = file.try_clone().expect("a descriptor");
        let raw = Raw::new(file.into(), true, Direct::none()).expect("a disk");
        assert_eq!(rig.exchanged(Box::new(raw), true).expect("in"), 8192);
        assert_eq!(rig.interrupts.take_config(), 1);
        assert_eq!(capacity(&rig), 16);
        assert_eq!(rig.ask(T_IN, 2, &[into(DATA, 512)]), OK);
        assert_eq!(rig.bytes(DATA, 512), [7; 512]);
        // While it stands, and the driver hears of it as it goes on.
        rig.stop();
        assert_eq!(rig.exchanged(Box::new(Absent), false).expect("out"), 0);
        assert_eq!(rig.interrupts.take_config(), 0);
        rig.start();
        assert_eq!(rig.interrupts.take_config(), 1);
        drop(watched);
    }
}

#[test]
fn a_size_that_is_read_in_parts_is_one_that_was_where_the_generation_stays() {
    let rig = Options::new(Kind::Blocking).rig();
    let sizes = [7 * 512, (5 << 32 | 9) * 512_u64];
    rig.block.disk.set_capacity(sizes[0]);
    // From here on the generation is the number of the round.
    *lock(&rig.block.disk.changes) = 0;
    let disk = Arc::clone(&rig.block.disk);
    // Rounds begun, and rounds in which the size was changed.
    let begun = AtomicU64::new(0);
    let rounds = 1000_u64;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=rounds {
                while begun.load(Ordering::Acquire) < round {
                    std::thread::yield_now();
                }
                disk.set_capacity(sizes[usize::from(round % 2 == 1)]);
            }
        });
        for round in 1..=rounds {
            begun.store(round, Ordering::Release);
            let half = |offset| {
                let mut bytes = [0; 4];
                rig.block.read_config(offset, &mut bytes);
                u64::from(u32::from_le_bytes(bytes))
            };
            let before = rig.block.config_changes();
            let sectors = half(0) | half(4) << 32;
            if rig.block.config_changes() == before {
                assert!(sizes.contains(&(sectors * 512)), "{sectors:#x}");
            }
            // At most one change a round: the generation goes round.
            while rig.block.config_changes() != u8::try_from(round % 256).expect("small") {
                std::thread::yield_now();
            }
        }
    });
}

#[test]
fn a_disk_that_is_served_anew_tells_its_driver_of_a_size_that_it_was_not_told() {
    let mut rig = Options::new(Kind::Blocking).rig();
    let mut record = rig.block.save();
    assert!(rig.block.restore(2, &record).is_err());
    assert!(rig.block.restore(1, &[1]).is_err());
    let mut told = |record: &[u8]| {
        let before = rig.block.config_changes();
        rig.block.restore(1, record).expect("a record");
        let counted = rig.block.config_changes() - before;
        rig.start();
        let told = rig.interrupts.take_config();
        rig.stop();
        rig.start();
        assert_eq!(rig.interrupts.take_config(), 0, "once at most");
        rig.stop();
        (told, counted)
    };
    assert_eq!(told(&record), (0, 0), "it is as it was");
    record[8] = 1;
    assert_eq!(told(&record), (1, 0), "it was not told");
    record[8] = 0;
    record[0] ^= 1;
    assert_eq!(told(&record), (1, 1), "it was told of another");
    assert_eq!(told(&[]), (1, 1), "nobody knows");
}

#[test]
fn a_look_at_a_disk_is_no_change_of_it_and_keeps_none_away() {
    for kind in kinds() {
        let mut rig = Options::new(kind).started();
        rig.ram.write(DATA, &[5; 512]).expect("in RAM");
        assert_eq!(rig.ask(T_OUT, 0, &[out(DATA, 512)]), OK);
        let control = rig.block.control();
        let (tell, told) = sync_channel(3);
        for _ in 0..2 {
            let tell = tell.clone();
            control.peek(
                0,
                512,
                Box::new(move |bytes| tell.send(bytes).expect("heard")),
            );
        }
        let error = told.try_recv().expect("told").expect_err("one at a time");
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        let grown = rig.changed_to(SizeChange::grow(DISK_BYTES * 2));
        assert_eq!(grown.expect("grown"), DISK_BYTES * 2);
        assert_eq!(told.try_recv().expect("told").expect("read"), [5; 512]);
        // And behind a change.
        let (done, _grown) = sync_channel(1);
        let done: Resized = Box::new(move |size| done.send(size).expect("heard"));
        control.resize(SizeChange::grow(DISK_BYTES * 3), done);
        let end = DISK_BYTES * 3 - 512;
        control.peek(
            end,
            512,
            Box::new(move |bytes| tell.send(bytes).expect("heard")),
        );
        rig.run(Duration::from_millis(20));
        assert_eq!(told.try_recv().expect("told").expect("read"), [0; 512]);
    }
}

#[test]
fn a_disk_that_grew_while_stopped_tells_its_driver_when_it_runs() {
    let mut rig = Rig::new(Kind::Blocking);
    let progress = rig.stop();
    assert_eq!(progress.len(), 1);
    rig.file.set_len(DISK_BYTES * 2).expect("grown");
    let looked_at = SizeChange {
        to: None,
        shrink: false,
    };
    let (tell, told) = sync_channel(1);
    let done: Resized = Box::new(move |size| tell.send(size).expect("heard"));
    rig.block.control().resize(looked_at, done);
    let size = told.try_recv().expect("told at once");
    assert_eq!(size.expect("grown"), DISK_BYTES * 2);
    assert_eq!(rig.interrupts.take_config(), 0);
    rig.start();
    assert_eq!(rig.interrupts.take_config(), 1);
}

#[test]
fn a_limited_disk_waits_without_spinning_and_goes_on_when_freed() {
    for kind in kinds() {
        let mut options = Options::new(kind);
        options.params.limits.total_operations = Limit {
            rate: 2,
            ..Limit::default()
        };
        let mut rig = options.started();
        let first = rig.add(0, T_IN, 0, &[into(DATA, 512)]);
        let second = rig.add(0, T_IN, 0, &[into(DATA, 512)]);
        rig.kicks[0].signal();
        let turns = rig.run(Duration::from_millis(50));
        assert!(turns < 5, "{turns} turns for two requests");
        assert_eq!(rig.byte(first), OK);
        assert_eq!(rig.byte(second), 0xff);
        let wait = rig.workers[0].next_event().expect("a time") - Instant::now();
        assert!(wait > Duration::from_millis(100) && wait < Duration::from_millis(500));
        rig.tick();
        assert_eq!(rig.byte(second), 0xff, "not yet");
        rig.block.throttle().set(Limits::default());
        rig.run(Duration::from_millis(20));
        assert_eq!(rig.byte(second), OK);
        assert_eq!(rig.workers[0].next_event(), None);
    }
}

#[test]
fn a_limited_disk_stops_with_chains_left_for_later() {
    let mut options = Options::new(Kind::Blocking);
    options.params.limits.read_bytes = Limit {
        rate: 512,
        ..Limit::default()
    };
    let mut rig = options.started();
    for _ in 0..3 {
        rig.add(0, T_IN, 0, &[into(DATA, 512)]);
    }
    rig.kicks[0].signal();
    rig.run(Duration::from_millis(5));
    let (_, progress) = rig.stop()[0];
    assert_eq!((progress.next_available, progress.next_used), (1, 1));
}

#[test]
fn flushes_are_offered_where_the_guest_is_to_make_them() {
    for (cache, offered) in [
        (CacheMode::Writeback, true),
        (CacheMode::None, true),
        (CacheMode::Unsafe, true),
        (CacheMode::Writethrough, false),
        (CacheMode::DirectSync, false),
    ] {
        let mut options = Options::new(Kind::Blocking);
        options.cache = cache;
        let rig = options.rig();
        assert_eq!(rig.block.features() & F_FLUSH != 0, offered, "{cache:?}");
    }
}

#[test]
fn what_was_flushed_to_an_image_is_there_when_the_process_is_killed() {
    let image = |file: &File, writable| {
        let options = qcow2::Options {
            writable,
            ..qcow2::Options::default()
        };
        let file = file.try_clone().expect("a descriptor").into();
        Qcow2::open(file, Vec::new(), options).expect("an image")
    };
    for (kind, cache) in kinds()
        .flat_map(|kind| [CacheMode::Writeback, CacheMode::Unsafe].map(move |cache| (kind, cache)))
    {
        let file = tempfile::tempfile().expect("a file");
        let options = CreateOptions {
            size: DISK_BYTES,
            cluster_bits: 16,
            backing: None,
        };
        qcow2::create(file.try_clone().expect("a descriptor").into(), &options).expect("made");
        let mut rig = Options::new(kind).rig();
        let layout = Box::new(image(&file, true));
        let engine = Engine::new(layout, ring(kind), cache, Direct::none());
        rig.block = Block::new(BlockParams::default(), vec![engine]).expect("a disk");
        rig.start();
        let bytes = pattern(4096, 9);
        rig.ram.write(DATA, &bytes).expect("in RAM");
        assert_eq!(rig.ask(T_OUT, 8, &[out(DATA, 4096)]), OK, "{kind:?}");
        let due = rig.workers[0].next_event().expect("it is to be written");
        assert!(due <= Instant::now() + KEPT_AT_MOST);
        assert_eq!(rig.ask(T_FLUSH, 0, &[]), OK, "{kind:?} {cache:?}");
        assert_eq!(rig.workers[0].next_event(), None);
        let extent = image(&file, false).map_read(4096, 4096);
        let Ok(Extent::Data { offset, len, .. }) = extent else {
            panic!("{kind:?} {cache:?}: {extent:?}");
        };
        let mut there = vec![0; 4096];
        assert!(len >= 4096);
        file.read_exact_at(&mut there, offset).expect("there");
        assert_eq!(there, bytes);
    }
}

#[test]
fn a_direct_disk_takes_buffers_and_sectors_of_any_alignment() {
    for kind in kinds() {
        for block in [512, 4096] {
            let mut options = Options::new(kind);
            options.cache = CacheMode::None;
            options.direct = Some(block);
            let mut rig = options.started();
            rig.file.write_all_at(&[7; 0x10000], 0).expect("written");
            let bytes = pattern(9 * 512, 5);
            rig.ram.write(DATA + 3, &bytes).expect("in RAM");
            let pieces = [out(DATA + 3, 700), out(DATA + 703, 9 * 512 - 700)];
            assert_eq!(rig.ask(T_OUT, 3, &pieces), OK, "{kind:?} {block}");
            assert_eq!(rig.in_file(3 * 512, bytes.len()), bytes);
            assert_eq!(rig.in_file(0, 3 * 512), [7; 3 * 512]);
            assert_eq!(rig.in_file(12 * 512, 4 * 512), [7; 4 * 512]);
            let pieces = [
                into(DATA + 0x8001, 1000),
                into(DATA + 0x9000, 9 * 512 - 1000),
            ];
            assert_eq!(rig.ask(T_IN, 3, &pieces), OK, "{kind:?} {block}");
            assert_eq!(rig.bytes(DATA + 0x8001, 1000), bytes[..1000]);
            assert_eq!(rig.bytes(DATA + 0x9000, 9 * 512 - 1000), bytes[1000..]);
            // And aligned, without a detour.
            let aligned = [into(DATA + 0x1_0000, 8192)];
            assert_eq!(rig.ask(T_IN, 0, &aligned), OK, "{kind:?} {block}");
            assert_eq!(rig.bytes(DATA + 0x1_0000 + 3 * 512, bytes.len()), bytes);
            assert_eq!(rig.ask(T_FLUSH, 0, &[]), OK);
        }
    }
}

#[test]
fn disks_of_impossible_shapes_are_not_made() {
    let shape = |change: fn(&mut BlockParams)| {
        let mut params = BlockParams::default();
        change(&mut params);
        let file = tempfile::tempfile().expect("a file");
        let raw = Raw::new(file.into(), false, Direct::none()).expect("a disk");
        let engine = Engine::new(Box::new(raw), None, CacheMode::Writeback, Direct::none());
        Block::new(params, vec![engine]).is_ok()
    };
    assert!(shape(|_| {}));
    assert!(!shape(|params| params.block_bytes = 256));
    assert!(!shape(|params| params.block_bytes = 1000));
    assert!(!shape(|params| params.block_bytes = 8192));
    assert!(!shape(|params| params.block_bytes = 4096));
    assert!(!shape(|params| params.queue_size = 2));
    assert!(!shape(|params| params.queue_size = 300));
    assert!(!shape(|params| params.discard_granularity = 700));
    let none = Block::new(BlockParams::default(), Vec::new());
    assert_eq!(none.err(), Some(BlockError::Queues(0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever a driver makes available is answered or breaks the queue, and the disk stops.
    #[test]
    fn no_driver_hangs_or_crashes_a_disk(
        uring in any::<bool>(),
        table in prop::collection::vec((0..0x40_0000_u64, 0..0x1_0000_u32, 0..8_u16, 0..40_u16), 32),
        headers in prop::collection::vec((0..16_u32, prop_oneof![0..3000_u64, any::<u64>()]), 8),
        heads in prop::collection::vec(0..34_u16, 1..32),
    ) {
        let uring = uring && Ring::new().is_ok();
        let mut rig = Rig::new(if uring { Kind::Uring } else { Kind::Blocking });
        for (index, (kind, sector)) in (0..).zip(&headers) {
            let header = HEADERS + index * 0x20;
            rig.ram.write(header, &kind.to_le_bytes()).unwrap();
            rig.ram.write(header + 8, &sector.to_le_bytes()).unwrap();
        }
        for (index, (address, len, flags, next)) in (0..).zip(&table) {
            // Some descriptors are of a header, most of anything, the rings among it.
            let header = HEADERS + u64::from(index % 8) * 0x20;
            let (address, len) = match index % 3 {
                0 => (header, 16),
                1 => (address & !511, len & !511),
                _ => (*address, *len),
            };
            rig.drivers[0].descriptor(index, address, len, *flags, *next);
        }
        for head in heads {
            rig.drivers[0].offer(head);
        }
        rig.kicks[0].signal();
        for _ in 0..8 {
            rig.run(Duration::from_millis(1));
        }
        prop_assert_eq!(rig.stop().len(), 1);
    }
}

#[test]
fn a_disk_that_could_not_write_out_what_it_keeps_is_not_saved_until_it_can() {
    for kind in kinds() {
        let full = Arc::new(AtomicBool::new(true));
        let mut options = Options::new(kind);
        options.full = Some(Arc::clone(&full));
        let mut rig = options.started();
        rig.stop();
        for _ in 0..2 {
            let refused = rig.block.check_saveable().expect_err("not written");
            assert!(
                refused.to_string().contains("no storage space"),
                "{refused}"
            );
        }
        rig.start();
        full.store(false, Ordering::Relaxed);
        rig.stop();
        assert_eq!(rig.block.check_saveable(), Ok(()));
    }
}
