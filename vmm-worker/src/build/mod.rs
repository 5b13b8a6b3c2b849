//! Building a machine from its specification: the only place that maps one to device parameters.
//!
//! Runs on the main thread, inside the closed jail, before any guest instruction. Read
//! [`machine`] top to bottom: it is the list of steps, in the order that KVM wants them (memory
//! slots, interrupt controller, vCPUs) and that hostile input wants them (the boot image is read
//! last, when everything that could refuse it stands). [`restore()`] goes the same way, but for the
//! loading: it puts a saved state into the machine instead.

pub mod board;
mod boot;
mod chipset;
mod cpus;
pub mod devices;
mod error;
mod firmware;
mod memory;
mod pci;
mod platform;
mod restore;

use std::sync::{Arc, Mutex};

use reeve_devices::block::reserve::RingReserve;
use reeve_devices::bus::{MmioBus, PortBus};
use reeve_ipc::fd::FdTable;
use reeve_ipc::spec::MachineSpec;

pub use self::board::Board;
pub use self::boot::{BootImages, Entry};
pub use self::chipset::Chipset;
use self::chipset::Signals;
pub use self::cpus::CpuWorkshop;
use self::devices::Workshop;
pub use self::error::BuildError;
pub(crate) use self::error::one_line;
use self::firmware::Start;
pub use self::firmware::{DisplayPlace, FirmwareParams, firmware_machine};
pub use self::platform::WatchdogSet;
pub use self::restore::{Lineage, restore};
use crate::arch::x86_64::acpi::AcpiConfig;
use crate::arch::x86_64::cpuid;
use crate::device_set::DeviceSet;
use crate::io::{IoThread, Served, Waker};
use crate::kvm::{ControllerKind, InterruptController, KvmBlocks, System, Vcpu, Vm};
use crate::machine::{Identity, Machine};
use crate::memory::GuestMemory;
use crate::notices::Notices;
use crate::plugging::{LatePeek, Plugging};
use crate::processors::Processors;
use crate::spawner::Spawner;
use crate::vcpu::{EndSignal, Platform, VcpuSet};

/// Rings of io_uring in reserve: as many queues of disks that were attached later can have one at a time.
/// Each is two descriptors and about 20 KiB of the host's memory.
const RINGS: usize = 4;

/// Builds the machine that `spec` describes from the descriptors its slots name. Every thread of it
/// exists then, and no vCPU has run.
///
/// # Errors
/// [`BuildError`] says what and why; nothing of the machine is left.
pub fn machine(mut spec: MachineSpec, descriptors: &mut FdTable) -> Result<Machine, BuildError> {
    let present: Vec<u32> = (0..spec.vcpus).collect();
    let parts = Parts::assemble(&mut spec, &present, descriptors, None, false, None)?;
    launch(spec, parts)
}

/// Loads what the machine starts with, and starts its threads.
fn launch(spec: MachineSpec, parts: Parts) -> Result<Machine, BuildError> {
    let plan = parts.images.load(&parts.memory, &parts.tables)?;
    for vcpu in &parts.vcpus {
        vcpu.prepare_boot()?;
    }
    if let Some(first) = parts.vcpus.first() {
        first.enter(&plan.entry)?;
    }
    parts.start(spec, plan)
}

/// Everything of a machine but the threads of its vCPUs. Guest memory is as it came.
struct Parts {
    tables: AcpiConfig,
    memory: GuestMemory,
    images: BootImages,
    chipset: Chipset,
    plugging: Plugging,
    ports: PortBus,
    mmio: Arc<MmioBus>,
    interrupts: Arc<dyn InterruptController>,
    end: Arc<EndSignal>,
    vm: Arc<Vm>,
    vcpus: Vec<Vcpu>,
    workshop: CpuWorkshop,
    tsc_khz: u32,
    io: IoThread,
    rings: Arc<RingReserve>,
}

