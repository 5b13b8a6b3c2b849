//! A volume's stream, for one of the connection's.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use reeve_ipc::api::call::{Call, VolumeDownload, VolumeStream, VolumeUpload};

use super::super::Context;
use super::super::failure::{Code, Failure, Origin};
use super::{PATIENCE, absent_volume, as_storage, check_flags, volume_reference};
use crate::wire::types::handles;
use crate::wire::types::storage as wire;

/// Holes pass as such (libvirt `VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM`, and the same for a download).
pub(crate) const HOLES: u32 = 1;

/// A stream whose other end a process has that holds the file ([`reeve_ipc::volume_stream`]).
#[derive(Debug)]
pub(crate) struct Transfer {
    /// This end.
    pub(crate) stream: OwnedFd,
    /// The most bytes that the stream has.
    pub(crate) length: u64,
}

async fn open<C: Call<Answer = VolumeStream> + Clone>(
    context: &Context,
    of: &handles::Volume,
    call: C,
) -> Result<Transfer, Failure> {
    let opened = context.call_within(call, PATIENCE).await;
    let (stream, mut fds) = opened.map_err(|failure| absent_volume(as_storage(failure), of))?;
    let none = || {
        let why = "the supervisor sent no stream";
        Failure::of(Origin::Storage, Code::InternalError, why)
    };
    Ok(Transfer {
        stream: fds.pop().ok_or_else(none)?,
        length: stream.length,
    })
}

/// Opens a volume to write what a stream brings.
pub(crate) async fn upload(
    context: Arc<Context>,
    of: wire::StorageVolUpload,
) -> Result<Transfer, Failure> {
    check_flags(of.flags, HOLES, "virStorageVolUpload")?;
    let call = VolumeUpload {
        volume: volume_reference(&of.volume)?,
        offset: of.offset,
        length: of.length,
    };
    open(&context, &of.volume, call).await
}

/// Opens a volume to send what is in it.
pub(crate) async fn download(
    context: Arc<Context>,
    of: wire::StorageVolDownload,
) -> Result<Transfer, Failure> {
    check_flags(of.flags, HOLES, "virStorageVolDownload")?;
    let call = VolumeDownload {
        volume: volume_reference(&of.volume)?,
        offset: of.offset,
        length: of.length,
    };
    open(&context, &of.volume, call).await
}
