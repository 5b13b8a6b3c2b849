//! The state of a vCPU at power-on, as the architecture defines it (SDM vol. 3, table 10-1), by
//! which a reset puts it back.
//!
//! Constants and not a snapshot taken at the start: each vCPU ioctl costs 10 µs on some hosts, and
//! most machines are never reset.

use kvm_bindings::{
    kvm_debugregs, kvm_dtable, kvm_lapic_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs,
    kvm_xcr, kvm_xcrs, kvm_xsave,
};

use super::layout;

/// CD, NW, ET: caches off, which no KVM takes seriously.
const CR0: u64 = 0x6000_0010;
const RFLAGS: u64 = 1 << 1;
/// RDX holds the processor's signature; this is the one KVM shows for want of a better.
const RDX: u64 = 0x600;
/// `IA32_APICBASE`: enabled.
const APIC_ENABLED: u64 = 1 << 11;
/// `IA32_APICBASE`: this is the bootstrap processor.
const APIC_BSP: u64 = 1 << 8;

/// General-purpose registers: at the reset vector.
#[must_use]
pub fn regs() -> kvm_regs {
    kvm_regs {
        rip: 0xFFF0,
        rflags: RFLAGS,
        rdx: RDX,
        ..Default::default()
    }
}

/// Segments, control registers and APIC base of vCPU `index`.
#[must_use]
pub fn sregs(index: u32) -> kvm_sregs {
    let segment = |type_, s| kvm_segment {
        limit: 0xFFFF,
        type_,
        present: 1,
        s,
        ..Default::default()
    };
    let data = segment(0x3, 1);
    let table = kvm_dtable {
        limit: 0xFFFF,
        ..Default::default()
    };
    let bsp = if index == 0 { APIC_BSP } else { 0 };
    kvm_sregs {
        cs: kvm_segment {
            base: 0xFFFF_0000,
            selector: 0xF000,
            ..segment(0xB, 1)
        },
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: segment(0xB, 0),
        ldt: segment(0x2, 0),
        gdt: table,
        idt: table,
        cr0: CR0,
        apic_base: u64::from(layout::LAPIC_BASE) | APIC_ENABLED | bsp,
        ..Default::default()
    }
}

/// Extended control registers: x87 only.
#[must_use]
pub fn xcrs() -> kvm_xcrs {
    let mut xcrs = kvm_xcrs {
        nr_xcrs: 1,
        ..Default::default()
    };
    xcrs.xcrs[0] = kvm_xcr {
        xcr: 0,
        value: 1,
        ..Default::default()
    };
    xcrs
}

/// Vector and floating-point state: all components in their initial state.
#[must_use]
pub fn xsave() -> kvm_xsave {
    /// Words of FCW (with FSW zero) and of MXCSR in the legacy area (SDM vol. 1, table 10-2).
    const FCW: usize = 0;
    const MXCSR: usize = 6;
    let mut xsave = kvm_xsave::default();
    xsave.region[FCW] = 0x37F;
    xsave.region[MXCSR] = 0x1F80;
    xsave
}

/// Debug registers: no breakpoint.
#[must_use]
pub fn debug() -> kvm_debugregs {
    kvm_debugregs {
        dr6: 0xFFFF_0FF0,
        dr7: 0x400,
        ..Default::default()
    }
}

/// Offsets in a local APIC's registers (SDM vol. 3, table 12-1).
const LAPIC_ID: usize = 0x20;
const LAPIC_VERSION: usize = 0x30;
const LAPIC_DESTINATION_FORMAT: usize = 0xE0;
const LAPIC_SPURIOUS: usize = 0xF0;
const LAPIC_LVT_CMCI: usize = 0x2F0;
/// Timer, thermal, performance, LINT0, LINT1, error.
const LAPIC_LVTS: [usize; 6] = [0x320, 0x330, 0x340, 0x350, 0x360, 0x370];
const LAPIC_LVT_LINT0: usize = 0x350;
const LVT_MASKED: u32 = 1 << 16;
const DELIVER_EXTINT: u32 = 7 << 8;

