//! What the lab keeps between runs: directories that are built once, whoever asks first.
//!
//! An entry is complete from the moment its name exists: it is built under another name and
//! renamed. One lock file per entry keeps parallel tests, threads or processes, from building it
//! twice. The cache may be deleted at any time when no test runs.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use rustix::fs::{FlockOperation, flock};

/// The lab's directory: `$REEVE_LAB_CACHE`, or `lab/` in cargo's target directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache, making its directory.
    pub fn open() -> Result<Cache> {
        let root = match std::env::var_os("REEVE_LAB_CACHE") {
            Some(path) => PathBuf::from(path),
            None => target_directory()?.join("lab"),
        };
        fs::create_dir_all(root.join("locks"))
            .with_context(|| format!("cannot make {}", root.display()))?;
        Ok(Cache { root })
    }

    /// The directory `name`, filled by `build` if it does not exist yet.
    pub fn entry(&self, name: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let path = self.root.join(name);
        if used(&path) {
            return Ok(path);
        }
        let _lock = self.lock(name)?;
        if used(&path) {
            return Ok(path);
        }
        let partial = self.root.join(format!("{name}.partial"));
        remove(&partial)?;
        fs::create_dir(&partial)?;
        build(&partial).with_context(|| format!("lab: cannot build {name}"))?;
        fs::rename(&partial, &path)?;
        Ok(path)
    }

    /// Forgets an entry that turned out not to work.
    pub fn forget(&self, name: &str) -> Result<()> {
        let _lock = self.lock(name)?;
        remove(&self.root.join(name))
    }

    /// Deletes the entries that start with `prefix` and that nobody has asked for within `age`.
    pub fn retire(&self, prefix: &str, age: Duration) -> Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(prefix) {
                continue;
            }
            let Ok(used) = entry.metadata().and_then(|metadata| metadata.modified()) else {
                continue;
            };
            if SystemTime::now()
                .duration_since(used)
                .is_ok_and(|unused| unused > age)
            {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Waits for one of `count` places, held until the returned file is dropped.
    pub fn slot(&self, count: usize) -> Result<File> {
        loop {
            for number in 0..count.max(1) {
                let file = self.lock_file(&format!("slot-{number}"))?;
                if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                    return Ok(file);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn lock(&self, name: &str) -> Result<File> {
        let file = self.lock_file(name)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    }

    fn lock_file(&self, name: &str) -> Result<File> {
        let path = self.root.join("locks").join(name);
        File::create(&path).with_context(|| format!("cannot open {}", path.display()))
    }
}

/// Names what an entry was made from. Not stable across compilers: a new one only rebuilds.
#[derive(Debug, Default)]
pub struct Key(DefaultHasher);

impl Key {
    /// Adds a value.
    #[must_use]
    pub fn with(mut self, value: impl Hash) -> Key {
        value.hash(&mut self.0);
        self
    }

    /// Adds a file by its path, size and time of change.
    pub fn with_file(self, path: &Path) -> Result<Key> {
        let metadata = fs::metadata(path).with_context(|| format!("no {}", path.display()))?;
        Ok(self
            .with(path)
            .with((metadata.len(), metadata.mtime(), metadata.mtime_nsec())))
    }

    /// Sixteen hexadecimal digits.
    #[must_use]
    pub fn digits(&self) -> String {
        format!("{:016x}", self.0.finish())
    }
}

/// Cargo marks its target directory with a cache tag, and the one per target in it: the outermost.
pub fn target_directory() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    executable
        .ancestors()
        .filter(|directory| directory.join("CACHEDIR.TAG").exists())
        .last()
        .map(Path::to_path_buf)
        .ok_or_else(|| anyhow!("lab: no cargo target directory found; set REEVE_LAB_CACHE"))
}

/// Whether an entry exists; marks it as used now, which keeps [`Cache::retire`] from it.
fn used(path: &Path) -> bool {
    File::open(path)
        .and_then(|entry| entry.set_modified(SystemTime::now()))
        .is_ok()
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
