//! The driver, with the contract of `domain/driver.rs`: everything is recorded before it is made, a
//! start that fails or is dropped is undone, and what is adopted is found by its record.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use reeve_ipc::api::figures::{DomainUsage, VcpuFigures};
use reeve_ipc::api::view::{DomainStats, VcpuStats, WorkerDetails};
use reeve_ipc::device::DeviceReport;
use reeve_ipc::model::{Domain, DomainUuid};
use reeve_ipc::phase::Phase;
use reeve_ipc::request::PeekPlace;
use reeve_ipc::spec::PciSlot;
use reeved::domain::driver::{
    Adoption, CallFailure, DeviceCall, DeviceLedger, DeviceResources, Driver, Instance, Later,
    ProcessIdentity, Recorder, Resources, Running, StartFailure, StartFailureKind, StartOrder,
    SuccessionLedger, WorkerCall,
};
use reeved::host::tap::TapId;
use tokio::sync::mpsc;

use crate::host::{Ask, DeviceAsk, Process, Watch};
use crate::machine::Machine;
use crate::short;
use crate::universe::{Fate, Shared, Universe, Wait};

/// As the real ones.
pub const CALL_DEADLINE_MS: u64 = 5_000;
const LAUNCH_DEADLINE_MS: u64 = 30_000;
const ADOPTION_PATIENCE_MS: u64 = 1_000;
const NOTICES: usize = 64;

#[derive(Debug)]
pub struct SimDriver(pub Shared);

impl Driver for SimDriver {
    fn start(
        &self,
        order: StartOrder,
        recorder: Arc<dyn Recorder>,
    ) -> Later<Result<Running, StartFailure>> {
        let making = Making {
            shared: self.0.clone(),
            uid: None,
            pid: None,
            kept: false,
        };
        Box::pin(making.make(order, recorder))
    }

    fn adopt(&self, domain: Domain, recorded: Resources) -> Later<Adoption> {
        let shared = self.0.clone();
        let deadline_ms = {
            let mut universe = shared.lock();
            // Not later: a start must not get the same uid.
            *universe.host.claimed.entry(recorded.uid).or_default() += 1;
            universe.now_ms + ADOPTION_PATIENCE_MS
        };
        Box::pin(async move {
            let pid = recorded.process.as_ref().map(|process| process.pid);
            let fate = shared.wait(Wait::Adoption { pid, deadline_ms }).await;
            let late = fate == Fate::Deadline;
            let adoption = shared
                .lock()
                .take_over(&shared, domain.uuid, &recorded, late);
            match adoption {
                Some(adoption) => adoption,
                None => std::future::pending().await,
            }
        })
    }
}

/// A start that goes on; what it has made by then is undone when it is dropped.
struct Making {
    shared: Shared,
    uid: Option<u32>,
    pid: Option<u32>,
    kept: bool,
}

impl Making {
    async fn make(
        mut self,
        order: StartOrder,
        recorder: Arc<dyn Recorder>,
    ) -> Result<Running, StartFailure> {
        let uuid = order.domain.uuid;
        self.shared.lock().host.condemned.remove(&uuid);
        self.step(StartFailureKind::Path).await?;
        let mut resources = self.claim(&order.domain);
        record(&recorder, &resources)?;
        self.shared.lock().host.cgroups.insert(resources.uid, uuid);
        self.step(StartFailureKind::Host).await?;
        let (tell, notices) = mpsc::channel(NOTICES);
        let pid = self.spawn(&order.domain, &resources, tell);
        self.shared
            .lock()
            .point("when a process was made and not noted");
        resources.process = Some(ProcessIdentity {
            pid,
            start_ticks: 0,
            boot_id: "simulated".to_owned(),
        });
        record(&recorder, &resources)?;
        self.launch(pid, order.paused).await?;
        resources.launched = true;
        record(&recorder, &resources)?;
        self.kept = true;
        Ok(Running {
            instance: Arc::new(SimInstance {
                shared: self.shared.clone(),
                pid,
            }),
            notices,
            phase: if order.paused {
                Phase::Paused
            } else {
                Phase::Running
            },
        })
    }

    async fn step(&self, kind: StartFailureKind) -> Result<(), StartFailure> {
        match self.shared.wait(Wait::Making).await {
            Fate::Good => Ok(()),
            _ => Err(failure(kind, "the host does not give what it needs")),
        }
    }

