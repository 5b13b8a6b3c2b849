//! Asks `/dev/kvm` itself whether it can boot Linux, by running what Linux does in ring 0 and what
//! a software KVM fails at: SSE with an operand in memory, `popcnt`, a breakpoint through the IDT,
//! and `xgetbv`. Sixteen instructions in 32-bit protected mode; any other end than the expected
//! port write means no. A KVM that runs these runs ring 0 on the processor (or, nested, as one).

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

/// Guest memory: code, IDT and stack in one piece at guest physical 0.
const MEMORY_BYTES: usize = 0x4000;
const CODE: usize = 0x1000;
const HANDLER: usize = 0x1100;
const IDT: usize = 0x2000;
const STACK_TOP: u64 = 0x4000;
const PORT: u16 = 0xe9;
const ANSWER: u8 = 0x42;

const INSTRUCTIONS: &[u8] = &[
    0x31, 0xc0, // xor eax, eax
    0x0f, 0xa2, // cpuid
    0xf3, 0x0f, 0xb8, 0xc0, // popcnt eax, eax
    0x66, 0x0f, 0xef, 0xc0, // pxor xmm0, xmm0
    0x0f, 0x11, 0x04, 0x24, // movups [esp], xmm0
    0x31, 0xc9, // xor ecx, ecx
    0x0f, 0x01, 0xd0, // xgetbv
    0xcc, // int3
    0xf4, // hlt: not reached
];
const HANDLER_INSTRUCTIONS: &[u8] = &[
    0xb0, ANSWER, // mov al, ANSWER
    0xe6, 0xe9, // out 0xe9, al
    0xf4, // hlt
];

/// Whether this machine's KVM runs kernel code. `false` also when there is no `/dev/kvm` or no
/// permission to open it.
#[must_use]
pub fn kvm_runs_kernel_code() -> bool {
    run().unwrap_or(false)
}

fn run() -> Result<bool, kvm_ioctls::Error> {
    let kvm = Kvm::new()?;
    let vm = kvm.create_vm()?;
    let mut memory = Memory(vec![0; MEMORY_BYTES + 0x1000].into_boxed_slice());
    let bytes = memory.page_aligned();
    bytes[CODE..][..INSTRUCTIONS.len()].copy_from_slice(INSTRUCTIONS);
    bytes[HANDLER..][..HANDLER_INSTRUCTIONS.len()].copy_from_slice(HANDLER_INSTRUCTIONS);
    // Vector 3: 32-bit interrupt gate, selector 8, present.
    bytes[IDT + 24..][..8].copy_from_slice(&[0x00, 0x11, 0x08, 0x00, 0x00, 0x8e, 0x00, 0x00]);
    // The GDT that the gate's selector is looked up in: null, flat code, flat data.
    bytes[IDT + 0x808..][..8].copy_from_slice(&[0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0]);
    bytes[IDT + 0x810..][..8].copy_from_slice(&[0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0]);
    map(&vm, bytes)?;
    let mut vcpu = vm.create_vcpu(0)?;
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
    enter(&vcpu)?;
    let answered = matches!(vcpu.run()?, VcpuExit::IoOut(PORT, [ANSWER]));
    // The memory has to outlive the machine that maps it.
    drop((vcpu, vm));
    drop(memory);
    Ok(answered)
}

/// The guest's memory with room to start at a page boundary.
struct Memory(Box<[u8]>);

impl Memory {
    fn page_aligned(&mut self) -> &mut [u8] {
        let offset = self.0.as_ptr().align_offset(0x1000);
        &mut self.0[offset..][..MEMORY_BYTES]
    }
}

#[expect(unsafe_code, reason = "KVM is told an address")]
fn map(vm: &VmFd, memory: &mut [u8]) -> Result<(), kvm_ioctls::Error> {
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: MEMORY_BYTES as u64,
        userspace_addr: memory.as_mut_ptr() as u64,
    };
    // SAFETY: the region is page aligned and as long as said; the caller keeps it allocated, and
    // touches it no more, until the machine is closed.
    unsafe { vm.set_user_memory_region(region) }
}

/// 32-bit protected mode without paging, SSE and XSAVE on.
fn enter(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let flat = |selector, type_| kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let mut sregs = vcpu.get_sregs()?;
    sregs.cs = flat(8, 11);
    for segment in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.ss,
        &mut sregs.fs,
        &mut sregs.gs,
    ] {
        *segment = flat(16, 3);
    }
    sregs.idt.base = IDT as u64;
    sregs.idt.limit = 0x7ff;
    sregs.gdt.base = IDT as u64 + 0x800;
    sregs.gdt.limit = 0x17;
    sregs.cr0 = 0x33; // PE, MP, ET, NE
    sregs.cr4 = 0x4_0600; // OSXSAVE, OSFXSR, OSXMMEXCPT
    vcpu.set_sregs(&sregs)?;
    let mut regs = vcpu.get_regs()?;
    regs.rip = CODE as u64;
    regs.rsp = STACK_TOP - 64;
    regs.rflags = 2;
    vcpu.set_regs(&regs)
}
