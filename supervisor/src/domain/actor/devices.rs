//! Devices that come, go and change: the steps of what clients ask for, and what the worker tells.
//!
//! ```text
//!   attach: status with it ─► the worker makes it ─► record with it
//!   detach: the worker asks its guest ··· DeviceRemoved ─► status without it ─► record without it
//!           (a port is taken without asking)
//!   update: status with the change ─► the worker changes it ─► record with the change
//!   filter: it is seen whether it can be had ─► status with it ─► its rules are put ─► record with it
//!   medium: status with the new one ─► the worker exchanges them ─► record with the new one
//! ```
//! The status names every device that the worker may have, so that a later supervisor misses none: one
//! that is named and not there is found out by asking (`reconcile.rs`).
//!
//! What is kept of a domain changes first where a device goes, whatever its guest does then: it is what the
//! next start is of.

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::view::DomainDefinition;
use reeve_ipc::device::DeviceChange;
use reeve_ipc::model::{
    Device, DeviceError, DeviceName, DevicePlace, Devices, Domain, FilterReference, Medium,
    NetworkPort, NicSource, Vlan,
};
use reeve_ipc::spec::PciSlot;

use super::message::{Effect, Timer};
use super::planted::{self, Bug};
use super::steps::Step;
use super::{DETACH_CHECKED_MS, DETACH_MS, DomainActor};
use crate::domain::driver::{CallFailure, DeviceCall, GuestMemory, OpenPorts};

pub(super) type Steps = Result<(Vec<Step>, Vec<EventKind>), ApiError>;

/// The kept definition has changed; what happens to the machine is told as it happens.
pub(super) const REDEFINED: EventKind = EventKind::Defined { changed: true };

impl DomainActor {
    /// Interfaces have been given ports: all that is known of the worker says so from now on.
    pub(super) fn interfaces_connected(&mut self, id: u32, ports: Vec<(usize, NetworkPort)>) {
        let Some(live) = self.live_mut().filter(|live| live.id == id) else {
            return;
        };
        for (index, given) in ports {
            let nic = live.record.definition.devices.nics.get_mut(index);
            if let Some(NicSource::Network { port, .. }) = nic.map(|nic| &mut nic.source) {
                *port = Some(Box::new(given));
            }
        }
    }

    pub(super) fn attach_steps(&self, device: &Device, live: bool, persistent: bool) -> Steps {
        let mut steps = Vec::new();
        let mut events = Vec::new();
        let mut wanted = device.clone();
        if let Device::Nic(nic) = &mut wanted {
            nic.forget_port();
        }
        let mut controller = None;
        if live {
            let mut record = self.running()?.record.clone();
            if persistent {
                self.number_console(&record.definition, &mut wanted)?;
            }
            let (name, place) = self.added(&mut record.definition, wanted.clone())?;
            if let Some(found) = placed(&record.definition.devices, &name) {
                wanted = found;
            }
            controller = record.definition.devices.ports_address;
            let domain = Box::new(record.definition.clone());
            steps.push(Step::WriteStatus(Box::new(record)));
            steps.push(Step::Device(DeviceCall::Attach { domain, place }));
        }
        if persistent {
            let mut record = self.kept()?.clone();
            let devices = &mut record.domain.devices;
            if is_taken(device, &wanted, devices) {
                // It is elsewhere after the next start.
                forget_place(&mut wanted);
            }
            if !devices.has_ports() && devices.ports_address.is_none() {
                devices.ports_address = controller.filter(|slot| devices.is_free(*slot));
            }
            self.added(&mut record.domain, wanted)?;
            steps.push(Step::WriteRecord(Box::new(record)));
            events.push(REDEFINED);
        }
        Ok((steps, events))
    }

    /// A console is known by its port: where it comes into both definitions it has the same in both.
    fn number_console(&self, running: &Domain, device: &mut Device) -> Result<(), ApiError> {
        if let Device::Console(console) = device {
            let (running, kept) = (&running.devices, &self.kept()?.domain.devices);
            console.port = console.port.or_else(|| running.free_console_port(kept));
        }
        Ok(())
    }

