//! Volumes of storage pools.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{
    PoolRef, VolumeClone, VolumeCreate, VolumeDelete, VolumeDownload, VolumeGet, VolumeList,
    VolumeRef, VolumeResize, VolumeUpload, VolumeWipe, WipeAlgorithm,
};
use reeve_ipc::api::storage::Volume;
use reeve_ipc::model::{Layer, NewVolume, Permissions, Qcow2Options, VolumeName};
use reeve_ipc::spec::DiskFormat;
use reeve_ipc::volume_stream::{self, Frame, MAX_DATA_BYTES};
use reeved::logging::printable;
use rustix::io::Errno;
use serde_json::{Value, json};

use super::show::human;
use super::storage_args::{
    VolumeArgs, VolumeCloneArgs, VolumeCommand, VolumeCreateArgs, VolumeListArgs,
    VolumeTransferArgs,
};
use super::table::{Table, fields};
use super::{CommandError, Output, json as print_json, print};

pub(super) fn volume(
    connection: &mut Connection,
    out: Output,
    command: VolumeCommand,
) -> Result<(), CommandError> {
    use VolumeCommand as C;
    let volume = match command {
        C::List(args) => return list(connection, out, &args),
        C::Info(VolumeArgs { pool, volume }) => {
            let volume = connection.call(VolumeGet {
                volume: named(&pool, &volume),
            })?;
            return out.value(&volume_json(&volume), || text(&volume));
        }
        C::Create(args) => return create(connection, out, args),
        C::Clone(args) => return clone(connection, out, args),
        C::Resize(args) => {
            let volume = named(&args.pool, &args.volume);
            connection.call(VolumeResize {
                volume: volume.clone(),
                capacity: args.size,
                allocate: args.allocate,
                shrink: args.shrink,
                format: args.format,
            })?;
            volume
        }
        C::Wipe(VolumeArgs { pool, volume }) => {
            let volume = named(&pool, &volume);
            connection.call(VolumeWipe {
                volume: volume.clone(),
                algorithm: WipeAlgorithm::Zero,
            })?;
            volume
        }
        C::Delete(args) => {
            let volume = named(&args.pool, &args.volume);
            connection.call(VolumeDelete {
                volume,
                zeroed: args.zero,
            })?;
            return match out.json {
                true => print_json(&json!({ "name": args.volume, "result": "ok" })),
                false => Ok(()),
            };
        }
        C::Upload(args) => return upload(connection, out, &args),
        C::Download(args) => return download(connection, out, &args),
    };
    match out.json {
        true => {
            let volume = connection.call(VolumeGet { volume })?;
            print_json(&volume_json(&volume))
        }
        false => Ok(()),
    }
}

fn named(pool: &PoolRef, name: &VolumeName) -> VolumeRef {
    VolumeRef::Name {
        pool: pool.clone(),
        name: name.clone(),
    }
}

fn told(out: Output, volume: &Volume) -> Result<(), CommandError> {
    match out.json {
        true => print_json(&volume_json(volume)),
        false => Ok(()),
    }
}

fn list(
    connection: &mut Connection,
    out: Output,
    args: &VolumeListArgs,
) -> Result<(), CommandError> {
    let mut volumes: Vec<Volume> = Vec::new();
    loop {
        let after = volumes.last().map(|last| last.name.clone());
        let pool = args.pool.clone();
        let page = connection.call(VolumeList { pool, after })?;
        let more = page.more && !page.volumes.is_empty();
        volumes.extend(page.volumes);
        if !more {
            break;
        }
    }
    if out.json {
        let values: Vec<Value> = volumes.iter().map(volume_json).collect();
        return print_json(&values);
    }
    if args.quiet {
        let names = volumes
            .iter()
            .map(|volume| printable(volume.name.as_str()) + "\n");
        return print(&names.collect::<String>());
    }
    let mut table = Table::new(&["NAME", "FORMAT", "CAPACITY", "ALLOCATION", "PATH"]);
    for volume in &volumes {
        table.row(vec![
            volume.name.to_string(),
            volume.format.word().to_owned(),
            human(volume.capacity),
            human(volume.allocation),
            volume.path.display().to_string(),
        ]);
    }
    print(&table.render())
}

fn create(
    connection: &mut Connection,
    out: Output,
    args: VolumeCreateArgs,
) -> Result<(), CommandError> {
    let capacity = args.size.map(|size| size.bytes());
    let backing = match (args.backing, args.backing_format) {
        (Some(path), Some(format)) => {
            let path = std::path::absolute(path)
                .map_err(|error| CommandError::Own(format!("cannot resolve a path: {error}")))?;
            Some(Layer { path, format })
        }
        _ => None,
    };
    let volume = NewVolume {
        name: args.volume,
        capacity,
        allocation: capacity.filter(|_| args.allocate),
        format: args.format,
        qcow2: Qcow2Options {
            compat: args.compat,
            cluster_bytes: args.cluster_bytes,
            lazy_refcounts: false,
        },
        backing,
        permissions: Permissions {
            mode: args.mode,
            ..Permissions::default()
        },
    };
    let volume = connection.call(VolumeCreate {
        pool: args.pool,
        volume: Box::new(volume),
        preallocate_metadata: args.preallocate_metadata,
    })?;
    told(out, &volume)
}

