//! `reeve run` on a terminal: raw mode, Ctrl-], and the terminal that goes away.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};

use super::harness::{Installation, signal, wait};

/// A terminal with `reeve run` as the leader of its session.
struct Terminal {
    master: File,
    /// Keeps the terminal's modes readable when reeve has ended.
    slave: OwnedFd,
    before: Termios,
    child: Child,
}

impl Terminal {
    fn run(installation: &Installation, behaviour: &str) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name, flags, Mode::empty()).unwrap();
        let before = tcgetattr(&slave).unwrap();
        let side = || Stdio::from(slave.try_clone().unwrap());
        // Becomes reeve itself: it leads no process group before.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(installation.reeve())
            .args(["run", "--memory", "16M", "--name", behaviour])
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap();
        let mut terminal = Self {
            master: master.into(),
            slave,
            before,
            child,
        };
        terminal.expect("leaves");
        terminal
    }

    /// Reads until `wanted` has come.
    fn expect(&mut self, wanted: &str) {
        let mut seen = Vec::new();
        let mut buffer = [0; 512];
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            let length = self.master.read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..length]);
        }
    }

    fn modes(&self) -> LocalModes {
        tcgetattr(&self.slave).unwrap().local_modes
    }

    fn assert_restored(&self) {
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes);
        assert_eq!(after.input_modes, self.before.input_modes);
        assert_eq!(after.output_modes, self.before.output_modes);
    }
}

#[test]
fn every_key_goes_to_the_guest_but_the_escape() {
    let installation = Installation::new();
    let mut terminal = Terminal::run(&installation, "good");
    let raw = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
    assert!(!terminal.modes().intersects(raw));
    terminal.master.write_all(b"\x03abc\x03def").unwrap();
    terminal.expect("\u{3}abc\u{3}def");
    assert!(terminal.child.try_wait().unwrap().is_none());
    terminal.master.write_all(b"x\x1d").unwrap();
    terminal.expect("destroyed: Ctrl-] was typed");
    assert_eq!(wait(&mut terminal.child).code(), Some(0));
    terminal.assert_restored();
    installation.assert_nothing_left();
}

#[test]
fn the_terminal_is_restored_whatever_ends_the_run() {
    let installation = Installation::new();
    let mut terminal = Terminal::run(&installation, "good");
    signal(&terminal.child, Signal::TERM);
    assert_eq!(wait(&mut terminal.child).code(), Some(143));
    terminal.assert_restored();

    let mut terminal = Terminal::run(&installation, "closes-control");
    assert_eq!(wait(&mut terminal.child).code(), Some(4));
    terminal.assert_restored();
}

#[test]
fn a_terminal_that_is_closed_takes_the_guest_along() {
    let installation = Installation::new();
    let Terminal {
        master,
        slave,
        mut child,
        ..
    } = Terminal::run(&installation, "good");
    drop(slave);
    drop(master);
    assert_eq!(wait(&mut child).code(), Some(129));
    installation.assert_nothing_left();
}
