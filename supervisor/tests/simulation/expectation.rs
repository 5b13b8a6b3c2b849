//! What must be on disk: what was acknowledged, and where nobody was told, one of what it may be.

use std::collections::BTreeMap;

use reeve_ipc::api::call::LabelChange;
use reeve_ipc::api::view::DomainDefinition;
use reeve_ipc::model::DomainUuid;
use reeved::domain::actor::Request;

use crate::clients::{Asked, Call, Clients, uuids};
use crate::short;
use crate::universe::Universe;

type Record = Option<DomainDefinition>;

#[derive(Debug, Default)]
pub struct Expectation {
    /// What was acknowledged: one record, or none, unless a change before had no answer.
    kept: BTreeMap<DomainUuid, Vec<Record>>,
    /// Changes whose answer nobody will get, by number.
    lost: BTreeMap<DomainUuid, BTreeMap<u64, Call>>,
}

impl Expectation {
    /// A change was acknowledged.
    pub fn acknowledged(&mut self, asked: &Asked) {
        let Some(uuid) = asked.uuid else { return };
        let mut records: Vec<Record> = Vec::new();
        for before in self.possible(uuid, &[]) {
            let record = after(&asked.call, before.as_ref()).unwrap_or(before);
            if !records.contains(&record) {
                records.push(record);
            }
        }
        self.kept.insert(uuid, records);
    }

    /// Every record there may be, when each call without an answer may have been obeyed.
    fn possible(&self, uuid: DomainUuid, waiting: &[(u64, &Call)]) -> Vec<Record> {
        let mut records = self.kept.get(&uuid).cloned().unwrap_or_else(|| vec![None]);
        let lost = self.lost.get(&uuid).into_iter().flatten();
        let lost = lost.map(|(number, call)| (*number, call));
        // In the order of the requests, whoever went first of those that made them.
        let calls: BTreeMap<u64, &Call> = lost.chain(waiting.iter().copied()).collect();
        for call in calls.into_values() {
            for index in 0..records.len() {
                let before = records.get(index).and_then(Option::as_ref);
                let record = after(call, before).filter(|record| !records.contains(record));
                records.extend(record);
            }
        }
        records
    }

    /// Whoever asked is gone, or the supervisor is.
    pub fn lost(&mut self, asked: Vec<Asked>) {
        for asked in asked {
            if let Some(uuid) = asked.uuid {
                let lost = self.lost.entry(uuid).or_default();
                lost.insert(asked.number, asked.call);
            }
        }
    }

    /// A change was refused, of which a part may have been done.
    pub fn doubtful(&mut self, asked: &Asked) {
        if let Some(uuid) = asked.uuid {
            let lost = self.lost.entry(uuid).or_default();
            lost.insert(asked.number, asked.call.clone());
        }
    }

    /// Compares with the disk. `settled` says that nothing of a domain is under way any more: what is
    /// on disk then is what it stays.
    pub fn check(
        &mut self,
        universe: &Universe,
        clients: &Clients,
        settled: impl Fn(DomainUuid) -> bool,
    ) -> Result<(), String> {
        for uuid in uuids() {
            let found = universe.disk.records.get(&uuid);
            let of_it = clients
                .waiting
                .values()
                .filter(|asked| asked.uuid == Some(uuid));
            let waiting: Vec<_> = of_it.map(|asked| (asked.number, &asked.call)).collect();
            let sure = |records: &Vec<Record>| records.iter().map(Option::as_ref).eq([found]);
            if !self.kept.get(&uuid).map_or(found.is_none(), sure) {
                let possible = self.possible(uuid, &waiting);
                if !possible.iter().any(|record| record.as_ref() == found) {
                    return Err(format!(
                        "{}: its record is {}, acknowledged was {}",
                        short(uuid),
                        describe(found),
                        describe(possible.first().and_then(Option::as_ref))
                    ));
                }
            }
            if self.lost.contains_key(&uuid) && waiting.is_empty() && settled(uuid) {
                self.lost.remove(&uuid);
                self.kept.insert(uuid, vec![found.cloned()]);
            }
        }
        Ok(())
    }
}

fn describe(record: Option<&DomainDefinition>) -> String {
    record.map_or_else(
        || "none".to_owned(),
        |record| {
            format!(
                "'{}' autostart {:?} title {:?} devices {:?}",
                record.domain.name,
                record.autostart,
                record.domain.labels.title,
                record.domain.devices.named()
            )
        },
    )
}

/// The record after `call` has succeeded; `None` where it changes nothing.
fn after(call: &Call, before: Option<&DomainDefinition>) -> Option<Record> {
    let changed = |change: &dyn Fn(&mut DomainDefinition)| {
        let mut record = before?.clone();
        change(&mut record);
        Some(Some(record))
    };
    match call {
        Call::Define(domain, _) => Some(Some(DomainDefinition {
            domain: (**domain).clone(),
            autostart: before.and_then(|record| record.autostart),
        })),
        Call::Rename(name) => changed(&|record| record.domain.name = name.clone()),
        Call::Other(Request::Undefine) => Some(None),
        Call::Other(Request::SetAutostart(order)) => changed(&|record| record.autostart = *order),
        Call::Other(Request::SetLabel {
            change: LabelChange::Title(title),
            persistent: true,
            ..
        }) => changed(&|record| record.domain.labels.title.clone_from(title)),
        Call::Other(Request::Attach {
            device,
            persistent: true,
            ..
        }) => {
            let mut record = before?.clone();
            record.domain.devices.add((**device).clone()).ok()?;
            record.domain.validate().ok()?;
            Some(Some(record))
        }
        Call::Other(Request::Detach {
            device,
            persistent: true,
            ..
        }) => {
            let mut record = before?.clone();
            let removed = record.domain.devices.remove(device);
            removed.then_some(Some(record))
        }
        Call::Other(Request::Update {
            device,
            change,
            persistent: true,
            ..
        }) => {
            let mut record = before?.clone();
            record.domain.devices.change(device, *change).ok()?;
            Some(Some(record))
        }
        _ => None,
    }
}
