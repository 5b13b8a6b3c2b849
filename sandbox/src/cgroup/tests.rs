//! Against a directory that looks like a cgroup; the kernel's own is tested in the lab.

use super::hierarchy::{above_leaf, locate};
use super::*;

fn hierarchy(controllers: &str) -> (tempfile::TempDir, Hierarchy) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cgroup.controllers"), controllers).unwrap();
    fs::write(dir.path().join("cgroup.subtree_control"), "").unwrap();
    fs::create_dir(dir.path().join("domains")).unwrap();
    fs::write(dir.path().join("domains/cgroup.subtree_control"), "").unwrap();
    let hierarchy = Hierarchy::at(dir.path().to_owned());
    (dir, hierarchy)
}

const ALL: Limits = Limits {
    memory_max: Some(1 << 30),
    memory_high: None,
    swap_max: None,
    cpu_max: Some(CpuMax {
        quota_us: 50_000,
        period_us: 100_000,
    }),
    cpu_weight: Some(200),
    pids_max: Some(64),
    vcpu_max: None,
    each_vcpu_max: None,
    block_weight: None,
    block_devices: Vec::new(),
    memory_nodes: None,
};

#[test]
fn missing_controllers_are_named() {
    let (_dir, hierarchy) = hierarchy("hugetlb cpu\n");
    let error = hierarchy.create("vm", &ALL).unwrap_err();
    assert!(error.to_string().ends_with("memory, pids"), "{error}");
    assert!(error.remedy().is_some());
    assert!(!hierarchy.path().join("domains/vm").exists());
}

#[test]
fn a_domain_without_limits_needs_no_controller() {
    let (_dir, hierarchy) = hierarchy("");
    let cgroup = hierarchy.create("vm", &Limits::default()).unwrap();
    assert!(Limits::default().is_empty());
    cgroup.remove().unwrap();
    assert!(!hierarchy.path().join("domains/vm").exists());
}

#[test]
fn what_has_the_name_of_one_that_is_gone_stays() {
    let (_dir, hierarchy) = hierarchy("");
    let cgroup = hierarchy.create("vm", &Limits::default()).unwrap();
    let path = cgroup.path().to_owned();
    std::fs::rename(&path, path.with_file_name("another")).unwrap();
    std::fs::create_dir(&path).unwrap();
    cgroup.remove().unwrap();
    assert!(path.exists());
}

#[test]
fn a_limit_that_cannot_be_written_leaves_no_cgroup() {
    let (_dir, hierarchy) = hierarchy("cpu memory pids");
    // A directory of a plain filesystem has no memory.max.
    let error = hierarchy.create("vm", &ALL).unwrap_err();
    assert!(matches!(error, CgroupError::Io { .. }), "{error}");
    assert!(!hierarchy.path().join("domains/vm").exists());
}

#[test]
fn a_name_is_one_component() {
    let (_dir, hierarchy) = hierarchy("");
    for name in ["", ".", "..", "../x", "a/b", "a\nb"] {
        let error = hierarchy.create(name, &Limits::default()).unwrap_err();
        assert!(matches!(error, CgroupError::Name(_)), "{name:?}: {error}");
    }
}

#[test]
fn limits_are_written_as_the_kernel_reads_them() {
    let settings = ALL.settings();
    let expected = [
        ("memory.max", "1073741824"),
        ("cpu.max", "50000 100000"),
        ("cpu.weight", "200"),
        ("pids.max", "64"),
    ];
    assert_eq!(
        settings,
        expected.map(|(file, value)| (file, value.to_owned()))
    );
    assert_eq!(ALL.controllers(), ["cpu", "memory", "pids"]);
}

#[test]
fn nodes_of_memory_need_the_controller_of_cpu_sets() {
    let limits = Limits {
        memory_nodes: Some("0-1".to_owned()),
        ..Limits::default()
    };
    assert_eq!(limits.controllers(), ["cpuset"]);
    assert_eq!(limits.settings(), [("cpuset.mems", "0-1".to_owned())]);
}

