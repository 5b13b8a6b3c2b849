//! Devices of a worker that runs: opened and recorded here, then asked for; what a device held that is
//! gone is let go of.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::client::CallError;
use reeve_ipc::device::{BalloonFigures, DeviceChange, DeviceFigures, DeviceReport};
use reeve_ipc::error::ErrorCode;
use reeve_ipc::model::{DevicePlace, Domain, NicSource};
use reeve_ipc::request::{
    DeviceAttach, DeviceDetach, DeviceQuery, DeviceUpdate, MediumChange, PortAttach, PortDetach,
    VcpusSet,
};
use reeve_ipc::spec::{DeviceSpec, MAX_DEVICES, MAX_VCPUS, PciSlot};
use reeve_ipc::vcpus::VcpuStanding;
use reeve_sandbox::cgroup::DomainCgroup;

use super::driver::plan_kind;
use super::instance::failure;
use super::log::quoted;
use super::planner::Planner;
use super::{CALL_DEADLINE, Worker};
use crate::domain::driver::{
    CallFailure, DeviceCall, DeviceLedger, DeviceResources, GuestMemory, OpenPorts, StartFailure,
    StartFailureKind,
};
use crate::domain::plan::PlanError;
use crate::host::confinement::{self, ConfinementError, LOOK_DEADLINE};
use crate::host::process;
use crate::host::shares::Sharer;
use crate::host::vcpus;

/// How long a device may take to be made, or to finish what it has begun: both may have to wait for a
/// disk.
pub(super) const DEVICE_DEADLINE: Duration = Duration::from_secs(30);
/// How long what is to listen waits for sockets that were taken away.
const SOCKETS_PATIENCE: Duration = Duration::from_secs(4);
/// What a guest said of its memory is asked for anew where it is older than so many milliseconds.
const STALE_MS: u64 = 1_000;
/// Longer than any worker lives that does not answer.
const EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How long a guest is given to say it.
const POLL: Duration = Duration::from_millis(50);

/// Asks of a device.
pub(super) async fn ask(
    worker: &Worker,
    planner: &Planner,
    call: DeviceCall,
    ledger: &dyn DeviceLedger,
) -> Result<(), CallFailure> {
    let asked = match call {
        DeviceCall::Attach { domain, place } => {
            return attach(worker, planner, *domain, place, ledger).await;
        }
        DeviceCall::Detach {
            place:
                DevicePlace {
                    slot,
                    port: Some(port),
                },
            ..
        } => {
            let number = port.into();
            let detach = PortDetach { slot, number };
            worker.call(detach, CALL_DEADLINE).await
        }
        DeviceCall::Detach {
            place: DevicePlace { slot, port: None },
            force,
        } => {
            let detach = DeviceDetach { slot, force };
            let deadline = match force {
                true => DEVICE_DEADLINE,
                false => CALL_DEADLINE,
            };
            worker.call(detach, deadline).await
        }
        DeviceCall::Update { slot, change } => {
            let update = DeviceUpdate { slot, change };
            let deadline = match change {
                DeviceChange::DiskSize { .. } => DEVICE_DEADLINE,
                _ => CALL_DEADLINE,
            };
            let updated = worker.call(update, deadline).await;
            return updated.map_err(|error| late_failure(worker, error));
        }
        DeviceCall::Medium { domain, slot } => {
            let (layers, fds) = planner.medium(*domain, slot).await.map_err(not_planned)?;
            let change = MediumChange { slot, layers };
            let changed = worker.call_with(change, fds, DEVICE_DEADLINE).await;
            return changed.map_err(|error| late_failure(worker, error));
        }
        DeviceCall::Tags { domain, slot } => {
            let mut nics = domain.devices.nics.iter();
            let nic = nics.find(|nic| nic.address == Some(slot));
            let tap = worker.taps.name(slot);
            let (Some(NicSource::OpenVswitch(port)), Some(tap)) = (nic.map(|nic| &nic.source), tap)
            else {
                return Err(CallFailure::Refused(
                    "it has no port of a switch".to_owned(),
                ));
            };
            let set = planner.set_tags(domain.uuid, tap, (**port).clone()).await;
            return set.map_err(|error| match error {
                PlanError::NoAnswer(_) => of_host(error),
                error => CallFailure::Refused(error.to_string()),
            });
        }
        DeviceCall::FilterCheck { domain, slot } => {
            if worker.taps.at(slot).is_none() {
                return Err(CallFailure::Refused("it has no tap".to_owned()));
            }
            let checked = planner.check_filter(*domain, slot).await;
            return checked.map_err(not_planned);
        }
        DeviceCall::Filter { domain, slot } => {
            let Some(tap) = worker.taps.at(slot) else {
                return Err(CallFailure::Refused("it has no tap".to_owned()));
            };
            let guarded = planner.guard(*domain, slot, tap).await;
            return guarded.map_err(of_host);
        }
        DeviceCall::Vcpus { domain, count } => return vcpus(worker, *domain, count).await,
        DeviceCall::TuneCheck { domain, before } => {
            let look = move |_: (u32, BorrowedFd<'_>), cgroup: Option<&DomainCgroup>| {
                tunable(&domain, before.as_deref(), cgroup)
            };
            let looked = tokio::time::timeout(LOOK_DEADLINE, on_host(worker, look)).await;
            let late = "cannot see in time whether the host can do that";
            return looked
                .unwrap_or_else(|_| Err(not_made(StartFailureKind::Host, late.to_owned())));
        }
        DeviceCall::Tune { domain, before } => {
            return tune(worker, *domain, before.map(|before| *before)).await;
        }
    };
    asked.map_err(|error| failure(worker, error))
}

