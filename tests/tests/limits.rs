//! Limits of a domain as the kernel enforces them, in the lab, on workers that a driver started: the
//! lab has cgroup v2 with every controller.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_ipc::model::{
    BlockDeviceTuning, BootSource, CpuQuota, DevicePlace, Devices, Domain, DomainUuid, Labels,
    LifecycleAction, MemoryNodes, MemorySize, NodeMode, Platform, ResourceLimits, Tuning, VcpuPin,
    Vcpus,
};
use reeve_ipc::spec::{CpuSwitches, MachineType};
use reeve_tests::leftovers::Snapshot;
use reeve_tests::reeve::product;
use reeved::domain::driver::{
    Adoption, DeviceCall, DeviceLedger, DeviceResources, Driver, Notice, Recorder, Resources,
    Running, StartFailureKind, StartOrder, Verdict,
};
use reeved::domain::plan::AnyPath;
use reeved::domain::worker::KvmDriver;
use reeved::host::Host;
use reeved::host::confinement::least_memory_limit;
use reeved::host::worker_binary::WorkerBinary;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct Status(Mutex<Option<Resources>>);

impl Recorder for Status {
    fn record(&self, resources: &Resources) -> Result<(), String> {
        let mut last = self.0.lock().map_err(|error| error.to_string())?;
        *last = Some(resources.clone());
        Ok(())
    }
}

/// A domain with limits, started.
struct Limited {
    domain: Domain,
    running: Running,
    status: Arc<Status>,
    _directory: TempDir,
}

fn driver() -> Result<KvmDriver> {
    let binary = WorkerBinary::at(&product("reeve-worker")?)?;
    Ok(KvmDriver::new(
        Arc::new(Host::with_worker(binary)?),
        Arc::new(AnyPath),
    ))
}

fn domain(command_line: &str, limits: ResourceLimits) -> Result<Domain> {
    Ok(Domain {
        name: "limited".parse()?,
        uuid: DomainUuid(uuid::Uuid::new_v4()),
        machine: MachineType::Reeve1_0,
        vcpus: Vcpus::try_from(1)?,
        max_vcpus: Vcpus::try_from(1)?,
        platform: Platform::default(),
        kept: Vec::new(),
        tuning: Tuning::default(),
        cpu: CpuSwitches::default(),
        memory: MemorySize::mebibytes(64),
        boot: BootSource::BuiltIn {
            command_line: command_line.to_owned(),
        },
        devices: Devices::default(),
        lifecycle: LifecycleAction::default(),
        limits,
        pinning: Vec::new(),
        labels: Labels::default(),
    })
}

impl Limited {
    async fn start(command_line: &str, limits: ResourceLimits) -> Result<Limited> {
        Self::start_domain(domain(command_line, limits)?).await
    }

    async fn start_domain(domain: Domain) -> Result<Limited> {
        let directory = tempfile::tempdir()?;
        let status = Arc::new(Status::default());
        let order = StartOrder {
            domain: domain.clone(),
            paused: false,
            directory: directory.path().to_owned(),
        };
        let running = driver()?
            .start(order, Arc::clone(&status) as Arc<dyn Recorder>)
            .await?;
        Ok(Limited {
            domain,
            running,
            status,
            _directory: directory,
        })
    }

    fn resources(&self) -> Result<Resources> {
        let last = self.status.0.lock().ok().context("a status")?;
        last.clone().context("a record")
    }

    fn cgroup(&self) -> Result<PathBuf> {
        self.resources()?.cgroup.context("a cgroup")
    }

    async fn gone(&mut self) -> Result<Verdict> {
        loop {
            let notice = tokio::time::timeout(SOON, self.running.notices.recv()).await?;
            if let Notice::Gone(verdict) = notice.context("a last notice")? {
                return Ok(verdict);
            }
        }
    }

    async fn destroy(mut self) -> Result<()> {
        self.running.instance.kill();
        ensure!(self.gone().await? == Verdict::Asked);
        ensure!(!self.cgroup()?.exists(), "its cgroup is left");
        Ok(())
    }
}

fn read(directory: &Path, file: &str) -> Result<String> {
    let path = directory.join(file);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.trim().to_owned())
}

/// A field of a flat keyed file.
fn field(directory: &Path, file: &str, name: &str) -> Result<u64> {
    let text = read(directory, file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.context("a field")?.trim().parse()?)
}

/// CPU time that a cgroup got while the wall clock went on so far: the share of one CPU.
async fn share(cgroup: &Path, over: Duration) -> Result<f64> {
    let before = field(cgroup, "cpu.stat", "usage_usec ")?;
    let begin = Instant::now();
    tokio::time::sleep(over).await;
    let used = field(cgroup, "cpu.stat", "usage_usec ")? - before;
    Ok(Duration::from_micros(used).as_secs_f64() / begin.elapsed().as_secs_f64())
}

