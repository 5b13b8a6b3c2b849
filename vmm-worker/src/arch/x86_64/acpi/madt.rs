//! The MADT (5.2.12): processors and interrupt controllers.

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

use super::AcpiConfig;
use crate::arch::x86_64::layout;

/// From this APIC id on a processor has an entry of the x2APIC form: 255 is xAPIC's broadcast.
pub(super) const X2APIC_FROM: u32 = 255;

/// The machine has PICs too, which must be disabled.
const PCAT_COMPAT: u32 = 1 << 0;
/// The processor is usable.
const ENABLED: u32 = 1 << 0;
/// The processor is not there, but may come.
const ONLINE_CAPABLE: u32 = 1 << 1;
/// Flags of an interrupt (table 5.26): active high, edge triggered; and active high, level.
const HIGH_EDGE: u16 = 0b01_01;
const HIGH_LEVEL: u16 = 0b11_01;
/// Local interrupt pin of non-maskable interrupts.
const LINT1: u8 = 1;

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    lapic_address: U32,
    flags: U32,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LocalApic {
    kind: u8,
    length: u8,
    uid: u8,
    apic_id: u8,
    flags: U32,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct IoApic {
    kind: u8,
    length: u8,
    id: u8,
    reserved: u8,
    address: U32,
    gsi_base: U32,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct SourceOverride {
    kind: u8,
    length: u8,
    bus: u8,
    source: u8,
    gsi: U32,
    flags: U16,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LocalApicNmi {
    kind: u8,
    length: u8,
    uid: u8,
    flags: U16,
    lint: u8,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LocalX2Apic {
    kind: u8,
    length: u8,
    reserved: U16,
    apic_id: U32,
    flags: U32,
    uid: U32,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LocalX2ApicNmi {
    kind: u8,
    length: u8,
    flags: U16,
    uid: U32,
    lint: u8,
    reserved: [u8; 3],
}

/// The table without its header.
pub(super) fn body(config: &AcpiConfig) -> Vec<u8> {
    let mut body = Vec::new();
    let flags = if config.legacy_pic { PCAT_COMPAT } else { 0 };
    let lapic_address = layout::LAPIC_BASE.into();
    put(
        &mut body,
        &Header {
            lapic_address,
            flags: flags.into(),
        },
    );
    for index in 0..config.possible_vcpus() {
        let flags = if index < config.vcpus {
            ENABLED
        } else {
            ONLINE_CAPABLE
        };
        processor(&mut body, index, flags);
    }
    put(
        &mut body,
        &IoApic {
            kind: 1,
            length: 12,
            id: 0,
            reserved: 0,
            address: layout::IOAPIC_BASE.into(),
            gsi_base: 0.into(),
        },
    );
    if config.legacy_pic {
        // KVM's PIT, ISA interrupt 0, is wired to pin 2.
        put(&mut body, &source_override(0, 2, HIGH_EDGE));
    }
    let sci = layout::SCI_GSI;
    put(&mut body, &source_override(sci, sci, HIGH_LEVEL));
    nmi(&mut body, config.possible_vcpus());
    body
}

fn processor(body: &mut Vec<u8>, index: u32, flags: u32) {
    match u8::try_from(index) {
        Ok(id) if index < X2APIC_FROM => put(body, &local_apic(id, flags)),
        _ => put(body, &local_x2apic(index, flags)),
    }
}

fn local_apic(id: u8, flags: u32) -> LocalApic {
    LocalApic {
        kind: 0,
        length: 8,
        uid: id,
        apic_id: id,
        flags: flags.into(),
    }
}

fn local_x2apic(index: u32, flags: u32) -> LocalX2Apic {
    LocalX2Apic {
        kind: 9,
        length: 16,
        reserved: 0.into(),
        apic_id: index.into(),
        flags: flags.into(),
        uid: index.into(),
    }
}

/// The entry of an enabled processor of a number below [`X2APIC_FROM`], which is to be put into
/// bytes 2 and 3.
pub(super) fn enabled_local_apic() -> Vec<u8> {
    local_apic(0, ENABLED).as_bytes().to_vec()
}

/// The entry of an enabled processor of a number from [`X2APIC_FROM`] on, which is to be put, 32
/// bits each, at bytes 4 and 12.
pub(super) fn enabled_local_x2apic() -> Vec<u8> {
    local_x2apic(0, ENABLED).as_bytes().to_vec()
}

fn source_override(source: u8, gsi: u8, flags: u16) -> SourceOverride {
    SourceOverride {
        kind: 2,
        length: 10,
        bus: 0,
        source,
        gsi: u32::from(gsi).into(),
        flags: flags.into(),
    }
}

/// LINT1 of every processor is for non-maskable interrupts.
fn nmi(body: &mut Vec<u8>, vcpus: u32) {
    let flags = HIGH_EDGE.into();
    put(
        body,
        &LocalApicNmi {
            kind: 4,
            length: 6,
            uid: 0xFF,
            flags,
            lint: LINT1,
        },
    );
    if vcpus > X2APIC_FROM {
        put(
            body,
            &LocalX2ApicNmi {
                kind: 0xA,
                length: 12,
                flags,
                uid: u32::MAX.into(),
                lint: LINT1,
                reserved: [0; 3],
            },
        );
    }
}

fn put(body: &mut Vec<u8>, entry: &(impl IntoBytes + Immutable)) {
    body.extend_from_slice(entry.as_bytes());
}
