//! A machine with a console that only prints and a power register: enough to run a kernel that wants
//! no more.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reeve_ipc::spec::CpuSwitches;
use reeve_worker::arch::x86_64::acpi::{self, AcpiConfig};
use reeve_worker::arch::x86_64::cpuid::{CpuModel, HostTimers};
use reeve_worker::arch::x86_64::layout;
use reeve_worker::arch::x86_64::regs::EntryState;
use reeve_worker::boot;
use reeve_worker::kvm::{
    ControllerKind, Exit, ImmediateExit, InterruptController, System, Vcpu, Vm,
};
use reeve_worker::memory::{Backing, GuestMemory};
use rustix::fs::{MemfdFlags, SealFlags};

const LIMIT: Duration = Duration::from_secs(20);

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    PowerOff,
    /// The exit's name and the registers.
    Fault(String, String),
    Kicked,
}

pub struct Machine {
    vcpus: Vec<Vcpu>,
    memory: GuestMemory,
    kind: ControllerKind,
    controller: Arc<dyn InterruptController>,
    _vm: Arc<Vm>,
}

pub struct Outcome {
    pub machine: Machine,
    pub console: String,
    pub ending: Ending,
}

impl Machine {
    pub fn build(
        vcpus: u32,
        memory_size: u64,
        kind: ControllerKind,
        kernel: &[u8],
        cmdline: &str,
    ) -> Self {
        let mut steps = Steps::new();
        let memory = GuestMemory::map(memfd(memory_size), memory_size).expect("memory");
        steps.done("memory: map");
        let kvm: OwnedFd = File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .expect("/dev/kvm")
            .into();
        steps.done("open /dev/kvm");
        let system = System::from_fd(kvm).expect("a KVM");
        system.check_vcpu_count(vcpus).expect("that many vCPUs");
        steps.done("capabilities");
        let mut vm = system.create_vm().expect("VM");
        steps.done("create VM");
        vm.add_memory(&memory).expect("slots");
        steps.done("memory slots");
        let (vm, controller) = vm.interrupt_controller(kind, vcpus).expect("controller");
        steps.done("interrupt controller");
        let mut list: Vec<_> = (0..vcpus)
            .map(|i| vm.create_vcpu(i).expect("vCPU"))
            .collect();
        steps.done("vCPUs");
        let supported = system.supported_cpuid().expect("CPUID");
        steps.done("supported CPUID");
        let timers = HostTimers {
            tsc_deadline: system.has_tsc_deadline_timer(),
            tsc_khz: list[0].tsc_khz(),
            wide_apic_ids: vm.wide_apic_ids(),
        };
        let mut model =
            CpuModel::new(supported, CpuSwitches::default(), timers, vcpus).expect("model");
        steps.done("CPUID filter");
        for vcpu in &list {
            vcpu.set_cpuid(model.for_vcpu(vcpu.index())).expect("CPUID");
        }
        steps.done("set CPUID");
        set_up(&mut list, &memory, kind, kernel, cmdline, &mut steps);
        if std::env::var_os("REEVE_TEST_TIMINGS").is_some() {
            steps.print(vcpus, kind);
        }
        Self {
            vcpus: list,
            memory,
            kind,
            controller,
            _vm: vm,
        }
    }

    pub fn reset(mut self, kernel: &[u8], cmdline: &str) -> Self {
        self.memory.discard().expect("cleared");
        for vcpu in &self.vcpus {
            vcpu.reset().expect("reset");
        }
        let mut steps = Steps::new();
        set_up(
            &mut self.vcpus,
            &self.memory,
            self.kind,
            kernel,
            cmdline,
            &mut steps,
        );
        self
    }

    pub fn run(self) -> Outcome {
        self.run_for(LIMIT)
    }

    /// Runs until the guest ends its run or `limit` is over.
    pub fn run_for(mut self, limit: Duration) -> Outcome {
        install_handler();
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            console: Mutex::new(String::new()),
            controller: Arc::clone(&self.controller),
        });
        let (ended, endings) = sync_channel(64);
        let threads: Vec<_> = std::mem::take(&mut self.vcpus)
            .into_iter()
            .map(|vcpu| {
                let (shared, ended) = (Arc::clone(&shared), ended.clone());
                (
                    vcpu.immediate_exit(),
                    std::thread::spawn(move || shared.drive(vcpu, &ended)),
                )
            })
            .collect();
        let ending = wait(&endings, limit);
        shared.stop.store(true, Ordering::SeqCst);
        self.vcpus = threads.into_iter().map(stop).collect();
        let console = shared.console.lock().expect("console").clone();
        Outcome {
            machine: self,
            console,
            ending,
        }
    }
}

