//! What a host must have to jail a process, found out by trying it.
//!
//! For `reeve doctor`, and for the remedies in errors. Each check is independent, leaves nothing
//! behind, and says what it found and which command mends it.

use std::fs;

use crate::cgroup::Hierarchy;
use crate::landlock::Abi;
use crate::spawn::try_namespace;
use crate::sys::{self, Errno};

/// One thing the host must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is needed.
    pub name: &'static str,
    /// Whether it is there.
    pub passed: bool,
    /// Whether a domain can do without when its definition does not ask for it.
    pub optional: bool,
    /// What was found.
    pub found: String,
    /// What mends it, a command where one does. `None` when it passed.
    pub remedy: Option<&'static str>,
}

const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// The namespaces of a jail, with the names of their limits in /proc/sys/user.
const NAMESPACES: [(i32, &str); 6] = [
    (libc::CLONE_NEWNS, "mount"),
    (libc::CLONE_NEWNET, "network"),
    (libc::CLONE_NEWIPC, "IPC"),
    (libc::CLONE_NEWUTS, "UTS"),
    (libc::CLONE_NEWCGROUP, "cgroup"),
    (libc::CLONE_NEWPID, "pid"),
];

/// Tries everything a jail needs of this host, as the calling user. KVM is not looked at.
pub fn checks() -> Vec<Check> {
    vec![
        kernel(),
        user_namespaces(),
        namespaces(),
        landlock(),
        seccomp(),
        cgroup(),
    ]
}

fn check(name: &'static str, outcome: Result<String, String>, remedy: &'static str) -> Check {
    let passed = outcome.is_ok();
    let found = outcome.unwrap_or_else(|found| found);
    Check {
        name,
        passed,
        optional: false,
        found,
        remedy: (!passed).then_some(remedy),
    }
}

fn kernel() -> Check {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let enough = version(&release).is_some_and(|version| version >= OLDEST_KERNEL);
    let outcome = if enough { Ok(release) } else { Err(release) };
    check(
        "Linux 6.1 or newer",
        outcome,
        "install a newer kernel (Debian: linux-image-amd64)",
    )
}

/// Major and minor number of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn user_namespaces() -> Check {
    // Setting up UTS in it shows that the new namespace gives the privilege it should, which
    // AppArmor's restriction takes away while it lets the namespace itself be made.
    let outcome = match try_namespace(libc::CLONE_NEWUTS) {
        Ok(()) => Ok("a process in a new one was started by clone3 with a pidfd".to_owned()),
        Err(Errno(errno)) => Err(text(errno)),
    };
    check("user namespaces", outcome, user_namespace_remedy())
}

fn namespaces() -> Check {
    let failed: Vec<String> = NAMESPACES
        .iter()
        .filter_map(|(flag, name)| {
            let Errno(errno) = try_namespace(*flag).err()?;
            Some(format!("{name}: {}", text(errno)))
        })
        .collect();
    let outcome = if failed.is_empty() {
        Ok("mount, network, IPC, UTS, cgroup and pid can be made".to_owned())
    } else {
        Err(failed.join("; "))
    };
    let remedy = "raise the limits: sysctl -w user.max_mnt_namespaces=10000 (likewise net, ipc, \
                  uts, cgroup, pid)";
    check("all other namespaces", outcome, remedy)
}

fn landlock() -> Check {
    let outcome = match Abi::of_host() {
        Ok(abi) => Ok(format!("ABI {abi}")),
        Err(error) => Err(error.to_string()),
    };
    check(
        "Landlock",
        outcome,
        "add landlock to the lsm= list on the kernel's command line",
    )
}

fn seccomp() -> Check {
    let actions = [
        ("kill process", libc::SECCOMP_RET_KILL_PROCESS),
        ("trap", libc::SECCOMP_RET_TRAP),
        ("errno", libc::SECCOMP_RET_ERRNO),
    ];
    let missing: Vec<&str> = actions
        .iter()
        .filter(|(_, action)| sys::seccomp_action_available(*action).is_err())
        .map(|(name, _)| *name)
        .collect();
    let outcome = if missing.is_empty() {
        Ok("filters with kill process, trap and errno".to_owned())
    } else {
        Err(format!("actions missing: {}", missing.join(", ")))
    };
    check(
        "seccomp",
        outcome,
        "use a kernel built with CONFIG_SECCOMP_FILTER",
    )
}

fn cgroup() -> Check {
    let found = Hierarchy::find().and_then(|hierarchy| Ok((hierarchy.controllers()?, hierarchy)));
    let outcome = match found {
        Err(error) => Err(error.to_string()),
        Ok((controllers, hierarchy)) => {
            let has = |name: &str| controllers.iter().any(|c| c == name);
            let at = hierarchy.path().display();
            let list = if controllers.is_empty() {
                "none".into()
            } else {
                controllers.join(" ")
            };
            let text = format!("at {at}: {list}");
            if ["cpu", "memory", "pids"].into_iter().all(has) {
                Ok(text)
            } else {
                Err(text)
            }
        }
    };
    let remedy = "needed for domains with limits, and to bound all clients of libvirt's protocol together: start the service with Delegate=yes, or \
                  boot with systemd.unified_cgroup_hierarchy=1";
    let name = "cgroup v2 controllers cpu, memory, pids";
    Check {
        optional: true,
        ..check(name, outcome, remedy)
    }
}

fn text(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

/// What mends a host that refuses user namespaces, by the setting that refuses them.
pub(crate) fn user_namespace_remedy() -> &'static str {
    let is =
        |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        "user namespaces are switched off: sysctl -w user.max_user_namespaces=10000"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "user namespaces are for root only: sysctl -w kernel.unprivileged_userns_clone=1"
    } else if is(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        "AppArmor restricts user namespaces: install Reeve's AppArmor profile, or \
         sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    } else {
        "user namespaces are refused: run as root, or outside of a container that forbids them"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_passes_what_is_mandatory() {
        let _serial = crate::spawn::serial();
        for check in checks() {
            assert!(check.passed || check.optional, "{check:?}");
            assert_eq!(check.passed, check.remedy.is_none(), "{check:?}");
            assert!(!check.found.is_empty(), "{check:?}");
        }
    }

    #[test]
    fn a_release_is_compared_by_number() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("10.0-rc1"), Some((10, 0)));
        assert_eq!(version("unknown"), None);
        assert!(version("6.1.0").unwrap() >= OLDEST_KERNEL);
        assert!(version("5.19").unwrap() < OLDEST_KERNEL);
    }
}
