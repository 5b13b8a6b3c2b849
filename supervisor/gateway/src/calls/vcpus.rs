//! A domain's vCPUs: how many, where they may run, and what they do.

use std::sync::Arc;

use reeve_ipc::api::call::{DomainDefine, DomainVcpusSet};
use reeve_ipc::api::figures::FigureGroups;
use reeve_ipc::api::host::HostInfo;
use reeve_ipc::model::{CpuSet, Domain as Definition, VcpuPin, Vcpus};

use super::Context;
use super::context::{Impact, impact, impact_of, reference};
use super::failure::{Code, Failure, check_flags, invalid_argument};
use crate::wire::types::CPU_MAPS_MAX;
use crate::wire::types::handles::Domain;
use crate::wire::types::tuning::{
    DomainGetVcpuPinInfo, DomainGetVcpus, DomainGetVcpusFlags, DomainPinVcpu, DomainPinVcpuFlags,
    DomainSetVcpus, DomainSetVcpusFlags, VcpuInfo, VcpuPinInfo, Vcpus as VcpuList,
};

/// Which number is meant (libvirt `virDomainVcpuFlags`), beside where.
mod which {
    /// How many there can be.
    pub(super) const MAXIMUM: u32 = 4;
    /// What the guest's agent says.
    pub(super) const GUEST: u32 = 8;
    /// Those that can come and go: all can.
    pub(super) const HOTPLUGGABLE: u32 = 16;
}

fn no_agent() -> Failure {
    let why = "QEMU guest agent is not configured";
    Failure::new(Code::ArgumentUnsupported, why)
}

pub(super) async fn set(context: Arc<Context>, call: DomainSetVcpus) -> Result<(), Failure> {
    change(&context, &call.domain, call.nvcpus, impact::LIVE).await
}

pub(super) async fn set_flags(
    context: Arc<Context>,
    call: DomainSetVcpusFlags,
) -> Result<(), Failure> {
    let known = impact::ANY | which::MAXIMUM | which::GUEST | which::HOTPLUGGABLE;
    check_flags(call.flags, known, "virDomainSetVcpusFlags")?;
    change(&context, &call.domain, call.nvcpus, call.flags).await
}

async fn change(context: &Context, of: &Domain, count: u32, flags: u32) -> Result<(), Failure> {
    let vcpus = Vcpus::try_from(count).map_err(|error| invalid_argument(error.to_string()))?;
    if flags & which::GUEST != 0 {
        return Err(no_agent());
    }
    let Impact { live, persistent } = impact_of(&context.summary(of).await?, flags)?;
    if flags & which::MAXIMUM != 0 {
        if live {
            let why = "maximum vcpu count of a live domain can't be modified";
            return Err(Failure::new(Code::OperationInvalid, why));
        }
        return redefine(context, of, |definition| {
            definition.max_vcpus = vcpus;
            definition.vcpus = definition.vcpus.min(vcpus);
            let kept = definition.pinning.iter();
            let kept = kept.filter(|pin| pin.vcpu < vcpus.count()).cloned();
            definition.pinning = kept.collect();
            Ok(())
        })
        .await;
    }
    let domain = reference(of);
    let call = DomainVcpusSet {
        domain,
        vcpus,
        live,
        persistent,
    };
    context.of(of, call).await
}

/// Keeps a definition that is another by `change`.
pub(super) async fn redefine(
    context: &Context,
    of: &Domain,
    change: impl FnOnce(&mut Definition) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut definition = context.definition(of, true).await?;
    change(&mut definition)?;
    let define = DomainDefine {
        definition: Box::new(definition),
        only_new: false,
    };
    context.of(of, define).await?;
    Ok(())
}

