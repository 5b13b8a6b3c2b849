//! Whether an authority's own certificate is one that signs others now. What trusts it looks at its name and its key
//! alone.
//!
//! Read of X.509 (RFC 5280, 4.1): until when it is valid, and of its extensions the basic constraints and the key
//! usage. A certificate of version 1, which has none, is one that signs.

use rustls::pki_types::{CertificateDer, UnixTime};

use super::der::{self, SEQUENCE};

const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `id-ce-keyUsage`.
const KEY_USAGE: &[u8] = b"\x55\x1d\x0f";
/// `id-ce-basicConstraints`.
const BASIC_CONSTRAINTS: &[u8] = b"\x55\x1d\x13";
/// `keyCertSign`, of the first byte of a key's usage.
const SIGNS_CERTIFICATES: u8 = 0x04;

/// Why it signs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Expired,
    NotValidYet,
    NotAnAuthority,
    Malformed,
}

impl Fault {
    /// In words, of an authority's certificate.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Expired => "its own certificate has expired",
            Self::NotValidYet => "its own certificate is not valid yet",
            Self::NotAnAuthority => "its own certificate is not one that signs others",
            Self::Malformed => "its own certificate is none",
        }
    }
}

/// Whether it signs others at that time.
pub(super) fn check(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Fault> {
    let read = read(certificate).ok_or(Fault::Malformed)?;
    if now.as_secs() < read.from {
        return Err(Fault::NotValidYet);
    }
    if now.as_secs() > read.until {
        return Err(Fault::Expired);
    }
    if read.signs {
        Ok(())
    } else {
        Err(Fault::NotAnAuthority)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Certificate {
    /// Seconds since 1970.
    from: u64,
    until: u64,
    signs: bool,
}

fn read(certificate: &[u8]) -> Option<Certificate> {
    let mut outside = certificate;
    let mut outside = der::take(&mut outside, SEQUENCE)?;
    let mut fields = der::take(&mut outside, SEQUENCE)?;
    let has_version = fields.first() == Some(&VERSION);
    if has_version {
        der::take(&mut fields, VERSION)?;
    }
    // Serial number, signature, issuer.
    for _ in 0..3 {
        der::next(&mut fields)?;
    }
    let mut validity = der::take(&mut fields, SEQUENCE)?;
    let from = time(&mut validity)?;
    let until = time(&mut validity)?;
    // Subject and key.
    for _ in 0..2 {
        der::take(&mut fields, SEQUENCE)?;
    }
    let mut signs = !has_version;
    let mut may_sign = true;
    while !fields.is_empty() {
        let (tag, mut contents) = der::next(&mut fields)?;
        if tag != EXTENSIONS {
            continue;
        }
        let mut extensions = der::take(&mut contents, SEQUENCE)?;
        while !extensions.is_empty() {
            let mut extension = der::take(&mut extensions, SEQUENCE)?;
            let identifier = der::take(&mut extension, OBJECT_IDENTIFIER)?;
            if extension.first() == Some(&BOOLEAN) {
                der::take(&mut extension, BOOLEAN)?;
            }
            let mut value = der::take(&mut extension, OCTET_STRING)?;
            if identifier == BASIC_CONSTRAINTS {
                let mut constraints = der::take(&mut value, SEQUENCE)?;
                signs = constraints.first() == Some(&BOOLEAN)
                    && der::take(&mut constraints, BOOLEAN)? != [0];
            } else if identifier == KEY_USAGE {
                // How many bits are unused, then the bits.
                let usage = der::take(&mut value, BIT_STRING)?;
                may_sign = usage
                    .get(1)
                    .is_some_and(|usage| usage & SIGNS_CERTIFICATES != 0);
            }
        }
    }
    Some(Certificate {
        from,
        until,
        signs: signs && may_sign,
    })
}

/// A time, in seconds since 1970; what was before is as if it were then.
fn time(bytes: &mut &[u8]) -> Option<u64> {
    let (tag, text) = der::next(bytes)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year = number(year)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (number(year)?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 || !rest.is_ascii() {
        return None;
    }
    let part = |at: usize| number(rest.get(at..at + 2)?);
    let (month, day) = (part(0)?, part(2)?);
    let (hour, minute, second) = (part(4)?, part(6)?, part(8)?);
    let is_time = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !is_time {
        return None;
    }
    // The days since the first of March of the year 0: the leap day is a year's last then.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    // 719468 days are between then and 1970.
    let days = days.saturating_sub(719_468);
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn number(digits: &str) -> Option<u64> {
    let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
        let length = u8::try_from(contents.len()).unwrap();
        match length {
            0..128 => [&[tag, length][..], contents].concat(),
            _ => [&[tag, 0x81, length][..], contents].concat(),
        }
    }

    /// The certificate with these extensions, and a validity.
    fn certificate(version: bool, from: &[u8], until: &[u8], extensions: &[u8]) -> Vec<u8> {
        let version = match version {
            true => element(VERSION, &element(2, &[2])),
            false => Vec::new(),
        };
        let validity = [element(UTC_TIME, from), element(GENERALIZED_TIME, until)].concat();
        let mut fields = [
            version,
            element(2, &[7]),
            element(SEQUENCE, &[]),
            element(SEQUENCE, &[]),
            element(SEQUENCE, &validity),
            element(SEQUENCE, &[]),
            element(SEQUENCE, &[]),
        ]
        .concat();
        if !extensions.is_empty() {
            fields.extend(element(EXTENSIONS, &element(SEQUENCE, extensions)));
        }
        element(SEQUENCE, &element(SEQUENCE, &fields))
    }

    fn extension(identifier: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
        let critical = match critical {
            true => element(BOOLEAN, &[0xff]),
            false => Vec::new(),
        };
        let parts = [
            element(OBJECT_IDENTIFIER, identifier),
            critical,
            element(OCTET_STRING, value),
        ];
        element(SEQUENCE, &parts.concat())
    }

    #[test]
    fn only_what_signs_now_is_an_authority() {
        let (from, until) = (&b"200101000000Z"[..], &b"20491231235959Z"[..]);
        let is = extension(
            BASIC_CONSTRAINTS,
            true,
            &element(SEQUENCE, &element(BOOLEAN, &[0xff])),
        );
        let none = extension(BASIC_CONSTRAINTS, true, &element(SEQUENCE, &[]));
        let signs = extension(KEY_USAGE, true, &element(BIT_STRING, &[1, 0x06]));
        let other = extension(KEY_USAGE, false, &element(BIT_STRING, &[5, 0xa0]));
        let now = 1_800_000_000;
        for (version, extensions, at, expected) in [
            (true, is.clone(), now, Ok(())),
            (true, [is.clone(), signs.clone()].concat(), now, Ok(())),
            (true, [signs.clone(), is.clone()].concat(), now, Ok(())),
            (false, Vec::new(), now, Ok(())),
            (true, Vec::new(), now, Err(Fault::NotAnAuthority)),
            (true, signs, now, Err(Fault::NotAnAuthority)),
            (true, none, now, Err(Fault::NotAnAuthority)),
            (
                true,
                [is.clone(), other].concat(),
                now,
                Err(Fault::NotAnAuthority),
            ),
            (true, is.clone(), 1_577_836_799, Err(Fault::NotValidYet)),
            (true, is.clone(), 1_577_836_800, Ok(())),
            (true, is.clone(), 2_524_607_999, Ok(())),
            (true, is.clone(), 2_524_608_000, Err(Fault::Expired)),
        ] {
            let certificate = certificate(version, from, until, &extensions);
            let certificate = CertificateDer::from(certificate);
            let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at));
            assert_eq!(check(&certificate, now), expected, "{at} {extensions:?}");
        }
        let whole = certificate(true, from, until, &is);
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None, "{length}");
        }
        for wrong in [
            &b"200101000000"[..],
            b"20010100000Z",
            b"201301000000Z",
            b"2001010000+0Z",
        ] {
            assert_eq!(read(&certificate(true, wrong, until, &is)), None);
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (text, seconds) in [
            ("19700101000000Z", 0),
            ("19600101000000Z", 0),
            ("20000229120000Z", 951_825_600),
            ("20240229000000Z", 1_709_164_800),
            ("20240301000000Z", 1_709_251_200),
            ("21000301000000Z", 4_107_542_400),
        ] {
            let element = element(GENERALIZED_TIME, text.as_bytes());
            assert_eq!(time(&mut &element[..]), Some(seconds), "{text}");
        }
    }
}
