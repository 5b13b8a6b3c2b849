//! The gateway process: close the jail, wait for a client, serve it until it goes.
//!
//! The same program signs for the handshake of a client of another host and checks its password, in processes of their
//! own ([`reeve_gateway::remote::signer`], [`reeve_gateway::remote::verifier`]), and looks at certificates that are to hold
//! ([`reeve_gateway::remote::check`]).
//!
//! Started by the supervisor and by nobody else, with one socket and the number of the supervisor's changes
//! ([`reeve_ipc::gateway`]). It is jailed before
//! there is a client, so that what a client sends is read by a process that can open, make and start nothing.
//!
//! The C library calls `main` here, without the runtime of Rust's own: that looks for files which
//! the empty root does not have.
#![no_main]

use std::ffi::{c_char, c_int};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

use reeve_gateway::log;
use reeve_gateway::remote::{self, Stranger, check, signer, verifier};
use reeve_gateway::session::{self, Rights};
use reeve_ipc::changes::Changes;
use reeve_ipc::gateway::{CHANGES_FD, CONTROL_FD, HandOver, MAX_KEY_BYTES, MAX_WORDS_BYTES, NAME};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::{codec, error, exit_code};
use reeve_sandbox::seccomp::{Role, enter_role};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

/// Memory of so many bytes is mapped and unmapped by itself: the C library's own first choice.
const MAPPED_FROM: c_int = 128 << 10;

/// A second handle on the control socket, for last words.
static WORDS: OnceLock<OwnedFd> = OnceLock::new();

/// The C entry point.
#[expect(unsafe_code, reason = "the C library calls main by its name")]
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    run().into()
}

/// The whole of the process; gives its exit code.
fn run() -> u8 {
    ignore_broken_pipes();
    return_memory();
    let (control, changes) = inherited();
    let (runtime, changes) = match confine(&control, changes) {
        Ok(confined) => confined,
        Err(why) => {
            say(&control, why);
            return exit_code::JAIL;
        }
    };
    runtime.block_on(async {
        match serve(control, changes).await {
            Ok(()) => exit_code::ORDERLY,
            Err(code) => code,
        }
    })
}

/// Closes the jail. The event loop is made before: its role has no call that makes a descriptor.
fn confine(control: &OwnedFd, changes: OwnedFd) -> Result<(Runtime, Changes), String> {
    // Its role has no call that maps a descriptor, either.
    let mapped = Changes::of(changes.as_fd());
    drop(changes);
    let changes = mapped.map_err(|error| format!("the number of changes: {error}"))?;
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no event loop: {error}"))?;
    let again = || rustix::io::fcntl_dupfd_cloexec(control, 0);
    let both = again().and_then(|words| Ok((words, again()?)));
    let (words, lines) = both.map_err(|errno| format!("the control socket again: {errno}"))?;
    // As `ps` shows it: of a program that is executed by descriptor older kernels show the number.
    let _ = rustix::thread::set_name(NAME);
    reeve_sandbox::enter(control.as_fd()).map_err(|error| format!("jail: {error}"))?;
    enter_role(Role::Gateway).map_err(|error| format!("cannot close its filter: {error}"))?;
    let _ = WORDS.set(words);
    log::install(lines);
    std::panic::set_hook(Box::new(|info| {
        // The payload can quote what the client said; the place is enough to find the line.
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        if let Some(words) = WORDS.get() {
            say(words, format!("panicked at {place}"));
        }
        exit_now(exit_code::PANIC)
    }));
    Ok((runtime, changes))
}

/// Waits for the client, and serves it until it or the supervisor goes.
async fn serve(control: OwnedFd, changes: Changes) -> Result<(), u8> {
    let control = UnixStream::from_std(control.into()).map_err(|_| exit_code::HOST)?;
    let (bytes, fds) = match receive(&control, MAX_KEY_BYTES + MAX_WORDS_BYTES).await {
        Ok(message) => message,
        // No client came, and the supervisor ends.
        Err(ScmError::Closed) => return Ok(()),
        Err(_) => return Err(exit_code::HANDSHAKE),
    };
    let message: HandOver = codec::decode(&bytes).map_err(|_| exit_code::HANDSHAKE)?;
    drop(bytes);
    tokio::select! {
        ended = work(message, fds, changes) => ended,
        // Nothing comes any more but the end.
        end = receive(&control, MAX_WORDS_BYTES) => match end {
            Err(ScmError::Closed) => Ok(()),
            _ => Err(exit_code::HANDSHAKE),
        },
    }
}

