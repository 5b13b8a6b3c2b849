//! What is in the file after each step, after a death at each step, and when the file takes nothing.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use reeve_devices::bus::BusDevice;
use rustix::process::{Signal, getpid, kill_process};

use super::*;
use crate::arch::x86_64::layout;

const SIZE: usize = 2 * BLOCK;
/// Names the file, the step and whether it dies before or after it.
const DEATH: &str = "REEVE_VARIABLES_TEST_DEATH";

fn store(file: File) -> StoreFile {
    rustix::thread::set_no_new_privs(true).unwrap();
    StoreFile::start(file).unwrap()
}

/// A file of which some bytes were programmed.
fn fresh(path: &Path) -> File {
    let mut content = vec![0xff; SIZE];
    content[..4].copy_from_slice(b"head");
    content[BLOCK] = 7;
    std::fs::write(path, content).unwrap();
    File::options().read(true).write(true).open(path).unwrap()
}

/// The steps of a guest that notes what it is about to do, does it, and notes that it did.
fn journal(flash: &mut Flash) {
    let mut program = |offset: u64, bytes: &[u8]| {
        for (offset, byte) in (offset..).zip(bytes) {
            flash.write(offset, &[0x10]).unwrap();
            flash.write(offset, &[*byte]).unwrap();
        }
        flash.write(offset, &[0xff]).unwrap();
    };
    program(16, &[0x7f]);
    program(17, b"a variable");
    program(16, &[0x3f]);
    program(BLOCK as u64 - 3, b"across");
    program(16, &[0x1f]);
    let second = BLOCK as u64;
    for byte in [0x20, 0xd0, 0xff] {
        flash.write(second + 5, &[byte]).unwrap();
    }
    // Never ended by the guest.
    flash.write(second, &[0x10]).unwrap();
    flash.write(second, &[0x11]).unwrap();
}

/// What the file is after each step of the journal, from none on.
fn states() -> Vec<Vec<u8>> {
    let mut content = vec![0xff; SIZE];
    content[..4].copy_from_slice(b"head");
    content[BLOCK] = 7;
    let mut states = vec![content.clone()];
    let mut step = |offset: usize, bytes: &[u8]| {
        content[offset..offset + bytes.len()].copy_from_slice(bytes);
        states.push(content.clone());
    };
    step(16, &[0x7f]);
    step(17, b"a variable");
    step(16, &[0x3f]);
    step(BLOCK - 3, b"acr");
    // It was programmed before: bits are only cleared.
    step(BLOCK, &[b'o' & 7, b's', b's']);
    step(16, &[0x1f]);
    step(BLOCK, &[0xff; BLOCK]);
    step(BLOCK, &[0x11]);
    states
}

/// Dies at a step.
#[derive(Debug)]
struct Mortal {
    store: StoreFile,
    left: AtomicUsize,
    after: bool,
}

impl FlashStore for Mortal {
    fn keep(&self, offset: u64, bytes: &[u8]) -> Result<(), NotKept> {
        let last = self.left.fetch_sub(1, Ordering::Relaxed) == 1;
        if last && !self.after {
            die();
        }
        self.store.keep(offset, bytes)?;
        if last {
            die();
        }
        Ok(())
    }
}

fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    loop {
        std::thread::park();
    }
}

#[test]
fn the_file_has_every_step_when_the_guest_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("variables");
    let variables = Variables::take(fresh(&path), layout::MMIO_GAP_END).unwrap();
    assert_eq!(variables.rom().size(), SIZE as u64);
    let states = states();
    journal(&mut lock(variables.flash()));
    let (last, before) = states.split_last().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), *before.last().unwrap());
    variables.settle();
    assert_eq!(std::fs::read(&path).unwrap(), *last);
}

/// Executes this test alone in a process of its own, which is killed at a step.
#[test]
fn a_death_at_any_step_leaves_the_steps_before_it() {
    if let Ok(death) = std::env::var(DEATH) {
        let mut words = death.split(' ');
        let path = words.next().unwrap();
        let file = File::options().read(true).write(true).open(path).unwrap();
        let rom = Rom::load(&file, layout::MMIO_GAP_END).unwrap();
        let mortal = Mortal {
            store: store(file),
            left: AtomicUsize::new(words.next().unwrap().parse().unwrap()),
            after: words.next() == Some("after"),
        };
        let mut flash = Flash::new(rom.ram(), rom.address(), rom.size(), Arc::new(mortal)).unwrap();
        journal(&mut flash);
        flash.settle().unwrap();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("variables");
    let states = states();
    for step in 1..states.len() {
        for (when, expected) in [("before", step - 1), ("after", step)] {
            drop(fresh(&path));
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "firmware::variables::tests::a_death_at_any_step_leaves_the_steps_before_it",
                ])
                .env(DEATH, format!("{} {step} {when}", path.display()))
                .stdout(std::process::Stdio::null())
                .status()
                .unwrap();
            assert_eq!(status.signal(), Some(9), "{when} step {step}");
            let found = std::fs::read(&path).unwrap();
            assert!(found == states[expected], "{when} step {step}");
        }
    }
}

#[test]
fn a_full_disk_keeps_nothing_and_says_so_each_time() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let store = store(full);
    assert_eq!(store.keep(0, b"a"), Err(NotKept));
    assert_eq!(store.keep(0, b"a"), Err(NotKept));
}

/// The first step is the thread's, which nothing wakes here; the second has no place.
#[test]
fn a_file_that_hangs_holds_up_the_second_step() {
    let store = StoreFile(Arc::new(Desk::new()));
    let now = Instant::now();
    assert_eq!(store.keep_until(now, 0, b"a"), Ok(()));
    assert_eq!(store.keep_until(now, 1, b"b"), Err(NotKept));
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"...").unwrap();
    store.0.sheet().quits = true;
    store.0.serve(&file);
    let mut kept = [0; 3];
    file.read_exact_at(&mut kept, 0).unwrap();
    assert_eq!(kept, *b"a..");
    assert_eq!(store.keep_until(now, 1, b"b"), Ok(()));
}

/// What failed when nobody waited any more is tried again before what comes next.
#[test]
fn a_step_that_failed_late_is_the_next_one_too() {
    let store = StoreFile(Arc::new(Desk::new()));
    let now = Instant::now();
    assert_eq!(store.keep_until(now, 0, b"a"), Ok(()));
    store.0.sheet().quits = true;
    let full = File::options().write(true).open("/dev/full").unwrap();
    store.0.serve(&full);
    assert_eq!(store.0.sheet().work, Work::Failed);
    assert_eq!(store.keep_until(now, 1, b"b"), Err(NotKept));
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"..").unwrap();
    store.0.serve(&file);
    let mut kept = [0; 2];
    file.read_exact_at(&mut kept, 0).unwrap();
    assert_eq!(kept, *b"a.");
}

#[test]
fn what_is_no_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("variables");
    for (bytes, message) in [
        (0, "cannot be used"),
        (4095, "cannot be used"),
        (1 << 20, "are no flash"),
    ] {
        std::fs::write(&path, vec![0; bytes]).unwrap();
        let file = File::open(&path).unwrap();
        let refusal = Variables::take(file, layout::MMIO_GAP_END).unwrap_err();
        assert!(refusal.to_string().contains(message), "{refusal}");
    }
}
