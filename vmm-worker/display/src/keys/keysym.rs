//! X's keysyms (X11/keysymdef.h) on a US keyboard.

/// Rows of the keyboard from evdev's first number on: unshifted, shifted.
const ROWS: &[(u16, &[u8], &[u8])] = &[
    (2, b"1234567890-=", b"!@#$%^&*()_+"),
    (16, b"qwertyuiop[]", b"QWERTYUIOP{}"),
    (30, b"asdfghjkl;'`", b"ASDFGHJKL:\"~"),
    (43, b"\\zxcvbnm,./", b"|ZXCVBNM<>?"),
    (57, b" ", b" "),
];

/// Runs of keysyms that are runs of keys as well: first keysym, how many, first key.
const RUNS: &[(u32, u32, u16)] = &[
    // F1 to F10; F11 and F12; F13 to F24.
    (0xffbe, 10, 59),
    (0xffc8, 2, 87),
    (0xffca, 12, 183),
];

/// The others.
const NAMED: &[(u32, u16)] = &[
    (0xff08, 14),  // BackSpace
    (0xff09, 15),  // Tab
    (0xfe20, 15),  // ISO_Left_Tab
    (0xff0d, 28),  // Return
    (0xff1b, 1),   // Escape
    (0xff13, 119), // Pause
    (0xff6b, 119), // Break
    (0xff14, 70),  // Scroll_Lock
    (0xff15, 99),  // Sys_Req
    (0xff61, 99),  // Print
    (0xff50, 102), // Home
    (0xff51, 105), // Left
    (0xff52, 103), // Up
    (0xff53, 106), // Right
    (0xff54, 108), // Down
    (0xff55, 104), // Prior
    (0xff56, 109), // Next
    (0xff57, 107), // End
    (0xff63, 110), // Insert
    (0xffff, 111), // Delete
    (0xff67, 127), // Menu
    (0xff7f, 69),  // Num_Lock
    (0xffe1, 42),  // Shift_L
    (0xffe2, 54),  // Shift_R
    (0xffe3, 29),  // Control_L
    (0xffe4, 97),  // Control_R
    (0xffe5, 58),  // Caps_Lock
    (0xffe7, 125), // Meta_L
    (0xffe8, 126), // Meta_R
    (0xffe9, 56),  // Alt_L
    (0xffea, 100), // Alt_R
    (0xfe03, 100), // ISO_Level3_Shift
    (0xff7e, 100), // Mode_switch
    (0xffeb, 125), // Super_L
    (0xffec, 126), // Super_R
    (0xff80, 57),  // KP_Space
    (0xff89, 15),  // KP_Tab
    (0xff8d, 96),  // KP_Enter
    (0xffaa, 55),  // KP_Multiply
    (0xffab, 78),  // KP_Add
    (0xffac, 121), // KP_Separator
    (0xffad, 74),  // KP_Subtract
    (0xffae, 83),  // KP_Decimal
    (0xffaf, 98),  // KP_Divide
    (0xffbd, 117), // KP_Equal
    (0xffb0, 82),  // KP_0 to KP_9, and the same without Num_Lock
    (0xffb1, 79),
    (0xffb2, 80),
    (0xffb3, 81),
    (0xffb4, 75),
    (0xffb5, 76),
    (0xffb6, 77),
    (0xffb7, 71),
    (0xffb8, 72),
    (0xffb9, 73),
    (0xff9e, 82),
    (0xff9c, 79),
    (0xff99, 80),
    (0xff9b, 81),
    (0xff96, 75),
    (0xff9d, 76),
    (0xff98, 77),
    (0xff95, 71),
    (0xff97, 72),
    (0xff9a, 73),
    (0xff9f, 83),
];

/// Its key.
pub(super) fn key(keysym: u32) -> Option<u16> {
    if let Ok(character) = u8::try_from(keysym) {
        return ROWS.iter().find_map(|(first, plain, shifted)| {
            let place = |row: &[u8]| row.iter().position(|key| *key == character);
            let place = place(plain).or_else(|| place(shifted))?;
            first.checked_add(u16::try_from(place).ok()?)
        });
    }
    let run = RUNS.iter().find_map(|(start, count, first)| {
        let place = keysym.checked_sub(*start).filter(|place| place < count)?;
        first.checked_add(u16::try_from(place).ok()?)
    });
    run.or_else(|| {
        let named = NAMED.iter().find(|(symbol, _)| *symbol == keysym);
        named.map(|(_, code)| *code)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_where_linux_has_them() {
        for (keysym, code) in [
            (u32::from(b'z'), 44),
            (u32::from(b'\\'), 43),
            (u32::from(b'`'), 41),
            (u32::from(b'/'), 53),
            (u32::from(b' '), 57),
            (0xffbe, 59),
            (0xffc7, 68),
            (0xffc9, 88),
            (0xffd5, 194),
            (0xff0d, 28),
        ] {
            assert_eq!(key(keysym), Some(code), "{keysym:#x}");
        }
        for none in [0, 0x7f, 0xe4, 0xffd6, 0x0100_20ac] {
            assert_eq!(key(none), None, "{none:#x}");
        }
    }
}
