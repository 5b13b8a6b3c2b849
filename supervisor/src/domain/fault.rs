//! The named steps of a start, at which tests let it fail (feature `fault-points`).
//!
//! `REEVE_FAULT=kill-worker@after-spawn` kills the worker after that step. Up to `after-launch-sent`
//! the process is still being made or not even ordered: there the supervisor gives up, so that its
//! own unwinding is what is tested. Without the feature nothing here is compiled into anything.

/// A step of a start, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Everything is ready for the process.
    BeforeSpawn,
    /// The process is ordered and the welcome is queued.
    AfterWelcome,
    /// The descriptors and the launch are queued.
    AfterLaunchSent,
    /// The process exists.
    AfterSpawn,
    /// The worker is jailed and said hello.
    AfterHello,
    /// The machine stands.
    AfterLaunched,
    /// The start is complete.
    Running,
}

#[cfg(feature = "fault-points")]
impl Step {
    const NAMES: [(&'static str, Self); 7] = [
        ("after-welcome", Self::AfterWelcome),
        ("after-launch-sent", Self::AfterLaunchSent),
        ("before-spawn", Self::BeforeSpawn),
        ("after-spawn", Self::AfterSpawn),
        ("after-hello", Self::AfterHello),
        ("after-launched", Self::AfterLaunched),
        ("running", Self::Running),
    ];

    fn armed() -> Option<Self> {
        let value = std::env::var("REEVE_FAULT").ok()?;
        let name = value.strip_prefix("kill-worker@")?;
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        assert!(found.is_some(), "REEVE_FAULT names no step: {name}");
        found.map(|(_, step)| *step)
    }
}

/// Whether the environment asks for a fault at `step`.
pub(crate) fn is_at(step: Step) -> bool {
    #[cfg(feature = "fault-points")]
    {
        static ARMED: std::sync::LazyLock<Option<Step>> = std::sync::LazyLock::new(Step::armed);
        *ARMED == Some(step)
    }
    #[cfg(not(feature = "fault-points"))]
    {
        let _ = step;
        false
    }
}
