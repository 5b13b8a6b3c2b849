//! The thread that writes the domains' log files, so that a disk which stalls holds up no actor.
//!
//! Its queue is bounded: a line that finds it full is dropped and counted, a piece of a console waits
//! at its sender, whose worker then overwrites its oldest output.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use reeve_ipc::model::{DomainName, DomainUuid};

use super::{DomainLog, LogPaths, RotatingFile};

/// Pieces that may wait.
const QUEUE: usize = 1024;
/// Files that are open at once; the one that was used least lately is closed for another.
const MAX_OPEN: usize = 256;

/// How large logs grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// Bytes of a domain's log before it is rotated.
    pub log_bytes: u64,
    /// Rotated logs that are kept.
    pub log_keep: u32,
    /// Bytes of a console's log before it is rotated.
    pub console_bytes: u64,
    /// Rotated console logs that are kept.
    pub console_keep: u32,
}

#[derive(Debug)]
enum Item {
    Line(Owner, &'static str, String),
    Console(Owner, Vec<u8>),
    Bounds(LogBounds),
}

/// Whose file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owner {
    name: DomainName,
    uuid: DomainUuid,
}

/// The way to the thread; cheap to clone. The thread ends with the last of them.
#[derive(Debug, Clone)]
pub struct LogFiles {
    queue: SyncSender<Item>,
    directory: Arc<Path>,
    dropped: Arc<AtomicU64>,
}

impl LogFiles {
    /// Starts the thread for the files of `directory`, which is made if it does not exist.
    ///
    /// # Errors
    /// No thread, or no directory.
    pub fn start(directory: &Path, bounds: LogBounds) -> io::Result<Self> {
        // What guests write is nobody else's; and the directory may be the first of the state's, which others pass
        // through.
        let mut make = DirBuilder::new();
        make.recursive(true);
        if let Some(parent) = directory.parent() {
            make.mode(0o711).create(parent)?;
        }
        make.mode(0o700).create(directory)?;
        let (queue, items) = sync_channel(QUEUE);
        let directory: Arc<Path> = directory.into();
        let files = Files {
            directory: Arc::clone(&directory),
            bounds,
            open: HashMap::new(),
            turn: 0,
        };
        std::thread::Builder::new()
            .name("log-files".to_owned())
            .spawn(move || files.write(&items))?;
        Ok(Self {
            queue,
            directory,
            dropped: Arc::default(),
        })
    }

    /// Where a domain's logs are.
    #[must_use]
    pub fn paths(&self, name: &DomainName, uuid: DomainUuid) -> LogPaths {
        LogPaths::new(&self.directory, name, uuid)
    }

    /// Writes a line into a domain's log, or drops it.
    pub fn line(&self, name: &DomainName, uuid: DomainUuid, source: &'static str, text: String) {
        let owner = Owner {
            name: name.clone(),
            uuid,
        };
        if self
            .queue
            .try_send(Item::Line(owner, source, text))
            .is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes a piece of a console; gives it back when there is no room for it now.
    ///
    /// # Errors
    /// The piece.
    pub fn console(
        &self,
        name: &DomainName,
        uuid: DomainUuid,
        bytes: Vec<u8>,
    ) -> Result<(), Vec<u8>> {
        let owner = Owner {
            name: name.clone(),
            uuid,
        };
        match self.queue.try_send(Item::Console(owner, bytes)) {
            Err(TrySendError::Full(Item::Console(_, bytes))) => Err(bytes),
            // Without the thread there is nobody to wait for.
            _ => Ok(()),
        }
    }

    /// Other bounds from now on.
    pub fn set_bounds(&self, bounds: LogBounds) {
        let _ = self.queue.try_send(Item::Bounds(bounds));
    }

    /// Lines that were dropped so far.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

enum Open {
    Log(DomainLog),
    /// With whether it was told that it cannot be written.
    Console(RotatingFile, bool),
}

struct Files {
    directory: Arc<Path>,
    bounds: LogBounds,
    open: HashMap<PathBuf, (u64, Open)>,
    turn: u64,
}

impl Files {
    fn write(mut self, items: &Receiver<Item>) {
        for item in items {
            match item {
                Item::Line(owner, source, text) => {
                    let path = self.paths(&owner).log;
                    if let Open::Log(log) = self.file(path, false) {
                        log.line(source, &text);
                    }
                }
                Item::Console(owner, bytes) => {
                    let path = self.paths(&owner).console;
                    if let Open::Console(file, told) = self.file(path, true) {
                        let before = file.dropped_bytes();
                        file.write(&bytes);
                        let lost = file.dropped_bytes() > before;
                        // Once, until it can be written again.
                        if lost && !*told {
                            let (domain, uuid) = (&owner.name, owner.uuid);
                            tracing::warn!(%domain, %uuid, "the console's log cannot be written: what the guest says is lost until it can");
                        }
                        *told = lost;
                    }
                }
                Item::Bounds(bounds) => {
                    self.bounds = bounds;
                    // Opened again with the new ones when they are next written.
                    self.open.clear();
                }
            }
        }
    }

    fn paths(&self, owner: &Owner) -> LogPaths {
        LogPaths::new(&self.directory, &owner.name, owner.uuid)
    }

    fn file(&mut self, path: PathBuf, console: bool) -> &mut Open {
        self.turn += 1;
        if !self.open.contains_key(&path) && self.open.len() >= MAX_OPEN {
            let oldest = self.open.iter().min_by_key(|(_, (turn, _))| *turn);
            if let Some(oldest) = oldest.map(|(path, _)| path.clone()) {
                self.open.remove(&oldest);
            }
        }
        let bounds = self.bounds;
        let entry = self.open.entry(path.clone()).or_insert_with(|| {
            let open = if console {
                let (bytes, keep) = (bounds.console_bytes, bounds.console_keep);
                Open::Console(RotatingFile::open_or_drop(&path, bytes, keep), false)
            } else {
                let (bytes, keep) = (bounds.log_bytes, bounds.log_keep);
                let file = RotatingFile::open_or_drop(&path, bytes, keep);
                Open::Log(DomainLog::new(file))
            };
            (0, open)
        });
        entry.0 = self.turn;
        &mut entry.1
    }
}
