//! A spawn that fails, at each step, leaves nothing.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno as Error;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::*;

/// Tests that count this process's children and descriptors run one at a time.
pub(crate) fn serial() -> MutexGuard<'static, ()> {
    static SERIAL: Mutex<()> = Mutex::new(());
    SERIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn null() -> File {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap()
}

fn who() -> Identity {
    if rustix::process::geteuid().is_root() {
        Identity::Block {
            uid: 71_000,
            gid: 71_000,
        }
    } else {
        Identity::Caller
    }
}

fn try_spawn(change: impl FnOnce(&mut Command<'_>), faults: Faults) -> Result<Child, SpawnError> {
    let (exe, null) = (File::open("/proc/self/exe").unwrap(), null());
    let mut command = Command {
        exe: exe.as_fd(),
        // The test program itself, asked for nothing.
        argv: &[c"probe", c"--list"],
        null: null.as_fd(),
        fds: Vec::new(),
        identity: who(),
        rlimits: &[Rlimit {
            resource: Resource::Core,
            value: 0,
        }],
        cgroup: None,
        memory_policy: None,
        on_parent_death: OnParentDeath::Die,
    };
    change(&mut command);
    validate(&command)?;
    let stacks = Stacks::take().unwrap();
    let result = spawn_on(&stacks, command, faults);
    stacks.give_back();
    result
}

/// The kinds that a spawn makes; other tests open files meanwhile.
fn open_descriptors() -> usize {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets
        .filter(|target| {
            let target = target.to_string_lossy();
            target.starts_with("socket:") || target.contains("pidfd")
        })
        .count()
}

fn assert_nothing_left(descriptors: usize) {
    let any = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    assert_eq!(any.unwrap_err(), Error::CHILD, "a child is left");
    assert_eq!(open_descriptors(), descriptors, "a descriptor is left");
}

fn assert_fails_at(step: Step, errno: i32, change: impl FnOnce(&mut Command<'_>), faults: Faults) {
    let before = open_descriptors();
    match try_spawn(change, faults) {
        Err(SpawnError::Step { step: at, source }) => {
            assert_eq!((at, source.raw_os_error()), (step, Some(errno)), "{source}");
        }
        other => panic!("expected a failure at {step:?}, got {other:?}"),
    }
    assert_nothing_left(before);
}

#[test]
fn a_failure_at_each_step_is_named_and_leaves_nothing() {
    let _serial = serial();
    let block = matches!(who(), Identity::Block { .. });
    for &step in Step::ALL {
        let reached = match step {
            // Failures of these are provoked below.
            Step::Prepare | Step::Clone | Step::Memory => false,
            Step::DenySetgroups => !block,
            Step::DropGroups | Step::SetGid | Step::SetUid => block,
            _ => true,
        };
        if reached {
            assert_fails_at(
                step,
                libc::EIO,
                |_| {},
                Faults {
                    fail_at: Some(step),
                },
            );
        }
    }
}

#[test]
fn real_failures_are_named_too() {
    const TOO_HIGH: &[Rlimit] = &[Rlimit {
        resource: Resource::Descriptors,
        value: 1 << 40,
    }];
    let _serial = serial();
    let not_a_cgroup = null();
    let fd = not_a_cgroup.as_raw_fd();
    let none = Faults::default();
    assert_fails_at(
        Step::Clone,
        libc::EBADF,
        |c| c.cgroup = Some(borrow(fd)),
        none,
    );
    assert_fails_at(Step::Exec, libc::EACCES, |c| c.exe = borrow(fd), none);
    assert_fails_at(Step::Limits, libc::EPERM, |c| c.rlimits = TOO_HIGH, none);
    let nowhere = MemoryPolicy {
        mode: MemoryMode::Bind,
        nodes: [0; NODE_WORDS],
    };
    assert_fails_at(
        Step::Memory,
        libc::EINVAL,
        |c| c.memory_policy = Some(nowhere),
        none,
    );
    if matches!(who(), Identity::Block { .. }) {
        let unmapped = Identity::Block {
            uid: u32::MAX,
            gid: 71_000,
        };
        assert_fails_at(Step::MapUid, libc::EINVAL, |c| c.identity = unmapped, none);
    }
}

#[expect(
    unsafe_code,
    reason = "lends a descriptor under a lifetime the closure can name"
)]
fn borrow<'a>(fd: i32) -> BorrowedFd<'a> {
    // SAFETY: the tests keep the file open for longer than the command lives.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

#[test]
fn a_request_that_makes_no_sense_is_refused_untried() {
    let _serial = serial();
    let before = open_descriptors();
    let refused = |change: fn(&mut Command<'_>)| {
        let result = try_spawn(change, Faults::default());
        assert!(matches!(result, Err(SpawnError::Invalid(_))), "{result:?}");
    };
    refused(|c| c.argv = &[]);
    refused(|c| c.fds = vec![(null().into(), JAIL_FD)]);
    refused(|c| c.fds = vec![(null().into(), LAST_FD + 1)]);
    refused(|c| c.fds = vec![(null().into(), 5), (null().into(), 5)]);
    refused(|c| c.identity = Identity::Block { uid: 0, gid: 5 });
    refused(|c| c.identity = Identity::Block { uid: 5, gid: 0 });
    assert_nothing_left(before);
}

#[test]
fn every_step_keeps_its_number() {
    for (index, step) in Step::ALL.iter().enumerate() {
        assert_eq!(
            Step::from_number(u32::try_from(index).unwrap()),
            Some(*step)
        );
    }
    assert_eq!(Step::from_number(99), None);
}

#[test]
fn a_program_that_ends_at_once_was_started() {
    let _serial = serial();
    let before = open_descriptors();
    let child = try_spawn(|_| {}, Faults::default()).unwrap();
    assert!(process::reap(&child).is_some());
    drop(child);
    assert_nothing_left(before);
}
