//! What the tests stand on: qemu-img, storage in memory, an engine that moves data by calls.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::block::qcow2::{Format, Options, Qcow2, Storage};
use crate::block::{Extent, Layout};

/// A directory that is in memory where the machine has one there.
pub(super) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        return tempfile::tempdir_in(memory).unwrap();
    }
    tempfile::tempdir().unwrap()
}

/// Runs qemu-img; whether it was content, and what it said.
pub(super) fn qemu_img_status(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new("qemu-img")
        .args(arguments)
        .output()
        .unwrap_or_else(|_| panic!("these tests need qemu-img: install the package qemu-utils"));
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Runs qemu-img, which must be content.
pub(super) fn qemu_img(arguments: &[&str]) -> String {
    let (status, said) = qemu_img_status(arguments);
    assert_eq!(status, Some(0), "qemu-img {arguments:?}: {said}");
    said
}

/// A path as an argument.
pub(super) fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(super) fn descriptor(path: &Path) -> OwnedFd {
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
        .into()
}

/// Small caches, so that tests meet their limits.
pub(super) fn tight() -> Options {
    Options {
        writable: true,
        l2_cache_bytes: 0,
        refcount_cache_bytes: 0,
    }
}

pub(super) fn read_only() -> Options {
    Options {
        writable: false,
        ..tight()
    }
}

pub(super) fn open(path: &Path, backing: &[(&Path, Format)], options: Options) -> Qcow2 {
    let backing = backing
        .iter()
        .map(|(path, format)| (descriptor(path), *format))
        .collect();
    Qcow2::open(descriptor(path), backing, options).unwrap()
}

/// Reads from a disk as an engine does.
pub(super) fn read<S: Storage>(
    disk: &mut Qcow2<S>,
    offset: u64,
    len: usize,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let at = offset + bytes.len() as u64;
        let left = (len - bytes.len()) as u64;
        match disk.map_read(at, left)? {
            Extent::Zero { len } => {
                assert!((1..=left).contains(&len));
                bytes.resize(bytes.len() + len as usize, 0);
            }
            Extent::Buffered { len } => {
                assert!((1..=left).contains(&len));
                assert_eq!(disk.buffered().len(), len as usize);
                bytes.extend_from_slice(disk.buffered());
            }
            Extent::Data { file, offset, len } => {
                assert!((1..=left).contains(&len));
                let mut part = vec![0; len as usize];
                disk.image_file(file)?.read(&mut part, offset)?;
                bytes.extend_from_slice(&part);
            }
        }
    }
    Ok(bytes)
}

/// Writes to a disk as an engine does.
pub(super) fn write<S: Storage>(
    disk: &mut Qcow2<S>,
    mut offset: u64,
    mut bytes: &[u8],
) -> io::Result<()> {
    while !bytes.is_empty() {
        let Extent::Data {
            file: 0,
            offset: host,
            len,
        } = disk.map_write(offset, bytes.len() as u64)?
        else {
            panic!("a write was mapped to something else than the image");
        };
        let (now, later) = bytes.split_at(len as usize);
        disk.image_file(0)?.storage().write_at(now, host)?;
        bytes = later;
        offset += len;
    }
    Ok(())
}

/// The whole disk.
pub(super) fn read_all<S: Storage>(disk: &mut Qcow2<S>) -> Vec<u8> {
    read(disk, 0, disk.size() as usize).unwrap()
}

/// Numbers that are the same in every run.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        // Never zero, so that what is lost shows.
        let mut bytes: Vec<u8> = (0..len.div_ceil(8))
            .flat_map(|_| (self.next() | 0x0101_0101_0101_0101).to_le_bytes())
            .collect();
        bytes.truncate(len);
        bytes
    }
}

/// Something done to storage.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Write(u64, Vec<u8>),
    Length(u64),
    Zero(u64, u64),
    Sync,
}

/// A file in memory that remembers what was done to it. Clones are the same file.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(super) struct State {
    pub bytes: Vec<u8>,
    pub log: Vec<Op>,
    /// Fails every call from this many on.
    pub fail_from: Option<usize>,
    /// Fails barriers.
    pub fail_sync: bool,
}

impl Memory {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let memory = Self::default();
        memory.state().bytes = bytes;
        memory
    }

    /// What is in the file now.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

/// Does `op` to `bytes`.
pub(super) fn apply(bytes: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write(offset, data) => {
            let (start, end) = (*offset as usize, *offset as usize + data.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(data);
        }
        Op::Length(len) => bytes.resize(*len as usize, 0),
        Op::Zero(offset, len) => {
            let end = bytes.len().min((offset + len) as usize);
            let start = end.min(*offset as usize);
            bytes[start..end].fill(0);
        }
        Op::Sync => {}
    }
}

impl State {
    fn record(&mut self, op: Op) -> io::Result<()> {
        if self.fail_from.is_some_and(|from| self.log.len() >= from) {
            return Err(io::Error::other("storage fails"));
        }
        apply(&mut self.bytes, &op);
        self.log.push(op);
        Ok(())
    }
}

impl Storage for Memory {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.state();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = state.bytes.get(start..).unwrap_or_default();
        let count = there.len().min(buf.len());
        buf[..count].copy_from_slice(&there[..count]);
        Ok(count)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        assert!(offset < 1 << 30, "write far behind the end");
        self.state().record(Op::Write(offset, buf.to_vec()))
    }

    fn sync(&self) -> io::Result<()> {
        if self.state().fail_sync {
            return Err(io::Error::other("barrier fails"));
        }
        self.state().record(Op::Sync)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > 1 << 28 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        assert!(len >= self.length()?, "a file never becomes shorter");
        self.state().record(Op::Length(len))
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        assert!(offset + len <= self.length()?, "zeroes behind the end");
        self.state().record(Op::Zero(offset, len))
    }

    fn release(&self, offset: u64, len: u64) {
        let _ = self.state().record(Op::Zero(offset, len));
    }

    fn identity(&self) -> Option<(u64, u64)> {
        Some((0, Arc::as_ptr(&self.0) as u64))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// An image that qemu-img made, and a way to it.
pub(super) struct Made {
    pub directory: tempfile::TempDir,
    pub path: PathBuf,
}

/// An empty image by qemu-img.
pub(super) fn make(size: u64, options: &str) -> Made {
    let directory = scratch();
    let path = directory.path().join("image");
    let size = size.to_string();
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        options,
        arg(&path),
        &size,
    ]);
    Made { directory, path }
}

/// A new file for [`create`](crate::block::qcow2::create).
pub(super) fn new_file(path: &Path) -> OwnedFd {
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap()
        .into()
}
