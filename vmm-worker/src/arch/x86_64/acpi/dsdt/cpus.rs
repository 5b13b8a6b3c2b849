//! The processors: those that are there and those that may come, each a device that asks the hotplug
//! registers how it stands.
//!
//! A processor costs 106 bytes here; what can be shared is in methods that take its number.

use super::super::aml::{self, NameSegment, code};
use super::super::madt;
use super::{DEVICE_CHECK, EJECT_REQUEST, digit};
use crate::arch::x86_64::layout;

/// Registers of hotplug: the processor they are about, its flags, the first one with news, what came of it.
const SELECT: NameSegment = *b"CSEL";
const FLAGS: NameSegment = *b"CFLG";
const PENDING: NameSegment = *b"CPND";
const OUTCOME: NameSegment = *b"COUT";
/// Flags of a processor.
const PRESENT: u32 = 1 << 0;
const INSERTED: u32 = 1 << 1;
const REMOVE: u32 = 1 << 2;
const EJECT: u32 = 1 << 3;

/// Held from a selection to the last use of the flags.
const MUTEX: NameSegment = *b"CLCK";
/// Methods on the processor that Arg0 is the number of: `_STA`, `_MAT`, `_EJ0`, `_OST` without its buffer,
/// and a notification of Arg1; none has the form of a processor's name.
const STATUS: NameSegment = *b"CSTA";
const MADT_ENTRY: NameSegment = *b"CMAT";
const EJECT_CPU: NameSegment = *b"CEJ0";
const TELL: NameSegment = *b"CTEL";
const NOTIFY: NameSegment = *b"CNTF";
/// The method that looks for news.
const SCAN: NameSegment = *b"CSCN";

/// Devices for the processors 0 to `possible - 1`, and what they have in common.
pub(super) fn processors(possible: u32) -> Vec<u8> {
    let mut terms = vec![
        aml::registers(
            *b"CHPR",
            &layout::CPU_HOTPLUG,
            &[SELECT, FLAGS, PENDING, OUTCOME],
        ),
        aml::mutex(MUTEX),
        status(),
        madt_entry(),
        eject(),
        tell(),
    ];
    terms.extend((0..possible).map(processor));
    terms.extend([notify(possible), scan_processors(possible)]);
    terms.concat()
}

fn name(index: u32) -> NameSegment {
    [b'C', digit(index >> 8), digit(index >> 4), digit(index)]
}

/// A processor device (8.4): its `_UID` is the one in the MADT.
fn processor(index: u32) -> Vec<u8> {
    let number = aml::integer(index);
    let ask = |method: NameSegment| code::give(&code::call(&method, &[&number]));
    let mut terms = vec![
        aml::name(*b"_HID", &aml::string("ACPI0007")),
        aml::name(*b"_UID", &number),
        aml::method(*b"_STA", 0, &[ask(STATUS)]),
        aml::method(*b"_MAT", 0, &[ask(MADT_ENTRY)]),
    ];
    let tell = code::call(&TELL, &[&number, code::ARG0, code::ARG1]);
    terms.push(aml::method(*b"_OST", 3, &[tell]));
    // The boot processor cannot go.
    if index != 0 {
        let eject = code::call(&EJECT_CPU, &[&number]);
        terms.push(aml::method(*b"_EJ0", 1, &[eject]));
    }
    aml::device(name(index), &terms.concat())
}

fn select(index: &[u8]) -> Vec<u8> {
    code::store(index, &SELECT)
}

/// `_STA` (§6.3.7) of processor Arg0.
fn status() -> Vec<u8> {
    const THERE_AND_WORKING: u32 = 0xF;
    let present = code::and(&FLAGS, &aml::integer(PRESENT), code::NOWHERE);
    let look = [
        select(code::ARG0),
        code::when(
            &present,
            &[code::store(&aml::integer(THERE_AND_WORKING), code::LOCAL0)],
        ),
    ];
    let terms = [
        code::store(&aml::integer(0), code::LOCAL0),
        code::holding(MUTEX, &look),
        code::give(code::LOCAL0),
    ];
    aml::method(STATUS, 1, &terms)
}

