//! The filters that there are, and which refer to which.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use reeve_ipc::model::{Nwfilter, NwfilterName};

/// All filters, by name. Cheap to clone, as they are not copied.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    filters: BTreeMap<NwfilterName, Arc<Nwfilter>>,
}

/// The filters of an instance. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedBook(Arc<RwLock<Book>>);

impl SharedBook {
    /// For as long as it is held no filter changes.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Book> {
        // Nothing panics while it is held.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For as long as it is held no interface gets rules.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Book> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    pub(crate) fn get(&self, name: &NwfilterName) -> Option<&Arc<Nwfilter>> {
        self.filters.get(name)
    }

    pub(crate) fn len(&self) -> usize {
        self.filters.len()
    }

    /// In the order of names.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Nwfilter>> {
        self.filters.values()
    }

    pub(crate) fn insert(&mut self, filter: Nwfilter) {
        self.filters.insert(filter.name.clone(), Arc::new(filter));
    }

    pub(crate) fn remove(&mut self, name: &NwfilterName) {
        self.filters.remove(name);
    }

    /// Whether a filter refers to another, or to one that does. What is not there refers to nothing.
    pub(crate) fn refers(&self, from: &NwfilterName, to: &NwfilterName) -> bool {
        let mut seen = BTreeSet::new();
        let mut ahead = vec![from];
        while let Some(name) = ahead.pop() {
            let Some(filter) = self.filters.get(name) else {
                continue;
            };
            for reference in filter.references() {
                if reference.filter == *to {
                    return true;
                }
                if seen.insert(&reference.filter) {
                    ahead.push(&reference.filter);
                }
            }
        }
        false
    }

    /// A filter, which need not be there, and all those that refer to it or to one that does: what [`refers`]
    /// says of each, by one look at every reference.
    ///
    /// [`refers`]: Self::refers
    pub(crate) fn users<'a>(&'a self, of: &'a NwfilterName) -> BTreeSet<&'a NwfilterName> {
        let mut referring: BTreeMap<&NwfilterName, Vec<&NwfilterName>> = BTreeMap::new();
        for (from, filter) in &self.filters {
            for reference in filter.references() {
                referring.entry(&reference.filter).or_default().push(from);
            }
        }
        let mut users = BTreeSet::from([of]);
        let mut behind = vec![of];
        while let Some(name) = behind.pop() {
            let new = referring.remove(name).into_iter().flatten();
            behind.extend(new.filter(|from| users.insert(*from)));
        }
        users
    }
}
