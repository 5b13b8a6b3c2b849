//! The bytes of every message, as they are on the wire. Changing these means raising
//! [`crate::PROTOCOL`]: a worker that outlived an upgrade still speaks the old ones.

use uuid::Uuid;

use super::arbitrary::ERROR_CODES;
use super::device_samples::{devices, other_devices};
use super::plug_samples::{changes, device_events, reports};
use crate::codec::{decode, encode};
use crate::error::WireError;
use crate::event::{CrashCause, CrashReport, Event, NumberedEvent, Registers};
use crate::fd::FdSlot;
use crate::message::{FromWorker, JailFacts, RequestId, ToWorker};
use crate::phase::Phase;
use crate::request::{
    AcceptorSet, BootProtocol, ConsoleAttach, ConsoleAttached, DeviceAttach, DeviceDetach,
    DeviceQuery, DeviceUpdate, DiskQuery, FinishedRequest, HandOver, Launch, Launched,
    MediumChange, NmiInject, Operation, Pause, Peek, PeekPlace, PortAttach, PortDetach,
    PowerButton, Query, ReplyBody, Report, Request, Reset, Resume, Standing, Status, Stop,
    SwitchOver, SwitchedOver, TakeOver, VcpusQuery, VcpusSet,
};
use crate::spec::{
    BootSpec, ControlLoss, CpuSwitches, CpuidEntry, DiskFormat, EndAction, EndPolicy, LayerSpec,
    MachineSpec, MachineType, MemoryBacking, MemorySpec, PciSlot, PluggableSpec, PortKind,
    PortSpec, ResetAction, SpecDigest, WatchdogAction, WatchdogSpec,
};
use crate::vcpus::VcpuStanding;
use crate::{BuildId, PROTOCOL, ProtocolVersion};

/// A specification in which no field has its neighbour's value.
pub(super) fn machine_spec() -> MachineSpec {
    MachineSpec {
        name: "web".to_owned(),
        uuid: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        machine: MachineType::Reeve1_0,
        vcpus: 4,
        cpu: CpuSwitches {
            tsc_deadline: true,
            kvmclock: false,
            invariant_tsc: true,
            transactional_memory: false,
        },
        supported_cpuid: vec![CpuidEntry {
            function: 0x8000_0001,
            index: 2,
            flags: 1,
            registers: [3, 0x0100_0000, 5, 6],
        }],
        memory: MemorySpec {
            size_bytes: 128 << 20,
            backing: MemoryBacking::Shared { fd: FdSlot(1) },
            pluggable: Some(PluggableSpec {
                bytes: 1 << 33,
                block_bytes: 1 << 23,
            }),
        },
        kvm: FdSlot(0),
        boot: BootSpec {
            kernel: FdSlot(2),
            initrd: Some(FdSlot(3)),
            command_line: "quiet".to_owned(),
        },
        devices: devices(),
        console: Some(FdSlot(4)),
        hold: true,
        policy: EndPolicy {
            on_power_off: EndAction::Exit,
            on_reset: ResetAction::Exit,
            on_crash: EndAction::Preserve,
        },
        on_control_loss: ControlLoss::Stop,
        adoption: None,
        digest: SpecDigest([0x5a; 16]),
        max_vcpus: 8,
        generation_id: Some(*b"0123456789abcdef"),
        panic_port: true,
        watchdog: Some(WatchdogSpec {
            slot: PciSlot::try_from(7).unwrap(),
            action: WatchdogAction::Pause,
        }),
    }
}

/// The other variants of everything in a specification.
fn other_machine_spec() -> MachineSpec {
    MachineSpec {
        machine: MachineType::ReeveLegacy1_0,
        vcpus: 1000,
        supported_cpuid: Vec::new(),
        memory: MemorySpec {
            size_bytes: 1 << 40,
            backing: MemoryBacking::HugePages {
                fd: FdSlot(300),
                page_bytes: 2 << 20,
            },
            pluggable: None,
        },
        boot: BootSpec {
            kernel: FdSlot(2),
            initrd: None,
            command_line: String::new(),
        },
        devices: other_devices(),
        console: None,
        hold: false,
        policy: EndPolicy {
            on_power_off: EndAction::Preserve,
            on_reset: ResetAction::Reset,
            on_crash: EndAction::Exit,
        },
        on_control_loss: ControlLoss::KeepRunning,
        adoption: Some(FdSlot(7)),
        max_vcpus: 1024,
        generation_id: None,
        panic_port: false,
        watchdog: None,
        ..machine_spec()
    }
}

