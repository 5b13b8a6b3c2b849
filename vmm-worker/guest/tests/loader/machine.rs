//! The KVM side of the test machine: memory, vCPU threads, ends.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_MAX_CPUID_ENTRIES, kvm_enable_cap, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use rustix::time::{ClockId, clock_gettime};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::boot::{load, set_entry_state};
use super::bus::Bus;
use super::devices::Device;
use super::ports::{Devices, Effect};

/// Which interrupt controller the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Irqchip {
    /// Local APICs in the kernel, no IOAPIC at all: quick to make.
    Split,
    /// Everything in the kernel, so that device interrupts arrive.
    InKernel,
}

/// What to boot.
#[derive(Clone, Debug)]
pub struct Setup {
    pub cpus: u32,
    pub memory: u64,
    pub command_line: String,
    pub irqchip: Irqchip,
    pub deadline: Duration,
    /// In slots 1 and up.
    pub virtio: Vec<Device>,
    /// Notifications that are events of KVM's, and no exits.
    pub doorbells: bool,
    /// Devices that go on after a reset, for tests of the guest.
    pub outlives_resets: bool,
}

impl Setup {
    /// One vCPU, 128 MiB, split interrupt controller, twenty seconds.
    pub fn new(command_line: &str) -> Self {
        Self {
            cpus: 1,
            memory: 128 << 20,
            command_line: command_line.to_owned(),
            irqchip: Irqchip::Split,
            deadline: Duration::from_secs(20),
            virtio: Vec::new(),
            doorbells: false,
            outlives_resets: false,
        }
    }

    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    pub fn irqchip(mut self, irqchip: Irqchip) -> Self {
        self.irqchip = irqchip;
        self
    }

    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub fn virtio(mut self, devices: &[Device]) -> Self {
        self.virtio = devices.to_vec();
        self
    }

    pub fn doorbells(mut self) -> Self {
        self.doorbells = true;
        self
    }

    pub fn outlives_resets(mut self) -> Self {
        self.outlives_resets = true;
        self
    }

    /// Boots and waits for the end.
    pub fn run(self) -> Outcome {
        Machine::start(self).wait()
    }
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By S5.
    PowerOff,
    /// By a reset, the second time it was asked for.
    Reset,
    /// By a triple fault.
    TripleFault,
    /// KVM gave up on the guest.
    InternalError,
    /// By the deadline or [`Machine::stop`].
    Stopped,
}

/// What became of a machine.
#[derive(Debug)]
pub struct Outcome {
    pub end: End,
    pub output: String,
    /// From the boot vCPU's first KVM_RUN to the first byte on COM1.
    pub first_byte: Duration,
    /// From there to the end.
    pub total: Duration,
    /// Processor time of the boot vCPU's thread.
    pub cpu_time: Duration,
    /// Pages of guest memory that exist at the end.
    pub pages: u64,
    /// Resets the guest asked for.
    pub resets: u32,
}

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Duration>>,
    memory_file: File,
    started: Instant,
    deadline: Duration,
}

#[derive(Debug)]
struct Shared {
    devices: Mutex<Devices>,
    end: Mutex<Option<(End, Instant)>>,
    resets: Mutex<u32>,
    stop: AtomicBool,
    /// The boot vCPU's first KVM_RUN.
    entered: OnceLock<Instant>,
    vm: Arc<VmFd>,
    memory: GuestMemoryMmap,
    bus: Bus,
    setup: Setup,
}