    /// Adds a device to a definition; its name, and where it is. Of a port that is the first its whole
    /// controller is new.
    fn added(
        &self,
        domain: &mut Domain,
        device: Device,
    ) -> Result<(DeviceName, DevicePlace), ApiError> {
        let invalid = |error| self.error(ApiErrorCode::InvalidArgument, error);
        // Whoever wrote it by hand may have left the places to us.
        domain.complete().map_err(invalid)?;
        let before = domain.devices.placed();
        // Of the new one alone: what is there may be of before.
        let mut new = reeve_ipc::model::Devices::default();
        let alone = new.add(device.clone()).and_then(|()| new.accept());
        let added = alone.and_then(|()| domain.devices.add(device));
        let checked = added
            .map_err(Into::into)
            .and_then(|()| domain.validate())
            .and_then(|()| domain.complete());
        checked.map_err(invalid)?;
        let is_new = |place: &DevicePlace| !before.iter().any(|(there, _)| there == place);
        let mut placed = domain.devices.placed().into_iter();
        let new = placed.find(|(place, _)| is_new(place));
        let (place, name) = new.ok_or_else(|| {
            self.error(
                ApiErrorCode::InvalidArgument,
                "its definition names no places on the bus",
            )
        })?;
        Ok((name, place))
    }

    pub(super) fn detach_steps(
        &self,
        device: &DeviceName,
        force: bool,
        live: bool,
        persistent: bool,
    ) -> Steps {
        let mut steps = Vec::new();
        let mut events = Vec::new();
        let mut device = device.clone();
        let mut detach = None;
        if live {
            let devices = &self.running()?.record.definition.devices;
            let (mut place, name) = self.located(devices, &device)?;
            if name == DeviceName::Watchdog {
                let why = "a watchdog comes and goes with a start of its domain: take it out of the \
                           definition ('reeve edit'), and start the domain again";
                return Err(self.error(ApiErrorCode::Unsupported, why));
            }
            if name == DeviceName::Memory {
                let why = "its memory device comes and goes with a start of its domain: take max-memory out \
                           of the definition ('reeve edit'), and start the domain again";
                return Err(self.error(ApiErrorCode::Unsupported, why));
            }
            if place.port.is_some() && devices.port_count() == 1 {
                // With the last port its controller goes.
                place = place.slot.into();
            }
            detach = Some(Step::Device(DeviceCall::Detach { place, force }));
            device = name;
        }
        if persistent {
            let mut record = self.kept()?.clone();
            if !record.domain.devices.remove(&device) {
                return Err(self.no_device(&device));
            }
            // Without its memory device its guest cannot be given what the device brought.
            let most = record.domain.max_memory();
            let current = &mut record.domain.tuning.current_memory;
            *current = current.filter(|current| *current <= most);
            self.checked(&record.domain)?;
            steps.push(Step::WriteRecord(Box::new(record)));
            events.push(REDEFINED);
        }
        steps.extend(detach);
        Ok((steps, events))
    }

    pub(super) fn update_steps(
        &self,
        device: &DeviceName,
        change: DeviceChange,
        live: bool,
        persistent: bool,
    ) -> Steps {
        let mut steps = Vec::new();
        let mut events = Vec::new();
        let mut device = device.clone();
        if live {
            let mut record = self.running()?.record.clone();
            let (slot, name) = self.named(&record.definition.devices, &device)?;
            device = name;
            let changed = record.definition.devices.change(&device, change);
            changed.map_err(|error| self.device_error(&error))?;
            steps.push(Step::WriteStatus(Box::new(record)));
            steps.push(Step::Device(DeviceCall::Update { slot, change }));
        }
        if persistent {
            let mut record = self.kept()?.clone();
            let changed = record.domain.devices.change(&device, change);
            changed.map_err(|error| self.device_error(&error))?;
            let why = match change {
                DeviceChange::BalloonTarget { .. } | DeviceChange::BalloonPoll => {
                    "what a balloon is asked for is no part of a definition"
                }
                DeviceChange::MemoryRequest { .. } => {
                    "what is asked of a guest's memory is no part of a definition"
                }
                DeviceChange::DiskSize { .. } => {
                    "the size of a disk is in its image, and no part of a definition"
                }
                _ => "",
            };
            if !why.is_empty() {
                return Err(self.error(ApiErrorCode::InvalidArgument, why));
            }
            steps.push(Step::WriteRecord(Box::new(record)));
            events.push(REDEFINED);
        }
        Ok((steps, events))
    }

