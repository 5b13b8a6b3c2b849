//! `virsh console` at a terminal, typed at.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::process::{Leashed, Session};

/// How long a guest may take to give back what is typed.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long what was typed is waited for before more is.
const TURN: Duration = Duration::from_millis(300);

/// What leaves: control and `]`.
const ESCAPE: &[u8] = b"\x1d";

/// Connects, types `word` until it is given back, and leaves; the exit code, and what the client itself says.
pub(super) fn talk(uri: &str, domain: &str, word: &str) -> Result<(i32, String)> {
    // It gives its command a terminal of its own.
    let mut command = Command::new("script");
    command
        .arg("-qec")
        .arg(format!("virsh -c '{uri}' console {domain}"))
        .arg("/dev/null")
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut client = Leashed::spawn(&mut command, Session::Group, &[])?;
    let mut input = client.child().stdin.take().context("no input")?;
    let mut output = client.child().stdout.take().context("no output")?;
    let (sender, pieces) = sync_channel(64);
    std::thread::spawn(move || {
        let mut piece = [0; 512];
        while let Ok(length @ 1..) = output.read(&mut piece) {
            if sender.send(piece[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut said = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let mut typed = Instant::now();
    let code = loop {
        match pieces.recv_timeout(TURN) {
            Ok(piece) => said.extend(piece),
            Err(RecvTimeoutError::Disconnected) => {
                let status = client.child().wait()?;
                break status.code().unwrap_or(-1);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() > deadline + PATIENCE {
            break -1;
        }
        if typed.elapsed() < TURN {
            continue;
        }
        // A guest that is not there yet loses what is typed, and the client an escape that does not come alone.
        let text = String::from_utf8_lossy(&said);
        if text.contains(word) || Instant::now() > deadline {
            let _ = input.write_all(ESCAPE);
        } else if text.contains("Escape character") {
            let _ = input.write_all(format!("{word}\r").as_bytes());
        }
        typed = Instant::now();
    };
    let text = String::from_utf8_lossy(&said).into_owned();
    let mut lines: Vec<&str> = text
        .lines()
        .map(|line| line.trim_matches(['\r', '\x1d']))
        .filter(|line| {
            let own = ["Connected", "Escape", "Active console", "error"];
            own.iter().any(|begin| line.starts_with(begin))
        })
        .collect();
    if text.contains(word) {
        lines.push("(given back)");
    }
    Ok((code, lines.join("\n")))
}
