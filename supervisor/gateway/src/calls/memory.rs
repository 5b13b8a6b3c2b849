//! A domain's memory: how much it has, how much it is to have, and what its guest says of it.

use std::sync::Arc;

use reeve_ipc::api::call::{DomainCurrentMemorySet, DomainMaxMemorySet};
use reeve_ipc::api::figures::FigureGroups;
use reeve_ipc::api::view::DeviceStats;
use reeve_ipc::device::{BalloonFigures, DeviceFigures, GuestMemoryFigures};
use reeve_ipc::model::MemorySize;

use super::context::{Impact, impact, reference};
use super::failure::{Code, Failure, check_flags, invalid_argument};
use super::{Context, kib};
use crate::wire::types::handles::Domain;
use crate::wire::types::inspect::{DomainMemoryStats, MemoryStat};
use crate::wire::types::tuning::{
    DomainSetMaxMemory, DomainSetMemory, DomainSetMemoryFlags, DomainSetMemoryStatsPeriod,
};
use crate::wire::xdr::List;

/// Kinds of figures (libvirt `virDomainMemoryStatTags`).
mod tag {
    pub(super) const SWAP_IN: i32 = 0;
    pub(super) const SWAP_OUT: i32 = 1;
    pub(super) const MAJOR_FAULT: i32 = 2;
    pub(super) const MINOR_FAULT: i32 = 3;
    pub(super) const UNUSED: i32 = 4;
    pub(super) const AVAILABLE: i32 = 5;
    pub(super) const ACTUAL_BALLOON: i32 = 6;
    pub(super) const RSS: i32 = 7;
    pub(super) const USABLE: i32 = 8;
    pub(super) const LAST_UPDATE: i32 = 9;
    pub(super) const DISK_CACHES: i32 = 10;
}

/// The balloon's own figures, if there is one.
fn balloon(devices: &[DeviceStats]) -> Option<BalloonFigures> {
    devices.iter().find_map(|device| match device.figures {
        DeviceFigures::Balloon(figures) => Some(figures),
        _ => None,
    })
}

/// What a guest said of its memory, in libvirt's kinds; amounts in KiB.
fn guest(guest: &GuestMemoryFigures, now_s: u64) -> Vec<(i32, u64)> {
    let amounts = [
        (tag::SWAP_IN, guest.swap_in.map(kib)),
        (tag::SWAP_OUT, guest.swap_out.map(kib)),
        (tag::MAJOR_FAULT, guest.major_faults),
        (tag::MINOR_FAULT, guest.minor_faults),
        (tag::UNUSED, guest.free.map(kib)),
        (tag::AVAILABLE, guest.total.map(kib)),
        (tag::USABLE, guest.available.map(kib)),
        (
            tag::LAST_UPDATE,
            Some(now_s.saturating_sub(guest.age_ms / 1000)),
        ),
        (tag::DISK_CACHES, guest.disk_caches.map(kib)),
    ];
    let amounts = amounts.into_iter();
    amounts
        .filter_map(|(tag, value)| Some((tag, value?)))
        .collect()
}

/// The same of a machine with these devices. A guest that has said nothing said it last in 1970.
pub(super) fn said(devices: &[DeviceStats]) -> Vec<(i32, u64)> {
    match balloon(devices) {
        Some(BalloonFigures {
            guest: Some(said), ..
        }) => guest(&said, now_s()),
        Some(_) => vec![(tag::LAST_UPDATE, 0)],
        None => Vec::new(),
    }
}

/// What `domstats` calls a kind of figures, where it has it.
pub(super) const fn balloon_name(tag: i32) -> Option<&'static str> {
    Some(match tag {
        tag::SWAP_IN => "balloon.swap_in",
        tag::SWAP_OUT => "balloon.swap_out",
        tag::MAJOR_FAULT => "balloon.major_fault",
        tag::MINOR_FAULT => "balloon.minor_fault",
        tag::UNUSED => "balloon.unused",
        tag::AVAILABLE => "balloon.available",
        tag::USABLE => "balloon.usable",
        tag::LAST_UPDATE => "balloon.last-update",
        tag::DISK_CACHES => "balloon.disk_caches",
        _ => return None,
    })
}

