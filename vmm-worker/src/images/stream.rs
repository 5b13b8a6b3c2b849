//! A volume's file on one side, a client's end of a stream on the other ([`reeve_ipc::volume_stream`]). The
//! client is hostile: what it sends is bounded by what was asked for, and it holds nothing of the file.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use reeve_ipc::volume_stream::{self, Frame, MAX_DATA_BYTES};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::write::{self, extent, length, part};

/// Bytes that are moved at a time.
const CHUNK: usize = MAX_DATA_BYTES as usize;

/// Writes what a client sends, `most` bytes from `offset` on at most; that it is written, the client hears once it is
/// on stable storage and the file is let go of.
pub(super) fn receive(
    file: OwnedFd,
    client: BorrowedFd<'_>,
    offset: u64,
    most: u64,
) -> io::Result<()> {
    let done = take(file.as_fd(), client, offset, most);
    // Whoever hears of the end finds the volume free.
    drop(file);
    tell(client, done)
}

/// Sends what there is, `most` bytes from `offset` on at most. A file that has become shorter ends where it does.
pub(super) fn send(
    file: BorrowedFd<'_>,
    client: BorrowedFd<'_>,
    offset: u64,
    most: u64,
) -> io::Result<()> {
    let done = give(file, client, offset, most);
    tell(client, done)
}

/// Says how it went.
fn tell(client: BorrowedFd<'_>, done: io::Result<()>) -> io::Result<()> {
    let frame = match &done {
        Ok(()) => Frame::End,
        Err(error) => Frame::Failed(error.raw_os_error().unwrap_or(Errno::IO.raw_os_error())),
    };
    // A client that has gone need not know.
    let told = volume_stream::send(client, frame, &[]);
    done.and(Ok(told?))
}

fn take(file: BorrowedFd<'_>, client: BorrowedFd<'_>, offset: u64, most: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let (mut at, mut room) = (offset, most);
    loop {
        let frame = volume_stream::next(client)?;
        let length = match frame {
            Some(Frame::Data(bytes)) => u64::from(bytes),
            Some(Frame::Hole(bytes)) => bytes,
            Some(Frame::End) => return write::sync(file),
            Some(Frame::Failed(_)) | None => return Err(Errno::CANCELED.into()),
        };
        let (Some(left), Some(end)) = (room.checked_sub(length), at.checked_add(length)) else {
            return Err(Errno::NOSPC.into());
        };
        match frame {
            Some(Frame::Hole(_)) => empty(file, at, end)?,
            _ => {
                let bytes = part(&mut buffer, length);
                volume_stream::fill(client, bytes)?;
                write::write(file, bytes, at)?;
            }
        }
        (at, room) = (end, left);
    }
}

/// Makes zeros of all from `at` up to `end`, and the file no shorter than that.
fn empty(file: BorrowedFd<'_>, at: u64, end: u64) -> io::Result<()> {
    if i64::try_from(end).is_err() {
        return Err(Errno::FBIG.into());
    }
    let size = length(file)?;
    let there = end.min(size).saturating_sub(at);
    if there > 0 {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, punch, at, there)) {
            Ok(()) => {}
            // Of a file system that has no holes.
            Err(Errno::OPNOTSUPP) => write::zero(file, at, at + there)?,
            Err(errno) => return Err(errno.into()),
        }
    }
    if end > size && end > at {
        rustix::io::retry_on_intr(|| rustix::fs::ftruncate(file, end))?;
    }
    Ok(())
}

