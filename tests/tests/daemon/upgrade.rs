//! A fresh worker takes over a domain that runs: its guest, its console's clients and its devices notice
//! nothing, and nothing of the worker before is left.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{
    DomainDestroy, DomainDeviceAttach, DomainDeviceDetach, DomainGet, DomainPause, DomainReset,
    DomainResume, DomainStatsGet, DomainUpgrade,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::view::{DomainState, PausedReason};
use reeve_ipc::model::{Balloon, Device, Disk, Layer, Rng, Vsock};
use reeve_ipc::spec::DiskFormat;
use reeve_tests::daemon::{Daemon, built_in, named, signal};
use reeve_tests::domain::{unique_name, wait_until_gone, workers};
use rustix::process::Signal;

use super::guest::{console, expect};
use super::{ECHO, assert_at_rest, define, start, wait_until_off};

fn pid(connection: &mut Connection, name: &str) -> Result<u32> {
    let details = connection.call(DomainGet {
        domain: named(name),
    })?;
    Ok(details.worker.context("no worker")?.pid)
}

fn state(connection: &mut Connection, name: &str) -> Result<DomainState> {
    let domain = named(name);
    Ok(connection.call(DomainGet { domain })?.summary.state)
}

/// Upgrades it; the worker is another then, and there is one.
fn upgrade(connection: &mut Connection, name: &str) -> Result<()> {
    let before = pid(connection, name)?;
    connection.call(DomainUpgrade {
        domain: named(name),
    })?;
    let after = pid(connection, name)?;
    ensure!(after != before, "it is the same worker");
    wait_until_gone(before, Duration::from_secs(20))?;
    ensure!(workers(name) == [after]);
    Ok(())
}

fn echoes(console: &mut UnixStream, word: &str) -> Result<()> {
    console.write_all(word.as_bytes())?;
    expect(console, word)
}

#[test]
fn a_guest_goes_on_in_one_worker_after_the_other() -> Result<()> {
    let name = unique_name("web");
    let files = tempfile::tempdir()?;
    let image = |name: &str| -> Result<Layer> {
        let path = files.path().join(name);
        File::create(&path)?.set_len(1 << 20)?;
        let format = DiskFormat::Raw;
        Ok(Layer { path, format })
    };
    let mut daemon = Daemon::prepare()?;
    let config = files.path().join("reeve.toml");
    let allowed = format!(
        "libvirt = false\nallowed_directories = [{:?}]\n",
        files.path().display().to_string()
    );
    std::fs::write(&config, allowed)?;
    daemon.argument(&format!("--config={}", config.display()));
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    let mut domain = built_in(&name, ECHO);
    domain.devices.disks = vec![Disk::new("vda".parse()?, Some(image("a")?))];
    domain.devices.rng = Some(Rng::default());
    domain.devices.balloon = Some(Balloon::default());
    let socket = files.path().join("vsock");
    domain.devices.vsock = Some(Vsock {
        cid: None,
        path: socket.clone(),
        address: None,
    });
    define(&mut connection, &domain)?;
    start(&mut connection, &name)?;
    let mut client = console(&mut connection, &name, "ready")?;
    for word in ["one", "two", "three"] {
        echoes(&mut client, word)?;
        upgrade(&mut connection, &name).with_context(|| daemon.log())?;
        let domain = named(&name);
        connection.call(DomainStatsGet { domain })?;
    }
    echoes(&mut client, "four")?;

    // One that stands stands after it, and what was asked before is as it was.
    let web = || named(&name);
    connection.call(DomainReset { domain: web() })?;
    expect(&mut client, "ready")?;
    connection.call(DomainPause { domain: web() })?;
    upgrade(&mut connection, &name)?;
    let paused = DomainState::Paused(PausedReason::User);
    ensure!(state(&mut connection, &name)? == paused);
    connection.call(DomainResume { domain: web() })?;
    echoes(&mut client, "five")?;
    let resets = connection.call(DomainGet { domain: web() })?.resets;
    ensure!(resets == 1, "{resets} resets");

    // Devices come and go in any worker.
    let vdb = Disk::new("vdb".parse()?, Some(image("b")?));
    connection.call(DomainDeviceAttach {
        domain: web(),
        device: Box::new(Device::Disk(vdb)),
        live: true,
        persistent: false,
    })?;
    upgrade(&mut connection, &name)?;
    for device in ["vda", "vdb", "rng"] {
        connection.call(DomainDeviceDetach {
            domain: web(),
            device: device.parse()?,
            force: true,
            live: true,
            persistent: false,
        })?;
    }
    upgrade(&mut connection, &name)?;
    echoes(&mut client, "six")?;

    // And a supervisor that comes back finds the one there is.
    let before = pid(&mut connection, &name)?;
    daemon.crash()?;
    let mut connection = daemon.connect()?;
    ensure!(pid(&mut connection, &name)? == before);
    upgrade(&mut connection, &name)?;
    echoes(&mut client, "seven")?;
    ensure!(UnixStream::connect(&socket).is_ok(), "nobody listens");
    connection.call(DomainDestroy { domain: web() })?;
    wait_until_off(&mut connection, &name)?;
    assert_at_rest(&daemon);
    ensure!(!socket.exists(), "a socket is left");
    Ok(())
}

#[test]
fn what_cannot_be_upgraded_goes_on_as_before() -> Result<()> {
    let name = unique_name("web");
    let daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    define(&mut connection, &built_in(&name, ECHO))?;
    let web = || named(&name);
    let refused = connection.call(DomainUpgrade { domain: web() });
    let code = refused.err().and_then(|error| Some(error.refused()?.code));
    ensure!(code == Some(ApiErrorCode::WrongState), "{code:?}");

    start(&mut connection, &name)?;
    let mut client = console(&mut connection, &name, "ready")?;
    let before = pid(&mut connection, &name)?;
    // A fresh worker that dies over it, whenever that is.
    for delay_us in [0, 3_000, 6_000, 10_000, 20_000, 40_000] {
        let mut other = daemon.connect()?;
        let domain = web();
        let asked = std::thread::spawn(move || other.call(DomainUpgrade { domain }));
        let deadline = Instant::now() + Duration::from_millis(500);
        let mut fresh = None;
        while fresh.is_none() && Instant::now() < deadline && !asked.is_finished() {
            fresh = workers(&name).into_iter().find(|pid| *pid != before);
        }
        std::thread::sleep(Duration::from_micros(delay_us));
        let current = pid(&mut connection, &name)?;
        if let Some(fresh) = fresh.filter(|fresh| *fresh != current) {
            let _ = signal(fresh, Signal::KILL);
        }
        let result = asked.join().expect("no panic");
        if result.is_ok() || pid(&mut connection, &name).ok() != Some(before) {
            // It came too late: the domain was in the fresh one.
            break;
        }
        if let Err(error) = echoes(&mut client, "goes on") {
            // Or was there when it was killed, of which the daemon had not heard yet.
            wait_until_off(&mut connection, &name).map_err(|_| error)?;
            break;
        }
        // The kernel releases the other a moment later.
        if let Some(fresh) = fresh {
            wait_until_gone(fresh, Duration::from_secs(20))?;
        }
        ensure!(workers(&name) == [before]);
    }
    // It has ended already where the fresh worker was killed once it had the domain.
    let _ = connection.call(DomainDestroy { domain: web() });
    wait_until_off(&mut connection, &name)?;
    assert_at_rest(&daemon);
    Ok(())
}
