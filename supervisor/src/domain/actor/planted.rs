//! Bugs of the actor that tests of the simulation switch on, to see whether it finds them (feature
//! `fault-points`). Without the feature nothing here is compiled into anything.
//!
//! The switch is the thread's: schedules with and without it run side by side.

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A request that waits for the job before it is dropped.
    ForgetsWaiting,
    /// A record is told to be kept while it is being written.
    AnswersBeforeWritten,
    /// A record that could not be written is taken for written.
    IgnoresTheDisk,
    /// The status of a worker that is gone is not removed.
    KeepsTheStatus,
    /// What an earlier supervisor was ending is not ended.
    ForgetsTheIntent,
    /// The guest's own end is not dealt with.
    ForgetsTheEnd,
    /// Nobody tells whoever waits for a destroy when the process does not go.
    DestroyWaits,
    /// A domain outlives the client that it was bound to.
    OutlivesTheClient,
    /// A domain's policies hold though the host goes down.
    OutlivesTheHost,
    /// A worker that is found is started a second time.
    StartsTwice,
    /// A change of state is not told.
    TellsNobody,
    /// Resets that happened in silence are not known.
    ForgetsResets,
    /// A device that is gone is not taken out of what is known.
    ForgetsDevices,
    /// Devices that went while nobody heard are not looked for.
    ForgetsSilentDevices,
}

#[cfg(feature = "fault-points")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug into the actors of this thread, or takes it out.
#[cfg(feature = "fault-points")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether `bug` is planted.
pub(super) fn has(bug: Bug) -> bool {
    #[cfg(feature = "fault-points")]
    {
        PLANTED.get() == Some(bug)
    }
    #[cfg(not(feature = "fault-points"))]
    {
        let _ = bug;
        false
    }
}
