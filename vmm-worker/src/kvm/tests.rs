//! On the host's KVM: what a reset puts back is what a new vCPU has, and errors have names.

use std::fs::File;
use std::sync::Arc;

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::Kvm;
use reeve_ipc::spec::CpuSwitches;
use rustix::fs::{MemfdFlags, SealFlags};
use vm_memory::{Bytes, GuestAddress};

use super::{ControllerKind, Exit, KvmError, System, Vcpu, Vm};
use crate::arch::x86_64::cpuid::{CpuModel, HostTimers};
use crate::arch::x86_64::reset;
use crate::memory::{Backing, GuestMemory};

const MEMORY: u64 = 2 << 20;

fn system() -> System {
    let kvm = File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .expect("/dev/kvm");
    System::from_fd(kvm.into()).expect("a KVM")
}

fn memory() -> GuestMemory {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("test", flags).expect("memfd");
    rustix::fs::ftruncate(&fd, MEMORY).expect("size");
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).expect("seals");
    GuestMemory::map(Backing::Shared { fd }, MEMORY).expect("memory")
}

fn vm(system: &System, memory: &GuestMemory) -> Arc<Vm> {
    let mut vm = system.create_vm().expect("VM");
    vm.add_memory(memory).expect("slot");
    vm.interrupt_controller(ControllerKind::Split, 2)
        .expect("controller")
        .0
}

fn vcpu(system: &System, vm: &Arc<Vm>, index: u32) -> Vcpu {
    let vcpu = vm.create_vcpu(index).expect("vCPU");
    let timers = HostTimers {
        tsc_deadline: system.has_tsc_deadline_timer(),
        ..Default::default()
    };
    let supported = system.supported_cpuid().expect("CPUID");
    let mut model = CpuModel::new(supported, CpuSwitches::default(), timers, 2).expect("model");
    vcpu.set_cpuid(model.for_vcpu(index)).expect("CPUID");
    vcpu
}

/// All state that KVM gives out, but the TSC: as text, so that a difference can be read.
fn state(vcpu: &Vcpu) -> Vec<String> {
    let fd = &vcpu.fd;
    let kvm = Kvm::new().expect("/dev/kvm");
    let mut state = vec![
        vcpu.registers().expect("registers").to_string(),
        format!("{:x?}", fd.get_xcrs().expect("xcrs")),
        format!("{:x?}", fd.get_debug_regs().expect("debug registers")),
        format!("{:x?}", fd.get_vcpu_events().expect("events")),
        format!("{:x?}", fd.get_mp_state().expect("mp state")),
        format!("{:x?}", fd.get_lapic().expect("lapic")),
    ];
    let xsave = fd.get_xsave().expect("xsave");
    state.push(format!("{:x?}", &xsave.region[..104]));
    for index in kvm.get_msr_index_list().expect("list").as_slice() {
        let entry = kvm_msr_entry {
            index: *index,
            ..Default::default()
        };
        let mut list = Msrs::from_entries(&[entry]).expect("one");
        let read = fd.get_msrs(&mut list).expect("msr");
        // The TSC, and what follows from it.
        if read == 1 && !matches!(*index, 0x10 | 0x3B) {
            state.push(format!("msr {index:#x} = {:#x}", list.as_slice()[0].data));
        }
    }
    state
}

#[test]
fn reset_puts_back_the_state_of_a_new_vcpu() {
    let system = system();
    let memory = memory();
    // outb to a port, at the reset vector: the last 16 bytes below 4 GiB are no RAM, so that the
    // code is put elsewhere and the vCPU sent there.
    memory
        .map_ref()
        .write_slice(&[0xE6, 0x80, 0xF4], GuestAddress(0x1000))
        .expect("code");
    let vm = vm(&system, &memory);
    for index in [0, 1] {
        let mut vcpu = vcpu(&system, &vm, index);
        let fresh = state(&vcpu);
        disturb(&mut vcpu, index == 0);
        assert_ne!(state(&vcpu), fresh);
        vcpu.reset().expect("reset");
        for (is, was) in state(&vcpu).iter().zip(&fresh) {
            assert_eq!(is, was, "vCPU {index}");
        }
    }
}

