//! Every call of the native API, in one list: its arguments, its only possible answer, the access it
//! needs, and whether it may be sent again after a lost answer.
//!
//! The list makes a type per call, the two wire enums, and the table of calls: a client cannot be
//! given another call's answer. What is said of the calls about storage and networks is beside what they are made of.

#[macro_use]
mod list;
mod network;
mod nwfilter;
mod parts;
mod storage;

use serde::{Deserialize, Serialize};

pub use self::parts::{
    ConsoleStream, DiskSize, DomainPage, DomainRef, LabelChange, LogKind, MAX_PEEK_BYTES,
    MAX_TUNING_CHANGES, PeekAt, StartOptions, Subscribed, TuningChange,
};

pub use self::network::{
    NetworkAutostartSet, NetworkCreate, NetworkDefine, NetworkDefinitionGet, NetworkFilter,
    NetworkGet, NetworkLabelSet, NetworkLeasesGet, NetworkList, NetworkPage, NetworkPortList,
    NetworkPortPage, NetworkRef, NetworkStart, NetworkStop, NetworkUndefine, NetworkUpdate,
};

pub use self::nwfilter::{
    NwfilterBindingList, NwfilterBindingPage, NwfilterDefine, NwfilterGet, NwfilterList,
    NwfilterPage, NwfilterRef, NwfilterUndefine,
};

pub use self::storage::{
    NewCapacity, PoolAutostartSet, PoolBuild, PoolCreate, PoolDefine, PoolDelete, PoolFilter,
    PoolGet, PoolList, PoolPage, PoolRef, PoolRefresh, PoolStart, PoolStop, PoolUndefine,
    VolumeClone, VolumeCreate, VolumeDelete, VolumeDownload, VolumeGet, VolumeList, VolumePage,
    VolumeRef, VolumeResize, VolumeStream, VolumeUpload, VolumeWipe, WipeAlgorithm,
};

use super::Access;
use super::event::Cursor;
use super::figures::{FigureGroups, FiguresOf, FiguresPage};
use super::host::{HostCpuPage, HostCpuStats, HostCpuid, HostFreePages, HostInfo, HostMemoryStats};
use super::interface::{HostInterfacePage, NicNeighbour};
use super::network::{NetworkDetails, NetworkSummary};
use super::nwfilter::NwfilterSummary;
use super::storage::{PoolDetails, PoolSummary, Volume};
use super::view::{
    AgentTimeout, DeviceStats, DomainDefinition, DomainDetails, DomainStats, DomainSummary,
    SupervisorInfo, VcpuStats,
};
use crate::device::DeviceChange;
use crate::model::{
    Device, DeviceName, DiskTarget, Domain, DomainName, FilterReference, Medium, MemorySize,
    Network, Nwfilter, Vcpus, Vlan,
};

/// A call with its answer.
pub trait Call: Sized + Send {
    /// What the supervisor answers.
    type Answer: Send;
    /// Which operation this is.
    const OPERATION: Operation;

    /// The call as it goes on the wire.
    fn into_body(self) -> CallBody;

    /// The answer, if `body` answers this very call.
    fn answer_from(body: AnswerBody) -> Option<Self::Answer>;
}

