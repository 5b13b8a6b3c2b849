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

/// What moves a disk's bytes (`aio=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aio {
    /// io_uring.
    IoUring,
    /// A pool of threads, which is QEMU's own choice.
    Threads,
}

/// QEMU with one way to do I/O.
#[derive(Debug)]
pub struct Qemu {
    program: PathBuf,
    kernel: PathBuf,
    aio: Aio,
}

impl Qemu {
    /// QEMU, if it is installed, for a guest whose image is at `kernel`.
    #[must_use]
    pub fn find(kernel: &Path, aio: Aio) -> Option<Self> {
        Some(Self {
            program: find_program(qemu::PROGRAM)?,
            kernel: kernel.to_owned(),
            aio,
        })
    }

    fn disk(&self, path: &Path) -> anyhow::Result<[String; 6]> {
        let path = path.to_str().context("a path that is no text")?;
        let aio = match self.aio {
            Aio::IoUring => "io_uring",
            Aio::Threads => "threads",
        };
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
        match self.aio {
            Aio::IoUring => "qemu-io_uring",
            Aio::Threads => "qemu-threads",
        }
    }

    fn way(&self, device: Device<'_>) -> &'static str {
        match (device, self.aio) {
            (Device::Tap(_), _) => "virtio-net-pci, tap, vhost=off",
            (Device::Disk(_), Aio::IoUring) => {
                "virtio-blk-pci, iothread, aio=io_uring, cache.direct=off"
            }
            (Device::Disk(_), Aio::Threads) => {
                "virtio-blk-pci, iothread, aio=threads, cache.direct=off"
            }
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
