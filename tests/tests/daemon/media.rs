//! Disks that change under their guest: sizes, media, and chains that images name. The guest is the built-in
//! one, which says what it sees of its first disk.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::api::call::{
    DomainConsole, DomainDefinitionGet, DomainDestroy, DomainDeviceUpdate, DomainDiskSizeGet,
    DomainMediumChange, DomainPeek, DomainStart, DomainUpgrade, PeekAt, StartOptions,
};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::device::DeviceChange;
use reeve_ipc::model::{Disk, DiskTarget, DomainUuid, Layer, Medium};
use reeve_ipc::spec::DiskFormat;
use reeve_tests::daemon::{Daemon, built_in, named};
use reeve_tests::tool::output;

use super::{assert_at_rest, define, wait_until_off};

/// Bytes of a disk at first.
const SIZE: u64 = 1 << 20;
/// Between two places that the guest looks at.
const STRIDE: u64 = 64 << 10;
/// A guest that says how large its first disk is and what three places of it begin with, at each change.
const WATCH: &str = "mode=block-watch count=3 size=65536 ms=120000";

/// What the guest says, from its start on.
struct Guest {
    stream: UnixStream,
    said: String,
}

impl Guest {
    fn of(connection: &mut Connection) -> Result<Self> {
        let (_, mut fds) = connection.call_with_fds(DomainConsole {
            domain: named("web"),
            input: true,
        })?;
        let stream = UnixStream::from(fds.pop().context("no console came")?);
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let said = String::new();
        Ok(Self { stream, said })
    }

    /// Reads on until `text` came, behind all that was expected before.
    fn expect(&mut self, text: &str) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(at) = self.said.find(text) {
                self.said.drain(..at + text.len());
                return Ok(());
            }
            let length = self.stream.read(&mut buffer);
            let length = length.with_context(|| format!("{text}: said: {}", self.said))?;
            ensure!(length > 0, "the console ended: {}", self.said);
            let more = String::from_utf8_lossy(&buffer[..length]);
            self.said.push_str(&more);
        }
    }
}

