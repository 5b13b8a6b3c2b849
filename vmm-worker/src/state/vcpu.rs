//! The record of one vCPU: everything KVM knows of it, field by field in a layout of our own.
//!
//! KVM's structures hold it in between (`kvm/saved.rs`), as that is what the ioctls take; none of them
//! is written or read as a whole, and no length of the record is KVM's to believe.

use kvm_bindings::{
    KVM_MAX_XCRS, kvm_debugregs, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs2, kvm_vcpu_events,
    kvm_xcr,
};
use reeve_devices::state::{Schema, StateError, StateReader, StateWriter, check};

/// The most MSRs of a record: what KVM's interface takes at once.
pub const MAX_MSRS: usize = 256;
/// The least and the most bytes of the vector and floating-point state.
const MIN_XSAVE_BYTES: usize = 4096;
/// See `MIN_XSAVE_BYTES`; the largest there is has 11 KiB.
pub const MAX_XSAVE_BYTES: usize = 64 << 10;
/// Registers of a local APIC, in bytes.
pub const LAPIC_BYTES: usize = 1024;
/// Where the 256 bits of interrupts in service begin, 32 in each 16 bytes (SDM vol. 3, table 12-1).
const LAPIC_ISR: usize = 0x100;
/// Where those of interrupts requested begin.
const LAPIC_IRR: usize = 0x200;

/// The time-stamp counter at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tsc {
    /// What the guest reads.
    pub value: u64,
    /// What KVM adds to the host's counter, scaled to the guest's frequency, for that; `None` if it
    /// does not say.
    pub offset: Option<u64>,
    /// The host's monotonic clock at that moment, in nanoseconds.
    pub monotonic: u64,
}

/// One vCPU that stands.
#[derive(Debug, Clone)]
pub struct VcpuStateV1 {
    /// `KVM_MP_STATE_*`.
    pub mp_state: u32,
    /// General-purpose registers.
    pub regs: kvm_regs,
    /// Segments, control registers, tables. The page-directory pointers are meant if the flags say so.
    pub sregs: kvm_sregs2,
    /// Extended control registers, at most [`KVM_MAX_XCRS`].
    pub xcrs: Vec<kvm_xcr>,
    /// Vector and floating-point state as `XSAVE` lays it out: words, 4096 bytes to
    /// [`MAX_XSAVE_BYTES`] of them.
    pub xsave: Vec<u32>,
    /// Debug registers.
    pub debug: kvm_debugregs,
    /// The local APIC's registers.
    pub lapic: [u8; LAPIC_BYTES],
    /// Exceptions and interrupts under way.
    pub events: kvm_vcpu_events,
    /// The time-stamp counter.
    pub tsc: Tsc,
    /// MSRs by rising index, without that of the time-stamp counter.
    pub msrs: Vec<(u32, u64)>,
}

impl VcpuStateV1 {
    /// The layout's name and version.
    pub const SCHEMA: Schema = Schema {
        name: "vcpu",
        version: 1,
    };

    /// Whether interrupt `vector` is requested of this local APIC or in service there.
    #[must_use]
    pub fn holds_interrupt(&self, vector: u8) -> bool {
        let (word, bit) = (usize::from(vector / 32), vector % 32);
        [LAPIC_ISR, LAPIC_IRR].into_iter().any(|start| {
            let byte = start + 16 * word + usize::from(bit / 8);
            self.lapic
                .get(byte)
                .is_some_and(|byte| byte >> (bit % 8) & 1 != 0)
        })
    }