/// As [`failure`], of what takes storage its time: what the worker has no time left for it does yet.
pub(super) fn late_failure(worker: &Worker, error: CallError) -> CallFailure {
    match error {
        CallError::Refused(error) if error.code == ErrorCode::Timeout => {
            CallFailure::Late(quoted(&error.message))
        }
        error => failure(worker, error),
    }
}

/// Has the worker bring vCPUs, or ask its guest for some. Those that came are where the definition wants
/// them before anybody hears of them.
async fn vcpus(worker: &Worker, domain: Domain, count: u32) -> Result<(), CallFailure> {
    let set = worker.call(VcpusSet { count }, DEVICE_DEADLINE);
    set.await.map_err(|error| failure(worker, error))?;
    on_host(worker, move |process, cgroup| {
        let placed = vcpus::place_present(&domain, process, cgroup);
        placed.map_err(|error| not_made(StartFailureKind::Host, error.to_string()))
    })
    .await
}

/// Whether the host lets what runs the machine be bound and limited as `domain` says. Nothing is changed.
fn tunable(
    domain: &Domain,
    before: Option<&Domain>,
    cgroup: Option<&DomainCgroup>,
) -> Result<(), CallFailure> {
    let checked = vcpus::check(domain);
    checked.map_err(|error| not_made(StartFailureKind::Definition, error.to_string()))?;
    confinement::check_limits(domain, before, cgroup).map_err(limited)
}

fn limited(error: ConfinementError) -> CallFailure {
    let kind = match error.is_of_definition() {
        true => StartFailureKind::Definition,
        false => StartFailureKind::Host,
    };
    not_made(kind, error.to_string())
}

/// Binds and limits what runs the machine as `domain` says, or leaves it as `before` does, if that is known.
async fn tune(worker: &Worker, domain: Domain, before: Option<Domain>) -> Result<(), CallFailure> {
    on_host(worker, move |process, cgroup| {
        tunable(&domain, before.as_ref(), cgroup)?;
        let put = |domain: &Domain, before: Option<&Domain>, held: Option<&Domain>| {
            confinement::relimit(domain, held, cgroup).map_err(limited)?;
            let placed = vcpus::place_anew(domain, before, process, cgroup);
            placed.map_err(|error| not_made(StartFailureKind::Host, error.to_string()))
        };
        put(&domain, before.as_ref(), before.as_ref()).inspect_err(|_| {
            if let Some(before) = &before {
                // As far as that goes: its own error is of no use to whoever asked.
                let _ = put(before, Some(&domain), None);
            }
        })
    })
    .await
}

