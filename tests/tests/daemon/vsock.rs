//! Connections that a guest opens to programs of the host: with any supervisor and in any worker, and no more
//! of them than there may be.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reeve_ipc::api::call::{DomainDestroy, DomainPause, DomainReset, DomainResume, DomainUpgrade};
use reeve_ipc::model::{Devices, Vsock};
use reeve_tests::daemon::named;
use reeve_tests::reeve::Reeve;

use super::devices::Place;
use super::guest::{console, expect};
use super::{assert_at_rest, wait_until_off};

const PORT: u32 = 4711;
/// As much as needs no credit.
const BYTES: u64 = 200_000;
const SOON: Duration = Duration::from_secs(20);

/// A domain whose guest connects to [`PORT`] as it is told on its console.
fn place() -> Result<(Place, UnixStream)> {
    let mode = format!("mode=vsock-dial count={PORT} size={BYTES}");
    let mut place = Place::running(&mode, |files| {
        Ok(Devices {
            vsock: Some(Vsock {
                cid: None,
                path: files.join("v"),
                address: None,
            }),
            ..Devices::default()
        })
    })?;
    let console = console(&mut place.connection, "web", "vsock: ready")?;
    console.set_read_timeout(Some(SOON))?;
    Ok((place, console))
}

fn listen(place: &Place) -> Result<UnixListener> {
    let path = place.path(&format!("v_{PORT}"));
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn accept(listener: &UnixListener) -> Result<UnixStream> {
    let deadline = Instant::now() + SOON;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(SOON))?;
                stream.set_write_timeout(Some(SOON))?;
                return Ok(stream);
            }
            Err(error) => ensure!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn pattern() -> Vec<u8> {
    let bytes = (0..BYTES).map(|place| ((place * 167) >> 3).to_le_bytes()[0]);
    bytes.collect()
}

fn sum(bytes: &[u8]) -> u64 {
    let add = |sum: u64, byte: &u8| sum.wrapping_mul(31).wrapping_add((*byte).into());
    bytes.iter().fold(0, add)
}

/// Takes what the guest sends, compares it, and sends something else, by which the guest's word is known.
fn serve(mut stream: UnixStream) -> Result<String> {
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    ensure!(got == pattern(), "{} bytes came", got.len());
    let mut back = got;
    back.reverse();
    stream.write_all(&back)?;
    stream.shutdown(Shutdown::Both)?;
    Ok(format!("vsock: sum: {}\n", sum(&back)))
}

fn exchange(stream: UnixStream, console: &mut UnixStream) -> Result<()> {
    let word = serve(stream)?;
    expect(console, &word)
}

/// The guest connects, and bytes go both ways.
fn reaches(console: &mut UnixStream, listener: &UnixListener) -> Result<()> {
    console.write_all(b"c")?;
    let stream = accept(listener)?;
    exchange(stream, console)
}

fn is_refused(console: &mut UnixStream) -> Result<()> {
    console.write_all(b"c")?;
    expect(console, "vsock: refused")
}

