//! qcow2 images that are made, filled and enlarged, by the code that serves disks (`reeve_devices::block`).

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use reeve_devices::block::qcow2::{CreateOptions, Form, Format, Options, Qcow2, create_as};
use reeve_devices::block::{Extent, Layout, SizeChange};
use reeve_ipc::image::NewImage;
use reeve_ipc::model::Qcow2Compat;
use reeve_ipc::spec::DiskFormat;

use super::write::{self, CHUNK, extent, length, part};

/// What is copied.
pub(super) enum Source {
    /// The bytes of a file, with its length.
    Raw(OwnedFd, u64),
    /// An image and what it builds upon.
    Image(Box<Qcow2>),
}

/// Makes an image in an empty file, and opens it where it is laid out or filled at once.
pub(super) fn create(file: BorrowedFd<'_>, image: &NewImage) -> io::Result<Option<Qcow2>> {
    let backing = image
        .backing
        .as_ref()
        .map(|(name, format)| (name.as_str(), format.word()));
    let options = CreateOptions {
        size: image.size,
        cluster_bits: image.options.cluster_bytes.ilog2(),
        backing,
    };
    let form = Form {
        version: match image.options.compat {
            Qcow2Compat::V2 => 2,
            Qcow2Compat::V3 => 3,
        },
        lazy_refcounts: image.options.lazy_refcounts,
    };
    create_as(file.try_clone_to_owned()?, &options, form)?;
    if !image.preallocate && !image.allocate {
        return Ok(None);
    }
    if backing.is_some() {
        // What is laid out hides what is beneath it.
        let why = "an image with a backing file is not laid out at once";
        return Err(io::Error::new(ErrorKind::InvalidInput, why));
    }
    let mut layout = Qcow2::open(file.try_clone_to_owned()?, Vec::new(), Options::default())?;
    let mut at = 0;
    while at < layout.size() {
        let left = layout.size() - at;
        // Nothing is written there: a new cluster is a hole, which reads as zeros.
        match layout.map_write(at, left)? {
            Extent::Data { len, .. } if len > 0 => at += len,
            _ => return Err(ErrorKind::InvalidData.into()),
        }
    }
    close(&mut layout)?;
    if image.allocate {
        let bytes = length(file)?;
        write::allocate(file, 0, bytes, bytes)?;
    }
    Ok(Some(layout))
}

/// Opens what is copied: the next file, and what it builds upon.
pub(super) fn open(
    files: &mut impl Iterator<Item = OwnedFd>,
    format: DiskFormat,
    backing: Vec<DiskFormat>,
) -> io::Result<Source> {
    let file = super::next(files)?;
    match format {
        DiskFormat::Raw => {
            let length = length(&file)?;
            Ok(Source::Raw(file, length))
        }
        DiskFormat::Qcow2 => {
            let options = Options {
                writable: false,
                ..Options::default()
            };
            let layout = Qcow2::open(file, chain(files, backing)?, options)?;
            Ok(Source::Image(Box::new(layout)))
        }
    }
}

fn chain(
    files: &mut impl Iterator<Item = OwnedFd>,
    formats: Vec<DiskFormat>,
) -> io::Result<Vec<(OwnedFd, Format)>> {
    let files = formats.into_iter().map(|format| {
        let format = match format {
            DiskFormat::Raw => Format::Raw,
            DiskFormat::Qcow2 => Format::Qcow2,
        };
        Ok((super::next(files)?, format))
    });
    files.collect()
}

