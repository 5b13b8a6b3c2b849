//! How the worker ends when it cannot go on: said once, on the control socket where there is one,
//! and shown by a reserved exit code ([`reeve_ipc::exit_code`]).

use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use reeve_ipc::event::Event;
use reeve_ipc::message::FromWorker;
use reeve_ipc::{codec, error, exit_code, scm};
use vmm_sys_util::signal::register_signal_handler;

/// A second handle on the control socket, for a thread that fails outside the control thread.
static CONTROL: OnceLock<OwnedFd> = OnceLock::new();

/// What is sent for each signal that ends the worker, made beforehand: a handler may not.
static LAST_WORDS: OnceLock<[(libc::c_int, Vec<u8>); 4]> = OnceLock::new();

/// Makes a panic of any thread a typed event and exit code [`exit_code::PANIC`], and a fault of its
/// code one with [`exit_code::FATAL_SIGNAL`].
///
/// Called once, before any other thread exists.
///
/// # Errors
/// The kernel refused a handler.
pub fn install(control: OwnedFd) -> std::io::Result<()> {
    let _ = CONTROL.set(control);
    let signals = [
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGFPE, "SIGFPE"),
    ];
    let words =
        signals.map(|(signal, name)| (signal, last_event(format!("the worker got {name}"))));
    let _ = LAST_WORDS.set(words);
    for (signal, _) in signals {
        register_signal_handler(signal, on_fatal_signal)
            .map_err(|error| std::io::Error::from_raw_os_error(error.errno()))?;
    }
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        // The payload can quote data of the guest; the place is enough to find the line.
        end(&format!("the worker panicked at {place}"), exit_code::PANIC)
    }));
    Ok(())
}

/// Async-signal-safe: two atomic loads, one `write`, the end. The faulting thread may be a vCPU's,
/// whose filter has no call for sockets; a `write` is a datagram on one.
extern "C" fn on_fatal_signal(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if let (Some(control), Some(words)) = (CONTROL.get(), LAST_WORDS.get()) {
        if let Some((_, bytes)) = words.iter().find(|(number, _)| *number == signal) {
            let _ = rustix::io::write(control, bytes);
        }
    }
    exit_now(exit_code::FATAL_SIGNAL)
}

/// The last event there will be, ready to be sent: no number of the control thread's is beyond it.
fn last_event(mut message: String) -> Vec<u8> {
    error::truncate(&mut message, error::WireError::MAX_MESSAGE_BYTES);
    let last = FromWorker::Event {
        number: u64::MAX,
        event: Event::WorkerFailed { message },
    };
    // It fits: its only part without a fixed size was cut above.
    codec::encode(&last).unwrap_or_default()
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
        let _ = scm::send(control.as_fd(), &last_event(message.to_owned()), &[]);
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
