//! The initramfs archives and the directory of guest assets, made from the distribution's packages
//! and the init scripts in `tests/lab/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, anyhow, ensure};

use super::cache::{Cache, Key};
use super::clients::Programs;
use super::cpio::Archive;
use super::debian::{Debian, UDHCPC};
use super::kernel;
use super::modules::{self, Module};
use super::packages::{self, Package, run};
use super::tools::Tools;

const OUTER_INIT: &str = include_str!("../../lab/outer-init.sh");
const DEBIAN_INIT: &str = include_str!("../../lab/debian-init.sh");
const INNER_INIT: &str = include_str!("../../lab/inner-init.sh");
/// Sourced by the init of every outer guest.
const SESSION: &str = include_str!("../../lab/session.sh");

/// What the outer guest loads before it is saved: its own devices, then KVM and what `reeve` meets
/// on any host.
const OUTER_MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "ccp",
    "kvm-amd",
    "tun",
];
/// What the outer guest with Debian loads besides: it puts memory over its image.
const DEBIAN_MODULES: &[&str] = &["overlay"];
/// What the inner guest loads: its power button and what reports it.
const INNER_MODULES: &[&str] = &["button", "evdev"];
/// What it loads of when the kernel's command line names it: a driver for every virtio device, one for their other bus, and
/// those of the panic port and the watchdog, as far as the kernel has them.
const DRIVERS: &[&str] = &[
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "virtio_balloon",
    "virtio_mem",
    "vmw_vsock_virtio_transport",
    "virtiofs",
    "pvpanic_mmio",
    "i6300esb",
];
/// What each of them needs though it uses nothing of it.
const TRANSPORT: &str = "virtio_pci";
/// Raise it when what this file makes changes without any script changing.
const FORMAT: u32 = 3;

/// Everything the lab boots.
#[derive(Debug)]
pub struct Guests {
    /// Boots the outer guest; ends in its init.
    pub outer_initramfs: PathBuf,
    /// Boots the outer guest with Debian, whose image it mounts.
    pub debian_initramfs: PathBuf,
    /// That image.
    pub debian: Debian,
    /// The directory that [`super::assets::Assets`] describes.
    pub assets: PathBuf,
    /// Changes when any of it does.
    pub key: String,
}

impl Guests {
    /// Makes what the cache does not have yet.
    pub fn prepare(cache: &Cache) -> Result<Guests> {
        let kernel = packages::unpacked_kernel(cache)?;
        let full = packages::unpacked_full_kernel(cache)?;
        let busybox = packages::unpacked(cache, "busybox-static")?;
        let debian = Debian::prepare(cache)?;
        let tools = Tools::prepare(cache)?;
        let clients = Programs::prepare(cache, &find_busybox(&busybox)?)?;
        let key = Key::default()
            .with((FORMAT, &kernel.version, &full.version, &busybox.version))
            .with((&debian.key, &tools.key, &clients.key))
            .with((OUTER_INIT, DEBIAN_INIT, SESSION, INNER_INIT, UDHCPC))
            .with((OUTER_MODULES, DEBIAN_MODULES, INNER_MODULES))
            .with((DRIVERS, TRANSPORT))
            .digits();
        let directory = cache.entry(&format!("guests-{key}"), |directory| {
            make(directory, &kernel, &find_busybox(&busybox)?)?;
            make_full(&directory.join("assets"), &full, &find_busybox(&busybox)?)?;
            let assets = directory.join("assets");
            std::fs::hard_link(&debian.image, assets.join("disk"))?;
            for (from, to) in [(&tools.directory, "tools"), (&clients.directory, "clients")] {
                run(Command::new("cp").arg("-rl").arg(from).arg(assets.join(to)))?;
            }
            std::fs::copy(find_busybox(&busybox)?, assets.join("tools/bin/busybox"))?;
            Ok(())
        })?;
        Ok(Guests {
            outer_initramfs: directory.join("outer-initramfs"),
            debian_initramfs: directory.join("debian-initramfs"),
            debian,
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
    std::fs::write(
        directory.join("debian-initramfs"),
        debian(busybox, &module_tree)?,
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

/// The kernel for machines of any kind, and the inner guest's initramfs for it.
fn make_full(assets: &Path, kernel: &Package, busybox: &Path) -> Result<()> {
    let (module_tree, release) = modules::directory(&kernel.root)?;
    let bzimage = std::fs::read(kernel.root.join(format!("boot/vmlinuz-{release}")))?;
    std::fs::write(assets.join("full-vmlinux"), kernel::vmlinux(&bzimage)?)?;
    std::fs::write(assets.join("full-initramfs"), inner(busybox, &module_tree)?)?;
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
    let mut archive = base(busybox, OUTER_INIT)?;
    load(&mut archive, module_tree, OUTER_MODULES)?;
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

fn debian(busybox: &Path, module_tree: &Path) -> Result<Vec<u8>> {
    let mut archive = base(busybox, DEBIAN_INIT)?;
    load(
        &mut archive,
        module_tree,
        &[OUTER_MODULES, DEBIAN_MODULES].concat(),
    )?;
    archive.file("lab/session.sh", 0o644, SESSION.as_bytes())?;
    archive.finish()
}

fn inner(busybox: &Path, module_tree: &Path) -> Result<Vec<u8>> {
    let mut archive = base(busybox, INNER_INIT)?;
    load(&mut archive, module_tree, INNER_MODULES)?;
    drivers(&mut archive, module_tree)?;
    archive
        .directory("etc/udhcpc")?
        .file("etc/udhcpc/default.script", 0o755, UDHCPC.as_bytes())?
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

/// Busybox under all its names, and the init script.
fn base(busybox: &Path, init: &str) -> Result<Archive> {
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
    Ok(archive)
}

/// Adds modules with all they need, which the init loads in the order of `lab/modules.order`.
fn load(archive: &mut Archive, module_tree: &Path, wanted: &[&str]) -> Result<()> {
    let modules = modules::collect(module_tree, wanted)?;
    add(archive, &modules)?;
    archive.file("lab/modules.order", 0o644, order(&modules).as_bytes())?;
    Ok(())
}

/// Adds the drivers with all they need, and for each a list `lab/drivers/NAME`, in the order of
/// loading.
fn drivers(archive: &mut Archive, module_tree: &Path) -> Result<()> {
    add(
        archive,
        &modules::collect(module_tree, &[&[TRANSPORT], DRIVERS].concat())?,
    )?;
    archive.directory("lab/drivers")?;
    for name in DRIVERS {
        let needed = modules::collect(module_tree, &[TRANSPORT, name])?;
        archive.file(
            &format!("lab/drivers/{name}"),
            0o644,
            order(&needed).as_bytes(),
        )?;
    }
    Ok(())
}

fn add(archive: &mut Archive, modules: &[Module]) -> Result<()> {
    for module in modules {
        archive.file(
            &format!("lab/modules/{}", module.file),
            0o644,
            &module.contents,
        )?;
    }
    Ok(())
}

fn order(modules: &[Module]) -> String {
    modules
        .iter()
        .map(|module| format!("{}\n", module.file))
        .collect()
}
