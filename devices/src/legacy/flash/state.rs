//! The saved state of a flash: where it is in a command, and all of its content.
//!
//! The content is in the record and not only in the store: the store goes on, when the machine that was saved does.
//! What the record has and the store has not is kept when the restored machine goes on, before its guest runs; until then
//! the store is as it was, and the machine that was saved may go on instead.

use std::ops::Range;

use super::{ERASE_ERROR, Flash, Mode, PROGRAM_ERROR, READY, Shown};
use crate::state::{Saveable, Schema, StateError, StateReader, StateWriter, check};

const SCHEMA: Schema = Schema {
    name: "flash",
    version: 1,
};

/// What is saved.
struct FlashStateV1<'a> {
    mode: Mode,
    status: u8,
    refuses: bool,
    /// Where the status is shown; zero where it is not.
    shown: u32,
    pending: Range<u32>,
    content: &'a [u8],
}

impl<'a> FlashStateV1<'a> {
    fn decode(bytes: &'a [u8], size: u64) -> Result<Self, StateError> {
        let mut reader = StateReader::new(bytes);
        let mode = match reader.u8()? {
            0 => Mode::Array,
            1 => Mode::Status,
            2 => Mode::Program,
            3 => Mode::Erase,
            _ => return Err(StateError::Invalid { field: "mode" }),
        };
        let status = reader.u8()?;
        check(
            status & !(READY | ERASE_ERROR | PROGRAM_ERROR) == 0,
            "status",
        )?;
        let refuses = reader.bool("refuses")?;
        let shown = reader.u32()?;
        let valid = match mode {
            Mode::Array => shown == 0,
            _ => u64::from(shown) < size,
        };
        check(valid, "shown")?;
        let pending = reader.u32()?..reader.u32()?;
        let valid = pending.start <= pending.end && u64::from(pending.end) <= size;
        check(valid, "pending")?;
        let content = reader.rest();
        check(content.len() as u64 == size, "content")?;
        Ok(Self {
            mode,
            status,
            refuses,
            shown,
            pending,
            content,
        })
    }
}

/// An offset in a record; every one is below the largest size.
fn short(offset: u64) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

/// The least range with all of both.
fn hull(a: Range<u64>, b: Range<u64>) -> Range<u64> {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b,
        (_, true) => a,
        _ => a.start.min(b.start)..a.end.max(b.end),
    }
}

/// The least range outside of which `a` is `b`.
fn difference(a: &[u8], b: &[u8]) -> Range<u64> {
    let differs = |(a, b)| a != b;
    let first = a.iter().zip(b).position(differs);
    let last = a.iter().zip(b).rposition(differs);
    match (first, last) {
        (Some(first), Some(last)) => first as u64..last as u64 + 1,
        _ => 0..0,
    }
}

impl Flash {
    fn whole(&self) -> Vec<u8> {
        let mut content = vec![0; usize::try_from(self.size).unwrap_or_default()];
        // The array is in memory: the constructor has looked.
        let _ = self.content(0, &mut content);
        content
    }
}

impl Saveable for Flash {
    fn schema(&self) -> Schema {
        SCHEMA
    }

    fn save(&self) -> Vec<u8> {
        StateWriter::new()
            .u8(match self.mode {
                Mode::Array => 0,
                Mode::Status => 1,
                Mode::Program => 2,
                Mode::Erase => 3,
            })
            .u8(self.status)
            .bool(self.refuses)
            .u32(self.shown.map_or(0, |shown| short(shown.offset)))
            .u32(short(self.pending.start))
            .u32(short(self.pending.end))
            .bytes(&self.whole())
            .finish()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        SCHEMA.expect_version(version)?;
        let state = FlashStateV1::decode(bytes, self.size)?;
        let changed = difference(&self.whole(), state.content);
        let theirs = u64::from(state.pending.start)..u64::from(state.pending.end);
        self.pending = hull(hull(self.pending.clone(), theirs), changed);
        self.shown = None;
        self.mode = state.mode;
        self.status = state.status;
        self.refuses = state.refuses;
        let outside = |_| StateError::Invalid { field: "content" };
        self.put(0, state.content).map_err(outside)?;
        if state.mode != Mode::Array {
            let offset = state.shown.into();
            let covered = self.byte(offset).map_err(outside)?;
            self.put(offset, &[self.status]).map_err(outside)?;
            self.shown = Some(Shown { offset, covered });
        }
        Ok(())
    }
}
