//! How a worker ended, judged from what the kernel says first and what the worker said second.
//!
//! Pure. The worker is hostile: its events only explain an end that the exit status agrees with. A
//! death by `SIGSYS` is its sandbox's doing whatever else was said.

use std::fmt;

use reeve_ipc::event::CrashReport;
use reeve_ipc::exit_code;
use reeve_sandbox::seccomp::denial::Denial;

/// As an `i32`, which is what the kernel gives.
const ORDERLY: i32 = exit_code::ORDERLY as i32;

/// What the kernel says of an ended process (wait(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
    /// Somebody else reaped it: the embedding process ignores `SIGCHLD`.
    Unknown,
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// What the kernel says.
    pub status: ExitStatus,
    /// What it means.
    pub cause: DeathCause,
}

/// What a death means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeathCause {
    /// The guest powered off.
    PoweredOff,
    /// The guest asked for a reset, and the definition ends the domain then.
    Reset,
    /// The guest could not go on.
    GuestCrashed(CrashReport),
    /// The worker was told to stop.
    Stopped,
    /// The worker was killed on request.
    Destroyed,
    /// The sandbox ended it at a system call it may not make; what it was, where a record came.
    Denied(Option<Denial>),
    /// It broke a rule of the protocol and was killed for it.
    Violation(String),
    /// It reported a failure of its own, or exited with a reserved code.
    Failed {
        /// The exit code.
        code: i32,
        /// Its last words, where there were any.
        message: Option<String>,
    },
    /// A signal that nobody here sent.
    Signal(i32),
}

impl DeathCause {
    /// Whether the guest or its owner ended it, in good order.
    #[must_use]
    pub const fn is_orderly(&self) -> bool {
        matches!(
            self,
            Self::PoweredOff | Self::Reset | Self::Stopped | Self::Destroyed
        )
    }

    /// Whether the supervisor ended it.
    pub(super) const fn was_asked_for(&self) -> bool {
        matches!(self, Self::Stopped | Self::Destroyed)
    }
}

/// What was asked for and heard while the worker lived.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// A kill was requested.
    pub destroyed: bool,
    /// A stop was requested.
    pub stopped: bool,
    /// The rule that was broken.
    pub violation: Option<String>,
    /// The guest said that it powers off.
    pub powered_off: bool,
    /// The guest asked for a reset, last of all.
    pub reset: bool,
    /// Why the guest cannot go on.
    pub crash: Option<CrashReport>,
    /// What the worker said when it failed.
    pub failure: Option<String>,
    /// The last denied system call.
    pub denial: Option<Denial>,
    /// The last error line of its log.
    pub last_error: Option<String>,
}

impl Evidence {
    /// Leaves out how the guest ended before the worker was told to end.
    pub(super) fn forget_guest(&mut self) {
        self.powered_off = false;
        self.reset = false;
        self.crash = None;
    }

    /// The verdict.
    pub(super) fn judge(self, status: ExitStatus) -> Death {
        let cause = match status {
            ExitStatus::Signaled(libc::SIGSYS) => DeathCause::Denied(self.denial),
            _ if self.violation.is_some() => {
                DeathCause::Violation(self.violation.unwrap_or_default())
            }
            ExitStatus::Signaled(libc::SIGKILL) | ExitStatus::Unknown if self.destroyed => {
                DeathCause::Destroyed
            }
            ExitStatus::Signaled(signal) => DeathCause::Signal(signal),
            ExitStatus::Unknown | ExitStatus::Exited(ORDERLY) => {
                if let Some(crash) = self.crash {
                    DeathCause::GuestCrashed(crash)
                } else if self.powered_off {
                    DeathCause::PoweredOff
                } else if self.stopped {
                    DeathCause::Stopped
                } else if self.reset {
                    DeathCause::Reset
                } else {
                    DeathCause::Violation("it exited and did not say why".to_owned())
                }
            }
            ExitStatus::Exited(code) => DeathCause::Failed {
                code,
                message: self.failure.or(self.last_error),
            },
        };
        Death { status, cause }
    }
}

/// What a reserved exit code means.
fn meaning(code: i32) -> &'static str {
    match u8::try_from(code) {
        Ok(exit_code::JAIL) => "it could not enter its sandbox",
        Ok(exit_code::HANDSHAKE) => "it is not of this supervisor's build",
        Ok(exit_code::CONTROL_LOST) => "it lost its supervisor",
        Ok(exit_code::PANIC) => "it panicked",
        Ok(exit_code::FATAL_SIGNAL) => "its own code faulted",
        Ok(exit_code::HOST) => "a resource of the host failed it",
        _ => "it gave a code that means nothing",
    }
}

