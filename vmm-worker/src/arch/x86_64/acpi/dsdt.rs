//! The DSDT's AML: processors, the devices a guest cannot find by itself, and the soft-off state.

use std::ops::Range;

use super::aml::{self, NameSegment};
use crate::arch::x86_64::layout;

/// The definition block without its header.
pub(super) fn body(vcpus: u32) -> Vec<u8> {
    let mut system_bus = [com1(), rtc(), motherboard()].concat();
    for index in 0..vcpus {
        system_bus.extend(processor(index));
    }
    let system_bus = aml::scope(*b"_SB_", &system_bus);
    [system_bus, soft_off(), interrupt_model()].concat()
}

/// COM1, a 16550A.
fn com1() -> Vec<u8> {
    let resources = [ports(&layout::COM1), interrupt(layout::COM1_GSI)];
    device(*b"COM1", *b"PNP0501", &resources)
}

/// The real-time clock and CMOS memory.
fn rtc() -> Vec<u8> {
    let resources = [ports(&layout::RTC), interrupt(layout::RTC_GSI)];
    device(*b"RTC0", *b"PNP0B00", &resources)
}

/// Ports of the fixed hardware, which no driver may take.
fn motherboard() -> Vec<u8> {
    let pm = layout::PM1A_EVENT.start..layout::PM_TIMER.end;
    let reset = layout::RESET_PORT..layout::RESET_PORT + 1;
    device(*b"MBRD", *b"PNP0C02", &[ports(&pm), ports(&reset)])
}

fn device(name: NameSegment, id: [u8; 7], resources: &[Vec<u8>]) -> Vec<u8> {
    let terms = [
        aml::name(*b"_HID", &aml::eisa_id(id)),
        aml::name(*b"_UID", &aml::integer(0)),
        aml::name(*b"_CRS", &aml::resources(resources)),
    ];
    aml::device(name, &terms.concat())
}

/// A processor device (8.4): its `_UID` is the one in the MADT.
fn processor(index: u32) -> Vec<u8> {
    let digit = |shift: u32| {
        let digit = index >> shift & 0xF;
        char::from_digit(digit, 16).map_or(b'0', |digit| digit.to_ascii_uppercase() as u8)
    };
    let terms = [
        aml::name(*b"_HID", &aml::string("ACPI0007")),
        aml::name(*b"_UID", &aml::integer(index)),
    ];
    aml::device([b'C', digit(8), digit(4), digit(0)], &terms.concat())
}

/// `\_S5` (7.4.2): what to write into the sleep type field of PM1a to switch off.
fn soft_off() -> Vec<u8> {
    let sleep_type = aml::integer(layout::S5_SLEEP_TYPE.into());
    let zero = aml::integer(0);
    let package = aml::elements(&[sleep_type.clone(), sleep_type, zero.clone(), zero]);
    aml::name(*b"_S5_", &package)
}

/// `\_PIC` (5.8.1): the guest says which interrupt model it uses; nothing here depends on it.
fn interrupt_model() -> Vec<u8> {
    let model = aml::name(*b"PICM", &aml::integer(0));
    [model, aml::storing_method(*b"_PIC", *b"PICM")].concat()
}

fn ports(ports: &Range<u16>) -> Vec<u8> {
    let length = u8::try_from(ports.end - ports.start).unwrap_or(u8::MAX);
    aml::ports(ports.start, length)
}

/// An interrupt of an ISA device: edge triggered, active high, its own.
fn interrupt(gsi: u8) -> Vec<u8> {
    aml::edge_interrupt(gsi.into())
}
