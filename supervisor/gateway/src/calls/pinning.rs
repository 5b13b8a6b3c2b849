//! Where a domain's threads run: each vCPU, and those that are no vCPU's.

use std::sync::Arc;

use reeve_ipc::api::call::{DomainTune, TuningChange};
use reeve_ipc::api::host::HostInfo;
use reeve_ipc::model::{CpuSet, Domain as Definition};

use super::Context;
use super::context::{Impact, impact, reference};
use super::failure::{Failure, check_flags, invalid_argument};
use crate::wire::types::CPU_MAPS_MAX;
use crate::wire::types::handles::Domain;
use crate::wire::types::tuning as wire;

/// Tunes the machine that runs, the definition that is kept or both, each by what `changes` says of it.
///
/// # Errors
/// As for [`Context::impact`], those of `changes`, or the supervisor's.
pub(super) async fn tune(
    context: &Context,
    of: &Domain,
    flags: u32,
    changes: impl Fn(&Definition) -> Result<Vec<TuningChange>, Failure> + Send + Sync,
) -> Result<(), Failure> {
    let Impact { live, persistent } = context.impact(of, flags).await?;
    let wanted = |persistent| {
        let changes = &changes;
        async move { changes(&context.definition(of, persistent).await?) }
    };
    let call = |changes, live, persistent| DomainTune {
        domain: reference(of),
        changes,
        live,
        persistent,
    };
    let first = wanted(!live).await?;
    if live && persistent {
        let kept = wanted(true).await?;
        if kept != first {
            context.of(of, call(first, true, false)).await?;
            return context.of(of, call(kept, false, true)).await;
        }
    }
    match first.is_empty() {
        true => Ok(()),
        false => context.of(of, call(first, live, persistent)).await,
    }
}

/// Binds one kind of threads, without looking at what there is.
async fn bind(
    context: &Context,
    of: &Domain,
    flags: u32,
    change: TuningChange,
) -> Result<(), Failure> {
    let Impact { live, persistent } = context.impact(of, flags).await?;
    let call = DomainTune {
        domain: reference(of),
        changes: vec![change],
        live,
        persistent,
    };
    context.of(of, call).await
}

async fn pin(
    context: &Context,
    of: &Domain,
    vcpu: u32,
    map: &[u8],
    flags: u32,
) -> Result<(), Failure> {
    let cpus = Some(set_of(map)?);
    bind(context, of, flags, TuningChange::VcpuCpus { vcpu, cpus }).await
}

pub(super) async fn vcpu(context: Arc<Context>, call: wire::DomainPinVcpu) -> Result<(), Failure> {
    pin(
        &context,
        &call.domain,
        call.vcpu,
        &call.cpumap.0,
        impact::LIVE,
    )
    .await
}

pub(super) async fn vcpu_flags(
    context: Arc<Context>,
    call: wire::DomainPinVcpuFlags,
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

pub(super) async fn emulator(
    context: Arc<Context>,
    call: wire::DomainPinEmulator,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainPinEmulator")?;
    let change = TuningChange::EmulatorCpus(Some(set_of(&call.cpumap.0)?));
    bind(&context, &call.domain, call.flags, change).await
}

/// The map of some CPUs; of every one that runs, where none are said.
fn map_or_all(cpus: Option<&CpuSet>, host: &HostInfo, length: usize) -> Vec<u8> {
    map_of(cpus.unwrap_or(&host.online).iter(), length)
}

/// Where each of a domain's first vCPUs may run: anywhere, where nothing is said.
pub(super) fn maps(definition: &Definition, host: &HostInfo, vcpus: u32, length: usize) -> Vec<u8> {
    let map = |vcpu| {
        let mut pins = definition.pinning.iter();
        let pin = pins.find(|pin| pin.vcpu == vcpu);
        map_or_all(pin.map(|pin| &pin.cpus), host, length)
    };
    (0..vcpus).flat_map(map).collect()
}

/// How many of something there are to be, by a client's word and by what there is.
pub(super) fn within(asked: i32, count: u32, what: &str) -> Result<u32, Failure> {
    let asked = u32::try_from(asked);
    let asked = asked.map_err(|_| invalid_argument(format!("{what} must not be negative")))?;
    Ok(asked.min(count))
}

/// The bytes of a map, if so many of them fit a reply.
pub(super) fn map_length(asked: i32, maps: u32) -> Result<usize, Failure> {
    let length = usize::try_from(asked).unwrap_or(0);
    let all = usize::try_from(maps)
        .unwrap_or(usize::MAX)
        .checked_mul(length);
    match all {
        Some(all) if all <= CPU_MAPS_MAX => Ok(length),
        _ => Err(invalid_argument("maps of CPUs that do not fit a reply")),
    }
}

/// Of every vCPU that the domain can have, those with them that are not there yet.
pub(super) async fn vcpus(
    context: Arc<Context>,
    call: wire::DomainGetVcpuPinInfo,
) -> Result<wire::VcpuPinInfo, Failure> {
    check_flags(call.flags, impact::ANY, "virDomainGetVcpuPinInfo")?;
    let definition = context.meant(&call.domain, call.flags);
    let (definition, host) = tokio::join!(definition, super::connect::host(&context));
    let (definition, host) = (definition?, host?);
    let num = within(call.ncpumaps, definition.max_vcpus.count(), "ncpumaps")?;
    let length = map_length(call.maplen, num)?;
    Ok(wire::VcpuPinInfo {
        cpumaps: maps(&definition, &host, num, length).into(),
        num: i32::try_from(num).unwrap_or(i32::MAX),
    })
}

pub(super) async fn emulator_info(
    context: Arc<Context>,
    call: wire::DomainGetEmulatorPinInfo,
) -> Result<wire::EmulatorPinInfo, Failure> {
    check_flags(call.flags, impact::ANY, "virDomainGetEmulatorPinInfo")?;
    let definition = context.meant(&call.domain, call.flags);
    let (definition, host) = tokio::join!(definition, super::connect::host(&context));
    let (definition, host) = (definition?, host?);
    let length = map_length(call.maplen, 1)?;
    let cpus = definition.tuning.emulator_cpus.as_ref();
    Ok(wire::EmulatorPinInfo {
        cpumaps: map_or_all(cpus, &host, length).into(),
        ret: 1,
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
