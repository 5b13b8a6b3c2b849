//! `<vcpu>`, `<cputune>` and `<memtune>`: how much of the host a domain may use, and where.
//!
//! A quota of libvirt's is microseconds in each period; the model has hundredths of a CPU. `<quota>` is of each
//! vCPU and the model's limit of all together: the two are one where there can be one vCPU only.

use std::collections::HashSet;

use reeve_ipc::model::{CpuSet, Domain, MAX_HOST_CPUS, MemorySize, ResourceLimits, VcpuPin, Vcpus};

use super::super::XmlError;
use super::super::element::Element;
use super::super::kept::Keeper;
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

/// Reads `<cputune>` and `<memtune>` into limits and pinning; where threads that are no vCPUs may run, if that is
/// said.
pub(super) fn parse(
    root: Element<'_>,
    keeper: &mut Keeper,
    max_vcpus: Vcpus,
    limits: &mut ResourceLimits,
    pinning: &mut Vec<VcpuPin>,
) -> Result<Option<CpuSet>, XmlError> {
    if let Some(tune) = root.child("memtune") {
        tune.known(&[])?;
        keeper.contents(tune, &["hard_limit"], &[])?;
        if let Some(limit) = tune.child("hard_limit") {
            limit.known(&["unit"])?;
            limits.memory = Some(MemorySize(limit.bytes()?));
        }
    }
    let Some(tune) = root.child("cputune") else {
        return Ok(None);
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
    limits.vcpu_percent = percent(tune, "quota", "period")?;
    if let (Some(quota), Some(_), 2..) =
        (tune.child("quota"), limits.vcpu_percent, max_vcpus.count())
    {
        let message = "it is of each vCPU, and there is none of each where there can be more than one; there is \
                       <global_quota>";
        return Err(quota.unsupported(message));
    }
    limits.cpu_percent = percent(tune, "global_quota", "global_period")?;
    for pin in tune.children().filter(|child| child.name() == "vcpupin") {
        pin.known(&["vcpu", "cpuset"])?;
        pin.required("vcpu")?;
        let vcpu = pin.parsed("vcpu")?.unwrap_or_default();
        let cpus = cpu_set(pin, pin.required("cpuset")?)?;
        pinning.push(VcpuPin { vcpu, cpus });
    }
    let Some(pin) = tune.child("emulatorpin") else {
        return Ok(None);
    };
    pin.known(&["cpuset"])?;
    cpu_set(pin, pin.required("cpuset")?).map(Some)
}

/// A quota as hundredths of one CPU, the nearest.
fn percent(tune: Element<'_>, quota: &str, period: &str) -> Result<Option<u32>, XmlError> {
    let value = |name: &str| {
        tune.child(name)
            .map(|child| child.value::<i64>())
            .transpose()
    };
    let period = value(period)?.map_or(Ok(PERIOD), u64::try_from);
    let period = period.ok().filter(|period| *period > 0);
    let period = period.ok_or_else(|| tune.invalid("a period is at least 1000"))?;
    // Less than nothing, and with 0 nothing said, is no limit.
    let Some(quota) = value(quota)?
        .and_then(|quota| u64::try_from(quota).ok())
        .filter(|it| *it > 0)
    else {
        return Ok(None);
    };
    let hundredths = u128::from(quota) * 100;
    let nearest = (hundredths + u128::from(period) / 2) / u128::from(period);
    // The model refuses what is too much.
    Ok(Some(u32::try_from(nearest.max(1)).unwrap_or(u32::MAX)))
}

/// The quota of each vCPU that a limit of all is, if it is one.
fn quota_of_each(domain: &Domain) -> Option<u64> {
    let percent = domain.limits.vcpu_percent?;
    (domain.max_vcpus.count() == 1).then(|| u64::from(percent) * HUNDREDTH)
}

/// What libvirt has no word for.
pub(super) fn own(domain: &Domain, own: &mut Own) {
    own.pids = domain.limits.pids;
    if quota_of_each(domain).is_none() {
        own.vcpu_percent = domain.limits.vcpu_percent;
    }
}

pub(super) fn format(writer: &mut Writer, domain: &Domain) {
    if let Some(limit) = domain.limits.memory {
        writer.tag("memtune").open();
        // A limit in bytes is the model's; nobody writes parts of a KiB.
        let tag = writer.tag("hard_limit");
        if limit.bytes() % 1024 == 0 {
            tag.attribute("unit", "KiB").text(limit.bytes() / 1024);
        } else {
            tag.attribute("unit", "bytes").text(limit.bytes());
        }
        writer.close("memtune");
    }
    let (vcpus, max) = (domain.vcpus.count(), domain.max_vcpus.count());
    let tag = writer.tag("vcpu").attribute("placement", "static");
    tag.optional("current", Some(vcpus).filter(|vcpus| *vcpus != max))
        .text(max);
    let each = quota_of_each(domain);
    let limits = domain.limits;
    if each.is_none()
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
    if let Some(quota) = each {
        writer.text("period", PERIOD);
        writer.text("quota", quota);
    }
    if let Some(percent) = limits.cpu_percent {
        writer.text("global_period", PERIOD);
        writer.text("global_quota", u64::from(percent) * HUNDREDTH);
    }
    for pin in &domain.pinning {
        let tag = writer.tag("vcpupin").attribute("vcpu", pin.vcpu);
        tag.attribute("cpuset", &pin.cpus).empty();
    }
    if let Some(cpus) = &domain.tuning.emulator_cpus {
        writer.tag("emulatorpin").attribute("cpuset", cpus).empty();
    }
    writer.close("cputune");
}