/// Does something to the process of a worker and its cgroup on a thread that may wait: the kernel may have to
/// reclaim memory first, which takes seconds, and moves threads under locks that all cgroups share. The domain may
/// be destroyed and started again meanwhile: the cgroup is this worker's, whatever has its path by then.
async fn on_host(
    worker: &Worker,
    work: impl FnOnce((u32, BorrowedFd<'_>), Option<&DomainCgroup>) -> Result<(), CallFailure>
    + Send
    + 'static,
) -> Result<(), CallFailure> {
    let process = Arc::clone(&worker.process);
    let cgroup = worker.facts().cgroup.clone();
    let working = tokio::task::spawn_blocking(move || {
        let opened = cgroup.map(DomainCgroup::adopt).transpose();
        // One that was opened while the worker lived is not removed before it is gone.
        if process::has_ended(process.pidfd.as_fd()) {
            return Err(CallFailure::Gone);
        }
        let cgroup = opened.map_err(|error| not_made(StartFailureKind::Host, error.to_string()))?;
        work((process.pid, process.pidfd.as_fd()), cgroup.as_ref())
    });
    working.await.unwrap_or(Err(CallFailure::Gone))
}

/// Opens what the device or port needs, records what has a name before it has, and has the worker make it.
async fn attach(
    worker: &Worker,
    planner: &Planner,
    domain: Domain,
    place: DevicePlace,
    ledger: &dyn DeviceLedger,
) -> Result<(), CallFailure> {
    let mut plan = planner.device(domain, place).await.map_err(not_planned)?;
    // Of a port its controller holds nothing that is new.
    let mut held = plan.held();
    held.retain(|held| place.has(held.place));
    let result = async {
        for held in &held {
            ledger
                .hold(held.clone())
                .map_err(|message| not_made(StartFailureKind::Host, message))?;
            worker.taps.add(held);
        }
        if held.iter().any(|held| !held.sockets.is_empty()) {
            let paths = held.iter().flat_map(|held| &held.sockets);
            if !worker.sockets.settled(paths, SOCKETS_PATIENCE).await {
                let why = "a socket of a device that was taken away is not removed yet: its file system does \
                           not answer; try again";
                return Err(not_made(StartFailureKind::Host, why.to_owned()));
            }
            let mut sockets;
            let listening = planner.device_listen(worker.uuid(), plan);
            (plan, sockets) = listening.await.map_err(not_planned)?;
            sockets.serve(planner.connectors(), worker.name(), worker.uuid());
            worker.sockets.add(sockets);
        }
        if plan.makes_macvtaps() {
            let macvtaps;
            let making = planner.make_device_macvtaps(worker.uuid(), plan).await;
            (plan, macvtaps) = making.map_err(not_planned)?;
            worker.macvtaps.add(macvtaps);
        }
        if plan.is_served() {
            let facts = worker.facts();
            let sharer = Sharer {
                uid: facts.uid,
                level: facts.level,
                cgroup: facts.cgroup.clone(),
            };
            plan = planner
                .device_serve(worker.uuid(), plan, sharer)
                .await
                .map_err(not_planned)?;
        }
        let Some((spec, fds)) = plan.into_parts() else {
            return Err(undefined(place.slot));
        };
        let attached = match (place.port, spec) {
            (None, spec) => {
                let attach = DeviceAttach { spec };
                worker.call_with(attach, fds, DEVICE_DEADLINE).await
            }
            (Some(_), DeviceSpec::Ports(mut controller)) => {
                let port = controller.ports.pop();
                let port = port.ok_or_else(|| undefined(place.slot))?;
                let slot = place.slot;
                let attach = PortAttach { slot, port };
                worker.call_with(attach, fds, DEVICE_DEADLINE).await
            }
            (Some(_), _) => return Err(undefined(place.slot)),
        };
        attached.map_err(|error| failure(worker, error))
    };
    let result = result.await;
    // Where no answer came the worker may have the device, or make it yet.
    if result
        .as_ref()
        .is_err_and(|error| *error != CallFailure::Deadline)
    {
        for held in &held {
            // Before the record is: nobody else would know of them.
            let going = worker.macvtaps.take(&held.macvtaps);
            let _ = tokio::task::spawn_blocking(move || drop(going)).await;
        }
        if !held.is_empty() {
            ledger.let_go(place);
        }
        held.into_iter().for_each(|held| release(worker, held));
    }
    result
}

/// Unlinks what a device listened on that is gone, and deletes its macvtap. Its taps and locks ended with its
/// descriptors.
pub(super) fn release(worker: &Worker, device: DeviceResources) {
    if !device.taps.is_empty() {
        worker.taps.remove(device.place.slot);
    }
    if !device.macvtaps.is_empty() {
        // Now: another device may be upon the same device of the host by the time that the thread runs.
        let going = worker.macvtaps.take(&device.macvtaps);
        drop(tokio::task::spawn_blocking(move || drop(going)));
    }
    if !device.sockets.is_empty() {
        // Now: another device may have the same path by the time that the thread runs.
        let going = worker.sockets.take(&device.sockets);
        // It may have to wait for a file system; nothing waits for it.
        drop(tokio::task::spawn_blocking(move || drop(going)));
    }
}

/// What the worker says of its devices; a guest that has a balloon is asked for its own figures.
pub(super) async fn reports(worker: &Worker) -> Result<Vec<DeviceReport>, CallFailure> {
    let query = || async {
        let reports = worker.call(DeviceQuery {}, CALL_DEADLINE).await;
        reports.map_err(|error| failure(worker, error))
    };
    let reports = query().await?;
    let Some(slot) = reports.iter().find_map(wants_poll) else {
        return Ok(reports);
    };
    let change = DeviceChange::BalloonPoll;
    let polled = worker.call(DeviceUpdate { slot, change }, CALL_DEADLINE);
    match polled.await {
        Ok(()) => {
            tokio::time::sleep(POLL).await;
            query().await
        }
        // The balloon went away just now.
        Err(CallError::Refused(_)) => Ok(reports),
        Err(error) => Err(failure(worker, error)),
    }
}

/// What the worker says of its devices, asked once, whenever it does: until then it owes the answer. That it is
/// late is told to the supervision.
pub(super) async fn reports_late(worker: &Worker) -> Result<Vec<DeviceReport>, CallFailure> {
    let mut asked = std::pin::pin!(worker.call(DeviceQuery {}, EVER));
    let reports = match tokio::time::timeout(CALL_DEADLINE, &mut asked).await {
        Ok(reports) => reports,
        Err(_) => {
            worker.process.missed.notify_one();
            asked.await
        }
    };
    reports.map_err(|error| failure(worker, error))
}

/// The balloon among these whose guest has said nothing of late.
pub(super) fn to_poll(reports: &[DeviceReport]) -> Option<PciSlot> {
    reports.iter().find_map(wants_poll)
}

/// Has a guest say something of its memory, which is heard with the next reports.
pub(super) async fn poll(worker: &Worker, slot: PciSlot) {
    let change = DeviceChange::BalloonPoll;
    // One that went away just now has nothing to say.
    let _ = worker
        .call(DeviceUpdate { slot, change }, CALL_DEADLINE)
        .await;
}

/// The balloon whose guest has said nothing of late.
fn wants_poll(report: &DeviceReport) -> Option<PciSlot> {
    match report.figures {
        DeviceFigures::Balloon(BalloonFigures { guest, .. })
            if guest.is_none_or(|guest| guest.age_ms > STALE_MS) =>
        {
            Some(report.slot)
        }
        _ => None,
    }
}

/// Where a worker that was found has its devices, and its ports.
pub(super) fn places(reports: &[DeviceReport]) -> Result<Vec<DevicePlace>, String> {
    let rising = reports
        .iter()
        .zip(reports.iter().skip(1))
        .all(|(a, b)| a.slot < b.slot);
    if !rising || reports.len() > MAX_DEVICES {
        return Err("protocol violation: the places of its devices do not rise".to_owned());
    }
    let slots = reports.iter().map(|report| DevicePlace::from(report.slot));
    let ports = reports.iter().filter_map(|report| match report.figures {
        DeviceFigures::Ports(ports) => Some((report.slot, ports)),
        _ => None,
    });
    let ports = ports.flat_map(|(slot, ports)| {
        let numbers = ports.numbers();
        numbers.map(move |number| DevicePlace::port(slot, number))
    });
    Ok(slots.chain(ports).collect())
}

/// What the guest of a worker that was found has done with its memory, if anything. Any numbers.
pub(super) fn memory_of(reports: &[DeviceReport]) -> Option<GuestMemory> {
    let mut guest = GuestMemory::default();
    for report in reports {
        match report.figures {
            DeviceFigures::Balloon(balloon) => guest.lent = balloon.actual_bytes,
            DeviceFigures::Memory(memory) => guest.plugged = memory.plugged_bytes,
            _ => {}
        }
    }
    (guest != GuestMemory::default()).then_some(guest)
}

/// Which ports the guest of a worker that was asked has open, if it has a serial controller. Any numbers.
pub(super) fn ports_of(reports: &[DeviceReport]) -> Option<(PciSlot, OpenPorts)> {
    reports.iter().find_map(|report| match report.figures {
        DeviceFigures::Ports(ports) => Some((report.slot, OpenPorts(ports.guest_open))),
        _ => None,
    })
}

/// Whether a worker says of its vCPUs what any can.
pub(super) fn vcpus_of(standing: &VcpuStanding) -> Result<(), String> {
    if standing.is_possible(MAX_VCPUS) {
        Ok(())
    } else {
        Err("protocol violation: it has vCPUs that no machine has".to_owned())
    }
}

fn undefined(slot: PciSlot) -> CallFailure {
    let why = format!("nothing is defined at address {slot}");
    not_made(StartFailureKind::Definition, why)
}

fn not_planned(error: PlanError) -> CallFailure {
    not_made(plan_kind(&error), error.to_string())
}

/// As [`not_planned`], of what is changed on the host beside the worker: what it has not done in time it does yet.
fn of_host(error: PlanError) -> CallFailure {
    match error {
        PlanError::NoAnswer(seconds) => CallFailure::Late(format!(
            "the host has not answered for {seconds} s; it is changed as soon as the host answers"
        )),
        error => not_planned(error),
    }
}

fn not_made(kind: StartFailureKind, message: String) -> CallFailure {
    CallFailure::NotMade(StartFailure { kind, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_has_not_done_in_time_may_be_done_yet() {
        let late = of_host(PlanError::NoAnswer(30));
        assert!(
            matches!(&late, CallFailure::Late(why) if why.contains("30 s")),
            "{late:?}"
        );
        let refused = of_host(PlanError::NicSource("direct"));
        assert!(matches!(refused, CallFailure::NotMade(_)), "{refused:?}");
    }
}
