//! The body of a vCPU thread.
//!
//! Its role's filter closes before anything else; then it saves the power-on state, and from there
//! on it stands or runs as its slot says.

use std::sync::{Arc, Mutex, PoisonError};

use reeve_sandbox::seccomp::{Role, enter_role};

use super::exit::{Platform, Step};
use super::slot::{Cargo, Order, Slot};
use crate::kvm::{ImmediateExit, Vcpu};

/// More pieces than KVM splits any access into.
const MAX_PIECES: usize = 64;

/// A register access and a log line need little; what is not touched costs nothing.
pub(super) const STACK_BYTES: usize = 256 << 10;

/// Runs the vCPU in `place`, and gives it back at its end.
pub(super) fn body(
    place: Arc<Mutex<Option<Vcpu>>>,
    slot: Arc<Slot>,
    platform: Arc<Platform>,
) -> impl FnOnce() -> Option<Vcpu> {
    move || {
        let mut vcpu = place
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()?;
        crate::failure::or_exit(
            enter_role(Role::Vcpu),
            "cannot close the filter of a vCPU thread",
        );
        let flag = vcpu.immediate_exit();
        let mut ran = false;
        loop {
            match slot.stand() {
                Order::Run => {
                    #[cfg(feature = "attack-points")]
                    crate::attack::strike(Role::Vcpu);
                    if ran {
                        // A guest that knows kvmclock then does not take the pause for a lockup.
                        // One that does not use it has no such clock to tell.
                        let _ = vcpu.note_pause();
                    }
                    ran = true;
                    run(&mut vcpu, &flag, &slot, &platform);
                }
                Order::Reset => {
                    reset(&mut vcpu, &platform);
                    ran = false;
                    slot.done();
                }
                Order::Save => {
                    slot.put(match vcpu.save() {
                        Ok(state) => Cargo::State(Box::new(state)),
                        Err(error) => Cargo::Refused(error),
                    });
                    slot.done();
                }
                Order::Restore => {
                    slot.put(restore(&vcpu, slot.take()));
                    // It ran where it was saved, and was away since.
                    ran = true;
                    slot.done();
                }
                // Closed by whoever joins: this role's filter lets it close nothing.
                Order::Quit | Order::Park => return Some(vcpu),
            }
        }
    }
}

/// Back to power-on, and to the entry that the loaded kernel wants.
fn reset(vcpu: &mut Vcpu, platform: &Platform) {
    let entry = (vcpu.index() == 0).then(|| platform.entry());
    let result = vcpu
        .reset()
        .and_then(|()| vcpu.prepare_boot())
        .and_then(|()| entry.map_or(Ok(()), |entry| vcpu.enter(&entry)));
    crate::failure::or_exit(result, "cannot reset a vCPU");
}

/// Puts the state back that came with the order.
fn restore(vcpu: &Vcpu, cargo: Cargo) -> Cargo {
    match cargo {
        Cargo::State(state) => match vcpu.restore(&state) {
            Ok(()) => Cargo::Nothing,
            Err(error) => Cargo::Refused(error),
        },
        other => other,
    }
}

/// Runs the guest until there is an order, or an end.
fn run(vcpu: &mut Vcpu, flag: &ImmediateExit, slot: &Slot, platform: &Platform) {
    // A kick that was meant for the last stand; an order given since is seen below.
    flag.set(false);
    while !slot.has_order() {
        match platform.step(vcpu) {
            Step::Handled => {}
            // Cleared before the order is looked at again: a kick whose order was taken back must
            // not make every later entry return at once.
            Step::Interrupted => flag.set(false),
            Step::Stopped => slot.park_self(),
        }
        if platform.end.is_pending() {
            slot.park_self();
        }
    }
    // The access whose exit was handled last is completed by the next entry, which then ends at once;
    // but an access in several pieces exits once for each.
    flag.set(true);
    for _ in 0..MAX_PIECES {
        if platform.step(vcpu) != Step::Handled {
            break;
        }
    }
    flag.set(false);
}