#[test]
fn what_is_swapped_out_is_limited_where_the_kernel_counts_it() {
    let limits = Limits {
        memory_max: Some(3 << 20),
        memory_high: Some(2 << 20),
        swap_max: Some(1 << 20),
        ..Limits::default()
    };
    let settings = [
        ("memory.max", "3145728"),
        ("memory.high", "2097152"),
        ("memory.swap.max", "1048576"),
    ];
    assert_eq!(
        limits.settings(),
        settings.map(|(file, value)| (file, value.to_owned()))
    );
    for one in [
        Limits {
            memory_high: limits.memory_high,
            ..Limits::default()
        },
        Limits {
            swap_max: limits.swap_max,
            ..Limits::default()
        },
    ] {
        assert_eq!(one.controllers(), ["memory"]);
    }

    let dir = tempfile::tempdir().unwrap();
    let cgroup = DomainCgroup::adopt(dir.path().to_owned()).unwrap();
    let file = |name: &str| dir.path().join(name);
    // Nothing of memory is counted: what there is shows once it is.
    cgroup.provides_swap(&limits).unwrap();
    fs::write(file("memory.max"), "max").unwrap();
    let error = cgroup.provides_swap(&limits).unwrap_err();
    assert!(error.to_string().contains("memory.swap.max"), "{error}");
    assert!(error.remedy().unwrap().contains("swapaccount=0"));
    cgroup.provides_swap(&Limits::default()).unwrap();

    for name in [
        "memory.high",
        "memory.swap.max",
        "cpu.max",
        "cpu.weight",
        "pids.max",
    ] {
        fs::write(file(name), "max").unwrap();
    }
    cgroup.provides_swap(&limits).unwrap();
    let read = |name: &str| fs::read_to_string(file(name)).unwrap();
    cgroup.set(&limits).unwrap();
    assert_eq!(read("memory.swap.max"), "1048576");
    cgroup.replace(&limits).unwrap();
    assert_eq!(read("memory.high"), "2097152");
    fs::write(file("memory.high"), "").unwrap();
    fs::write(file("memory.swap.max"), "").unwrap();
    cgroup.replace(&Limits::default()).unwrap();
    assert_eq!(
        (read("memory.high"), read("memory.swap.max")),
        ("max".into(), "max".into())
    );
}

#[test]
fn the_own_cgroup_is_found_beneath_the_mount() {
    let mounts = "36 31 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                  41 31 0:38 /slice /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
    let at = |own: &str| locate(mounts, &format!("4:memory:/x\n0::{own}\n"));
    assert_eq!(
        at("/slice/reeved"),
        Some(PathBuf::from("/sys/fs/cgroup/reeved"))
    );
    assert_eq!(at("/other"), None);
    assert_eq!(locate(mounts, "4:memory:/x\n"), None);
    assert_eq!(locate("", "0::/\n"), None);
}

#[test]
fn a_supervisor_in_its_leaf_finds_the_cgroup_above() {
    let unit = PathBuf::from("/sys/fs/cgroup/system.slice/reeved.service");
    assert_eq!(above_leaf(unit.join("supervisor")), unit);
    assert_eq!(above_leaf(unit.clone()), unit);
}

#[test]
fn a_limit_of_the_vcpus_needs_the_cpu_controller() {
    let limits = Limits {
        vcpu_max: ALL.cpu_max,
        ..Limits::default()
    };
    assert_eq!(limits.controllers(), ["cpu"]);
    let (_dir, hierarchy) = hierarchy("memory");
    assert!(hierarchy.place("vm", &limits).is_err());
}

#[test]
fn memory_is_counted_from_the_start_where_it_can_be() {
    let enabled = |hierarchy: &Hierarchy| {
        ["", "domains"].map(|directory| {
            let control = hierarchy
                .path()
                .join(directory)
                .join("cgroup.subtree_control");
            fs::read_to_string(control).unwrap().contains("+memory")
        })
    };
    let (_dir, with) = hierarchy("cpu memory pids");
    with.create("vm", &Limits::default()).unwrap();
    assert_eq!(enabled(&with), [true, true]);
    let (_dir, without) = hierarchy("cpu pids");
    without.create("vm", &Limits::default()).unwrap();
    assert_eq!(enabled(&without), [false, false]);
}

#[test]
fn only_a_lower_limit_can_be_too_low() {
    let used = |limit| Use { used: 10, limit };
    assert!(used(None).exceeds(9) && used(Some(20)).exceeds(9));
    assert!(!used(Some(9)).exceeds(9) && !used(None).exceeds(10));
}

