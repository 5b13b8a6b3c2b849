//! One domain's cgroup: its limits, what it uses, its end.

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, mkdirat, open, openat, unlinkat};
use rustix::io::Errno;

use super::{BlockLimits, CgroupError, CpuMax, Limits, SWAP, Use};

/// How long [`DomainCgroup::remove`] waits for the kernel's own threads.
pub const LAST_THREADS: Duration = Duration::from_millis(500);
/// A domain's threaded cgroup.
pub(super) const VCPUS: &str = "vcpus";
const NODES: &str = "cpuset.mems";
const VCPUS_CPU_MAX: &str = "vcpus/cpu.max";

/// Who shares block devices out, each with a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ShareFile {
    /// The scheduler `bfq`, of the devices that have it.
    Bfq,
    /// `blk-iocost`, of the devices that it is on for.
    Cost,
}

impl ShareFile {
    const fn name(self) -> &'static str {
        match self {
            Self::Bfq => "io.bfq.weight",
            Self::Cost => "io.weight",
        }
    }

    /// What it takes for a share of 1 to 10000.
    fn weight(self, weight: u16) -> u16 {
        match self {
            Self::Bfq => weight.min(BFQ_MAX_WEIGHT),
            Self::Cost => weight,
        }
    }
}

/// The largest share that `bfq` knows.
const BFQ_MAX_WEIGHT: u16 = 1000;

/// A domain's cgroup. Dropping it leaves it in place; [`DomainCgroup::remove`] ends it. What is held is this very
/// directory: once it is removed everything fails, whatever is made under its name.
#[derive(Debug)]
pub struct DomainCgroup {
    path: PathBuf,
    dir: OwnedFd,
}