impl fmt::Display for DeathCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff => f.write_str("the guest powered off"),
            Self::Reset => f.write_str("the guest asked for a reset"),
            Self::GuestCrashed(report) => {
                write!(
                    f,
                    "the guest crashed on vCPU {}: {}",
                    report.vcpu, report.cause
                )?;
                match &report.registers {
                    Some(registers) => write!(f, "; {registers}"),
                    None => Ok(()),
                }
            }
            Self::Stopped => f.write_str("the worker was stopped"),
            Self::Destroyed => f.write_str("the worker was destroyed"),
            Self::Denied(Some(denial)) => {
                write!(f, "the worker was killed by its sandbox: {denial}")
            }
            Self::Denied(None) => f.write_str(
                "the worker was killed by its sandbox: it made a denied system call and left no \
                 record of it",
            ),
            Self::Violation(rule) => {
                write!(f, "the worker was killed for a protocol violation: {rule}")
            }
            Self::Failed { code, message } => {
                write!(f, "the worker exited with code {code}: {}", meaning(*code))?;
                match message {
                    Some(message) => write!(f, " ({message})"),
                    None => Ok(()),
                }
            }
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "the worker was killed by {name}"),
                None => write!(f, "the worker was killed by signal {signal}"),
            },
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

/// The name of a signal that ends processes.
#[must_use]
pub fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use reeve_ipc::event::CrashCause;

    use super::*;

    fn crash() -> CrashReport {
        CrashReport {
            vcpu: 0,
            cause: CrashCause::TripleFault,
            registers: None,
        }
    }

    #[test]
    fn a_death_by_sigsys_is_the_sandbox_whatever_the_worker_said() {
        let evidence = Evidence {
            powered_off: true,
            destroyed: true,
            violation: Some("rule".to_owned()),
            ..Evidence::default()
        };
        let death = evidence.judge(ExitStatus::Signaled(libc::SIGSYS));
        assert_eq!(death.cause, DeathCause::Denied(None));
        assert!(death.to_string().contains("killed by its sandbox"));
    }

    #[test]
    fn an_orderly_exit_is_explained_by_the_events_before_it() {
        let judge = |evidence: Evidence| evidence.judge(ExitStatus::Exited(0)).cause;
        let off = Evidence {
            powered_off: true,
            ..Evidence::default()
        };
        assert_eq!(judge(off), DeathCause::PoweredOff);
        let crashed = Evidence {
            crash: Some(crash()),
            ..Evidence::default()
        };
        assert_eq!(judge(crashed), DeathCause::GuestCrashed(crash()));
        let stopped = Evidence {
            stopped: true,
            ..Evidence::default()
        };
        assert_eq!(judge(stopped), DeathCause::Stopped);
        assert!(matches!(
            judge(Evidence::default()),
            DeathCause::Violation(_)
        ));
    }

    #[test]
    fn an_event_does_not_explain_a_death_that_the_kernel_tells_otherwise() {
        let evidence = Evidence {
            powered_off: true,
            ..Evidence::default()
        };
        let death = evidence.judge(ExitStatus::Signaled(libc::SIGSEGV));
        assert_eq!(death.to_string(), "the worker was killed by SIGSEGV");
        assert!(!death.cause.is_orderly());
    }

    #[test]
    fn a_kill_that_nobody_asked_for_is_not_a_destroy() {
        let death = Evidence::default().judge(ExitStatus::Signaled(libc::SIGKILL));
        assert_eq!(death.cause, DeathCause::Signal(libc::SIGKILL));
        let asked = Evidence {
            destroyed: true,
            ..Evidence::default()
        };
        let death = asked.judge(ExitStatus::Signaled(libc::SIGKILL));
        assert_eq!(death.cause, DeathCause::Destroyed);
    }

    #[test]
    fn reserved_codes_have_a_meaning_and_last_words() {
        let evidence = Evidence {
            last_error: Some("no landlock".to_owned()),
            ..Evidence::default()
        };
        let death = evidence.judge(ExitStatus::Exited(i32::from(exit_code::JAIL)));
        assert_eq!(
            death.to_string(),
            "the worker exited with code 70: it could not enter its sandbox (no landlock)"
        );
    }
}
