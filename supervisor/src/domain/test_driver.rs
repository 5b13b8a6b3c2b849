//! The `test` driver: domains without KVM, without processes and without delay, for the tests of
//! programs that embed Reeve and for those of the native API (`reeved --test`, `reeved --driver test`).
//!
//! A machine is one task. It pauses, resumes, resets and stops as asked; its guest powers off when
//! the power button is pressed and it runs, lets go of a device, a vCPU or memory when it is asked to and runs, and
//! echoes what is typed at its console. Its devices hold nothing of the host. It lives in this process and dies
//! with it: adopting finds nothing.
//!
//! Nothing depends on the time: what a guest does about a request it has done when that is answered, and a
//! machine's figures are the same at every look, by what it has.

mod console;
mod devices;
mod vcpus;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reeve_ipc::api::figures::{DomainUsage, VcpuFigures, VcpuState};
use reeve_ipc::api::view::{DomainStats, VcpuStats, WorkerDetails};
use reeve_ipc::device::DeviceReport;
use reeve_ipc::model::Domain;
use reeve_ipc::phase::Phase;
use reeve_ipc::request::PeekPlace;
use reeve_ipc::spec::PciSlot;
use tokio::sync::{mpsc, oneshot, watch};

use self::console::{Console, Seats};
use self::devices::TestDevices;
use self::vcpus::{Standing, TestVcpus};
use super::driver::{
    Adoption, CallFailure, DeviceCall, DeviceLedger, DeviceResources, Driver, GuestEnd, Instance,
    Later, Notice, Recorder, Resources, Running, StartFailure, StartFailureKind, StartOrder,
    SuccessionLedger, Verdict, WorkerCall,
};

/// Calls that may wait for one machine.
const CALLS: usize = 16;
/// Notices that wait for their reader.
const NOTICES: usize = 16;
/// What every machine says first.
const GREETING: &[u8] = b"reeve test machine\n";
/// The CPU time of a vCPU, and of all that is none.
const VCPU_NS: u64 = 1_000_000_000;

/// Makes machines that only look like some.
#[derive(Debug, Default)]
pub struct TestDriver {
    started: AtomicU64,
    seats: Seats,
}

impl TestDriver {
    /// The driver; it needs nothing of the host.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Driver for TestDriver {
    fn start(
        &self,
        order: StartOrder,
        recorder: Arc<dyn Recorder>,
    ) -> Later<Result<Running, StartFailure>> {
        let serial = self.started.fetch_add(1, Ordering::Relaxed);
        let seats = self.seats.clone();
        Box::pin(async move {
            order.domain.validate().map_err(|error| StartFailure {
                kind: StartFailureKind::Definition,
                message: error.to_string(),
            })?;
            let resources = Resources {
                uid: rustix::process::geteuid().as_raw(),
                own_uid: false,
                cgroup: None,
                socket: order.directory.join("adopt"),
                digest: u128::from(serial).to_be_bytes(),
                process: None,
                successor: None,
                launched: true,
                devices: Vec::new(),
            };
            recorder
                .record(&resources)
                .map_err(|message| StartFailure {
                    kind: StartFailureKind::Host,
                    message,
                })?;
            Ok(run(&order, seats))
        })
    }

    fn adopt(&self, domain: Domain, _: Resources) -> Later<Adoption> {
        Box::pin(async move {
            Adoption::Gone {
                why: format!(
                    "'{}' was a machine of the test driver, which ended with its supervisor",
                    domain.name
                ),
            }
        })
    }
}

fn run(order: &StartOrder, seats: Seats) -> Running {
    let (calls, asked) = mpsc::channel(CALLS);
    let (tell, notices) = mpsc::channel(NOTICES);
    let (killed, dying) = watch::channel(false);
    let phase = if order.paused {
        Phase::Paused
    } else {
        Phase::Running
    };
    let console = Console::new(GREETING, seats);
    let standing = Standing::default();
    let mut machine = TestMachine {
        phase,
        resets: 0,
        button_pressed: false,
        console: console.clone(),
        tell,
        devices: TestDevices::new(&order.domain),
        vcpus: TestVcpus::new(&order.domain),
        standing: standing.clone(),
    };
    if let Some(memory) = machine.devices.give(phase == Phase::Running) {
        // The first, and there is room for more.
        let _ = machine.tell.try_send(Notice::Memory(memory));
    }
    machine.stand();
    tokio::spawn(machine.serve(asked, dying));
    Running {
        instance: Arc::new(TestInstance {
            calls,
            killed,
            console,
            standing,
        }),
        notices,
        phase,
    }
}

