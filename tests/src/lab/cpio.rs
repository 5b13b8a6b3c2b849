//! Writes cpio archives of the "newc" kind, which is what the kernel unpacks as an initramfs
//! (Documentation/driver-api/early-userspace/buffer-format.rst). Everything belongs to root and has
//! no time, so equal inputs give equal archives.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive under construction. Parents are to be added before what they hold.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

impl Archive {
    /// Adds a directory.
    pub fn directory(&mut self, name: &str) -> Result<&mut Archive> {
        self.entry(name, DIRECTORY | 0o755, &[], (0, 0))
    }

    /// Adds a file with these contents.
    pub fn file(&mut self, name: &str, mode: u32, contents: &[u8]) -> Result<&mut Archive> {
        self.entry(name, FILE | mode, contents, (0, 0))
    }

    /// Adds a copy of a file on this machine, with its mode.
    pub fn copy(&mut self, name: &str, from: &Path) -> Result<&mut Archive> {
        let context = || format!("cannot read {}", from.display());
        let contents = std::fs::read(from).with_context(context)?;
        let mode = std::fs::metadata(from).with_context(context)?.mode() & 0o777;
        self.file(name, mode, &contents)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, name: &str, target: &str) -> Result<&mut Archive> {
        self.entry(name, LINK | 0o777, target.as_bytes(), (0, 0))
    }

    /// Adds a character device.
    pub fn device(&mut self, name: &str, major: u32, minor: u32) -> Result<&mut Archive> {
        self.entry(name, CHARACTER_DEVICE | 0o600, &[], (major, minor))
    }

    /// The finished archive.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[], (0, 0))?;
        Ok(self.bytes)
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        contents: &[u8],
        (major, minor): (u32, u32),
    ) -> Result<&mut Archive> {
        self.count += 1;
        let size = u32::try_from(contents.len()).context("a file over 4 GiB in an initramfs")?;
        let name_size = u32::try_from(name.len() + 1)?;
        self.bytes.extend_from_slice(b"070701");
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor,
        // namesize, check
        let fields = [
            self.count, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0,
        ];
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
        Ok(self)
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn a_header_has_thirteen_fields_and_everything_is_aligned() {
        let mut archive = Archive::default();
        archive
            .directory("d")
            .unwrap()
            .file("d/f", 0o644, b"hello")
            .unwrap();
        let bytes = archive.finish().unwrap();
        assert!(bytes.starts_with(b"07070100000001000041ed"));
        assert_eq!(bytes.len() % 4, 0);
        let file = bytes[112..].to_vec();
        assert!(file.starts_with(b"070701"));
        assert_eq!(&file[54..62], b"00000005");
        assert_eq!(&file[110..114], b"d/f\0");
        assert_eq!(&file[116..121], b"hello");
    }
}
