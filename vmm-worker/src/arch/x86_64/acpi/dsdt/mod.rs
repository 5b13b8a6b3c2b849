//! The DSDT's AML: processors, the root of PCI, the devices a guest cannot find by itself, and the
//! soft-off state.

mod cpus;
mod pci;
mod platform;

use std::ops::Range;

use super::AcpiConfig;
use super::aml::{self, NameSegment, code, resource};
use crate::arch::x86_64::layout;

/// Notification values (§5.6.6): look what is there, and let go of what is there.
const DEVICE_CHECK: u32 = 1;
const EJECT_REQUEST: u32 = 3;

/// The definition block without its header.
pub(super) fn body(config: &AcpiConfig) -> Vec<u8> {
    let system_bus = [
        com1(),
        rtc(),
        motherboard(&config.ecam),
        pci::root(config),
        cpus::processors(config.possible_vcpus()),
        platform::devices(config),
    ];
    [
        aml::scope(*b"_SB_", &system_bus.concat()),
        general_events(config.generation_id.is_some()),
        soft_off(),
        interrupt_model(),
    ]
    .concat()
}

/// COM1, a 16550A.
fn com1() -> Vec<u8> {
    let resources = [resource::ports(&layout::COM1), interrupt(layout::COM1_GSI)];
    device(*b"COM1", *b"PNP0501", &resources)
}

/// The real-time clock and CMOS memory.
fn rtc() -> Vec<u8> {
    let resources = [resource::ports(&layout::RTC), interrupt(layout::RTC_GSI)];
    device(*b"RTC0", *b"PNP0B00", &resources)
}

/// Ports of the fixed hardware and of hotplug, and PCI Express' configuration space, which no driver
/// may take; a guest uses that space only if it is claimed here (PCI Firmware 3.3, 4.1.2). The reset
/// register is among the ports of the PCI root.
fn motherboard(ecam: &Range<u64>) -> Vec<u8> {
    let pm = layout::PM1A_EVENT.start..layout::GPE0.end;
    let hotplug = layout::PCI_HOTPLUG.start..layout::CPU_HOTPLUG.end;
    let resources = [
        resource::ports(&pm),
        resource::ports(&hotplug),
        resource::fixed_memory(ecam),
    ];
    device(*b"MBRD", *b"PNP0C02", &resources)
}

fn device(name: NameSegment, id: [u8; 7], resources: &[Vec<u8>]) -> Vec<u8> {
    let terms = [
        aml::name(*b"_HID", &aml::eisa_id(id)),
        aml::name(*b"_UID", &aml::integer(0)),
        aml::name(*b"_CRS", &resource::template(resources)),
    ];
    aml::device(name, &terms.concat())
}

/// `\_GPE` (5.6.4.1): what to do on an event of hotplug or of a new generation. The methods' names have
/// the events' numbers; `E` says that the status is cleared first, so that an event during the method
/// is a new one.
fn general_events(has_generation_id: bool) -> Vec<u8> {
    const { assert!(layout::PCI_HOTPLUG_GPE == 1 && layout::CPU_HOTPLUG_GPE == 2) };
    const { assert!(layout::GENERATION_GPE == 3) };
    let mut terms = vec![
        aml::method(*b"_E01", 0, &[pci::scan()]),
        aml::method(*b"_E02", 0, &[cpus::scan()]),
    ];
    if has_generation_id {
        terms.push(aml::method(*b"_E03", 0, &[platform::new_generation()]));
    }
    aml::scope(*b"_GPE", &terms.concat())
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
    let store = code::store(code::ARG0, b"PICM");
    [model, aml::method(*b"_PIC", 1, &[store])].concat()
}

/// An interrupt of an ISA device: edge triggered, active high, its own.
fn interrupt(gsi: u8) -> Vec<u8> {
    resource::edge_interrupt(gsi.into())
}

/// A hexadecimal digit of a name.
fn digit(value: u32) -> u8 {
    let digit = char::from_digit(value & 0xF, 16);
    digit.map_or(b'0', |digit| digit.to_ascii_uppercase() as u8)
}
