//! The outer guest: booted once, saved when it waits for work, resumed for each test.
//!
//! Memory is a file. The machine that is saved writes into it; a resumed machine maps it privately,
//! so each run starts from the same bytes, many run at once, and nothing is copied: saving takes
//! 40 ms, resuming 60 ms to 100 ms. What differs between runs, the payload, is a disk that the
//! saved guest has seen but not read.
//!
//! A state belongs to one QEMU and one set of inputs, which its name carries. When a state does not
//! load it is forgotten, and that run boots cold.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;

use super::cache::Cache;
use super::guests::Guests;
use super::image;
use super::qemu::{self, Hardware, Machine};

/// A cold boot takes 3 s here; the limit is for a machine under heavy load.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
const SAVE_LIMIT: Duration = Duration::from_secs(30);

/// What is needed to start outer guests.
#[derive(Debug)]
pub struct Outer {
    cache: Cache,
    kernel: PathBuf,
    initramfs: PathBuf,
    disks: Vec<(&'static str, PathBuf)>,
    key: String,
}

/// What runs in an outer guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Busybox and the lab's own init.
    Busybox,
    /// Debian: systemd, dpkg, and what they need.
    Debian,
}

impl Outer {
    /// Prepares the inputs, which the first time means fetching packages.
    pub fn prepare(cache: &Cache, system: System) -> Result<Outer> {
        let guests = Guests::prepare(cache)?;
        let image = cache.entry(&format!("assets-{}", guests.key), |directory| {
            image::build(&guests.assets, &directory.join("image"))
        })?;
        let mut outer = Outer {
            cache: cache.clone(),
            kernel: guests.assets.join("vmlinux"),
            initramfs: guests.outer_initramfs,
            disks: vec![("assets", image.join("image"))],
            key: guests.key,
        };
        if system == System::Debian {
            outer.initramfs = guests.debian_initramfs;
            outer.disks.push(("root", guests.debian.image));
            outer.key.push_str(&guests.debian.key);
        }
        Ok(outer)
    }

    /// A guest that waits for work, with `payload` as its payload disk: resumed, or booted when
    /// resuming does not work or `REEVE_LAB_COLD` is set.
    pub fn start(&self, payload: &Path) -> Result<Machine> {
        if std::env::var_os("REEVE_LAB_COLD").is_some() {
            return self.boot_cold(payload);
        }
        let name = format!("state-{}", qemu::fingerprint()?.with(&self.key).digits());
        let resumed = self
            .cache
            .entry(&name, |directory| self.save(payload, directory))
            .and_then(|state| self.resume(payload, &state));
        resumed.or_else(|error| {
            super::say(&format!("lab: no resume, booting instead: {error:#}\n"));
            self.cache.forget(&name)?;
            self.boot_cold(payload)
        })
    }

    /// Boots a guest that is of use once.
    pub fn boot_cold(&self, payload: &Path) -> Result<Machine> {
        let memory = tempfile::NamedTempFile::new()?;
        memory.as_file().set_len(qemu::MEMORY_BYTES)?;
        self.boot(payload, memory.path(), false)
    }

    fn save(&self, payload: &Path, directory: &Path) -> Result<()> {
        let memory = directory.join("memory");
        File::create(&memory)?.set_len(qemu::MEMORY_BYTES)?;
        let mut machine = self.boot(payload, &memory, true)?;
        machine.monitor.execute("stop", json!({}))?;
        machine.monitor.leave_memory_out()?;
        let uri = format!("exec:cat >{}", quoted(&directory.join("devices"))?);
        machine.monitor.execute("migrate", json!({ "uri": uri }))?;
        machine.monitor.migrated(SAVE_LIMIT)?;
        Ok(())
    }

    fn resume(&self, payload: &Path, state: &Path) -> Result<Machine> {
        let mut machine = self.machine(payload, &state.join("memory"), false, true)?;
        machine.monitor.leave_memory_out()?;
        let uri = format!("exec:cat {}", quoted(&state.join("devices"))?);
        machine
            .monitor
            .execute("migrate-incoming", json!({ "uri": uri }))?;
        machine.monitor.migrated(SAVE_LIMIT)?;
        machine.monitor.execute("cont", json!({}))?;
        Ok(machine)
    }

    fn boot(&self, payload: &Path, memory: &Path, shared: bool) -> Result<Machine> {
        let machine = self.machine(payload, memory, shared, false)?;
        let ready = || -> Result<()> {
            machine.control.set_read_timeout(Some(BOOT_LIMIT))?;
            let mut line = String::new();
            BufReader::new(machine.control.try_clone()?).read_line(&mut line)?;
            ensure!(line.trim() == "READY", "it said {line:?}");
            Ok(())
        };
        ready().with_context(|| {
            format!(
                "the outer guest does not boot; its console:\n{}",
                machine.console_tail()
            )
        })?;
        Ok(machine)
    }

    fn machine(
        &self,
        payload: &Path,
        memory: &Path,
        shared: bool,
        incoming: bool,
    ) -> Result<Machine> {
        let mut disks: Vec<(&str, &Path)> = Vec::new();
        disks.extend(
            self.disks
                .iter()
                .map(|(name, image)| (*name, image.as_path())),
        );
        disks.push(("payload", payload));
        Machine::start(&Hardware {
            kernel: &self.kernel,
            initramfs: &self.initramfs,
            disks: &disks,
            memory,
            memory_shared: shared,
            incoming,
        })
    }
}

/// A path as one word for the shell that QEMU starts for a state file.
fn quoted(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .ok_or_else(|| anyhow!("path is not text: {}", path.display()))?;
    Ok(super::session::word(text))
}