    fn claim(&mut self, domain: &Domain) -> Resources {
        let mut universe = self.shared.lock();
        let uid = universe.claim_uid();
        let digest = u128::from(universe.number()).to_be_bytes();
        self.uid = Some(uid);
        Resources {
            uid,
            own_uid: true,
            cgroup: Some(PathBuf::from(format!("/sim/cgroup/{uid}"))),
            socket: PathBuf::from("/sim/adopt"),
            digest,
            process: None,
            successor: None,
            launched: false,
            devices: domain
                .devices
                .named()
                .into_iter()
                .map(|(slot, _)| held(slot))
                .collect(),
        }
    }

    fn spawn(
        &mut self,
        domain: &Domain,
        resources: &Resources,
        tell: mpsc::Sender<reeved::domain::driver::Notice>,
    ) -> u32 {
        let mut universe = self.shared.lock();
        let pid = universe.spawn(Process {
            uuid: domain.uuid,
            uid: resources.uid,
            digest: resources.digest,
            machine: Machine::unlaunched(domain),
            alive: true,
            frozen: false,
            doomed: false,
            requests: VecDeque::new(),
            answers: BTreeMap::new(),
            watch: Some(Watch::new(tell, true)),
        });
        self.pid = Some(pid);
        pid
    }

    async fn launch(&self, pid: u32, paused: bool) -> Result<(), StartFailure> {
        let wait = {
            let mut universe = self.shared.lock();
            let request = universe.number();
            if let Some(process) = universe.host.processes.get_mut(&pid) {
                process
                    .requests
                    .push_back((request, Ask::Launch { paused }));
            }
            Wait::Call {
                pid,
                request,
                deadline_ms: universe.now_ms + LAUNCH_DEADLINE_MS,
            }
        };
        match self.shared.wait(wait).await {
            Fate::Good => Ok(()),
            Fate::Failed(why) => Err(failure(StartFailureKind::Worker, &why)),
            Fate::Deadline => Err(failure(
                StartFailureKind::Worker,
                "it did not answer in time",
            )),
            Fate::Gone => Err(failure(StartFailureKind::Worker, "it died")),
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let mut universe = self.shared.lock();
        if self.kept || universe.dead {
            return;
        }
        let buried = self
            .pid
            .is_some_and(|pid| universe.host.processes.remove(&pid).is_none());
        universe.note(|| format!("the start of worker {:?} is undone", self.pid));
        // Whoever buried it has released its uid, which may be another's by now.
        if let Some(uid) = self.uid.filter(|_| !buried) {
            universe.release(uid);
        }
    }
}

/// What any device holds.
fn held(slot: PciSlot) -> DeviceResources {
    DeviceResources {
        place: slot.into(),
        taps: vec![TapId {
            name: format!("sim{slot}"),
            index: None,
        }],
        macvtaps: Vec::new(),
        sockets: Vec::new(),
    }
}

fn record(recorder: &Arc<dyn Recorder>, resources: &Resources) -> Result<(), StartFailure> {
    let recorded = recorder.record(resources);
    recorded.map_err(|why| failure(StartFailureKind::Host, &why))
}

fn failure(kind: StartFailureKind, message: &str) -> StartFailure {
    StartFailure {
        kind,
        message: message.to_owned(),
    }
}

impl Universe {
    /// `None` if the supervisor dies before.
    fn take_over(
        &mut self,
        shared: &Shared,
        uuid: DomainUuid,
        recorded: &Resources,
        late: bool,
    ) -> Option<Adoption> {
        self.point("before it took over a worker");
        if self.dead {
            return None;
        }
        let adoption = self.adopt(shared, uuid, recorded, late);
        self.point("after it took over a worker");
        Some(adoption)
    }

