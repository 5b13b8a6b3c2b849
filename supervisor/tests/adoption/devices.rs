//! What devices hold of the host: recorded before it is made, and gone with the worker whoever is there
//! to see it.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use reeve_ipc::model::{Channel, DevicePlace, Devices, Disk, Layer};
use reeve_ipc::spec::{DiskFormat, PciSlot};
use reeved::domain::driver::{
    Adoption, DeviceResources, Notice, OpenPorts, Running, StartFailureKind,
};
use rustix::process::{Signal, kill_process};

use super::{Place, SOON, destroy, driver, driver_of, gone, notice, pid};

fn socket(place: &Place) -> PathBuf {
    place.directory.path().join("channel")
}

/// A socket that nobody listens on, in no process that is just being made either.
fn unserved(place: &Place) {
    drop(UnixListener::bind(socket(place)).unwrap());
    let begin = Instant::now();
    while UnixStream::connect(socket(place)).is_ok() {
        assert!(begin.elapsed() < SOON);
    }
}

/// Kills the worker, and waits until it is dead: who looks before that finds one that does not answer.
fn killed(place: &Place) {
    kill_process(pid(place.pid()), Signal::KILL).unwrap();
    let begin = Instant::now();
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", place.pid()));
    while state().is_ok_and(|state| !state.contains(") Z ")) {
        assert!(begin.elapsed() < SOON);
    }
}

fn with_channel() -> Place {
    let mut place = Place::new("mode=hold");
    place.domain.devices.channels = vec![Channel {
        name: "a".to_owned(),
        path: socket(&place),
        port: None,
    }];
    place
}

/// What a port holds that listens on `socket`.
fn listening(socket: PathBuf) -> DeviceResources {
    DeviceResources {
        place: DevicePlace::port(1.try_into().unwrap(), 1),
        taps: Vec::new(),
        macvtaps: Vec::new(),
        sockets: vec![socket],
    }
}

#[tokio::test]
async fn a_start_that_fails_leaves_no_socket() {
    let mut place = with_channel();
    let taken = place.directory.path().join("taken");
    let _served = UnixListener::bind(&taken).unwrap();
    place.domain.devices.channels.push(Channel {
        name: "b".to_owned(),
        path: taken,
        port: None,
    });
    let failure = place.start(&driver()).await.unwrap_err();
    assert_eq!(failure.kind, StartFailureKind::Host);
    assert!(
        failure.message.contains("in use by another program"),
        "{failure}"
    );
    let recorded = place.status.last();
    assert_eq!(recorded.device_sockets().count(), 2);
    assert!(!socket(&place).exists());
    place.assert_nothing_left();
}

#[tokio::test]
async fn a_socket_outlives_its_supervisor_and_not_its_worker() {
    let place = with_channel();
    let first = driver();
    let running = place.start(&first).await.unwrap();
    let recorded = place.status.records.lock().unwrap()[0].clone();
    assert!(recorded.device_sockets().eq([&socket(&place)]));
    drop((running, first));
    UnixStream::connect(socket(&place)).unwrap();
    let Adoption::Adopted { running, .. } = place.adopt(&driver()).await else {
        panic!("not adopted")
    };
    UnixStream::connect(socket(&place)).unwrap();
    destroy(running).await;
    assert!(!socket(&place).exists());
    place.assert_nothing_left();
}

#[tokio::test]
async fn a_worker_says_where_it_has_devices_whenever_it_is_asked() {
    let place = with_channel();
    let mut running = place.start(&driver()).await.unwrap();
    let slot: PciSlot = 1.try_into().unwrap();
    let there = vec![slot.into(), DevicePlace::port(slot, 1)];
    for number in [7, 3] {
        running.instance.ask_devices(number);
        let told = Notice::Devices(number, there.clone());
        let mut next = notice(&mut running).await;
        // Which ports are open comes with it, in its time.
        if next == Notice::Ports(slot, OpenPorts(0)) {
            next = notice(&mut running).await;
        }
        assert_eq!(next, told);
    }
    destroy(running).await;
    place.assert_nothing_left();
}

/// Of a worker that does as its name says.
async fn hostile(behaviour: &str) -> (Place, Running) {
    let mut place = Place::new("");
    let name = format!("{behaviour}-{}", place.domain.name);
    place.domain.name = name.parse().unwrap();
    let hostile = driver_of(Path::new(env!("CARGO_BIN_EXE_reeve-hostile-worker")));
    let running = place.start(&hostile).await.unwrap();
    (place, running)
}

#[tokio::test]
async fn which_ports_are_open_is_told_though_the_event_was_lost() {
    // What is told with the answer is newer than the answer.
    for (behaviour, open) in [("tells-ports", 2), ("tells-ports-as-it-answers", 4)] {
        let (_place, mut running) = hostile(behaviour).await;
        let ports = |open| Notice::Ports(1.try_into().unwrap(), OpenPorts(open));
        assert_eq!(notice(&mut running).await, ports(1));
        running.instance.ask_devices(1);
        let told = [notice(&mut running).await, notice(&mut running).await];
        assert!(matches!(told[0], Notice::Devices(1, _)), "{told:?}");
        assert_eq!(told[1], ports(open));
        destroy(running).await;
    }
}

#[tokio::test]
async fn a_worker_that_keeps_an_event_to_itself_is_told_of() {
    let (_place, mut running) = hostile("keeps-an-event").await;
    let told = [notice(&mut running).await, notice(&mut running).await];
    assert!(told.contains(&Notice::Lost), "{told:?}");
    assert!(told.contains(&Notice::Reset(1)), "{told:?}");
    destroy(running).await;
}

#[tokio::test]
async fn a_socket_of_a_worker_that_died_unwatched_is_removed() {
    let place = Place::new("mode=hold");
    drop(place.start(&driver()).await.unwrap());
    unserved(&place);
    killed(&place);
    let mut recorded = place.status.last();
    recorded.devices = vec![listening(socket(&place))];
    gone(place.adopt_as(&driver(), recorded).await);
    assert!(!socket(&place).exists());
    place.assert_nothing_left();
}

#[tokio::test]
async fn a_socket_that_was_bound_for_no_worker_is_removed() {
    let place = Place::new("mode=hold");
    drop(place.start(&driver()).await.unwrap());
    killed(&place);
    unserved(&place);
    let mut recorded = place.status.last();
    recorded.devices = vec![listening(socket(&place))];
    recorded.process = None;
    recorded.launched = false;
    let adoption = place.adopt_as(&driver(), recorded).await;
    assert!(matches!(adoption, Adoption::NeverLaunched), "{adoption:?}");
    assert!(!socket(&place).exists());
}

#[tokio::test]
async fn a_disk_that_another_domain_has_is_refused_before_there_is_a_worker() {
    let mut place = Place::new("mode=hold");
    let path = place.directory.path().join("image");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let format = DiskFormat::Raw;
    let image = Layer {
        path: path.clone(),
        format,
    };
    place.domain.devices = Devices {
        disks: vec![Disk::new("vda".parse().unwrap(), Some(image))],
        ..Devices::default()
    };
    let file = std::fs::File::options().read(true).open(&path).unwrap();
    let held = reeved::host::image_lock::ImageUse::Read;
    reeved::host::image_lock::lock(std::os::fd::AsFd::as_fd(&file), held).unwrap();
    let failure = place.start(&driver()).await.unwrap_err();
    assert_eq!(failure.kind, StartFailureKind::Host);
    for part in ["cannot start", "disk 'vda'", "in use elsewhere"] {
        assert!(failure.message.contains(part), "{failure}");
    }
    assert!(place.status.records.lock().unwrap().is_empty());
}
