//! Cloud Hypervisor, with its seccomp filters on (its default) and its serial port on standard
//! output (docs/device_model.md of that project). It loads the guest by PVH.
//!
//! The guest ends by the ACPI sleep register at port 600h, after which it exits.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::process::{Ending, Process, run_many};
use super::{Contender, Guest, Running};

/// Its executable.
pub const PROGRAM: &str = "cloud-hypervisor";

/// Cloud Hypervisor.
#[derive(Debug)]
pub struct CloudHypervisor {
    program: PathBuf,
    kernel: PathBuf,
}

impl CloudHypervisor {
    /// With the guest's image at `kernel`.
    #[must_use]
    pub fn new(program: PathBuf, kernel: &Path) -> Self {
        Self {
            program,
            kernel: kernel.to_owned(),
        }
    }

    fn start(&self, guest: Guest) -> anyhow::Result<Process<()>> {
        let mut command = Command::new(&self.program);
        command
            .arg("--kernel")
            .arg(&self.kernel)
            .args(["--cmdline", guest.command_line_anywhere()])
            .args(["--cpus", "boot=1", "--memory", "size=128M"])
            .args(["--serial", "tty", "--console", "off"]);
        Process::start(command, Ending::Success, ()).context("Cloud Hypervisor")
    }
}

impl Contender for CloudHypervisor {
    fn name(&self) -> &'static str {
        "cloud-hypervisor"
    }

    fn start(&mut self, guest: Guest) -> anyhow::Result<Box<dyn Running>> {
        Ok(Box::new(Self::start(self, guest)?))
    }

    fn run_many(&mut self, count: usize, at_once: usize) -> anyhow::Result<Duration> {
        run_many(count, at_once, || Self::start(self, Guest::Bench))
    }
}
