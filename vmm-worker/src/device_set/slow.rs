//! What tests put devices into, and a device that stops when they like.

use std::sync::{Condvar, Mutex};

use reeve_devices::bus::BusDevice;
use reeve_devices::irq::{MsiMessage, MsiSink};
use reeve_devices::memory::GuestRam;
use reeve_devices::reactor::Sources;
use reeve_devices::virtio::transport::registers::NoDoorbells;
use reeve_devices::virtio::{DeviceId, Progress, QueueWorker, Start, StartError, Unwritten};
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{DeviceSpec, PciSlot, RngSpec};
use reeve_sandbox::seccomp::Role;

use rustix::fs::{MemfdFlags, SealFlags};

use super::*;
use crate::memory::{Backing, GuestMemory};

/// Entries of its queue.
pub(crate) const QUEUE_SIZE: u16 = 8;

#[derive(Debug)]
pub(crate) struct NoMessages;

impl MsiSink for NoMessages {
    fn send(&self, _message: MsiMessage) -> bool {
        true
    }
}

/// Two MiB.
pub(crate) fn memory() -> GuestMemory {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("guest", flags).expect("guest memory");
    rustix::fs::ftruncate(&fd, 2 << 20).expect("guest memory");
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).expect("guest memory");
    GuestMemory::map(Backing::Shared { fd }, 2 << 20).expect("guest memory")
}

/// A device whose storage takes as long to finish as the test likes, and that closes a descriptor when it
/// goes.
pub(crate) struct Slow {
    gate: Arc<Gate>,
    unwritten: bool,
    _file: std::fs::File,
}

/// Shut at first.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// Lets the storage finish.
    pub(crate) fn open(&self) {
        *lock(&self.open) = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let shut = |open: &mut bool| !*open;
        drop(
            self.opened
                .wait_while(lock(&self.open), shut)
                .expect("guest memory"),
        );
    }
}

struct SlowWorker(Arc<Gate>);

impl VirtioDevice for Slow {
    fn id(&self) -> DeviceId {
        DeviceId::Block
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn start(&mut self, _start: Start) -> Result<Vec<Box<dyn QueueWorker>>, StartError> {
        Ok(vec![Box::new(SlowWorker(Arc::clone(&self.gate)))])
    }

    fn check_saveable(&self) -> Result<(), Unwritten> {
        match self.unwritten {
            true => Err(Unwritten("no room".to_owned())),
            false => Ok(()),
        }
    }
}

impl QueueWorker for SlowWorker {
    fn start(&mut self, _sources: &Sources<'_>) {}

    fn ready(&mut self, _token: u32, _hung_up: bool, _sources: &Sources<'_>) {}

    fn stop(self: Box<Self>, _sources: &Sources<'_>) -> Progress {
        self.0.pass();
        Progress::new()
    }
}

impl Slow {
    /// One, which refuses to be saved if something of it is `unwritten`; and the way to let it finish.
    pub(crate) fn new(unwritten: bool) -> (Self, Arc<Gate>) {
        let gate = Arc::new(Gate::default());
        let device = Self {
            gate: Arc::clone(&gate),
            unwritten,
            _file: std::fs::File::open("/dev/null").expect("a descriptor"),
        };
        (device, gate)
    }
}

/// One for slot `number` whose driver has the rings of its queue at guest-physical `rings`, and uses it.
pub(crate) fn in_use(number: u8, ram: GuestRam, rings: u64) -> (Built, Arc<Gate>) {
    let (device, gate) = Slow::new(false);
    let surroundings = Surroundings {
        ram,
        messages: Arc::new(NoMessages),
        doorbells: Arc::new(NoDoorbells),
    };
    let spec = DeviceSpec::Rng(RngSpec {
        slot: PciSlot::try_from(number).expect("a slot"),
        rate: None,
    });
    let kept = Kept::of(&spec, &FdTable::new()).expect("no descriptors");
    let threads = vec![Arc::new(
        DeviceThread::start("slow", Role::Io).expect("a thread"),
    )];
    let slot = Slot::new(number).expect("a slot");
    let device = Box::new(device);
    let built = Built::new(
        slot,
        "slow disk",
        device,
        threads,
        Handle::Rng,
        kept,
        surroundings,
    )
    .expect("a device");
    {
        let mut registers = lock(&built.registers);
        registers.set_bus_master(true);
        let mut write = |register, data: &[u8]| registers.write(register, data).expect("one");
        write(0x14, &[3]);
        write(0x08, &1_u32.to_le_bytes());
        // VIRTIO_F_VERSION_1.
        write(0x0c, &1_u32.to_le_bytes());
        write(0x14, &[11]);
        write(0x18, &QUEUE_SIZE.to_le_bytes());
        for (register, place) in [(0x20, 0), (0x28, 0x400), (0x30, 0x800)] {
            write(register, &(rings + place).to_le_bytes());
        }
        write(0x1c, &1_u16.to_le_bytes());
        write(0x14, &[15]);
        assert!(registers.negotiation().is_running());
    }
    (built, gate)
}