    /// Changes the definition that it runs with, the one that is kept, or both by `change`, and asks what `asked` makes
    /// of the first for the machine. It is noted before that: a later supervisor shows what the machine may have, as of a
    /// device that is attached, and what the worker may have open is in the status.
    fn redefined_steps(
        &self,
        device: &DeviceName,
        (live, persistent): (bool, bool),
        change: impl Fn(&mut Devices, &DeviceName) -> Result<(), DeviceError>,
        asked: impl FnOnce(Box<Domain>, PciSlot) -> DeviceCall,
        told: impl FnOnce(&DeviceName) -> Option<EventKind>,
    ) -> Steps {
        let (mut steps, mut events) = (Vec::new(), Vec::new());
        let mut device = device.clone();
        let changed = |domain: &mut Domain, device: &DeviceName| {
            let changed = change(&mut domain.devices, device);
            changed.map_err(|error| self.device_error(&error))?;
            let checked = domain.validate();
            checked.map_err(|error| self.error(ApiErrorCode::InvalidArgument, error))
        };
        if live {
            let mut record = self.running()?.record.clone();
            let (slot, name) = self.named(&record.definition.devices, &device)?;
            device = name;
            changed(&mut record.definition, &device)?;
            let domain = Box::new(record.definition.clone());
            steps.push(Step::WriteStatus(Box::new(record)));
            steps.push(Step::Device(asked(domain, slot)));
            events.extend(told(&device));
        }
        if persistent {
            let mut record = self.kept()?.clone();
            changed(&mut record.domain, &device)?;
            steps.push(Step::WriteRecord(Box::new(record)));
            events.push(REDEFINED);
        }
        Ok((steps, events))
    }

    pub(super) fn tags_steps(
        &self,
        device: &DeviceName,
        vlan: Option<&Vlan>,
        live: bool,
        persistent: bool,
    ) -> Steps {
        self.redefined_steps(
            device,
            (live, persistent),
            |devices, device| devices.change_tags(device, vlan.cloned()),
            |domain, slot| DeviceCall::Tags { domain, slot },
            |_| None,
        )
    }

    pub(super) fn filter_steps(
        &self,
        device: &DeviceName,
        filter: Option<&FilterReference>,
        live: bool,
        persistent: bool,
    ) -> Steps {
        let device = match live {
            true => {
                let devices = &self.running()?.record.definition.devices;
                self.named(devices, device)?.1
            }
            false => device.clone(),
        };
        let has = |domain: &Domain| {
            let nic = domain.devices.nic(&device);
            nic.is_some_and(|nic| nic.filter.as_deref() == filter)
        };
        // What it has already it is not given again.
        let live = live && !has(&self.running()?.record.definition);
        let persistent = persistent && !has(&self.kept()?.domain);
        let (mut steps, events) = self.redefined_steps(
            &device,
            (live, persistent),
            |devices, device| devices.change_filter(device, filter.cloned().map(Box::new)),
            |domain, slot| DeviceCall::Filter { domain, slot },
            |_| None,
        )?;
        // What cannot be had is not noted: a later supervisor would block the guest for it.
        let check = steps.iter().find_map(|step| match step {
            Step::Device(DeviceCall::Filter { domain, slot }) => {
                let (domain, slot) = (domain.clone(), *slot);
                Some(Step::Device(DeviceCall::FilterCheck { domain, slot }))
            }
            _ => None,
        });
        steps.splice(0..0, check);
        Ok((steps, events))
    }

    pub(super) fn medium_steps(
        &self,
        device: &DeviceName,
        medium: Option<Medium>,
        live: bool,
        persistent: bool,
    ) -> Steps {
        let inserted = medium.is_some();
        self.redefined_steps(
            device,
            (live, persistent),
            |devices, device| devices.change_medium(device, medium.clone()).map(drop),
            |domain, slot| DeviceCall::Medium { domain, slot },
            |device| {
                let device = device.clone();
                Some(EventKind::MediumChanged { device, inserted })
            },
        )
    }

