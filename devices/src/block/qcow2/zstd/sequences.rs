//! Sequences: so many literals, then so many bytes again from so far back (RFC 8878, 3.1.1.3.2).

use super::Output;
use super::bits::Backward;
use super::fse::Table;

/// Baseline and extra bits of the codes for literal lengths from 16 on; below, a code is its
/// length.
const LITERAL_LENGTHS: [(u32, u32); 20] = [
    (16, 1),
    (18, 1),
    (20, 1),
    (22, 1),
    (24, 2),
    (28, 2),
    (32, 3),
    (40, 3),
    (48, 4),
    (64, 6),
    (128, 7),
    (256, 8),
    (512, 9),
    (1024, 10),
    (2048, 11),
    (4096, 12),
    (8192, 13),
    (16384, 14),
    (32768, 15),
    (65536, 16),
];
/// The same for match lengths from 32 on; below, a code is its length less 3.
const MATCH_LENGTHS: [(u32, u32); 21] = [
    (35, 1),
    (37, 1),
    (39, 1),
    (41, 1),
    (43, 2),
    (47, 2),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 5),
    (131, 7),
    (259, 8),
    (515, 9),
    (1027, 10),
    (2051, 11),
    (4099, 12),
    (8195, 13),
    (16387, 14),
    (32771, 15),
    (65539, 16),
];

/// What is encoded by a table of its own, and that table where the frame has none.
struct Kind {
    log: u32,
    last: u8,
    default_log: u32,
    default: &'static [i16],
}

const LITERALS: Kind = Kind {
    log: 9,
    last: 35,
    default_log: 6,
    default: &[
        4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1,
        1, 1, -1, -1, -1, -1,
    ],
};
const OFFSETS: Kind = Kind {
    log: 8,
    last: 31,
    default_log: 5,
    default: &[
        1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
    ],
};
const MATCHES: Kind = Kind {
    log: 9,
    last: 52,
    default_log: 6,
    default: &[
        1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
    ],
};

/// Tables and offsets that a block leaves to the next.
pub(super) struct Sequences {
    literals: Option<Table>,
    offsets: Option<Table>,
    matches: Option<Table>,
    /// The last three offsets.
    recent: [usize; 3],
}

impl Default for Sequences {
    fn default() -> Self {
        Self {
            literals: None,
            offsets: None,
            matches: None,
            recent: [1, 4, 8],
        }
    }
}

impl Sequences {
    /// Does what the sequences section of a block says, with the block's literals.
    pub(super) fn execute(
        &mut self,
        section: &[u8],
        mut literals: &[u8],
        output: &mut Output<'_>,
    ) -> Option<()> {
        let (count, rest) = read_number(section)?;
        if count == 0 {
            output.push(literals);
            return Some(());
        }
        let (&modes, rest) = rest.split_first()?;
        if modes & 3 != 0 {
            return None;
        }
        let rest = choose(&mut self.literals, modes >> 6, &LITERALS, rest)?;
        let rest = choose(&mut self.offsets, modes >> 4 & 3, &OFFSETS, rest)?;
        let rest = choose(&mut self.matches, modes >> 2 & 3, &MATCHES, rest)?;
        let (lengths, offsets, matches) = (
            self.literals.as_ref()?,
            self.offsets.as_ref()?,
            self.matches.as_ref()?,
        );
        let mut bits = Backward::new(rest)?;
        let mut length = lengths.start(&mut bits);
        let mut offset = offsets.start(&mut bits);
        let mut matched = matches.start(&mut bits);
        for number in 0..count {
            let code = u32::from(offsets.symbol(offset)?);
            let distance = (1_u64 << code) + bits.read(code);
            let matched_bytes = value(matches.symbol(matched)?, 32, 3, &MATCH_LENGTHS, &mut bits)?;
            let literal_bytes = value(lengths.symbol(length)?, 16, 0, &LITERAL_LENGTHS, &mut bits)?;
            if bits.is_overrun() {
                return None;
            }
            let distance = recall(&mut self.recent, distance, literal_bytes == 0)?;
            let (now, later) = literals.split_at_checked(literal_bytes)?;
            literals = later;
            output.push(now);
            if output.is_full() {
                return Some(());
            }
            output.copy(distance, matched_bytes)?;
            if number + 1 < count {
                length = lengths.next(length, &mut bits)?;
                matched = matches.next(matched, &mut bits)?;
                offset = offsets.next(offset, &mut bits)?;
            }
        }
        output.push(literals);
        bits.is_done().then_some(())
    }
}

/// The number of sequences.
fn read_number(section: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = section.split_first()?;
    let first = usize::from(first);
    if first < 128 {
        return Some((first, rest));
    }
    let (&second, rest) = rest.split_first()?;
    if first < 255 {
        return Some((((first - 128) << 8) + usize::from(second), rest));
    }
    let (&third, rest) = rest.split_first()?;
    let count = usize::from(second) + (usize::from(third) << 8) + 0x7f00;
    Some((count, rest))
}

/// Sets the table that `mode` asks for; what comes behind it.
fn choose<'a>(
    table: &mut Option<Table>,
    mode: u8,
    kind: &Kind,
    bytes: &'a [u8],
) -> Option<&'a [u8]> {
    let (new, rest) = match mode {
        0 => (Table::new(kind.default, kind.default_log)?, bytes),
        1 => {
            let (&symbol, rest) = bytes.split_first()?;
            if symbol > kind.last {
                return None;
            }
            (Table::single(symbol), rest)
        }
        2 => Table::read(bytes, kind.log, kind.last)?,
        _ => return table.is_some().then_some(bytes),
    };
    *table = Some(new);
    Some(rest)
}

/// The length that a code stands for: itself and `base` below `first`, else by the table.
fn value(
    code: u8,
    first: u8,
    base: u8,
    table: &[(u32, u32)],
    bits: &mut Backward<'_>,
) -> Option<usize> {
    let Some(entry) = code.checked_sub(first) else {
        return Some((code + base).into());
    };
    let (base, extra) = table.get(usize::from(entry))?;
    usize::try_from(u64::from(*base) + bits.read(*extra)).ok()
}

/// The distance that an offset's value stands for, by the last three.
fn recall(recent: &mut [usize; 3], value: u64, no_literals: bool) -> Option<usize> {
    let [first, second, third] = *recent;
    let value = usize::try_from(value).ok()?;
    let which = if value <= 3 {
        value + usize::from(no_literals)
    } else {
        5
    };
    *recent = match which {
        1 => [first, second, third],
        2 => [second, first, third],
        3 => [third, first, second],
        4 => [
            first.checked_sub(1).filter(|&less| less > 0)?,
            first,
            second,
        ],
        _ => [value - 3, first, second],
    };
    recent.first().copied()
}