/// Changes the registers of vCPU `index`'s local APIC to those at power-on; its version, which is
/// KVM's to say, stays. The first vCPU takes external interrupts (of a PIC, if there is one) on
/// LINT0, as KVM and firmware have it.
pub fn lapic(state: &mut kvm_lapic_state, index: u32) {
    let version = read_register(state, LAPIC_VERSION);
    state.regs.fill(0);
    let mut write = |offset, value| write_register(state, offset, value);
    // The id of an xAPIC has 8 bits; that of an x2APIC is KVM's to know.
    write(LAPIC_ID, (index & 0xFF) << 24);
    write(LAPIC_VERSION, version);
    write(LAPIC_DESTINATION_FORMAT, u32::MAX);
    write(LAPIC_SPURIOUS, 0xFF);
    for lvt in LAPIC_LVTS {
        write(lvt, LVT_MASKED);
    }
    let last_lvt = (version >> 16) & 0xFF;
    if last_lvt >= 6 {
        write(LAPIC_LVT_CMCI, LVT_MASKED);
    }
    if index == 0 {
        write(LAPIC_LVT_LINT0, DELIVER_EXTINT);
    }
}

fn read_register(lapic: &kvm_lapic_state, offset: usize) -> u32 {
    let mut value = [0; 4];
    for (target, source) in value.iter_mut().zip(lapic.regs.iter().skip(offset)) {
        *target = source.to_le_bytes()[0];
    }
    u32::from_le_bytes(value)
}

fn write_register(lapic: &mut kvm_lapic_state, offset: usize, value: u32) {
    for (target, source) in lapic.regs.iter_mut().skip(offset).zip(value.to_le_bytes()) {
        *target = i8::from_le_bytes([source]);
    }
}

/// `IA32_PAT` at power-on.
const PAT: u64 = 0x0007_0406_0007_0406;

/// MSRs that a guest writes and that are not zero at power-on.
const MSR_VALUES: [(u32, u64); 3] = [
    (0x277, PAT),
    // MSR_KVM_POLL_CONTROL: the host may poll before it lets a halted vCPU sleep.
    (0x4B56_4D05, 1),
    (super::msr::MISC_ENABLE, super::msr::MISC_ENABLE_BOOT),
];

/// MSRs that a guest writes and that are zero at power-on. Not the TSC, which goes on through a
/// reset (writing it vCPU by vCPU would tear them apart), nor those that say what a processor can.
const MSR_ZEROES: [std::ops::RangeInclusive<u32>; 22] = [
    // The paravirtual clock: first its old numbers, then wall clock, system time, asynchronous page
    // faults, steal time, end of interrupt. Zero turns each off.
    0x11..=0x12,
    0x4B56_4D00..=0x4B56_4D04,
    0x4B56_4D06..=0x4B56_4D06,
    // SPEC_CTRL, TSX_CTRL, MISC_FEATURES_ENABLES.
    0x48..=0x48,
    0x122..=0x122,
    0x140..=0x140,
    // SYSENTER.
    0x174..=0x176,
    // MCG_STATUS, XFD, XFD_ERR, DEBUGCTL.
    0x17A..=0x17A,
    0x1C4..=0x1C5,
    0x1D9..=0x1D9,
    // Memory types.
    0x200..=0x20F,
    0x250..=0x250,
    0x258..=0x259,
    0x268..=0x26F,
    0x2FF..=0x2FF,
    // Control-flow enforcement.
    0x6A0..=0x6A0,
    0x6A2..=0x6A2,
    0x6A4..=0x6A8,
    // TSC deadline, XSS.
    0x6E0..=0x6E0,
    0xDA0..=0xDA0,
    // System calls; GS swap and TSC_AUX.
    0xC000_0081..=0xC000_0084,
    0xC000_0102..=0xC000_0103,
];

/// The MSRs that a reset writes. A KVM or a vCPU model without one of them refuses it, and is right.
pub fn msrs() -> impl Iterator<Item = kvm_msr_entry> {
    let zeroes = MSR_ZEROES.into_iter().flatten().map(|index| (index, 0));
    zeroes.chain(MSR_VALUES).map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    })
}
