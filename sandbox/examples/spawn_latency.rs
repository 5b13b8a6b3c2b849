//! Measures the way from `spawn` to a closed jail, and what a jailed process costs in memory.
//!
//! `cargo build --release -p reeve-sandbox --bins --examples`, then
//! `spawn_latency target/.../reeve-sandbox-probe [COUNT [PAUSE_MS]]`. The pause lets the kernel end
//! the previous network namespace, which takes it several milliseconds.

#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use reeve_sandbox::{Command, FIRST_FD, Identity, OnParentDeath, Resource, Rlimit, spawn};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{WaitId, WaitIdOptions, waitid};

const LIMITS: &[Rlimit] = &[
    Rlimit {
        resource: Resource::Core,
        value: 0,
    },
    Rlimit {
        resource: Resource::Descriptors,
        value: 256,
    },
];

fn now() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("a socket pair")
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |index: usize, default: u64| {
        arguments
            .get(index)
            .map_or(default, |text| text.parse().expect("a number"))
    };
    let exe = File::open(arguments.get(1).expect("the probe's path")).expect("the probe");
    let (count, pause) = (number(2, 200), number(3, 30));
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .expect("null device");
    let identity = if rustix::process::geteuid().is_root() {
        Identity::Block {
            uid: 70_000,
            gid: 70_000,
        }
    } else {
        Identity::Caller
    };

    let names = ["spawn returns", "main begins", "jail closed", "reaped"];
    let mut columns: [Vec<i64>; 4] = Default::default();
    let mut memory = String::new();
    for _ in 0..count {
        let (ours, theirs) = pair();
        let (_denials, report) = pair();
        let start = now();
        let child = spawn(Command {
            exe: exe.as_fd(),
            argv: &[c"jailed", c"timed"],
            null: null.as_fd(),
            fds: vec![(theirs, FIRST_FD), (report, FIRST_FD + 1)],
            identity,
            rlimits: LIMITS,
            memory_policy: None,
            cgroup: None,
            on_parent_death: OnParentDeath::Die,
        });
        let child = child.unwrap_or_else(|error| panic!("{error}: {:?}", error.remedy()));
        let spawned = now();
        let mut buffer = [0; 256];
        let length = rustix::io::read(&ours, &mut buffer).expect("a message");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let mut words = text.split(' ').map_while(|word| word.parse::<i64>().ok());
        let (Some(began), Some(closed)) = (words.next(), words.next()) else {
            panic!("{text}")
        };
        if memory.is_empty() {
            let path = format!("/proc/{}/smaps_rollup", child.pid.as_raw_nonzero());
            memory = std::fs::read_to_string(path).unwrap_or_default();
        }
        let ending = now();
        drop(ours);
        let ended = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
        assert!(ended.is_ok_and(|status| status.is_some()));
        let row = [
            spawned - start,
            began - start,
            closed - start,
            now() - ending,
        ];
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value / 1000);
        }
        std::thread::sleep(Duration::from_millis(pause));
    }
    for (name, column) in names.iter().zip(&mut columns) {
        column.sort_unstable();
        let at = |tenths: usize| column[column.len() * tenths / 10];
        println!(
            "{name:14} p10 {:5} p50 {:5} p90 {:5} us",
            at(1),
            at(5),
            at(9)
        );
    }
    for line in memory
        .lines()
        .filter(|line| line.contains("Private") || line.starts_with("Pss:"))
    {
        println!("{line}");
    }
}
