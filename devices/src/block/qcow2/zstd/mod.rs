//! Zstandard, to read compressed clusters (RFC 8878): one frame into one buffer.
//!
//! The input is hostile. The output is a buffer of fixed size that is also the history, so a match
//! reaches back as far as was written and no further, and memory is that buffer, the literals of
//! one block (128 KiB) and three tables of at most 512 states. Time is bounded by the input's
//! length and the output's: a block that adds nothing costs its own bytes. No dictionaries;
//! checksums are not looked at.
//!
//! Own code since the crates for it need a newer compiler, or take memory by what a frame says.

mod bits;
mod fse;
mod huffman;
mod sequences;

use self::huffman::Huffman;
use self::sequences::Sequences;

const MAGIC: u32 = 0xfd2f_b528;
/// Bytes of a block, compressed or not, at most.
const BLOCK: usize = 128 << 10;

/// Decompresses the frame that `input` begins with until `output` is full. False if the frame is
/// broken or too short; bytes behind it are ignored.
pub(super) fn decompress(input: &[u8], output: &mut [u8]) -> bool {
    decode(input, output).is_some()
}

fn decode(input: &[u8], output: &mut [u8]) -> Option<()> {
    let mut input = skip_header(input)?;
    let mut output = Output {
        bytes: output,
        len: 0,
    };
    let mut state = State::default();
    while !output.is_full() {
        let (header, rest) = input.split_at_checked(3)?;
        let header = header
            .iter()
            .rev()
            .fold(0_u32, |value, &byte| value << 8 | u32::from(byte));
        let size = usize::try_from(header >> 3)
            .ok()
            .filter(|&size| size <= BLOCK)?;
        let last = header & 1 != 0;
        input = match header >> 1 & 3 {
            0 => {
                let (block, rest) = rest.split_at_checked(size)?;
                output.push(block);
                rest
            }
            1 => {
                let (&byte, rest) = rest.split_first()?;
                output.repeat(byte, size);
                rest
            }
            2 => {
                let (block, rest) = rest.split_at_checked(size)?;
                state.block(block, &mut output)?;
                rest
            }
            _ => return None,
        };
        if last {
            break;
        }
    }
    output.is_full().then_some(())
}

/// What comes behind the frame's header.
fn skip_header(input: &[u8]) -> Option<&[u8]> {
    let (magic, rest) = input.split_first_chunk()?;
    let (descriptor, rest) = rest.split_first()?;
    let reserved = descriptor & 0x08 != 0;
    let dictionary = descriptor & 0x03 != 0;
    if u32::from_le_bytes(*magic) != MAGIC || reserved || dictionary {
        return None;
    }
    let single_segment = descriptor & 0x20 != 0;
    let content_size = match descriptor >> 6 {
        0 => usize::from(single_segment),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    rest.get(usize::from(!single_segment) + content_size..)
}

/// The buffer, and how much of it is written. What is more than full is dropped: nothing refers
/// back to it any more.
struct Output<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl Output<'_> {
    fn is_full(&self) -> bool {
        self.len >= self.bytes.len()
    }

    /// The next `count` bytes to be written, or as many as there are.
    fn next(&mut self, count: usize) -> &mut [u8] {
        let start = self.len;
        self.len = self.bytes.len().min(start.saturating_add(count));
        self.bytes.get_mut(start..self.len).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = self.next(bytes.len());
        let fits = room.len();
        room.copy_from_slice(bytes.get(..fits).unwrap_or_default());
    }

    fn repeat(&mut self, byte: u8, count: usize) {
        self.next(count).fill(byte);
    }

    /// Writes again what was written `distance` bytes ago.
    fn copy(&mut self, distance: usize, count: usize) -> Option<()> {
        let mut from = self.len.checked_sub(distance).filter(|_| distance > 0)?;
        let end = self.bytes.len().min(self.len.saturating_add(count));
        // A match may reach into itself: what is there once is copied before it is needed again.
        while self.len < end {
            let part = (end - self.len).min(self.len - from);
            self.bytes.copy_within(from..from + part, self.len);
            self.len += part;
            from = self.len - distance;
        }
        Some(())
    }
}

/// What one block leaves to the next.
#[derive(Default)]
struct State {
    huffman: Option<Huffman>,
    sequences: Sequences,
    literals: Vec<u8>,
}

impl State {
    fn block(&mut self, block: &[u8], output: &mut Output<'_>) -> Option<()> {
        let rest = self.read_literals(block)?;
        self.sequences.execute(rest, &self.literals, output)
    }

    /// Reads the literals section (3.1.1.3.1); what comes behind it.
    fn read_literals<'a>(&mut self, block: &'a [u8]) -> Option<&'a [u8]> {
        let first = *block.first()?;
        let format = first >> 2 & 3;
        self.literals.clear();
        if first & 3 < 2 {
            let (bytes, shift) = match format {
                0 | 2 => (1, 3),
                1 => (2, 4),
                _ => (3, 4),
            };
            let (header, rest) = block.split_at_checked(bytes)?;
            let size = usize::try_from(little_endian(header) >> shift).ok()?;
            if size > BLOCK {
                return None;
            }
            if first & 3 == 0 {
                let (literals, rest) = rest.split_at_checked(size)?;
                self.literals.extend_from_slice(literals);
                return Some(rest);
            }
            let (&byte, rest) = rest.split_first()?;
            self.literals.resize(size, byte);
            return Some(rest);
        }
        let (bytes, width) = match format {
            0 | 1 => (3, 10),
            2 => (4, 14),
            _ => (5, 18),
        };
        let (header, rest) = block.split_at_checked(bytes)?;
        let sizes = little_endian(header) >> 4;
        let size = usize::try_from(sizes & ((1 << width) - 1)).ok()?;
        let compressed = usize::try_from(sizes >> width).ok()?;
        let (mut streams, rest) = rest.split_at_checked(compressed)?;
        if size > BLOCK {
            return None;
        }
        if first & 3 == 2 {
            let (huffman, behind) = Huffman::read(streams)?;
            self.huffman = Some(huffman);
            streams = behind;
        }
        self.literals.resize(size, 0);
        let huffman = self.huffman.as_ref()?;
        if format == 0 {
            huffman.decode(streams, &mut self.literals)?;
        } else {
            huffman.decode_four(streams, &mut self.literals)?;
        }
        Some(rest)
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, &byte| value << 8 | u64::from(byte))
}
