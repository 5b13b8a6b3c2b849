//! What happens to objects, numbered, so that a client which lost its connection goes on where it was.

use serde::{Deserialize, Serialize};

use super::view::{DomainState, JobKind};
use crate::model::{DeviceName, DomainName, DomainUuid, MemorySize};
use crate::spec::{PciSlot, WatchdogAction};

/// The place of an event among all events of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Drawn at random by each supervisor process: a number means nothing in another's epoch.
    pub epoch: u64,
    /// Rising by one from 1.
    pub number: u64,
}

/// An event of one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds since the epoch.
    pub time_ms: u64,
    /// The domain.
    pub uuid: DomainUuid,
    /// Its name at that time.
    pub name: DomainName,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to a domain. Positional: new ones come at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// It has a persistent definition now, or another one (`changed`).
    Defined {
        /// There was one before.
        changed: bool,
    },
    /// Its persistent definition is gone.
    Undefined,
    /// It has another name.
    Renamed {
        /// The name before.
        before: DomainName,
    },
    /// It is in another state, or in the same for another reason.
    State(DomainState),
    /// Its guest or a client reset the machine.
    Reset,
    /// A worker of a supervisor before this one was found and taken over.
    Adopted,
    /// Its worker does not answer.
    Unresponsive,
    /// Its worker answers again.
    Responsive,
    /// A job failed or was given up after its reply was due.
    JobFailed {
        /// Which.
        job: JobKind,
        /// One line.
        message: String,
    },
    /// It starts with the host now, or no longer does.
    Autostart {
        /// Its place in the order, lowest first.
        order: Option<u32>,
    },
    /// Title, description or metadata changed.
    Labels,
    /// It has a further device while it runs.
    DeviceAdded {
        /// What it is called.
        device: DeviceName,
        /// Its place on the bus.
        slot: PciSlot,
    },
    /// A device is gone while it runs: its guest has let go of it, or it was taken.
    DeviceRemoved {
        /// What it was called.
        device: DeviceName,
        /// Its place on the bus.
        slot: PciSlot,
    },
    /// Its guest has given its balloon memory, or taken some back; or it has plugged some, or unplugged it.
    BalloonChanged {
        /// What is left to the guest.
        memory: MemorySize,
    },
    /// It has more vCPUs while it runs, or fewer: its guest has let go of some.
    VcpusChanged {
        /// How many there are now.
        vcpus: u32,
    },
    /// Its guest's kernel has panicked, and starts the kernel that it keeps for that: it goes on.
    CrashKernel,
    /// Its guest has not reloaded its watchdog in time. What comes of what is done about it is told by events
    /// of its own.
    WatchdogExpired {
        /// What is done.
        action: WatchdogAction,
    },
    /// Its guest said that its kernel panicked. What its definition says of a crash follows.
    Panicked,
}
