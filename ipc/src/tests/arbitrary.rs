//! Strategies for every type that crosses the socket: any message that can be expressed at all.

use proptest::array::{uniform4, uniform16};
use proptest::option;
use proptest::prelude::*;
use uuid::Uuid;

use super::device_samples::{any_device, any_layer, any_port, any_slot};
use super::plug_samples::{any_change, any_report};
use crate::error::{ErrorCode, WireError};
use crate::event::{CrashCause, CrashReport, Event, NumberedEvent, Registers};
use crate::fd::FdSlot;
use crate::message::{FromWorker, JailFacts, RequestId, ToWorker};
use crate::phase::Phase;
use crate::request::{
    AcceptorSet, BootProtocol, ConsoleAttach, ConsoleAttached, DeviceAttach, DeviceDetach,
    DeviceQuery, DeviceUpdate, DiskQuery, FinishedRequest, HandOver, Launch, Launched,
    MediumChange, NmiInject, Pause, Peek, PeekPlace, PortAttach, PortDetach, PowerButton, Query,
    ReplyBody, Report, RequestBody, Reset, Resume, Standing, Status, Stop, SwitchOver,
    SwitchedOver, TakeOver, VcpusQuery, VcpusSet,
};
use crate::spec::{
    BootSpec, ControlLoss, CpuSwitches, CpuidEntry, EndAction, EndPolicy, MAX_VCPUS, MachineSpec,
    MachineType, MemoryBacking, MemorySpec, PluggableSpec, ResetAction, SpecDigest, WatchdogAction,
    WatchdogSpec,
};
use crate::vcpus::VcpuStanding;
use crate::{BuildId, ProtocolVersion};

/// Text of any characters, long enough to leave the one-byte lengths.
fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), 0..400).prop_map(|chars| chars.into_iter().collect())
}

fn slot() -> impl Strategy<Value = FdSlot> {
    any::<u16>().prop_map(FdSlot)
}

pub(super) fn phase() -> impl Strategy<Value = Phase> {
    proptest::sample::select(&Phase::ALL[..])
}

fn backing() -> impl Strategy<Value = MemoryBacking> {
    prop_oneof![
        slot().prop_map(|fd| MemoryBacking::Shared { fd }),
        (slot(), any::<u64>())
            .prop_map(|(fd, page_bytes)| MemoryBacking::HugePages { fd, page_bytes }),
        slot().prop_map(|fd| MemoryBacking::PrivateCopy { fd }),
    ]
}

fn end_action() -> impl Strategy<Value = EndAction> {
    prop_oneof![Just(EndAction::Exit), Just(EndAction::Preserve)]
}

fn policy() -> impl Strategy<Value = EndPolicy> {
    let reset = prop_oneof![
        Just(ResetAction::Reset),
        Just(ResetAction::Exit),
        Just(ResetAction::Preserve)
    ];
    (end_action(), reset, end_action()).prop_map(|(on_power_off, on_reset, on_crash)| EndPolicy {
        on_power_off,
        on_reset,
        on_crash,
    })
}

fn cpuid_entry() -> impl Strategy<Value = CpuidEntry> {
    (any::<[u32; 3]>(), uniform4(any::<u32>())).prop_map(|([function, index, flags], registers)| {
        CpuidEntry {
            function,
            index,
            flags,
            registers,
        }
    })
}

fn cpu() -> impl Strategy<Value = CpuSwitches> {
    any::<[bool; 4]>().prop_map(|switches| CpuSwitches {
        tsc_deadline: switches[0],
        kvmclock: switches[1],
        invariant_tsc: switches[2],
        transactional_memory: switches[3],
    })
}

