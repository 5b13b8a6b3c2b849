//! Memory of one process, from `/proc/PID/smaps`.

use std::fs;

use anyhow::{Context, bail};

use crate::GUEST_MEMORY_BYTES;

/// What one process takes, its guest's memory apart, in KiB (proc_pid_smaps(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Proportional set size: pages that N processes share count as an Nth.
    pub pss_kib: u64,
    /// Pages that only this process has and has written.
    pub private_dirty_kib: u64,
    /// Pages that belong to no file.
    pub anonymous_kib: u64,
    /// Pages of the guest's memory that exist.
    pub guest_kib: u64,
    /// Whether the guest's memory is shared memory (a memfd), or anonymous.
    pub guest_is_shared: bool,
}

impl ProcessMemory {
    /// Of the process `pid`. The guest's memory is the one mapping of at least its size.
    ///
    /// # Errors
    /// The process is gone, or has no mapping or several that could be the guest's memory.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/smaps");
        let smaps = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Self::parse(&smaps).with_context(|| path)
    }

    fn parse(smaps: &str) -> anyhow::Result<Self> {
        let mut memory = Self::default();
        let mut guest_mappings = 0;
        let mut is_guest = false;
        for line in smaps.lines() {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            // A mapping's own line has its address range ahead of the first colon.
            if name.contains(' ') {
                is_guest = mapping_bytes(name)? >= GUEST_MEMORY_BYTES as u64
                    && name
                        .split(' ')
                        .nth(1)
                        .is_some_and(|mode| mode.starts_with("rw"));
                guest_mappings += usize::from(is_guest);
                memory.guest_is_shared |= is_guest && name.contains(" rw-s ");
                continue;
            }
            let kib = || -> anyhow::Result<u64> {
                let number = value.trim().strip_suffix(" kB").context("not in kB")?;
                Ok(number.trim().parse()?)
            };
            match (name, is_guest) {
                ("Rss", true) => memory.guest_kib += kib()?,
                ("Pss", false) => memory.pss_kib += kib()?,
                ("Anonymous", false) => memory.anonymous_kib += kib()?,
                ("Private_Dirty", false) => memory.private_dirty_kib += kib()?,
                _ => {}
            }
        }
        if guest_mappings != 1 {
            bail!("{guest_mappings} mappings could be the guest's memory");
        }
        Ok(memory)
    }
}

/// The size of a mapping from its line, which begins with `from-to` in hexadecimal.
fn mapping_bytes(line: &str) -> anyhow::Result<u64> {
    let range = line.split(' ').next().unwrap_or_default();
    let (from, to) = range.split_once('-').context("no address range")?;
    let address = |text| u64::from_str_radix(text, 16).context("no address");
    address(to)?
        .checked_sub(address(from)?)
        .context("range backwards")
}

/// What `ps` calls resident: `VmRSS` of `/proc/PID/status`, in KiB.
///
/// # Errors
/// The process is gone.
pub fn resident_kib(pid: u32) -> anyhow::Result<f64> {
    kib_of(pid, "status", "VmRSS:")
}

/// The proportional set size of a process: `Pss` of `/proc/PID/smaps_rollup`, in KiB.
///
/// # Errors
/// The process is gone.
pub fn pss_kib(pid: u32) -> anyhow::Result<f64> {
    kib_of(pid, "smaps_rollup", "Pss:")
}

fn kib_of(pid: u32, file: &str, field: &'static str) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context(field)?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00400000-00500000 r-xp 00000000 00:01 5   /bin/reeve-worker
Size:               1024 kB
Rss:                 800 kB
Pss:                  40 kB
Private_Dirty:         4 kB
VmFlags: rd ex mr
7f0000000000-7f0008000000 rw-s 00000000 00:01 9   /memfd:guest-memory (deleted)
Size:             131072 kB
Rss:                  56 kB
Pss:                  56 kB
Private_Dirty:        56 kB
7f1000000000-7f1000100000 rw-p 00000000 00:00 0
Pss:                 100 kB
Private_Dirty:        96 kB
Anonymous:            92 kB
7f2000000000-7f3000000000 ---p 00000000 00:00 0
Pss:                   0 kB
Private_Dirty:         0 kB
";

    #[test]
    fn the_guests_memory_is_told_apart_from_the_workers() {
        let memory = ProcessMemory::parse(SMAPS).unwrap();
        assert_eq!(
            memory,
            ProcessMemory {
                pss_kib: 140,
                private_dirty_kib: 100,
                anonymous_kib: 92,
                guest_kib: 56,
                guest_is_shared: true,
            }
        );
    }

    #[test]
    fn a_process_without_one_guest_is_refused() {
        assert!(ProcessMemory::parse("").is_err());
        assert!(ProcessMemory::parse(&SMAPS.repeat(2)).is_err());
    }
}
