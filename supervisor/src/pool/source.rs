//! A volume that another one is made of, opened: all that waits for its file system before bytes are copied, on a thread
//! of its own pool.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::storage::VolumeFormat;
use reeve_ipc::image::{BackingNote, ImageFacts};
use reeve_ipc::model::{Layer, NewVolume, Pool};
use reeve_ipc::spec::DiskFormat;

use super::chain::{Chained, as_stated, chain, disk_format};
use super::host::{Held, Host};
use super::make::Original;
use super::scan::Prober;
use super::view::backing_path;
use crate::host::image_lock::ImageUse;

/// What is copied.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: OwnedFd,
    pub(super) format: DiskFormat,
    /// Bytes as a guest sees it.
    pub(super) size: u64,
    /// Its bytes are those of the copy.
    pub(super) as_it_is: bool,
    /// What it builds upon, where the copy is made of that too.
    pub(super) chained: Chained,
}

impl Source {
    /// Opens what `new`, in the pool `to`, is made of.
    pub(super) fn open(
        host: &Host,
        from: &Original,
        to: &Pool,
        new: &NewVolume,
    ) -> Result<Self, ApiError> {
        let Original {
            pool,
            name,
            format: stated,
        } = from;
        let held = Held { pool, name };
        let directory = host.directory(pool)?;
        // Nobody writes it meanwhile.
        let file = held.open(directory.as_fd(), false, Some(ImageUse::Read))?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| held.os("look at", errno))?;
        let facts = match stated {
            Some(DiskFormat::Raw) => None,
            _ => {
                let again = rustix::io::fcntl_dupfd_cloexec(&file, 0);
                let again = again.map_err(|errno| held.os("open", errno))?;
                Prober::new(host).probe(vec![again]).into_iter().next()
            }
        };
        let facts = facts.unwrap_or_else(|| ImageFacts::of(VolumeFormat::Raw));
        as_stated(&held, &facts, *stated)?;
        if let Some(why) = &facts.unreadable {
            return Err(held.error(ApiErrorCode::Unsupported, why));
        }
        let Some(format) = disk_format(&facts) else {
            let why = format!(
                "it is of format {}, which is not copied",
                facts.format.word()
            );
            return Err(held.error(ApiErrorCode::Unsupported, &why));
        };
        let size = facts
            .size
            .unwrap_or(u64::try_from(stat.st_size).unwrap_or(0));
        let as_it_is = format == new.format && stays_true(&facts, &pool.target, &to.target);
        let grows = new.capacity.is_some_and(|capacity| capacity > size);
        let chained = match as_it_is && !grows {
            true => Chained::default(),
            false => {
                let layer = Layer {
                    path: pool.path_of(name),
                    format,
                };
                let made = Held {
                    pool: to,
                    name: &new.name,
                };
                chain(host, &made, directory.as_fd(), &layer, file.as_fd())?
            }
        };
        Ok(Self {
            file,
            format,
            size,
            as_it_is,
            chained,
        })
    }
}

/// Whether the name of what an image builds upon means the same in another directory.
fn stays_true(facts: &ImageFacts, of: &Path, other: &Path) -> bool {
    let Some(BackingNote { name, .. }) = &facts.backing else {
        return true;
    };
    backing_path(name, of) == backing_path(name, other)
}
