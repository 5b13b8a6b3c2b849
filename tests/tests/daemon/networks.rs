//! Networks of guests: what the filter of a tap lets pass, and interfaces that a switch serves. The
//! built-in guest sends back what it is sent, with the Ethernet addresses swapped and nothing else.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{DomainDestroy, DomainDeviceStatsGet};
use reeve_ipc::device::DeviceFigures;
use reeve_ipc::model::{Device, Domain, Nic, NicSource};
use reeve_ipc::spec::{MacAddress, NicDriver};
use reeve_tests::daemon::{Daemon, built_in, named, wait_for};
use reeve_tests::frames;
use reeve_tests::switch::Switch;
use reeved::host::filter;
use reeved::host::tap::Tap;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::devices::Place;
use super::guest::console;
use super::{assert_at_rest, define, start, wait_until_off};

const GUEST: [u8; 6] = [0x52, 0x54, 0, 0x0a, 0x0b, 0x0c];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// A guest that echoes frames for longer than a test takes.
const ECHO_FRAMES: &str = "mode=net-echo depth=8 ms=600000 wait=poll";
const READY: &str = "net-echo: ready";

/// A datagram of UDP from that address.
fn datagram(address: [u8; 4], from: u16, to: u16) -> Vec<u8> {
    frames::datagram((GUEST, PEER), address, (from, to), &[1, 2, 3, 4])
}

fn turned(frame: &[u8]) -> Vec<u8> {
    [&frame[6..12], &frame[..6], &frame[12..]].concat()
}

fn mac(octets: [u8; 6]) -> MacAddress {
    octets.try_into().expect("a station's")
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments:?}: {said}");
    Ok(())
}

/// A bridge of this machine with a port of the test's, which goes with it.
struct Bridge {
    name: String,
    port: File,
}

impl Bridge {
    /// `None` where this process may make none.
    fn new(letter: char) -> Result<Option<Self>> {
        let may = rustix::process::geteuid().is_root() && Path::new("/dev/net/tun").exists();
        if !may || Command::new("ip").arg("-V").output().is_err() {
            return Ok(None);
        }
        let name = format!("rb{letter}{}", std::process::id());
        ip(&[
            "link",
            "add",
            &name,
            "type",
            "bridge",
            "mcast_snooping",
            "0",
        ])?;
        ip(&["link", "set", &name, "addrgenmode", "none", "up"])?;
        let tap = Tap::make(None, mac(PEER), 1)?;
        tap.join(&name.parse()?, None, false)?;
        tap.up()?;
        let port = tap.into_queues().pop().context("a queue")?.into();
        Ok(Some(Self { name, port }))
    }

    /// Whether the guest's answer to a frame comes back.
    fn echoes(&mut self, frame: &[u8], patience: Duration) -> Result<bool> {
        self.port.write_all(&[&[0; 12], frame].concat())?;
        let wanted = turned(frame);
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left)?;
            if poll(&mut [PollFd::new(&self.port, PollFlags::IN)], Some(&left))? == 0 {
                return Ok(false);
            }
            let length = self.port.read(&mut buffer)?;
            let seen = buffer.get(12..length).unwrap_or_default();
            if seen.len() >= 42 && (wanted.starts_with(seen) || seen.starts_with(&wanted)) {
                return Ok(true);
            }
        }
    }

    /// Asserts that what comes from its own address passes, and from others not.
    fn assert_filtered(&mut self) -> Result<()> {
        const SILENCE: Duration = Duration::from_millis(300);
        const PATIENCE: Duration = Duration::from_secs(10);
        let own = datagram([192, 0, 2, 5], 1000, 2000);
        ensure!(self.echoes(&own, PATIENCE)?, "its own address");
        let other = datagram([192, 0, 2, 6], 1000, 2000);
        ensure!(!self.echoes(&other, SILENCE)?, "another's address");
        let server = datagram([192, 0, 2, 5], 67, 68);
        ensure!(!self.echoes(&server, SILENCE)?, "a server of DHCP");
        ensure!(self.echoes(&own, PATIENCE)?, "its own address still");
        Ok(())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", &self.name]);
    }
}

