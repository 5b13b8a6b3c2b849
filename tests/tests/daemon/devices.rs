//! Devices that come and go while a domain runs. The built-in guest has no driver and no ACPI: it never
//! lets go of a device, and so is what a guest that does not want to is.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::api::call::{
    DomainDefinitionGet, DomainDestroy, DomainDeviceAttach, DomainDeviceDetach,
    DomainDeviceStatsGet, DomainDeviceUpdate, DomainMemorySet,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::event::EventKind;
use reeve_ipc::device::{DeviceChange, DeviceFigures};
use reeve_ipc::model::{
    Balloon, Device, Devices, Disk, DiskTarget, Layer, MemorySize, Nic, NicSource, Rng, Vsock,
};
use reeve_ipc::spec::{DiskFormat, MAX_DEVICES};
use reeve_tests::daemon::{Daemon, built_in, named};

use super::guest::{self, wait_for_guest};
use super::{ECHO, assert_at_rest, define, start, wait_until_off};

/// A daemon that allows a directory of its own, with a domain that runs.
pub(super) struct Place {
    pub(super) daemon: Daemon,
    pub(super) connection: Connection,
    files: tempfile::TempDir,
}

impl Place {
    pub(super) fn new(devices: Devices) -> Result<Self> {
        Self::with(|_| Ok(devices))
    }

    /// With devices of files beneath the directory that is allowed.
    pub(super) fn with(devices: impl FnOnce(&Path) -> Result<Devices>) -> Result<Self> {
        let mut place = Self::running(ECHO, devices)?;
        wait_for_guest(&mut place.connection, "web")?;
        Ok(place)
    }

    /// The same with a guest that does something else, which nobody waits for.
    pub(super) fn running(
        command_line: &str,
        devices: impl FnOnce(&Path) -> Result<Devices>,
    ) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let mut daemon = Daemon::prepare()?;
        let config = files.path().join("reeve.toml");
        let allowed = files.path().join("images");
        std::fs::create_dir(&allowed)?;
        let text = format!(
            "libvirt = false\nallowed_directories = [{:?}]\n",
            allowed.display().to_string()
        );
        std::fs::write(&config, text)?;
        daemon.argument(&format!("--config={}", config.display()));
        daemon.spawn()?;
        let mut connection = daemon.connect()?;
        let mut domain = built_in("web", command_line);
        domain.devices = devices(&allowed)?;
        define(&mut connection, &domain)?;
        start(&mut connection, "web")?;
        Ok(Self {
            daemon,
            connection,
            files,
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join("images").join(name)
    }

    fn image(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        File::create(&path)?.set_len(1 << 20)?;
        Ok(path)
    }

    pub(super) fn attach(&mut self, device: Device, persistent: bool) -> Result<(), CallError> {
        self.connection.call(DomainDeviceAttach {
            domain: named("web"),
            device: Box::new(device),
            live: true,
            persistent,
        })
    }

    pub(super) fn detach(
        &mut self,
        device: &str,
        force: bool,
        persistent: bool,
    ) -> Result<(), CallError> {
        self.connection.call(DomainDeviceDetach {
            domain: named("web"),
            device: device.parse().expect("a name"),
            force,
            live: true,
            persistent,
        })
    }

    /// What the devices are called of which there are statistics.
    pub(super) fn devices(&mut self) -> Result<Vec<String>> {
        let domain = named("web");
        let stats = self.connection.call(DomainDeviceStatsGet { domain })?;
        Ok(stats.iter().map(|stats| stats.device.to_string()).collect())
    }

    pub(super) fn definition(&mut self, persistent: bool) -> Result<Devices> {
        let domain = named("web");
        let get = DomainDefinitionGet { domain, persistent };
        Ok(self.connection.call(get)?.domain.devices)
    }

    pub(super) fn status(&self) -> Result<String> {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.daemon.run().join("domains"))? {
            for file in std::fs::read_dir(entry?.path())? {
                let path = file?.path();
                if path.extension().is_some_and(|kind| kind == "json") {
                    text.push_str(&std::fs::read_to_string(path)?);
                }
            }
        }
        Ok(text)
    }

    pub(super) fn end(mut self) -> Result<()> {
        let domain = named("web");
        self.connection.call(DomainDestroy { domain })?;
        wait_until_off(&mut self.connection, "web")?;
        assert_at_rest(&self.daemon);
        Ok(())
    }
}

fn disk(target: &str, path: &Path) -> Device {
    let layer = Layer {
        path: path.to_owned(),
        format: DiskFormat::Raw,
    };
    Device::Disk(Disk::new(target.parse().expect("a target"), Some(layer)))
}

