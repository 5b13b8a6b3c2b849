//! A client of `reeve run --control PATH`: one line asked, one answered, each with a deadline.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

/// How long an answer may take. A worker is given less than this by `reeve` itself.
const ANSWER: Duration = Duration::from_secs(20);

/// A place for a control socket, in a directory of its own that everybody may enter.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
}

impl Place {
    /// Makes the directory; it is removed when this is dropped.
    pub fn new() -> Result<Place> {
        use std::os::unix::fs::PermissionsExt;
        // Not named after reeve: what is left behind is looked for by that name.
        let directory = tempfile::Builder::new().prefix("control-").tempdir()?;
        let anybody = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(directory.path(), anybody)?;
        Ok(Place { directory })
    }

    /// What to give to `--control`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Connects, waiting up to `limit` for the socket to exist.
    pub fn connect(&self, limit: Duration) -> Result<Control> {
        Control::connect(&self.path(), limit)
    }
}

/// A connected client.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    /// Connects, waiting up to `limit` for the socket to exist.
    pub fn connect(path: &Path, limit: Duration) -> Result<Control> {
        let deadline = Instant::now() + limit;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) => {
                    ensure!(
                        Instant::now() < deadline,
                        "no control socket {}: {error}",
                        path.display()
                    );
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        };
        stream.set_read_timeout(Some(ANSWER))?;
        Ok(Control {
            stream: BufReader::new(stream),
        })
    }

    /// Sends a command and returns the answer, whatever it says.
    pub fn ask(&mut self, command: &str) -> Result<Value> {
        let mut line = String::new();
        self.stream
            .get_mut()
            .write_all(format!("{command}\n").as_bytes())
            .with_context(|| format!("cannot ask for {command}"))?;
        self.stream
            .read_line(&mut line)
            .with_context(|| format!("no answer to {command}"))?;
        serde_json::from_str(&line).with_context(|| format!("{command} was answered {line:?}"))
    }

    /// Sends a command that has to work; returns how long the answer took.
    pub fn order(&mut self, command: &str) -> Result<Duration> {
        let begin = Instant::now();
        let answer = self.ask(command)?;
        let took = begin.elapsed();
        ensure!(
            answer.get("ok") == Some(&Value::Bool(true)),
            "{command} failed: {answer}"
        );
        Ok(took)
    }

    /// A number of the status: `pid`, `resets`, ...
    pub fn number(&mut self, field: &str) -> Result<u64> {
        let status = self.ask("status")?;
        status
            .get(field)
            .and_then(Value::as_u64)
            .with_context(|| format!("no {field} in {status}"))
    }

    /// Process id of the worker.
    pub fn worker(&mut self) -> Result<u32> {
        Ok(u32::try_from(self.number("pid")?)?)
    }

    /// The phase, as `running`.
    pub fn phase(&mut self) -> Result<String> {
        let status = self.ask("status")?;
        status
            .get("phase")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .with_context(|| format!("no phase in {status}"))
    }
}