fn clone(
    connection: &mut Connection,
    out: Output,
    args: VolumeCloneArgs,
) -> Result<(), CommandError> {
    let from = named(&args.pool, &args.volume);
    let format = match args.format.or(args.from_format) {
        Some(format) => format,
        None => {
            let volume = from.clone();
            let volume = connection.call(VolumeGet { volume })?;
            // What cannot be copied is refused by the daemon, in its words.
            volume.format.disk().unwrap_or(DiskFormat::Raw)
        }
    };
    let volume = NewVolume {
        capacity: None,
        format,
        ..NewVolume::raw(args.name, 0)
    };
    let volume = connection.call(VolumeClone {
        pool: args.to.unwrap_or(args.pool),
        volume: Box::new(volume),
        from,
        preallocate_metadata: false,
        reflink: args.reflink,
        from_format: args.from_format,
    })?;
    told(out, &volume)
}

/// Bytes that are moved at a time.
const CHUNK: usize = MAX_DATA_BYTES as usize;

fn file_error(path: &Path) -> impl Fn(io::Error) -> CommandError {
    move |error| CommandError::Own(format!("{}: {error}", path.display()))
}

fn upload(
    connection: &mut Connection,
    out: Output,
    args: &VolumeTransferArgs,
) -> Result<(), CommandError> {
    let failed = file_error(&args.file);
    let mut from: Box<dyn Read> = match args.file == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(&args.file).map_err(&failed)?),
    };
    let volume = named(&args.pool, &args.volume);
    let (stream, fds) = connection.call_with_fds(VolumeUpload {
        volume: volume.clone(),
        offset: args.offset,
        length: args.length,
    })?;
    let to = opened(fds)?;
    let of_volume = |errno| of_volume(args, errno);
    // The other end says why it is closed, where it can.
    let why = |errno| match volume_stream::next(to.as_fd()) {
        Ok(Some(Frame::Failed(number))) => of_volume(Errno::from_raw_os_error(number)),
        _ => of_volume(errno),
    };
    let mut left = stream.length;
    let mut buffer = vec![0; CHUNK];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let part = buffer.get_mut(..most).unwrap_or_default();
        let count = match from.read(part) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        let frame = Frame::Data(u32::try_from(count).unwrap_or(u32::MAX));
        let bytes = part.get(..count).unwrap_or_default();
        volume_stream::send(to.as_fd(), frame, bytes).map_err(why)?;
        left -= count as u64;
    }
    volume_stream::send(to.as_fd(), Frame::End, &[]).map_err(why)?;
    // It is on stable storage, and the volume free again, when that is answered.
    match volume_stream::next(to.as_fd()).map_err(of_volume)? {
        Some(Frame::End) => {}
        Some(Frame::Failed(number)) => return Err(of_volume(Errno::from_raw_os_error(number))),
        _ => return Err(of_volume(Errno::CONNRESET)),
    }
    match out.json {
        true => {
            let volume = connection.call(VolumeGet { volume })?;
            print_json(&volume_json(&volume))
        }
        false => Ok(()),
    }
}

fn of_volume(args: &VolumeTransferArgs, errno: Errno) -> CommandError {
    let error = io::Error::from(errno);
    CommandError::Own(format!("volume '{}': {error}", args.volume))
}

fn opened(fds: Vec<OwnedFd>) -> Result<OwnedFd, CommandError> {
    let stream = fds.into_iter().next();
    stream.ok_or_else(|| CommandError::Own("the daemon handed over no stream".to_owned()))
}

/// Where a download goes.
enum Target {
    /// A file of its own, whose holes are holes.
    File(File),
    /// What takes every byte.
    Other(Box<dyn Write>),
}

impl Target {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all(bytes),
            Self::Other(other) => other.write_all(bytes),
        }
    }

    fn hole(&mut self, mut length: u64) -> io::Result<()> {
        match self {
            Self::File(file) => {
                let past = i64::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?;
                file.seek(SeekFrom::Current(past)).map(drop)
            }
            Self::Other(other) => {
                let zeros = vec![0; CHUNK];
                while length > 0 {
                    let count = usize::try_from(length).unwrap_or(CHUNK).min(CHUNK);
                    other.write_all(zeros.get(..count).unwrap_or_default())?;
                    length -= count as u64;
                }
                Ok(())
            }
        }
    }

    /// All of it was taken.
    fn finish(&mut self) -> io::Result<()> {
        match self {
            // A hole at the end has a length too.
            Self::File(file) => {
                let end = file.stream_position()?;
                file.set_len(end)
            }
            Self::Other(other) => other.flush(),
        }
    }
}

