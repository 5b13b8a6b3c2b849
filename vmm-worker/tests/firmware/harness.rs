//! A machine with firmware, some disks, and the test as the client of its console and of its debug port.
#![allow(dead_code, reason = "the test and the example each use a part of it")]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reeve_devices::console::ConsoleSink;
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::{
    BootSpec, CacheMode, ControlLoss, CpuSwitches, CpuidEntry, DeviceSpec, Discard, DiskFormat,
    DiskSpec, DiskThrottle, EndAction, EndPolicy, IoEngine, LayerSpec, MachineSpec, MachineType,
    MemoryBacking, MemorySpec, PciSlot, ResetAction, SpecDigest,
};
use reeve_worker::build::{self, BuildError, DisplayPlace, FirmwareParams};
use reeve_worker::device_set::STOP_PATIENCE;
use reeve_worker::display::DisplayScreen;
use reeve_worker::firmware::{BootTarget, Content};
use reeve_worker::kvm::System;
use reeve_worker::machine::Machine;
use rustix::fs::{MemfdFlags, SealFlags};

/// Debian's, of its package seabios.
pub const SEABIOS: &str = "/usr/share/seabios/bios-256k.bin";

/// The option ROM for the display, of the same package.
const DISPLAY_ROM: &str = "/usr/share/seabios/vgabios-bochs-display.bin";

/// KVM in software runs all of a firmware in an emulator.
const LIMIT: Duration = Duration::from_secs(300);

/// What kind of machine.
pub struct Setup {
    firmware: File,
    variables: Option<File>,
    memory: u64,
    vcpus: u32,
    disks: Vec<(u8, Vec<u8>)>,
    order: Vec<BootTarget>,
    display: bool,
}

impl Setup {
    /// One vCPU, 128 MiB, no disk; the firmware is in the file of that name.
    pub fn new(firmware: &str) -> Self {
        Self::with(File::open(firmware).expect("firmware as Debian has it: run tests/lab/install"))
    }

    /// The same, with these bytes as the firmware.
    pub fn of(firmware: &[u8]) -> Self {
        let file = File::from(memfd("firmware", 0));
        (&file).write_all(firmware).expect("room");
        Self::with(file)
    }

    fn with(firmware: File) -> Self {
        Self {
            firmware,
            variables: None,
            memory: 128 << 20,
            vcpus: 1,
            disks: Vec::new(),
            order: Vec::new(),
            display: false,
        }
    }

    /// With its variables in that file, which it changes.
    pub fn variables(mut self, file: File) -> Self {
        self.variables = Some(file);
        self
    }

    /// A disk in `slot` whose boot sector says `text` on COM1, and halts.
    pub fn disk(mut self, slot: u8, text: &str) -> Self {
        self.disks.push((slot, boot_sector(text)));
        self
    }

    /// What to boot from, the first one first.
    pub fn order(mut self, order: Vec<BootTarget>) -> Self {
        self.order = order;
        self
    }

    /// With a display in slot 2, for which SeaBIOS has Debian's option ROM.
    pub fn display(mut self) -> Self {
        self.display = true;
        self
    }

    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    pub fn vcpus(mut self, vcpus: u32) -> Self {
        self.vcpus = vcpus;
        self
    }

    /// Starts the machine.
    pub fn start(self) -> Rig {
        let (machine, console, debug) = self.build();
        let mut machine = machine.expect("a machine");
        machine.resume().expect("goes");
        Rig {
            machine: Some(machine),
            console,
            said: Vec::new(),
            debug,
        }
    }

    /// Why there can be no such machine.
    pub fn refusal(self) -> String {
        let (machine, ..) = self.build();
        machine
            .map(Machine::close)
            .expect_err("no machine")
            .to_string()
    }

    fn build(self) -> (Result<Machine, BuildError>, UnixStream, Arc<Text>) {
        // Threads of the machine close their role's filter, which takes this without privilege.
        rustix::thread::set_no_new_privs(true).expect("no new privileges");
        let mut descriptors = FdTable::new();
        let mut give = |fd: OwnedFd| descriptors.push(fd).expect("room");
        let (console, theirs) = UnixStream::pair().expect("a socket");
        console.set_nonblocking(true).expect("non-blocking");
        let disks = self.disks.iter().map(|(slot, image)| {
            let file = memfd("disk", 0);
            File::from(file.try_clone().expect("a descriptor"))
                .write_all(image)
                .expect("the image");
            disk_spec(*slot, give(file))
        });
        let devices = disks.collect();
        let spec = MachineSpec {
            name: "firmware".to_owned(),
            uuid: uuid::Uuid::nil(),
            machine: MachineType::ReeveLegacy1_0,
            vcpus: self.vcpus,
            cpu: CpuSwitches::default(),
            supported_cpuid: supported_cpuid(),
            memory: MemorySpec {
                size_bytes: self.memory,
                backing: MemoryBacking::Shared {
                    fd: give(memfd("guest-memory", self.memory)),
                },
                pluggable: None,
            },
            kvm: give(dev_kvm()),
            boot: BootSpec {
                kernel: give(self.firmware.into()),
                initrd: None,
                command_line: String::new(),
            },
            devices,
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
            max_vcpus: self.vcpus,
            generation_id: None,
            panic_port: false,
            watchdog: None,
        };
        let debug = Arc::new(Text::default());
        let params = FirmwareParams {
            content: Content {
                uuid: [7; 16],
                order: self.order,
                menu: None,
                serial: true,
            },
            variables: self.variables,
            debug: Some(Arc::clone(&debug) as _),
            display: self.display.then(|| DisplayPlace {
                slot: 2,
                width: 1024,
                height: 768,
                rom: std::fs::read(DISPLAY_ROM).expect("a ROM"),
            }),
        };
        let machine = build::firmware_machine(spec, params, &mut descriptors);
        (machine, console, debug)
    }
}

