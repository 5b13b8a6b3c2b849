//! Debian packages by name: fetched with `apt-get download`, unpacked with `dpkg-deb -x`, never
//! installed. An unpacked package stays in the cache until the cache is deleted.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, anyhow, bail};

use super::cache::Cache;

/// An unpacked package.
#[derive(Debug, Clone)]
pub struct Package {
    /// Where its files lie.
    pub root: PathBuf,
    /// The file name of the package, which carries its version.
    pub version: String,
}

/// The metapackages of the kernel that the lab boots, the first that the distribution has: Debian's,
/// Ubuntu's (not tried yet).
const KERNELS: &[&str] = &["linux-image-cloud-amd64", "linux-image-virtual"];
/// Those of the kernel for machines of any kind, whose drivers are more.
const FULL_KERNELS: &[&str] = &["linux-image-amd64", "linux-image-generic"];

/// Fetches and unpacks a package, once.
pub fn unpacked(cache: &Cache, name: &str) -> Result<Package> {
    entry(cache, name, || Ok(vec![name.to_owned()]))
}

/// Fetches and unpacks the distribution's kernel for virtual machines with its modules, once.
pub fn unpacked_kernel(cache: &Cache) -> Result<Package> {
    entry(cache, "kernel", || kernel_packages(KERNELS))
}

/// The same of its kernel for machines of any kind.
pub fn unpacked_full_kernel(cache: &Cache) -> Result<Package> {
    entry(cache, "full-kernel", || kernel_packages(FULL_KERNELS))
}

fn entry(cache: &Cache, name: &str, list: impl FnOnce() -> Result<Vec<String>>) -> Result<Package> {
    let entry = cache.entry(&format!("package-{name}"), |directory| {
        let wanted = list()?;
        let mut versions = Vec::new();
        for package in &wanted {
            versions.push(fetch(package, directory)?);
        }
        fs::write(directory.join("version"), versions.join(" "))?;
        Ok(())
    })?;
    let version = fs::read_to_string(entry.join("version"))?;
    Ok(Package {
        root: entry.join("root"),
        version,
    })
}

/// The named packages and all they depend on, as on an empty system: `name=version` each.
pub fn closure(names: &[&str]) -> Result<Vec<String>> {
    let output = run(Command::new("apt-get")
        .args(["-s", "-o", "Dir::State::status=/dev/null"])
        .args(["-o", "APT::Install-Recommends=false", "install"])
        .args(names))?;
    // Inst libc6 (2.36-9+deb12u14 Debian:12.14/oldstable [amd64]) []
    let packages = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
            let version = rest.split_whitespace().next()?;
            Some(format!("{name}={version}"))
        })
        .collect::<Vec<_>>();
    if packages.is_empty() {
        bail!("lab: apt-get finds nothing to install for {names:?}");
    }
    Ok(packages)
}

/// Downloads packages into `directory`; gives their files.
pub fn download(packages: &[String], directory: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir(directory)?;
    run(Command::new("apt-get")
        .args(["-q", "download"])
        .args(packages)
        .current_dir(directory))?;
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

/// Makes `root` with directories at its top that are links into `usr`.
pub fn merge_top(root: &Path, names: &[&str]) -> Result<()> {
    for name in names {
        fs::create_dir_all(root.join("usr").join(name))?;
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    Ok(())
}

/// Unpacks the file of a package into a system with such links, which `dpkg-deb -x` would replace.
pub fn unpack_merged(file: &Path, root: &Path) -> Result<()> {
    let script = r#"dpkg-deb --fsys-tarfile "$1" | tar --keep-directory-symlink -C "$2" -xf -"#;
    run(Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(file)
        .arg(root))?;
    Ok(())
}

/// Downloads one package and unpacks it into `directory/root`; returns its file name.
fn fetch(package: &str, directory: &Path) -> Result<String> {
    let download = directory.join("download");
    fs::create_dir(&download)?;
    run(Command::new("apt-get")
        .args(["-q", "download", package])
        .current_dir(&download))?;
    let file = fs::read_dir(&download)?
        .next()
        .ok_or_else(|| anyhow!("apt-get download {package} brought nothing"))??
        .path();
    let root = directory.join("root");
    run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&root))?;
    fs::remove_dir_all(&download)?;
    Ok(file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned())
}

/// The packages with the kernel and its modules that the first of the metapackages leads to.
fn kernel_packages(metapackages: &[&str]) -> Result<Vec<String>> {
    for metapackage in metapackages {
        let mut found = Vec::new();
        follow(metapackage, &mut found);
        if !found.is_empty() {
            return Ok(found);
        }
    }
    bail!(
        "lab: apt knows none of {}; run `sh tests/lab/install`",
        metapackages.join(", ")
    )
}

/// Adds what `package` depends on and what that depends on, of the kernel's own packages. A name
/// that apt does not know leads nowhere.
fn follow(package: &str, found: &mut Vec<String>) {
    let arguments = ["depends", "--no-recommends", "--no-suggests", package];
    let Ok(output) = run(Command::new("apt-cache").args(arguments)) else {
        return;
    };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some(name) = line.trim().strip_prefix("Depends: ") else {
            continue;
        };
        let versioned = ["linux-image-", "linux-modules-"].iter().any(|prefix| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        });
        if versioned && !found.iter().any(|known| known == name) {
            found.push(name.to_owned());
            follow(name, found);
        }
    }
}

/// Runs a tool to its end; its failure is one error with the tool's own last words.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| {
        format!("lab: {program} does not start; `sh tests/lab/install` installs what is missing")
    })?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words.trim().lines().next_back().unwrap_or("no message");
        bail!(
            "lab: {program} failed ({}): {last}; has `sh tests/lab/install` been run?",
            output.status
        );
    }
    Ok(output)
}
