//! A filter that changes, and the interfaces that use it: all get the rules that come of it, or none.
//!
//! Each interface is a step of its own, before the book changes. Between two steps others have their turn: what starts
//! meanwhile gets its rules by the filters of before, and is a user like the others. The book is held for the last few,
//! so that no interface is left with the rules of before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::RwLockWriteGuard;

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::model::NwfilterName;

use super::book::{Book, SharedBook};
use crate::host::filter::{Guarded, TapFilters};
use crate::host::reason;
use crate::host::tap::TapId;

/// Interfaces that get their rules while the book is held, at most, but for the last round.
const LAST: usize = 8;
/// How often those are looked for that started meanwhile, before nothing starts any more.
const ROUNDS: u32 = 16;

/// What an interface had, and has.
#[derive(Debug)]
struct Renewed {
    before: Guarded,
    now: Guarded,
}

/// A change.
#[derive(Debug)]
pub(super) struct Change<'a> {
    taps: &'a TapFilters,
    next: &'a Book,
    /// The filter, and those that refer to it.
    filters: BTreeSet<&'a NwfilterName>,
    renewed: BTreeMap<TapId, Renewed>,
}

impl<'a> Change<'a> {
    /// The change of a filter, by which there is what `next` has.
    pub(super) fn of(name: &'a NwfilterName, next: &'a Book, taps: &'a TapFilters) -> Self {
        Self {
            taps,
            next,
            filters: next.users(name),
            renewed: BTreeMap::new(),
        }
    }

    /// Gives every interface that uses the filter the rules of after, and the book, which then is to be changed; or an
    /// error, and every interface has what it had.
    pub(super) fn apply<'b>(
        &mut self,
        book: &'b SharedBook,
    ) -> Result<RwLockWriteGuard<'b, Book>, ApiError> {
        let applied = self.advance(book);
        if applied.is_err() {
            self.undo();
        }
        applied
    }

    fn advance<'b>(
        &mut self,
        book: &'b SharedBook,
    ) -> Result<RwLockWriteGuard<'b, Book>, ApiError> {
        for _ in 0..ROUNDS {
            let left = self.left();
            if left.len() <= LAST {
                let book = book.write();
                let left = self.left();
                if left.len() <= LAST {
                    self.renew(left)?;
                    return Ok(book);
                }
            }
            self.renew(left)?;
        }
        let book = book.write();
        let left = self.left();
        self.renew(left)?;
        Ok(book)
    }

    /// The interfaces that have other rules than those of after, and what they have.
    fn left(&self) -> Vec<(TapId, Guarded)> {
        let mut taps = self.taps.bound();
        taps.retain(|(tap, guarded)| {
            let uses = guarded
                .bound
                .as_ref()
                .is_some_and(|bound| self.filters.contains(&bound.reference.filter));
            let renewed = self.renewed.get(tap);
            uses && renewed.is_none_or(|renewed| renewed.now != *guarded)
        });
        taps
    }

    fn renew(&mut self, left: Vec<(TapId, Guarded)>) -> Result<(), ApiError> {
        for (tap, before) in left {
            let refused = |code, why: String| {
                let why = format!("the interface '{}' uses it: {why}", tap.name);
                ApiError::new(code, why)
            };
            let now = before
                .again(self.next)
                .map_err(|error| refused(ApiErrorCode::WrongState, error.to_string()))?;
            // Rules that stay the same stay where they are, with what they have counted.
            if now != before {
                self.taps
                    .renew(&tap, &before, now.clone())
                    .map_err(|errno| refused(ApiErrorCode::Host, reason(errno).to_string()))?;
            }
            self.renewed.insert(tap, Renewed { before, now });
        }
        Ok(())
    }

    /// Gives every interface what it had, which has the rules of after.
    pub(super) fn undo(&mut self) {
        let mut renewed = std::mem::take(&mut self.renewed);
        renewed.retain(|_, Renewed { before, now }| now != before);
        for (tap, Renewed { before, now }) in renewed {
            if let Err(errno) = self.taps.restore(&tap, &now, before) {
                let (tap, reason) = (&tap.name, reason(errno));
                tracing::error!(tap, "its filter of before cannot be put back: {reason}");
            }
        }
    }
}
