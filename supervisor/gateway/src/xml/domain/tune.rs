//! `<vcpu>`, `<cputune>`, `<memtune>`, `<blkiotune>` and `<numatune>`: how much of the host a domain may use, and where.
//!
//! A quota of libvirt's is microseconds in each period. So the model has that of each vCPU; that of the whole domain
//! it has in hundredths of a CPU. Its limit of all vCPUs together libvirt has no word for.

use std::collections::HashSet;

use reeve_ipc::model::{
    BlockDeviceTuning, BlockTuning, CpuQuota, CpuSet, Domain, MAX_HOST_CPUS, MemoryNodes,
    MemorySize, NodeMode, ResourceLimits, Tuning, VcpuPin, Vcpus,
};

use super::super::XmlError;
use super::super::element::Element;
use super::super::kept::{self, Keeper};
use super::super::own::Own;
use super::super::write::Writer;

/// Bytes of a set of host CPUs: more than every one of them by its number takes.
const CPU_SET_BYTES: usize = 32 << 10;
/// Microseconds of the period that is printed.
const PERIOD: u64 = 100_000;
/// Microseconds of a period in which a hundredth of a CPU is one part in `PERIOD`.
const HUNDREDTH: u64 = PERIOD / 100;

/// The vCPUs it starts with, the most it can have, and where all threads of it may run if that is said.
pub(super) fn vcpus(root: Element<'_>) -> Result<(Vcpus, Vcpus, Option<CpuSet>), XmlError> {
    let Some(vcpu) = root.child("vcpu") else {
        let one = Vcpus::try_from(1)?;
        return Ok((one, one, None));
    };
    vcpu.known(&["placement", "current", "cpuset"])?;
    vcpu.only("placement", &["static"])?;
    vcpu.no_children()?;
    let max = Vcpus::try_from(vcpu.value::<u32>()?)?;
    let current = match vcpu.parsed::<u32>("current")? {
        Some(current) => Vcpus::try_from(current)?,
        None => max,
    };
    let cpus = vcpu.attribute("cpuset").map(|text| cpu_set(vcpu, text));
    Ok((current, max, cpus.transpose()?))
}

/// A set of host CPUs, of which `^N` leaves one out.
fn cpu_set(element: Element<'_>, text: &str) -> Result<CpuSet, XmlError> {
    let wrong =
        || element.invalid("not a set of host CPUs: write numbers and ranges, as in 0-3,^2,8");
    if text.len() > CPU_SET_BYTES {
        return Err(wrong());
    }
    if !text.contains('^') {
        return text.parse().map_err(|error| element.invalid(error));
    }
    let (out, within): (Vec<&str>, Vec<&str>) = text
        .split(',')
        .map(str::trim)
        .partition(|part| part.starts_with('^'));
    let out: Result<HashSet<u32>, _> = out
        .into_iter()
        .map(|part| part.trim_start_matches('^').parse::<u32>())
        .collect();
    let out = out.map_err(|_| wrong())?;
    let set: CpuSet = within.join(",").parse().map_err(|_| wrong())?;
    // Bounded by what a set holds.
    debug_assert!(set.iter().all(|cpu| cpu < MAX_HOST_CPUS));
    let left: Vec<(u32, u32)> = set
        .iter()
        .filter(|cpu| !out.contains(cpu))
        .map(|cpu| (cpu, cpu))
        .collect();
    CpuSet::try_from(left).map_err(|_| wrong())
}