/// What a debug port said.
#[derive(Debug, Default)]
struct Text(Mutex<Vec<u8>>);

impl ConsoleSink for Text {
    fn push(&self, bytes: &[u8]) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(bytes);
    }
}

/// A machine that runs, and what it says.
pub struct Rig {
    machine: Option<Machine>,
    console: UnixStream,
    /// All of the console's output that was not waited for.
    said: Vec<u8>,
    debug: Arc<Text>,
}

impl Rig {
    fn machine(&mut self) -> &mut Machine {
        self.machine.as_mut().expect("there is one")
    }

    /// Resets the machine, which then runs.
    pub fn reset(&mut self) {
        self.machine().pause().expect("stands");
        self.machine().reset(STOP_PATIENCE).expect("reset");
        self.machine().resume().expect("goes on");
    }

    /// What the guest draws.
    pub fn screen(&mut self) -> DisplayScreen {
        let framebuffer = self.machine().framebuffer().expect("a display");
        DisplayScreen::new(framebuffer.clone())
    }

    /// What the firmware said on its debug port.
    pub fn debug_text(&self) -> String {
        let text = self.debug.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Reads the console on to behind `text`.
    pub fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let found = self
                .said
                .windows(text.len())
                .position(|window| window == text.as_bytes());
            if let Some(start) = found {
                self.said.drain(..start + text.len());
                return;
            }
            let signal = self.machine().end_signal();
            let ended = signal.is_pending().then(|| signal.take());
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{text:?} is not said (ended: {ended:x?}), but {:?}; and on the debug port\n{}",
                String::from_utf8_lossy(&self.said),
                self.debug_text(),
            );
            self.read_all();
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What has come on the console and was not waited for.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.read_all();
        std::mem::take(&mut self.said)
    }

    /// Says `input` on the console.
    pub fn send(&mut self, input: &[u8]) {
        self.console.write_all(input).expect("room");
    }

    /// Waits until the guest has ended, and gives how.
    pub fn wait_for_end(&mut self) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(end) = self.end() {
                return end;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// How the guest has ended, if it has.
    pub fn end(&mut self) -> Option<String> {
        let signal = self.machine().end_signal();
        signal.take().map(|end| format!("{end:x?}"))
    }

    fn read_all(&mut self) {
        let mut chunk = [0; 4096];
        loop {
            match self.console.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => self.said.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.take() {
            machine.close();
        }
    }
}

/// An image of 1 MiB with a boot sector that says `text`, and halts.
fn boot_sector(text: &str) -> Vec<u8> {
    #[rustfmt::skip]
    let code = [
        0xfa,                   // cli
        0x31, 0xc0,             // xor ax, ax
        0x8e, 0xd8,             // mov ds, ax
        0xbe, 0x18, 0x7c,       // mov si, text
        0xba, 0xf8, 0x03,       // mov dx, 0x3f8
        0xfc,                   // cld
        0xac,                   // next: lodsb
        0x84, 0xc0,             // test al, al
        0x74, 0x03,             // jz done
        0xee,                   // out dx, al
        0xeb, 0xf8,             // jmp next
        0xf4,                   // done: hlt
        0xeb, 0xfd,             // jmp done
        0x90,                   // nop
    ];
    let mut image = vec![0; 1 << 20];
    image[..code.len()].copy_from_slice(&code);
    image[code.len()..code.len() + text.len()].copy_from_slice(text.as_bytes());
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image
}

fn disk_spec(slot: u8, fd: reeve_ipc::fd::FdSlot) -> DeviceSpec {
    DeviceSpec::Disk(DiskSpec {
        slot: PciSlot::try_from(slot).expect("a slot"),
        name: format!("vd{slot}"),
        layers: vec![LayerSpec {
            fd,
            format: DiskFormat::Raw,
        }],
        read_only: false,
        cache: CacheMode::WriteBack,
        engine: IoEngine::IoUring,
        discard: Discard::Unmap,
        serial: String::new(),
        queues: 1,
        block_bytes: 512,
        throttle: DiskThrottle::default(),
    })
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
    let system = System::from_fd(dev_kvm()).expect("a KVM");
    let supported = system.supported_cpuid().expect("CPUID");
    let entry = |entry: &kvm_bindings::kvm_cpuid_entry2| CpuidEntry {
        function: entry.function,
        index: entry.index,
        flags: entry.flags,
        registers: [entry.eax, entry.ebx, entry.ecx, entry.edx],
    };
    supported.as_slice().iter().map(entry).collect()
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
