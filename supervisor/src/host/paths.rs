//! Which files of the host a client may name.
//!
//! Runs in the supervisor, which may read everything: without this, whoever may define a domain could
//! have any file of the host read into a guest. A path is absolute, without `..`, and beneath a
//! directory of the configuration; the kernel resolves it beneath that directory (openat2(2),
//! `RESOLVE_BENEATH`), so that no symbolic link in it leads out, whatever is renamed meanwhile. Links that
//! stay beneath are followed. Where the directory itself is named by symbolic links, those are followed
//! when the configuration is read and never again: whoever may write above it cannot put another in its
//! place.
//!
//! `/boot` is not among the defaults: an initial RAM disk may hold the keys of the host's disks.
//!
//! Invariant: nothing but a regular file, or for a disk a block device, is ever opened for reading or
//! writing; a pipe or another device is only looked at (`O_PATH`), which has no effect on it.

mod error;
mod resolve;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

pub use self::error::PathError;
pub(crate) use self::resolve::resolve;
use self::resolve::{open_beneath, open_directory, resolved_within};
use super::sockets::Place;
use crate::domain::plan::{self, ImageAccess};

/// The directories of the configuration's default; in the last `virt-install` puts the kernels of a `--location`.
pub const DEFAULT_DIRECTORIES: [&str; 3] = [
    "/var/lib/reeve/images",
    "/var/lib/libvirt/images",
    "/var/lib/libvirt/boot",
];
/// The file that a refusal tells to change.
pub const CONFIG_FILE: &str = "/etc/reeve/reeve.toml";

/// What refusals call the directory of a storage pool.
const POOL: &str = "pool's target";

/// How long a file system may take to resolve the directories, while the daemon starts or reloads.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(2);

/// The directories beneath which clients may name files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedPaths {
    /// As configured: what a client's path begins with.
    directories: Vec<PathBuf>,
    /// The same without symbolic links, for those that existed when they were configured.
    resolved: Vec<PathBuf>,
    config_file: PathBuf,
}

