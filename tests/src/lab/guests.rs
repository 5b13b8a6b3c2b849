//! The two initramfs archives and the directory of guest assets, made from the distribution's packages and
//! the init scripts in `tests/lab/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, anyhow, ensure};

use super::cache::{Cache, Key};
use super::cpio::Archive;
use super::packages::{self, Package, run};
use super::{kernel, modules};

const OUTER_INIT: &str = include_str!("../../lab/outer-init.sh");
const INNER_INIT: &str = include_str!("../../lab/inner-init.sh");
/// Sourced by the init of every outer guest.
pub(super) const SESSION: &str = include_str!("../../lab/session.sh");

/// What the outer guest loads before it is saved: its own devices, then KVM and what `reeve` meets
/// on any host.
pub(super) const OUTER_MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "ccp",
    "kvm-amd",
    "tun",
];
/// What the inner guest loads: its power button and what reports it.
const INNER_MODULES: &[&str] = &["button", "evdev"];
/// Raise it when what this file makes changes without any script changing.
const FORMAT: u32 = 1;

/// Everything the lab boots.
#[derive(Debug)]
pub struct Guests {
    /// Boots the outer guest; ends in its init.
    pub outer_initramfs: PathBuf,
    /// The directory that [`super::assets::Assets`] describes.
    pub assets: PathBuf,
    /// Changes when any of it does.
    pub key: String,
}

impl Guests {
    /// Makes what the cache does not have yet.
    pub fn prepare(cache: &Cache) -> Result<Guests> {
        let kernel = packages::unpacked_kernel(cache)?;
        let busybox = packages::unpacked(cache, "busybox-static")?;
        let key = Key::default()
            .with((FORMAT, &kernel.version, &busybox.version))
            .with((OUTER_INIT, SESSION, INNER_INIT))
            .with((OUTER_MODULES, INNER_MODULES))
            .digits();
        let directory = cache.entry(&format!("guests-{key}"), |directory| {
            make(directory, &kernel, &find_busybox(&busybox)?)
        })?;
        Ok(Guests {
            outer_initramfs: directory.join("outer-initramfs"),
            assets: directory.join("assets"),
            key,
        })
    }
}

fn make(directory: &Path, kernel: &Package, busybox: &Path) -> Result<()> {
    let (module_tree, release) = modules::directory(&kernel.root)?;
    let assets = directory.join("assets");
    std::fs::create_dir(&assets)?;

    let bzimage = std::fs::read(kernel.root.join(format!("boot/vmlinuz-{release}")))?;
    let elf = kernel::vmlinux(&bzimage)?;
    ensure!(
        kernel::has_pvh_note(&elf),
        "{release} has no PVH entry point"
    );
    std::fs::write(assets.join("bzimage"), bzimage)?;
    std::fs::write(assets.join("vmlinux"), elf)?;
    std::fs::write(assets.join("initramfs"), inner(busybox, &module_tree)?)?;
    std::fs::write(
        directory.join("outer-initramfs"),
        outer(busybox, &module_tree)?,
    )?;

    // The outer guest's /lib/modules, for tests that need more of them.
    let copy = assets.join("modules");
    std::fs::create_dir(&copy)?;
    run(Command::new("cp").arg("-r").arg(&module_tree).arg(&copy))?;
    std::os::unix::fs::symlink(".", assets.join("lib"))?;
    run(Command::new(busybox)
        .args(["depmod", "-b"])
        .arg(&assets)
        .arg(&release))?;
    Ok(())
}

pub(super) fn find_busybox(package: &Package) -> Result<PathBuf> {
    ["bin/busybox", "usr/bin/busybox"]
        .iter()
        .map(|path| package.root.join(path))
        .find(|path| path.exists())
        .ok_or_else(|| anyhow!("busybox-static has no busybox"))
}

fn outer(busybox: &Path, module_tree: &Path) -> Result<Vec<u8>> {
    let mut archive = base(busybox, module_tree, OUTER_INIT, OUTER_MODULES)?;
    archive
        .file("lab/session.sh", 0o644, SESSION.as_bytes())?
        .file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        )?
        .file("etc/group", 0o644, b"root:x:0:\ntty:x:5:\nkvm:x:104:user\nuser:x:1000:\nnogroup:x:65534:\n")?
        .file("etc/hosts", 0o644, b"127.0.0.1 localhost lab\n")?;
    archive.finish()
}

fn inner(busybox: &Path, module_tree: &Path) -> Result<Vec<u8>> {
    let mut archive = base(busybox, module_tree, INNER_INIT, INNER_MODULES)?;
    archive
        .directory("etc/acpi")?
        .directory("etc/acpi/PWRF")?
        .file(
            "etc/acpi/PWRF/00000080",
            0o755,
            b"#!/bin/sh\necho REEVE-GUEST-POWER-BUTTON >/dev/console\npoweroff -f\n",
        )?
        .file(
            "bin/now",
            0o755,
            b"#!/bin/sh\n# The wall clock as seconds.microseconds, which busybox's date cannot print.\nadjtimex | awk '/tv_sec/ { s = $2 } /tv_usec/ { u = $2 } END { printf \"%d.%06d\\n\", s, u }'\n",
        )?;
    archive.finish()
}

/// Busybox under all its names, the init script, and modules listed in the order of loading.
pub(super) fn base(
    busybox: &Path,
    module_tree: &Path,
    init: &str,
    wanted: &[&str],
) -> Result<Archive> {
    let mut archive = Archive::default();
    for directory in ["bin", "sbin", "dev", "etc", "lab", "lab/modules", "root"] {
        archive.directory(directory)?;
    }
    // The kernel opens the first console before any file system is mounted.
    archive
        .device("dev/console", 5, 1)?
        .copy("bin/busybox", busybox)?;
    archive.file("init", 0o755, init.as_bytes())?;
    let names = run(Command::new(busybox).arg("--list"))?.stdout;
    for name in String::from_utf8_lossy(&names)
        .lines()
        .filter(|&name| name != "busybox")
    {
        archive.link(&format!("bin/{name}"), "busybox")?;
    }
    let modules = modules::collect(module_tree, wanted)?;
    let mut order = String::new();
    for module in &modules {
        archive.file(
            &format!("lab/modules/{}", module.file),
            0o644,
            &module.contents,
        )?;
        order.push_str(&module.file);
        order.push('\n');
    }
    archive.file("lab/modules.order", 0o644, order.as_bytes())?;
    Ok(archive)
}
