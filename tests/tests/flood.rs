//! A client of libvirt's protocol that asks as much as it can, by way of a real gateway in its jail: it costs others
//! no time, and is served as any once it stops.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reeve_tests::libvirt::Libvirt;

/// `REMOTE_PROC_CONNECT_OPEN`, `REMOTE_PROC_CONNECT_GET_TYPE`.
const OPEN: u32 = 1;
const TYPE: u32 = 3;
/// Calls that are under way at once.
const AT_ONCE: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(60);
/// sched(7).
const NORMAL: &str = "0";
const IDLE: &str = "5";

/// A connection, with its packets as they are on the wire.
struct Raw {
    socket: UnixStream,
    serial: u32,
}

impl Raw {
    fn open(socket: &Path) -> Result<Self> {
        let socket = UnixStream::connect(socket)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut raw = Self { socket, serial: 0 };
        // No name, no flags.
        let arguments = [0; 8];
        raw.ask(OPEN, &arguments, 1)?;
        raw.receive()?;
        Ok(raw)
    }

    fn ask(&mut self, procedure: u32, arguments: &[u8], count: u32) -> Result<()> {
        let mut packets = Vec::new();
        for _ in 0..count {
            self.serial += 1;
            let length = u32::try_from(28 + arguments.len())?;
            for word in [length, 0x2000_8086, 1, procedure, 0, self.serial, 0] {
                packets.extend(word.to_be_bytes());
            }
            packets.extend(arguments);
        }
        Ok(self.socket.write_all(&packets)?)
    }

    /// Reads a reply, which must be no error.
    fn receive(&mut self) -> Result<()> {
        let mut head = [0; 28];
        self.socket.read_exact(&mut head)?;
        let (length, status) = (head.first_chunk::<4>(), head.last_chunk::<4>());
        let length = u32::from_be_bytes(*length.context("a length")?);
        ensure!(status == Some(&[0; 4]), "refused");
        let mut rest = vec![0; usize::try_from(length)?.saturating_sub(head.len())];
        Ok(self.socket.read_exact(&mut rest)?)
    }
}

/// How the kernel schedules each gateway of the daemon (proc_pid_stat(5), field 41).
fn classes(host: &Libvirt) -> Result<Vec<String>> {
    let daemon = host.daemon.pid().context("no daemon")?.to_string();
    let mut classes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(stat) = fs::read_to_string(entry?.path().join("stat")) else {
            continue;
        };
        let Some((name, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        if name.ends_with("(reeve-gateway") && fields.get(4 - 3) == Some(&daemon.as_str()) {
            classes.push(fields.get(41 - 3).context("a class")?.to_string());
        }
    }
    Ok(classes)
}

#[test]
fn whoever_floods_is_served_behind_others_until_it_stops() -> Result<()> {
    let host = Libvirt::start()?;
    let socket = host.daemon.run().join("libvirt-sock");
    let mut other = Raw::open(&socket)?;
    let mut client = Raw::open(&socket)?;
    let behind = |host: &Libvirt| {
        let classes = classes(host)?;
        ensure!(
            classes.iter().all(|class| class == NORMAL || class == IDLE),
            "{classes:?}"
        );
        Ok(classes.iter().filter(|class| *class == IDLE).count())
    };
    // One call after another is no flood.
    for _ in 0..1_000 {
        client.ask(TYPE, &[], 1)?;
        client.receive()?;
    }
    ensure!(behind(&host)? == 0);
    client.ask(TYPE, &[], AT_ONCE)?;
    let deadline = Instant::now() + PATIENCE;
    while behind(&host)? == 0 {
        for _ in 0..200 {
            client.receive()?;
            client.ask(TYPE, &[], 1)?;
        }
        ensure!(Instant::now() < deadline, "it is served as any");
    }
    ensure!(behind(&host)? == 1);
    other.ask(TYPE, &[], 1)?;
    other.receive()?;
    for _ in 0..AT_ONCE {
        client.receive()?;
    }
    while behind(&host)? == 1 {
        client.ask(TYPE, &[], 1)?;
        client.receive()?;
        std::thread::sleep(Duration::from_millis(50));
        ensure!(Instant::now() < deadline, "it stays behind");
    }
    Ok(())
}
