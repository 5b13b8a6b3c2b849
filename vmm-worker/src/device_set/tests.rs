//! Devices that a driver uses: stopped, saved, made again from their records, reset.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};

use reeve_devices::bus::{BusDevice, MmioAddress, MmioBus};
use reeve_devices::irq::{MsiMessage, MsiSink};
use reeve_devices::memory::GuestRam;
use reeve_devices::pci::root::{Ecam, Windows};
use reeve_devices::virtio::rng::Entropy;
use reeve_devices::virtio::transport::registers::NoDoorbells;
use reeve_devices::virtio::vsock::Vsock;
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{DeviceSpec, MachineType, PciSlot, RngSpec};
use reeve_sandbox::seccomp::{Role, enter_role};
use rustix::fs::{MemfdFlags, SealFlags};
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::memory::{Backing, GuestMemory};

const SLOT: u8 = 3;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const BUFFERS: u64 = 0x10_0000;
const BUFFER_BYTES: u32 = 64;
const QUEUE_SIZE: u16 = 8;

#[derive(Debug)]
struct NoMessages;

impl MsiSink for NoMessages {
    fn send(&self, _message: MsiMessage) -> bool {
        true
    }
}

fn memory() -> GuestMemory {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("guest", flags).unwrap();
    rustix::fs::ftruncate(&fd, 2 << 20).unwrap();
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    GuestMemory::map(Backing::Shared { fd }, 2 << 20).unwrap()
}

/// Bytes from the rings of one queue to those of the next.
const QUEUE_STRIDE: u64 = 0x8000;

/// A bus with one device, an entropy device if nothing else is said, and the driver's ways to it.
struct Rig {
    set: DeviceSet,
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
        let surroundings = Surroundings {
            ram: GuestRam::new(memory.map_ref().clone()),
            messages: Arc::new(NoMessages),
            doorbells: Arc::new(NoDoorbells),
        };
        let mut set = DeviceSet::new(root.clone());
        let thread = Arc::new(DeviceThread::start("test").unwrap());
        let slot = Slot::new(SLOT).unwrap();
        let spec = DeviceSpec::Rng(RngSpec {
            slot: PciSlot::try_from(SLOT).unwrap(),
            rate: None,
        });
        let kept = Kept::of(&spec, &FdTable::new()).unwrap();
        let threads = vec![thread];
        let built = Built::new(slot, what, device, threads, handle, kept, surroundings)
            .expect("a device");
        set.insert(built).unwrap();
        Self {
            set,
            mmio,
            root,
            memory: memory.clone(),
        }
    }

    fn write(&self, register: u64, data: &[u8]) {
        let bar = bar_address(Slot::new(SLOT).unwrap());
        self.mmio.write(MmioAddress(bar + register), data);
    }

    fn read(&self, register: u64) -> u8 {
        let bar = bar_address(Slot::new(SLOT).unwrap());
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
        rig.set.stop().unwrap();
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
    rig.set.stop().unwrap();
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
