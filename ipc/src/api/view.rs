//! Objects as clients see them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::device::DeviceFigures;
use crate::model::{DeviceName, Domain, DomainName, DomainUuid, MemorySize};
use crate::spec::PciSlot;

/// The state of a domain, with its reason (libvirt `virDomainState` and its reasons).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainState {
    /// Its vCPUs run.
    Running(RunningReason),
    /// It is built and no vCPU runs.
    Paused(PausedReason),
    /// It runs, and was asked to shut down.
    ShuttingDown,
    /// It has no worker.
    ShutOff(ShutOffReason),
    /// Its guest crashed and is kept for inspection.
    Crashed,
    /// Its guest said that its kernel panicked, and is kept for inspection.
    Panicked,
}

/// Why a domain runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunningReason {
    /// It was started.
    Booted,
    /// It was resumed.
    Unpaused,
    /// Its policy started it again.
    Restarted,
    /// It was found running by a new supervisor.
    Adopted,
}

/// Why a domain is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PausedReason {
    /// It is being started.
    StartingUp,
    /// A client paused it, or started it paused.
    User,
    /// Its guest powered off, and its policy keeps the machine.
    PoweredOff,
    /// It was found paused by a new supervisor.
    Adopted,
    /// Its watchdog expired, and was to pause it.
    Watchdog,
}

/// Why a domain is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShutOffReason {
    /// It has not run since this supervisor started.
    Unknown,
    /// Its guest powered off.
    Shutdown,
    /// A client destroyed it.
    Destroyed,
    /// Its guest crashed, or its worker died.
    Crashed,
    /// It did not start.
    Failed,
}

impl DomainState {
    /// Whether there is a worker.
    #[must_use]
    pub const fn is_active(self) -> bool {
        !matches!(self, Self::ShutOff(_))
    }

    /// The state without its reason, as a table shows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running(_) => "running",
            Self::Paused(_) => "paused",
            Self::ShuttingDown => "shutting down",
            Self::ShutOff(_) => "shut off",
            Self::Crashed | Self::Panicked => "crashed",
        }
    }

    /// The reason in words.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Running(RunningReason::Booted) => "booted",
            Self::Running(RunningReason::Unpaused) => "resumed",
            Self::Running(RunningReason::Restarted) => "restarted by policy",
            Self::Running(RunningReason::Adopted) | Self::Paused(PausedReason::Adopted) => {
                "found by a new supervisor"
            }
            Self::Paused(PausedReason::StartingUp) => "starting",
            Self::Paused(PausedReason::User) => "paused by a client",
            Self::Paused(PausedReason::Watchdog) => "its watchdog expired",
            Self::Paused(PausedReason::PoweredOff) => "powered off, kept by policy",
            Self::ShuttingDown => "asked to shut down",
            Self::ShutOff(ShutOffReason::Unknown) => "not started",
            Self::ShutOff(ShutOffReason::Shutdown) => "the guest powered off",
            Self::ShutOff(ShutOffReason::Destroyed) => "destroyed",
            Self::ShutOff(ShutOffReason::Crashed) => "crashed",
            Self::ShutOff(ShutOffReason::Failed) => "did not start",
            Self::Crashed => "the guest crashed, kept by policy",
            Self::Panicked => "the guest's kernel panicked, kept by policy",
        }
    }
}

impl fmt::Display for DomainState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a domain's one modify job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// Writing a definition, an autostart mark, a name or labels.
    Define,
    /// Starting.
    Start,
    /// Pressing the power button.
    Shutdown,
    /// Pressing the power button, to boot again.
    Reboot,
    /// Resetting the machine.
    Reset,
    /// Stopping the vCPUs.
    Pause,
    /// Letting the vCPUs run.
    Resume,
    /// Killing the worker.
    Destroy,
    /// Removing the definition.
    Undefine,
    /// Taking over a worker of an earlier supervisor.
    Adopt,
    /// What a policy says after the guest's own end.
    Policy,
    /// Giving it a device.
    Attach,
    /// Taking a device from it.
    Detach,
    /// Changing a device.
    Update,
    /// Having a fresh worker take its machine over.
    Upgrade,
    /// Giving it vCPUs, or taking some.
    SetVcpus,
    /// Changing where it runs, and what it may use.
    Tune,
}

impl JobKind {
    /// The verb, as messages print it.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Define => "define",
            Self::Start => "start",
            Self::Shutdown => "shut down",
            Self::Reboot => "reboot",
            Self::Reset => "reset",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Destroy => "destroy",
            Self::Undefine => "undefine",
            Self::Adopt => "adopt",
            Self::Policy => "apply the policy of",
            Self::Attach => "attach a device to",
            Self::Detach => "detach a device from",
            Self::Upgrade => "upgrade",
            Self::Update => "change a device of",
            Self::SetVcpus => "set the vCPUs of",
            Self::Tune => "tune",
        }
    }
}