impl DomainCgroup {
    pub(super) fn set_up(path: PathBuf, limits: &Limits) -> Result<Self, CgroupError> {
        let cgroup = Self::adopt(path)?;
        cgroup.set(limits)?;
        // Of a new one there is nothing to lift.
        if limits.vcpu_max.is_some() || limits.each_vcpu_max.is_some() {
            cgroup.limit_vcpus(limits)?;
        }
        if limits.block_weight.is_some() || !limits.block_devices.is_empty() {
            cgroup.limit_block(limits)?;
        }
        Ok(cgroup)
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
            (
                "memory.high",
                limits.memory_high.map(|bytes| bytes.to_string()),
                "max",
            ),
            (SWAP, limits.swap_max.map(|bytes| bytes.to_string()), "max"),
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
            self.set_or_lift(file, value.as_deref(), none)?;
        }
        match &limits.memory_nodes {
            Some(nodes) => self.write(NODES, nodes)?,
            None => self.lift_nodes()?,
        }
        self.limit_vcpus(limits)?;
        self.limit_block(limits)
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
            let stat = self.read("memory.stat")?;
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
        let number = |file: &str| match self.read(file) {
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
        let mut place = VCPUS.to_owned();
        if let Some(each) = each {
            place = format!("{VCPUS}/{vcpu}");
            self.make_dir(&place)?;
            self.write(&format!("{place}/cgroup.type"), "threaded")?;
            self.write(&format!("{place}/cpu.max"), &each.setting())?;
        }
        self.write(&format!("{place}/cgroup.threads"), &thread.to_string())
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

    /// Whether it was not removed, by whomever.
    pub fn is_there(&self) -> bool {
        let ours = rustix::fs::fstat(&self.dir);
        let there = rustix::fs::lstat(&self.path);
        matches!((ours, there), (Ok(ours), Ok(there)) if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino))
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
            self.write(file, &value)?;
        }
        Ok(())
    }

    /// Kills whatever is in it (Linux 5.14).
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`].
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.write("cgroup.kill", "1")
    }

    /// Removes it; what somebody else has removed, whatever has its name by now, is left alone. What was in it must
    /// have been reaped. Kernel threads that KVM made for the domain
    /// are in it too (on kernels before 6.14) and end a moment after the process: waits up to
    /// [`LAST_THREADS`] for them, hardly ever at all.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`]; `EBUSY` while a process is in it.
    pub fn remove(self) -> Result<(), CgroupError> {
        let begin = Instant::now();
        while self.is_there() {
            // There only where the vCPUs have a limit; what is left in it is left in the other too.
            for one in self.each_vcpu() {
                let _ = unlinkat(&self.dir, one, AtFlags::REMOVEDIR);
            }
            let _ = unlinkat(&self.dir, VCPUS, AtFlags::REMOVEDIR);
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
        Ok(())
    }

    /// The cgroups of single vCPUs in `vcpus`, by their names from here.
    fn each_vcpu(&self) -> Vec<String> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let vcpus = openat(&self.dir, VCPUS, flags, Mode::empty());
        let Ok(entries) = vcpus.and_then(Dir::read_from) else {
            return Vec::new();
        };
        let name = |entry: rustix::fs::DirEntry| entry.file_name().to_str().map(str::to_owned);
        let names = entries.flatten().filter_map(|entry| name(entry).ok());
        let vcpus = names.filter(|name| name.parse::<u32>().is_ok());
        vcpus.map(|vcpu| format!("{VCPUS}/{vcpu}")).collect()
    }

    /// Limits the threads in `vcpus`, all together and each, or neither. It is made if there is none and there is a
    /// limit.
    fn limit_vcpus(&self, limits: &Limits) -> Result<(), CgroupError> {
        let all = limits.vcpu_max.map(CpuMax::setting);
        let each = limits.each_vcpu_max.map(CpuMax::setting);
        if all.is_some() || each.is_some() {
            self.make_dir(VCPUS)?;
            // Before its controller is enabled: the parent becomes the root of a threaded subtree, which may hold
            // processes and controlled children.
            self.write(&format!("{VCPUS}/cgroup.type"), "threaded")?;
            self.write("cgroup.subtree_control", "+cpu")?;
        }
        if each.is_some() {
            self.write(&format!("{VCPUS}/cgroup.subtree_control"), "+cpu")?;
        }
        self.set_or_lift(VCPUS_CPU_MAX, all.as_deref(), "max")?;
        for one in self.each_vcpu() {
            self.set_or_lift(&format!("{one}/cpu.max"), each.as_deref(), "max")?;
        }
        Ok(())
    }

    /// Sets the shares and bounds of block devices, and lifts those of all others.
    fn limit_block(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.limit_shares(limits)?;
        let wanted = &limits.block_devices;
        for device in self.of_devices("io.max")? {
            if !wanted.iter().any(|bound| bound.device == device) {
                self.write("io.max", &BlockLimits::none(device).setting())?;
            }
        }
        for bound in wanted {
            self.write("io.max", &bound.setting())?;
        }
        Ok(())
    }

    /// Sets the shares of block devices, and lifts those of all others, in the files of all that share them out: which
    /// of these a device has to do with the kernel does not tell, and a file is there whether one has or not.
    fn limit_shares(&self, limits: &Limits) -> Result<(), CgroupError> {
        let files = self.share_files();
        let mut shares = limits.block_devices.clone();
        shares.retain(|device| device.weight.is_some());
        if files.is_empty() && (limits.block_weight.is_some() || !shares.is_empty()) {
            return Err(self.error(ShareFile::Cost.name(), ErrorKind::NotFound.into()));
        }
        for file in &files {
            let weight = limits.block_weight.map(|weight| file.weight(weight));
            let weight = weight.map(|weight| weight.to_string());
            self.set_or_lift(file.name(), weight.as_deref(), "100")?;
            for device in self.of_devices(file.name())? {
                if !shares.iter().any(|share| share.device == device) {
                    self.write(file.name(), &BlockLimits::none(device).share())?;
                }
            }
        }
        for share in shares {
            let set = files.iter().map(|file| {
                let weight = share.weight.map(|weight| file.weight(weight));
                let share = BlockLimits { weight, ..share };
                self.write(file.name(), &share.share())
            });
            let (taken, refused): (Vec<_>, Vec<_>) = set.partition(Result::is_ok);
            if taken.is_empty() {
                refused.into_iter().collect::<Result<(), _>>()?;
            }
        }
        Ok(())
    }

    /// Whether something here takes the shares of block devices that are wanted, as far as can be seen.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`], with what is not there.
    pub fn provides_shares(&self, limits: &Limits) -> Result<(), CgroupError> {
        let mut weights = limits.block_devices.iter().map(|device| device.weight);
        if limits.block_weight.is_none() && weights.all(|weight| weight.is_none()) {
            return Ok(());
        }
        let is_there = |file: &str| self.open(file, OFlags::RDONLY).is_ok();
        // Where its controller is not on yet none of its files is there.
        if !is_there("io.max") || !self.share_files().is_empty() {
            return Ok(());
        }
        Err(self.error(ShareFile::Cost.name(), ErrorKind::NotFound.into()))
    }

    /// Whether what is swapped out can be limited here, where it is to be, as far as can be seen.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Io`], with what is not there.
    pub fn provides_swap(&self, limits: &Limits) -> Result<(), CgroupError> {
        let is_there = |file: &str| self.open(file, OFlags::RDONLY).is_ok();
        // Where its controller is not on yet none of its files is there.
        if limits.swap_max.is_none() || !is_there("memory.max") || is_there(SWAP) {
            return Ok(());
        }
        Err(self.error(SWAP, ErrorKind::NotFound.into()))
    }

    /// The files of shares that are there.
    fn share_files(&self) -> Vec<ShareFile> {
        let mut files = vec![ShareFile::Bfq, ShareFile::Cost];
        files.retain(|file| self.open(file.name(), OFlags::RDONLY).is_ok());
        files
    }

    /// The devices of which a file of the controller of block devices says something; none where there is no file.
    fn of_devices(&self, file: &str) -> Result<Vec<(u32, u32)>, CgroupError> {
        let text = match self.read(file) {
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

    /// Makes a cgroup in it, if there is none of that name.
    fn make_dir(&self, name: &str) -> Result<(), CgroupError> {
        match mkdirat(&self.dir, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(self.error(name, errno.into())),
        }
    }

    /// Lets it have its memory wherever the cgroup above may.
    fn lift_nodes(&self) -> Result<(), CgroupError> {
        match self.set_or_lift(NODES, None, "\n") {
            // Kernels of which one that has processes cannot be without nodes once it has some.
            Err(CgroupError::Io { source, .. })
                if source.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) =>
            {
                let above = self.read("../cpuset.mems.effective")?;
                self.write(NODES, above.trim())
            }
            lifted => lifted,
        }
    }

    /// Sets a limit, or writes what stands for none. What has no file has no limit.
    fn set_or_lift(&self, file: &str, value: Option<&str>, none: &str) -> Result<(), CgroupError> {
        match (self.write(file, value.unwrap_or(none)), value) {
            (Err(CgroupError::Io { source, .. }), None) if source.kind() == ErrorKind::NotFound => {
                Ok(())
            }
            (written, _) => written,
        }
    }

    fn read(&self, file: &str) -> Result<String, CgroupError> {
        let mut text = String::new();
        self.open(file, OFlags::RDONLY)
            .and_then(|mut file| file.read_to_string(&mut text))
            .map_err(|source| self.error(file, source))?;
        Ok(text)
    }

    fn write(&self, file: &str, text: &str) -> Result<(), CgroupError> {
        self.open(file, OFlags::WRONLY)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|source| self.error(file, source))
    }

    /// Never by its path, where another domain's may be by now, or this one's next; and never created: a missing
    /// file is a missing controller.
    fn open(&self, file: &str, mode: OFlags) -> io::Result<fs::File> {
        let opened = openat(&self.dir, file, mode | OFlags::CLOEXEC, Mode::empty());
        Ok(opened?.into())
    }

    fn error(&self, file: &str, source: io::Error) -> CgroupError {
        let path = self.path.join(file);
        CgroupError::Io { path, source }
    }
}
