//! The names of a domain's log files: its own name wherever that makes a file name.
//!
//! Invariant: two domains never share a file, whatever they are called. `%` is written `%25`, a dot in
//! front `%2E`, and the dot of a `.console` at the end likewise, since `a.console.log` is the console
//! log of `a`. A name too long for a file system is cut and ends in `%~` and the domain's UUID.

use std::path::{Path, PathBuf};

use reeve_ipc::model::{DomainName, DomainUuid};

/// The most bytes of a file name.
const MAX_FILE_NAME: usize = 255;
/// What comes behind a name at most: `.console.log.99`.
const SUFFIX: usize = 15;
const MAX_STEM: usize = MAX_FILE_NAME - SUFFIX;
/// `%~` and a UUID.
const TAIL: usize = 2 + 36;

/// Where a domain's logs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPaths {
    /// What happens to the domain and what its worker says.
    pub log: PathBuf,
    /// What its guest writes to its console.
    pub console: PathBuf,
}

impl LogPaths {
    /// The files of a domain in `directory`.
    #[must_use]
    pub fn new(directory: &Path, name: &DomainName, uuid: DomainUuid) -> Self {
        let stem = stem(name.as_str(), uuid);
        Self {
            log: directory.join(format!("{stem}.log")),
            console: directory.join(format!("{stem}.console.log")),
        }
    }
}

fn stem(name: &str, uuid: DomainUuid) -> String {
    let mut stem = name.replace('%', "%25");
    if let Some(rest) = stem.strip_prefix('.') {
        stem = format!("%2E{rest}");
    }
    if let Some(rest) = stem.strip_suffix(".console") {
        stem = format!("{rest}%2Econsole");
    }
    if stem.len() > MAX_STEM {
        let mut end = MAX_STEM - TAIL;
        while !stem.is_char_boundary(end) {
            end -= 1;
        }
        stem.truncate(end);
        stem.push_str(&format!("%~{uuid}"));
    }
    stem
}
