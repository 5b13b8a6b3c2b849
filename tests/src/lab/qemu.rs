//! The outer machine as a process: its command line, its channels, its end.
//!
//! Channels are socket pairs made here and inherited, so there is no path to be too long or left
//! behind: the monitor, `control` (lines, see `outer-init.sh`) and `output` (bytes of the test).
//! The kernel's console goes to a file that has no name either. A machine dies with the thread that
//! started it, and on drop.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};

use super::cache::Key;
use super::qmp::Monitor;
use crate::process::{Leashed, Session};

/// Emulated memory. An inner guest with 1 GiB fits, and a worker beside it.
const MEMORY: &str = "3000M";
/// Measured: 1 s faster than without (facts of the kernel under emulation, not needed to boot).
const KERNEL_COMMAND_LINE: &str = "console=ttyS0 panic=-1 reboot=t quiet mitigations=off nokaslr \
    tsc=reliable no_timer_check rcupdate.rcu_expedited=1 random.trust_cpu=on cryptomgr.notests";
/// The emulator, by its name on the search path.
pub(super) const PROGRAM: &str = "qemu-system-x86_64";

/// What a machine is made of.
#[derive(Debug)]
pub struct Hardware<'a> {
    /// ELF kernel.
    pub kernel: &'a Path,
    /// Its initramfs.
    pub initramfs: &'a Path,
    /// Disk images, each with the name by which the guest finds it.
    pub disks: &'a [(&'a str, &'a Path)],
    /// The file that is the guest's memory.
    pub memory: &'a Path,
    /// Whether what the guest writes goes into that file, or into a private copy of each page.
    pub memory_shared: bool,
    /// Whether it waits for a saved state instead of booting.
    pub incoming: bool,
}

/// A running QEMU.
#[derive(Debug)]
pub struct Machine {
    process: Leashed,
    /// Its monitor.
    pub monitor: Monitor,
    /// Lines to and from the guest's init.
    pub control: UnixStream,
    /// What the guest's command prints.
    pub output: UnixStream,
    console: File,
}

impl Machine {
    /// Starts QEMU and waits for its monitor.
    pub fn start(hardware: &Hardware<'_>) -> Result<Machine> {
        let (monitor, monitor_end) = UnixStream::pair()?;
        let (control, control_end) = UnixStream::pair()?;
        let (output, output_end) = UnixStream::pair()?;
        let console = tempfile::tempfile()?;

        let mut command = Command::new(PROGRAM);
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", MEMORY])
            .args([
                "-machine",
                "q35,memory-backend=ram,smm=off,hpet=off,vmport=off",
            ])
            .arg("-object")
            .arg(memory_object(hardware)?)
            .arg("-kernel")
            .arg(hardware.kernel)
            .arg("-initrd")
            .arg(hardware.initramfs)
            .args(["-append", KERNEL_COMMAND_LINE])
            .args([
                "-chardev",
                "stdio,id=console,signal=off",
                "-serial",
                "chardev:console",
            ])
            .arg("-chardev")
            .arg(format!("socket,id=monitor,fd={}", monitor_end.as_raw_fd()))
            .args(["-mon", "chardev=monitor,mode=control"])
            .args(["-device", "virtio-serial-pci,max_ports=4"]);
        for (name, end) in [("control", &control_end), ("output", &output_end)] {
            command
                .arg("-chardev")
                .arg(format!("socket,id={name},fd={}", end.as_raw_fd()))
                .arg("-device")
                .arg(format!("virtserialport,chardev={name},name={name}"));
        }
        for (name, image) in hardware.disks {
            command
                .arg("-drive")
                .arg(format!(
                    "if=none,id={name},format=raw,readonly=on,file={}",
                    escaped(image)?
                ))
                .arg("-device")
                .arg(format!("virtio-blk-pci,drive={name},serial={name}"));
        }
        if hardware.incoming {
            command.args(["-incoming", "defer"]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::from(console.try_clone()?))
            .stderr(Stdio::from(console.try_clone()?));
        let inherited = [
            monitor_end.as_raw_fd(),
            control_end.as_raw_fd(),
            output_end.as_raw_fd(),
        ];
        let process =
            Leashed::spawn(&mut command, Session::Group, &inherited).with_context(|| {
                format!("lab: {PROGRAM} does not start; run `sh tests/lab/install`")
            })?;
        drop((monitor_end, control_end, output_end));

        match Monitor::greet(monitor) {
            Ok(monitor) => Ok(Machine {
                process,
                monitor,
                control,
                output,
                console,
            }),
            Err(error) => Err(error.context(format!("QEMU: {}", tail(&console)))),
        }
    }

    /// The last lines of the guest's kernel console, and of QEMU's own messages.
    pub fn console_tail(&self) -> String {
        tail(&self.console)
    }

    /// Process id of QEMU.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Which QEMU a state was saved by: the program's path, size and date. Starting it to ask for its
/// version would cost 25 ms a test.
pub fn fingerprint() -> Result<Key> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program: PathBuf = std::env::split_paths(&path)
        .map(|directory| directory.join(PROGRAM))
        .find(|file| file.exists())
        .ok_or_else(|| anyhow!("lab: {PROGRAM} is missing; run `sh tests/lab/install`"))?;
    Key::default()
        .with((MEMORY, KERNEL_COMMAND_LINE))
        .with_file(&program)
}

/// The size in bytes of the file that is the guest's memory.
pub const MEMORY_BYTES: u64 = 3000 << 20;

fn memory_object(hardware: &Hardware<'_>) -> Result<String> {
    Ok(format!(
        "memory-backend-file,id=ram,size={MEMORY},share={},mem-path={}",
        if hardware.memory_shared { "on" } else { "off" },
        escaped(hardware.memory)?
    ))
}

/// QEMU splits options at commas.
fn escaped(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .ok_or_else(|| anyhow!("path is not text: {}", path.display()))?;
    Ok(text.replace(',', ",,"))
}

/// Reads by position: QEMU writes through the same file offset.
fn tail(console: &File) -> String {
    let size = console
        .metadata()
        .map(|metadata| metadata.len())
        .unwrap_or_default();
    let start = size.saturating_sub(16 << 10);
    let mut bytes = vec![0; usize::try_from(size - start).unwrap_or_default()];
    if console.read_exact_at(&mut bytes, start).is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes).replace('\r', "");
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
