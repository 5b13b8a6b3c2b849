//! The registers by which a guest's ACPI methods learn what was plugged, and say what was ejected.
//!
//! ```text
//!  host: insert() ----------> PciHotplug / CpuHotplug --+ and raises the general-purpose event
//!        request_removal() ->    (registers)            |
//!                                  ^      |             v
//!  guest: \_GPE._Exx scans, Notify-+      +--> EjectSink: ejected
//!         _EJ0 writes the eject register
//! ```
//!
//! The layout is our own, since the tables that use it are too: [`pci`] for the slots of the root
//! bus, [`cpu`] for vCPUs. The host first says what has changed here, then raises the event of its
//! kind in [`AcpiPm`](super::acpi_pm::AcpiPm), which raises it again when a guest enables it that had
//! cleared it unseen ([`GpeSource`](super::acpi_pm::GpeSource)). A change is handed to the guest once: a
//! removal that it did not carry out is asked for again by another
//! [`request_removal`](pci::PciHotplug::request_removal) and another event.
//!
//! Nothing stops a guest from ejecting what nobody asked it to, or from writing any of this at any
//! time; an ejection is told to the [`EjectSink`] in any case, and its owner decides what it means.

use std::fmt::Debug;

use crate::bus::AccessError;

pub mod cpu;
pub mod pci;

/// What a guest has let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ejected {
    /// The function in a slot of the root bus, 1 to 31.
    Slot(u8),
    /// A vCPU, by its index; never that of the boot processor, 0.
    Vcpu(u32),
}

/// Takes a guest's word that it has let go of something.
///
/// Called on the vCPU thread that wrote the register, with the hotplug device's lock held, and as
/// often as the guest likes, also for a slot with nothing in it and without a request for it: an
/// implementation records the fact in memory of fixed size, wakes whoever acts on it, and returns.
/// It does not log each call.
pub trait EjectSink: Debug + Send + Sync {
    /// The guest no longer uses `what`.
    fn ejected(&self, what: Ejected);

    /// The guest has said what came of a request about a vCPU; what, [`cpu::CpuHotplug::take_answers`] says.
    fn answered(&self);
}

/// Ports of either kind of registers.
const PORTS: u64 = 16;

/// The register that an access of `width` bytes means: 32 bits, aligned, there are no others.
fn register(offset: u64, width: usize) -> Result<u64, AccessError> {
    if width == 4 && offset % 4 == 0 && offset < PORTS {
        Ok(offset)
    } else {
        Err(AccessError)
    }
}

#[cfg(test)]
mod testing {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};

    use super::{EjectSink, Ejected};
    use crate::shared::lock;

    /// Remembers ejections.
    #[derive(Debug, Default)]
    pub(super) struct RecordEject(Mutex<Vec<Ejected>>, AtomicU32);

    impl RecordEject {
        pub(super) fn new() -> Arc<Self> {
            Arc::new(Self::default())
        }

        pub(super) fn take(&self) -> Vec<Ejected> {
            std::mem::take(&mut lock(&self.0))
        }

        /// How often there were answers.
        pub(super) fn answers(&self) -> u32 {
            self.1.load(Ordering::Relaxed)
        }
    }

    impl EjectSink for RecordEject {
        fn ejected(&self, what: Ejected) {
            lock(&self.0).push(what);
        }

        fn answered(&self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }
}
