//! Devices that a driver uses: stopped, saved, made again from their records, reset.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};

use reeve_devices::bus::{BusDevice, MmioAddress, MmioBus};
use reeve_devices::memory::GuestRam;
use reeve_devices::pci::root::{Ecam, Windows};
use reeve_devices::virtio::rng::Entropy;
use reeve_devices::virtio::transport::registers::NoDoorbells;
use reeve_devices::virtio::vsock::Vsock;
use reeve_ipc::error::WireError;
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{DeviceSpec, MachineType, PciSlot, RngSpec};
use reeve_sandbox::seccomp::{Role, enter_role};
use vm_memory::{Bytes, GuestAddress};

use super::slow::{Gate, NoMessages, QUEUE_SIZE, Slow, memory};
use super::*;
use crate::memory::GuestMemory;

const SLOT: u8 = 3;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const BUFFERS: u64 = 0x10_0000;
const BUFFER_BYTES: u32 = 64;

#[derive(Debug, Default)]
struct CountWakes(AtomicU32);

impl Wake for CountWakes {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Bytes from the rings of one queue to those of the next.
const QUEUE_STRIDE: u64 = 0x8000;

/// A bus with one device, an entropy device if nothing else is said, and the driver's ways to it.
struct Rig {
    set: DeviceSet,
    stopped: Arc<CountWakes>,
    mmio: Arc<MmioBus>,
    root: Root,
    memory: GuestMemory,
}

impl Rig {
    fn new(memory: &GuestMemory) -> Self {
        let device = Box::new(Entropy::new(None));
        Self::with(memory, "entropy device", device, Handle::Rng)
    }

    fn with(
        memory: &GuestMemory,
        what: &'static str,
        device: Box<dyn VirtioDevice>,
        handle: Handle,
    ) -> Self {
        // The device's thread closes its role's filter.
        rustix::thread::set_no_new_privs(true).unwrap();
        let mmio = Arc::new(MmioBus::new());
        let root = Root::new(
            Arc::clone(&mmio),
            Windows {
                memory32: layout::PCI_WINDOW_32,
                memory64: 0..0,
            },
        );
        let stopped = Arc::new(CountWakes::default());
        let mut rig = Self {
            set: DeviceSet::new(root.clone(), Arc::clone(&stopped) as _),
            stopped,
            mmio,
            root,
            memory: memory.clone(),
        };
        rig.insert(what, device, handle);
        rig
    }

    fn insert(&mut self, what: &'static str, device: Box<dyn VirtioDevice>, handle: Handle) {
        let surroundings = Surroundings {
            ram: GuestRam::new(self.memory.map_ref().clone()),
            messages: Arc::new(NoMessages),
            doorbells: Arc::new(NoDoorbells),
        };
        let threads = vec![Arc::new(DeviceThread::start("test", Role::Io).unwrap())];
        let spec = DeviceSpec::Rng(RngSpec {
            slot: PciSlot::try_from(SLOT).unwrap(),
            rate: None,
        });
        let kept = Kept::of(&spec, &FdTable::new()).unwrap();
        let built = Built::new(slot(), what, device, threads, handle, kept, surroundings)
            .expect("a device");
        self.set.insert(built).unwrap();
    }

    fn write(&self, register: u64, data: &[u8]) {
        let bar = bar_address(slot());
        self.mmio.write(MmioAddress(bar + register), data);
    }

    fn read(&self, register: u64) -> u8 {
        let bar = bar_address(slot());
        let mut data = [0];
        self.mmio.read(MmioAddress(bar + register), &mut data);
        let [byte] = data;
        byte
    }

    /// What a driver does up to `DRIVER_OK`.
    fn start(&self) {
        self.start_queues(1);
    }