    fn adopt(
        &mut self,
        shared: &Shared,
        uuid: DomainUuid,
        recorded: &Resources,
        late: bool,
    ) -> Adoption {
        let Some(pid) = recorded.process.as_ref().map(|process| process.pid) else {
            self.host
                .processes
                .retain(|_, process| process.uid != recorded.uid);
            self.release(recorded.uid);
            return Adoption::NeverLaunched;
        };
        let disbelieved = self.random.percent(2);
        let stubborn = self.random.percent(10);
        let Some(process) = self
            .host
            .processes
            .get_mut(&pid)
            .filter(|process| process.alive)
        else {
            self.release(recorded.uid);
            return Adoption::Gone {
                why: "its process is gone".to_owned(),
            };
        };
        let (tell, notices) = mpsc::channel(NOTICES);
        let mut watch = Watch::new(tell, false);
        let believed = process.digest == recorded.digest && process.uuid == uuid && !disbelieved;
        let unwanted = !recorded.launched || (!believed && !process.frozen);
        if unwanted && !stubborn {
            self.host.processes.remove(&pid);
            self.release(recorded.uid);
            self.note(|| format!("worker {pid} of {} is ended", short(uuid)));
            return match recorded.launched {
                false => Adoption::NeverLaunched,
                true => Adoption::Gone {
                    why: "it is not believed".to_owned(),
                },
            };
        }
        let (phase, end) = (process.machine.phase, process.machine.end.clone());
        let resets = process.machine.resets;
        let devices = process.machine.devices.iter();
        let devices = Some(devices.map(|slot| (*slot).into()).collect());
        let running = |phase| Running {
            instance: Arc::new(SimInstance {
                shared: shared.clone(),
                pid,
            }),
            notices,
            phase,
        };
        let silent = unwanted || process.frozen || process.doomed || late;
        watch.linked = !silent;
        // What was killed and does not go answers nobody.
        watch.searching = silent && !unwanted;
        process.doomed |= unwanted;
        process.watch = Some(watch);
        if !silent {
            // The new connection replaces the one before, and what is still in it.
            process.requests.clear();
        }
        self.note(|| format!("worker {pid} of {} is found, silent {silent}", short(uuid)));
        if silent {
            return Adoption::Silent(running(Phase::Running));
        }
        Adoption::Adopted {
            running: running(phase),
            end,
            resets,
            console_position: 0,
            devices,
        }
    }
}

#[derive(Debug)]
struct SimInstance {
    shared: Shared,
    pid: u32,
}

impl SimInstance {
    /// Sends a request; what to wait for, or why there is nothing to wait for.
    fn send(&self, ask: Ask) -> Result<Wait, CallFailure> {
        let mut universe = self.shared.lock();
        universe.point("before it asked a worker");
        if universe.dead {
            return Err(CallFailure::Gone);
        }
        let (pid, request) = (self.pid, universe.number());
        let deadline_ms = universe.now_ms + CALL_DEADLINE_MS;
        let process = universe
            .host
            .processes
            .get_mut(&pid)
            .filter(|process| process.alive);
        let Some(process) = process else {
            return Err(CallFailure::Gone);
        };
        if let Some(watch) = &mut process.watch {
            watch.asked |= ask == Ask::Call(WorkerCall::Stop);
            if !watch.linked {
                return Err(CallFailure::Deadline);
            }
        }
        process.requests.push_back((request, ask));
        universe.note(|| format!("worker {pid} is asked: {ask:?}"));
        universe.point("after it asked a worker");
        Ok(Wait::Call {
            pid,
            request,
            deadline_ms,
        })
    }
}

impl SimInstance {
    fn again(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            pid: self.pid,
        }
    }

    async fn ask(&self, ask: Ask) -> Result<(), CallFailure> {
        let wait = self.send(ask)?;
        match self.shared.wait(wait).await {
            Fate::Good => Ok(()),
            Fate::Failed(why) => Err(CallFailure::Refused(why)),
            Fate::Deadline => Err(CallFailure::Deadline),
            Fate::Gone => Err(CallFailure::Gone),
        }
    }

    /// What a device needs is made first, and given up where the worker refuses it.
    async fn attach(&self, slot: PciSlot, ledger: &dyn DeviceLedger) -> Result<(), CallFailure> {
        let not_made = |why: &str| CallFailure::NotMade(failure(StartFailureKind::Host, why));
        if self.shared.wait(Wait::Making).await != Fate::Good {
            return Err(not_made("the host does not give what it needs"));
        }
        ledger.hold(held(slot)).map_err(|why| not_made(&why))?;
        let result = self.ask(Ask::Device(DeviceAsk::Attach(slot))).await;
        if result
            .as_ref()
            .is_err_and(|error| *error != CallFailure::Deadline)
        {
            ledger.let_go(slot.into());
        }
        result
    }
}

