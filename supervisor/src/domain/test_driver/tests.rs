//! What embedders' tests rely on.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;

use reeve_ipc::device::{DeviceChange, DeviceFigures};
use reeve_ipc::model::{
    BootSource, Devices, DomainUuid, Labels, LifecycleAction, MemorySize, Platform, ResourceLimits,
    Tuning, Vcpus,
};
use reeve_ipc::spec::{CpuSwitches, MachineType};

use super::*;
use crate::domain::driver::GuestMemory;

#[derive(Debug, Default)]
struct Records(Mutex<Vec<Resources>>);

impl Recorder for Records {
    fn record(&self, resources: &Resources) -> Result<(), String> {
        self.0.lock().unwrap().push(resources.clone());
        Ok(())
    }
}

fn domain() -> Domain {
    Domain {
        name: "tested".parse().unwrap(),
        uuid: DomainUuid(uuid::Uuid::from_u128(1)),
        machine: MachineType::Reeve1_0,
        vcpus: Vcpus::try_from(1).unwrap(),
        max_vcpus: Vcpus::try_from(1).unwrap(),
        platform: Platform::default(),
        kept: Vec::new(),
        tuning: Tuning::default(),
        cpu: CpuSwitches::default(),
        memory: MemorySize::mebibytes(16),
        boot: BootSource::BuiltIn {
            command_line: String::new(),
        },
        devices: Devices::default(),
        lifecycle: LifecycleAction::default(),
        limits: ResourceLimits::default(),
        pinning: Vec::new(),
        labels: Labels::default(),
    }
}

fn order(domain: Domain, paused: bool) -> StartOrder {
    StartOrder {
        domain,
        paused,
        directory: PathBuf::from("/nowhere"),
    }
}

async fn started(paused: bool) -> Running {
    started_of(domain(), paused).await
}

async fn started_of(domain: Domain, paused: bool) -> Running {
    let records = Arc::new(Records::default());
    let running = TestDriver::new()
        .start(
            order(domain, paused),
            Arc::clone(&records) as Arc<dyn Recorder>,
        )
        .await
        .unwrap();
    assert_eq!(records.0.lock().unwrap().len(), 1);
    running
}

#[tokio::test]
async fn the_power_button_powers_a_running_guest_off_and_its_machine_is_kept() {
    let mut running = started(true).await;
    assert_eq!(running.phase, Phase::Paused);
    let call = |call| running.instance.call(call);
    call(WorkerCall::PowerButton).await.unwrap();
    assert!(running.notices.try_recv().is_err(), "no vCPU runs");
    call(WorkerCall::Resume).await.unwrap();
    assert_eq!(
        running.notices.recv().await,
        Some(Notice::GuestEnded(GuestEnd::PoweredOff))
    );
    let refused = call(WorkerCall::Resume).await;
    assert!(matches!(refused, Err(CallFailure::Refused(_))));
    call(WorkerCall::Reset).await.unwrap();
    call(WorkerCall::Resume).await.unwrap();
    call(WorkerCall::Pause).await.unwrap();
    call(WorkerCall::Stop).await.unwrap();
    assert_eq!(
        running.notices.recv().await,
        Some(Notice::Gone(Verdict::Asked))
    );
    assert_eq!(
        running.instance.call(WorkerCall::Pause).await,
        Err(CallFailure::Gone)
    );
    assert_eq!(running.notices.recv().await, None);
}

#[tokio::test]
async fn the_console_echoes_and_is_read_again_from_a_position() {
    let mut running = started(false).await;
    let (fd, position) = running.instance.console(None, true).await.unwrap();
    assert_eq!(position, 0);
    let echo = tokio::task::spawn_blocking(move || {
        let mut console = UnixStream::from(fd);
        let mut greeting = [0; GREETING.len()];
        console.read_exact(&mut greeting).unwrap();
        assert_eq!(greeting, GREETING);
        console.write_all(b"echo").unwrap();
        let mut echo = [0; 4];
        console.read_exact(&mut echo).unwrap();
        echo
    });
    assert_eq!(&echo.await.unwrap(), b"echo");
    let from = GREETING.len() as u64;
    let (fd, position) = running.instance.console(Some(from), false).await.unwrap();
    assert_eq!(position, from);
    running.instance.kill();
    let rest = tokio::task::spawn_blocking(move || {
        let mut rest = String::new();
        UnixStream::from(fd).read_to_string(&mut rest).unwrap();
        rest
    });
    assert_eq!(rest.await.unwrap(), "echo");
    assert_eq!(
        running.notices.recv().await,
        Some(Notice::Gone(Verdict::Asked))
    );
}

