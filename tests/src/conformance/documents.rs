//! What sessions name by `{...}`: documents and files that mean the same to each server.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Server, data};

/// The image of a small disk.
const DISK_BYTES: usize = 1 << 20;

/// The names and what they stand for.
#[derive(Debug)]
pub(super) struct Documents {
    words: Vec<(String, String)>,
}

impl Documents {
    /// Lays out every document and file in `directory`.
    pub(super) fn lay_out(server: Server, directory: &Path, bridge: &str) -> Result<Documents> {
        let place = directory.display().to_string();
        // Other monitors boot it too, by its PVH note.
        fs::write(directory.join("guest.elf"), reeve_guest::IMAGE)?;
        for image in [
            "disk.raw",
            "other.raw",
            "third.raw",
            "fourth.raw",
            "fifth.raw",
            "cd.iso",
            "cd2.iso",
        ] {
            fs::write(directory.join(image), vec![0; DISK_BYTES])?;
        }
        for pool in ["pool", "pool2"] {
            fs::create_dir(directory.join(pool))?;
        }
        let (kind, arch, machine) = match server {
            Server::Reeve => ("kvm", "x86_64", "machine='reeve-1.0'"),
            Server::Test => ("test", "i686", ""),
            Server::Qemu => ("qemu", "x86_64", "machine='pc'"),
        };
        // Reeve's medium is on virtio's bus, which QEMU has none on.
        let (cdrom, cdbus) = match server {
            Server::Reeve => ("vda", "virtio"),
            Server::Test | Server::Qemu => ("hda", "ide"),
        };
        let os = format!(
            "<os><type arch='{arch}' {machine}>hvm</type>\
             <kernel>{place}/guest.elf</kernel><cmdline>mode=echo</cmdline></os>"
        );
        let mut documents = Documents {
            words: vec![
                ("type".to_owned(), kind.to_owned()),
                ("arch".to_owned(), arch.to_owned()),
                ("os".to_owned(), os),
                ("cdrom".to_owned(), cdrom.to_owned()),
                ("cdbus".to_owned(), cdbus.to_owned()),
                ("dir".to_owned(), place),
                ("bridge".to_owned(), bridge.to_owned()),
            ],
        };
        let source = data().join("documents");
        for entry in fs::read_dir(&source).with_context(|| source.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().context("a document has no name")?;
            let to = directory.join(name);
            fs::write(&to, documents.fill(&fs::read_to_string(&path)?))?;
            let stem = path.file_stem().context("a document has no name")?;
            let word = (
                stem.to_string_lossy().into_owned(),
                to.display().to_string(),
            );
            documents.words.push(word);
        }
        Ok(documents)
    }

    /// The text with what its placeholders stand for; other braces stay.
    pub(super) fn fill(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, meaning) in &self.words {
            text = text.replace(&format!("{{{name}}}"), meaning);
        }
        text
    }
}
