//! QEMU's monitor protocol, as much as saving and resuming needs: a command, its answer, and
//! waiting for a migration to finish. Events are dropped.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// A monitor after its greeting. Every answer has a deadline.
#[derive(Debug)]
pub struct Monitor {
    reader: BufReader<UnixStream>,
}

impl Monitor {
    /// Takes over the socket of a QEMU that has just started.
    pub fn greet(socket: UnixStream) -> Result<Monitor> {
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut monitor = Monitor {
            reader: BufReader::new(socket),
        };
        monitor.message()?;
        monitor.execute("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Runs a command and returns what it returns.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        self.reader
            .get_mut()
            .write_all(format!("{request}\n").as_bytes())?;
        loop {
            let mut message = self
                .message()
                .with_context(|| format!("no answer to {command}"))?;
            if let Some(error) = message.get("error") {
                bail!("{command}: {error}");
            }
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// Leaves memory out of migration that is a file anyway.
    pub fn leave_memory_out(&mut self) -> Result<()> {
        let capability = json!([{ "capability": "x-ignore-shared", "state": true }]);
        self.execute(
            "migrate-set-capabilities",
            json!({ "capabilities": capability }),
        )?;
        Ok(())
    }

    /// Waits for the running migration, in or out.
    pub fn migrated(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let answer = self.execute("query-migrate", json!({}))?;
            match answer.get("status").and_then(Value::as_str) {
                Some("completed") => return Ok(()),
                Some("failed") => bail!("migration failed: {answer}"),
                _ => ensure!(Instant::now() < deadline, "migration does not end"),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn message(&mut self) -> Result<Value> {
        let mut line = String::new();
        ensure!(
            self.reader.read_line(&mut line)? > 0,
            "QEMU closed its monitor"
        );
        Ok(serde_json::from_str(&line)?)
    }
}