    fn start_queues(&self, count: u16) {
        const COMMAND: u64 = (SLOT as u64) << 15 | 4;
        let mut config = Ecam::new(self.root.clone());
        config.write(COMMAND, &6_u16.to_le_bytes()).unwrap();
        self.write(0x14, &[3]);
        self.write(0x08, &1_u32.to_le_bytes());
        // VIRTIO_F_VERSION_1.
        self.write(0x0c, &1_u32.to_le_bytes());
        self.write(0x14, &[11]);
        for queue in 0..count {
            self.write(0x16, &queue.to_le_bytes());
            self.write(0x18, &QUEUE_SIZE.to_le_bytes());
            for (register, address) in [(0x20, DESCRIPTORS), (0x28, AVAILABLE), (0x30, USED)] {
                let address = address + QUEUE_STRIDE * u64::from(queue);
                self.write(register, &address.to_le_bytes());
            }
            self.write(0x1c, &1_u16.to_le_bytes());
        }
        self.write(0x14, &[15]);
    }

    /// Asks for bytes, as request `number`, counted from 0.
    fn ask(&self, number: u16) {
        let map = self.memory.map_ref();
        let index = number % QUEUE_SIZE;
        let place = DESCRIPTORS + 16 * u64::from(index);
        let buffer = BUFFERS + u64::from(index) * u64::from(BUFFER_BYTES);
        map.write_obj(buffer, GuestAddress(place)).unwrap();
        map.write_obj(BUFFER_BYTES, GuestAddress(place + 8))
            .unwrap();
        // The device writes.
        map.write_obj(2_u32, GuestAddress(place + 12)).unwrap();
        let entry = GuestAddress(AVAILABLE + 4 + 2 * u64::from(index));
        map.write_obj(index, entry).unwrap();
        map.write_obj(number + 1, GuestAddress(AVAILABLE + 2))
            .unwrap();
        self.write(0x2000, &0_u16.to_le_bytes());
    }

    fn answered(&self) -> u16 {
        let map = self.memory.map_ref();
        map.read_obj(GuestAddress(USED + 2)).unwrap()
    }

    fn wait_answered(&self, count: u16) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.answered() != count {
            assert!(Instant::now() < deadline, "{} answered", self.answered());
            std::thread::yield_now();
        }
    }

    fn save(&self) -> Vec<u8> {
        let mut records = Recorder::new();
        self.set.save(&mut records).unwrap();
        records.seal(MachineType::Reeve1_0)
    }
}

#[test]
fn a_device_in_use_goes_on_from_its_record() {
    let memory = memory();
    let mut rig = Rig::new(&memory);
    rig.start();
    for number in 0..10 {
        rig.ask(number);
        rig.wait_answered(number + 1);
    }
    for hop in 0..5 {
        rig.set.stop(STOP_PATIENCE).unwrap();
        // Its driver, were it running, would be told nothing of this.
        let asked = 10 + 2 * hop;
        rig.ask(asked);
        let state = rig.save();
        let next = Rig::new(&memory);
        let mut records = Records::open(&state).unwrap();
        next.set.restore(&mut records).unwrap();
        records.finish().unwrap();
        assert_eq!(next.save(), state, "a record comes back as it was");
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(next.answered(), asked, "it stands until it is resumed");
        next.set.resume().unwrap();
        next.wait_answered(asked + 1);
        next.ask(asked + 1);
        next.wait_answered(asked + 2);
        rig = next;
    }
}

#[test]
fn a_device_that_was_saved_goes_on_where_it_is() {
    let memory = memory();
    let rig = Rig::new(&memory);
    rig.start();
    rig.set.stop(STOP_PATIENCE).unwrap();
    rig.save();
    rig.ask(0);
    assert_eq!(rig.answered(), 0);
    rig.set.resume().unwrap();
    rig.set.resume().unwrap();
    rig.wait_answered(1);
}

#[test]
fn records_of_devices_are_wanted_once_each() {
    let memory = memory();
    let rig = Rig::new(&memory);
    let empty = Recorder::new().seal(MachineType::Reeve1_0);
    let mut records = Records::open(&empty).unwrap();
    let missing = rig.set.restore(&mut records).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "saved state has no record of entropy device/3"
    );
    let mut records = Recorder::new();
    let function = lock(&rig.set.attached[0].device.function);
    records
        .add("entropy device/3", function.schema(), &[1, 2, 3])
        .unwrap();
    drop(function);
    let short = records.seal(MachineType::Reeve1_0);
    let mut records = Records::open(&short).unwrap();
    let refused = rig.set.restore(&mut records).unwrap_err();
    assert!(matches!(refused, RestoreError::Record { .. }), "{refused}");
}

