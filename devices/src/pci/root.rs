//! The root bus and the ways a guest reaches configuration space.
//!
//! Bus 0 with a host bridge in slot 0 and one function in each other slot that is taken. The root
//! puts the BARs that functions decode on the MMIO bus, and follows every change: a configuration
//! write first reaches its function, and is over for the vCPU when the BARs are where they now belong.
//!
//! ```text
//!  write_config -> Change::Decoding --+
//!  insert, remap, reset --------------+--> for each BAR: unmap from the old place, bar_moved(None)
//!  remove ----------------------------+                  map at the new one,       bar_moved(Some)
//! ```
//!
//! A BAR is mapped only if it is wholly inside one window, and if its place is free. One that overlaps
//! another region waits, unmapped, until it moves or something else has moved away.
//!
//! vCPU threads access functions, the control thread inserts, removes and resets. Locks are in the
//! documentation of [`pci`](super).

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};

use super::config_space::Change;
use super::{BARS, Bar, PciFunction, Slot};
use crate::bus::{MmioAddress, MmioBus};
use crate::error::{FaultLog, GuestFault};
use crate::power::Reset;
use crate::shared::{Shared, lock, share};
use crate::state::{Saveable, Schema, StateError};

use self::host_bridge::HostBridge;

pub use self::access::{ConfigPorts, Ecam, MovableEcam};
pub use self::host_bridge::EcamPlace;

mod access;
mod host_bridge;
#[cfg(test)]
mod tests;

/// Where BARs may be: guest-physical addresses with neither RAM nor other devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// Below 4 GiB.
    pub memory32: Range<u64>,
    /// Above.
    pub memory64: Range<u64>,
}

impl Windows {
    fn contain(&self, address: u64, size: u64) -> bool {
        address.checked_add(size).is_some_and(|end| {
            [&self.memory32, &self.memory64]
                .into_iter()
                .any(|window| window.start <= address && end <= window.end)
        })
    }
}

/// Why a function could not be put into a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// There is a function already.
    #[error("PCI slot {0} is taken")]
    Taken(Slot),
}

/// Where a BAR is on the MMIO bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nowhere: it is not decoded, or outside the windows.
    Nowhere,
    /// Mapped.
    At(u64),
    /// Nowhere, because something else is there.
    Waiting,
}

type Places = [[Place; BARS]; Slot::COUNT as usize];

/// The root bus. A handle: clones are the same bus.
#[derive(Clone)]
pub struct Root(Arc<Inner>);

struct Inner {
    mmio: Arc<MmioBus>,
    windows: Windows,
    host_bridge: Shared<HostBridge>,
    functions: Mutex<[Option<Shared<dyn PciFunction>>; Slot::COUNT as usize]>,
    /// Held while BARs are moved, so that two moves do not mix.
    places: Mutex<Places>,
    faults: FaultLog,
}

impl Root {
    /// A bus with nothing on it but the host bridge. BARs go to `windows` of `mmio`.
    #[must_use]
    pub fn new(mmio: Arc<MmioBus>, windows: Windows) -> Self {
        Self(Arc::new(Inner::new(mmio, windows, HostBridge::new())))
    }

    /// As [`new`](Self::new), with the host bridge that firmware for PCs knows, by which it says where in the
    /// windows configuration space is.
    #[must_use]
    pub fn with_memory_controller(mmio: Arc<MmioBus>, windows: Windows) -> Self {
        Self(Arc::new_cyclic(|inner| {
            let ecam = share(MovableEcam::new(WeakRoot(Weak::clone(inner))));
            Inner::new(mmio, windows, HostBridge::memory_controller(ecam))
        }))
    }

    /// Where configuration space is in memory, if the guest's firmware says that.
    #[must_use]
    pub fn ecam_place(&self) -> Option<EcamPlace> {
        lock(&self.0.host_bridge).ecam_place()
    }
}

/// The bus, for what is on it.
#[derive(Clone)]
struct WeakRoot(Weak<Inner>);

impl WeakRoot {
    fn get(&self) -> Option<Root> {
        self.0.upgrade().map(Root)
    }
}

impl Inner {
    fn new(mmio: Arc<MmioBus>, windows: Windows, host_bridge: HostBridge) -> Self {
        let host_bridge = share(host_bridge);
        let mut functions = [const { None }; Slot::COUNT as usize];
        if let Some(slot) = functions.first_mut() {
            let function: Shared<dyn PciFunction> = host_bridge.clone();
            *slot = Some(function);
        }
        Self {
            mmio,
            windows,
            host_bridge,
            functions: Mutex::new(functions),
            places: Mutex::new([[Place::Nowhere; BARS]; Slot::COUNT as usize]),
            faults: FaultLog::new(),
        }
    }
}

impl Root {
    /// Puts `function` into `slot`, and its BARs where it decodes them already. Its lock is not held.
    ///
    /// # Errors
    /// [`SlotError`]; nothing has changed then.
    pub fn insert(&self, slot: Slot, function: Shared<dyn PciFunction>) -> Result<(), SlotError> {
        {
            let mut functions = lock(&self.0.functions);
            let entry = functions
                .get_mut(usize::from(slot.number()))
                .filter(|entry| entry.is_none())
                .ok_or(SlotError::Taken(slot))?;
            *entry = Some(function);
        }
        self.remap(slot);
        Ok(())
    }

