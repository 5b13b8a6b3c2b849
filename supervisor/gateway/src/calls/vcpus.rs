//! A domain's vCPUs: how many, and what they do.

use std::sync::Arc;

use reeve_ipc::api::call::{DomainDefine, DomainVcpusSet};
use reeve_ipc::api::figures::FigureGroups;
use reeve_ipc::model::{Domain as Definition, Vcpus};

use super::Context;
use super::context::{Impact, impact, impact_of, reference};
use super::failure::{Code, Failure, check_flags, invalid_argument};
use super::pinning::{map_length, maps, within};
use crate::wire::types::handles::Domain;
use crate::wire::types::tuning::{
    DomainGetVcpus, DomainGetVcpusFlags, DomainSetVcpus, DomainSetVcpusFlags, VcpuInfo,
    Vcpus as VcpuList,
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
