//! Memory in use on the host, that of unrelated processes apart.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;

/// Host memory that is in use and could not be had for the asking, in KiB: everything but free
/// pages, the page cache of files, and what the kernel's caches give back; shared memory is in use.
/// The anonymous pages and page tables of processes that are neither this one nor come from it are
/// taken off, so that a compiler that runs beside does not count; kernel memory of others does.
///
/// # Errors
/// `/proc/meminfo` cannot be read or lacks a line.
pub fn host_used_kib() -> anyhow::Result<u64> {
    // Processes first: what they allocate in between is then counted, and seen as noise, rather
    // than taken off from what was not yet counted.
    let foreign = foreign_kib(&processes()?, std::process::id());
    Ok(used_kib(&meminfo()?)?.saturating_sub(foreign))
}

/// Waits until the kernel has done what it does late: machines and namespaces are taken apart by its
/// own threads after their processes are gone. Its memory then stands still; five seconds at most.
///
/// # Errors
/// As [`host_used_kib`].
pub fn wait_until_settled() -> anyhow::Result<()> {
    /// How long between two looks, how many in a row must show the same, and what the same is.
    const BETWEEN: Duration = Duration::from_millis(100);
    const STILL: u32 = 3;
    const SAME_KIB: u64 = 512;
    let begun = Instant::now();
    let mut before = kernel_kib()?;
    let mut still = 0;
    while still < STILL && begun.elapsed() < Duration::from_secs(5) {
        sleep(BETWEEN);
        let now = kernel_kib()?;
        still = if now.abs_diff(before) <= SAME_KIB {
            still + 1
        } else {
            0
        };
        before = now;
    }
    Ok(())
}

/// What the kernel holds for machines, processes and namespaces above all.
fn kernel_kib() -> anyhow::Result<u64> {
    let meminfo = meminfo()?;
    Ok(["SUnreclaim", "VmallocUsed", "KernelStack", "PageTables"]
        .iter()
        .filter_map(|name| field_kib(&meminfo, name))
        .sum())
}

fn meminfo() -> anyhow::Result<String> {
    fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")
}

fn used_kib(meminfo: &str) -> anyhow::Result<u64> {
    let field = |name: &str| {
        field_kib(meminfo, name).with_context(|| format!("no {name} in /proc/meminfo"))
    };
    let given_back = field("MemFree")? + field("Buffers")? + field("Cached")? - field("Shmem")?
        + field("SReclaimable")?;
    Ok(field("MemTotal")?.saturating_sub(given_back))
}

/// What `/proc/PID/status` says of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    parent: u32,
    own_kib: u64,
}

/// Every process; those that end meanwhile are left out.
fn processes() -> anyhow::Result<BTreeMap<u32, Process>> {
    let mut processes = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
            processes.extend(process(&status).map(|process| (pid, process)));
        }
    }
    Ok(processes)
}

/// A kernel thread has no memory of its own, and no such lines.
fn process(status: &str) -> Option<Process> {
    Some(Process {
        parent: value(status, "PPid")?.parse().ok()?,
        own_kib: field_kib(status, "RssAnon")? + field_kib(status, "VmPTE")?,
    })
}

/// What the processes hold that do not come from `own`.
fn foreign_kib(processes: &BTreeMap<u32, Process>, own: u32) -> u64 {
    let is_ours = |pid: u32| {
        let mut pid = pid;
        // No line of descent is longer than there are processes.
        for _ in 0..=processes.len() {
            match processes.get(&pid) {
                _ if pid == own => return true,
                Some(process) => pid = process.parent,
                None => return false,
            }
        }
        false
    };
    processes
        .iter()
        .filter(|(pid, _)| !is_ours(**pid))
        .map(|(_, process)| process.own_kib)
        .sum()
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    value(text, name)?.strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_use_is_what_is_neither_free_nor_cache() {
        let meminfo = "MemTotal: 1000 kB\nMemFree: 500 kB\nBuffers: 10 kB\nCached: 100 kB\n\
                       Shmem: 30 kB\nSReclaimable: 20 kB\n";
        assert_eq!(used_kib(meminfo).unwrap(), 400);
        assert!(used_kib("MemTotal: 1 kB\n").is_err());
    }

    #[test]
    fn only_processes_of_another_descent_are_foreign() {
        let process = |parent, own_kib| Process { parent, own_kib };
        let processes = BTreeMap::from([
            (1, process(0, 1)),
            (10, process(1, 10)),
            (11, process(10, 100)),
            (12, process(11, 1000)),
            (20, process(1, 10_000)),
        ]);
        assert_eq!(foreign_kib(&processes, 10), 10_001);
    }

    #[test]
    fn a_process_is_read_and_a_kernel_thread_is_not() {
        let status = "Name:\tcc\nPPid:\t7\nVmPTE:\t      44 kB\nRssAnon:\t     100 kB\n";
        assert_eq!(
            process(status),
            Some(Process {
                parent: 7,
                own_kib: 144
            })
        );
        assert_eq!(process("Name:\tkthreadd\nPPid:\t0\n"), None);
    }
}