fn give(file: BorrowedFd<'_>, client: BorrowedFd<'_>, offset: u64, most: u64) -> io::Result<()> {
    let end = length(file)?.min(offset.saturating_add(most));
    let mut buffer = vec![0; CHUNK];
    let mut at = offset;
    while at < end {
        let (start, stop) = extent(file, at, end)?.unwrap_or((end, end));
        if start > at {
            volume_stream::send(client, Frame::Hole(start - at), &[])?;
            at = start;
        }
        while at < stop {
            let part = part(&mut buffer, stop - at);
            let count = write::read(file, part, at)?;
            let bytes = part.get(..count).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(());
            }
            let length = u32::try_from(count).map_err(|_| ErrorKind::InvalidData)?;
            volume_stream::send(client, Frame::Data(length), bytes)?;
            at += u64::from(length);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A file of a megabyte of sevens, and a copy of its descriptor for the process.
    fn sevens() -> (File, OwnedFd) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; 1 << 20], 0).unwrap();
        let again = file.try_clone().unwrap();
        (file, again.into())
    }

    /// What becomes of an upload of such frames, and what its client hears.
    fn upload(
        file: OwnedFd,
        (offset, most): (u64, u64),
        frames: &[(Frame, &[u8])],
    ) -> (io::Result<()>, Option<Frame>) {
        let (client, theirs) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            let process = scope.spawn(move || receive(file, theirs.as_fd(), offset, most));
            for (frame, payload) in frames {
                if volume_stream::send(client.as_fd(), *frame, payload).is_err() {
                    break;
                }
            }
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let heard = volume_stream::next(client.as_fd()).unwrap();
            (process.join().unwrap(), heard)
        })
    }

    #[test]
    fn what_is_uploaded_is_where_it_belongs_with_its_holes() {
        let (file, again) = sevens();
        let frames = [
            (Frame::Data(3), b"abc".as_slice()),
            (Frame::Hole(512 << 10), b"".as_slice()),
            (Frame::Data(2), b"de".as_slice()),
            (Frame::Hole(1 << 20), b"".as_slice()),
            (Frame::End, b"".as_slice()),
        ];
        let (done, heard) = upload(again, (4096, u64::MAX >> 1), &frames);
        done.unwrap();
        assert_eq!(heard, Some(Frame::End));
        let length = 4096 + 3 + (512 << 10) + 2 + (1 << 20);
        let mut wanted = vec![7; 1 << 20];
        wanted.resize(length, 0);
        wanted[4096..].fill(0);
        wanted[4096..4099].copy_from_slice(b"abc");
        wanted[4099 + (512 << 10)..][..2].copy_from_slice(b"de");
        let mut read = vec![1; length];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == wanted);
        let stat = file.metadata().unwrap();
        assert_eq!(stat.len(), u64::try_from(length).unwrap());
        assert!(stat.blocks() * 512 < 128 << 10, "{}", stat.blocks());
    }

    #[test]
    fn nothing_is_written_past_what_was_asked_for_nor_after_a_client_that_gave_up() {
        let failed = |errno: Errno| Some(Frame::Failed(errno.raw_os_error()));
        for (frames, wanted) in [
            (
                vec![
                    (Frame::Data(2), b"ab".as_slice()),
                    (Frame::Data(3), b"cde".as_slice()),
                ],
                failed(Errno::NOSPC),
            ),
            (vec![(Frame::Hole(5), b"".as_slice())], failed(Errno::NOSPC)),
            (
                vec![(Frame::Hole(u64::MAX), b"".as_slice())],
                failed(Errno::NOSPC),
            ),
            (
                vec![(Frame::Data(1), b"a".as_slice())],
                failed(Errno::CANCELED),
            ),
            (vec![], failed(Errno::CANCELED)),
        ] {
            let (file, again) = sevens();
            let (done, heard) = upload(again, (100, 4), &frames);
            assert!(done.is_err());
            assert_eq!(heard, wanted, "{frames:?}");
            let mut rest = vec![0; (1 << 20) - 104];
            file.read_exact_at(&mut rest, 104).unwrap();
            assert!(rest.iter().all(|byte| *byte == 7));
            assert_eq!(file.metadata().unwrap().len(), 1 << 20);
        }
    }

    #[test]
    fn what_is_downloaded_has_its_holes_and_ends_where_the_file_does() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 << 20).unwrap();
        file.write_all_at(&vec![5; 1 << 20], 2 << 20).unwrap();
        for (offset, most, wanted) in [
            (0, u64::MAX, [2 << 20, 1 << 20, 5 << 20]),
            (1 << 20, 2 << 20, [1 << 20, 1 << 20, 0]),
            (3 << 20, 1, [1, 0, 0]),
            (8 << 20, 1, [0, 0, 0]),
        ] {
            let (client, theirs) = UnixStream::pair().unwrap();
            let heard = std::thread::scope(|scope| {
                let file = file.as_fd();
                scope.spawn(move || send(file, theirs.as_fd(), offset, most).unwrap());
                let mut heard = [0; 3];
                loop {
                    match volume_stream::next(client.as_fd()).unwrap() {
                        Some(Frame::Hole(bytes)) if heard[1] == 0 => heard[0] += bytes,
                        Some(Frame::Hole(bytes)) => heard[2] += bytes,
                        Some(Frame::Data(bytes)) => {
                            let mut read = vec![0; usize::try_from(bytes).unwrap()];
                            volume_stream::fill(client.as_fd(), &mut read).unwrap();
                            assert!(read.iter().all(|byte| *byte == 5));
                            heard[1] += u64::from(bytes);
                        }
                        Some(Frame::End) => return heard,
                        other => panic!("{other:?}"),
                    }
                }
            });
            assert_eq!(heard, wanted, "{offset} {most}");
        }
    }
}