    /// Takes the function out of `slot`, its BARs off the MMIO bus, and gives it back. The host bridge
    /// stays. An access that found the function before may still run, or begin to run, afterwards, as with
    /// [`Bus::remove`](crate::bus::Bus::remove); none maps its BARs any more.
    pub fn remove(&self, slot: Slot) -> Option<Shared<dyn PciFunction>> {
        if slot == Slot::HOST_BRIDGE {
            return None;
        }
        let mut places = lock(&self.0.places);
        let function = lock(&self.0.functions)
            .get_mut(usize::from(slot.number()))?
            .take()?;
        let bars = places.get_mut(usize::from(slot.number()))?;
        let mut freed = false;
        for (bar, place) in (0..).zip(bars) {
            freed |= self.unmap(place, bar, &mut *lock(&function));
        }
        if freed {
            self.retry(&mut places);
        }
        Some(function)
    }

    /// The lowest slot that is not taken.
    #[must_use]
    pub fn free_slot(&self) -> Option<Slot> {
        Slot::all().find(|slot| self.function(*slot).is_none())
    }

    /// The function in `slot`.
    #[must_use]
    pub fn function(&self, slot: Slot) -> Option<Shared<dyn PciFunction>> {
        lock(&self.0.functions)
            .get(usize::from(slot.number()))
            .cloned()
            .flatten()
    }

    /// Puts the BARs of the function in `slot` where it decodes them now. To be called after its state
    /// was restored; its lock is not held.
    pub fn remap(&self, slot: Slot) {
        let mut places = lock(&self.0.places);
        if self.follow(&mut places, slot) {
            self.retry(&mut places);
        }
    }

    /// Reads a register of the function in `slot`; all ones if there is none.
    fn read_config(&self, slot: Slot, register: u16, data: &mut [u8]) {
        match self.function(slot) {
            Some(function) => lock(&function).read_config(register, data),
            None => data.fill(0xff),
        }
    }

    /// Writes a register of the function in `slot`, if there is one.
    fn write_config(&self, slot: Slot, register: u16, data: &[u8]) {
        let Some(function) = self.function(slot) else {
            return;
        };
        let change = lock(&function).write_config(register, data);
        // The slot may have another function by now, which is where it belongs already.
        if change == Change::Decoding {
            self.remap(slot);
        }
    }

    /// Moves the BARs of `slot` to where they belong; whether a region has become free.
    fn follow(&self, places: &mut Places, slot: Slot) -> bool {
        let number = slot.number();
        let (Some(function), Some(places)) =
            (self.function(slot), places.get_mut(usize::from(number)))
        else {
            return false;
        };
        let mut function = lock(&function);
        let bars = function.bars();
        let wanted = |bar: &Bar| {
            bar.address
                .filter(|address| self.0.windows.contain(*address, bar.size))
        };
        let mut freed = false;
        // All that leaves goes first: two BARs of a function may change places.
        for (index, (bar, place)) in (0..).zip(bars.iter().zip(&mut *places)) {
            let wanted = bar.as_ref().and_then(wanted);
            if wanted.map(Place::At) != Some(*place) {
                freed |= self.unmap(place, index, &mut *function);
            }
            if let (None, Some(address)) = (wanted, bar.as_ref().and_then(|bar| bar.address)) {
                self.0.faults.report(GuestFault::BarOutside {
                    slot: number,
                    bar: index,
                    address,
                });
            }
        }
        for (index, (bar, place)) in (0..).zip(bars.into_iter().zip(places)) {
            let Some(bar) = bar else { continue };
            let Some(address) = wanted(&bar).filter(|address| *place != Place::At(*address)) else {
                continue;
            };
            let mapped = self
                .0
                .mmio
                .insert(MmioAddress(address), bar.size, bar.device);
            if mapped.is_ok() {
                *place = Place::At(address);
                function.bar_moved(index, Some(address));
            } else {
                *place = Place::Waiting;
                self.0.faults.report(GuestFault::BarOverlap {
                    slot: number,
                    bar: index,
                    address,
                });
            }
        }
        freed
    }

    /// Tries again to place what waits for a place.
    fn retry(&self, places: &mut Places) {
        let mut freed = true;
        // Again only if a waiting function was being written to by another vCPU, which then waits for
        // us: so no more often than there are vCPUs.
        while std::mem::take(&mut freed) {
            for slot in Slot::all() {
                let waits = places
                    .get(usize::from(slot.number()))
                    .is_some_and(|bars| bars.contains(&Place::Waiting));
                if waits {
                    freed |= self.follow(places, slot);
                }
            }
        }
    }

    /// Takes a BAR off the MMIO bus, if it is there; whether it was.
    fn unmap(&self, place: &mut Place, bar: u8, function: &mut dyn PciFunction) -> bool {
        let Place::At(address) = std::mem::replace(place, Place::Nowhere) else {
            return false;
        };
        // Nobody else takes our regions away.
        let _ = self.0.mmio.remove(MmioAddress(address));
        function.bar_moved(bar, None);
        true
    }
}

/// Resets every function, and then takes their BARs off the MMIO bus, as none decodes any more.
impl Reset for Root {
    fn reset(&mut self) {
        for function in Slot::all().filter_map(|slot| self.function(slot)) {
            lock(&function).reset();
        }
        Slot::all().for_each(|slot| self.remap(slot));
    }
}

/// The host bridge. Every other function is saved by whoever made it.
impl Saveable for Root {
    fn schema(&self) -> Schema {
        HostBridge::SCHEMA
    }

    fn save(&self) -> Vec<u8> {
        lock(&self.0.host_bridge).save()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        lock(&self.0.host_bridge).restore(version, bytes)
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = Slot::all().filter(|slot| self.function(*slot).is_some());
        f.debug_struct("Root")
            .field("windows", &self.0.windows)
            .field("slots", &taken.map(Slot::number).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
