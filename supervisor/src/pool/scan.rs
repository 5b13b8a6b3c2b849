//! Looks what volumes a directory has.
//!
//! The directory is read once; each entry is looked at beneath it, through no link that leads out; the first
//! bytes of files that are new or have changed are read by a jailed process, many by one. Whatever is in the
//! directory, one read of it is bounded: in entries, in processes that hostile images may kill, and in time for each
//! batch.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::storage::{VolumeFormat, VolumeKind};
use reeve_ipc::image::{ImageFacts, MAX_PROBED};
use reeve_ipc::model::{Pool, UNFINISHED_PREFIX, VolumeName};
use rustix::fs::FileType;

use super::host::{Host, examine, find, open};
use super::view::{Entry, Stat, Volumes};
use crate::host::image_worker::{ImageWorker, Purpose};
use crate::host::reason;

/// Volumes that a pool has at most; what is more is passed over.
pub const MAX_VOLUMES: usize = 65_536;
/// Entries of any kind that a directory may have: reading them is bounded, whatever somebody puts there.
const MAX_ENTRIES: usize = 4 * MAX_VOLUMES;
/// Processes that may die of the images of one directory before the rest is left unread.
const MAX_DEATHS: u32 = 16;

/// What was found.
#[derive(Debug, Default)]
pub struct Scan {
    /// The volumes.
    pub volumes: Volumes,
    /// Entries that are none.
    pub passed_over: u32,
}

/// Reads a pool's directory. What is known of a file that has not changed stays.
pub(super) fn scan(
    host: &Host,
    pool: &Pool,
    directory: BorrowedFd<'_>,
    known: &Volumes,
) -> Result<Scan, ApiError> {
    let names = names(host, pool, directory, MAX_ENTRIES)?;
    let mut scan = Scan {
        passed_over: names.passed_over,
        ..Scan::default()
    };
    let mut prober = Prober::new(host);
    let mut batch: Vec<(VolumeName, Stat, OwnedFd)> = Vec::new();
    for name in names.names {
        host.go_on(&pool.name)?;
        if scan.volumes.len() + batch.len() >= MAX_VOLUMES {
            scan.passed_over = scan.passed_over.saturating_add(1);
            continue;
        }
        match look(directory, &name, known.get(&name)) {
            Looked::Known(entry) => {
                scan.volumes.insert(name, entry);
            }
            Looked::New(stat, file) => {
                batch.push((name, stat, file));
                if batch.len() == MAX_PROBED {
                    probe(&mut prober, std::mem::take(&mut batch), &mut scan.volumes);
                }
            }
            Looked::None => scan.passed_over = scan.passed_over.saturating_add(1),
        }
    }
    probe(&mut prober, batch, &mut scan.volumes);
    // What a reader that was ended had not read is not known.
    host.go_on(&pool.name)?;
    Ok(scan)
}

/// What a directory has, in the order of names: of more than can be had, the same are had each time.
#[derive(Debug, Default)]
struct Names {
    names: Vec<VolumeName>,
    /// Entries whose names are none of volumes.
    passed_over: u32,
}

fn names(
    host: &Host,
    pool: &Pool,
    directory: BorrowedFd<'_>,
    most: usize,
) -> Result<Names, ApiError> {
    let target = pool.target.display();
    let error =
        |why: String| ApiError::new(ApiErrorCode::Host, format!("pool '{}': {why}", pool.name));
    let failed = |errno| {
        error(format!(
            "cannot read its target '{target}': {}",
            reason(errno)
        ))
    };
    let mut found = Names::default();
    for (number, entry) in rustix::fs::Dir::read_from(directory)
        .map_err(failed)?
        .enumerate()
    {
        let entry = entry.map_err(failed)?;
        host.go_on(&pool.name)?;
        // And those of itself and of what it is in.
        if number >= most.saturating_add(2) {
            let error = error(format!(
                "its target '{target}' has more than {most} entries; move what is no image elsewhere"
            ));
            tracing::error!("{error}");
            return Err(error);
        }
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match name.to_str().ok().and_then(|name| name.parse().ok()) {
            Some(name) if is_unfinished(&name) => {}
            Some(name) => found.names.push(name),
            None => found.passed_over = found.passed_over.saturating_add(1),
        }
    }
    found.names.sort();
    Ok(found)
}

/// Whether a name is of one of our own unfinished files.
pub(super) fn is_unfinished(name: &VolumeName) -> bool {
    name.as_str().starts_with(UNFINISHED_PREFIX)
}

/// Looks at one volume.
pub(super) fn one(
    host: &Host,
    directory: BorrowedFd<'_>,
    name: &VolumeName,
    known: Option<&Arc<Entry>>,
) -> Option<Arc<Entry>> {
    if is_unfinished(name) {
        return None;
    }
    match look(directory, name, known) {
        Looked::Known(entry) => Some(entry),
        Looked::New(stat, file) => {
            let facts = Prober::new(host).probe(vec![file]);
            let facts = facts.into_iter().next()?;
            let kind = VolumeKind::File;
            Some(Arc::new(Entry { kind, stat, facts }))
        }
        Looked::None => None,
    }
}

