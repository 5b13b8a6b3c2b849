//! Where a worker stands, and which way it may go; pure, and used by both sides.
//!
//! ```text
//!                 Launch            Resume
//!  AwaitingLaunch ──────► Paused ◄──────────► Running
//!        │                  │       Pause        │
//!        │                  │                    ├─ the guest powers off ──► Off
//!        │                  │                    └─ it cannot go on ───────► Crashed
//!        └──────────────────┴── Stop, control lost ──► (process gone)
//! ```
//!
//! `Off` and `Crashed` are seen only where the specification says to keep the machine for
//! inspection; otherwise the worker says so in an event and exits. A guest that ends on its way to a
//! pause makes `Paused` become either of them too, and so does a machine that cannot be reset. `Reset` keeps `Running` and
//! `Paused` as they are, and brings `Off` and `Crashed` back to `Paused`.

use serde::{Deserialize, Serialize};

/// The phase of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Jailed, with no machine yet.
    AwaitingLaunch,
    /// The machine stands complete and no vCPU runs.
    Paused,
    /// The vCPUs run.
    Running,
    /// The guest powered itself off; its memory and registers are kept.
    Off,
    /// The guest cannot go on; its memory and registers are kept.
    Crashed,
}

impl Phase {
    /// Every phase, for tables and tests.
    pub const ALL: [Self; 5] = [
        Self::AwaitingLaunch,
        Self::Paused,
        Self::Running,
        Self::Off,
        Self::Crashed,
    ];

    /// Whether a worker may go from this phase to `next` in one step.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::AwaitingLaunch, Self::Paused | Self::Running)
                | (Self::Paused, Self::Running | Self::Off | Self::Crashed)
                | (Self::Running, Self::Paused | Self::Off | Self::Crashed)
                | (Self::Off, Self::Paused | Self::Crashed)
                | (Self::Crashed, Self::Paused)
        )
    }

    /// Whether a machine exists.
    #[must_use]
    pub const fn has_machine(self) -> bool {
        !matches!(self, Self::AwaitingLaunch)
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AwaitingLaunch => "awaiting launch",
            Self::Paused => "paused",
            Self::Running => "running",
            Self::Off => "powered off",
            Self::Crashed => "crashed",
        })
    }
}
