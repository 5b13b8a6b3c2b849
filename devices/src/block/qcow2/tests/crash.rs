//! A crash at any write leaves an image with leaks at worst, and all that was flushed.
//!
//! A run of random work is recorded write by write. Then, for every number of writes, the file is
//! made as it was after so many of them (the process died), or as it may be where storage had lost
//! any of those behind the last barrier, whole or in part (the power failed).

use super::checker::{check, check_by_qemu, size_by_qemu};
use super::random::{Work, perform, work};
use super::support::{Dice, Memory, Op, apply, arg, make, open, qemu_img, read_all, tight, write};
use crate::block::qcow2::create::create_in;
use crate::block::qcow2::{CreateOptions, Format, Options, Qcow2, Storage};
use crate::block::{Layout, SizeChange};

/// A run of work and what it did.
struct Run {
    /// The file before it.
    start: Vec<u8>,
    backing: Option<Vec<u8>>,
    log: Vec<Op>,
    /// After each piece of work: how long the log was, and the disk.
    steps: Vec<(usize, Vec<u8>)>,
    /// Steps that were flushes.
    flushes: Vec<usize>,
}

fn open_memory(
    image: Vec<u8>,
    backing: Option<&Vec<u8>>,
    options: Options,
) -> (Qcow2<Memory>, Memory) {
    let memory = Memory::new(image);
    let backing = backing.map(|bytes| (Memory::new(bytes.clone()), Format::Raw));
    let disk = Qcow2::open_storage(memory.clone(), backing.into_iter().collect(), options);
    (disk.unwrap(), memory)
}

/// Records work; the disk is resized halfway where its image can be.
fn record(
    start: Vec<u8>,
    backing: Option<Vec<u8>>,
    unit: u64,
    count: usize,
    seed: u64,
    resize: bool,
) -> Run {
    let disk = open_memory(start.clone(), backing.as_ref(), tight());
    record_on(disk, start, backing, unit, count, seed, resize)
}

/// As `record`, on a disk of `start` and `backing`.
fn record_on(
    (mut disk, memory): (Qcow2<Memory>, Memory),
    start: Vec<u8>,
    backing: Option<Vec<u8>>,
    unit: u64,
    count: usize,
    seed: u64,
    resize: bool,
) -> Run {
    let mut dice = Dice::new(seed);
    let mut model = read_all(&mut disk);
    let mut run = Run::new(start, backing, model.clone());
    for step in 0..count {
        let mut work = work(&mut dice, disk.size(), unit);
        if step % 25 == 24 {
            work = Work::Flush;
        }
        run.perform(&mut disk, &memory, &mut model, work);
        if resize && step == count / 2 {
            let size = disk.size() + 121 * 512;
            disk.resize(SizeChange::grow(size)).unwrap();
            model.resize(size as usize, 0);
            run.flushes.push(run.steps.len());
            run.step(&memory, &model);
        }
    }
    run.log = memory.state().log.clone();
    run
}

impl Run {
    fn new(start: Vec<u8>, backing: Option<Vec<u8>>, disk: Vec<u8>) -> Self {
        Self {
            start,
            backing,
            log: Vec::new(),
            steps: vec![(0, disk)],
            flushes: vec![0],
        }
    }

    fn perform(&mut self, disk: &mut Qcow2<Memory>, memory: &Memory, model: &mut [u8], work: Work) {
        perform(disk, model, &work).unwrap();
        if work == Work::Flush {
            self.flushes.push(self.steps.len());
        }
        self.step(memory, model);
    }

    fn step(&mut self, memory: &Memory, model: &[u8]) {
        let done = memory.state().log.len();
        self.steps.push((done, model.to_vec()));
    }

    /// Checks a file that is left of the first `writes` entries of the log.
    fn verify(&self, bytes: &[u8], writes: usize, what: &str) {
        if let Err(error) = check(bytes) {
            panic!("{what} after {writes} writes: {error}");
        }
        // What is in a large disk is read less often than how it is kept.
        if bytes.len() > 1 << 20 && writes % 11 != 0 {
            return;
        }
        let (mut disk, _) = open_memory(bytes.to_vec(), self.backing.as_ref(), tight());
        let now = read_all(&mut disk);
        let flushed = self
            .flushes
            .iter()
            .rev()
            .find(|&&step| self.steps[step].0 <= writes)
            .unwrap();
        let begun = self
            .steps
            .iter()
            .position(|(done, _)| *done > writes)
            .unwrap_or(self.steps.len() - 1);
        let possible = &self.steps[*flushed..=begun.max(*flushed)];
        for (sector, bytes) in now.chunks(512).enumerate() {
            let at = sector * 512;
            let known = possible.iter().rev().any(|(_, disk)| {
                let old = disk.get(at..at + 512).unwrap_or(&[0; 512]);
                old == bytes
            });
            assert!(
                known,
                "{what} after {writes} writes: sector {sector} is neither old nor new"
            );
        }
    }

