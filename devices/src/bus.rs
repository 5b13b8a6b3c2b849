//! The two buses a vCPU reaches devices by: port I/O and MMIO.
//!
//! vCPU threads call [`Bus::read`] and [`Bus::write`] on every exit, concurrently. The region map
//! is a sorted vector behind a read-write lock that is released before the device's own lock is
//! taken, so regions can come and go at run time and a slow handler holds up only its own device.
//!
//! An access lies wholly inside one region or is unclaimed: unclaimed reads give all ones,
//! unclaimed writes vanish, as on a bus where no target answers.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{PoisonError, RwLock};

use crate::error::{FaultLog, GuestFault};
use crate::shared::{Shared, lock};

#[cfg(test)]
mod tests;

/// The register interface of a device.
///
/// Called on vCPU threads with the device's lock held. `offset` counts from the start of the
/// region (see [`Bus::insert_at`]) and `offset + data.len()` lies inside it; `data` has 1, 2, 4 or
/// 8 bytes, little-endian. Handlers do not allocate, block or panic, whatever the guest does.
pub trait BusDevice: Send {
    /// Fills `data`.
    ///
    /// # Errors
    /// The bus then answers with all ones.
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError>;

    /// Takes `data`.
    ///
    /// # Errors
    /// The bus then drops the write.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError>;
}

/// The device has no register of that width at that offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no register of this width at this offset")]
pub struct AccessError;

/// A typed address of one of the address spaces.
pub trait BusAddress: Copy + fmt::Debug {
    /// Name of the address space, for messages.
    const SPACE: &'static str;
    /// Highest address of the space.
    const LAST: u64;

    /// The plain number.
    fn value(self) -> u64;
}

/// An I/O port number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port(pub u16);

impl BusAddress for Port {
    const SPACE: &'static str = "port";
    const LAST: u64 = u16::MAX as u64;

    fn value(self) -> u64 {
        self.0.into()
    }
}

/// A guest-physical address outside RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MmioAddress(pub u64);

impl BusAddress for MmioAddress {
    const SPACE: &'static str = "mmio";
    const LAST: u64 = u64::MAX;

    fn value(self) -> u64 {
        self.0
    }
}

/// Why a region could not be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// A region of no bytes.
    #[error("{space} region at {start:#x} is empty")]
    Empty {
        /// Name of the address space.
        space: &'static str,
        /// First address.
        start: u64,
    },
    /// A region that ends beyond the address space.
    #[error("{space} region of {len:#x} bytes at {start:#x} ends beyond the address space")]
    Overflow {
        /// Name of the address space.
        space: &'static str,
        /// First address.
        start: u64,
        /// Length in bytes.
        len: u64,
    },
    /// A region that shares an address with one already there.
    #[error("{space} region of {len:#x} bytes at {start:#x} overlaps the region at {other:#x}")]
    Overlap {
        /// Name of the address space.
        space: &'static str,
        /// First address.
        start: u64,
        /// Length in bytes.
        len: u64,
        /// First address of the region already there.
        other: u64,
    },
    /// No region starts at the address.
    #[error("no {space} region starts at {start:#x}")]
    NotFound {
        /// Name of the address space.
        space: &'static str,
        /// The address.
        start: u64,
    },
}

/// The port I/O bus.
pub type PortBus = Bus<Port>;
/// The MMIO bus.
pub type MmioBus = Bus<MmioAddress>;

/// One address space and the devices in it.
pub struct Bus<A> {
    /// Sorted by `first`, no two overlapping.
    regions: RwLock<Vec<Region>>,
    faults: FaultLog,
    address: PhantomData<fn(A)>,
}

struct Region {
    first: u64,
    last: u64,
    /// What the device is told for an access to `first`.
    offset: u64,
    device: Shared<dyn BusDevice>,
}

impl<A: BusAddress> Bus<A> {
    /// A bus without devices.
    pub const fn new() -> Self {
        Self {
            regions: RwLock::new(Vec::new()),
            faults: FaultLog::new(),
            address: PhantomData,
        }
    }

