//! QEMU's microvm machine with a PCI bus and one device, stripped as [`crate::contender`] has it, and with
//! what its documentation names as quick for that device: an I/O thread of its own for a disk.
//!
//! Its guest has no way to end it, and is killed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::{Device, Monitor};
use crate::contender::process::{Ending, Process};
use crate::contender::{Running, find_program, qemu};

/// What moves the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A disk's: io_uring (`aio=io_uring`).
    IoUring,
    /// A disk's: a pool of threads (`aio=threads`), which is what QEMU takes where nothing is said.
    Threads,
    /// A network interface's: QEMU's main loop, as Reeve's is a thread of its worker. vhost would leave
    /// the work to the kernel, for both.
    Tap,
}

impl Engine {
    const fn aio(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Threads | Self::Tap => "threads",
        }
    }
}

/// QEMU with one way to do I/O.
#[derive(Debug)]
pub struct Qemu {
    program: PathBuf,
    kernel: PathBuf,
    engine: Engine,
}

impl Qemu {
    /// QEMU, if it is installed, for a guest whose image is at `kernel`.
    #[must_use]
    pub fn find(kernel: &Path, engine: Engine) -> Option<Self> {
        Some(Self {
            program: find_program(qemu::PROGRAM)?,
            kernel: kernel.to_owned(),
            engine,
        })
    }

    fn disk(&self, path: &Path) -> anyhow::Result<[String; 6]> {
        let path = path.to_str().context("a path that is no text")?;
        let aio = self.engine.aio();
        Ok([
            "-object".to_owned(),
            "iothread,id=thread0".to_owned(),
            "-blockdev".to_owned(),
            format!("driver=file,node-name=disk0,filename={path},aio={aio},cache.direct=off"),
            "-device".to_owned(),
            "virtio-blk-pci,drive=disk0,iothread=thread0,disable-legacy=on".to_owned(),
        ])
    }
}

impl Monitor for Qemu {
    fn name(&self) -> &'static str {
        match self.engine {
            Engine::IoUring => "qemu-io_uring",
            Engine::Threads => "qemu-threads",
            Engine::Tap => "qemu-tap",
        }
    }

    fn way(&self) -> String {
        match self.engine {
            Engine::Tap => "virtio-net-pci on a microvm, tap, vhost=off".to_owned(),
            engine => format!(
                "virtio-blk-pci on a microvm, iothread, aio={}, cache.direct=off",
                engine.aio()
            ),
        }
    }

    fn start(
        &mut self,
        command_line: &str,
        device: Device<'_>,
    ) -> anyhow::Result<Box<dyn Running>> {
        let mut command = Command::new(&self.program);
        command
            .args([
                "-M",
                "microvm,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=on,pcie=on,acpi=on",
            ])
            // Some KVMs refuse IA32_ARCH_CAPABILITIES, which QEMU takes for fatal.
            .args(["-accel", "kvm", "-cpu", "host,-arch-capabilities"])
            // For the names of its threads.
            .args(["-name", "bench,debug-threads=on"])
            .args(["-m", "128", "-smp", "1"])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(&self.kernel)
            .args(["-append", command_line]);
        match device {
            Device::Disk(path) => command.args(self.disk(path)?),
            Device::Tap(name) => command.args([
                "-netdev".to_owned(),
                format!("tap,id=net0,ifname={name},script=no,downscript=no,vhost=off"),
                "-device".to_owned(),
                "virtio-net-pci,netdev=net0,disable-legacy=on,romfile=".to_owned(),
            ]),
        };
        let process = Process::start(command, Ending::AnyCode, ()).context("QEMU")?;
        Ok(Box::new(process))
    }
}
