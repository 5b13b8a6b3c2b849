//! Limits on memory, CPU and processes of a domain, by cgroup v2.
//!
//! Runs in the supervisor. A [`Hierarchy`] is a directory the supervisor may make cgroups in: its own
//! (delegated by systemd with `Delegate=yes`, or the root of the hierarchy). A domain whose
//! definition sets limits needs the controllers for them; one that sets none needs no cgroup.
//!
//! ```text
//! <own cgroup>/             the supervisor moves itself out when controllers must be enabled here,
//!   supervisor/             because a cgroup holds either processes or controlled children
//!   gateways-<pid>/         one of the supervisor's own, for all that serve clients of libvirt's protocol
//!   domains/<name>/         one per domain; spawn() clones straight into it
//!     vcpus/                threaded: the vCPU threads, where they have a limit of their own
//! ```
//!
//! A later supervisor finds the same place: started in `<own cgroup>` again, or in its `supervisor`.
//! systemd cannot do the first while domains have limits: it would put the process into a cgroup that
//! has controlled children, and the kernel refuses. As a service the supervisor is therefore told of
//! another unit's delegated cgroup ([`Hierarchy::at`]), in which no process is but the domains';
//! systemd 254 and newer could do with `DelegateSubgroup=supervisor` instead.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};

/// How long [`DomainCgroup::remove`] waits for the kernel's own threads.
pub const LAST_THREADS: Duration = Duration::from_millis(500);
/// How often a cgroup is made again that lost its parent meanwhile.
const ATTEMPTS: u32 = 3;

/// The leaf a supervisor moves into.
const SUPERVISOR: &str = "supervisor";
/// The directory of the domains' cgroups.
const DOMAINS: &str = "domains";
/// A domain's threaded cgroup.
const VCPUS: &str = "vcpus";

/// What a domain may use. `None`: as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, the guest's included (`memory.max`).
    pub memory_max: Option<u64>,
    /// CPU time per period (`cpu.max`).
    pub cpu_max: Option<CpuMax>,
    /// Share of contended CPU time, 1 to 10000, 100 by default (`cpu.weight`).
    pub cpu_weight: Option<u16>,
    /// Processes and threads (`pids.max`).
    pub pids_max: Option<u32>,
    /// CPU time per period of the threads in `vcpus` alone (its `cpu.max`).
    pub vcpu_max: Option<CpuMax>,
}

/// CPU bandwidth: this much time in each period, over all CPUs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuMax {
    /// Microseconds of CPU time.
    pub quota_us: u64,
    /// Microseconds of wall time.
    pub period_us: u64,
}

impl CpuMax {
    fn setting(self) -> String {
        format!("{} {}", self.quota_us, self.period_us)
    }
}

impl Limits {
    /// Whether anything is limited at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The controllers that these limits need.
    pub fn controllers(&self) -> Vec<&'static str> {
        let needs = [
            (
                "cpu",
                self.cpu_max.is_some() || self.cpu_weight.is_some() || self.vcpu_max.is_some(),
            ),
            ("memory", self.memory_max.is_some()),
            ("pids", self.pids_max.is_some()),
        ];
        needs
            .into_iter()
            .filter_map(|(name, needed)| needed.then_some(name))
            .collect()
    }

    /// File and content for each limit.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let settings = [
            ("memory.max", self.memory_max.map(|bytes| bytes.to_string())),
            ("cpu.max", self.cpu_max.map(CpuMax::setting)),
            (
                "cpu.weight",
                self.cpu_weight.map(|weight| weight.to_string()),
            ),
            ("pids.max", self.pids_max.map(|count| count.to_string())),
        ];
        settings
            .into_iter()
            .filter_map(|(file, value)| Some((file, value?)))
            .collect()
    }
}

/// How much of something a domain uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// So much.
    pub used: u64,
    /// What it is limited to, if it is.
    pub limit: Option<u64>,
}

impl Use {
    /// Whether that is too much for a new limit, which is lower than the one there is.
    pub fn exceeds(&self, limit: u64) -> bool {
        self.limit.is_none_or(|before| limit < before) && self.used > limit
    }
}

