//! What a role may not do kills it by SIGSYS, and the report says what it was.

use libc::SIGSYS;
use reeve_sandbox::seccomp::Role;

use crate::harness::{Caller, End, Probe};

/// Attempts that every role is denied, and the call that must be named.
const DENIED: &[(&str, &str)] = &[
    ("open", "openat"),
    ("create", "openat"),
    ("socket", "socket"),
    ("signal", "kill"),
    ("signal-thread", "tgkill"),
    ("signal-kill", "tgkill"),
    ("kvm-device", "ioctl"),
    ("ioctl", "ioctl"),
    ("io-uring", "io_uring_setup"),
    ("fork", "clone"),
    ("execve", "execve"),
    ("execveat", "execveat"),
    ("map-executable", "mmap"),
    ("protect-executable", "mprotect"),
    ("ptrace", "ptrace"),
    ("setns", "setns"),
    ("unshare", "unshare"),
    ("prctl", "prctl"),
];

/// What of it the base filter allows: rings are made before a role is entered.
const BASE_MAY: &str = "io-uring";

fn attempt(caller: Caller, role: Role, attempt: &str) -> End {
    Probe::start(caller, "full", &role.to_string(), attempt).finish("2")
}

fn assert_denied(caller: Caller, role: Role, name: &str, call: &str) {
    let end = attempt(caller, role, name);
    assert_eq!(end.signal, Some(SIGSYS), "{name} in role {role}: {end:?}");
    assert!(
        end.said.is_empty(),
        "{name} in role {role} went on: {end:?}"
    );
    let denial = end.denial.expect("a report");
    assert_eq!(denial.name(), Some(call), "{denial}");
    assert_eq!(denial.role, role, "{denial}");
    assert!(denial.tid > 1, "the thread that made the call: {denial}");
}

#[test]
fn base_is_denied_and_named() {
    for (name, call) in DENIED.iter().filter(|(name, _)| *name != BASE_MAY) {
        assert_denied(Caller::all()[0], Role::Base, name, call);
    }
}

#[test]
fn control_is_denied_and_named() {
    for (name, call) in DENIED {
        assert_denied(Caller::all()[0], Role::Control, name, call);
    }
}

#[test]
fn vcpu_is_denied_and_named() {
    for (name, call) in DENIED {
        assert_denied(Caller::all()[0], Role::Vcpu, name, call);
    }
}

#[test]
fn io_is_denied_and_named() {
    for (name, call) in DENIED {
        assert_denied(Caller::all()[0], Role::Io, name, call);
    }
}

#[test]
fn memory_is_denied_and_named() {
    for (name, call) in DENIED {
        assert_denied(Caller::all()[0], Role::Memory, name, call);
    }
}

#[test]
fn gateway_is_denied_and_named() {
    for (name, call) in DENIED.iter().chain(&[("map-shared", "mmap")]) {
        assert_denied(Caller::all()[0], Role::Gateway, name, call);
    }
    // The C library blocks signals while it makes a thread: the end comes, and no report.
    let end = attempt(Caller::all()[0], Role::Gateway, "threads");
    assert_eq!(end.signal, Some(SIGSYS), "{end:?}");
    assert!(end.said.is_empty(), "it went on: {end:?}");
}

#[test]
fn an_ordinary_users_worker_is_denied_the_same() {
    for (name, call) in DENIED {
        assert_denied(Caller::User, Role::Vcpu, name, call);
    }
}

#[test]
fn numbers_of_the_x32_abi_are_denied() {
    for role in Role::ALL {
        let end = attempt(Caller::all()[0], role, "x32");
        assert_eq!(end.signal, Some(SIGSYS), "{role}: {end:?}");
    }
}

#[test]
fn clone3_is_answered_so_that_glibc_falls_back_and_denied_in_roles() {
    let caller = Caller::all()[0];
    let end = attempt(caller, Role::Base, "clone3");
    assert_eq!(
        (end.said, end.signal),
        (vec!["done errno 38".to_owned()], None)
    );
    assert_denied(caller, Role::Vcpu, "clone3", "clone3");
}

#[test]
fn std_works_in_every_role() {
    // A reader and a gateway are processes of one thread, which do their work and end.
    let processes = [Role::Reader, Role::Gateway, Role::Images];
    let roles = || {
        Role::ALL
            .into_iter()
            .filter(|role| !processes.contains(role))
    };
    for caller in Caller::all() {
        for role in roles() {
            let end = attempt(caller, role, "ordinary");
            assert_eq!(end.said, ["done ok"], "{role}: {end:?}");
            assert_eq!((end.signal, end.denial), (None, None), "{role}");
        }
    }
}

#[test]
fn threads_are_made_from_base() {
    let end = attempt(Caller::all()[0], Role::Base, "threads");
    assert_eq!((end.said, end.signal), (vec!["done ok".to_owned()], None));
}

#[test]
fn threads_are_not_made_from_a_role() {
    for role in [
        Role::Control,
        Role::Vcpu,
        Role::Io,
        Role::Vhost,
        Role::Memory,
    ] {
        let end = attempt(Caller::all()[0], role, "threads");
        assert_eq!(end.signal, Some(SIGSYS), "{role}: {end:?}");
    }
}
