//! Channels and consoles that come and go while a domain runs. The built-in guest has no driver: a port is
//! taken from it all the same, and it never lets go of the controller.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reeve_ipc::api::blocking::CallError;
use reeve_ipc::api::call::{DomainChannel, DomainDeviceStatsGet, DomainUpgrade};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::EventKind;
use reeve_ipc::device::DeviceFigures;
use reeve_ipc::model::{Channel, Device, Devices, PortConsole};
use reeve_tests::daemon::named;

use super::devices::Place;
use super::guest;

fn channel(place: &Place, name: &str) -> Device {
    Device::Channel(Channel {
        name: name.to_owned(),
        path: place.path(name),
        port: None,
    })
}

fn console(place: &Place, name: &str) -> Device {
    Device::Console(PortConsole {
        path: place.path(name),
        port: None,
    })
}

fn refused<T>(result: Result<T, CallError>) -> Result<ApiError> {
    let error = result.err().context("it was done")?;
    error.refused().cloned().context("it was not refused")
}

/// Its socket is gone, a moment after its port is.
fn vanishes(path: PathBuf) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while path.exists() {
        ensure!(Instant::now() < deadline, "{} stays", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn channels_and_consoles_come_and_go_one_by_one_in_any_worker() -> Result<()> {
    let mut place = Place::new(Devices::default())?;
    place.connection.subscribe(None)?;
    for name in ["a", "b"] {
        place.attach(channel(&place, name), true)?;
        UnixStream::connect(place.path(name))?;
    }
    place.attach(console(&place, "hvc"), true)?;
    let all = ["ports", "console:0", "channel:a", "channel:b"];
    ensure!(place.devices()? == all, "{:?}", place.devices()?);
    ensure!(place.definition(false)? == place.definition(true)?);
    ensure!(place.status()?.contains("images/b"));
    let domain = named("web");
    let stats = place.connection.call(DomainDeviceStatsGet { domain })?;
    let port = stats
        .iter()
        .find(|one| one.device.to_string() == "channel:b");
    let port = port.context("the channel")?;
    let path = place.path("b").display().to_string();
    ensure!(port.host == Some(path), "{port:?}");
    // Whoever may change the domain is connected to it.
    let connect = |place: &mut Place, name: &str| {
        let (domain, channel) = (named("web"), name.to_owned());
        place
            .connection
            .call_with_fds(DomainChannel { domain, channel })
    };
    let (_, fds) = connect(&mut place, "b")?;
    ensure!(fds.len() == 1);
    drop(fds);
    let error = refused(connect(&mut place, "none"))?;
    ensure!(error.code == ApiErrorCode::NoDevice, "{error}");
    let DeviceFigures::Port(figures) = port.figures else {
        anyhow::bail!("{port:?}")
    };
    ensure!(figures.number == 2 && !figures.guest_open);

    // A fresh worker has what came and not what went.
    place.detach("channel:a", false, true)?;
    vanishes(place.path("a"))?;
    let domain = named("web");
    place.connection.call(DomainUpgrade { domain })?;
    ensure!(place.devices()? == ["ports", "console:0", "channel:b"]);
    UnixStream::connect(place.path("b"))?;
    place.attach(channel(&place, "c"), false)?;

    // And so has a supervisor that comes back; the number that was free is the newcomer's.
    place.daemon.crash()?;
    place.connection = place.daemon.connect()?;
    let all = ["ports", "console:0", "channel:c", "channel:b"];
    ensure!(place.devices()? == all, "{:?}", place.devices()?);
    for name in ["b", "c", "hvc"] {
        UnixStream::connect(place.path(name)).context(name)?;
    }
    place.connection.subscribe(None)?;
    for (name, socket) in [("channel:c", "c"), ("console:0", "hvc")] {
        place.detach(name, false, false)?;
        vanishes(place.path(socket))?;
    }
    ensure!(place.devices()? == ["ports", "channel:b"]);
    let told = guest::told(&mut place.connection)?.into_iter();
    let told: Vec<EventKind> = told.map(|(_, event)| event.kind).collect();
    for name in ["channel:c", "console:0"] {
        let gone = |kind: &EventKind| matches!(kind, EventKind::DeviceRemoved { device, .. } if device.to_string() == name);
        ensure!(told.iter().any(gone), "{name}: {told:?}");
    }
    ensure!(!place.status()?.contains("images/c"));
    place.end()
}

#[test]
fn the_controller_goes_with_the_last_port_as_its_guest_lets_it() -> Result<()> {
    let mut place = Place::new(Devices::default())?;
    place.attach(channel(&place, "a"), false)?;
    let error = refused(place.detach("channel:a", false, false))?;
    ensure!(error.code == ApiErrorCode::Timeout, "{error}");
    ensure!(error.message.contains("--force"), "{error}");
    // Its guest may let go at any time, and what came meanwhile would go as well.
    let error = refused(place.attach(channel(&place, "b"), true))?;
    ensure!(error.message.contains("is being taken away"), "{error}");
    vanishes(place.path("b"))?;
    let kept = place.definition(true)?;
    ensure!(kept.is_empty(), "{kept:?}");
    ensure!(place.devices()? == ["ports", "channel:a"]);
    place.detach("channel:a", true, false)?;
    vanishes(place.path("a"))?;
    ensure!(place.devices()?.is_empty());
    place.attach(channel(&place, "b"), false)?;
    ensure!(place.devices()? == ["ports", "channel:b"]);
    place.detach("ports", true, false)?;
    vanishes(place.path("b"))?;
    place.end()
}

#[test]
fn a_port_that_cannot_be_had_leaves_nothing_behind() -> Result<()> {
    let mut place = Place::new(Devices::default())?;
    // A controller of the least room has ports 0 to 7, and 0 is no channel's.
    for number in 1..=7 {
        place.attach(channel(&place, &format!("n{number}")), false)?;
    }
    let error = refused(place.attach(channel(&place, "more"), true))?;
    ensure!(error.message.contains("has ports 0 to 7"), "{error}");
    let taken = place.path("taken");
    let _served = UnixListener::bind(&taken)?;
    place.detach("channel:n7", false, false)?;
    let error = refused(place.attach(channel(&place, "taken"), true))?;
    ensure!(
        error.message.contains("in use by another program"),
        "{error}"
    );
    vanishes(place.path("more"))?;
    ensure!(taken.exists());
    let texts = [place.status()?, format!("{:?}", place.definition(true)?)];
    for text in texts {
        ensure!(!text.contains("more") && !text.contains("taken"), "{text}");
    }
    // What was refused stands in nobody's way.
    place.attach(channel(&place, "more"), false)?;
    UnixStream::connect(place.path("more"))?;
    place.attach(console(&place, "hvc"), false)?;
    ensure!(place.devices()?.len() == 9, "{:?}", place.devices()?);
    place.end()
}
