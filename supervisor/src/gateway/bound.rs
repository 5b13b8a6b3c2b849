//! What all gateways together may use of the host: one cgroup for them, beside those of the domains.
//!
//! Each has a limit of its own memory (`RLIMIT_DATA`) that a single client may come near to, and which as many as
//! there may be clients would not leave to any domain. So all of them together have one that follows from how
//! many clients there may be, and the kernel ends one of them where they use more. Where the host has no cgroup v2
//! with these controllers, there is none, which the log says.

use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use reeve_sandbox::cgroup::{CgroupError, DomainCgroup, Limits as CgroupLimits};

use super::spawner::MEMORY_BYTES;
use crate::api::Limits;
use crate::api::doors::RESERVE;
use crate::host::confinement::CgroupPlace;

/// The cgroup's name, with the instance and the supervisor's pid behind it: another instance may be in the same
/// place, and of one in another container neither its pid can be seen nor that it lives.
const CGROUP: &str = "gateways-";
/// What a gateway may use on average: several times what one does that serves virt-manager.
const MEMORY_EACH: u64 = 8 << 20;
/// Beside those that have clients or wait for one: such as end just now, and the helpers of one that starts.
const OTHER_PROCESSES: usize = 32;

/// The bound that is kept.
#[derive(Debug)]
pub(super) struct Bound {
    cgroup: Option<DomainCgroup>,
    place: CgroupPlace,
    /// The cgroup's name, without the pid.
    instance: String,
    clients: Arc<RwLock<Limits>>,
    warm: usize,
    kept: CgroupLimits,
}

impl Bound {
    /// Makes the cgroup, for as many clients as `clients` says at any time and `warm` that wait. The instance is the
    /// one that has the run directory: nobody else has while it does.
    pub(super) fn make(
        place: &CgroupPlace,
        run_directory: &Path,
        clients: Arc<RwLock<Limits>>,
        warm: usize,
    ) -> Self {
        let is = run_directory.metadata();
        let (device, number) = is.map_or((0, 0), |is| (is.dev(), is.ino()));
        let mut bound = Self {
            cgroup: None,
            place: place.clone(),
            instance: format!("{CGROUP}{device:x}-{number:x}-"),
            kept: limits(&clients, warm),
            clients,
            warm,
        };
        bound.make_cgroup();
        bound
    }

    fn make_cgroup(&mut self) {
        let made = self.place.hierarchy().and_then(|hierarchy| {
            sweep(hierarchy.path(), &self.instance);
            let name = format!("{}{}", self.instance, std::process::id());
            hierarchy.create_beside(&name, &self.kept)
        });
        let cgroup = made.inspect_err(|error: &CgroupError| {
            let remedy = error.remedy().map(|remedy| format!("; {remedy}"));
            tracing::warn!(
                "clients of libvirt's protocol have no limit in common: {error}{}",
                remedy.unwrap_or_default()
            );
        });
        self.cgroup = cgroup.ok();
    }

    /// Follows a configuration that was read again. A cgroup that somebody removed while nothing was in it, in which
    /// no process can be born any more, is made again, and done without where it cannot be.
    pub(super) fn keep(&mut self) {
        if self
            .cgroup
            .as_ref()
            .is_some_and(|cgroup| !cgroup.is_there())
        {
            tracing::warn!("the cgroup of the gateways was removed and is made again");
            self.make_cgroup();
        }
        let wanted = limits(&self.clients, self.warm);
        let Some(cgroup) = self.cgroup.as_ref().filter(|_| wanted != self.kept) else {
            return;
        };
        match cgroup.set(&wanted) {
            Ok(()) => self.kept = wanted,
            Err(error) => tracing::warn!(%error, "the limit of all gateways stays as it was"),
        }
    }

    /// The directory that a gateway is born in.
    pub(super) fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.cgroup.as_ref().map(DomainCgroup::dir)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let Some(cgroup) = self.cgroup.take() else {
            return;
        };
        // They end with this thread in any case, a moment later.
        let _ = cgroup.kill();
        if let Err(error) = cgroup.remove() {
            tracing::warn!(%error, "the cgroup of the gateways could not be removed");
        }
    }
}

