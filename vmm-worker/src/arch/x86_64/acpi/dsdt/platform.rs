//! Devices of the platform that a machine may have: the generation id and the panic port.

use super::super::AcpiConfig;
use super::super::aml::{self, NameSegment, code, resource};
use crate::arch::x86_64::layout;

/// The generation id's device.
const GENERATION: NameSegment = *b"VGEN";
/// What its driver is notified of (Microsoft, Virtual Machine Generation ID): the id has changed.
const CHANGED: u32 = 0x80;

/// Those that there are.
pub(super) fn devices(config: &AcpiConfig) -> Vec<u8> {
    let generation = config.generation_id.map(|_| generation());
    let panic = config.panic_port.then(panic_port);
    [generation, panic]
        .into_iter()
        .flatten()
        .flatten()
        .collect()
}

/// The generation id (Microsoft, Virtual Machine Generation ID). Guests go by the compatible ids: the one of
/// the specification, which is longer than ACPI allows, and the one that is not. Its own id is free.
fn generation() -> Vec<u8> {
    const ID: &str = "VM_Gen_Counter";
    const SHORT_ID: &str = "VMGENCTR";
    let low = u32::try_from(layout::GENERATION_ID.start).unwrap_or(0);
    let address = aml::elements(&[aml::integer(low), aml::integer(0)]);
    let compatible = aml::elements(&[aml::string(ID), aml::string(SHORT_ID)]);
    let terms = [
        aml::name(*b"_HID", &aml::string("REEV0001")),
        aml::name(*b"_CID", &compatible),
        aml::name(*b"_DDN", &aml::string(ID)),
        aml::name(*b"ADDR", &address),
    ];
    aml::device(GENERATION, &terms.concat())
}

/// Tells the guest's driver, from anywhere, that the generation id has changed.
pub(super) fn new_generation() -> Vec<u8> {
    let device = aml::path(&[*b"_SB_", GENERATION]);
    code::notify(&device, &aml::integer(CHANGED))
}

/// The panic port (QEMU, docs/specs/pvpanic).
fn panic_port() -> Vec<u8> {
    let resources = resource::template(&[resource::ports(&layout::PANIC)]);
    let terms = [
        aml::name(*b"_HID", &aml::string("QEMU0001")),
        aml::name(*b"_UID", &aml::integer(0)),
        aml::name(*b"_CRS", &resources),
    ];
    aml::device(*b"PEVT", &terms.concat())
}