impl Source {
    /// The first data behind `at`, up to `end`: where it begins, and what of it is in the buffer.
    fn next<'a>(
        &mut self,
        mut at: u64,
        buffer: &'a mut [u8],
    ) -> io::Result<Option<(u64, &'a [u8])>> {
        match self {
            Self::Raw(file, end) => {
                let Some((start, stop)) = extent(file.as_fd(), at, *end)? else {
                    return Ok(None);
                };
                let part = part(buffer, stop - start);
                match write::read(file.as_fd(), part, start)? {
                    0 => Ok(None),
                    count => Ok(Some((start, part.get(..count).unwrap_or_default()))),
                }
            }
            Self::Image(layout) => {
                while at < layout.size() {
                    let left = layout.size() - at;
                    match layout.map_read(at, left.min(CHUNK as u64))? {
                        Extent::Zero { len } if len > 0 => at += len,
                        Extent::Data { file, offset, len } if len > 0 => {
                            let part = part(buffer, len);
                            let file = layout.file(file).ok_or(ErrorKind::InvalidData)?;
                            let count = write::read(file, part, offset)?;
                            // What its file does not have is zero.
                            part.get_mut(count..).unwrap_or_default().fill(0);
                            return Ok(Some((at, part)));
                        }
                        Extent::Buffered { len } if len > 0 => {
                            let part = part(buffer, len.min(layout.buffered().len() as u64));
                            part.copy_from_slice(
                                layout.buffered().get(..part.len()).unwrap_or_default(),
                            );
                            if part.is_empty() {
                                return Err(ErrorKind::InvalidData.into());
                            }
                            return Ok(Some((at, part)));
                        }
                        _ => return Err(ErrorKind::InvalidData.into()),
                    }
                }
                Ok(None)
            }
        }
    }
}

/// Bytes that are looked at for being zero: no less than any file system's block.
const BLOCK: usize = 64 << 10;

/// Copies all that is not zero, by `put`.
fn each_block(
    source: &mut Source,
    mut put: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while let Some((start, bytes)) = source.next(at, &mut buffer)? {
        let mut place = start;
        // Blocks that begin where a cluster does.
        let first = BLOCK - usize::try_from(start % BLOCK as u64).unwrap_or(0);
        let (head, rest) = bytes.split_at(first.min(bytes.len()));
        for block in std::iter::once(head).chain(rest.chunks(BLOCK)) {
            if block.iter().any(|byte| *byte != 0) {
                put(place, block)?;
            }
            place += block.len() as u64;
        }
        at = place;
    }
    Ok(())
}

/// Fills a plain file.
pub(super) fn to_raw(
    file: BorrowedFd<'_>,
    mut source: Source,
    size: u64,
    allocate: bool,
) -> io::Result<()> {
    let from = match &source {
        Source::Raw(_, length) => *length,
        Source::Image(layout) => layout.size(),
    };
    let size = size.max(from);
    if allocate {
        write::allocate(file, 0, size, size)?;
    } else {
        write::allocate(file, 0, 0, size)?;
    }
    each_block(&mut source, |at, bytes| write::write(file, bytes, at))?;
    write::sync(file)
}

/// Makes an image and fills it.
pub(super) fn to_qcow2(
    file: BorrowedFd<'_>,
    mut source: Source,
    image: &NewImage,
) -> io::Result<()> {
    create(file, image)?;
    let mut target = Qcow2::open(file.try_clone_to_owned()?, Vec::new(), Options::default())?;
    each_block(&mut source, |mut at, mut bytes| {
        while !bytes.is_empty() {
            let left = target.size().saturating_sub(at);
            let wanted = (bytes.len() as u64).min(left);
            if wanted == 0 {
                // Zeros that make up a sector, at most.
                return Ok(());
            }
            let Extent::Data { offset, len, .. } = target.map_write(at, wanted)? else {
                return Err(ErrorKind::InvalidData.into());
            };
            let count = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(count);
            if now.is_empty() {
                return Err(ErrorKind::InvalidData.into());
            }
            write::write(file, now, offset)?;
            at += count as u64;
            bytes = rest;
        }
        Ok(())
    })?;
    close(&mut target)
}

/// Makes an image larger.
pub(super) fn grow(
    files: &mut impl Iterator<Item = OwnedFd>,
    size: u64,
    backing: Vec<DiskFormat>,
) -> io::Result<()> {
    let file = super::next(files)?;
    let backing = chain(files, backing)?;
    let mut layout = Qcow2::open(file, backing, Options::default())?;
    layout.resize(SizeChange::grow(size))?;
    close(&mut layout)
}

fn close(layout: &mut Qcow2) -> io::Result<()> {
    layout.flush()?;
    layout.close()?;
    layout.flush()
}
