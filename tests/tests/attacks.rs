//! A worker that was taken over: a thread of each role tries what no worker may do. Each try must end
//! the worker by its sandbox, be named by `reeve run`, and leave nothing. Runs on this machine and in
//! the lab, whose kernel is older.
//!
//! The tries are in the worker's `attack.rs` (feature `attack-points`, which `make test` turns on).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reeve_tests::domain::{assert_nothing_left, unique_name};
use reeve_tests::leftovers::Snapshot;
use reeve_tests::reeve::Reeve;

const LIMIT: Duration = Duration::from_secs(20);

/// Each try, and the system call that is denied.
const ATTACKS: &[(&str, &str)] = &[
    ("open", "openat"),
    ("socket", "socket"),
    ("connect", "connect"),
    ("signal", "kill"),
    ("kvm-create-device", "ioctl"),
    ("kvm-create-vm", "ioctl"),
    ("io_uring-setup", "io_uring_setup"),
    ("fork", "clone"),
    ("exec", "execve"),
    ("mmap-exec", "mmap"),
    ("ptrace", "ptrace"),
    ("unlisted-ioctl", "ioctl"),
];

/// Before a machine is built its thread may make the VM and the rings of its disks: that is what it is
/// for. It may still make no device of KVM's.
const BASE_MAY: &[&str] = &["kvm-create-vm", "io_uring-setup"];

fn is_refused_and_reported(role: &str, attempt: &str, call: &str) -> Result<()> {
    let before = Snapshot::take();
    let name = unique_name("attack");
    // Only a machine that can be given memory has the thread for it.
    let most = if role == "memory" { "64M" } else { "32M" };
    let mut reeve = Reeve::run()?
        .name(&name)
        .memory("32M")
        .arg(format!("--max-memory={most}"))
        .cmdline(&format!("mode=clock reeve.attack={role}:{attempt}"))
        .spawn()?;
    let status = reeve.wait(LIMIT)?;
    let said = reeve.errors();
    let line = said.lines().next().context("reeve says nothing")?;
    ensure!(said.lines().count() == 1, "not one line:\n{said}");
    ensure!(line.starts_with("reeve: "), "{line}");
    // An attack before the machine stands is a start that fails.
    let code = if role == "base" { 1 } else { 4 };
    ensure!(status.code() == Some(code), "{status}: {said}");
    for part in [
        "killed by its sandbox",
        &format!("denied system call {call} ("),
        &format!("in role {role}"),
        &format!("'{name}'"),
    ] {
        ensure!(line.contains(part), "no '{part}' in: {line}");
    }
    drop(reeve);
    assert_nothing_left(&name, &before);
    Ok(())
}

fn role_is_held(role: &str) -> Result<()> {
    for (attempt, call) in ATTACKS {
        if role == "base" && BASE_MAY.contains(attempt) {
            continue;
        }
        is_refused_and_reported(role, attempt, call)
            .with_context(|| format!("{attempt} from role {role}"))?;
    }
    Ok(())
}

#[test]
fn nothing_is_allowed_before_the_machine_is_built() -> Result<()> {
    role_is_held("base")
}

#[test]
fn nothing_is_allowed_to_the_control_thread() -> Result<()> {
    role_is_held("control")
}

#[test]
fn nothing_is_allowed_to_a_vcpu_thread() -> Result<()> {
    role_is_held("vcpu")
}

#[test]
fn nothing_is_allowed_to_the_io_thread() -> Result<()> {
    role_is_held("io")
}

#[test]
fn nothing_is_allowed_to_the_thread_that_makes_threads() -> Result<()> {
    role_is_held("spawner")
}

#[test]
fn nothing_is_allowed_to_the_thread_that_gives_memory() -> Result<()> {
    role_is_held("memory")
}

/// Every try once, from one role after the other: the filters are the same programs everywhere.
#[reeve_tests::in_lab(timeout = "120s", root)]
fn nothing_is_allowed_on_an_older_kernel() -> Result<()> {
    let roles = ["vcpu", "io", "control", "spawner", "memory"]
        .into_iter()
        .cycle();
    for ((attempt, call), role) in ATTACKS.iter().zip(roles) {
        is_refused_and_reported(role, attempt, call)
            .with_context(|| format!("{attempt} from role {role}"))?;
    }
    Ok(())
}
