//! Which filters there are, and what is done when one changes.

use std::sync::{Arc, Mutex, PoisonError};

use reeve_ipc::api::call::{NwfilterBindingPage, NwfilterPage, NwfilterRef};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::nwfilter::{NwfilterBinding, NwfilterSummary};
use reeve_ipc::model::{InterfaceName, Nwfilter, NwfilterName};

use super::book::{Book, SharedBook};
use super::change::Change;
use super::shipped;
use crate::crash::{self, Moment, Operation};
use crate::host::filter::{Guarded, TapFilters};
use crate::host::tap::TapId;
use crate::pool::registry::fitting;
use crate::store::{LoadedNwfilters, NwfilterStore, StoreError};

/// Filters of one instance, at most.
const MAX_FILTERS: usize = 4096;

/// Every network filter of an instance. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Nwfilters {
    book: SharedBook,
    taps: TapFilters,
    store: Arc<NwfilterStore>,
    /// Held by whoever changes which filters there are.
    changing: Arc<Mutex<()>>,
}

fn absent(filter: &NwfilterRef) -> ApiError {
    let why = format!("there is no network filter {filter}");
    ApiError::new(ApiErrorCode::NoNwfilter, why)
}

fn stored(error: &StoreError) -> ApiError {
    ApiError::new(ApiErrorCode::Storage, error.to_string())
}

fn summary(filter: &Nwfilter) -> NwfilterSummary {
    NwfilterSummary {
        name: filter.name.clone(),
        uuid: filter.uuid,
    }
}

fn find<'a>(book: &'a Book, filter: &NwfilterRef) -> Result<&'a Arc<Nwfilter>, ApiError> {
    let found = match filter {
        NwfilterRef::Name(name) => book.get(name),
        NwfilterRef::Uuid(uuid) => book.all().find(|filter| filter.uuid == *uuid),
    };
    found.ok_or_else(|| absent(filter))
}

impl Nwfilters {
    /// None yet; interfaces get their rules from `book` and `taps`.
    pub(crate) fn new(book: SharedBook, taps: TapFilters, store: Arc<NwfilterStore>) -> Self {
        Self {
            book,
            taps,
            store,
            changing: Arc::default(),
        }
    }