/// `_MAT` (§6.2.10) of processor Arg0, which is there: its entry of the MADT, enabled.
fn madt_entry() -> Vec<u8> {
    // The number goes where a template has zeros; only the lowest byte of it fits an element.
    let put = |shift, at| {
        let element = code::element(code::LOCAL0, at);
        match shift {
            0 => code::store(code::ARG0, &element),
            shift => code::shift_right(code::ARG0, &aml::integer(shift), &element),
        }
    };
    let start = |template: &[u8]| code::store(&aml::buffer(template), code::LOCAL0);
    let small = [start(&madt::enabled_local_apic()), put(0, 2), put(0, 3)];
    let large = [
        start(&madt::enabled_local_x2apic()),
        put(0, 4),
        put(8, 5),
        put(0, 12),
        put(8, 13),
    ];
    let is_small = code::less(code::ARG0, &aml::integer(madt::X2APIC_FROM));
    let terms = [
        code::when(&is_small, &small),
        code::otherwise(&large),
        code::give(code::LOCAL0),
    ];
    aml::method(MADT_ENTRY, 1, &terms)
}

/// `_EJ0` (§6.3.3) of processor Arg0.
fn eject() -> Vec<u8> {
    let terms = [
        select(code::ARG0),
        code::store(&aml::integer(EJECT), &FLAGS),
    ];
    aml::method(EJECT_CPU, 1, &[code::holding(MUTEX, &terms)])
}

/// `_OST` (§6.3.5) of processor Arg0: the source event, Arg1, and the status, Arg2, in one register. Whatever
/// is in their upper halves means nothing.
fn tell() -> Vec<u8> {
    let half = aml::integer(0xFFFF);
    let terms = [
        code::and(code::ARG2, &half, code::LOCAL0),
        code::shift_left(code::ARG1, &aml::integer(16), code::LOCAL1),
        code::or(code::LOCAL0, code::LOCAL1, code::LOCAL0),
        select(code::ARG0),
        code::store(code::LOCAL0, &OUTCOME),
    ];
    aml::method(TELL, 3, &[code::holding(MUTEX, &terms)])
}

/// Notifies processor Arg0 with Arg1.
fn notify(possible: u32) -> Vec<u8> {
    let one = |index| {
        let is_it = code::equal(code::ARG0, &aml::integer(index));
        code::when(&is_it, &[code::notify(&name(index), code::ARG1)])
    };
    let terms: Vec<_> = (0..possible).map(one).collect();
    aml::method(NOTIFY, 2, &terms)
}

/// Hands on what the registers have to report. Exactly what was seen is acknowledged, so that what
/// comes in between stays.
fn scan_processors(possible: u32) -> Vec<u8> {
    let news = aml::integer(INSERTED | REMOVE);
    let hand_on = |flag, value| {
        let is_so = code::and(code::LOCAL1, &aml::integer(flag), code::NOWHERE);
        let arguments: [&[u8]; 2] = [code::LOCAL0, &aml::integer(value)];
        code::when(&is_so, &[code::call(&NOTIFY, &arguments)])
    };
    let next = code::store(&PENDING, code::LOCAL0);
    let each = [
        select(code::LOCAL0),
        code::and(&FLAGS, &news, code::LOCAL1),
        code::store(code::LOCAL1, &FLAGS),
        hand_on(INSERTED, DEVICE_CHECK),
        hand_on(REMOVE, EJECT_REQUEST),
        next.clone(),
    ];
    let some = code::less(code::LOCAL0, &aml::integer(possible));
    let terms = [next, code::repeat_while(&some, &each)];
    aml::method(SCAN, 0, &[code::holding(MUTEX, &terms)])
}

/// A call, from anywhere, that hands on all news of the processors.
pub(super) fn scan() -> Vec<u8> {
    aml::path(&[*b"_SB_", SCAN])
}
