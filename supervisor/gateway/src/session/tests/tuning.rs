//! What a domain is held to: where it runs, what it may use, and the memory of its guest.

use reeve_ipc::api::call::{CallBody, TuningChange};
use reeve_ipc::model::{CpuQuota, Domain, MemorySize, Vcpus};

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
        TuningChange::VcpuQuota(Some(CpuQuota {
            quota_us: 50_000,
            period_us: 100_000,
        })),
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
    assert_eq!(changes, [TuningChange::VcpuQuota(None)]);
    assert_eq!((live, persistent), (true, false));
    // Nothing changes nothing.
    client.ask(&schedule(&domain, Vec::new(), 0));
    assert_eq!(tunings(&client).len(), 2);
}

#[test]
fn a_quota_of_each_vcpu_is_for_a_domain_that_can_have_many_too() {
    let quota = |quota: i64| vec![Param::new("vcpu_quota", quota)];
    let mut many = One::running(plain());
    many.running.as_mut().unwrap().limits.vcpu_percent = Some(150);
    let (mut client, domain, _) = many.client();
    // A limit of all together is none of each, is not told as one, and stays.
    let none = all(100, (100_000, -1), (100_000, -1));
    assert_eq!(client.ask(&scheduler(&domain, 0)).0, none);
    client.ask(&schedule(&domain, quota(25_000), 0));
    let each = all(100, (100_000, 25_000), (100_000, -1));
    assert_eq!(client.ask(&scheduler(&domain, 0)).0, each);
    client.ask(&schedule(&domain, quota(-1), 0));
    assert_eq!(client.ask(&scheduler(&domain, 0)).0, none);
    let changes: Vec<_> = tunings(&client)
        .into_iter()
        .flat_map(|tune| tune.0)
        .collect();
    let [
        TuningChange::VcpuQuota(Some(quota)),
        TuningChange::VcpuQuota(None),
    ] = changes[..]
    else {
        panic!("{changes:?}")
    };
    assert_eq!((quota.quota_us, quota.period_us), (25_000, 100_000));
}