impl AllowedPaths {
    /// Allows what is beneath these absolute directories. They need not exist yet: what is made of one
    /// later may not be a symbolic link. Refusals name [`CONFIG_FILE`].
    #[must_use]
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self::configured_in(directories, CONFIG_FILE.into())
    }

    /// As [`AllowedPaths::new`], with the configuration in another file.
    #[must_use]
    pub fn configured_in(directories: Vec<PathBuf>, config_file: PathBuf) -> Self {
        let resolved = resolved_within(&directories, RESOLVE_DEADLINE);
        Self {
            directories,
            resolved,
            config_file,
        }
    }

    /// The directories.
    #[must_use]
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Opens a regular file for reading, close-on-exec, without waiting for anything. `what` is what
    /// it is for, as "kernel".
    ///
    /// # Errors
    /// [`PathError`].
    pub fn open_read(&self, what: &str, path: &Path) -> Result<OwnedFd, PathError> {
        self.open(what, path, OFlags::RDONLY, &[FileType::RegularFile])
    }

    /// Opens an image of a disk, close-on-exec, without waiting for anything.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn open_image(
        &self,
        what: &str,
        path: &Path,
        access: ImageAccess,
    ) -> Result<OwnedFd, PathError> {
        let kinds = [FileType::RegularFile, FileType::BlockDevice];
        self.open(what, path, access.flags(), &kinds)
    }

    /// Opens a directory that is to be shared, only looked at.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn open_directory(&self, what: &str, path: &Path) -> Result<OwnedFd, PathError> {
        let allowing = self.allowing(what, path)?;
        allowing.beneath(&allowing.open()?, allowing.rest, OFlags::DIRECTORY)
    }

    /// Opens the directory in which a socket is to be made.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn place(&self, what: &str, path: &Path) -> Result<Place, PathError> {
        let allowing = self.allowing(what, path)?;
        let beneath = allowing.open()?;
        let directory = match allowing.rest.parent() {
            Some(parent) if parent != Path::new("") => {
                allowing.beneath(&beneath, parent, OFlags::DIRECTORY)?
            }
            _ => beneath,
        };
        let name = path.file_name().unwrap_or_default().to_owned();
        Ok(Place { directory, name })
    }

    /// Whether clients may name a directory as a storage pool's: by its words, nothing is looked at.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn allows_pool(&self, path: &Path) -> Result<(), PathError> {
        self.containing(POOL, path).map(|_| ())
    }

    /// Opens the directory of a storage pool, to be read: one of the allowed directories, or beneath one.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn open_pool(&self, path: &Path) -> Result<OwnedFd, PathError> {
        let allowing = self.containing(POOL, path)?;
        let found = allowing.reach(allowing.rest)?;
        // By the descriptor: the name may mean something else by now.
        let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(itself, flags, Mode::empty()).map_err(|errno| allowing.os(errno))
    }

    /// Makes the directory of a storage pool, and what is missing of the way to it (mode 0755). Whether it was
    /// made, and the directory, only looked at.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn make_pool(
        &self,
        path: &Path,
        mode: Mode,
        going: &dyn Fn() -> bool,
    ) -> Result<(OwnedFd, bool), PathError> {
        let allowing = self.containing(POOL, path)?;
        let os = |errno| allowing.os(errno);
        match allowing.reach(allowing.rest) {
            Ok(found) => return Ok((found, false)),
            Err(PathError::Os {
                errno: Errno::NOENT,
                ..
            }) => {}
            Err(error) => return Err(error),
        }
        // Whoever may write above an allowed directory could put a link in its place: none is followed.
        let mut at = open_directory(Path::new("/")).map_err(os)?;
        let whole = allowing.resolved.join(allowing.rest);
        let mut parts = whole.components().peekable();
        let mut made = false;
        while let Some(part) = parts.next() {
            let Component::Normal(name) = part else {
                continue;
            };
            let (mode, last) = match parts.peek() {
                Some(_) => (Mode::from_raw_mode(0o755), false),
                None => (mode, true),
            };
            if !going() {
                return Err(os(Errno::CANCELED));
            }
            match rustix::fs::mkdirat(&at, name, mode) {
                Ok(()) => made = last,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(os(errno)),
            }
            let look = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
            let name = Path::new(name);
            at = resolve(at.as_fd(), name, look, ResolveFlags::NO_SYMLINKS).map_err(os)?;
        }
        Ok((at, made))
    }

    /// Removes the directory of a storage pool, which is empty.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn remove_pool(&self, path: &Path, going: &dyn Fn() -> bool) -> Result<(), PathError> {
        let allowing = self.containing(POOL, path)?;
        let os = |errno| allowing.os(errno);
        let name = path.file_name().ok_or_else(|| os(Errno::INVAL))?;
        let parent = match allowing.rest.parent() {
            Some(parent) => allowing.reach(parent)?,
            // An allowed directory itself.
            None => {
                let above = allowing.resolved.parent().ok_or_else(|| os(Errno::BUSY))?;
                open_directory(above).map_err(os)?
            }
        };
        if !going() {
            return Err(os(Errno::CANCELED));
        }
        rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).map_err(os)
    }

    /// The directory that allows a path, which may be that path.
    fn containing<'a>(&'a self, what: &'a str, path: &'a Path) -> Result<Allowing<'a>, PathError> {
        let directories = self.directories.iter().zip(&self.resolved);
        let same = directories
            .clone()
            .find(|(directory, _)| *directory == path);
        match same {
            // The outermost one allows it where there is one around it.
            Some((directory, resolved)) => {
                let around = self.allowing(what, path);
                Ok(around.unwrap_or(Allowing {
                    what,
                    path,
                    directory,
                    resolved,
                    rest: Path::new(""),
                }))
            }
            None => self.allowing(what, path),
        }
    }

    fn open(
        &self,
        what: &str,
        path: &Path,
        access: OFlags,
        kinds: &[FileType],
    ) -> Result<OwnedFd, PathError> {
        let os = |errno| PathError::Os {
            what: what.to_owned(),
            path: path.to_owned(),
            errno,
        };
        let found = self.find(what, path)?;
        let stat = rustix::fs::fstat(&found).map_err(os)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kinds.contains(&kind) {
            // By the descriptor: the name may mean something else by now.
            let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
            let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK;
            return rustix::fs::open(itself, flags, Mode::empty()).map_err(os);
        }
        Err(PathError::NotAFile {
            what: what.to_owned(),
            path: path.to_owned(),
            kind: plan::called(kind),
            wanted: match kinds.contains(&FileType::BlockDevice) {
                true => "a file or block device",
                false => "a file",
            },
        })
    }

    /// The file itself, only looked at.
    fn find(&self, what: &str, path: &Path) -> Result<OwnedFd, PathError> {
        let allowing = self.allowing(what, path)?;
        allowing.beneath(&allowing.open()?, allowing.rest, OFlags::empty())
    }

    /// The directory that allows a path.
    fn allowing<'a>(&'a self, what: &'a str, path: &'a Path) -> Result<Allowing<'a>, PathError> {
        let plain = |component: Component<'_>| !matches!(component, Component::ParentDir);
        if !path.is_absolute() || !path.components().all(plain) {
            return Err(PathError::Form {
                what: what.to_owned(),
                path: path.to_owned(),
            });
        }
        // The outermost first: it lets links lead furthest.
        let directories = self.directories.iter().zip(&self.resolved);
        let allowing = directories.filter_map(|(directory, resolved)| {
            let rest = path.strip_prefix(directory).ok()?;
            Some(Allowing {
                what,
                path,
                directory,
                resolved,
                rest,
            })
            .filter(|_| rest != Path::new(""))
        });
        let outermost = allowing.min_by_key(|allowing| allowing.directory.components().count());
        outermost.ok_or_else(|| PathError::Outside {
            what: what.to_owned(),
            path: path.to_owned(),
            advice: self.advice(what, path),
        })
    }

    /// What would allow `path`: of a pool its directory, of all else the directory that it is in.
    fn advice(&self, what: &str, path: &Path) -> String {
        let wanted = match what {
            POOL => Some(path),
            _ => path.parent(),
        };
        let wanted = wanted.filter(|wanted| *wanted != Path::new("/"));
        let Some(wanted) = wanted else {
            return "move it into one of them".to_owned();
        };
        let list: Vec<String> = self
            .directories
            .iter()
            .map(PathBuf::as_path)
            .chain([wanted])
            .map(|directory| toml::Value::from(&*directory.to_string_lossy()).to_string())
            .collect();
        format!(
            "allow it with 'allowed_directories = [{}]' in {}",
            list.join(", "),
            self.config_file.display()
        )
    }
}

