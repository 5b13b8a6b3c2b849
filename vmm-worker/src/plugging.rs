//! Devices that come, go and change while the machine stands: what the control thread does for it.
//!
//! ```text
//!  attach: spawner builds ──► on the bus ──► the guest's ACPI is told
//!  detach: the guest's ACPI is asked ··· it ejects ──► stopped, off the bus, closed ──► DeviceRemoved
//! ```
//! Ports of a serial controller come and go by themselves (`plugging/ports.rs`).
//! A device that takes its time to stop holds nothing up: the rest follows when it has. A device that the
//! guest was asked for and has not let go of goes at the next reset, as its driver does.

mod media;
mod ports;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use reeve_devices::block::SizeChange;
use reeve_devices::block::stats::{BlockStats, OperationCounters};
use reeve_devices::pci::Slot;
use reeve_devices::shared::{Shared, lock};
use reeve_devices::virtio::balloon::{BalloonControl, BalloonStat};
use reeve_devices::virtio::block::BlockControl;
use reeve_devices::virtio::net::DirectionCounters;
use reeve_ipc::device::{
    BalloonFigures, DeviceChange, DeviceFigures, DeviceReport, DirectionFigures, DiskFigures,
    GuestMemoryFigures, MemoryFigures, NicFigures, OperationFigures,
};
use reeve_ipc::error::{ErrorCode, WireError};
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{DeviceSpec, PciSlot};

pub use self::media::LatePeek;
use crate::build::devices::{Workshop, disk, nic, pci_slot};
use crate::build::{BuildError, Chipset};
use crate::device_set::{DeviceSet, DeviceSetError, Handle, STOP_PATIENCE};
use crate::news::{MemoryNews, PortNews};
use crate::notices::Notices;
use crate::spawner::Spawner;

/// How long the storage of a device that is to come may take to be read, while nothing else is done: less
/// than makes a supervisor take the worker for silent.
const BUILD_PATIENCE: Duration = Duration::from_secs(4);

/// The devices of a machine, and what more are made with.
#[derive(Debug)]
pub struct Plugging {
    /// Those that are there.
    pub devices: DeviceSet,
    /// Makes others, on the spawner.
    pub workshop: Shared<Workshop>,
    /// Where threads and rings can be made.
    pub spawner: Spawner,
    /// What devices and the guest have to tell.
    pub notices: Arc<Notices>,
    /// What storage owes to whoever looks at disks.
    pub late_peek: LatePeek,
}

impl From<DeviceSetError> for WireError {
    fn from(error: DeviceSetError) -> Self {
        let code = match &error {
            DeviceSetError::Unresponsive { .. } => ErrorCode::Timeout,
            DeviceSetError::Slot(_) | DeviceSetError::Empty(_) => ErrorCode::InvalidArgument,
            DeviceSetError::Stateless { .. } => ErrorCode::Unsupported,
        };
        Self::new(code, error.to_string())
    }
}

impl Plugging {
    /// Builds a device, puts it on the bus and tells the guest.
    ///
    /// # Errors
    /// What could not be built, or its slot is taken; nothing of it is left, and where its storage has not
    /// answered in time nothing will be once that has.
    pub fn attach(
        &mut self,
        spec: DeviceSpec,
        mut descriptors: FdTable,
        chipset: &Chipset,
    ) -> Result<(), WireError> {
        let workshop = Arc::clone(&self.workshop);
        let built = self
            .spawner
            .run_within(BUILD_PATIENCE, move || {
                lock(&workshop).build(spec, &mut descriptors)
            })
            .map_err(BuildError::from)??;
        let slot = built.slot();
        self.devices.insert(built)?;
        chipset.announce_slot(slot.number());
        Ok(())
    }

    /// Asks the guest to let go of a device, or takes it by force. [`turn`](Self::turn) tells when it is
    /// gone.
    ///
    /// # Errors
    /// There is no such device; or, by force, it has not finished what it had begun, and goes when it has.
    pub fn detach(
        &mut self,
        slot: PciSlot,
        force: bool,
        chipset: &Chipset,
    ) -> Result<(), WireError> {
        let slot = pci_slot(slot);
        if force {
            self.devices.remove(slot, STOP_PATIENCE)?;
        } else {
            self.devices.mark_leaving(slot)?;
            chipset.ask_for_slot(slot.number());
        }
        Ok(())
    }

