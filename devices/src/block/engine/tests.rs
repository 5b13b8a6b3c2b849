//! Both engines over a format that scatters its data, and over plain files.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use super::*;
use crate::block::Extent;
use crate::block::raw::Raw;
use crate::memory::testing::ram;
use crate::shared::lock;

const UNIT: u64 = 1024;
const UNITS: u64 = 512;

/// What the engine asked of a layout, and what it is to be told.
#[derive(Debug, Default)]
struct Script {
    flushes: usize,
    discards: usize,
    zeroed: Vec<(u64, u64, bool)>,
    closed: usize,
    dirty: bool,
    unstable: bool,
    fail_close: bool,
    fail_flush: Option<i32>,
    fail_map_from: Option<u64>,
    bad_extent: Option<Extent>,
}

/// Units of 1 KiB in reverse order; every fifth one was never written.
#[derive(Debug)]
struct Patchwork {
    file: File,
    plain: bool,
    script: Arc<Mutex<Script>>,
}

impl Patchwork {
    fn place(offset: u64, len: u64) -> Extent {
        let (unit, inside) = (offset / UNIT, offset % UNIT);
        Extent::Data {
            file: 0,
            offset: (UNITS - 1 - unit) * UNIT + inside,
            len: len.min(UNIT - inside),
        }
    }

