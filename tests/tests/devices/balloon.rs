//! Memory that is taken from a guest by its balloon, and given back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_tests::soaking;

use super::domain::Domain;
use super::guest::SHELL;

/// Read at a time.
const PIECE_MIB: u64 = 32;

/// The whole of the guest's memory.
pub fn all_mib() -> u64 {
    if soaking() { 512 } else { 256 }
}

/// What the host is charged for falls with what the guest has, and the guest can have it again.
pub fn memory_is_taken_and_given_back(domain: &mut Domain) -> Result<()> {
    let cgroup = cgroup(domain.worker()?)?;
    let charged = || charge(&cgroup);
    let (all, half) = (all_mib(), all_mib() / 2);
    fill(domain)?;
    let full = charged()?;
    ensure!(full > (all - 32) << 20, "its guest uses {full} bytes");

    resize(domain, half)?;
    let deadline = Instant::now() + SHELL;
    while !within_a_twentieth(charged()?, half << 20) {
        let now = charged()?;
        ensure!(
            Instant::now() < deadline,
            "{now} bytes, of {full}; {}, {}",
            counters(&cgroup.join("memory.stat"), "shmem")?,
            counters(Path::new("/proc/vmstat"), "thp_")?
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    // Linux counts what a balloon holds that gives way when memory is short as its own, but not as free.
    let left = domain.guest("awk '/MemAvailable:/ { print $2 }' /proc/meminfo")?;
    ensure!(left.parse::<u64>()? < half << 10, "{left} KiB to be had");

    resize(domain, all)?;
    fill(domain)?;
    let again = charged()?;
    ensure!(
        within_a_twentieth(again, full),
        "{again} bytes, {full} before"
    );
    Ok(())
}

/// Has the guest fill its memory with the contents of a disk, which it can do without.
fn fill(domain: &mut Domain) -> Result<()> {
    for piece in 0..all_mib() / PIECE_MIB {
        domain.guest(&format!(
            "dd if=/dev/vda of=/dev/null bs=1M skip={} count={PIECE_MIB} 2>/dev/null",
            piece * PIECE_MIB
        ))?;
    }
    Ok(())
}

/// Asks for a size, and waits until the balloon says that it is so.
fn resize(domain: &Domain, mebibytes: u64) -> Result<()> {
    domain.reeve("set-memory", &[&format!("{mebibytes}M")])?;
    let held = (all_mib() - mebibytes) << 20;
    let deadline = Instant::now() + SHELL;
    loop {
        let stats = domain.stats("balloon")?;
        let bytes = |name: &str| stats.pointer(&format!("/figures/{name}"))?.as_u64();
        ensure!(bytes("target_bytes") == Some(held), "{stats}");
        if bytes("actual_bytes") == Some(held) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{stats}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn within_a_twentieth(bytes: u64, of: u64) -> bool {
    bytes.abs_diff(of) <= of / 20
}

/// The cgroup of a domain, by its worker.
fn cgroup(worker: u32) -> Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{worker}/cgroup"))?;
    let path = text.trim().split("::").nth(1).context("cgroup v2")?;
    Ok(PathBuf::from(format!("/sys/fs/cgroup{path}")))
}

/// What a cgroup is charged for that is memory of a guest, or of who runs it.
fn charge(cgroup: &Path) -> Result<u64> {
    let text = fs::read_to_string(cgroup.join("memory.stat"))?;
    let field = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.with_context(|| format!("no {name}"))?.trim().parse()?)
    };
    Ok(field("anon ")? + field("shmem ")?)
}

/// The counters whose name starts so, as one line.
fn counters(file: &Path, start: &str) -> Result<String> {
    let text = fs::read_to_string(file)?;
    let found: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with(start))
        .collect();
    Ok(found.join(", "))
}
