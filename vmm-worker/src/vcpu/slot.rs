//! Where one vCPU thread takes its orders and says that it has carried them out.
//!
//! ```text
//!            Run                       Park, and a kick
//!  standing ─────► running in KVM_RUN ──────────────────► standing
//!     │ Reset: power-on state again, still standing
//!     │ Save, Restore: its state out or in, still standing
//!     └ Quit: the thread ends
//! ```
//!
//! The control thread gives orders and waits; the vCPU thread looks at `attention`, one atomic load,
//! between two exits, and at the rest only when it is set. No order is lost: it is written before
//! the kick is sent, and the kick makes `KVM_RUN` return even when it comes before it is entered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::kvm::KvmError;
use crate::state::VcpuStateV1;

/// What a vCPU thread is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Stand between two instructions.
    Park,
    /// Run the guest.
    Run,
    /// Go back to the power-on state and stand.
    Reset,
    /// Leave the state of the vCPU in the slot and stand.
    Save,
    /// Take the state that is in the slot and stand.
    Restore,
    /// End the thread.
    Quit,
}

impl Order {
    /// Whether a thread that has carried it out stands, as before.
    fn is_errand(self) -> bool {
        matches!(self, Self::Reset | Self::Save | Self::Restore)
    }
}

/// What goes with an order, or comes of it.
#[derive(Debug, Default)]
pub enum Cargo {
    /// Nothing.
    #[default]
    Nothing,
    /// The state of the vCPU.
    State(Box<VcpuStateV1>),
    /// KVM refused.
    Refused(KvmError),
}

#[derive(Debug)]
struct State {
    order: Order,
    standing: bool,
    cargo: Cargo,
}

/// The order book of one vCPU.
#[derive(Debug)]
pub struct Slot {
    attention: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Slot {
    /// A slot whose thread shall stand as soon as it exists.
    #[must_use]
    pub fn new() -> Self {
        Self {
            attention: AtomicBool::new(true),
            state: Mutex::new(State {
                order: Order::Park,
                standing: false,
                cargo: Cargo::Nothing,
            }),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an order. A running vCPU sees it at its next exit: kick it.
    pub fn give(&self, order: Order) {
        let mut state = self.state();
        state.order = order;
        if order.is_errand() {
            state.standing = false;
        }
        self.attention.store(order != Order::Run, Ordering::SeqCst);
        self.changed.notify_all();
    }

    /// Puts in the slot what goes with the next order, or what came of the last.
    pub fn put(&self, cargo: Cargo) {
        self.state().cargo = cargo;
    }

    /// Takes it out.
    pub fn take(&self) -> Cargo {
        std::mem::take(&mut self.state().cargo)
    }

    /// On the vCPU thread: stands of its own accord, unless it was ordered something else.
    pub fn park_self(&self) {
        let mut state = self.state();
        if state.order == Order::Run {
            state.order = Order::Park;
            self.attention.store(true, Ordering::SeqCst);
        }
    }

    /// Waits until the thread stands with its order carried out; false when `deadline` passes.
    pub fn wait_standing(&self, deadline: Instant) -> bool {
        let mut state = self.state();
        while !(state.standing && state.order == Order::Park) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// On the vCPU thread, between two exits: whether it must stop running.
    #[must_use]
    pub fn has_order(&self) -> bool {
        self.attention.load(Ordering::SeqCst)
    }

    /// On the vCPU thread: stands until there is something to do, and says what. Never
    /// [`Order::Park`].
    pub fn stand(&self) -> Order {
        let mut state = self.state();
        loop {
            match state.order {
                Order::Park => {
                    state.standing = true;
                    self.changed.notify_all();
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                order => {
                    state.standing = false;
                    return order;
                }
            }
        }
    }

    /// On the vCPU thread, after an order that leaves it standing: done, unless a newer one came
    /// meanwhile.
    pub fn done(&self) {
        let mut state = self.state();
        if state.order.is_errand() {
            state.order = Order::Park;
        }
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn a_thread_stands_runs_resets_and_quits_on_order() {
        let slot = Arc::new(Slot::new());
        let thread = std::thread::spawn({
            let slot = Arc::clone(&slot);
            move || {
                let mut seen = Vec::new();
                loop {
                    let order = slot.stand();
                    seen.push(order);
                    match order {
                        Order::Run => {
                            while !slot.has_order() {
                                std::thread::yield_now();
                            }
                        }
                        Order::Reset | Order::Save => slot.done(),
                        Order::Restore => {
                            let cargo = slot.take();
                            assert!(matches!(cargo, Cargo::Nothing), "{cargo:?}");
                            slot.put(Cargo::Refused(KvmError::TooManyMsrs(7)));
                            slot.done();
                        }
                        Order::Quit | Order::Park => return seen,
                    }
                }
            }
        });
        assert!(slot.wait_standing(soon()));
        slot.give(Order::Run);
        slot.give(Order::Park);
        assert!(slot.wait_standing(soon()));
        slot.give(Order::Reset);
        assert!(slot.wait_standing(soon()));
        slot.give(Order::Restore);
        assert!(slot.wait_standing(soon()));
        assert!(matches!(slot.take(), Cargo::Refused(_)));
        slot.give(Order::Quit);
        let seen = thread.join().expect("the thread ends");
        assert_eq!(seen.last(), Some(&Order::Quit));
        assert!(seen.contains(&Order::Reset));
    }

    #[test]
    fn a_thread_that_does_not_stand_is_reported_at_the_deadline() {
        let slot = Slot::new();
        assert!(!slot.wait_standing(Instant::now() + Duration::from_millis(5)));
    }
}
