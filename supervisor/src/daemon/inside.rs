//! What is inside of a domain: bytes of its memory and disks, the sizes of these, and the host's end of a channel.
//!
//! The worker tells of what it has. Files are looked at, and sockets connected to, as the policy lets definitions
//! name them, on threads that may wait for a file system: a few at a time.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use reeve_ipc::api::call::{
    AnswerBody, DiskSize, DomainChannel, DomainDiskSizeGet, DomainPeek, DomainRef, MAX_PEEK_BYTES,
    PeekAt,
};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::model::{Disk, DiskTarget, Domain};
use reeve_ipc::request::PeekPlace;
use reeve_ipc::spec::{DiskFormat, PciSlot};
use rustix::fs::{FileType, SeekFrom};

use super::service::failed;
use super::{Daemon, Driven};
use crate::api::Answer;
use crate::domain::actor::SessionId;
use crate::domain::plan::{ImageAccess, PathError, PathPolicy};
use crate::domain::shell::View;
use crate::host::reason;
use crate::host::sockets::{self, SocketError};

/// Bytes of a block as `stat` counts them.
const STAT_BLOCK: u64 = 512;

impl Daemon {
    pub(super) fn peek(&self, peek: DomainPeek) -> Answer {
        let DomainPeek {
            domain,
            at,
            offset,
            length,
        } = peek;
        if !(1..=MAX_PEEK_BYTES).contains(&length) {
            let why = format!("{length} bytes: they are 1 to {MAX_PEEK_BYTES} at a time");
            return refused(ApiErrorCode::InvalidArgument, why);
        }
        let place = match at {
            PeekAt::Memory => PeekPlace::Memory,
            PeekAt::Disk(target) => match self.slot(&domain, &target) {
                Ok(slot) => PeekPlace::Disk(slot),
                Err(error) => return Answer::Now(Err(error)),
            },
        };
        self.with_worker(&domain, move |instance| async move {
            let bytes = instance.peek(place, offset, length).await.map_err(failed)?;
            Ok((AnswerBody::DomainPeek(bytes), Vec::new()))
        })
    }

    /// Where a disk of a domain that runs is.
    fn slot(&self, domain: &DomainRef, target: &DiskTarget) -> Result<PciSlot, ApiError> {
        let view = self.registry.view(domain)?;
        let Some(live) = &view.live else {
            return Err(off(&view));
        };
        let slot = disk(live, target)?.address;
        // One that runs has every address.
        slot.ok_or_else(|| ApiError::new(ApiErrorCode::NoDevice, "the disk has no place"))
    }

    pub(super) fn disk_size(
        self: &Arc<Self>,
        session: SessionId,
        get: DomainDiskSizeGet,
    ) -> Answer {
        let DomainDiskSizeGet {
            domain,
            disk: target,
        } = get;
        let view = match self.registry.view(&domain) {
            Ok(view) => view,
            Err(error) => return Answer::Now(Err(error)),
        };
        let found = definition(&view).and_then(|domain| disk(domain, &target).cloned());
        let disk = match found {
            Ok(disk) => disk,
            Err(error) => return Answer::Now(Err(error)),
        };
        if self.has_nothing_real() {
            let why = "the disks of the test hypervisor have no files";
            return refused(ApiErrorCode::Unsupported, why.to_owned());
        }
        let daemon = Arc::clone(self);
        Answer::Later(Box::pin(async move {
            let size = daemon.size_of(session, &view, &disk).await?;
            Ok((AnswerBody::DomainDiskSizeGet(size), Vec::new()))
        }))
    }

    async fn size_of(
        &self,
        session: SessionId,
        view: &View,
        disk: &Disk,
    ) -> Result<DiskSize, ApiError> {
        let Some(image) = disk.image.clone() else {
            return Ok(DiskSize::default());
        };
        let paths = Arc::clone(&self.settings.configured.paths);
        let what = format!("image of disk '{}'", disk.target);
        let looked = self
            .looks
            .files
            .look(session, move || file_size(&*paths, &what, image.path))
            .await??;
        let (allocation, physical) = looked;
        let slot: Option<PciSlot> = disk.address.filter(|_| view.live.is_some());
        let capacity = match (view.instance.clone(), slot, image.format) {
            (Some(instance), Some(slot), _) => instance.disk_bytes(slot).await.map_err(failed)?,
            (_, _, DiskFormat::Raw) => physical,
            (_, _, DiskFormat::Qcow2) => {
                let why = "the size of a qcow2 disk is known while its domain runs only";
                return Err(ApiError::new(ApiErrorCode::Unsupported, why));
            }
        };
        Ok(DiskSize {
            capacity,
            allocation,
            physical,
        })
    }

    /// Whether its domains have neither files nor sockets.
    const fn has_nothing_real(&self) -> bool {
        matches!(self.settings.driven, Driven::TestHypervisor)
    }

