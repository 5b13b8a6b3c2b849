//! Clients of libvirt's protocol as administrators have them: virsh, virt-install, Python's bindings, with
//! all they need, out of the distribution's packages. They are unpacked, not installed. The outer guest has
//! them with its assets, and [`crate::clients::Clients`] runs them there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cache::{Cache, Key};
use super::packages::{self, run};

/// What is unpacked, with all that these depend on.
const PACKAGES: &[&str] = &[
    "libvirt-clients",
    "libxml2-utils",
    "python3",
    "python3-libvirt",
    "virtinst",
];
/// Beginnings of the names of packages that those depend on for their scripts, for services that do not
/// run here, or for what no test does.
const LEFT_OUT: &[&str] = &[
    "adduser",
    "ca-certificates",
    "dbus",
    "dconf",
    "debconf",
    "dmsetup",
    "dpkg",
    "e2fsprogs",
    "glib-networking",
    "gsettings-desktop-schemas",
    "init-system-helpers",
    "libburn",
    "libcryptsetup",
    "libdconf",
    "libdevmapper",
    "libfile-find",
    "libisob",
    "libisof",
    "libjte",
    "libnumber-compare",
    "libosinfo-l10n",
    "libpam",
    "libperl",
    "libsystemd-shared",
    "libtext-glob",
    "logsave",
    "media-types",
    "mount",
    "openssl",
    "passwd",
    "pci.ids",
    "perl",
    "procps",
    "readline-common",
    "sensible-utils",
    "systemd",
    "tar",
    "usb.ids",
    "usrmerge",
    "xorriso",
];
/// Directories at the top that are links into `usr`.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
/// What nobody reads here, beneath `usr`.
const UNREAD: &[&str] = &[
    "lib/valgrind",
    "lib/x86_64-linux-gnu/gconv",
    "share/doc",
    "share/info",
    "share/lintian",
    "share/locale",
    "share/man",
];
/// The systems that virt-install is to know, with those that these name: to read of all takes it long there.
const SYSTEMS: &[&str] = &["debian.org", "libosinfo.org", "ubuntu.com"];
/// Raise it when what this file makes changes without any list changing.
const FORMAT: u32 = 1;

/// A directory with `usr` and `etc`, and the links at the top of a system.
#[derive(Debug)]
pub struct Programs {
    /// Where it is.
    pub directory: PathBuf,
    /// Changes when it does.
    pub key: String,
}

impl Programs {
    /// Unpacks what the cache does not have yet.
    pub fn prepare(cache: &Cache, busybox: &Path) -> Result<Programs> {
        let key = Key::default()
            .with((FORMAT, PACKAGES, LEFT_OUT, UNREAD, SYSTEMS))
            .digits();
        let entry = cache.entry(&format!("clients-{key}"), |directory| {
            let root = directory.join("root");
            unpack(directory, &root)?;
            configure(&root, busybox)?;
            compile(&root).context("Python's modules")
        })?;
        let key = Key::default()
            .with(key)
            .with_file(&entry.join("root/etc/passwd"))?
            .digits();
        Ok(Programs {
            directory: entry.join("root"),
            key,
        })
    }
}

fn unpack(directory: &Path, root: &Path) -> Result<()> {
    packages::merge_top(root, &MERGED)?;
    let wanted: Vec<String> = packages::closure(PACKAGES)?
        .into_iter()
        .filter(|name| !LEFT_OUT.iter().any(|start| name.starts_with(start)))
        .collect();
    let download = directory.join("download");
    for file in packages::download(&wanted, &download)? {
        packages::unpack_merged(&file, root)?;
    }
    fs::remove_dir_all(&download)?;
    for name in UNREAD {
        let place = root.join("usr").join(name);
        if place.exists() {
            fs::remove_dir_all(place)?;
        }
    }
    for entry in fs::read_dir(root.join("usr/share/osinfo/os"))? {
        let entry = entry?;
        let name = entry.file_name();
        if !SYSTEMS.iter().any(|known| name == *known) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// What the packages' scripts would do, as far as it matters; and a shell, for an editor.
fn configure(root: &Path, busybox: &Path) -> Result<()> {
    let etc = root.join("etc");
    fs::create_dir_all(&etc)?;
    fs::write(etc.join("passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(etc.join("group"), "root:x:0:\n")?;
    fs::write(etc.join("nsswitch.conf"), "passwd: files\ngroup: files\n")?;
    // Where what its other directories are is put together.
    fs::create_dir(root.join("mnt"))?;
    // Lists of names of devices, without which virt-install does not start.
    let names = root.join("usr/share/misc");
    fs::create_dir_all(&names)?;
    for list in ["pci.ids", "usb.ids"] {
        fs::write(names.join(list), "")?;
    }
    let bin = root.join("usr/bin");
    fs::copy(busybox, bin.join("busybox"))?;
    for name in ["cat", "sed", "sh"] {
        if !bin.join(name).exists() {
            symlink("busybox", bin.join(name))?;
        }
    }
    Ok(())
}

/// Compiles what is written in Python, which would otherwise be done at each start, with the very Python
/// that is to run it.
fn compile(root: &Path) -> Result<()> {
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    run(Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"))
        .arg("--library-path")
        .arg(libraries)
        .arg(root.join("usr/bin/python3"))
        .args(["-m", "compileall", "-q", "-j", "0"])
        // A copy has another time, which is no change.
        .args(["--invalidation-mode", "unchecked-hash"])
        .args(["-x", "/(test|idlelib|lib2to3)/", "-p", "/", "-s"])
        .arg(root)
        .args(["usr/lib", "usr/share/virt-manager"].map(|name| root.join(name)))
        .env("PYTHONHOME", root.join("usr"))
        .env_remove("PYTHONPATH"))?;
    Ok(())
}