/// Reads `<cputune>`, `<memtune>` and `<blkiotune>` into limits, pinning and the rest.
pub(super) fn parse(
    root: Element<'_>,
    keeper: &mut Keeper,
    limits: &mut ResourceLimits,
    pinning: &mut Vec<VcpuPin>,
) -> Result<Tuning, XmlError> {
    let mut tuning = Tuning::default();
    if let Some(tune) = root.child("blkiotune") {
        tuning.block = block(tune)?;
    }
    if let Some(tune) = root.child("numatune") {
        tuning.memory_nodes = nodes(tune)?;
    }
    if let Some(tune) = root.child("memtune") {
        tune.known(&[])?;
        let known = ["hard_limit", "soft_limit", "swap_hard_limit"];
        keeper.contents(tune, &known, &[])?;
        limits.memory = memory(tune, "hard_limit")?;
        limits.memory_soft = memory(tune, "soft_limit")?;
        limits.memory_and_swap = memory(tune, "swap_hard_limit")?;
    }
    let Some(tune) = root.child("cputune") else {
        return Ok(tuning);
    };
    tune.known(&[])?;
    let single = [
        "shares",
        "period",
        "quota",
        "global_period",
        "global_quota",
        "emulatorpin",
    ];
    keeper.contents(tune, &single, &["vcpupin"])?;
    if let Some(shares) = tune.child("shares") {
        let weight = shares.value::<u32>()?;
        let weight =
            u16::try_from(weight).map_err(|_| shares.unsupported("shares are 1 to 10000"))?;
        limits.cpu_weight = Some(weight);
    }
    tuning.vcpu_quota = quota_of_each(tune)?;
    limits.cpu_percent = percent(tune, "global_quota", "global_period")?;
    if tuning.vcpu_quota.is_none() {
        keep_period(tune, keeper, "period")?;
    }
    if limits.cpu_percent.is_none() {
        keep_period(tune, keeper, "global_period")?;
    }
    for pin in tune.children().filter(|child| child.name() == "vcpupin") {
        pin.known(&["vcpu", "cpuset"])?;
        pin.required("vcpu")?;
        let vcpu = pin.parsed("vcpu")?.unwrap_or_default();
        let cpus = cpu_set(pin, pin.required("cpuset")?)?;
        pinning.push(VcpuPin { vcpu, cpus });
    }
    if let Some(pin) = tune.child("emulatorpin") {
        pin.known(&["cpuset"])?;
        tuning.emulator_cpus = Some(cpu_set(pin, pin.required("cpuset")?)?);
    }
    Ok(tuning)
}

/// A limit of memory, if it is there.
fn memory(tune: Element<'_>, name: &str) -> Result<Option<MemorySize>, XmlError> {
    let Some(limit) = tune.child(name) else {
        return Ok(None);
    };
    limit.known(&["unit"])?;
    Ok(Some(MemorySize(limit.bytes()?)))
}

/// `<blkiotune>`. As with libvirt, 0 is nothing said.
fn block(tune: Element<'_>) -> Result<BlockTuning, XmlError> {
    tune.known(&[])?;
    let mut block = BlockTuning::default();
    for child in tune.children() {
        match child.name() {
            "weight" => block.weight = said(child.value()?),
            "device" => block.devices.push(block_device(child)?),
            _ => return Err(child.not_provided()),
        }
    }
    Ok(block)
}

/// `<numatune>`. A guest has one node of memory, and what is said of each is not provided.
fn nodes(tune: Element<'_>) -> Result<Option<MemoryNodes>, XmlError> {
    tune.known(&[])?;
    if let Some(other) = tune.children().find(|child| child.name() != "memory") {
        return Err(other.not_provided());
    }
    let Some(memory) = tune.child("memory") else {
        return Ok(None);
    };
    memory.known(&["mode", "nodeset", "placement"])?;
    memory.only("placement", &["static"])?;
    memory.no_children()?;
    let mode = match memory.attribute("mode") {
        None => NodeMode::Strict,
        Some(word) => {
            let mode = MODES.into_iter().find(|(_, known)| *known == word);
            let known = MODES.map(|(_, word)| word).join(", ");
            mode.ok_or_else(|| memory.unsupported_value("mode", word, format!("there is {known}")))?
                .0
        }
    };
    let nodes = cpu_set(memory, memory.required("nodeset")?)?;
    Ok(Some(MemoryNodes { mode, nodes }))
}

