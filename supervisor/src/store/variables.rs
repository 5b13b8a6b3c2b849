//! The variables of UEFI firmware: one file a domain, made from a template, and its worker's from then on.
//!
//! ```text
//!   <state>/variables/<uuid>.fd     as long as the domain is defined, and longer if it is asked to be kept
//! ```
//! The file is made whole, by a temporary that is renamed, so a start that dies leaves a store as the template is, or
//! none. It has no holes, and its length stays: what a worker writes into it later takes no room of the disk, but where
//! the file system copies on write. A worker gets it open for reading and writing, and may write anything into it: it is
//! not read here, and nothing here depends on what is in it. Who calls this holds the domain: nobody makes, resets or
//! removes a store that a worker has open.
//!
//! Runs on the runtime's blocking threads, because it waits for the disk.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use reeve_ipc::model::DomainUuid;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::atomic::{self, How};
use super::error::StoreError;

const VARIABLES: &str = "variables";
/// What a store is whole pages of.
const PAGE_BYTES: u64 = 4096;
/// The most bytes of a store: what a worker's flash takes.
const MAX_BYTES: u64 = (1 << 20) - PAGE_BYTES;

/// Why there is no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VariablesError {
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The template cannot be read.
    #[error("cannot read the template of the firmware's variables: {0}")]
    Template(Errno),
    /// The template is something else.
    #[error(
        "a template of {0} bytes is none of a firmware's variables: it is no multiple of 4096 up to 1020 KiB"
    )]
    TemplateSize(u64),
    /// What is in the store's place is no regular file.
    #[error("{} is no regular file", .0.display())]
    NotAFile(PathBuf),
}

/// The stores of one instance.
#[derive(Debug)]
pub struct VariableStores {
    path: PathBuf,
    directory: OwnedFd,
}

impl VariableStores {
    /// Opens them in the state directory, whose lock is held, and removes temporaries that were left over.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        let path = state.join(VARIABLES);
        let parent = atomic::open_directory(state)?;
        match rustix::fs::mkdirat(&parent, VARIABLES, Mode::from_raw_mode(0o700)) {
            Ok(()) => atomic::synchronise(parent.as_fd(), state)?,
            // Read-only, perhaps with a directory that can be read: opening it tells.
            Err(Errno::EXIST | Errno::ROFS) => {}
            Err(errno) => return Err(StoreError::io("make", &path)(errno)),
        }
        let directory = atomic::open_directory(&path)?;
        for name in atomic::names(directory.as_fd(), &path)? {
            if atomic::is_temporary(&name) {
                atomic::sweep(directory.as_fd(), &name);
            }
        }
        Ok(Self { path, directory })
    }

    /// Makes the store of a domain that has none, as `template` is; durable on return. One that is there stays as its
    /// guest left it.
    ///
    /// # Errors
    /// [`VariablesError`]; there is none then.
    pub fn make(&self, uuid: DomainUuid, template: &File) -> Result<(), VariablesError> {
        match self.put(uuid, template, true) {
            Err(VariablesError::Store(StoreError::Io {
                errno: Errno::EXIST,
                ..
            })) => Ok(()),
            made => made,
        }
    }

    /// Makes the store of a domain as `template` is, whatever was in it; durable on return.
    ///
    /// # Errors
    /// [`VariablesError`]; what was there stands, unless only the directory could not be synchronised.
    pub fn reset(&self, uuid: DomainUuid, template: &File) -> Result<(), VariablesError> {
        self.put(uuid, template, false)
    }

    fn put(&self, uuid: DomainUuid, template: &File, only_new: bool) -> Result<(), VariablesError> {
        let name = file_name(uuid);
        if only_new && atomic::exists(self.directory.as_fd(), &name) {
            return Ok(());
        }
        let bytes = read(template)?;
        let how = How {
            durable: true,
            only_new,
        };
        let directory = self.directory.as_fd();
        atomic::replace(directory, &self.path, &name, &bytes, how, |_| ())?;
        Ok(())
    }

    /// Opens the store of a domain for its worker; none if there is none.
    ///
    /// # Errors
    /// [`VariablesError::NotAFile`], or it cannot be opened.
    pub fn file(&self, uuid: DomainUuid) -> Result<Option<File>, VariablesError> {
        let name = file_name(uuid);
        let path = self.path.join(&name);
        // A pipe of this name must not hold the supervisor up.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = rustix::fs::openat(
            &self.directory,
            &name,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let file = match opened {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::ISDIR) => return Err(VariablesError::NotAFile(path)),
            Err(errno) => return Err(StoreError::io("open", &path)(errno).into()),
        };
        let stat = rustix::fs::fstat(&file).map_err(StoreError::io("examine", &path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(VariablesError::NotAFile(path));
        }
        Ok(Some(file.into()))
    }

    /// Removes the store of a domain; durable on return. One that is not there is removed.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove(&self, uuid: DomainUuid) -> Result<(), StoreError> {
        let name = file_name(uuid);
        match rustix::fs::unlinkat(&self.directory, &name, AtFlags::empty()) {
            Ok(()) => atomic::synchronise(self.directory.as_fd(), &self.path),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(StoreError::io("remove", &self.path.join(&name))(errno)),
        }
    }
}

fn file_name(uuid: DomainUuid) -> String {
    format!("{uuid}.fd")
}

