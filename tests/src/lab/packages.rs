//! Debian packages by name: fetched with `apt-get download`, unpacked with `dpkg-deb -x`, never
//! installed. An unpacked package stays in the cache until the cache is deleted.

use std::fs;
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

/// Fetches and unpacks a package, once. For a kernel's metapackage (`linux-image-cloud-amd64`) the
/// packages with the kernel and its modules are unpacked in its place.
pub fn unpacked(cache: &Cache, name: &str) -> Result<Package> {
    let entry = cache.entry(&format!("package-{name}"), |directory| {
        let wanted = kernel_packages(name)?;
        let wanted = if wanted.is_empty() {
            vec![name.to_owned()]
        } else {
            wanted
        };
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

/// The versioned packages a kernel's metapackage stands for; none for any other package.
fn kernel_packages(name: &str) -> Result<Vec<String>> {
    if !name.starts_with("linux-image-") {
        return Ok(Vec::new());
    }
    let output = run(Command::new("apt-cache").args(["depends", "--no-recommends", name]))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(|package| {
            ["linux-image-", "linux-modules-"].iter().any(|prefix| {
                package
                    .strip_prefix(prefix)
                    .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
            })
        })
        .map(str::to_owned)
        .collect())
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
