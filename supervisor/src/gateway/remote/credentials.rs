//! The files of TLS, read as they are: their contents are a gateway's to understand.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use reeve_ipc::gateway::MAX_KEY_BYTES;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create};

/// The most bytes of a file of certificates.
const MAX_CERTIFICATES_BYTES: u64 = 1 << 20;
/// The most bytes of a list of revoked ones.
const MAX_REVOKED_BYTES: u64 = 16 << 20;
/// What others than the owner may do with a file.
const OTHERS: u32 = 0o077;

/// Where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The server's certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of clients.
    pub authorities: PathBuf,
    /// Which of their certificates they have revoked, where that is looked at.
    pub revoked: Option<PathBuf>,
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file.
    #[error("cannot read {path}: {error}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file that is none of these.
    #[error("{path} has more than {limit} bytes", path = .path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// The most.
        limit: u64,
    },
    /// No memory that a gateway can be handed.
    #[error("no memory for certificates: {0}")]
    Memory(#[from] io::Error),
}

/// What was in them when they were read.
pub struct Credentials {
    /// Sealed memory, each that of one file that anybody may know.
    public: Vec<OwnedFd>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Credentials {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the files.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn read(files: &Files) -> Result<Self, CredentialError> {
        let mut public = Vec::new();
        for path in [&files.certificate, &files.authorities] {
            public.push(sealed(&read(path, MAX_CERTIFICATES_BYTES)?)?);
        }
        if let Some(path) = &files.revoked {
            public.push(sealed(&read(path, MAX_REVOKED_BYTES)?)?);
        }
        let limit = u64::try_from(MAX_KEY_BYTES).unwrap_or(u64::MAX);
        let key = read(&files.key, limit)?;
        let mode = files.key.metadata().map_or(0, |found| found.mode());
        if mode & OTHERS != 0 {
            let path = files.key.display();
            tracing::warn!("{path} is not for its owner alone: whoever has it can be this server");
        }
        Ok(Self { public, key })
    }

    /// The private key, as its file has it.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The other files for one process, which reads each from its beginning: no two processes share where they are.
    pub(super) fn public(&self) -> io::Result<Vec<OwnedFd>> {
        let again = |file: &OwnedFd| {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        };
        Ok(self.public.iter().map(again).collect::<Result<_, _>>()?)
    }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, CredentialError> {
    let failed = |error| CredentialError::Read {
        path: path.to_owned(),
        error,
    };
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(limit + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > limit {
        return Err(CredentialError::TooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(text)
}

/// Memory with that in it, which nobody can change.
fn sealed(text: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("certificates", flags)?);
    file.write_all(text)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_reads_from_the_beginning_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let files = Files {
            certificate: write("certificate", "one"),
            key: write("key", "secret"),
            authorities: write("authorities", "two"),
            revoked: Some(write("revoked", "three")),
        };
        let credentials = Credentials::read(&files).unwrap();
        assert_eq!(credentials.key(), b"secret");
        assert!(!format!("{credentials:?}").contains("secret"));
        for _ in 0..2 {
            let mut texts = Vec::new();
            for file in credentials.public().unwrap() {
                let mut file = File::from(file);
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                assert!(file.write_all(b"x").is_err());
                texts.push(text);
            }
            assert_eq!(texts, ["one", "two", "three"]);
        }
        let missing = Files {
            key: directory.path().join("none"),
            ..files.clone()
        };
        let error = Credentials::read(&missing).unwrap_err().to_string();
        assert!(error.contains("none: No such file"), "{error}");
        let long = "x".repeat(MAX_KEY_BYTES + 1);
        let large = Files {
            key: write("large", &long),
            ..files
        };
        let error = Credentials::read(&large).unwrap_err();
        assert!(matches!(error, CredentialError::TooLarge { .. }), "{error}");
    }
}