fn vcpus() -> VcpuStanding {
    VcpuStanding {
        present: [0, 1, 3, 300].into_iter().collect(),
        leaving: [3].into_iter().collect(),
        new: [1, 300].into_iter().collect(),
        wanted: 5,
    }
}

fn request<R: Request>(request: R) -> ToWorker {
    ToWorker::Request {
        id: RequestId(7),
        body: request.into_body(),
    }
}

/// One of each message of a supervisor.
pub(super) fn to_worker_samples() -> Vec<(&'static str, ToWorker)> {
    let launch_copy = MachineSpec {
        memory: MemorySpec {
            size_bytes: 2 << 20,
            backing: MemoryBacking::PrivateCopy { fd: FdSlot(5) },
            pluggable: None,
        },
        policy: EndPolicy {
            on_reset: ResetAction::Preserve,
            ..machine_spec().policy
        },
        devices: Vec::new(),
        ..machine_spec()
    };
    let console = ConsoleAttach {
        stream: FdSlot(6),
        input: true,
        from: None,
    };
    let later = ConsoleAttach {
        stream: FdSlot(6),
        input: false,
        from: Some(0x1234),
    };
    let mut samples = vec![
        (
            "welcome",
            ToWorker::Welcome {
                protocol: ProtocolVersion(1),
                build: BuildId("0.1.0+abc".to_owned()),
                domain: "web".to_owned(),
            },
        ),
        ("descriptors", ToWorker::Descriptors { count: 5 }),
        (
            "launch",
            request(Launch {
                spec: machine_spec(),
            }),
        ),
        (
            "launch, other variants",
            request(Launch {
                spec: other_machine_spec(),
            }),
        ),
        (
            "launch, private copy",
            request(Launch { spec: launch_copy }),
        ),
        ("resume", request(Resume {})),
        ("pause", request(Pause {})),
        ("power_button", request(PowerButton {})),
        ("reset", request(Reset {})),
        ("stop", request(Stop {})),
        ("console_attach", request(console)),
        ("console_attach, from later on", request(later)),
        ("query", request(Query {})),
        ("report", request(Report { events_after: 3 })),
    ];
    let slot = PciSlot::try_from(5).unwrap();
    samples.extend(devices().into_iter().map(|spec| {
        let name = spec.kind();
        (name, request(DeviceAttach { spec }))
    }));
    samples.extend([
        (
            "device_detach",
            request(DeviceDetach { slot, force: false }),
        ),
        (
            "device_detach, by force",
            request(DeviceDetach { slot, force: true }),
        ),
        ("device_query", request(DeviceQuery {})),
    ]);
    samples.extend([
        ("hand_over", request(HandOver { to: FdSlot(9) })),
        ("take_over", {
            let (from, kvm) = (FdSlot(9), FdSlot(10));
            request(TakeOver { from, kvm })
        }),
        ("switch_over", request(SwitchOver {})),
        ("vcpus_set", request(VcpusSet { count: 300 })),
        ("vcpus_query", request(VcpusQuery {})),
        ("medium_change", {
            let layers = vec![LayerSpec {
                fd: FdSlot(12),
                format: DiskFormat::Qcow2,
            }];
            request(MediumChange { slot, layers })
        }),
        ("medium_change, eject", {
            let layers = Vec::new();
            request(MediumChange { slot, layers })
        }),
        ("port_attach, console", {
            let port = PortSpec {
                number: 0,
                kind: PortKind::Console,
                listener: FdSlot(13),
            };
            request(PortAttach { slot, port })
        }),
        ("port_attach, channel", {
            let name = "a.0".to_owned();
            let port = PortSpec {
                number: 7,
                kind: PortKind::Channel { name },
                listener: FdSlot(13),
            };
            request(PortAttach { slot, port })
        }),
        ("port_detach", request(PortDetach { slot, number: 7 })),
        ("acceptor_set", {
            let acceptor = FdSlot(13);
            request(AcceptorSet { slot, acceptor })
        }),
        ("nmi_inject", request(NmiInject {})),
        ("peek, memory", {
            let (at, offset, length) = (PeekPlace::Memory, 0x1000, 16);
            request(Peek { at, offset, length })
        }),
        ("peek, disk", {
            let (at, offset, length) = (PeekPlace::Disk(slot), 512, 300);
            request(Peek { at, offset, length })
        }),
        ("disk_query", request(DiskQuery { slot })),
    ]);
    let changes = changes().into_iter();
    samples.extend(changes.map(|(name, change)| (name, request(DeviceUpdate { slot, change }))));
    samples
}