    /// The record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = StateWriter::new();
        writer.u32(self.mp_state);
        write_regs(&mut writer, &self.regs);
        write_sregs(&mut writer, &self.sregs);
        writer.u8(u8::try_from(self.xcrs.len()).unwrap_or(u8::MAX));
        for xcr in &self.xcrs {
            writer.u32(xcr.xcr).u64(xcr.value);
        }
        writer.u32(u32::try_from(4 * self.xsave.len()).unwrap_or(u32::MAX));
        for word in &self.xsave {
            writer.u32(*word);
        }
        for register in self.debug.db {
            writer.u64(register);
        }
        writer.u64(self.debug.dr6).u64(self.debug.dr7);
        writer.bytes(&self.lapic);
        write_events(&mut writer, &self.events);
        writer
            .u64(self.tsc.value)
            .bool(self.tsc.offset.is_some())
            .u64(self.tsc.offset.unwrap_or(0))
            .u64(self.tsc.monotonic);
        writer.u16(u16::try_from(self.msrs.len()).unwrap_or(u16::MAX));
        for (index, value) in &self.msrs {
            writer.u32(*index).u64(*value);
        }
        writer.finish()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Another version, or bytes that no [`encode`](Self::encode) wrote.
    pub fn decode(version: u32, record: &[u8]) -> Result<Self, StateError> {
        Self::SCHEMA.expect_version(version)?;
        let mut reader = StateReader::new(record);
        let state = Self {
            mp_state: reader.u32()?,
            regs: read_regs(&mut reader)?,
            sregs: read_sregs(&mut reader)?,
            xcrs: read_xcrs(&mut reader)?,
            xsave: read_xsave(&mut reader)?,
            debug: read_debug(&mut reader)?,
            lapic: reader.bytes()?,
            events: read_events(&mut reader)?,
            tsc: read_tsc(&mut reader)?,
            msrs: read_msrs(&mut reader)?,
        };
        reader.finish()?;
        Ok(state)
    }
}

fn write_regs(writer: &mut StateWriter, regs: &kvm_regs) {
    let kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
    } = *regs;
    for value in [
        rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags,
    ] {
        writer.u64(value);
    }
}

fn read_regs(reader: &mut StateReader<'_>) -> Result<kvm_regs, StateError> {
    Ok(kvm_regs {
        rax: reader.u64()?,
        rbx: reader.u64()?,
        rcx: reader.u64()?,
        rdx: reader.u64()?,
        rsi: reader.u64()?,
        rdi: reader.u64()?,
        rsp: reader.u64()?,
        rbp: reader.u64()?,
        r8: reader.u64()?,
        r9: reader.u64()?,
        r10: reader.u64()?,
        r11: reader.u64()?,
        r12: reader.u64()?,
        r13: reader.u64()?,
        r14: reader.u64()?,
        r15: reader.u64()?,
        rip: reader.u64()?,
        rflags: reader.u64()?,
    })
}

fn write_segment(writer: &mut StateWriter, segment: &kvm_segment) {
    writer
        .u64(segment.base)
        .u32(segment.limit)
        .u16(segment.selector)
        .bytes(&[
            segment.type_,
            segment.present,
            segment.dpl,
            segment.db,
            segment.s,
            segment.l,
            segment.g,
            segment.avl,
            segment.unusable,
        ]);
}

fn read_segment(reader: &mut StateReader<'_>) -> Result<kvm_segment, StateError> {
    let (base, limit, selector) = (reader.u64()?, reader.u32()?, reader.u16()?);
    let [type_, present, dpl, db, s, l, g, avl, unusable] = reader.bytes()?;
    Ok(kvm_segment {
        base,
        limit,
        selector,
        type_,
        present,
        dpl,
        db,
        s,
        l,
        g,
        avl,
        unusable,
        padding: 0,
    })
}

fn read_table(reader: &mut StateReader<'_>) -> Result<kvm_dtable, StateError> {
    Ok(kvm_dtable {
        base: reader.u64()?,
        limit: reader.u16()?,
        padding: [0; 3],
    })
}

fn write_sregs(writer: &mut StateWriter, sregs: &kvm_sregs2) {
    for segment in [
        &sregs.cs, &sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss, &sregs.tr, &sregs.ldt,
    ] {
        write_segment(writer, segment);
    }
    for table in [&sregs.gdt, &sregs.idt] {
        writer.u64(table.base).u16(table.limit);
    }
    for value in [
        sregs.cr0,
        sregs.cr2,
        sregs.cr3,
        sregs.cr4,
        sregs.cr8,
        sregs.efer,
        sregs.apic_base,
        sregs.flags,
    ] {
        writer.u64(value);
    }
    for value in sregs.pdptrs {
        writer.u64(value);
    }
}

fn read_sregs(reader: &mut StateReader<'_>) -> Result<kvm_sregs2, StateError> {
    Ok(kvm_sregs2 {
        cs: read_segment(reader)?,
        ds: read_segment(reader)?,
        es: read_segment(reader)?,
        fs: read_segment(reader)?,
        gs: read_segment(reader)?,
        ss: read_segment(reader)?,
        tr: read_segment(reader)?,
        ldt: read_segment(reader)?,
        gdt: read_table(reader)?,
        idt: read_table(reader)?,
        cr0: reader.u64()?,
        cr2: reader.u64()?,
        cr3: reader.u64()?,
        cr4: reader.u64()?,
        cr8: reader.u64()?,
        efer: reader.u64()?,
        apic_base: reader.u64()?,
        flags: reader.u64()?,
        pdptrs: [reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?],
    })
}

