//! What the world is told, checked against what is as it is told.

use std::collections::BTreeMap;

use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::view::DomainState;
use reeve_ipc::model::{DomainName, DomainUuid};
use reeved::domain::world::EventSink;

use crate::universe::Shared;

/// The state that whoever follows the events knows of each domain.
#[derive(Debug, Default)]
pub struct Books {
    pub states: BTreeMap<DomainUuid, DomainState>,
}

#[derive(Debug)]
pub struct SimEvents(pub Shared);

impl EventSink for SimEvents {
    fn domain_event(&self, uuid: DomainUuid, name: &DomainName, kind: EventKind) {
        let mut universe = self.0.lock();
        if universe.dead {
            return;
        }
        universe.note(|| format!("event of {} '{name}': {kind:?}", crate::short(uuid)));
        let record = universe.disk.records.get(&uuid);
        let lie = match &kind {
            EventKind::State(state) => {
                let state = *state;
                let before = universe.books.states.insert(uuid, state);
                (before == Some(state)).then(|| format!("it is told again to be {state:?}"))
            }
            EventKind::Defined { .. } => record
                .is_none()
                .then(|| "it is told to be defined, and has no record".to_owned()),
            EventKind::Undefined => record
                .is_some()
                .then(|| "it is told to be undefined, and has a record".to_owned()),
            EventKind::Renamed { before } => record
                .is_none_or(|record| record.domain.name == *before)
                .then(|| "it is told to be renamed, and is not".to_owned()),
            EventKind::Autostart { order } => record
                .is_none_or(|record| record.autostart != *order)
                .then(|| "its autostart is told to be what it is not".to_owned()),
            _ => None,
        };
        if let Some(lie) = lie {
            universe.broken(format!("{}: {lie}", crate::short(uuid)));
        }
    }
}