/// A path, and the directory beneath which it may be named.
struct Allowing<'a> {
    what: &'a str,
    path: &'a Path,
    directory: &'a Path,
    /// The directory without symbolic links.
    resolved: &'a Path,
    /// The path from there on.
    rest: &'a Path,
}

impl Allowing<'_> {
    fn os(&self, errno: Errno) -> PathError {
        PathError::Os {
            what: self.what.to_owned(),
            path: self.path.to_owned(),
            errno,
        }
    }

    /// The directory, only looked at.
    fn open(&self) -> Result<OwnedFd, PathError> {
        open_directory(self.resolved).map_err(|errno| match errno {
            Errno::LOOP => PathError::Replaced {
                what: self.what.to_owned(),
                path: self.path.to_owned(),
                directory: self.directory.to_owned(),
            },
            errno => self.os(errno),
        })
    }

    /// A directory beneath the directory, or itself, only looked at.
    fn reach(&self, rest: &Path) -> Result<OwnedFd, PathError> {
        let directory = self.open()?;
        match rest == Path::new("") {
            true => Ok(directory),
            false => self.beneath(&directory, rest, OFlags::DIRECTORY),
        }
    }

    /// What is beneath the directory, only looked at.
    fn beneath(
        &self,
        directory: &OwnedFd,
        rest: &Path,
        flags: OFlags,
    ) -> Result<OwnedFd, PathError> {
        open_beneath(directory, rest, flags).map_err(|errno| match errno {
            Errno::XDEV => PathError::Escapes {
                what: self.what.to_owned(),
                path: self.path.to_owned(),
                directory: self.directory.to_owned(),
            },
            errno => self.os(errno),
        })
    }
}

impl plan::PathPolicy for AllowedPaths {
    fn open_read(&self, what: &str, path: &Path) -> Result<OwnedFd, plan::PathError> {
        Self::open_read(self, what, path).map_err(Into::into)
    }

    fn open_image(
        &self,
        what: &str,
        path: &Path,
        access: ImageAccess,
    ) -> Result<OwnedFd, plan::PathError> {
        Self::open_image(self, what, path, access).map_err(Into::into)
    }

    fn open_directory(&self, what: &str, path: &Path) -> Result<OwnedFd, plan::PathError> {
        Self::open_directory(self, what, path).map_err(Into::into)
    }

    fn place(&self, what: &str, path: &Path) -> Result<Place, plan::PathError> {
        Self::place(self, what, path).map_err(Into::into)
    }
}

#[cfg(test)]
mod tests;
