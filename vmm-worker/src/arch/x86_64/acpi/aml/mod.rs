//! The ACPI Machine Language that the DSDT is written in (ACPI 6.5 §20.2): the few terms we use.
//!
//! Here are names, data and what declares objects; [`code`] has the terms that methods are made of,
//! [`resource`] the descriptors in `_CRS`. Every function gives a whole term; terms are put together
//! by appending.

pub(super) mod code;
pub(super) mod resource;

use std::ops::Range;

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
const DUAL_NAME_PREFIX: u8 = 0x2E;
const MULTI_NAME_PREFIX: u8 = 0x2F;
const ROOT_CHAR: u8 = 0x5C;
const EXTENDED: u8 = 0x5B;
/// After [`EXTENDED`].
const MUTEX_OP: u8 = 0x01;
const REGION_OP: u8 = 0x80;
const FIELD_OP: u8 = 0x81;
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

/// A buffer of `bytes` (§20.2.5.4).
pub(super) fn buffer(bytes: &[u8]) -> Vec<u8> {
    let size = integer(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    package(&[BUFFER_OP], &[&size, bytes].concat())
}

/// A universally unique identifier, such as `33db4d5b-1ff7-401c-9657-7441c03dd766` as a number, in
/// the mixed byte order of `ToUUID` (§19.6.142).
pub(super) fn uuid(uuid: u128) -> Vec<u8> {
    let mut bytes = uuid.to_be_bytes();
    // Three fields, of 4, 2 and 2 bytes, have their lowest byte first.
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    buffer(&bytes)
}

/// The path from the root to an object, of at least two segments (§20.2.2).
pub(super) fn path(segments: &[NameSegment]) -> Vec<u8> {
    let prefix = match segments.len() {
        2 => vec![ROOT_CHAR, DUAL_NAME_PREFIX],
        count => {
            let count = u8::try_from(count).unwrap_or(u8::MAX);
            vec![ROOT_CHAR, MULTI_NAME_PREFIX, count]
        }
    };
    [prefix, segments.concat()].concat()
}

/// `DefMethod` (§20.2.5.2), not serialized: methods that share something take a mutex.
pub(super) fn method(name: NameSegment, arguments: u8, terms: &[Vec<u8>]) -> Vec<u8> {
    flagged_method(name, arguments, terms)
}

/// `DefMethod` that runs once at a time, for one that declares names.
pub(super) fn serialized_method(name: NameSegment, arguments: u8, terms: &[Vec<u8>]) -> Vec<u8> {
    const SERIALIZED: u8 = 1 << 3;
    flagged_method(name, arguments | SERIALIZED, terms)
}

fn flagged_method(name: NameSegment, flags: u8, terms: &[Vec<u8>]) -> Vec<u8> {
    package(
        &[METHOD_OP],
        &[&name[..], &[flags], &terms.concat()].concat(),
    )
}

/// A region of I/O ports (§20.2.5.2), and in it registers of 32 bits, one behind the other from its
/// start, that are read and written whole.
pub(super) fn registers(region: NameSegment, ports: &Range<u16>, names: &[NameSegment]) -> Vec<u8> {
    const SYSTEM_IO: u8 = 1;
    const DWORD_ACCESS: u8 = 3;
    const BITS: u8 = 32;
    let mut term = vec![EXTENDED, REGION_OP];
    term.extend_from_slice(&region);
    term.push(SYSTEM_IO);
    term.extend(integer(ports.start.into()));
    term.extend(integer((ports.end - ports.start).into()));
    let mut fields = region.to_vec();
    fields.push(DWORD_ACCESS);
    for name in names {
        fields.extend_from_slice(name);
        fields.push(BITS);
    }
    term.extend(package(&[EXTENDED, FIELD_OP], &fields));
    term
}

/// `DefMutex` (§20.2.5.2).
pub(super) fn mutex(name: NameSegment) -> Vec<u8> {
    const SYNC_LEVEL: u8 = 0;
    [&[EXTENDED, MUTEX_OP], &name[..], &[SYNC_LEVEL]].concat()
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
    fn an_identifier_is_in_mixed_order() {
        let uuid = uuid(0x33db_4d5b_1ff7_401c_9657_7441_c03d_d766);
        let bytes = [
            0x5B, 0x4D, 0xDB, 0x33, 0xF7, 0x1F, 0x1C, 0x40, 0x96, 0x57, 0x74, 0x41, 0xC0, 0x3D,
            0xD7, 0x66,
        ];
        assert_eq!(uuid, [&[0x11, 19, 0x0A, 16], &bytes[..]].concat());
    }

    #[test]
    fn paths_count_their_segments() {
        assert_eq!(path(&[*b"_SB_", *b"CSCN"]), b"\\\x2E_SB_CSCN");
        assert_eq!(
            path(&[*b"_SB_", *b"PCI0", *b"PSCN"]),
            b"\\\x2F\x03_SB_PCI0PSCN"
        );
    }

    #[test]
    fn a_pnp_identifier_is_packed() {
        assert_eq!(eisa_id(*b"PNP0501"), [0x0C, 0x41, 0xD0, 0x05, 0x01]);
    }
}
