//! A PC's scan codes of set 1, as QEMU's extension of RFB has them: those with a prefix of 0xe0 have bit 7.

/// The last without a prefix that is evdev's own number.
const SAME_UP_TO: u32 = 0x58;

/// The others without a prefix, and those with one.
const OTHERS: &[(u32, u16)] = &[
    (0x59, 117), // keypad =
    (0x5c, 95),  // keypad , of Japan
    (0x64, 183), // F13 to F23
    (0x65, 184),
    (0x66, 185),
    (0x67, 186),
    (0x68, 187),
    (0x69, 188),
    (0x6a, 189),
    (0x6b, 190),
    (0x6c, 191),
    (0x6d, 192),
    (0x6e, 193),
    (0x70, 93),  // Katakana/Hiragana
    (0x73, 89),  // Ro
    (0x76, 194), // F24
    (0x77, 91),  // Hiragana
    (0x78, 90),  // Katakana
    (0x79, 92),  // Henkan
    (0x7b, 94),  // Muhenkan
    (0x7d, 124), // Yen
    (0x7e, 121), // keypad ,
    (0x90, 165), // previous song
    (0x99, 163), // next song
    (0x9c, 96),  // keypad Enter
    (0x9d, 97),  // right Control
    (0xa0, 113), // mute
    (0xa1, 140), // calculator
    (0xa2, 164), // play
    (0xa4, 166), // stop
    (0xae, 114), // volume down
    (0xb0, 115), // volume up
    (0xb2, 172), // home page
    (0xb5, 98),  // keypad /
    (0xb7, 99),  // Print
    (0xb8, 100), // right Alt
    (0xc6, 119), // Pause
    (0xc7, 102), // Home
    (0xc8, 103), // Up
    (0xc9, 104), // Page Up
    (0xcb, 105), // Left
    (0xcd, 106), // Right
    (0xcf, 107), // End
    (0xd0, 108), // Down
    (0xd1, 109), // Page Down
    (0xd2, 110), // Insert
    (0xd3, 111), // Delete
    (0xdb, 125), // left logo
    (0xdc, 126), // right logo
    (0xdd, 127), // Menu
    (0xde, 116), // Power
    (0xdf, 142), // Sleep
    (0xe3, 143), // Wake
];

/// Its key.
pub(super) fn key(scan_code: u32) -> Option<u16> {
    match scan_code {
        // Between them are SysRq of Alt and Print, and what no keyboard sends.
        0x54 => Some(99),
        0 | 0x55 => None,
        1..=SAME_UP_TO => u16::try_from(scan_code).ok(),
        _ => {
            let other = OTHERS.iter().find(|(code, _)| *code == scan_code);
            other.map(|(_, key)| *key)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_keys() {
        for (scan_code, code) in [
            (1, 1),
            (0x1e, 30),
            (0x56, 86),
            (0x58, 88),
            (0xc8, 103),
            (0x9d, 97),
        ] {
            assert_eq!(key(scan_code), Some(code), "{scan_code:#x}");
        }
        for none in [0, 0x55, 0x80, 0xff, 0x100, 0xe01d] {
            assert_eq!(key(none), None, "{none:#x}");
        }
    }
}
