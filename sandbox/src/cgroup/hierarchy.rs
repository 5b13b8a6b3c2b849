//! The place that cgroups are made in: found, its controllers enabled, the supervisor out of the way.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::domain::{DomainCgroup, VCPUS};
use super::{CgroupError, Limits, make_dir, read, write};

/// How often a cgroup is made again that lost its parent meanwhile.
const ATTEMPTS: u32 = 3;

/// The leaf a supervisor moves into.
const SUPERVISOR: &str = "supervisor";
/// The directory of the domains' cgroups.
const DOMAINS: &str = "domains";
/// The controller of CPU sets, and of sets of NUMA nodes.
const CPU_SETS: &[&str] = &["cpuset"];

/// A place in the cgroup v2 hierarchy to make domains' cgroups in.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    own: PathBuf,
    /// The kernel forgets which CPUs threads are bound to when the controller of CPU sets is put on where they are.
    unbinds: bool,
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
        let kernel = rustix::system::uname();
        let unbinds = kernel.release().to_str().map_or(true, is_before_6_2);
        Self { own, unbinds }
    }

    /// As on another kernel.
    #[cfg(test)]
    pub(super) fn of_kernel(self, release: &str) -> Self {
        let unbinds = is_before_6_2(release);
        Self { unbinds, ..self }
    }

    /// Puts the controller of CPU sets on while nothing is there that it could do harm to, where the kernel forgets
    /// what threads are bound to when that is done later.
    ///
    /// # Errors
    ///
    /// [`CgroupError::MissingControllers`], [`CgroupError::Io`]: it stays off.
    pub fn prepare(&self) -> Result<(), CgroupError> {
        match self.unbinds && !self.would_unbind()? {
            true => {
                self.have(CPU_SETS)?;
                let control = self.own.join("cgroup.subtree_control");
                write(&control, &enabling(CPU_SETS))
            }
            false => Ok(()),
        }
    }

    /// As [`Self::prepare`], of the directory of all domains, where the one above has it.
    fn prepare_domains(&self) -> Result<(), CgroupError> {
        let domains = self.own.join(DOMAINS);
        match self.unbinds && has_cpu_sets(&self.own)? && !self.would_unbind()? {
            true => write(&domains.join("cgroup.subtree_control"), &enabling(CPU_SETS)),
            false => Ok(()),
        }
    }

    /// Whether to put the controller of CPU sets on has the kernel forget what threads are bound to, of domains or of
    /// what is in the supervisor's leaf.
    fn would_unbind(&self) -> Result<bool, CgroupError> {
        let is_populated = |name: &str| {
            let events = read(&self.own.join(name).join("cgroup.events"));
            events.is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
        };
        if !self.unbinds {
            return Ok(false);
        }
        let domains = is_populated(DOMAINS);
        Ok(match has_cpu_sets(&self.own)? {
            true => domains && !has_cpu_sets(&self.own.join(DOMAINS))?,
            false => domains || is_populated(SUPERVISOR),
        })
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
        self.provides_all(&needed)?;
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
    /// [`CgroupError::Unbinds`] where it could be had and must not be.
    pub fn provides(&self, limits: &Limits) -> Result<(), CgroupError> {
        match limits.controllers().as_slice() {
            [] => Ok(()),
            needed => self.provides_all(needed),
        }
    }

    fn provides_all(&self, needed: &[&str]) -> Result<(), CgroupError> {
        self.have(needed)?;
        match needed.iter().any(|name| CPU_SETS.contains(name)) && self.would_unbind()? {
            true => Err(CgroupError::Unbinds(self.own.clone())),
            false => Ok(()),
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
        // A domain without a limit of its memory does without, and one that may be on any node.
        let _ = self.count_memory();
        let _ = self.prepare_domains();
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
        // Whoever is in it already may be bound.
        let is_free = self.unbinds && !self.would_unbind()?;
        write(&leaf.join("cgroup.procs"), "0")?;
        if is_free && self.have(CPU_SETS).is_ok() {
            let control = self.own.join("cgroup.subtree_control");
            // Where it stays off no domain can be held to nodes by it, and is told so.
            let _ = write(&control, &enabling(CPU_SETS));
        }
        Ok(())
    }
}

/// Whether the controller of CPU sets is on for what is in a directory.
fn has_cpu_sets(directory: &Path) -> Result<bool, CgroupError> {
    match read(&directory.join("cgroup.subtree_control")) {
        Ok(on) => Ok(on.split_whitespace().any(|name| CPU_SETS.contains(&name))),
        Err(CgroupError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Of the release of a kernel. What is none is one that does.
fn is_before_6_2(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|part| part.parse::<u32>().ok());
    match (number(), number()) {
        (Some(major), Some(minor)) => (major, minor) < (6, 2),
        _ => true,
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
pub(super) fn above_leaf(own: PathBuf) -> PathBuf {
    match (own.file_name(), own.parent()) {
        (Some(name), Some(above)) if name == SUPERVISOR => above.to_owned(),
        _ => own,
    }
}

fn enabling(controllers: &[&str]) -> String {
    controllers.iter().map(|name| format!("+{name} ")).collect()
}

/// Where the process with this `membership` (/proc/self/cgroup) is in the cgroup v2 hierarchy that
/// `mounts` (/proc/self/mountinfo) shows.
pub(super) fn locate(mounts: &str, membership: &str) -> Option<PathBuf> {
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