/// One domain in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainSummary {
    /// Its name.
    pub name: DomainName,
    /// Its UUID.
    pub uuid: DomainUuid,
    /// Its number while it has a worker: from 1, never used twice by one supervisor process.
    pub id: Option<u32>,
    /// Its state.
    pub state: DomainState,
    /// Whether it has a definition that outlives its worker.
    pub persistent: bool,
    /// Its place among those that start with the host, lowest first.
    pub autostart: Option<u32>,
    /// Its vCPUs: those it has, or will start with.
    pub vcpus: u32,
    /// Its memory.
    pub memory: MemorySize,
    /// Its title.
    pub title: Option<String>,
    /// Its worker does not answer.
    pub unresponsive: bool,
    /// It is shut off, and the kernel has not released its worker yet: it cannot start.
    pub reaping: bool,
    /// The job that changes it just now.
    pub job: Option<JobKind>,
    /// The most vCPUs it can have while it runs.
    pub max_vcpus: u32,
    /// What of its memory its guest has just now, as it was last heard of; of a domain that is off, what its guest
    /// will be asked to make do with.
    pub current_memory: MemorySize,
    /// The most memory it can have while it runs.
    pub max_memory: MemorySize,
}

/// One domain with all that is known without asking its worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainDetails {
    /// As in a list.
    pub summary: DomainSummary,
    /// When it was started, in milliseconds since the epoch.
    pub started_ms: Option<u64>,
    /// Its worker.
    pub worker: Option<WorkerDetails>,
    /// Resets since it was started.
    pub resets: u64,
    /// Why it last failed or crashed; one line.
    pub last_failure: Option<String>,
    /// Whether a definition waits for the next start that differs from the one it runs with.
    pub redefined: bool,
    /// How long clients wait for its guest's agent; `None` where none of them has said.
    pub agent_timeout: Option<AgentTimeout>,
}

/// How long a client waits for an answer of a guest's agent (libvirt `virDomainAgentResponseTimeoutValues`). Clients
/// talk to agents themselves: the supervisor keeps it for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentTimeout {
    /// Until it comes.
    Block,
    /// As long as is usual for the first answer of a conversation.
    Default,
    /// So many seconds; with 0 it must be there already.
    Seconds(u32),
}

/// What a domain's worker is on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerDetails {
    /// Its pid. It may be gone: for display.
    pub pid: u32,
    /// Its uid.
    pub uid: u32,
    /// Whether that uid is its own.
    pub own_uid: bool,
    /// Its cgroup, where it has one.
    pub cgroup: Option<String>,
    /// The Landlock ABI it reported.
    pub landlock_abi: Option<u32>,
    /// Whether it is of a supervisor before this one.
    pub adopted: bool,
}

/// What a domain's worker says of itself when asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainStats {
    /// CPU time of the worker, in nanoseconds, of the kernel's own books.
    pub cpu_time_ns: u64,
    /// Memory of the host that the worker holds, guest memory included, in bytes.
    pub resident_bytes: u64,
    /// Bytes of console output that nobody read in time.
    pub console_dropped_bytes: u64,
    /// Clients on its console.
    pub console_clients: u32,
    /// Lines of its log that nobody read in time.
    pub log_dropped: u64,
}

/// What one vCPU of a running domain has done, of the kernel's own books: since its thread began, which is
/// the start of the machine or when the vCPU came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuStats {
    /// Its number, from 0.
    pub vcpu: u32,
    /// Time it ran, in nanoseconds: the guest's and that of what it made the host do.
    pub run_ns: u64,
    /// Time it could have run and waited for a CPU of the host, in nanoseconds; `None` where the kernel
    /// keeps no such book. A guest sees the same as time stolen from it, where it asks KVM.
    pub wait_ns: Option<u64>,
}

/// What one device of a running domain has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStats {
    /// What it is called.
    pub device: DeviceName,
    /// Its place on the bus.
    pub slot: PciSlot,
    /// Its name on the host, where it has one: the tap of a network interface, the socket of a port.
    pub host: Option<String>,
    /// Its figures.
    pub figures: DeviceFigures,
}

/// A definition and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainDefinition {
    /// The definition.
    pub domain: Domain,
    /// Its place among those that start with the host, lowest first.
    pub autostart: Option<u32>,
}

/// The supervisor itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorInfo {
    /// Its build.
    pub build: String,
    /// Its pid.
    pub pid: u32,
    /// When it was started, in milliseconds since the epoch.
    pub started_ms: u64,
    /// Its state directory.
    pub state_directory: String,
    /// Its run directory.
    pub run_directory: String,
    /// Domains with a worker.
    pub active: u32,
    /// Domains without one.
    pub inactive: u32,
    /// Workers that were taken over when it started, and how long that took in microseconds from its
    /// start.
    pub adopted: u32,
    /// See `adopted`.
    pub adopted_within_us: u64,
    /// Clients connected.
    pub clients: u32,
    /// Files of definitions that it could not load, each with the reason in one line.
    pub refused: Vec<String>,
}
