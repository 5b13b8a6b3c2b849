//! A client that asks much at once is served when nobody else wants the processor.
//!
//! A client that asks on before it has read the answers keeps its gateway busy without a pause, and whoever shares
//! the processor with it waits for a time slice of milliseconds where an answer takes a few microseconds. So the
//! gateway of such a client gives way: the kernel runs it as `SCHED_IDLE` (sched(7)) until its client asks one thing
//! after another again. A client that does so anyway, however fast, and one that asks much now and then, is served as
//! any.

use std::time::{Duration, Instant};

use std::os::fd::{AsFd, AsRawFd as _};

use rustix::process::{Resource, getrlimit};

/// So many calls that came while others were under way, within so long, are a flood.
const FLOOD: u32 = 64;
const WINDOW: Duration = Duration::from_millis(20);
/// It is over once no two calls have been under way for so long.
const CALM: Duration = Duration::from_millis(100);
/// `RLIMIT_NICE` (getrlimit(2)) that lets a process come back to the nice value 0.
const COMES_BACK: u64 = 20;

/// How a process is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// As any.
    Normal,
    /// When nobody else wants to run.
    Idle,
}

/// Whether a client floods.
#[derive(Debug)]
pub(super) struct GivingWay {
    class: Class,
    /// When the window began, and what came in it.
    window: Instant,
    together: u32,
    /// When two calls were under way last.
    last: Instant,
}

impl GivingWay {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            class: Class::Normal,
            window: now,
            together: 0,
            last: now,
        }
    }

    /// `came` packets were handled, beside other calls that are under way or not (`beside`); gives what class to
    /// change to, if any.
    pub(super) fn handled(&mut self, came: u32, beside: bool, now: Instant) -> Option<Class> {
        if beside || came > 1 {
            if now.saturating_duration_since(self.window) > WINDOW {
                self.window = now;
                self.together = 0;
            }
            self.together = self.together.saturating_add(came);
            self.last = now;
        }
        let class = match self.class {
            Class::Normal if self.together >= FLOOD => Class::Idle,
            Class::Idle if now.saturating_duration_since(self.last) > CALM => Class::Normal,
            _ => return None,
        };
        self.class = class;
        self.together = 0;
        Some(class)
    }
}

/// Whether the other end of a UNIX socket has not read all that was sent to it (unix(7), `SIOCOUTQ`).
#[expect(unsafe_code, reason = "the ioctl has no safe wrapper")]
pub(super) fn has_unread(socket: impl AsFd) -> bool {
    let mut bytes: libc::c_int = 0;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes one int, of which the pointer is, and nothing else.
    let failed = unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &raw mut bytes) } != 0;
    !failed && bytes > 0
}

/// Whether this process can give way and come back. Asked before its filter closes.
#[must_use]
pub fn may() -> bool {
    getrlimit(Resource::Nice)
        .current
        .is_none_or(|limit| limit >= COMES_BACK)
}

/// Has the kernel schedule this process so; one that does not goes on as before.
#[expect(unsafe_code, reason = "sched_setscheduler(2) has no safe wrapper")]
pub(super) fn schedule(class: Class) {
    let policy = match class {
        Class::Normal => libc::SCHED_OTHER,
        Class::Idle => libc::SCHED_IDLE,
    };
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads the parameters, which outlive the call; it changes nothing but when this thread runs.
    let failed = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } != 0;
    if failed {
        tracing::debug!(
            ?class,
            "not scheduled otherwise: {}",
            std::io::Error::last_os_error()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_flood_gives_way_until_it_is_over() {
        let start = Instant::now();
        let mut way = GivingWay::new(start);
        for turn in 0..6 {
            assert_eq!(way.handled(10, true, start + turn * MILLISECOND), None);
        }
        let at = start + 7 * MILLISECOND;
        assert_eq!(way.handled(10, true, at), Some(Class::Idle));
        assert_eq!(way.handled(10, true, at + MILLISECOND), None, "it does");
        let last = at + MILLISECOND;
        // It was kept waiting for long, and floods still.
        assert_eq!(way.handled(20, true, last + 500 * MILLISECOND), None);
        let last = last + 500 * MILLISECOND;
        assert_eq!(way.handled(1, false, last + 50 * MILLISECOND), None);
        let over = way.handled(1, false, last + 101 * MILLISECOND);
        assert_eq!(over, Some(Class::Normal));
    }

    #[test]
    fn what_was_sent_is_unread_until_it_is_read() {
        use std::io::{Read as _, Write as _};
        let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!has_unread(&ours));
        ours.write_all(b"answer").unwrap();
        assert!(has_unread(&ours));
        theirs.read_exact(&mut [0; 6]).unwrap();
        assert!(!has_unread(&ours));
    }

    #[test]
    fn one_call_after_another_is_no_flood_however_fast() {
        let start = Instant::now();
        let mut way = GivingWay::new(start);
        for call in 0..10_000 {
            assert_eq!(
                way.handled(1, false, start + call * MILLISECOND / 100),
                None
            );
        }
    }

    #[test]
    fn a_few_calls_at_once_now_and_then_are_no_flood() {
        let start = Instant::now();
        let mut way = GivingWay::new(start);
        for burst in 0..100 {
            assert_eq!(
                way.handled(20, true, start + burst * 25 * MILLISECOND),
                None
            );
        }
    }
}
