//! Devices of a domain that is there: given, taken, changed and counted.

use std::path::PathBuf;

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{
    DomainDefinitionGet, DomainDeviceAttach, DomainDeviceDetach, DomainDeviceStatsGet,
    DomainDeviceUpdate, DomainGet, DomainMediumChange, DomainRef, DomainVcpuStatsGet,
};
use reeve_ipc::api::view::{DeviceStats, DomainDefinition, DomainSummary};
use reeve_ipc::device::{DeviceChange, DeviceFigures, GuestMemoryFigures};
use reeve_ipc::model::{Device, DeviceName, Devices, Medium, MemorySize, NicSource};
use serde_json::{Value, json};

use super::args::{AttachArgs, ChangeMediaArgs, DetachArgs, ResizeArgs, UpdateArgs};
use super::file::resolved;
use super::show::human;
use super::table::Table;
use super::vcpus;
use super::{CommandError, Output, json as print_json, print};

pub(super) fn attach(
    connection: &mut Connection,
    out: Output,
    args: &AttachArgs,
) -> Result<(), CommandError> {
    let summary = summary(connection, &args.domain)?;
    let (live, persistent) = reach(&summary, args.persistent);
    let there: Vec<Box<DomainDefinition>> = [(live, false), (persistent, true)]
        .into_iter()
        .filter(|(meant, _)| *meant)
        .filter_map(|(_, persistent)| {
            let domain = args.domain.clone();
            // One that is not there is refused with the device.
            connection
                .call(DomainDefinitionGet { domain, persistent })
                .ok()
        })
        .collect();
    let there: Vec<&Devices> = there.iter().map(|kept| &kept.domain.devices).collect();
    let device = args.device.device(&there);
    let mut device = device.ok_or_else(|| CommandError::Usage("name a device".to_owned()))?;
    for path in paths(&mut device) {
        *path = resolved(path)?;
    }
    connection.call(DomainDeviceAttach {
        domain: args.domain.clone(),
        device: Box::new(device),
        live,
        persistent,
    })?;
    done(out, &summary)
}

/// The paths in it: the daemon has another working directory than whoever wrote them.
fn paths(device: &mut Device) -> Vec<&mut PathBuf> {
    match device {
        Device::Disk(disk) => {
            let layers = disk.image.iter_mut().chain(&mut disk.backing);
            layers.map(|layer| &mut layer.path).collect()
        }
        Device::Nic(nic) => match &mut nic.source {
            NicSource::Switch(path) => vec![path],
            _ => Vec::new(),
        },
        Device::Rng(_) | Device::Balloon(_) => Vec::new(),
        Device::Vsock(vsock) => vec![&mut vsock.path],
        Device::Share(share) => vec![&mut share.source],
        Device::Channel(channel) => vec![&mut channel.path],
        Device::Console(console) => vec![&mut console.path],
    }
}

pub(super) fn detach(
    connection: &mut Connection,
    out: Output,
    args: &DetachArgs,
) -> Result<(), CommandError> {
    let summary = summary(connection, &args.domain)?;
    let (live, persistent) = reach(&summary, args.persistent);
    connection.call(DomainDeviceDetach {
        domain: args.domain.clone(),
        device: args.device.clone(),
        force: args.force,
        live,
        persistent,
    })?;
    done(out, &summary)
}

pub(super) fn update(
    connection: &mut Connection,
    out: Output,
    args: &UpdateArgs,
) -> Result<(), CommandError> {
    if args.change.eject || args.change.insert.is_some() {
        let (domain, medium) = (&args.domain, args.change.insert.as_ref());
        return put_in(
            connection,
            out,
            domain,
            &args.device,
            medium,
            args.persistent,
        );
    }
    let link = args.change.link.map(|up| DeviceChange::Link { up });
    let throttle = args.change.throttle.map(DeviceChange::DiskThrottle);
    let rates = args.change.rates.map(|(inbound, outbound)| {
        // Both are said, since what is not limited is that, too.
        DeviceChange::NicRates { inbound, outbound }
    });
    let change = link.or(throttle).or(rates);
    let change = change.ok_or_else(|| CommandError::Usage("name a change".to_owned()))?;
    let summary = summary(connection, &args.domain)?;
    let (live, persistent) = reach(&summary, args.persistent);
    connection.call(DomainDeviceUpdate {
        domain: args.domain.clone(),
        device: args.device.clone(),
        change,
        live,
        persistent,
    })?;
    done(out, &summary)
}

pub(super) fn resize(
    connection: &mut Connection,
    out: Output,
    args: &ResizeArgs,
) -> Result<(), CommandError> {
    let summary = summary(connection, &args.domain)?;
    connection.call(DomainDeviceUpdate {
        domain: args.domain.clone(),
        device: args.disk.clone(),
        change: DeviceChange::DiskSize {
            bytes: args.size.map(MemorySize::bytes),
            shrink: args.shrink,
        },
        live: true,
        persistent: false,
    })?;
    done(out, &summary)
}