    /// What came of asking of a device.
    pub(super) fn device_called(&mut self, call: &DeviceCall, result: Result<(), CallFailure>) {
        if matches!(call, DeviceCall::Attach { .. }) {
            self.device_was_made();
        }
        match (call, result) {
            // It was gone before the worker heard of the request, or just then.
            (DeviceCall::Detach { place, .. }, Ok(()) | Err(CallFailure::Refused(_)))
                if !self.has_device(*place) =>
            {
                self.step_done();
            }
            (DeviceCall::Detach { .. }, Ok(())) => {
                let Some(job) = &mut self.job else { return };
                job.answered = true;
                let timer = Timer::DetachDeadline(job.serial);
                self.effects.push(Effect::SetTimer(timer, DETACH_MS));
            }
            (DeviceCall::Attach { place, .. }, Ok(())) => {
                if let Some(device) = self.device_at(*place) {
                    let slot = place.slot;
                    let added = EventKind::DeviceAdded { device, slot };
                    self.effects.push(Effect::Event(added));
                }
                self.step_done();
            }
            (DeviceCall::Update { change, .. }, Ok(())) => {
                if let Some(live) = self.live_mut() {
                    live.note_asked(*change);
                }
                self.step_done();
            }
            (
                DeviceCall::Medium { .. }
                | DeviceCall::Tags { .. }
                | DeviceCall::Filter { .. }
                | DeviceCall::FilterCheck { .. }
                | DeviceCall::TuneCheck { .. },
                Ok(()),
            ) => self.step_done(),
            (DeviceCall::Tune { .. }, Ok(())) => self.tuned(),
            (DeviceCall::Vcpus { count, .. }, Ok(())) => self.vcpus_asked(*count),
            (_, Err(failure)) => {
                let error = self.call_failed(&failure);
                self.job_failed(error);
            }
        }
    }

    /// The guest has not let go of a device in time, as far as anybody has heard: the worker is asked.
    pub(super) fn detach_deadline(&mut self, serial: u64) {
        let Some(job) = self.job.as_mut().filter(|job| job.serial == serial) else {
            return;
        };
        if matches!(job.step, Step::Device(DeviceCall::Detach { .. })) {
            job.overdue = true;
            let timer = Timer::DetachUnchecked(serial);
            self.effects
                .push(Effect::SetTimer(timer, DETACH_CHECKED_MS));
            self.ask_devices_anew();
        }
    }

    /// Nor has it by what the worker says, if it says anything. It may yet.
    pub(super) fn detach_overdue(&mut self) {
        let Some(job) = self.job.as_ref().filter(|job| job.overdue) else {
            return;
        };
        let Step::Device(DeviceCall::Detach { place, .. }) = job.step else {
            return;
        };
        let device = self.device_at(place);
        let device = device.unwrap_or(DeviceName::Slot(place.slot));
        let seconds = DETACH_MS / 1000;
        let has = |record: &DomainDefinition| record.domain.devices.find(&device).is_some();
        let kept = match &self.record {
            Some(record) if !has(record) => "; what is kept of the domain is without it",
            _ => "",
        };
        let error = self.error(
            ApiErrorCode::Timeout,
            format!(
                "its guest has not let go of '{device}' within {seconds} s, and may do so yet; --force \
                 takes it{kept}"
            ),
        );
        self.job_failed(error);
    }

    /// The worker says that a device is gone.
    pub(super) fn device_removed(&mut self, place: DevicePlace) {
        if planted::has(Bug::ForgetsDevices) {
            return;
        }
        // Of a controller all ports may have been struck before: whoever waits for it is answered all the same.
        self.strike(place);
        let waits = self.job.as_ref().is_some_and(|job| {
            let asked = matches!(
                job.step,
                Step::Device(DeviceCall::Detach { place: asked, .. }) if place.has(asked)
            );
            asked && job.answered
        });
        if waits {
            self.step_done();
        }
    }

    pub(super) fn memory_changed(&mut self, guest: GuestMemory) {
        if let Some(live) = self.live_mut() {
            live.guest = guest;
            let memory = live.memory(guest);
            let changed = EventKind::BalloonChanged { memory };
            self.effects.push(Effect::Event(changed));
        }
    }

    /// The guest has opened or closed ports: it is told of those that are channels. How they stand in a machine
    /// that was found is no change.
    pub(super) fn ports_changed(&mut self, slot: PciSlot, open: OpenPorts) {
        let Some(live) = self.live_mut() else { return };
        let Some(before) = live.ports.replace(open) else {
            return;
        };
        let placed = live.record.definition.devices.placed_ports();
        for (place, device) in placed {
            let (Some(number), DeviceName::Channel(channel)) = (place.port, device) else {
                continue;
            };
            let (was, is) = (before.has(number), open.has(number));
            if place.slot == slot && was != is {
                let changed = EventKind::ChannelChanged { channel, open: is };
                self.effects.push(Effect::Event(changed));
            }
        }
    }

