//! The DSDT's AML: processors, the devices a guest cannot find by itself, and the soft-off state.

use acpi_tables::Aml;
use acpi_tables::aml;

use crate::arch::x86_64::layout;

/// The definition block without its header.
pub(super) fn body(vcpus: u32) -> Vec<u8> {
    let mut system_bus = Vec::new();
    com1(&mut system_bus);
    rtc(&mut system_bus);
    motherboard(&mut system_bus);
    for index in 0..vcpus {
        processor(index, &mut system_bus);
    }
    let mut body = aml::Scope::raw("_SB_".into(), system_bus);
    soft_off(&mut body);
    interrupt_model(&mut body);
    body
}

/// COM1, a 16550A.
fn com1(bus: &mut Vec<u8>) {
    device(
        "COM1",
        "PNP0501",
        &[&io(layout::COM1), &interrupt(layout::COM1_GSI)],
        bus,
    );
}

/// The real-time clock and CMOS memory.
fn rtc(bus: &mut Vec<u8>) {
    device(
        "RTC0",
        "PNP0B00",
        &[&io(layout::RTC), &interrupt(layout::RTC_GSI)],
        bus,
    );
}

/// Ports of the fixed hardware, which no driver may take.
fn motherboard(bus: &mut Vec<u8>) {
    let pm = layout::PM1A_EVENT.start..layout::PM_TIMER.end;
    let reset = layout::RESET_PORT..layout::RESET_PORT + 1;
    device("MBRD", "PNP0C02", &[&io(pm), &io(reset)], bus);
}

fn device(name: &str, id: &str, resources: &[&dyn Aml], bus: &mut Vec<u8>) {
    let resources = aml::ResourceTemplate::new(resources.to_vec());
    aml::Device::new(
        name.into(),
        vec![
            &aml::Name::new("_HID".into(), &aml::EISAName::new(id)),
            &aml::Name::new("_UID".into(), &0u8),
            &aml::Name::new("_CRS".into(), &resources),
        ],
    )
    .to_aml_bytes(bus);
}

/// A processor device (8.4): its `_UID` is the one in the MADT.
fn processor(index: u32, bus: &mut Vec<u8>) {
    let name = format!("C{index:03X}");
    aml::Device::new(
        name.as_str().into(),
        vec![
            &aml::Name::new("_HID".into(), &"ACPI0007"),
            &aml::Name::new("_UID".into(), &index),
        ],
    )
    .to_aml_bytes(bus);
}

/// `\_S5` (7.4.2): what to write into the sleep type field of PM1a to switch off.
fn soft_off(body: &mut Vec<u8>) {
    let sleep_type = layout::S5_SLEEP_TYPE;
    let package = aml::Package::new(vec![&sleep_type, &sleep_type, &aml::ZERO, &aml::ZERO]);
    aml::Name::new("_S5_".into(), &package).to_aml_bytes(body);
}

/// `\_PIC` (5.8.1): the guest says which interrupt model it uses; nothing here depends on it.
fn interrupt_model(body: &mut Vec<u8>) {
    aml::Name::new("PICM".into(), &aml::ZERO).to_aml_bytes(body);
    let model: aml::Path = "PICM".into();
    aml::Method::new(
        "_PIC".into(),
        1,
        false,
        vec![&aml::Store::new(&model, &aml::Arg(0))],
    )
    .to_aml_bytes(body);
}

fn io(ports: std::ops::Range<u16>) -> aml::IO {
    let length = u8::try_from(ports.end - ports.start).unwrap_or(u8::MAX);
    aml::IO::new(ports.start, ports.start, 1, length)
}

/// An interrupt of an ISA device: edge triggered, active high, its own.
fn interrupt(gsi: u8) -> aml::Interrupt {
    aml::Interrupt::new(true, true, false, false, u32::from(gsi))
}
