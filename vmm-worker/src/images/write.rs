//! Bytes of plain files: room, copies with their holes, zeros.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

/// Bytes that are moved at a time.
pub(super) const CHUNK: usize = 1 << 20;
/// Bytes that are allocated at a time, so that whoever looks sees them grow.
const ALLOCATED: u64 = 256 << 20;

/// Allocates a file's bytes from `from` up to `bytes`, and makes it `size` bytes long.
pub(super) fn allocate(file: BorrowedFd<'_>, from: u64, bytes: u64, size: u64) -> io::Result<()> {
    let mut done = from;
    while done < bytes {
        let part = (bytes - done).min(ALLOCATED);
        match retry(|| rustix::fs::fallocate(file, FallocateFlags::empty(), done, part)) {
            Ok(()) => {}
            // A file system that cannot, as one over the network: what is written has room.
            Err(Errno::OPNOTSUPP) => {
                fill_holes(file, done, bytes)?;
                break;
            }
            Err(errno) => return Err(errno.into()),
        }
        done += part;
    }
    retry(|| rustix::fs::ftruncate(file, size.max(bytes)))?;
    sync(file)
}

/// Writes zeros where there is nothing yet, and over nothing that there is.
fn fill_holes(file: BorrowedFd<'_>, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    each_extent(file, length(file)?, |start, end| {
        if end > at && start < to {
            if start > at {
                zero(file, at, start)?;
            }
            at = end;
        }
        Ok(())
    })?;
    if at < to {
        zero(file, at, to)?;
    }
    Ok(())
}

/// Copies what is no hole.
pub(super) fn copy(to: BorrowedFd<'_>, from: BorrowedFd<'_>) -> io::Result<()> {
    let end = length(from)?;
    retry(|| rustix::fs::ftruncate(to, end))?;
    let mut buffer = vec![0; CHUNK];
    each_extent(from, end, |start, end| {
        let mut at = start;
        while at < end {
            let part = part(&mut buffer, end - at);
            let count = read(from, part, at)?;
            if count == 0 {
                // It was cut off meanwhile.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            write(to, part.get(..count).unwrap_or_default(), at)?;
            at += count as u64;
        }
        Ok(())
    })?;
    sync(to)
}

/// Overwrites what is no hole with zeros.
pub(super) fn wipe(file: BorrowedFd<'_>) -> io::Result<()> {
    let end = length(file)?;
    each_extent(file, end, |start, end| zero(file, start, end))?;
    sync(file)
}

pub(super) fn zero(file: BorrowedFd<'_>, start: u64, end: u64) -> io::Result<()> {
    let mut zeros = vec![0; CHUNK];
    let mut at = start;
    while at < end {
        let part = part(&mut zeros, end - at);
        write(file, part, at)?;
        at += part.len() as u64;
    }
    Ok(())
}

/// Calls `each` with where data begins and ends, from the first on.
pub(super) fn each_extent(
    file: BorrowedFd<'_>,
    end: u64,
    mut each: impl FnMut(u64, u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = 0;
    while at < end {
        let (start, stop) = match extent(file, at, end)? {
            Some(found) => found,
            None => return Ok(()),
        };
        each(start, stop)?;
        at = stop;
    }
    Ok(())
}

/// The first data behind `at`, before `end`.
pub(super) fn extent(file: BorrowedFd<'_>, at: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A file system without holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, end))),
        Err(errno) => return Err(errno.into()),
    };
    if start >= end {
        return Ok(None);
    }
    let stop = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
        Ok(stop) => stop.min(end),
        Err(Errno::NXIO) => end,
        Err(errno) => return Err(errno.into()),
    };
    // What changes under us must not stop us.
    Ok(Some((start, stop.max(start + 1).min(end))))
}

/// The first `length` bytes of a buffer, or all.
pub(super) fn part(buffer: &mut [u8], length: u64) -> &mut [u8] {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let length = length.min(buffer.len());
    buffer.get_mut(..length).unwrap_or_default()
}

pub(super) fn length(file: impl AsFd) -> io::Result<u64> {
    let stat = rustix::fs::fstat(file)?;
    u64::try_from(stat.st_size).map_err(|_| io::ErrorKind::InvalidData.into())
}

pub(super) fn read(file: BorrowedFd<'_>, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    Ok(rustix::io::retry_on_intr(|| {
        rustix::io::pread(file, &mut *buffer, at)
    })?)
}

pub(super) fn write(file: BorrowedFd<'_>, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = retry(|| rustix::io::pwrite(file, bytes, at))?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(count..).unwrap_or_default();
        at += count as u64;
    }
    Ok(())
}

pub(super) fn sync(file: BorrowedFd<'_>) -> io::Result<()> {
    Ok(retry(|| rustix::fs::fdatasync(file))?)
}

fn retry<T>(call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    rustix::io::retry_on_intr(call)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn room_that_is_made_by_writing_is_made_around_what_is_there() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(b"kept", 256 << 10).unwrap();
        file.write_all_at(b"also", 700 << 10).unwrap();
        fill_holes(file.as_fd(), 0, 2 << 20).unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        assert_eq!(stat.st_size, 2 << 20);
        assert!(stat.st_blocks * 512 >= 2 << 20, "{} blocks", stat.st_blocks);
        let mut all = vec![1; 2 << 20];
        file.read_exact_at(&mut all, 0).unwrap();
        assert_eq!(&all[256 << 10..][..4], b"kept");
        assert_eq!(&all[700 << 10..][..4], b"also");
        assert_eq!(all.iter().filter(|byte| **byte != 0).count(), 8);
    }
}