impl Machine {
    /// Makes the machine and lets it run.
    pub fn start(setup: Setup) -> Self {
        register_signal_handler(SIGRTMIN(), ignore).expect("the signal exists");
        let kvm = Kvm::new().expect("/dev/kvm can be opened");
        let vm = kvm.create_vm().expect("a VM can be made");
        let memfd = memfd_create("guest", MemfdFlags::CLOEXEC).expect("a memfd can be made");
        ftruncate(&memfd, setup.memory).expect("the memfd can grow");
        let memory_file = File::from(memfd);
        let backing = memory_file.try_clone().expect("a descriptor is free");
        let length = usize::try_from(setup.memory).expect("64-bit host");
        let memory = GuestMemoryMmap::from_ranges_with_files([(
            GuestAddress(0),
            length,
            Some(FileOffset::new(backing, 0)),
        )])
        .expect("guest memory can be mapped");
        add_memory(&vm, &memory);
        match setup.irqchip {
            Irqchip::Split => {
                let mut cap = kvm_enable_cap {
                    cap: KVM_CAP_SPLIT_IRQCHIP,
                    ..Default::default()
                };
                cap.args[0] = 24;
                vm.enable_cap(&cap).expect("the host has a split irqchip");
            }
            Irqchip::InKernel => vm.create_irq_chip().expect("the host has an irqchip"),
        }
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .expect("CPUID can be read");
        let vcpus: Vec<VcpuFd> = (0..setup.cpus)
            .map(|id| {
                let vcpu = vm.create_vcpu(u64::from(id)).expect("a vCPU can be made");
                let mut cpuid = cpuid.clone();
                for entry in cpuid.as_mut_slice() {
                    match entry.function {
                        1 => entry.ebx = entry.ebx & 0x00ff_ffff | id << 24,
                        0xb | 0x1f => entry.edx = id,
                        _ => {}
                    }
                }
                vcpu.set_cpuid2(&cpuid).expect("CPUID is accepted");
                vcpu
            })
            .collect();
        let entry = load(&memory, &setup);
        set_entry_state(&vcpus[0], entry);

        let vm = Arc::new(vm);
        let bus = Bus::new(&vm, &memory, &memory_file, &setup);
        let deadline = setup.deadline;
        let shared = Arc::new(Shared {
            devices: Mutex::new(Devices::new()),
            end: Mutex::new(None),
            resets: Mutex::new(0),
            stop: AtomicBool::new(false),
            entered: OnceLock::new(),
            vm,
            memory,
            bus,
            setup,
        });
        let started = Instant::now();
        let threads = vcpus
            .into_iter()
            .enumerate()
            .rev()
            .map(|(id, vcpu)| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || run_vcpu(&shared, id, vcpu))
            })
            .collect();
        Self {
            shared,
            threads,
            memory_file,
            started,
            deadline,
        }
    }

    /// What has been printed so far.
    pub fn output(&self) -> String {
        let devices = self.shared.devices.lock().expect("no vCPU thread panicked");
        String::from_utf8_lossy(&devices.output).into_owned()
    }

    /// Waits until `text` has been printed.
    pub fn wait_for(&self, text: &str) {
        while !self.output().contains(text) {
            assert!(
                self.started.elapsed() < self.deadline,
                "no {text:?} in {:?}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends bytes to COM1.
    pub fn type_in(&self, text: &[u8]) {
        self.shared.change(|devices| devices.type_in(text));
    }

    /// Presses the power button.
    pub fn press_power_button(&self) {
        self.shared.change(Devices::press_power_button);
    }

    /// Stops it now.
    pub fn stop(self) -> Outcome {
        self.shared.finish(End::Stopped);
        self.wait()
    }

    /// Waits for its end, by the deadline at the latest.
    pub fn wait(mut self) -> Outcome {
        let ended = || {
            self.shared
                .end
                .lock()
                .expect("no vCPU thread panicked")
                .is_some()
        };
        while !ended() {
            if self.started.elapsed() > self.deadline {
                self.shared.finish(End::Stopped);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let mut cpu_time = Duration::ZERO;
        for thread in self.threads.drain(..) {
            // Again and again: the signal is lost on a thread that is just outside KVM_RUN.
            while !thread.is_finished() {
                let _ = thread.kill(SIGRTMIN());
                std::thread::sleep(Duration::from_micros(200));
            }
            // The boot vCPU is the last.
            cpu_time = thread.join().expect("no vCPU thread panicked");
        }
        let end = *self.shared.end.lock().expect("no vCPU thread panicked");
        let (end, ended) = end.expect("waited for above");
        let first_byte = self
            .shared
            .devices
            .lock()
            .expect("no vCPU thread panicked")
            .first_byte;
        let entered = *self
            .shared
            .entered
            .get()
            .expect("the boot vCPU's thread has ended");
        Outcome {
            end,
            output: self.output(),
            first_byte: first_byte.map_or(Duration::MAX, |at| at - entered),
            total: ended - entered,
            cpu_time,
            pages: u64::try_from(fstat(&self.memory_file).expect("it is open").st_blocks)
                .expect("not negative")
                / 8,
            resets: *self.shared.resets.lock().expect("no vCPU thread panicked"),
        }
    }
}

impl Shared {
    fn finish(&self, end: End) {
        let mut slot = self.end.lock().expect("no vCPU thread panicked");
        slot.get_or_insert((end, Instant::now()));
        self.stop.store(true, Ordering::Release);
    }

    /// Changes the devices and drives their interrupt lines.
    fn change<R>(&self, change: impl FnOnce(&mut Devices) -> R) -> R {
        let mut devices = self.devices.lock().expect("no vCPU thread panicked");
        let result = change(&mut devices);
        if self.setup.irqchip == Irqchip::InKernel {
            for (line, level) in devices.lines() {
                self.vm
                    .set_irq_line(line, level)
                    .expect("the irqchip is in the kernel");
            }
        }
        result
    }
}

extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

#[expect(unsafe_code, reason = "KVM is told of memory by address")]
fn add_memory(vm: &VmFd, memory: &GuestMemoryMmap) {
    let region = memory.iter().next().expect("there is one region");
    let slot = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: region.len(),
        userspace_addr: memory
            .get_host_address(GuestAddress(0))
            .expect("the region begins at 0")
            .addr() as u64,
    };
    // SAFETY: the mapping is owned by `Shared` next to the VM and lives until both are dropped.
    unsafe { vm.set_user_memory_region(slot) }.expect("the slot is free");
}

/// The loop of one vCPU thread; returns the processor time it took.
fn run_vcpu(shared: &Shared, id: usize, mut vcpu: VcpuFd) -> Duration {
    if id == 0 {
        shared.entered.get_or_init(Instant::now);
    }
    while !shared.stop.load(Ordering::Acquire) {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(port, data)) if shared.bus.write_port(port, data) => {}
            Ok(VcpuExit::IoOut(port, data)) => {
                match shared.change(|devices| devices.write(port, data)) {
                    Effect::None => {}
                    Effect::PowerOff => shared.finish(End::PowerOff),
                    Effect::Reset => reset(shared, &vcpu),
                }
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                if !shared.bus.read_port(port, data) {
                    shared.change(|devices| devices.read(port, data));
                }
            }
            Ok(VcpuExit::MmioRead(address, data)) => shared.bus.read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => shared.bus.write(address, data),
            Ok(VcpuExit::Shutdown) => shared.finish(End::TripleFault),
            Ok(VcpuExit::InternalError) => shared.finish(End::InternalError),
            Ok(other) => panic!("vCPU {id}: {other:?}"),
            // EAGAIN is what an application processor returns once after its INIT.
            Err(error) if [libc::EINTR, libc::EAGAIN].contains(&error.errno()) => {}
            Err(error) => panic!("vCPU {id}: {error}"),
        }
    }
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::from_nanos(
        u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).expect("positive"),
    )
}

/// The first reset boots again, the second is an end.
fn reset(shared: &Shared, vcpu: &VcpuFd) {
    let mut resets = shared.resets.lock().expect("no vCPU thread panicked");
    *resets += 1;
    if *resets > 1 {
        return shared.finish(End::Reset);
    }
    set_entry_state(vcpu, load(&shared.memory, &shared.setup));
}
