//! Devices that come once the spawner has closed its filter. A call that it lacks ends the process.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use reeve_devices::block::qcow2::{CreateOptions, create};
use reeve_devices::memory::GuestRam;
use reeve_devices::shared::{Shared, lock, share};
use reeve_devices::virtio::transport::registers::NoDoorbells;
use reeve_ipc::spec::{
    BalloonSpec, CacheMode, Discard, DiskFormat, DiskSpec, DiskThrottle, IoEngine, LayerSpec,
    RngSpec, VsockSpec,
};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};

use super::*;
use crate::device_set::slow::{NoMessages, memory};
use crate::spawner::Spawner;

const DISK_BYTES: u64 = 1 << 20;

/// A closed spawner with a workshop, and what the latter has in reserve: at most `rings`.
fn closed(rings: usize) -> (Spawner, Shared<Workshop>, Arc<RingReserve>) {
    rustix::thread::set_no_new_privs(true).unwrap();
    let memory = memory();
    let surroundings = Surroundings {
        ram: GuestRam::new(memory.map_ref().clone()),
        messages: Arc::new(NoMessages),
        doorbells: Arc::new(NoDoorbells),
    };
    let mut workshop = Workshop::new(memory, surroundings, Arc::new(Notices::new().unwrap()));
    let reserve = Arc::new(RingReserve::default());
    workshop.use_reserve(Arc::clone(&reserve));
    let spawner = Spawner::start().unwrap();
    let theirs = Arc::clone(&reserve);
    // A host without io_uring has none.
    spawner.close(move || drop(theirs.fill(rings))).unwrap();
    spawner.run(|| ()).unwrap();
    (spawner, share(workshop), reserve)
}

fn build(
    (spawner, workshop): (&Spawner, &Shared<Workshop>),
    spec: DeviceSpec,
    mut descriptors: FdTable,
) -> Built {
    let workshop = Arc::clone(workshop);
    let job = move || lock(&workshop).build(spec, &mut descriptors);
    spawner.run(job).unwrap().unwrap()
}

/// A file without a name where this program is: on a file system that is no memory's.
fn stored() -> OwnedFd {
    let program = std::env::current_exe().unwrap();
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(program.parent().unwrap(), flags, Mode::RUSR | Mode::WUSR).unwrap()
}

fn in_memory() -> OwnedFd {
    memfd_create("disk", MemfdFlags::CLOEXEC).unwrap()
}

fn formatted(file: OwnedFd, format: DiskFormat) -> OwnedFd {
    match format {
        DiskFormat::Raw => rustix::fs::ftruncate(&file, DISK_BYTES).unwrap(),
        DiskFormat::Qcow2 => {
            let options = CreateOptions {
                size: DISK_BYTES,
                cluster_bits: 16,
                backing: None,
            };
            create(file.try_clone().unwrap(), &options).unwrap();
        }
    }
    file
}

fn slot(number: u8) -> PciSlot {
    PciSlot::try_from(number).unwrap()
}

fn disk(number: u8, format: DiskFormat, queues: u16) -> (DeviceSpec, FdTable) {
    disk_on(stored(), number, format, queues)
}

fn disk_on(file: OwnedFd, number: u8, format: DiskFormat, queues: u16) -> (DeviceSpec, FdTable) {
    let mut descriptors = FdTable::new();
    let fd = descriptors.push(formatted(file, format)).unwrap();
    let spec = DiskSpec {
        slot: slot(number),
        name: format!("vd{number}"),
        layers: vec![LayerSpec { fd, format }],
        read_only: false,
        cache: CacheMode::WriteBack,
        engine: IoEngine::IoUring,
        discard: Discard::Unmap,
        serial: String::new(),
        queues,
        block_bytes: 512,
        throttle: DiskThrottle::default(),
    };
    (DeviceSpec::Disk(spec), descriptors)
}

#[test]
fn disks_that_come_later_have_the_rings_in_reserve_and_then_none() {
    let (spawner, workshop, reserve) = closed(3);
    let rings = reserve.left();
    let tools = (&spawner, &workshop);
    let (spec, files) = disk(3, DiskFormat::Raw, 2);
    let first = build(tools, spec, files);
    let (spec, files) = disk(4, DiskFormat::Qcow2, 1);
    let second = build(tools, spec, files);
    assert_eq!(reserve.left(), 0);
    let (spec, files) = disk(5, DiskFormat::Raw, 2);
    let third = build(tools, spec, files);
    drop(first);
    assert_eq!(reserve.left(), rings.min(2), "they come back");
    drop((second, third));
    assert_eq!(reserve.left(), rings);
}

#[test]
fn a_disk_that_is_in_memory_takes_no_ring() {
    let (spawner, workshop, reserve) = closed(2);
    let rings = reserve.left();
    let (spec, files) = disk_on(in_memory(), 3, DiskFormat::Raw, 2);
    let raw = build((&spawner, &workshop), spec, files);
    let (spec, files) = disk_on(in_memory(), 4, DiskFormat::Qcow2, 1);
    let qcow2 = build((&spawner, &workshop), spec, files);
    assert_eq!(reserve.left(), rings);
    drop((raw, qcow2));
}

#[test]
fn other_devices_that_come_later_need_nothing_that_the_spawner_may_not() {
    let (spawner, workshop, _) = closed(0);
    let tools = (&spawner, &workshop);
    let rng = DeviceSpec::Rng(RngSpec {
        slot: slot(3),
        rate: None,
    });
    let rng = build(tools, rng, FdTable::new());
    let balloon = DeviceSpec::Balloon(BalloonSpec {
        slot: slot(4),
        free_page_reporting: true,
        deflate_on_oom: true,
    });
    let balloon = build(tools, balloon, FdTable::new());
    let path = std::env::temp_dir().join(format!("reeve-later-{}", std::process::id()));
    let socket = UnixListener::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut descriptors = FdTable::new();
    let vsock = DeviceSpec::Vsock(VsockSpec {
        slot: slot(5),
        cid: 42,
        listener: descriptors.push(socket.into()).unwrap(),
        acceptor: None,
    });
    let vsock = build(tools, vsock, descriptors);
    assert_eq!(
        [&rng, &balloon, &vsock].map(|built| built.slot().number()),
        [3, 4, 5]
    );
}

#[test]
fn a_disk_that_nobody_waits_for_any_more_goes_where_it_was_made() {
    let (spawner, workshop, reserve) = closed(1);
    let rings = reserve.left();
    let (spec, mut files) = disk(3, DiskFormat::Qcow2, 1);
    let workshop = Arc::clone(&workshop);
    let made = spawner.run(move || lock(&workshop).build(spec, &mut files).map(drop));
    made.unwrap().unwrap();
    assert_eq!(reserve.left(), rings);
}
