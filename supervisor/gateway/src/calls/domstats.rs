//! The figures of many domains in one call, for clients that look every few seconds.

use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::api::call::{DiskSize, DomainDiskSizeGet, DomainFiguresList, DomainRef};
use reeve_ipc::api::figures::{DomainFigures, FigureGroups, FiguresOf, VcpuFigures, VcpuState};
use reeve_ipc::api::view::DeviceStats;
use reeve_ipc::device::DeviceFigures;
use reeve_ipc::model::{DeviceName, DiskTarget};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::context::{handle, reference};
use super::failure::{Failure, check_flags};
use super::list::{FILTERS, active_only, passes};
use super::statistics::direction;
use super::{Context, kib, memory, state};
use crate::wire::types::DOMAINS_MAX;
use crate::wire::types::handles::Domain;
use crate::wire::types::inspect::{ConnectGetAllDomainStats, DomainStats};
use crate::wire::types::params::Param;
use crate::wire::xdr::List;

/// Groups of figures (libvirt `virDomainStatsTypes`). Nothing is counted for the others.
mod group {
    pub(super) const STATE: u32 = 0x1;
    pub(super) const CPU: u32 = 0x2;
    pub(super) const BALLOON: u32 = 0x4;
    pub(super) const VCPU: u32 = 0x8;
    pub(super) const INTERFACE: u32 = 0x10;
    pub(super) const BLOCK: u32 = 0x20;
    /// Of a domain whose performance events are all off there is nothing in it.
    pub(super) const PERF: u32 = 0x40;
    /// What only some kinds of hypervisor say of a machine: libvirtd takes it, and says nothing.
    pub(super) const VM: u32 = 0x400;
    /// How fast a guest writes its memory, which nobody has looked at.
    pub(super) const DIRTY_RATE: u32 = 0x200;
    pub(super) const HERE: u32 =
        STATE | CPU | BALLOON | VCPU | INTERFACE | BLOCK | PERF | DIRTY_RATE | VM;
    /// Every group that libvirt has.
    pub(super) const KNOWN: u32 = 0x7ff;
}

/// Domains that would hold the answer up are left out of what only their workers know: none is waited for
/// longer than half a second in any case.
const NO_WAIT: u32 = 1 << 29;
/// What disks build upon is wanted too: the figures are those of whole disks.
const BACKING: u32 = 1 << 30;
/// A group that there is not is an error.
const ENFORCE: u32 = 1 << 31;
/// How long the sizes of one domain's disks are waited for, which its worker and its file systems know.
const SIZES: Duration = Duration::from_millis(500);
/// Definitions that are asked for at a time.
const TOGETHER: usize = 8;
/// Domains of one question.
const PAGE: usize = reeve_ipc::api::MAX_PAGE;

pub(super) async fn all(
    context: Arc<Context>,
    call: ConnectGetAllDomainStats,
) -> Result<List<DomainStats, DOMAINS_MAX>, Failure> {
    let flags = FILTERS | NO_WAIT | BACKING | ENFORCE;
    check_flags(call.flags, flags, "virConnectGetAllDomainStats")?;
    let wanted = match call.stats {
        0 => group::HERE,
        stats => stats,
    };
    let missing = wanted & !group::HERE;
    if wanted & !group::KNOWN != 0 || (missing != 0 && call.flags & ENFORCE != 0) {
        let why = format!("Stats types bits 0x{missing:x} are not supported by this daemon");
        return Err(Failure::new(super::failure::Code::ArgumentUnsupported, why));
    }
    let groups = FigureGroups {
        usage: wanted & (group::CPU | group::BALLOON) != 0,
        vcpus: wanted & group::VCPU != 0,
        devices: wanted & (group::BALLOON | group::INTERFACE | group::BLOCK) != 0,
    };
    let figures = match call.domains.0.as_slice() {
        [] => every(&context, groups, active_only(call.flags)).await?,
        some => {
            let refs: Vec<DomainRef> = some.iter().map(reference).collect();
            these(&context, groups, &refs).await?
        }
    };
    let passing = figures
        .into_iter()
        .filter(|figures| passes(&figures.summary, call.flags & FILTERS));
    let figures: Vec<_> = passing.collect();
    let files = match wanted & group::BLOCK {
        0 => Vec::new(),
        _ => files(&context, &figures).await,
    };
    let mut files = files.into_iter();
    let records = figures.iter().map(|figures| DomainStats {
        domain: handle(&figures.summary),
        params: record(figures, &files.next().unwrap_or_default(), wanted).into(),
    });
    Ok(records.collect())
}