fn block_on<T>(body: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(body)
}

#[reeve_tests::in_lab(timeout = "120s", root)]
fn a_domain_beyond_its_memory_dies_alone_and_is_told() -> Result<()> {
    let before = Snapshot::take();
    block_on(async {
        let least = least_memory_limit(MemorySize::mebibytes(64), 1);
        let limits = ResourceLimits {
            memory: Some(least),
            ..ResourceLimits::default()
        };
        let other = Limited::start("mode=hold", limits).await?;
        let mut limited = Limited::start("mode=hold", limits).await?;
        let cgroup = limited.cgroup()?;
        ensure!(read(&cgroup, "memory.max")? == least.bytes().to_string());
        // The guest's memory and the worker are what is counted: with room for neither it dies.
        fs::write(cgroup.join("memory.max"), "64K")?;
        let verdict = limited.gone().await?;
        ensure!(
            matches!(&verdict, Verdict::Failed(why) if why.contains("SIGKILL")),
            "{verdict:?}"
        );
        ensure!(!cgroup.exists(), "its cgroup is left");
        other.running.instance.stats().await?;
        other.destroy().await
    })?;
    before.assert_nothing_new(SOON);
    Ok(())
}

#[reeve_tests::in_lab(timeout = "120s", root)]
fn the_whole_domain_gets_its_cpu_time_and_no_more() -> Result<()> {
    block_on(async {
        let limits = ResourceLimits {
            cpu_percent: Some(30),
            cpu_weight: Some(50),
            ..ResourceLimits::default()
        };
        let limited = Limited::start("mode=spin-user", limits).await?;
        let cgroup = limited.cgroup()?;
        ensure!(read(&cgroup, "cpu.max")? == "30000 100000");
        ensure!(read(&cgroup, "cpu.weight")? == "50");
        let share = share(&cgroup, Duration::from_secs(3)).await?;
        ensure!((0.15..0.40).contains(&share), "{share}");
        limited.destroy().await
    })
}

/// Two domains that want one CPU get it as their weights say, and neither one's other threads wait.
#[reeve_tests::in_lab(timeout = "120s", root)]
fn domains_that_want_the_same_cpu_share_it_by_their_weights() -> Result<()> {
    block_on(async {
        let mut competing = Vec::new();
        for weight in [400, 100] {
            let limits = ResourceLimits {
                cpu_weight: Some(weight),
                ..ResourceLimits::default()
            };
            let mut domain = domain("mode=spin-user", limits)?;
            domain.pinning = vec![VcpuPin {
                vcpu: 0,
                cpus: "0".parse()?,
            }];
            competing.push(Limited::start_domain(domain).await?);
        }
        let [heavy, light] = competing.as_slice() else {
            anyhow::bail!("two domains")
        };
        let (heavy_cgroup, light_cgroup) = (heavy.cgroup()?, light.cgroup()?);
        let over = Duration::from_secs(4);
        let (heavy_share, light_share) =
            tokio::try_join!(share(&heavy_cgroup, over), share(&light_cgroup, over))?;
        let ratio = heavy_share / light_share;
        ensure!(
            (2.5..6.0).contains(&ratio),
            "{heavy_share} to {light_share}: {ratio}"
        );
        for domain in &competing {
            let begin = Instant::now();
            domain.running.instance.stats().await?;
            ensure!(begin.elapsed() < Duration::from_secs(1));
        }
        for domain in competing {
            domain.destroy().await?;
        }
        Ok(())
    })
}

#[reeve_tests::in_lab(timeout = "120s", root)]
fn a_limit_of_the_vcpus_leaves_the_other_threads_alone() -> Result<()> {
    block_on(async {
        let limits = ResourceLimits {
            vcpu_percent: Some(20),
            ..ResourceLimits::default()
        };
        let limited = Limited::start("mode=spin-user", limits).await?;
        let vcpus = limited.cgroup()?.join("vcpus");
        let pid = limited.resources()?.process.context("a process")?.pid;
        let members = read(&vcpus, "cgroup.threads")?;
        ensure!(members.lines().count() == 1, "{members}");
        ensure!(read(Path::new(&format!("/proc/{pid}/task/{members}")), "comm")? == "vcpu0");
        let share = share(&vcpus, Duration::from_secs(3)).await?;
        ensure!((0.10..0.30).contains(&share), "{share}");
        ensure!(field(&vcpus, "cpu.stat", "nr_throttled ")? > 0);
        // The others are in the domain's own cgroup, which has no limit and holds nothing up.
        let domain = limited.cgroup()?;
        ensure!(read(&domain, "cpu.max")?.starts_with("max"));
        ensure!(field(&domain, "cpu.stat", "nr_throttled ")? == 0);
        for _ in 0..50 {
            limited.running.instance.stats().await?;
        }
        ensure!(field(&domain, "cpu.stat", "nr_throttled ")? == 0);
        limited.destroy().await
    })
}

