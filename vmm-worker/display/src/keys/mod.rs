//! Keys: from what a client says to evdev's numbers (Linux, include/uapi/linux/input-event-codes.h).
//!
//! A client that knows QEMU's extension says which key it is; that is taken. All others say what is on the key that
//! somebody has pressed, in his layout; that is looked for on a US keyboard, so that with another layout in the guest
//! some characters come out as others.

mod keysym;
mod scan_code;

/// The highest number that is given.
pub const MAX: u16 = 0x2ff;

/// The key that a client means, if there is one: by `scan_code`, if that is not 0, and else by `keysym`.
#[must_use]
pub fn key(keysym: u32, scan_code: u32) -> Option<u16> {
    let by_place = match scan_code {
        0 => None,
        code => scan_code::key(code),
    };
    by_place.or_else(|| keysym::key(keysym))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_place_or_by_what_is_on_it() {
        // Q on a French keyboard is at the place of A.
        assert_eq!(key(u32::from(b'q'), 0x1e), Some(30));
        assert_eq!(key(u32::from(b'q'), 0), Some(16));
        assert_eq!(key(u32::from(b'q'), 0x7f), Some(16));
        assert_eq!(key(0, 0), None);
        assert_eq!(key(u32::MAX, u32::MAX), None);
    }

    #[test]
    fn all_of_ascii_can_be_typed() {
        for character in b' '..=b'~' {
            assert!(
                key(character.into(), 0).is_some(),
                "{}",
                char::from(character)
            );
        }
        // The shifted one is on the same key.
        for (plain, shifted) in [
            (b'a', b'A'),
            (b'1', b'!'),
            (b'/', b'?'),
            (b'`', b'~'),
            (b'\'', b'"'),
        ] {
            assert_eq!(key(plain.into(), 0), key(shifted.into(), 0));
        }
    }

    #[test]
    fn no_number_is_beyond_the_highest() {
        let all = (0..0x1_0000).map(|value| [key(value, 0), key(0, value)]);
        assert!(
            all.flatten()
                .flatten()
                .all(|code| (1..=MAX).contains(&code))
        );
    }
}
