//! Drives the `reeve` command as a person or a script would: on a terminal or on pipes, with
//! deadlines on everything it waits for. A started `reeve` dies with its test.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use rustix::termios::{LocalModes, Termios, tcgetattr};

mod builder;
mod stream;
#[cfg(test)]
mod tests;

pub use builder::Builder;
use stream::Stream;

use crate::process::Leashed;

/// Where the products are: `REEVE_BIN_DIR`, or beside the test binary's directory.
pub fn bin_directory() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("REEVE_BIN_DIR") {
        return Ok(PathBuf::from(directory));
    }
    // target/x86_64-unknown-linux-gnu/debug/deps/test-0123456789abcdef
    let executable = std::env::current_exe()?;
    let directory = executable.parent().and_then(Path::parent);
    Ok(directory
        .ok_or_else(|| anyhow!("no directory above {}", executable.display()))?
        .to_owned())
}

/// The path of a product.
pub fn product(name: &str) -> Result<PathBuf> {
    let path = bin_directory()?.join(name);
    ensure!(
        path.exists(),
        "{} is missing: run `cargo build --workspace` first",
        path.display()
    );
    Ok(path)
}

/// A running `reeve`.
#[derive(Debug)]
pub struct Reeve {
    process: Leashed,
    /// What is written goes to its standard input.
    input: Option<File>,
    /// Its terminal, or its standard output.
    output: Stream,
    /// Its standard error, when that is not the terminal.
    errors: Option<Stream>,
    /// What the terminal's modes were before it started.
    modes: Option<Termios>,
    /// Where the next `expect` starts to look, counted from the start of the output.
    cursor: usize,
}

impl Reeve {
    /// `reeve run`.
    pub fn run() -> Result<Builder> {
        Ok(Reeve::command()?.arg("run"))
    }

    /// `reeve` with nothing.
    pub fn command() -> Result<Builder> {
        Ok(Builder::new(Command::new(product("reeve")?)))
    }

    /// Waits until `pattern` appears in the output after the last match, at most for `limit`.
    /// Returns what came before it.
    pub fn expect(&mut self, pattern: &str, limit: Duration) -> Result<String> {
        self.expect_bytes(pattern.as_bytes(), limit)
    }

    /// The same for any bytes.
    pub fn expect_bytes(&mut self, pattern: &[u8], limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        // Nothing before this can be the start of a match: what has been searched is not again.
        let mut from = self.cursor;
        loop {
            from = from.max(self.output.dropped);
            if let Some(position) = self.output.find(pattern, from) {
                let before = self.output.text(self.cursor..position);
                self.cursor = position + pattern.len();
                return Ok(before);
            }
            from = from.max(self.output.end().saturating_sub(pattern.len()));
            if self.output.file.is_none() {
                let pattern = shown(pattern);
                bail!(
                    "{pattern:?} did not come and the output has ended:\n{}",
                    self.transcript()
                );
            }
            if Instant::now() >= deadline {
                let pattern = shown(pattern);
                bail!(
                    "{pattern:?} did not come within {limit:?}:\n{}",
                    self.transcript()
                );
            }
            self.pump(deadline)?;
        }
    }

    /// Waits until `pattern` is in what came on standard error, from its start on.
    pub fn expect_error(&mut self, pattern: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            if self.errors().contains(pattern) {
                return Ok(());
            }
            let ended = self
                .errors
                .as_ref()
                .and_then(|stream| stream.file.as_ref())
                .is_none();
            ensure!(
                !ended && Instant::now() < deadline,
                "{pattern:?} did not come:\n{}",
                self.transcript()
            );
            self.pump(deadline)?;
        }
    }

    /// The rest of the line in which the last match was.
    pub fn line(&mut self, limit: Duration) -> Result<String> {
        Ok(self.expect("\n", limit)?.trim_end_matches('\r').to_owned())
    }

    /// Reads output for this long, whatever comes.
    pub fn listen(&mut self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline && self.output.file.is_some() {
            self.pump(deadline)?;
        }
        std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
        Ok(())
    }

    /// Types these bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let input = self.input.as_mut().context("its input has been closed")?;
        input.write_all(bytes).context("reeve does not take input")
    }

    /// Runs a line in the shell of the inner guest and returns what it printed: everything between
    /// the echo of the line and the next prompt.
    pub fn shell(&mut self, line: &str, limit: Duration) -> Result<String> {
        self.send(format!("{line}\n").as_bytes())?;
        self.expect("\n", limit)?;
        let printed = self.expect(crate::lab::assets::PROMPT, limit)?;
        Ok(printed.replace('\r', ""))
    }

    /// Closes what it reads from; on a terminal that is a hang-up.
    pub fn hang_up(&mut self) {
        self.input = None;
        if self.errors.is_none() {
            self.output.file = None;
        }
    }

    /// Whether its terminal hands on every key as it is.
    pub fn terminal_is_raw(&self) -> Result<bool> {
        let cooked = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        Ok(!self.terminal_modes()?.local_modes.intersects(cooked))
    }

    /// Whether its terminal is in every mode as it was before `reeve` started.
    pub fn terminal_is_restored(&self) -> Result<bool> {
        let before = self.modes.as_ref().context("it has no terminal")?;
        Ok(format!("{before:?}") == format!("{:?}", self.terminal_modes()?))
    }

    /// Asked at the master, which outlives whoever has the terminal open.
    fn terminal_modes(&self) -> Result<Termios> {
        let master = self.input.as_ref().context("its terminal is closed")?;
        Ok(tcgetattr(master)?)
    }

    /// Sends a signal to `reeve` itself.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(self.process.signal(signal)?)
    }

    /// Process id of `reeve`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for its end, reading all output.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.process.try_wait()? {
                while self.pump(Instant::now() + Duration::from_millis(1))? {}
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "still running after {limit:?}:\n{}",
                self.transcript()
            );
            let step = Instant::now() + Duration::from_millis(5);
            if !self.pump(step.min(deadline))? {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// Everything it has printed so far, on the terminal or on standard output.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.bytes).into_owned()
    }

    /// What it has printed on standard error so far; empty on a terminal.
    #[must_use]
    pub fn errors(&self) -> String {
        self.errors
            .as_ref()
            .map(|stream| String::from_utf8_lossy(&stream.bytes).into_owned())
            .unwrap_or_default()
    }

    /// Reads what is there, waiting until `deadline` for a first byte. `false` when nothing came.
    fn pump(&mut self, deadline: Instant) -> Result<bool> {
        let mut streams: Vec<&mut Stream> = std::iter::once(&mut self.output)
            .chain(self.errors.as_mut())
            .collect();
        streams.retain(|stream| stream.file.is_some());
        let mut polled: Vec<PollFd<'_>> = streams
            .iter()
            .filter_map(|stream| stream.file.as_ref())
            .map(|file| PollFd::new(file, PollFlags::IN))
            .collect();
        if polled.is_empty() {
            return Ok(false);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(&mut polled, Some(&Timespec::try_from(left)?)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = polled
            .iter()
            .map(|entry| !entry.revents().is_empty())
            .collect();
        let mut any = false;
        for (stream, _) in streams.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            any |= stream.read()?;
        }
        Ok(any)
    }

    fn transcript(&self) -> String {
        format!(
            "--- output\n{}\n--- errors\n{}\n---",
            self.output(),
            self.errors()
        )
    }
}

/// A pattern in a message: text, and not all of it when it is long.
fn shown(pattern: &[u8]) -> String {
    String::from_utf8_lossy(pattern.get(..200).unwrap_or(pattern)).into_owned()
}