    /// Takes away what the guest has let go of, as it was asked to, and goes on with what is being taken
    /// away; gives the slots whose devices are gone. What the guest was not asked for stays: one that
    /// ejects it has only lost sight of it.
    pub fn turn(&mut self) -> Vec<PciSlot> {
        for slot in self.notices.take_slots().filter_map(Slot::new) {
            if self.devices.is_leaving(slot) {
                self.begin_removal(slot);
            }
        }
        self.devices.turn();
        let gone = self.devices.take_gone().into_iter();
        gone.filter_map(|slot| PciSlot::try_from(slot.number()).ok())
            .collect()
    }

    /// Takes away what the guest was asked for: it is being reset, and all devices have stopped.
    pub fn remove_leaving(&mut self) {
        for slot in self.devices.leaving() {
            self.begin_removal(slot);
        }
        self.devices.turn();
    }

    fn begin_removal(&mut self, slot: Slot) {
        if let Err(error) = self.devices.begin_removal(slot) {
            tracing::warn!("{error}");
        }
    }

    /// Changes a device.
    ///
    /// # Errors
    /// There is none, or it is of another kind.
    pub fn update(&mut self, slot: PciSlot, change: DeviceChange) -> Result<(), WireError> {
        let slot = pci_slot(slot);
        let handle = self
            .devices
            .handle(slot)
            .ok_or(DeviceSetError::Empty(slot))?;
        match (handle, change) {
            (Handle::Nic(nic), DeviceChange::Link { up }) => nic.set_link(up),
            (Handle::Nic(handle), DeviceChange::NicRates { inbound, outbound }) => {
                handle.set_inbound(inbound.and_then(nic::bandwidth));
                handle.set_outbound(outbound.and_then(nic::bandwidth));
            }
            (Handle::Disk(disk), DeviceChange::DiskThrottle(limits)) => {
                disk.throttle().set(disk::limits(limits));
            }
            (Handle::Disk(disk), DeviceChange::DiskSize { bytes, shrink }) => {
                let change = SizeChange { to: bytes, shrink };
                return media::resize(&self.spawner, disk, change);
            }
            (Handle::Balloon(balloon), DeviceChange::BalloonTarget { bytes }) => {
                balloon.set_target(bytes);
            }
            (Handle::Balloon(balloon), DeviceChange::BalloonPoll) => balloon.request_stats(),
            (Handle::Memory(memory, _), DeviceChange::MemoryRequest { bytes }) => {
                memory.request(bytes);
            }
            _ => {
                return Err(WireError::new(
                    ErrorCode::InvalidArgument,
                    format!("the device in slot {slot} cannot be changed like that"),
                ));
            }
        }
        self.devices.note(slot, change);
        Ok(())
    }

    /// The disk in that slot.
    fn disk(&self, slot: PciSlot) -> Result<&BlockControl, WireError> {
        let slot = pci_slot(slot);
        match self.devices.handle(slot) {
            Some(Handle::Disk(disk)) => Ok(disk),
            Some(_) => {
                let why = format!("the device in slot {slot} is no disk");
                Err(WireError::new(ErrorCode::InvalidArgument, why))
            }
            None => Err(DeviceSetError::Empty(slot).into()),
        }
    }

    /// How large a disk is for its guest, in bytes.
    ///
    /// # Errors
    /// There is none.
    pub fn disk_bytes(&self, slot: PciSlot) -> Result<u64, WireError> {
        Ok(self.disk(slot)?.capacity())
    }

    /// Bytes of a disk.
    ///
    /// # Errors
    /// There is none, it has none there, or its storage cannot read them in time.
    pub fn peek(&mut self, slot: PciSlot, offset: u64, len: usize) -> Result<Vec<u8>, WireError> {
        let disk = self.disk(slot)?.clone();
        media::peek(&self.spawner, &mut self.late_peek, &disk, offset, len)
    }

    /// Gives a socket device another socket on which it asks for its guest's connections.
    ///
    /// # Errors
    /// There is none, or it is of another kind.
    pub fn set_acceptor(&mut self, slot: PciSlot, acceptor: OwnedFd) -> Result<(), WireError> {
        let slot = pci_slot(slot);
        let control = match self.devices.handle(slot) {
            Some(Handle::Vsock(control)) => control,
            Some(_) => {
                let why = format!("the device in slot {slot} is no socket device");
                return Err(WireError::new(ErrorCode::InvalidArgument, why));
            }
            None => return Err(DeviceSetError::Empty(slot).into()),
        };
        control.set_acceptor(Some(acceptor)).map_err(|errno| {
            let why = format!("not a socket to ask on: {errno}");
            WireError::new(ErrorCode::Descriptor, why)
        })
    }

