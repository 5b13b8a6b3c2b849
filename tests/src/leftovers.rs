//! What a domain could leave on a machine, seen before and after: processes, mounts, cgroups,
//! directories.
//!
//! In an outer guest everything that appeared counts. On a shared machine (tests run directly) only
//! what carries Reeve's name does: others mount and start things there too.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::lab::inside_outer_guest;

/// Where Reeve or a test may make directories. Only direct children are looked at.
const DIRECTORIES: &[&str] = &["/run", "/run/reeve", "/tmp", "/var/tmp", "/dev/shm"];

/// What one instance leaves for the next, on purpose: the file whose locks hand out uids, and the
/// directory in which instances claim blocks of them. They are never deleted, as two instances could
/// then hold locks on two files of one name.
const KEPT: &[&str] = &[
    "path /run/reeve",
    "path /run/reeve/uids",
    "path /run/reeve/uid-blocks",
];

/// What was there at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    things: BTreeSet<String>,
}

impl Snapshot {
    /// Looks now. Take it before the first `reeve` of a test.
    #[must_use]
    pub fn take() -> Snapshot {
        let mut things = BTreeSet::new();
        processes(&mut things);
        mounts(&mut things);
        cgroups(Path::new("/sys/fs/cgroup"), &mut things, 0);
        for directory in DIRECTORIES {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                things.insert(format!("path {}", entry.path().display()));
            }
        }
        things.retain(|thing| !KEPT.contains(&thing.as_str()));
        if !inside_outer_guest() {
            things.retain(|thing| thing.contains("reeve"));
        }
        Snapshot { things }
    }

    /// What is there now and was not then: `process 17 reeve-worker /payload/reeve-worker`, `mount /x`, `cgroup /x`,
    /// `path /tmp/x`.
    #[must_use]
    pub fn new_since(&self) -> Vec<String> {
        Snapshot::take()
            .things
            .difference(&self.things)
            .cloned()
            .collect()
    }

    /// Waits until nothing new is left, at most for `limit` (the kernel reaps some things late).
    ///
    /// # Panics
    /// With the list of what is left.
    pub fn assert_nothing_new(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            let left = self.new_since();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {left:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Every process but the kernel's own threads, zombies too. A worker may call itself what it likes,
/// so the name of its program counts as well.
fn processes(things: &mut BTreeSet<String>) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else {
            continue;
        };
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_default()
                .trim()
        };
        const KTHREADD: u32 = 2;
        if pid == KTHREADD || field("PPid:") == "2" {
            continue;
        }
        let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
        things.insert(format!(
            "process {pid} {} {}",
            field("Name:"),
            program.display()
        ));
    }
}

/// Mounts of this process's namespace, by identity: a second mount on one point counts.
fn mounts(things: &mut BTreeSet<String>) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in table.lines() {
        let mut fields = line.split(' ');
        if let (Some(id), Some(point)) = (fields.next(), fields.nth(3)) {
            things.insert(format!("mount {id} {point}"));
        }
    }
}

fn cgroups(directory: &Path, things: &mut BTreeSet<String>, depth: usize) {
    if depth > 8 {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            things.insert(format!("cgroup {}", entry.path().display()));
            cgroups(&entry.path(), things, depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Snapshot;

    #[test]
    fn a_directory_that_stays_is_named_and_one_that_goes_is_not() {
        let before = Snapshot::take();
        let directory = tempfile::Builder::new()
            .prefix("reeve-left-")
            .tempdir_in("/tmp")
            .unwrap();
        let name = format!("path {}", directory.path().display());
        assert!(before.new_since().contains(&name));
        drop(directory);
        assert!(!before.new_since().contains(&name));
    }
}