fn reply(body: ReplyBody) -> FromWorker {
    FromWorker::Reply {
        id: RequestId(7),
        result: Ok(body),
    }
}

fn event(event: Event) -> FromWorker {
    FromWorker::Event { number: 9, event }
}

fn crash(cause: CrashCause) -> FromWorker {
    event(Event::GuestCrashed(CrashReport {
        vcpu: 3,
        cause,
        registers: None,
    }))
}

/// One of each message of a worker.
pub(super) fn from_worker_samples() -> Vec<(&'static str, FromWorker)> {
    let registers = Registers {
        general: std::array::from_fn(|place| 0x10 + place as u64),
        rip: 0xffff_ffff_8100_0000,
        rflags: 0x10246,
        cs: 0x10,
        cr: [0x8005_0033, 0xdead_b000, 0x0260_a000, 0x6f0],
        efer: 0xd01,
    };
    let launched = |phase, boot_protocol| {
        reply(ReplyBody::Launch(Launched {
            phase,
            boot_protocol,
        }))
    };
    let mut samples = vec![
        (
            "hello",
            FromWorker::Hello {
                protocol: ProtocolVersion(1),
                build: BuildId("0.1.0+abc".to_owned()),
                jail: JailFacts { landlock_abi: 7 },
            },
        ),
        ("launched", launched(Phase::Running, BootProtocol::Pvh)),
        (
            "launched, other variants",
            launched(Phase::Paused, BootProtocol::Linux64),
        ),
        (
            "launched, in firmware",
            launched(Phase::Running, BootProtocol::Firmware),
        ),
        ("resumed", reply(ReplyBody::Resume(()))),
        ("paused", reply(ReplyBody::Pause(()))),
        ("power button pressed", reply(ReplyBody::PowerButton(()))),
        ("was reset", reply(ReplyBody::Reset(()))),
        ("stops", reply(ReplyBody::Stop(()))),
        (
            "console attached",
            reply(ReplyBody::ConsoleAttach(ConsoleAttached { position: 5 })),
        ),
        (
            "status",
            reply(ReplyBody::Query(Status {
                phase: Phase::Off,
                last_event: 1,
                resets: 2,
                console_dropped_bytes: 1 << 16,
                console_clients: 3,
                log_dropped: 1 << 40,
            })),
        ),
        (
            "standing",
            reply(ReplyBody::Report(Standing {
                phase: Phase::Off,
                digest: Some(SpecDigest([0x5a; 16])),
                boot_protocol: Some(BootProtocol::Linux64),
                resets: 2,
                last_event: 12,
                events: vec![NumberedEvent {
                    number: 12,
                    event: Event::GuestPoweredOff,
                }],
                last_request: Some(FinishedRequest {
                    id: RequestId(6),
                    result: Ok(()),
                }),
                console_position: 0x1234,
                told: 11,
            })),
        ),
        (
            "phase: awaiting launch",
            event(Event::PhaseChanged(Phase::AwaitingLaunch)),
        ),
        ("phase: paused", event(Event::PhaseChanged(Phase::Paused))),
        ("phase: running", event(Event::PhaseChanged(Phase::Running))),
        ("phase: powered off", event(Event::PhaseChanged(Phase::Off))),
        ("phase: crashed", event(Event::PhaseChanged(Phase::Crashed))),
        ("guest powered off", event(Event::GuestPoweredOff)),
        ("guest reset", event(Event::GuestReset { count: 2 })),
        ("triple fault", crash(CrashCause::TripleFault)),
        (
            "internal error",
            crash(CrashCause::InternalError { suberror: 1 }),
        ),
        (
            "fail entry",
            crash(CrashCause::FailEntry {
                reason: 0x8000_0021,
            }),
        ),
        (
            "unhandled exit",
            crash(CrashCause::UnhandledExit { reason: 37 }),
        ),
        ("run failed", crash(CrashCause::RunFailed { errno: -14 })),
        ("panicked", crash(CrashCause::Panicked)),
        (
            "crash with registers",
            event(Event::GuestCrashed(CrashReport {
                vcpu: 0,
                cause: CrashCause::TripleFault,
                registers: Some(Box::new(registers)),
            })),
        ),
        ("guest wants a reset", event(Event::GuestWantsReset)),
        (
            "worker failed",
            event(Event::WorkerFailed {
                message: "no memory".to_owned(),
            }),
        ),
    ];
    samples.extend([
        ("device attached", reply(ReplyBody::DeviceAttach(()))),
        ("device detached", reply(ReplyBody::DeviceDetach(()))),
        ("device updated", reply(ReplyBody::DeviceUpdate(()))),
        ("devices", reply(ReplyBody::DeviceQuery(reports()))),
        ("handed over", reply(ReplyBody::HandOver(()))),
        (
            "taken over",
            reply(ReplyBody::TakeOver(Launched {
                phase: Phase::Paused,
                boot_protocol: BootProtocol::Pvh,
            })),
        ),
        (
            "switched over",
            reply(ReplyBody::SwitchOver(SwitchedOver {
                phase: Phase::Running,
                stood_ns: 12_345_678,
            })),
        ),
        ("vcpus set", reply(ReplyBody::VcpusSet(()))),
        ("vcpus", reply(ReplyBody::VcpusQuery(vcpus()))),
        ("medium changed", reply(ReplyBody::MediumChange(()))),
        ("port attached", reply(ReplyBody::PortAttach(()))),
        ("port detached", reply(ReplyBody::PortDetach(()))),
        ("acceptor set", reply(ReplyBody::AcceptorSet(()))),
        ("NMI injected", reply(ReplyBody::NmiInject(()))),
        ("peeked", reply(ReplyBody::Peek(vec![1, 2, 255]))),
        ("disk", reply(ReplyBody::DiskQuery(1 << 30))),
        ("vcpus changed", event(Event::VcpusChanged(vcpus()))),
        ("guest crash kernel", event(Event::GuestCrashKernel)),
    ]);
    samples.extend(WatchdogAction::ALL.iter().map(|action| {
        let expired = Event::WatchdogExpired { action: *action };
        (action.word(), event(expired))
    }));
    let device_events = device_events().into_iter();
    samples.extend(device_events.map(|(name, told)| (name, event(told))));
    let codes = [
        "error: wrong phase",
        "error: invalid argument",
        "error: descriptor",
        "error: boot image",
        "error: hypervisor",
        "error: memory",
        "error: host",
        "error: unsupported",
        "error: timeout",
    ];
    samples.extend(codes.into_iter().zip(ERROR_CODES).map(|(name, code)| {
        let result = Err(WireError {
            code,
            message: "no".to_owned(),
        });
        (
            name,
            FromWorker::Reply {
                id: RequestId(7),
                result,
            },
        )
    }));
    samples
}

