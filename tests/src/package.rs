//! Debian packages of two builds of this tree, for the tests of installing and upgrading. Each is
//! built as `make deb` does it, from binaries that are not optimised and have no test features, in a
//! target directory of its own that later runs find up to date. The second one's begins as a copy of the first's: what
//! comes from others is the same in both.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::lab::cache;

/// One build.
#[derive(Debug)]
pub struct Build {
    /// The package's file name.
    pub file: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The revision that its programs say they are of.
    pub revision: &'static str,
}

/// What is installed first, and what it is upgraded to.
pub const BUILDS: [Build; 2] = [
    Build {
        file: "first.deb",
        version: "0.1.0~test1-1",
        revision: "first",
    },
    Build {
        file: "second.deb",
        version: "0.1.0~test2-1",
        revision: "second",
    },
];

/// Makes what is not there yet; gives the directory with both packages.
pub fn packages() -> Result<PathBuf> {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let root = cache::target_directory()?.join("package");
    let packages = root.join("deb");
    let mut last: Option<PathBuf> = None;
    for build in &BUILDS {
        let package = packages.join(build.file);
        let target = root.join(build.revision);
        if let Some(last) = last.filter(|_| !target.exists()) {
            copy(&last, &target)?;
        }
        let binaries = compile(&target, build.revision)?;
        last = Some(target);
        if !newer(&package, &binaries)? {
            pack(&binaries, build.version, &package)?;
        }
    }
    Ok(packages)
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn compile(target: &Path, revision: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args([
            "build",
            "--quiet",
            "--locked",
            "-p",
            "reeved",
            "-p",
            "reeve-worker",
            "-p",
            "reeve-gateway",
        ])
        .arg("--target-dir")
        .arg(target)
        .current_dir(source())
        .env("REEVE_REVISION", revision)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_INCREMENTAL", "0");
    run(command).context("the packages' programs are not built")?;
    Ok(target.join("x86_64-unknown-linux-gnu/debug"))
}

/// Copies what was built, with its times; all of it or nothing.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let partial = to.with_extension("partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial).context("a copy that was not finished stays")?;
    }
    let mut command = Command::new("cp");
    command
        .args(["--archive", "--reflink=auto", "--no-target-directory"])
        .args([from, &partial]);
    run(command)?;
    std::fs::rename(partial, to).context("what was built is not copied")
}

/// Whether a package was made after its programs, and after what describes it.
fn newer(package: &Path, binaries: &Path) -> Result<bool> {
    let Ok(made) = package.metadata().and_then(|package| package.modified()) else {
        return Ok(false);
    };
    let mut inputs = ["reeve", "reeved", "reeve-worker", "reeve-gateway"]
        .map(|name| binaries.join(name))
        .to_vec();
    for directory in ["packaging", "packaging/debian", "docs"] {
        for entry in std::fs::read_dir(source().join(directory))? {
            inputs.push(entry?.path());
        }
    }
    for input in inputs {
        if input.metadata()?.modified()? >= made {
            return Ok(false);
        }
    }
    Ok(true)
}

fn pack(binaries: &Path, version: &str, package: &Path) -> Result<()> {
    let mut command = Command::new(source().join("packaging/build-deb"));
    command
        .arg("--bin")
        .arg(binaries)
        .args(["--version", version, "--out"])
        .arg(package)
        // What takes time, and under emulation once more.
        .env("DEB_COMPRESSION", "none");
    run(command)
}

fn run(mut command: Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
