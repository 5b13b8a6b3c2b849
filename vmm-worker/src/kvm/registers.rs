//! The registers of a vCPU in a form for a log: no guest memory, no floating-point state.

use std::fmt;

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

/// Registers of one vCPU at one instant; its `Display` is several lines.
#[derive(Debug, Clone)]
pub struct RegisterDump {
    /// Whose they are.
    pub index: u32,
    /// General-purpose registers.
    pub regs: kvm_regs,
    /// Segments, control registers and tables.
    pub sregs: kvm_sregs,
}

impl fmt::Display for RegisterDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (r, s) = (&self.regs, &self.sregs);
        writeln!(
            f,
            "vcpu {} rip={:016x} rflags={:08x}",
            self.index, r.rip, r.rflags
        )?;
        writeln!(
            f,
            "  rax={:016x} rbx={:016x} rcx={:016x} rdx={:016x}",
            r.rax, r.rbx, r.rcx, r.rdx
        )?;
        writeln!(
            f,
            "  rsi={:016x} rdi={:016x} rsp={:016x} rbp={:016x}",
            r.rsi, r.rdi, r.rsp, r.rbp
        )?;
        writeln!(
            f,
            "  r8 ={:016x} r9 ={:016x} r10={:016x} r11={:016x}",
            r.r8, r.r9, r.r10, r.r11
        )?;
        writeln!(
            f,
            "  r12={:016x} r13={:016x} r14={:016x} r15={:016x}",
            r.r12, r.r13, r.r14, r.r15
        )?;
        writeln!(
            f,
            "  cr0={:x} cr2={:x} cr3={:x} cr4={:x} cr8={:x}",
            s.cr0, s.cr2, s.cr3, s.cr4, s.cr8
        )?;
        writeln!(f, "  efer={:x} apic_base={:x}", s.efer, s.apic_base)?;
        let segments = [
            ("cs", &s.cs),
            ("ss", &s.ss),
            ("ds", &s.ds),
            ("es", &s.es),
            ("fs", &s.fs),
            ("gs", &s.gs),
            ("tr", &s.tr),
            ("ldt", &s.ldt),
        ];
        for (name, segment) in segments {
            write_segment(f, name, segment)?;
        }
        writeln!(f, "  gdt base={:x} limit={:x}", s.gdt.base, s.gdt.limit)?;
        write!(f, "  idt base={:x} limit={:x}", s.idt.base, s.idt.limit)
    }
}

fn write_segment(f: &mut fmt::Formatter<'_>, name: &str, s: &kvm_segment) -> fmt::Result {
    writeln!(
        f,
        "  {name:<3} {:04x} base={:x} limit={:x} type={:x} dpl={} p={} s={} l={} db={} g={}",
        s.selector, s.base, s.limit, s.type_, s.dpl, s.present, s.s, s.l, s.db, s.g
    )
}
