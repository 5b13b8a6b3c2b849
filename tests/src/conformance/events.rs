//! What a client is told that asked for every event, by the connection that stays open for as long as a server is
//! asked: it also keeps the test driver's machines, which go with the last connection.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process::{Leashed, Session};

/// How long an event may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How many lines wait.
const LINES: usize = 1 << 12;

/// The client.
#[derive(Debug)]
pub(super) struct Listener {
    _client: Leashed,
    lines: Receiver<String>,
}

impl Listener {
    pub(super) fn start(uri: &str) -> Result<Listener> {
        let mut command = Command::new("virsh");
        command
            .args(["-q", "-c", uri, "event", "--all", "--loop"])
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut client = Leashed::spawn(&mut command, Session::Group, &[])?;
        let output = client.child().stdout.take().context("no output")?;
        let (sender, lines) = sync_channel(LINES);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Listener {
            _client: client,
            lines,
        })
    }

    /// Whether a line about `domain` comes soon.
    pub(super) fn hears_of(&self, domain: &str) -> bool {
        let deadline = Instant::now() + Duration::from_millis(300);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(&format!("'{domain}'")) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// The lines until `domain` is undefined, without those about it or others of its kind, whose names begin with
    /// `kind`.
    pub(super) fn until_undefined(&self, domain: &str, kind: &str) -> Result<Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        let (about, others) = (format!("'{domain}'"), format!("domain '{kind}"));
        let mut told = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                bail!("no event of {domain} comes; before: {told:?}");
            };
            if line.contains(&about) && line.contains("Undefined") {
                return Ok(told);
            }
            if !line.contains(&others) {
                told.push(line);
            }
        }
    }
}