/// Changing these means raising `PROTOCOL`.
const TO_WORKER: &[(&str, &str)] = &[
    ("welcome", "000109302e312e302b61626303776562"),
    ("descriptors", "0105"),
    (
        "launch",
        "020700037765621000112233445566778899aabbccddeeff00040100010001fc01000080020103fc000000010506fc00000008000101fd0000000002000000fc00008000000201030571756965740a000103766461020a010b0000010101015305fb00100102010304000000010600010700010205766e6574305254000a0b0c020c0d01fb78050101080000000214150203010900030401000405210e010f051f02000010010103612e30110806070174121307090b2f72756e2f7377697463685254000a0b0d280201fb78050808090a5254000a0b0e292a01fb14050101fbb80b000001040100010101005a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a08013031323334353637383961626364656601010703",
    ),
    (
        "launch, other variants",
        "020700037765621000112233445566778899aabbccddeeff01fbe8030100010000fd000000000001000001fb2c01fc0000200000000200000400010376646100010000000005fb000200000000000000020376646100010200000005fb000200000000000000030376646100010300000005fb000200000000000000040376646100010400000005fb000200000000000000000100000001075a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5afb0004000000",
    ),
    (
        "launch, private copy",
        "020700037765621000112233445566778899aabbccddeeff00040100010001fc01000080020103fc000000010506fc00002000020500000201030571756965740001040100020101005a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a08013031323334353637383961626364656601010703",
    ),
    ("resume", "020701"),
    ("pause", "020702"),
    ("power_button", "020703"),
    ("reset", "020704"),
    ("stop", "020705"),
    ("console_attach", "020706060100"),
    ("console_attach, from later on", "020706060001fb3412"),
    ("query", "020707"),
    ("report", "02070803"),
    (
        "disk",
        "020709000103766461020a010b0000010101015305fb00100102010304000000010600010700",
    ),
    (
        "network interface",
        "020709010205766e6574305254000a0b0c020c0d01fb7805010108000000021415",
    ),
    ("entropy device", "0207090203010900"),
    ("balloon", "02070903040100"),
    ("socket device", "0207090405210e010f"),
    ("serial controller", "020709051f02000010010103612e301108"),
    ("shared folder", "020709060701741213"),
    (
        "network interface",
        "02070907090b2f72756e2f7377697463685254000a0b0d280201fb7805",
    ),
    ("memory device", "0207090808"),
    (
        "network interface",
        "020709090a5254000a0b0e292a01fb14050101fbb80b0000",
    ),
    ("device_detach", "02070a0500"),
    ("device_detach, by force", "02070a0501"),
    ("device_query", "02070c"),
    ("hand_over", "02070d09"),
    ("take_over", "02070e090a"),
    ("switch_over", "02070f"),
    ("vcpus_set", "020710fb2c01"),
    ("vcpus_query", "020711"),
    ("medium_change", "02071205010c01"),
    ("medium_change, eject", "0207120500"),
    ("port_attach, console", "0207130500000d"),
    ("port_attach, channel", "02071305070103612e300d"),
    ("port_detach", "0207140507"),
    ("acceptor_set", "020715050d"),
    ("nmi_inject", "020716"),
    ("peek, memory", "02071700fb001010"),
    ("peek, disk", "0207170105fb0002fb2c01"),
    ("disk_query", "02071805"),
    ("change: link", "02070b050001"),
    ("change: rates", "02070b050101080000"),
    ("change: throttle", "02070b05020102010304000000010600010700"),
    ("change: balloon", "02070b0503fc00000008"),
    ("change: poll", "02070b0504"),
    ("change: size", "02070b050501fd000000000400000001"),
    ("change: memory", "02070b0506fc00000010"),
];

