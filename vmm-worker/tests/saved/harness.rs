//! A machine of the built-in guest that moves from one `Machine` to the next over one memory.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use reeve_ipc::fd::FdTable;
use reeve_ipc::scm;
use reeve_ipc::spec::{
    BalloonSpec, BootSpec, ControlLoss, CpuSwitches, CpuidEntry, DeviceSpec, EndAction, EndPolicy,
    MachineSpec, MachineType, MemoryBacking, MemorySpec, PciSlot, ResetAction, RngSpec, SpecDigest,
    WatchdogAction, WatchdogSpec,
};
use reeve_worker::build::{self, Lineage};
use reeve_worker::device_set::STOP_PATIENCE;
use reeve_worker::hand_over::give::{self, Before, Outcome};
use reeve_worker::hand_over::take;
use reeve_worker::kvm::System;
use reeve_worker::machine::Machine;
use reeve_worker::state::{Origin, RestoreError};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::time::ClockId;

const LIMIT: Duration = Duration::from_secs(30);

/// What kind of machine.
#[derive(Debug, Clone)]
pub struct Setup {
    command_line: &'static str,
    machine: MachineType,
    vcpus: u32,
    max_vcpus: Option<u32>,
    memory: u64,
    devices: Vec<DeviceSpec>,
    generation_id: Option<[u8; 16]>,
    panic_port: bool,
    watchdog: Option<WatchdogSpec>,
}

impl Setup {
    /// One vCPU, 32 MiB, an entropy device, a balloon.
    pub fn new(command_line: &'static str) -> Self {
        let slot = |number: u8| PciSlot::try_from(number).expect("a slot");
        Self {
            command_line,
            machine: MachineType::Reeve1_0,
            vcpus: 1,
            max_vcpus: None,
            memory: 32 << 20,
            devices: vec![
                DeviceSpec::Rng(RngSpec {
                    slot: slot(2),
                    rate: None,
                }),
                DeviceSpec::Balloon(BalloonSpec {
                    slot: slot(5),
                    deflate_on_oom: true,
                    free_page_reporting: true,
                }),
            ],
            generation_id: None,
            panic_port: false,
            watchdog: None,
        }
    }

    pub fn generation_id(mut self, id: [u8; 16]) -> Self {
        self.generation_id = Some(id);
        self
    }

    pub fn panic_port(mut self) -> Self {
        self.panic_port = true;
        self
    }

    /// A watchdog in slot 9.
    pub fn watchdog(mut self, action: WatchdogAction) -> Self {
        let slot = PciSlot::try_from(9).expect("a slot");
        self.watchdog = Some(WatchdogSpec { slot, action });
        self
    }

    pub fn machine(mut self, machine: MachineType) -> Self {
        self.machine = machine;
        self
    }

    pub fn vcpus(mut self, vcpus: u32) -> Self {
        self.vcpus = vcpus;
        self
    }

    /// How many it can have; as many as it has, if this is not said.
    pub fn max_vcpus(mut self, vcpus: u32) -> Self {
        self.max_vcpus = Some(vcpus);
        self
    }

    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    pub fn devices(mut self, devices: Vec<DeviceSpec>) -> Self {
        self.devices = devices;
        self
    }

    /// Starts the machine.
    pub fn start(self) -> Rig {
        // Threads of the machine close their role's filter, which takes this without privilege.
        rustix::thread::set_no_new_privs(true).expect("no new privileges");
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("guest-memory-{number}-of-a-test");
        let memory = memfd(&name, self.memory);
        let (spec, mut descriptors, console) = self.specify(&memory);
        let mut machine = build::machine(spec, &mut descriptors).expect("a machine");
        machine.resume().expect("goes");
        Rig {
            setup: self,
            machine: Some(machine),
            name,
            memory,
            console,
            unread: Vec::new(),
        }
    }

