//! Crash points: named places at which tests let the supervisor die (feature `fault-points`).
//!
//! `REEVE_CRASH=define.after-rename` kills the process, by `SIGKILL` to itself, when it gets there;
//! `REEVE_CRASH=start.after-status:2` when it gets there for the second time. Nothing is flushed and
//! nothing is unwound: what the next supervisor finds is what a power cut of the process leaves.
//! Without the feature nothing of this is compiled into anything but the names.
//!
//! Invariant: a point that is reached is listed in [`ALL`]; builds with the feature panic otherwise.

use std::fmt;

/// What is being done to a domain, a storage pool, a volume or a virtual network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Writing its record: a definition, an autostart mark, a name, labels.
    Define,
    /// Starting it.
    Start,
    /// Stopping or resuming its vCPUs.
    Pause,
    /// Pressing its power button, for a shutdown or a reboot, resetting it, and what follows its
    /// guest's or its worker's own end.
    Shutdown,
    /// Killing its worker.
    Destroy,
    /// Removing its record.
    Undefine,
    /// Taking over its worker from an earlier supervisor.
    Adopt,
    /// Having a fresh worker take its machine over.
    HandOver,
    /// Binding and limiting what runs it, and asking its guest for memory at its start.
    Tune,
    /// Writing a storage pool's record.
    PoolDefine,
    /// Removing a storage pool's record.
    PoolUndefine,
    /// Starting a storage pool.
    PoolStart,
    /// Making a volume.
    VolumeCreate,
    /// Writing a virtual network's record.
    NetworkDefine,
    /// Removing a virtual network's record.
    NetworkUndefine,
    /// Starting a virtual network.
    NetworkStart,
    /// Stopping a virtual network.
    NetworkStop,
    /// Changing a virtual network that is active.
    NetworkUpdate,
    /// Writing a network filter's record.
    NwfilterDefine,
    /// Removing a network filter's record, or writing that it is undefined.
    NwfilterUndefine,
}

/// A moment of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Moment {
    /// Nothing of the record has been written.
    BeforeWrite,
    /// The record's temporary is on disk and has not its name.
    AfterTemporary,
    /// It has its name; the directory is not synchronised.
    AfterRename,
    /// It is durable.
    AfterWrite,
    /// The record is there.
    BeforeRemove,
    /// It is unlinked; the directory is not synchronised.
    AfterUnlink,
    /// Its removal is durable.
    AfterRemove,
    /// The run-time status is the one before, or none.
    BeforeStatus,
    /// The run-time status is written.
    AfterStatus,
    /// The cgroup is made, where one is needed.
    AfterCgroup,
    /// The worker's socket is bound.
    AfterSocket,
    /// The worker's process exists and nobody has noted it.
    AfterSpawn,
    /// Nothing has been asked of the worker, or sent to its process.
    BeforeCall,
    /// The worker was asked, or killed; what came of it is not known.
    AfterCall,
    /// The worker did it, or is gone; what a network is made of is made, changed or taken away.
    AfterOutcome,
    /// What the worker held of the host is released, its status is still there.
    AfterRelease,
    /// The status is still there.
    BeforeStatusRemove,
    /// The status is removed.
    AfterStatusRemove,
    /// Everything is done and nobody was told.
    BeforeAnswer,
    /// It is noted that a file is about to be made.
    AfterMark,
    /// The file is there, and has not its name; nothing is in it.
    AfterFile,
}

use Moment::{
    AfterCall, AfterCgroup, AfterFile, AfterMark, AfterOutcome, AfterRelease, AfterRemove,
    AfterRename, AfterSocket, AfterSpawn, AfterStatus, AfterStatusRemove, AfterTemporary,
    AfterUnlink, AfterWrite, BeforeAnswer, BeforeCall, BeforeRemove, BeforeStatus,
    BeforeStatusRemove, BeforeWrite,
};

