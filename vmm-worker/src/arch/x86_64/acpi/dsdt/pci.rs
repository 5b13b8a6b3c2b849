//! `\_SB.PCI0`: the root of the only PCI bus, its windows, and its slots, all of which can be
//! plugged.

use std::ops::Range;

use super::super::AcpiConfig;
use super::super::aml::{self, NameSegment, code, resource};
use super::{DEVICE_CHECK, EJECT_REQUEST, digit};
use crate::arch::x86_64::layout;

/// The slots that can be plugged; 0 is the host bridge.
const SLOTS: Range<u32> = 1..32;

/// Registers of hotplug: slots that were filled, slots to be emptied, what is ejected.
const UP: NameSegment = *b"PUP_";
const DOWN: NameSegment = *b"PDWN";
const EJECT: NameSegment = *b"PEJR";
/// Held while the registers' news are handed on.
const MUTEX: NameSegment = *b"PLCK";
/// Methods: looks for news; notifies the slots of a set; ejects.
const SCAN: NameSegment = *b"PSCN";
const NOTIFY: NameSegment = *b"PNTF";
const EJECT_SLOT: NameSegment = *b"PEJS";

/// The device.
pub(super) fn root(config: &AcpiConfig) -> Vec<u8> {
    let zero = aml::integer(0);
    let mut terms = vec![
        aml::name(*b"_HID", &aml::eisa_id(*b"PNP0A08")),
        aml::name(*b"_CID", &aml::eisa_id(*b"PNP0A03")),
        aml::name(*b"_UID", &zero),
        aml::name(*b"_SEG", &zero),
        aml::name(*b"_BBN", &zero),
        aml::name(*b"_CRS", &windows(config)),
        control(),
        aml::registers(*b"PHPR", &layout::PCI_HOTPLUG, &[UP, DOWN, EJECT]),
        aml::mutex(MUTEX),
        eject_slot(),
    ];
    terms.extend(SLOTS.map(slot));
    terms.extend([notify_slots(), scan_slots()]);
    aml::device(*b"PCI0", &terms.concat())
}

/// What the bridge hands on: bus 0, the configuration ports, which it keeps for itself, memory. It
/// has no window of I/O ports, as no function of ours has a BAR of that kind.
fn windows(config: &AcpiConfig) -> Vec<u8> {
    let mut windows = vec![
        resource::bus_numbers(0, 0),
        resource::ports(&layout::PCI_CONFIG),
    ];
    let pieces = around(&config.window_32, &config.ecam);
    windows.extend(
        pieces
            .into_iter()
            .flatten()
            .map(|window| resource::window_32(&window)),
    );
    windows.extend(config.pci_window_64.as_ref().map(resource::window_64));
    resource::template(&windows)
}

/// What of `window` is below `hole`, and what is above it.
fn around(window: &Range<u64>, hole: &Range<u64>) -> [Option<Range<u64>>; 2] {
    let below = window.start..window.end.min(hole.start);
    let above = window.start.max(hole.end)..window.end;
    [below, above].map(|piece| Some(piece).filter(|piece| !piece.is_empty()))
}

/// `_OSC` (§6.2.11; PCI Firmware 3.3, 4.5): the guest asks which features of PCI Express it may run
/// by itself. It may run all that do not depend on a port above the functions, but not hotplug,
/// which is done by the methods below.
fn control() -> Vec<u8> {
    const PCI_HOST_BRIDGE: u128 = 0x33db_4d5b_1ff7_401c_9657_7441_c03d_d766;
    const REVISION: u32 = 1;
    /// PME, AER, the capability structures, LTR.
    const GRANTED: u32 = 0b11_1100;
    const UNKNOWN_UUID: u32 = 1 << 2;
    const UNKNOWN_REVISION: u32 = 1 << 3;
    const MASKED: u32 = 1 << 4;
    const STATUS: NameSegment = *b"CDW1";
    const CONTROL: NameSegment = *b"CDW3";

    let report = |bit| code::or(&STATUS, &aml::integer(bit), &STATUS);
    let ours = code::equal(code::ARG0, &aml::uuid(PCI_HOST_BRIDGE));
    aml::serialized_method(
        *b"_OSC",
        4,
        &[
            code::dword_field(code::ARG3, 0, STATUS),
            code::when(
                &ours,
                &[
                    code::dword_field(code::ARG3, 8, CONTROL),
                    code::and(&CONTROL, &aml::integer(GRANTED), code::LOCAL0),
                    code::when(
                        &code::not_equal(code::ARG1, &aml::integer(REVISION)),
                        &[report(UNKNOWN_REVISION)],
                    ),
                    code::when(&code::not_equal(&CONTROL, code::LOCAL0), &[report(MASKED)]),
                    code::store(code::LOCAL0, &CONTROL),
                ],
            ),
            code::otherwise(&[report(UNKNOWN_UUID)]),
            code::give(code::ARG3),
        ],
    )
}

fn slot_name(slot: u32) -> NameSegment {
    [b'S', digit(slot >> 4), digit(slot), b'_']
}

/// A slot, whether there is something in it or not: a guest looks into its configuration space.
fn slot(slot: u32) -> Vec<u8> {
    let eject = code::call(&EJECT_SLOT, &[&aml::integer(slot)]);
    let terms = [
        aml::name(*b"_ADR", &aml::integer(slot << 16)),
        aml::name(*b"_SUN", &aml::integer(slot)),
        aml::method(*b"_EJ0", 1, &[eject]),
    ];
    aml::device(slot_name(slot), &terms.concat())
}

/// Ejects what is in slot Arg0.
fn eject_slot() -> Vec<u8> {
    let set_bit = code::shift_left(&aml::integer(1), code::ARG0, &EJECT);
    aml::method(EJECT_SLOT, 1, &[set_bit])
}

/// Notifies each slot of the set Arg0 with Arg1.
fn notify_slots() -> Vec<u8> {
    let one = |slot| {
        let bit = code::and(code::ARG0, &aml::integer(1_u32 << slot), code::NOWHERE);
        code::when(&bit, &[code::notify(&slot_name(slot), code::ARG1)])
    };
    let terms: Vec<_> = SLOTS.map(one).collect();
    aml::method(NOTIFY, 2, &terms)
}

/// Hands on what the registers have to report; reading them clears them.
fn scan_slots() -> Vec<u8> {
    let hand_on = |register: NameSegment, value| {
        let arguments: [&[u8]; 2] = [code::LOCAL0, &aml::integer(value)];
        [
            code::store(&register, code::LOCAL0),
            code::call(&NOTIFY, &arguments),
        ]
    };
    let terms = [hand_on(UP, DEVICE_CHECK), hand_on(DOWN, EJECT_REQUEST)].concat();
    aml::method(SCAN, 0, &[code::holding(MUTEX, &terms)])
}

/// A call, from anywhere, that hands on all news of the slots.
pub(super) fn scan() -> Vec<u8> {
    aml::path(&[*b"_SB_", *b"PCI0", SCAN])
}
