//! Finite state entropy: tables of states (RFC 8878, 4.1).

use super::bits::{Backward, Forward};

/// One state: the symbol it stands for, and how the next is found.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    symbol: u8,
    bits: u8,
    base: u16,
}

/// A decoding table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    states: Vec<State>,
    /// Binary logarithm of the number of states.
    log: u32,
}

/// Symbols that any table has, at most.
const SYMBOLS: usize = 256;

impl Table {
    /// Reads a table of at most 2 to the power of `most_log` states for symbols up to `last`; what
    /// comes behind it.
    pub(super) fn read(bytes: &[u8], most_log: u32, last: u8) -> Option<(Self, &[u8])> {
        let mut bits = Forward::new(bytes);
        let log = u32::try_from(bits.read(4)).ok()? + 5;
        if log > most_log {
            return None;
        }
        let mut counts = Vec::new();
        let mut remaining = (1_i32 << log) + 1;
        while remaining > 1 {
            if counts.len() > usize::from(last) {
                return None;
            }
            let count = read_count(&mut bits, remaining)?;
            remaining -= i32::from(count).abs();
            counts.push(count);
            // Zeroes come in runs.
            let mut more = count == 0;
            while more {
                let run = usize::try_from(bits.read(2)).ok()?;
                counts.resize(counts.len() + run, 0);
                more = run == 3;
                if counts.len() > SYMBOLS {
                    return None;
                }
            }
        }
        if remaining != 1 || counts.len() > usize::from(last) + 1 {
            return None;
        }
        Some((Self::new(&counts, log)?, bits.rest()?))
    }

    /// A table from the symbols' counts, -1 for less than one; they add up to the number of states.
    pub(super) fn new(counts: &[i16], log: u32) -> Option<Self> {
        let size = 1_usize << log;
        let mut states = vec![State::default(); size];
        let mut next: Vec<u32> = Vec::new();
        let mut free = size;
        for (symbol, &count) in counts.iter().enumerate() {
            next.push(u32::from(count.unsigned_abs()));
            if count == -1 {
                free = free.checked_sub(1)?;
                states.get_mut(free)?.symbol = u8::try_from(symbol).ok()?;
            }
        }
        let step = (size >> 1) + (size >> 3) + 3;
        let mut at = 0;
        for (symbol, &count) in counts.iter().enumerate() {
            for _ in 0..count.max(0) {
                states.get_mut(at)?.symbol = u8::try_from(symbol).ok()?;
                // Those at the end are taken by symbols of less than one.
                loop {
                    at = (at + step) % size;
                    if at < free || free == 0 {
                        break;
                    }
                }
            }
        }
        for state in &mut states {
            let next = next.get_mut(usize::from(state.symbol))?;
            let bits = log.checked_sub(next.checked_ilog2()?)?;
            state.bits = u8::try_from(bits).ok()?;
            state.base = u16::try_from((*next << bits).checked_sub(1 << log)?).ok()?;
            *next += 1;
        }
        Some(Self { states, log })
    }

    /// A table that gives one symbol, for no bits.
    pub(super) fn single(symbol: u8) -> Self {
        let state = State {
            symbol,
            ..State::default()
        };
        Self {
            states: vec![state],
            log: 0,
        }
    }

    /// The first state.
    pub(super) fn start(&self, bits: &mut Backward<'_>) -> usize {
        usize::try_from(bits.read(self.log)).unwrap_or_default()
    }

    pub(super) fn symbol(&self, state: usize) -> Option<u8> {
        Some(self.states.get(state)?.symbol)
    }

    /// The state behind this one.
    pub(super) fn next(&self, state: usize, bits: &mut Backward<'_>) -> Option<usize> {
        let state = self.states.get(state)?;
        let more = usize::try_from(bits.read(state.bits.into())).ok()?;
        Some(usize::from(state.base) + more)
    }
}

/// The next symbol's count, when `remaining` less one states are left for it and those behind it.
fn read_count(bits: &mut Forward<'_>, remaining: i32) -> Option<i16> {
    // Values up to `remaining`, of which the smaller take a bit less.
    let width = remaining.ilog2() + 1;
    let threshold = 1_i32 << (width - 1);
    let short = 2 * threshold - 1 - remaining;
    let raw = i32::try_from(bits.peek(width)).ok()?;
    let low = raw & (threshold - 1);
    let value = if low < short {
        bits.skip(width - 1);
        low
    } else {
        bits.skip(width);
        if raw >= threshold { raw - short } else { raw }
    };
    i16::try_from(value - 1).ok()
}
