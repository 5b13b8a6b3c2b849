//! A domain's cgroup, where its definition sets limits: made before the worker, removed after it.
//!
//! A domain without limits needs no cgroup and gets none, unless the supervisor was given a place for
//! all of them; one with limits does not start where the host cannot enforce them, nor with less than
//! its own machine needs.

mod error;
mod place;

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reeve_ipc::model::{
    BlockDeviceTuning, CpuQuota, Devices, Domain, DomainName, MemorySize, NodeMode,
};
use reeve_ipc::spec::NicDriver;
use reeve_sandbox::cgroup::{BlockLimits, CgroupError, CpuMax, DomainCgroup, Hierarchy, Limits};

pub use self::error::ConfinementError;
use self::error::refused;
pub use self::place::CgroupPlace;
use super::{block_device, memory_nodes};

/// The namespaces every worker has of its own.
pub const NAMESPACES: [&str; 7] = ["user", "pid", "mount", "network", "ipc", "uts", "cgroup"];

/// The period over which CPU time is counted, in microseconds: the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;

/// How long it may take to see whether the host can hold a domain to what its definition says.
pub(crate) const LOOK_DEADLINE: Duration = Duration::from_secs(10);

/// What a worker needs of the host's memory besides its guest's: so much in any case ...
const OVERHEAD_BYTES: u64 = 12 << 20;
/// ... so much for each vCPU ...
const OVERHEAD_PER_VCPU: u64 = 256 << 10;
/// ... and one byte in so many of the guest's for the page tables of host and guest, and KVM's own
/// map of the guest's pages.
const GUEST_BYTES_PER_OVERHEAD_BYTE: u64 = 128;
/// What the process of a share may need of it.
const OVERHEAD_PER_SHARE: u64 = 16 << 20;
/// Threads and processes of a share: the worker's own for it, the launcher, and what virtiofsd has, with
/// some to spare.
const SHARE_THREADS: u32 = 8;
/// Threads and processes of a worker besides those of its vCPUs and devices: control, I/O and spawner, and
/// KVM's two.
const OTHER_THREADS: u32 = 5;

/// The least memory limit of a domain: its guest's memory and the worker's own need, in whole MiB.
#[must_use]
pub fn least_memory_limit(memory: MemorySize, vcpus: u32) -> MemorySize {
    let guest = memory.bytes();
    let bytes = guest
        .saturating_add(guest / GUEST_BYTES_PER_OVERHEAD_BYTE)
        .saturating_add(OVERHEAD_BYTES)
        .saturating_add(u64::from(vcpus).saturating_mul(OVERHEAD_PER_VCPU));
    MemorySize((bytes >> 20).saturating_add(1) << 20)
}

/// A domain's limits, checked, and where they will be; nothing is made yet.
#[derive(Debug)]
pub(crate) struct ConfinementPlan {
    domain: DomainName,
    /// `None`: no cgroup is needed.
    cgroup: Option<CgroupPlan>,
}

#[derive(Debug)]
struct CgroupPlan {
    hierarchy: Hierarchy,
    name: String,
    limits: Limits,
    path: PathBuf,
}

impl ConfinementPlan {
    /// As [`Self::new`], on a thread that may wait, and not for ever.
    pub(crate) async fn look(
        domain: &Domain,
        place: &CgroupPlace,
    ) -> Result<Self, ConfinementError> {
        let late = ConfinementError::Late(domain.name.clone());
        let (domain, place) = (domain.clone(), place.clone());
        let looking = tokio::task::spawn_blocking(move || Self::new(&domain, &place));
        match tokio::time::timeout(LOOK_DEADLINE, looking).await {
            Ok(Ok(looked)) => looked,
            _ => Err(late),
        }
    }