pub(super) fn change_media(
    connection: &mut Connection,
    out: Output,
    args: &ChangeMediaArgs,
) -> Result<(), CommandError> {
    let (domain, medium) = (&args.domain, args.medium.insert.as_ref());
    put_in(connection, out, domain, &args.disk, medium, args.persistent)
}

/// Puts a medium into a disk, or takes the one that is there out.
fn put_in(
    connection: &mut Connection,
    out: Output,
    domain: &DomainRef,
    disk: &DeviceName,
    medium: Option<&Medium>,
    persistent: bool,
) -> Result<(), CommandError> {
    let summary = summary(connection, domain)?;
    let (live, persistent) = reach(&summary, persistent);
    let mut medium = medium.cloned();
    if let Some(medium) = &mut medium {
        let paths = medium.backing.iter_mut().map(|layer| &mut layer.path);
        for path in paths.chain([&mut medium.image.path]) {
            *path = resolved(path)?;
        }
    }
    connection.call(DomainMediumChange {
        domain: domain.clone(),
        device: disk.clone(),
        medium: medium.map(Box::new),
        live,
        persistent,
    })?;
    done(out, &summary)
}

pub(super) fn summary(
    connection: &mut Connection,
    domain: &DomainRef,
) -> Result<DomainSummary, CommandError> {
    let domain = domain.clone();
    Ok(connection.call(DomainGet { domain })?.summary)
}

/// Whether the machine and the kept definition are meant. Of a domain that is off there is only the one.
const fn reach(summary: &DomainSummary, persistent: bool) -> (bool, bool) {
    (summary.state.is_active() || !persistent, persistent)
}

pub(super) fn done(out: Output, summary: &DomainSummary) -> Result<(), CommandError> {
    let value = json!({ "name": summary.name, "uuid": summary.uuid, "result": "ok" });
    out.value(&value, String::new)
}

pub(super) fn stats(
    connection: &mut Connection,
    out: Output,
    domain: &DomainRef,
) -> Result<(), CommandError> {
    let stats = connection.call(DomainDeviceStatsGet {
        domain: domain.clone(),
    })?;
    let vcpus = connection.call(DomainVcpuStatsGet {
        domain: domain.clone(),
    })?;
    if out.json {
        let values = vcpus.iter().map(vcpus::json);
        let values: Vec<Value> = values.chain(stats.iter().map(device_json)).collect();
        return print_json(&values);
    }
    let vcpus = vcpus::table(&vcpus);
    let both = [vcpus.as_str(), &tables(&stats)];
    let shown: Vec<&str> = both.into_iter().filter(|text| !text.is_empty()).collect();
    print(&shown.join("\n"))
}

/// One object for a device; the figures beside what it is.
fn device_json(stats: &DeviceStats) -> Value {
    let (kind, figures) = match &stats.figures {
        DeviceFigures::Disk(disk) => ("disk", json!(disk)),
        DeviceFigures::Nic(nic) => ("nic", json!(nic)),
        DeviceFigures::Balloon(balloon) => ("balloon", json!(balloon)),
        DeviceFigures::Memory(memory) => ("memory", json!(memory)),
        DeviceFigures::Port(port) => (kind(&stats.device), json!(port)),
        // How each of them stands is told with it.
        DeviceFigures::Ports(_) | DeviceFigures::None => (kind(&stats.device), json!({})),
    };
    json!({
        "device": stats.device,
        "address": stats.slot,
        "kind": kind,
        "host": stats.host,
        "figures": figures,
    })
}

const fn kind(device: &DeviceName) -> &'static str {
    match device {
        DeviceName::Disk(_) => "disk",
        DeviceName::Nic(_) | DeviceName::Interface(_) => "nic",
        DeviceName::Rng => "rng",
        DeviceName::Balloon => "balloon",
        DeviceName::Vsock => "vsock",
        DeviceName::Ports => "ports",
        DeviceName::Share(_) => "share",
        DeviceName::Watchdog => "watchdog",
        DeviceName::Channel(_) => "channel",
        DeviceName::Console(_) => "console",
        DeviceName::Memory => "memory",
        DeviceName::Slot(_) => "other",
    }
}