/// Does what a guest does, under the filter of a vCPU thread: a call that it lacks ends the process.
fn as_a_vcpu(act: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            enter_role(Role::Vcpu).unwrap();
            act();
        });
    });
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

/// A listening socket, and a client of it.
fn listener() -> (UnixListener, UnixStream) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("reeve-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let listener = UnixListener::bind(&path).unwrap();
    let client = UnixStream::connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    (listener, client)
}

#[test]
fn a_guest_that_resets_its_socket_device_closes_no_connection_on_its_vcpu() {
    const CID: u32 = 42;
    let vsock = Vsock::new(CID).unwrap();
    let control = vsock.control();
    let (listener, mut client) = listener();
    control.set_listener(Some(listener.into())).unwrap();
    let handle = Handle::Vsock(control.clone());
    let rig = Rig::with(&memory(), "socket device", Box::new(vsock), handle);
    rig.start_queues(3);
    client.write_all(b"CONNECT 1\n").unwrap();
    eventually("the connection is made", || control.connections() == 1);
    as_a_vcpu(|| {
        rig.write(0x14, &[0]);
        eventually("the reset is over", || rig.read(0x14) == 0);
    });
    assert_eq!(control.connections(), 0);
    client
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "it is closed");
}

const SHORT: Duration = Duration::from_millis(20);

/// One that is used, and the way to let it finish.
fn slow() -> (Rig, Arc<Gate>) {
    slow_and(false)
}

fn slow_and(unwritten: bool) -> (Rig, Arc<Gate>) {
    let (device, gate) = Slow::new(unwritten);
    let rig = Rig::with(&memory(), "slow disk", Box::new(device), Handle::Rng);
    rig.start();
    (rig, gate)
}

fn slot() -> Slot {
    Slot::new(SLOT).unwrap()
}

#[test]
fn a_device_that_is_taken_by_force_while_its_storage_stalls_goes_when_that_has_finished() {
    let (mut rig, gate) = slow();
    let refused = rig.set.remove(slot(), SHORT).unwrap_err();
    assert!(
        matches!(refused, DeviceSetError::Unresponsive { .. }),
        "{refused}"
    );
    rig.set.turn();
    assert!(rig.set.take_gone().is_empty());
    assert!(rig.set.check_none_goes().is_err(), "nobody saves it");
    // It holds nothing else up meanwhile, and serves nobody again.
    rig.set.resume().unwrap();
    rig.start();
    assert!(
        rig.set.remove(slot(), SHORT).is_err(),
        "it may be said again"
    );
    assert_eq!(rig.stopped.0.load(Ordering::SeqCst), 0);
    gate.open();
    eventually("it has stopped", || {
        rig.stopped.0.load(Ordering::SeqCst) == 1
    });
    rig.set.turn();
    assert_eq!(rig.set.take_gone(), [slot()]);
    rig.set.check_none_goes().unwrap();
    assert!(rig.set.handle(slot()).is_none());
    assert!(rig.root.function(slot()).is_none());
    let empty = rig.set.remove(slot(), SHORT).unwrap_err();
    assert!(matches!(empty, DeviceSetError::Empty(_)), "{empty}");
}

#[test]
fn what_the_guest_lets_go_of_is_not_waited_for() {
    let (mut rig, gate) = slow();
    rig.set.mark_leaving(slot()).unwrap();
    assert!(rig.set.is_leaving(slot()));
    let before = Instant::now();
    rig.set.begin_removal(slot()).unwrap();
    rig.set.turn();
    assert!(before.elapsed() < Duration::from_secs(1));
    assert!(!rig.set.is_leaving(slot()), "it is asked once");
    rig.set.mark_leaving(slot()).unwrap();
    assert!(!rig.set.is_leaving(slot()));
    gate.open();
    eventually("it has stopped", || {
        rig.stopped.0.load(Ordering::SeqCst) == 1
    });
    rig.set.turn();
    assert_eq!(rig.set.take_gone(), [slot()]);
}

