//! What a client is told of the host, and of many domains at once.

use std::fs;

use reeve_ipc::api::call::{
    DomainCurrentMemorySet, DomainDefine, DomainDefinitionGet, DomainDestroy, DomainFiguresList,
    DomainMaxMemorySet, DomainRef, DomainTune, HostCpuList, HostCpuStatsGet, HostFreePagesGet,
    HostInfoGet, HostMemoryStatsGet, TuningChange,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::figures::{DomainFigures, FigureGroups, FiguresOf};
use reeve_ipc::api::host::HostDriver;
use reeve_ipc::model::{Balloon, Device, MemorySize, Rng};
use reeve_ipc::spec::{MAX_VCPUS, MachineType};

use super::harness::{Instance, code, define, domain, named, start};

const EVERYTHING: FigureGroups = FigureGroups {
    usage: true,
    vcpus: true,
    devices: true,
};

fn all(after: Option<&str>, active_only: bool) -> DomainFiguresList {
    DomainFiguresList {
        of: FiguresOf::All {
            after: after.map(|name| name.parse().unwrap()),
            active_only,
        },
        groups: EVERYTHING,
    }
}

fn some(names: Vec<DomainRef>) -> DomainFiguresList {
    DomainFiguresList {
        of: FiguresOf::Named(names),
        groups: EVERYTHING,
    }
}

fn names(figures: &[DomainFigures]) -> Vec<&str> {
    figures
        .iter()
        .map(|one| one.summary.name.as_str())
        .collect()
}

#[test]
fn the_host_is_told_as_its_kernel_tells_it() {
    let instance = Instance::start("");
    let mut client = instance.connect();
    let info = client.call(HostInfoGet {}).unwrap();
    let kernel = |path: &str| fs::read_to_string(path).unwrap().trim().to_owned();
    assert_eq!(info.hostname, kernel("/proc/sys/kernel/hostname"));
    assert_eq!(
        info.online.to_string(),
        kernel("/sys/devices/system/cpu/online")
    );
    assert_eq!(info.driver, HostDriver::Test);
    assert_eq!(
        (info.max_vcpus, &info.machines[..]),
        (MAX_VCPUS, &MachineType::ALL[..])
    );
    let again = client.call(HostInfoGet {}).unwrap();
    assert_eq!(again, info);

    let cpus = client.call(HostCpuList { after: None }).unwrap();
    assert_eq!(cpus.cpus.len(), info.online.iter().count().min(256));
    let stats = client.call(HostCpuStatsGet { first: 0, count: 1 }).unwrap();
    assert_eq!((stats.cpus.len(), stats.cpus[0].cpu), (1, 0));
    assert!(stats.total.user_ns >= stats.cpus[0].times.user_ns);
    let memory = client.call(HostMemoryStatsGet {}).unwrap();
    assert_eq!(memory.total, info.memory.bytes());
    assert!(memory.free <= memory.total);
    let free = client.call(HostFreePagesGet {}).unwrap();
    assert_eq!(
        (free.len(), free[0].pages[0].size_bytes),
        (info.nodes.len(), 4096)
    );
}

#[test]
fn a_host_is_the_same_to_the_next_supervisor() {
    let mut instance = Instance::start("");
    let before = instance.connect().call(HostInfoGet {}).unwrap().uuid;
    instance.crash();
    let after = instance.connect().call(HostInfoGet {}).unwrap().uuid;
    assert_eq!(after, before);
    assert!(!before.is_nil());
}

#[test]
fn figures_of_all_domains_come_in_the_order_of_their_names() {
    let instance = Instance::start("");
    let mut client = instance.connect();
    for name in ["c", "a", "b"] {
        client.call(define(name)).unwrap();
    }
    client.call(start("b", false)).unwrap();
    let page = client.call(all(None, false)).unwrap();
    assert_eq!(names(&page.domains), ["a", "b", "c"]);
    assert_eq!((page.of, page.more), (0, false));
    let running = &page.domains[1];
    assert!(
        running.answered && running.usage.unwrap().cpu_time_ns > 0,
        "{running:?}"
    );
    let off = &page.domains[0];
    assert!(!off.answered && off.usage.is_none(), "{off:?}");
    assert_eq!(
        names(&client.call(all(Some("a"), false)).unwrap().domains),
        ["b", "c"]
    );
    assert_eq!(names(&client.call(all(None, true)).unwrap().domains), ["b"]);
}

#[test]
fn figures_of_named_domains_come_as_they_were_named_without_those_that_are_gone() {
    let instance = Instance::start("");
    let mut client = instance.connect();
    for name in ["a", "b"] {
        client.call(define(name)).unwrap();
    }
    let page = client
        .call(some(vec![named("b"), named("x"), named("a")]))
        .unwrap();
    assert_eq!(names(&page.domains), ["b", "a"]);
    assert_eq!((page.of, page.more), (3, false));
    let many = (0..257).map(DomainRef::Id).collect();
    let error = client.call(some(many)).unwrap_err();
    assert_eq!(code(&error), Some(ApiErrorCode::InvalidArgument));
    assert_eq!(client.call(some(Vec::new())).unwrap().domains, []);
}

#[test]
fn devices_are_named_whether_a_domain_runs_or_not_and_have_figures_where_it_does() {
    let instance = Instance::start("");
    let mut client = instance.connect();
    let mut domain = domain("web");
    domain.devices.add(Device::Rng(Rng::default())).unwrap();
    let definition = Box::new(domain);
    let only_new = false;
    client
        .call(DomainDefine {
            definition,
            only_new,
        })
        .unwrap();
    let figures = |client: &mut reeve_ipc::api::blocking::Connection| {
        let mut page = client.call(some(vec![named("web")])).unwrap();
        page.domains.pop().unwrap()
    };
    let off = figures(&mut client);
    assert_eq!((off.devices.len(), off.answered), (1, false));
    client.call(start("web", false)).unwrap();
    let on = figures(&mut client);
    assert_eq!((on.devices.len(), on.answered), (1, true));
    assert_eq!(on.devices[0].device, off.devices[0].device);
    assert_eq!(on.summary.current_memory, on.summary.memory);
    client
        .call(DomainDestroy {
            domain: named("web"),
        })
        .unwrap();
}

#[test]
fn a_domain_is_tuned_in_what_runs_and_in_what_is_kept() {
    let instance = Instance::start("");
    let mut client = instance.connect();
    client.call(define("web")).unwrap();
    client.call(start("web", false)).unwrap();
    let mut tune = |change: TuningChange, live, persistent| {
        client.call(DomainTune {
            domain: named("web"),
            changes: vec![change],
            live,
            persistent,
        })
    };
    let weight = |weight| TuningChange::CpuWeight(weight);
    tune(weight(Some(200)), true, false).unwrap();
    tune(
        TuningChange::EmulatorCpus(Some("0".parse().unwrap())),
        false,
        true,
    )
    .unwrap();
    let error = tune(weight(Some(0)), true, true).unwrap_err();
    assert_eq!(code(&error), Some(ApiErrorCode::InvalidArgument));
    let error = tune(weight(None), false, false).unwrap_err();
    assert_eq!(code(&error), Some(ApiErrorCode::InvalidArgument));
    let mut definition = |persistent| {
        let domain = named("web");
        let call = DomainDefinitionGet { domain, persistent };
        client.call(call).unwrap().domain
    };
    let (live, kept) = (definition(false), definition(true));
    assert_eq!(
        (live.limits.cpu_weight, kept.limits.cpu_weight),
        (Some(200), None)
    );
    assert_eq!(kept.tuning.emulator_cpus.unwrap().to_string(), "0");
    assert!(live.tuning.emulator_cpus.is_none());
}

#[test]
fn what_a_domain_is_held_to_outlives_the_supervisor() {
    let mut instance = Instance::start("");
    let mut client = instance.connect();
    let mut definition = domain("web");
    definition
        .devices
        .add(Device::Balloon(Balloon::default()))
        .unwrap();
    let definition = Box::new(definition);
    let only_new = false;
    client
        .call(DomainDefine {
            definition,
            only_new,
        })
        .unwrap();
    client
        .call(DomainCurrentMemorySet {
            domain: named("web"),
            memory: MemorySize::mebibytes(16),
            live: false,
            persistent: true,
        })
        .unwrap();
    let changes = vec![
        TuningChange::EmulatorCpus(Some("0".parse().unwrap())),
        TuningChange::CpuPercent(Some(150)),
    ];
    client
        .call(DomainTune {
            domain: named("web"),
            changes,
            live: false,
            persistent: true,
        })
        .unwrap();
    let memory = MemorySize::mebibytes(64);
    let max = DomainMaxMemorySet {
        domain: named("web"),
        memory,
    };
    client.call(max).unwrap();
    instance.crash();
    let mut client = instance.connect();
    let get = DomainDefinitionGet {
        domain: named("web"),
        persistent: true,
    };
    let kept = client.call(get).unwrap().domain;
    assert_eq!(kept.memory, memory);
    assert_eq!(kept.tuning.current_memory, Some(MemorySize::mebibytes(16)));
    assert_eq!(kept.tuning.emulator_cpus.unwrap().to_string(), "0");
    assert_eq!(kept.limits.cpu_percent, Some(150));
}

#[test]
fn more_domains_than_a_page_has_come_in_several() {
    let instance = Instance::start("");
    let mut client = instance.connect();
    for number in 0..300 {
        client.call(define(&format!("d{number:03}"))).unwrap();
    }
    let first = client.call(all(None, false)).unwrap();
    assert!(first.more);
    let last = first.domains.last().unwrap().summary.name.to_string();
    let second = client.call(all(Some(&last), false)).unwrap();
    assert!(!second.more);
    assert_eq!(first.domains.len() + second.domains.len(), 300);
}
