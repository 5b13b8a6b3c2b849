//! The state of a vCPU at power-on, by which a reset puts it back.
//!
//! Taken once, of the first vCPU before anything is set in it: the others differ from it in the few
//! fields that [`PowerOnState::for_vcpu`] knows.

use std::sync::Arc;

use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED, kvm_debugregs, kvm_lapic_state,
    kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};

/// Offsets in a local APIC's registers (SDM vol. 3, table 12-1).
const LAPIC_ID: usize = 0x20;
const LAPIC_LVT_LINT0: usize = 0x350;
const LAPIC_LVT_LINT1: usize = 0x360;
const DELIVER_NMI: u32 = 4 << 8;
const DELIVER_EXTINT: u32 = 7 << 8;
const LVT_MASKED: u32 = 1 << 16;

/// `IA32_APICBASE`: this is the bootstrap processor.
const APIC_BASE_BSP: u64 = 1 << 8;

/// All the state of a vCPU that KVM gives out, as it is at power-on.
#[derive(Debug, Clone)]
pub struct PowerOnState {
    /// General-purpose registers.
    pub regs: kvm_regs,
    /// Segments, control registers, APIC base.
    pub sregs: kvm_sregs,
    /// Local APIC.
    pub lapic: kvm_lapic_state,
    /// Floating point and vector registers.
    pub xsave: Arc<kvm_xsave>,
    /// Extended control registers.
    pub xcrs: kvm_xcrs,
    /// Debug registers.
    pub debug: kvm_debugregs,
    /// Pending exceptions, interrupts, NMIs.
    pub events: kvm_vcpu_events,
    /// Whether it runs, halts, or waits to be started.
    pub mp_state: kvm_mp_state,
    /// MSRs, those of [`is_reset_state`](super::msr::is_reset_state).
    pub msrs: Vec<kvm_msr_entry>,
}

impl PowerOnState {
    /// The state of vCPU `index`, made from that of the first.
    #[must_use]
    pub fn for_vcpu(&self, index: u32) -> Self {
        let mut state = self.clone();
        if index != 0 {
            // The id of an xAPIC has 8 bits; that of an x2APIC is KVM's to know.
            write_register(&mut state.lapic, LAPIC_ID, (index & 0xFF) << 24);
            write_register(&mut state.lapic, LAPIC_LVT_LINT0, LVT_MASKED);
            write_register(&mut state.lapic, LAPIC_LVT_LINT1, LVT_MASKED);
            state.sregs.apic_base &= !APIC_BASE_BSP;
            state.mp_state.mp_state = KVM_MP_STATE_UNINITIALIZED;
        } else {
            state.mp_state.mp_state = KVM_MP_STATE_RUNNABLE;
        }
        state
    }
}

/// Wires the local interrupt pins of the first vCPU as firmware does: external interrupts from a
/// PIC (if there is one) on LINT0, non-maskable ones on LINT1.
pub fn wire_local_interrupts(lapic: &mut kvm_lapic_state) {
    write_register(lapic, LAPIC_LVT_LINT0, DELIVER_EXTINT);
    write_register(lapic, LAPIC_LVT_LINT1, DELIVER_NMI);
}

fn write_register(lapic: &mut kvm_lapic_state, offset: usize, value: u32) {
    if let Some(bytes) = lapic.regs.get_mut(offset..offset + 4) {
        for (target, byte) in bytes.iter_mut().zip(value.to_le_bytes()) {
            *target = i8::from_le_bytes([byte]);
        }
    }
}
