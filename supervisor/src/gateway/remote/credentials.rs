//! The files of TLS, read as they are: their contents are a gateway's to understand. Of the file of users, which is
//! Reeve's own, the names are read here too, and which entry each has.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use reeve_ipc::gateway::{MAX_KEY_BYTES, Proof};
use reeve_ipc::users::{MAX_USERS_BYTES, User, Users, UsersError};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create};
use sha2::{Digest as _, Sha256};

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
    /// The users.
    pub users: PathBuf,
    /// How clients say who they are, and so which of these files there are.
    pub proof: Proof,
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
    /// A file of users that is no UTF-8.
    #[error("{path} is no text", path = .path.display())]
    NoText {
        /// Which.
        path: PathBuf,
    },
    /// A file of users that is none.
    #[error("{path}: {error}", path = .path.display())]
    Users {
        /// Which.
        path: PathBuf,
        /// Why.
        error: UsersError,
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
    proof: Proof,
    /// Sealed memory with the file of users, where they have passwords, and who is in it.
    users: Option<(OwnedFd, BTreeMap<String, Entry>)>,
}

impl std::fmt::Debug for Credentials {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Which entry of the file a user has, without its keys: another password is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry([u8; 32]);

impl Entry {
    fn of(user: &User) -> Self {
        let bytes = Sha256::new()
            .chain_update(user.iterations.to_le_bytes())
            .chain_update(user.salt)
            .chain_update(user.stored_key)
            .chain_update(user.server_key);
        Self(bytes.finalize().into())
    }
}

impl Credentials {
    /// Reads the files.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn read(files: &Files) -> Result<Self, CredentialError> {
        let mut public = vec![sealed(&read(&files.certificate, MAX_CERTIFICATES_BYTES)?)?];
        if files.proof.has_certificate() {
            public.push(sealed(&read(&files.authorities, MAX_CERTIFICATES_BYTES)?)?);
            if let Some(path) = &files.revoked {
                public.push(sealed(&read(path, MAX_REVOKED_BYTES)?)?);
            }
        } else {
            // Nobody is asked for a certificate.
            public.push(sealed(b"")?);
        }
        let users = files
            .proof
            .has_password()
            .then(|| users(&files.users))
            .transpose()?;
        let limit = u64::try_from(MAX_KEY_BYTES).unwrap_or(u64::MAX);
        let key = read(&files.key, limit)?;
        let is_open = |path: &Path| path.metadata().map_or(0, |found| found.mode()) & OTHERS != 0;
        if is_open(&files.key) {
            let path = files.key.display();
            tracing::warn!("{path} is not for its owner alone: whoever has it can be this server");
        }
        if users.is_some() && is_open(&files.users) {
            let path = files.users.display();
            tracing::warn!("{path} is not for its owner alone: whoever has it can try passwords");
        }
        Ok(Self {
            public,
            key,
            proof: files.proof,
            users,
        })
    }

    /// How clients say who they are.
    pub(super) const fn proof(&self) -> Proof {
        self.proof
    }

    /// The entry of the user of that name, if there is one.
    pub(super) fn entry(&self, name: &str) -> Option<Entry> {
        let (_, entries) = self.users.as_ref()?;
        entries.get(name).copied()
    }

    /// The file of users for one process, as [`Self::public`].
    pub(super) fn users(&self) -> io::Result<Option<OwnedFd>> {
        let users = self.users.as_ref();
        users.map(|(file, _)| again(file)).transpose()
    }

    /// The private key, as its file has it.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The other files for one process, which reads each from its beginning: no two processes share where they are.
    pub(super) fn public(&self) -> io::Result<Vec<OwnedFd>> {
        self.public.iter().map(again).collect()
    }
}

/// The same file, from its beginning.
pub(super) fn again(file: &OwnedFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn users(path: &Path) -> Result<(OwnedFd, BTreeMap<String, Entry>), CredentialError> {
    let limit = u64::try_from(MAX_USERS_BYTES).unwrap_or(u64::MAX);
    let text = read(path, limit)?;
    // As strict as the process that checks passwords by it.
    let readable = std::str::from_utf8(&text).map_err(|_| CredentialError::NoText {
        path: path.to_owned(),
    })?;
    let users = Users::parse(readable).map_err(|error| CredentialError::Users {
        path: path.to_owned(),
        error,
    })?;
    let entries = users.users.into_iter();
    let entries = entries.map(|user| (user.name.clone(), Entry::of(&user)));
    Ok((sealed(&text)?, entries.collect()))
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
pub(super) fn sealed(text: &[u8]) -> io::Result<OwnedFd> {
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
            users: write("users", "no users"),
            proof: Proof::Certificate,
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
        assert!(credentials.users().unwrap().is_none());
        assert_eq!(credentials.entry("alice"), None);
        let both = |proof| {
            Credentials::read(&Files {
                proof,
                ..files.clone()
            })
        };
        let error = both(Proof::Both).unwrap_err().to_string();
        assert!(
            error.ends_with("users: line 1 is no entry of a user"),
            "{error}"
        );
        let key = "ab".repeat(32);
        let salt = "cd".repeat(16);
        write(
            "users",
            &format!("unknown {key}\nuser alice 50000 {salt} {key} {key}\n"),
        );
        std::fs::remove_file(&files.authorities).unwrap();
        assert!(both(Proof::Both).is_err());
        let password = both(Proof::Sasl).unwrap();
        assert!(password.users().unwrap().is_some());
        let first = password.entry("alice").unwrap();
        assert_eq!(password.entry("bob"), None);
        assert_eq!(password.public().unwrap().len(), 2);
        assert_eq!(both(Proof::Sasl).unwrap().entry("alice"), Some(first));
        let other = format!(
            "unknown {key}\nuser alice 50000 {salt} {} {key}\n",
            "ef".repeat(32)
        );
        write("users", &other);
        let other = both(Proof::Sasl).unwrap().entry("alice").unwrap();
        assert_ne!(other, first, "it is another password");
        std::fs::write(&files.users, b"unknown \xff\n").unwrap();
        let error = both(Proof::Sasl).unwrap_err();
        assert!(matches!(error, CredentialError::NoText { .. }), "{error}");
        write("authorities", "two");
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
