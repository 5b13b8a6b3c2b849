//! One command in a waiting outer guest: its output passed on as it comes, its end, and two limits.
//! The guest's init enforces the first and still reports; when it no longer answers, the machine is
//! killed from here.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};

use super::qemu::Machine;

/// How long after its own limit a guest may take to say so: it lists processes and its kernel log.
const GRACE: Duration = Duration::from_secs(20);

/// How often the guest is interrupted. QEMU clears flags of a virtual processor's interrupts where it leaves
/// a guest of that guest, and may clear one that another of its threads sets at that moment: then the
/// processor stays halted with a timer's interrupt pending, until there is a further one.
const NUDGE: Duration = Duration::from_millis(500);

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this exit status, as a shell gives it; `entered` when the test's body began.
    Exited {
        /// Exit status, 128 + n for signal n.
        status: i32,
        /// Whether the file that the body makes first is there.
        entered: bool,
    },
    /// Cut at its limit by the guest.
    Limit,
    /// The guest did not answer within the limit and its grace.
    Silent,
    /// QEMU ended.
    Gone,
}

/// Runs `command` (a shell command line) in the guest. `sink` gets the output as it arrives.
pub fn run(
    machine: &mut Machine,
    command: &str,
    limit: Duration,
    mut sink: impl FnMut(&[u8]),
) -> Result<End> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs();
    let request = format!("{now} {}\n{command}\n", limit.as_secs());
    machine
        .control
        .write_all(request.as_bytes())
        .context("the outer guest takes no command")?;

    let deadline = Instant::now() + limit + GRACE;
    let mut nudge = Instant::now() + NUDGE;
    let mut answer = Vec::new();
    loop {
        let now = Instant::now();
        if now >= deadline {
            return Ok(End::Silent);
        }
        if now >= nudge {
            // A guest that takes no more has those before it still to take.
            let _ = send(
                &machine.control,
                b"\n",
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            );
            nudge = now + NUDGE;
        }
        let left = deadline.min(nudge).saturating_duration_since(now);
        let mut polled = [
            PollFd::new(&machine.output, PollFlags::IN),
            PollFd::new(&machine.control, PollFlags::IN),
        ];
        match poll(&mut polled, Some(&Timespec::try_from(left)?)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [output, control] = polled.map(|entry| !entry.revents().is_empty());
        // Output first: the guest writes all of it before its answer.
        let mut buffer = [0; 16 << 10];
        if output {
            match read(&mut machine.output, &mut buffer)? {
                0 => return Ok(End::Gone),
                length => sink(&buffer[..length]),
            }
        } else if control {
            match read(&mut machine.control, &mut buffer)? {
                0 => return Ok(End::Gone),
                length => answer.extend_from_slice(&buffer[..length]),
            }
            if answer.ends_with(b"\n") {
                return parse(&String::from_utf8_lossy(&answer));
            }
        }
    }
}

/// Reads; zero is the end. QEMU that ends with a nudge unread resets the connection, which is no other end.
fn read(stream: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    match stream.read(buffer) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
        read => read,
    }
}

fn parse(answer: &str) -> Result<End> {
    let words: Vec<&str> = answer.split_whitespace().collect();
    match words[..] {
        ["END", "limit", ..] => Ok(End::Limit),
        ["END", "exit", status, entered] => Ok(End::Exited {
            status: status.parse()?,
            entered: entered == "entered",
        }),
        _ => bail!("the outer guest answered {answer:?}"),
    }
}

/// `text` as one word of a shell command.
#[must_use]
pub fn word(text: &str) -> String {
    let mut quoted = String::new();
    let _ = write!(quoted, "'{}'", text.replace('\'', r"'\''"));
    quoted
}

#[cfg(test)]
mod tests {
    use super::{End, parse, word};

    #[test]
    fn answers_of_the_guest_are_understood() {
        assert_eq!(
            parse("END exit 101 entered\n").unwrap(),
            End::Exited {
                status: 101,
                entered: true
            }
        );
        assert_eq!(parse("END limit 137 entered\n").unwrap(), End::Limit);
        assert!(parse("END exit\n").is_err());
    }

    #[test]
    fn a_word_survives_the_shell() {
        assert_eq!(word("it's $HOME"), r"'it'\''s $HOME'");
    }
}