fn guest(source: NicSource) -> Domain {
    let mut nic = Nic::new(source);
    nic.mac = Some(mac(GUEST));
    let mut domain = built_in("web", ECHO_FRAMES);
    domain.devices.nics = vec![nic];
    domain
}

fn dropped(connection: &mut Connection) -> Result<u64> {
    let domain = named("web");
    let stats = connection.call(DomainDeviceStatsGet { domain })?;
    let figures = stats.into_iter().find_map(|stats| match stats.figures {
        DeviceFigures::Nic(nic) => Some(nic.sent.drops),
        _ => None,
    });
    figures.context("no figures of the interface")
}

fn guarded(tap: &str) -> Result<bool> {
    Ok(filter::guarded()?.iter().any(|guarded| guarded == tap))
}

#[test]
fn a_guest_is_held_to_its_addresses_whatever_becomes_of_the_daemon() -> Result<()> {
    let Some(mut bridge) = Bridge::new('f')? else {
        return Ok(());
    };
    let tap = format!("rg{}", std::process::id());
    let mut daemon = Daemon::start()?;
    let mut connection = daemon.connect()?;
    let mut domain = guest(NicSource::Bridge(bridge.name.parse()?));
    domain.devices.nics[0].target = Some(tap.parse()?);
    domain.devices.nics[0].addresses = vec!["192.0.2.5".parse()?];
    define(&mut connection, &domain)?;
    start(&mut connection, "web")?;
    drop(console(&mut connection, "web", READY)?);
    bridge.assert_filtered()?;
    // More where the host said something, which the guest sends back as well.
    ensure!(dropped(&mut connection)? >= 2);
    // A daemon that dies leaves the filter, and the next one keeps it.
    daemon.crash()?;
    drop(connection);
    ensure!(guarded(&tap)?);
    bridge.assert_filtered()?;
    // What somebody took away while there was none is there again.
    daemon.kill()?;
    filter::unguard(&tap)?;
    ensure!(!guarded(&tap)?);
    daemon.spawn()?;
    connection = daemon.connect()?;
    bridge.assert_filtered()?;
    ensure!(dropped(&mut connection)? >= 2);
    // And while there was one.
    filter::unguard(&tap)?;
    let begin = Instant::now();
    while !guarded(&tap)? {
        ensure!(
            begin.elapsed() < Duration::from_secs(10),
            "it does not come back"
        );
    }
    bridge.assert_filtered()?;
    let destroyed = named("web");
    connection.call(DomainDestroy { domain: destroyed })?;
    wait_until_off(&mut connection, "web")?;
    while guarded(&tap)? {
        ensure!(begin.elapsed() < Duration::from_secs(60), "it stays");
    }
    assert_at_rest(&daemon);
    Ok(())
}

#[test]
fn a_host_of_several_tenants_has_isolated_ports_and_filters_everybody() -> Result<()> {
    let Some(bridge) = Bridge::new('m')? else {
        return Ok(());
    };
    let tap = format!("rm{}", std::process::id());
    let files = tempfile::tempdir()?;
    let config = files.path().join("reeve.toml");
    std::fs::write(&config, "libvirt = false\nmulti_tenant = true\n")?;
    let mut daemon = Daemon::prepare()?;
    daemon.argument(&format!("--config={}", config.display()));
    daemon.spawn()?;
    let mut connection = daemon.connect()?;
    let mut domain = guest(NicSource::Bridge(bridge.name.parse()?));
    domain.devices.nics[0].target = Some(tap.parse()?);
    domain.devices.nics[0].trust_guest = true;
    define(&mut connection, &domain)?;
    start(&mut connection, "web")?;
    ensure!(guarded(&tap)?, "trusted, and guarded all the same");
    let shown = Command::new("ip")
        .args(["-d", "link", "show", &tap])
        .output()?;
    let shown = String::from_utf8_lossy(&shown.stdout);
    ensure!(shown.contains("isolated on"), "{shown}");
    connection.call(DomainDestroy {
        domain: named("web"),
    })?;
    wait_until_off(&mut connection, "web")?;
    for (source, driver, told) in [
        (
            NicSource::Tap("tap0".parse()?),
            NicDriver::User,
            "multi_tenant",
        ),
        (
            NicSource::Switch("/run/switch".into()),
            NicDriver::User,
            "multi_tenant",
        ),
        (
            NicSource::Bridge(bridge.name.parse()?),
            NicDriver::Vhost,
            "this host lets no guest have it (vhost_net in reeve.toml",
        ),
    ] {
        domain.devices = guest(source).devices;
        domain.devices.nics[0].driver = driver;
        domain.devices.nics[0].trust_guest = driver == NicDriver::Vhost;
        define(&mut connection, &domain)?;
        let refused = start(&mut connection, "web")
            .expect_err("not guarded")
            .to_string();
        ensure!(
            refused.contains(told) && !refused.contains('\n'),
            "{refused}"
        );
    }
    assert_at_rest(&daemon);
    Ok(())
}

