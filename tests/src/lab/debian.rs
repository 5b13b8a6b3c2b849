//! A Debian system small enough to boot under emulation: systemd, dpkg, a shell and what they need,
//! out of the distribution's packages. They are unpacked, not installed: no script of theirs runs, and
//! what those would do is done here where it matters, dpkg's own records of them included.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cache::{Cache, Key};
use super::guests::{self, OUTER_MODULES, SESSION};
use super::packages::{self, run};
use super::{image, modules};

const INIT: &str = include_str!("../../lab/debian-init.sh");
/// What the system is made of, with all that these depend on.
const PACKAGES: &[&str] = &[
    "systemd",
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
    "findutils",
    "grep",
    "gzip",
    "libc-bin",
    "login",
    "mawk",
    "mount",
    "passwd",
    "perl-base",
    "sed",
    "tar",
    "util-linux",
];
/// Directories at the top that are links into `usr`.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
/// Units that wait for what this machine does not have (udev, D-Bus), or take time for nothing.
const MASKED: &[&str] = &[
    "getty.target",
    "systemd-logind.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-random-seed.service",
    "systemd-boot-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-pstore.service",
    "systemd-binfmt.service",
    "systemd-timesyncd.service",
    "systemd-journal-flush.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
];
const SERVICE: &str = "[Unit]
After=multi-user.target
[Service]
ExecStart=/bin/sh -c '. /lab/session.sh; serve'
WorkingDirectory=/
";
const TARGET: &str = "[Unit]\nRequires=multi-user.target lab.service\nAllowIsolate=yes\n";
/// Raise it when what this file makes changes without any script or list changing.
const FORMAT: u32 = 1;

/// The parts of the system.
#[derive(Debug)]
pub struct Debian {
    /// The root file system.
    pub image: PathBuf,
    /// What mounts it and starts systemd.
    pub initramfs: PathBuf,
    /// Changes when any of it does.
    pub key: String,
}

impl Debian {
    /// Makes what the cache does not have yet.
    pub fn prepare(cache: &Cache) -> Result<Debian> {
        let kernel = packages::unpacked_kernel(cache)?;
        let busybox = packages::unpacked(cache, "busybox-static")?;
        let key = Key::default()
            .with((FORMAT, &kernel.version, &busybox.version))
            .with((PACKAGES, MASKED, SERVICE, TARGET))
            .with((INIT, SESSION, OUTER_MODULES))
            .digits();
        let directory = cache.entry(&format!("debian-{key}"), |directory| {
            let busybox = guests::find_busybox(&busybox)?;
            let root = directory.join("root");
            unpack(directory, &root)?;
            configure(&root, &busybox)?;
            image::build(&root, &directory.join("image"))?;
            fs::remove_dir_all(&root)?;

            let (module_tree, _) = modules::directory(&kernel.root)?;
            let wanted: Vec<&str> = OUTER_MODULES.iter().copied().chain(["overlay"]).collect();
            let mut archive = guests::base(&busybox, &module_tree, INIT, &wanted)?;
            archive.file("lab/session.sh", 0o644, SESSION.as_bytes())?;
            fs::write(directory.join("initramfs"), archive.finish()?)?;
            Ok(())
        })?;
        let image = directory.join("image");
        // A saved state goes with this image only, not with one that is made again.
        let key = Key::default().with(key).with_file(&image)?.digits();
        Ok(Debian {
            image,
            initramfs: directory.join("initramfs"),
            key,
        })
    }
}

/// All packages below `root`, and dpkg's records that they are installed.
fn unpack(directory: &Path, root: &Path) -> Result<()> {
    for name in MERGED {
        fs::create_dir_all(root.join("usr").join(name))?;
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    let records = root.join("var/lib/dpkg");
    for name in ["info", "updates", "triggers"] {
        fs::create_dir_all(records.join(name))?;
    }
    let wanted = packages::closure(PACKAGES)?;
    let download = directory.join("download");
    let mut status = String::new();
    for file in packages::download(&wanted, &download)? {
        // dpkg-deb -x would replace the links of merged directories.
        let script = r#"dpkg-deb --fsys-tarfile "$1" | tar --keep-directory-symlink -C "$2" -xf -"#;
        run(Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&file)
            .arg(root))?;
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

/// What the packages' scripts and an installer would have done.
fn configure(root: &Path, busybox: &Path) -> Result<()> {
    for name in ["passwd", "group"] {
        let master = root.join(format!("usr/share/base-passwd/{name}.master"));
        fs::copy(master, root.join("etc").join(name))?;
    }
    for (link, target) in [("sh", "dash"), ("awk", "mawk")] {
        let link = root.join("usr/bin").join(link);
        if !link.exists() {
            symlink(target, link)?;
        }
    }
    fs::write(
        root.join("etc/machine-id"),
        "0123456789abcdef0123456789abcdef\n",
    )?;
    fs::write(root.join("etc/hostname"), "lab\n")?;
    fs::write(root.join("etc/fstab"), "")?;
    let units = root.join("etc/systemd/system");
    for unit in MASKED {
        symlink("/dev/null", units.join(unit))?;
    }
    fs::write(units.join("lab.service"), SERVICE)?;
    fs::write(units.join("lab.target"), TARGET)?;
    symlink("lab.target", units.join("default.target"))?;
    // Each is a process at every start of systemd and at every reload, for things that are not here.
    fs::remove_dir_all(root.join("usr/lib/systemd/system-generators"))?;
    for name in [
        "lab",
        "assets",
        "payload",
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "usr/local/bin",
    ] {
        fs::create_dir_all(root.join(name))?;
    }
    symlink("/assets/modules", root.join("usr/lib/modules"))?;
    fs::copy(busybox, root.join("lab/busybox"))?;
    // Of what the session's script needs, Debian has all but this in packages that are here.
    symlink("/lab/busybox", root.join("usr/local/bin/ps"))?;
    Ok(())
}
