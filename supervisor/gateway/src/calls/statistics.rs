//! What a domain's devices and vCPUs have done, asked for one at a time.

use std::sync::Arc;

use reeve_ipc::api::figures::FigureGroups;
use reeve_ipc::api::view::DeviceStats;
use reeve_ipc::device::{DeviceFigures, DirectionFigures, DiskFigures, NicFigures};
use reeve_ipc::model::DeviceName;
use reeve_ipc::spec::MacAddress;

use super::Context;
use super::failure::{Code, Failure, check_flags, invalid_argument};
use super::params::{TEXT_OKAY, within};
use crate::wire::types::handles::Domain;
use crate::wire::types::inspect as wire;
use crate::wire::types::params::Param;

/// A counter as libvirt's signed ones have it.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// By a call that no guest is asked for: a balloon's answer may never come.
async fn devices(context: &Context, of: &Domain) -> Result<Vec<DeviceStats>, Failure> {
    let groups = FigureGroups {
        devices: true,
        ..FigureGroups::default()
    };
    let figures = context.active_figures(of, groups).await?;
    match figures.answered {
        true => Ok(figures.devices),
        false => {
            let why = "the domain's worker does not answer";
            Err(Failure::new(Code::OperationTimeout, why))
        }
    }
}

/// What the disk has done that `path` means, by its target or its file; an empty one means all together.
async fn disk(context: &Context, of: &Domain, path: &str) -> Result<DiskFigures, Failure> {
    let all = devices(context, of).await?;
    let disks = all.iter().filter_map(|device| match device.figures {
        DeviceFigures::Disk(figures) => Some((&device.device, figures)),
        _ => None,
    });
    if path.is_empty() {
        return Ok(disks.fold(DiskFigures::default(), |sum, (_, disk)| added(sum, disk)));
    }
    let mut disks = disks.collect::<Vec<_>>().into_iter();
    let target =
        |name: &DeviceName| matches!(name, DeviceName::Disk(target) if target.as_str() == path);
    let found = disks.find(|(name, _)| target(name));
    if let Some((_, figures)) = found {
        return Ok(figures);
    }
    let unknown = || invalid_argument(format!("invalid path: {path}"));
    let definition = context.definition(of, false).await?;
    let by_file = definition.devices.disks.iter().find(|disk| {
        let image = disk.image.as_ref();
        image.is_some_and(|image| image.path.as_os_str() == path)
    });
    let target = &by_file.ok_or_else(unknown)?.target;
    let named = DeviceName::Disk(target.clone());
    let mut all = all.iter();
    let found = all.find(|device| device.device == named);
    match found.ok_or_else(unknown)?.figures {
        DeviceFigures::Disk(figures) => Ok(figures),
        _ => Err(unknown()),
    }
}

fn added(mut sum: DiskFigures, disk: DiskFigures) -> DiskFigures {
    let pairs = [
        (&mut sum.reads, disk.reads),
        (&mut sum.writes, disk.writes),
        (&mut sum.flushes, disk.flushes),
        (&mut sum.discards, disk.discards),
    ];
    for (sum, more) in pairs {
        sum.operations = sum.operations.wrapping_add(more.operations);
        sum.bytes = sum.bytes.wrapping_add(more.bytes);
        sum.nanoseconds = sum.nanoseconds.wrapping_add(more.nanoseconds);
        sum.errors = sum.errors.wrapping_add(more.errors);
    }
    sum
}

/// Requests that failed, of every kind.
fn errors(disk: &DiskFigures) -> u64 {
    let kinds = [disk.reads, disk.writes, disk.flushes, disk.discards];
    let errors = kinds.iter().map(|kind| kind.errors);
    errors.fold(0, u64::wrapping_add)
}

pub(super) async fn block(
    context: Arc<Context>,
    call: wire::DomainBlockStats,
) -> Result<wire::BlockStats, Failure> {
    let disk = disk(&context, &call.domain, &call.path).await?;
    Ok(wire::BlockStats {
        rd_req: signed(disk.reads.operations),
        rd_bytes: signed(disk.reads.bytes),
        wr_req: signed(disk.writes.operations),
        wr_bytes: signed(disk.writes.bytes),
        // libvirt's own drivers do not know, and say so.
        errs: signed(errors(&disk)),
    })
}