fn code<T>(result: Result<T, CallError>) -> Option<ApiErrorCode> {
    let error = result.err()?;
    error.refused().map(|refused| refused.code)
}

#[test]
fn a_disk_comes_and_goes_with_all_that_it_held() -> Result<()> {
    let mut place = Place::new(Devices::default())?;
    place.connection.subscribe(None)?;
    let image = place.image("a.raw")?;
    place.attach(disk("vda", &image), true)?;
    ensure!(place.devices()? == ["vda"]);
    ensure!(place.definition(false)? == place.definition(true)?);
    let text = place.status()?;
    ensure!(text.contains("a.raw"), "{text}");
    // The file is this domain's.
    let again = place.attach(disk("vdb", &image), false);
    ensure!(code(again) == Some(ApiErrorCode::InvalidArgument));
    let domain = named("web");
    let stats = place.connection.call(DomainDeviceStatsGet { domain })?;
    ensure!(
        matches!(stats[0].figures, DeviceFigures::Disk(_)),
        "{stats:?}"
    );
    ensure!(stats[0].slot.number() == 1);
    place.detach("vda", true, true)?;
    ensure!(place.devices()?.is_empty());
    ensure!(place.definition(false)?.is_empty() && place.definition(true)?.is_empty());
    ensure!(!place.status()?.contains("a.raw"));
    // Whoever wants it can have it.
    place.attach(disk("vdc", &image), false)?;
    place.detach("1", true, false)?;
    let told = guest::told(&mut place.connection)?.into_iter();
    let told: Vec<EventKind> = told.map(|(_, event)| event.kind).collect();
    let (device, slot) = ("vda".parse()?, 1_u8.try_into()?);
    let added = told.iter().position(
        |kind| matches!(kind, EventKind::DeviceAdded { device: d, slot: s } if *d == device && *s == slot),
    );
    let removed = told.iter().position(
        |kind| matches!(kind, EventKind::DeviceRemoved { device: d, slot: s } if *d == device && *s == slot),
    );
    ensure!(added.is_some() && added < removed, "{told:?}");
    place.end()
}

#[test]
fn a_guest_that_does_not_let_go_keeps_the_device_until_it_is_taken() -> Result<()> {
    let mut place = Place::new(Devices::default())?;
    place.attach(Device::Rng(Rng::default()), false)?;
    let begin = Instant::now();
    let error = place.detach("rng", false, false).unwrap_err();
    ensure!(begin.elapsed() >= Duration::from_secs(10));
    let error = error.refused().cloned();
    let error = error.ok_or_else(|| anyhow::anyhow!("no refusal"))?;
    ensure!(error.code == ApiErrorCode::Timeout, "{error}");
    ensure!(error.message.contains("--force"), "{error}");
    ensure!(place.devices()? == ["rng"]);
    place.detach("rng", true, false)?;
    ensure!(place.devices()?.is_empty());
    place.end()
}

#[test]
fn what_cannot_be_attached_leaves_nothing_behind() -> Result<()> {
    let mut place = Place::new(Devices::default())?;
    let outside = place.files.path().join("outside");
    File::create(&outside)?;
    let refused = place.attach(disk("vda", &outside), true);
    ensure!(code(refused) == Some(ApiErrorCode::PathRefused));
    let missing = place.path("missing");
    let refused = place.attach(disk("vda", &missing), true);
    ensure!(code(refused) == Some(ApiErrorCode::Host));
    let refused = place.detach("vda", true, false);
    ensure!(code(refused) == Some(ApiErrorCode::NoDevice));
    // Something is in the way of its socket.
    let path = place.image("in-the-way")?;
    let vsock = |path: &Path| {
        Device::Vsock(Vsock {
            cid: None,
            path: path.to_owned(),
            address: None,
        })
    };
    ensure!(place.attach(vsock(&path), true).is_err());
    ensure!(path.exists());
    for text in [place.status()?, format!("{:?}", place.definition(true)?)] {
        ensure!(
            !text.contains("vda") && !text.contains("in-the-way"),
            "{text}"
        );
    }
    // And of a device that works, its socket lives as long as it does.
    let path = place.path("vsock");
    place.attach(vsock(&path), false)?;
    UnixStream::connect(&path)?;
    place.detach("vsock", true, false)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while path.exists() {
        ensure!(Instant::now() < deadline, "the socket stays");
        std::thread::sleep(Duration::from_millis(10));
    }
    place.attach(vsock(&path), false)?;
    place.end()?;
    ensure!(!path.exists());
    Ok(())
}