    /// The specification, its descriptors, and the other end of the console.
    fn specify(&self, memory: &OwnedFd) -> (MachineSpec, FdTable, UnixStream) {
        let mut descriptors = FdTable::new();
        let mut give = |fd: OwnedFd| descriptors.push(fd).expect("room");
        let kernel = memfd("kernel", 0);
        File::from(kernel.try_clone().expect("a descriptor"))
            .write_all(reeve_guest::image(self.command_line))
            .expect("the image");
        let (ours, theirs) = UnixStream::pair().expect("a socket");
        ours.set_nonblocking(true).expect("non-blocking");
        let spec = MachineSpec {
            name: "saved".to_owned(),
            uuid: uuid::Uuid::nil(),
            machine: self.machine,
            vcpus: self.vcpus,
            cpu: CpuSwitches::default(),
            supported_cpuid: supported_cpuid(),
            memory: MemorySpec {
                size_bytes: self.memory,
                backing: MemoryBacking::Shared {
                    fd: give(memory.try_clone().expect("a descriptor")),
                },
                pluggable: None,
            },
            kvm: give(dev_kvm()),
            boot: BootSpec {
                kernel: give(kernel),
                initrd: None,
                command_line: self.command_line.to_owned(),
            },
            devices: self.devices.clone(),
            console: Some(give(theirs.into())),
            hold: true,
            policy: EndPolicy {
                on_power_off: EndAction::Preserve,
                on_reset: ResetAction::Preserve,
                on_crash: EndAction::Preserve,
            },
            on_control_loss: ControlLoss::Stop,
            adoption: None,
            digest: SpecDigest::default(),
            max_vcpus: self.max_vcpus.unwrap_or(self.vcpus),
            generation_id: self.generation_id,
            panic_port: self.panic_port,
            watchdog: self.watchdog,
        };
        (spec, descriptors, ours)
    }
}

/// How long the steps of one move took, and how much was moved.
#[derive(Debug, Clone, Copy)]
pub struct Hop {
    pub stand: Duration,
    pub save: Duration,
    pub restore: Duration,
    pub resume: Duration,
    pub bytes: usize,
}

/// A machine that runs, and what it says.
pub struct Rig {
    setup: Setup,
    machine: Option<Machine>,
    /// What its memory is called in the maps of this process.
    pub name: String,
    memory: OwnedFd,
    console: UnixStream,
    /// What was read and not looked at.
    pub unread: Vec<u8>,
}

impl Rig {
    pub fn machine(&mut self) -> &mut Machine {
        self.machine.as_mut().expect("there is one")
    }

    /// Takes the machine away; what it says is still heard.
    pub fn take_machine(&mut self) -> Machine {
        self.machine.take().expect("there is one")
    }

    /// Makes the machine stand and takes its state.
    pub fn save(&mut self) -> Vec<u8> {
        self.machine().pause().expect("stands");
        self.machine().save().expect("a state")
    }

    /// Builds another machine over the same memory. Nobody hears it.
    pub fn build(
        &self,
        setup: &Setup,
        state: &[u8],
        origin: Origin,
    ) -> Result<Machine, RestoreError> {
        let spare = (setup.memory != self.setup.memory).then(|| memfd("other", setup.memory));
        let (mut spec, mut descriptors, _) = setup.specify(spare.as_ref().unwrap_or(&self.memory));
        spec.console = None;
        build::restore(spec, state, origin, Lineage::Again, &mut descriptors)
    }

    /// Moves the guest into a new machine.
    pub fn hop(&mut self, origin: Origin) -> Hop {
        self.hop_changed(origin, |_| {})
    }

    /// Moves it, its records changed on the way.
    pub fn hop_changed(&mut self, origin: Origin, change: impl FnOnce(&mut Vec<u8>)) -> Hop {
        let (spec, mut descriptors, console) = self.setup.specify(&self.memory);
        let started = Instant::now();
        self.machine().pause().expect("stands");
        let stood = Instant::now();
        let mut state = self.machine().save().expect("a state");
        let saved = Instant::now();
        let bytes = state.len();
        change(&mut state);
        let state = seal_again(&state);
        let changed = Instant::now();
        let mut machine = build::restore(spec, &state, origin, Lineage::Again, &mut descriptors)
            .expect("the same machine");
        let restored = Instant::now();
        machine.resume().expect("goes on");
        let resumed = Instant::now();
        // What the old one said is read before the new one is heard.
        let old = self.machine.replace(machine).expect("there was one");
        old.close();
        self.read_all();
        self.console = console;
        Hop {
            stand: stood - started,
            save: saved - stood,
            restore: restored - changed,
            resume: resumed - restored,
            bytes,
        }
    }

    /// Has another worker take the machine over, or be gone before it does; gives for how long the machine
    /// stood. Its console is where it was.
    pub fn hand_over(&mut self, taken: bool) -> Duration {
        let (here, there) = scm::pair().expect("a pair");
        self.machine().pause().expect("stands");
        let taker = std::thread::spawn(move || take::take(there, dev_kvm()));
        let before = Before {
            running: true,
            stood_since_ns: monotonic(),
        };
        let mut giving = give::give(self.machine(), None, here, before).expect("all is sent");
        let (mut machine, taking) = taker.join().expect("no panic").expect("the same machine");
        assert_eq!(giving.outcome(), Outcome::Open);
        if !taken {
            machine.close();
            drop(taking);
            assert_eq!(giving.outcome(), Outcome::Stays);
            self.machine().resume().expect("goes on");
            return Duration::ZERO;
        }
        taking.declare().expect("it listens");
        let stood = taking.go_on(&mut machine).expect("goes on");
        assert_eq!(giving.outcome(), Outcome::Taken);
        let old = self.machine.replace(machine).expect("there was one");
        old.close();
        Duration::from_nanos(stood)
    }

