//! What is wrong with a configuration: one line, with its place.

use std::io;
use std::path::{Path, PathBuf};

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}: {reason}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What kind of failure.
        kind: io::ErrorKind,
        /// Why.
        reason: String,
    },
    /// Not a configuration.
    #[error("{path} has more than {limit} bytes", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most.
        limit: u64,
    },
    /// Not a configuration.
    #[error("{path} is not UTF-8 text", path = .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A setting that cannot be.
    #[error("{path}:{line}: {key}{reason}", path = .path.display(), key = Key(.key.as_deref()))]
    Setting {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The setting, where the line has one.
        key: Option<String>,
        /// Why.
        reason: String,
    },
}

impl ConfigError {
    pub(super) fn read(path: &Path, source: &io::Error) -> Self {
        let reason = match rustix::io::Errno::from_io_error(source) {
            Some(errno) => crate::host::reason(errno),
            None => source.to_string(),
        };
        Self::Read {
            path: path.to_owned(),
            kind: source.kind(),
            reason,
        }
    }

    /// Whether there is no file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Read { kind, .. } if *kind == io::ErrorKind::NotFound)
    }

    pub(super) fn form(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        Self::Setting {
            path: path.to_owned(),
            line,
            key: text.lines().nth(line - 1).and_then(key_of),
            reason: error.message().replace('\n', "; "),
        }
    }

    pub(super) fn value(path: &Path, text: &str, key: &str, reason: String) -> Self {
        let line = text
            .lines()
            .position(|line| key_of(line).as_deref() == Some(key));
        Self::Setting {
            path: path.to_owned(),
            line: line.map_or(1, |line| line + 1),
            key: Some(key.to_owned()),
            reason,
        }
    }
}

/// The key that a line sets.
fn key_of(line: &str) -> Option<String> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (!key.is_empty() && key.chars().all(plain)).then(|| key.to_owned())
}

struct Key<'a>(Option<&'a str>);

impl std::fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |key| write!(f, "{key}: "))
    }
}