/// Loads the kernel and everything that describes the machine to it.
fn set_up(
    vcpus: &mut [Vcpu],
    memory: &GuestMemory,
    kind: ControllerKind,
    kernel: &[u8],
    cmdline: &str,
    steps: &mut Steps,
) {
    for vcpu in vcpus.iter() {
        vcpu.prepare_boot().expect("boot MSRs");
    }
    steps.done("boot MSRs");
    let plan = boot::load(kernel, None, cmdline, memory).expect("kernel");
    steps.done("load kernel");
    let count = u32::try_from(vcpus.len()).expect("few");
    let config = AcpiConfig {
        vcpus: count,
        max_vcpus: count,
        generation_id: None,
        panic_port: false,
        legacy_pic: kind == ControllerKind::InKernel,
        window_32: layout::PCI_WINDOW_32,
        ecam: layout::ECAM,
        pci_window_64: None,
    };
    acpi::write(memory, &config).expect("ACPI");
    steps.done("ACPI tables");
    let entry = EntryState::new(&plan);
    entry.write_tables(memory).expect("tables");
    vcpus[0].enter(&entry).expect("entry state");
    steps.done("entry state");
}

struct Shared {
    stop: AtomicBool,
    console: Mutex<String>,
    controller: Arc<dyn InterruptController>,
}

impl Shared {
    /// Runs one vCPU until it ends the run or is told to stop.
    fn drive(&self, mut vcpu: Vcpu, ended: &SyncSender<Ending>) -> Vcpu {
        while !self.stop.load(Ordering::SeqCst) {
            let fault = match vcpu.run().expect("KVM_RUN") {
                Exit::Interrupted => continue,
                Exit::IoOut { port, data, .. } if port == layout::COM1.start => {
                    let mut console = self.console.lock().expect("console");
                    console.extend(data.iter().map(|byte| char::from(*byte)));
                    continue;
                }
                Exit::IoOut { port, data, .. } if port == layout::PM1A_CONTROL.start => {
                    assert_eq!(data, 0x3400u16.to_le_bytes());
                    drop(ended.try_send(Ending::PowerOff));
                    return vcpu;
                }
                Exit::IoIn { data, .. } | Exit::MmioRead { data, .. } => {
                    data.fill(0xFF);
                    continue;
                }
                Exit::IoOut { .. } | Exit::MmioWrite { .. } => continue,
                Exit::IoapicEoi { vector } => {
                    self.controller.end_of_interrupt(vector);
                    continue;
                }
                Exit::InternalError(error) => error.to_string(),
                other => format!("{other:?}"),
            };
            let registers = vcpu.registers().expect("registers").to_string();
            drop(ended.try_send(Ending::Fault(fault, registers)));
            return vcpu;
        }
        vcpu
    }
}

fn wait(endings: &Receiver<Ending>, limit: Duration) -> Ending {
    endings.recv_timeout(limit).unwrap_or(Ending::Kicked)
}

/// Kicks a vCPU's thread until it returns the vCPU.
fn stop((immediate_exit, thread): (ImmediateExit, JoinHandle<Vcpu>)) -> Vcpu {
    immediate_exit.set(true);
    let deadline = Instant::now() + LIMIT;
    while !thread.is_finished() {
        assert!(Instant::now() < deadline, "vCPU cannot be kicked");
        kick(&thread);
        std::thread::sleep(Duration::from_millis(1));
    }
    immediate_exit.set(false);
    thread.join().expect("vCPU thread")
}

#[expect(unsafe_code, reason = "signals a thread")]
fn kick(thread: &JoinHandle<Vcpu>) {
    // SAFETY: the thread has not been joined, so its id is valid; the signal has a handler.
    unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGUSR1) };
}

extern "C" fn no_op(_signal: libc::c_int) {}

#[expect(unsafe_code, reason = "installs a signal handler")]
fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler does nothing, so it is async-signal-safe.
        unsafe { libc::signal(libc::SIGUSR1, no_op as *const () as libc::sighandler_t) };
    });
}

fn memfd(size: u64) -> Backing {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("guest", flags).expect("memfd");
    rustix::fs::ftruncate(&fd, size).expect("size");
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).expect("seals");
    Backing::Shared { fd }
}

/// How long each step of building took.
struct Steps {
    last: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    fn new() -> Self {
        Self {
            last: Instant::now(),
            done: Vec::new(),
        }
    }

    fn done(&mut self, name: &'static str) {
        let now = Instant::now();
        self.done.push((name, now - self.last));
        self.last = now;
    }

    #[expect(clippy::print_stdout, reason = "asked for by an environment variable")]
    fn print(&self, vcpus: u32, kind: ControllerKind) {
        let total: Duration = self.done.iter().map(|(_, took)| *took).sum();
        println!("{vcpus} vCPUs, {kind:?}: {total:?}");
        for (name, took) in &self.done {
            println!("  {name:<24}{took:?}");
        }
    }
}