#[reeve_tests::in_lab(timeout = "120s", root)]
fn a_limit_below_what_a_domain_needs_is_refused_with_the_least() -> Result<()> {
    block_on(async {
        let refused = [
            (
                ResourceLimits {
                    memory: Some(MemorySize::mebibytes(64)),
                    ..ResourceLimits::default()
                },
                "at least 77M",
            ),
            (
                ResourceLimits {
                    pids: Some(4),
                    ..ResourceLimits::default()
                },
                "at least 6",
            ),
        ];
        for (limits, least) in refused {
            let order = StartOrder {
                domain: domain("mode=hold", limits)?,
                paused: false,
                directory: PathBuf::from("/nowhere"),
            };
            let recorder: Arc<dyn Recorder> = Arc::new(Status::default());
            let failure = driver()?.start(order, recorder).await.err();
            let failure = failure.context("it started")?;
            ensure!(failure.kind == StartFailureKind::Definition, "{failure}");
            ensure!(failure.message.contains(least), "{failure}");
        }
        let limits = ResourceLimits {
            pids: Some(6),
            ..ResourceLimits::default()
        };
        let limited = Limited::start("mode=hold", limits).await?;
        ensure!(read(&limited.cgroup()?, "pids.max")? == "6");
        limited.destroy().await
    })
}

/// A cgroup outlives its supervisor with the worker, and goes with it under the next one.
#[reeve_tests::in_lab(timeout = "120s", root)]
fn limits_stay_with_a_worker_that_is_adopted() -> Result<()> {
    let before = Snapshot::take();
    block_on(async {
        let limits = ResourceLimits {
            pids: Some(64),
            vcpu_percent: Some(50),
            ..ResourceLimits::default()
        };
        let limited = Limited::start("mode=hold", limits).await?;
        let recorded = limited.resources()?;
        let Limited {
            domain,
            running,
            _directory,
            ..
        } = limited;
        drop(running);
        let cgroup = recorded.cgroup.clone().context("a cgroup")?;
        let adoption = driver()?.adopt(domain, recorded).await;
        let Adoption::Adopted { mut running, .. } = adoption else {
            anyhow::bail!("{adoption:?}")
        };
        ensure!(read(&cgroup, "pids.max")? == "64");
        running.instance.kill();
        // It tells of its vCPUs before.
        let last = tokio::time::timeout(SOON, async {
            let mut last = None;
            while let Some(notice) = running.notices.recv().await {
                last = Some(notice);
            }
            last
        });
        let last = last.await?;
        ensure!(last == Some(Notice::Gone(Verdict::Asked)), "{last:?}");
        ensure!(!cgroup.exists(), "its cgroup is left");
        Ok(())
    })?;
    before.assert_nothing_new(SOON);
    Ok(())
}

/// What a domain holds is written nowhere.
#[derive(Debug)]
struct NoLedger;

impl DeviceLedger for NoLedger {
    fn hold(&self, _: DeviceResources) -> Result<(), String> {
        Ok(())
    }

    fn let_go(&self, _: DevicePlace) {}
}

