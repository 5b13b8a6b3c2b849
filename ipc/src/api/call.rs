//! Every call of the native API, in one list: its arguments, its only possible answer, the access it
//! needs, and whether it may be sent again after a lost answer.
//!
//! The list makes a type per call, the two wire enums, and the table of calls: a client cannot be
//! given another call's answer.

mod parts;
mod storage;

use serde::{Deserialize, Serialize};

pub use self::parts::{
    ConsoleStream, DiskSize, DomainPage, DomainRef, LabelChange, LogKind, MAX_PEEK_BYTES,
    MAX_TUNING_CHANGES, PeekAt, StartOptions, Subscribed, TuningChange,
};

pub use self::storage::{
    NewCapacity, PoolFilter, PoolPage, PoolRef, VolumePage, VolumeRef, VolumeStream, WipeAlgorithm,
};

use super::Access;
use super::event::Cursor;
use super::figures::{FigureGroups, FiguresOf, FiguresPage};
use super::host::{HostCpuPage, HostCpuStats, HostCpuid, HostFreePages, HostInfo, HostMemoryStats};
use super::storage::{PoolDetails, PoolSummary, Volume};
use super::view::{
    AgentTimeout, DeviceStats, DomainDefinition, DomainDetails, DomainStats, DomainSummary,
    SupervisorInfo, VcpuStats,
};
use crate::device::DeviceChange;
use crate::model::{
    Device, DeviceName, DiskTarget, Domain, DomainName, Medium, MemorySize, NewVolume, Pool,
    PoolName, Vcpus, VolumeName,
};
use crate::spec::DiskFormat;

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

macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        $name:ident $fields:tt -> $answer:ty,
        call $call:literal, access $access:ident, idempotent $idempotent:literal;
    )*) => {
        $( calls!(@type $(#[$doc])* $name $fields); )*

        /// A call on the wire. Positional: new ones are added at the end.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub enum CallBody { $( #[doc = concat!("See [`", stringify!($name), "`].")] $name($name), )* }

        /// An answer on the wire, named after its call.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub enum AnswerBody { $( #[doc = concat!("Answers [`", stringify!($name), "`].")] $name($answer), )* }

        /// The operations, without their arguments.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Operation { $( #[doc = concat!("See [`", stringify!($name), "`].")] $name, )* }

        impl Operation {
            /// Every operation.
            pub const ALL: &[Self] = &[$( Self::$name, )*];

            /// The operation's name, as messages and logs print it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $call, )* }
            }

            /// The access it needs.
            #[must_use]
            pub const fn access(self) -> Access {
                match self { $( Self::$name => Access::$access, )* }
            }

            /// Whether sending it a second time, when its answer was lost, changes nothing.
            #[must_use]
            pub const fn is_idempotent(self) -> bool {
                match self { $( Self::$name => $idempotent, )* }
            }
        }

        impl CallBody {
            /// Which operation this is.
            #[must_use]
            pub const fn operation(&self) -> Operation {
                match self { $( Self::$name(_) => Operation::$name, )* }
            }
        }

        impl AnswerBody {
            /// Which operation this answers.
            #[must_use]
            pub const fn operation(&self) -> Operation {
                match self { $( Self::$name(_) => Operation::$name, )* }
            }
        }

        $(
            impl Call for $name {
                type Answer = $answer;
                const OPERATION: Operation = Operation::$name;

                fn into_body(self) -> CallBody { CallBody::$name(self) }

                fn answer_from(body: AnswerBody) -> Option<$answer> {
                    match body {
                        AnswerBody::$name(answer) => Some(answer),
                        _ => None,
                    }
                }
            }
        )*
    };

    (@type $(#[$doc:meta])* $name:ident {}) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {}
    };
    (@type $(#[$doc:meta])* $name:ident { $( $(#[$fdoc:meta])* $field:ident : $ty:ty ),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct $name { $( $(#[$fdoc])* pub $field: $ty, )+ }
    };
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

    /// One page of storage pools, in order of their names.
    PoolList {
        /// Only those after this name.
        after: Option<PoolName>,
        /// Only those that are so.
        filter: PoolFilter,
    } -> PoolPage,
    call "list storage pools", access ReadOnly, idempotent true;

    /// One pool. Its file system is asked for its sizes; its directory is not read.
    PoolGet {
        /// Which.
        pool: PoolRef,
    } -> Box<PoolDetails>,
    call "look up", access ReadOnly, idempotent true;

    /// Keeps a definition of a pool. One of the same UUID and name is replaced; a pool that is active goes on with
    /// the one it has. It is on disk when the answer comes. Its directory need not exist.
    PoolDefine {
        /// The definition.
        pool: Box<Pool>,
        /// Refuse to replace one.
        only_new: bool,
    } -> PoolSummary,
    call "define", access ReadWrite, idempotent true;

    /// Starts a pool without keeping its definition: it is gone when it is stopped.
    PoolCreate {
        /// The definition.
        pool: Box<Pool>,
        /// Make its directory first, as [`PoolBuild`] does.
        build: bool,
    } -> PoolSummary,
    call "create", access ReadWrite, idempotent false;

    /// Makes the directory of a pool that is not active, and those above it as far as they are beneath an allowed
    /// directory. One that is there is left as it is, whatever its definition says of its owner and mode.
    PoolBuild {
        /// Which.
        pool: PoolRef,
    } -> (),
    call "build", access ReadWrite, idempotent true;

    /// Starts a pool: looks what volumes its directory has. Answered when that is known.
    PoolStart {
        /// Which.
        pool: PoolRef,
        /// Make its directory first, as [`PoolBuild`] does.
        build: bool,
    } -> PoolSummary,
    call "start", access ReadWrite, idempotent false;

    /// Stops a pool (libvirt's destroy): what is in its directory stays. Refused while a volume of it is being
    /// changed.
    PoolStop {
        /// Which.
        pool: PoolRef,
    } -> (),
    call "stop", access ReadWrite, idempotent false;

    /// Removes the directory of a pool that is not active; refused where there is anything in it.
    PoolDelete {
        /// Which.
        pool: PoolRef,
    } -> (),
    call "delete", access ReadWrite, idempotent false;

    /// Forgets the definition of a pool that is not active.
    PoolUndefine {
        /// Which.
        pool: PoolRef,
    } -> (),
    call "undefine", access ReadWrite, idempotent false;

    /// Whether a pool starts with the host.
    PoolAutostartSet {
        /// Which.
        pool: PoolRef,
        /// Whether.
        autostart: bool,
    } -> (),
    call "set the autostart of", access ReadWrite, idempotent true;

    /// Looks again what volumes an active pool has.
    PoolRefresh {
        /// Which.
        pool: PoolRef,
    } -> (),
    call "refresh", access ReadWrite, idempotent true;

    /// One page of the volumes of an active pool, in order of their names, as they were when the pool was last
    /// looked at, with what was done to them through the supervisor since.
    VolumeList {
        /// Of which pool.
        pool: PoolRef,
        /// Only those after this name.
        after: Option<VolumeName>,
    } -> VolumePage,
    call "list the volumes of", access ReadOnly, idempotent true;

    /// One volume as it is now: its file is looked at, and its first bytes are read again where it has changed. One
    /// that is being made is there with what it has so far; one that came into the directory by other means is found.
    VolumeGet {
        /// Which.
        volume: VolumeRef,
    } -> Box<Volume>,
    call "look up volume", access ReadOnly, idempotent true;

    /// Makes a volume. Answered when it is made; meanwhile it is there to be looked at, its allocation grows, and
    /// whatever else is asked of it is refused as busy.
    VolumeCreate {
        /// In which pool, which is active.
        pool: PoolRef,
        /// The volume.
        volume: Box<NewVolume>,
        /// Lay out all of the tables of a qcow2 image at once, which has no backing file then (libvirt's
        /// `PREALLOC_METADATA`).
        preallocate_metadata: bool,
    } -> Box<Volume>,
    call "create volume", access ReadWrite, idempotent false;

    /// Makes a volume with what another has, in whichever active pool that is. The copy has the format that is said,
    /// and builds upon nothing but what the other does where that is qcow2 as well. Answered as [`VolumeCreate`] is.
    VolumeClone {
        /// In which pool, which is active.
        pool: PoolRef,
        /// The volume.
        volume: Box<NewVolume>,
        /// What it is a copy of; nobody may write it meanwhile.
        from: VolumeRef,
        /// As of [`VolumeCreate`].
        preallocate_metadata: bool,
        /// Share blocks with the other, or fail (libvirt's `REFLINK`); otherwise they are shared where that can be.
        reflink: bool,
        /// What is in the other; where it is not said, what its first bytes look like, which its guest may have
        /// written.
        from_format: Option<DiskFormat>,
    } -> Box<Volume>,
    call "clone to volume", access ReadWrite, idempotent false;

    /// Makes a volume larger, or smaller.
    VolumeResize {
        /// Which.
        volume: VolumeRef,
        /// How large.
        capacity: NewCapacity,
        /// Allocate what it has more.
        allocate: bool,
        /// Let it become smaller; what was behind its end is lost.
        shrink: bool,
        /// What is in it; where it is not said, as of [`VolumeClone`].
        format: Option<DiskFormat>,
    } -> (),
    call "resize volume", access ReadWrite, idempotent false;

    /// Overwrites all that a volume's file has, in place.
    VolumeWipe {
        /// Which.
        volume: VolumeRef,
        /// With what.
        algorithm: WipeAlgorithm,
    } -> (),
    call "wipe volume", access ReadWrite, idempotent true;

    /// Removes a volume. Refused while anything uses it, and of a directory that is not empty.
    VolumeDelete {
        /// Which.
        volume: VolumeRef,
        /// Overwrite it with zeros first.
        zeroed: bool,
    } -> (),
    call "delete volume", access ReadWrite, idempotent false;

    /// Has what the client sends written to a volume's file. The answer brings one descriptor, the client's end of a
    /// [stream](crate::volume_stream), whose other end a process of the supervisor's has, with the file and the locks of a machine
    /// that writes it: until that stream has ended, the volume counts as used by another machine. It ends with its
    /// last frame, when either end is closed, with the connection that asked for it, and when its pool is stopped.
    /// A send to a file that takes nothing for a minute fails with `EAGAIN`, and the stream is of no use then.
    VolumeUpload {
        /// Which.
        volume: VolumeRef,
        /// From which byte of the file on.
        offset: u64,
        /// How many bytes; 0 for as many as come. The file grows where they are more than it has.
        length: u64,
    } -> VolumeStream,
    call "upload to volume", access ReadWrite, idempotent true;

    /// Has what is in a volume's file sent to the client. The answer brings one descriptor, the client's end of a
    /// [stream](crate::volume_stream), which ends as one of [`VolumeUpload`] does. Nothing is locked: what a machine
    /// writes meanwhile is read as it comes.
    VolumeDownload {
        /// Which.
        volume: VolumeRef,
        /// From which byte of the file on.
        offset: u64,
        /// How many bytes; 0 for all that there are from there on.
        length: u64,
    } -> VolumeStream,
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
}