    /// Resets the machine, which then runs.
    pub fn reset(&mut self) {
        let machine = self.machine.as_mut().expect("there is one");
        machine.pause().expect("stands");
        machine.reset(STOP_PATIENCE).expect("reset");
        machine.resume().expect("goes on");
    }

    /// Sends input.
    pub fn send(&mut self, input: &[u8]) {
        self.console.write_all(input).expect("room");
    }

    /// Waits until the machine has read what was sent.
    #[expect(unsafe_code, reason = "rustix has no TIOCOUTQ")]
    pub fn wait_until_taken(&self) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut unread: libc::c_int = 0;
            // SAFETY: the kernel writes an integer to the live variable.
            let done =
                unsafe { libc::ioctl(self.console.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
            if unread == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{unread} bytes stay");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The next line of output.
    pub fn line(&mut self) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return String::from_utf8_lossy(&line).trim_end().to_owned();
            }
            let said = String::from_utf8_lossy(&self.unread);
            assert!(Instant::now() < deadline, "no line, but {said:?}");
            if self.read_all() == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Reads on to a line that contains `text`.
    pub fn wait_for(&mut self, text: &str) {
        while !self.line().contains(text) {}
    }

    /// Waits until the guest has ended its run.
    pub fn wait_for_end(&mut self) {
        let end = self.machine().end_signal();
        let deadline = Instant::now() + LIMIT;
        while !end.is_pending() {
            assert!(Instant::now() < deadline, "the guest does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Reads what there is to be read; gives how many bytes that were.
    pub fn read_all(&mut self) -> usize {
        let before = self.unread.len();
        let mut chunk = [0; 4096];
        loop {
            match self.console.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.unread.len() - before
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.take() {
            machine.close();
        }
    }
}

fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds * 1_000_000_000 + nanoseconds
}

/// A byte of the records changed, by `seed`, and the checksum made good.
pub fn change_one_byte(state: &[u8], seed: usize) -> Vec<u8> {
    let mut bytes = state.to_vec();
    // Spread over all of it, most of which is vector registers.
    let place = 16 + seed.wrapping_mul(2_654_435_761) % (bytes.len() - 16);
    let change = u8::try_from(1 + seed % 255).expect("a byte");
    bytes[place] ^= change;
    seal_again(&bytes)
}

/// Where the bytes of the record of `unit` lie, whose schema has the same name.
pub fn record(state: &[u8], unit: &str) -> std::ops::Range<usize> {
    let length = u8::try_from(unit.len()).expect("short");
    let named = [&[length], unit.as_bytes()].concat().repeat(2);
    let place = state
        .windows(named.len())
        .position(|window| window == named)
        .expect("such a record");
    let length_at = place + named.len() + 4;
    let length = &state[length_at..length_at + 4];
    let length = u32::from_le_bytes(length.try_into().expect("four bytes"));
    let start = length_at + 4;
    start..start + usize::try_from(length).expect("short")
}

/// The checksum made good.
pub fn seal_again(state: &[u8]) -> Vec<u8> {
    let mut bytes = state.to_vec();
    let mut crc = u32::MAX;
    for byte in &bytes[16..] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1));
        }
    }
    bytes[12..16].copy_from_slice(&(!crc).to_le_bytes());
    bytes
}

fn dev_kvm() -> OwnedFd {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .expect("/dev/kvm")
        .into()
}

fn supported_cpuid() -> Vec<CpuidEntry> {
    static ASKED: std::sync::OnceLock<Vec<CpuidEntry>> = std::sync::OnceLock::new();
    ASKED
        .get_or_init(|| {
            let system = System::from_fd(dev_kvm()).expect("a KVM");
            let supported = system.supported_cpuid().expect("CPUID");
            let entry = |entry: &kvm_bindings::kvm_cpuid_entry2| CpuidEntry {
                function: entry.function,
                index: entry.index,
                flags: entry.flags,
                registers: [entry.eax, entry.ebx, entry.ecx, entry.edx],
            };
            supported.as_slice().iter().map(entry).collect()
        })
        .clone()
}

/// A memfd; one with a size is sealed.
fn memfd(name: &str, size: u64) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create(name, flags).expect("a memfd");
    if size > 0 {
        rustix::fs::ftruncate(&fd, size).expect("a size");
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).expect("seals");
    }
    fd
}
