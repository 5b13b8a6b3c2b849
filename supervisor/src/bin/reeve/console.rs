//! The guest's console between its worker and our standard input and output.
//!
//! One thread a direction, with blocking reads and writes: a pipe that nobody reads stops its thread
//! and nothing else, the worker's ring then overwrites its oldest bytes, and no memory grows. The
//! threads end with the process.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::isatty;
use tokio::sync::{mpsc, oneshot};

use super::messages::write_fd;

/// Ctrl-], as telnet has it.
const ESCAPE: u8 = 0x1d;
/// Bytes moved at a time.
const CHUNK: usize = 16 << 10;

/// Something at our end of the console that ends the session.
#[derive(Debug)]
pub enum Note {
    /// Ctrl-] was typed.
    Escape,
    /// The terminal is gone.
    TerminalClosed,
    /// Output cannot be written.
    OutputLost(io::Error),
}

/// The output side.
#[derive(Debug)]
pub struct Output {
    /// When the guest's first byte came.
    pub first_byte: Arc<OnceLock<Instant>>,
    /// Resolves when the worker's end is closed and everything is written.
    pub done: oneshot::Receiver<()>,
}

/// Copies the guest's output to standard output, or to standard error.
///
/// # Errors
/// No thread can be made.
pub fn start_output(
    mut stream: UnixStream,
    to_stderr: bool,
    notes: mpsc::Sender<Note>,
) -> io::Result<Output> {
    let first_byte = Arc::new(OnceLock::new());
    let first = Arc::clone(&first_byte);
    let (finished, done) = oneshot::channel();
    thread::Builder::new()
        .name("console-out".to_owned())
        .spawn(move || {
            let fd = if to_stderr { stderr() } else { stdout() };
            // Asked now: a terminal that is gone no longer says that it is one.
            let terminal = isatty(fd);
            if let Err(error) = copy_output(&mut stream, fd, &first) {
                // A terminal that is gone is told by this or by SIGHUP, whichever comes first.
                let gone = terminal && error.raw_os_error() == Some(Errno::IO.raw_os_error());
                // Full means that the session is ending already.
                let _ = notes.try_send(if gone {
                    Note::TerminalClosed
                } else {
                    Note::OutputLost(error)
                });
            }
            let _ = finished.send(());
        })?;
    Ok(Output { first_byte, done })
}

fn copy_output(
    stream: &mut UnixStream,
    fd: BorrowedFd<'_>,
    first: &OnceLock<Instant>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // The worker died: what it had sent was read before.
            Err(_) => return Ok(()),
        };
        first.get_or_init(Instant::now);
        let result = write_fd(fd, buffer.get(..length).unwrap_or_default());
        if result.is_err() {
            // Tells the worker that this client has gone.
            let _ = stream.shutdown(Shutdown::Both);
            return result;
        }
    }
}

/// Copies standard input to the guest. In a terminal, Ctrl-] is ours; typing that the guest does not
/// take is dropped, so that Ctrl-] is always seen. The end of any other input stops input only.
///
/// # Errors
/// No thread can be made.
pub fn start_input(
    stream: UnixStream,
    terminal: bool,
    notes: mpsc::Sender<Note>,
) -> io::Result<()> {
    thread::Builder::new()
        .name("console-in".to_owned())
        .spawn(move || {
            if terminal {
                let _ = notes.try_send(copy_typing(&stream));
            } else {
                copy_input(stream);
            }
        })?;
    Ok(())
}

fn copy_typing(stream: &UnixStream) -> Note {
    let mut buffer = [0; 1024];
    loop {
        let typed = match read_input(&mut buffer) {
            Ok([]) | Err(_) => return Note::TerminalClosed,
            Ok(typed) => typed,
        };
        let mut parts = typed.split(|byte| *byte == ESCAPE);
        let for_guest = parts.next().unwrap_or_default();
        if !for_guest.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let _ = rustix::net::send(stream, for_guest, flags);
        }
        if parts.next().is_some() {
            return Note::Escape;
        }
    }
}

fn copy_input(mut stream: UnixStream) {
    let mut buffer = [0; 4096];
    while let Ok(bytes) = read_input(&mut buffer) {
        if bytes.is_empty() || stream.write_all(bytes).is_err() {
            return;
        }
    }
}

/// Reads standard input, which others may have made non-blocking.
fn read_input(buffer: &mut [u8]) -> Result<&[u8], Errno> {
    loop {
        match rustix::io::read(stdin(), &mut *buffer) {
            Ok(length) => return Ok(buffer.get(..length).unwrap_or_default()),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&stdin(), PollFlags::IN)], None)?;
            }
            Err(errno) => return Err(errno),
        }
    }
}
