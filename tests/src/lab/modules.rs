//! Kernel modules out of an unpacked kernel package: found by name, with what they depend on, in
//! the order in which `insmod` takes them, decompressed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, anyhow, bail};

use super::packages::run;

/// A module ready for `insmod`.
#[derive(Debug)]
pub struct Module {
    /// Its file's name in the initramfs, `kvm_amd.ko`.
    pub file: String,
    /// Its contents, decompressed.
    pub contents: Vec<u8>,
}

/// `wanted` and all they need, each after what it needs. A wanted module that this kernel does not
/// have is left out: it is built in, or another kernel's.
pub fn collect(modules: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = HashMap::new();
    index(modules, &mut files)?;
    let mut collected = Vec::new();
    for name in wanted {
        add(&normal(name), &files, &mut collected, 0)?;
    }
    Ok(collected)
}

fn add(
    name: &str,
    files: &HashMap<String, PathBuf>,
    collected: &mut Vec<Module>,
    depth: usize,
) -> Result<()> {
    let file = format!("{name}.ko");
    let Some(path) = files.get(name) else {
        return Ok(());
    };
    if collected.iter().any(|module| module.file == file) {
        return Ok(());
    }
    if depth > 16 {
        bail!("modules depend on each other in a circle at {name}");
    }
    let contents = read(path)?;
    for needed in dependencies(&contents) {
        add(&normal(&needed), files, collected, depth + 1)?;
    }
    collected.push(Module { file, contents });
    Ok(())
}

/// The kernel takes `-` and `_` for the same in a module's name.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn index(directory: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            index(&entry.path(), files)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            files.insert(normal(name), entry.path());
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(OsStr::to_str) {
        Some("ko") => return Ok(std::fs::read(path)?),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => bail!("unknown compression of {}", path.display()),
    };
    Ok(run(Command::new(tool).arg("-dc").arg(path))?.stdout)
}

/// The names in the module's `depends=` string (its .modinfo section is strings with NUL ends).
fn dependencies(contents: &[u8]) -> Vec<String> {
    let mark = b"\0depends=";
    let Some(start) = contents
        .windows(mark.len())
        .position(|window| window == mark)
    else {
        return Vec::new();
    };
    let rest = &contents[start + mark.len()..];
    let text = rest.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The one directory below `lib/modules` of an unpacked kernel, and its name: the kernel's release.
pub fn directory(package: &Path) -> Result<(PathBuf, String)> {
    let parent = ["lib/modules", "usr/lib/modules"]
        .iter()
        .map(|path| package.join(path))
        .find(|path| path.exists())
        .ok_or_else(|| anyhow!("the kernel package has no modules"))?;
    let entry = std::fs::read_dir(&parent)?
        .next()
        .ok_or_else(|| anyhow!("{} is empty", parent.display()))??;
    Ok((
        entry.path(),
        entry.file_name().to_string_lossy().into_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::dependencies;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        let module = b"license=GPL\0depends=virtio,virtio_ring\0retpoline=Y\0";
        assert_eq!(dependencies(module), ["virtio", "virtio_ring"]);
        assert!(dependencies(b"license=GPL\0depends=\0name=x\0").is_empty());
        assert!(dependencies(b"").is_empty());
    }
}