    /// Checks what the definition asks for against itself and the host.
    pub(crate) fn new(domain: &Domain, place: &CgroupPlace) -> Result<Self, ConfinementError> {
        let name = domain.name.clone();
        check_nodes(domain)?;
        if !needs_cgroup(domain) && !place.is_for_all() {
            return Ok(Self {
                domain: name,
                cgroup: None,
            });
        }
        check(domain)?;
        let limits = limits(domain, |_| true)?;
        let plan = || {
            let hierarchy = place.hierarchy()?;
            // The UUID: unlike a name it is fit for a path and used once.
            let name = domain.uuid.to_string();
            let path = hierarchy.place(&name, &limits)?;
            Ok(CgroupPlan {
                hierarchy,
                name,
                limits,
                path,
            })
        };
        match plan() {
            Ok(cgroup) => Ok(Self {
                domain: name,
                cgroup: Some(cgroup),
            }),
            Err(error) => Err(refused(name, error)),
        }
    }

    /// Where the cgroup will be.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.cgroup.as_ref().map(|cgroup| cgroup.path.as_path())
    }

    /// Makes the cgroup.
    pub(crate) fn make(self) -> Result<Confinement, ConfinementError> {
        let cgroup = match self.cgroup {
            None => None,
            Some(plan) => match plan.hierarchy.create(&plan.name, &plan.limits) {
                Ok(cgroup) => Some(cgroup),
                Err(error) => return Err(refused(self.domain, error)),
            },
        };
        Ok(Confinement { cgroup })
    }
}

/// What bounds one domain's use of the host. Dropping it removes the cgroup, in which nothing may be
/// left by then.
#[derive(Debug)]
pub(crate) struct Confinement {
    cgroup: Option<DomainCgroup>,
}

impl Confinement {
    /// Takes over what an earlier supervisor recorded; it may not have come to making it.
    pub(crate) fn adopt(recorded: Option<&Path>) -> Self {
        Self {
            cgroup: recorded.and_then(|path| DomainCgroup::adopt(path.to_owned()).ok()),
        }
    }

    /// Changes how many processes and threads there may be. Where there is no cgroup there is no limit.
    pub(crate) fn set_pids(&self, limit: u32) -> Result<(), CgroupError> {
        let limits = Limits {
            pids_max: Some(limit),
            ..Limits::default()
        };
        match &self.cgroup {
            Some(cgroup) => cgroup.set(&limits),
            None => Ok(()),
        }
    }

    /// Leaves the cgroup for a later supervisor.
    pub(crate) fn leave(&mut self) {
        self.cgroup = None;
    }

    /// Where it is.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        let cgroup = self.cgroup.as_ref()?;
        Some(cgroup.path().to_owned())
    }

    /// The directory a worker is born in.
    pub(crate) fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.cgroup.as_ref().map(DomainCgroup::dir)
    }
}

impl Drop for Confinement {
    fn drop(&mut self) {
        let Some(cgroup) = self.cgroup.take() else {
            return;
        };
        let parent = cgroup.path().parent().map(PathBuf::from);
        // What serves its shares ends with the worker by itself, but a moment later, and if it is not
        // told otherwise by whoever broke into it.
        let _ = cgroup.kill();
        if let Err(error) = cgroup.remove() {
            tracing::warn!(%error, "a domain's cgroup could not be removed");
        }
        if let Some(parent) = parent {
            // The directory of all domains goes with the last one; others may be in it.
            let _ = std::fs::remove_dir(parent);
        }
    }
}