async fn every(
    context: &Context,
    groups: FigureGroups,
    active_only: bool,
) -> Result<Vec<DomainFigures>, Failure> {
    let mut all: Vec<DomainFigures> = Vec::new();
    loop {
        let after = all.last().map(|last| last.summary.name.clone());
        let of = FiguresOf::All { after, active_only };
        let page = context.call(DomainFiguresList { of, groups }).await?;
        let more = page.more && !page.domains.is_empty();
        all.extend(page.domains);
        if !more {
            return Ok(all);
        }
    }
}

async fn these(
    context: &Context,
    groups: FigureGroups,
    mut refs: &[DomainRef],
) -> Result<Vec<DomainFigures>, Failure> {
    let mut all = Vec::new();
    while !refs.is_empty() {
        let some = refs.get(..PAGE).unwrap_or(refs);
        let of = FiguresOf::Named(some.to_vec());
        let page = context.call(DomainFiguresList { of, groups }).await?;
        all.extend(page.domains);
        // A page of none would be asked for for ever.
        let done = usize::try_from(page.of).unwrap_or(0).max(1);
        refs = refs.get(done..).unwrap_or_default();
    }
    Ok(all)
}

/// The file that a disk is in.
#[derive(Debug, Clone)]
struct DiskFile {
    disk: DiskTarget,
    path: String,
    /// Its number among all the files that disks build upon, from 1.
    index: u32,
    /// Where it could be had in time.
    size: Option<DiskSize>,
}

/// The files that disks are in.
type Files = Vec<DiskFile>;

/// The files of each of these domains, in their order. Of one without disks nothing is asked.
async fn files(context: &Arc<Context>, domains: &[DomainFigures]) -> Vec<Files> {
    let is_disk = |device: &DeviceStats| matches!(device.device, DeviceName::Disk(_));
    let mut all = vec![Files::new(); domains.len()];
    let mut asked = JoinSet::new();
    for (index, figures) in domains.iter().enumerate() {
        if !figures.devices.iter().any(is_disk) {
            continue;
        }
        if asked.len() >= TOGETHER {
            take(&mut all, asked.join_next().await);
        }
        let (context, domain) = (Arc::clone(context), handle(&figures.summary));
        asked.spawn(async move { (index, of(&context, &domain).await) });
    }
    while let Some(answered) = asked.join_next().await {
        take(&mut all, Some(answered));
    }
    all
}

fn take(all: &mut [Files], answered: Option<Result<(usize, Files), JoinError>>) {
    if let Some(Ok((index, files))) = answered {
        if let Some(place) = all.get_mut(index) {
            *place = files;
        }
    }
}

async fn of(context: &Context, domain: &Domain) -> Files {
    let Ok(definition) = context.definition(domain, false).await else {
        // It is gone by now.
        return Files::new();
    };
    let deadline = Instant::now() + SIZES;
    let mut files = Files::new();
    let mut index: u32 = 1;
    for disk in definition.devices.disks {
        let Some(image) = disk.image else {
            continue;
        };
        let own = index;
        index = index.saturating_add(count(disk.backing.len()).saturating_add(1));
        let get = DomainDiskSizeGet {
            domain: reference(domain),
            disk: disk.target.clone(),
        };
        let size = timeout_at(deadline, context.call(get)).await;
        files.push(DiskFile {
            disk: disk.target,
            path: image.path.to_string_lossy().into_owned(),
            index: own,
            size: size.ok().and_then(Result::ok),
        });
    }
    files
}

/// The figures of one domain under libvirt's names.
fn record(figures: &DomainFigures, files: &Files, wanted: u32) -> Vec<Param> {
    let mut params = Vec::new();
    let summary = &figures.summary;
    if wanted & group::STATE != 0 {
        let (state, reason) = state::numbers(summary.state);
        params.push(Param::new("state.state", state));
        params.push(Param::new("state.reason", reason));
    }
    let active = summary.state.is_active();
    if wanted & group::CPU != 0 {
        // One that is off has had none.
        let usage = figures.usage.unwrap_or_default();
        params.push(Param::new("cpu.time", usage.cpu_time_ns));
        params.push(Param::new("cpu.user", usage.user_ns));
        params.push(Param::new("cpu.system", usage.system_ns));
        if active {
            // No definition can ask for a monitor of its caches.
            params.push(Param::new("cpu.cache.monitor.count", 0_u32));
        }
    }
    if wanted & group::BALLOON != 0 {
        balloon(figures, &mut params);
    }
    if wanted & group::VCPU != 0 {
        params.push(Param::new("vcpu.current", summary.vcpus));
        params.push(Param::new("vcpu.maximum", summary.max_vcpus));
        for vcpu in &figures.vcpus {
            of_vcpu(vcpu, &mut params);
        }
    }
    if wanted & group::INTERFACE != 0 {
        interfaces(figures, &mut params);
    }
    if wanted & group::BLOCK != 0 {
        disks(figures, files, &mut params);
    }
    if active && wanted & group::DIRTY_RATE != 0 {
        // Not begun, as of a guest that nobody has looked at.
        params.push(Param::new("dirtyrate.calc_status", 0_i32));
        params.push(Param::new("dirtyrate.calc_start_time", 0_i64));
        params.push(Param::new("dirtyrate.calc_period", 0_i32));
        params.push(Param::new("dirtyrate.calc_mode", "page-sampling"));
    }
    params
}