/// A daemon that allows one directory.
struct Place {
    daemon: Daemon,
    connection: Connection,
    files: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        let files = tempfile::tempdir()?;
        let mut daemon = Daemon::prepare()?;
        let config = files.path().join("reeve.toml");
        let allowed = files.path().join("images");
        std::fs::create_dir(&allowed)?;
        let allowed = allowed.display().to_string();
        let text = format!("libvirt = false\nallowed_directories = [{allowed:?}]\n");
        std::fs::write(&config, text)?;
        daemon.argument(&format!("--config={}", config.display()));
        daemon.spawn()?;
        Ok(Self {
            connection: daemon.connect()?,
            daemon,
            files,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join("images").join(name)
    }

    /// A raw image, each place of which begins with this byte.
    fn raw(&self, name: &str, byte: u8) -> Result<PathBuf> {
        let path = self.path(name);
        let file = File::create(&path)?;
        file.set_len(SIZE)?;
        for place in 0..3 {
            file.write_all_at(&[byte; 512], place * STRIDE)?;
        }
        Ok(path)
    }

    /// Starts a guest that watches its disk.
    fn watch(&mut self, disk: Disk) -> Result<Guest> {
        self.start(disk)?;
        let mut guest = Guest::of(&mut self.connection)?;
        guest.expect("looked")?;
        Ok(guest)
    }

    fn start(&mut self, disk: Disk) -> Result<(), anyhow::Error> {
        let mut domain = built_in("web", WATCH);
        domain.devices.disks = vec![disk];
        // Always the same domain.
        domain.uuid = DomainUuid(uuid::Uuid::from_u128(1));
        define(&mut self.connection, &domain)?;
        self.connection.call(DomainStart {
            domain: named("web"),
            options: StartOptions::default(),
        })?;
        Ok(())
    }

    fn resize(&mut self, bytes: Option<u64>, shrink: bool) -> Result<(), CallError> {
        self.connection.call(DomainDeviceUpdate {
            domain: named("web"),
            device: "vda".parse().expect("a name"),
            change: DeviceChange::DiskSize { bytes, shrink },
            live: true,
            persistent: false,
        })
    }

    fn change(&mut self, medium: Option<Medium>, persistent: bool) -> Result<(), CallError> {
        self.connection.call(DomainMediumChange {
            domain: named("web"),
            device: "vda".parse().expect("a name"),
            medium: medium.map(Box::new),
            live: true,
            persistent,
        })
    }

    fn images(&mut self) -> Result<[Option<PathBuf>; 2]> {
        let mut image = |persistent| -> Result<Option<PathBuf>> {
            let domain = named("web");
            let get = DomainDefinitionGet { domain, persistent };
            let devices = self.connection.call(get)?.domain.devices;
            Ok(devices.disks[0].image.clone().map(|layer| layer.path))
        };
        Ok([image(false)?, image(true)?])
    }

    fn end(mut self) -> Result<()> {
        self.stop()
    }

    fn stop(&mut self) -> Result<()> {
        let domain = named("web");
        self.connection.call(DomainDestroy { domain })?;
        wait_until_off(&mut self.connection, "web")?;
        assert_at_rest(&self.daemon);
        Ok(())
    }
}

fn disk(path: &Path, format: DiskFormat) -> Disk {
    let path = path.to_owned();
    Disk::new(
        "vda".parse().expect("a target"),
        Some(Layer { path, format }),
    )
}

/// A disk of which its image says what it builds upon.
fn asking(image: &Path) -> Disk {
    Disk {
        from_image: true,
        ..disk(image, DiskFormat::Qcow2)
    }
}

fn medium(path: &Path) -> Medium {
    Medium {
        image: Layer {
            path: path.to_owned(),
            format: DiskFormat::Raw,
        },
        backing: Vec::new(),
        from_image: false,
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, CallError>) -> Result<ApiError> {
    let error = result.err().context("it was not refused")?;
    Ok(error.refused().context("no refusal")?.clone())
}

fn refused_start(result: Result<()>) -> Result<ApiError> {
    let error = result.err().context("it was not refused")?;
    let error = error.downcast::<CallError>()?;
    Ok(error.refused().context("no refusal")?.clone())
}

/// What one of QEMU's tools prints.
fn qemu<'a>(name: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
    output(Command::new(name).args(arguments))
}

/// Waits a little until it is so.
fn eventually(mut is_so: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so()? {
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(true)
}

/// Whether anybody has a lock on the file.
fn is_locked(path: &Path) -> Result<bool> {
    let inode = format!(":{} ", std::fs::metadata(path)?.ino());
    Ok(std::fs::read_to_string("/proc/locks")?.contains(&inode))
}

/// Whether the worker has the file open.
fn is_open(daemon: &Daemon, path: &Path) -> Result<bool> {
    let wanted = std::fs::metadata(path)?.ino();
    for pid in daemon.workers() {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
            let open = std::fs::metadata(entry?.path());
            if open.is_ok_and(|open| open.ino() == wanted) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[test]
fn a_raw_disk_has_another_size_and_its_guest_sees_it_at_once() -> Result<()> {
    let mut place = Place::new()?;
    let image = place.raw("a.raw", 7)?;
    let mut guest = place.watch(disk(&image, DiskFormat::Raw))?;
    place.resize(Some(2 * SIZE), false)?;
    guest.expect("capacity: 4096")?;
    guest.expect("sector 256: status 0, byte 7")?;
    ensure!(std::fs::metadata(&image)?.len() == 2 * SIZE);
    let error = refused(place.resize(Some(SIZE), false))?;
    ensure!(error.message.contains("would be lost"), "{error}");
    let error = refused(place.resize(Some(SIZE + 1), false))?;
    ensure!(error.message.contains("multiple"), "{error}");
    place.resize(Some(STRIDE), true)?;
    guest.expect("capacity: 128")?;
    guest.expect("sector 0: status 0, byte 7")?;
    guest.expect("sector 128: status 1")?;
    ensure!(std::fs::metadata(&image)?.len() == STRIDE);
    // Somebody else made it longer.
    File::options()
        .write(true)
        .open(&image)?
        .set_len(3 * STRIDE)?;
    place.resize(None, false)?;
    guest.expect("capacity: 384")?;
    guest.expect("sector 128: status 0, byte 0")?;
    place.end()
}

#[test]
fn a_qcow2_disk_grows_and_stays_so_in_the_next_worker() -> Result<()> {
    let mut place = Place::new()?;
    let image = place.path("a.qcow2");
    let name = image.display().to_string();
    qemu("qemu-img", ["create", "-q", "-f", "qcow2", &name, "1M"])?;
    let mut guest = place.watch(disk(&image, DiskFormat::Qcow2))?;
    let size = 3_u64 << 40;
    place.resize(Some(size), false)?;
    guest.expect(&format!("capacity: {}", size / 512))?;
    let error = refused(place.resize(Some(SIZE), true))?;
    ensure!(
        error.message.contains("qemu-img resize --shrink"),
        "{error}"
    );
    place.connection.call(DomainUpgrade {
        domain: named("web"),
    })?;
    place.resize(Some(size + SIZE), false)?;
    let mut guest = Guest::of(&mut place.connection)?;
    guest.expect(&format!("capacity: {}", (size + SIZE) / 512))?;
    place.stop()?;
    // It was destroyed, and nothing is lost: its guest has written nothing.
    qemu("qemu-img", ["check", "-q", &name])?;
    let info = qemu("qemu-img", ["info", "--output=json", &name])?;
    let wanted = format!("\"virtual-size\": {}", size + SIZE);
    ensure!(info.contains(&wanted), "{info}");
    Ok(())
}

#[test]
fn a_disk_that_may_not_be_written_keeps_its_size() -> Result<()> {
    let mut place = Place::new()?;
    let image = place.raw("a.raw", 7)?;
    let mut fixed = disk(&image, DiskFormat::Raw);
    fixed.read_only = true;
    let _guest = place.watch(fixed)?;
    let error = refused(place.resize(Some(2 * SIZE), false))?;
    ensure!(error.message.contains("read-only"), "{error}");
    let error = refused(place.change(None, false))?;
    ensure!(error.message.contains("removable = true"), "{error}");
    place.end()
}

#[test]
fn a_medium_is_taken_out_and_another_put_in() -> Result<()> {
    let mut place = Place::new()?;
    let (first, second) = (place.raw("first.raw", 1)?, place.raw("second.raw", 2)?);
    let mut cd = disk(&first, DiskFormat::Raw);
    (cd.removable, cd.read_only) = (true, true);
    let mut guest = place.watch(cd)?;
    ensure!(is_locked(&first)? && is_open(&place.daemon, &first)?);
    place.change(None, false)?;
    guest.expect("capacity: 0")?;
    guest.expect("sector 0: status 1")?;
    ensure!(!is_locked(&first)?, "the medium before is locked");
    ensure!(
        !is_open(&place.daemon, &first)?,
        "the medium before is open"
    );
    ensure!(place.images()? == [None, Some(first.clone())]);
    let error = refused(place.resize(Some(SIZE), false))?;
    ensure!(error.message.contains("no medium"), "{error}");

    place.change(Some(medium(&second)), true)?;
    guest.expect("capacity: 2048")?;
    guest.expect("sector 128: status 0, byte 2")?;
    ensure!(is_locked(&second)?);
    ensure!(place.images()? == [Some(second.clone()), Some(second.clone())]);
    // One for the other, of the same size.
    place.change(Some(medium(&first)), false)?;
    guest.expect("sector 128: status 0, byte 1")?;
    ensure!(is_locked(&first)? && !is_locked(&second)?);

    // What cannot be put in leaves what is there.
    let outside = place.files.path().join("outside");
    File::create(&outside)?.set_len(SIZE)?;
    let error = refused(place.change(Some(medium(&outside)), true))?;
    ensure!(error.code == ApiErrorCode::PathRefused, "{error}");
    let mut broken = medium(&second);
    broken.image.format = DiskFormat::Qcow2;
    let error = refused(place.change(Some(broken), true))?;
    ensure!(error.message.contains("qcow2 magic"), "{error}");
    ensure!(place.images()? == [Some(first.clone()), Some(second.clone())]);
    ensure!(is_locked(&first)? && !is_locked(&second)?);

    // And in the next worker.
    place.connection.call(DomainUpgrade {
        domain: named("web"),
    })?;
    place.change(None, false)?;
    // The worker before has gone, or is just going.
    ensure!(eventually(|| Ok(!is_locked(&first)?))?);
    ensure!(!is_open(&place.daemon, &first)?);
    place.end()
}

#[test]
fn a_domain_starts_without_a_medium_and_gets_one() -> Result<()> {
    let mut place = Place::new()?;
    let first = place.raw("first.raw", 9)?;
    let mut cd = Disk::new("vda".parse()?, None);
    (cd.removable, cd.read_only) = (true, true);
    let mut guest = place.watch(cd)?;
    place.change(Some(medium(&first)), false)?;
    guest.expect("capacity: 2048")?;
    guest.expect("sector 0: status 0, byte 9")?;
    place.end()
}

/// An overlay by qemu-img.
fn overlay(image: &Path, base: &str, format: &str) -> Result<()> {
    let image = image.display().to_string();
    let create = [
        "create", "-q", "-f", "qcow2", "-F", format, "-b", base, &image,
    ];
    qemu("qemu-img", create)?;
    Ok(())
}

fn write(image: &Path, place: u64, byte: u8) -> Result<()> {
    let order = format!("write -P {byte} {} 512", place * STRIDE);
    let image = image.display().to_string();
    qemu("qemu-io", ["-f", "qcow2", "-c", &order, &image])?;
    Ok(())
}

#[test]
fn a_chain_is_read_from_its_images_and_each_level_is_there() -> Result<()> {
    let mut place = Place::new()?;
    place.raw("base.raw", 1)?;
    let (middle, top) = (place.path("middle.qcow2"), place.path("top.qcow2"));
    overlay(&middle, "base.raw", "raw")?;
    write(&middle, 1, 2)?;
    // By a whole path as well as by a name beside it.
    overlay(&top, &middle.display().to_string(), "qcow2")?;
    write(&top, 2, 3)?;
    let mut domain = built_in("web", WATCH);
    domain.devices.disks = vec![asking(&top)];
    define(&mut place.connection, &domain)?;
    place.connection.call(DomainStart {
        domain: named("web"),
        options: StartOptions::default(),
    })?;
    let mut guest = Guest::of(&mut place.connection)?;
    for (sector, byte) in [(0, 1), (128, 2), (256, 3)] {
        guest.expect(&format!("sector {sector}: status 0, byte {byte}"))?;
    }
    for name in ["base.raw", "middle.qcow2", "top.qcow2"] {
        ensure!(is_locked(&place.path(name))?, "{name}");
    }
    place.end()
}

#[test]
fn what_an_image_may_not_name_is_refused_by_that_name() -> Result<()> {
    let mut place = Place::new()?;
    place.raw("base.raw", 1)?;
    let image = place.path("a.qcow2");
    let name = image.display().to_string();
    for (rebase, says) in [
        (
            &["-F", "raw", "-b", "/etc/shadow"][..],
            "'/etc/shadow' is outside the allowed directories",
        ),
        (&["-F", "raw", "-b", "../x"], "without '..'"),
        (&["-F", "raw", "-b", "nbd://host/x"], "'nbd://host/x'"),
        (&["-F", "vmdk", "-b", "base.raw"], "'vmdk'"),
        (&["-F", "qcow2", "-b", "a.qcow2"], "twice"),
        (&["-F", "qcow2", "-b", "base.raw"], "qcow2 magic"),
    ] {
        qemu("qemu-img", ["create", "-q", "-f", "qcow2", &name, "1M"])?;
        let order = ["rebase", "-u", "-f", "qcow2"].into_iter();
        let order = order.chain(rebase.iter().copied()).chain([name.as_str()]);
        qemu("qemu-img", order)?;
        let error = refused_start(place.start(asking(&image)))?;
        ensure!(error.message.contains(says), "{error}");
        ensure!(!is_locked(&image)?, "{error}");
    }
    // An image of a time when the format was guessed.
    overlay(&image, "base.raw", "raw")?;
    forget_format(&image)?;
    let error = refused_start(place.start(asking(&image)))?;
    ensure!(error.message.contains("qemu-img rebase -u"), "{error}");
    // One that is not to be asked.
    overlay(&image, "/etc/shadow", "raw").ok();
    let error = refused_start(place.start(disk(&image, DiskFormat::Qcow2)))?;
    ensure!(error.message.contains("lacks a file"), "{error}");
    assert_at_rest(&place.daemon);
    Ok(())
}

/// Takes the name of the format out of an image: the header's extension becomes one that nobody knows.
fn forget_format(image: &Path) -> Result<()> {
    let file = File::options().read(true).write(true).open(image)?;
    let mut header = vec![0; 4096];
    file.read_exact_at(&mut header, 0)?;
    let kind = 0xe279_2aca_u32.to_be_bytes();
    let at = header.windows(4).position(|bytes| bytes == kind);
    file.write_all_at(&[0x11; 4], at.context("no such extension")? as u64)?;
    Ok(())
}

#[test]
fn readers_leave_no_process_and_no_zombie() -> Result<()> {
    let mut place = Place::new()?;
    let image = place.path("a.qcow2");
    let name = image.display().to_string();
    qemu("qemu-img", ["create", "-q", "-f", "qcow2", &name, "1M"])?;
    let guest = place.watch(disk(&image, DiskFormat::Qcow2))?;
    let daemon = &place.daemon;
    ensure!(eventually(|| Ok(
        children(daemon)? == daemon.workers().len()
    ))?);
    drop(guest);
    place.end()
}

/// How many children the daemon has, zombies too.
fn children(daemon: &Daemon) -> Result<usize> {
    let parent = daemon.pid().context("no daemon")?.to_string();
    let mut count = 0;
    for entry in std::fs::read_dir("/proc")? {
        let stat = std::fs::read_to_string(entry?.path().join("stat"));
        let stat = stat.unwrap_or_default();
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        count += usize::from(rest.split(' ').nth(1) == Some(&parent));
    }
    Ok(count)
}

#[test]
fn what_a_disk_and_memory_hold_is_read_beside_the_guest() -> Result<()> {
    let mut place = Place::new()?;
    let raw = place.raw("a.raw", 7)?;
    let qcow2 = place.path("a.qcow2");
    let (from, to) = (raw.display().to_string(), qcow2.display().to_string());
    qemu("qemu-img", ["convert", "-O", "qcow2", &from, &to])?;
    // Storage that is slow is asked again.
    let peek = |place: &mut Place, at: PeekAt, offset, length| {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let read = place.connection.call(DomainPeek {
                domain: named("web"),
                at: at.clone(),
                offset,
                length,
            });
            let error = read.as_ref().err().and_then(CallError::refused);
            let is_late = error.is_some_and(|error| error.code == ApiErrorCode::Timeout);
            if !is_late || Instant::now() > deadline {
                return read;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    for (image, format) in [(&raw, DiskFormat::Raw), (&qcow2, DiskFormat::Qcow2)] {
        drop(place.watch(disk(image, format))?);
        let target = || "vda".parse::<DiskTarget>().expect("a name");
        let vda = || PeekAt::Disk(target());
        let bytes = peek(&mut place, vda(), STRIDE - 2, 514)?;
        ensure!(bytes[..2] == [0, 0] && bytes[2..] == [7; 512], "{bytes:?}");
        let error = refused(peek(&mut place, vda(), SIZE, 1))?;
        ensure!(error.message.contains("bytes"), "{error}");
        let memory = peek(&mut place, PeekAt::Memory, 0, 4096)?;
        ensure!(memory.len() == 4096);
        refused(peek(&mut place, PeekAt::Memory, 1 << 40, 1))?;
        refused(peek(&mut place, PeekAt::Memory, 0, 1 << 20))?;
        let size = place.connection.call(DomainDiskSizeGet {
            domain: named("web"),
            disk: target(),
        })?;
        ensure!(size.capacity == SIZE, "{size:?}");
        ensure!(size.physical == std::fs::metadata(image)?.len(), "{size:?}");
        place.stop()?;
        refused(peek(&mut place, PeekAt::Memory, 0, 1))?;
    }
    Ok(())
}