enum Looked {
    /// All is known.
    Known(Arc<Entry>),
    /// A file whose first bytes are to be read.
    New(Stat, OwnedFd),
    /// It is no volume.
    None,
}

fn look(directory: BorrowedFd<'_>, name: &VolumeName, known: Option<&Arc<Entry>>) -> Looked {
    let Ok(found) = find(directory, name) else {
        return Looked::None;
    };
    let Ok((kind, stat)) = examine(found.as_fd()) else {
        return Looked::None;
    };
    let entry = |kind, facts| Looked::Known(Arc::new(Entry { kind, stat, facts }));
    match kind {
        FileType::Directory => entry(
            VolumeKind::Directory,
            ImageFacts::of(VolumeFormat::Directory),
        ),
        FileType::RegularFile => {
            // That it could not be read may have had another reason than the file.
            let known = known.filter(|before| before.facts.unreadable.is_none());
            if let Some(before) = known.filter(|before| !stat.may_differ(&before.stat)) {
                return match before.stat == stat {
                    true => Looked::Known(Arc::clone(before)),
                    false => entry(VolumeKind::File, before.facts.clone()),
                };
            }
            match open(found.as_fd(), false) {
                Ok(file) => Looked::New(stat, file),
                Err(errno) => {
                    let why = format!("it cannot be opened: {}", reason(errno));
                    entry(VolumeKind::File, unreadable(why))
                }
            }
        }
        _ => Looked::None,
    }
}

fn unreadable(why: String) -> ImageFacts {
    ImageFacts {
        unreadable: Some(why),
        ..ImageFacts::of(VolumeFormat::Raw)
    }
}

fn probe(prober: &mut Prober<'_>, batch: Vec<(VolumeName, Stat, OwnedFd)>, into: &mut Volumes) {
    let mut about = Vec::new();
    let mut files = Vec::new();
    for (name, stat, file) in batch {
        about.push((name, stat));
        files.push(file);
    }
    let facts = prober.probe(files);
    for ((name, stat), facts) in about.into_iter().zip(facts) {
        let kind = VolumeKind::File;
        into.insert(name, Arc::new(Entry { kind, stat, facts }));
    }
}

/// Reads first bytes by one process after another: a new one only where an image was the end of the last.
pub(super) struct Prober<'a> {
    host: &'a Host,
    worker: Option<ImageWorker>,
    deaths: u32,
}

impl<'a> Prober<'a> {
    pub(super) const fn new(host: &'a Host) -> Self {
        Self {
            host,
            worker: None,
            deaths: 0,
        }
    }

    /// What each file is, in their order; at most [`MAX_PROBED`].
    pub(super) fn probe(&mut self, files: Vec<OwnedFd>) -> Vec<ImageFacts> {
        match self.ask(&files) {
            Ok(facts) => facts,
            Err(why) if files.len() < 2 => {
                let facts = files.iter().map(|_| unreadable(why.clone()));
                facts.collect()
            }
            // Which of them it was is found out one by one.
            Err(_) => {
                let each = files.into_iter().flat_map(|file| self.probe(vec![file]));
                each.collect()
            }
        }
    }

    fn ask(&mut self, files: &[OwnedFd]) -> Result<Vec<ImageFacts>, String> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        if self.deaths >= MAX_DEATHS {
            return Err("too many images were the end of the process that reads them".to_owned());
        }
        let worker = match self.worker.take() {
            Some(worker) => Ok(worker),
            None => self.host.worker(Purpose::Read),
        };
        let asked = worker.and_then(|worker| {
            let facts = worker.probe(files)?;
            self.worker = Some(worker);
            Ok(facts)
        });
        asked.map_err(|error| {
            self.deaths += 1;
            error.to_string()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::tests::Stage;

    #[test]
    fn a_directory_of_too_many_entries_is_refused_in_words_and_names_come_in_their_order() {
        let stage = Stage::new();
        let pool = stage.pool(1, "images");
        for name in ["c", "a", "b", "\u{1}", &format!("{UNFINISHED_PREFIX}1")] {
            std::fs::write(pool.target.join(name), "").unwrap();
        }
        let read = |most| {
            let directory = OwnedFd::from(std::fs::File::open(&pool.target).unwrap());
            names(&stage.host, &pool, directory.as_fd(), most)
        };
        let found = read(5).unwrap();
        let named: Vec<&str> = found.names.iter().map(VolumeName::as_str).collect();
        assert_eq!((named, found.passed_over), (vec!["a", "b", "c"], 1));
        let error = read(4).unwrap_err();
        assert_eq!(error.code, ApiErrorCode::Host);
        assert!(error.message.contains("more than 4 entries"), "{error}");
    }
}
