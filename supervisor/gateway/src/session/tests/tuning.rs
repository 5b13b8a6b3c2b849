//! What a domain is held to: where it runs, what it may use, and the memory of its guest.

use reeve_ipc::api::call::{CallBody, TuningChange};
use reeve_ipc::model::{Domain, MemorySize, Vcpus};

use super::harness::Client;
use super::one::{One, definition};
use crate::wire::types::handles::Domain as Handle;
use crate::wire::types::params::{Param, Params};
use crate::wire::types::{connect, inspect, tuning};

const LIVE: u32 = 1;
const CONFIG: u32 = 2;
const MAXIMUM: u32 = 4;

fn plain() -> Domain {
    definition("", "")
}

/// With one vCPU.
fn alone() -> Domain {
    let one = Vcpus::try_from(1).unwrap();
    Domain {
        vcpus: one,
        max_vcpus: one,
        ..plain()
    }
}

/// The tunings that were asked for: how many changes, and where.
fn tunings(client: &Client) -> Vec<(Vec<TuningChange>, bool, bool)> {
    let seen = client.supervisor.seen.lock().unwrap();
    let tunings = seen.iter().filter_map(|call| match call {
        CallBody::DomainTune(tune) => Some((tune.changes.clone(), tune.live, tune.persistent)),
        _ => None,
    });
    tunings.collect()
}

fn pin(domain: &Handle, flags: u32) -> tuning::DomainPinVcpuFlags {
    tuning::DomainPinVcpuFlags {
        domain: domain.clone(),
        vcpu: 1,
        cpumap: vec![0b1001].into(),
        flags,
    }
}

#[test]
fn a_vcpu_is_pinned_where_the_flags_say_and_told_of_there() {
    let (mut client, domain, one) = One::running(plain()).client();
    client.ask(&tuning::DomainPinVcpu {
        domain: domain.clone(),
        vcpu: 0,
        cpumap: vec![1].into(),
    });
    for flags in [0, LIVE, CONFIG, LIVE | CONFIG] {
        client.ask(&pin(&domain, flags));
    }
    let places: Vec<_> = tunings(&client)
        .into_iter()
        .map(|(_, live, persistent)| (live, persistent))
        .collect();
    let wanted = [
        (true, false),
        (true, false),
        (true, false),
        (false, true),
        (true, true),
    ];
    assert_eq!(places, wanted);
    let mut pins = tuning::DomainGetVcpuPinInfo {
        domain: domain.clone(),
        ncpumaps: 16,
        maplen: 1,
        flags: LIVE,
    };
    // Of those that it can have, 4; where nothing is said, on the host's only CPU.
    let told = client.ask(&pins);
    assert_eq!((told.num, told.cpumaps.0), (4, vec![1, 0b1001, 1, 1]));
    pins.ncpumaps = 2;
    assert_eq!(client.ask(&pins).num, 2);
    one.lock().unwrap().kept = Some(plain());
    pins.flags = CONFIG;
    assert_eq!(client.ask(&pins).cpumaps.0, [1, 1]);
    pins.flags = LIVE | CONFIG;
    assert_eq!(client.refused(&pins).code, 8);
    let mut none = pin(&domain, 0);
    none.cpumap = vec![0].into();
    assert_eq!(client.refused(&none).code, 8);
    assert_eq!(client.refused(&pin(&domain, 8)).code, 8);
}

#[test]
fn a_domain_that_is_off_is_pinned_in_its_definition_only() {
    let (mut client, domain, _) = One::off(plain()).client();
    client.ask(&pin(&domain, 0));
    client.ask(&tuning::DomainPinEmulator {
        domain: domain.clone(),
        cpumap: vec![2].into(),
        flags: 0,
    });
    let tuned = tunings(&client);
    let place = |index: usize| (tuned[index].1, tuned[index].2);
    assert_eq!((place(0), place(1)), ((false, true), (false, true)));
    let said = client.refused(&pin(&domain, LIVE));
    assert_eq!(said.code, 55);
    assert!(said.message.ends_with("domain is not running"), "{said:?}");
    let now = tuning::DomainPinVcpu {
        domain,
        vcpu: 0,
        cpumap: vec![1].into(),
    };
    assert_eq!(client.refused(&now).code, 55);
}

