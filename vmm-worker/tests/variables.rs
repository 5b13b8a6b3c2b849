//! A flash with the variables of UEFI firmware: in a whole machine on the host's KVM, whose guest is a piece of code that
//! drives it as that firmware does.
//!
//! UEFI firmware itself cannot run on a KVM without the processor's help (docs/firmware.md).

#[path = "firmware/harness.rs"]
mod harness;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags};

use self::harness::Setup;

const BLOCK: usize = 4096;
/// Bytes of the image; the store is below it.
const IMAGE: usize = 4096;
/// Where in the last 64 KiB below 4 GiB, which the first instructions see in their code segment, things are.
const CODE: u16 = 0xf000;
const DATA: u16 = 0xd000;
const MARKS: u16 = 0xe000;

/// Code in real mode that reaches its own segment.
#[derive(Default)]
struct Code(Vec<u8>);

impl Code {
    fn add(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Writes each of `values` to `address`.
    fn put(self, address: u16, values: &[u8]) -> Self {
        let [low, high] = address.to_le_bytes();
        values.iter().fold(self, |code, value| {
            code.add(&[0x2e, 0xc6, 0x06, low, high, *value])
        })
    }

    /// Stops for ever if there is another value at `address`.
    fn expect(self, address: u16, value: u8) -> Self {
        let [low, high] = address.to_le_bytes();
        // cmp byte cs:[address], value; je over; hlt; jmp to the hlt
        let code = self.add(&[0x2e, 0x80, 0x3e, low, high, value]);
        code.add(&[0x74, 0x03, 0xf4, 0xeb, 0xfd])
    }

    /// Resets the machine by port 0xCF9.
    fn reset(self) -> Self {
        self.add(&[0xb0, 0x06, 0xba, 0xf9, 0x0c, 0xee, 0xf4])
    }

    /// The image that starts with it.
    fn image(self) -> Vec<u8> {
        let mut image = vec![0xf4; IMAGE];
        image[..self.0.len()].copy_from_slice(&self.0);
        // jmp near to the start
        let distance = CODE.wrapping_sub(0xfff3).to_le_bytes();
        image[IMAGE - 16..IMAGE - 13].copy_from_slice(&[0xe9, distance[0], distance[1]]);
        image
    }
}

/// A store of two blocks, erased, but for one byte in the first.
fn content() -> Vec<u8> {
    let mut content = vec![0xff; 2 * BLOCK];
    content[0x10] = 0x28;
    content
}

fn open(path: &Path) -> File {
    let mut options = File::options();
    options.read(true).write(true).open(path).expect("a store")
}

/// How firmware finds out that there is a flash.
fn probe() -> Code {
    let at = DATA + 0x10;
    let code = Code::default().expect(at, 0x28);
    let code = code.put(at, &[0x50]).expect(at, 0x28);
    let code = code.put(at, &[0x70]).expect(at, 0);
    code.put(at, &[0xff]).expect(at, 0x28)
}

#[test]
fn a_guest_finds_its_flash_and_what_it_programmed_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("variables");
    std::fs::write(&path, content()).unwrap();
    let first = probe()
        .put(DATA + 0x200, &[0x10, 0x5a])
        .expect(DATA + 0x200, 0x80)
        .put(DATA + 0x201, &[0x10, 0xa5, 0xff])
        .expect(DATA + 0x200, 0x5a)
        .put(MARKS + 9, &[0x10, 0, 0xff])
        .expect(MARKS + 9, 0)
        .put(MARKS, &[0x20, 0xd0, 0xff])
        .expect(MARKS + 9, 0xff)
        .put(MARKS + 8, &[0x10, 0x11])
        .reset();
    let mut rig = Setup::of(&first.image()).variables(open(&path)).start();
    assert_eq!(rig.wait_for_end(), "Reset");
    let mut expected = content();
    expected[0x200..0x202].copy_from_slice(&[0x5a, 0xa5]);
    assert_eq!(std::fs::read(&path).unwrap(), expected);
    // It was not at the end of a run.
    drop(rig);
    expected[BLOCK + 8] = 0x11;
    assert_eq!(std::fs::read(&path).unwrap(), expected);

    // Another machine, and the same one after a reset: that ends a command.
    let second = probe()
        .expect(DATA + 0x200, 0x5a)
        .expect(MARKS + 8, 0x11)
        .put(DATA + 0x300, &[0x20])
        .reset();
    let mut rig = Setup::of(&second.image()).variables(open(&path)).start();
    for _ in 0..2 {
        assert_eq!(rig.wait_for_end(), "Reset");
        rig.reset();
    }
    drop(rig);
    assert_eq!(std::fs::read(&path).unwrap(), expected);
}

/// The image above it has no flash's commands.
#[test]
fn only_the_store_can_be_programmed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("variables");
    std::fs::write(&path, content()).unwrap();
    let code = probe().put(CODE + 0x800, &[0x20, 0xd0, 0x10, 0, 0x70]);
    let code = code.expect(CODE + 0x800, 0xf4).reset();
    let mut rig = Setup::of(&code.image()).variables(open(&path)).start();
    assert_eq!(rig.wait_for_end(), "Reset");
    drop(rig);
    assert_eq!(std::fs::read(&path).unwrap(), content());
}

