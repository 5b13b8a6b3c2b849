//! The kernel's own view of a jailed process.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::harness::{Caller, Probe};

const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

fn status(path: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// Looks at a probe whose thread stands in each role, as each caller.
fn each(look: impl Fn(Caller, &str, &Probe)) {
    for caller in Caller::all() {
        for role in ["base", "control", "vcpu", "io"] {
            let probe = Probe::start(caller, "full", role, "stay");
            look(caller, role, &probe);
            let end = probe.finish("");
            assert_eq!(
                (end.said.as_slice(), end.signal),
                (&["done ok".to_owned()][..], None)
            );
            assert_eq!(end.denial, None);
        }
    }
}

#[test]
fn every_thread_is_without_capabilities_and_filtered() {
    each(|caller, role, probe| {
        let tasks = fs::read_dir(format!("/proc/{}/task", probe.pid)).unwrap();
        let mut filters = Vec::new();
        for task in tasks {
            let status = status(&format!("{}/status", task.unwrap().path().display()));
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(status[set], "0000000000000000", "{caller:?} {role} {set}");
            }
            assert_eq!(status["NoNewPrivs"], "1");
            assert_eq!(status["Seccomp"], "2");
            filters.push(status["Seccomp_filters"].clone());
        }
        filters.sort();
        // Base and its seal; a role stacks one more.
        let expected = if role == "base" {
            ["2", "2"]
        } else {
            ["2", "3"]
        };
        assert_eq!(filters, expected, "{role}");
    });
}

#[test]
fn it_is_one_user_and_one_group_that_are_not_root() {
    each(|caller, _, probe| {
        let (uid, gid) = caller.identity();
        let status = status(&format!("/proc/{}/status", probe.pid));
        let four = |id: u32| [id; 4].map(|id| id.to_string()).join("\t");
        assert_eq!(
            (status["Uid"].clone(), status["Gid"].clone()),
            (four(uid), four(gid))
        );
        if caller == Caller::Root {
            assert_eq!(status["Groups"], "");
        }
        let map = |file: &str| {
            let text = fs::read_to_string(format!("/proc/{}/{file}", probe.pid)).unwrap();
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let one = |id: u32| vec![id.to_string(), id.to_string(), "1".to_owned()];
        assert_eq!(map("uid_map"), one(uid));
        assert_eq!(map("gid_map"), one(gid));
        assert!(
            status["NSpid"].ends_with("\t1"),
            "pid 1 of its namespace: {}",
            status["NSpid"]
        );
        let session = status["NSsid"].split_whitespace().next().map(str::to_owned);
        assert_eq!(
            session,
            Some(probe.pid.to_string()),
            "leads its own session"
        );
    });
}

#[test]
fn all_its_namespaces_are_its_own_and_no_helper_is_left_in_them() {
    each(|caller, _, probe| {
        let link = |pid: &str, kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        let pid = probe.pid.to_string();
        // An unprivileged test run cannot read the links of a process that is not dumpable.
        if caller == Caller::Root || rustix::process::geteuid().is_root() {
            for kind in NAMESPACES {
                assert_ne!(link(&pid, kind), link("self", kind), "{kind}");
            }
            let own = link(&pid, "pid");
            let inside = fs::read_dir("/proc").unwrap().filter(|entry| {
                let path = entry.as_ref().unwrap().path().join("ns/pid");
                fs::read_link(path).is_ok_and(|namespace| namespace == own)
            });
            assert_eq!(inside.count(), 1, "it is alone");
        }
    });
}

#[test]
fn its_root_is_empty_and_cannot_be_written() {
    if !rustix::process::geteuid().is_root() {
        return layers_show_the_empty_root();
    }
    each(|_, _, probe| {
        let root = format!("/proc/{}/root", probe.pid);
        assert_eq!(fs::read_dir(root).unwrap().count(), 0);
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", probe.pid)).unwrap();
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        let fields: Vec<&str> = mounts.split_whitespace().collect();
        assert_eq!(fields[4], "/");
        for option in ["ro", "nosuid", "nodev", "noexec"] {
            assert!(
                fields[5].split(',').any(|o| o == option),
                "{option} in {mounts}"
            );
        }
        let cwd = fs::read_link(format!("/proc/{}/cwd", probe.pid)).unwrap();
        assert_eq!(cwd.to_str(), Some("/"));
    });
}

/// Without the right to look from outside, the attempts of `layers` from inside have to do.
fn layers_show_the_empty_root() {
    let end = Probe::start(Caller::User, "unfiltered", "base", "open").finish("");
    assert_ne!(end.said, ["done ok"]);
}

#[test]
fn it_has_the_descriptors_it_was_handed_and_its_limits() {
    each(|_, _, probe| {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let entries = fs::read_dir(format!("/proc/{}/fd", probe.pid)).unwrap();
        let mut open: Vec<(u32, String)> = entries
            .map(|entry| {
                let entry = entry.unwrap();
                let number = entry.file_name().into_string().unwrap().parse().unwrap();
                (
                    number,
                    fs::read_link(entry.path())
                        .unwrap()
                        .to_string_lossy()
                        .into_owned(),
                )
            })
            .collect();
        open.sort();
        let numbers: Vec<u32> = open.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 1, 2, 4, 5], "{open:?}");
        assert!(
            open[..3].iter().all(|(_, target)| target == "/dev/null"),
            "{open:?}"
        );
        assert!(
            open[3..]
                .iter()
                .all(|(_, target)| target.starts_with("socket:")),
            "{open:?}"
        );

        let limits = fs::read_to_string(format!("/proc/{}/limits", probe.pid)).unwrap();
        let limit = |name: &str| -> Vec<String> {
            let line = limits
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.split_whitespace().take(2).map(str::to_owned).collect()
        };
        assert_eq!(limit("Max core file size"), ["0", "0"]);
        assert_eq!(limit("Max open files"), ["64", "64"]);
        let environment = fs::read(format!("/proc/{}/environ", probe.pid)).unwrap();
        assert!(environment.is_empty());
    });
}

#[test]
fn it_cannot_be_dumped_or_traced_by_its_own_user() {
    each(|_, role, probe| {
        // The kernel gives a process that is not dumpable to root in /proc.
        let owner = fs::metadata(format!("/proc/{}/status", probe.pid))
            .unwrap()
            .uid();
        assert_eq!(owner, 0, "{role}");
    });
}