/// Descriptors of the daemon.
fn descriptors(place: &Place) -> Result<usize> {
    let pid = place.daemon.pid().context("a daemon")?;
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

fn settles_at(place: &Place, most: usize) -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        let now = descriptors(place)?;
        if now <= most {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{now} descriptors, not {most}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_guest_reaches_the_programs_beside_its_socket_with_one_supervisor_after_the_other() -> Result<()>
{
    let (mut place, mut console) = place()?;
    is_refused(&mut console).context("nobody listens")?;
    let listener = listen(&place)?;
    for _ in 0..3 {
        reaches(&mut console, &listener)?;
    }
    let before = descriptors(&place)?;
    // One that is open outlives the supervisor; a new one has to wait for the next.
    console.write_all(b"c")?;
    let stream = accept(&listener)?;
    expect(&mut console, "vsock: connected")?;
    place.daemon.kill()?;
    exchange(stream, &mut console).context("while there is no supervisor")?;
    is_refused(&mut console).context("while there is no supervisor")?;
    place.daemon.spawn()?;
    place.connection = place.daemon.connect()?;
    reaches(&mut console, &listener).context("after the adoption")?;
    settles_at(&place, before + 2)?;

    // Nor does it matter to one that the machine stands for a while.
    let web = || named("web");
    console.write_all(b"c")?;
    let stream = accept(&listener)?;
    expect(&mut console, "vsock: connected")?;
    place.connection.call(DomainPause { domain: web() })?;
    place.connection.call(DomainResume { domain: web() })?;
    exchange(stream, &mut console)?;
    place.connection.call(DomainReset { domain: web() })?;
    expect(&mut console, "vsock: ready")?;
    reaches(&mut console, &listener).context("after a reset")?;
    place.connection.call(DomainDestroy { domain: web() })?;
    wait_until_off(&mut place.connection, "web")?;
    assert_at_rest(&place.daemon);
    ensure!(!place.path("v").exists());
    Ok(())
}

#[test]
fn a_fresh_worker_asks_for_its_guests_connections_as_the_one_before() -> Result<()> {
    let (mut place, mut console) = place()?;
    let listener = listen(&place)?;
    reaches(&mut console, &listener)?;
    let before = descriptors(&place)?;
    for _ in 0..3 {
        let domain = named("web");
        place.connection.call(DomainUpgrade { domain })?;
        expect(&mut console, "vsock: transport reset")?;
        reaches(&mut console, &listener)?;
    }
    settles_at(&place, before)?;
    place.end()
}

#[test]
fn a_guest_that_floods_its_host_with_connections_is_slowed_down_and_leaves_nothing() -> Result<()> {
    let (place, mut console) = place()?;
    let listener = listen(&place)?;
    reaches(&mut console, &listener)?;
    let before = descriptors(&place)?;
    let begin = Instant::now();
    let done = std::sync::atomic::AtomicBool::new(false);
    let (accepted, elapsed) = std::thread::scope(|scope| {
        let accepting = scope.spawn(|| {
            let mut accepted = 0_u32;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                accepted += u32::from(listener.accept().is_ok());
                std::thread::sleep(Duration::from_millis(1));
            }
            accepted
        });
        let flooding = (|| {
            console.write_all(b"f")?;
            expect(&mut console, "vsock: flooded")
        })();
        let elapsed = begin.elapsed();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        flooding.map(|()| (accepting.join().expect("no panic"), elapsed))
    })?;
    let most = 128.0 + 100.0 * elapsed.as_secs_f64() + 30.0;
    ensure!(f64::from(accepted) <= most, "{accepted} in {elapsed:?}");
    // Those that were asked for and given up are answered yet.
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_millis(500) {
        ensure!(begin.elapsed() < 2 * SOON, "it does not end");
        match listener.accept() {
            Ok(_) => last = Instant::now(),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    settles_at(&place, before)?;
    reaches(&mut console, &listener)?;
    place.end()
}

#[test]
fn a_device_that_goes_takes_with_it_what_answered_for_it() -> Result<()> {
    let (mut place, mut console) = place()?;
    let listener = listen(&place)?;
    reaches(&mut console, &listener)?;
    let with = descriptors(&place)?;
    place.detach("vsock", true, false)?;
    settles_at(&place, with - 1)?;
    let without = descriptors(&place)?;
    for _ in 0..3 {
        let vsock = Vsock {
            cid: None,
            path: place.path("other"),
            address: None,
        };
        place.attach(reeve_ipc::model::Device::Vsock(vsock), false)?;
        place.detach("vsock", true, false)?;
    }
    settles_at(&place, without)?;
    place.end()
}

#[test]
fn a_guest_without_a_daemon_reaches_them_as_well() -> Result<()> {
    let files = tempfile::tempdir()?;
    let path = files.path().join("v");
    let mut guest = Reeve::run()?
        .memory("32M")
        .arg("--vsock")
        .arg(&path)
        .cmdline(&format!("mode=vsock-dial count={PORT} size={BYTES}"))
        .spawn()?;
    guest.expect("vsock: ready", SOON)?;
    guest.send(b"c")?;
    guest.expect("vsock: refused", SOON)?;
    let listener = UnixListener::bind(files.path().join(format!("v_{PORT}")))?;
    listener.set_nonblocking(true)?;
    for _ in 0..2 {
        guest.send(b"c")?;
        let word = serve(accept(&listener)?)?;
        guest.expect(&word, SOON)?;
    }
    guest.send(b"q")?;
    let status = guest.wait(SOON)?;
    ensure!(status.code() == Some(0), "{status}: {}", guest.errors());
    ensure!(!path.exists(), "its socket is left");
    Ok(())
}
