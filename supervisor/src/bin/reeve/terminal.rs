//! Raw mode of the terminal, restored on every way out.
//!
//! The saved state is process-wide so that the panic hook can restore it (a release build aborts
//! instead of unwinding). Output processing stays on: our own lines on the same terminal then end
//! where a line ends.

use std::io;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcsetattr};

/// What to go back to.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode while it lives.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Puts standard input into raw mode if it is a terminal in whose foreground we are.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn enter() -> io::Result<Option<Self>> {
        if !isatty(stdin()) || !is_foreground() {
            return Ok(None);
        }
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        raw.output_modes |= OutputModes::OPOST;
        install_hook();
        *saved() = Some(before);
        if let Err(errno) = tcsetattr(stdin(), OptionalActions::Now, &raw) {
            *saved() = None;
            return Err(errno.into());
        }
        Ok(Some(Self(())))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn saved() -> std::sync::MutexGuard<'static, Option<Termios>> {
    SAVED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Goes back, if there is something to go back to. Never waits for output to drain: a terminal
/// whose reader has stopped must not hold us up.
fn restore() {
    let before = saved().take();
    if let Some(before) = before {
        while tcsetattr(stdin(), OptionalActions::Now, &before) == Err(Errno::INTR) {}
    }
}

fn install_hook() {
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        next(info);
    }));
}

/// Whether the terminal would not stop us for changing it.
pub fn is_foreground() -> bool {
    rustix::termios::tcgetpgrp(stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}
