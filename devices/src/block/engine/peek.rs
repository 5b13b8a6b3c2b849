//! Bytes of a disk that are read for somebody else than its guest: a few, and by blocking calls.

use std::io;
use std::os::fd::BorrowedFd;

use crate::block::{Extent, Layout};

/// What files that are open past the page cache ask of addresses and lengths, at most.
const ALIGNMENT: usize = 4096;
/// Bytes that are read of a file at a time.
const CHUNK: usize = 64 << 10;

/// Reads `len` bytes at `offset`.
///
/// # Errors
/// `InvalidInput` for bytes beyond the disk; the storage's.
pub(super) fn read(layout: &mut dyn Layout, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let end = offset.checked_add(len as u64);
    if end.is_none_or(|end| end > layout.size()) {
        let why = format!("the disk has {} bytes", layout.size());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut bytes = Vec::with_capacity(len);
    while let Some(left) = len.checked_sub(bytes.len()).filter(|left| *left > 0) {
        let at = offset + bytes.len() as u64;
        let wanted = |len: u64| usize::try_from(len).unwrap_or(usize::MAX).min(left);
        match layout.map_read(at, left as u64)? {
            Extent::Zero { len } => bytes.resize(bytes.len() + wanted(len), 0),
            Extent::Buffered { len } => {
                let found = layout.buffered().get(..wanted(len));
                bytes.extend_from_slice(found.ok_or_else(super::inconsistent)?);
            }
            Extent::Data { file, offset, len } => {
                let file = layout.file(file).ok_or_else(super::inconsistent)?;
                read_file(file, offset, wanted(len), &mut bytes)?;
            }
        }
    }
    Ok(bytes)
}

/// Adds `len` bytes of a file, of which those behind its end are zero.
fn read_file(file: BorrowedFd<'_>, from: u64, len: usize, to: &mut Vec<u8>) -> io::Result<()> {
    // More than is wanted, at places that suit any file.
    let mut buffer = vec![0; CHUNK + ALIGNMENT];
    let skip = buffer.as_ptr().align_offset(ALIGNMENT);
    let buffer = buffer
        .get_mut(skip..)
        .and_then(|rest| rest.get_mut(..CHUNK));
    let buffer = buffer.ok_or_else(super::inconsistent)?;
    let wanted = to.len() + len;
    let mut at = from;
    while let Some(left) = wanted.checked_sub(to.len()).filter(|left| *left > 0) {
        let into = at % ALIGNMENT as u64;
        let got = retry(|| rustix::io::pread(file, &mut *buffer, at - into))?;
        let skip = usize::try_from(into).unwrap_or(0);
        let found = buffer.get(skip..got).unwrap_or_default();
        if found.is_empty() {
            to.resize(wanted, 0);
            return Ok(());
        }
        let found = found.get(..left.min(found.len())).unwrap_or_default();
        to.extend_from_slice(found);
        at += found.len() as u64;
    }
    Ok(())
}

fn retry(mut read: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    use super::*;

    /// A disk of three parts: bytes of a file that begin at an odd place, nothing, and bytes of memory.
    struct Parts {
        file: std::fs::File,
        memory: Vec<u8>,
    }

    impl Layout for Parts {
        fn size(&self) -> u64 {
            3072
        }

        fn file(&self, index: usize) -> Option<BorrowedFd<'_>> {
            (index == 0).then(|| self.file.as_fd())
        }

        fn buffered(&self) -> &[u8] {
            &self.memory
        }

        fn map_read(&mut self, offset: u64, len: u64) -> io::Result<Extent> {
            let left = (1024 - offset % 1024).min(len);
            Ok(match offset / 1024 {
                0 => Extent::Data {
                    file: 0,
                    offset: 5000 + offset,
                    len: left,
                },
                1 => Extent::Zero { len: left },
                _ => Extent::Buffered { len: left },
            })
        }

        fn map_write(&mut self, _: u64, _: u64) -> io::Result<Extent> {
            Err(io::ErrorKind::ReadOnlyFilesystem.into())
        }

        fn discard(&mut self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn write_zeroes(&mut self, _: u64, _: u64, _: bool) -> io::Result<()> {
            Ok(())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn close(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn limit(&mut self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn resize(&mut self, _: crate::block::SizeChange) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bytes_come_from_wherever_the_disk_has_them() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..6000_u32)
            .map(|byte| (byte % 251).to_le_bytes()[0])
            .collect();
        file.write_all(&content).unwrap();
        let memory = vec![9; 1024];
        let mut parts = Parts { file, memory };
        let all = read(&mut parts, 0, 2048 + 7).unwrap();
        // The file ends before its part of the disk does.
        assert_eq!(all[..1000], content[5000..6000]);
        assert!(all[1000..2048].iter().all(|byte| *byte == 0));
        assert_eq!(all[2048..], [9; 7]);
        assert_eq!(read(&mut parts, 3, 4).unwrap(), content[5003..5007]);
        assert_eq!(read(&mut parts, 3072, 0).unwrap(), []);
        for (offset, len) in [(3072, 1), (u64::MAX, 2), (3000, 73)] {
            let error = read(&mut parts, offset, len).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