/// Why a domain gets no cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup v2 hierarchy is mounted.
    #[error("no cgroup v2 hierarchy is mounted")]
    NoHierarchy,
    /// Limits are set that nothing here can enforce.
    #[error("cgroup v2 controllers missing at {}: {}", at.display(), controllers.join(", "))]
    MissingControllers {
        /// Where they were looked for.
        at: PathBuf,
        /// Which.
        controllers: Vec<String>,
    },
    /// A name that is not one path component.
    #[error("not a name for a cgroup: {0:?}")]
    Name(String),
    /// A file or directory of the hierarchy.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl CgroupError {
    /// What an administrator can do, where that is known.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::NoHierarchy => Some("mount -t cgroup2 none /sys/fs/cgroup"),
            Self::MissingControllers { .. } => Some(
                "delegate the controllers (systemd: Delegate=yes), or boot with \
                 systemd.unified_cgroup_hierarchy=1 where version 1 holds them",
            ),
            Self::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                Some("delegate a cgroup to this user (systemd: Delegate=yes)")
            }
            _ => None,
        }
    }
}

/// A place in the cgroup v2 hierarchy to make domains' cgroups in.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    own: PathBuf,
}

impl Hierarchy {
    /// The calling process's own cgroup in the mounted hierarchy, or the one above it where that is
    /// the leaf `supervisor`.
    ///
    /// # Errors
    ///
    /// [`CgroupError::NoHierarchy`] when there is none.
    pub fn find() -> Result<Self, CgroupError> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (mounts, membership) = (read("/proc/self/mountinfo"), read("/proc/self/cgroup"));
        locate(&mounts, &membership)
            .map(|own| Self::at(above_leaf(own)))
            .ok_or(CgroupError::NoHierarchy)
    }

    /// Moves the calling process into the leaf if its cgroup was delegated to it: what it starts
    /// without limits lives there too then, and is never in the way of controllers. Whether it moved.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`].
    pub fn settle(&self) -> Result<bool, CgroupError> {
        let mut mark = [0; 8];
        // systemd.resource-control(5), `Delegate=`.
        let delegated = ["trusted.delegate", "user.delegate"].iter().any(|name| {
            rustix::fs::getxattr(&self.own, *name, &mut mark[..])
                .is_ok_and(|length| mark.get(..length) == Some(b"1"))
        });
        if delegated {
            self.enter_leaf()?;
        }
        Ok(delegated)
    }

    /// Where [`Self::create`] makes the cgroup of this name, for the record.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Name`]; [`CgroupError::MissingControllers`] names what the limits need and
    /// the host lacks.
    pub fn place(&self, name: &str, limits: &Limits) -> Result<PathBuf, CgroupError> {
        let name = one_component(name)?;
        let needed = limits.controllers();
        if !needed.is_empty() {
            self.have(&needed)?;
        }
        Ok(self.own.join(DOMAINS).join(name))
    }

    /// A directory of the hierarchy, chosen by an administrator.
    pub fn at(own: PathBuf) -> Self {
        Self { own }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.own
    }

    /// The controllers that can be had here.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`].
    pub fn controllers(&self) -> Result<Vec<String>, CgroupError> {
        let text = read(&self.own.join("cgroup.controllers"))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// Makes a domain's cgroup with its limits set.
    ///
    /// # Errors
    ///
    /// [`CgroupError::MissingControllers`] names what the limits need and the host lacks. On any error the cgroup
    /// does not exist.
    pub fn create(&self, name: &str, limits: &Limits) -> Result<DomainCgroup, CgroupError> {
        let path = self.place(name, limits)?;
        let mut attempts = 0;
        loop {
            match self.make(&path, limits) {
                // Somebody removed the directory of all domains, empty for an instant.
                Err(CgroupError::Io { source, .. })
                    if source.kind() == ErrorKind::NotFound && attempts < ATTEMPTS =>
                {
                    attempts += 1;
                }
                result => return result,
            }
        }
    }

    /// Makes a cgroup of this name beside those of the domains, for processes of the supervisor's own, or takes
    /// the one that is there, and sets its limits. The supervisor is not moved for it.
    ///
    /// # Errors
    ///
    /// As for [`Self::create`]; `EBUSY` where processes are in the way.
    pub fn create_beside(&self, name: &str, limits: &Limits) -> Result<DomainCgroup, CgroupError> {
        let path = self.own.join(one_component(name)?);
        let needed = limits.controllers();
        self.have(&needed)?;
        write(&self.own.join("cgroup.subtree_control"), &enabling(&needed))?;
        make_dir(&path)?;
        DomainCgroup::set_up(path, limits)
    }

    /// The place in which the domain's cgroup at `path` was made.
    pub fn above(path: &Path) -> Option<Self> {
        let own = path.parent()?.parent()?;
        Some(Self::at(own.to_owned()))
    }

    /// Gives every domain's cgroup the controllers that these limits need.
    ///
    /// # Errors
    ///
    /// [`CgroupError::MissingControllers`], [`CgroupError::Io`].
    pub fn widen(&self, limits: &Limits) -> Result<(), CgroupError> {
        let needed = limits.controllers();
        if needed.is_empty() {
            return Ok(());
        }
        self.have(&needed)?;
        self.enable(&needed)?;
        let domains = self.own.join(DOMAINS);
        write(&domains.join("cgroup.subtree_control"), &enabling(&needed))
    }

    /// Has the memory of the domains counted that are made from now on, where that can be had: a limit that one is
    /// given while it runs is one of all that it has then. The kernel does not count afterwards. To make a cgroup and
    /// remove it takes 1.0 ms with this controller and 0.3 to 0.6 ms without, in an emulated guest with one processor.
    fn count_memory(&self) -> Result<(), CgroupError> {
        let memory = &["memory"];
        self.have(memory)?;
        for directory in [self.own.clone(), self.own.join(DOMAINS)] {
            let control = directory.join("cgroup.subtree_control");
            if !read(&control)?
                .split_whitespace()
                .any(|name| name == memory[0])
            {
                write(&control, &enabling(memory))?;
            }
        }
        Ok(())
    }

    /// Whether the controllers that these limits need can be had here.
    ///
    /// # Errors
    ///
    /// [`CgroupError::MissingControllers`], [`CgroupError::Io`].
    pub fn provides(&self, limits: &Limits) -> Result<(), CgroupError> {
        match limits.controllers().as_slice() {
            [] => Ok(()),
            needed => self.have(needed),
        }
    }

    /// Whether controllers can be had here.
    fn have(&self, needed: &[&str]) -> Result<(), CgroupError> {
        let present = self.controllers()?;
        let missing: Vec<String> = needed
            .iter()
            .filter(|name| !present.iter().any(|p| p == *name))
            .map(|name| (*name).to_owned())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(CgroupError::MissingControllers {
            at: self.own.clone(),
            controllers: missing,
        })
    }

    fn make(&self, path: &Path, limits: &Limits) -> Result<DomainCgroup, CgroupError> {
        make_dir(&self.own.join(DOMAINS))?;
        self.widen(limits)?;
        // A domain without a limit of its memory does without.
        let _ = self.count_memory();
        fs::create_dir(path).map_err(|source| CgroupError::Io {
            path: path.to_owned(),
            source,
        })?;
        DomainCgroup::set_up(path.to_owned(), limits).inspect_err(|_| {
            // Empty and new: nothing else can hold it.
            let _ = fs::remove_dir(path.join(VCPUS));
            let _ = fs::remove_dir(path);
        })
    }

    /// Enables controllers for the children of the own cgroup, out of which the supervisor moves
    /// when it is in the way.
    fn enable(&self, needed: &[&str]) -> Result<(), CgroupError> {
        let control = self.own.join("cgroup.subtree_control");
        match write(&control, &enabling(needed)) {
            Err(CgroupError::Io { source, .. }) if source.kind() == ErrorKind::ResourceBusy => {
                self.enter_leaf()?;
                write(&control, &enabling(needed))
            }
            other => other,
        }
    }

    fn enter_leaf(&self) -> Result<(), CgroupError> {
        let leaf = self.own.join(SUPERVISOR);
        make_dir(&leaf)?;
        write(&leaf.join("cgroup.procs"), "0")
    }
}