    /// The process dies after every number of writes.
    fn die_everywhere(&self, qemu_every: usize) {
        let mut file = self.start.clone();
        for writes in 0..=self.log.len() {
            self.verify(&file, writes, "process death");
            if writes % qemu_every == 0 {
                check_by_qemu(&file).unwrap();
            }
            if let Some(op) = self.log.get(writes) {
                apply(&mut file, op);
            }
        }
    }

    /// The power fails after every number of writes.
    fn fail_everywhere(&self, qemu_every: usize, seed: u64) {
        let mut dice = Dice::new(seed);
        let mut durable = self.start.clone();
        let mut pending: Vec<&Op> = Vec::new();
        for writes in 0..=self.log.len() {
            // Each loss by itself is unlikely to be the one that hurts, so there are several.
            let survivor = pending.len().wrapping_sub(1);
            let victim = dice.below(pending.len().max(1) as u64) as usize;
            let keep = 1 + dice.below(7);
            for loss in 0..3 {
                let mut file = durable.clone();
                for (number, op) in pending.iter().enumerate() {
                    match loss {
                        0 if number == survivor => apply(&mut file, op),
                        1 if number != victim => apply(&mut file, op),
                        2 => lose(&mut file, op, &mut dice, keep),
                        _ => {}
                    }
                }
                self.verify(&file, writes, "power failure");
                if loss == 2 && writes % qemu_every == 0 {
                    check_by_qemu(&file).unwrap();
                }
            }
            match self.log.get(writes) {
                Some(Op::Sync) => {
                    for op in pending.drain(..) {
                        apply(&mut durable, op);
                    }
                }
                Some(op) => pending.push(op),
                None => {}
            }
        }
    }
}

/// Does `op`, or not, or some sectors of it; `keep` of eight survive.
fn lose(file: &mut Vec<u8>, op: &Op, dice: &mut Dice, keep: u64) {
    match op {
        Op::Write(offset, data) if dice.below(4) == 0 => {
            for (number, part) in data.chunks(512).enumerate() {
                if dice.below(8) < keep {
                    apply(
                        file,
                        &Op::Write(offset + number as u64 * 512, part.to_vec()),
                    );
                }
            }
        }
        // A length that was lost comes back with what was written behind it.
        op if dice.below(8) < keep => apply(file, op),
        _ => {}
    }
}

fn count(short: usize) -> usize {
    if std::env::var_os("REEVE_SOAK").is_some() {
        return short * 10;
    }
    short
}

fn empty(cluster_bits: u32, backing: bool) -> Vec<u8> {
    let memory = Memory::default();
    let options = CreateOptions {
        size: 200 << 10,
        cluster_bits,
        backing: backing.then_some(("base", "raw")),
    };
    create_in(&memory, &options, crate::block::qcow2::Form::default()).unwrap();
    memory.bytes()
}

#[test]
fn a_crash_at_any_write_leaves_a_good_image() {
    // Clusters so small that tables and refcount blocks are made all the time.
    let run = record(empty(9, false), None, 512, count(90), 1, true);
    run.die_everywhere(150);
    run.fail_everywhere(150, 1);
    let run = record(empty(12, false), None, 4096, count(70), 2, true);
    run.die_everywhere(100);
    run.fail_everywhere(100, 2);
}