fn machine_spec() -> impl Strategy<Value = MachineSpec> {
    let identity = (
        text(),
        any::<u128>(),
        proptest::sample::select(&MachineType::ALL[..]),
    );
    let cpuid = proptest::collection::vec(cpuid_entry(), 0..4);
    let parts = (
        any::<[u32; 2]>(),
        cpu(),
        any::<u64>(),
        backing(),
        slot(),
        cpuid,
    );
    let devices = proptest::collection::vec(any_device(), 0..4);
    let boot = (slot(), option::of(slot()), text(), devices);
    let ends = (
        option::of(slot()),
        any::<bool>(),
        policy(),
        prop_oneof![Just(ControlLoss::KeepRunning), Just(ControlLoss::Stop)],
        option::of(slot()),
        any::<[u8; 16]>(),
        any::<Option<u128>>(),
        option::of(watchdog()),
    );
    (identity, parts, boot, ends).prop_map(|(identity, parts, boot, ends)| MachineSpec {
        name: identity.0,
        uuid: Uuid::from_u128(identity.1),
        machine: identity.2,
        vcpus: parts.0[0],
        cpu: parts.1,
        supported_cpuid: parts.5,
        memory: MemorySpec {
            size_bytes: parts.2,
            backing: parts.3,
            pluggable: (parts.0[0] % 2 == 0).then_some(PluggableSpec {
                bytes: parts.2.rotate_left(7),
                block_bytes: parts.2.rotate_left(13),
            }),
        },
        kvm: parts.4,
        boot: BootSpec {
            kernel: boot.0,
            initrd: boot.1,
            command_line: boot.2,
        },
        devices: boot.3,
        console: ends.0,
        hold: ends.1,
        policy: ends.2,
        on_control_loss: ends.3,
        adoption: ends.4,
        digest: SpecDigest(ends.5),
        max_vcpus: parts.0[1],
        generation_id: ends.6.map(u128::to_le_bytes),
        panic_port: ends.1 != ends.6.is_some(),
        watchdog: ends.7,
    })
}

pub(super) fn watchdog_action() -> impl Strategy<Value = WatchdogAction> {
    proptest::sample::select(WatchdogAction::ALL)
}

fn watchdog() -> impl Strategy<Value = WatchdogSpec> {
    (any_slot(), watchdog_action()).prop_map(|(slot, action)| WatchdogSpec { slot, action })
}

fn request_body() -> impl Strategy<Value = RequestBody> {
    prop_oneof![
        4 => machine_spec().prop_map(|spec| RequestBody::Launch(Launch { spec })),
        1 => Just(RequestBody::Resume(Resume {})),
        1 => Just(RequestBody::Pause(Pause {})),
        1 => Just(RequestBody::PowerButton(PowerButton {})),
        1 => Just(RequestBody::Reset(Reset {})),
        1 => Just(RequestBody::Stop(Stop {})),
        2 => (slot(), any::<bool>(), any::<Option<u64>>()).prop_map(|(stream, input, from)| {
            RequestBody::ConsoleAttach(ConsoleAttach { stream, input, from })
        }),
        1 => Just(RequestBody::Query(Query {})),
        1 => any::<u64>().prop_map(|events_after| RequestBody::Report(Report { events_after })),
        2 => any_device().prop_map(|spec| RequestBody::DeviceAttach(DeviceAttach { spec })),
        1 => (any_slot(), any::<bool>()).prop_map(|(slot, force)| {
            RequestBody::DeviceDetach(DeviceDetach { slot, force })
        }),
        2 => (any_slot(), any_change()).prop_map(|(slot, change)| {
            RequestBody::DeviceUpdate(DeviceUpdate { slot, change })
        }),
        1 => Just(RequestBody::DeviceQuery(DeviceQuery {})),
        1 => slot().prop_map(|to| RequestBody::HandOver(HandOver { to })),
        1 => (slot(), slot()).prop_map(|(from, kvm)| {
            RequestBody::TakeOver(TakeOver { from, kvm })
        }),
        1 => Just(RequestBody::SwitchOver(SwitchOver {})),
        1 => any::<u32>().prop_map(|count| RequestBody::VcpusSet(VcpusSet { count })),
        1 => Just(RequestBody::VcpusQuery(VcpusQuery {})),
        1 => (any_slot(), proptest::collection::vec(any_layer(), 0..4)).prop_map(|(slot, layers)| {
            RequestBody::MediumChange(MediumChange { slot, layers })
        }),
        1 => (any_slot(), any_port()).prop_map(|(slot, port)| {
            RequestBody::PortAttach(PortAttach { slot, port })
        }),
        1 => (any_slot(), any::<u16>()).prop_map(|(slot, number)| {
            RequestBody::PortDetach(PortDetach { slot, number })
        }),
        1 => (any_slot(), slot()).prop_map(|(slot, acceptor)| {
            RequestBody::AcceptorSet(AcceptorSet { slot, acceptor })
        }),
        1 => Just(RequestBody::NmiInject(NmiInject {})),
        1 => (proptest::option::of(any_slot()), any::<u64>(), any::<u32>()).prop_map(|(slot, offset, length)| {
            let at = slot.map_or(PeekPlace::Memory, PeekPlace::Disk);
            RequestBody::Peek(Peek { at, offset, length })
        }),
        1 => any_slot().prop_map(|slot| RequestBody::DiskQuery(DiskQuery { slot })),
    ]
}

