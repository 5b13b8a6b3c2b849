//! The command line against a real `reeved` over real KVM, as people and scripts use it: what it
//! prints, what it says when it cannot, and what it leaves as it was.

mod console;
mod definitions;
mod editing;
mod host_end;
mod life;
mod programs;
mod refusals;
mod settings;
mod watching;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_tests::daemon::Daemon;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon, and its command line.
struct Cli {
    daemon: Daemon,
    /// Removed with it.
    files: tempfile::TempDir,
}

impl Cli {
    fn start() -> Result<Self> {
        let daemon = Daemon::start()?;
        let files = tempfile::tempdir()?;
        Ok(Self { daemon, files })
    }

    /// With a configuration, which is also returned, to be changed.
    fn configured(text: &str) -> Result<(Self, PathBuf)> {
        let mut daemon = Daemon::prepare()?;
        let files = tempfile::tempdir()?;
        let path = files.path().join("reeve.toml");
        std::fs::write(&path, text)?;
        daemon.argument(&format!("--config={}", path.display()));
        daemon.spawn()?;
        Ok((Self { daemon, files }, path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// What it prints when it succeeds.
    fn ok(&self, arguments: &[&str]) -> Result<String> {
        self.daemon.reeve(arguments)
    }

    /// The same as JSON.
    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let arguments = [arguments, &["--json"]].concat();
        let text = self.ok(&arguments)?;
        serde_json::from_str(&text).with_context(|| format!("{arguments:?}: {text}"))
    }

    /// It succeeds and prints nothing.
    fn silent(&self, arguments: &[&str]) -> Result<()> {
        let text = self.ok(arguments)?;
        ensure!(text.is_empty(), "{arguments:?}: {text}");
        Ok(())
    }

    /// It fails: nothing on standard output, and one line that says all of `parts`.
    fn refused(&self, arguments: &[&str], parts: &[&str]) -> Result<()> {
        refusal(&self.daemon.reeve_command(arguments)?.output()?, parts)
            .with_context(|| format!("{arguments:?}"))
    }

    /// The command line is refused before anything is done, as [`Self::refused`].
    fn misused(&self, arguments: &[&str], parts: &[&str]) -> Result<()> {
        failure(&self.daemon.reeve_command(arguments)?.output()?, 2, parts)
            .with_context(|| format!("{arguments:?}"))
    }

    /// A domain that echoes, defined.
    fn define(&self, name: &str) -> Result<()> {
        self.ok(&["define", name, "--memory", "32M", "--cmdline", "mode=echo"])?;
        Ok(())
    }

    /// `reeve` in the background.
    fn spawn(&self, arguments: &[&str]) -> Result<Background> {
        let mut command = self.daemon.reeve_command(arguments)?;
        command.stdout(std::process::Stdio::piped());
        Background::spawn(command)
    }

    fn state(&self, name: &str) -> Result<String> {
        let info = self.json(&["info", name])?;
        Ok(info["state"].as_str().context("no state")?.to_owned())
    }
}

/// A process, killed with its test.
struct Background(std::process::Child);

impl Background {
    fn spawn(mut command: Command) -> Result<Self> {
        Ok(Self(command.spawn()?))
    }

    /// Waits for its end; what it printed.
    fn end(mut self) -> Result<String> {
        use std::io::Read as _;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.0.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut text = String::new();
        let mut output = self.0.stdout.take().context("no output")?;
        output.read_to_string(&mut text)?;
        ensure!(status.success(), "{status}: {text}");
        Ok(text)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// That a command failed as it should: see [`Cli::refused`].
fn refusal(output: &Output, parts: &[&str]) -> Result<()> {
    failure(output, 1, parts)
}

fn failure(output: &Output, code: i32, parts: &[&str]) -> Result<()> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(code),
        "{}: {errors}",
        output.status
    );
    ensure!(output.stdout.is_empty(), "it printed something");
    ensure!(errors.lines().count() == 1, "not one line: {errors}");
    ensure!(errors.starts_with("reeve: "), "{errors}");
    ensure!(!errors.trim_end().ends_with('.'), "{errors}");
    for part in parts {
        ensure!(errors.contains(part), "no '{part}' in: {errors}");
    }
    Ok(())
}

/// Waits until something is so.
fn eventually(what: &str, mut is: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is()? {
        ensure!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
