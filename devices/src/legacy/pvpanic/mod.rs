//! The port by which a guest's kernel says that it panicked: QEMU's pvpanic on the ISA bus
//! (QEMU, docs/specs/pvpanic), which stock kernels know as ACPI device `QEMU0001`.
//!
//! One port of 8 bits. Reading it gives the bits that are understood, writing it says what happened. Each
//! thing is told once until the machine is reset, however often a guest writes: a panic to whoever ends
//! the guest ([`PanicSink`]), a crash kernel that is about to be started as a flag that the worker takes
//! ([`PvPanic::take_crash_kernel`]). A shutdown by this port is one by ACPI.
//!
//! vCPU threads read and write, the control thread takes the flag; both under the device's lock.

use std::fmt::Debug;
use std::sync::Arc;

use crate::bus::{AccessError, BusDevice};
use crate::power::{PowerSink, Reset};
use crate::shared::Wake;
use crate::state::{Saveable, Schema, StateError};

mod state;
#[cfg(test)]
mod tests;

pub use self::state::PvPanicStateV1;

/// The guest's kernel has panicked, and does nothing more.
pub const PANICKED: u8 = 1 << 0;
/// It has panicked, and starts the kernel that it keeps for that: it has a use for its machine yet.
pub const CRASH_LOADED: u8 = 1 << 1;
/// It switches itself off.
pub const SHUTDOWN: u8 = 1 << 2;
/// What is understood.
const CAPABLE: u8 = PANICKED | CRASH_LOADED | SHUTDOWN;

/// Takes a guest's word that it is beyond help.
///
/// Called on the vCPU thread that wrote the port, with the device's lock held, once until the machine is
/// reset: an implementation records it, wakes whoever acts on it, and returns. The vCPU may run on for a
/// while.
pub trait PanicSink: Debug + Send + Sync {
    /// The guest's kernel has panicked.
    fn panicked(&self);
}

/// The worker's side of the port.
#[derive(Debug)]
pub struct PvPanicParams {
    /// Hears of a panic.
    pub panic: Arc<dyn PanicSink>,
    /// Hears of a shutdown.
    pub power: Arc<dyn PowerSink>,
    /// Woken when [`PvPanic::take_crash_kernel`] has something to give.
    pub news: Arc<dyn Wake>,
}

/// The port.
#[derive(Debug)]
pub struct PvPanic {
    /// What was told since the machine was last reset.
    told: u8,
    /// [`CRASH_LOADED`] was told and not taken yet.
    untaken: bool,
    panic: Arc<dyn PanicSink>,
    power: Arc<dyn PowerSink>,
    news: Arc<dyn Wake>,
}

impl PvPanic {
    /// Number of ports it takes.
    pub const PORTS: u64 = 1;

    /// A port by which nothing was said.
    #[must_use]
    pub fn new(params: PvPanicParams) -> Self {
        Self {
            told: 0,
            untaken: false,
            panic: params.panic,
            power: params.power,
            news: params.news,
        }
    }

    /// Whether the guest has said that it starts its crash kernel, and nobody has taken that.
    #[must_use]
    pub fn has_crash_kernel(&self) -> bool {
        self.untaken
    }

    /// As [`has_crash_kernel`](Self::has_crash_kernel); it is taken then.
    pub fn take_crash_kernel(&mut self) -> bool {
        std::mem::take(&mut self.untaken)
    }

    fn hear(&mut self, said: u8) {
        let new = said & !self.told;
        self.told |= said & (PANICKED | CRASH_LOADED);
        if new & CRASH_LOADED != 0 {
            self.untaken = true;
            self.news.wake();
        }
        if new & PANICKED != 0 {
            self.panic.panicked();
        } else if said & SHUTDOWN != 0 {
            self.power.power_off();
        }
    }
}

impl BusDevice for PvPanic {
    fn read(&mut self, _offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError);
        };
        *byte = CAPABLE;
        Ok(())
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError);
        };
        self.hear(byte & CAPABLE);
        Ok(())
    }
}

impl Reset for PvPanic {
    /// What was told of the guest before and not taken yet is still news.
    fn reset(&mut self) {
        self.told = 0;
    }
}

impl Saveable for PvPanic {
    fn schema(&self) -> Schema {
        PvPanicStateV1::SCHEMA
    }

    fn save(&self) -> Vec<u8> {
        PvPanicStateV1 {
            told: self.told,
            untaken: self.untaken,
        }
        .encode()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        let state = PvPanicStateV1::decode(version, bytes)?;
        self.told = state.told;
        self.untaken = state.untaken;
        if self.untaken {
            self.news.wake();
        }
        Ok(())
    }
}