/// Every point, operation by operation, roughly in the order in which they are reached.
pub const ALL: [(Operation, &[Moment]); 20] = [
    (
        Operation::Define,
        &[
            BeforeWrite,
            AfterTemporary,
            AfterRename,
            AfterWrite,
            BeforeStatus,
            AfterStatus,
            BeforeAnswer,
        ],
    ),
    (
        Operation::Start,
        &[
            BeforeStatus,
            AfterStatus,
            AfterCgroup,
            AfterSocket,
            AfterSpawn,
            BeforeCall,
            AfterCall,
            AfterOutcome,
            AfterRelease,
            BeforeStatusRemove,
            AfterStatusRemove,
            BeforeAnswer,
        ],
    ),
    (
        Operation::Pause,
        &[BeforeCall, AfterCall, AfterOutcome, BeforeAnswer],
    ),
    (
        Operation::Shutdown,
        &[
            BeforeStatus,
            AfterStatus,
            BeforeCall,
            AfterCall,
            AfterOutcome,
            AfterRelease,
            BeforeStatusRemove,
            AfterStatusRemove,
            BeforeAnswer,
        ],
    ),
    (
        Operation::Destroy,
        &[
            BeforeStatus,
            AfterStatus,
            BeforeCall,
            AfterCall,
            AfterOutcome,
            AfterRelease,
            BeforeStatusRemove,
            AfterStatusRemove,
            BeforeAnswer,
        ],
    ),
    (
        Operation::Undefine,
        &[BeforeRemove, AfterUnlink, AfterRemove, BeforeAnswer],
    ),
    (
        Operation::Adopt,
        &[
            BeforeCall,
            AfterCall,
            AfterOutcome,
            AfterRelease,
            BeforeStatusRemove,
            AfterStatusRemove,
        ],
    ),
    (
        Operation::HandOver,
        &[
            BeforeStatus,
            AfterStatus,
            BeforeCall,
            AfterCall,
            AfterOutcome,
            BeforeAnswer,
        ],
    ),
    (
        Operation::Tune,
        &[
            BeforeStatus,
            AfterStatus,
            BeforeCall,
            AfterCall,
            AfterOutcome,
            BeforeAnswer,
        ],
    ),
    (
        Operation::PoolDefine,
        &[
            BeforeWrite,
            AfterTemporary,
            AfterRename,
            AfterWrite,
            BeforeAnswer,
        ],
    ),
    (
        Operation::PoolUndefine,
        &[BeforeRemove, AfterUnlink, AfterRemove, BeforeAnswer],
    ),
    (
        Operation::PoolStart,
        &[BeforeStatus, AfterStatus, BeforeAnswer],
    ),
    (
        Operation::VolumeCreate,
        &[AfterMark, AfterFile, AfterWrite, AfterRename, BeforeAnswer],
    ),
    (
        Operation::NetworkDefine,
        &[
            BeforeWrite,
            AfterTemporary,
            AfterRename,
            AfterWrite,
            BeforeAnswer,
        ],
    ),
    (
        Operation::NetworkUndefine,
        &[BeforeRemove, AfterUnlink, AfterRemove, BeforeAnswer],
    ),
    (
        Operation::NetworkStart,
        &[BeforeStatus, AfterStatus, AfterOutcome, BeforeAnswer],
    ),
    (
        Operation::NetworkStop,
        &[
            BeforeStatus,
            AfterStatus,
            AfterOutcome,
            BeforeStatusRemove,
            AfterStatusRemove,
            BeforeAnswer,
        ],
    ),
    (
        Operation::NetworkUpdate,
        &[BeforeStatus, AfterStatus, AfterOutcome, BeforeAnswer],
    ),
    (
        Operation::NwfilterDefine,
        &[
            BeforeWrite,
            AfterTemporary,
            AfterRename,
            AfterWrite,
            BeforeAnswer,
        ],
    ),
    (
        Operation::NwfilterUndefine,
        &[
            BeforeWrite,
            AfterTemporary,
            AfterRename,
            AfterWrite,
            BeforeRemove,
            AfterUnlink,
            AfterRemove,
            BeforeAnswer,
        ],
    ),
];

/// The names of all points, as `REEVE_CRASH` takes them.
pub fn names() -> impl Iterator<Item = String> {
    ALL.iter().flat_map(|(operation, moments)| {
        moments
            .iter()
            .map(move |moment| format!("{operation}.{moment}"))
    })
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Define => "define",
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Shutdown => "shutdown",
            Self::Destroy => "destroy",
            Self::Undefine => "undefine",
            Self::Adopt => "adopt",
            Self::HandOver => "hand-over",
            Self::Tune => "tune",
            Self::PoolDefine => "pool-define",
            Self::PoolUndefine => "pool-undefine",
            Self::PoolStart => "pool-start",
            Self::VolumeCreate => "volume-create",
            Self::NetworkDefine => "network-define",
            Self::NetworkUndefine => "network-undefine",
            Self::NetworkStart => "network-start",
            Self::NetworkStop => "network-stop",
            Self::NetworkUpdate => "network-update",
            Self::NwfilterDefine => "nwfilter-define",
            Self::NwfilterUndefine => "nwfilter-undefine",
        })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BeforeWrite => "before-write",
            AfterTemporary => "after-temporary",
            AfterRename => "after-rename",
            AfterWrite => "after-write",
            BeforeRemove => "before-remove",
            AfterUnlink => "after-unlink",
            AfterRemove => "after-remove",
            BeforeStatus => "before-status",
            AfterStatus => "after-status",
            AfterSocket => "after-socket",
            AfterCgroup => "after-cgroup",
            AfterSpawn => "after-spawn",
            BeforeCall => "before-call",
            AfterCall => "after-call",
            AfterOutcome => "after-outcome",
            AfterRelease => "after-release",
            BeforeStatusRemove => "before-status-remove",
            AfterStatusRemove => "after-status-remove",
            BeforeAnswer => "before-answer",
            AfterMark => "after-mark",
            AfterFile => "after-file",
        })
    }
}

