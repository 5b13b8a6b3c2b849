//! The daemon that embeds Reeve (`ipc/examples/embed.rs`), run as its readers would run it: against a
//! real `reeved` over real KVM, which dies under it.

use std::io::{BufRead, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::call::DomainShutdown;
use reeve_tests::daemon::{Daemon, named, wait_for};
use reeve_tests::reeve::product;

const SOON: Duration = Duration::from_secs(20);

/// The example, killed with its test.
struct Embed(Child);

impl Embed {
    fn run(daemon: &Daemon, command_line: &str) -> Result<Self> {
        let child = Command::new(product("examples/embed")?)
            .arg(daemon.socket())
            .arg(command_line)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self(child))
    }

    /// Waits for its end; what it printed and what it told.
    fn end(&mut self) -> Result<(String, String)> {
        let deadline = Instant::now() + SOON;
        let status = loop {
            if let Some(status) = self.0.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let (mut said, mut told) = (String::new(), String::new());
        if let Some(mut output) = self.0.stdout.take() {
            output.read_to_string(&mut said)?;
        }
        if let Some(mut errors) = self.0.stderr.take() {
            errors.read_to_string(&mut told)?;
        }
        ensure!(status.success(), "{status}: {told}");
        Ok((said, told))
    }
}

impl Drop for Embed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_prints_what_the_guest_says_and_ends_with_it() -> Result<()> {
    let daemon = Daemon::start()?;
    let (said, told) = Embed::run(&daemon, "")?.end()?;
    ensure!(said.starts_with("Reeve built-in guest"), "{said}");
    ensure!(!said.contains("FAILED"), "{said}");
    let states = [
        "StartingUp",
        "Paused(User)",
        "Running(Unpaused)",
        "ShutOff(Shutdown)",
    ];
    let mut rest = told.as_str();
    for state in states {
        let at = rest
            .find(state)
            .with_context(|| format!("{state}: {told}"))?;
        rest = &rest[at..];
    }
    // The end is told before the kernel has released the worker.
    wait_for(&mut daemon.connect()?, &named("embedded"), |details| {
        details.is_none()
    })?;
    Ok(())
}

#[test]
fn it_goes_on_when_the_supervisor_dies_and_comes_back() -> Result<()> {
    let mut daemon = Daemon::start()?;
    let mut embed = Embed::run(&daemon, "mode=echo")?;
    let mut errors = BufReader::new(embed.0.stderr.take().context("no errors")?);
    until(&mut errors, "Running(Unpaused)")?;
    daemon.kill()?;
    until(&mut errors, "the supervisor is gone")?;
    daemon.spawn()?;
    until(&mut errors, "the supervisor is back")?;
    // A guest that is still booting does not hear its button.
    let log = daemon.state().join("log/embedded.console.log");
    let deadline = Instant::now() + SOON;
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.contains("ready")) {
        ensure!(Instant::now() < deadline, "its guest is not ready");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut connection = daemon.connect()?;
    connection.call(DomainShutdown {
        domain: named("embedded"),
        destroy_after_ms: None,
        for_host: false,
    })?;
    until(&mut errors, "ShutOff(Shutdown)")?;
    let (said, _) = embed.end()?;
    ensure!(said.contains("ready"), "{said}");
    wait_for(&mut connection, &named("embedded"), |details| {
        details.is_none()
    })?;
    Ok(())
}

/// Reads lines until one contains `text`.
fn until(lines: &mut impl BufRead, text: &str) -> Result<()> {
    let mut all = String::new();
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        ensure!(lines.read_line(&mut line)? > 0, "no '{text}' in: {all}");
        all.push_str(&line);
    }
    Ok(())
}