fn read_xcrs(reader: &mut StateReader<'_>) -> Result<Vec<kvm_xcr>, StateError> {
    let count = reader.u8()?;
    check(u32::from(count) <= KVM_MAX_XCRS, "xcrs")?;
    (0..count)
        .map(|_| {
            Ok(kvm_xcr {
                xcr: reader.u32()?,
                reserved: 0,
                value: reader.u64()?,
            })
        })
        .collect()
}

fn read_xsave(reader: &mut StateReader<'_>) -> Result<Vec<u32>, StateError> {
    let length = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
    let possible = (MIN_XSAVE_BYTES..=MAX_XSAVE_BYTES).contains(&length) && length % 4 == 0;
    check(possible, "xsave")?;
    (0..length / 4).map(|_| reader.u32()).collect()
}

fn read_debug(reader: &mut StateReader<'_>) -> Result<kvm_debugregs, StateError> {
    Ok(kvm_debugregs {
        db: [reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?],
        dr6: reader.u64()?,
        dr7: reader.u64()?,
        flags: 0,
        reserved: [0; 9],
    })
}

fn write_events(writer: &mut StateWriter, events: &kvm_vcpu_events) {
    let kvm_vcpu_events {
        exception,
        interrupt,
        nmi,
        sipi_vector,
        flags,
        smi,
        triple_fault,
        exception_has_payload,
        exception_payload,
        ..
    } = *events;
    writer
        .u32(flags)
        .bytes(&[
            exception.injected,
            exception.nr,
            exception.has_error_code,
            exception.pending,
            exception_has_payload,
        ])
        .u32(exception.error_code)
        .u64(exception_payload)
        .bytes(&[
            interrupt.injected,
            interrupt.nr,
            interrupt.soft,
            interrupt.shadow,
            nmi.injected,
            nmi.pending,
            nmi.masked,
            smi.smm,
            smi.pending,
            smi.smm_inside_nmi,
            smi.latched_init,
            triple_fault.pending,
        ])
        .u32(sipi_vector);
}

fn read_events(reader: &mut StateReader<'_>) -> Result<kvm_vcpu_events, StateError> {
    let mut events = kvm_vcpu_events {
        flags: reader.u32()?,
        ..Default::default()
    };
    let exception = &mut events.exception;
    [
        exception.injected,
        exception.nr,
        exception.has_error_code,
        exception.pending,
        events.exception_has_payload,
    ] = reader.bytes()?;
    exception.error_code = reader.u32()?;
    events.exception_payload = reader.u64()?;
    let (interrupt, nmi, smi) = (&mut events.interrupt, &mut events.nmi, &mut events.smi);
    [
        interrupt.injected,
        interrupt.nr,
        interrupt.soft,
        interrupt.shadow,
        nmi.injected,
        nmi.pending,
        nmi.masked,
        smi.smm,
        smi.pending,
        smi.smm_inside_nmi,
        smi.latched_init,
        events.triple_fault.pending,
    ] = reader.bytes()?;
    events.sipi_vector = reader.u32()?;
    Ok(events)
}

fn read_tsc(reader: &mut StateReader<'_>) -> Result<Tsc, StateError> {
    let value = reader.u64()?;
    let told = reader.bool("tsc offset")?;
    let offset = reader.u64()?;
    check(told || offset == 0, "tsc offset")?;
    Ok(Tsc {
        value,
        offset: told.then_some(offset),
        monotonic: reader.u64()?,
    })
}

fn read_msrs(reader: &mut StateReader<'_>) -> Result<Vec<(u32, u64)>, StateError> {
    let count = usize::from(reader.u16()?);
    check(count <= MAX_MSRS, "msrs")?;
    let mut msrs: Vec<(u32, u64)> = Vec::with_capacity(count);
    for _ in 0..count {
        let (index, value) = (reader.u32()?, reader.u64()?);
        check(msrs.last().is_none_or(|last| last.0 < index), "msrs")?;
        msrs.push((index, value));
    }
    Ok(msrs)
}
