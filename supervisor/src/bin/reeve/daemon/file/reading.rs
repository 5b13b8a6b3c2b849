//! How the file of a definition is read, and how it is written: whole or not at all.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::DefinitionFile;

/// The most bytes of a file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file itself.
    #[error("cannot {action} {path}: {error}", path = .path.display())]
    Io {
        /// The verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// More than any definition has.
    #[error("{} has more than {MAX_BYTES} bytes: that is no definition", .0.display())]
    TooLarge(PathBuf),
    /// What is in it.
    #[error("{path}: {reason}", path = .path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Where and what, on one line.
        reason: String,
    },
}

/// Reads a definition from a file, or from standard input for `-`. Relative paths in it begin at the
/// file's directory; those of standard input at the working directory.
pub fn read(path: &Path) -> Result<DefinitionFile, FileError> {
    let mut definition = parse(&text(path)?, path)?;
    definition.anchor(path.parent().unwrap_or(Path::new("")))?;
    Ok(definition)
}

/// Reads the definition of a virtual network likewise, or a part of one.
pub fn read_network<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    formed(&text(path)?).map_err(|reason| FileError::Form {
        path: path.to_owned(),
        reason,
    })
}

fn text(path: &Path) -> Result<String, FileError> {
    let failed = |error| FileError::Io {
        action: "read",
        path: path.to_owned(),
        error,
    };
    let mut text = String::new();
    let mut reader: Box<dyn std::io::Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(failed)?)
    };
    let length = reader
        .by_ref()
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text);
    if length.map_err(failed)? as u64 > MAX_BYTES {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    Ok(text)
}

/// TOML, or JSON where it begins with a brace.
fn formed<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| error.to_string())
    } else {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| {
                let before = text.get(..span.start).unwrap_or_default();
                before.matches('\n').count() + 1
            });
            let message = error.message().replace('\n', " ");
            match line {
                Some(line) => format!("line {line}: {message}"),
                None => message,
            }
        })
    }
}

/// The definition of a domain in such a text.
pub fn parse(text: &str, path: &Path) -> Result<DefinitionFile, FileError> {
    let parsed: Result<DefinitionFile, String> = formed(text);
    let kernel_too = |file: &DefinitionFile| {
        file.kernel.is_some() || file.initrd.is_some() || !file.cmdline.is_empty()
    };
    let parsed = parsed.and_then(|file| match file.firmware && kernel_too(&file) {
        true => Err("'firmware' goes without 'kernel', 'initrd' and 'cmdline'".to_owned()),
        false => Ok(file),
    });
    parsed.map_err(|reason| FileError::Form {
        path: path.to_owned(),
        reason,
    })
}

/// The file's text.
pub fn write(definition: &DefinitionFile) -> Result<String, FileError> {
    toml::to_string(definition).map_err(|error| FileError::Form {
        path: PathBuf::from("the definition"),
        reason: error.to_string(),
    })
}

/// Puts `text` into the file, whole or not at all.
pub fn replace(path: &Path, text: &str) -> Result<(), FileError> {
    let failed = |error| FileError::Io {
        action: "write",
        path: path.to_owned(),
        error,
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = create_private(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, path).map_err(failed));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// A new file that only its owner may read.
pub fn create_private(path: &Path, text: &str) -> Result<(), FileError> {
    let write = || {
        let mut file = std::fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| FileError::Io {
        action: "write",
        path: path.to_owned(),
        error,
    })
}