/// A domain's cgroup. Dropping it leaves it in place; [`DomainCgroup::remove`] ends it.
#[derive(Debug)]
pub struct DomainCgroup {
    path: PathBuf,
    dir: OwnedFd,
}

impl DomainCgroup {
    fn set_up(path: PathBuf, limits: &Limits) -> Result<Self, CgroupError> {
        for (file, value) in limits.settings() {
            write(&path.join(file), &value)?;
        }
        if let Some(vcpus) = limits.vcpu_max {
            limit_vcpus(&path, vcpus)?;
        }
        Self::adopt(path)
    }

    /// Holds a domain that runs to these limits and to no others. Its parents must have the controllers for
    /// them ([`Hierarchy::above`], [`Hierarchy::widen`]).
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`], with the limits before it changed.
    pub fn replace(&self, limits: &Limits) -> Result<(), CgroupError> {
        for (file, value, none) in [
            (
                "memory.max",
                limits.memory_max.map(|bytes| bytes.to_string()),
                "max",
            ),
            ("cpu.max", limits.cpu_max.map(CpuMax::setting), "max"),
            (
                "cpu.weight",
                limits.cpu_weight.map(|weight| weight.to_string()),
                "100",
            ),
            (
                "pids.max",
                limits.pids_max.map(|count| count.to_string()),
                "max",
            ),
        ] {
            set_or_lift(&self.path.join(file), value.as_deref(), none)?;
        }
        match limits.vcpu_max {
            Some(vcpus) => limit_vcpus(&self.path, vcpus),
            None => set_or_lift(&self.path.join(VCPUS).join("cpu.max"), None, "max"),
        }
    }

    /// What it uses of memory, in bytes, and how many processes and threads are in it, each with the limit of
    /// that; none of what is not counted. Of memory that is what the kernel cannot drop at once: no copies of
    /// files.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`].
    pub fn use_of_memory_and_pids(&self) -> Result<(Option<Use>, Option<Use>), CgroupError> {
        let mut memory = self.use_of("memory.current", "memory.max")?;
        if let Some(memory) = &mut memory {
            let stat = read(&self.path.join("memory.stat"))?;
            let of = |name: &str| {
                let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
                let value = lines.find(|(found, _)| *found == name);
                value.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
            };
            let files: u64 = of("active_file") + of("inactive_file");
            memory.used = memory.used.saturating_sub(files);
        }
        Ok((memory, self.use_of("pids.current", "pids.max")?))
    }

    fn use_of(&self, current: &str, max: &str) -> Result<Option<Use>, CgroupError> {
        let number = |file: &str| match read(&self.path.join(file)) {
            Ok(text) => Ok(Some(text.trim().parse().ok())),
            Err(CgroupError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        Ok(match (number(current)?, number(max)?) {
            (Some(Some(used)), Some(limit)) => Some(Use { used, limit }),
            _ => None,
        })
    }

    /// Moves a thread of a process that is in it under the limit of the vCPUs.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`], also where there is no such limit.
    pub fn limit_as_vcpu(&self, thread: u32) -> Result<(), CgroupError> {
        let threads = self.path.join(VCPUS).join("cgroup.threads");
        write(&threads, &thread.to_string())
    }

    /// Takes over a cgroup that an earlier supervisor made and recorded.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`] when it is not there.
    pub fn adopt(path: PathBuf) -> Result<Self, CgroupError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = open(&path, flags, Mode::empty()).map_err(|errno| CgroupError::Io {
            path: path.clone(),
            source: errno.into(),
        })?;
        Ok(Self { path, dir })
    }

    /// The directory, to be recorded.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For [`crate::Command::cgroup`].
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Changes the limits of a domain that runs. `None` leaves a limit as it is.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`], with the limits before it changed.
    pub fn set(&self, limits: &Limits) -> Result<(), CgroupError> {
        for (file, value) in limits.settings() {
            write(&self.path.join(file), &value)?;
        }
        Ok(())
    }

    /// Kills whatever is in it (Linux 5.14).
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`].
    pub fn kill(&self) -> Result<(), CgroupError> {
        write(&self.path.join("cgroup.kill"), "1")
    }

    /// Removes it. What was in it must have been reaped. Kernel threads that KVM made for the domain
    /// are in it too (on kernels before 6.14) and end a moment after the process: waits up to
    /// [`LAST_THREADS`] for them, hardly ever at all.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`]; `EBUSY` while a process is in it.
    pub fn remove(self) -> Result<(), CgroupError> {
        let begin = Instant::now();
        loop {
            // There only where the vCPUs have a limit; what is left in it is left in the other too.
            let _ = fs::remove_dir(self.path.join(VCPUS));
            match fs::remove_dir(&self.path) {
                Err(source)
                    if source.kind() == ErrorKind::ResourceBusy
                        && begin.elapsed() < LAST_THREADS =>
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(CgroupError::Io {
                        path: self.path,
                        source,
                    });
                }
                _ => return Ok(()),
            }
        }
    }
}

