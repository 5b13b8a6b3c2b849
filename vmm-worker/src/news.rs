//! What is told of the balloon and the vCPUs, which a guest changes as fast as it likes: the newest, and not
//! too often.

use std::time::{Duration, Instant};

use reeve_ipc::vcpus::VcpuStanding;

/// How often a change of the balloon is told, at most.
const BALLOON_NEWS: Duration = Duration::from_millis(200);
/// How often a change of the vCPUs is told, at most.
const VCPU_NEWS: Duration = Duration::from_millis(50);

/// How often what a [`Gate`] lets through is told, at most.
const GATED_NEWS: Duration = Duration::from_secs(1);

/// What is to be told now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// What the balloon holds.
    pub balloon: Option<u64>,
    /// Which vCPUs there are.
    pub vcpus: Option<VcpuStanding>,
    /// The guest starts its crash kernel.
    pub crash_kernel: bool,
    /// When there is more to be told, if it is not now.
    pub later: Option<Duration>,
}

/// What was told, and when.
#[derive(Debug, Default)]
pub(crate) struct Newsroom {
    balloon: Option<(u64, Instant)>,
    vcpus: Option<Instant>,
    /// vCPUs that are to be told of when it is time.
    waiting: Option<VcpuStanding>,
    /// For a watchdog that has expired: it is acted on then.
    pub watchdog: Gate,
    /// For a crash kernel that starts.
    pub crash_kernel: Gate,
}

/// For what a guest may bring about as fast as it likes, and that is kept until it is told.
#[derive(Debug, Default)]
pub(crate) struct Gate(Option<Instant>);

impl Gate {
    /// Whether it is time, or else when it will be. It is told then.
    pub fn pass(&mut self) -> Result<(), Duration> {
        match self.left() {
            Duration::ZERO => {
                self.0 = Some(Instant::now());
                Ok(())
            }
            left => Err(left),
        }
    }

    /// How long until it is time.
    pub fn left(&self) -> Duration {
        let next = self.0.map(|when| when + GATED_NEWS);
        next.map_or(Duration::ZERO, |next| {
            next.saturating_duration_since(Instant::now())
        })
    }
}

impl Newsroom {
    /// What the balloon holds now, if there is one, and which vCPUs there are, if that has changed.
    pub fn take(&mut self, balloon: Option<u64>, vcpus: Option<VcpuStanding>) -> News {
        self.waiting = vcpus.or(self.waiting);
        let now = Instant::now();
        let (balloon, balloon_later) = self.balloon(balloon, now);
        let (vcpus, vcpus_later) = self.vcpus(now);
        News {
            balloon,
            vcpus,
            later: balloon_later.into_iter().chain(vcpus_later).min(),
            ..News::default()
        }
    }

    fn balloon(&mut self, bytes: Option<u64>, now: Instant) -> (Option<u64>, Option<Duration>) {
        let Some(bytes) = bytes else {
            return (None, None);
        };
        match self.balloon {
            Some((told, _)) if told == bytes => (None, None),
            None if bytes == 0 => (None, None),
            Some((_, when)) if now < when + BALLOON_NEWS => (None, Some(when + BALLOON_NEWS - now)),
            _ => {
                self.balloon = Some((bytes, now));
                (Some(bytes), None)
            }
        }
    }

    fn vcpus(&mut self, now: Instant) -> (Option<VcpuStanding>, Option<Duration>) {
        match self.vcpus {
            _ if self.waiting.is_none() => (None, None),
            Some(when) if now < when + VCPU_NEWS => (None, Some(when + VCPU_NEWS - now)),
            _ => {
                self.vcpus = Some(now);
                (self.waiting.take(), None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_many_changes_of_the_vcpus_is_told_when_it_is_time() {
        let mut room = Newsroom::default();
        let standing = |vcpus: u32| VcpuStanding {
            present: (0..vcpus).collect(),
            ..VcpuStanding::default()
        };
        assert_eq!(room.take(None, Some(standing(3))).vcpus, Some(standing(3)));
        assert_eq!(room.take(None, None), News::default());
        let news = room.take(None, Some(standing(2)));
        assert!(news.vcpus.is_none() && news.later.is_some_and(|later| later <= VCPU_NEWS));
        assert!(room.take(None, Some(standing(1))).vcpus.is_none());
        std::thread::sleep(VCPU_NEWS);
        assert_eq!(room.take(None, None).vcpus, Some(standing(1)));
        assert_eq!(room.take(None, None), News::default());
    }

    #[test]
    fn a_watchdog_that_expires_all_the_time_is_acted_on_once_a_second() {
        let mut gate = Gate::default();
        assert_eq!(gate.pass(), Ok(()));
        for _ in 0..1000 {
            assert!(gate.pass().is_err_and(|later| later <= GATED_NEWS));
        }
        std::thread::sleep(GATED_NEWS);
        assert_eq!(gate.pass(), Ok(()));
    }

    #[test]
    fn a_balloon_that_was_never_inflated_is_no_news() {
        let mut room = Newsroom::default();
        assert_eq!(room.take(Some(0), None), News::default());
        assert_eq!(room.take(Some(4096), None).balloon, Some(4096));
        assert!(room.take(Some(0), None).later.is_some());
    }
}
