//! A command line for `reeve`, and starting it on pipes or on a terminal.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, anyhow};
use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;

use super::Reeve;
use super::stream::Stream;
use crate::control::Place;
use crate::lab::{inside_outer_guest, session};
use crate::process::{Leashed, Session};

/// A `reeve` command line under construction.
#[derive(Debug)]
pub struct Builder {
    command: Command,
    terminal: bool,
}

impl Builder {
    /// Another program in the place of `reeve`: a script that calls it, say.
    #[must_use]
    pub fn new(command: Command) -> Builder {
        Builder {
            command,
            terminal: false,
        }
    }

    /// Runs it as the outer guest's ordinary user (uid 1000, in group kvm). Elsewhere it stays who
    /// runs the tests.
    #[must_use]
    pub fn as_user(mut self) -> Builder {
        if inside_outer_guest() {
            let words: Vec<String> = std::iter::once(self.command.get_program())
                .chain(self.command.get_args())
                .map(|word| session::word(&word.to_string_lossy()))
                .collect();
            let mut su = Command::new("su");
            su.args([
                "-s",
                "/bin/sh",
                "user",
                "-c",
                &format!("exec {}", words.join(" ")),
            ]);
            su.envs(
                self.command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            );
            self.command = su;
        }
        self
    }

    /// Adds an argument as it is.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Builder {
        self.command.arg(argument);
        self
    }

    /// `--kernel`
    #[must_use]
    pub fn kernel(self, path: &Path) -> Builder {
        self.arg("--kernel").arg(path)
    }

    /// `--initrd`
    #[must_use]
    pub fn initrd(self, path: &Path) -> Builder {
        self.arg("--initrd").arg(path)
    }

    /// `--cmdline`
    #[must_use]
    pub fn cmdline(self, text: &str) -> Builder {
        self.arg("--cmdline").arg(text)
    }

    /// `--cpus`
    #[must_use]
    pub fn cpus(self, count: u32) -> Builder {
        self.arg("--cpus").arg(count.to_string())
    }

    /// `--memory`, as `256M`
    #[must_use]
    pub fn memory(self, size: &str) -> Builder {
        self.arg("--memory").arg(size)
    }

    /// `--name`
    #[must_use]
    pub fn name(self, name: &str) -> Builder {
        self.arg("--name").arg(name)
    }

    /// `--control`
    #[must_use]
    pub fn control(self, place: &Place) -> Builder {
        self.arg("--control").arg(place.path())
    }

    /// `--machine`
    #[must_use]
    pub fn machine(self, name: &str) -> Builder {
        self.arg("--machine").arg(name)
    }

    /// `--json`
    #[must_use]
    pub fn json(self) -> Builder {
        self.arg("--json")
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Builder {
        self.command.env(name, value);
        self
    }

    /// Gives it a terminal (80 by 24) instead of pipes.
    #[must_use]
    pub fn on_terminal(mut self) -> Builder {
        self.terminal = true;
        self
    }

    /// Changes the command in a way that has no method of its own (user, directory).
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Command)) -> Builder {
        change(&mut self.command);
        self
    }

    /// Starts it.
    pub fn spawn(self) -> Result<Reeve> {
        if self.terminal {
            self.spawn_on_terminal()
        } else {
            self.spawn_on_pipes()
        }
    }

    fn spawn_on_pipes(mut self) -> Result<Reeve> {
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Leashed::spawn(&mut self.command, Session::Group, &[])?;
        let child = process.child();
        let missing = || anyhow!("std gives the pipes that were asked for");
        let input = OwnedFd::from(child.stdin.take().ok_or_else(missing)?);
        let output = Stream::new(child.stdout.take().ok_or_else(missing)?);
        let errors = Stream::new(child.stderr.take().ok_or_else(missing)?);
        Ok(Reeve {
            process,
            input: Some(File::from(input)),
            output,
            errors: Some(errors),
            modes: None,
            cursor: 0,
        })
    }

    fn spawn_on_terminal(mut self) -> Result<Reeve> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        let name = rustix::pty::ptsname(&master, Vec::new())?;
        let open = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name.as_c_str(), open, Mode::empty())?;
        let size = rustix::termios::Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&slave, size)?;
        let modes = rustix::termios::tcgetattr(&slave)?;
        self.command
            .stdin(Stdio::from(slave.try_clone()?))
            .stdout(Stdio::from(slave.try_clone()?))
            .stderr(Stdio::from(slave));
        let process = Leashed::spawn(&mut self.command, Session::Terminal, &[])?;
        let input = File::from(master.as_fd().try_clone_to_owned()?);
        Ok(Reeve {
            process,
            input: Some(input),
            output: Stream::new(master),
            errors: None,
            modes: Some(modes),
            cursor: 0,
        })
    }
}