pub(super) async fn count(
    context: Arc<Context>,
    call: DomainGetVcpusFlags,
) -> Result<i32, Failure> {
    let known = impact::ANY | which::MAXIMUM | which::GUEST | which::HOTPLUGGABLE;
    check_flags(call.flags, known, "virDomainGetVcpusFlags")?;
    if call.flags & which::GUEST != 0 {
        return Err(no_agent());
    }
    let summary = context.summary(&call.domain).await?;
    let impact = impact_of(&summary, call.flags)?;
    let counts = if impact.persistent && summary.state.is_active() {
        let kept = context.definition(&call.domain, true).await?;
        (kept.vcpus.count(), kept.max_vcpus.count())
    } else {
        (summary.vcpus, summary.max_vcpus)
    };
    let count = match call.flags & which::MAXIMUM {
        0 => counts.0,
        _ => counts.1,
    };
    Ok(i32::try_from(count).unwrap_or(i32::MAX))
}

/// Pins in the definition that is kept: a machine that runs has its vCPUs where its start put them.
async fn pin(
    context: &Context,
    of: &Domain,
    vcpu: u32,
    map: &[u8],
    flags: u32,
) -> Result<(), Failure> {
    let impact = impact_of(&context.summary(of).await?, flags)?;
    if impact.live {
        let why = "a vCPU that runs cannot be pinned: change its definition (--config)";
        return Err(Failure::new(Code::OperationUnsupported, why));
    }
    let cpus = set_of(map)?;
    redefine(context, of, |definition| {
        if vcpu >= definition.max_vcpus.count() {
            let most = definition.max_vcpus.count();
            let why = format!("vcpu {vcpu} is out of range of max vcpus {most}");
            return Err(invalid_argument(why));
        }
        definition.pinning.retain(|pin| pin.vcpu != vcpu);
        definition.pinning.push(VcpuPin { vcpu, cpus });
        definition.pinning.sort_unstable_by_key(|pin| pin.vcpu);
        Ok(())
    })
    .await
}

pub(super) async fn pin_now(context: Arc<Context>, call: DomainPinVcpu) -> Result<(), Failure> {
    pin(
        &context,
        &call.domain,
        call.vcpu,
        &call.cpumap.0,
        impact::LIVE,
    )
    .await
}

pub(super) async fn pin_flags(
    context: Arc<Context>,
    call: DomainPinVcpuFlags,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainPinVcpuFlags")?;
    pin(
        &context,
        &call.domain,
        call.vcpu,
        &call.cpumap.0,
        call.flags,
    )
    .await
}

/// Where each of a domain's vCPUs may run, those that it can have with them: anywhere, where nothing is said.
fn maps(definition: &Definition, host: &HostInfo, vcpus: u32, length: usize) -> Vec<u8> {
    let anywhere = map_of(host.online.iter(), length);
    let map = |vcpu| {
        let mut pins = definition.pinning.iter();
        let pin = pins.find(|pin| pin.vcpu == vcpu);
        pin.map_or_else(|| anywhere.clone(), |pin| map_of(pin.cpus.iter(), length))
    };
    (0..vcpus).flat_map(map).collect()
}

/// How many of something there are to be, by a client's word and by what there is.
fn within(asked: i32, count: u32, what: &str) -> Result<u32, Failure> {
    let asked = u32::try_from(asked);
    let asked = asked.map_err(|_| invalid_argument(format!("{what} must not be negative")))?;
    Ok(asked.min(count))
}

/// The bytes of a map, if so many of them fit a reply.
fn map_length(asked: i32, maps: u32) -> Result<usize, Failure> {
    let length = usize::try_from(asked).unwrap_or(0);
    let all = usize::try_from(maps)
        .unwrap_or(usize::MAX)
        .checked_mul(length);
    match all {
        Some(all) if all <= CPU_MAPS_MAX => Ok(length),
        _ => Err(invalid_argument("maps of CPUs that do not fit a reply")),
    }
}

