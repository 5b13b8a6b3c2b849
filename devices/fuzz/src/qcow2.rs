//! A qcow2 image that says anything: opened, read, written, discarded, zeroed, grown and flushed.
//!
//! An input either is an image, or says how one of ours is changed before it is opened. What was just
//! written reads back, if it went to one place in the file; and on an image that was not changed,
//! everything does, also when it is opened anew.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use reeve_devices::block::qcow2::{CreateOptions, Format, Options, Qcow2, create, read_header};
use reeve_devices::block::{Extent, Layout, SizeChange};
use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use rustix::io::{pread, pwrite};

use super::input::Input;

/// The most steps of one input.
const STEPS: usize = 100;
/// Bytes of a disk of ours.
const DISK: u64 = 0x2_0000;
/// Bytes that are looked at of any disk.
const REACH: u64 = 8 << 20;
/// Bytes of a table that are looked at.
const TABLE: u64 = 4096;
/// More than a file can become by so few steps.
const FILE: u64 = 1 << 40;

fn file(bytes: &[u8]) -> OwnedFd {
    let file = memfd_create("image", MemfdFlags::CLOEXEC).expect("a memfd");
    write_all(&file, bytes, 0);
    file
}

fn write_all(file: &OwnedFd, bytes: &[u8], offset: u64) {
    assert_eq!(pwrite(file, bytes, offset), Ok(bytes.len()));
}

fn copy(file: &OwnedFd) -> OwnedFd {
    file.try_clone().expect("a descriptor")
}

/// Where the metadata is that the file itself names: header, tables, L2 tables and refcount blocks.
fn metadata(file: &OwnedFd) -> Vec<Range<u64>> {
    let number = |offset, len: usize| {
        let mut bytes = [0; 8];
        let _ = pread(file, &mut bytes[8 - len..], offset);
        u64::from_be_bytes(bytes)
    };
    let cluster = 1 << number(20, 4).min(21);
    let (l1, l1_bytes) = (number(40, 8), number(36, 4) * 8);
    let (counts, count_bytes) = (number(48, 8), number(56, 4) * cluster);
    let mut places = vec![0..cluster, l1..l1 + l1_bytes, counts..counts + count_bytes];
    for (table, bytes) in [(l1, l1_bytes), (counts, count_bytes)] {
        let mut entries = vec![0; usize::try_from(bytes.min(TABLE)).unwrap_or(0)];
        let got = pread(file, &mut *entries, table).unwrap_or(0);
        let entries = entries[..got].chunks_exact(8);
        let words = entries.filter_map(<[u8]>::first_chunk);
        let offsets = words.map(|word| u64::from_be_bytes(*word) & 0x00ff_ffff_ffff_fe00);
        let there = offsets.filter(|offset| *offset != 0);
        places.extend(there.map(|offset| offset..offset + cluster));
    }
    places
}

/// A disk and what is known of it.
struct Disk {
    image: Qcow2,
    files: Vec<OwnedFd>,
    options: Options,
    /// What is on it, if that is known.
    model: Option<Vec<u8>>,
}

impl Disk {
    /// Where the `len` bytes at `offset` are read from, piece by piece.
    fn read(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut data = vec![0x5a; len];
        let mut done = 0;
        while done < len {
            let wanted = (len - done) as u64;
            let extent = self.image.map_read(offset + done as u64, wanted)?;
            let length = match extent {
                Extent::Data { len, .. } | Extent::Zero { len } | Extent::Buffered { len } => len,
            };
            assert!(length > 0 && length <= wanted, "{extent:?}");
            let part = &mut data[done..][..usize::try_from(length).expect("a length")];
            match extent {
                Extent::Data { file, offset, .. } => {
                    let file = self.image.file(file).expect("a file that it named");
                    // Behind its end there are zeroes.
                    let got = pread(file, &mut *part, offset)?;
                    part[got..].fill(0);
                }
                Extent::Zero { .. } => part.fill(0),
                Extent::Buffered { .. } => {
                    let bytes = self.image.buffered();
                    part.copy_from_slice(&bytes[..part.len()]);
                }
            }
            done += part.len();
        }
        Ok(data)
    }

    /// Writes `data`; whether no byte of it went to where another went.
    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<bool> {
        let mut done = 0;
        let mut places: Vec<(u64, u64)> = Vec::new();
        while done < data.len() {
            let wanted = (data.len() - done) as u64;
            let extent = self.image.map_write(offset + done as u64, wanted)?;
            let Extent::Data { file, offset, len } = extent else {
                panic!("cannot write to {extent:?}");
            };
            assert!(file == 0 && len > 0 && len <= wanted, "{extent:?}");
            assert!(
                metadata(&self.files[0])
                    .iter()
                    .all(|place| offset + len <= place.start || place.end <= offset),
                "a write over metadata"
            );
            let part = &data[done..][..usize::try_from(len).expect("a length")];
            write_all(&self.files[0], part, offset);
            places.push((offset, len));
            done += part.len();
        }
        places.sort_unstable();
        Ok(places
            .windows(2)
            .all(|pair| pair[0].0 + pair[0].1 <= pair[1].0))
    }

