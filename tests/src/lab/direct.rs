//! A body on this machine itself: the same binary as a child process, with the same limit.

use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::session::End;
use super::{ENTERED, INSIDE, Test, arguments, assets, verdict};
use crate::process::{Leashed, Session};

/// Runs the test in a child process and passes its output on.
pub fn run(test: &Test, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let entered = directory.path().join("entered");
    let guest_parts = assets()
        .vmlinux
        .parent()
        .context("assets lie in a directory")?;
    let (output, end) = UnixStream::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(arguments(test))
        .env(INSIDE, "1")
        .env(ENTERED, &entered)
        .env(assets::DIRECTORY, guest_parts)
        .stdin(Stdio::null())
        .stdout(Stdio::from(OwnedFd::from(end.try_clone()?)))
        .stderr(Stdio::from(OwnedFd::from(end)));
    let mut process = Leashed::spawn(&mut command, Session::Group, &[])?;
    // The command still holds the other end: without it, the end of output would never be seen.
    drop(command);

    let deadline = Instant::now() + test.limit();
    output.set_read_timeout(Some(Duration::from_millis(20)))?;
    let end = loop {
        pass_on(&output, sink)?;
        if let Some(status) = process.try_wait()? {
            pass_on(&output, sink)?;
            let status = status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
            break End::Exited {
                status,
                entered: entered.exists(),
            };
        }
        if Instant::now() >= deadline {
            break End::Limit;
        }
    };
    verdict(test, end).with_context(|| format!("{} run directly", test.name()))
}

/// Passes on what has been written so far; waits for a first byte for a moment only.
fn pass_on(mut output: &UnixStream, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        match output.read(&mut buffer) {
            Ok(0) => {
                std::thread::sleep(Duration::from_millis(5));
                return Ok(());
            }
            Ok(length) => sink(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
