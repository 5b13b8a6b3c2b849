//! Which names and UUIDs are taken on this instance: pure, and asked before any job begins.
//!
//! A name is reserved before it is written anywhere and released when nothing carries it any more, so
//! that two definitions can never meet on disk. While a domain is renamed it holds both names, and
//! takes no third: what was reserved under a name that it gives up would be written under that name
//! all the same.

use std::collections::{BTreeMap, HashMap, HashSet};

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::model::{DomainName, DomainUuid};

/// Names and UUIDs in use.
#[derive(Debug, Default)]
pub struct Index {
    by_name: BTreeMap<DomainName, DomainUuid>,
    by_uuid: HashMap<DomainUuid, DomainName>,
    renaming: HashSet<DomainUuid>,
}

impl Index {
    /// The UUID of a name.
    #[must_use]
    pub fn uuid(&self, name: &DomainName) -> Option<DomainUuid> {
        self.by_name.get(name).copied()
    }

    /// The name of a UUID: the newer while it is renamed.
    #[must_use]
    pub fn name(&self, uuid: DomainUuid) -> Option<&DomainName> {
        self.by_uuid.get(&uuid)
    }

    /// UUIDs in the order of their names, from behind `after`.
    pub fn after<'a>(
        &'a self,
        after: Option<&DomainName>,
    ) -> impl Iterator<Item = (&'a DomainName, DomainUuid)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.by_name
            .range::<DomainName, _>((from, Unbounded))
            .map(|(name, uuid)| (name, *uuid))
    }

    /// Reserves `name` for `uuid`; one that has it keeps it. Whether the UUID is new.
    ///
    /// # Errors
    /// [`ApiErrorCode::DomainExists`]: another domain has the name, or the UUID has another name.
    /// [`ApiErrorCode::Busy`]: the domain is being renamed.
    pub fn reserve(&mut self, uuid: DomainUuid, name: &DomainName) -> Result<bool, ApiError> {
        self.check_renaming(uuid)?;
        let taken = |message| Err(ApiError::new(ApiErrorCode::DomainExists, message));
        match (self.by_name.get(name), self.by_uuid.get(&uuid)) {
            (Some(other), _) if *other != uuid => taken(format!(
                "domain '{name}' exists already, with UUID {other}; choose another name"
            )),
            (_, Some(before)) if before != name => taken(format!(
                "UUID {uuid} is that of domain '{before}'; rename that one, or leave the UUID out"
            )),
            (_, Some(_)) => Ok(false),
            (_, None) => {
                self.by_name.insert(name.clone(), uuid);
                self.by_uuid.insert(uuid, name.clone());
                Ok(true)
            }
        }
    }

    fn check_renaming(&self, uuid: DomainUuid) -> Result<(), ApiError> {
        if !self.renaming.contains(&uuid) {
            return Ok(());
        }
        let message = match self.by_uuid.get(&uuid) {
            Some(name) => format!("domain '{name}' is being renamed; try again"),
            None => format!("the domain with UUID {uuid} is being renamed; try again"),
        };
        Err(ApiError::new(ApiErrorCode::Busy, message))
    }

    /// Reserves another name for a domain that has one; [`Index::settle`] says which one stays.
    ///
    /// # Errors
    /// [`ApiErrorCode::DomainExists`] when the name is taken, by itself too.
    /// [`ApiErrorCode::Busy`]: the domain is being renamed.
    pub fn reserve_rename(&mut self, uuid: DomainUuid, name: &DomainName) -> Result<(), ApiError> {
        self.check_renaming(uuid)?;
        if let Some(other) = self.by_name.get(name) {
            let message = if *other == uuid {
                format!("domain '{name}' has this name already")
            } else {
                format!("domain '{name}' exists already, with UUID {other}; choose another name")
            };
            return Err(ApiError::new(ApiErrorCode::DomainExists, message));
        }
        self.by_name.insert(name.clone(), uuid);
        self.renaming.insert(uuid);
        Ok(())
    }

    /// After a rename, well ended or not: `name` stays, every other of the domain's is released.
    pub fn settle(&mut self, uuid: DomainUuid, name: &DomainName) {
        self.renaming.remove(&uuid);
        self.by_name
            .retain(|other, holder| *holder != uuid || other == name);
        self.by_name.insert(name.clone(), uuid);
        self.by_uuid.insert(uuid, name.clone());
    }

    /// Nothing is left of the domain.
    pub fn release(&mut self, uuid: DomainUuid) {
        self.renaming.remove(&uuid);
        self.by_uuid.remove(&uuid);
        self.by_name.retain(|_, holder| *holder != uuid);
    }

    /// How many domains there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_uuid.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_uuid.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn uuid(number: u128) -> DomainUuid {
        DomainUuid(Uuid::from_u128(number))
    }

    fn name(name: &str) -> DomainName {
        name.parse().unwrap()
    }

    #[test]
    fn a_name_and_a_uuid_belong_to_one_domain() {
        let mut index = Index::default();
        assert_eq!(index.reserve(uuid(1), &name("web")), Ok(true));
        assert_eq!(index.reserve(uuid(1), &name("web")), Ok(false));
        assert!(index.reserve(uuid(2), &name("web")).is_err());
        assert!(index.reserve(uuid(1), &name("db")).is_err());
        assert_eq!(index.uuid(&name("db")), None, "a refusal reserves nothing");
        index.release(uuid(1));
        assert_eq!(index.reserve(uuid(2), &name("web")), Ok(true));
    }

    #[test]
    fn a_rename_holds_both_names_until_it_is_settled() {
        let mut index = Index::default();
        index.reserve(uuid(1), &name("old")).unwrap();
        assert!(index.reserve_rename(uuid(1), &name("old")).is_err());
        index.reserve_rename(uuid(1), &name("new")).unwrap();
        assert!(index.reserve(uuid(2), &name("new")).is_err());
        assert!(index.reserve(uuid(2), &name("old")).is_err());
        let busy = |error: ApiError| error.code == ApiErrorCode::Busy;
        let third = index.reserve_rename(uuid(1), &name("third"));
        assert!(third.is_err_and(busy), "one rename at a time");
        let defined = index.reserve(uuid(1), &name("old"));
        assert!(defined.is_err_and(busy), "its old name goes");
        index.settle(uuid(1), &name("new"));
        assert_eq!(index.reserve(uuid(2), &name("old")), Ok(true));
        assert_eq!(index.name(uuid(1)), Some(&name("new")));
        let names: Vec<_> = index
            .after(Some(&name("new")))
            .map(|(name, _)| name.clone())
            .collect();
        assert_eq!(names, [name("old")]);
    }
}