#[test]
fn a_crash_while_the_refcount_table_moves_leaves_a_good_image() {
    // A refcount table of one cluster counts 4,096 clusters, most of which are taken.
    let made = make(3 << 20, "cluster_size=512,refcount_bits=64");
    let mut disk = open(&made.path, &[], Options::default());
    write(&mut disk, 0, &Dice::new(7).bytes(3700 * 512)).unwrap();
    disk.close().unwrap();
    drop(disk);
    let mut start = std::fs::read(&made.path).unwrap();
    // What is free was used before.
    let end = 2 << 20;
    start.resize(end - 20_000, 0);
    start.resize(end, 0xee);
    let options = Options {
        refcount_cache_bytes: 0,
        ..Options::default()
    };
    let (mut disk, memory) = open_memory(start.clone(), None, options);
    let mut model = read_all(&mut disk);
    let mut run = Run::new(start, None, model.clone());
    for step in 0..count(16).min(46) as u64 {
        let work = Work::Write((3720 + step * 50) * 512, vec![7; 20_000]);
        run.perform(&mut disk, &memory, &mut model, work);
    }
    run.perform(&mut disk, &memory, &mut model, Work::Flush);
    run.log = memory.state().log.clone();
    let moved = |op: &&Op| matches!(op, Op::Write(48, _));
    assert!(run.log.iter().filter(moved).count() > 0);
    run.die_everywhere(100);
    run.fail_everywhere(100, 7);
}

#[test]
fn a_crash_over_a_backing_file_leaves_a_good_image() {
    let backing = Dice::new(3).bytes(150 << 10);
    let run = record(empty(12, true), Some(backing), 4096, count(70), 3, true);
    run.die_everywhere(100);
    run.fail_everywhere(100, 3);
}

/// Growing again and again: within the last cluster, within the L1 table, and with a longer one each time.
#[test]
fn a_crash_while_a_disk_grows_leaves_it_at_its_old_or_its_new_size() {
    let sizes: [u64; 5] = [
        (200 << 10) + 512,
        224 << 10,
        300 << 10,
        5 << 19,
        (9 << 19) + 512,
    ];
    for (bits, backing) in [(9, false), (9, true), (12, false)] {
        let base = backing.then(|| Dice::new(7).bytes(250 << 10));
        let start = empty(bits, backing);
        let (mut disk, memory) = open_memory(start.clone(), base.as_ref(), tight());
        let mut model = read_all(&mut disk);
        let mut run = Run::new(start, base, model.clone());
        for (step, size) in (1..).zip(sizes) {
            // Unflushed, up to the old end: a growth brings it along or leaves it.
            let end = disk.size() - 2048;
            let work = Work::Write(end, vec![step; 2048]);
            run.perform(&mut disk, &memory, &mut model, work);
            disk.resize(SizeChange::grow(size)).unwrap();
            assert_eq!(disk.size(), size);
            model.resize(size as usize, 0);
            run.step(&memory, &model);
        }
        run.perform(&mut disk, &memory, &mut model, Work::Flush);
        run.log = memory.state().log.clone();
        assert!(run.log.iter().filter(|op| matches!(op, Op::Sync)).count() > 10);

        let mut file = run.start.clone();
        let mut seen = Vec::new();
        for writes in 0..=run.log.len() {
            check_by_qemu(&file).unwrap_or_else(|error| panic!("after {writes}: {error}"));
            let size = size_by_qemu(&file);
            let mut begun = run.steps.iter().filter(|(done, _)| *done <= writes);
            let old = begun.next_back().map_or(0, |(_, disk)| disk.len() as u64);
            let next = sizes.into_iter().find(|size| *size > old);
            assert!(
                size == old || Some(size) == next,
                "{size} after {writes} writes, between {old} and {next:?}"
            );
            seen.push(size);
            if let Some(op) = run.log.get(writes) {
                apply(&mut file, op);
            }
        }
        seen.dedup();
        let all: Vec<u64> = [200 << 10].into_iter().chain(sizes).collect();
        assert_eq!(seen, all);
        run.die_everywhere(usize::MAX);
        if bits == 9 {
            run.fail_everywhere(50, 9);
        }
    }
}

#[test]
fn a_crash_of_an_image_with_snapshots_and_compressed_clusters_leaves_a_good_image() {
    let made = make(200 << 10, "cluster_size=4096");
    let raw = made.directory.path().join("raw");
    let disk: Vec<u8> = (0..200 << 10).map(|at: u32| (at / 1024) as u8).collect();
    std::fs::write(&raw, disk).unwrap();
    let image = made.directory.path().join("compressed");
    let options = "cluster_size=4096";
    qemu_img(&[
        "convert",
        "-q",
        "-c",
        "-f",
        "raw",
        "-O",
        "qcow2",
        "-o",
        options,
        arg(&raw),
        arg(&image),
    ]);
    let compressed = std::fs::read(&image).unwrap();
    let run = record(compressed, None, 4096, count(60), 4, true);
    run.die_everywhere(100);
    run.fail_everywhere(100, 4);

    let mut disk = open(&made.path, &[], Options::default());
    write(&mut disk, 0, &Dice::new(5).bytes(150 << 10)).unwrap();
    disk.close().unwrap();
    drop(disk);
    qemu_img(&["snapshot", "-c", "then", arg(&made.path)]);
    let shared = std::fs::read(&made.path).unwrap();
    let run = record(shared, None, 4096, count(60), 5, false);
    run.die_everywhere(100);
    run.fail_everywhere(100, 5);
}