fn status() -> impl Strategy<Value = Status> {
    (
        phase(),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        any::<u32>(),
        any::<u64>(),
    )
        .prop_map(|fields| Status {
            phase: fields.0,
            last_event: fields.1,
            resets: fields.2,
            console_dropped_bytes: fields.3,
            console_clients: fields.4,
            log_dropped: fields.5,
        })
}

fn standing() -> impl Strategy<Value = Standing> {
    let protocol = prop_oneof![
        Just(BootProtocol::Pvh),
        Just(BootProtocol::Linux64),
        Just(BootProtocol::Firmware)
    ];
    let numbered =
        (any::<u64>(), event()).prop_map(|(number, event)| NumberedEvent { number, event });
    let finished = (
        any::<u64>(),
        proptest::result::maybe_ok(Just(()), wire_error()),
    )
        .prop_map(|(id, result)| FinishedRequest {
            id: RequestId(id),
            result,
        });
    (
        phase(),
        any::<Option<[u8; 16]>>(),
        proptest::option::of(protocol),
        any::<[u64; 4]>(),
        proptest::collection::vec(numbered, 0..4),
        proptest::option::of(finished),
    )
        .prop_map(|fields| Standing {
            phase: fields.0,
            digest: fields.1.map(SpecDigest),
            boot_protocol: fields.2,
            resets: fields.3[0],
            last_event: fields.3[1],
            events: fields.4,
            last_request: fields.5,
            console_position: fields.3[2],
            told: fields.3[3],
        })
}

fn reply_body() -> impl Strategy<Value = ReplyBody> {
    let protocol = prop_oneof![
        Just(BootProtocol::Pvh),
        Just(BootProtocol::Linux64),
        Just(BootProtocol::Firmware)
    ];
    prop_oneof![
        (phase(), protocol).prop_map(|(phase, boot_protocol)| ReplyBody::Launch(Launched {
            phase,
            boot_protocol
        })),
        Just(ReplyBody::Resume(())),
        Just(ReplyBody::Pause(())),
        Just(ReplyBody::PowerButton(())),
        Just(ReplyBody::Reset(())),
        Just(ReplyBody::Stop(())),
        any::<u64>().prop_map(|position| ReplyBody::ConsoleAttach(ConsoleAttached { position })),
        status().prop_map(ReplyBody::Query),
        standing().prop_map(ReplyBody::Report),
        Just(ReplyBody::DeviceAttach(())),
        Just(ReplyBody::DeviceDetach(())),
        Just(ReplyBody::DeviceUpdate(())),
        proptest::collection::vec(any_report(), 0..40).prop_map(ReplyBody::DeviceQuery),
        Just(ReplyBody::HandOver(())),
        (phase(), any::<u64>()).prop_map(|(phase, stood_ns)| {
            ReplyBody::SwitchOver(SwitchedOver { phase, stood_ns })
        }),
        Just(ReplyBody::VcpusSet(())),
        Just(ReplyBody::MediumChange(())),
        Just(ReplyBody::PortAttach(())),
        Just(ReplyBody::PortDetach(())),
        Just(ReplyBody::AcceptorSet(())),
        Just(ReplyBody::NmiInject(())),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(ReplyBody::Peek),
        any::<u64>().prop_map(ReplyBody::DiskQuery),
        vcpus().prop_map(ReplyBody::VcpusQuery),
    ]
}

fn vcpus() -> impl Strategy<Value = VcpuStanding> {
    let mask = || {
        proptest::collection::vec(0..MAX_VCPUS, 0..20).prop_map(|vcpus| vcpus.into_iter().collect())
    };
    (mask(), mask(), mask(), any::<u32>()).prop_map(|(present, leaving, new, wanted)| {
        VcpuStanding {
            present,
            leaving,
            new,
            wanted,
        }
    })
}

