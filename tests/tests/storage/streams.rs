//! Uploads and downloads: what passes, when it ends, and what a client that keeps its end can do with it.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{
    PoolStop, VolumeCreate, VolumeDelete, VolumeDownload, VolumeRef, VolumeStream, VolumeUpload,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::model::NewVolume;
use reeve_ipc::volume_stream::{self, Frame, MAX_DATA_BYTES};
use rustix::io::Errno;

use super::{Stage, get, named, refused, volume};

fn upload(
    connection: &mut Connection,
    volume: VolumeRef,
    offset: u64,
    length: u64,
) -> Result<(VolumeStream, OwnedFd)> {
    let (stream, mut fds) = connection.call_with_fds(VolumeUpload {
        volume,
        offset,
        length,
    })?;
    ensure!(fds.len() == 1);
    Ok((stream, fds.remove(0)))
}

fn send(to: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    for part in bytes.chunks(usize::try_from(MAX_DATA_BYTES).unwrap()) {
        let length = u32::try_from(part.len()).unwrap();
        volume_stream::send(to.as_fd(), Frame::Data(length), part)?;
    }
    Ok(())
}

/// Uploads all of it.
pub(super) fn put(
    connection: &mut Connection,
    volume: VolumeRef,
    offset: u64,
    bytes: &[u8],
) -> Result<()> {
    let length = u64::try_from(bytes.len())?;
    let (stream, fd) = upload(connection, volume, offset, length)?;
    ensure!((stream.offset, stream.length) == (offset, length));
    send(&fd, bytes)?;
    volume_stream::send(fd.as_fd(), Frame::End, &[])?;
    ensure!(volume_stream::next(fd.as_fd())? == Some(Frame::End));
    Ok(())
}

/// Downloads what there is.
pub(super) fn fetch(
    connection: &mut Connection,
    volume: VolumeRef,
    offset: u64,
    length: u64,
) -> Result<Vec<u8>> {
    let (stream, fds) = connection.call_with_fds(VolumeDownload {
        volume,
        offset,
        length,
    })?;
    ensure!(fds.len() == 1);
    let mut all = Vec::new();
    loop {
        let begin = all.len();
        match volume_stream::next(fds[0].as_fd())? {
            Some(Frame::Data(length)) => {
                all.resize(begin + usize::try_from(length)?, 0);
                volume_stream::fill(fds[0].as_fd(), &mut all[begin..])?;
            }
            Some(Frame::Hole(length)) => all.resize(begin + usize::try_from(length)?, 0),
            Some(Frame::End) => break,
            other => bail!("{other:?}"),
        }
    }
    ensure!(stream.length == u64::try_from(all.len())?);
    Ok(all)
}

fn create(connection: &mut Connection, name: &str, capacity: u64) -> Result<()> {
    connection.call(VolumeCreate {
        pool: named("images"),
        volume: Box::new(NewVolume::raw(name.parse()?, capacity)),
        preallocate_metadata: false,
    })?;
    Ok(())
}

fn delete(name: &str) -> VolumeDelete {
    VolumeDelete {
        volume: volume("images", name),
        zeroed: false,
    }
}

/// Whether the other end is closed within a moment, and says nothing before.
fn is_cut(fd: &OwnedFd) -> bool {
    matches!(
        volume_stream::next(fd.as_fd()),
        Ok(None) | Err(Errno::CONNRESET)
    )
}

/// Removes a volume, which a process that was killed a moment ago may still have open.
fn delete_soon(connection: &mut Connection, name: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match connection.call(delete(name)) {
            Ok(()) => return Ok(()),
            Err(error) => {
                let in_use = error
                    .refused()
                    .is_some_and(|it| it.code == ApiErrorCode::InUse);
                ensure!(in_use && Instant::now() < deadline, "{error}");
            }
        }
    }
}