/// Changes state of every kind, and runs if it may.
fn disturb(vcpu: &mut Vcpu, run: bool) {
    let mut sregs = vcpu.fd.get_sregs().expect("sregs");
    sregs.cs = kvm_bindings::kvm_segment {
        base: 0,
        selector: 0,
        ..sregs.cs
    };
    sregs.cr8 = 5;
    vcpu.fd.set_sregs(&sregs).expect("sregs");
    let regs = kvm_bindings::kvm_regs {
        rip: 0x1000,
        rflags: 2,
        r15: 7,
        rdx: 9,
        ..Default::default()
    };
    vcpu.fd.set_regs(&regs).expect("regs");
    vcpu.prepare_boot().expect("boot MSRs");
    let mut lapic = vcpu.fd.get_lapic().expect("lapic");
    lapic.regs[0xF1] = 1;
    lapic.regs[0x320] = 0x40;
    vcpu.fd.set_lapic(&lapic).expect("lapic");
    let debug = kvm_bindings::kvm_debugregs {
        db: [1, 2, 3, 4],
        ..reset::debug()
    };
    vcpu.fd.set_debug_regs(&debug).expect("debug registers");
    let star = kvm_msr_entry {
        index: 0xC000_0081,
        data: 0x23_0010 << 32,
        ..Default::default()
    };
    vcpu.fd
        .set_msrs(&Msrs::from_entries(&[star]).expect("one"))
        .expect("STAR");
    if run {
        assert!(matches!(
            vcpu.run(),
            Ok(Exit::IoOut {
                port: 0x80,
                width: 1,
                ..
            })
        ));
        vcpu.immediate_exit().set(true);
        assert!(matches!(vcpu.run(), Ok(Exit::Interrupted)));
        vcpu.immediate_exit().set(false);
    }
}

#[test]
fn another_file_is_not_taken_for_kvm() {
    let null = File::open("/dev/null").expect("/dev/null");
    assert!(matches!(
        System::from_fd(null.into()),
        Err(KvmError::ApiVersion(-1))
    ));
}

#[test]
fn vcpu_limit_is_the_machine_types_or_kvms() {
    let system = system();
    let limit = system.max_vcpus();
    assert!((1..=1024).contains(&limit));
    system.check_vcpu_count(limit).expect("the limit itself");
    assert!(matches!(
        system.check_vcpu_count(limit + 1),
        Err(KvmError::TooManyVcpus { asked, limit: l }) if asked == limit + 1 && l == limit
    ));
}

#[test]
fn internal_error_shows_no_instruction_bytes() {
    let mut run = kvm_bindings::kvm_run {
        exit_reason: kvm_bindings::KVM_EXIT_INTERNAL_ERROR,
        ..Default::default()
    };
    run.__bindgen_anon_1.internal = kvm_bindings::kvm_run__bindgen_ty_1__bindgen_ty_13 {
        suberror: 1,
        ndata: 4,
        data: [0xAB; 16],
    };
    let Exit::InternalError(error) = super::exit::decode(&mut run, 4096) else {
        panic!("not an internal error");
    };
    assert_eq!(error.data(), [0xAB]);
    assert_eq!(
        error.to_string(),
        "KVM internal error 1: instruction cannot be emulated (0xab)"
    );
}

#[test]
fn port_access_outside_the_run_structure_is_refused() {
    let mut run = kvm_bindings::kvm_run {
        exit_reason: kvm_bindings::KVM_EXIT_IO,
        ..Default::default()
    };
    for (offset, count) in [(0, 1), (4096, 1), (1 << 40, 1), (3000, u32::MAX)] {
        run.__bindgen_anon_1.io = kvm_bindings::kvm_run__bindgen_ty_1__bindgen_ty_4 {
            direction: 1,
            size: 4,
            port: 0x80,
            count,
            data_offset: offset,
        };
        let exit = super::exit::decode(&mut run, 4096);
        assert!(
            matches!(exit, Exit::Unexpected { .. }),
            "{offset:#x} {count}"
        );
    }
}