#[tokio::test]
async fn nothing_of_an_earlier_supervisor_is_found() {
    let resources = Resources {
        uid: 0,
        own_uid: false,
        cgroup: None,
        socket: PathBuf::from("/nowhere/adopt"),
        digest: [0; 16],
        process: None,
        successor: None,
        launched: true,
        devices: Vec::new(),
    };
    let adoption = TestDriver::new().adopt(domain(), resources).await;
    assert!(matches!(adoption, Adoption::Gone { .. }));
}

#[derive(Debug)]
struct NoLedger;

impl DeviceLedger for NoLedger {
    fn hold(&self, _: DeviceResources) -> Result<(), String> {
        Ok(())
    }

    fn let_go(&self, _: reeve_ipc::model::DevicePlace) {}
}

#[tokio::test]
async fn a_guest_has_done_what_it_was_asked_when_that_is_answered() {
    let mut domain = domain();
    domain.devices.balloon = Some(reeve_ipc::model::Balloon::default());
    domain.tuning.current_memory = Some(MemorySize::mebibytes(12));
    domain.complete().unwrap();
    let slot = domain.devices.balloon.unwrap().address.unwrap();
    let mut running = started_of(domain, false).await;
    let lent = |bytes| {
        let (lent, plugged) = (bytes, 0);
        Ok(Notice::Memory(GuestMemory { lent, plugged }))
    };
    // As its definition says, before anybody looks.
    assert_eq!(running.notices.try_recv(), lent(4 << 20));
    let target = |bytes| DeviceCall::Update {
        slot,
        change: DeviceChange::BalloonTarget { bytes },
    };
    let ask = |call| running.instance.device(call, Arc::new(NoLedger));
    ask(target(4 << 20)).await.unwrap();
    assert!(running.notices.try_recv().is_err(), "nothing is new");
    ask(target(8 << 20)).await.unwrap();
    assert_eq!(running.notices.try_recv(), lent(8 << 20));
    let reports = running.instance.device_reports().await.unwrap();
    let DeviceFigures::Balloon(balloon) = reports[0].figures else {
        panic!("{reports:?}")
    };
    assert_eq!(balloon.actual_bytes, 8 << 20);
    assert_eq!(balloon.guest.unwrap().total, Some(8 << 20));
    // One that stands does nothing until it runs.
    running.instance.call(WorkerCall::Pause).await.unwrap();
    ask(target(0)).await.unwrap();
    assert!(running.notices.try_recv().is_err());
    running.instance.call(WorkerCall::Resume).await.unwrap();
    assert_eq!(running.notices.try_recv(), lent(0));
}

#[tokio::test]
async fn figures_are_the_same_at_every_look() {
    let running = started(false).await;
    let first = (running.instance.usage(), running.instance.vcpu_figures());
    assert_eq!(first.1.len(), 1);
    assert_eq!(first.0.clone().unwrap().cpu_time_ns, 2 * VCPU_NS);
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    let again = (running.instance.usage(), running.instance.vcpu_figures());
    assert_eq!(again, first);
    assert_eq!(
        running.instance.vcpu_stats().await.unwrap()[0],
        first.1[0].stats
    );
}

#[tokio::test]
async fn the_consoles_of_all_machines_have_so_many_clients_together() {
    let driver = TestDriver::new();
    let mut machines = Vec::new();
    for _ in 0..6 {
        let records = Arc::new(Records::default());
        let machine = driver.start(order(domain(), false), records).await.unwrap();
        machines.push(machine);
    }
    let mut clients = Vec::new();
    let mut refused = None;
    for machine in &machines {
        for _ in 0..16 {
            match machine.instance.console(None, false).await {
                Ok((stream, _)) => clients.push(stream),
                Err(error) => refused = Some(error),
            }
        }
    }
    assert_eq!(clients.len(), 64);
    assert!(matches!(refused, Some(CallFailure::Refused(_))));
    clients.clear();
    // Each is heard of when its end is seen.
    loop {
        tokio::task::yield_now().await;
        if machines[0].instance.console(None, false).await.is_ok() {
            break;
        }
    }
}
