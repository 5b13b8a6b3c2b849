//! Firecracker inside its jailer, as its documentation deploys it (docs/jailer.md, docs/getting-
//! started.md of that project): a chroot and a uid of its own, its default seccomp filters, the
//! machine from a configuration file, no API socket, the serial port on standard output.
//!
//! Each machine has a jail directory, whose making and filling is not timed; what the jailer itself
//! does (it copies the executable into the jail, makes the device nodes) is. The jailer needs root.
//! The guest ends by the keyboard controller's reset, after which Firecracker exits. It is loaded by
//! PVH, which Firecracker has since 1.12.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::process::{Ending, Process, run_many};
use super::{Contender, Guest, Running};
use crate::GUEST_MEMORY_BYTES;

/// Its executable.
pub const PROGRAM: &str = "firecracker";
/// Its jailer.
pub const JAILER: &str = "jailer";
/// Whom the jailer runs it as: `nobody`.
const UID: u32 = 65_534;

/// Firecracker with its jailer.
#[derive(Debug)]
pub struct Firecracker {
    program: PathBuf,
    jailer: PathBuf,
    jails: PathBuf,
    next: AtomicU64,
}

/// One machine's jail directory, removed with it.
#[derive(Debug)]
struct Jail(PathBuf);

impl Drop for Jail {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Firecracker {
    /// With jails under `directory`.
    #[must_use]
    pub fn new(program: PathBuf, jailer: PathBuf, directory: &Path) -> Self {
        Self {
            program,
            jailer,
            jails: directory.to_owned(),
            next: AtomicU64::new(0),
        }
    }

    /// A jail that holds image and configuration, where the jailer expects it:
    /// `<base>/<executable's name>/<id>/root`.
    fn jail(&self, id: &str, guest: Guest) -> anyhow::Result<Jail> {
        let jail = Jail(self.jails.join(PROGRAM).join(id));
        let root = jail.0.join("root");
        fs::create_dir_all(&root)?;
        let configuration = json!({
            "boot-source": {
                "kernel_image_path": "guest.elf",
                "boot_args": guest.command_line_anywhere(),
            },
            "drives": [],
            "machine-config": {
                "vcpu_count": 1,
                "mem_size_mib": GUEST_MEMORY_BYTES >> 20,
            },
        });
        let files = [
            ("guest.elf", reeve_guest::IMAGE.to_vec()),
            ("machine.json", serde_json::to_vec(&configuration)?),
        ];
        for (name, content) in files {
            let path = root.join(name);
            fs::write(&path, content)?;
            fs::set_permissions(&path, Permissions::from_mode(0o400))?;
            chown(&path, Some(UID), Some(UID)).context("the jailer needs root")?;
        }
        Ok(jail)
    }

    fn start(&self, guest: Guest) -> anyhow::Result<Process<Jail>> {
        let id = format!("bench-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let jail = self.jail(&id, guest).context("Firecracker's jail")?;
        let uid = UID.to_string();
        let mut command = Command::new(&self.jailer);
        command
            .args(["--id", &id, "--uid", &uid, "--gid", &uid])
            .arg("--exec-file")
            .arg(&self.program)
            .arg("--chroot-base-dir")
            .arg(&self.jails)
            .args(["--", "--no-api", "--config-file", "machine.json"]);
        Process::start(command, Ending::Success, jail).context("Firecracker")
    }
}

impl Contender for Firecracker {
    fn name(&self) -> &'static str {
        "firecracker"
    }

    fn start(&mut self, guest: Guest) -> anyhow::Result<Box<dyn Running>> {
        Ok(Box::new(Self::start(self, guest)?))
    }

    fn run_many(&mut self, count: usize, at_once: usize) -> anyhow::Result<Duration> {
        run_many(count, at_once, || Self::start(self, Guest::Bench))
    }
}
