//! A daemon that serves clients of libvirt's protocol and has directories for images, and the clients
//! themselves, as an administrator starts them: `virsh`, and the tools of Debian's `virtinst`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::virsh::{Listener, REAL, SOCKET, over};

/// Such a daemon.
#[derive(Debug)]
pub struct Libvirt {
    /// The daemon.
    pub daemon: Daemon,
    files: TempDir,
}

impl Libvirt {
    /// Starts it; images, kernels and the rest may be anywhere in [`Self::files`].
    ///
    /// # Errors
    /// It does not serve.
    pub fn start() -> Result<Self> {
        Self::start_with("")
    }

    /// As [`Self::start`], with further lines of its configuration.
    ///
    /// # Errors
    /// It does not serve.
    pub fn start_with(settings: &str) -> Result<Self> {
        let files = tempfile::Builder::new().prefix("images-").tempdir()?;
        let mut daemon = Daemon::prepare()?;
        let config = files.path().join("reeve.toml");
        let allowed = files.path().join("allowed");
        std::fs::create_dir(&allowed)?;
        let allowed = allowed.display().to_string();
        let text = format!("libvirt = true\nallowed_directories = [{allowed:?}]\n{settings}");
        std::fs::write(&config, text)?;
        daemon.argument(&format!("--config={}", config.display()));
        daemon.spawn()?;
        Ok(Self { daemon, files })
    }

    /// The directory in which files may be.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.files.path().join("allowed")
    }

    /// A place for a client's own files, in which the daemon may use none.
    #[must_use]
    pub fn outside(&self) -> &Path {
        self.files.path()
    }

    /// The URI of a connection to it.
    #[must_use]
    pub fn uri(&self) -> String {
        over(REAL, &self.daemon.run().join(SOCKET))
    }

    /// One of its clients, for that connection, as an administrator's shell starts it.
    #[must_use]
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let quiet = (program == "virsh").then_some("-q");
        command
            .args(quiet)
            .args(["--connect", &self.uri()])
            .env("LC_ALL", "C")
            // What a tool keeps of its own.
            .env("HOME", self.outside())
            .env("XDG_CACHE_HOME", self.outside())
            .stdin(Stdio::null());
        command
    }

    /// What a command of virsh's prints, words separated by one blank; the words of the line are separated
    /// by blanks too.
    ///
    /// # Errors
    /// It does not succeed, or complains.
    pub fn virsh(&self, line: &str) -> Result<String> {
        self.run("virsh", &line.split_whitespace().collect::<Vec<_>>())
    }

    /// What virsh complains of.
    ///
    /// # Errors
    /// It succeeds.
    pub fn refused(&self, line: &str) -> Result<String> {
        let output = self
            .client("virsh")
            .args(line.split_whitespace())
            .output()?;
        ensure!(
            output.status.code() == Some(1),
            "virsh {line}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stdout)
        );
        Ok(String::from_utf8(output.stderr)?)
    }

    /// Runs a client; what it prints, words separated by one blank.
    ///
    /// # Errors
    /// It does not succeed; virsh does not either if it complains.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.client(program).args(arguments).output();
        let output =
            output.with_context(|| format!("{program} does not start: run tests/lab/install"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        self.record(program, &arguments.join(" "), &said);
        let complaint = String::from_utf8_lossy(&output.stderr);
        let quiet = program != "virsh" || complaint.is_empty();
        ensure!(
            output.status.success() && quiet,
            "{program} {arguments:?}: {}: {said}{complaint}{}",
            output.status,
            self.daemon.log()
        );
        Ok(said.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Takes what a client printed, the documents of which are checked.
    pub fn record(&self, program: &str, command: &str, said: &str) {
        let documents = &self.daemon.documents;
        documents.printed(REAL, &format!("{program} {command}"), said);
    }

    /// Starts a command of virsh's that goes on, and hears what it prints.
    ///
    /// # Errors
    /// It does not start.
    pub fn listen(&self, arguments: &[&str]) -> Result<Listener> {
        let mut command = self.client("virsh");
        command.args(arguments);
        Listener::start(command)
    }
}

/// That a command of virsh's prints that.
///
/// # Errors
/// It does not succeed, or prints something else.
pub fn shows(host: &Libvirt, line: &str, part: &str) -> Result<()> {
    let said = host.virsh(line)?;
    ensure!(said.contains(part), "{line}: {part}: {said}");
    Ok(())
}

/// That a command of virsh's complains of that.
///
/// # Errors
/// It succeeds, or complains of something else.
pub fn complains(host: &Libvirt, line: &str, part: &str) -> Result<()> {
    let said = host.refused(line)?;
    ensure!(said.contains(part), "{line}: {part}: {said}");
    Ok(())
}