fn wire_error() -> impl Strategy<Value = WireError> {
    (proptest::sample::select(&ERROR_CODES[..]), text())
        .prop_map(|(code, message)| WireError { code, message })
}

/// Every code, in wire order.
pub(super) const ERROR_CODES: [ErrorCode; 9] = [
    ErrorCode::WrongPhase,
    ErrorCode::InvalidArgument,
    ErrorCode::Descriptor,
    ErrorCode::BootImage,
    ErrorCode::Hypervisor,
    ErrorCode::Memory,
    ErrorCode::Host,
    ErrorCode::Unsupported,
    ErrorCode::Timeout,
];

fn registers() -> impl Strategy<Value = Registers> {
    (
        uniform16(any::<u64>()),
        any::<(u64, u64, u16)>(),
        uniform4(any::<u64>()),
        any::<u64>(),
    )
        .prop_map(|(general, (rip, rflags, cs), cr, efer)| Registers {
            general,
            rip,
            rflags,
            cs,
            cr,
            efer,
        })
}

fn cause() -> impl Strategy<Value = CrashCause> {
    prop_oneof![
        Just(CrashCause::TripleFault),
        any::<u32>().prop_map(|suberror| CrashCause::InternalError { suberror }),
        any::<u64>().prop_map(|reason| CrashCause::FailEntry { reason }),
        any::<u32>().prop_map(|reason| CrashCause::UnhandledExit { reason }),
        any::<i32>().prop_map(|errno| CrashCause::RunFailed { errno }),
        Just(CrashCause::Panicked),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        phase().prop_map(Event::PhaseChanged),
        Just(Event::GuestWantsReset),
        Just(Event::GuestPoweredOff),
        any::<u64>().prop_map(|count| Event::GuestReset { count }),
        (any::<u32>(), cause(), option::of(registers())).prop_map(|(vcpu, cause, registers)| {
            Event::GuestCrashed(CrashReport {
                vcpu,
                cause,
                registers: registers.map(Box::new),
            })
        }),
        text().prop_map(|message| Event::WorkerFailed { message }),
        any_slot().prop_map(|slot| Event::DeviceRemoved { slot }),
        any::<[u64; 2]>().prop_map(|[bytes, plugged_bytes]| Event::BalloonChanged {
            bytes,
            plugged_bytes,
        }),
        vcpus().prop_map(Event::VcpusChanged),
        Just(Event::GuestCrashKernel),
        watchdog_action().prop_map(|action| Event::WatchdogExpired { action }),
        (any_slot(), any::<u16>()).prop_map(|(slot, number)| Event::PortRemoved { slot, number }),
        (any_slot(), any::<u32>())
            .prop_map(|(slot, guest_open)| Event::PortsChanged { slot, guest_open }),
    ]
}

fn protocol() -> impl Strategy<Value = ProtocolVersion> {
    any::<u16>().prop_map(ProtocolVersion)
}

/// Anything a supervisor may say.
pub(super) fn to_worker() -> impl Strategy<Value = ToWorker> {
    prop_oneof![
        1 => (protocol(), text(), text()).prop_map(|(protocol, build, domain)| ToWorker::Welcome {
            protocol,
            build: BuildId(build),
            domain,
        }),
        1 => any::<u16>().prop_map(|count| ToWorker::Descriptors { count }),
        4 => (any::<u64>(), request_body())
            .prop_map(|(id, body)| ToWorker::Request { id: RequestId(id), body }),
    ]
}

/// Anything a worker may say.
pub(super) fn from_worker() -> impl Strategy<Value = FromWorker> {
    prop_oneof![
        (protocol(), text(), any::<u32>()).prop_map(|(protocol, build, landlock_abi)| {
            FromWorker::Hello {
                protocol,
                build: BuildId(build),
                jail: JailFacts { landlock_abi },
            }
        }),
        (
            any::<u64>(),
            proptest::result::maybe_ok(reply_body(), wire_error())
        )
            .prop_map(|(id, result)| FromWorker::Reply {
                id: RequestId(id),
                result
            }),
        (any::<u64>(), event()).prop_map(|(number, event)| FromWorker::Event { number, event }),
    ]
}
