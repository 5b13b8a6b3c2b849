//! What a guest gets through its devices: one run of the built-in guest's `mode=measure` on one monitor.
//!
//! The guest's driver is the same on every monitor: virtio over PCI, the modern interface, MSI-X, event
//! indexes. It does its work in ring 3, warms up, sleeps, runs, and says on its console how many operations
//! there were and how long they took by the time-stamp counter ([`reeve_guest::mode::measure_block`]).
//! While it sleeps, before the run and after it, the CPU time of the monitor's process is read: that of all
//! its threads, the vCPU's among them. So an operation is paid for whoever does it, a vCPU that waits in the
//! monitor, an I/O thread, or a thread of the kernel's that works for the process.
//!
//! ```text
//!              this process                      the monitor's process
//!  traffic: AF_PACKET on the tap ───┐         ┌── guest: driver, clock, latencies
//!  CPU time by /proc ───────────────┼─ tap ───┤── device: Reeve's or QEMU's
//!  console: ready, figures ◄────────┘  file ──┘
//! ```

pub mod console;
pub mod cpu;
pub mod network;
pub mod qemu;
pub mod reeve;
pub mod traffic;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use self::console::Console;
use self::cpu::CpuTime;
use crate::contender::{DEADLINE, Running};

/// How long a run is.
pub const RUN: Duration = Duration::from_secs(1);

/// What the guest has beside its console.
#[derive(Debug, Clone, Copy)]
pub enum Device<'a> {
    /// A disk on this raw file.
    Disk(&'a Path),
    /// A network interface on the tap of this name, which exists.
    Tap(&'a str),
}

/// A monitor with a way to do I/O.
pub trait Monitor {
    /// What it is called in the table and in `bench.json`.
    fn name(&self) -> &'static str;

    /// The transport and the way of I/O, for the notes.
    fn way(&self) -> String;

    /// Starts the guest with this command line and this device.
    ///
    /// # Errors
    /// It cannot be started, or prints nothing.
    fn start(&mut self, command_line: &str, device: Device<'_>)
    -> anyhow::Result<Box<dyn Running>>;
}

/// What one run gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Operations a second of the clock.
    pub rate: f64,
    /// Operations a second of CPU time of the whole process.
    pub per_core: f64,
    /// CPU time of all threads but the vCPU's for an operation, in microseconds.
    pub device_us: f64,
    /// The quickest operation in microseconds.
    pub min_us: f64,
    /// Half of the operations took no longer, in microseconds.
    pub p50_us: f64,
    /// All but a hundredth took no longer, in microseconds.
    pub p99_us: f64,
}

/// Runs the guest once on `monitor`.
///
/// # Errors
/// It does not start or end, operations failed, or it is another guest.
pub fn run(
    monitor: &mut dyn Monitor,
    command_line: &str,
    device: Device<'_>,
) -> anyhow::Result<Sample> {
    let running = monitor.start(command_line, device)?;
    let mut console = Console::new(running.console());
    let taken = take(&mut console, running.pid(), command_line)
        .with_context(|| format!("{}: {command_line}", monitor.name()));
    // The guest sleeps still; QEMU's has no way to end the monitor.
    running.destroy()?;
    taken
}

fn take(console: &mut Console<'_>, pid: u32, command_line: &str) -> anyhow::Result<Sample> {
    console.wait_for("measure: ready", DEADLINE)?;
    let before = CpuTime::of(pid)?;
    let line = console.wait_for("measure: operations", RUN + DEADLINE)?;
    let after = CpuTime::of(pid)?;
    let said = Said::parse(&line).with_context(|| format!("{command_line}: {line}"))?;
    ensure!(said.errors == 0, "{} operations failed", said.errors);
    said.sample(after.since(before))
}

/// The guest's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    operations: u32,
    errors: u32,
    ns: u64,
    min: u64,
    p50: u64,
    p99: u64,
}

impl Said {
    fn parse(line: &str) -> anyhow::Result<Self> {
        let figures = line.strip_prefix("measure: ").unwrap_or_default();
        let number = |name: &str| -> anyhow::Result<u64> {
            let mut figures = figures.split(", ");
            let figure = figures.find_map(|figure| figure.strip_prefix(name)?.strip_prefix(' '));
            Ok(figure.with_context(|| format!("no {name}"))?.parse()?)
        };
        Ok(Self {
            operations: number("operations")?.try_into()?,
            errors: number("errors")?.try_into()?,
            ns: number("ns")?,
            min: number("min")?,
            p50: number("p50")?,
            p99: number("p99")?,
        })
    }

    fn sample(&self, cpu: CpuTime) -> anyhow::Result<Sample> {
        if self.operations == 0 || cpu.all.is_zero() {
            bail!("nothing was done");
        }
        let operations = f64::from(self.operations);
        let us = |ns: u64| Duration::from_nanos(ns).as_secs_f64() * 1e6;
        Ok(Sample {
            rate: operations / Duration::from_nanos(self.ns).as_secs_f64(),
            per_core: operations / cpu.all.as_secs_f64(),
            device_us: cpu.all.saturating_sub(cpu.vcpus).as_secs_f64() * 1e6 / operations,
            min_us: us(self.min),
            p50_us: us(self.p50),
            p99_us: us(self.p99),
        })
    }
}

/// A raw disk that is all in memory: a file on tmpfs, every block of it written.
#[derive(Debug)]
pub struct MemoryDisk {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl MemoryDisk {
    /// Makes one of so many MiB.
    ///
    /// # Errors
    /// `/dev/shm` is no tmpfs, or is full.
    pub fn make(mebibytes: u16) -> anyhow::Result<Self> {
        const PLACE: &str = "/dev/shm";
        const TMPFS_MAGIC: i64 = 0x0102_1994;
        let kind = rustix::fs::statfs(PLACE).context(PLACE)?.f_type;
        ensure!(kind == TMPFS_MAGIC, "{PLACE} is no tmpfs");
        let directory = tempfile::tempdir_in(PLACE)?;
        let path = directory.path().join("disk.raw");
        let mut file = std::fs::File::create(&path)?;
        for number in 0..mebibytes {
            std::io::Write::write_all(&mut file, &vec![number.to_le_bytes()[0] | 1; 1 << 20])?;
        }
        Ok(Self {
            _directory: directory,
            path,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_line_and_the_cpu_time_give_the_figures() {
        let line =
            "measure: operations 5000, errors 0, ns 2000000000, min 1500, p50 2500, p99 90000";
        let said = Said::parse(line).unwrap();
        let sample = said
            .sample(CpuTime {
                all: Duration::from_millis(500),
                vcpus: Duration::from_millis(450),
            })
            .unwrap();
        assert_eq!((sample.rate, sample.per_core), (2500.0, 10_000.0));
        assert!((sample.device_us - 10.0).abs() < 1e-6);
        assert_eq!(
            (sample.min_us, sample.p50_us, sample.p99_us),
            (1.5, 2.5, 90.0)
        );
    }

    #[test]
    fn what_is_not_the_guests_line_gives_none() {
        for line in ["", "measure: operations 5", "operations 5, errors 0, ns 1"] {
            assert!(Said::parse(line).is_err(), "{line}");
        }
    }
}
