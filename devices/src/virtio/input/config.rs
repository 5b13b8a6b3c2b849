//! What a driver may ask of a device in its configuration space (§5.8.4): what it is, and which events it has.

use super::InputKind;
use super::events::{
    ABS_X, ABS_Y, BUTTONS, EV_ABS, EV_KEY, EV_LED, EV_REL, EV_REP, MAX_POSITION, REL_HWHEEL,
    REL_WHEEL,
};

/// What is asked for.
const ID_NAME: u8 = 0x01;
const ID_SERIAL: u8 = 0x02;
const ID_DEVIDS: u8 = 0x03;
const EV_BITS: u8 = 0x11;
const ABS_INFO: u8 = 0x12;

/// Linux' number of a bus that is none.
const BUS_VIRTUAL: u16 = 0x06;
/// A keyboard's keys: the numbers that Linux has for keys below those of buttons.
const KEYS: std::ops::RangeInclusive<u16> = 1..=0xf7;
/// Lights: Num Lock, Caps Lock, Scroll Lock.
const LIGHTS: [u16; 3] = [0, 1, 2];

/// The answer, at most 128 bytes; empty if there is none.
pub(super) fn answer(kind: InputKind, select: u8, subselect: u8) -> Vec<u8> {
    match (select, subselect) {
        (ID_NAME, 0) => match kind {
            InputKind::Keyboard => b"Reeve keyboard".to_vec(),
            InputKind::Tablet => b"Reeve tablet".to_vec(),
        },
        (ID_SERIAL, 0) => Vec::new(),
        (ID_DEVIDS, 0) => {
            let product = match kind {
                InputKind::Keyboard => 1,
                InputKind::Tablet => 2,
            };
            let ids = [BUS_VIRTUAL, 0, product, 1];
            ids.into_iter().flat_map(u16::to_le_bytes).collect()
        }
        (EV_BITS, event) => match (kind, event.into()) {
            (InputKind::Keyboard, EV_KEY) => bits(KEYS),
            (InputKind::Keyboard, EV_LED) => bits(LIGHTS),
            // That the guest repeats a key that is held; there are no bits to it.
            (InputKind::Keyboard, EV_REP) => vec![0],
            (InputKind::Tablet, EV_KEY) => bits(BUTTONS),
            (InputKind::Tablet, EV_REL) => bits([REL_WHEEL, REL_HWHEEL]),
            (InputKind::Tablet, EV_ABS) => bits([ABS_X, ABS_Y]),
            _ => Vec::new(),
        },
        (ABS_INFO, axis) if kind == InputKind::Tablet && [ABS_X, ABS_Y].contains(&axis.into()) => {
            let info = [0, MAX_POSITION.into(), 0, 0, 0_u32];
            info.into_iter().flat_map(u32::to_le_bytes).collect()
        }
        _ => Vec::new(),
    }
}

/// A map with those bits, as short as it can be.
fn bits(numbers: impl IntoIterator<Item = u16>) -> Vec<u8> {
    let mut map = Vec::new();
    for number in numbers {
        let place = usize::from(number / 8);
        if map.len() <= place {
            map.resize(place + 1, 0);
        }
        if let Some(byte) = map.get_mut(place) {
            *byte |= 1 << (number % 8);
        }
    }
    map
}
