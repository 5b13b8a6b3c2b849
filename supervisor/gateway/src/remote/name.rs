//! The name in a certificate, as text.
//!
//! Written as libvirt's own daemon has it from GnuTLS, so that its lists of allowed names go on to hold: in the order
//! of the certificate, with commas and no space between, characters that mean something behind a backslash (RFC
//! 4514). A value that is no text, or has control characters, is written as `#` and its bytes in hexadecimal.

use std::fmt::Write as _;

use reeve_ipc::gateway::MAX_NAME_BYTES;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::der::{self, SEQUENCE, take};

const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const NUMERIC_STRING: u8 = 0x12;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;

/// What attributes are called, by the contents of their identifiers.
const ATTRIBUTES: &[(&[u8], &str)] = &[
    (b"\x55\x04\x03", "CN"),
    (b"\x55\x04\x04", "surName"),
    (b"\x55\x04\x05", "serialNumber"),
    (b"\x55\x04\x06", "C"),
    (b"\x55\x04\x07", "L"),
    (b"\x55\x04\x08", "ST"),
    (b"\x55\x04\x09", "street"),
    (b"\x55\x04\x0a", "O"),
    (b"\x55\x04\x0b", "OU"),
    (b"\x55\x04\x0c", "title"),
    (b"\x55\x04\x0d", "description"),
    (b"\x55\x04\x29", "name"),
    (b"\x55\x04\x2a", "givenName"),
    (b"\x55\x04\x2b", "initials"),
    (b"\x55\x04\x2c", "generationQualifier"),
    (b"\x55\x04\x2e", "dnQualifier"),
    (b"\x55\x04\x41", "pseudonym"),
    (b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x01", "UID"),
    (b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x19", "DC"),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01", "EMAIL"),
];

/// The subject of a certificate. `None` where it has none, or one that is longer than [`MAX_NAME_BYTES`].
pub(super) fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    text(certificate.subject())
}

/// A name as text: the DER of relative names (X.501, `RDNSequence`) without its outer header. `None` where it is
/// empty, malformed, or longer than [`MAX_NAME_BYTES`].
#[must_use]
pub fn text(mut name: &[u8]) -> Option<String> {
    let mut text = String::new();
    while !name.is_empty() {
        let mut attributes = take(&mut name, SET)?;
        let mut between = ',';
        while !attributes.is_empty() {
            let mut attribute = take(&mut attributes, SEQUENCE)?;
            if !text.is_empty() {
                text.push(between);
            }
            between = '+';
            let identifier = take(&mut attribute, OBJECT_IDENTIFIER)?;
            push_identifier(&mut text, identifier)?;
            text.push('=');
            push_value(&mut text, attribute)?;
            if text.len() > MAX_NAME_BYTES {
                return None;
            }
        }
    }
    (!text.is_empty()).then_some(text)
}

fn push_identifier(text: &mut String, identifier: &[u8]) -> Option<()> {
    if let Some((_, known)) = ATTRIBUTES.iter().find(|(known, _)| *known == identifier) {
        text.push_str(known);
        return Some(());
    }
    let mut number: u64 = 0;
    let mut is_first = true;
    for &byte in identifier {
        number = number
            .checked_mul(128)?
            .checked_add(u64::from(byte & 0x7f))?;
        if byte & 0x80 != 0 {
            continue;
        }
        if is_first {
            // The first two numbers are one.
            let root = (number / 40).min(2);
            let _ = write!(text, "{root}.{}", number - root * 40);
            is_first = false;
        } else {
            let _ = write!(text, ".{number}");
        }
        number = 0;
    }
    (!is_first).then_some(())
}

fn push_value(text: &mut String, element: &[u8]) -> Option<()> {
    let mut rest = element;
    let (tag, contents) = der::next(&mut rest)?;
    if !rest.is_empty() {
        return None;
    }
    let is_text = matches!(
        tag,
        UTF8_STRING | NUMERIC_STRING | PRINTABLE_STRING | IA5_STRING
    );
    let value = std::str::from_utf8(contents)
        .ok()
        .filter(|value| is_text && !value.is_empty() && !value.chars().any(char::is_control));
    let Some(value) = value else {
        text.push('#');
        for byte in element {
            let _ = write!(text, "{byte:02x}");
        }
        return Some(());
    };
    let last = value.len() - 1;
    for (at, c) in value.char_indices() {
        let means = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (c == '#' && at == 0)
            || (c == ' ' && (at == 0 || at == last));
        if means {
            text.push('\\');
        }
        text.push(c);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An element of fewer than 128 bytes.
    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let contents = parts.concat();
        let mut bytes = vec![tag, u8::try_from(contents.len()).unwrap()];
        bytes.extend(contents);
        bytes
    }

    fn attribute(identifier: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        let identifier = der(OBJECT_IDENTIFIER, &[identifier]);
        der(SEQUENCE, &[&identifier, &der(tag, &[value])])
    }

    #[test]
    fn a_name_is_written_as_gnutls_writes_it() {
        let country = attribute(b"\x55\x04\x06", PRINTABLE_STRING, b"GB");
        let organisation = attribute(b"\x55\x04\x0a", UTF8_STRING, b"Acme, Inc. ");
        let name = attribute(b"\x55\x04\x03", UTF8_STRING, "H\u{e9}l\u{e8}ne".as_bytes());
        let unknown = attribute(b"\x2a\x03\x04", UTF8_STRING, b"x\ny");
        let several = der(SET, &[&name, &unknown]);
        let all = [der(SET, &[&country]), der(SET, &[&organisation]), several].concat();
        assert_eq!(
            text(&all).unwrap(),
            "C=GB,O=Acme\\, Inc.\\ ,CN=H\u{e9}l\u{e8}ne+1.2.3.4=#0c03780a79"
        );
    }

    /// As `virt-pki-query-dn` of libvirt 9.0 prints a certificate that `openssl` made.
    #[test]
    fn what_means_something_is_behind_a_backslash() {
        let unit = |value: &[u8]| der(SET, &[&attribute(b"\x55\x04\x0b", UTF8_STRING, value)]);
        for (value, written) in [
            (&b"#lead"[..], "OU=\\#lead"),
            (b" sp ", "OU=\\ sp\\ "),
            (b"in #a \"q\"", "OU=in #a \\\"q\\\""),
            (b"x <y>;z+w\\v", "OU=x \\<y\\>\\;z\\+w\\\\v"),
            (b"x=y", "OU=x=y"),
        ] {
            assert_eq!(text(&unit(value)).unwrap(), written);
        }
    }

    #[test]
    fn what_is_no_name_is_none() {
        let name = attribute(b"\x55\x04\x03", UTF8_STRING, b"admin");
        for wrong in [
            Vec::new(),
            name.clone(),
            der(SET, &[&name[..5]]),
            der(SET, &[&der(SEQUENCE, &[b"\x06\x03\x55\x04\x03"])]),
            vec![SET, 0x84, 0, 0, 0, 0],
        ] {
            assert_eq!(text(&wrong), None, "{wrong:?}");
        }
        let long = der(
            SET,
            &[&attribute(b"\x55\x04\x03", UTF8_STRING, &[b'x'; 100])],
        );
        assert_eq!(text(&long.repeat(20)), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_name_of_bounded_length_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(text) = text(&bytes) {
                prop_assert!(text.len() <= MAX_NAME_BYTES);
                prop_assert!(!text.chars().any(char::is_control));
            }
        }
    }
}
