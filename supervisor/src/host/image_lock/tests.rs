//! Who may open an image beside whom: ourselves, and QEMU's own tools.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

struct Image {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn image() -> Image {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    Image {
        _directory: directory,
        path,
    }
}

impl Image {
    fn open(&self, what: ImageUse) -> Result<File, ImageLockError> {
        let write = what == ImageUse::Write;
        let file = File::options().read(true).write(write).open(&self.path);
        let file = file.unwrap();
        lock(file.as_fd(), what)?;
        Ok(file)
    }
}

#[test]
fn one_writes_alone_and_many_read() {
    let image = image();
    let writer = image.open(ImageUse::Write).unwrap();
    for what in [ImageUse::Write, ImageUse::Read] {
        let error = image.open(what).unwrap_err().to_string();
        assert!(error.contains("in use elsewhere"), "{error}");
    }
    drop(writer);
    let readers = [(); 3].map(|()| image.open(ImageUse::Read).unwrap());
    let error = image.open(ImageUse::Write).unwrap_err();
    assert!(matches!(error, ImageLockError::Forbidden("write")));
    drop(readers);
    image.open(ImageUse::Write).unwrap();
}

#[test]
fn a_lock_goes_with_the_descriptor_and_ends_with_its_last_copy() {
    let image = image();
    let first = image.open(ImageUse::Write).unwrap();
    let copy = first.try_clone().unwrap();
    drop(first);
    assert!(image.open(ImageUse::Write).is_err());
    drop(copy);
    // A process that another test was just making has one until it executes.
    let begin = std::time::Instant::now();
    while let Err(error) = image.open(ImageUse::Write) {
        assert!(begin.elapsed().as_secs() < 10, "{error}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_file_that_another_program_locks_whole_is_refused() {
    let image = image();
    let other = File::options().write(true).open(&image.path).unwrap();
    for byte in [100, 201] {
        assert!(super::super::ofd_lock::try_lock_byte(&other, byte).unwrap());
        let error = image.open(ImageUse::Read).unwrap_err();
        assert!(matches!(error, ImageLockError::Foreign));
        super::super::ofd_lock::unlock_byte(&other, byte).unwrap();
    }
    image.open(ImageUse::Read).unwrap();
}

/// Whether QEMU's tools are there; the lab installs them.
fn has_qemu() -> bool {
    let found = Command::new("qemu-io").arg("--version").output();
    found.is_ok_and(|output| output.status.success())
}

fn qemu_io(path: &Path, options: &[&str], command: &str) -> Result<(), String> {
    let output = Command::new("qemu-io")
        .args(options)
        .args(["-f", "raw", "-c", command])
        .arg(path)
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A `qemu-io` that has the image open until it is dropped.
struct Holder(Child);

impl Holder {
    fn open(path: &Path, options: &[&str], marker: u64) -> Self {
        let child = Command::new("qemu-io")
            .args(options)
            .args(["-f", "raw"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let holder = Self(child);
        let file = File::open(path).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_held_by_others(&file, marker).unwrap() {
            assert!(Instant::now() < deadline, "qemu-io takes no lock");
            std::thread::sleep(Duration::from_millis(10));
        }
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn qemu_writes_nothing_that_we_have_open() {
    if !has_qemu() {
        return;
    }
    let image = image();
    for what in [ImageUse::Write, ImageUse::Read] {
        let held = image.open(what).unwrap();
        let error = qemu_io(&image.path, &[], "write 0 512").unwrap_err();
        assert!(error.contains("Failed to get \"write\" lock"), "{error}");
        drop(held);
    }
    qemu_io(&image.path, &[], "write 0 512").unwrap();
}

#[test]
fn qemu_takes_no_format_apart_that_we_write() {
    if !has_qemu() {
        return;
    }
    let image = image();
    let qemu_img = |arguments: &[&str]| {
        let mut command = Command::new("qemu-img");
        command.args(arguments).arg(&image.path).output().unwrap()
    };
    let output = Command::new("qemu-img")
        .args(["create", "-f", "qcow2"])
        .arg(&image.path)
        .arg("1M")
        .output();
    assert!(output.unwrap().status.success());
    let held = image.open(ImageUse::Write).unwrap();
    for command in ["info", "check"] {
        let output = qemu_img(&[command, "-f", "qcow2"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && error.contains("lock"),
            "{error}"
        );
    }
    drop(held);
    let _held = image.open(ImageUse::Read).unwrap();
    assert!(qemu_img(&["check", "-f", "qcow2"]).status.success());
}

#[test]
fn qemu_reads_what_we_only_read() {
    if !has_qemu() {
        return;
    }
    let image = image();
    let _reader = image.open(ImageUse::Read).unwrap();
    qemu_io(&image.path, &["-r"], "read 0 512").unwrap();
}

#[test]
fn nothing_is_opened_that_qemu_writes() {
    if !has_qemu() {
        return;
    }
    let image = image();
    let holder = Holder::open(&image.path, &[], 101);
    for what in [ImageUse::Write, ImageUse::Read] {
        let error = image.open(what).unwrap_err();
        assert!(matches!(error, ImageLockError::Done("write")), "{error}");
    }
    drop(holder);
    image.open(ImageUse::Write).unwrap();
}

#[test]
fn a_machine_of_qemus_and_one_of_ours_never_share_what_either_writes() {
    let found = Command::new("qemu-nbd").arg("--version").output();
    if !has_qemu() || found.is_err() {
        return;
    }
    let image = image();
    let nbd = |options: &[&str]| {
        let socket = image.path.with_extension("sock");
        let child = Command::new("qemu-nbd")
            .args(options)
            .args(["-f", "raw", "-t", "-k"])
            .arg(socket)
            .arg(&image.path)
            .spawn()
            .unwrap();
        let held = Holder(child);
        let file = File::open(&image.path).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_held_by_others(&file, 100).unwrap() {
            assert!(Instant::now() < deadline, "qemu-nbd takes no lock");
            std::thread::sleep(Duration::from_millis(10));
        }
        held
    };
    let held = nbd(&[]);
    assert!(image.open(ImageUse::Write).is_err());
    assert!(image.open(ImageUse::Read).is_err());
    drop(held);
    let _held = nbd(&["-r"]);
    image.open(ImageUse::Read).unwrap();
}