/// Removes those of this instance's supervisors that were killed, whose gateways ended with them.
fn sweep(place: &Path, instance: &str) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(instance));
        let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else {
            continue;
        };
        if pid != std::process::id() {
            // One that is not empty yet is the next one's to remove.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn limits(clients: &RwLock<Limits>, warm: usize) -> CgroupLimits {
    let clients = clients
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clients;
    let memory = rustix::system::sysinfo();
    let memory = u64::from(memory.mem_unit).saturating_mul(memory.totalram);
    derive(clients, warm, memory)
}

/// The bound of so many, on a host with so many bytes of memory: no more than a quarter of that, and room for one
/// that has all it may in any case.
fn derive(clients: usize, warm: usize, memory: u64) -> CgroupLimits {
    let processes = clients.saturating_add(RESERVE).saturating_add(warm);
    let each = u64::try_from(processes).unwrap_or(u64::MAX);
    let all = MEMORY_EACH.saturating_mul(each);
    let least = MEMORY_BYTES + MEMORY_BYTES / 4;
    let pids = processes.saturating_add(OTHER_PROCESSES);
    CgroupLimits {
        memory_max: Some(all.min(memory / 4).max(least)),
        pids_max: Some(u32::try_from(pids).unwrap_or(u32::MAX)),
        ..CgroupLimits::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_follows_from_how_many_there_may_be_and_from_the_host() {
        let of = |clients, memory: u64| {
            let limits = derive(clients, 2, memory << 20);
            (limits.memory_max.unwrap() >> 20, limits.pids_max.unwrap())
        };
        assert_eq!(of(256, 65_536), (2128, 298));
        assert_eq!(of(256, 4096), (1024, 298));
        assert_eq!(of(4, 512), (320, 46));
        assert_eq!(of(usize::MAX, u64::MAX >> 20).1, u32::MAX);
    }

    #[test]
    fn a_bound_follows_its_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let read = |file: &str| std::fs::read_to_string(directory.path().join(file)).unwrap();
        write("cgroup.controllers", "cpu memory pids");
        write("cgroup.subtree_control", "");
        let run = tempfile::tempdir().unwrap();
        let is = run.path().metadata().unwrap();
        let instance = format!("gateways-{:x}-{:x}-", is.dev(), is.ino());
        let own = format!("{instance}{}", std::process::id());
        write(&format!("{own}/memory.max"), "");
        write(&format!("{own}/pids.max"), "");
        // Of one of this instance that was killed, and of another's, whose pid says nothing here.
        let (killed, other) = (format!("{instance}1"), format!("gateways-1-1-{}", u32::MAX));
        for name in [&killed, &other] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let clients = Arc::new(RwLock::new(Limits::default()));
        let place = CgroupPlace::Directory(directory.path().to_owned());
        let mut bound = Bound::make(&place, run.path(), Arc::clone(&clients), 0);
        assert_eq!(read("cgroup.subtree_control"), "+memory +pids ");
        assert!(directory.path().join(&other).exists());
        assert!(!directory.path().join(&killed).exists());
        let pids = || read(&format!("{own}/pids.max"));
        assert_eq!(pids(), "552");
        assert!(bound.directory().is_some());
        clients.write().unwrap().clients = 1000;
        bound.keep();
        assert!(pids().starts_with("1040"));
        // Somebody removes it while it is empty; here its files are made beforehand.
        let gone = directory.path().join("gone");
        std::fs::rename(directory.path().join(&own), &gone).unwrap();
        write(&format!("{own}/memory.max"), "");
        write(&format!("{own}/pids.max"), "");
        bound.keep();
        assert!(pids().starts_with("1040"));
        let born = rustix::fs::fstat(bound.directory().unwrap()).unwrap();
        let there = directory.path().join(&own).metadata().unwrap();
        assert_eq!(born.st_ino, there.ino());
        // And where it cannot be made there is no bound.
        std::fs::remove_dir_all(directory.path().join(&own)).unwrap();
        std::fs::rename(&gone, directory.path().join("elsewhere")).unwrap();
        write(&own, "a file");
        bound.keep();
        assert!(bound.directory().is_none());
        std::fs::remove_file(directory.path().join(&own)).unwrap();
        // Where there are no controllers there is no bound, and a front door all the same.
        write("cgroup.controllers", "hugetlb");
        let without = Bound::make(&place, run.path(), clients, 0);
        assert!(without.directory().is_none());
    }
}