#[test]
fn threads_that_are_no_vcpus_are_pinned_too() {
    let (mut client, domain, _) = One::running(plain()).client();
    let info = |flags| tuning::DomainGetEmulatorPinInfo {
        domain: domain.clone(),
        maplen: 2,
        flags,
    };
    let told = client.ask(&info(0));
    assert_eq!((told.ret, told.cpumaps.0), (1, vec![1, 0]));
    client.ask(&tuning::DomainPinEmulator {
        domain: domain.clone(),
        cpumap: vec![0b110].into(),
        flags: CONFIG,
    });
    assert_eq!(client.ask(&info(CONFIG)).cpumaps.0, [0b110, 0]);
    assert_eq!(client.ask(&info(LIVE)).cpumaps.0, [1, 0]);
}

fn scheduler(domain: &Handle, flags: u32) -> tuning::DomainGetSchedulerParametersFlags {
    tuning::DomainGetSchedulerParametersFlags {
        domain: domain.clone(),
        nparams: 5,
        flags,
    }
}

fn schedule(
    domain: &Handle,
    params: Vec<Param>,
    flags: u32,
) -> tuning::DomainSetSchedulerParametersFlags {
    tuning::DomainSetSchedulerParametersFlags {
        domain: domain.clone(),
        params: params.into(),
        flags,
    }
}

fn all(shares: u64, vcpu: (u64, i64), global: (u64, i64)) -> Vec<Param> {
    vec![
        Param::new("cpu_shares", shares),
        Param::new("vcpu_period", vcpu.0),
        Param::new("vcpu_quota", vcpu.1),
        Param::new("global_period", global.0),
        Param::new("global_quota", global.1),
    ]
}

#[test]
fn shares_and_limits_are_told_as_they_were_set() {
    let (mut client, domain, _) = One::running(alone()).client();
    let kind = client.ask(&tuning::DomainGetSchedulerType {
        domain: domain.clone(),
    });
    assert_eq!((kind.kind.as_str(), kind.nparams), ("posix", 5));
    let get = scheduler(&domain, 0);
    let none = all(100, (100_000, -1), (100_000, -1));
    assert_eq!(client.ask(&get).0, none);
    let set = all(200, (100_000, 50_000), (100_000, 150_000));
    client.ask(&schedule(&domain, set.clone(), LIVE | CONFIG));
    let wanted = vec![
        TuningChange::CpuWeight(Some(200)),
        TuningChange::VcpuPercent(Some(50)),
        TuningChange::CpuPercent(Some(150)),
    ];
    assert_eq!(tunings(&client), [(wanted, true, true)]);
    assert_eq!(client.ask(&get).0, set);
    assert_eq!(client.ask(&scheduler(&domain, CONFIG)).0, set);
    let old = client.ask(&tuning::DomainGetSchedulerParameters {
        domain: domain.clone(),
        nparams: 1,
    });
    assert_eq!(old.0, [Param::new("cpu_shares", 200_u64)]);
    client.ask(&tuning::DomainSetSchedulerParameters {
        domain: domain.clone(),
        params: vec![Param::new("vcpu_quota", -1_i64)].into(),
    });
    let (changes, live, persistent) = tunings(&client).pop().unwrap();
    assert_eq!(changes, [TuningChange::VcpuPercent(None)]);
    assert_eq!((live, persistent), (true, false));
    // Nothing changes nothing.
    client.ask(&schedule(&domain, Vec::new(), 0));
    assert_eq!(tunings(&client).len(), 2);
}

#[test]
fn a_quota_of_each_vcpu_is_for_a_domain_that_can_have_one_only() {
    let quota = |quota: i64| vec![Param::new("vcpu_quota", quota)];
    let mut many = One::running(plain());
    many.running.as_mut().unwrap().limits.vcpu_percent = Some(150);
    let (mut client, domain, _) = many.client();
    // A limit of all together is none of each, is not told as one, and stays.
    let none = all(100, (100_000, -1), (100_000, -1));
    assert_eq!(client.ask(&scheduler(&domain, 0)).0, none);
    client.ask(&schedule(&domain, quota(-1), 0));
    let said = client.refused(&schedule(&domain, quota(25_000), 0));
    assert_eq!(said.code, 74);
    assert!(said.message.contains("global_quota"), "{said:?}");
    assert_eq!(tunings(&client), []);
}

