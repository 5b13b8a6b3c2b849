//! Measures the way from `spawn` to a closed jail.
//!
//! `cargo run --release -p reeve-sandbox --example spawn_latency -- PROBE [COUNT]`
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use reeve_sandbox::{Command, FIRST_FD, Identity, OnParentDeath, Resource, Rlimit, spawn};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{WaitId, WaitIdOptions, waitid};

fn now() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

fn main() {
    let path = std::env::args().nth(1).expect("path of the probe");
    let count: usize = std::env::args().nth(2).map_or(300, |n| n.parse().unwrap());
    let gap: u64 = std::env::args().nth(3).map_or(30, |n| n.parse().unwrap());
    let exe = File::open(path).unwrap();
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap();
    let name = CString::new("worker").unwrap();
    let root = rustix::process::geteuid().is_root();
    let mut rows: Vec<[u64; 4]> = Vec::new();
    for i in 0..count {
        let pair = || {
            socketpair(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC,
                None,
            )
            .unwrap()
        };
        let (ours, theirs) = pair();
        let (denial, report) = pair();
        let start = now();
        let child = spawn(Command {
            exe: exe.as_fd(),
            argv: &[&name],
            null: null.as_fd(),
            fds: vec![(theirs, FIRST_FD), (report, FIRST_FD + 1)],
            identity: if root {
                Identity::Block {
                    uid: 70000,
                    gid: 70000,
                }
            } else {
                Identity::Caller
            },
            rlimits: &[
                Rlimit {
                    resource: Resource::Core,
                    value: 0,
                },
                Rlimit {
                    resource: Resource::Descriptors,
                    value: 256,
                },
            ],
            cgroup: None,
            on_parent_death: OnParentDeath::Die,
        });
        let child = match child {
            Ok(child) => child,
            Err(error) => panic!("{error}: {:?}", error.remedy()),
        };
        let spawned = now();
        let mut buffer = [0; 256];
        let n = rustix::io::read(&ours, &mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        let mut words = text.split(' ');
        let mut number = || {
            words
                .next()
                .and_then(|w| w.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let (main, done) = (number(), number());
        if i == 0 {
            let mut buffer = [0; 64];
            let n = rustix::net::recv(&denial, &mut buffer[..], rustix::net::RecvFlags::DONTWAIT)
                .map_or(0, |(n, _)| n);
            let d = reeve_sandbox::seccomp::denial::Denial::decode(&buffer[..n]);
            println!(
                "{text} {status:?} {}",
                d.map_or(String::new(), |d| d.to_string())
            );
        }
        rows.push([spawned - start, main - start, done - start, now() - start]);
        std::thread::sleep(Duration::from_millis(gap));
    }
    for (index, name) in ["spawn returns", "main begins", "jail closed", "reaped"]
        .iter()
        .enumerate()
    {
        let mut column: Vec<u64> = rows.iter().map(|row| row[index] / 1000).collect();
        column.sort_unstable();
        println!(
            "{name:14} p10 {} p50 {} p90 {} us",
            column[count / 10],
            column[count / 2],
            column[count * 9 / 10]
        );
    }
}