/// A file that takes no writes: the guest is told by the status, and goes on.
#[test]
fn a_store_that_cannot_be_written_is_an_error_in_the_status() {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let store: OwnedFd = rustix::fs::memfd_create("variables", flags).unwrap();
    let mut file = File::from(store);
    file.write_all(&content()).unwrap();
    rustix::fs::fcntl_add_seals(file.as_fd(), SealFlags::WRITE).unwrap();
    let code = probe()
        .put(DATA + 0x40, &[0x10, 0x5a, 0xff, 0x70])
        .expect(DATA + 0x40, 0x90)
        .put(DATA + 0x41, &[0x10, 0x5a])
        .expect(DATA + 0x41, 0x90)
        .put(DATA + 0x41, &[0xff])
        .expect(DATA + 0x41, 0xff)
        .reset();
    let mut rig = Setup::of(&code.image()).variables(file).start();
    assert_eq!(rig.wait_for_end(), "Reset");
}

#[test]
fn no_pages_no_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("variables");
    std::fs::write(&path, [0; 4095]).unwrap();
    let setup = Setup::of(&[0xf4; IMAGE]).variables(open(&path));
    let refusal = setup.refusal();
    assert!(refusal.contains("variables"), "{refusal}");
}

/// How many records of four bytes the guest writes before it starts anew, each with its mark in the second block.
const RECORDS: usize = 1024;
const STORE: &str = "REEVE_VARIABLES_TEST_STORE";

/// Writes each record, then its mark; then erases the marks, then the records; for ever.
fn journal() -> Code {
    let [data_low, data_high] = DATA.to_le_bytes();
    let [marks_low, marks_high] = MARKS.to_le_bytes();
    // xor bx, bx
    let mut code = Code::default().add(&[0x31, 0xdb]);
    let again = code.0.len() - 2;
    let record = code.0.len();
    // mov si, bx; shl si, 2
    code = code.add(&[0x89, 0xde, 0xc1, 0xe6, 0x02]);
    for offset in 0..4 {
        // mov byte cs:[si + DATA + offset], 0x10; mov cs:[si + DATA + offset], bl
        code = code.add(&[0x2e, 0xc6, 0x84, data_low + offset, data_high, 0x10]);
        code = code.add(&[0x2e, 0x88, 0x9c, data_low + offset, data_high]);
    }
    code = code.put(DATA, &[0xff]);
    for value in [0x10, 0x00, 0xff] {
        // mov byte cs:[bx + MARKS], value
        code = code.add(&[0x2e, 0xc6, 0x87, marks_low, marks_high, value]);
    }
    // inc bx; cmp bx, RECORDS; jb record
    code = code.add(&[0x43, 0x81, 0xfb, 0x00, 0x04, 0x0f, 0x82]);
    let back = |code: &Code, to: usize| {
        let distance = to.wrapping_sub(code.0.len() + 2);
        u16::try_from(distance & 0xffff)
            .expect("16 bits")
            .to_le_bytes()
    };
    let distance = back(&code, record);
    code = code.add(&distance);
    code = code.put(MARKS, &[0x20, 0xd0, 0xff]);
    code = code.put(DATA, &[0x20, 0xd0, 0xff]).add(&[0xe9]);
    let distance = back(&code, again);
    code.add(&distance)
}

/// The number of records whose marks are there; checks that all is as the guest's steps leave it.
fn check_journal(content: &[u8]) -> usize {
    let (records, marks) = content.split_at(BLOCK);
    let first_free = |count: usize, is_free: &dyn Fn(usize) -> bool| {
        (0..count).find(|index| is_free(*index)).unwrap_or(count)
    };
    let marked = first_free(RECORDS, &|index| marks[index] != 0);
    assert!(marks[marked..].iter().all(|byte| *byte == 0xff), "marks");
    let value = |index: usize| u8::try_from(index & 0xff).expect("8 bits");
    let record = |index: usize| &records[4 * index..4 * index + 4];
    for index in 0..marked {
        assert_eq!(record(index), [value(index); 4], "a marked record");
    }
    // Whole records, as they are steps, and one more of them at most; or all, whose marks have been erased.
    let mut written = marked;
    while written < RECORDS && record(written) == [value(written); 4] && value(written) != 0xff {
        written += 1;
    }
    if written <= marked + 1 {
        let rest = &records[4 * written..];
        assert!(rest.iter().all(|byte| *byte == 0xff), "unwritten records");
    } else {
        assert_eq!(marked, 0);
        let all = (0..RECORDS).all(|index| record(index) == [value(index); 4]);
        assert!(all, "records whose marks are erased");
    }
    marked
}

/// A process that is killed.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Executes this test alone in a process of its own, which is killed while its guest writes.
#[test]
fn a_killed_machine_leaves_what_its_guest_did_up_to_some_moment() {
    if let Some(path) = std::env::var_os(STORE) {
        let setup = Setup::of(&journal().image());
        let mut rig = setup.variables(open(Path::new(&path))).start();
        rig.wait_for_end();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("variables");
    for least in [1, 2, 3, 40, 150] {
        std::fs::write(&path, vec![0xff; 2 * BLOCK]).unwrap();
        let command = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_killed_machine_leaves_what_its_guest_did_up_to_some_moment",
            ])
            .env(STORE, &path)
            .stdout(Stdio::null())
            .spawn();
        let mut victim = Victim(command.unwrap());
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let content = std::fs::read(&path).unwrap();
            if content[BLOCK..].iter().filter(|byte| **byte == 0).count() >= least {
                break;
            }
            assert!(victim.0.try_wait().unwrap().is_none(), "it ended");
            assert!(Instant::now() < deadline, "the guest writes nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(victim);
        check_journal(&std::fs::read(&path).unwrap());
    }
}