    /// Gives the `len` addresses from `start` to `device`, which sees offsets from 0.
    ///
    /// # Errors
    /// An empty region, or one that overlaps another or leaves the address space.
    pub fn insert(
        &self,
        start: A,
        len: u64,
        device: Shared<dyn BusDevice>,
    ) -> Result<(), BusError> {
        self.insert_at(start, len, 0, device)
    }

    /// As [`insert`](Bus::insert), but the device sees offsets from `offset`: for a device whose
    /// registers lie in several regions.
    ///
    /// # Errors
    /// As for `insert`.
    pub fn insert_at(
        &self,
        start: A,
        len: u64,
        offset: u64,
        device: Shared<dyn BusDevice>,
    ) -> Result<(), BusError> {
        let (space, first) = (A::SPACE, start.value());
        let reach = len.checked_sub(1).ok_or(BusError::Empty {
            space,
            start: first,
        })?;
        let last = first
            .checked_add(reach)
            .filter(|last| *last <= A::LAST && offset.checked_add(len).is_some())
            .ok_or(BusError::Overflow {
                space,
                start: first,
                len,
            })?;
        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        let position = regions.partition_point(|region| region.first <= last);
        // The last region that starts at or before our end is the only one that can reach in.
        let neighbour = position
            .checked_sub(1)
            .and_then(|before| regions.get(before));
        if let Some(other) = neighbour.filter(|region| region.last >= first) {
            return Err(BusError::Overlap {
                space,
                start: first,
                len,
                other: other.first,
            });
        }
        regions.insert(
            position,
            Region {
                first,
                last,
                offset,
                device,
            },
        );
        Ok(())
    }

    /// Takes away the region that starts at `start` and gives its device back.
    ///
    /// An access that found the region before may still run, or begin to run, afterwards: then a vCPU
    /// thread holds the device too, and is perhaps the last to. Where dropping it closes descriptors, whoever
    /// removed it keeps it until nobody else has it.
    ///
    /// # Errors
    /// No region starts there.
    pub fn remove(&self, start: A) -> Result<Shared<dyn BusDevice>, BusError> {
        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        let start = start.value();
        regions
            .binary_search_by_key(&start, |region| region.first)
            .map(|position| regions.remove(position).device)
            .map_err(|_| BusError::NotFound {
                space: A::SPACE,
                start,
            })
    }

    /// A guest read of `data.len()` bytes; true if a device answered. Otherwise `data` is filled
    /// with ones.
    pub fn read(&self, address: A, data: &mut [u8]) -> bool {
        let answer = self
            .find(address, data.len())
            .ok_or(AccessError)
            .and_then(|(device, offset)| lock(&device).read(offset, data));
        if answer.is_err() {
            data.fill(0xff);
            self.faults.report(GuestFault::UnclaimedRead {
                space: A::SPACE,
                address: address.value(),
                width: data.len(),
            });
        }
        answer.is_ok()
    }

    /// A guest write of `data`; true if a device took it.
    pub fn write(&self, address: A, data: &[u8]) -> bool {
        let answer = self
            .find(address, data.len())
            .ok_or(AccessError)
            .and_then(|(device, offset)| lock(&device).write(offset, data));
        if answer.is_err() {
            self.faults.report(GuestFault::UnclaimedWrite {
                space: A::SPACE,
                address: address.value(),
                width: data.len(),
            });
        }
        answer.is_ok()
    }

    /// The device for an access and the offset it shall see. The map is unlocked on return.
    fn find(&self, address: A, width: usize) -> Option<(Shared<dyn BusDevice>, u64)> {
        if !matches!(width, 1 | 2 | 4 | 8) {
            return None;
        }
        let first = address.value();
        let last = first.checked_add(width as u64 - 1)?;
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        let position = regions
            .partition_point(|region| region.first <= first)
            .checked_sub(1)?;
        let region = regions.get(position).filter(|region| last <= region.last)?;
        Some((
            region.device.clone(),
            region.offset + (first - region.first),
        ))
    }
}

impl<A: BusAddress> Default for Bus<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: BusAddress> fmt::Debug for Bus<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        f.write_str(A::SPACE)?;
        f.debug_list()
            .entries(regions.iter().map(|region| region.first..=region.last))
            .finish()
    }
}
