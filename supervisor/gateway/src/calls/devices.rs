//! Devices that come, go and change: by their documents and by their aliases.

use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::api::blocking::CallError;
use reeve_ipc::api::call::{
    DomainDeviceAttach, DomainDeviceDetach, DomainDeviceUpdate, DomainMediumChange,
    DomainNicFilterSet, DomainPortTagsSet, Operation,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::figures::FigureGroups;
use reeve_ipc::api::view::JobKind;
use reeve_ipc::device::DeviceChange;
use reeve_ipc::model::{
    Device, DeviceName, Devices, Disk, Domain as Definition, DomainUuid, FilterReference, Medium,
    Nic, NicSource, Vlan,
};
use uuid::Uuid;

use super::Context;
use super::context::{Impact, impact, impact_of, reference};
use super::failure::{Code, Failure, check_flags, invalid_argument};
use super::storage::volumes;
use crate::wire::types::device as wire;
use crate::wire::types::handles::Domain;
use crate::xml::device;

/// Even if the guest does not consent (libvirt `VIR_DOMAIN_DEVICE_MODIFY_FORCE`).
const FORCE: u32 = 4;
/// How long a guest is waited for that is to let go of a device (libvirt `qemuDomainRemoveDeviceWaitTime`).
const LET_GO: Duration = Duration::from_secs(5);
/// How soon is looked again where something else than the guest is waited for.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

async fn attach_to(context: &Context, of: &Domain, xml: &str, flags: u32) -> Result<(), Failure> {
    let Impact { live, persistent } = context.impact(of, flags).await?;
    let sockets = context.sockets().await?;
    let uuid = DomainUuid(Uuid::from_bytes(of.uuid));
    let xml = volumes::in_documents(context, xml).await?;
    let parsed = device::parse(&xml, uuid, sockets)?;
    match &parsed.device {
        Device::Disk(disk) => check_free(disk, context.definition(of, !live).await?, live)?,
        Device::Rng(_) if context.definition(of, !live).await?.devices.rng.is_some() => {
            return Err(Failure::new(Code::ConfigUnsupported, device::ONE_RNG));
        }
        _ => {}
    }
    let attach = DomainDeviceAttach {
        domain: reference(of),
        device: Box::new(parsed.device),
        live,
        persistent,
    };
    context.of(of, attach).await
}

/// Refuses a disk whose target another has, with what libvirt says of it in a machine that runs, and else.
fn check_free(disk: &Disk, definition: Definition, live: bool) -> Result<(), Failure> {
    let mut disks = definition.devices.disks.into_iter();
    let Some(other) = disks.find(|other| other.target == disk.target) else {
        return Ok(());
    };
    let target = &disk.target;
    if !live {
        return Err(Failure::invalid(format!("target {target} already exists")));
    }
    let path = |disk: &Disk| {
        let image = disk.image.as_ref();
        image.map_or_else(String::new, |image| image.path.display().to_string())
    };
    let why = format!(
        "target '{target}' duplicated for disk sources '{}' and '{}'",
        path(&other),
        path(disk)
    );
    Err(Failure::new(Code::XmlError, why))
}

pub(super) async fn attach(
    context: Arc<Context>,
    call: wire::DomainAttachDevice,
) -> Result<(), Failure> {
    attach_to(&context, &call.domain, &call.xml, impact::LIVE).await
}

pub(super) async fn attach_flags(
    context: Arc<Context>,
    call: wire::DomainAttachDeviceFlags,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainAttachDeviceFlags")?;
    attach_to(&context, &call.domain, &call.xml, call.flags).await
}

/// The definition in which a device is looked for: the one the domain runs with, where that is changed.
async fn looked_in(context: &Context, of: &Domain, impact: Impact) -> Result<Definition, Failure> {
    context.definition(of, !impact.live).await
}

async fn take(
    context: &Arc<Context>,
    of: &Domain,
    device: DeviceName,
    impact: Impact,
) -> Result<(), Failure> {
    let Impact { live, persistent } = impact;
    let detach = DomainDeviceDetach {
        domain: reference(of),
        device: device.clone(),
        force: false,
        live,
        persistent,
    };
    // It goes on when its guest is waited for no more: the supervisor waits longer.
    let mut asked = tokio::spawn({
        let context = Arc::clone(context);
        async move { context.asked(detach).await }
    });
    let answer = tokio::select! {
        answer = &mut asked => answer,
        () = guest_asked(context, of, &device, impact) => return Ok(()),
    };
    let answer = answer.map_err(|error| Failure::new(Code::InternalError, error.to_string()))?;
    match answer {
        Ok(_) => Ok(()),
        // What is kept is changed, and the guest is asked: libvirt promises no more, and an event tells when it
        // has let go of it. A worker that does not answer is another matter.
        Err(CallError::Refused(error))
            if live
                && error.code == ApiErrorCode::Timeout
                && waits(context, of).await.is_some() =>
        {
            Ok(())
        }
        Err(error) => {
            let operation = Operation::DomainDeviceDetach;
            context.said(of, operation, error.into()).await
        }
    }
}

/// Returns when a guest has had [`LET_GO`] to let go of a device, and nothing but the guest is waited for: its
/// worker answers, and what is kept is changed.
async fn guest_asked(context: &Context, of: &Domain, device: &DeviceName, impact: Impact) {
    if !impact.live {
        return std::future::pending().await;
    }
    tokio::time::sleep(LET_GO).await;
    loop {
        let changed = match impact.persistent {
            true => {
                let kept = context.definition(of, true).await;
                kept.is_ok_and(|kept| kept.devices.locate(device).is_none())
            }
            false => true,
        };
        if changed && waits(context, of).await == Some(Some(JobKind::Detach)) {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The job of a domain whose worker answers.
async fn waits(context: &Context, of: &Domain) -> Option<Option<JobKind>> {
    let groups = FigureGroups {
        devices: true,
        ..FigureGroups::default()
    };
    let figures = context.figures(of, groups).await.ok()?;
    let answers = figures.answered && !figures.summary.unresponsive;
    answers.then_some(figures.summary.job)
}

async fn detach_from(
    context: &Arc<Context>,
    of: &Domain,
    xml: &str,
    flags: u32,
) -> Result<(), Failure> {
    let impact = context.impact(of, flags).await?;
    let definition = looked_in(context, of, impact).await?;
    let device = device::identify(xml, &definition.devices)?;
    take(context, of, device, impact).await
}

pub(super) async fn detach(
    context: Arc<Context>,
    call: wire::DomainDetachDevice,
) -> Result<(), Failure> {
    detach_from(&context, &call.domain, &call.xml, impact::LIVE).await
}

pub(super) async fn detach_flags(
    context: Arc<Context>,
    call: wire::DomainDetachDeviceFlags,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainDetachDeviceFlags")?;
    detach_from(&context, &call.domain, &call.xml, call.flags).await
}

pub(super) async fn detach_alias(
    context: Arc<Context>,
    call: wire::DomainDetachDeviceAlias,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainDetachDeviceAlias")?;
    let impact = context.impact(&call.domain, call.flags).await?;
    let definition = looked_in(&context, &call.domain, impact).await?;
    let unknown = || {
        let why = format!("no device found with alias {}", call.alias);
        // So libvirt calls it.
        Failure::new(Code::InternalError, why)
    };
    let device = device::alias::resolve(&call.alias, &definition.devices).ok_or_else(unknown)?;
    take(&context, &call.domain, device, impact).await
}

/// A change of one device.
#[derive(Debug, PartialEq)]
enum Change {
    /// Without another medium.
    Device(DeviceChange),
    /// Another medium, or none.
    Medium(Option<Medium>),
    /// Other tags, or none.
    Tags(Option<Vlan>),
    /// Another network filter, or none.
    Filter(Option<Box<FilterReference>>),
}

pub(super) async fn update(
    context: Arc<Context>,
    call: wire::DomainUpdateDeviceFlags,
) -> Result<(), Failure> {
    check_flags(
        call.flags,
        impact::ANY | FORCE,
        "virDomainUpdateDeviceFlags",
    )?;
    let summary = context.summary(&call.domain).await?;
    let impact = impact_of(&summary, call.flags & impact::ANY)?;
    let sockets = context.sockets().await?;
    let xml = volumes::in_documents(&context, &call.xml).await?;
    let wanted = device::parse(&xml, summary.uuid, sockets)?.device;
    let to_do = |persistent| {
        let (context, call, wanted) = (&context, &call, wanted.clone());
        async move {
            let devices = context.definition(&call.domain, persistent).await?.devices;
            let name = device::identify(&call.xml, &devices)?;
            let changes = changes(&devices, &name, wanted, persistent)?;
            Ok::<_, Failure>((name, changes))
        }
    };
    let first = to_do(!impact.live).await?;
    let mut places = vec![(impact, first)];
    if impact.live && impact.persistent {
        // What is to change of the one need not be what is to change of the other.
        let kept = to_do(true).await?;
        if places.iter().all(|(_, first)| *first != kept) {
            let place = |live| Impact {
                live,
                persistent: !live,
            };
            for (at, _) in &mut places {
                *at = place(true);
            }
            places.push((place(false), kept));
        }
    }
    for (at, (name, changes)) in places {
        for change in changes {
            apply(&context, &call.domain, name.clone(), change, at).await?;
        }
    }
    Ok(())
}

async fn apply(
    context: &Context,
    of: &Domain,
    device: DeviceName,
    change: Change,
    Impact { live, persistent }: Impact,
) -> Result<(), Failure> {
    let domain = reference(of);
    match change {
        Change::Device(change) => {
            let update = DomainDeviceUpdate {
                domain,
                device,
                change,
                live,
                persistent,
            };
            context.of(of, update).await
        }
        Change::Medium(medium) => {
            let change = DomainMediumChange {
                domain,
                device,
                medium: medium.map(Box::new),
                live,
                persistent,
            };
            context.of(of, change).await
        }
        Change::Tags(vlan) => {
            let change = DomainPortTagsSet {
                domain,
                device,
                vlan: vlan.map(Box::new),
                live,
                persistent,
            };
            context.of(of, change).await
        }
        Change::Filter(filter) => {
            let change = DomainNicFilterSet {
                domain,
                device,
                filter,
                live,
                persistent,
            };
            context.of(of, change).await
        }
    }
}

/// Changes one device of the machine that runs, of the definition that is kept or of both, each by what `change`
/// says of it; not at all where that is nothing.
///
/// # Errors
/// As for [`Context::impact`], those of `change`, or the supervisor's.
pub(super) async fn change_each(
    context: &Context,
    of: &Domain,
    flags: u32,
    change: impl Fn(&Definition) -> Result<Option<(DeviceName, DeviceChange)>, Failure> + Send + Sync,
) -> Result<(), Failure> {
    let impact = context.impact(of, flags).await?;
    let first = change(&looked_in(context, of, impact).await?)?;
    let mut places = Vec::new();
    if impact.live && impact.persistent {
        // What either has nothing of is done to none. What the supervisor alone refuses of the second is done to the
        // first.
        let kept = change(&context.definition(of, true).await?)?;
        if kept == first {
            places.push((impact, first));
        } else {
            let place = |live| Impact {
                live,
                persistent: !live,
            };
            places.extend([(place(true), first), (place(false), kept)]);
        }
    } else {
        places.push((impact, first));
    }
    for (at, changed) in places {
        if let Some((name, change)) = changed {
            apply(context, of, name, Change::Device(change), at).await?;
        }
    }
    Ok(())
}

/// What makes the device of that name the one that is wanted, in a machine that runs or in what is kept.
fn changes(
    devices: &Devices,
    name: &DeviceName,
    wanted: Device,
    persistent: bool,
) -> Result<Vec<Change>, Failure> {
    let missing = || {
        Failure::new(
            Code::DeviceMissing,
            format!("the domain has no device '{name}'"),
        )
    };
    match wanted {
        Device::Disk(wanted) => {
            let mut disks = devices.disks.iter();
            let same = |disk: &&Disk| DeviceName::Disk(disk.target.clone()) == *name;
            let target = wanted.target.clone();
            // As libvirt says it of either.
            let missing = || match persistent {
                true => invalid_argument(format!("target {target} doesn't exist.")),
                false => Failure::new(Code::InternalError, format!("disk '{target}' not found")),
            };
            of_disk(disks.find(same).ok_or_else(missing)?, wanted)
        }
        Device::Nic(wanted) => {
            let mut nics = devices.nics.iter();
            let found = devices.find(name).ok_or_else(missing)?.1;
            let same = |nic: &&Nic| nic.mac.map(DeviceName::Nic).as_ref() == Some(&found);
            of_nic(nics.find(same).ok_or_else(missing)?, wanted)
        }
        _ => {
            let why = format!("live update of device '{name}' is not supported");
            Err(Failure::new(Code::OperationUnsupported, why))
        }
    }
}

fn cannot_change(what: &str) -> Failure {
    let why = format!(
        "cannot modify {what}: only its medium, its link, its rates, its filter and the tags of its port of a \
         bridge of Open vSwitch can change"
    );
    Failure::new(Code::OperationUnsupported, why)
}

fn of_disk(disk: &Disk, mut wanted: Disk) -> Result<Vec<Change>, Failure> {
    let mut changes = Vec::new();
    if wanted.throttle != disk.throttle {
        changes.push(Change::Device(DeviceChange::DiskThrottle(wanted.throttle)));
        wanted.throttle = disk.throttle;
    }
    let mut now = disk.clone();
    let medium = wanted.exchange(None);
    if medium != now.exchange(None) {
        changes.push(Change::Medium(medium));
    }
    wanted.address = wanted.address.or(now.address);
    if wanted.serial.is_none() {
        wanted.serial.clone_from(&now.serial);
    }
    if wanted != now {
        return Err(cannot_change("this of a disk"));
    }
    Ok(changes)
}

fn of_nic(nic: &Nic, mut wanted: Nic) -> Result<Vec<Change>, Failure> {
    // What a network gave it while it runs is no part of what is asked for.
    let nic = &{
        let mut nic = nic.clone();
        nic.forget_port();
        nic
    };
    let mut changes = Vec::new();
    // First: of all that it is changed to it is a filter that there may be none of.
    if wanted.filter != nic.filter {
        changes.push(Change::Filter(wanted.filter.take()));
        wanted.filter.clone_from(&nic.filter);
    }
    if wanted.link_up != nic.link_up {
        changes.push(Change::Device(DeviceChange::Link { up: wanted.link_up }));
        wanted.link_up = nic.link_up;
    }
    if (wanted.inbound, wanted.outbound) != (nic.inbound, nic.outbound) {
        changes.push(Change::Device(DeviceChange::NicRates {
            inbound: wanted.inbound,
            outbound: wanted.outbound,
        }));
        (wanted.inbound, wanted.outbound) = (nic.inbound, nic.outbound);
    }
    wanted.mac = wanted.mac.or(nic.mac);
    wanted.address = wanted.address.or(nic.address);
    // What a running domain's document says of its tap is not what its definition says.
    wanted.target.clone_from(&nic.target);
    wanted.mtu = wanted.mtu.or(nic.mtu);
    if wanted.addresses.is_empty() {
        wanted.addresses.clone_from(&nic.addresses);
    }
    if let (NicSource::OpenVswitch(port), NicSource::OpenVswitch(now)) =
        (&mut wanted.source, &nic.source)
    {
        port.interface_id = port.interface_id.or(now.interface_id);
        if port.vlan != now.vlan {
            changes.push(Change::Tags(port.vlan.take()));
            port.vlan.clone_from(&now.vlan);
        }
    }
    if let (Some(port), Some(now)) = (&mut wanted.virtual_port, &nic.virtual_port) {
        if port.open_vswitch && now.open_vswitch {
            port.interface_id = port.interface_id.or(now.interface_id);
        }
    }
    if wanted != *nic {
        return Err(cannot_change("this of a network interface"));
    }
    Ok(changes)
}
