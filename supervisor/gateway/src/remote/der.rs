//! Elements of DER (X.690, definite lengths), as far as names and authorities need them.

/// A sequence.
pub(super) const SEQUENCE: u8 = 0x30;

/// The contents of the next element, of that kind.
pub(super) fn take<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (found, contents) = next(bytes)?;
    (found == tag).then_some(contents)
}

/// The tag and the contents of the next element.
pub(super) fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let count = usize::from(first & 0x7f);
        // Nothing that is read here is longer than two bytes can say.
        if !(1..=2).contains(&count) {
            return None;
        }
        length = 0;
        for &byte in rest.get(..count)? {
            length = length << 8 | usize::from(byte);
        }
        rest = rest.get(count..)?;
    }
    let (contents, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some((tag, contents))
}