/// Seconds since 1970.
fn now_s() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

pub(super) async fn stats(
    context: Arc<Context>,
    call: DomainMemoryStats,
) -> Result<List<MemoryStat, 1024>, Failure> {
    check_flags(call.flags, 0, "virDomainMemoryStats")?;
    let groups = FigureGroups {
        usage: true,
        devices: true,
        ..FigureGroups::default()
    };
    let figures = context.active_figures(&call.domain, groups).await?;
    let left = kib(figures.summary.current_memory.bytes());
    let mut stats = vec![(tag::ACTUAL_BALLOON, left)];
    stats.extend(said(&figures.devices));
    if let Some(usage) = figures.usage {
        stats.push((tag::RSS, kib(usage.resident_bytes)));
    }
    let most = usize::try_from(call.max_stats).unwrap_or(usize::MAX);
    let stats = stats.into_iter().take(most);
    Ok(stats
        .map(|(tag, value)| MemoryStat { tag, value })
        .collect())
}

/// Flags of how memory is set (libvirt `virDomainMemoryModFlags`), beside where.
const MAXIMUM: u32 = 4;

pub(super) async fn set(context: Arc<Context>, call: DomainSetMemory) -> Result<(), Failure> {
    change(&context, &call.domain, call.memory, impact::LIVE).await
}

pub(super) async fn set_max(
    context: Arc<Context>,
    call: DomainSetMaxMemory,
) -> Result<(), Failure> {
    change(&context, &call.domain, call.memory, MAXIMUM).await
}

pub(super) async fn set_flags(
    context: Arc<Context>,
    call: DomainSetMemoryFlags,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY | MAXIMUM, "virDomainSetMemoryFlags")?;
    change(&context, &call.domain, call.memory, call.flags).await
}

/// How often a guest is to tell its figures, in seconds. They are asked of it whenever someone looks, so that a
/// machine that runs has no period: any of 0 or more is taken, and changes nothing. In what is kept it would be
/// read again, and is not provided.
pub(super) async fn set_period(
    context: Arc<Context>,
    call: DomainSetMemoryStatsPeriod,
) -> Result<(), Failure> {
    const FUNCTION: &str = "virDomainSetMemoryStatsPeriod";
    check_flags(call.flags, impact::ANY, FUNCTION)?;
    if call.period < 0 {
        let why = format!("period in {FUNCTION} must be zero or greater");
        return Err(invalid_argument(why));
    }
    if context.impact(&call.domain, call.flags).await?.persistent {
        let why = "a guest's memory figures are asked whenever they are wanted: no period is kept";
        return Err(Failure::unsupported_operation(why));
    }
    Ok(())
}

async fn change(
    context: &Context,
    domain: &Domain,
    memory_kib: u64,
    flags: u32,
) -> Result<(), Failure> {
    // A guest has whole pages.
    let pages = memory_kib.checked_next_multiple_of(4);
    let bytes = pages.and_then(|kib| kib.checked_mul(1024));
    let bytes = bytes.filter(|bytes| *bytes > 0);
    let too_much = || invalid_argument(format!("{memory_kib} KiB is no amount of memory"));
    let memory = MemorySize(bytes.ok_or_else(too_much)?);
    let Impact { live, persistent } = context.impact(domain, flags).await?;
    let of = reference(domain);
    if flags & MAXIMUM != 0 {
        if live {
            let why = "cannot resize the maximum memory on an active domain";
            return Err(Failure::new(Code::OperationInvalid, why));
        }
        let set = DomainMaxMemorySet { domain: of, memory };
        return context.of(domain, set).await;
    }
    let set = DomainCurrentMemorySet {
        domain: of,
        memory,
        live,
        persistent,
    };
    context.of(domain, set).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_quoted_in_kib_and_counts_and_only_with_what_it_said() {
        let said = GuestMemoryFigures {
            age_ms: 2500,
            free: Some(3 << 20),
            major_faults: Some(17),
            ..GuestMemoryFigures::default()
        };
        assert_eq!(guest(&said, 100), [(2, 17), (4, 3072), (9, 98)]);
    }
}
