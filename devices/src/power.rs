//! What a guest may ask of the machine as a whole.

use std::fmt::Debug;

/// Takes the guest's wish to be switched off or reset.
///
/// Called on the vCPU thread that wrote the register, with that device's lock held: an
/// implementation records the request, wakes whoever carries it out, and returns. The machine is
/// reset or stopped later and by someone else; the writing vCPU may run on for a while and repeat
/// the request as fast as it can. Devices do not log it: the implementation logs the first.
pub trait PowerSink: Debug + Send + Sync {
    /// The guest switched itself off (ACPI S5).
    fn power_off(&self);

    /// The guest asked for a reset of the whole machine.
    fn reset(&self);
}

/// A device that takes part in a machine reset.
pub trait Reset: Send {
    /// Goes to the state after power-on, lowering the device's interrupt line. What a real machine
    /// keeps across a reset is kept: host-side connections and battery-backed memory.
    ///
    /// Called with every vCPU stopped.
    fn reset(&mut self);
}