fn download(
    connection: &mut Connection,
    out: Output,
    args: &VolumeTransferArgs,
) -> Result<(), CommandError> {
    let (stream, fds) = connection.call_with_fds(VolumeDownload {
        volume: named(&args.pool, &args.volume),
        offset: args.offset,
        length: args.length,
    })?;
    let from = opened(fds)?;
    let to_stdout = args.file == Path::new("-");
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::BrokenPipe if to_stdout => CommandError::Unread,
        _ => file_error(&args.file)(error),
    };
    let mut to = match to_stdout {
        true => Target::Other(Box::new(io::stdout().lock())),
        false => {
            let file = File::create(&args.file).map_err(failed)?;
            match file.metadata().map_err(failed)?.is_file() {
                true => Target::File(file),
                false => Target::Other(Box::new(file)),
            }
        }
    };
    let of_volume = |errno| of_volume(args, errno);
    let mut left = stream.length;
    let mut buffer = vec![0; CHUNK];
    loop {
        let frame = volume_stream::next(from.as_fd()).map_err(of_volume)?;
        let length = match frame {
            Some(Frame::Data(length)) => length.into(),
            Some(Frame::Hole(length)) => length,
            Some(Frame::End) => break,
            Some(Frame::Failed(number)) => return Err(of_volume(Errno::from_raw_os_error(number))),
            None => return Err(of_volume(Errno::CONNRESET)),
        };
        left = left
            .checked_sub(length)
            .ok_or_else(|| of_volume(Errno::BADMSG))?;
        match frame {
            Some(Frame::Hole(_)) => to.hole(length).map_err(failed)?,
            _ => {
                let length = usize::try_from(length).unwrap_or(CHUNK).min(CHUNK);
                let bytes = buffer.get_mut(..length).unwrap_or_default();
                volume_stream::fill(from.as_fd(), bytes).map_err(of_volume)?;
                to.data(bytes).map_err(failed)?;
            }
        }
    }
    to.finish().map_err(failed)?;
    let bytes = stream.length - left;
    match out.json && !to_stdout {
        true => print_json(&json!({ "name": args.volume, "bytes": bytes })),
        false => Ok(()),
    }
}

/// A volume, with keys that stay.
fn volume_json(volume: &Volume) -> Value {
    let time = |time: reeve_ipc::api::storage::FileTime| json!({ "seconds": time.seconds, "nanoseconds": time.nanoseconds });
    let backing = volume.backing.as_ref().map(|backing| {
        json!({
            "written": backing.written,
            "path": backing.path,
            "format": backing.format.as_ref().map(|format| format.word()),
        })
    });
    let qcow2 = volume.qcow2.map(|qcow2| {
        json!({
            "compat": qcow2.compat.word(),
            "cluster_bytes": qcow2.cluster_bytes,
            "lazy_refcounts": qcow2.lazy_refcounts,
        })
    });
    json!({
        "name": volume.name,
        "pool": volume.pool,
        "path": volume.path,
        "kind": volume.kind,
        "format": volume.format.word(),
        "capacity_bytes": volume.capacity,
        "allocation_bytes": volume.allocation,
        "physical_bytes": volume.physical,
        "mode": format!("{:04o}", volume.owner.mode),
        "owner": volume.owner.owner,
        "group": volume.owner.group,
        "times": {
            "accessed": time(volume.times.accessed),
            "modified": time(volume.times.modified),
            "changed": time(volume.times.changed),
            "born": volume.times.born.map(time),
        },
        "backing": backing,
        "qcow2": qcow2,
        "encrypted": volume.encrypted,
        "job": volume.job,
        "unreadable": volume.unreadable,
    })
}

fn text(volume: &Volume) -> String {
    let mut lines = vec![
        ("Name", volume.name.to_string()),
        ("Pool", volume.pool.to_string()),
        ("Path", volume.path.display().to_string()),
        ("Format", volume.format.word().to_owned()),
        ("Capacity", human(volume.capacity)),
        ("Allocation", human(volume.allocation)),
        ("File", human(volume.physical)),
        (
            "Owner",
            format!(
                "{}:{}, mode {:04o}",
                volume.owner.owner, volume.owner.group, volume.owner.mode
            ),
        ),
    ];
    if let Some(qcow2) = volume.qcow2 {
        let lazy = if qcow2.lazy_refcounts {
            ", lazy refcounts"
        } else {
            ""
        };
        lines.push((
            "Layout",
            format!(
                "compat {}, clusters of {} bytes{lazy}",
                qcow2.compat.word(),
                qcow2.cluster_bytes
            ),
        ));
    }
    if let Some(backing) = &volume.backing {
        let format = backing.format.as_ref().map_or("unknown", |it| it.word());
        lines.push(("Builds upon", format!("{} ({format})", backing.written)));
    }
    if volume.encrypted {
        lines.push(("Encrypted", "yes".to_owned()));
    }
    if let Some(job) = volume.job {
        lines.push(("Job", format!("it is being {}", job.words())));
    }
    if let Some(why) = &volume.unreadable {
        lines.push(("Unreadable", why.clone()));
    }
    fields(&lines)
}
