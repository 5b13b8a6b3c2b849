//! How the worker ends when it cannot go on: said once, on the control socket where there is one,
//! and shown by a reserved exit code ([`reeve_ipc::exit_code`]).

use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use reeve_ipc::event::Event;
use reeve_ipc::message::FromWorker;
use reeve_ipc::{codec, error, exit_code, scm};

/// A second handle on the control socket, for a thread that fails outside the control thread.
static CONTROL: OnceLock<OwnedFd> = OnceLock::new();

/// Makes a panic of any thread a typed event and exit code [`exit_code::PANIC`].
///
/// Called once, before any other thread exists.
pub fn install(control: OwnedFd) {
    let _ = CONTROL.set(control);
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        // The payload can quote data of the guest; the place is enough to find the line.
        end(&format!("the worker panicked at {place}"), exit_code::PANIC)
    }));
}

/// The value of `result`, or the end of the process with [`exit_code::HOST`].
pub fn or_exit<T, E: Display>(result: Result<T, E>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => end(&format!("{what}: {error}"), exit_code::HOST),
    }
}

/// Says `message` and ends the process, from any thread.
fn end(message: &str, code: u8) -> ! {
    tracing::error!("{message}");
    if let Some(control) = CONTROL.get() {
        let mut message = message.to_owned();
        error::truncate(&mut message, error::WireError::MAX_MESSAGE_BYTES);
        // The last event there will be: no number of the control thread's is beyond it.
        let last = FromWorker::Event {
            number: u64::MAX,
            event: Event::WorkerFailed { message },
        };
        if let Ok(bytes) = codec::encode(&last) {
            let _ = scm::send(control.as_fd(), &bytes, &[]);
        }
    }
    exit_now(code)
}

#[expect(
    unsafe_code,
    reason = "other threads hold locks that exit handlers may want"
)]
fn exit_now(code: u8) -> ! {
    // SAFETY: ends the process without running any of its code; nothing on disk is open.
    unsafe { libc::_exit(i32::from(code)) }
}