/// Refuses limits of a domain that runs, in `cgroup`, which it cannot be held to; nothing is changed. Of nodes and block
/// devices those are looked for that are other than `before`, by which it is held: one that is gone since is no reason
/// to refuse what has nothing to do with it. Where that is not known none is.
pub(crate) fn check_limits(
    domain: &Domain,
    before: Option<&Domain>,
    cgroup: Option<&DomainCgroup>,
) -> Result<(), ConfinementError> {
    check(domain)?;
    if before.is_some_and(|before| before.tuning.memory_nodes != domain.tuning.memory_nodes) {
        check_nodes(domain)?;
    }
    let name = || domain.name.clone();
    let Some(cgroup) = cgroup else {
        return match needs_cgroup(domain) {
            true => Err(ConfinementError::NoCgroup(name())),
            false => Ok(()),
        };
    };
    let wanted = limits(domain, |device| is_new(device, before))?;
    let looked = Hierarchy::above(cgroup.path())
        .map_or(Ok(()), |hierarchy| hierarchy.provides(&wanted))
        .and_then(|()| cgroup.provides_shares(&wanted))
        .and_then(|()| cgroup.provides_swap(&wanted))
        .and_then(|()| cgroup.use_of_memory_and_pids());
    let (memory, pids) = looked.map_err(|error| refused(name(), error))?;
    // The kernel counts from when it was told to on.
    if wanted.limits_memory() && memory.is_none() {
        return Err(ConfinementError::Uncounted(name()));
    }
    if let (Some(limit), Some(memory)) = (wanted.memory_max, memory) {
        if memory.exceeds(limit) {
            return Err(ConfinementError::InUse {
                domain: name(),
                limit: MemorySize(limit).to_string(),
                what: "of memory",
                used: MemorySize(memory.used).to_string(),
            });
        }
    }
    if let (Some(limit), Some(pids)) = (wanted.pids_max, pids) {
        if pids.exceeds(u64::from(limit)) {
            return Err(ConfinementError::InUse {
                domain: name(),
                limit: limit.to_string(),
                what: "threads",
                used: pids.used.to_string(),
            });
        }
    }
    Ok(())
}

/// Holds a domain that runs, in `cgroup`, to the limits of its definition and to no others. May wait while the
/// kernel reclaims memory.
pub(crate) fn relimit(
    domain: &Domain,
    before: Option<&Domain>,
    cgroup: Option<&DomainCgroup>,
) -> Result<(), ConfinementError> {
    check_limits(domain, before, cgroup)?;
    let Some(cgroup) = cgroup else {
        return Ok(());
    };
    let limits = limits(domain, |device| is_new(device, before))?;
    let relimited = Hierarchy::above(cgroup.path())
        .map_or(Ok(()), |hierarchy| hierarchy.widen(&limits))
        .and_then(|()| cgroup.replace(&limits));
    relimited.map_err(|error| refused(domain.name.clone(), error))
}

fn check(domain: &Domain) -> Result<(), ConfinementError> {
    // Those that may come need as much as those that are there.
    let vcpus = domain.max_vcpus.count();
    let shares = u64::try_from(domain.devices.shares.len()).unwrap_or(u64::MAX);
    let shares = shares.saturating_mul(OVERHEAD_PER_SHARE);
    // And memory that it can be given as much as what it has.
    let guest = domain.max_memory();
    let least = least_memory_limit(guest, vcpus).bytes();
    let least = MemorySize(least.saturating_add(shares));
    if let Some(limit) = domain.limits.memory.filter(|limit| *limit < least) {
        return Err(ConfinementError::Memory {
            domain: domain.name.clone(),
            limit,
            guest,
            grows: guest > domain.memory,
            least,
        });
    }
    let least = vcpus
        .saturating_add(OTHER_THREADS)
        .saturating_add(device_threads(&domain.devices));
    if let Some(limit) = domain.limits.pids.filter(|limit| *limit < least) {
        return Err(ConfinementError::Pids {
            domain: domain.name.clone(),
            limit,
            vcpus,
            least,
        });
    }
    Ok(())
}

