//! A Debian system small enough to boot under emulation: systemd, dpkg, a shell, tools for disks and
//! networks, and what they need, out of the distribution's packages. They are unpacked, not installed:
//! no script of theirs runs, and what those would do is done here where it matters, dpkg's own records
//! of them included. One image serves twice: outer guests with [`super::outer::System::Debian`] mount
//! it below their memory, inner guests boot from copies of it ([`super::assets::Assets::disk`]).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cache::{Cache, Key};
use super::guests;
use super::image;
use super::packages::{self, run};

mod system;

pub(super) use system::UDHCPC;

/// What the system is made of, with all that these depend on.
const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "init-system-helpers",
    "dpkg",
    "usr-is-merged",
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "e2fsprogs",
    "findutils",
    "fio",
    "grep",
    "gzip",
    "iproute2",
    "libc-bin",
    "login",
    "mawk",
    "mount",
    "passwd",
    "perl-base",
    "qemu-guest-agent",
    "sed",
    "socat",
    "tar",
    "util-linux",
];
/// Beginnings of the names of packages that those depend on for scripts that nobody here runs: a
/// fifth of what would be downloaded.
const LEFT_OUT: &[&str] = &["python3", "libpython3", "libsqlite3", "media-types"];
/// Directories at the top that are links into `usr`.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
/// What is of no use to a machine that nobody reads on: a fourth of all files.
const DOCUMENTATION: &[&str] = &["doc", "info", "lintian", "locale", "man"];
/// The size of the disk, most of which is free.
const DISK_MEBIBYTES: u64 = 1024;

/// The system on a disk.
#[derive(Debug)]
pub struct Debian {
    /// An ext4 file system without a partition table, with a journal and checksums.
    pub image: PathBuf,
    /// Changes when it does.
    pub key: String,
}

impl Debian {
    /// Makes the image if the cache does not have it yet.
    pub fn prepare(cache: &Cache) -> Result<Debian> {
        let busybox = packages::unpacked(cache, "busybox-static")?;
        let key = Key::default()
            .with(&busybox.version)
            .with((include_str!("debian.rs"), system::SOURCES))
            .digits();
        let directory = cache.entry(&format!("debian-{key}"), |directory| {
            let root = directory.join("root");
            unpack(directory, &root)?;
            for name in DOCUMENTATION {
                fs::remove_dir_all(root.join("usr/share").join(name))?;
            }
            system::configure(&root, &guests::find_busybox(&busybox)?)?;
            image::disk(&root, &directory.join("image"), DISK_MEBIBYTES)?;
            fs::remove_dir_all(&root)?;
            Ok(())
        })?;
        let image = directory.join("image");
        // A saved state goes with this image only, not with one that is made again.
        let key = Key::default().with(key).with_file(&image)?.digits();
        Ok(Debian { image, key })
    }
}

/// All packages below `root`, and dpkg's records that they are installed.
fn unpack(directory: &Path, root: &Path) -> Result<()> {
    packages::merge_top(root, &MERGED)?;
    let records = root.join("var/lib/dpkg");
    for name in ["info", "updates", "triggers"] {
        fs::create_dir_all(records.join(name))?;
    }
    let wanted: Vec<String> = packages::closure(PACKAGES)?
        .into_iter()
        .filter(|name| !LEFT_OUT.iter().any(|start| name.starts_with(start)))
        .collect();
    let download = directory.join("download");
    let mut status = String::new();
    for file in packages::download(&wanted, &download)? {
        packages::unpack_merged(&file, root)?;
        let control = run(Command::new("dpkg-deb").arg("-f").arg(&file))?.stdout;
        let control = String::from_utf8(control)?;
        let name = field(&control, "Package")?;
        let list = match field(&control, "Multi-Arch") {
            Ok("same") => format!("{name}:{}.list", field(&control, "Architecture")?),
            _ => format!("{name}.list"),
        };
        let script =
            r#"dpkg-deb --fsys-tarfile "$1" | tar -t | sed 's|^\./$|/.|; t; s|^\.||; s|/$||'"#;
        let files = run(Command::new("sh").args(["-c", script, "sh"]).arg(&file))?.stdout;
        fs::write(records.join("info").join(list), files)?;
        status.push_str(&control.replacen('\n', "\nStatus: install ok installed\n", 1));
        status.push('\n');
    }
    fs::write(records.join("status"), status)?;
    fs::write(records.join("info/format"), "1\n")?;
    fs::remove_dir_all(&download)?;
    Ok(())
}

fn field<'a>(control: &'a str, name: &str) -> Result<&'a str> {
    control
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .with_context(|| format!("a package without {name}"))
}
