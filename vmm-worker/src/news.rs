//! What is told of the guest's memory, its ports and the vCPUs, which a guest changes as fast as it likes: the newest, and not
//! too often.

use std::time::{Duration, Instant};

use reeve_ipc::spec::PciSlot;
use reeve_ipc::vcpus::VcpuStanding;

/// How often a change of what the guest has lent or plugged is told, at most.
const MEMORY_NEWS: Duration = Duration::from_millis(200);
/// How often a change of which ports the guest has open is told, at most.
const PORT_NEWS: Duration = Duration::from_millis(200);
/// How often a change of the vCPUs is told, at most.
const VCPU_NEWS: Duration = Duration::from_millis(50);

/// How often what a [`Gate`] lets through is told, at most.
const GATED_NEWS: Duration = Duration::from_secs(1);

/// What is to be told now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// What the guest has lent and plugged.
    pub memory: Option<MemoryNews>,
    /// Which ports the guest has open.
    pub ports: Option<PortNews>,
    /// Which vCPUs there are.
    pub vcpus: Option<VcpuStanding>,
    /// The guest starts its crash kernel.
    pub crash_kernel: bool,
    /// When there is more to be told, if it is not now.
    pub later: Option<Duration>,
}

/// What of its memory the guest has lent by its balloon, and what it has plugged by its memory device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryNews {
    /// Bytes in the balloon.
    pub balloon_bytes: u64,
    /// Bytes plugged beyond what the machine started with.
    pub plugged_bytes: u64,
}

/// Which ports of the serial controller the guest has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortNews {
    /// Where the controller is.
    pub slot: PciSlot,
    /// A bit for each that is open.
    pub guest_open: u32,
}

/// What was told, and when.
#[derive(Debug, Default)]
pub(crate) struct Newsroom {
    memory: Option<(MemoryNews, Instant)>,
    ports: Option<(PortNews, Instant)>,
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
    /// What the guest has lent and plugged now, if it can, which ports it has open, if there can be any, and which
    /// vCPUs there are, if that has changed.
    pub fn take(
        &mut self,
        memory: Option<MemoryNews>,
        ports: Option<PortNews>,
        vcpus: Option<VcpuStanding>,
    ) -> News {
        self.take_at(Instant::now(), memory, ports, vcpus)
    }

    fn take_at(
        &mut self,
        now: Instant,
        memory: Option<MemoryNews>,
        ports: Option<PortNews>,
        vcpus: Option<VcpuStanding>,
    ) -> News {
        self.waiting = vcpus.or(self.waiting);
        let (memory, memory_later) = self.memory(memory, now);
        let (ports, ports_later) = self.ports(ports, now);
        let (vcpus, vcpus_later) = self.vcpus(now);
        let later = [memory_later, ports_later, vcpus_later];
        News {
            memory,
            ports,
            vcpus,
            later: later.into_iter().flatten().min(),
            ..News::default()
        }
    }

    fn memory(
        &mut self,
        memory: Option<MemoryNews>,
        now: Instant,
    ) -> (Option<MemoryNews>, Option<Duration>) {
        let Some(memory) = memory else {
            return (None, None);
        };
        match self.memory {
            Some((told, _)) if told == memory => (None, None),
            None if memory == MemoryNews::default() => (None, None),
            Some((_, when)) if now < when + MEMORY_NEWS => (None, Some(when + MEMORY_NEWS - now)),
            _ => {
                self.memory = Some((memory, now));
                (Some(memory), None)
            }
        }
    }

    fn ports(
        &mut self,
        ports: Option<PortNews>,
        now: Instant,
    ) -> (Option<PortNews>, Option<Duration>) {
        let Some(ports) = ports else {
            return (None, None);
        };
        match self.ports {
            Some((told, _)) if told == ports => (None, None),
            None if ports.guest_open == 0 => (None, None),
            Some((_, when)) if now < when + PORT_NEWS => (None, Some(when + PORT_NEWS - now)),
            _ => {
                self.ports = Some((ports, now));
                (Some(ports), None)
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
        let mut now = Instant::now();
        let standing = |vcpus: u32| VcpuStanding {
            present: (0..vcpus).collect(),
            ..VcpuStanding::default()
        };
        assert_eq!(
            room.take_at(now, None, None, Some(standing(3))).vcpus,
            Some(standing(3))
        );
        assert_eq!(room.take_at(now, None, None, None), News::default());
        let news = room.take_at(now, None, None, Some(standing(2)));
        assert!(news.vcpus.is_none() && news.later.is_some_and(|later| later <= VCPU_NEWS));
        assert!(
            room.take_at(now, None, None, Some(standing(1)))
                .vcpus
                .is_none()
        );
        now += VCPU_NEWS;
        assert_eq!(room.take_at(now, None, None, None).vcpus, Some(standing(1)));
        assert_eq!(room.take_at(now, None, None, None), News::default());
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
        let now = Instant::now();
        let lent = |balloon_bytes| {
            Some(MemoryNews {
                balloon_bytes,
                plugged_bytes: 0,
            })
        };
        assert_eq!(room.take_at(now, lent(0), None, None), News::default());
        assert_eq!(room.take_at(now, lent(4096), None, None).memory, lent(4096));
        assert!(room.take_at(now, lent(0), None, None).later.is_some());
    }

    #[test]
    fn memory_that_is_plugged_is_news_and_so_is_what_is_lent_of_it() {
        let mut room = Newsroom::default();
        let mut now = Instant::now();
        let memory = |balloon_bytes, plugged_bytes| {
            Some(MemoryNews {
                balloon_bytes,
                plugged_bytes,
            })
        };
        assert_eq!(
            room.take_at(now, memory(0, 2 << 20), None, None).memory,
            memory(0, 2 << 20)
        );
        assert_eq!(
            room.take_at(now, memory(0, 2 << 20), None, None),
            News::default()
        );
        assert!(
            room.take_at(now, memory(4096, 2 << 20), None, None)
                .later
                .is_some()
        );
        now += MEMORY_NEWS;
        let both = memory(4096, 4 << 20);
        assert_eq!(room.take_at(now, both, None, None).memory, both);
    }

    #[test]
    fn a_port_that_is_opened_and_closed_all_the_time_is_told_now_and_then() {
        let mut room = Newsroom::default();
        let mut now = Instant::now();
        let open = |guest_open| {
            Some(PortNews {
                slot: PciSlot::try_from(3).unwrap(),
                guest_open,
            })
        };
        assert_eq!(room.take_at(now, None, open(0), None), News::default());
        assert_eq!(room.take_at(now, None, open(2), None).ports, open(2));
        for _ in 0..1000 {
            let news = room.take_at(now, None, open(0), None);
            assert!(news.ports.is_none() && news.later.is_some_and(|later| later <= PORT_NEWS));
            assert_eq!(room.take_at(now, None, open(2), None), News::default());
        }
        now += PORT_NEWS;
        assert_eq!(room.take_at(now, None, open(0), None).ports, open(0));
    }
}