/// A limit of memory that comes while the domain runs is one of all that it has, and none that is below that.
#[reeve_tests::in_lab(timeout = "120s", root)]
fn a_memory_limit_that_comes_later_counts_what_was_touched_before() -> Result<()> {
    block_on(async {
        let limits = ResourceLimits {
            cpu_weight: Some(200),
            ..ResourceLimits::default()
        };
        let limited = Limited::start("mode=hold", limits).await?;
        let cgroup = limited.cgroup()?;
        ensure!(read(&cgroup, "memory.max")? == "max");
        let current = || -> Result<u64> { Ok(read(&cgroup, "memory.current")?.parse()?) };
        let touched = current()?;
        ensure!(touched > 1 << 20, "{touched} bytes are counted");
        let tune = |memory: MemorySize| {
            let mut domain = limited.domain.clone();
            domain.limits.memory = Some(memory);
            let call = DeviceCall::Tune {
                domain: Box::new(domain),
                before: Some(Box::new(limited.domain.clone())),
            };
            limited.running.instance.device(call, Arc::new(NoLedger))
        };
        let least = least_memory_limit(MemorySize::mebibytes(64), 1);
        tune(least).await?;
        ensure!(read(&cgroup, "memory.max")? == least.bytes().to_string());
        ensure!(read(&cgroup, "cpu.weight")? == "200");
        ensure!(current()? > 1 << 20);

        let mut both = limited.domain.clone();
        both.limits.memory = Some(least);
        both.limits.memory_soft = Some(MemorySize::mebibytes(48));
        both.limits.memory_and_swap = Some(MemorySize(least.bytes() + (16 << 20)));
        let tune = |after: &Domain| {
            let call = DeviceCall::Tune {
                domain: Box::new(after.clone()),
                before: None,
            };
            limited.running.instance.device(call, Arc::new(NoLedger))
        };
        tune(&both).await?;
        ensure!(read(&cgroup, "memory.high")? == (48 << 20).to_string());
        ensure!(read(&cgroup, "memory.swap.max")? == (16 << 20).to_string());
        ensure!(read(&cgroup, "memory.max")? == least.bytes().to_string());
        tune(&limited.domain).await?;
        for file in ["memory.high", "memory.swap.max", "memory.max"] {
            ensure!(read(&cgroup, file)? == "max", "{file}");
        }
        limited.running.instance.stats().await?;
        limited.destroy().await
    })
}

/// Each vCPU is under a quota of its own; that, the node of memory and the bounds of a block device come and go while the
/// domain runs.
#[reeve_tests::in_lab(timeout = "120s", root)]
fn what_a_domain_is_held_to_beside_its_limits_is_in_its_cgroup() -> Result<()> {
    block_on(async {
        let quota = |quota_us| CpuQuota {
            quota_us,
            period_us: 50_000,
        };
        let nodes = MemoryNodes {
            mode: NodeMode::Restrictive,
            nodes: "0".parse()?,
        };
        let mut domain = domain("mode=spin-user", ResourceLimits::default())?;
        (domain.vcpus, domain.max_vcpus) = (Vcpus::try_from(2)?, Vcpus::try_from(2)?);
        domain.tuning.vcpu_quota = Some(quota(10_000));
        domain.tuning.memory_nodes = Some(nodes);
        let limited = Limited::start_domain(domain).await?;
        let cgroup = limited.cgroup()?;
        let pid = limited.resources()?.process.context("a process")?.pid;
        for vcpu in ["0", "1"] {
            let own = cgroup.join("vcpus").join(vcpu);
            ensure!(read(&own, "cpu.max")? == "10000 50000");
            let member = read(&own, "cgroup.threads")?;
            let name = read(Path::new(&format!("/proc/{pid}/task/{member}")), "comm")?;
            ensure!(name == format!("vcpu{vcpu}"), "{name}");
        }
        let spinning = cgroup.join("vcpus/0");
        let share = share(&spinning, Duration::from_secs(3)).await?;
        // What bounds it is the quota; on a host that is loaded it may get a good deal less.
        ensure!((0.005..0.30).contains(&share), "{share}");
        ensure!(read(&cgroup, "cpuset.mems")? == "0");
        let tune = |before: &Domain, after: &Domain| {
            let call = DeviceCall::Tune {
                domain: Box::new(after.clone()),
                before: Some(Box::new(before.clone())),
            };
            limited.running.instance.device(call, Arc::new(NoLedger))
        };
        let disks = fs::read_dir("/sys/block")?.flatten();
        let mut disks = disks.map(|disk| disk.file_name().to_string_lossy().into_owned());
        let disk = disks.next().context("the lab has no block device")?;
        let number = read(&Path::new("/sys/block").join(&disk), "dev")?;
        let mut other = limited.domain.clone();
        other.tuning.vcpu_quota = Some(quota(20_000));
        other.tuning.block.devices = vec![BlockDeviceTuning {
            path: Path::new("/dev").join(&disk),
            read_bytes: Some(1 << 20),
            ..BlockDeviceTuning::default()
        }];
        tune(&limited.domain, &other).await?;
        ensure!(read(&spinning, "cpu.max")? == "20000 50000");
        let bounds = read(&cgroup, "io.max")?;
        ensure!(
            bounds == format!("{number} rbps=1048576 wbps=max riops=max wiops=max"),
            "{bounds}"
        );
        let mut none = other.clone();
        none.tuning = Tuning::default();
        tune(&other, &none).await?;
        ensure!(read(&spinning, "cpu.max")?.starts_with("max"));
        ensure!(read(&cgroup, "io.max")?.is_empty());
        // All that there are, where the kernel does not take none.
        ensure!(matches!(read(&cgroup, "cpuset.mems")?.as_str(), "" | "0"));
        limited.destroy().await
    })
}
