//! Huffman codes of literals (RFC 8878, 4.2).

use super::bits::Backward;
use super::fse::Table;

/// Bits of a code, at most.
const LONGEST: u32 = 11;
/// Symbols, but for the last, whose weight follows from the others'.
const WEIGHTS: usize = 255;

/// A decoding table: for each value of the next bits, a symbol and how many of them are its code.
#[derive(Debug)]
pub(super) struct Huffman {
    codes: Vec<(u8, u8)>,
    longest: u32,
}

impl Huffman {
    /// Reads the description of a tree; what comes behind it.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&header, rest) = bytes.split_first()?;
        if header >= 128 {
            let count = usize::from(header) - 127;
            let (packed, rest) = rest.split_at_checked(count.div_ceil(2))?;
            let mut weights: Vec<u8> = packed
                .iter()
                .flat_map(|&byte| [byte >> 4, byte & 15])
                .collect();
            weights.truncate(count);
            return Some((Self::new(weights)?, rest));
        }
        let (packed, rest) = rest.split_at_checked(header.into())?;
        Some((Self::new(unpack(packed)?)?, rest))
    }

    fn new(mut weights: Vec<u8>) -> Option<Self> {
        let share = |weight: u8| (1_u32 << weight) >> 1;
        if weights.iter().any(|&weight| u32::from(weight) > LONGEST) {
            return None;
        }
        let sum: u32 = weights.iter().map(|&weight| share(weight)).sum();
        let longest = sum.checked_ilog2()? + 1;
        let left = (1 << longest) - sum;
        if longest > LONGEST || !left.is_power_of_two() {
            return None;
        }
        weights.push(u8::try_from(left.ilog2() + 1).ok()?);
        let mut codes = Vec::with_capacity(1 << longest);
        for weight in 1..=longest + 1 {
            for (symbol, _) in weights
                .iter()
                .enumerate()
                .filter(|(_, has)| u32::from(**has) == weight)
            {
                let length = u8::try_from((longest + 1).checked_sub(weight)?).ok()?;
                let code = (u8::try_from(symbol).ok()?, length);
                codes.resize(codes.len() + (1 << (weight - 1)), code);
            }
        }
        (codes.len() == 1 << longest).then_some(Self { codes, longest })
    }

    /// Fills `output` from one stream, which ends with it.
    pub(super) fn decode(&self, stream: &[u8], output: &mut [u8]) -> Option<()> {
        let mut bits = Backward::new(stream)?;
        for byte in output {
            let next = usize::try_from(bits.peek(self.longest)).ok()?;
            let (symbol, length) = self.codes.get(next)?;
            bits.skip((*length).into());
            *byte = *symbol;
        }
        bits.is_done().then_some(())
    }

    /// Fills `output` from four streams behind the lengths of three.
    pub(super) fn decode_four(&self, streams: &[u8], output: &mut [u8]) -> Option<()> {
        let (lengths, mut rest) = streams.split_at_checked(6)?;
        let quarter = output.len().div_ceil(4);
        let mut output = output;
        for length in lengths.chunks_exact(2) {
            let length = usize::try_from(super::little_endian(length)).ok()?;
            let (stream, behind) = rest.split_at_checked(length)?;
            let (now, later) = output.split_at_mut_checked(quarter)?;
            self.decode(stream, now)?;
            (rest, output) = (behind, later);
        }
        self.decode(rest, output)
    }
}

/// Weights that two states take turns to give, until the bits are used up.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let most = u8::try_from(LONGEST + 1).ok()?;
    let (table, stream) = Table::read(packed, 6, most)?;
    let mut bits = Backward::new(stream)?;
    let mut now = table.start(&mut bits);
    let mut other = table.start(&mut bits);
    if bits.is_overrun() {
        return None;
    }
    let mut weights = Vec::new();
    while weights.len() < WEIGHTS {
        weights.push(table.symbol(now)?);
        now = table.next(now, &mut bits)?;
        if bits.is_overrun() {
            weights.push(table.symbol(other)?);
            return (weights.len() <= WEIGHTS).then_some(weights);
        }
        std::mem::swap(&mut now, &mut other);
    }
    None
}