/// Does what this process was handed.
async fn work(message: HandOver, fds: Vec<OwnedFd>, changes: Changes) -> Result<(), u8> {
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or(exit_code::HANDSHAKE);
    let ended = match message {
        HandOver::Local { access } => {
            let (client, api) = (next()?, next()?);
            session::serve(client, api, Rights { access }, changes).await
        }
        HandOver::Remote { proof } => {
            let (connection, door, signer) = (next()?, next()?, next()?);
            let verifier = proof.has_password().then(next).transpose()?;
            let stranger = Stranger {
                proof,
                connection,
                door,
                signer,
                verifier,
                files: fds.collect(),
            };
            match remote::admit(stranger).await {
                Some(guest) => session::serve_remote(guest, changes).await,
                None => Ok(()),
            }
        }
        HandOver::Signer { key } => {
            if let Err(error) = signer::serve(next()?, &key).await {
                tracing::error!("no signature for a remote client: {error}");
            }
            Ok(())
        }
        HandOver::Verifier => {
            let (socket, door, file) = (next()?, next()?, next()?);
            if let Err(error) = verifier::serve(socket, door, file).await {
                tracing::error!("no password of a remote client is checked: {error}");
            }
            Ok(())
        }
        HandOver::Check { key, proof } => {
            let (socket, chains) = (next()?, next()?);
            let files: Vec<OwnedFd> = fds.collect();
            if let Err(error) = check::serve(&socket, &chains, &files, &key, proof) {
                tracing::error!("what there is to say of certificates is not told: {error}");
            }
            Ok(())
        }
    };
    if let Err(error) = ended {
        tracing::warn!("a client's connection ended: {error}");
    }
    Ok(())
}

async fn receive(control: &UnixStream, room: usize) -> Result<(Vec<u8>, Vec<OwnedFd>), ScmError> {
    let mut bytes = vec![0; room];
    let attempt = || match scm::receive(control.as_fd(), &mut bytes) {
        Err(ScmError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        result => Ok(result),
    };
    let received = control.async_io(Interest::READABLE, attempt).await;
    let (length, fds) = received.map_err(|_| ScmError::Closed)??;
    bytes.truncate(length);
    Ok((bytes, fds))
}

/// Says something for the supervisor's log.
fn say(control: &OwnedFd, mut words: String) {
    error::truncate(&mut words, MAX_WORDS_BYTES);
    let _ = scm::send(control.as_fd(), words.as_bytes(), &[]);
}

/// A client that closes its end is an error of that write, not the end of this process.
#[expect(unsafe_code, reason = "a signal's disposition belongs to the process")]
fn ignore_broken_pipes() {
    // SAFETY: ignoring a signal runs no code of ours; there is one thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Has the C library give large memory back to the kernel as soon as it is free. By itself it keeps as much as was
/// ever taken at once: a list of revoked certificates that is read for a handshake, for as long as its client stays.
#[expect(unsafe_code, reason = "a setting of the C library")]
fn return_memory() {
    // SAFETY: there is one thread, and the setting says only from which size on memory is mapped.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) };
}

#[expect(
    unsafe_code,
    reason = "the descriptors that the supervisor hands over are known by number"
)]
fn inherited() -> (OwnedFd, OwnedFd) {
    // SAFETY: the supervisor put the socket there, nobody else in this process owns it, and this function
    // runs once. In a process it did not start, what is there is no socket or not open, and its use fails.
    let control = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
    // SAFETY: as above, of the file of the number.
    let changes = unsafe { OwnedFd::from_raw_fd(CHANGES_FD) };
    (control, changes)
}

#[expect(unsafe_code, reason = "a panic ends the process where it is")]
fn exit_now(code: u8) -> ! {
    // SAFETY: ends the process without running any of its code; nothing on disk is open.
    unsafe { libc::_exit(i32::from(code)) }
}
