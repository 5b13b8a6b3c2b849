//! This machine's own tools for tests that look at a product's work with another program, or that a product works with:
//! QEMU and `qemu-img`, e2fsprogs, iproute2, virtiofsd, dnsmasq, Open vSwitch, passt. They are copied with the libraries they are linked with, so the
//! outer guest, which has no libraries of its own, runs the very programs that this machine runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use super::cache::{Cache, Key};
use super::image::with_system_directories;
use super::packages::run;
use super::qemu;

/// What is copied.
const PROGRAMS: &[&str] = &[
    qemu::PROGRAM,
    "qemu-img",
    "bridge",
    "debugfs",
    "dnsmasq",
    "dumpe2fs",
    "e2fsck",
    "ip",
    "mke2fs",
    "nft",
    "ovs-vsctl",
    "ovs-vswitchd",
    "ovsdb-server",
    "ovsdb-tool",
    "passt",
    "resize2fs",
    "tc",
];
/// Where distributions have the server of shared directories, which is on no search path.
const VIRTIOFSD: &[&str] = &["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];
/// What QEMU needs of its data for a machine without a display.
const FIRMWARE: &[&str] = &[
    "bios-256k.bin",
    "bios-microvm.bin",
    "kvmvapic.bin",
    "linuxboot_dma.bin",
    "pvh.bin",
];
/// What Open vSwitch makes its database by.
pub const SWITCH_SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Raise it when what this file makes changes without any list changing.
const FORMAT: u32 = 2;

/// A directory with `bin`, `lib`, `share/qemu` and `share/vswitch.ovsschema`.
#[derive(Debug)]
pub struct Tools {
    /// Where it is.
    pub directory: PathBuf,
    /// Changes when it does.
    pub key: String,
}

impl Tools {
    /// Copies what the cache does not have yet.
    pub fn prepare(cache: &Cache) -> Result<Tools> {
        let mut programs = PROGRAMS
            .iter()
            .map(|name| find(name))
            .collect::<Result<Vec<_>>>()?;
        let mut virtiofsd = VIRTIOFSD.iter().map(PathBuf::from);
        programs.push(
            virtiofsd
                .find(|file| file.exists())
                .ok_or_else(|| anyhow!("lab: virtiofsd is missing; run `sh tests/lab/install`"))?,
        );
        let schema = PathBuf::from(SWITCH_SCHEMA);
        let key = programs
            .iter()
            .chain([&schema])
            .try_fold(Key::default(), |key, file| key.with_file(file))?
            .with((FORMAT, PROGRAMS, FIRMWARE))
            .digits();
        let directory = cache.entry(&format!("tools-{key}"), |directory| {
            copy(&programs, directory)
        })?;
        Ok(Tools { directory, key })
    }
}

/// The program that a name stands for on this machine.
fn find(name: &str) -> Result<PathBuf> {
    std::env::split_paths(&with_system_directories())
        .map(|directory| directory.join(name))
        .find(|file| file.exists())
        .ok_or_else(|| anyhow!("lab: {name} is missing; run `sh tests/lab/install`"))
}

fn copy(programs: &[PathBuf], directory: &Path) -> Result<()> {
    let [bin, lib, share] = ["bin", "lib", "share/qemu"].map(|name| directory.join(name));
    for made in [&bin, &lib, &share] {
        fs::create_dir_all(made)?;
    }
    for program in programs {
        into(program, &bin)?;
        for library in libraries(program)? {
            if !lib.join(library.file_name().unwrap_or_default()).exists() {
                into(&library, &lib)?;
            }
        }
    }
    let places = run(Command::new(qemu::PROGRAM).args(["-L", "help"]))?.stdout;
    let places = String::from_utf8(places)?;
    for name in FIRMWARE {
        let file = places
            .lines()
            .map(|place| Path::new(place).join(name))
            .find(|file| file.exists())
            .ok_or_else(|| anyhow!("QEMU's {name} is in none of {places}"))?;
        into(&file, &share)?;
    }
    into(Path::new(SWITCH_SCHEMA), &directory.join("share"))?;
    Ok(())
}

/// A copy of what is there in the end, under the name that was asked for.
fn into(file: &Path, directory: &Path) -> Result<()> {
    let name = file.file_name().unwrap_or_default();
    fs::copy(file, directory.join(name))
        .with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(())
}

/// The libraries that a program is started with, and what starts it.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = run(Command::new("ldd").arg(program))?.stdout;
    Ok(listed(&String::from_utf8(output)?))
}

/// The files in what ldd prints:
/// `linux-vdso.so.1 (0x…)`, `libc.so.6 => /lib/libc.so.6 (0x…)`, `/lib64/ld-linux.so.2 (0x…)`.
fn listed(output: &str) -> Vec<PathBuf> {
    output
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::listed;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let output = "\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f1)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        assert_eq!(
            listed(output),
            [
                "/lib/x86_64-linux-gnu/libz.so.1",
                "/lib64/ld-linux-x86-64.so.2"
            ]
            .map(PathBuf::from)
        );
        assert!(listed("\tstatically linked\n").is_empty());
    }
}