/// The template's bytes.
fn read(template: &File) -> Result<Vec<u8>, VariablesError> {
    let refuse = |error: std::io::Error| {
        VariablesError::Template(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    let metadata = template.metadata().map_err(refuse)?;
    let size = metadata.len();
    if !metadata.is_file() || size == 0 || size % PAGE_BYTES != 0 || size > MAX_BYTES {
        return Err(VariablesError::TemplateSize(size));
    }
    let length = usize::try_from(size).map_err(|_| VariablesError::TemplateSize(size))?;
    let mut bytes = vec![0; length];
    template.read_exact_at(&mut bytes, 0).map_err(refuse)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::test_disk::on_small_disk;
    use super::*;

    fn uuid(byte: u8) -> DomainUuid {
        DomainUuid(uuid::Uuid::from_bytes([byte; 16]))
    }

    fn template(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_store_is_the_template_until_the_guest_writes_and_stays() {
        let state = tempfile::tempdir().unwrap();
        let stores = VariableStores::open(state.path()).unwrap();
        assert!(stores.file(uuid(1)).unwrap().is_none());
        let empty = template(&[7; 8192]);
        stores.make(uuid(1), &empty).unwrap();
        let file = stores.file(uuid(1)).unwrap().unwrap();
        assert_eq!(content(&file), [7; 8192]);
        file.write_all_at(b"variable", 4).unwrap();
        let path = state.path().join("variables").join(file_name(uuid(1)));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        // Another start, of another supervisor.
        drop((stores, file));
        let stores = VariableStores::open(state.path()).unwrap();
        stores.make(uuid(1), &empty).unwrap();
        let file = stores.file(uuid(1)).unwrap().unwrap();
        assert_eq!(content(&file)[4..12], *b"variable");
        assert!(stores.file(uuid(2)).unwrap().is_none());

        stores.reset(uuid(1), &empty).unwrap();
        let file = stores.file(uuid(1)).unwrap().unwrap();
        assert_eq!(content(&file), [7; 8192]);
        stores.remove(uuid(1)).unwrap();
        stores.remove(uuid(1)).unwrap();
        assert!(stores.file(uuid(1)).unwrap().is_none());
    }

    #[test]
    fn a_reset_makes_a_store_that_was_not_there() {
        let state = tempfile::tempdir().unwrap();
        let stores = VariableStores::open(state.path()).unwrap();
        stores.reset(uuid(1), &template(&[1; 4096])).unwrap();
        assert!(stores.file(uuid(1)).unwrap().is_some());
    }

    #[test]
    fn what_is_no_template_makes_no_store() {
        let state = tempfile::tempdir().unwrap();
        let stores = VariableStores::open(state.path()).unwrap();
        for size in [0, 1, 4095, 4097, 1 << 20] {
            let refused = stores.make(uuid(1), &template(&vec![0; size]));
            assert_eq!(refused, Err(VariablesError::TemplateSize(size as u64)));
        }
        let device = File::open("/dev/zero").unwrap();
        assert_eq!(
            stores.make(uuid(1), &device),
            Err(VariablesError::TemplateSize(0))
        );
        assert!(stores.file(uuid(1)).unwrap().is_none());
    }

    #[test]
    fn a_temporary_that_a_dead_supervisor_left_is_no_store() {
        let state = tempfile::tempdir().unwrap();
        drop(VariableStores::open(state.path()).unwrap());
        let path = state.path().join("variables");
        let name = format!(".{}.0.tmp", file_name(uuid(1)));
        std::fs::write(path.join(&name), "half").unwrap();
        let stores = VariableStores::open(state.path()).unwrap();
        assert!(!path.join(&name).exists());
        assert!(stores.file(uuid(1)).unwrap().is_none());
    }

    #[test]
    fn what_is_no_file_is_given_to_no_worker() {
        let state = tempfile::tempdir().unwrap();
        let stores = VariableStores::open(state.path()).unwrap();
        let path = state.path().join("variables");
        symlink("/dev/null", path.join(file_name(uuid(1)))).unwrap();
        std::fs::create_dir(path.join(file_name(uuid(2)))).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path.join(file_name(uuid(3))),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        for number in 1..=3 {
            let refused = stores.file(uuid(number));
            assert!(matches!(refused, Err(VariablesError::NotAFile(_))));
        }
    }

    #[test]
    fn a_full_disk_leaves_the_store_that_was_there() {
        let state = tempfile::tempdir().unwrap();
        on_small_disk(state.path(), "64k", || {
            let stores = VariableStores::open(state.path()).unwrap();
            stores.make(uuid(1), &template(&[1; 4096])).unwrap();
            let large = template(&[2; 128 << 10]);
            for result in [stores.reset(uuid(1), &large), stores.make(uuid(2), &large)] {
                assert!(
                    matches!(
                        result,
                        Err(VariablesError::Store(StoreError::Io {
                            errno: Errno::NOSPC,
                            ..
                        }))
                    ),
                    "{result:?}"
                );
            }
            let file = stores.file(uuid(1)).unwrap().unwrap();
            assert_eq!(content(&file), [1; 4096]);
            assert!(stores.file(uuid(2)).unwrap().is_none());
            let names = std::fs::read_dir(state.path().join("variables")).unwrap();
            assert_eq!(names.count(), 1);
        });
    }
}
