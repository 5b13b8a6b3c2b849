//! One domain's cgroup: its limits, what it uses, its end.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};

use super::{BlockLimits, CgroupError, CpuMax, Limits, Use, make_dir, read, write};

/// How long [`DomainCgroup::remove`] waits for the kernel's own threads.
pub const LAST_THREADS: Duration = Duration::from_millis(500);
/// A domain's threaded cgroup.
pub(super) const VCPUS: &str = "vcpus";

/// A domain's cgroup. Dropping it leaves it in place; [`DomainCgroup::remove`] ends it.
#[derive(Debug)]
pub struct DomainCgroup {
    path: PathBuf,
    dir: OwnedFd,
}

impl DomainCgroup {
    pub(super) fn set_up(path: PathBuf, limits: &Limits) -> Result<Self, CgroupError> {
        for (file, value) in limits.settings() {
            write(&path.join(file), &value)?;
        }
        // Of a new one there is nothing to lift.
        if limits.vcpu_max.is_some() || limits.each_vcpu_max.is_some() {
            limit_vcpus(&path, limits)?;
        }
        if limits.block_weight.is_some() || !limits.block_devices.is_empty() {
            limit_block(&path, limits)?;
        }
        Self::adopt(path)
    }

    /// Holds a domain that runs to these limits and to no others. Its parents must have the controllers for
    /// them ([`super::Hierarchy::above`], [`super::Hierarchy::widen`]).
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
            // Nothing is what the cgroup above has.
            ("cpuset.mems", limits.memory_nodes.clone(), "\n"),
        ] {
            set_or_lift(&self.path.join(file), value.as_deref(), none)?;
        }
        limit_vcpus(&self.path, limits)?;
        limit_block(&self.path, limits)
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

    /// Moves a thread of a process that is in it under the limit of the vCPUs, and under one of its own as the vCPU
    /// of that number, where each has one.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`], also where there is no such limit.
    pub fn limit_as_vcpu(
        &self,
        thread: u32,
        vcpu: u32,
        each: Option<CpuMax>,
    ) -> Result<(), CgroupError> {
        let mut place = self.path.join(VCPUS);
        if let Some(each) = each {
            place.push(vcpu.to_string());
            make_dir(&place)?;
            write(&place.join("cgroup.type"), "threaded")?;
            write(&place.join("cpu.max"), &each.setting())?;
        }
        write(&place.join("cgroup.threads"), &thread.to_string())
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
            let vcpus = self.path.join(VCPUS);
            for one in each_vcpu(&vcpus) {
                let _ = fs::remove_dir(one);
            }
            let _ = fs::remove_dir(vcpus);
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

/// The cgroups of single vCPUs in `vcpus`.
fn each_vcpu(vcpus: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(vcpus).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path())
}

/// Limits the threads in `vcpus` of the domain's cgroup at `path`, all together and each, or neither. It is made if
/// there is none and there is a limit.
fn limit_vcpus(path: &Path, limits: &Limits) -> Result<(), CgroupError> {
    let inner = path.join(VCPUS);
    let all = limits.vcpu_max.map(CpuMax::setting);
    let each = limits.each_vcpu_max.map(CpuMax::setting);
    if all.is_some() || each.is_some() {
        make_dir(&inner)?;
        // Before its controller is enabled: the parent becomes the root of a threaded subtree, which may hold
        // processes and controlled children.
        write(&inner.join("cgroup.type"), "threaded")?;
        write(&path.join("cgroup.subtree_control"), "+cpu")?;
    }
    if each.is_some() {
        write(&inner.join("cgroup.subtree_control"), "+cpu")?;
    }
    set_or_lift(&inner.join("cpu.max"), all.as_deref(), "max")?;
    for one in each_vcpu(&inner) {
        set_or_lift(&one.join("cpu.max"), each.as_deref(), "max")?;
    }
    Ok(())
}

/// Sets the shares and bounds of block devices of the domain's cgroup at `path`, and lifts those of all others.
fn limit_block(path: &Path, limits: &Limits) -> Result<(), CgroupError> {
    let file = ["io.bfq.weight", "io.weight"].map(|name| path.join(name));
    let [bfq, weight] = file;
    let weights = if bfq.exists() { bfq } else { weight };
    let weight = limits.block_weight.map(|weight| weight.to_string());
    set_or_lift(&weights, weight.as_deref(), "100")?;
    let wanted = limits.block_devices.iter();
    let shares: Vec<_> = wanted
        .clone()
        .filter(|device| device.weight.is_some())
        .collect();
    for device in of_devices(&weights)? {
        if !shares.iter().any(|share| share.device == device) {
            write(&weights, &BlockLimits::none(device).share())?;
        }
    }
    for share in shares {
        write(&weights, &share.share())?;
    }
    let bounds = path.join("io.max");
    for device in of_devices(&bounds)? {
        if !wanted.clone().any(|bound| bound.device == device) {
            write(&bounds, &BlockLimits::none(device).setting())?;
        }
    }
    for bound in wanted {
        write(&bounds, &bound.setting())?;
    }
    Ok(())
}

/// The devices of which a file of the controller of block devices says something; none where there is no file.
fn of_devices(file: &Path) -> Result<Vec<(u32, u32)>, CgroupError> {
    let text = match read(file) {
        Err(CgroupError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        text => text?,
    };
    let device = |line: &str| {
        let (major, minor) = line.split_whitespace().next()?.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    Ok(text.lines().filter_map(device).collect())
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