    /// What each device has done, by rising slot.
    #[must_use]
    pub fn reports(&self) -> Vec<DeviceReport> {
        let reports = self.devices.handles().filter_map(|(slot, handle)| {
            Some(DeviceReport {
                slot: PciSlot::try_from(slot.number()).ok()?,
                figures: figures(handle),
            })
        });
        reports.collect()
    }

    /// What the guest has lent and plugged, if it has a balloon or a memory device.
    #[must_use]
    pub fn guest_memory(&self) -> Option<MemoryNews> {
        let mut news = None;
        for (_, handle) in self.devices.handles() {
            match handle {
                Handle::Balloon(balloon) => {
                    let news = news.get_or_insert(MemoryNews::default());
                    news.balloon_bytes = balloon.info().actual_bytes;
                }
                Handle::Memory(memory, _) => {
                    let news = news.get_or_insert(MemoryNews::default());
                    news.plugged_bytes = memory.info().plugged_bytes;
                }
                _ => {}
            }
        }
        news
    }

    /// Which ports the guest has open, if it has a serial controller.
    #[must_use]
    pub fn guest_ports(&self) -> Option<PortNews> {
        self.devices
            .handles()
            .find_map(|(slot, handle)| match handle {
                Handle::Ports(console) => Some(PortNews {
                    slot: PciSlot::try_from(slot.number()).ok()?,
                    guest_open: ports::figures(console).guest_open,
                }),
                _ => None,
            })
    }
}

fn figures(handle: &Handle) -> DeviceFigures {
    match handle {
        Handle::Disk(disk) => DeviceFigures::Disk(disk_figures(disk.stats())),
        Handle::Nic(nic) => {
            let counters = nic.counters();
            DeviceFigures::Nic(NicFigures {
                received: direction(counters.rx),
                sent: direction(counters.tx),
                by_kernel: nic.by_kernel(),
            })
        }
        Handle::Balloon(balloon) => {
            let info = balloon.info();
            DeviceFigures::Balloon(BalloonFigures {
                target_bytes: info.target_bytes,
                actual_bytes: info.actual_bytes,
                guest: guest_memory(balloon),
            })
        }
        Handle::Ports(console) => DeviceFigures::Ports(ports::figures(console)),
        Handle::Rng | Handle::Vsock(_) | Handle::Share | Handle::SwitchedNic => DeviceFigures::None,
        Handle::Memory(memory, _) => {
            let info = memory.info();
            DeviceFigures::Memory(MemoryFigures {
                requested_bytes: info.requested_bytes,
                plugged_bytes: info.plugged_bytes,
                most_bytes: info.region_bytes,
                block_bytes: info.block_bytes,
            })
        }
    }
}

fn disk_figures(stats: &BlockStats) -> DiskFigures {
    DiskFigures {
        reads: operations(&stats.reads),
        writes: operations(&stats.writes),
        flushes: operations(&stats.flushes),
        discards: operations(&stats.discards),
    }
}

fn operations(counters: &OperationCounters) -> OperationFigures {
    let figures = counters.read();
    OperationFigures {
        operations: figures.operations,
        bytes: figures.bytes,
        nanoseconds: figures.nanoseconds,
        errors: figures.errors,
    }
}

fn direction(counters: DirectionCounters) -> DirectionFigures {
    DirectionFigures {
        packets: counters.packets,
        bytes: counters.bytes,
        errors: counters.errors,
        drops: counters.drops,
    }
}

fn guest_memory(balloon: &BalloonControl) -> Option<GuestMemoryFigures> {
    let (stats, age): (_, Duration) = balloon.stats()?;
    Some(GuestMemoryFigures {
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        swap_in: stats.get(BalloonStat::SwapIn),
        swap_out: stats.get(BalloonStat::SwapOut),
        major_faults: stats.get(BalloonStat::MajorFaults),
        minor_faults: stats.get(BalloonStat::MinorFaults),
        free: stats.get(BalloonStat::Free),
        total: stats.get(BalloonStat::Total),
        available: stats.get(BalloonStat::Available),
        disk_caches: stats.get(BalloonStat::DiskCaches),
    })
}
