//! `virsh console` at a terminal, typed at.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::process::{Leashed, Session};

/// How long a guest may take to give back what is typed.
const PATIENCE: Duration = Duration::from_secs(10);

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
    let mut typed = false;
    let mut left = false;
    loop {
        match pieces.recv_timeout(Duration::from_millis(200)) {
            Ok(piece) => said.extend(piece),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => typed = false,
        }
        let text = String::from_utf8_lossy(&said).into_owned();
        let back = text.contains(word);
        if !left && (back || Instant::now() > deadline) {
            left = input.write_all(ESCAPE).is_ok();
        } else if !left && !typed && text.contains("Escape character") {
            // A guest that is not there yet loses it.
            typed = input.write_all(format!("{word}\r").as_bytes()).is_ok();
        }
        if Instant::now() > deadline + PATIENCE {
            break;
        }
    }
    let status = client.child().wait()?;
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
    Ok((status.code().unwrap_or(-1), lines.join("\n")))
}