/// Changing these means raising `PROTOCOL`.
const FROM_WORKER: &[(&str, &str)] = &[
    ("hello", "000109302e312e302b61626307"),
    ("launched", "010700000200"),
    ("launched, other variants", "010700000101"),
    ("launched, in firmware", "010700000202"),
    ("resumed", "01070001"),
    ("paused", "01070002"),
    ("power button pressed", "01070003"),
    ("was reset", "01070004"),
    ("stops", "01070005"),
    ("console attached", "0107000605"),
    ("status", "01070007030102fc0000010003fd0000000000010000"),
    (
        "standing",
        "0107000803015a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a0101020c010c01010600fb34120b",
    ),
    ("phase: awaiting launch", "02090000"),
    ("phase: paused", "02090001"),
    ("phase: running", "02090002"),
    ("phase: powered off", "02090003"),
    ("phase: crashed", "02090004"),
    ("guest powered off", "020901"),
    ("guest reset", "02090202"),
    ("triple fault", "020903030000"),
    ("internal error", "02090303010100"),
    ("fail entry", "0209030302fc2100008000"),
    ("unhandled exit", "02090303032500"),
    ("run failed", "02090303041b00"),
    ("panicked", "020903030500"),
    (
        "crash with registers",
        "020903000001101112131415161718191a1b1c1d1e1ffd00000081fffffffffc4602010010fc33000580fc00b0addefc00a06002fbf006fb010d",
    ),
    ("guest wants a reset", "020905"),
    ("worker failed", "020904096e6f206d656d6f7279"),
    ("device attached", "01070009"),
    ("device detached", "0107000a"),
    ("device updated", "0107000b"),
    (
        "devices",
        "0107000c080100030405060708090a0b0c0d0e0f1011120201131415161718191a0103021f20012101220123012401250126012701280004021f2000050306040703fc0000004007050301000806292a2b2c",
    ),
    ("handed over", "0107000d"),
    ("taken over", "0107000e0100"),
    ("switched over", "0107000f02fc4e61bc00"),
    ("vcpus set", "01070010"),
    (
        "vcpus",
        "010700110b000000fd000000000010000000000000000000000000000800000000000000000000000000000002000000fd0000000000100000000000000000000000000005",
    ),
    ("medium changed", "01070012"),
    ("port attached", "01070013"),
    ("port detached", "01070014"),
    ("acceptor set", "01070015"),
    ("NMI injected", "01070016"),
    ("peeked", "01070017030102ff"),
    ("disk", "01070018fc00000040"),
    (
        "vcpus changed",
        "0209080b000000fd000000000010000000000000000000000000000800000000000000000000000000000002000000fd0000000000100000000000000000000000000005",
    ),
    ("guest crash kernel", "020909"),
    ("reset", "02090a00"),
    ("shutdown", "02090a01"),
    ("poweroff", "02090a02"),
    ("pause", "02090a03"),
    ("none", "02090a04"),
    ("inject-nmi", "02090a05"),
    ("device removed", "02090605"),
    ("balloon changed", "020907fc00000004fc00000002"),
    ("port removed", "02090b0503"),
    ("ports changed", "02090c0505"),
    ("error: wrong phase", "01070100026e6f"),
    ("error: invalid argument", "01070101026e6f"),
    ("error: descriptor", "01070102026e6f"),
    ("error: boot image", "01070103026e6f"),
    ("error: hypervisor", "01070104026e6f"),
    ("error: memory", "01070105026e6f"),
    ("error: host", "01070106026e6f"),
    ("error: unsupported", "01070107026e6f"),
    ("error: timeout", "01070108026e6f"),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

/// Compares the bytes of `samples` with `golden`; `version` is what has to be raised where they differ.
pub(super) fn compare<T>(samples: &[(&'static str, T)], golden: &[(&str, &str)], version: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let now: Vec<(&str, String)> = samples
        .iter()
        .map(|(name, message)| (*name, hex(&encode(message).unwrap())))
        .collect();
    let listing: String = now
        .iter()
        .map(|(name, hex)| format!("    (\"{name}\", \"{hex}\"),\n"))
        .collect();
    assert_eq!(golden.len(), now.len(), "the messages are now:\n{listing}");
    for ((name, message), (golden_name, golden_hex)) in samples.iter().zip(golden) {
        assert_eq!(name, golden_name);
        assert_eq!(
            &hex(&encode(message).unwrap()),
            golden_hex,
            "'{name}' has other bytes than {version} says: raise it, then\n{listing}",
        );
        assert_eq!(&decode::<T>(&bytes(golden_hex)).unwrap(), message, "{name}");
    }
}

#[test]
fn the_golden_bytes_are_of_this_protocol() {
    assert_eq!(
        PROTOCOL,
        ProtocolVersion(1),
        "new golden bytes belong to a new protocol"
    );
}

#[test]
fn what_a_supervisor_says_has_its_golden_bytes() {
    compare(&to_worker_samples(), TO_WORKER, "PROTOCOL");
}

#[test]
fn what_a_worker_says_has_its_golden_bytes() {
    compare(&from_worker_samples(), FROM_WORKER, "PROTOCOL");
}

#[test]
fn every_operation_has_a_golden_request_and_a_golden_reply() {
    for operation in Operation::ALL {
        assert!(
            to_worker_samples().iter().any(|(_, message)| {
                matches!(message, ToWorker::Request { body, .. } if body.operation() == *operation)
            }),
            "no request for {}",
            operation.name(),
        );
        assert!(
            from_worker_samples().iter().any(|(_, message)| matches!(
                message,
                FromWorker::Reply { result: Ok(body), .. } if body.operation() == *operation
            )),
            "no reply for {}",
            operation.name(),
        );
    }
}

#[test]
fn every_phase_and_code_has_golden_bytes() {
    for phase in Phase::ALL {
        assert!(from_worker_samples().iter().any(|(_, message)| {
            matches!(message, FromWorker::Event { event: Event::PhaseChanged(p), .. } if *p == phase)
        }));
    }
    // A new code does not compile here until it stands in the list, and so in the samples.
    for code in ERROR_CODES {
        use crate::error::ErrorCode as Code;
        match code {
            Code::WrongPhase
            | Code::InvalidArgument
            | Code::Descriptor
            | Code::BootImage
            | Code::Hypervisor
            | Code::Memory
            | Code::Host
            | Code::Unsupported
            | Code::Timeout => {}
        }
    }
}