/// libvirt's words for what nodes are.
const MODES: [(NodeMode, &str); 4] = [
    (NodeMode::Strict, "strict"),
    (NodeMode::Preferred, "preferred"),
    (NodeMode::Interleave, "interleave"),
    (NodeMode::Restrictive, "restrictive"),
];

fn format_memory(writer: &mut Writer, limits: &ResourceLimits) {
    let limits = [
        ("hard_limit", limits.memory),
        ("soft_limit", limits.memory_soft),
        ("swap_hard_limit", limits.memory_and_swap),
    ];
    if limits.iter().all(|(_, limit)| limit.is_none()) {
        return;
    }
    writer.tag("memtune").open();
    for (name, limit) in limits {
        let Some(limit) = limit else { continue };
        // A limit in bytes is the model's; nobody writes parts of a KiB.
        let tag = writer.tag(name);
        if limit.bytes() % 1024 == 0 {
            tag.attribute("unit", "KiB").text(limit.bytes() / 1024);
        } else {
            tag.attribute("unit", "bytes").text(limit.bytes());
        }
    }
    writer.close("memtune");
}

fn format_nodes(writer: &mut Writer, nodes: &MemoryNodes) {
    let mode = MODES.into_iter().find(|(mode, _)| *mode == nodes.mode);
    writer.tag("numatune").open();
    let tag = writer
        .tag("memory")
        .attribute("mode", mode.map_or("strict", |(_, word)| word));
    tag.attribute("nodeset", &nodes.nodes).empty();
    writer.close("numatune");
}

fn said<T: Default + PartialEq>(number: T) -> Option<T> {
    Some(number).filter(|number| *number != T::default())
}

fn block_device(element: Element<'_>) -> Result<BlockDeviceTuning, XmlError> {
    element.known(&[])?;
    let path = element.child("path");
    let path = path.ok_or_else(|| element.invalid("there is no <path> in it"))?;
    let mut device = BlockDeviceTuning {
        path: path.text().into(),
        ..BlockDeviceTuning::default()
    };
    for child in element.children() {
        match child.name() {
            "path" => {}
            "weight" => device.weight = said(child.value()?),
            "read_bytes_sec" => device.read_bytes = said(child.value()?),
            "write_bytes_sec" => device.write_bytes = said(child.value()?),
            "read_iops_sec" => device.read_operations = said(child.value()?),
            "write_iops_sec" => device.write_operations = said(child.value()?),
            _ => return Err(child.not_provided()),
        }
    }
    Ok(device)
}

fn format_block(writer: &mut Writer, block: &BlockTuning) {
    if !block.any() {
        return;
    }
    writer.tag("blkiotune").open();
    if let Some(weight) = block.weight {
        writer.text("weight", weight);
    }
    for device in &block.devices {
        writer.tag("device").open();
        writer.text("path", device.path.display());
        if let Some(weight) = device.weight {
            writer.text("weight", weight);
        }
        let operations = [
            ("read_iops_sec", device.read_operations),
            ("write_iops_sec", device.write_operations),
        ];
        for (name, number) in operations {
            if let Some(number) = number {
                writer.text(name, number);
            }
        }
        let bytes = [
            ("read_bytes_sec", device.read_bytes),
            ("write_bytes_sec", device.write_bytes),
        ];
        for (name, number) in bytes {
            if let Some(number) = number {
                writer.text(name, number);
            }
        }
        writer.close("device");
    }
    writer.close("blkiotune");
}

/// A period and a quota, where there is one: less than nothing, and with 0 nothing said, is none. A period of 0 is
/// nothing said too.
fn period_and_quota(
    tune: Element<'_>,
    quota: &str,
    period: &str,
) -> Result<(u64, Option<u64>), XmlError> {
    let value = |name: &str| {
        tune.child(name)
            .map(|child| child.value::<i64>())
            .transpose()
    };
    let period = value(period)?.filter(|period| *period != 0);
    let period = period.map_or(Ok(PERIOD), u64::try_from);
    let period = period.map_err(|_| tune.invalid("a period is at least 1000"))?;
    let quota = value(quota)?.and_then(|quota| u64::try_from(quota).ok());
    Ok((period, quota.filter(|quota| *quota > 0)))
}

