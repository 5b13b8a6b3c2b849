//! The same program as an image worker: a process that reads and writes disk images for the supervisor, one
//! task after another, until its socket is closed.
//!
//! ```text
//!   supervisor                                        image worker
//!   ──────────                                        ────────────
//!   ImageTask, with its files ─────────────────────►  closed in its jail; opens nothing
//!                             ◄─────────────────────  TaskAnswer, when it is done
//! ```
//!
//! It is jailed as a worker of a domain is, and has less: a socket, and the files of the task in hand. What a
//! hostile image could make of it is a wrong answer about that image, and wrong bytes in the files that were
//! handed over with it. A task that must not be finished is ended by killing the process.
//!
//! What lives here: how tasks are told apart ([`serve`]), what a file looks like (`probe`), and bytes that are
//! moved (`write`, `convert`, `stream`). What may not: names, policy, a file that was not handed over.

mod convert;
mod probe;
mod stream;
mod write;

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use reeve_ipc::error::truncate;
use reeve_ipc::image::{
    IMAGE_WORKER, ImageTask, MAX_WORDS_BYTES, TASK_FD, TASK_LOG_FD, TaskAnswer,
};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::{MAX_MESSAGE_BYTES, codec, exit_code};
use reeve_sandbox::seccomp::{Role, enter_role};

/// Whether this process was started to be one.
#[must_use]
pub fn is_asked_for() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| name.as_encoded_bytes() == IMAGE_WORKER.to_bytes())
}

/// The whole of such a process; gives its exit code.
#[must_use]
pub fn run() -> u8 {
    let (socket, log) = inherited();
    // They go with the process.
    let (socket, log) = (ManuallyDrop::new(socket), ManuallyDrop::new(log));
    let jailed = reeve_sandbox::enter(log.as_fd()).map_err(|error| format!("jail: {error}"));
    let jailed = jailed.and_then(|_| {
        enter_role(Role::Images).map_err(|error| format!("cannot close its filter: {error}"))
    });
    if let Err(why) = jailed {
        let answer = failed(None, why);
        let _ = say(socket.as_fd(), &answer);
        return exit_code::JAIL;
    }
    serve(socket.as_fd())
}

/// Does one task after another; gives the exit code when there is nobody to give more.
fn serve(socket: BorrowedFd<'_>) -> u8 {
    let mut buffer = vec![0; MAX_MESSAGE_BYTES];
    loop {
        let (length, files) = match scm::receive_waiting(socket, &mut buffer) {
            Ok(received) => received,
            Err(ScmError::Closed) => return exit_code::ORDERLY,
            Err(_) => return exit_code::HOST,
        };
        let task = codec::decode::<ImageTask>(buffer.get(..length).unwrap_or_default());
        let answer = match task {
            Ok(task) => perform(task, files),
            Err(error) => failed(None, error.to_string()),
        };
        if say(socket, &answer).is_err() {
            // Nobody waits for it any more.
            return exit_code::HOST;
        }
    }
}

fn say(socket: BorrowedFd<'_>, answer: &TaskAnswer) -> Result<(), ScmError> {
    let bytes = codec::encode(answer).map_err(|_| ScmError::Oversized)?;
    scm::send(socket, &bytes, &[])
}

fn perform(task: ImageTask, files: Vec<OwnedFd>) -> TaskAnswer {
    let mut files = files.into_iter();
    let done = match task {
        ImageTask::Probe => {
            let facts = files.map(|file| probe::probe(file.as_fd()));
            return TaskAnswer::Probed(facts.collect());
        }
        ImageTask::Allocate { from, bytes, size } => {
            next(&mut files).and_then(|file| write::allocate(file.as_fd(), from, bytes, size))
        }
        ImageTask::Create(image) => {
            next(&mut files).and_then(|file| convert::create(file.as_fd(), &image).map(drop))
        }
        ImageTask::Copy => next(&mut files).and_then(|to| {
            let from = next(&mut files)?;
            write::copy(to.as_fd(), from.as_fd())
        }),
        ImageTask::Convert {
            to,
            from,
            backing,
            size,
            allocate,
        } => next(&mut files).and_then(|target| {
            let source = convert::open(&mut files, from, backing)?;
            match to {
                Some(image) => convert::to_qcow2(target.as_fd(), source, &image),
                None => convert::to_raw(target.as_fd(), source, size, allocate),
            }
        }),
        ImageTask::Grow { size, backing } => convert::grow(&mut files, size, backing),
        ImageTask::Wipe => next(&mut files).and_then(|file| write::wipe(file.as_fd())),
        ImageTask::Receive { offset, length } => next(&mut files).and_then(|file| {
            let client = next(&mut files)?;
            stream::receive(file, client.as_fd(), offset, length)
        }),
        ImageTask::Send { offset, length } => next(&mut files).and_then(|file| {
            let client = next(&mut files)?;
            stream::send(file.as_fd(), client.as_fd(), offset, length)
        }),
    };
    match done {
        Ok(()) => TaskAnswer::Done,
        Err(error) => failed(error.raw_os_error(), error.to_string()),
    }
}

fn next(files: &mut impl Iterator<Item = OwnedFd>) -> io::Result<OwnedFd> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "a file is missing");
    files.next().ok_or_else(missing)
}

fn failed(errno: Option<i32>, mut words: String) -> TaskAnswer {
    truncate(&mut words, MAX_WORDS_BYTES);
    TaskAnswer::Failed { errno, words }
}

#[expect(
    unsafe_code,
    reason = "descriptors that the supervisor hands over are known by number"
)]
fn inherited() -> (OwnedFd, OwnedFd) {
    // SAFETY: the supervisor put the socket there, nobody else in this process owns it, and this function
    // runs once. In a process it did not start, what is there is no socket or not open, and its use fails.
    let socket = unsafe { OwnedFd::from_raw_fd(TASK_FD) };
    // SAFETY: as above, for the socket of the sandbox.
    let log = unsafe { OwnedFd::from_raw_fd(TASK_LOG_FD) };
    (socket, log)
}

#[cfg(test)]
mod tests;