impl Instance for SimInstance {
    fn call(&self, call: WorkerCall) -> Later<Result<(), CallFailure>> {
        let instance = self.again();
        Box::pin(async move {
            let result = instance.ask(Ask::Call(call)).await;
            if call != WorkerCall::Stop {
                return result;
            }
            if result.is_err() {
                instance.kill();
            }
            Ok(())
        })
    }

    fn kill(&self) {
        self.shared.lock().kill(self.pid, true);
    }

    fn console(&self, _: Option<u64>, _: bool) -> Later<Result<(OwnedFd, u64), CallFailure>> {
        Box::pin(async { Err(CallFailure::Gone) })
    }

    fn device(
        &self,
        call: DeviceCall,
        ledger: Arc<dyn DeviceLedger>,
    ) -> Later<Result<(), CallFailure>> {
        let instance = self.again();
        Box::pin(async move {
            let ask = match call {
                DeviceCall::Attach { place, .. } => {
                    return instance.attach(place.slot, ledger.as_ref()).await;
                }
                DeviceCall::Detach { place, force } => DeviceAsk::Detach(place.slot, force),
                DeviceCall::Update { slot, .. }
                | DeviceCall::Medium { slot, .. }
                | DeviceCall::Tags { slot, .. }
                | DeviceCall::Filter { slot, .. }
                | DeviceCall::FilterCheck { slot, .. } => DeviceAsk::Update(slot),
                DeviceCall::Tune { .. } | DeviceCall::TuneCheck { .. } => {
                    return Err(CallFailure::Refused("it is held to nothing".to_owned()));
                }
                DeviceCall::Vcpus { .. } => {
                    return Err(CallFailure::Refused("it has its vCPUs for good".to_owned()));
                }
            };
            instance.ask(Ask::Device(ask)).await
        })
    }

    fn hand_over(&self, _: Domain, _: Arc<dyn SuccessionLedger>) -> Later<Result<(), CallFailure>> {
        Box::pin(async { Err(CallFailure::Refused("it has no successor".to_owned())) })
    }

    fn ask_devices(&self, number: u64) {
        let ask = Ask::Device(DeviceAsk::Places(number));
        let mut universe = self.shared.lock();
        if universe.dead {
            return;
        }
        let (pid, request) = (self.pid, universe.number());
        let process = universe.host.processes.get_mut(&pid);
        let Some(process) = process.filter(|process| process.alive) else {
            return;
        };
        // One that was found and has said nothing yet is asked when it has.
        if process.watch.as_ref().is_some_and(|watch| watch.linked) {
            process.requests.push_back((request, ask));
        }
    }

    fn release(&self, _: DeviceResources) {}

    fn device_reports(&self) -> Later<Result<Vec<DeviceReport>, CallFailure>> {
        Box::pin(async { Err(CallFailure::Refused("it keeps no books".to_owned())) })
    }

    fn stats(&self) -> Later<Result<DomainStats, CallFailure>> {
        Box::pin(async { Err(CallFailure::Refused("it keeps no books".to_owned())) })
    }

    fn vcpu_stats(&self) -> Later<Result<Vec<VcpuStats>, CallFailure>> {
        Box::pin(async { Err(CallFailure::Refused("it keeps no books".to_owned())) })
    }

    fn usage(&self) -> Result<DomainUsage, CallFailure> {
        Err(CallFailure::Refused("it keeps no books".to_owned()))
    }

    fn vcpu_figures(&self) -> Vec<VcpuFigures> {
        Vec::new()
    }

    fn device_figures(&self) -> Later<Result<Vec<DeviceReport>, CallFailure>> {
        Box::pin(async { Err(CallFailure::Refused("it keeps no books".to_owned())) })
    }

    fn inject_nmi(&self) -> Later<Result<(), CallFailure>> {
        Box::pin(async { Err(CallFailure::Refused("it has no guest".to_owned())) })
    }

    fn peek(&self, _: PeekPlace, _: u64, _: u32) -> Later<Result<Vec<u8>, CallFailure>> {
        Box::pin(async { Err(CallFailure::Refused("it has no memory".to_owned())) })
    }

    fn disk_bytes(&self, _: PciSlot) -> Later<Result<u64, CallFailure>> {
        Box::pin(async { Err(CallFailure::Refused("it has no disks".to_owned())) })
    }

    fn details(&self) -> WorkerDetails {
        WorkerDetails {
            pid: self.pid,
            uid: 0,
            own_uid: true,
            cgroup: None,
            landlock_abi: None,
            adopted: false,
        }
    }
}
