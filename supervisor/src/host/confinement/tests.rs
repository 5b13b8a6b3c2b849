use reeve_ipc::model::{
    BootSource, DomainUuid, Labels, LifecycleAction, Platform, PluggableMemory, ResourceLimits,
    Tuning, Vcpus,
};
use reeve_ipc::spec::{CpuSwitches, MachineType};

use super::*;

/// One vCPU and 64 MiB, and nothing else.
pub(in crate::host) fn domain() -> Domain {
    let vcpus = Vcpus::try_from(1).unwrap();
    Domain {
        name: "web".parse().unwrap(),
        uuid: DomainUuid(uuid::Uuid::nil()),
        machine: MachineType::Reeve1_0,
        vcpus,
        max_vcpus: vcpus,
        platform: Platform::default(),
        kept: Vec::new(),
        tuning: Tuning::default(),
        cpu: CpuSwitches::default(),
        memory: MemorySize::mebibytes(64),
        boot: BootSource::BuiltIn {
            command_line: String::new(),
        },
        devices: Devices::default(),
        lifecycle: LifecycleAction::default(),
        limits: ResourceLimits::default(),
        pinning: Vec::new(),
        labels: Labels::default(),
    }
}

#[test]
fn percent_of_a_cpu_is_time_in_a_period() {
    let mut domain = domain();
    domain.limits = ResourceLimits {
        memory: Some(MemorySize::mebibytes(64)),
        cpu_percent: Some(150),
        ..ResourceLimits::default()
    };
    let limits = limits(&domain, |_| true).unwrap();
    assert_eq!(
        limits.cpu_max,
        Some(CpuMax {
            quota_us: 150_000,
            period_us: 100_000
        })
    );
    assert_eq!(limits.memory_max, Some(64 << 20));
    assert_eq!(limits.controllers(), ["cpu", "memory"]);
}

#[test]
fn a_block_device_is_bounded_by_its_number_and_nothing_else_is() {
    let mut domain = domain();
    assert!(!needs_cgroup(&domain));
    domain.tuning.block.devices = vec![BlockDeviceTuning {
        path: "/dev/null".into(),
        ..BlockDeviceTuning::default()
    }];
    assert!(needs_cgroup(&domain));
    let error = limits(&domain, |_| true).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot bound what 'web' uses of /dev/null"),
        "{error}"
    );
    domain.tuning.block.devices[0].path = "/dev/nothing".into();
    let gone = limits(&domain, |_| true).unwrap_err();
    assert!(gone.is_of_definition(), "{gone}");
    let why = |error: &str| error.rsplit_once(": ").unwrap().1.to_owned();
    assert_eq!(why(&gone.to_string()), why(&error), "it tells no more");
}

#[test]
fn what_the_host_has_no_more_is_no_reason_to_refuse_another_change() {
    let (_directory, path) = cgroup(&[]);
    std::fs::write(path.join("../../cgroup.controllers"), "cpu io cpuset").unwrap();
    let cgroup = DomainCgroup::adopt(path).unwrap();
    let mut before = domain();
    before.tuning.block.devices = vec![BlockDeviceTuning {
        path: "/dev/nothing".into(),
        read_bytes: Some(1),
        ..BlockDeviceTuning::default()
    }];
    before.tuning.memory_nodes = Some(reeve_ipc::model::MemoryNodes {
        mode: NodeMode::Restrictive,
        nodes: "1023".parse().unwrap(),
    });
    let mut after = before.clone();
    after.limits.cpu_weight = Some(200);
    check_limits(&after, Some(&before), Some(&cgroup)).unwrap();
    check_limits(&after, None, Some(&cgroup)).unwrap();
    after.tuning.block.devices[0].read_bytes = Some(2);
    let error = check_limits(&after, Some(&before), Some(&cgroup)).unwrap_err();
    assert!(
        matches!(error, ConfinementError::BlockDevice { .. }),
        "{error}"
    );
    // And none that there is not is asked for anew.
    assert!(ConfinementPlan::new(&before, &CgroupPlace::Own).is_err());
}

#[test]
fn a_share_that_no_file_takes_is_refused_before_anything_is_noted() {
    let (_directory, path) = cgroup(&[("io.max", "")]);
    std::fs::write(path.join("../../cgroup.controllers"), "io").unwrap();
    let cgroup = DomainCgroup::adopt(path.clone()).unwrap();
    let mut domain = domain();
    domain.tuning.block.weight = Some(300);
    let error = check_limits(&domain, None, Some(&cgroup)).unwrap_err();
    assert!(error.to_string().contains("bfq"), "{error}");
    std::fs::write(path.join("io.bfq.weight"), "").unwrap();
    check_limits(&domain, None, Some(&cgroup)).unwrap();
}

#[test]
fn a_limit_has_room_for_all_the_memory_that_a_domain_can_be_given() {
    let mut domain = domain();
    domain.limits.memory = Some(least_memory_limit(domain.memory, 1));
    check(&domain).unwrap();
    domain.devices.memory = Some(PluggableMemory {
        max: MemorySize::mebibytes(128),
        address: None,
    });
    let error = check(&domain).unwrap_err().to_string();
    assert!(
        error.contains("has 128M with all that it can be given"),
        "{error}"
    );
    domain.limits.memory = Some(least_memory_limit(MemorySize::mebibytes(128), 1));
    check(&domain).unwrap();
}