    /// What is now at `offset`, whatever was there; `None` if nobody knows.
    fn note(&mut self, offset: u64, len: usize, data: Option<&[u8]>) {
        let Some(model) = &mut self.model else { return };
        let at = usize::try_from(offset).expect("a small disk");
        match data {
            Some(data) => model[at..at + len].copy_from_slice(data),
            None => self.model = None,
        }
    }

    fn compare(&mut self, offset: u64, len: usize) {
        let read = self.read(offset, len);
        if let Some(model) = &self.model {
            let at = usize::try_from(offset).expect("a small disk");
            assert_eq!(read.expect("a good image"), model[at..at + len]);
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let op = input.u8();
        let reach = self.image.size().min(REACH);
        let offset = match op & 0x40 {
            0 => u64::from(input.u16()) << 9,
            _ => u64::from(input.u32()) << 9,
        };
        let sectors = usize::from(input.u8() & 0x3f) + 1;
        if reach == 0 {
            assert!(self.image.map_read(0, 512).is_err());
            return;
        }
        let offset = offset % reach;
        let left = usize::try_from(reach - offset).expect("a length");
        let len = (sectors * 512).min(left);
        match op & 15 {
            0..=4 => self.compare(offset, len),
            5..=9 => {
                let data: Vec<u8> = (0_usize..len)
                    .map(|at| op ^ u8::try_from(at / 512).unwrap_or(0))
                    .collect();
                let written = self.write(offset, &data);
                if self.options.writable && self.model.is_some() {
                    assert!(matches!(written, Ok(true)), "{written:?}");
                }
                match written {
                    Ok(apart) => {
                        assert!(self.options.writable);
                        let read = self.read(offset, len).expect("what was just written");
                        assert!(!apart || read == data, "what was written is not read");
                        self.note(offset, len, Some(&data));
                    }
                    Err(_) if self.options.writable => self.note(offset, len, None),
                    Err(_) => {}
                }
            }
            10 => {
                let done = self.image.discard(offset, len as u64);
                if self.model.is_some() && self.options.writable {
                    done.expect("a good image");
                    // As before, or zero.
                    let read = self.read(offset, len).expect("a good image");
                    let zero = vec![0; 512];
                    let model = self.model.clone().unwrap_or_default();
                    let at = usize::try_from(offset).expect("a small disk");
                    for (now, before) in read.chunks(512).zip(model[at..].chunks(512)) {
                        assert!(
                            now == before || now == zero,
                            "a discard left something else"
                        );
                    }
                    self.note(offset, len, Some(&read));
                }
            }
            11 | 12 => {
                let unmap = op & 0x80 != 0;
                let done = self.image.write_zeroes(offset, len as u64, unmap);
                if self.model.is_some() && self.options.writable {
                    assert!(done.is_ok(), "{done:?}");
                }
                if done.is_ok() {
                    let read = self.read(offset, len).expect("what was just zeroed");
                    assert!(read.iter().all(|byte| *byte == 0), "zeroes are not");
                    self.note(offset, len, Some(&vec![0; len]));
                }
            }
            13 => {
                let done = self.image.flush();
                assert!(self.model.is_none() || done.is_ok(), "{done:?}");
            }
            14 if op & 0x80 == 0 => self.reopen(),
            14 => {
                let before = self.image.size();
                let done = self
                    .image
                    .resize(SizeChange::grow(before + ((sectors as u64) << 11)));
                let after = self.image.size();
                assert!(after >= before);
                if let Some(model) = &mut self.model {
                    assert_eq!(done.is_ok(), self.options.writable);
                    model.resize(usize::try_from(after).expect("a small disk"), 0);
                }
            }
            // Not on the disk.
            _ => {
                let size = self.image.size();
                assert!(self.image.map_read(size, 512).is_err());
                assert!(self.image.map_write(u64::MAX, 512).is_err());
                assert!(self.image.discard(size, u64::MAX).is_err());
                assert!(self.image.map_read(0, 0).is_err());
            }
        }
    }

    fn reopen(&mut self) {
        let closed = self.image.close();
        let opened = open(&self.files, self.options);
        match opened {
            Ok(image) => self.image = image,
            Err(error) => assert!(self.model.is_none(), "{error}"),
        }
        assert!(self.model.is_none() || closed.is_ok(), "{closed:?}");
    }

    fn end(mut self) {
        let _ = self.image.flush();
        self.reopen();
        if let Some(len) = self.model.as_ref().map(Vec::len) {
            for offset in (0..len).step_by(4096) {
                self.compare(offset as u64, 4096.min(len - offset));
            }
        }
        let size = fstat(&self.files[0]).expect("a file").st_size;
        assert!(u64::try_from(size).is_ok_and(|size| size < FILE));
    }
}

/// The image in the first of `files`, on the second if there is one, which is raw.
fn open(
    files: &[OwnedFd],
    options: Options,
) -> Result<Qcow2, reeve_devices::block::qcow2::Qcow2Error> {
    let (image, backing) = files.split_first().expect("an image");
    let backing = backing.iter().map(|file| (copy(file), Format::Raw));
    Qcow2::open(copy(image), backing.collect(), options)
}

/// An image of ours with something on it.
fn make(file: &OwnedFd, cluster_bits: u32, backing: Option<&OwnedFd>) {
    let options = CreateOptions {
        size: DISK,
        cluster_bits,
        backing: backing.map(|_| ("base", "raw")),
    };
    create(copy(file), &options).expect("an image");
}

/// Changes the image by what the input says; whether it did.
fn lie(file: &OwnedFd, input: &mut Input<'_>) -> bool {
    let count = input.below(6);
    for _ in 0..count {
        let how = input.u8();
        let at = u64::from(input.u16());
        match how & 7 {
            // The header.
            0 | 1 => write_all(file, input.bytes(8), at & 0x7f),
            // An entry of a table: flags, and an offset of a cluster, mostly one that there is.
            2..=5 => {
                let cluster = match how & 0x60 {
                    0 => u64::from(input.u16()),
                    _ => u64::from(input.u8() & 0x3f),
                };
                let at = if how & 0x80 == 0 {
                    at & 0x3ff
                } else {
                    at & 0x1fff
                };
                let flags = u64::from(input.u8());
                let entry = (flags >> 6) << 62 | cluster << 9 | (flags & 1);
                write_all(file, &entry.to_be_bytes(), at * 8);
            }
            6 => write_all(file, input.short(), at << 2),
            _ => ftruncate(file, at << 4).expect("a size"),
        }
    }
    count > 0
}

/// Drives an image by `bytes`.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let how = input.u8();
    let options = Options {
        writable: how & 2 == 0,
        l2_cache_bytes: if how & 4 == 0 { 0 } else { 1 << 20 },
        refcount_cache_bytes: if how & 8 == 0 { 0 } else { 256 << 10 },
    };
    let cluster_bits = [9, 9, 12, 16][usize::from(how >> 6)];
    let mut files = vec![file(&[])];
    let mut model = None;
    if how & 1 == 0 {
        if how & 0x10 != 0 {
            let base: Vec<u8> = (0..0x9000_u32)
                .map(|at| u8::try_from(at >> 9 & 0x7f).unwrap_or(0))
                .collect();
            files.push(file(&base));
            let mut known = base;
            known.resize(usize::try_from(DISK).expect("small"), 0);
            model = Some(known);
        } else {
            model = Some(vec![0; usize::try_from(DISK).expect("small")]);
        }
        make(&files[0], cluster_bits, files.get(1));
        // Some tables and data, before it is changed.
        if how & 0x20 != 0 {
            let first = open(&files, Options::default()).expect("an image of ours");
            let mut disk = Disk {
                image: first,
                files: files.iter().map(copy).collect(),
                options: Options::default(),
                model,
            };
            for _ in 0..1 + input.below(4) {
                disk.step(&mut input);
            }
            disk.image.flush().expect("a good image");
            disk.image.close().expect("a good image");
            model = disk.model;
        }
        if lie(&files[0], &mut input) {
            model = None;
        }
    } else {
        // The image itself, of as many bytes, and what is done with it behind.
        let len = usize::from(input.u16());
        write_all(&files[0], input.bytes(len), 0);
        if how & 0x10 != 0 {
            files.push(file(&[7; 700]));
        }
    }
    let facts = read_header(files[0].as_fd());
    if let Ok(facts) = &facts {
        assert!((9..=21).contains(&facts.cluster_bits) && facts.refcount_bits <= 64);
        let name = facts.backing_file.as_deref().unwrap_or_default();
        assert!(name.len() <= 1023);
    }
    let image = match open(&files, options) {
        Ok(image) => image,
        Err(error) => {
            assert!(model.is_none(), "{error}");
            return;
        }
    };
    assert!(facts.is_ok());
    assert_eq!(image.size() % 512, 0);
    let mut disk = Disk {
        image,
        files,
        options,
        model,
    };
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        disk.step(&mut input);
    }
    disk.end();
}