pub(super) async fn block_flags(
    context: Arc<Context>,
    call: wire::DomainBlockStatsFlags,
) -> Result<wire::BlockStatsParams, Failure> {
    check_flags(call.flags, TEXT_OKAY, "virDomainBlockStatsFlags")?;
    let disk = disk(&context, &call.domain, &call.path).await?;
    let params = vec![
        Param::new("wr_bytes", signed(disk.writes.bytes)),
        Param::new("wr_operations", signed(disk.writes.operations)),
        Param::new("rd_bytes", signed(disk.reads.bytes)),
        Param::new("rd_operations", signed(disk.reads.operations)),
        Param::new("flush_operations", signed(disk.flushes.operations)),
        Param::new("wr_total_times", signed(disk.writes.nanoseconds)),
        Param::new("rd_total_times", signed(disk.reads.nanoseconds)),
        Param::new("flush_total_times", signed(disk.flushes.nanoseconds)),
        Param::new("errs", signed(errors(&disk))),
    ];
    let (params, nparams) = within(params, call.nparams);
    Ok(wire::BlockStatsParams {
        params: params.into(),
        nparams,
    })
}

/// What the interface has done that `device` means, by its name on the host or its address.
pub(super) async fn interface(
    context: Arc<Context>,
    call: wire::DomainInterfaceStats,
) -> Result<wire::InterfaceStats, Failure> {
    let all = devices(&context, &call.domain).await?;
    let address: Option<MacAddress> = call.device.parse().ok();
    let found = all.iter().find_map(|device| match device.figures {
        DeviceFigures::Nic(figures) => {
            let by_name = device.host.as_deref() == Some(call.device.as_str());
            let by_address = address.is_some_and(|mac| device.device == DeviceName::Nic(mac));
            (by_name || by_address).then_some(figures)
        }
        _ => None,
    });
    let unknown = || {
        invalid_argument(format!(
            "invalid path, '{}' is not a known interface",
            call.device
        ))
    };
    let NicFigures { received, sent, .. } = found.ok_or_else(unknown)?;
    Ok(wire::InterfaceStats {
        rx_bytes: signed(received.bytes),
        rx_packets: signed(received.packets),
        rx_errs: signed(received.errors),
        rx_drop: signed(received.drops),
        tx_bytes: signed(sent.bytes),
        tx_packets: signed(sent.packets),
        tx_errs: signed(sent.errors),
        tx_drop: signed(sent.drops),
    })
}

/// The figures of one direction, under libvirt's names.
pub(super) fn direction(prefix: &str, figures: &DirectionFigures) -> [Param; 4] {
    [
        Param::new(format!("{prefix}.bytes"), figures.bytes),
        Param::new(format!("{prefix}.pkts"), figures.packets),
        Param::new(format!("{prefix}.errs"), figures.errors),
        Param::new(format!("{prefix}.drop"), figures.drops),
    ]
}

/// No disk stops its guest for an error of the host: the guest is told.
pub(super) async fn disk_errors(
    context: Arc<Context>,
    call: wire::DomainGetDiskErrors,
) -> Result<wire::DiskErrors, Failure> {
    check_flags(call.flags, 0, "virDomainGetDiskErrors")?;
    context.active(&call.domain).await?;
    let disks = context.definition(&call.domain, false).await?.devices.disks;
    // Asked with room for none, how many there may be.
    let nerrors = match call.max_errors {
        0 => i32::try_from(disks.len()).unwrap_or(i32::MAX),
        _ => 0,
    };
    Ok(wire::DiskErrors {
        errors: Vec::new().into(),
        nerrors,
    })
}

/// What a domain's CPU time went to: without a first CPU that of the whole domain. By CPU of the host nobody
/// keeps it.
pub(super) async fn cpu(
    context: Arc<Context>,
    call: wire::DomainGetCpuStats,
) -> Result<wire::CpuStats, Failure> {
    check_flags(call.flags, TEXT_OKAY, "virDomainGetCPUStats")?;
    let groups = FigureGroups {
        usage: true,
        ..FigureGroups::default()
    };
    let figures = context.active_figures(&call.domain, groups).await?;
    if call.start_cpu >= 0 && call.ncpus == 1 && call.nparams == 0 {
        // How many there are of each CPU: some clients ask for that whatever they want.
        return Ok(wire::CpuStats {
            params: Vec::new().into(),
            nparams: 1,
        });
    }
    if call.start_cpu >= 0 {
        // As libvirt refuses it on a host whose cgroups are of version 2.
        let why = "the host's cgroups keep no times by CPU";
        return Err(Failure::new(Code::OperationUnsupported, why));
    }
    // Its worker has ended by now, where there is none.
    let usage = figures.usage.ok_or_else(Failure::not_running)?;
    let params = vec![
        Param::new("cpu_time", usage.cpu_time_ns),
        Param::new("user_time", usage.user_ns),
        Param::new("system_time", usage.system_ns),
    ];
    let room = i32::try_from(call.nparams).unwrap_or(i32::MAX);
    let (params, nparams) = within(params, room);
    Ok(wire::CpuStats {
        params: params.into(),
        nparams,
    })
}