/// One for each queue of a disk and each pair of a network interface, and the kernel's own for each pair that it
/// serves (from Linux 6.4 on it is counted as the worker's), some for a share, one for memory that can be plugged
/// in, and one for all other devices.
fn device_threads(devices: &Devices) -> u32 {
    let shares = devices.shares.iter().map(|_| SHARE_THREADS);
    let disks = devices.disks.iter().map(|disk| u32::from(disk.queues));
    let nics = devices.nics.iter().map(|nic| match nic.driver {
        NicDriver::User => u32::from(nic.queues),
        NicDriver::Vhost => 2 * u32::from(nic.queues),
    });
    let others = devices.rng.is_some()
        || devices.balloon.is_some()
        || devices.vsock.is_some()
        || !devices.channels.is_empty()
        || !devices.consoles.is_empty();
    let memory = u32::from(devices.memory.is_some());
    disks.chain(nics).chain(shares).sum::<u32>() + memory + u32::from(others)
}

fn check_nodes(domain: &Domain) -> Result<(), ConfinementError> {
    match memory_nodes::missing(domain) {
        None => Ok(()),
        Some(node) => Err(ConfinementError::Node {
            domain: domain.name.clone(),
            node,
        }),
    }
}

/// Whether the host holds a domain to something by a cgroup alone.
fn needs_cgroup(domain: &Domain) -> bool {
    domain.limits.any() || domain.tuning.needs_cgroup()
}

/// Whether a device is bounded otherwise than before, where that is known.
fn is_new(device: &BlockDeviceTuning, before: Option<&Domain>) -> bool {
    before.is_some_and(|before| !before.tuning.block.devices.contains(device))
}

/// What the kernel is told. A block device that is not to be bounded is refused where it is needed, and else left out.
fn limits(
    domain: &Domain,
    needed: impl Fn(&BlockDeviceTuning) -> bool,
) -> Result<Limits, ConfinementError> {
    let limits = domain.limits;
    let block = &domain.tuning.block;
    let devices = block.devices.iter().filter_map(|device| {
        let BlockDeviceTuning {
            path,
            weight,
            read_bytes,
            write_bytes,
            read_operations,
            write_operations,
        } = device;
        let number = match block_device::number(path) {
            Ok(number) => number,
            Err(why) if !needed(device) => {
                let (domain, path) = (&domain.name, path.display());
                tracing::warn!(%domain, %path, %why, "a block device has no bounds any more");
                return None;
            }
            Err(why) => {
                return Some(Err(ConfinementError::BlockDevice {
                    domain: domain.name.clone(),
                    path: path.clone(),
                    why,
                }));
            }
        };
        Some(Ok(BlockLimits {
            device: number,
            weight: *weight,
            read_bytes: *read_bytes,
            write_bytes: *write_bytes,
            read_operations: *read_operations,
            write_operations: *write_operations,
        }))
    });
    Ok(Limits {
        block_weight: block.weight,
        block_devices: devices.collect::<Result<_, _>>()?,
        memory_nodes: domain
            .tuning
            .memory_nodes
            .as_ref()
            .filter(|nodes| nodes.mode == NodeMode::Restrictive)
            .map(|nodes| nodes.nodes.to_string()),
        each_vcpu_max: domain.tuning.vcpu_quota.map(of_each_vcpu),
        memory_max: limits.memory.map(MemorySize::bytes),
        memory_high: limits.memory_soft.map(MemorySize::bytes),
        swap_max: limits.swap(),
        cpu_max: limits.cpu_percent.map(cpu_max),
        cpu_weight: limits.cpu_weight,
        pids_max: limits.pids,
        vcpu_max: limits.vcpu_percent.map(cpu_max),
    })
}

/// The limit of a vCPU.
pub(crate) const fn of_each_vcpu(quota: CpuQuota) -> CpuMax {
    CpuMax {
        quota_us: quota.quota_us,
        period_us: quota.period_us as u64,
    }
}

fn cpu_max(percent: u32) -> CpuMax {
    CpuMax {
        quota_us: u64::from(percent) * CPU_PERIOD_US / 100,
        period_us: CPU_PERIOD_US,
    }
}

#[cfg(test)]
pub(super) mod tests;
