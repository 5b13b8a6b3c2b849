//! The floor: the least program that boots the built-in guest on this host's KVM, and ends with it.
//!
//! One thread, one vCPU, 128 MiB of anonymous memory, no sandbox, no protocol, no device but the
//! byte port of COM1 and the power-off port. What Reeve costs beyond this is what its features cost;
//! nothing can cost less than this by more than the noise. Started by the benchmarks as
//! `floor COMMAND_LINE`; output on standard output.
//!
//! The order is the quick one on the KVMs we know: memory before the interrupt controller, and that
//! one split, so that the kernel waits for no grace period. CPUID is not set: the guest's two
//! benchmark modes run without, and asking KVM for it takes a quarter of the whole where the host
//! itself is a guest. Rust's own start-up (signal handlers, thread information) is left out.
#![no_main]

use std::ffi::{c_char, c_int};
use std::io::Write;
use std::ptr::null_mut;

use anyhow::{Context, bail};
use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap, kvm_regs, kvm_segment, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use reeve_benches::GUEST_MEMORY_BYTES;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// `hvm_start_info` (Xen PVH), and the command line it points to.
const START_INFO: usize = 0x6000;
const COMMAND_LINE: usize = 0x2_0000;
/// COM1's data port, and the ACPI PM1a control port with the value that powers off.
const COM1: u16 = 0x3f8;
const PM1A_CONTROL: u16 = 0x604;
const POWER_OFF: [u8; 2] = 0x3400_u16.to_le_bytes();

/// The C entry point.
#[expect(unsafe_code, reason = "the C library calls main by its name")]
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    match run() {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "floor: {error:#}");
            1
        }
    }
}

fn run() -> anyhow::Result<()> {
    let command_line = std::env::args().nth(1).unwrap_or_default();
    let kvm = Kvm::new().context("cannot open /dev/kvm")?;
    let vm = kvm.create_vm()?;
    let memory = map_memory(&vm)?;
    let entry = load(memory, command_line.as_bytes())?;
    let mut split = kvm_enable_cap {
        cap: KVM_CAP_SPLIT_IRQCHIP,
        ..Default::default()
    };
    split.args[0] = 24;
    vm.enable_cap(&split)?;
    let mut vcpu = vm.create_vcpu(0)?;
    enter(&vcpu, entry)?;
    let mut output = std::io::stdout();
    loop {
        match vcpu.run()? {
            VcpuExit::IoOut(COM1, bytes) => {
                // Not through the line buffer: each byte is on its way when the guest goes on.
                rustix::io::write(&output, bytes)?;
            }
            VcpuExit::IoOut(PM1A_CONTROL, bytes) if bytes == POWER_OFF => break,
            VcpuExit::IoOut(..) => {}
            VcpuExit::IoIn(_, bytes) => bytes.fill(0xff),
            other => bail!("unexpected exit: {other:?}"),
        }
    }
    output.flush()?;
    Ok(())
}

/// Guest memory from address 0, as the one slot of `vm`.
#[expect(unsafe_code, reason = "guest memory is mapped and given to KVM")]
fn map_memory(vm: &VmFd) -> anyhow::Result<&'static mut [u8]> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing else.
    let address = unsafe {
        mmap_anonymous(
            null_mut(),
            GUEST_MEMORY_BYTES,
            ProtFlags::READ | ProtFlags::WRITE,
            flags,
        )?
    };
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: GUEST_MEMORY_BYTES as u64,
        userspace_addr: address as u64,
    };
    // SAFETY: the region is the mapping above, which is never unmapped.
    unsafe { vm.set_user_memory_region(region)? };
    // SAFETY: the mapping is as long, readable and writable, lives as long as the process, and this
    // is the only reference; the guest does not run before the last use of it.
    Ok(unsafe { std::slice::from_raw_parts_mut(address.cast(), GUEST_MEMORY_BYTES) })
}

/// Places image, start info and command line; gives the 32-bit entry.
fn load(memory: &mut [u8], command_line: &[u8]) -> anyhow::Result<u32> {
    let image = reeve_guest::IMAGE;
    let mut entry = None;
    // ELF64: e_phoff at 32, e_phnum at 56; a program header has 56 bytes.
    let headers = read_u64(image, 32)?;
    for index in 0..usize::from(image[56]) {
        let header = headers + index * 56;
        let [offset, address] = [read_u64(image, header + 8)?, read_u64(image, header + 24)?];
        let size = read_u64(image, header + 32)?;
        let content = image.get(offset..offset + size).context("cut segment")?;
        match image[header] {
            // PT_LOAD; what lies behind it in memory is zero as it is.
            1 => memory
                .get_mut(address..address + size)
                .context("segment outside memory")?
                .copy_from_slice(content),
            // PT_NOTE with the one note the image has: XEN_ELFNOTE_PHYS32_ENTRY.
            4 => entry = Some(u32::try_from(read_u64(content, 16)?)?),
            _ => {}
        }
    }
    // Magic, version 1, no flags, no modules; the command line's address at 24.
    memory[START_INFO..START_INFO + 8].copy_from_slice(&[0x78, 0xc5, 0x6e, 0x33, 1, 0, 0, 0]);
    memory[START_INFO + 24..START_INFO + 32].copy_from_slice(&COMMAND_LINE.to_le_bytes());
    memory[COMMAND_LINE..COMMAND_LINE + command_line.len()].copy_from_slice(command_line);
    entry.context("the image has no PVH note")
}

fn read_u64(bytes: &[u8], at: usize) -> anyhow::Result<usize> {
    let field = bytes.get(at..at + 8).context("cut image")?;
    Ok(usize::from_le_bytes(field.try_into()?))
}

/// Flat 32-bit protected mode, as the PVH boot protocol has it.
fn enter(vcpu: &VcpuFd, entry: u32) -> anyhow::Result<()> {
    let code = kvm_segment {
        limit: 0xffff_ffff,
        selector: 0x8,
        type_: 0xb,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment {
        selector: 0x10,
        type_: 3,
        ..code
    };
    let task = kvm_segment {
        limit: 0x67,
        selector: 0x18,
        s: 0,
        g: 0,
        db: 0,
        ..code
    };
    let mut sregs = vcpu.get_sregs()?;
    (sregs.cs, sregs.tr) = (code, task);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr0 = 0x11;
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs {
        rflags: 2,
        rip: u64::from(entry),
        rbx: START_INFO as u64,
        ..Default::default()
    })?;
    Ok(())
}
