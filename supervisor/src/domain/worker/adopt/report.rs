//! What a worker reports when it is found: whether that can be, and what it tells of its guest. Pure.

use reeve_ipc::event::{CrashCause, CrashReport, Event};
use reeve_ipc::phase::Phase;
use reeve_ipc::request::Standing;
use reeve_ipc::spec::SpecDigest;

use crate::domain::driver::{GuestEnd, Notice};

/// Whether what it says can be.
pub(super) fn check(standing: &Standing, digest: SpecDigest) -> Result<(), String> {
    if standing.digest != Some(digest) {
        return Err("protocol violation: it was launched as another one than recorded".to_owned());
    }
    if !standing.phase.has_machine() {
        return Err(format!(
            "protocol violation: it says that it is {}",
            standing.phase
        ));
    }
    let numbers = || standing.events.iter().map(|event| event.number);
    let rising = numbers().zip(numbers().skip(1)).all(|(a, b)| a < b);
    if !rising || numbers().max() > Some(standing.last_event) {
        return Err("protocol violation: the numbers of its events do not rise".to_owned());
    }
    Ok(())
}

/// Why the machine stands, where its guest has ended by itself.
pub(crate) fn end_of(standing: &Standing) -> Option<GuestEnd> {
    let mut events = standing.events.iter().rev().map(|event| &event.event);
    match standing.phase {
        Phase::Off => Some(
            events
                .find_map(|event| match event {
                    Event::GuestPoweredOff => Some(GuestEnd::PoweredOff),
                    Event::GuestWantsReset => Some(GuestEnd::Reset),
                    _ => None,
                })
                .unwrap_or(GuestEnd::PoweredOff),
        ),
        Phase::Crashed => Some(
            events
                .find_map(|event| match event {
                    Event::GuestCrashed(report) => Some(GuestEnd::Crashed(report.clone())),
                    _ => None,
                })
                .unwrap_or_else(crashed_unseen),
        ),
        _ => None,
    }
}

/// What happened while there was no supervisor to be told, and is not to be seen from how the machine stands.
/// There are no more events than a report may have.
pub(crate) fn missed_of(standing: &Standing) -> Vec<Notice> {
    let events = standing.events.iter();
    let missed = events.filter(|event| event.number > standing.told);
    missed
        .filter_map(|event| match &event.event {
            Event::GuestCrashKernel => Some(Notice::CrashKernel),
            Event::WatchdogExpired { action } => Some(Notice::Watchdog(*action)),
            Event::GuestCrashed(report) if report.cause == CrashCause::Panicked => {
                Some(Notice::Panicked)
            }
            _ => None,
        })
        .collect()
}

/// A crash whose report was lost, or a reset that failed: `KVM_EXIT_UNKNOWN`.
pub(crate) fn crashed_unseen() -> GuestEnd {
    GuestEnd::Crashed(CrashReport {
        vcpu: 0,
        cause: CrashCause::UnhandledExit { reason: 0 },
        registers: None,
    })
}

#[cfg(test)]
mod tests;