calls! {
    /// Says who serves, and how it stands.
    SupervisorInfoGet {} -> SupervisorInfo,
    call "info", access ReadOnly, idempotent true;

    /// Reads the configuration again, without touching a domain; the answer names what changed and
    /// what needs a restart.
    ConfigReload {} -> Vec<String>,
    call "reload", access ReadWrite, idempotent true;

    /// Changes what the supervisor logs, until it ends: a level or a filter as `REEVE_LOG` takes it.
    LogFilterSet {
        /// The filter.
        filter: String,
    } -> (),
    call "set the log filter", access ReadWrite, idempotent true;

    /// One page of domains, in order of their names.
    DomainList {
        /// Only those after this name.
        after: Option<DomainName>,
        /// Whether to leave out those without a worker.
        active_only: bool,
    } -> DomainPage,
    call "list domains", access ReadOnly, idempotent true;

    /// One domain, without asking its worker.
    DomainGet {
        /// Which.
        domain: DomainRef,
    } -> DomainDetails,
    call "look up", access ReadOnly, idempotent true;

    /// A domain's definition.
    DomainDefinitionGet {
        /// Which.
        domain: DomainRef,
        /// The one it will start with next, rather than the one it runs with.
        persistent: bool,
    } -> Box<DomainDefinition>,
    call "get the definition of", access ReadOnly, idempotent true;

    /// What the kernel and the worker say of a running domain.
    DomainStatsGet {
        /// Which.
        domain: DomainRef,
    } -> DomainStats,
    call "get statistics of", access ReadOnly, idempotent true;

    /// Keeps a definition. One of the same UUID and name is replaced; a running domain goes on with
    /// the one it has. It is on disk when the answer comes.
    DomainDefine {
        /// The definition.
        definition: Box<Domain>,
        /// Refuse to replace one.
        only_new: bool,
    } -> DomainSummary,
    call "define", access ReadWrite, idempotent true;

    /// Removes a definition. A running domain lives on and is transient from then.
    DomainUndefine {
        /// Which.
        domain: DomainRef,
    } -> (),
    call "undefine", access ReadWrite, idempotent false;

    /// Starts a defined domain.
    DomainStart {
        /// Which.
        domain: DomainRef,
        /// How.
        options: StartOptions,
    } -> DomainSummary,
    call "start", access ReadWrite, idempotent false;

    /// Starts a domain without keeping its definition: it is gone when it ends. One of the same UUID and name
    /// that is off runs with this definition until it ends, and is off again with the one that is kept.
    DomainCreate {
        /// The definition.
        definition: Box<Domain>,
        /// How.
        options: StartOptions,
    } -> DomainSummary,
    call "create", access ReadWrite, idempotent false;

    /// Presses the power button. Answered when it is pressed; the guest's end is an event.
    DomainShutdown {
        /// Which.
        domain: DomainRef,
        /// Destroy it when the guest has not ended after so many milliseconds.
        destroy_after_ms: Option<u32>,
        /// The host itself goes down: a domain that is paused is resumed and pressed, one that is
        /// kept though its guest has ended is destroyed, and none is restarted or kept when its
        /// guest ends, whatever its definition says of that.
        for_host: bool,
    } -> (),
    call "shut down", access ReadWrite, idempotent true;

    /// Presses the power button and boots the domain again when its guest has powered off.
    DomainReboot {
        /// Which.
        domain: DomainRef,
    } -> (),
    call "reboot", access ReadWrite, idempotent true;

    /// Resets the machine as its reset button does.
    DomainReset {
        /// Which.
        domain: DomainRef,
    } -> (),
    call "reset", access ReadWrite, idempotent false;

    /// Stops the vCPUs.
    DomainPause {
        /// Which.
        domain: DomainRef,
    } -> (),
    call "pause", access ReadWrite, idempotent true;

    /// Lets the vCPUs run.
    DomainResume {
        /// Which.
        domain: DomainRef,
    } -> (),
    call "resume", access ReadWrite, idempotent true;

    /// Kills the worker, whatever it does. Answered within 100 ms.
    DomainDestroy {
        /// Which.
        domain: DomainRef,
    } -> (),
    call "destroy", access ReadWrite, idempotent false;

    /// Whether the domain starts with the host, and when: lowest first, in the order of names where
    /// two are the same.
    DomainAutostartSet {
        /// Which.
        domain: DomainRef,
        /// Its place.
        order: Option<u32>,
    } -> (),
    call "set the autostart of", access ReadWrite, idempotent true;

    /// Gives a domain that is off another name.
    DomainRename {
        /// Which.
        domain: DomainRef,
        /// The name.
        name: DomainName,
    } -> (),
    call "rename", access ReadWrite, idempotent false;

    /// Changes what people and programs noted about a domain.
    DomainLabelSet {
        /// Which.
        domain: DomainRef,
        /// What.
        label: LabelChange,
        /// In the definition it runs with.
        live: bool,
        /// In the definition that is kept.
        persistent: bool,
    } -> (),
    call "set the labels of", access ReadWrite, idempotent true;

    /// Attaches to the console of a running domain. The answer brings one descriptor: a stream with
    /// what the console still holds and all that follows; what is written to it is input, if asked
    /// for. Closing it detaches.
    DomainConsole {
        /// Which.
        domain: DomainRef,
        /// Whether what is written reaches the guest.
        input: bool,
    } -> ConsoleStream,
    call "attach to the console of", access ReadWrite, idempotent false;

    /// One of a domain's logs: the answer brings one descriptor, the current file open for reading,
    /// at its start.
    DomainLog {
        /// Which.
        domain: DomainRef,
        /// Which log.
        log: LogKind,
    } -> (),
    call "open the log of", access ReadWrite, idempotent true;

    /// Events from now on, or from behind `after`, come on this connection as
    /// [`super::message::ToClient::Event`].
    EventsSubscribe {
        /// The last event that the client has seen.
        after: Option<Cursor>,
    } -> Subscribed,
    call "subscribe to events", access ReadOnly, idempotent true;

    /// No more events on this connection.
    EventsUnsubscribe {} -> (),
    call "unsubscribe from events", access ReadOnly, idempotent true;

    /// Gives a domain one more device. What it leaves out, as its place on the bus, is filled in. In the
    /// running and the kept definition it gets the same place where that is free in both.
    DomainDeviceAttach {
        /// Which domain.
        domain: DomainRef,
        /// The device.
        device: Box<Device>,
        /// To the machine that runs, and the definition it runs with.
        live: bool,
        /// To the definition that is kept.
        persistent: bool,
    } -> (),
    call "attach a device to", access ReadWrite, idempotent false;

    /// Takes a device from a domain. A guest is asked to let go of it, and given ten seconds: one that
    /// does so later is heard of by [`super::event::EventKind::DeviceRemoved`]. Of a channel or console it is
    /// only told; but with the last of them the controller goes, which is told as such.
    DomainDeviceDetach {
        /// Which domain.
        domain: DomainRef,
        /// Which device.
        device: DeviceName,
        /// Without the guest's consent.
        force: bool,
        /// From the machine that runs, and the definition it runs with.
        live: bool,
        /// From the definition that is kept.
        persistent: bool,
    } -> (),
    call "detach a device from", access ReadWrite, idempotent false;

    /// Changes a device that is there. What is asked of a balloon is asked of the machine that runs only.
    DomainDeviceUpdate {
        /// Which domain.
        domain: DomainRef,
        /// Which device.
        device: DeviceName,
        /// To what.
        change: DeviceChange,
        /// In the machine that runs, and the definition it runs with.
        live: bool,
        /// In the definition that is kept.
        persistent: bool,
    } -> (),
    call "change a device of", access ReadWrite, idempotent true;

    /// Asks the guest of a running domain to make do with so much of its memory: its balloon is to take
    /// the rest; or to have more than it started with, by its memory device. Answered when it is asked; what comes of it is told by
    /// [`super::event::EventKind::BalloonChanged`].
    DomainMemorySet {
        /// Which.
        domain: DomainRef,
        /// What is left to the guest; no more than it can have.
        memory: MemorySize,
    } -> (),
    call "set the memory of", access ReadWrite, idempotent true;

    /// What each device of a running domain has done, by rising place on the bus.
    DomainDeviceStatsGet {
        /// Which.
        domain: DomainRef,
    } -> Vec<DeviceStats>,
    call "get statistics of the devices of", access ReadOnly, idempotent true;

    /// Has a fresh worker, of the supervisor's own build, take over a domain that runs. Its guest stands for a
    /// moment and notices nothing; where it fails, the domain goes on as before.
    DomainUpgrade {
        /// Which.
        domain: DomainRef,
    } -> (),
    call "upgrade", access ReadWrite, idempotent true;

    /// Gives a domain so many vCPUs. A machine that runs gets those that it lacks at once. Of those that are
    /// too many its guest is asked to let go, and given ten seconds; one that does so later is heard of by
    /// [`super::event::EventKind::VcpusChanged`], and what it has not done then is done by a reset.
    DomainVcpusSet {
        /// Which.
        domain: DomainRef,
        /// How many, no more than it can have.
        vcpus: Vcpus,
        /// In the machine that runs, and the definition it runs with.
        live: bool,
        /// In the definition that is kept.
        persistent: bool,
    } -> (),
    call "set the vCPUs of", access ReadWrite, idempotent true;

    /// What each vCPU of a running domain has done, by rising number.
    DomainVcpuStatsGet {
        /// Which.
        domain: DomainRef,
    } -> Vec<VcpuStats>,
    call "get statistics of the vCPUs of", access ReadOnly, idempotent true;

    /// Puts another medium into a disk that is removable, or takes out the one that is there. The guest is
    /// told, and not asked.
    DomainMediumChange {
        /// Which domain.
        domain: DomainRef,
        /// Which disk.
        device: DeviceName,
        /// What is put in; `None` for nothing.
        medium: Option<Box<Medium>>,
        /// In the machine that runs, and the definition it runs with.
        live: bool,
        /// In the definition that is kept.
        persistent: bool,
    } -> (),
    call "change the medium of", access ReadWrite, idempotent true;

    /// What the host is.
    HostInfoGet {} -> Box<HostInfo>,
    call "describe the host", access ReadOnly, idempotent true;

    /// One page of the host's CPUs that run, by rising number.
    HostCpuList {
        /// Only those after this one.
        after: Option<u32>,
    } -> HostCpuPage,
    call "list the CPUs of the host", access ReadOnly, idempotent true;

    /// What the host's CPUs have done since it booted.
    HostCpuStatsGet {
        /// The first that is wanted for itself.
        first: u32,
        /// How many from there on, whatever their numbers; 0 for all together only.
        count: u32,
    } -> HostCpuStats,
    call "get statistics of the CPUs of the host", access ReadOnly, idempotent true;

    /// How the host's memory is used.
    HostMemoryStatsGet {} -> HostMemoryStats,
    call "get statistics of the memory of the host", access ReadOnly, idempotent true;

    /// The free pages of each of the host's NUMA nodes.
    HostFreePagesGet {} -> Vec<HostFreePages>,
    call "count the free pages of the host", access ReadOnly, idempotent true;

    /// The figures of many domains. Each worker is asked once at most, all at the same time, and none is waited
    /// for longer than half a second; no other domain is held up by one that does not answer.
    DomainFiguresList {
        /// Of which.
        of: FiguresOf,
        /// Which figures.
        groups: FigureGroups,
    } -> FiguresPage,
    call "get statistics of domains", access ReadOnly, idempotent true;

    /// What the guest of a domain has of its memory: as [`DomainMemorySet`] in the machine that runs, and from
    /// its next start on in the definition that is kept, of which the most that it can have stays.
    DomainCurrentMemorySet {
        /// Which.
        domain: DomainRef,
        /// What is left to the guest; no more than it can have.
        memory: MemorySize,
        /// In the machine that runs.
        live: bool,
        /// In the definition that is kept.
        persistent: bool,
    } -> (),
    call "set the current memory of", access ReadWrite, idempotent true;

    /// The most memory that a domain can have from its next start on: what it starts with, where nothing can be
    /// plugged in, and else all together. What its guest is asked to make do with becomes no more than that; one
    /// with a balloon goes on with what it had where it can have more.
    DomainMaxMemorySet {
        /// Which.
        domain: DomainRef,
        /// How much.
        memory: MemorySize,
    } -> (),
    call "set the most memory of", access ReadWrite, idempotent true;

    /// Changes where a domain runs and what it may use of the host: all of it, or nothing.
    DomainTune {
        /// Which.
        domain: DomainRef,
        /// The changes, in their order; at most [`MAX_TUNING_CHANGES`].
        changes: Vec<TuningChange>,
        /// Of the machine that runs, and the definition it runs with.
        live: bool,
        /// Of the definition that is kept.
        persistent: bool,
    } -> (),
    call "tune", access ReadWrite, idempotent true;

    /// Sends every vCPU of a running domain an interrupt that its guest cannot mask.
    DomainNmiInject {
        /// Which.
        domain: DomainRef,
    } -> (),
    call "send an NMI to", access ReadWrite, idempotent false;

    /// Bytes of the memory or of a disk of a running domain, as they are at this moment.
    DomainPeek {
        /// Which.
        domain: DomainRef,
        /// Of what.
        at: PeekAt,
        /// The first of them: of memory a physical address of the guest's.
        offset: u64,
        /// How many, 1 to [`MAX_PEEK_BYTES`].
        length: u32,
    } -> Vec<u8>,
    call "read the memory or a disk of", access ReadWrite, idempotent true;

    /// How large a disk is: of the domain that runs, or else of the definition that is kept.
    DomainDiskSizeGet {
        /// Which.
        domain: DomainRef,
        /// Which disk.
        disk: DiskTarget,
    } -> DiskSize,
    call "get the size of a disk of", access ReadOnly, idempotent true;

    /// Connects to a channel of a running domain, as whoever connects to its socket does: one is served at a
    /// time. The answer brings one descriptor, a stream socket.
    DomainChannel {
        /// Which.
        domain: DomainRef,
        /// The channel's name.
        channel: String,
    } -> (),
    call "connect to a channel of", access ReadWrite, idempotent false;

    PoolList {..} -> PoolPage,
    call "list storage pools", access ReadOnly, idempotent true;

    PoolGet {..} -> Box<PoolDetails>,
    call "look up", access ReadOnly, idempotent true;

    PoolDefine {..} -> PoolSummary,
    call "define", access ReadWrite, idempotent true;

    PoolCreate {..} -> PoolSummary,
    call "create", access ReadWrite, idempotent false;

    PoolBuild {..} -> (),
    call "build", access ReadWrite, idempotent true;

    PoolStart {..} -> PoolSummary,
    call "start", access ReadWrite, idempotent false;

    PoolStop {..} -> (),
    call "stop", access ReadWrite, idempotent false;

    PoolDelete {..} -> (),
    call "delete", access ReadWrite, idempotent false;

    PoolUndefine {..} -> (),
    call "undefine", access ReadWrite, idempotent false;

    PoolAutostartSet {..} -> (),
    call "set the autostart of", access ReadWrite, idempotent true;

    PoolRefresh {..} -> (),
    call "refresh", access ReadWrite, idempotent true;

    VolumeList {..} -> VolumePage,
    call "list the volumes of", access ReadOnly, idempotent true;

    VolumeGet {..} -> Box<Volume>,
    call "look up volume", access ReadOnly, idempotent true;

    VolumeCreate {..} -> Box<Volume>,
    call "create volume", access ReadWrite, idempotent false;

    VolumeClone {..} -> Box<Volume>,
    call "clone to volume", access ReadWrite, idempotent false;

    VolumeResize {..} -> (),
    call "resize volume", access ReadWrite, idempotent false;

    VolumeWipe {..} -> (),
    call "wipe volume", access ReadWrite, idempotent true;

    VolumeDelete {..} -> (),
    call "delete volume", access ReadWrite, idempotent false;

    VolumeUpload {..} -> VolumeStream,
    call "upload to volume", access ReadWrite, idempotent true;

    VolumeDownload {..} -> VolumeStream,
    call "download volume", access ReadWrite, idempotent true;

    /// Has all further calls of this connection served by the test hypervisor: domains in the memory of the
    /// supervisor that only look like some, the same ones for every client that asks for them, and none that is
    /// real. The rights of the connection stay. Only as the first call of a connection that is served by real
    /// domains. Where the supervisor has no other hypervisor, it serves already.
    TestHypervisorUse {} -> (),
    call "use the test hypervisor", access ReadOnly, idempotent true;

    /// What the host's CPUs, and those of its guests, say by CPUID.
    HostCpuidGet {} -> HostCpuid,
    call "get the CPUID of the host", access ReadOnly, idempotent true;

    /// How long clients wait for the agent of a domain's guest. It holds for all of them from now on: while the domain
    /// is there, whether or not it runs, but of one that is off no longer than the supervisor runs.
    DomainAgentTimeoutSet {
        /// Which.
        domain: DomainRef,
        /// How long.
        timeout: AgentTimeout,
    } -> (),
    call "set the agent's timeout of", access ReadWrite, idempotent true;

    NetworkList {..} -> NetworkPage,
    call "list networks", access ReadOnly, idempotent true;

    NetworkGet {..} -> NetworkDetails,
    call "look up", access ReadOnly, idempotent true;

    NetworkDefinitionGet {..} -> Box<Network>,
    call "get the definition of", access ReadOnly, idempotent true;

    NetworkDefine {..} -> NetworkSummary,
    call "define", access ReadWrite, idempotent true;

    NetworkCreate {..} -> NetworkSummary,
    call "create", access ReadWrite, idempotent false;

    NetworkStart {..} -> NetworkSummary,
    call "start", access ReadWrite, idempotent false;

    NetworkStop {..} -> (),
    call "stop", access ReadWrite, idempotent false;

    NetworkUndefine {..} -> (),
    call "undefine", access ReadWrite, idempotent false;

    NetworkAutostartSet {..} -> (),
    call "set the autostart of", access ReadWrite, idempotent true;

    NetworkUpdate {..} -> (),
    call "update", access ReadWrite, idempotent false;

    NetworkLabelSet {..} -> (),
    call "set the labels of", access ReadWrite, idempotent true;

    NetworkLeasesGet {..} -> bool,
    call "get the leases of", access ReadOnly, idempotent true;

    NetworkPortList {..} -> NetworkPortPage,
    call "list the ports of", access ReadOnly, idempotent true;

    /// What the host has learned of the interfaces of a running domain by talking to them: those that it knows an
    /// address of, in the order of the definition.
    DomainNeighboursGet {
        /// Which.
        domain: DomainRef,
    } -> Vec<NicNeighbour>,
    call "get the neighbours of", access ReadOnly, idempotent true;

    /// One page of the host's network interfaces, in order of their names.
    HostInterfaceList {
        /// Only those after this name.
        after: Option<String>,
    } -> HostInterfacePage,
    call "list the interfaces of the host", access ReadOnly, idempotent true;

    /// Gives the port of an interface on a bridge of Open vSwitch other tags, or none.
    DomainPortTagsSet {
        /// Which domain.
        domain: DomainRef,
        /// Which interface.
        device: DeviceName,
        /// The tags.
        vlan: Option<Box<Vlan>>,
        /// Of the machine that runs, and the definition it runs with.
        live: bool,
        /// Of the definition that is kept.
        persistent: bool,
    } -> (),
    call "change the tags of a device of", access ReadWrite, idempotent true;

    NwfilterList {..} -> NwfilterPage,
    call "list network filters", access ReadOnly, idempotent true;

    NwfilterGet {..} -> Box<Nwfilter>,
    call "look up", access ReadOnly, idempotent true;

    NwfilterDefine {..} -> NwfilterSummary,
    call "define", access ReadWrite, idempotent true;

    NwfilterUndefine {..} -> (),
    call "undefine", access ReadWrite, idempotent false;

    NwfilterBindingList {..} -> NwfilterBindingPage,
    call "list the bindings of network filters", access ReadOnly, idempotent true;

    /// Gives an interface another network filter, or none. Of the machine that runs its frames pass the one or the
    /// other at any time.
    DomainNicFilterSet {
        /// Which domain.
        domain: DomainRef,
        /// Which interface.
        device: DeviceName,
        /// The filter, with its variables.
        filter: Option<Box<FilterReference>>,
        /// Of the machine that runs, and the definition it runs with.
        live: bool,
        /// Of the definition that is kept.
        persistent: bool,
    } -> (),
    call "change the network filter of a device of", access ReadWrite, idempotent true;
}
