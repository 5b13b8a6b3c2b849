//! A domain's vCPUs: how many, and what they do.

use std::cmp::Ordering;
use std::sync::Arc;

use reeve_ipc::api::call::{DomainDefine, DomainVcpusSet};
use reeve_ipc::api::figures::FigureGroups;
use reeve_ipc::model::{CpuSet, Domain as Definition, Vcpus};

use super::context::{Impact, impact, impact_of, reference};
use super::failure::{Code, Failure, Origin, check_flags, invalid_argument};
use super::pinning::{map_length, maps, within};
use super::{Context, agent};
use crate::wire::types::guest::DomainSetGuestVcpus;
use crate::wire::types::handles::Domain;
use crate::wire::types::tuning::{
    DomainGetVcpus, DomainGetVcpusFlags, DomainSetVcpu, DomainSetVcpus, DomainSetVcpusFlags,
    VcpuInfo, Vcpus as VcpuList,
};
use crate::xml::domain::topology_vcpus;

/// Which number is meant (libvirt `virDomainVcpuFlags`), beside where.
mod which {
    /// How many there can be.
    pub(super) const MAXIMUM: u32 = 4;
    /// What the guest's agent says.
    pub(super) const GUEST: u32 = 8;
    /// Those that can come and go: all can.
    pub(super) const HOTPLUGGABLE: u32 = 16;
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
        return use_so_many(context, of, count, flags).await;
    }
    let Impact { live, persistent } = impact_of(&context.summary(of).await?, flags)?;
    if flags & which::MAXIMUM != 0 {
        if live {
            let why = "maximum vcpu count of a live domain can't be modified";
            return Err(Failure::new(Code::OperationInvalid, why));
        }
        return redefine(context, of, |definition| {
            let topology = topology_vcpus(&definition.kept);
            if topology.is_some_and(|topology| topology != count) {
                let why = "CPU topology doesn't match the desired vcpu count";
                return Err(invalid_argument(why));
            }
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

/// Has the guest use so many of the vCPUs that it has: takes those it can do without, highest first, or brings
/// back those that it does not use, lowest first.
async fn use_so_many(
    context: &Context,
    of: &Domain,
    count: u32,
    flags: u32,
) -> Result<(), Failure> {
    if flags & (impact::CONFIG | which::MAXIMUM) != 0 {
        let why = "the guest uses its vCPUs while it runs, and so many as it likes at a start";
        return Err(invalid_argument(why));
    }
    let mut vcpus = agent::vcpus(context, of).await?;
    vcpus.sort_unstable_by_key(|vcpu| vcpu.id);
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    if wanted > vcpus.len() {
        let why = "requested vcpu count is greater than the count of enabled vcpus in the domain";
        return Err(invalid_argument(why));
    }
    let online = vcpus.iter().filter(|vcpu| vcpu.online).count();
    let changes: Vec<(u32, bool)> = match online.cmp(&wanted) {
        Ordering::Equal => return Ok(()),
        Ordering::Less => {
            let off = vcpus.iter().filter(|vcpu| !vcpu.online);
            off.take(wanted - online)
                .map(|vcpu| (vcpu.id, true))
                .collect()
        }
        Ordering::Greater => {
            let can_go = vcpus.iter().rev();
            let can_go = can_go.filter(|vcpu| vcpu.online && vcpu.can_offline);
            can_go
                .take(online - wanted)
                .map(|vcpu| (vcpu.id, false))
                .collect()
        }
    };
    if changes.len() != online.abs_diff(wanted) {
        let why = "Cannot offline enough CPUs";
        return Err(Failure::new(Code::InternalError, why));
    }
    agent::set_vcpus(context, of, &changes).await
}

/// Has the guest use those vCPUs, or not.
pub(super) async fn set_guest(
    context: Arc<Context>,
    call: DomainSetGuestVcpus,
) -> Result<(), Failure> {
    check_flags(call.flags, 0, "virDomainSetGuestVcpus")?;
    let online = match call.state {
        0 => false,
        1 => true,
        other => return Err(invalid_argument(format!("unsupported state '{other}'"))),
    };
    let wanted: CpuSet = call
        .cpumap
        .parse()
        .map_err(|_| invalid_argument("the map names no vCPUs: write numbers and ranges"))?;
    let vcpus = agent::vcpus(&context, &call.domain).await?;
    for id in wanted.iter() {
        let found = vcpus.iter().find(|vcpu| vcpu.id == id);
        let Some(vcpu) = found else {
            let why = format!("guest is missing vCPUs '{id}'");
            return Err(invalid_argument(why));
        };
        if !online && vcpu.online && !vcpu.can_offline {
            let why = format!("vCPU '{id}' can't be offlined");
            return Err(invalid_argument(why));
        }
    }
    let changes: Vec<_> = wanted.iter().map(|id| (id, online)).collect();
    agent::set_vcpus(&context, &call.domain, &changes).await
}

/// Gives a domain one vCPU more or less, by number. A machine has its vCPUs from the first on without a gap, so that
/// only the next one comes and the last one goes.
pub(super) async fn set_one(context: Arc<Context>, call: DomainSetVcpu) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainSetVcpu")?;
    let wanted: CpuSet = call
        .cpumap
        .parse()
        .map_err(|_| invalid_argument("the map names no vCPUs: write numbers and ranges"))?;
    let on = match call.state {
        0 => false,
        1 => true,
        other => return Err(invalid_argument(format!("unsupported state '{other}'"))),
    };
    let summary = context.summary(&call.domain).await?;
    let Impact { live, persistent } = impact_of(&summary, call.flags)?;
    let mut counts = Vec::new();
    if persistent {
        let kept = context.definition(&call.domain, true).await?;
        let (count, most) = (kept.vcpus.count(), kept.max_vcpus.count());
        counts.push(changed(&wanted, on, count, most, false)?);
    }
    if live {
        counts.push(changed(
            &wanted,
            on,
            summary.vcpus,
            summary.max_vcpus,
            true,
        )?);
    }
    let domain = reference(&call.domain);
    // One where both are changed alike, as they mostly are.
    let alike = counts.iter().all(|count| Some(count) == counts.first());
    let places = match (alike, live && persistent) {
        (true, _) | (_, false) => vec![(live, persistent)],
        (false, true) => vec![(false, true), (true, false)],
    };
    for ((live, persistent), count) in places.into_iter().zip(counts) {
        let vcpus = Vcpus::try_from(count).map_err(|error| invalid_argument(error.to_string()))?;
        let set = DomainVcpusSet {
            domain: domain.clone(),
            vcpus,
            live,
            persistent,
        };
        context.of(&call.domain, set).await?;
    }
    Ok(())
}

/// How many vCPUs there are of `most` when those of `count` are on that are `wanted` on, or off.
fn changed(wanted: &CpuSet, on: bool, count: u32, most: u32, live: bool) -> Result<u32, Failure> {
    let place = if live { "live" } else { "persistent" };
    if let Some(strange) = wanted.iter().find(|vcpu| *vcpu >= most) {
        let why = format!("vcpu {strange} is not present in {place} config");
        return Err(invalid_argument(why));
    }
    let unsupported = |why: String| Failure::new(Code::OperationUnsupported, why);
    if wanted.iter().any(|vcpu| vcpu == 0) && !live {
        return Err(invalid_argument("vCPU '0' can't be modified"));
    }
    if let Some(same) = wanted.iter().find(|vcpu| live && (*vcpu < count) == on) {
        let why = format!("vcpu '{same}' is already in requested state");
        return Err(invalid_argument(why));
    }
    if wanted.iter().any(|vcpu| vcpu == 0) {
        return Err(unsupported("vcpu '0' can't be unplugged".to_owned()));
    }
    // What is so already of what is kept stays so.
    let changes: Vec<u32> = wanted.iter().filter(|vcpu| (*vcpu < count) != on).collect();
    let many = u32::try_from(changes.len()).unwrap_or(u32::MAX);
    let (first, after) = match on {
        true => (count, count.saturating_add(many)),
        false => (count.saturating_sub(many), count.saturating_sub(many)),
    };
    match changes.first() {
        // Without a gap: they are as many as from the first to the last.
        Some(lowest) if *lowest != first || changes.last() != Some(&(first + many - 1)) => {
            let why = format!(
                "a machine has its vCPUs from 0 on without a gap: of {count}, {} is the next to {}",
                if on { count } else { count.saturating_sub(1) },
                if on { "come" } else { "go" }
            );
            Err(unsupported(why))
        }
        _ => Ok(after),
    }
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
        if context.read_only {
            let why = "read only access prevents virDomainGetVcpusFlags";
            return Err(Failure::of(Origin::Domain, Code::OperationDenied, why));
        }
        if !context.summary(&call.domain).await?.state.is_active() {
            let why =
                "vCPU count provided by the guest agent can only be requested for live domains";
            return Err(invalid_argument(why));
        }
        return agent::vcpu_count(&context, &call.domain).await;
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

#[cfg(test)]
mod tests {
    use super::changed;

    #[test]
    fn one_vcpu_comes_or_goes_where_no_gap_is_left() {
        let change = |wanted: &str, on, live| {
            let wanted = wanted.parse().unwrap();
            changed(&wanted, on, 2, 4, live).map_err(|failure| failure.message())
        };
        assert_eq!(change("2", true, true), Ok(3));
        assert_eq!(change("2-3", true, true), Ok(4));
        assert_eq!(change("1", false, true), Ok(1));
        assert_eq!(change("1-2", true, false), Ok(3));
        assert_eq!(change("3", false, false), Ok(2));
        let refused = |wanted, on, live| change(wanted, on, live).unwrap_err();
        let strange = "invalid argument: vcpu 4 is not present in live config";
        assert_eq!(refused("4", true, true), strange);
        let first = "invalid argument: vCPU '0' can't be modified";
        assert_eq!(refused("0", false, false), first);
        assert!(refused("0", false, true).ends_with("vcpu '0' can't be unplugged"));
        assert!(refused("1", true, true).ends_with("vcpu '1' is already in requested state"));
        assert!(refused("3", true, true).starts_with("Operation not supported: a machine has"));
    }
}