/// What a machine is asked.
#[derive(Debug)]
enum Call {
    Machine(WorkerCall, oneshot::Sender<Result<(), CallFailure>>),
    Device(DeviceCall, oneshot::Sender<Result<(), CallFailure>>),
    Report(oneshot::Sender<Vec<DeviceReport>>),
    Places(u64),
}

/// The machine's own task holds this.
struct TestMachine {
    phase: Phase,
    resets: u64,
    /// While it stood paused.
    button_pressed: bool,
    console: Console,
    tell: mpsc::Sender<Notice>,
    devices: TestDevices,
    vcpus: TestVcpus,
    standing: Standing,
}

impl TestMachine {
    async fn serve(mut self, mut asked: mpsc::Receiver<Call>, mut dying: watch::Receiver<bool>) {
        // Where every handle is gone nobody can ask or kill it any more.
        let died = async move { dying.wait_for(|killed| *killed).await.is_ok() };
        tokio::pin!(died);
        let mut orphaned = false;
        loop {
            tokio::select! {
                biased;
                killed = &mut died, if !orphaned => match killed {
                    true => break,
                    false => orphaned = true,
                },
                call = asked.recv(), if !orphaned => match call {
                    // Whoever asked may have gone.
                    Some(Call::Machine(call, reply)) => {
                        let result = self.obey(call).await;
                        let _ = reply.send(result);
                        if call == WorkerCall::Stop {
                            break;
                        }
                    }
                    Some(Call::Device(DeviceCall::Vcpus { count, .. }, reply)) => {
                        let result = self.vcpus.set(count, self.phase);
                        self.let_go().await;
                        let _ = reply.send(result);
                    }
                    Some(Call::Device(call, reply)) => {
                        let result = self.devices.obey(call, self.phase);
                        self.let_go().await;
                        let _ = reply.send(result);
                    }
                    Some(Call::Report(reply)) => {
                        let _ = reply.send(self.devices.reports());
                    }
                    Some(Call::Places(number)) => {
                        let places = self.devices.places();
                        let _ = self.tell.send(Notice::Devices(number, places)).await;
                    }
                    None => orphaned = true,
                },
                else => break,
            }
        }
        self.console.close();
        let _ = self.tell.send(Notice::Gone(Verdict::Asked)).await;
    }

    /// The guest does what it was asked of its devices, if it runs, before whoever asked is answered.
    async fn let_go(&mut self) {
        if let Some(memory) = self.devices.give(self.phase == Phase::Running) {
            let _ = self.tell.send(Notice::Memory(memory)).await;
        }
        for place in self.devices.let_go(self.phase == Phase::Running) {
            let _ = self.tell.send(Notice::DeviceRemoved(place)).await;
        }
        if let Some(standing) = self.vcpus.let_go(self.phase == Phase::Running) {
            let _ = self.tell.send(Notice::Vcpus(standing)).await;
        }
        self.stand();
    }

    /// Says how it stands to whoever looks without asking.
    fn stand(&self) {
        let runs = self.phase == Phase::Running;
        self.standing.set(self.vcpus.present(), runs);
    }

    async fn obey(&mut self, call: WorkerCall) -> Result<(), CallFailure> {
        let kept = matches!(self.phase, Phase::Off | Phase::Crashed);
        match call {
            WorkerCall::Stop => {}
            WorkerCall::Reset => {
                self.resets += 1;
                self.button_pressed = false;
                if kept {
                    self.phase = Phase::Paused;
                }
            }
            _ if kept => {
                return Err(CallFailure::Refused(format!(
                    "the machine is {}",
                    self.phase
                )));
            }
            WorkerCall::Pause => self.phase = Phase::Paused,
            WorkerCall::Resume => self.phase = Phase::Running,
            WorkerCall::PowerButton => self.button_pressed = true,
        }
        if self.phase == Phase::Running && std::mem::take(&mut self.button_pressed) {
            self.phase = Phase::Off;
            let end = Notice::GuestEnded(GuestEnd::PoweredOff);
            // Its reader is gone with the supervisor only.
            let _ = self.tell.send(end).await;
        }
        if call == WorkerCall::Reset {
            // The driver in the guest goes, and with it what it was asked for.
            self.devices.leave_all();
            self.vcpus.leave_all();
        }
        self.let_go().await;
        Ok(())
    }
}

struct TestInstance {
    calls: mpsc::Sender<Call>,
    killed: watch::Sender<bool>,
    console: Console,
    standing: Standing,
}

impl fmt::Debug for TestInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestInstance").finish_non_exhaustive()
    }
}

impl TestInstance {
    fn cpu_time_ns(&self) -> u64 {
        VCPU_NS * (u64::from(self.standing.vcpus()) + 1)
    }

    fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(oneshot::Sender<T>) -> Call,
    ) -> Later<Result<T, CallFailure>> {
        let calls = self.calls.clone();
        let (reply, answer) = oneshot::channel();
        let call = call(reply);
        Box::pin(async move {
            calls.send(call).await.map_err(|_| CallFailure::Gone)?;
            answer.await.map_err(|_| CallFailure::Gone)
        })
    }
}

fn nothing() -> CallFailure {
    let why = "a machine of the test driver has neither memory nor disks";
    CallFailure::Refused(why.to_owned())
}

impl Instance for TestInstance {
    fn call(&self, call: WorkerCall) -> Later<Result<(), CallFailure>> {
        let answer = self.ask(move |reply| Call::Machine(call, reply));
        Box::pin(async move { answer.await? })
    }

    fn device(&self, call: DeviceCall, _: Arc<dyn DeviceLedger>) -> Later<Result<(), CallFailure>> {
        let answer = self.ask(move |reply| Call::Device(call, reply));
        Box::pin(async move { answer.await? })
    }

    /// The machine is a task of this process, which is as fresh as any.
    fn hand_over(&self, _: Domain, _: Arc<dyn SuccessionLedger>) -> Later<Result<(), CallFailure>> {
        let alive = self.ask(Call::Report);
        Box::pin(async move { alive.await.map(drop) })
    }

    fn ask_devices(&self, number: u64) {
        let calls = self.calls.clone();
        tokio::spawn(async move { calls.send(Call::Places(number)).await });
    }

    fn release(&self, _: DeviceResources) {}

    fn device_reports(&self) -> Later<Result<Vec<DeviceReport>, CallFailure>> {
        self.ask(Call::Report)
    }

    fn kill(&self) {
        self.killed.send_replace(true);
    }

    fn console(
        &self,
        from: Option<u64>,
        input: bool,
    ) -> Later<Result<(OwnedFd, u64), CallFailure>> {
        let attached = self.console.attach(from, input);
        Box::pin(async move { attached })
    }

    fn stats(&self) -> Later<Result<DomainStats, CallFailure>> {
        let result = if self.console.is_closed() {
            Err(CallFailure::Gone)
        } else {
            Ok(DomainStats {
                cpu_time_ns: self.cpu_time_ns(),
                resident_bytes: 0,
                console_dropped_bytes: 0,
                console_clients: self.console.clients(),
                log_dropped: 0,
            })
        };
        Box::pin(async move { result })
    }

    fn vcpu_stats(&self) -> Later<Result<Vec<VcpuStats>, CallFailure>> {
        let result = match self.console.is_closed() {
            true => Err(CallFailure::Gone),
            false => Ok((0..self.standing.vcpus()).map(vcpu_stats).collect()),
        };
        Box::pin(async move { result })
    }

    fn usage(&self) -> Result<DomainUsage, CallFailure> {
        if self.console.is_closed() {
            return Err(CallFailure::Gone);
        }
        let cpu_time_ns = self.cpu_time_ns();
        Ok(DomainUsage {
            cpu_time_ns,
            user_ns: cpu_time_ns - VCPU_NS,
            system_ns: VCPU_NS,
            resident_bytes: 0,
        })
    }

    fn vcpu_figures(&self) -> Vec<VcpuFigures> {
        if self.console.is_closed() {
            return Vec::new();
        }
        let state = match self.standing.runs() {
            true => VcpuState::Running,
            false => VcpuState::Blocked,
        };
        let figures = (0..self.standing.vcpus()).map(|vcpu| VcpuFigures {
            stats: vcpu_stats(vcpu),
            state,
            // All of them share it.
            cpu: Some(0),
        });
        figures.collect()
    }

    fn device_figures(&self) -> Later<Result<Vec<DeviceReport>, CallFailure>> {
        self.ask(Call::Report)
    }

    /// Its guest has nothing that would be interrupted.
    fn inject_nmi(&self) -> Later<Result<(), CallFailure>> {
        let alive = self.ask(Call::Report);
        Box::pin(async move { alive.await.map(drop) })
    }

    fn peek(&self, _: PeekPlace, _: u64, _: u32) -> Later<Result<Vec<u8>, CallFailure>> {
        Box::pin(async { Err(nothing()) })
    }

    fn disk_bytes(&self, _: PciSlot) -> Later<Result<u64, CallFailure>> {
        Box::pin(async { Err(nothing()) })
    }

    fn details(&self) -> WorkerDetails {
        WorkerDetails {
            pid: std::process::id(),
            uid: rustix::process::geteuid().as_raw(),
            own_uid: false,
            cgroup: None,
            landlock_abi: None,
            adopted: false,
        }
    }
}

fn vcpu_stats(vcpu: u32) -> VcpuStats {
    VcpuStats {
        vcpu,
        run_ns: VCPU_NS,
        wait_ns: Some(0),
    }
}

#[cfg(test)]
mod tests;
