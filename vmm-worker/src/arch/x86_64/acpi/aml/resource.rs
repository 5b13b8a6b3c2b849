//! Resource descriptors (§6.4) and the templates they are put together in.

use std::ops::Range;

use super::buffer;

/// A buffer of resource descriptors, with its end tag (§6.4.2.9; a checksum of 0 is not checked).
pub(in super::super) fn template(descriptors: &[Vec<u8>]) -> Vec<u8> {
    const END_TAG: [u8; 2] = [0x79, 0];
    buffer(&[descriptors.concat().as_slice(), &END_TAG].concat())
}

/// An I/O port descriptor (§6.4.2.5): the ports, fully decoded; at most 255.
pub(in super::super) fn ports(ports: &Range<u16>) -> Vec<u8> {
    const TAG: u8 = 0x47;
    const DECODES_16_BITS: u8 = 1;
    const ALIGNMENT: u8 = 1;
    let [low, high] = ports.start.to_le_bytes();
    let length = u8::try_from(ports.end - ports.start).unwrap_or(u8::MAX);
    vec![
        TAG,
        DECODES_16_BITS,
        low,
        high,
        low,
        high,
        ALIGNMENT,
        length,
    ]
}

/// An extended interrupt descriptor (§6.4.3.6): consumed, edge triggered, active high, not shared.
pub(in super::super) fn edge_interrupt(gsi: u32) -> Vec<u8> {
    const TAG: u8 = 0x89;
    const LENGTH: [u8; 2] = [6, 0];
    const CONSUMER_EDGE: u8 = 0b11;
    const COUNT: u8 = 1;
    [
        &[TAG][..],
        &LENGTH,
        &[CONSUMER_EDGE, COUNT],
        &gsi.to_le_bytes(),
    ]
    .concat()
}

/// A fixed range of memory below 4 GiB (§6.4.3.4), writable.
pub(in super::super) fn fixed_memory(range: &Range<u64>) -> Vec<u8> {
    const TAG: u8 = 0x86;
    const LENGTH: [u8; 2] = [9, 0];
    const WRITABLE: u8 = 1;
    let low = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    [
        &[TAG][..],
        &LENGTH,
        &[WRITABLE],
        &low(range.start),
        &low(range.end - range.start),
    ]
    .concat()
}

/// Address space descriptors (§6.4.3.5): what a bridge hands on to the bus behind it.
const MEMORY: u8 = 0;
const BUS_NUMBERS: u8 = 2;
/// Of a bridge, positively decoded, both ends fixed.
const PRODUCER_FIXED: u8 = 0b1100;
/// Memory that is writable and not cacheable.
const WRITABLE_UNCACHED: u8 = 1;

/// Bus numbers, both included, of a bridge.
pub(in super::super) fn bus_numbers(first: u8, last: u8) -> Vec<u8> {
    const TAG: u8 = 0x88;
    const LENGTH: [u8; 2] = [13, 0];
    let words = [0, first.into(), last.into(), 0, u16::from(last - first) + 1];
    [
        &[TAG][..],
        &LENGTH,
        &[BUS_NUMBERS, PRODUCER_FIXED, 0],
        words.map(u16::to_le_bytes).as_flattened(),
    ]
    .concat()
}

/// A window of memory of a bridge, described by 32 bits; it lies below 4 GiB.
pub(in super::super) fn window_32(range: &Range<u64>) -> Vec<u8> {
    const TAG: u8 = 0x87;
    const LENGTH: [u8; 2] = [23, 0];
    let low = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let words = window(range).map(low);
    [
        &[TAG][..],
        &LENGTH,
        &[MEMORY, PRODUCER_FIXED, WRITABLE_UNCACHED],
        words.map(u32::to_le_bytes).as_flattened(),
    ]
    .concat()
}

/// A window of memory of a bridge, described by 64 bits.
pub(in super::super) fn window_64(range: &Range<u64>) -> Vec<u8> {
    const TAG: u8 = 0x8A;
    const LENGTH: [u8; 2] = [43, 0];
    [
        &[TAG][..],
        &LENGTH,
        &[MEMORY, PRODUCER_FIXED, WRITABLE_UNCACHED],
        window(range).map(u64::to_le_bytes).as_flattened(),
    ]
    .concat()
}

/// Granularity, first and last address, translation, length; the range is not empty.
fn window(range: &Range<u64>) -> [u64; 5] {
    let length = range.end.saturating_sub(range.start);
    [0, range.start, range.end.saturating_sub(1), 0, length]
}