    pub(super) fn channel(&self, session: SessionId, call: DomainChannel) -> Answer {
        let view = match self.registry.view(&call.domain) {
            Ok(view) => view,
            Err(error) => return Answer::Now(Err(error)),
        };
        let name = &view.details.summary.name;
        let Some(live) = &view.live else {
            return Answer::Now(Err(off(&view)));
        };
        let mut channels = live.devices.channels.iter();
        let Some(channel) = channels.find(|channel| channel.name == call.channel) else {
            let asked: String = call.channel.chars().take(64).collect();
            let why = format!("domain '{name}' has no channel '{asked}'");
            return refused(ApiErrorCode::NoDevice, why);
        };
        if self.has_nothing_real() {
            // What is at its path is another's.
            let why = "the channels of the test hypervisor lead nowhere";
            return refused(ApiErrorCode::Unsupported, why.to_owned());
        }
        let path = channel.path.clone();
        let places = self.looks.channels.clone();
        let paths = Arc::clone(&self.settings.configured.paths);
        Answer::Later(Box::pin(async move {
            let connect = move || sockets::connect(&*paths, "channel", &path);
            let stream = places.look(session, connect).await?.map_err(|error| {
                let code = match error {
                    SocketError::Forbidden(_) => ApiErrorCode::PathRefused,
                    _ => ApiErrorCode::Host,
                };
                ApiError::new(code, error.to_string())
            })?;
            Ok((AnswerBody::DomainChannel(()), vec![stream]))
        }))
    }
}

fn refused(code: ApiErrorCode, why: String) -> Answer {
    Answer::Now(Err(ApiError::new(code, why)))
}

fn off(view: &View) -> ApiError {
    let name = &view.details.summary.name;
    let why = format!("domain '{name}': it is not running; start it first");
    ApiError::new(ApiErrorCode::WrongState, why)
}

/// The definition that a domain runs with, or else the one that is kept.
fn definition(view: &View) -> Result<&Domain, ApiError> {
    let kept = view.record.as_deref().map(|record| &record.domain);
    view.live.as_deref().or(kept).ok_or_else(|| {
        let name = &view.details.summary.name;
        let why = format!("domain '{name}': it is transient and no definition of it is kept");
        ApiError::new(ApiErrorCode::WrongState, why)
    })
}

fn disk<'a>(domain: &'a Domain, target: &DiskTarget) -> Result<&'a Disk, ApiError> {
    let mut disks = domain.devices.disks.iter();
    let found = disks.find(|disk| disk.target == *target);
    found.ok_or_else(|| {
        let why = format!("domain '{}' has no disk '{target}'", domain.name);
        ApiError::new(ApiErrorCode::NoDevice, why)
    })
}

/// What a file takes, and where it ends.
fn file_size(paths: &dyn PathPolicy, what: &str, path: PathBuf) -> Result<(u64, u64), ApiError> {
    let access = ImageAccess {
        write: false,
        direct: false,
    };
    let host = |errno| {
        let why = format!(
            "cannot look at the {what}, '{}': {}",
            path.display(),
            reason(errno)
        );
        ApiError::new(ApiErrorCode::Host, why)
    };
    let file: OwnedFd = paths
        .open_image(what, &path, access)
        .map_err(|error| match error {
            PathError::Os(errno) => host(errno),
            PathError::Forbidden(line) => ApiError::new(ApiErrorCode::PathRefused, line),
        })?;
    let is = rustix::fs::fstat(&file).map_err(host)?;
    match FileType::from_raw_mode(is.st_mode) {
        FileType::BlockDevice => {
            let end = rustix::fs::seek(file.as_fd(), SeekFrom::End(0)).map_err(host)?;
            Ok((end, end))
        }
        FileType::RegularFile => {
            let blocks = u64::try_from(is.st_blocks).unwrap_or(0);
            let size = u64::try_from(is.st_size).unwrap_or(0);
            Ok((blocks.saturating_mul(STAT_BLOCK), size))
        }
        _ => {
            let why = format!(
                "the {what}, '{}', is no file or block device",
                path.display()
            );
            Err(ApiError::new(ApiErrorCode::Host, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::plan::AnyPath;

    #[test]
    fn a_file_has_what_it_takes_and_where_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.raw");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        let (allocation, physical) = file_size(&AnyPath, "image", path).unwrap();
        assert_eq!(physical, 1 << 20);
        assert!(allocation < physical);
        let nothing = directory.path().join("b.raw");
        let error = file_size(&AnyPath, "image", nothing).unwrap_err();
        assert_eq!(error.code, ApiErrorCode::Host);
        let error = file_size(&AnyPath, "image", directory.path().into()).unwrap_err();
        assert_eq!(error.code, ApiErrorCode::Host);
    }
}