#[test]
fn the_least_memory_limit_holds_the_guest_and_its_worker() {
    assert_eq!(
        least_memory_limit(MemorySize::mebibytes(64), 1),
        MemorySize::mebibytes(77)
    );
    assert_eq!(
        least_memory_limit(MemorySize::mebibytes(4096), 4).to_string(),
        "4142M"
    );
}

/// What looks like the cgroup of a domain that runs; the kernel's own is tested in the lab.
fn cgroup(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("domains/web");
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(
        directory.path().join("cgroup.controllers"),
        "cpu memory pids",
    )
    .unwrap();
    std::fs::write(directory.path().join("cgroup.subtree_control"), "").unwrap();
    for (file, text) in files {
        std::fs::write(path.join(file), text).unwrap();
    }
    (directory, path)
}

#[test]
fn a_limit_below_what_is_in_use_is_refused_before_anything_is_written() {
    let mib = |count: u64| (count << 20).to_string();
    let stat = format!(
        "anon 1\nactive_file {}\ninactive_file {}\n",
        10 << 20,
        6 << 20
    );
    let (directory, path) = cgroup(&[
        ("memory.current", &mib(110)),
        ("memory.max", "max\n"),
        ("memory.stat", &stat),
        ("pids.current", "40\n"),
        ("pids.max", "64\n"),
    ]);
    let cgroup = DomainCgroup::adopt(path.clone()).unwrap();
    let mut domain = domain();
    domain.limits.memory = Some(MemorySize::mebibytes(90));
    let error = relimit(&domain, None, Some(&cgroup)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot limit 'web' to 90M of memory: it uses 94M now"
    );
    let control = directory.path().join("cgroup.subtree_control");
    assert_eq!(std::fs::read_to_string(control).unwrap(), "", "untouched");
    // What is in the way are copies of files, which the kernel drops.
    domain.limits.memory = Some(MemorySize::mebibytes(94));
    check_limits(&domain, None, Some(&cgroup)).unwrap();
    domain.limits.pids = Some(39);
    let error = check_limits(&domain, None, Some(&cgroup)).unwrap_err();
    assert!(
        error.to_string().ends_with("39 threads: it uses 40 now"),
        "{error}"
    );
    // The limit there is holds whatever is in use.
    std::fs::write(path.join("pids.max"), "39").unwrap();
    check_limits(&domain, None, Some(&cgroup)).unwrap();
}

#[test]
fn memory_that_was_not_counted_from_the_start_is_not_limited_later() {
    let (_directory, path) = cgroup(&[("cgroup.procs", "")]);
    let cgroup = DomainCgroup::adopt(path).unwrap();
    let mut domain = domain();
    domain.limits.cpu_weight = Some(200);
    check_limits(&domain, None, Some(&cgroup)).unwrap();
    domain.limits.memory = Some(MemorySize::mebibytes(90));
    let error = check_limits(&domain, None, Some(&cgroup)).unwrap_err();
    assert!(matches!(error, ConfinementError::Uncounted(_)), "{error}");
    let error = check_limits(&domain, None, None).unwrap_err();
    assert!(matches!(error, ConfinementError::NoCgroup(_)), "{error}");
}

#[test]
fn what_is_swapped_out_is_not_limited_where_the_kernel_does_not_count_it() {
    let (_directory, path) = cgroup(&[
        ("memory.current", "4096"),
        ("memory.max", "max\n"),
        ("memory.stat", ""),
    ]);
    let cgroup = DomainCgroup::adopt(path.clone()).unwrap();
    let mut domain = domain();
    domain.limits.memory = Some(MemorySize::mebibytes(90));
    domain.limits.memory_soft = Some(MemorySize::mebibytes(70));
    check_limits(&domain, None, Some(&cgroup)).unwrap();
    domain.limits.memory_and_swap = Some(MemorySize::mebibytes(100));
    let error = check_limits(&domain, None, Some(&cgroup)).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("memory.swap.max") && text.contains("swapaccount=0"),
        "{text}"
    );
    assert!(!error.is_of_definition());
    std::fs::write(path.join("memory.swap.max"), "max").unwrap();
    check_limits(&domain, None, Some(&cgroup)).unwrap();
    let limits = limits(&domain, |_| true).unwrap();
    assert_eq!(limits.memory_high, Some(70 << 20));
    assert_eq!(limits.swap_max, Some(10 << 20));

    // A soft limit is one of all that it has, too.
    let (_directory, path) = self::cgroup(&[]);
    let cgroup = DomainCgroup::adopt(path).unwrap();
    domain.limits = ResourceLimits {
        memory_soft: Some(MemorySize::mebibytes(70)),
        ..ResourceLimits::default()
    };
    let error = check_limits(&domain, None, Some(&cgroup)).unwrap_err();
    assert!(matches!(error, ConfinementError::Uncounted(_)), "{error}");
}