#[test]
fn what_is_removed_is_written_no_more_whatever_has_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm");
    let make = || {
        fs::create_dir(&path).unwrap();
        for (file, _) in ALL.settings() {
            fs::write(path.join(file), "max").unwrap();
        }
        DomainCgroup::adopt(path.clone()).unwrap()
    };
    let kept = |file: &str| fs::read_to_string(path.join(file)).unwrap();
    let before = make();
    before.replace(&ALL).unwrap();
    assert_eq!(kept("pids.max"), "64x", "as a plain file has it");
    fs::remove_dir_all(&path).unwrap();
    let next = make();
    assert!(before.replace(&ALL).is_err() && before.set(&ALL).is_err());
    let vcpus = Limits {
        vcpu_max: ALL.cpu_max,
        ..Limits::default()
    };
    assert!(before.replace(&vcpus).is_err() && before.limit_as_vcpu(1, 0, None).is_err());
    assert!(before.use_of_memory_and_pids().unwrap() == (None, None));
    for (file, _) in ALL.settings() {
        assert_eq!(kept(file), "max");
    }
    assert!(!path.join("vcpus").exists());
    next.set(&ALL).unwrap();
}

#[test]
fn a_limit_of_each_vcpu_is_in_a_cgroup_of_its_own() {
    let each = |quota_us| Limits {
        each_vcpu_max: Some(CpuMax {
            quota_us,
            period_us: 50_000,
        }),
        ..Limits::default()
    };
    assert_eq!(each(1).controllers(), ["cpu"]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let has = |file: &str| fs::read_to_string(path.join(file)).unwrap();
    let set = |file: &str| fs::write(path.join(file), "").unwrap();
    fs::create_dir_all(path.join("vcpus/3")).unwrap();
    for file in [
        "cgroup.subtree_control",
        "vcpus/cgroup.type",
        "vcpus/cgroup.subtree_control",
        "vcpus/cpu.max",
        "vcpus/3/cgroup.type",
        "vcpus/3/cgroup.threads",
        "vcpus/3/cpu.max",
    ] {
        set(file);
    }
    let cgroup = DomainCgroup::set_up(path.to_owned(), &each(25_000)).unwrap();
    assert_eq!(has("vcpus/cgroup.subtree_control"), "+cpu");
    cgroup
        .limit_as_vcpu(42, 3, each(25_000).each_vcpu_max)
        .unwrap();
    assert_eq!(has("vcpus/3/cgroup.threads"), "42");
    assert_eq!(has("vcpus/3/cpu.max"), "25000 50000");
    // Written over, as a plain file is.
    set("vcpus/3/cpu.max");
    set("vcpus/cpu.max");
    set("vcpus/cgroup.type");
    set("cgroup.subtree_control");
    set("vcpus/cgroup.subtree_control");
    cgroup.replace(&each(10_000)).unwrap();
    assert_eq!(has("vcpus/3/cpu.max"), "10000 50000");
    set("vcpus/3/cpu.max");
    set("vcpus/cpu.max");
    cgroup.replace(&Limits::default()).unwrap();
    assert_eq!(
        (has("vcpus/3/cpu.max"), has("vcpus/cpu.max")),
        ("max".into(), "max".into())
    );
}

#[test]
fn bounds_of_block_devices_are_written_as_the_kernel_reads_them_and_others_are_lifted() {
    let device = BlockLimits {
        weight: Some(300),
        read_bytes: Some(1 << 20),
        write_operations: Some(7),
        ..BlockLimits::none((8, 16))
    };
    assert_eq!(
        device.setting(),
        "8:16 rbps=1048576 wbps=max riops=max wiops=7"
    );
    assert_eq!(device.share(), "8:16 300");
    let limits = Limits {
        block_weight: Some(200),
        block_devices: vec![device],
        ..Limits::default()
    };
    assert_eq!(limits.controllers(), ["io"]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let cgroup = || DomainCgroup::adopt(path.to_owned()).unwrap();
    // Where there is no such file nothing was set, and nothing is lifted.
    cgroup().replace(&Limits::default()).unwrap();
    let error = cgroup().replace(&limits).unwrap_err();
    assert!(error.remedy().unwrap().contains("bfq"), "{error}");
    // A write to a plain file is one over its beginning: the last one is seen.
    fs::write(
        path.join("io.max"),
        "8:0 rbps=1 wbps=max riops=max wiops=max\n",
    )
    .unwrap();
    fs::write(path.join("io.bfq.weight"), "").unwrap();
    cgroup().replace(&Limits::default()).unwrap();
    let lifted = "8:0 rbps=max wbps=max riops=max wiops=max";
    let now = fs::read_to_string(path.join("io.max")).unwrap();
    assert!(now.starts_with(lifted), "{now}");
    fs::write(path.join("io.max"), "").unwrap();
    cgroup().replace(&limits).unwrap();
    let now = fs::read_to_string(path.join("io.max")).unwrap();
    assert_eq!(now, device.setting());
    assert_eq!(
        fs::read_to_string(path.join("io.bfq.weight")).unwrap(),
        "8:16 300"
    );
}

/// Whether the controller of CPU sets is on for what is in the place and in the directory of domains.
fn cpu_sets(hierarchy: &Hierarchy) -> [bool; 2] {
    ["", "domains"].map(|directory| {
        let directory = hierarchy.path().join(directory);
        let control = fs::read_to_string(directory.join("cgroup.subtree_control"));
        control.unwrap().contains("cpuset")
    })
}

#[test]
fn cpu_sets_are_on_before_any_domain_where_the_kernel_would_forget_what_is_bound() {
    let (_dir, prepared) = hierarchy("cpu cpuset");
    let prepared = prepared.of_kernel("6.1.0-18-amd64");
    prepared.prepare().unwrap();
    assert_eq!(cpu_sets(&prepared), [true, false]);
    // As the kernel has what was written.
    let control = |directory: &str| {
        let directory = prepared.path().join(directory);
        fs::write(directory.join("cgroup.subtree_control"), "cpuset").unwrap();
    };
    control("");
    prepared.create("vm", &Limits::default()).unwrap();
    assert_eq!(cpu_sets(&prepared), [true, true]);
    let (_dir, newer) = hierarchy("cpu cpuset");
    let newer = newer.of_kernel("6.12.3");
    newer.prepare().unwrap();
    newer.create("vm", &Limits::default()).unwrap();
    assert_eq!(cpu_sets(&newer), [false, false], "it costs each start");
    let (_dir, without) = hierarchy("cpu");
    let without = without.of_kernel("5.15.0");
    without.create("vm", &Limits::default()).unwrap();
    assert_eq!(cpu_sets(&without), [false, false]);
}

#[test]
fn cpu_sets_are_not_put_on_where_domains_run_that_would_lose_what_they_are_bound_to() {
    let nodes = Limits {
        memory_nodes: Some("0".to_owned()),
        ..Limits::default()
    };
    let (dir, place) = hierarchy("cpu cpuset");
    fs::write(
        dir.path().join("domains/cgroup.events"),
        "populated 1\nfrozen 0\n",
    )
    .unwrap();
    let older = place.clone().of_kernel("6.1.0");
    older.prepare().unwrap();
    assert_eq!(cpu_sets(&older), [false, false]);
    for refused in [older.provides(&nodes), older.widen(&nodes)] {
        let error = refused.unwrap_err();
        assert!(matches!(error, CgroupError::Unbinds(_)), "{error}");
    }
    assert_eq!(cpu_sets(&older), [false, false]);
    older
        .provides(&Limits {
            cpu_weight: Some(1),
            ..Limits::default()
        })
        .unwrap();
    let newer = place.of_kernel("6.2.0");
    newer.provides(&nodes).unwrap();
    newer.widen(&nodes).unwrap();
    assert_eq!(cpu_sets(&newer), [true, true]);
    // Where it is on already nothing is lost.
    for directory in ["", "domains"] {
        let control = dir.path().join(directory).join("cgroup.subtree_control");
        fs::write(control, "cpu cpuset\n").unwrap();
    }
    older.widen(&nodes).unwrap();
}

#[test]
fn a_share_is_told_to_all_that_share_devices_out_as_each_takes_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let cgroup = DomainCgroup::adopt(path.to_owned()).unwrap();
    let weight = |weight| Limits {
        block_weight: Some(weight),
        ..Limits::default()
    };
    cgroup.provides_shares(&weight(1)).unwrap();
    fs::write(path.join("io.max"), "").unwrap();
    cgroup.provides_shares(&Limits::default()).unwrap();
    let error = cgroup.provides_shares(&weight(1)).unwrap_err();
    assert!(error.remedy().unwrap().contains("bfq"), "{error}");
    for file in ["io.bfq.weight", "io.weight"] {
        fs::write(path.join(file), "").unwrap();
    }
    cgroup.provides_shares(&weight(1)).unwrap();
    cgroup.replace(&weight(5000)).unwrap();
    let has = |file: &str| fs::read_to_string(path.join(file)).unwrap();
    assert_eq!(
        (has("io.bfq.weight"), has("io.weight")),
        ("1000".into(), "5000".into())
    );
}
