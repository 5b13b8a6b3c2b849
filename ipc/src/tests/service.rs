//! The worker's dispatch: the phase check comes before the handler, and the reply is the handler's.

use crate::device::{DeviceChange, DeviceReport};
use crate::error::{ErrorCode, WireError};
use crate::fd::FdSlot;
use crate::phase::Phase;
use crate::request::{
    AcceptorSet, BootProtocol, ConsoleAttach, ConsoleAttached, DeviceAttach, DeviceDetach,
    DeviceQuery, DeviceUpdate, DiskQuery, HandOver, Launch, Launched, MediumChange, NmiInject,
    Operation, Pause, Peek, PeekPlace, PortAttach, PortDetach, PowerButton, Query, ReplyBody,
    Report, Request, RequestBody, Reset, Resume, Standing, Status, Stop, SwitchOver, SwitchedOver,
    TakeOver, VcpusQuery, VcpusSet, WorkerService, dispatch,
};
use crate::spec::{DeviceSpec, PciSlot, PortKind, PortSpec, RngSpec};
use crate::tests::golden::machine_spec;
use crate::vcpus::VcpuStanding;

/// Notes what it was asked for.
struct Recorder {
    phase: Phase,
    asked: Vec<Operation>,
}

impl Recorder {
    fn note(&mut self, operation: Operation) -> Result<(), WireError> {
        self.asked.push(operation);
        Ok(())
    }
}

impl WorkerService for Recorder {
    fn phase(&self) -> Phase {
        self.phase
    }
    fn launch(&mut self, _: Launch) -> Result<Launched, WireError> {
        self.note(Operation::Launch)?;
        Ok(Launched {
            phase: Phase::Running,
            boot_protocol: BootProtocol::Pvh,
        })
    }
    fn resume(&mut self, _: Resume) -> Result<(), WireError> {
        self.note(Operation::Resume)
    }
    fn pause(&mut self, _: Pause) -> Result<(), WireError> {
        self.note(Operation::Pause)
    }
    fn power_button(&mut self, _: PowerButton) -> Result<(), WireError> {
        self.note(Operation::PowerButton)
    }
    fn reset(&mut self, _: Reset) -> Result<(), WireError> {
        self.note(Operation::Reset)
    }
    fn stop(&mut self, _: Stop) -> Result<(), WireError> {
        self.note(Operation::Stop)
    }
    fn console_attach(&mut self, _: ConsoleAttach) -> Result<ConsoleAttached, WireError> {
        self.note(Operation::ConsoleAttach)?;
        Ok(ConsoleAttached { position: 0 })
    }
    fn report(&mut self, _: Report) -> Result<Standing, WireError> {
        self.note(Operation::Report)?;
        Ok(Standing {
            phase: self.phase,
            digest: None,
            boot_protocol: None,
            resets: 0,
            last_event: 0,
            events: Vec::new(),
            last_request: None,
            console_position: 0,
            told: 0,
        })
    }
    fn device_attach(&mut self, _: DeviceAttach) -> Result<(), WireError> {
        self.note(Operation::DeviceAttach)
    }
    fn device_detach(&mut self, _: DeviceDetach) -> Result<(), WireError> {
        self.note(Operation::DeviceDetach)
    }
    fn device_update(&mut self, _: DeviceUpdate) -> Result<(), WireError> {
        self.note(Operation::DeviceUpdate)
    }
    fn device_query(&mut self, _: DeviceQuery) -> Result<Vec<DeviceReport>, WireError> {
        self.note(Operation::DeviceQuery)?;
        Ok(Vec::new())
    }
    fn hand_over(&mut self, _: HandOver) -> Result<(), WireError> {
        self.note(Operation::HandOver)
    }
    fn take_over(&mut self, _: TakeOver) -> Result<Launched, WireError> {
        self.note(Operation::TakeOver)?;
        Ok(Launched {
            phase: Phase::Paused,
            boot_protocol: BootProtocol::Pvh,
        })
    }
    fn switch_over(&mut self, _: SwitchOver) -> Result<SwitchedOver, WireError> {
        self.note(Operation::SwitchOver)?;
        Ok(SwitchedOver {
            phase: self.phase,
            stood_ns: 0,
        })
    }
    fn vcpus_set(&mut self, _: VcpusSet) -> Result<(), WireError> {
        self.note(Operation::VcpusSet)
    }
    fn vcpus_query(&mut self, _: VcpusQuery) -> Result<VcpuStanding, WireError> {
        self.note(Operation::VcpusQuery)?;
        Ok(VcpuStanding::default())
    }
    fn medium_change(&mut self, _: MediumChange) -> Result<(), WireError> {
        self.note(Operation::MediumChange)
    }
    fn port_attach(&mut self, _: PortAttach) -> Result<(), WireError> {
        self.note(Operation::PortAttach)
    }
    fn port_detach(&mut self, _: PortDetach) -> Result<(), WireError> {
        self.note(Operation::PortDetach)
    }
    fn acceptor_set(&mut self, _: AcceptorSet) -> Result<(), WireError> {
        self.note(Operation::AcceptorSet)
    }
    fn nmi_inject(&mut self, _: NmiInject) -> Result<(), WireError> {
        self.note(Operation::NmiInject)
    }
    fn peek(&mut self, _: Peek) -> Result<Vec<u8>, WireError> {
        self.note(Operation::Peek)?;
        Ok(Vec::new())
    }
    fn disk_query(&mut self, _: DiskQuery) -> Result<u64, WireError> {
        self.note(Operation::DiskQuery)?;
        Ok(0)
    }
    fn query(&mut self, _: Query) -> Result<Status, WireError> {
        self.note(Operation::Query)?;
        Ok(Status {
            phase: self.phase,
            last_event: 0,
            resets: 0,
            console_dropped_bytes: 0,
            console_clients: 0,
            log_dropped: 0,
        })
    }
}