/// A table for each kind of which there is a device.
fn tables(stats: &[DeviceStats]) -> String {
    let mut disks = Table::new(&[
        "DISK", "ADDRESS", "READ", "READS", "WRITTEN", "WRITES", "FLUSHES", "DISCARDS", "ERRORS",
    ]);
    let mut nics = Table::new(&[
        "INTERFACE",
        "ADDRESS",
        "HOST",
        "RECEIVED",
        "FRAMES",
        "SENT",
        "FRAMES",
        "ERRORS",
        "DROPS",
    ]);
    let mut balloons = Table::new(&[
        "BALLOON",
        "ADDRESS",
        "HOLDS",
        "TARGET",
        "GUEST FREE",
        "GUEST AVAILABLE",
        "GUEST TOTAL",
    ]);
    let mut ports = Table::new(&["PORT", "ADDRESS", "NUMBER", "HOST", "GUEST", "CLIENT"]);
    let mut memories = Table::new(&["MEMORY", "ADDRESS", "PLUGGED", "REQUESTED", "MOST", "BLOCK"]);
    let mut others = Table::new(&["DEVICE", "ADDRESS"]);
    for DeviceStats {
        device,
        slot,
        host,
        figures,
    } in stats
    {
        let (device, slot) = (device.to_string(), slot.to_string());
        match figures {
            DeviceFigures::Disk(disk) => {
                let kinds = [disk.reads, disk.writes, disk.flushes, disk.discards];
                let errors = kinds.iter().map(|kind| kind.errors);
                let errors = errors.fold(0_u64, u64::saturating_add);
                disks.row(vec![
                    device,
                    slot,
                    human(disk.reads.bytes),
                    disk.reads.operations.to_string(),
                    human(disk.writes.bytes),
                    disk.writes.operations.to_string(),
                    disk.flushes.operations.to_string(),
                    disk.discards.operations.to_string(),
                    errors.to_string(),
                ]);
            }
            DeviceFigures::Nic(nic) => {
                let (received, sent) = (nic.received, nic.sent);
                nics.row(vec![
                    device,
                    slot,
                    host.clone().unwrap_or_else(|| "-".to_owned()),
                    human(received.bytes),
                    received.packets.to_string(),
                    human(sent.bytes),
                    sent.packets.to_string(),
                    received.errors.saturating_add(sent.errors).to_string(),
                    received.drops.saturating_add(sent.drops).to_string(),
                ]);
            }
            DeviceFigures::Balloon(balloon) => {
                let said = |figure: fn(GuestMemoryFigures) -> Option<u64>| {
                    let bytes = balloon.guest.and_then(figure);
                    bytes.map_or_else(|| "-".to_owned(), human)
                };
                balloons.row(vec![
                    device,
                    slot,
                    human(balloon.actual_bytes),
                    human(balloon.target_bytes),
                    said(|guest| guest.free),
                    said(|guest| guest.available),
                    said(|guest| guest.total),
                ]);
            }
            DeviceFigures::Port(port) => ports.row(vec![
                device,
                slot,
                port.number.to_string(),
                host.clone().unwrap_or_else(|| "-".to_owned()),
                if port.guest_open { "open" } else { "closed" }.to_owned(),
                if port.connected { "connected" } else { "none" }.to_owned(),
            ]),
            DeviceFigures::Memory(memory) => memories.row(vec![
                device,
                slot,
                human(memory.plugged_bytes),
                human(memory.requested_bytes),
                human(memory.most_bytes),
                human(memory.block_bytes),
            ]),
            DeviceFigures::Ports(_) | DeviceFigures::None => others.row(vec![device, slot]),
        }
    }
    let tables = [disks, nics, balloons, memories, others, ports];
    let tables: Vec<String> = tables
        .iter()
        .filter(|table| !table.is_empty())
        .map(Table::render)
        .collect();
    match tables.is_empty() {
        true => "it has no devices\n".to_owned(),
        false => tables.join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use reeve_ipc::device::{
        BalloonFigures, DiskFigures, MemoryFigures, OperationFigures, PortFigures,
    };

    use super::*;

    fn device(name: &str, slot: u8, figures: DeviceFigures) -> DeviceStats {
        DeviceStats {
            device: name.parse().unwrap(),
            slot: slot.try_into().unwrap(),
            host: None,
            figures,
        }
    }

    #[test]
    fn each_kind_has_its_table_and_any_number_fits() {
        let most = OperationFigures {
            operations: u64::MAX,
            bytes: u64::MAX,
            nanoseconds: u64::MAX,
            errors: u64::MAX,
        };
        let disk = DeviceFigures::Disk(DiskFigures {
            reads: most,
            writes: most,
            ..DiskFigures::default()
        });
        let balloon = DeviceFigures::Balloon(BalloonFigures {
            target_bytes: 32 << 20,
            actual_bytes: 16 << 20,
            guest: None,
        });
        let port = PortFigures {
            number: 2,
            guest_open: true,
            connected: false,
        };
        let memory = DeviceFigures::Memory(MemoryFigures {
            requested_bytes: 256 << 20,
            plugged_bytes: 128 << 20,
            most_bytes: 1 << 30,
            block_bytes: 2 << 20,
        });
        let stats = [
            device("vda", 1, disk),
            device("balloon", 2, balloon),
            device("rng", 3, DeviceFigures::None),
            device("channel:a.0", 4, DeviceFigures::Port(port)),
            device("memory", 5, memory),
        ];
        let text = tables(&stats);
        assert_eq!(text.matches("ADDRESS").count(), 5, "{text}");
        assert!(
            text.contains("channel:a.0  4        2       -     open   none"),
            "{text}"
        );
        assert_eq!(device_json(&stats[3])["figures"]["guest_open"], true);
        assert!(
            text.contains("memory  5        128M     256M       1G    2M"),
            "{text}"
        );
        assert_eq!(device_json(&stats[4])["kind"], "memory");
        assert!(text.contains("balloon  2        16M    32M"), "{text}");
        assert!(text.contains("rng"), "{text}");
        let value = device_json(&stats[1]);
        assert_eq!(value["kind"], "balloon");
        assert_eq!(value["figures"]["target_bytes"], 32 << 20);
        assert_eq!(value["address"], 2);
    }
}
