//! A real `virsh`, command by command, as an administrator types them; and an instance of the daemon for it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::daemon::Daemon;

/// The connection to real domains.
pub const REAL: &str = "qemu:///system";
/// The connection to the test hypervisor.
pub const TEST: &str = "test:///default";
/// The socket for whoever changes something too, by its name among the daemon's.
pub const SOCKET: &str = "libvirt-sock";

/// A connection over that socket, of a URI as `qemu:///system`.
#[must_use]
pub fn over(uri: &str, socket: &Path) -> String {
    let (scheme, rest) = uri.split_once(':').unwrap_or((uri, ""));
    format!("{scheme}+unix:{rest}?socket={}", socket.display())
}

/// A `virsh` that opens `uri` over that socket.
#[must_use]
pub fn virsh(uri: &str, socket: &Path) -> Command {
    let mut command = Command::new("virsh");
    command
        .args(["-q", "-c", &over(uri, socket)])
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    command
}

/// What a command prints that succeeds and complains of nothing, without the white space around it.
///
/// # Errors
/// It does not.
pub fn succeed(mut command: Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{command:?}: run tests/lab/install"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && complaint.is_empty(),
        "{command:?}: {}: {complaint}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// What a command complains of that does not succeed.
///
/// # Errors
/// It does, or is killed.
pub fn fail(mut command: Command) -> Result<String> {
    let output = command.output()?;
    ensure!(
        output.status.code().is_some_and(|code| code != 0),
        "{command:?}: {}",
        output.status
    );
    Ok(String::from_utf8(output.stderr)?)
}

/// An instance that serves clients of libvirt's protocol, and a connection to it.
#[derive(Debug)]
pub struct Host {
    /// The instance.
    pub daemon: Daemon,
    uri: &'static str,
}

impl Host {
    /// Starts one.
    ///
    /// # Errors
    /// It does not serve.
    pub fn start(uri: &'static str) -> Result<Self> {
        let mut daemon = Daemon::prepare()?;
        daemon.serve_libvirt()?;
        daemon.spawn()?;
        Ok(Self::of(daemon, uri))
    }

    /// One that was started.
    #[must_use]
    pub const fn of(daemon: Daemon, uri: &'static str) -> Self {
        Self { daemon, uri }
    }

    /// A `virsh`, for any connection to it.
    #[must_use]
    pub fn virsh_of(&self, uri: &str, arguments: &[&str]) -> Command {
        let mut command = virsh(uri, &self.daemon.run().join(SOCKET));
        command.args(arguments);
        command
    }

    /// A `virsh`.
    #[must_use]
    pub fn virsh(&self, arguments: &[&str]) -> Command {
        self.virsh_of(self.uri, arguments)
    }

    /// What a command of `virsh` prints that succeeds, without the white space around it.
    ///
    /// # Errors
    /// It does not succeed, or complains.
    pub fn good(&self, arguments: &[&str]) -> Result<String> {
        let said = succeed(self.virsh(arguments)).with_context(|| self.daemon.log())?;
        let documents = &self.daemon.documents;
        documents.printed(self.uri, &arguments.join(" "), &said);
        Ok(said)
    }

    /// What a command of `virsh` complains of that does not succeed.
    ///
    /// # Errors
    /// It succeeds.
    pub fn refused(&self, arguments: &[&str]) -> Result<String> {
        fail(self.virsh(arguments))
    }

    /// Keeps a document in a file, for a command.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn file(&self, name: &str, document: &str) -> Result<String> {
        let path = self.daemon.run().join(name);
        std::fs::write(&path, document)?;
        Ok(path.display().to_string())
    }

    /// Starts a command of `virsh` that goes on, and hears what it prints.
    ///
    /// # Errors
    /// It does not start.
    pub fn listen(&self, arguments: &[&str]) -> Result<Listener> {
        Listener::start(self.virsh(arguments))
    }
}

/// A command that goes on; dropping it ends it.
#[derive(Debug)]
pub struct Listener {
    child: Child,
    heard: Receiver<String>,
}

impl Listener {
    /// Starts it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("no output")?;
        let (lines, heard) = sync_channel(256);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, heard })
    }

    /// The next line, if it comes in time.
    #[must_use]
    pub fn next(&self, within: Duration) -> Option<String> {
        self.heard.recv_timeout(within).ok()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