    /// Takes a device out of all that is known of the worker, and lets go of what it held, if
    /// there is one.
    fn strike(&mut self, place: DevicePlace) {
        let Some(device) = self.device_at(place) else {
            return;
        };
        if let Some(job) = &mut self.job {
            job.strike(&device);
        }
        let Some(live) = self.live_mut() else {
            return;
        };
        let devices = &mut live.record.definition.devices;
        devices.remove(&device);
        let bare = place.port.is_some() && !devices.has_ports();
        let (id, record) = (live.id, Box::new(live.record.clone()));
        self.effects.push(Effect::Release(id, place));
        self.effects.push(Effect::WriteStatus(None, id, record));
        if bare {
            // A controller that has lost its last port by itself is none of the definition's any more.
            let controller = DeviceCall::Detach {
                place: place.slot.into(),
                force: true,
            };
            self.effects.push(Effect::Device(0, id, controller));
        }
        let slot = place.slot;
        let removed = EventKind::DeviceRemoved { device, slot };
        self.effects.push(Effect::Event(removed));
    }

    fn has_device(&self, place: DevicePlace) -> bool {
        self.device_at(place).is_some()
    }

    /// What the worker's device at that place is called.
    fn device_at(&self, place: DevicePlace) -> Option<DeviceName> {
        self.live()?.record.definition.devices.name_at(place)
    }

    fn located(
        &self,
        devices: &Devices,
        device: &DeviceName,
    ) -> Result<(DevicePlace, DeviceName), ApiError> {
        let found = devices.locate(device);
        found.ok_or_else(|| self.no_device(device))
    }

    fn named(
        &self,
        devices: &Devices,
        device: &DeviceName,
    ) -> Result<(PciSlot, DeviceName), ApiError> {
        devices.find(device).ok_or_else(|| self.no_device(device))
    }

    fn no_device(&self, device: &DeviceName) -> ApiError {
        self.device_error(&DeviceError::NoDevice(device.clone()))
    }

    fn device_error(&self, error: &DeviceError) -> ApiError {
        match error {
            DeviceError::NoDevice(_) => self.error(
                ApiErrorCode::NoDevice,
                format!("{error}; 'reeve stats' shows those of a domain that runs"),
            ),
            error => self.error(ApiErrorCode::InvalidArgument, error),
        }
    }
}

/// A device of that name with all that was filled in for it; of a controller its one port.
fn placed(devices: &Devices, name: &DeviceName) -> Option<Device> {
    let (slot, _) = devices.find(name)?;
    let mut ports = devices.placed_ports().into_iter();
    let port = match name {
        DeviceName::Ports => ports.next().map(|(_, port)| port),
        name => Some(name.clone()),
    };
    if let Some(port) = port.and_then(|port| devices.port(&port)) {
        return Some(port);
    }
    let mut alone = devices.only(slot);
    let disk = alone.disks.pop().map(Device::Disk);
    let nic = alone.nics.pop().map(Device::Nic);
    let rng = alone.rng.map(Device::Rng);
    let balloon = alone.balloon.map(Device::Balloon);
    let vsock = alone.vsock.map(Device::Vsock);
    let share = alone.shares.pop().map(Device::Share);
    disk.or(nic).or(rng).or(balloon).or(vsock).or(share)
}

/// Whether the place that `device` left open was filled in with one that is another's in `devices`.
fn is_taken(device: &Device, filled_in: &Device, devices: &Devices) -> bool {
    let slot = address(filled_in).filter(|slot| !devices.is_free(*slot));
    let number = filled_in.port_number().filter(|number| {
        let mut ports = devices.placed_ports().into_iter();
        ports.any(|(place, _)| place.port == Some(*number))
    });
    slot.is_some_and(|_| address(device).is_none())
        || number.is_some_and(|_| device.port_number().is_none())
}

const fn address(device: &Device) -> Option<PciSlot> {
    match device {
        Device::Disk(disk) => disk.address,
        Device::Nic(nic) => nic.address,
        Device::Rng(rng) => rng.address,
        Device::Balloon(balloon) => balloon.address,
        Device::Vsock(vsock) => vsock.address,
        Device::Share(share) => share.address,
        Device::Channel(_) | Device::Console(_) => None,
    }
}

/// Leaves its place open.
fn forget_place(device: &mut Device) {
    match device {
        Device::Disk(disk) => disk.address = None,
        Device::Nic(nic) => nic.address = None,
        Device::Rng(rng) => rng.address = None,
        Device::Balloon(balloon) => balloon.address = None,
        Device::Vsock(vsock) => vsock.address = None,
        Device::Share(share) => share.address = None,
        Device::Channel(channel) => channel.port = None,
        Device::Console(console) => console.port = None,
    }
}
