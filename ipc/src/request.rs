//! Every request a worker answers, in one list: its arguments, its only possible reply, whether it
//! may be sent again after a lost reply, and the phases in which it is legal.
//!
//! The list makes a type per request, the two wire enums, the table of operations, and the trait a
//! worker implements ([`WorkerService`]): a handler that answers with another request's reply does
//! not compile.

use serde::{Deserialize, Serialize};

use crate::device::{DeviceChange, DeviceReport};
use crate::error::{ErrorCode, WireError};
use crate::event::NumberedEvent;
use crate::fd::FdSlot;
use crate::message::RequestId;
use crate::phase::Phase;
use crate::spec::{DeviceSpec, LayerSpec, MachineSpec, PciSlot, PortSpec, SpecDigest};
use crate::vcpus::VcpuStanding;

/// A call with its reply.
pub trait Request: Sized {
    /// What the worker answers.
    type Reply;
    /// Which operation this is.
    const OPERATION: Operation;

    /// The request as it goes on the wire.
    fn into_body(self) -> RequestBody;

    /// The reply, if `body` answers this very request.
    fn reply_from(body: ReplyBody) -> Option<Self::Reply>;
}

macro_rules! requests {
    ($(
        $(#[$doc:meta])*
        $name:ident $fields:tt -> $reply:ty,
        call $call:ident, idempotent $idempotent:literal, phases [$($phases:tt)*];
    )*) => {
        $( requests!(@type $(#[$doc])* $name $fields); )*

        /// A request on the wire. Positional: new ones are added at the end.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub enum RequestBody { $( #[doc = concat!("See [`", stringify!($name), "`].")] $name($name), )* }

        /// A reply on the wire, named after its request.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[expect(clippy::large_enum_variant, reason = "there is one at a time")]
        pub enum ReplyBody { $( #[doc = concat!("Answers [`", stringify!($name), "`].")] $name($reply), )* }

        /// The operations, without their arguments.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Operation { $( #[doc = concat!("See [`", stringify!($name), "`].")] $name, )* }

        impl Operation {
            /// Every operation.
            pub const ALL: &[Self] = &[$( Self::$name, )*];

            /// The operation's name, as messages and logs print it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => stringify!($call), )* }
            }

            /// Whether sending it a second time, when its reply was lost, changes nothing.
            #[must_use]
            pub const fn is_idempotent(self) -> bool {
                match self { $( Self::$name => $idempotent, )* }
            }

            /// Whether a worker in `phase` may be asked for it.
            #[must_use]
            pub const fn is_legal_in(self, phase: Phase) -> bool {
                match self { $( Self::$name => matches!(phase, $($phases)*), )* }
            }
        }

        impl RequestBody {
            /// Which operation this is.
            #[must_use]
            pub const fn operation(&self) -> Operation {
                match self { $( Self::$name(_) => Operation::$name, )* }
            }
        }

        impl ReplyBody {
            /// Which operation this answers.
            #[must_use]
            pub const fn operation(&self) -> Operation {
                match self { $( Self::$name(_) => Operation::$name, )* }
            }
        }

        $(
            impl Request for $name {
                type Reply = $reply;
                const OPERATION: Operation = Operation::$name;

                fn into_body(self) -> RequestBody { RequestBody::$name(self) }

                fn reply_from(body: ReplyBody) -> Option<$reply> {
                    match body {
                        ReplyBody::$name(reply) => Some(reply),
                        #[allow(unreachable_patterns, reason = "with one request there is no other")]
                        _ => None,
                    }
                }
            }
        )*

        /// What a worker does for each request. Called by [`dispatch`] after the phase check.
        pub trait WorkerService {
            /// The phase the worker is in.
            fn phase(&self) -> Phase;
            $(
                #[doc = concat!("Serves [`", stringify!($name), "`].")]
                ///
                /// # Errors
                /// What the request's sender is told.
                fn $call(&mut self, request: $name) -> Result<$reply, WireError>;
            )*
        }

        /// Checks the phase and calls the one handler that can answer `body`.
        ///
        /// # Errors
        /// [`ErrorCode::WrongPhase`], or the handler's own error.
        pub fn dispatch<S: WorkerService>(
            service: &mut S,
            body: RequestBody,
        ) -> Result<ReplyBody, WireError> {
            let operation = body.operation();
            let phase = service.phase();
            if !operation.is_legal_in(phase) {
                return Err(WireError::new(
                    ErrorCode::WrongPhase,
                    format!("cannot {}: the machine is {phase}", operation.name()),
                ));
            }
            match body { $( RequestBody::$name(request) => service.$call(request).map(ReplyBody::$name), )* }
        }
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

requests! {
    /// Builds the whole machine from one specification, and starts it unless told to hold. Answered
    /// when the machine stands; a failure leaves a worker that can only be ended.
    Launch {
        /// What to build; its slots name descriptors sent before.
        spec: MachineSpec,
    } -> Launched,
    call launch, idempotent false, phases [Phase::AwaitingLaunch];

    /// Lets the vCPUs run. Answered at once when they run already.
    Resume {} -> (),
    call resume, idempotent true, phases [Phase::Paused | Phase::Running];

    /// Stops every vCPU between two instructions and answers when the last one stands. No exit is
    /// lost: what a vCPU had begun is complete.
    Pause {} -> (),
    call pause, idempotent true, phases [Phase::Running | Phase::Paused];

    /// Presses the ACPI power button (ACPI 6.5 §4.8.2.2): the guest may shut down, or not.
    PowerButton {} -> (),
    call power_button, idempotent false, phases [Phase::Running | Phase::Paused];

    /// Puts every vCPU and device back to its power-on state and boots again.
    Reset {} -> (),
    call reset, idempotent false, phases [Phase::Running | Phase::Paused | Phase::Off | Phase::Crashed];

    /// Ends the worker at once. Answered before the process goes.
    Stop {} -> (),
    call stop, idempotent true, phases [_];

    /// Attaches a client to the console: it first gets what the ring still holds, or that part of it
    /// which lies behind `from`, then all that follows; what it sends is the guest's input. Closing
    /// its end detaches it.
    ConsoleAttach {
        /// A stream socket or pty; the worker owns it from now on and makes it non-blocking.
        stream: FdSlot,
        /// Whether bytes from the client reach the guest.
        input: bool,
        /// The first byte wanted, counted from the first the guest ever wrote.
        from: Option<u64>,
    } -> ConsoleAttached,
    call console_attach, idempotent false,
    phases [Phase::Paused | Phase::Running | Phase::Off | Phase::Crashed];

    /// Says where the worker stands.
    Query {} -> Status,
    call query, idempotent true, phases [_];

    /// Says what a supervisor that adopts this worker must know.
    Report {
        /// The last event it knows of; those behind it are told again, as far as they are kept.
        events_after: u64,
    } -> Standing,
    call report, idempotent true, phases [_];

    /// Builds a device and puts it on the bus of the machine, whose guest is told. Answered when the
    /// device is there, whatever the guest makes of it. Its descriptors were sent before.
    DeviceAttach {
        /// What to build; its slot is free.
        spec: DeviceSpec,
    } -> (),
    call device_attach, idempotent false, phases [Phase::Running | Phase::Paused];

    /// Takes a device away. Asked nicely, the guest lets go of it when it likes, and
    /// [`Event::DeviceRemoved`](crate::event::Event::DeviceRemoved) tells; by force it is gone when this is
    /// answered, and that event comes as well. A guest that was asked before is asked again.
    DeviceDetach {
        /// Which.
        slot: PciSlot,
        /// Without the guest's consent.
        force: bool,
    } -> (),
    call device_detach, idempotent true,
    phases [Phase::Running | Phase::Paused | Phase::Off | Phase::Crashed];

    /// Changes a device that is there.
    DeviceUpdate {
        /// Which.
        slot: PciSlot,
        /// To what.
        change: DeviceChange,
    } -> (),
    call device_update, idempotent true,
    phases [Phase::Running | Phase::Paused | Phase::Off | Phase::Crashed];

    /// Says what each device has done, by rising slot; at most
    /// [`MAX_DEVICES`](crate::spec::MAX_DEVICES).
    DeviceQuery {} -> Vec<DeviceReport>,
    call device_query, idempotent true,
    phases [Phase::Running | Phase::Paused | Phase::Off | Phase::Crashed];

    /// Stops the machine and sends everything of it to another worker
    /// ([`Transfer`](crate::transfer::Transfer)). Answered when all is sent. Until the other has taken it
    /// over for good, which ends this worker, nothing else is done than `Query`, `Report` and `Stop`; if
    /// the other goes before, the machine goes on here as before, whoever is listening.
    HandOver {
        /// A `SOCK_SEQPACKET` socket whose other end the other worker has.
        to: FdSlot,
    } -> (),
    call hand_over, idempotent false, phases [Phase::Running | Phase::Paused];

    /// Builds the machine that another worker hands over. Answered when it stands; it runs nothing, and
    /// this worker ends with its supervisor, until [`SwitchOver`].
    TakeOver {
        /// The other end of the socket of the other's [`HandOver`].
        from: FdSlot,
        /// `/dev/kvm`, open for reading and writing.
        kvm: FdSlot,
    } -> Launched,
    call take_over, idempotent false, phases [Phase::AwaitingLaunch];

    /// Takes the machine that was handed over for good: the other worker ends, and the machine goes on
    /// here if it ran there.
    SwitchOver {} -> SwitchedOver,
    call switch_over, idempotent false, phases [Phase::Paused];

    /// Gives the machine so many vCPUs, 1 to as many as it can have. Those that it lacks, lowest first, are
    /// there when this is answered, and the guest is told. Of those that are too many the guest is asked to
    /// let go, highest first; it does so when it likes, or says that it does not. A guest that was asked
    /// before is asked again; one that is no longer to let go of a vCPU and does so all the same gets it
    /// back. What it was asked for and has not answered goes at the next reset. In any case
    /// [`Event::VcpusChanged`](crate::event::Event::VcpusChanged) says how they stand then, and again at each
    /// change.
    VcpusSet {
        /// How many.
        count: u32,
    } -> (),
    call vcpus_set, idempotent true, phases [Phase::Running | Phase::Paused];

    /// Says which vCPUs there are.
    VcpusQuery {} -> VcpuStanding,
    call vcpus_query, idempotent true,
    phases [Phase::Running | Phase::Paused | Phase::Off | Phase::Crashed];

    /// Puts another medium into a disk that its guest may only read, or none, and tells the guest. Answered
    /// when the one before is closed. Its descriptors were sent before.
    MediumChange {
        /// Which disk.
        slot: PciSlot,
        /// The image and what it builds upon, as [`DiskSpec`](crate::spec::DiskSpec) has them; none for no
        /// medium.
        layers: Vec<LayerSpec>,
    } -> (),
    call medium_change, idempotent false,
    phases [Phase::Running | Phase::Paused | Phase::Off | Phase::Crashed];

    /// Gives a serial controller a further port, of which its guest is told. Answered when it is there,
    /// whatever the guest makes of it. Its descriptor was sent before.
    PortAttach {
        /// Which controller.
        slot: PciSlot,
        /// The port; its number is free, and below the controller's room.
        port: PortSpec,
    } -> (),
    call port_attach, idempotent false, phases [Phase::Running | Phase::Paused];

    /// Takes a port from a serial controller, and tells its guest. It serves nobody any more when this is
    /// answered, its descriptors are closed by then or a moment later, and [`Event::PortRemoved`](crate::event::Event::PortRemoved) comes as well.
    PortDetach {
        /// Which controller.
        slot: PciSlot,
        /// Which of its ports.
        number: u16,
    } -> (),
    call port_detach, idempotent true,
    phases [Phase::Running | Phase::Paused | Phase::Off | Phase::Crashed];

    /// Gives a socket device another socket on which it asks for the connections that its guest opens
    /// ([`crate::acceptor`]), in place of the one it has, whose other end may be gone with the supervisor
    /// before. Its descriptor was sent before. Connections that there are stay; those that are being asked
    /// for on the one before are refused.
    AcceptorSet {
        /// Which device.
        slot: PciSlot,
        /// A `SOCK_SEQPACKET` socket.
        acceptor: FdSlot,
    } -> (),
    call acceptor_set, idempotent false,
    phases [Phase::Running | Phase::Paused | Phase::Off | Phase::Crashed];

    /// Sends every vCPU that is there an interrupt that its guest cannot mask (SDM vol. 3, 12.11).
    NmiInject {} -> (),
    call nmi_inject, idempotent false, phases [Phase::Running | Phase::Paused];

    /// Bytes of the guest's memory, or of a disk between two of its requests. All of them, or an error.
    Peek {
        /// Where.
        at: PeekPlace,
        /// The first byte.
        offset: u64,
        /// How many, 1 to [`MAX_PEEK_BYTES`].
        length: u32,
    } -> Vec<u8>,
    call peek, idempotent true,
    phases [Phase::Running | Phase::Paused | Phase::Off | Phase::Crashed];

    /// How large a disk is for its guest, in bytes; 0 without a medium.
    DiskQuery {
        /// Which.
        slot: PciSlot,
    } -> u64,
    call disk_query, idempotent true,
    phases [Phase::Running | Phase::Paused | Phase::Off | Phase::Crashed];
}

/// The most bytes of one [`Peek`].
pub const MAX_PEEK_BYTES: u32 = 32 << 10;

/// Where a [`Peek`] looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeekPlace {
    /// In the guest's memory, at a physical address.
    Memory,
    /// On the disk in that slot, as its guest sees it.
    Disk(PciSlot),
}

/// A machine goes on in another worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchedOver {
    /// [`Phase::Running`] or [`Phase::Paused`], as it was.
    pub phase: Phase,
    /// For how many nanoseconds it stood, from the order to its vCPUs to stop.
    pub stood_ns: u64,
}

/// A client is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleAttached {
    /// The number of the first byte it gets: later than asked for where the ring has lost some.
    pub position: u64,
}

/// The most events that a worker keeps for a supervisor that comes back.
pub const MAX_KEPT_EVENTS: usize = 64;

/// How a worker stands that is adopted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Its phase.
    pub phase: Phase,
    /// What its launch said; `None` before one.
    pub digest: Option<SpecDigest>,
    /// How its kernel was entered; `None` before a launch.
    pub boot_protocol: Option<BootProtocol>,
    /// Resets since launch.
    pub resets: u64,
    /// The number of the last event it made, 0 before the first.
    pub last_event: u64,
    /// Events behind the one asked from, rising, at most [`MAX_KEPT_EVENTS`].
    pub events: Vec<NumberedEvent>,
    /// The last request it finished, whether or not anybody read the reply.
    pub last_request: Option<FinishedRequest>,
    /// Bytes the guest has written to its console.
    pub console_position: u64,
    /// The number of the last event that was sent to a supervisor, 0 before the first: those behind it happened
    /// while there was none.
    pub told: u64,
}

/// A request that was finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedRequest {
    /// Its id.
    pub id: RequestId,
    /// Whether it succeeded, or why not.
    pub result: Result<(), WireError>,
}

/// The machine stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launched {
    /// [`Phase::Running`], or [`Phase::Paused`] where the specification said to hold.
    pub phase: Phase,
    /// How the kernel is entered, for reports.
    pub boot_protocol: BootProtocol,
}

/// How a kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootProtocol {
    /// PVH: 32-bit entry of an ELF image (Xen `hvm_start_info`).
    Pvh,
    /// The 64-bit Linux boot protocol of a bzImage.
    Linux64,
    /// None: the first vCPU starts at the reset vector, in firmware.
    Firmware,
}

impl std::fmt::Display for BootProtocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pvh => "PVH",
            Self::Linux64 => "Linux 64-bit",
            Self::Firmware => "firmware",
        })
    }
}

/// Where a worker stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its phase.
    pub phase: Phase,
    /// The number of the last event it made, 0 before the first.
    pub last_event: u64,
    /// Resets since launch.
    pub resets: u64,
    /// Bytes of console output that were overwritten before every client had read them.
    pub console_dropped_bytes: u64,
    /// Clients on the console.
    pub console_clients: u32,
    /// Log lines that were dropped because nobody read them.
    pub log_dropped: u64,
}
