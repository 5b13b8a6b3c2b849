//! What embedders' tests rely on.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;

use reeve_ipc::model::{
    BootSource, Devices, DomainUuid, Labels, LifecycleAction, MemorySize, Platform, ResourceLimits,
    Tuning, Vcpus,
};
use reeve_ipc::spec::{CpuSwitches, MachineType};

use super::*;

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

async fn started(paused: bool) -> Running {
    let order = StartOrder {
        domain: domain(),
        paused,
        directory: PathBuf::from("/nowhere"),
    };
    let records = Arc::new(Records::default());
    let running = TestDriver::new()
        .start(order, Arc::clone(&records) as Arc<dyn Recorder>)
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
