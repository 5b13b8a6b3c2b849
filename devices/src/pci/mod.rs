//! The PCI bus: configuration space, BARs, MSI-X, and the functions on it (PCI Express 6.0).
//!
//! Who looks for what: [`root`] finds the function that a configuration access means; a function keeps
//! its registers in a [`config_space::ConfigSpace`] and its interrupts in an [`msix::Msix`].
//!
//! ```text
//!  vCPU --> PortBus --> ConfigPorts --+
//!                                     +--> Root --> PciFunction: ConfigSpace, Msix --> MsiSink
//!  vCPU --> MmioBus --> Ecam ---------+     |            ^
//!              ^                            |            | bar_moved
//!              +------ regions of BARs -----+------------+
//! ```
//!
//! One bus, one function to a slot. A BAR is a region of the MMIO bus while its function decodes it
//! and its place is free; the root alone puts it there and takes it away.
//!
//! # Locks
//! From outer to inner, where a step may be left out:
//!
//! ```text
//!  Ecam, ConfigPorts  ->  the root's places of BARs  ->  function  ->  bus map
//!                                                        function  ->  Msix  ->  MsiSink
//! ```
//! The root holds the lock of places while it asks functions for their BARs and tells them where
//! those are: so a function, or whoever holds its lock, never calls the root. It is not held while a
//! function's registers are read or written: a slow one holds up only the way the access has taken.
//! The list of who is in which slot has a lock of its own, with which nothing is called.

pub mod config_space;
pub mod lpc;
pub mod msix;
pub mod root;

use std::fmt;

use crate::bus::BusDevice;
use crate::power::Reset;
use crate::shared::Shared;

use self::config_space::Change;

/// BARs of a type 0 function.
pub const BARS: usize = 6;

/// A device number on the root bus, 0 to 31. Slot 0 is the host bridge's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u8);

impl Slot {
    /// How many there are.
    pub const COUNT: u8 = 32;
    /// Where the host bridge is.
    pub const HOST_BRIDGE: Self = Self(0);

    /// The slot of that number, if there is one.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::COUNT {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// All slots, from 0.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00:{:02x}.0", self.0)
    }
}

/// A memory BAR as its function has it now.
pub struct Bar {
    /// Length in bytes: a power of two.
    pub size: u64,
    /// Guest-physical address, if the function decodes the BAR.
    pub address: Option<u64>,
    /// Who answers there; sees offsets from the start of the BAR.
    pub device: Shared<dyn BusDevice>,
}

impl fmt::Debug for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bar")
            .field("size", &self.size)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The BARs of a function, by index. A 64-bit BAR has the index of its lower half.
pub type Bars = [Option<Bar>; BARS];

/// A function of the bus.
///
/// Its lock is held for each call. Configuration accesses come on vCPU threads, the rest on those and
/// on the control thread. None blocks, but that a reset, for which the root holds no lock of its own,
/// may wait for the function's threads. None calls the [`root::Root`].
pub trait PciFunction: Reset {
    /// Fills `data` from the configuration space. `register` is a byte offset below 4096; `data` has
    /// 1, 2 or 4 bytes and lies inside one aligned dword.
    fn read_config(&mut self, register: u16, data: &mut [u8]);

    /// Takes a write to the configuration space, of a place and width as for
    /// [`read_config`](Self::read_config), and says what the root has to follow.
    fn write_config(&mut self, register: u16, data: &[u8]) -> Change;

    /// The BARs. Only the addresses ever differ between calls.
    fn bars(&self) -> Bars;

    /// `bar` is now a region of the MMIO bus at `address`, or is none any more. A BAR that moves goes
    /// away first. Not called for a BAR that finds no place.
    fn bar_moved(&mut self, bar: u8, address: Option<u64>);
}