#[test]
fn limits_that_there_are_not_or_that_cannot_be_kept_are_refused_by_their_names() {
    let (mut client, domain, _) = One::running(plain()).client();
    for (param, code, name) in [
        (Param::new("emulator_quota", 1_i64), 74, "emulator_quota"),
        (Param::new("cpu_shares", 1_i32), 8, "cpu_shares"),
        (Param::new("cpu_shares", 0_u64), 8, "cpu_shares"),
        (Param::new("cpu_shares", 10_001_u64), 8, "cpu_shares"),
        (Param::new("vcpu_quota", 1_234_i64), 74, "vcpu_quota 1234"),
        (Param::new("vcpu_period", 50_000_u64), 74, "vcpu_period"),
        (Param::new("global_period", 10_u64), 8, "global_period"),
    ] {
        let said = client.refused(&schedule(&domain, vec![param], 0));
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.message.contains(name), "{said:?}");
    }
    assert_eq!(tunings(&client), []);
}

#[test]
fn the_limit_of_memory_is_told_and_set() {
    let (mut client, domain, _) = One::running(plain()).client();
    let get = |nparams| tuning::DomainGetMemoryParameters {
        domain: domain.clone(),
        nparams,
        flags: 0,
    };
    let hard = |kib: u64| Param::new("hard_limit", kib);
    let set = |param: Param| tuning::DomainSetMemoryParameters {
        domain: domain.clone(),
        params: Params::from(vec![param]),
        flags: 0,
    };
    let told = client.ask(&get(0));
    assert_eq!((told.params.0, told.nparams), (vec![], 1));
    let none = 9_007_199_254_740_991;
    assert_eq!(client.ask(&get(1)).params.0, [hard(none)]);
    client.ask(&set(hard(262_144)));
    assert_eq!(client.ask(&get(1)).params.0, [hard(262_144)]);
    for unlimited in [none, u64::MAX, 0] {
        client.ask(&set(hard(unlimited)));
        assert_eq!(client.ask(&get(1)).params.0, [hard(none)]);
    }
    let said = client.refused(&set(Param::new("soft_limit", 1_u64)));
    assert_eq!(said.code, 74);
    assert!(said.message.contains("soft_limit"), "{said:?}");
}

/// What was asked of memory: how much, where; `None` for the most.
fn memories(client: &Client) -> Vec<(MemorySize, Option<(bool, bool)>)> {
    let seen = client.supervisor.seen.lock().unwrap();
    let memories = seen.iter().filter_map(|call| match call {
        CallBody::DomainCurrentMemorySet(set) => {
            Some((set.memory, Some((set.live, set.persistent))))
        }
        CallBody::DomainMaxMemorySet(set) => Some((set.memory, None)),
        _ => None,
    });
    memories.collect()
}

fn memory(domain: &Handle, memory: u64, flags: u32) -> tuning::DomainSetMemoryFlags {
    tuning::DomainSetMemoryFlags {
        domain: domain.clone(),
        memory,
        flags,
    }
}

#[test]
fn memory_is_set_where_the_flags_say_in_whole_pages() {
    let (mut client, domain, _) = One::running(plain()).client();
    client.ask(&tuning::DomainSetMemory {
        domain: domain.clone(),
        memory: 32_765,
    });
    for flags in [0, CONFIG, LIVE | CONFIG, CONFIG | MAXIMUM] {
        client.ask(&memory(&domain, 32_768, flags));
    }
    let size = MemorySize::mebibytes(32);
    let wanted = [
        (size, Some((true, false))),
        (size, Some((true, false))),
        (size, Some((false, true))),
        (size, Some((true, true))),
        (size, None),
    ];
    assert_eq!(memories(&client), wanted);
    for flags in [MAXIMUM, LIVE | MAXIMUM] {
        let said = client.refused(&memory(&domain, 65_536, flags));
        assert_eq!(said.code, 55);
        assert!(said.message.contains("maximum memory"), "{said:?}");
    }
    let most = tuning::DomainSetMaxMemory {
        domain: domain.clone(),
        memory: 65_536,
    };
    assert_eq!(client.refused(&most).code, 55);
    for nothing in [0, u64::MAX, u64::MAX / 1024] {
        assert_eq!(client.refused(&memory(&domain, nothing, 0)).code, 8);
    }
}

