//! A domain's console on this terminal.
//!
//! Two directions in one loop of the caller's thread. In a terminal every key goes to the guest, and
//! Ctrl-] leaves; the domain goes on. Any other input goes to the guest as it is, and its end ends
//! input only.

use std::os::fd::{AsFd, OwnedFd};

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{DomainConsole, DomainRef};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::{stdin, stdout};
use rustix::termios::isatty;

use super::{CommandError, say};
use crate::messages::write_fd;
use crate::terminal::RawMode;

/// Ctrl-], as telnet has it.
const ESCAPE: u8 = 0x1d;
/// Bytes moved at a time.
const CHUNK: usize = 16 << 10;

pub(super) fn console(
    connection: &mut Connection,
    domain: &DomainRef,
    input: bool,
) -> Result<(), CommandError> {
    show(&attach(connection, domain, input)?, input)
}

/// Attaches; what the guest says from then on is not lost.
pub(super) fn attach(
    connection: &mut Connection,
    domain: &DomainRef,
    input: bool,
) -> Result<OwnedFd, CommandError> {
    let call = DomainConsole {
        domain: domain.clone(),
        input,
    };
    let (_, mut fds) = connection.call_with_fds(call)?;
    fds.pop()
        .ok_or_else(|| CommandError::Own("the daemon sent no console".to_owned()))
}

/// Shows an attached console until one side has had enough.
pub(super) fn show(stream: &OwnedFd, input: bool) -> Result<(), CommandError> {
    let raw = RawMode::enter().map_err(CommandError::own("cannot use the terminal"))?;
    if raw.is_some() {
        say("connected; Ctrl-] leaves the console\r");
    }
    let end = copy(stream, input, raw.is_some());
    drop(raw);
    match end? {
        End::Left => say("left the console; the domain goes on"),
        End::Closed => say("the console is closed"),
        End::Quiet => {}
    }
    Ok(())
}

enum End {
    /// Ctrl-] was typed.
    Left,
    /// The worker closed its end.
    Closed,
    /// The same, and nobody looks.
    Quiet,
}

fn copy(stream: &OwnedFd, input: bool, terminal: bool) -> Result<End, CommandError> {
    let failed = |what: &str, errno: Errno| CommandError::own(what)(errno.into());
    let mut typing = input || terminal;
    let mut buffer = vec![0; CHUNK];
    loop {
        let stdin = stdin();
        let mut fds = vec![PollFd::new(stream, PollFlags::IN)];
        if typing {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(failed("cannot wait for the console", errno)),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready.first() == Some(&true) {
            match rustix::io::read(stream, &mut *buffer) {
                Ok(0) | Err(Errno::CONNRESET) if isatty(stdout()) => return Ok(End::Closed),
                Ok(0) | Err(Errno::CONNRESET) => return Ok(End::Quiet),
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    write_fd(stdout(), bytes).map_err(|_| CommandError::Unread)?;
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(failed("cannot read the console", errno)),
            }
        }
        if ready.get(1) == Some(&true) {
            match rustix::io::read(stdin, &mut *buffer) {
                Ok(0) => typing = false,
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    let mut parts = bytes.splitn(2, |byte| terminal && *byte == ESCAPE);
                    let for_guest = parts.next().unwrap_or_default();
                    if input && write_fd(stream.as_fd(), for_guest).is_err() {
                        typing = false;
                    }
                    if parts.next().is_some() {
                        return Ok(End::Left);
                    }
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => typing = false,
            }
        }
    }
}