pub(super) async fn pins(
    context: Arc<Context>,
    call: DomainGetVcpuPinInfo,
) -> Result<VcpuPinInfo, Failure> {
    check_flags(call.flags, impact::ANY, "virDomainGetVcpuPinInfo")?;
    let summary = context.summary(&call.domain).await?;
    let impact = impact_of(&summary, call.flags)?;
    let persistent = impact.persistent && summary.state.is_active();
    let definition = context.definition(&call.domain, persistent);
    let (definition, host) = tokio::join!(definition, super::connect::host(&context));
    let (definition, host) = (definition?, host?);
    let count = if persistent {
        definition.vcpus.count()
    } else {
        summary.vcpus
    };
    let num = within(call.ncpumaps, count, "ncpumaps")?;
    let length = map_length(call.maplen, num)?;
    Ok(VcpuPinInfo {
        cpumaps: maps(&definition, &host, num, length).into(),
        num: i32::try_from(num).unwrap_or(i32::MAX),
    })
}

pub(super) async fn vcpus(
    context: Arc<Context>,
    call: DomainGetVcpus,
) -> Result<VcpuList, Failure> {
    let groups = FigureGroups {
        vcpus: true,
        ..FigureGroups::default()
    };
    let figures = context.active_figures(&call.domain, groups);
    let definition = context.definition(&call.domain, false);
    let (figures, definition, host) =
        tokio::join!(figures, definition, super::connect::host(&context));
    let (figures, definition, host) = (figures?, definition?, host?);
    let (summary, vcpus) = (figures.summary, figures.vcpus);
    let most = within(call.maxinfo, summary.vcpus, "maxinfo")?;
    let info: Vec<VcpuInfo> = vcpus
        .iter()
        .take(usize::try_from(most).unwrap_or(usize::MAX))
        .map(|vcpu| VcpuInfo {
            number: vcpu.stats.vcpu,
            state: super::domstats::vcpu_state(vcpu.state),
            cpu_time: vcpu.stats.run_ns,
            cpu: vcpu
                .cpu
                .and_then(|cpu| i32::try_from(cpu).ok())
                .unwrap_or(-1),
        })
        .collect();
    let count = u32::try_from(info.len()).unwrap_or(u32::MAX);
    let length = map_length(call.maplen, count)?;
    Ok(VcpuList {
        info: info.into(),
        cpumaps: maps(&definition, &host, count, length).into(),
    })
}

/// Which CPUs a map has: bit n of byte n / 8 is CPU n.
pub(super) fn set_of(map: &[u8]) -> Result<CpuSet, Failure> {
    let bits = map
        .iter()
        .zip((0_u32..).step_by(8))
        .flat_map(|(byte, first)| {
            (0..8)
                .filter(move |bit| byte & (1 << bit) != 0)
                .map(move |bit| first + bit)
        });
    let ranges: Vec<(u32, u32)> = bits.map(|cpu| (cpu, cpu)).collect();
    if ranges.is_empty() {
        return Err(invalid_argument("Empty cpu list for pinning"));
    }
    CpuSet::try_from(ranges).map_err(|error| invalid_argument(error.to_string()))
}

/// The map of some CPUs in so many bytes; those that have no place in it are left out.
pub(super) fn map_of(cpus: impl Iterator<Item = u32>, length: usize) -> Vec<u8> {
    let mut map = vec![0_u8; length];
    for cpu in cpus {
        let place = usize::try_from(cpu / 8).unwrap_or(usize::MAX);
        if let Some(byte) = map.get_mut(place) {
            *byte |= 1 << (cpu % 8);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_bits_from_the_lowest_of_the_first_byte() {
        let set = set_of(&[0b1000_0001, 0b10]).unwrap();
        assert_eq!(set.to_string(), "0,7,9");
        assert_eq!(map_of(set.iter(), 2), [0b1000_0001, 0b10]);
        assert_eq!(map_of(set.iter(), 1), [0b1000_0001]);
        assert_eq!(map_of(set.iter(), 3), [0b1000_0001, 0b10, 0]);
    }

    #[test]
    fn a_map_of_no_cpu_or_of_one_that_no_host_has_is_refused() {
        assert!(set_of(&[]).is_err());
        assert!(set_of(&[0, 0]).is_err());
        let mut far = vec![0; 600];
        far[599] = 1;
        assert!(set_of(&far).is_err());
    }
}
