//! QEMU's microvm machine, stripped as far as it goes (QEMU manual, "'microvm' virtual platform"):
//! no option ROM, PIT, PIC or RTC, no default device, the ISA serial port on standard output, the
//! guest loaded by PVH through qboot.
//!
//! Without `-sandbox` and without libvirt: QEMU at its quickest, not as it is deployed. The guest
//! ends by the keyboard controller's reset, or by a triple fault; `-no-reboot` makes QEMU exit then.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::process::{Ending, Process, run_many};
use super::{Contender, Guest, Running};

/// Its executable, as Debian names it.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// QEMU.
#[derive(Debug)]
pub struct Qemu {
    program: PathBuf,
    kernel: PathBuf,
}

impl Qemu {
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
            .args([
                "-M",
                "microvm,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=on",
            ])
            // Some KVMs refuse IA32_ARCH_CAPABILITIES, which QEMU takes for fatal.
            .args(["-accel", "kvm", "-cpu", "host,-arch-capabilities"])
            .args(["-m", "128", "-smp", "1"])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(&self.kernel)
            .args(["-append", guest.command_line_anywhere()]);
        Process::start(command, Ending::Success, ()).context("QEMU")
    }
}

impl Contender for Qemu {
    fn name(&self) -> &'static str {
        "qemu-microvm"
    }

    fn start(&mut self, guest: Guest) -> anyhow::Result<Box<dyn Running>> {
        Ok(Box::new(Self::start(self, guest)?))
    }

    fn run_many(&mut self, count: usize, at_once: usize) -> anyhow::Result<Duration> {
        run_many(count, at_once, || Self::start(self, Guest::Bench))
    }
}
