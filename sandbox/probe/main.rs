//! The process that the tests jail, and for an ordinary user's tests the one that jails it.
//!
//! Descriptors 4 (messages to and from the test) and 5 (denial report) are handed over. As `launch`
//! it spawns itself as the calling user; as `jailed` it closes the jail, says `ready`, waits for a
//! message, carries out one attempt in one role, and reports how that ended. `timed` is for the
//! latency measurement in `examples/`.

mod attempts;

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::thread;

use reeve_sandbox::seccomp::{Role, enter_role};
use reeve_sandbox::{Command, Identity, OnParentDeath, Prepared, Resource, Rlimit, spawn};
use rustix::process::{WaitId, WaitIdOptions, waitid};

/// Messages, one per packet.
const MESSAGES: i32 = 4;
/// Denial reports.
const REPORT: i32 = 5;

fn main() -> ExitCode {
    reeve_sandbox::program::run_if_launcher();
    reeve_sandbox::service::run_if_launcher();
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["launch", ..] => launch(&words[1..]),
        ["jailed", "timed"] => timed(),
        ["jailed", "full", role, attempt] => jailed(true, role, attempt),
        ["jailed", "unfiltered", role, attempt] => jailed(false, role, attempt),
        _ => ExitCode::FAILURE,
    }
}

#[expect(unsafe_code, reason = "lends a descriptor by its agreed number")]
fn descriptor(fd: i32) -> BorrowedFd<'static> {
    // SAFETY: handed over at start and never closed.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

fn say(text: &str) {
    let _ = rustix::io::write(descriptor(MESSAGES), text.as_bytes());
}

/// Nanoseconds of the monotonic clock.
fn now() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// When `main` began, and when the jail was closed.
fn timed() -> ExitCode {
    let began = now();
    match reeve_sandbox::enter(descriptor(REPORT)) {
        Ok(_) => say(&format!("{began} {}", now())),
        Err(error) => say(&error.to_string()),
    }
    // Until the other end has been read and closed.
    let _ = rustix::io::read(descriptor(MESSAGES), &mut [0; 1]);
    ExitCode::SUCCESS
}

fn jailed(filtered: bool, role: &str, attempt: &str) -> ExitCode {
    // Captured before the jail closes: nothing is opened after.
    let _ = std::io::stdout().is_terminal();
    let jail = Prepared::new(descriptor(REPORT)).and_then(|prepared| {
        if filtered {
            prepared.close()
        } else {
            prepared.close_unfiltered()
        }
    });
    match jail {
        Ok(report) => say(&format!("ready landlock {}", report.landlock)),
        Err(error) => {
            say(&format!("not jailed: {error}"));
            return ExitCode::FAILURE;
        }
    }
    let role = Role::ALL
        .into_iter()
        .find(|r| r.to_string() == role)
        .unwrap_or(Role::Base);
    let attempt = attempt.to_owned();
    let thread = thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(move || {
            if filtered && role != Role::Base {
                enter_role(role).expect("the base filter lets a role be entered");
            }
            say("entered");
            let mut buffer = [0; 128];
            let length = rustix::io::read(descriptor(MESSAGES), &mut buffer).unwrap_or(0);
            let argument = String::from_utf8_lossy(&buffer[..length]).into_owned();
            say(&format!("done {}", attempts::run(&attempt, &argument)));
        });
    let ended = thread.is_ok_and(|thread| thread.join().is_ok());
    if ended {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Spawns `jailed` with the rest of the arguments, prints its pid, and tells how it ended.
#[expect(unsafe_code, reason = "takes over descriptors by their agreed numbers")]
fn launch(rest: &[&str]) -> ExitCode {
    // SAFETY: handed over at start for this; nothing else refers to it.
    let messages = unsafe { OwnedFd::from_raw_fd(MESSAGES) };
    // SAFETY: as above.
    let report = unsafe { OwnedFd::from_raw_fd(REPORT) };
    let exe = File::open("/proc/self/exe").expect("own program");
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .expect("null device");
    let words = ["jailed"]
        .iter()
        .chain(rest)
        .map(|word| CString::new(*word).expect("no NUL"));
    let words: Vec<CString> = words.collect();
    let argv: Vec<&CStr> = words.iter().map(CString::as_c_str).collect();
    let child = spawn(Command {
        exe: exe.as_fd(),
        argv: &argv,
        null: null.as_fd(),
        fds: vec![(messages, MESSAGES), (report, REPORT)],
        identity: Identity::Caller,
        rlimits: &[
            Rlimit {
                resource: Resource::Core,
                value: 0,
            },
            Rlimit {
                resource: Resource::Descriptors,
                value: 64,
            },
        ],
        memory_policy: None,
        cgroup: None,
        on_parent_death: OnParentDeath::Die,
    });
    let mut out = std::io::stdout();
    match child {
        Ok(child) => {
            let _ = writeln!(out, "{}", child.pid.as_raw_nonzero());
            let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
            let signal = status.ok().flatten().and_then(|s| s.terminating_signal());
            ExitCode::from(u8::try_from(signal.unwrap_or(0)).unwrap_or(u8::MAX))
        }
        Err(error) => {
            let _ = writeln!(out, "{error}; {:?}", error.remedy());
            ExitCode::FAILURE
        }
    }
}
