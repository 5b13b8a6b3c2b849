//! `start_20_readopt`, `start_100_readopt`, `daemon_rss_100` and `idle_100_cpu`: a daemon with so many
//! domains that run and do nothing.
//!
//! `start_N_readopt` is the time from the spawn of a daemon, after its predecessor was killed, until it
//! has answered a client, which it does when every domain is adopted; each sample checks that it has
//! as many, and at the end that the same processes still run them. `daemon_rss_100` is the daemon's
//! resident set with 100 of them. `idle_100_cpu` is the CPU time that the daemon and all 100 workers
//! take together, in percent of one CPU, over ten seconds in which nobody asks for anything (time on
//! a CPU of each thread, `/proc/PID/task/TID/schedstat`, in nanoseconds).

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use reeve_ipc::api::call::SupervisorInfoGet;

use super::{Figure, Group, Kind, Target, milliseconds};
use crate::daemon::{Instance, define, start};
use crate::load::Load;
use crate::memory::resident_kib;
use crate::stats::Samples;

const READOPT_20: Kind = Kind {
    name: "start_20_readopt",
    unit: "ms",
    less_is_better: true,
    target: None,
};

const READOPT_100: Kind = Kind {
    name: "start_100_readopt",
    unit: "ms",
    less_is_better: true,
    target: Some(Target::AtMost(100.0)),
};

const RESIDENT: Kind = Kind {
    name: "daemon_rss_100",
    unit: "KiB",
    less_is_better: true,
    target: None,
};

const IDLE: Kind = Kind {
    name: "idle_100_cpu",
    unit: "%",
    less_is_better: true,
    target: Some(Target::AtMost(1.0)),
};

/// With twenty.
pub const TWENTY: Group = Group {
    kinds: &[READOPT_20],
    take: |_, samples| {
        let before = Load::now()?;
        let mut instance = running(20)?;
        let times = readopt(&mut instance, 20, samples.div_ceil(5))?;
        drop(instance);
        let span = Load::now()?.since(&before);
        Ok(vec![Figure::alone(READOPT_20, &times, span)?])
    },
};

/// With a hundred.
pub const HUNDRED: Group = Group {
    kinds: &[READOPT_100, RESIDENT, IDLE],
    take: |_, samples| {
        let before = Load::now()?;
        let mut instance = running(100)?;
        let mut idle = Samples::default();
        for _ in 0..samples.div_ceil(100) {
            idle.push(cpu_percent(&instance, Duration::from_secs(10))?);
        }
        let mut resident = Samples::default();
        resident.push(resident_kib(instance.pid())?);
        let times = readopt(&mut instance, 100, samples.div_ceil(10))?;
        resident.push(resident_kib(instance.pid())?);
        drop(instance);
        let span = Load::now()?.since(&before);
        Ok(vec![
            Figure::alone(READOPT_100, &times, span)?,
            Figure::alone(RESIDENT, &resident, span)?,
            Figure::alone(IDLE, &idle, span)?,
        ])
    },
};

fn running(count: u32) -> anyhow::Result<Instance> {
    let instance = Instance::start()?;
    let mut connection = instance.connect()?;
    define(&mut connection, count)?;
    start(&mut connection, count)?;
    Ok(instance)
}

fn readopt(instance: &mut Instance, count: u32, samples: usize) -> anyhow::Result<Samples> {
    let before = instance.workers()?;
    let mut times = Samples::default();
    for _ in 0..samples {
        times.push(milliseconds(instance.restart()?));
        let info = instance.connect()?.call(SupervisorInfoGet {})?;
        ensure!(info.adopted == count, "{} are adopted", info.adopted);
    }
    let mut after = instance.workers()?;
    let mut before = before;
    before.sort_unstable();
    after.sort_unstable();
    ensure!(before == after, "other processes run them");
    Ok(times)
}

fn cpu_percent(instance: &Instance, over: Duration) -> anyhow::Result<f64> {
    let mut pids = instance.workers()?;
    ensure!(pids.len() == 100, "{} workers", pids.len());
    pids.push(instance.pid());
    // What was asked just now is done by then.
    sleep(Duration::from_millis(500));
    let total = || -> anyhow::Result<u64> { pids.iter().map(|pid| cpu_ns(*pid)).sum() };
    let (begun, before) = (Instant::now(), total()?);
    sleep(over);
    let used = Duration::from_nanos(total()?.saturating_sub(before));
    Ok(used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0)
}

/// Nanoseconds that the threads of a process have been on a CPU.
fn cpu_ns(pid: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path().join("schedstat");
        let text = fs::read_to_string(&path)?;
        let first = text.split_whitespace().next();
        sum += first.context("schedstat is empty")?.parse::<u64>()?;
    }
    Ok(sum)
}