#[test]
fn limits_that_there_are_not_or_that_cannot_be_kept_are_refused_by_their_names() {
    let (mut client, domain, _) = One::running(plain()).client();
    for (param, code, name) in [
        (Param::new("emulator_quota", 1_i64), 74, "emulator_quota"),
        (Param::new("cpu_shares", 1_i32), 8, "cpu_shares"),
        (Param::new("cpu_shares", 0_u64), 8, "cpu_shares"),
        (Param::new("cpu_shares", 10_001_u64), 8, "cpu_shares"),
        (
            Param::new("global_quota", 1_234_i64),
            74,
            "global_quota 1234",
        ),
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
fn limits_of_memory_are_told_and_set() {
    let (mut client, domain, _) = One::running(plain()).client();
    let get = |nparams| tuning::DomainGetMemoryParameters {
        domain: domain.clone(),
        nparams,
        flags: 0,
    };
    let hard = |kib: u64| Param::new("hard_limit", kib);
    let soft = |kib: u64| Param::new("soft_limit", kib);
    let with_swap = |kib: u64| Param::new("swap_hard_limit", kib);
    let both = |params: Vec<Param>| tuning::DomainSetMemoryParameters {
        domain: domain.clone(),
        params: Params::from(params),
        flags: 0,
    };
    let set = |param: Param| both(vec![param]);
    let told = client.ask(&get(0));
    assert_eq!((told.params.0, told.nparams), (vec![], 3));
    let none = 9_007_199_254_740_991;
    let all = [hard(none), soft(none), with_swap(none)];
    assert_eq!(client.ask(&get(3)).params.0, all);
    assert_eq!(client.ask(&get(1)).params.0, [hard(none)]);
    client.ask(&set(hard(262_144)));
    assert_eq!(client.ask(&get(1)).params.0, [hard(262_144)]);
    for unlimited in [none, u64::MAX, 0] {
        client.ask(&set(hard(unlimited)));
        assert_eq!(client.ask(&get(1)).params.0, [hard(none)]);
    }
    client.ask(&set(soft(65_536)));
    assert_eq!(
        client.ask(&get(3)).params.0,
        [hard(none), soft(65_536), with_swap(none)]
    );
    let said = client.refused(&set(Param::new("min_guarantee", 1_u64)));
    assert_eq!(said.code, 74);
    assert!(said.message.contains("min_guarantee"), "{said:?}");

    // Each change on its own makes what is valid, up and down, and with both given up.
    let limits = |client: &mut Client| client.ask(&get(3)).params.0;
    for (most, swapped) in [(200, 300), (400, 500), (100, 150), (100, 100), (none, none)] {
        let (most, swapped) = (hard(most), with_swap(swapped));
        client.ask(&both(vec![most.clone(), swapped.clone()]));
        assert_eq!(limits(&mut client), [most, soft(65_536), swapped]);
    }
    client.ask(&both(vec![hard(200), with_swap(300)]));
    let orders: Vec<Vec<TuningChange>> = tunings(&client)
        .into_iter()
        .map(|(changes, ..)| changes)
        .filter(|changes| changes.len() == 2)
        .collect();
    let swap_first =
        |changes: &Vec<TuningChange>| matches!(changes[0], TuningChange::MemoryAndSwapLimit(_));
    let orders: Vec<bool> = orders.iter().map(swap_first).collect();
    assert_eq!(orders, [false, true, false, true, true, false]);
    for (params, why) in [
        (vec![hard(301)], "lower than or equal to swap_hard_limit"),
        (vec![hard(none)], "lower than or equal to swap_hard_limit"),
        (
            vec![with_swap(199)],
            "lower than or equal to swap_hard_limit",
        ),
        (
            vec![hard(500), with_swap(400)],
            "lower than or equal to swap_hard_limit",
        ),
    ] {
        let said = client.refused(&both(params));
        assert_eq!(said.code, 8, "{said:?}");
        assert!(said.message.contains(why), "{said:?}");
    }
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

fn block_rates(domain: &Handle, params: Vec<Param>, flags: u32) -> tuning::DomainSetBlockIoTune {
    tuning::DomainSetBlockIoTune {
        domain: domain.clone(),
        disk: "vda".to_owned(),
        params: params.into(),
        flags,
    }
}

#[test]
fn rates_of_a_disk_are_set_where_the_flags_say_and_told_of_there() {
    let disk = "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/d.img'/>\
                <target dev='vda' bus='virtio'/></disk>";
    let (mut client, domain, _) = One::running(definition("", disk)).client();
    let mut get = tuning::DomainGetBlockIoTune {
        domain: domain.clone(),
        disk: None,
        nparams: 0,
        flags: 4,
    };
    assert_eq!(client.ask(&get).nparams, 20);
    (get.disk, get.nparams) = (Some("/d.img".to_owned()), 20);
    let told = |client: &mut Client, get: &tuning::DomainGetBlockIoTune, name: &str| {
        let told = client.ask(get).params;
        told.value(name).cloned()
    };
    let name = "total_bytes_sec";
    client.ask(&block_rates(&domain, vec![Param::new(name, 5_u64)], LIVE));
    assert_eq!(told(&mut client, &get, name), Some(5_u64.into()));
    get.flags = CONFIG;
    assert_eq!(told(&mut client, &get, name), Some(0_u64.into()));
    // Without leave to send text none is sent.
    assert_eq!(told(&mut client, &get, "group_name"), None);
    let rates = vec![Param::new("read_iops_sec", 7_u64)];
    client.ask(&block_rates(&domain, rates.clone(), LIVE | CONFIG));
    // The one has a rate of bytes besides and the other none: each is changed by itself.
    assert_eq!(told(&mut client, &get, "read_iops_sec"), Some(7_u64.into()));
    assert_eq!(told(&mut client, &get, name), Some(0_u64.into()));
    get.flags = LIVE;
    assert_eq!(told(&mut client, &get, name), Some(5_u64.into()));
    let updates = |client: &Client| {
        let seen = client.supervisor.seen.lock().unwrap();
        let updates = seen.iter().filter_map(|call| match call {
            CallBody::DomainDeviceUpdate(update) => Some((update.live, update.persistent)),
            _ => None,
        });
        updates.collect::<Vec<_>>()
    };
    assert_eq!(
        updates(&client),
        [(true, false), (true, false), (false, true)]
    );
    // What is so already is not asked for.
    client.ask(&block_rates(&domain, rates, LIVE | CONFIG));
    assert_eq!(updates(&client).len(), 3);
    let mut of_another = block_rates(&domain, Vec::new(), LIVE);
    of_another.disk = "vdz".to_owned();
    let said = client.refused(&of_another);
    assert_eq!(said.code, 8);
    assert!(said.message.contains("disk 'vdz'"), "{said:?}");
}

#[test]
fn rates_of_an_interface_are_set_one_way_at_a_time() {
    let nic = "<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/>\
               <target dev='web0'/><model type='virtio'/></interface>";
    let (mut client, domain, _) = One::running(definition("", nic)).client();
    let mut get = tuning::DomainGetInterfaceParameters {
        domain: domain.clone(),
        device: "web0".to_owned(),
        nparams: 0,
        flags: 0,
    };
    assert_eq!(client.ask(&get).nparams, 7);
    get.nparams = 7;
    let set = |device: &str, numbers: &[(&str, u32)]| tuning::DomainSetInterfaceParameters {
        domain: domain.clone(),
        device: device.to_owned(),
        params: Params::from(
            numbers
                .iter()
                .map(|(name, number)| Param::new(*name, *number))
                .collect::<Vec<_>>(),
        ),
        flags: 0,
    };
    client.ask(&set(
        "web0",
        &[("inbound.average", 100), ("inbound.peak", 200)],
    ));
    client.ask(&set("52:54:00:00:00:01", &[("outbound.average", 50)]));
    let told = client.ask(&get).params;
    for (name, kib) in [
        ("inbound.average", 100_u32),
        ("inbound.peak", 200),
        ("inbound.floor", 0),
        ("outbound.average", 50),
    ] {
        assert_eq!(told.value(name), Some(&kib.into()), "{name}");
    }
    client.ask(&set("web0", &[("inbound.average", 0)]));
    let told = client.ask(&get).params;
    assert_eq!(told.value("inbound.average"), Some(&0_u32.into()));
    assert_eq!(told.value("outbound.average"), Some(&50_u32.into()));
    for (device, numbers, code) in [
        ("web1", ("inbound.average", 1), 8),
        ("web0", ("inbound.floor", 1), 67),
        ("web0", ("inbound.speed", 1), 74),
    ] {
        assert_eq!(
            client.refused(&set(device, &[numbers])).code,
            code,
            "{numbers:?}"
        );
    }
}

#[test]
fn shares_of_block_devices_are_set_where_the_flags_say_and_told_of_there() {
    let (mut client, domain, _) = One::running(plain()).client();
    let get = |nparams, flags| tuning::DomainGetBlkioParameters {
        domain: domain.clone(),
        nparams,
        flags,
    };
    let set = |params: Vec<Param>, flags| tuning::DomainSetBlkioParameters {
        domain: domain.clone(),
        params: params.into(),
        flags,
    };
    // A client that takes no text is told of what is none.
    assert_eq!(client.ask(&get(0, 0)).nparams, 1);
    assert_eq!(client.ask(&get(0, 4)).nparams, 6);
    let params = vec![
        Param::new("weight", 500_u32),
        Param::new("device_read_bytes_sec", "/dev/a,4096"),
    ];
    client.ask(&set(params.clone(), LIVE | CONFIG));
    client.ask(&set(vec![Param::new("weight", 0_u32)], CONFIG));
    let live = client.ask(&get(6, 4 | LIVE)).params;
    assert_eq!(live.value("weight"), Some(&500_u32.into()));
    assert_eq!(
        live.value("device_read_bytes_sec"),
        Some(&"/dev/a,4096".into())
    );
    let kept = client.ask(&get(6, 4 | CONFIG)).params;
    assert_eq!(kept.value("weight"), Some(&0_u32.into()));
    assert_eq!(
        kept.value("device_read_bytes_sec"),
        Some(&"/dev/a,4096".into())
    );
    // What is so already is not asked for.
    let before = tunings(&client).len();
    client.ask(&set(params, LIVE));
    assert_eq!(tunings(&client).len(), before);
    for (param, code) in [
        (Param::new("weight", "500"), 8),
        (Param::new("device_weight", "/dev/a"), 8),
        (Param::new("speed", 1_u32), 74),
    ] {
        assert_eq!(client.refused(&set(vec![param], 0)).code, code);
    }
}

#[test]
fn nodes_of_memory_are_kept_and_change_live_where_a_cgroup_holds_them() {
    let (mut client, domain, one) = One::running(plain()).client();
    let get = |flags| tuning::DomainGetNumaParameters {
        domain: domain.clone(),
        nparams: 2,
        flags,
    };
    let set = |params: Vec<Param>, flags| tuning::DomainSetNumaParameters {
        domain: domain.clone(),
        params: params.into(),
        flags,
    };
    let nodes = |nodes: &str| vec![Param::new("numa_nodeset", nodes)];
    assert_eq!(
        client.ask(&get(4)).params.value("numa_nodeset"),
        Some(&"".into())
    );
    let mut both = nodes("0");
    both.push(Param::new("numa_mode", 3_i32));
    client.ask(&set(both.clone(), CONFIG));
    let kept = client.ask(&get(4 | CONFIG)).params;
    assert_eq!(kept.value("numa_mode"), Some(&3_i32.into()));
    assert_eq!(kept.value("numa_nodeset"), Some(&"0".into()));
    for (params, why) in [
        (both, "can't change numatune mode"),
        (nodes("0"), "requires restrictive"),
    ] {
        let said = client.refused(&set(params, LIVE));
        assert_eq!(said.code, 55);
        assert!(said.message.contains(why), "{said:?}");
    }
    {
        let mut one = one.lock().unwrap();
        one.running = one.kept.clone();
    }
    client.ask(&set(nodes("0-1"), LIVE));
    let live = client.ask(&get(4 | LIVE)).params;
    assert_eq!(live.value("numa_nodeset"), Some(&"0-1".into()));
    let alone = vec![Param::new("numa_nodeset", "nothing")];
    assert_eq!(client.refused(&set(alone, CONFIG)).code, 8);
}