#[test]
fn a_machine_whose_device_stalls_is_told_when_that_has_finished() {
    let (rig, gate) = slow();
    for _ in 0..3 {
        assert!(rig.set.stop(SHORT).is_err());
        assert!(rig.set.resume().is_err(), "it has not stopped yet");
    }
    gate.open();
    eventually("it has stopped", || {
        rig.stopped.0.load(Ordering::SeqCst) == 1
    });
    rig.set.stop(Duration::ZERO).unwrap();
    rig.set.resume().unwrap();
}

#[test]
fn a_vcpus_access_does_not_wait_for_a_device_that_stops() {
    let (mut rig, gate) = slow();
    rig.set.begin_removal(slot()).unwrap();
    let mmio = Arc::clone(&rig.mmio);
    let bar = bar_address(slot());
    std::thread::scope(|scope| {
        let vcpu = scope.spawn(move || {
            enter_role(Role::Vcpu).unwrap();
            let mut status = [0];
            mmio.read(MmioAddress(bar + 0x14), &mut status);
            status
        });
        let patient = scope.spawn(|| rig.set.remove(slot(), STOP_PATIENCE));
        assert_eq!(vcpu.join().unwrap(), [15]);
        assert!(!patient.is_finished());
        gate.open();
        patient.join().unwrap().unwrap();
    });
}

#[test]
fn a_device_that_a_vcpu_still_holds_is_kept_until_it_does_not() {
    let (mut rig, gate) = slow();
    gate.open();
    // As the bus has it while an access is under way.
    let registers = Arc::clone(&rig.set.attached[0].device.registers);
    let late = rig.set.remove(slot(), SHORT).unwrap_err();
    assert!(
        matches!(late, DeviceSetError::Unresponsive { .. }),
        "{late}"
    );
    assert!(rig.root.function(slot()).is_none(), "it is off the bus");
    assert!(rig.set.take_gone().is_empty());
    assert_eq!(rig.set.handles().count(), 1, "it is not gone");
    assert!(rig.set.next_turn().is_some());
    as_a_vcpu(move || drop(registers));
    rig.set.turn();
    assert_eq!(rig.set.handles().count(), 0);
    assert_eq!(rig.set.take_gone(), [slot()]);
    assert!(rig.set.next_turn().is_none());
}

/// Devices come and go while a vCPU hammers at where they are. What it closes ends the process.
#[test]
fn a_vcpu_at_the_registers_of_devices_that_are_taken_by_force_closes_none() {
    const ROUNDS: u32 = 200;
    let (mut rig, gate) = slow();
    gate.open();
    let (mmio, bar) = (Arc::clone(&rig.mmio), bar_address(slot()));
    let over = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                enter_role(Role::Vcpu).unwrap();
                while over.load(Ordering::Relaxed) == 0 {
                    mmio.read(MmioAddress(bar + 0x14), &mut [0]);
                }
            });
        }
        for _ in 0..ROUNDS {
            rig.set.remove(slot(), STOP_PATIENCE).unwrap();
            assert_eq!(rig.set.take_gone(), [slot()]);
            rig.insert("slow disk", Box::new(Entropy::new(None)), Handle::Rng);
            rig.start();
        }
        over.store(1, Ordering::Relaxed);
    });
}

#[test]
fn a_machine_whose_disk_could_not_write_its_metadata_out_is_not_saved() {
    for unwritten in [false, true] {
        let (rig, gate) = slow_and(unwritten);
        gate.open();
        rig.set.stop(STOP_PATIENCE).unwrap();
        let saved = rig.set.save(&mut Recorder::new());
        assert_eq!(saved.is_err(), unwritten);
        if let Err(error) = saved {
            assert!(matches!(error, SaveError::Unwritten { .. }), "{error}");
            let told = WireError::from(error).to_string();
            assert!(
                told.contains("slow disk") && told.contains("no room"),
                "{told}"
            );
        }
    }
}

#[test]
fn a_machine_with_a_shared_folder_is_not_saved() {
    let memory = memory();
    assert!(Rig::new(&memory).set.check_saveable().is_ok());
    let device = Box::new(Entropy::new(None));
    let rig = Rig::with(&memory, "shared folder", device, Handle::Share);
    let error = reeve_ipc::error::WireError::from(rig.set.check_saveable().unwrap_err());
    assert_eq!(error.code, reeve_ipc::error::ErrorCode::Unsupported);
    assert!(error.message.contains("cannot be saved"), "{error}");
}