    /// Takes up what was kept, and of the shipped ones what was neither replaced nor undefined.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn load(&self) -> Result<LoadedNwfilters, StoreError> {
        let loaded = self.store.load_all()?;
        let mut book = self.book.write();
        for filter in shipped::all() {
            let kept = loaded.filters.iter();
            let replaced = kept
                .clone()
                .any(|kept| kept.uuid == filter.uuid || kept.name == filter.name);
            // What cannot be read may say that it was.
            let unread = loaded.refused.iter().any(|refusal| {
                let name = refusal.path.file_stem().and_then(|name| name.to_str());
                name == Some(filter.uuid.to_string().as_str())
            });
            if !replaced && !unread && !loaded.undefined.contains(&filter.uuid) {
                book.insert(filter);
            }
        }
        for filter in &loaded.filters {
            book.insert(filter.clone());
        }
        drop(book);
        Ok(loaded)
    }

    /// One page of filters, in the order of names.
    #[must_use]
    pub fn page(&self, after: Option<&NwfilterName>) -> NwfilterPage {
        let book = self.book.read();
        let all = book.all().map(|filter| summary(filter));
        let all = all.filter(|filter| after.is_none_or(|after| filter.name > *after));
        let (filters, more) = fitting(all);
        NwfilterPage { filters, more }
    }

    /// A filter.
    ///
    /// # Errors
    /// [`ApiErrorCode::NoNwfilter`].
    pub fn get(&self, filter: &NwfilterRef) -> Result<Nwfilter, ApiError> {
        find(&self.book.read(), filter).map(|filter| Nwfilter::clone(filter))
    }

    /// One page of the interfaces that have a filter, in the order of names.
    #[must_use]
    pub fn bindings(&self, after: Option<&InterfaceName>) -> NwfilterBindingPage {
        let taps = self.taps.bound().into_iter();
        let mut all: Vec<NwfilterBinding> = taps
            .filter_map(|(tap, guarded)| binding(&tap, guarded))
            .filter(|binding| after.is_none_or(|after| binding.interface > *after))
            .collect();
        all.sort_by(|a, b| a.interface.cmp(&b.interface));
        let (bindings, more) = fitting(all.into_iter());
        NwfilterBindingPage { bindings, more }
    }

    /// Keeps a definition, and gives every interface that uses it its rules. To be called where it may wait for the
    /// disk and the kernel.
    ///
    /// # Errors
    /// [`ApiErrorCode::NwfilterExists`], [`ApiErrorCode::InvalidArgument`], and those of an interface that cannot have
    /// it and of keeping it; nothing has changed then.
    pub fn define(&self, filter: Nwfilter, only_new: bool) -> Result<NwfilterSummary, ApiError> {
        filter.validate().map_err(|error| {
            let why = format!("network filter '{}': {error}", filter.name);
            ApiError::new(ApiErrorCode::InvalidArgument, why)
        })?;
        // One changes at a time; what there is may be looked at and used meanwhile.
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.book.read().clone();
        judge(&next, &filter, only_new)?;
        next.insert(filter.clone());
        if next.refers(&filter.name, &filter.name) {
            let why = "filter would introduce a loop";
            return Err(ApiError::new(ApiErrorCode::WrongState, why));
        }
        // Rules of before that nobody knows any more could not be put back: what is sure to be refused is refused first.
        let writable = self.store.may_write(filter.uuid);
        writable.map_err(|error| stored(&error))?;
        let mut change = Change::of(&filter.name, &next, &self.taps);
        let mut book = change.apply(&self.book)?;
        if let Err(error) = self.store.write(&filter) {
            drop(book);
            change.undo();
            return Err(stored(&error));
        }
        *book = next;
        drop(book);
        crash::point(Operation::NwfilterDefine, Moment::BeforeAnswer);
        Ok(summary(&filter))
    }

    /// Forgets a filter. As in libvirt, others may go on referring to it: what would use those is refused until it is
    /// there again. To be called where it may wait for the disk.
    ///
    /// # Errors
    /// [`ApiErrorCode::NoNwfilter`]; [`ApiErrorCode::InUse`]; those of the disk.
    pub fn undefine(&self, filter: &NwfilterRef) -> Result<(), ApiError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut book = self.book.write();
        let found = Arc::clone(find(&book, filter)?);
        let name = &found.name;
        if let Some((tap, _)) = self.using(&book, name).first() {
            let why = format!("nwfilter is in use: by the interface '{}'", tap.name);
            return Err(ApiError::new(ApiErrorCode::InUse, why));
        }
        let is_shipped = shipped::all().iter().any(|it| it.uuid == found.uuid);
        let removed = match is_shipped {
            true => self.store.write_undefined(found.uuid),
            false => self.store.remove(found.uuid),
        };
        removed.map_err(|error| stored(&error))?;
        book.remove(name);
        drop(book);
        crash::point(Operation::NwfilterUndefine, Moment::BeforeAnswer);
        Ok(())
    }

    /// The interfaces whose rules come of a filter, or would once that is there.
    fn using(&self, book: &Book, name: &NwfilterName) -> Vec<(TapId, Guarded)> {
        let mut taps = self.taps.bound();
        if !taps.is_empty() {
            let users = book.users(name);
            taps.retain(|(_, guarded)| {
                let bound = guarded.bound.as_ref();
                bound.is_some_and(|bound| users.contains(&bound.reference.filter))
            });
        }
        taps
    }
}

fn binding(tap: &TapId, guarded: Guarded) -> Option<NwfilterBinding> {
    let (bound, guest) = (guarded.bound?, guarded.guest?);
    Some(NwfilterBinding {
        interface: tap.name.parse().ok()?,
        domain: guest.uuid,
        name: guest.domain,
        mac: bound.mac,
        filter: bound.reference,
    })
}

/// That a definition collides with no other.
fn judge(book: &Book, filter: &Nwfilter, only_new: bool) -> Result<(), ApiError> {
    let Nwfilter { name, uuid, .. } = filter;
    let exists = |why: String| Err(ApiError::new(ApiErrorCode::NwfilterExists, why));
    if let Some(other) = book.all().find(|other| other.uuid == *uuid) {
        if other.name != *name {
            return exists(format!(
                "filter with same UUID but different name ('{}') already exists",
                other.name
            ));
        }
        if only_new {
            return exists(format!("filter '{name}' already exists"));
        }
    } else if let Some(other) = book.get(name) {
        return exists(format!(
            "filter '{name}' already exists with uuid {}",
            other.uuid
        ));
    } else if book.len() >= MAX_FILTERS {
        let why = format!("there are {MAX_FILTERS} network filters, and no more can be had");
        return Err(ApiError::new(ApiErrorCode::Busy, why));
    }
    Ok(())
}
