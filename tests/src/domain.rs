//! A domain as the kernel sees it: its processes by name, and what `/proc` says of one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::leftovers::Snapshot;

/// A name for a domain that no other test on this machine uses.
#[must_use]
pub fn unique_name(stem: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{stem}-{}-{count}", std::process::id())
}

/// Workers that run the domain `name`: a worker's arguments are its program and that name.
#[must_use]
pub fn workers(name: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = arguments.split(|&byte| byte == 0);
        let program = words.next().unwrap_or_default();
        if program.ends_with(b"reeve-worker") && words.any(|word| word == name.as_bytes()) {
            found.push(pid);
        }
    }
    found
}

/// Waits for the worker of the domain `name`.
pub fn wait_for_worker(name: &str, limit: Duration) -> Result<u32> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(pid) = workers(name).first() {
            return Ok(*pid);
        }
        ensure!(Instant::now() < deadline, "no worker of '{name}' came");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the process is gone, at most for `limit`.
pub fn wait_until_gone(pid: u32, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    while Path::new(&format!("/proc/{pid}")).exists() {
        ensure!(Instant::now() < deadline, "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Asserts that nothing of the domain `name` is left: no worker, and nothing else that carries its
/// name. In an outer guest, where no other test runs, nothing new since `before` at all.
///
/// # Panics
/// With what is left.
pub fn assert_nothing_left(name: &str, before: &Snapshot) {
    let limit = Duration::from_secs(20);
    if crate::lab::inside_outer_guest() {
        before.assert_nothing_new(limit);
        return;
    }
    let deadline = Instant::now() + limit;
    loop {
        let mut left = before.new_since();
        left.retain(|thing| thing.contains(name));
        left.extend(workers(name).iter().map(|pid| format!("worker {pid}")));
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left of '{name}': {left:#?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The fields of a `status` file of `/proc`.
pub fn status(path: &str) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect())
}

/// Memory of a process that is in RAM and not the guest's: anonymous and program pages, in KiB.
pub fn own_memory_kib(pid: u32) -> Result<u64> {
    let status = status(&format!("/proc/{pid}/status"))?;
    let kib = |name: &str| -> Result<u64> {
        let value = status.get(name).with_context(|| format!("no {name}"))?;
        Ok(value.trim_end_matches("kB").trim().parse()?)
    };
    Ok(kib("RssAnon")? + kib("RssFile")?)
}