/// Keeps a period without a quota, which nothing is counted in.
fn keep_period(tune: Element<'_>, keeper: &mut Keeper, name: &str) -> Result<(), XmlError> {
    let Some(period) = tune.child(name) else {
        return Ok(());
    };
    match period.value::<u32>()? {
        // As if it were not there, for libvirt as well.
        0 => Ok(()),
        value if CpuQuota::PERIODS.contains(&value) => keeper.offer(period),
        _ => Err(period.invalid("a period is 1000 to 1000000")),
    }
}

/// The quota of each vCPU.
fn quota_of_each(tune: Element<'_>) -> Result<Option<CpuQuota>, XmlError> {
    let (period, quota) = period_and_quota(tune, "quota", "period")?;
    let quota = quota.map(|quota_us| CpuQuota {
        quota_us,
        // The model refuses what is too long.
        period_us: u32::try_from(period).unwrap_or(u32::MAX),
    });
    Ok(quota)
}

/// A quota as hundredths of one CPU, the nearest.
fn percent(tune: Element<'_>, quota: &str, period: &str) -> Result<Option<u32>, XmlError> {
    let (period, quota) = period_and_quota(tune, quota, period)?;
    let Some(quota) = quota else {
        return Ok(None);
    };
    let hundredths = u128::from(quota) * 100;
    let nearest = (hundredths + u128::from(period) / 2) / u128::from(period);
    // The model refuses what is too much.
    Ok(Some(u32::try_from(nearest.max(1)).unwrap_or(u32::MAX)))
}

/// What libvirt has no word for.
pub(super) fn own(domain: &Domain, own: &mut Own) {
    own.pids = domain.limits.pids;
    own.vcpu_percent = domain.limits.vcpu_percent;
}

pub(super) fn format(writer: &mut Writer, domain: &Domain) {
    format_block(writer, &domain.tuning.block);
    format_memory(writer, &domain.limits);
    let (vcpus, max) = (domain.vcpus.count(), domain.max_vcpus.count());
    let tag = writer.tag("vcpu").attribute("placement", "static");
    tag.optional("current", Some(vcpus).filter(|vcpus| *vcpus != max))
        .text(max);
    format_cpu(writer, domain);
    if let Some(nodes) = &domain.tuning.memory_nodes {
        format_nodes(writer, nodes);
    }
}

fn format_cpu(writer: &mut Writer, domain: &Domain) {
    let each = domain.tuning.vcpu_quota;
    let limits = domain.limits;
    // A quota that it was given since has a period of its own.
    let periods = domain.kept.iter().filter(|kept| match kept.path.as_str() {
        "cputune/period" => each.is_none(),
        _ => limits.cpu_percent.is_none(),
    });
    let periods: Vec<_> = periods.cloned().collect();
    if each.is_none()
        && !kept::any(&periods, "cputune")
        && limits.cpu_weight.is_none()
        && limits.cpu_percent.is_none()
        && domain.pinning.is_empty()
        && domain.tuning.emulator_cpus.is_none()
    {
        return;
    }
    writer.tag("cputune").open();
    if let Some(weight) = limits.cpu_weight {
        writer.text("shares", weight);
    }
    if let Some(each) = each {
        writer.text("period", each.period_us);
        writer.text("quota", each.quota_us);
    }
    if let Some(percent) = limits.cpu_percent {
        writer.text("global_period", PERIOD);
        writer.text("global_quota", u64::from(percent) * HUNDREDTH);
    }
    kept::write(writer, &periods, "cputune");
    for pin in &domain.pinning {
        let tag = writer.tag("vcpupin").attribute("vcpu", pin.vcpu);
        tag.attribute("cpuset", &pin.cpus).empty();
    }
    if let Some(cpus) = &domain.tuning.emulator_cpus {
        writer.tag("emulatorpin").attribute("cpuset", cpus).empty();
    }
    writer.close("cputune");
}