#[test]
fn storage_that_fails_at_any_call_leaves_a_good_image_and_a_disk_that_can_be_read() {
    let start = empty(9, false);
    for from in 0..count(400) {
        let mut dice = Dice::new(6);
        let (mut disk, memory) = open_memory(start.clone(), None, tight());
        memory.state().fail_from = Some(from);
        let mut model = read_all(&mut disk);
        let mut failed = false;
        for _ in 0..40 {
            let work = work(&mut dice, disk.size(), 512);
            failed |= perform(&mut disk, &mut model, &work).is_err();
        }
        read_all(&mut disk);
        let bytes = memory.bytes();
        if let Err(error) = check(&bytes) {
            panic!("after {from} calls: {error}");
        }
        // It goes on where the storage does: nothing was lost in memory.
        memory.state().fail_from = None;
        if disk.flush().is_ok() {
            let bytes = memory.bytes();
            if let Err(error) = check(&bytes) {
                panic!("after {from} calls and a flush: {error}");
            }
        }
        if !failed {
            break;
        }
    }
}

#[test]
fn nothing_is_written_after_a_barrier_that_failed() {
    let (mut disk, memory) = open_memory(empty(12, false), None, tight());
    write(&mut disk, 0, &[1; 4096]).unwrap();
    memory.state().fail_sync = true;
    assert!(disk.flush().is_err());
    memory.state().fail_sync = false;
    let written = memory.state().log.len();
    assert!(disk.flush().is_err());
    assert!(disk.map_write(8192, 512).is_err());
    assert!(disk.close().is_err());
    assert_eq!(memory.state().log.len(), written);
    assert_eq!(read_all(&mut disk)[..4096], [1; 4096]);
}

#[test]
fn without_stability_a_process_that_dies_loses_nothing_that_was_flushed() {
    let start = empty(9, false);
    let (mut disk, memory) = open_memory(start.clone(), None, tight());
    disk.forgo_stability();
    let run = record_on((disk, memory), start, None, 512, count(120), 13, true);
    assert!(!run.log.iter().any(|op| matches!(op, Op::Sync)));
    run.die_everywhere(100);
}

#[test]
fn without_stability_a_flush_gives_back_what_was_discarded() {
    let (mut disk, memory) = open_memory(empty(9, false), None, tight());
    disk.forgo_stability();
    assert!(!disk.is_dirty());
    write(&mut disk, 0, &[1; 64 * 512]).unwrap();
    assert!(disk.is_dirty());
    disk.flush().unwrap();
    assert!(!disk.is_dirty());
    disk.discard(0, 32 * 512).unwrap();
    assert!(disk.is_dirty());
    disk.flush().unwrap();
    assert!(!disk.is_dirty());
    // What was flushed is there for whoever opens the file now: this process was killed.
    let bytes = memory.bytes();
    assert_eq!(check(&bytes), Ok(0));
    let (mut other, _) = open_memory(bytes, None, tight());
    let now = read_all(&mut other);
    assert!(now[..32 * 512].iter().all(|byte| *byte == 0));
    assert!(now[32 * 512..64 * 512].iter().all(|byte| *byte == 1));
}

#[test]
fn an_image_that_was_flushed_has_no_leaks() {
    for cluster_bits in [9, 12] {
        let (mut disk, memory) = open_memory(empty(cluster_bits, false), None, tight());
        let mut dice = Dice::new(8);
        let mut model = read_all(&mut disk);
        for _ in 0..300 {
            let work = work(&mut dice, disk.size(), 1 << cluster_bits);
            perform(&mut disk, &mut model, &work).unwrap();
        }
        disk.flush().unwrap();
        let bytes = memory.bytes();
        assert_eq!(check(&bytes), Ok(0));
        assert!(memory.length().unwrap() < 2 << 20);
    }
}