#[test]
fn a_switch_serves_a_guest_and_its_end_costs_the_guest_the_interface_alone() -> Result<()> {
    let mut switch = None;
    let mut path = None;
    let mut place = Place::running(ECHO_FRAMES, |images| {
        let socket = images.join("switch");
        switch = Some(Switch::listen(&socket)?);
        path = Some(socket.clone());
        Ok(guest(NicSource::Switch(socket)).devices)
    })?;
    let (switch, path) = (switch.context("made")?, path.context("made")?);
    drop(console(&mut place.connection, "web", READY)?);
    for number in 0..50_u16 {
        let frame = datagram([192, 0, 2, 5], number, 2000);
        switch.send(&frame)?;
        ensure!(switch.receive()? == turned(&frame), "frame {number}");
    }
    switch.end()?;
    // The worker goes on: it answers, and lets the interface go.
    let begin = Instant::now();
    let log = || std::fs::read_to_string(place.daemon.state().join("log").join("web.log"));
    while !log().unwrap_or_default().contains("its back end is gone") {
        ensure!(begin.elapsed() < Duration::from_secs(20), "it is not told");
        std::thread::sleep(Duration::from_millis(20));
    }
    wait_for(&mut place.connection, &named("web"), |details| {
        details.is_some()
    })?;
    place.detach(&mac(GUEST).to_string(), true, false)?;
    // Nobody listens there any more.
    let again = guest(NicSource::Switch(path.clone()))
        .devices
        .nics
        .remove(0);
    let refused = place
        .attach(Device::Nic(again.clone()), false)
        .expect_err("nobody listens");
    ensure!(
        refused.to_string().contains("nobody listens on the switch"),
        "{refused}"
    );
    std::fs::remove_file(&path)?;
    let other = Switch::listen(&path)?;
    place.attach(Device::Nic(again), false)?;
    place.detach(&mac(GUEST).to_string(), true, false)?;
    other.end()?;
    place.end()
}

#[test]
fn a_switch_outside_the_allowed_directories_or_behind_a_link_is_refused() -> Result<()> {
    let outside = tempfile::tempdir()?;
    let elsewhere = outside.path().join("switch");
    let _switch = std::os::unix::net::UnixListener::bind(&elsewhere)?;
    let mut place = Place::new(reeve_ipc::model::Devices::default())?;
    let nic = |path: &Path| Device::Nic(Nic::new(NicSource::Switch(path.to_owned())));
    let refused = place.attach(nic(&elsewhere), false).expect_err("outside");
    ensure!(
        refused.to_string().contains("allowed_directories"),
        "{refused}"
    );
    let link = place.path("link");
    std::os::unix::fs::symlink(&elsewhere, &link)?;
    let refused = place.attach(nic(&link), false).expect_err("a link");
    ensure!(!refused.to_string().contains('\n'), "{refused}");
    let file = place.path("file");
    File::create(&file)?;
    let refused = place.attach(nic(&file), false).expect_err("a file");
    ensure!(refused.to_string().contains("is not a socket"), "{refused}");
    place.end()
}
