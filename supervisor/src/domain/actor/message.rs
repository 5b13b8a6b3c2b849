//! What an actor is told, and what it wants done.

use reeve_ipc::api::call::{LabelChange, StartOptions, TuningChange};
use reeve_ipc::api::error::ApiError;
use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::view::{AgentTimeout, DomainDefinition, ShutOffReason};
use reeve_ipc::device::DeviceChange;
use reeve_ipc::model::{
    Device, DeviceName, DevicePlace, Domain, DomainName, FilterReference, Medium, MemorySize,
    NetworkPort, Vcpus, Vlan,
};
use reeve_ipc::phase::Phase;

use crate::domain::driver::{CallFailure, DeviceCall, GuestEnd, Notice, StartFailure, WorkerCall};

/// Names whoever waits for an answer; each is answered exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Names one connection of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// What a client may ask of one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Keep this definition.
    Define {
        /// It: of this domain's UUID, and valid.
        domain: Box<Domain>,
        /// Only if there is none.
        only_new: bool,
    },
    /// Remove the definition.
    Undefine,
    /// Start with the definition that is kept.
    Start(StartOptions, SessionId),
    /// Start with this one and keep nothing.
    Create(Box<Domain>, StartOptions, SessionId),
    /// Press the power button.
    Shutdown {
        /// And destroy it after so many milliseconds.
        destroy_after_ms: Option<u32>,
        /// The host goes down: no policy restarts or keeps it, and a pause does not hold it up.
        for_host: bool,
    },
    /// Press the power button and boot again.
    Reboot,
    /// Reset the machine.
    Reset,
    /// Stop the vCPUs.
    Pause,
    /// Let them run.
    Resume,
    /// Kill the worker.
    Destroy,
    /// Start with the host, or not.
    SetAutostart(Option<u32>),
    /// Another name; the caller has reserved it.
    Rename(DomainName),
    /// Change what is noted.
    SetLabel {
        /// What.
        change: LabelChange,
        /// In the worker's definition.
        live: bool,
        /// In the kept one.
        persistent: bool,
    },
    /// Give it a device.
    Attach {
        /// Which.
        device: Box<Device>,
        /// The running machine.
        live: bool,
        /// The kept definition.
        persistent: bool,
    },
    /// Take a device from it.
    Detach {
        /// Which.
        device: DeviceName,
        /// Without the guest's consent.
        force: bool,
        /// From the running machine.
        live: bool,
        /// From the kept definition.
        persistent: bool,
    },
    /// Change a device.
    Update {
        /// Which.
        device: DeviceName,
        /// To what.
        change: DeviceChange,
        /// The running machine's.
        live: bool,
        /// The kept definition's.
        persistent: bool,
    },
    /// Put another medium into a disk, or none.
    ChangeMedium {
        /// Which disk.
        device: DeviceName,
        /// What is put in.
        medium: Option<Box<Medium>>,
        /// The running machine's.
        live: bool,
        /// The kept definition's.
        persistent: bool,
    },
    /// Give the port of an interface other tags, or none.
    ChangeTags {
        /// Which interface.
        device: DeviceName,
        /// The tags.
        vlan: Option<Box<Vlan>>,
        /// The running machine's.
        live: bool,
        /// The kept definition's.
        persistent: bool,
    },
    /// Give an interface another network filter, or none.
    ChangeFilter {
        /// Which interface.
        device: DeviceName,
        /// The filter.
        filter: Option<Box<FilterReference>>,
        /// The running machine's.
        live: bool,
        /// The kept definition's.
        persistent: bool,
    },
    /// Have a fresh worker take the machine over.
    Upgrade,
    /// Leave so much of its memory to the guest, by its balloon and its memory device.
    SetMemory {
        /// How much.
        memory: MemorySize,
        /// The running machine's.
        live: bool,
        /// The kept definition's.
        persistent: bool,
    },
    /// Let the kept definition have so much memory at most.
    SetMaxMemory(MemorySize),
    /// Change where it runs and what it may use.
    Tune {
        /// The changes, in their order.
        changes: Vec<TuningChange>,
        /// The running machine's.
        live: bool,
        /// The kept definition's.
        persistent: bool,
    },
    /// Give it so many vCPUs.
    SetVcpus {
        /// How many.
        vcpus: Vcpus,
        /// The running machine.
        live: bool,
        /// The kept definition.
        persistent: bool,
    },
    /// Keep how long clients wait for its guest's agent.
    SetAgentTimeout(AgentTimeout),
}

impl Request {
    /// Whether the running machine and the kept definition are meant, where a client says which.
    pub(super) const fn reach(&self) -> Option<(bool, bool)> {
        match self {
            Self::SetLabel {
                live, persistent, ..
            }
            | Self::Attach {
                live, persistent, ..
            }
            | Self::Detach {
                live, persistent, ..
            }
            | Self::Update {
                live, persistent, ..
            }
            | Self::ChangeMedium {
                live, persistent, ..
            }
            | Self::ChangeTags {
                live, persistent, ..
            }
            | Self::ChangeFilter {
                live, persistent, ..
            }
            | Self::SetMemory {
                live, persistent, ..
            }
            | Self::Tune {
                live, persistent, ..
            }
            | Self::SetVcpus {
                live, persistent, ..
            } => Some((*live, *persistent)),
            Self::SetMaxMemory(_) => Some((false, true)),
            _ => None,
        }
    }
}

/// What time it is, by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// In milliseconds since the epoch: for people. It may be set, and so nothing is timed by it.
    pub unix_ms: u64,
    /// In milliseconds since the host's boot, its sleep included. No status outlives the boot.
    pub boot_ms: u64,
}