#[test]
fn a_client_that_uploads_has_no_file_and_the_volume_is_its_own_until_the_end() -> Result<()> {
    let stage = Stage::start()?;
    let (mut connection, pool) = stage.with_pool("images")?;
    create(&mut connection, "disk", 1 << 20)?;
    let disk = || volume("images", "disk");
    let (stream, fd) = upload(&mut connection, disk(), 0, 0)?;
    ensure!(stream.offset == 0 && stream.length > 1 << 60);
    let file = std::fs::File::from(fd.try_clone()?);
    ensure!(file.metadata()?.file_type().is_socket());
    ensure!(file.set_len(0).is_err());
    drop(file);
    let again = VolumeUpload {
        volume: disk(),
        offset: 0,
        length: 0,
    };
    ensure!(refused(connection.call(again)) == ApiErrorCode::InUse);
    ensure!(refused(connection.call(delete("disk"))) == ApiErrorCode::InUse);
    send(&fd, b"abc")?;
    volume_stream::send(fd.as_fd(), Frame::Hole(3 << 20), &[])?;
    volume_stream::send(fd.as_fd(), Frame::End, &[])?;
    ensure!(volume_stream::next(fd.as_fd())? == Some(Frame::End));
    // It is free at once, though the client keeps its end.
    let disk = get(&mut connection, "images", "disk")?;
    ensure!(
        disk.physical == 3 + (3 << 20) && disk.allocation < 1 << 20,
        "{disk:?}"
    );
    connection.call(delete("disk"))?;
    drop(fd);

    // No more than was asked for, and nothing behind it.
    create(&mut connection, "disk", 1 << 20)?;
    let (_, fd) = upload(&mut connection, volume("images", "disk"), 4096, 4)?;
    send(&fd, b"abc")?;
    send(&fd, b"de")?;
    let full = Frame::Failed(Errno::NOSPC.raw_os_error());
    ensure!(volume_stream::next(fd.as_fd())? == Some(full));
    let written = std::fs::read(pool.target.join("disk"))?;
    ensure!(&written[4096..4099] == b"abc" && written[4099..].iter().all(|byte| *byte == 0));

    // One that is no client of ours in what it says.
    let (_, fd) = upload(&mut connection, volume("images", "disk"), 0, 0)?;
    ensure!(rustix::io::write(&fd, &[0xff; 64])? == 64);
    let broken = volume_stream::next(fd.as_fd())?;
    ensure!(broken == Some(Frame::Failed(Errno::BADMSG.raw_os_error())));
    let behind = VolumeDownload {
        volume: volume("images", "disk"),
        offset: 7 << 20,
        length: 0,
    };
    ensure!(refused(connection.call(behind)) == ApiErrorCode::InvalidArgument);
    Ok(())
}

#[test]
fn a_stream_ends_with_the_connection_that_asked_for_it_and_with_its_pool() -> Result<()> {
    let stage = Stage::start()?;
    let (mut connection, _) = stage.with_pool("images")?;
    create(&mut connection, "disk", 64 << 20)?;
    put(
        &mut connection,
        volume("images", "disk"),
        0,
        &vec![7; 8 << 20],
    )?;
    let mut other = stage.daemon.connect()?;
    let (_, kept) = upload(&mut other, volume("images", "disk"), 0, 0)?;
    send(&kept, b"abc")?;
    ensure!(refused(connection.call(delete("disk"))) == ApiErrorCode::InUse);
    drop(other);
    ensure!(is_cut(&kept));
    ensure!(send(&kept, b"more").is_err());
    delete_soon(&mut connection, "disk")?;

    create(&mut connection, "disk", 1 << 20)?;
    let (_, kept) = upload(&mut connection, volume("images", "disk"), 0, 0)?;
    connection.call(PoolStop {
        pool: named("images"),
    })?;
    ensure!(is_cut(&kept));
    Ok(())
}

#[test]
fn the_command_line_uploads_and_downloads_and_keeps_holes() -> Result<()> {
    let stage = Stage::start()?;
    let (mut connection, pool) = stage.with_pool("images")?;
    create(&mut connection, "disk", 64 << 20)?;
    let file = stage.directory.path().join("file");
    let mut bytes = vec![5; 700_000];
    bytes.extend(vec![6; 700_000]);
    std::fs::write(&file, &bytes)?;
    let name = file.to_str().unwrap();
    let reeve = |arguments: &[&str]| stage.daemon.reeve(arguments);
    reeve(&[
        "volume", "upload", "images", "disk", name, "--offset", "1000000",
    ])?;
    let mut wanted = vec![0; 64 << 20];
    wanted[1_000_000..][..bytes.len()].copy_from_slice(&bytes);
    ensure!(std::fs::read(pool.target.join("disk"))? == wanted);
    let back = stage.directory.path().join("back");
    reeve(&[
        "volume",
        "download",
        "images",
        "disk",
        back.to_str().unwrap(),
    ])?;
    ensure!(std::fs::read(&back)? == wanted);
    let stat = std::fs::metadata(&back)?;
    ensure!(stat.blocks() * 512 < 4 << 20, "{}", stat.blocks());
    let short = stage.daemon.reeve(&[
        "volume", "upload", "images", "disk", name, "--length", "1000",
    ]);
    ensure!(
        short.is_ok(),
        "no more is read than was asked for: {short:?}"
    );
    Ok(())
}
