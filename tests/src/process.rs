//! Child processes that cannot outlive the test: their own process group, killed with this thread,
//! killed and reaped when dropped. All the unsafe code of starting them is here.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};

use rustix::io::FdFlags;
use rustix::process::{Pid, Signal};

/// How a child stands to the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Session {
    /// A process group of its own.
    Group,
    /// A session of its own, whose controlling terminal is its standard input.
    Terminal,
}

/// A child that dies with the thread that started it and takes its process group along on drop.
#[derive(Debug)]
pub(crate) struct Leashed {
    child: Child,
}

impl Leashed {
    /// Starts `command`, with the descriptors `inherited` open in the child under their numbers.
    /// The caller keeps them open until this returns.
    #[expect(
        unsafe_code,
        reason = "std has no other way to run code between fork and exec"
    )]
    pub(crate) fn spawn(
        command: &mut Command,
        session: Session,
        inherited: &[RawFd],
    ) -> io::Result<Leashed> {
        let inherited = inherited.to_vec();
        let parent = rustix::process::getpid();
        let prepare = move || prepare(session, parent, &inherited);
        // SAFETY: `prepare` makes plain system calls on values moved into it; it does not allocate,
        // lock, or touch memory shared with other threads of the parent.
        unsafe { command.pre_exec(prepare) };
        Ok(Leashed {
            child: command.spawn()?,
        })
    }

    /// The child, for its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The child's process id, which is also its process group's.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the child alone.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::kill_process(self.group(), signal)?)
    }

    /// Its exit status once it has ended.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        // The group keeps its id while anything is in it, and the child until it is reaped. Failure
        // means that nothing is left to kill.
        let _ = rustix::process::kill_process_group(self.group(), Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs in the child, between fork and exec.
fn prepare(session: Session, parent: Pid, inherited: &[RawFd]) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(parent) {
        return Err(io::ErrorKind::NotFound.into());
    }
    match session {
        Session::Group => rustix::process::setpgid(None, None)?,
        Session::Terminal => {
            rustix::process::setsid()?;
            // std has put the terminal at 0 by now.
            rustix::process::ioctl_tiocsctty(borrow(0))?;
        }
    }
    for &fd in inherited {
        rustix::io::fcntl_setfd(borrow(fd), FdFlags::empty())?;
    }
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "a number that crossed a fork is all there is of the descriptor"
)]
fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the caller of `spawn` keeps the descriptor open, and after fork the child owns a copy
    // of the whole table in which nobody closes anything before exec.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