#[test]
fn a_domain_that_is_off_has_the_memory_of_its_definition() {
    let elements = "<currentMemory unit='MiB'>48</currentMemory>";
    let (mut client, domain, _) = One::off(definition(elements, "")).client();
    client.ask(&memory(&domain, 32_768, 0));
    client.ask(&tuning::DomainSetMaxMemory {
        domain: domain.clone(),
        memory: 65_536,
    });
    let (little, much) = (MemorySize::mebibytes(32), MemorySize::mebibytes(64));
    let wanted = [(little, Some((false, true))), (much, None)];
    assert_eq!(memories(&client), wanted);
    let now = tuning::DomainSetMemory {
        domain: domain.clone(),
        memory: 32_768,
    };
    assert_eq!(client.refused(&now).code, 55);
    let info = client.ask(&inspect::DomainGetInfo {
        domain: domain.clone(),
    });
    assert_eq!((info.memory, info.max_memory), (48 << 10, 64 << 10));
    let most = client.ask(&inspect::DomainGetMaxMemory { domain });
    assert_eq!(most, 64 << 10);
}

#[test]
fn a_domain_that_runs_has_what_its_guest_has_and_may_have() {
    let device = "<memory model='virtio-mem'><target><size unit='MiB'>32</size></target></memory>";
    let mut one = One::running(definition("", device));
    one.current = MemorySize::mebibytes(40);
    let (mut client, domain, _) = one.client();
    let info = client.ask(&inspect::DomainGetInfo {
        domain: domain.clone(),
    });
    assert_eq!((info.memory, info.max_memory), (40 << 10, 64 << 10));
    let xml = client.ask(&inspect::DomainGetXmlDesc {
        domain: domain.clone(),
        flags: 0,
    });
    assert!(
        xml.contains("<currentMemory unit='KiB'>40960</currentMemory>"),
        "{xml}"
    );
    let stats = client.ask(&inspect::DomainMemoryStats {
        domain,
        max_stats: 16,
        flags: 0,
    });
    let amounts: Vec<_> = stats.0.iter().map(|stat| (stat.tag, stat.value)).collect();
    assert_eq!(amounts, [(6, 40 << 10), (7, 1024)]);
}

#[test]
fn the_most_vcpus_are_set_in_the_definition_that_is_kept() {
    let (mut client, domain, one) = One::running(plain()).client();
    let set = |nvcpus, flags| tuning::DomainSetVcpusFlags {
        domain: domain.clone(),
        nvcpus,
        flags,
    };
    client.ask(&set(8, CONFIG | MAXIMUM));
    let kept = one.lock().unwrap().kept.clone().unwrap();
    assert_eq!((kept.vcpus.count(), kept.max_vcpus.count()), (2, 8));
    client.ask(&set(1, CONFIG | MAXIMUM));
    let kept = one.lock().unwrap().kept.clone().unwrap();
    assert_eq!((kept.vcpus.count(), kept.max_vcpus.count()), (1, 1));
    assert_eq!(client.refused(&set(8, MAXIMUM)).code, 55);
    let count = |flags| tuning::DomainGetVcpusFlags {
        domain: domain.clone(),
        flags,
    };
    let counts = [0, MAXIMUM, CONFIG, CONFIG | MAXIMUM].map(|flags| client.ask(&count(flags)));
    assert_eq!(counts, [2, 4, 1, 1]);
}

#[test]
fn the_time_of_a_domain_is_told_as_a_whole_and_not_by_cpu_of_the_host() {
    let (mut client, domain, _) = One::running(plain()).client();
    let stats = |start_cpu, nparams| inspect::DomainGetCpuStats {
        domain: domain.clone(),
        nparams,
        start_cpu,
        ncpus: 1,
        flags: 0,
    };
    let told = client.ask(&stats(-1, 0));
    assert_eq!((told.params.0.len(), told.nparams), (0, 3));
    let told = client.ask(&stats(-1, 3));
    let wanted = [
        Param::new("cpu_time", 3_000_u64),
        Param::new("user_time", 2_000_u64),
        Param::new("system_time", 1_000_u64),
    ];
    assert_eq!((told.params.0.as_slice(), told.nparams), (&wanted[..], 3));
    assert_eq!(client.refused(&stats(0, 1)).code, 84);
    // What some clients ask first, whatever they want.
    assert_eq!(client.ask(&stats(0, 0)).nparams, 1);
    let sysinfo = client.refused(&connect::ConnectGetSysinfo { flags: 0 });
    assert_eq!((sysinfo.code, sysinfo.domain), (3, 20));
}