fn balloon(figures: &DomainFigures, params: &mut Vec<Param>) {
    let summary = &figures.summary;
    let (current, most) = (summary.current_memory, summary.max_memory);
    params.push(Param::new("balloon.current", kib(current.bytes())));
    let most = kib(most.bytes());
    params.push(Param::new("balloon.maximum", most));
    for (tag, value) in memory::said(&figures.devices) {
        if let Some(name) = memory::balloon_name(tag) {
            params.push(Param::new(name, value));
        }
    }
    if let Some(usage) = figures.usage {
        params.push(Param::new("balloon.rss", kib(usage.resident_bytes)));
    }
}

/// The state of a vCPU in libvirt's numbers (`virVcpuState`).
pub(super) const fn vcpu_state(state: VcpuState) -> i32 {
    match state {
        VcpuState::Running => 1,
        VcpuState::Blocked => 2,
    }
}

fn of_vcpu(vcpu: &VcpuFigures, params: &mut Vec<Param>) {
    let name = |what: &str| format!("vcpu.{}.{what}", vcpu.stats.vcpu);
    params.push(Param::new(name("state"), vcpu_state(vcpu.state)));
    params.push(Param::new(name("time"), vcpu.stats.run_ns));
    if let Some(wait) = vcpu.stats.wait_ns {
        // libvirt's wait is for the host's disks; for its CPUs there is delay.
        params.push(Param::new(name("delay"), wait));
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn interfaces(figures: &DomainFigures, params: &mut Vec<Param>) {
    let nics = figures.devices.iter();
    let nics = nics.filter(|device| matches!(device.device, DeviceName::Nic(_)));
    let nics: Vec<_> = nics.collect();
    params.push(Param::new("net.count", count(nics.len())));
    for (index, nic) in nics.into_iter().enumerate() {
        if let Some(host) = &nic.host {
            params.push(Param::new(format!("net.{index}.name"), host.as_str()));
        }
        if let DeviceFigures::Nic(figures) = nic.figures {
            params.extend(direction(&format!("net.{index}.rx"), &figures.received));
            params.extend(direction(&format!("net.{index}.tx"), &figures.sent));
        }
    }
}

fn disks(figures: &DomainFigures, files: &Files, params: &mut Vec<Param>) {
    let disks = figures.devices.iter();
    let disks = disks.filter_map(|device| match &device.device {
        DeviceName::Disk(target) => Some((target, device.figures)),
        _ => None,
    });
    let disks: Vec<_> = disks.collect();
    params.push(Param::new("block.count", count(disks.len())));
    for (index, (target, figures)) in disks.into_iter().enumerate() {
        let name = |what: &str| format!("block.{index}.{what}");
        params.push(Param::new(name("name"), target.as_str()));
        let file = files.iter().find(|file| file.disk == *target);
        if let Some(file) = file {
            params.push(Param::new(name("path"), file.path.as_str()));
            params.push(Param::new(name("backingIndex"), file.index));
        }
        if let DeviceFigures::Disk(disk) = figures {
            params.push(Param::new(name("rd.reqs"), disk.reads.operations));
            params.push(Param::new(name("rd.bytes"), disk.reads.bytes));
            params.push(Param::new(name("rd.times"), disk.reads.nanoseconds));
            params.push(Param::new(name("wr.reqs"), disk.writes.operations));
            params.push(Param::new(name("wr.bytes"), disk.writes.bytes));
            params.push(Param::new(name("wr.times"), disk.writes.nanoseconds));
            params.push(Param::new(name("fl.reqs"), disk.flushes.operations));
            params.push(Param::new(name("fl.times"), disk.flushes.nanoseconds));
        }
        if let Some(size) = file.and_then(|file| file.size) {
            params.push(Param::new(name("allocation"), size.allocation));
            params.push(Param::new(name("capacity"), size.capacity));
            params.push(Param::new(name("physical"), size.physical));
        }
    }
}