/// A `qemu-io` that has the image open until it is dropped.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_image_that_another_machine_has_is_not_attached() -> Result<()> {
    let found = Command::new("qemu-io").arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    let mut place = Place::new(Devices::default())?;
    let image = place.image("held.raw")?;
    let child = Command::new("qemu-io")
        .args(["-f", "raw"])
        .arg(&image)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let holder = Holder(child);
    let inode = format!(":{} ", std::fs::metadata(&image)?.ino());
    let deadline = Instant::now() + Duration::from_secs(30);
    while !std::fs::read_to_string("/proc/locks")?.contains(&inode) {
        ensure!(Instant::now() < deadline, "nobody holds the image");
        std::thread::sleep(Duration::from_millis(10));
    }
    let refused = place.attach(disk("vda", &image), true);
    ensure!(code(refused) == Some(ApiErrorCode::Host));
    ensure!(place.definition(true)?.is_empty());
    ensure!(place.devices()?.is_empty());
    drop(holder);
    place.attach(disk("vda", &image), false)?;
    place.end()
}

#[test]
fn a_full_bus_takes_no_more_and_a_place_that_is_free_again_does() -> Result<()> {
    let mut place = Place::with(|allowed| {
        let path = allowed.join("shared.raw");
        File::create(&path)?.set_len(1 << 20)?;
        let disks = (0..MAX_DEVICES).filter_map(DiskTarget::at).map(|target| {
            let layer = Layer {
                path: path.clone(),
                format: DiskFormat::Raw,
            };
            Disk {
                read_only: true,
                ..Disk::new(target, Some(layer))
            }
        });
        Ok(Devices {
            disks: disks.collect(),
            ..Devices::default()
        })
    })?;
    ensure!(place.devices()?.len() == MAX_DEVICES);
    let refused = place.attach(Device::Rng(Rng::default()), false);
    ensure!(code(refused) == Some(ApiErrorCode::InvalidArgument));
    place.detach("vdc", true, false)?;
    place.attach(Device::Rng(Rng::default()), false)?;
    let rng = place.definition(false)?.rng;
    ensure!(rng.and_then(|rng| rng.address).map(u8::from) == Some(3));
    place.end()
}

#[test]
fn devices_change_while_they_are_used() -> Result<()> {
    let mut nic = Nic::new(NicSource::Nothing);
    nic.mac = Some("52:54:00:00:00:01".parse()?);
    let mut place = Place::new(Devices {
        balloon: Some(Balloon::default()),
        nics: vec![nic],
        ..Devices::default()
    })?;
    let change = DeviceChange::Link { up: false };
    let update = |device: &str, persistent| DomainDeviceUpdate {
        domain: named("web"),
        device: device.parse().expect("a name"),
        change,
        live: true,
        persistent,
    };
    place.connection.call(update("52:54:00:00:00:01", true))?;
    ensure!(!place.definition(false)?.nics[0].link_up);
    ensure!(!place.definition(true)?.nics[0].link_up);
    let refused = place.connection.call(update("balloon", false));
    ensure!(code(refused) == Some(ApiErrorCode::InvalidArgument));
    let memory = MemorySize::mebibytes(16);
    let domain = named("web");
    place.connection.call(DomainMemorySet { domain, memory })?;
    let domain = named("web");
    let stats = place.connection.call(DomainDeviceStatsGet { domain })?;
    let target = stats.iter().find_map(|stats| match stats.figures {
        DeviceFigures::Balloon(balloon) => Some(balloon.target_bytes),
        _ => None,
    });
    ensure!(target.is_some_and(|target| target > 0), "{stats:?}");
    let tap = stats.iter().find_map(|stats| stats.host.clone());
    ensure!(tap.is_some_and(|tap| tap.starts_with("vnet")), "{stats:?}");
    place.end()
}

#[test]
fn the_next_supervisor_knows_the_devices_and_takes_them_away() -> Result<()> {
    let mut place = Place::new(Devices::default())?;
    let image = place.image("a.raw")?;
    place.attach(disk("vda", &image), false)?;
    let path = place.path("vsock");
    let vsock = Vsock {
        cid: None,
        path: path.clone(),
        address: None,
    };
    place.attach(Device::Vsock(vsock), false)?;
    place.daemon.kill()?;
    place.daemon.spawn()?;
    place.connection = place.daemon.connect()?;
    ensure!(place.devices()? == ["vda", "vsock"]);
    UnixStream::connect(&path)?;
    place.detach("vsock", true, false)?;
    place.detach("vda", true, false)?;
    ensure!(place.devices()?.is_empty());
    place.attach(disk("vda", &image), true)?;
    place.end()
}