/// The process dies here if the environment says so; otherwise nothing happens.
#[inline]
pub fn point(operation: Operation, moment: Moment) {
    #[cfg(feature = "fault-points")]
    armed::reached(operation, moment);
    #[cfg(not(feature = "fault-points"))]
    let _ = (operation, moment);
}

/// Awaits `asked`, which sends a request to a worker when it is polled first: dies before it, with the
/// request sent, or with its outcome here.
pub async fn around<F: Future>(operation: Operation, asked: F) -> F::Output {
    point(operation, BeforeCall);
    #[cfg(feature = "fault-points")]
    let outcome = armed::begun(asked, || point(operation, AfterCall)).await;
    #[cfg(not(feature = "fault-points"))]
    let outcome = asked.await;
    point(operation, AfterOutcome);
    outcome
}

/// Checks that `REEVE_CRASH`, if it is set, names a point: a misspelt one would pass every test.
///
/// # Panics
/// In builds with `fault-points`, if it names none.
pub fn check_environment() {
    #[cfg(feature = "fault-points")]
    armed::check();
}

#[cfg(feature = "fault-points")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{ALL, Moment, Operation};

    struct Armed {
        operation: Operation,
        moment: Moment,
        left: AtomicU32,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let value = std::env::var("REEVE_CRASH").ok()?;
        let found = parse(&value);
        assert!(
            found.is_some(),
            "REEVE_CRASH names no crash point: '{value}'"
        );
        found.map(|(operation, moment, times)| Armed {
            operation,
            moment,
            left: AtomicU32::new(times),
        })
    });

    /// The point and at which time, from 1.
    pub(super) fn parse(value: &str) -> Option<(Operation, Moment, u32)> {
        let (name, times) = match value.split_once(':') {
            Some((name, times)) => (name, times.parse().ok().filter(|times| *times > 0)?),
            None => (value, 1),
        };
        ALL.iter()
            .flat_map(|(operation, moments)| moments.iter().map(move |moment| (operation, moment)))
            .find(|(operation, moment)| format!("{operation}.{moment}") == name)
            .map(|(operation, moment)| (*operation, *moment, times))
    }

    /// Awaits a future, and calls `then` once it has been polled for the first time.
    pub(super) async fn begun<F: Future>(future: F, then: impl FnOnce()) -> F::Output {
        let mut future = std::pin::pin!(future);
        let mut then = Some(then);
        std::future::poll_fn(|context| {
            let polled = future.as_mut().poll(context);
            if let Some(then) = then.take() {
                then();
            }
            polled
        })
        .await
    }

    pub(super) fn check() {
        LazyLock::force(&ARMED);
    }

    pub(super) fn reached(operation: Operation, moment: Moment) {
        assert!(
            ALL.iter()
                .any(|(known, moments)| *known == operation && moments.contains(&moment)),
            "crash point {operation}.{moment} is not listed"
        );
        let Some(armed) = &*ARMED else { return };
        if armed.operation == operation
            && armed.moment == moment
            && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
            // The signal is delivered on the way back from the call at the latest.
            loop {
                std::thread::park();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_operation_is_listed_once() {
        let list: Vec<String> = names().collect();
        let set: BTreeSet<&String> = list.iter().collect();
        assert_eq!(set.len(), list.len());
        let operations: BTreeSet<Operation> = ALL.iter().map(|(operation, _)| *operation).collect();
        assert_eq!(operations.len(), ALL.len());
        for name in [
            "define.after-rename",
            "start.after-spawn",
            "undefine.after-unlink",
        ] {
            assert!(list.iter().any(|known| known == name), "{name}");
        }
    }

    #[cfg(feature = "fault-points")]
    #[test]
    fn a_point_is_armed_by_its_name_and_count() {
        assert_eq!(
            armed::parse("start.after-status:2"),
            Some((Operation::Start, Moment::AfterStatus, 2))
        );
        assert_eq!(
            armed::parse("define.before-write"),
            Some((Operation::Define, Moment::BeforeWrite, 1))
        );
        for wrong in [
            "define",
            "define.nowhere",
            "define.after-write:0",
            "define.after-write:x",
        ] {
            assert_eq!(armed::parse(wrong), None, "{wrong}");
        }
    }

    /// Executes this test alone in a process of its own, with the point armed.
    #[cfg(feature = "fault-points")]
    #[test]
    fn an_armed_point_kills_the_process_at_its_count() {
        use std::os::unix::process::ExitStatusExt;

        const INNER: &str = "REEVE_CRASH_TEST_INNER";
        if std::env::var_os(INNER).is_some() {
            point(Operation::Pause, Moment::AfterCall);
            std::fs::write(std::env::var_os(INNER).unwrap(), "once").unwrap();
            point(Operation::Pause, Moment::AfterCall);
            std::fs::write(std::env::var_os(INNER).unwrap(), "twice").unwrap();
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crash::tests::an_armed_point_kills_the_process_at_its_count",
            ])
            .env("REEVE_CRASH", "pause.after-call:2")
            .env(INNER, &mark)
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(9));
        assert_eq!(std::fs::read_to_string(&mark).unwrap(), "once");
    }
}
