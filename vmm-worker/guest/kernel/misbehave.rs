//! Modes that do what a guest ought not to: the worker must contain each of them.

use core::arch::asm;

use crate::boot::Boot;
use crate::machine::{self, COM1, MMIO_START, in8, in16, in32, out8, out16, out32};
use crate::options::{Mode, Options};
use crate::random::XorShift;
use crate::{console, ring0};

/// Runs one of the misbehaving modes. Returns where the guest survives.
pub fn run(_boot: &Boot, mode: Mode, options: &Options) {
    match mode {
        Mode::Spin => {
            console::print(b"spinning\n");
            ring0::spin();
        }
        Mode::SpinUser => {
            console::print(b"spinning\n");
            ring0::mask_interrupts();
            loop {
                core::hint::spin_loop();
            }
        }
        Mode::TripleFault => ring0::triple_fault(),
        Mode::Flood => loop {
            console::print(b"flood flood flood flood flood flood flood flood flood flood flood\n");
        },
        Mode::Reset => machine::reset(),
        Mode::ResetKeyboard => machine::reset_by_keyboard(),
        Mode::ResetOnce => reset_once(),
        Mode::BadMmio => bad_accesses(options.ports),
        Mode::EmulationFailure => {
            // No instruction can be fetched where no memory is; KVM gives up on ring 0 there.
            let nowhere = MMIO_START + (256 << 20);
            machine::map(nowhere, 16);
            ring0::jump(nowhere);
        }
        Mode::FuzzPorts => fuzz(options),
        _ => {}
    }
}

/// Resets if this is the first boot since the mark was cleared. The mark is in CMOS memory,
/// which a reset leaves alone.
fn reset_once() {
    const MARK_INDEX: u8 = 0x40;
    const MARK: u8 = 0xa5;
    if machine::read_cmos(MARK_INDEX) == MARK {
        machine::write_cmos(MARK_INDEX, 0);
        console::print(b"second boot\n");
        return;
    }
    machine::write_cmos(MARK_INDEX, MARK);
    console::print(b"first boot\n");
    machine::reset();
}

/// Every size and kind of access where no device is, and across the edges of those that are.
fn bad_accesses(ports: u32) {
    const ADDRESSES: [u64; 10] = [
        MMIO_START,
        MMIO_START + 1,
        0xd000_0ffd, // crosses a page
        0xe01f_fffb, // crosses a large page
        0xfebf_fffe, // runs into the IOAPIC
        0xfec0_0011, // misaligned in its window
        0xfec0_0ffc, // runs out of it
        0xfed0_0000, // where other machines have a timer
        0xfee0_0ffe, // runs out of the local APIC
        0xffff_ffc0, // the last bytes of 4 GiB
    ];
    for address in ADDRESSES {
        machine::map(address, 64);
        // SAFETY: mapped just now, and no Rust object is in the gap.
        unsafe { touch(address) };
    }
    console::print(b"memory: survived\n");
    // Left out: COM1, the panic port, PM1 control and what overlaps it, the resets.
    const SAFE: [(u32, u32); 6] = [
        (0, 0x61),
        (0x65, COM1 as u32 - 3),
        (0x400, 0x502),
        (0x506, 0x601),
        (0x608, 0xcf6),
        (0xcfa, 0x1_0000),
    ];
    for (first, end) in SAFE {
        if first < ports {
            ring0::sweep_ports(first as u16, end.min(ports));
        }
    }
    console::print(b"ports: survived\n");
}

/// Reads and writes up to 16 bytes at `address`: plain, vector, exchange, locked, string.
///
/// # Safety
///
/// The 16 bytes there are mapped and belong to no Rust object.
pub unsafe fn touch(address: u64) {
    // SAFETY: by the contract of this function.
    unsafe {
        asm!(
            "mov al, byte ptr [{a}]",
            "mov ax, word ptr [{a}]",
            "mov eax, dword ptr [{a}]",
            "mov rax, qword ptr [{a}]",
            "xor eax, eax",
            "mov byte ptr [{a}], al",
            "mov word ptr [{a}], ax",
            "mov dword ptr [{a}], eax",
            "mov qword ptr [{a}], rax",
            "movups {x}, xmmword ptr [{a}]",
            "movups xmmword ptr [{a}], {x}",
            "xchg dword ptr [{a}], eax",
            "lock add dword ptr [{a}], 0",
            "mov rdi, {a}",
            "mov ecx, 13",
            "rep stosb",
            "mov rdi, {a}",
            "mov rsi, {a}",
            "mov ecx, 7",
            "rep movsw",
            a = in(reg) address,
            x = out(xmm_reg) _,
            out("rax") _, out("rcx") _, out("rsi") _, out("rdi") _,
            options(nostack),
        );
    }
}

/// Random accesses to ports, the IOAPIC and the local APIC, from a seed that repeats them.
fn fuzz(options: &Options) {
    ring0::mask_interrupts();
    let mut random = XorShift::new(options.seed);
    for _ in 0..options.count {
        let choice = random.next();
        match choice & 7 {
            0 => fuzz_io_apic(&mut random),
            1 => fuzz_local_apic(&mut random),
            2..=4 => fuzz_port(&mut random, choice, 0x1000),
            _ => fuzz_port(&mut random, choice, 0x1_0000),
        }
    }
    // The accesses may have left the UART with another divisor, in loopback, anything.
    for (register, value) in [(3, 3), (1, 0), (2, 7), (4, 3)] {
        out8(COM1 + register, value);
    }
    console::print(b"survived\n");
}

fn fuzz_port(random: &mut XorShift, choice: u64, limit: u64) {
    let port = (random.next() % limit) as u16;
    let value = random.next() as u32;
    match choice >> 8 & 7 {
        0 => drop(in8(port)),
        1 => drop(in16(port)),
        2 => drop(in32(port)),
        3 | 4 if spared(port, 1) => {}
        3 | 4 => out8(port, value as u8),
        5 if spared(port, 2) => {}
        5 => out16(port, value as u16),
        _ if spared(port, 4) => {}
        _ => out32(port, value),
    }
}

/// Whether a write of `size` bytes could print, switch off, reset or say that this kernel panicked.
fn spared(port: u16, size: u16) -> bool {
    const ENDINGS: [(u16, u16); 5] = [
        (0x64, 0x64),
        (COM1, COM1),
        (0x505, 0x505),
        (0x604, 0x605),
        (0xcf9, 0xcf9),
    ];
    let last = port.saturating_add(size - 1);
    ENDINGS
        .iter()
        .any(|&(first, end)| port <= end && last >= first)
}

fn fuzz_io_apic(random: &mut XorShift) {
    const BASE: u64 = 0xfec0_0000;
    let offset = match random.next() & 3 {
        0 => 0,
        1 | 2 => 0x10,
        _ => random.next() & 0xffc,
    };
    let value = random.next() as u32;
    if random.next() & 1 == 0 {
        machine::read_u32(BASE + offset);
    } else {
        // Delivery mode "fixed" or "lowest priority": an NMI is survived, an INIT is not.
        machine::write_device(BASE + offset, value & !0x600);
    }
}

fn fuzz_local_apic(random: &mut XorShift) {
    const BASE: u64 = 0xfee0_0000;
    let offset = random.next() & 0xff0;
    let value = random.next() as u32;
    // The interrupt command registers could stop this very processor.
    if random.next() & 1 == 0 || matches!(offset, 0x300 | 0x310) {
        machine::read_u32(BASE + offset);
    } else {
        machine::write_device(BASE + offset, value & !0x600);
    }
}
