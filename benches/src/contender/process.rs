//! A monitor that is a process of its own, with the guest's console on its standard output.
//!
//! The clock starts just before the spawn (`posix_spawn`, by the standard library) and stops when
//! the first byte has been read from the pipe. A process is gone when it has been reaped.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{DEADLINE, Running};

/// How a monitor's process ends when its guest ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With exit code 0.
    Success,
    /// With whatever code: its guest can only leave by a way that this monitor takes for a fault.
    AnyCode,
}

/// One such process.
#[derive(Debug)]
pub struct Process<Extra> {
    child: Child,
    pidfd: OwnedFd,
    output: File,
    first_byte: Duration,
    ending: Ending,
    /// What is released when the process is gone.
    _extra: Extra,
}

impl<Extra> Process<Extra> {
    /// Spawns `command` and waits for the first byte, which is the guest's `R`.
    ///
    /// # Errors
    /// It cannot be spawned, prints nothing in time, or prints something else.
    pub fn start(mut command: Command, ending: Ending, extra: Extra) -> anyhow::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let requested = Instant::now();
        let mut child = command.spawn().context("cannot be spawned")?;
        let output: OwnedFd = child.stdout.take().context("no pipe")?.into();
        let mut process = Self {
            pidfd: pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?,
            child,
            output: output.into(),
            first_byte: Duration::ZERO,
            ending,
            _extra: extra,
        };
        let mut byte = [0; 1];
        process.read(&mut byte)?;
        process.first_byte = requested.elapsed();
        ensure!(
            byte == *b"R",
            "prints {byte:?} and not the guest's first byte"
        );
        Ok(process)
    }

    fn read(&mut self, byte: &mut [u8; 1]) -> anyhow::Result<()> {
        until_ready(&self.output, "prints nothing")?;
        let length = self.output.read(byte)?;
        ensure!(length == 1, "ends before it prints");
        Ok(())
    }

    /// Waits for the process' end and reaps it.
    fn reap(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        until_ready(&self.pidfd, "does not end")?;
        Ok(self.child.wait()?)
    }
}

/// Waits until `fd` can be read, [`DEADLINE`] at most.
fn until_ready(fd: impl AsFd, otherwise: &'static str) -> anyhow::Result<()> {
    let timeout = Timespec::try_from(DEADLINE)?;
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    if rustix::io::retry_on_intr(|| poll(&mut fds, Some(&timeout)))? == 0 {
        bail!("{otherwise} for {DEADLINE:?}");
    }
    Ok(())
}

impl<Extra> Running for Process<Extra> {
    fn first_byte(&self) -> Duration {
        self.first_byte
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn console(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    fn wait(mut self: Box<Self>) -> anyhow::Result<()> {
        let status = self.reap()?;
        ensure!(
            self.ending == Ending::AnyCode || status.success(),
            "ends with {status}"
        );
        Ok(())
    }

    fn destroy(mut self: Box<Self>) -> anyhow::Result<Duration> {
        let requested = Instant::now();
        pidfd_send_signal(&self.pidfd, Signal::KILL).context("gone before it was destroyed")?;
        self.reap()?;
        Ok(requested.elapsed())
    }
}

impl<Extra> Drop for Process<Extra> {
    fn drop(&mut self) {
        // Where a figure failed half way; otherwise it has been reaped and neither does anything.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// [`super::Contender::run_many`] for processes: `at_once` threads, each with one at a time.
///
/// # Errors
/// One of them failed.
pub fn run_many<Extra>(
    count: usize,
    at_once: usize,
    start: impl Fn() -> anyhow::Result<Process<Extra>> + Sync,
) -> anyhow::Result<Duration> {
    let left = AtomicUsize::new(count);
    let take = |n: usize| n.checked_sub(1);
    let work = || -> anyhow::Result<()> {
        while left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
        {
            Box::new(start()?).wait()?;
        }
        Ok(())
    };
    let requested = Instant::now();
    if at_once == 1 {
        work()?;
        return Ok(requested.elapsed());
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    Ok(requested.elapsed())
}