fn every_request() -> Vec<RequestBody> {
    let slot = PciSlot::try_from(1).unwrap();
    vec![
        Launch {
            spec: machine_spec(),
        }
        .into_body(),
        Resume {}.into_body(),
        Pause {}.into_body(),
        PowerButton {}.into_body(),
        Reset {}.into_body(),
        Stop {}.into_body(),
        ConsoleAttach {
            stream: FdSlot(0),
            input: true,
            from: None,
        }
        .into_body(),
        Query {}.into_body(),
        Report { events_after: 0 }.into_body(),
        DeviceAttach {
            spec: DeviceSpec::Rng(RngSpec { slot, rate: None }),
        }
        .into_body(),
        DeviceDetach { slot, force: false }.into_body(),
        DeviceUpdate {
            slot,
            change: DeviceChange::BalloonPoll,
        }
        .into_body(),
        DeviceQuery {}.into_body(),
        HandOver { to: FdSlot(0) }.into_body(),
        TakeOver {
            from: FdSlot(0),
            kvm: FdSlot(1),
        }
        .into_body(),
        SwitchOver {}.into_body(),
        VcpusSet { count: 1 }.into_body(),
        VcpusQuery {}.into_body(),
        MediumChange {
            slot: PciSlot::MIN.try_into().unwrap(),
            layers: Vec::new(),
        }
        .into_body(),
        PortAttach {
            slot,
            port: PortSpec {
                number: 0,
                kind: PortKind::Console,
                listener: FdSlot(0),
            },
        }
        .into_body(),
        PortDetach { slot, number: 0 }.into_body(),
        AcceptorSet {
            slot,
            acceptor: FdSlot(0),
        }
        .into_body(),
        NmiInject {}.into_body(),
        Peek {
            at: PeekPlace::Memory,
            offset: 0,
            length: 1,
        }
        .into_body(),
        DiskQuery { slot }.into_body(),
    ]
}

#[test]
fn a_request_reaches_its_own_handler_in_its_phases_and_none_in_others() {
    assert_eq!(every_request().len(), Operation::ALL.len());
    for phase in Phase::ALL {
        for request in every_request() {
            let operation = request.operation();
            let mut recorder = Recorder {
                phase,
                asked: Vec::new(),
            };
            let result = dispatch(&mut recorder, request);
            if operation.is_legal_in(phase) {
                assert_eq!(recorder.asked, [operation]);
                assert_eq!(result.unwrap().operation(), operation);
            } else {
                assert_eq!(recorder.asked, []);
                assert_eq!(result.unwrap_err().code, ErrorCode::WrongPhase);
            }
        }
    }
}

#[test]
fn a_reply_answers_only_its_own_request() {
    assert_eq!(Pause::reply_from(ReplyBody::Pause(())), Some(()));
    assert_eq!(Pause::reply_from(ReplyBody::Resume(())), None);
    assert_eq!(Query::reply_from(ReplyBody::Stop(())), None);
}
