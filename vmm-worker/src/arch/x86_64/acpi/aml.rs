//! The ACPI Machine Language that the DSDT is written in (ACPI 6.5 §20.2): the few terms we use.
//!
//! Every function gives a whole term; terms are put together by appending.

/// A named thing: four characters.
pub(super) type NameSegment = [u8; 4];

const ZERO_OP: u8 = 0x00;
const ONE_OP: u8 = 0x01;
const NAME_OP: u8 = 0x08;
const BYTE_PREFIX: u8 = 0x0A;
const WORD_PREFIX: u8 = 0x0B;
const DWORD_PREFIX: u8 = 0x0C;
const STRING_PREFIX: u8 = 0x0D;
const SCOPE_OP: u8 = 0x10;
const BUFFER_OP: u8 = 0x11;
const PACKAGE_OP: u8 = 0x12;
const METHOD_OP: u8 = 0x14;
const ARG0_OP: u8 = 0x68;
const STORE_OP: u8 = 0x70;
const EXTENDED: u8 = 0x5B;
const DEVICE_OP: u8 = 0x82;

/// `PkgLength` of a term whose content has `content` bytes; the length counts itself (§20.2.4).
fn package_length(content: usize) -> Vec<u8> {
    // The first byte has six bits of a length that stands alone, else four, and eight each follow.
    let own = match content {
        0..=62 => 1,
        63..=0xFFD => 2,
        0xFFE..=0xF_FFFC => 3,
        _ => 4,
    };
    let [low, middle, high, _] = u32::try_from(content + own)
        .unwrap_or(u32::MAX)
        .to_le_bytes();
    let shifted = |low: u8, high: u8| low >> 4 | high << 4;
    match own {
        1 => vec![low],
        2 => vec![0x40 | low & 0xF, shifted(low, middle)],
        3 => vec![
            0x80 | low & 0xF,
            shifted(low, middle),
            shifted(middle, high),
        ],
        _ => vec![
            0xC0 | low & 0xF,
            shifted(low, middle),
            shifted(middle, high),
            high >> 4,
        ],
    }
}

/// A term of an operator, its length, and its content.
fn package(operator: &[u8], content: &[u8]) -> Vec<u8> {
    let mut term = operator.to_vec();
    term.extend(package_length(content.len()));
    term.extend_from_slice(content);
    term
}

/// `DefScope` (§20.2.5.1).
pub(super) fn scope(name: NameSegment, terms: &[u8]) -> Vec<u8> {
    package(&[SCOPE_OP], &[&name, terms].concat())
}

/// `DefDevice` (§20.2.5.2).
pub(super) fn device(name: NameSegment, terms: &[u8]) -> Vec<u8> {
    package(&[EXTENDED, DEVICE_OP], &[&name, terms].concat())
}

/// `DefName` (§20.2.5.1).
pub(super) fn name(name: NameSegment, value: &[u8]) -> Vec<u8> {
    [&[NAME_OP], &name[..], value].concat()
}

/// An integer in its shortest form (§20.2.3).
pub(super) fn integer(value: u32) -> Vec<u8> {
    let [b0, b1, b2, b3] = value.to_le_bytes();
    match value {
        0 => vec![ZERO_OP],
        1 => vec![ONE_OP],
        2..=0xFF => vec![BYTE_PREFIX, b0],
        0x100..=0xFFFF => vec![WORD_PREFIX, b0, b1],
        _ => vec![DWORD_PREFIX, b0, b1, b2, b3],
    }
}

/// A string without a NUL in it (§20.2.3).
pub(super) fn string(text: &str) -> Vec<u8> {
    [&[STRING_PREFIX], text.as_bytes(), &[0]].concat()
}

/// A PNP identifier, three letters and four hexadecimal digits, packed into an integer (§19.3.4).
pub(super) const fn eisa_id(id: [u8; 7]) -> [u8; 5] {
    const fn letter(letter: u8) -> u32 {
        (letter - b'A' + 1) as u32
    }
    const fn digit(digit: u8) -> u32 {
        (if digit > b'9' {
            digit - b'A' + 10
        } else {
            digit - b'0'
        }) as u32
    }
    let [a, b, c, d, e, f, g] = id;
    let packed = letter(a) << 26
        | letter(b) << 21
        | letter(c) << 16
        | digit(d) << 12
        | digit(e) << 8
        | digit(f) << 4
        | digit(g);
    let [b0, b1, b2, b3] = packed.to_be_bytes();
    [DWORD_PREFIX, b0, b1, b2, b3]
}

/// `DefPackage` (§20.2.5.4); at most 255 elements.
pub(super) fn elements(elements: &[Vec<u8>]) -> Vec<u8> {
    let count = u8::try_from(elements.len()).unwrap_or(u8::MAX);
    package(
        &[PACKAGE_OP],
        &[&[count], elements.concat().as_slice()].concat(),
    )
}

/// `DefMethod` (§20.2.5.2) of one argument, not serialized, that stores the argument in `target`.
pub(super) fn storing_method(name: NameSegment, target: NameSegment) -> Vec<u8> {
    const ONE_ARGUMENT: u8 = 1;
    let body = [&[ONE_ARGUMENT, STORE_OP, ARG0_OP], &target[..]].concat();
    package(&[METHOD_OP], &[&name[..], &body].concat())
}

/// A buffer of resource descriptors, with its end tag (§6.4.2.9; a checksum of 0 is not checked).
pub(super) fn resources(descriptors: &[Vec<u8>]) -> Vec<u8> {
    const END_TAG: [u8; 2] = [0x79, 0];
    let content = [descriptors.concat().as_slice(), &END_TAG].concat();
    let size = integer(u32::try_from(content.len()).unwrap_or(u32::MAX));
    package(&[BUFFER_OP], &[size, content].concat())
}

/// An I/O port descriptor (§6.4.2.5): `length` ports from `first` on, fully decoded.
pub(super) fn ports(first: u16, length: u8) -> Vec<u8> {
    const TAG: u8 = 0x47;
    const DECODES_16_BITS: u8 = 1;
    const ALIGNMENT: u8 = 1;
    let [low, high] = first.to_le_bytes();
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
pub(super) fn edge_interrupt(gsi: u32) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_counts_itself_in_every_form() {
        assert_eq!(package_length(0), [1]);
        assert_eq!(package_length(62), [63]);
        assert_eq!(package_length(63), [0x41, 4]);
        assert_eq!(package_length(0xFFD), [0x4F, 0xFF]);
        assert_eq!(package_length(0xFFE), [0x81, 0x00, 0x01]);
        assert_eq!(package_length(0xF_FFFC), [0x8F, 0xFF, 0xFF]);
        assert_eq!(package_length(0xF_FFFD), [0xC1, 0x00, 0x00, 0x01]);
    }

    #[test]
    fn integers_take_their_shortest_form() {
        assert_eq!(integer(0), [0]);
        assert_eq!(integer(1), [1]);
        assert_eq!(integer(255), [0x0A, 255]);
        assert_eq!(integer(256), [0x0B, 0, 1]);
        assert_eq!(integer(0x1_0000), [0x0C, 0, 0, 1, 0]);
    }

    #[test]
    fn a_pnp_identifier_is_packed() {
        assert_eq!(eisa_id(*b"PNP0501"), [0x0C, 0x41, 0xD0, 0x05, 0x01]);
    }
}