/// Limits the threads in `vcpus` of the domain's cgroup at `path`, which is made if there is none.
fn limit_vcpus(path: &Path, limit: CpuMax) -> Result<(), CgroupError> {
    let inner = path.join(VCPUS);
    make_dir(&inner)?;
    // Before its controller is enabled: the parent becomes the root of a threaded subtree, which may hold
    // processes and controlled children.
    write(&inner.join("cgroup.type"), "threaded")?;
    write(&path.join("cgroup.subtree_control"), "+cpu")?;
    write(&inner.join("cpu.max"), &limit.setting())
}

/// Sets a limit, or writes what stands for none. What has no file has no limit.
fn set_or_lift(file: &Path, value: Option<&str>, none: &str) -> Result<(), CgroupError> {
    match (write(file, value.unwrap_or(none)), value) {
        (Err(CgroupError::Io { source, .. }), None) if source.kind() == ErrorKind::NotFound => {
            Ok(())
        }
        (written, _) => written,
    }
}

fn one_component(name: &str) -> Result<&str, CgroupError> {
    let odd = |c: char| c == '/' || c == '\0' || c == '\n';
    match name.is_empty() || name.starts_with('.') || name.contains(odd) {
        true => Err(CgroupError::Name(name.to_owned())),
        false => Ok(name),
    }
}

