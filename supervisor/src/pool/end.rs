//! That work is to end: told by whoever gives it up, heard by the thread that does it and by the process that the
//! thread waits for.
//!
//! A thread that waits for a file system cannot be woken. What waits for one is a jailed process wherever that can
//! be; the thread waits for the process' answer then, and stops waiting when it is told to.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::net::Shutdown;
use tokio::sync::Notify;

/// The end of one piece of work. Cheap to clone; all clones are of the same work.
#[derive(Debug, Clone)]
pub struct End {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    number: u64,
    state: Mutex<State>,
    told: Notify,
    left: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    /// To the processes that the work has asked something.
    sockets: Vec<Weak<OwnedFd>>,
}

impl Default for End {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            shared: Arc::new(Shared {
                number: NEXT.fetch_add(1, Ordering::Relaxed),
                state: Mutex::default(),
                told: Notify::new(),
                left: AtomicBool::new(false),
            }),
        }
    }
}

impl End {
    /// Which work it is of: no two have one number.
    pub(super) fn number(&self) -> u64 {
        self.shared.number
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the work: nobody waits for its processes any more, and none is started for it. Never waits.
    pub(super) fn now(&self) {
        let mut state = self.state();
        state.ended = true;
        for socket in state.sockets.drain(..).filter_map(|it| it.upgrade()) {
            // Whoever waits for an answer there hears that there is none, and kills the process.
            let _ = rustix::net::shutdown(&socket, Shutdown::Both);
        }
        drop(state);
        self.shared.told.notify_waiters();
    }

    /// Whether it was ended.
    pub(super) fn is_now(&self) -> bool {
        self.state().ended
    }

    /// Until it is ended.
    pub(super) async fn ended(&self) {
        loop {
            let told = self.shared.told.notified();
            if self.is_now() {
                return;
            }
            told.await;
        }
    }

    /// Nobody is to wait on this socket once the work is ended; false where it is already.
    pub(super) fn holds(&self, socket: &Arc<OwnedFd>) -> bool {
        let mut state = self.state();
        if state.ended {
            return false;
        }
        state.sockets.retain(|socket| socket.strong_count() > 0);
        state.sockets.push(Arc::downgrade(socket));
        true
    }

    /// Notes that the client which asked for it has gone.
    pub(super) fn leave(&self) {
        self.shared.left.store(true, Ordering::Relaxed);
    }

    /// Whether nobody waits for it any more.
    pub(super) fn has_left(&self) -> bool {
        self.shared.left.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};

    use super::*;

    fn pair() -> (Arc<OwnedFd>, OwnedFd) {
        let kind = SocketType::SEQPACKET;
        let pair = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.unwrap();
        (Arc::new(ours), theirs)
    }

    #[tokio::test]
    async fn whoever_waits_for_a_process_that_says_nothing_stops_when_the_work_is_ended() {
        let end = End::default();
        let (socket, _silent) = pair();
        assert!(end.holds(&socket));
        let waiting = tokio::task::spawn_blocking(move || {
            let mut bytes = [0; 8];
            recv(&*socket, &mut bytes, RecvFlags::empty()).map(|(_, length)| length)
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished());
        end.clone().now();
        assert_eq!(waiting.await.unwrap(), Ok(0));
        end.ended().await;
        // No process is asked any more.
        assert!(!end.holds(&pair().0));
        assert_ne!(end.number(), End::default().number());
    }
}
