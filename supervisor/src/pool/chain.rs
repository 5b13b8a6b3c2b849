//! The files that a qcow2 volume builds upon, opened for the process that handles it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::model::Layer;
use reeve_ipc::spec::DiskFormat;

use super::host::{Held, Host};
use crate::domain::plan::{Chain, ChainError, ImageAccess};
use crate::host::image_lock::{ImageUse, lock};
use crate::host::image_worker::Purpose;

/// What is behind an image, the nearest first; nobody writes it while it is open here.
#[derive(Debug, Default)]
pub(super) struct Chained {
    pub(super) formats: Vec<DiskFormat>,
    pub(super) files: Vec<OwnedFd>,
}

/// Opens all of it: each file where a definition could have named it.
pub(super) fn chain(
    host: &Host,
    held: &Held<'_>,
    layer: &Layer,
    file: BorrowedFd<'_>,
) -> Result<Chained, ApiError> {
    let mut chained = Chained::default();
    if layer.format == DiskFormat::Raw {
        return Ok(chained);
    }
    let broken = |layer: &Layer, error: ChainError| {
        let why = format!(
            "cannot tell what the image '{}' builds upon: {error}",
            layer.path.display()
        );
        held.error(ApiErrorCode::Unsupported, &why)
    };
    let reader = host.worker(Purpose::Read);
    let reader = reader.map_err(|error| held.task(&error))?;
    let allowed = host.allowed();
    let mut chain = Chain::default();
    chain.enter(file).map_err(|error| broken(layer, error))?;
    let mut next = chain
        .below(layer, file, &reader)
        .map_err(|error| broken(layer, error))?;
    while let Some(layer) = next.take() {
        let access = ImageAccess {
            write: false,
            direct: false,
        };
        let opened = allowed.open_image("backing file", &layer.path, access);
        let opened =
            opened.map_err(|error| held.error(ApiErrorCode::PathRefused, &error.to_string()))?;
        chain
            .enter(opened.as_fd())
            .map_err(|error| broken(&layer, error))?;
        let used = lock(opened.as_fd(), ImageUse::Read);
        used.map_err(|error| {
            let why = format!("what it builds upon, '{}': {error}", layer.path.display());
            held.error(ApiErrorCode::InUse, &why)
        })?;
        next = chain
            .below(&layer, opened.as_fd(), &reader)
            .map_err(|error| broken(&layer, error))?;
        chained.formats.push(layer.format);
        chained.files.push(opened);
    }
    Ok(chained)
}
