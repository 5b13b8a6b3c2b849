//! From page numbers to ranges that the host can free.

use std::collections::BTreeMap;

use super::PAGE_BYTES;
use crate::memory::GuestRam;

/// Pages of one word of notes.
const WORD_PAGES: u32 = 64;

/// Which parts of huge pages are lent, where that matters; see the module above.
#[derive(Debug)]
pub(super) struct LentPages {
    /// Bytes of a page of the host, which alone can be freed.
    unit: u64,
    /// The driver tells before it uses a lent page again.
    told: bool,
    /// A bit for each lent page, by page number divided by [`WORD_PAGES`]; no word is zero.
    words: BTreeMap<u32, u64>,
    /// Lent pages of each page of the host, by address divided by the unit; no count is zero.
    counts: BTreeMap<u32, u64>,
}

impl LentPages {
    pub(super) fn new(unit: u64) -> Self {
        Self {
            unit,
            told: false,
            words: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    pub(super) fn set_told(&mut self, told: bool) {
        self.told = told;
        if !told {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.words.clear();
        self.counts.clear();
    }

    /// Whether it wants to know what is deflated.
    pub(super) fn takes_notes(&self) -> bool {
        self.told && self.unit > PAGE_BYTES
    }

    /// Lends the pages `numbers`, whose order is lost, and calls `give` with each range that the
    /// host can free now. Gives how many of the pages are none of the guest's memory.
    pub(super) fn inflate(
        &mut self,
        numbers: &mut Vec<u32>,
        ram: &GuestRam,
        mut give: impl FnMut(u64, u64),
    ) -> u64 {
        let named = numbers.len();
        numbers.retain(|number| ram.contains(address(*number), PAGE_BYTES));
        let ignored = named - numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        if self.takes_notes() {
            for number in &*numbers {
                self.note(*number);
            }
            // Sorted, so that all pages of one unit follow each other.
            numbers.dedup_by_key(|number| address(*number) / self.unit);
            let whole = numbers.iter().filter(|number| self.is_whole(**number));
            let starts = whole.map(|number| address(*number) / self.unit * self.unit);
            runs(starts, self.unit, ram, give);
        } else {
            let starts = numbers.iter().map(|number| address(*number));
            runs(starts, PAGE_BYTES, ram, |start, len| {
                if let Some((start, len)) = self.trim(start, len) {
                    give(start, len);
                }
            });
        }
        ignored as u64
    }

    /// Takes the pages `numbers` back, lent or not.
    pub(super) fn deflate(&mut self, numbers: &[u32]) {
        for number in numbers {
            let key = word_key(*number);
            let Some(word) = self.words.get_mut(&key) else {
                continue;
            };
            let bit = bit(*number);
            if *word & bit == 0 {
                continue;
            }
            *word &= !bit;
            if *word == 0 {
                self.words.remove(&key);
            }
            let key = self.unit_key(*number);
            if let Some(count) = self.counts.get_mut(&key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.counts.remove(&key);
                }
            }
        }
    }

    /// The whole pages of the host in a range, if there is one.
    pub(super) fn trim(&self, start: u64, len: u64) -> Option<(u64, u64)> {
        let first = start.checked_next_multiple_of(self.unit)?;
        let end = start.checked_add(len)? / self.unit * self.unit;
        (first < end).then(|| (first, end - first))
    }

    fn note(&mut self, number: u32) {
        let word = self.words.entry(word_key(number)).or_default();
        let bit = bit(number);
        if *word & bit == 0 {
            *word |= bit;
            *self.counts.entry(self.unit_key(number)).or_default() += 1;
        }
    }

    fn is_whole(&self, number: u32) -> bool {
        self.counts.get(&self.unit_key(number)) == Some(&(self.unit / PAGE_BYTES))
    }

    fn unit_key(&self, number: u32) -> u32 {
        // Below the page number: a unit is a page at least.
        u32::try_from(address(number) / self.unit).unwrap_or(u32::MAX)
    }
}

fn address(number: u32) -> u64 {
    u64::from(number) * PAGE_BYTES
}

fn word_key(number: u32) -> u32 {
    number / WORD_PAGES
}

fn bit(number: u32) -> u64 {
    1 << (number % WORD_PAGES)
}

/// Calls `give` with the ranges that the pieces of `unit` bytes at `starts` make up, which rise. A
/// range lies in one piece of RAM; what does not is left out.
fn runs(
    starts: impl Iterator<Item = u64>,
    unit: u64,
    ram: &GuestRam,
    mut give: impl FnMut(u64, u64),
) {
    let mut run = (0, 0);
    for start in starts {
        let (first, len) = run;
        if len > 0 && start == first + len && ram.contains(first, len + unit) {
            run.1 += unit;
            continue;
        }
        if len > 0 {
            give(first, len);
        }
        run = (start, if ram.contains(start, unit) { unit } else { 0 });
    }
    if run.1 > 0 {
        give(run.0, run.1);
    }
}