impl Parts {
    /// Makes them, with the vCPUs `present`, and takes the devices out of `spec`. The TSC runs at `tsc_khz`,
    /// or at the host's frequency. If input is `held`, none is taken from the console's clients yet. It starts in a
    /// kernel, or in `firmware`.
    fn assemble(
        spec: &mut MachineSpec,
        present: &[u32],
        descriptors: &mut FdTable,
        tsc_khz: Option<u32>,
        held: bool,
        firmware: Option<FirmwareParams>,
    ) -> Result<Self, BuildError> {
        let board = match &firmware {
            Some(_) => Board::firmware(),
            None => Board::of(spec.machine),
        };
        let kind = board.controller;
        #[cfg(feature = "attack-points")]
        {
            crate::attack::arm(&spec.boot.command_line);
            crate::attack::strike(reeve_sandbox::seccomp::Role::Base);
        }
        let start = Start::take(&spec.boot, firmware, descriptors)?;
        let address_bits = cpuid::physical_address_bits(&spec.supported_cpuid);
        let memory = memory::map(&spec.memory, address_bits, board.gap_start, descriptors)?;
        let console = spec
            .console
            .map(|slot| descriptors.take(slot))
            .transpose()?;

        // `/dev/kvm` is closed at the end of this function, before any vCPU runs.
        let system = System::from_fd(descriptors.take(spec.kvm)?)?;
        if !(1..=spec.max_vcpus).contains(&spec.vcpus) {
            return Err(BuildError::NoSuchVcpu(spec.vcpus.wrapping_sub(1)));
        }
        system.check_vcpu_count(spec.max_vcpus)?;
        let mut vm = system.create_vm()?;
        vm.add_memory(&memory)?;
        start.place(&mut vm, &board)?;
        let (vm, interrupts) = vm.interrupt_controller(kind, spec.max_vcpus)?;

        let signals = Signals {
            end: Arc::new(EndSignal::new()?),
            notices: Arc::new(Notices::new()?),
            waker: Arc::new(Waker::new()?),
        };
        let (ports, mmio) = (PortBus::new(), Arc::new(MmioBus::new()));
        let tables = tables(spec, &board, &memory);
        let watchdog = spec.watchdog;
        let mut chipset = Chipset::build(
            &board,
            &interrupts,
            &signals,
            &memory,
            &tables,
            watchdog,
            &ports,
            &mmio,
        )?;
        start.insert_flash(&mmio)?;
        let images = start.finish(
            &mut chipset,
            board,
            (&vm, &interrupts),
            &memory,
            &signals,
            &ports,
        )?;
        let Signals {
            end,
            notices,
            waker,
        } = signals;

        // Early: the thread closes its filter while this one makes vCPUs, which takes longer.
        let served = Served {
            ring: Arc::clone(&chipset.console),
            serial: Arc::clone(&chipset.serial),
            timed: chipset.timed(),
        };
        let io = IoThread::start(served, waker, held).map_err(BuildError::IoThread)?;
        if let Some(stream) = console {
            let reader = chipset.console.reader();
            io.attach(stream, true, reader)
                .map_err(BuildError::Console)?;
        }

        let mut devices = DeviceSet::new(chipset.pci.clone(), Arc::clone(&notices) as _);
        let mut workshop = Workshop::new(
            memory.clone(),
            pci::surroundings(&vm, &interrupts, &memory),
            Arc::clone(&notices),
        );
        if memory.blocks().is_some() {
            workshop.use_blocks(KvmBlocks::new(Arc::clone(&vm), memory.clone()));
        }
        for device in std::mem::take(&mut spec.devices) {
            devices.insert(workshop.build(device, descriptors)?)?;
        }
        let rings = Arc::new(RingReserve::default());
        workshop.use_reserve(Arc::clone(&rings));
        let plugging = Plugging {
            devices,
            workshop: Arc::new(Mutex::new(workshop)),
            spawner: Spawner::start().map_err(BuildError::Spawner)?,
            notices,
            late_peek: LatePeek::default(),
        };

        let (vcpus, tsc_khz, workshop) = cpus::create(&system, &vm, spec, present, tsc_khz)?;
        Ok(Self {
            tables,
            memory,
            images,
            chipset,
            plugging,
            ports,
            mmio,
            interrupts,
            end,
            vm,
            vcpus,
            workshop,
            tsc_khz,
            io,
            rings,
        })
    }

    /// Starts the vCPUs' threads, which stand.
    fn start(self, spec: MachineSpec, plan: Entry) -> Result<Machine, BuildError> {
        let platform = Arc::new(Platform {
            ports: self.ports,
            mmio: self.mmio,
            interrupts: self.interrupts,
            end: self.end,
            entry: Mutex::new(plan.entry),
        });
        let vcpus = VcpuSet::start(self.vcpus, spec.max_vcpus, &platform)?;
        let vcpus = Processors::new(vcpus, self.workshop);
        // Last, and not waited for: nothing that comes before the guest runs needs it.
        let rings = self.rings;
        self.plugging.spawner.close(move || fill(&rings))?;
        let identity = Identity {
            machine: spec.machine,
            tsc_khz: self.tsc_khz,
            protocol: plan.protocol,
        };
        Ok(Machine::new(
            identity,
            spec,
            self.tables,
            self.memory,
            self.images,
            self.chipset,
            self.plugging,
            self.vm,
            platform,
            vcpus,
            self.io,
        ))
    }
}

/// On the spawner: rings for disks that come later.
fn fill(rings: &RingReserve) {
    if let Err(error) = rings.fill(RINGS) {
        tracing::debug!(%error, "no io_uring in reserve for disks that come later");
    }
}

/// What the guest's tables say of the machine.
fn tables(spec: &MachineSpec, board: &Board, memory: &GuestMemory) -> AcpiConfig {
    let ram_end = memory.end();
    let address_bits = cpuid::physical_address_bits(&spec.supported_cpuid);
    AcpiConfig {
        vcpus: spec.vcpus,
        max_vcpus: spec.max_vcpus,
        legacy_pic: board.controller == ControllerKind::InKernel,
        window_32: board.window_32.clone(),
        ecam: board.ecam(None),
        pci_window_64: board.window_64(ram_end, address_bits),
        generation_id: spec.generation_id,
        panic_port: spec.panic_port,
    }
}
