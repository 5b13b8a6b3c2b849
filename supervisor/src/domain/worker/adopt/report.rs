//! What a worker reports when it is found: whether that can be, and what it tells of its guest. Pure.

use reeve_ipc::event::{CrashCause, CrashReport, Event};
use reeve_ipc::phase::Phase;
use reeve_ipc::request::Standing;
use reeve_ipc::spec::SpecDigest;

use crate::domain::driver::GuestEnd;

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