/// What an actor is told.
#[derive(Debug)]
pub enum Input {
    /// A client asks.
    Request(Ticket, Request),
    /// Take over what an earlier supervisor left: the first input after
    /// [`super::DomainActor::recovered`].
    Recover,
    /// What came of the effect with this serial.
    Done(u64, Done),
    /// The worker of this number did, or suffered, something.
    Notice(u32, Notice),
    /// Interfaces of the worker of this number have been given ports of virtual networks, by their places among the
    /// interfaces; its status says so already.
    Connected(u32, Vec<(usize, NetworkPort)>),
    /// A timer that was set has run out.
    Timer(Timer),
    /// A client's connection ended.
    SessionEnded(SessionId),
}

/// What came of an effect.
#[derive(Debug)]
pub enum Done {
    /// Of a write or removal, on disk or in the run directory: why not, in one line.
    Written(Result<(), String>),
    /// Of a start: the phase the machine is in.
    Started(Result<Phase, StartFailure>),
    /// Of an adoption.
    Adopted(Adopted),
    /// Of a call.
    Called(Result<(), CallFailure>),
}

/// What came of an adoption. Where there is no worker, all it held is released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// It lives and is believed.
    Found {
        /// Its phase.
        phase: Phase,
        /// Why it stands still, if by itself.
        end: Option<GuestEnd>,
        /// Resets since its launch.
        resets: u64,
        /// Where it has devices, if it was asked.
        devices: Option<Vec<DevicePlace>>,
    },
    /// It lives and says nothing.
    Silent,
    /// It never was launched.
    NeverLaunched,
    /// It is gone.
    Gone(String),
}

/// When a timer runs out, what it was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// A destroy is acknowledged though the process of this number is not gone.
    DestroyAcknowledged(u32),
    /// A shutdown has taken too long.
    ShutdownDeadline {
        /// For the worker of this number.
        id: u32,
        /// The deadline, as it is in [`Intents::destroy_at_boot_ms`]: where that has another by the
        /// time, this timer is an old one.
        at_boot_ms: u64,
    },
    /// A guest was asked to let go of a device or of vCPUs, by the step of this serial, and has had its time.
    DetachDeadline(u64),
    /// The worker was asked after that whether the device of that step is there, and has had its time.
    DetachUnchecked(u64),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Answer a client. What the views show by then holds.
    Answer(Ticket, Result<(), ApiError>),
    /// Write the record, durably; [`Done::Written`].
    WriteRecord(u64, Box<DomainDefinition>),
    /// Remove it, durably; [`Done::Written`].
    RemoveRecord(u64),
    /// Write the run-time status of the worker of this number; [`Done::Written`] when a serial is
    /// given, and before any effect behind this one in any case.
    WriteStatus(Option<u64>, u32, Box<LiveRecord>),
    /// Remove it.
    RemoveStatus,
    /// Start a worker of this number; [`Done::Started`].
    Start {
        /// The outcome's serial.
        serial: u64,
        /// The worker's number.
        id: u32,
        /// What its status says.
        record: Box<LiveRecord>,
        /// With no vCPU running.
        paused: bool,
    },
    /// Take over the worker that the status tells of; [`Done::Adopted`].
    Adopt {
        /// The outcome's serial.
        serial: u64,
        /// The worker's number from now on.
        id: u32,
        /// What its status says.
        record: Box<LiveRecord>,
    },
    /// Ask the worker of this number; [`Done::Called`].
    Call(u64, u32, WorkerCall),
    /// Ask of a device or the vCPUs of the worker of this number; [`Done::Called`].
    Device(u64, u32, DeviceCall),
    /// Have a fresh worker take over from that of this number, which it stays; [`Done::Called`].
    HandOver(u64, u32, Box<Domain>),
    /// Ask the worker of the second number where it has devices; [`Notice::Devices`] answers by the first,
    /// unless the worker is silent, or becomes so.
    AskDevices(u64, u32),
    /// Let go of what the device at that place held, which the worker of this number has not any more.
    Release(u32, DevicePlace),
    /// Kill the worker of this number, or give up its start.
    Kill(u32),
    /// Tell [`Input::Timer`] after so many milliseconds. Of [`Timer::ShutdownDeadline`] there is one:
    /// it takes the place of the one before.
    SetTimer(Timer, u64),
    /// Tell the world.
    Event(EventKind),
    /// Nothing is left: forget the domain.
    Retire,
}

/// What the run-time status says of a worker beside what it holds of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveRecord {
    /// The definition it runs with.
    pub definition: Domain,
    /// What was begun and must be ended by whoever comes after this supervisor.
    pub intents: Intents,
    /// When it was started, in milliseconds since the epoch.
    pub started_ms: u64,
    /// How long clients wait for its guest's agent, where one has said.
    pub agent_timeout: Option<AgentTimeout>,
}

/// What was begun.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intents {
    /// It is being ended, with this reason.
    pub stopping: Option<ShutOffReason>,
    /// When its guest powers off, it boots again, unless the machine has been reset more often than
    /// this since its launch: then it has.
    pub restart_after_resets: Option<u64>,
    /// It was asked to shut down.
    pub shutting_down: bool,
    /// Because the host does: when its guest ends, so does it.
    pub for_host: bool,
    /// And is destroyed then, in milliseconds since the host's boot ([`Now::boot_ms`]).
    pub destroy_at_boot_ms: Option<u64>,
    /// It is destroyed when a client's connection ends.
    pub auto_destroy: bool,
    /// It is being bound and limited as the definition says.
    pub tuning: bool,
    /// What it was bound and limited by before that, to go back to where the host refuses it. Of this definition
    /// only that counts: the devices may be others by now.
    pub tuned_before: Option<Box<Domain>>,
    /// Its guest is yet to be asked to make do with the memory that the definition says.
    pub asks_memory: bool,
}
