//! What happens to objects, numbered, so that a client which lost its connection goes on where it was.

use serde::{Deserialize, Serialize};

use super::call::TuningChange;
use super::view::{DomainState, JobKind};
use crate::model::{
    DeviceName, DomainName, DomainUuid, MemorySize, NetworkName, NetworkUuid, PoolName, PoolUuid,
    PortUuid,
};
use crate::spec::{PciSlot, WatchdogAction};

/// The most bytes of the changes of a [`EventKind::Tuned`], as a decoder counts them.
pub const MAX_TUNED_BYTES: usize = 4096;

/// The place of an event among all events of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Drawn at random by each supervisor process: a number means nothing in another's epoch.
    pub epoch: u64,
    /// Rising by one from 1.
    pub number: u64,
}

/// Something that happened. Positional: new ones come at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// To a domain.
    Domain(DomainEvent),
    /// To a storage pool.
    Pool(PoolEvent),
    /// To a virtual network.
    Network(NetworkEvent),
}

impl Event {
    /// The event, if it is a domain's.
    #[must_use]
    pub fn of_domain(self) -> Option<DomainEvent> {
        match self {
            Self::Domain(event) => Some(event),
            Self::Pool(_) | Self::Network(_) => None,
        }
    }

    /// The event, if it is a pool's.
    #[must_use]
    pub fn of_pool(self) -> Option<PoolEvent> {
        match self {
            Self::Pool(event) => Some(event),
            Self::Domain(_) | Self::Network(_) => None,
        }
    }

    /// The event, if it is a network's.
    #[must_use]
    pub fn of_network(self) -> Option<NetworkEvent> {
        match self {
            Self::Network(event) => Some(event),
            Self::Domain(_) | Self::Pool(_) => None,
        }
    }
}

/// An event of one virtual network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkEvent {
    /// When, in milliseconds since the epoch.
    pub time_ms: u64,
    /// The network.
    pub uuid: NetworkUuid,
    /// Its name at that time.
    pub name: NetworkName,
    /// What happened.
    pub kind: NetworkEventKind,
}

/// What happened to a network. Positional: new ones come at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkEventKind {
    /// It has a persistent definition now, or another one (`changed`).
    Defined {
        /// There was one before.
        changed: bool,
    },
    /// Its persistent definition is gone.
    Undefined,
    /// It is active.
    Started,
    /// It is not active any more.
    Stopped,
    /// It starts with the host now, or no longer does.
    Autostart {
        /// Which.
        on: bool,
    },
    /// A part of its definition is other: of the one that is active, the one that is kept, or both.
    Updated,
    /// Title, description or metadata was set or taken away (libvirt procedure 446).
    Labels {
        /// Which of them.
        label: Label,
    },
    /// An interface of a domain was connected to it.
    PortAdded {
        /// Its port.
        port: PortUuid,
    },
    /// An interface of a domain is not connected to it any more.
    PortRemoved {
        /// What was its port.
        port: PortUuid,
    },
}

/// An event of one storage pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolEvent {
    /// When, in milliseconds since the epoch.
    pub time_ms: u64,
    /// The pool.
    pub uuid: PoolUuid,
    /// Its name at that time.
    pub name: PoolName,
    /// What happened.
    pub kind: PoolEventKind,
}

/// What happened to a pool. Positional: new ones come at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolEventKind {
    /// It has a persistent definition now, or another one (`changed`).
    Defined {
        /// There was one before.
        changed: bool,
    },
    /// Its persistent definition is gone.
    Undefined,
    /// It is active.
    Started,
    /// It is not active any more.
    Stopped,
    /// Its directory was made (libvirt's `created`).
    Created,
    /// Its directory was removed (libvirt's `deleted`).
    Deleted,
    /// Its volumes may be others: it was looked at again, or a volume of it was made, removed or changed.
    Refreshed,
    /// It starts with the host now, or no longer does.
    Autostart {
        /// Which.
        on: bool,
    },
}

/// An event of one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainEvent {
    /// When, in milliseconds since the epoch.
    pub time_ms: u64,
    /// The domain.
    pub uuid: DomainUuid,
    /// Its name at that time.
    pub name: DomainName,
    /// What happened.
    pub kind: EventKind,
}

/// One of a domain's labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Label {
    /// Its title.
    Title,
    /// Its description.
    Description,
    /// Its metadata of a namespace.
    Metadata {
        /// The namespace.
        uri: String,
    },
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
    /// Title, description or metadata was set or taken away, wherever that was, and even where it was so before.
    Labels {
        /// Which of them.
        label: Label,
    },
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
    /// The medium of a disk is another while it runs, or is gone.
    MediumChanged {
        /// Which disk.
        device: DeviceName,
        /// There is one now.
        inserted: bool,
    },
    /// Where it runs, or what it may use of the host, is other while it runs.
    Tuned {
        /// What is other, each kind at most once and of the CPUs of vCPUs one for each vCPU. What would take more than
        /// [`MAX_TUNED_BYTES`] is left out: the definition says it.
        changes: Vec<TuningChange>,
    },
    /// Its guest has opened a channel, or closed it, while it runs. What a guest opens and closes again at once
    /// is not told.
    ChannelChanged {
        /// Which, by its name.
        channel: String,
        /// Somebody in the guest has it open now.
        open: bool,
    },
}
