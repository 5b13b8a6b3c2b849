//! Disk and run directory, with faults: what is written is whole or not there, as the store makes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use reeve_ipc::api::view::DomainDefinition;
use reeve_ipc::model::DomainUuid;
use reeved::domain::driver::Later;
use reeved::domain::world::{Status, Storage};

use crate::planted::Planted;
use crate::universe::{Fate, Gate, Shared, Universe, Wait};

/// Something to be done on disk.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    Write(Box<DomainDefinition>),
    Remove(DomainUuid),
}

impl Work {
    pub fn uuid(&self) -> DomainUuid {
        match self {
            Self::Write(record) => record.domain.uuid,
            Self::Remove(uuid) => *uuid,
        }
    }
}

/// What is wrong with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    Full,
    ReadOnly,
}

#[derive(Debug, Default)]
pub struct Disk {
    pub records: BTreeMap<DomainUuid, DomainDefinition>,
    pub fault: Option<DiskFault>,
}

impl Disk {
    fn apply(&mut self, work: Work) {
        match work {
            Work::Write(record) => {
                self.records.insert(record.domain.uuid, *record);
            }
            Work::Remove(uuid) => {
                self.records.remove(&uuid);
            }
        }
    }

    fn refuses(&self, work: &Work) -> Option<&'static str> {
        match (self.fault?, work) {
            (DiskFault::Full, Work::Write(_)) => Some("no space left on device"),
            // What is removed needs no room.
            (DiskFault::Full, Work::Remove(_)) => None,
            (DiskFault::ReadOnly, _) => Some("read-only file system"),
        }
    }
}

/// In memory: gone with the host, not with the supervisor.
#[derive(Debug, Default)]
pub struct RunDirectory {
    pub statuses: BTreeMap<DomainUuid, Status>,
    pub directories: BTreeSet<DomainUuid>,
    pub full: bool,
    /// Domains whose status is one behind, because it could not be written.
    pub stale: BTreeSet<DomainUuid>,
}

impl Universe {
    /// The disk gets to `work`: what comes of it.
    pub fn on_disk(&mut self, work: Work) -> Fate {
        self.point("before the disk got to it");
        if self.dead {
            return Fate::Gone;
        }
        if let Some(why) = self.disk.refuses(&work) {
            self.note(|| format!("the disk refuses: {why}"));
            return Fate::Failed(why.to_owned());
        }
        self.note(|| format!("on disk: {}", describe(&work)));
        self.disk.apply(work);
        self.point("when the disk had it and nobody knew");
        Fate::Good
    }

    /// The supervisor has died, and `work` was on its way: it is done or it is not.
    pub fn orphaned(&mut self, work: Work) {
        if self.disk.refuses(&work).is_none() && self.random.percent(50) {
            self.note(|| format!("on disk all the same: {}", describe(&work)));
            self.disk.apply(work);
        }
    }
}

fn describe(work: &Work) -> String {
    match work {
        Work::Write(record) => format!(
            "record of {} '{}' autostart {:?} title {:?}",
            crate::short(record.domain.uuid),
            record.domain.name,
            record.autostart,
            record.domain.labels.title
        ),
        Work::Remove(uuid) => format!("no record of {}", crate::short(*uuid)),
    }
}

#[derive(Debug)]
pub struct SimStorage(pub Shared);

impl SimStorage {
    fn work(&self, work: Work) -> Later<Result<(), String>> {
        let shared = self.0.clone();
        if shared.lock().planted == Some(Planted::AcknowledgesBeforeWritten) {
            let mut universe = shared.lock();
            let number = universe.number();
            let wait = Wait::Disk(work);
            universe.gates.insert(number, Gate { wait, tell: None });
            return Box::pin(async { Ok(()) });
        }
        Box::pin(async move {
            match shared.wait(Wait::Disk(work)).await {
                Fate::Good => Ok(()),
                Fate::Failed(why) => Err(why),
                Fate::Deadline | Fate::Gone => std::future::pending().await,
            }
        })
    }
}

impl Storage for SimStorage {
    fn write_record(&self, record: DomainDefinition) -> Later<Result<(), String>> {
        self.work(Work::Write(Box::new(record)))
    }

    fn remove_record(&self, uuid: DomainUuid) -> Later<Result<(), String>> {
        self.work(Work::Remove(uuid))
    }

    fn write_status(&self, uuid: DomainUuid, status: &Status) -> Result<(), String> {
        let mut universe = self.0.lock();
        universe.point("before it wrote a status");
        if universe.dead {
            return Err("the supervisor is dead".to_owned());
        }
        if universe.run.full {
            universe.note(|| format!("no room for a status of {}", crate::short(uuid)));
            universe.run.stale.insert(uuid);
            return Err("no space left on device".to_owned());
        }
        universe.note(|| {
            format!(
                "status of {}: {:?} {:?}",
                crate::short(uuid),
                status.record.intents,
                status.resources.process.as_ref().map(|process| process.pid)
            )
        });
        universe.run.stale.remove(&uuid);
        universe.run.directories.insert(uuid);
        universe.run.statuses.insert(uuid, status.clone());
        universe.point("after it wrote a status");
        Ok(())
    }

    fn console_position(&self, _: DomainUuid) -> Option<u64> {
        None
    }

    fn set_console_position(&self, _: DomainUuid, _: u64) {}

    fn remove_status(&self, uuid: DomainUuid) {
        let mut universe = self.0.lock();
        universe.point("before it removed a status");
        if universe.dead || universe.planted == Some(Planted::KeepsTheStatus) {
            return;
        }
        universe.note(|| format!("no status of {}", crate::short(uuid)));
        universe.run.statuses.remove(&uuid);
        universe.run.directories.remove(&uuid);
        universe.point("after it removed a status");
    }

    fn directory(&self, uuid: DomainUuid) -> Result<PathBuf, String> {
        let mut universe = self.0.lock();
        if universe.run.full {
            return Err("no space left on device".to_owned());
        }
        if !universe.dead {
            universe.run.directories.insert(uuid);
        }
        Ok(PathBuf::from("/sim").join(uuid.to_string()))
    }
}