    fn check(&self, offset: u64) -> io::Result<()> {
        if lock(&self.script)
            .fail_map_from
            .is_some_and(|from| offset >= from)
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Layout for Patchwork {
    fn size(&self) -> u64 {
        UNITS * UNIT
    }

    fn file(&self, index: usize) -> Option<BorrowedFd<'_>> {
        (index == 0).then(|| self.file.as_fd())
    }

    fn map_read(&mut self, offset: u64, len: u64) -> io::Result<Extent> {
        self.check(offset)?;
        if let Some(extent) = lock(&self.script).bad_extent {
            return Ok(extent);
        }
        if (offset / UNIT) % 5 == 4 {
            let len = len.min(UNIT - offset % UNIT);
            return Ok(Extent::Zero { len });
        }
        Ok(Self::place(offset, len))
    }

    fn map_write(&mut self, offset: u64, len: u64) -> io::Result<Extent> {
        self.check(offset)?;
        Ok(Self::place(offset, len))
    }

    fn discard(&mut self, _offset: u64, _len: u64) -> io::Result<()> {
        lock(&self.script).discards += 1;
        Ok(())
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        lock(&self.script).zeroed.push((offset, len, unmap));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut script = lock(&self.script);
        script.flushes += 1;
        match script.fail_flush {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }

    fn close(&mut self) -> io::Result<()> {
        let mut script = lock(&self.script);
        script.closed += 1;
        if script.fail_close {
            return Err(io::ErrorKind::StorageFull.into());
        }
        script.dirty = false;
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        lock(&self.script).dirty
    }

    fn forgo_stability(&mut self) {
        lock(&self.script).unstable = true;
    }

    fn is_plain(&self) -> bool {
        self.plain
    }

    fn resize(&mut self, _: SizeChange) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn limit(&mut self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

struct Rig {
    engine: Engine,
    script: Arc<Mutex<Script>>,
    file: File,
    ram: GuestRam,
}

fn low(value: usize) -> u8 {
    u8::try_from(value).expect("small")
}

fn rings() -> Vec<Option<Ring>> {
    let mut rings = vec![None];
    rings.extend(Ring::new().ok().map(Some));
    rings
}

fn rigs(cache: CacheMode) -> impl Iterator<Item = Rig> {
    rings().into_iter().map(move |ring| rig(ring, cache, false))
}

fn rig(ring: Option<Ring>, cache: CacheMode, plain: bool) -> Rig {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(UNITS * UNIT).expect("a size");
    let script = Arc::default();
    let layout = Patchwork {
        file: file.try_clone().expect("a descriptor"),
        plain,
        script: Arc::clone(&script),
    };
    let ram = ram(0x20_0000);
    let mut engine = Engine::new(Box::new(layout), ring, cache, Direct::none());
    engine.attach(&ram, false);
    Rig {
        engine,
        script,
        file,
        ram,
    }
}

/// As `rigs`, with a plain file.
fn plain(cache: CacheMode) -> impl Iterator<Item = Rig> {
    rings().into_iter().map(move |ring| {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(UNITS * UNIT).expect("a size");
        let raw = Raw::new(
            file.try_clone().expect("a descriptor").into(),
            false,
            Direct::none(),
        );
        let ram = ram(0x20_0000);
        let raw = Box::new(raw.expect("a disk"));
        let mut engine = Engine::new(raw, ring, cache, Direct::none());
        engine.attach(&ram, false);
        Rig {
            engine,
            script: Arc::default(),
            file,
            ram,
        }
    })
}

impl Rig {
    fn submit(&mut self, tag: u32, operation: Operation, offset: u64, len: u64, address: u64) {
        let span = Span {
            address,
            len: u32::try_from(len.max(1)).expect("small"),
        };
        self.engine.submit(tag, operation, offset, len, &[span], 0);
    }

    fn finish(&mut self) -> Vec<Completion> {
        self.engine.drain();
        assert!(self.engine.is_idle());
        std::iter::from_fn(|| self.engine.reap()).collect()
    }

    fn ask(&mut self, operation: Operation, offset: u64, len: u64, address: u64) -> io::Result<()> {
        self.submit(7, operation, offset, len, address);
        let mut done = self.finish();
        assert_eq!(done.len(), 1);
        let Completion { tag, result } = done.remove(0);
        assert_eq!(tag, 7);
        result
    }

    fn flushes(&self) -> usize {
        lock(&self.script).flushes
    }

    fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read(address, &mut bytes).expect("in RAM");
        bytes
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| low(index % 251)).collect()
}

#[test]
fn a_request_of_more_extents_than_parts_is_served_whole() {
    for mut rig in rigs(CacheMode::Writeback) {
        let bytes = pattern(400 * 1024);
        rig.ram.write(0x1000, &bytes).expect("in RAM");
        rig.ask(Operation::Write, 512, 400 * 1024, 0x1000)
            .expect("written");
        let mut last = [0; 512];
        // The second half of unit 0 is in the last unit of the file.
        let place = (UNITS - 1) * UNIT + 512;
        rig.file.read_exact_at(&mut last, place).expect("there");
        assert_eq!(last, bytes[..512]);
        rig.ram.write(0x10_0000, &[9; 400 * 1024]).expect("in RAM");
        rig.ask(Operation::Read, 512, 400 * 1024, 0x10_0000)
            .expect("read");
        for (index, byte) in rig.bytes(0x10_0000, 400 * 1024).iter().enumerate() {
            let written = ((index as u64 + 512) / UNIT) % 5 != 4;
            let expected = if written { bytes[index] } else { 0 };
            assert_eq!(*byte, expected, "byte {index}");
        }
    }
}

#[test]
fn many_scattered_requests_share_the_parts() {
    for mut rig in rigs(CacheMode::Writeback) {
        for tag in 0..u32::from(MAX_REQUESTS) {
            assert!(rig.engine.has_room());
            rig.submit(
                tag,
                Operation::Read,
                u64::from(tag) * UNIT,
                64 * UNIT,
                0x1000,
            );
        }
        let mut tags: Vec<u32> = rig.finish().iter().map(|one| one.tag).collect();
        tags.sort_unstable();
        assert_eq!(tags, (0..u32::from(MAX_REQUESTS)).collect::<Vec<_>>());
    }
}

#[test]
fn a_full_engine_says_so() {
    for mut rig in rigs(CacheMode::Writeback) {
        if rig.engine.event().is_none() {
            continue;
        }
        for tag in 0..u32::from(MAX_REQUESTS) {
            rig.submit(tag, Operation::Read, 0, UNIT, 0x1000);
        }
        assert!(!rig.engine.has_room());
        rig.submit(999, Operation::Read, 0, UNIT, 0x1000);
        let refused = rig.engine.reap().expect("at once");
        assert_eq!(refused.tag, 999);
        assert!(refused.result.is_err());
        assert_eq!(rig.finish().len(), usize::from(MAX_REQUESTS));
        assert!(rig.engine.has_room());
    }
}

#[test]
fn what_is_not_within_the_disk_is_refused() {
    for mut rig in rigs(CacheMode::Writeback) {
        let size = UNITS * UNIT;
        for (offset, len) in [
            (size, 512),
            (size - 512, 1024),
            (u64::MAX, 512),
            (u64::MAX - 511, 512),
            (0, u64::MAX),
        ] {
            for operation in [
                Operation::Read,
                Operation::Write,
                Operation::Discard,
                Operation::WriteZeroes { unmap: true },
            ] {
                rig.engine.submit(7, operation, offset, len, &[], 0);
                let done = rig.finish();
                assert!(
                    done[0].result.is_err(),
                    "{operation:?} {offset:#x} {len:#x}"
                );
            }
        }
        assert_eq!(lock(&rig.script).discards, 0);
        assert!(lock(&rig.script).zeroed.is_empty());
    }
}

#[test]
fn a_flush_waits_for_writes_and_holds_up_what_follows() {
    for mut rig in rigs(CacheMode::Writeback) {
        rig.submit(1, Operation::Write, 0, 8 * UNIT, 0x1000);
        rig.submit(2, Operation::Flush, 0, 0, 0);
        rig.submit(3, Operation::Write, 0, UNIT, 0x1000);
        if rig.engine.event().is_some() {
            assert_eq!(rig.flushes(), 0, "the write is not done yet");
        }
        let tags: Vec<u32> = rig.finish().iter().map(|one| one.tag).collect();
        assert_eq!(tags, [1, 2, 3]);
        assert_eq!(rig.flushes(), 1);
    }
}

#[test]
fn a_discard_waits_for_what_is_in_flight() {
    for mut rig in rigs(CacheMode::Writeback) {
        rig.submit(1, Operation::Write, 0, UNIT, 0x1000);
        rig.submit(2, Operation::Discard, 0, UNIT, 0);
        rig.submit(3, Operation::WriteZeroes { unmap: true }, 512, UNIT, 0);
        if rig.engine.event().is_some() {
            assert_eq!(lock(&rig.script).discards, 0);
        }
        assert_eq!(rig.finish().len(), 3);
        assert_eq!(lock(&rig.script).discards, 1);
        assert_eq!(lock(&rig.script).zeroed, [(512, UNIT, true)]);
    }
}

#[test]
fn each_write_is_flushed_where_the_cache_mode_says_so() {
    for mut rig in rigs(CacheMode::Writethrough) {
        for operation in [
            Operation::Write,
            Operation::Discard,
            Operation::WriteZeroes { unmap: false },
        ] {
            let before = rig.flushes();
            rig.ask(operation, 0, UNIT, 0x1000).expect("written");
            assert_eq!(rig.flushes(), before + 1, "{operation:?}");
        }
        let before = rig.flushes();
        rig.ask(Operation::Read, 0, UNIT, 0x1000).expect("read");
        assert_eq!(rig.flushes(), before);
        lock(&rig.script).fail_flush = Some(libc::EIO);
        rig.ask(Operation::Write, 0, UNIT, 0x1000)
            .expect_err("not durable");
    }
}

#[test]
fn writes_that_wait_for_the_same_flush_share_it() {
    for mut rig in rigs(CacheMode::Writethrough) {
        let uring = rig.engine.event().is_some();
        for tag in 0..32 {
            rig.submit(tag, Operation::Write, 0, UNIT, 0x1000);
        }
        assert_eq!(rig.finish().len(), 32);
        let flushes = rig.flushes();
        assert!(flushes <= 32);
        if uring {
            assert!(flushes < 32, "{flushes} flushes for 32 writes at once");
        }
    }
}

#[test]
fn a_guest_that_knows_no_flush_has_its_writes_flushed() {
    for mut rig in rigs(CacheMode::Writeback) {
        rig.engine.attach(&rig.ram, true);
        rig.ask(Operation::Write, 0, UNIT, 0x1000).expect("written");
        assert_eq!(rig.flushes(), 1);
    }
    for mut rig in rigs(CacheMode::Unsafe) {
        rig.engine.attach(&rig.ram, true);
        rig.ask(Operation::Write, 0, UNIT, 0x1000).expect("written");
        assert_eq!(rig.flushes(), 0);
    }
}

#[test]
fn an_unsafe_flush_writes_metadata_and_waits_for_no_storage() {
    for mut rig in rigs(CacheMode::Unsafe) {
        assert!(lock(&rig.script).unstable);
        rig.submit(1, Operation::Write, 0, 8 * UNIT, 0x1000);
        rig.submit(2, Operation::Flush, 0, 0, 0);
        if rig.engine.event().is_some() {
            assert_eq!(rig.flushes(), 0, "the write is not done yet");
        }
        rig.finish();
        assert_eq!(rig.flushes(), 1);
    }
    for mut rig in rigs(CacheMode::Writeback) {
        assert!(!lock(&rig.script).unstable);
        rig.ask(Operation::Flush, 0, 0, 0).expect("flushed");
    }
}

#[test]
fn what_a_layout_keeps_is_written_out_before_it_is_old() {
    for mut rig in rigs(CacheMode::Writeback) {
        let start = Instant::now();
        rig.engine.look_at_age(start);
        assert_eq!(rig.engine.look_again(), None);
        lock(&rig.script).dirty = true;
        rig.engine.look_at_age(start);
        assert_eq!(rig.engine.look_again(), Some(start + KEPT_AT_MOST));
        rig.engine.look_at_age(start + KEPT_AT_MOST / 2);
        assert_eq!(lock(&rig.script).closed, 0);
        rig.engine.look_at_age(start + KEPT_AT_MOST);
        assert_eq!(lock(&rig.script).closed, 1);
        assert_eq!(rig.engine.look_again(), None);
    }
}

#[test]
fn what_is_old_waits_for_what_is_in_flight_and_goes_before_what_follows() {
    for mut rig in rigs(CacheMode::Writeback) {
        let start = Instant::now();
        lock(&rig.script).dirty = true;
        rig.engine.look_at_age(start);
        rig.submit(1, Operation::Write, 0, 8 * UNIT, 0x1000);
        rig.engine.look_at_age(start + KEPT_AT_MOST);
        if rig.engine.event().is_some() {
            assert_eq!(lock(&rig.script).closed, 0);
            assert_eq!(rig.engine.look_again(), None, "it would be asked for ever");
        }
        rig.submit(2, Operation::Write, 0, UNIT, 0x1000);
        let tags: Vec<u32> = rig.finish().iter().map(|one| one.tag).collect();
        assert_eq!(tags, [1, 2]);
        assert_eq!(lock(&rig.script).closed, 1);
    }
}

#[test]
fn a_failed_write_out_is_tried_again_later() {
    for mut rig in rigs(CacheMode::Writeback) {
        let start = Instant::now();
        lock(&rig.script).dirty = true;
        lock(&rig.script).fail_close = true;
        rig.engine.look_at_age(start);
        let later = start + KEPT_AT_MOST;
        rig.engine.look_at_age(later);
        assert_eq!(lock(&rig.script).closed, 1);
        assert_eq!(rig.engine.look_again(), Some(later + KEPT_AT_MOST));
        lock(&rig.script).fail_close = false;
        rig.engine.look_at_age(later + KEPT_AT_MOST);
        assert_eq!(lock(&rig.script).closed, 2);
        assert_eq!(rig.engine.look_again(), None);
    }
}

#[test]
fn after_a_failed_sync_of_a_plain_file_nothing_in_the_page_cache_is_believed() {
    for (cache, errno, believed) in [
        (CacheMode::Writeback, libc::EIO, false),
        (CacheMode::Writeback, libc::ENOSPC, false),
        // Not begun.
        (CacheMode::Writeback, libc::EINTR, true),
        // Nothing was cached.
        (CacheMode::None, libc::EIO, true),
    ] {
        let mut rig = rig(None, cache, true);
        lock(&rig.script).fail_flush = Some(errno);
        let error = rig.ask(Operation::Flush, 0, 0, 0).expect_err("told");
        assert_eq!(error.raw_os_error(), Some(errno));
        lock(&rig.script).fail_flush = None;
        let again = rig.ask(Operation::Flush, 0, 0, 0);
        assert_eq!(again.is_ok(), believed, "{cache:?} {errno}");
        rig.ask(Operation::Read, 0, UNIT, 0x1000)
            .expect("reads go on");
    }
}

#[test]
fn a_layout_that_could_not_write_its_metadata_is_flushed_again() {
    for mut rig in rigs(CacheMode::Writeback) {
        lock(&rig.script).fail_flush = Some(libc::ENOSPC);
        let error = rig.ask(Operation::Flush, 0, 0, 0).expect_err("told");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        lock(&rig.script).fail_flush = None;
        rig.ask(Operation::Flush, 0, 0, 0).expect("there is room");
        assert_eq!(rig.flushes(), 2);
    }
}

#[test]
fn a_request_that_fails_midway_fails_once_all_of_it_is_still() {
    for mut rig in rigs(CacheMode::Writeback) {
        lock(&rig.script).fail_map_from = Some(4 * UNIT);
        let error = rig
            .ask(Operation::Write, 0, 8 * UNIT, 0x1000)
            .expect_err("full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        rig.ask(Operation::Write, 0, UNIT, 0x1000).expect("room");
    }
}

#[test]
fn extents_that_make_no_sense_are_errors() {
    for mut rig in rigs(CacheMode::Writeback) {
        for extent in [
            Extent::Zero { len: 0 },
            Extent::Zero { len: 2 * UNIT },
            Extent::Data {
                file: 9,
                offset: 0,
                len: UNIT,
            },
            Extent::Data {
                file: 0,
                offset: u64::MAX,
                len: UNIT,
            },
            Extent::Data {
                file: 0,
                offset: 0,
                len: u64::MAX,
            },
        ] {
            lock(&rig.script).bad_extent = Some(extent);
            rig.ask(Operation::Read, 0, UNIT, 0x1000)
                .expect_err("no such place");
        }
    }
}

#[test]
fn what_a_plain_file_does_not_have_reads_as_zero() {
    for mut rig in plain(CacheMode::Writeback) {
        rig.file.write_all_at(&pattern(2000), 0).expect("written");
        rig.file.set_len(2000).expect("cut");
        rig.ram.write(0x1000, &[9; 4096]).expect("in RAM");
        rig.ask(Operation::Read, 0, 4096, 0x1000).expect("read");
        assert_eq!(rig.bytes(0x1000, 2000), pattern(2000));
        assert_eq!(rig.bytes(0x1000 + 2000, 2096), [0; 2096]);
    }
}

#[test]
fn flushes_of_a_plain_file_go_beside_writes() {
    for cache in [CacheMode::Writeback, CacheMode::Writethrough] {
        for mut rig in plain(cache) {
            for tag in 0..30 {
                rig.submit(3 * tag, Operation::Write, 0, UNIT, 0x1000);
                rig.submit(3 * tag + 1, Operation::Flush, 0, 0, 0);
                rig.submit(3 * tag + 2, Operation::Discard, UNIT, UNIT, 0);
            }
            let done = rig.finish();
            assert_eq!(done.len(), 90);
            assert!(done.iter().all(|one| one.result.is_ok()), "{done:?}");
        }
    }
}

#[test]
fn an_engine_that_is_dropped_waits_for_its_transfers() {
    for mut rig in plain(CacheMode::Writeback) {
        rig.ram.write(0x1000, &[6; 1024]).expect("in RAM");
        for tag in 0..64 {
            rig.submit(tag, Operation::Write, 0, UNIT, 0x1000);
        }
        drop(rig.engine);
        let mut bytes = [0; 1024];
        rig.file.read_exact_at(&mut bytes, 0).expect("there");
        assert_eq!(bytes, [6; 1024]);
    }
}

#[test]
fn detaching_finishes_all_and_closes_the_layout() {
    for mut rig in rigs(CacheMode::Writeback) {
        rig.submit(1, Operation::Write, 0, 8 * UNIT, 0x1000);
        rig.submit(2, Operation::Flush, 0, 0, 0);
        rig.engine.detach().expect("closed");
        assert_eq!(lock(&rig.script).closed, 1);
        assert_eq!(rig.finish().len(), 2);
    }
}