/// The cgroup itself, or the one above where it is the supervisor's leaf.
fn above_leaf(own: PathBuf) -> PathBuf {
    match (own.file_name(), own.parent()) {
        (Some(name), Some(above)) if name == SUPERVISOR => above.to_owned(),
        _ => own,
    }
}

fn enabling(controllers: &[&str]) -> String {
    controllers.iter().map(|name| format!("+{name} ")).collect()
}

fn make_dir(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != ErrorKind::AlreadyExists => Err(CgroupError::Io {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Io {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, text: &str) -> Result<(), CgroupError> {
    // Never created: a missing file is a missing controller, not a new file.
    fs::File::options()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|source| CgroupError::Io {
            path: path.to_owned(),
            source,
        })
}

/// Where the process with this `membership` (/proc/self/cgroup) is in the cgroup v2 hierarchy that
/// `mounts` (/proc/self/mountinfo) shows.
fn locate(mounts: &str, membership: &str) -> Option<PathBuf> {
    let own = membership
        .lines()
        .find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        // id parent major:minor root mount-point options [optional...] - type source options
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        if after.split(' ').next()? != "cgroup2" {
            return None;
        }
        let beneath = Path::new(own).strip_prefix(root).ok()?;
        Some(Path::new(point).join(beneath))
    })
}

#[cfg(test)]
mod tests;
