//! What a domain is held to: the memory of its guest, where its worker runs, and what that may use.
//!
//! ```text
//!   memory: the worker asks its guest ─► record with it      (the running definition says what it started with)
//!   most memory: record with it
//!   tune: looked whether the host can ─► status with the change, that it is not done, and what was before
//!         ─► bound and limited anew, in the status too ─► record with the change
//! ```
//! What the kept definition says of the guest's memory is asked for at each start, before the guest has a
//! driver to hear it. The status says until then that it is to be, so that a supervisor that finds it so
//! asks; and so it does with a tune that nobody has come to the end of. Both may be done twice. A tune that the
//! host refuses by then is given up: what was before holds again.

use reeve_ipc::api::call::{MAX_TUNING_CHANGES, TuningChange};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::view::JobKind;
use reeve_ipc::device::DeviceChange;
use reeve_ipc::model::{DeviceName, Domain, MemoryNodes, MemorySize, NodeMode};
use reeve_ipc::spec::MIN_MEMORY_BYTES;

use super::DomainActor;
use super::bounds::{apply, bind_as, differences};
use super::devices::{REDEFINED, Steps};
use super::message::Effect;
use super::steps::Step;
use crate::domain::driver::DeviceCall;

impl DomainActor {
    pub(super) fn memory_steps(&self, memory: MemorySize, live: bool, persistent: bool) -> Steps {
        let mut steps = Vec::new();
        let mut events = Vec::new();
        if live {
            let running = &self.running()?.record;
            let calls = self.memory_calls(&running.definition, memory)?;
            if running.intents.asks_memory {
                // What it was to be asked for at its start is another's wish.
                let mut record = running.clone();
                record.intents.asks_memory = false;
                steps.push(Step::WriteStatus(Box::new(record)));
            }
            steps.extend(calls.into_iter().map(Step::Device));
        }
        if persistent {
            let mut record = self.kept()?.clone();
            let domain = &mut record.domain;
            domain.tuning.current_memory = Some(memory).filter(|memory| *memory != domain.memory);
            self.checked(domain)?;
            if domain.tuning.current_memory.is_some() {
                // Where it has no device for it this would be said and never be so.
                self.memory_calls(domain, memory)?;
            }
            steps.push(Step::WriteRecord(Box::new(record)));
            events.push(REDEFINED);
        }
        Ok((steps, events))
    }

    pub(super) fn max_memory_steps(&self, memory: MemorySize) -> Steps {
        let mut record = self.kept()?.clone();
        let domain = &mut record.domain;
        let before = domain.memory;
        match &mut domain.devices.memory {
            Some(pluggable) => pluggable.max = memory,
            None => domain.memory = memory,
        }
        // A guest whose memory can be lent goes on with what it had, and can be given more.
        let lends = domain.devices.balloon.is_some() && domain.memory > before;
        let current = domain.tuning.current_memory;
        let current = current.or(lends.then_some(before));
        // As libvirt has it: no more than the new most. What it starts with anyway needs no asking.
        let current = current.map(|current| current.min(memory));
        domain.tuning.current_memory = current.filter(|current| *current != domain.memory);
        self.checked(domain)?;
        Ok((vec![Step::WriteRecord(Box::new(record))], vec![REDEFINED]))
    }

    /// What a machine of that definition is asked, so that its guest has `memory`.
    fn memory_calls(
        &self,
        definition: &Domain,
        memory: MemorySize,
    ) -> Result<Vec<DeviceCall>, ApiError> {
        let (start, most) = (definition.memory, definition.max_memory());
        if !(MIN_MEMORY_BYTES..=most.bytes()).contains(&memory.bytes()) {
            let least = MemorySize(MIN_MEMORY_BYTES);
            let why = format!("its guest can be left {least} to {most} of memory, not {memory}");
            return Err(self.error(ApiErrorCode::InvalidArgument, why));
        }
        let plugged = memory.bytes().saturating_sub(start.bytes());
        let lent = start.bytes().saturating_sub(memory.bytes());
        let mut calls = Vec::new();
        if let Some(pluggable) = definition.pluggable() {
            let block = MemorySize(pluggable.block_bytes);
            if plugged % block.bytes() != 0 {
                let why = format!(
                    "memory beyond the {start} that it starts with comes in blocks of {block}, and \
                     {memory} is no whole number of them"
                );
                return Err(self.error(ApiErrorCode::InvalidArgument, why));
            }
            let change = DeviceChange::MemoryRequest { bytes: plugged };
            let device = definition.devices.find(&DeviceName::Memory);
            calls.extend(device.map(|(slot, _)| DeviceCall::Update { slot, change }));
        }
        match definition.devices.find(&DeviceName::Balloon) {
            Some((slot, _)) => {
                let change = DeviceChange::BalloonTarget { bytes: lent };
                calls.push(DeviceCall::Update { slot, change });
            }
            None if lent > 0 || calls.is_empty() => {
                let why =
                    "it has no balloon, which takes memory from a guest; 'reeve attach --balloon'";
                return Err(self.error(ApiErrorCode::NoDevice, why));
            }
            None => {}
        }
        Ok(calls)
    }

    /// Whether the guest of a machine that is made so is to be asked to make do with less, or more. A domain
    /// without the device for it has what it starts with.
    pub(super) fn asks_memory(&self, definition: &Domain) -> bool {
        let memory = definition.tuning.current_memory;
        memory.is_some_and(|memory| self.memory_calls(definition, memory).is_ok())
    }

    /// Brings a machine to what its status says: one that has just been made, that an earlier supervisor left
    /// half way, or whose change is taken back. Nobody waits for it.
    pub(super) fn finish_tuning(&mut self) {
        let Some(live) = self.live() else { return };
        let mut record = live.record.clone();
        let domain = &record.definition;
        let mut steps = Vec::new();
        if record.intents.tuning {
            let domain = Box::new(domain.clone());
            let before = None;
            steps.push(Step::Device(DeviceCall::Tune { domain, before }));
        }
        if let Some(memory) = domain
            .tuning
            .current_memory
            .filter(|_| record.intents.asks_memory)
        {
            let calls = self.memory_calls(domain, memory).unwrap_or_default();
            steps.extend(calls.into_iter().map(Step::Device));
        }
        record.intents.tuning = false;
        record.intents.tuned_before = None;
        record.intents.asks_memory = false;
        if record != live.record {
            steps.push(Step::WriteStatus(Box::new(record)));
            self.begin_steps(None, JobKind::Tune, steps);
        }
    }

    /// It is bound and limited as its status says.
    pub(super) fn tuned(&mut self) {
        if let Some(live) = self.live_mut() {
            live.record.intents.tuning = false;
            live.record.intents.tuned_before = None;
            let (id, record) = (live.id, Box::new(live.record.clone()));
            // One that says otherwise still has it done again, which changes nothing.
            self.effects.push(Effect::WriteStatus(None, id, record));
        }
        self.step_done();
    }

    /// The host has refused what nobody waits for: an earlier supervisor's tune, or one that is taken back. What it
    /// was bound by before is asked for then; where that is refused too, or is not known, nothing more is.
    pub(super) fn tune_refused(&mut self) {
        let Some(live) = self.live() else { return };
        let mut record = live.record.clone();
        match record.intents.tuned_before.take() {
            // The refused one may have been in force in part, when that supervisor died.
            Some(before) => bind_as(&mut record.definition, &before),
            None => record.intents.tuning = false,
        }
        self.take_back(record);
        if let Some(live) = self.live_mut() {
            live.note_unfinished();
        }
    }

    /// As for a medium: what the machine is held to is in the status first. What the host is seen to lack is never in
    /// it, or whoever comes after this supervisor would have it refused.
    pub(super) fn tune_steps(
        &self,
        changes: &[TuningChange],
        live: bool,
        persistent: bool,
    ) -> Steps {
        if changes.len() > MAX_TUNING_CHANGES {
            let why = format!(
                "{} changes at once: at most {MAX_TUNING_CHANGES}",
                changes.len()
            );
            return Err(self.error(ApiErrorCode::InvalidArgument, why));
        }
        let mut steps = Vec::new();
        let mut events = Vec::new();
        if live {
            let mut record = self.running()?.record.clone();
            let before = Some(Box::new(record.definition.clone()));
            self.apply(&mut record.definition, changes)?;
            let nodes = |domain: &Domain| domain.tuning.memory_nodes.clone();
            if let Some(before) = &before {
                self.check_nodes(nodes(before), nodes(&record.definition))?;
            }
            let domain = Box::new(record.definition.clone());
            let check = DeviceCall::TuneCheck {
                domain: domain.clone(),
                before: before.clone(),
            };
            if let Some(before) = before.as_deref().filter(|before| **before != *domain) {
                // Not the list that a client sent, which says what it likes as often as it likes.
                let changes = differences(before, &domain);
                events.push(EventKind::Tuned { changes });
            }
            record.intents.tuning = true;
            if record.intents.tuned_before.is_none() {
                record.intents.tuned_before.clone_from(&before);
            }
            steps.push(Step::Device(check));
            steps.push(Step::WriteStatus(Box::new(record)));
            steps.push(Step::Device(DeviceCall::Tune { domain, before }));
        }
        if persistent {
            let mut record = self.kept()?.clone();
            self.apply(&mut record.domain, changes)?;
            steps.push(Step::WriteRecord(Box::new(record)));
            events.push(REDEFINED);
        }
        Ok((steps, events))
    }

    /// Each change makes a definition that is valid: what a later one takes back is refused too.
    fn apply(&self, domain: &mut Domain, changes: &[TuningChange]) -> Result<(), ApiError> {
        for change in changes {
            apply(domain, change);
            self.checked(domain)?;
        }
        Ok(())
    }

    /// Refuses nodes for the memory of a machine that runs where nothing can move it.
    fn check_nodes(
        &self,
        before: Option<MemoryNodes>,
        after: Option<MemoryNodes>,
    ) -> Result<(), ApiError> {
        let mode = |nodes: &Option<MemoryNodes>| nodes.as_ref().map(|nodes| nodes.mode);
        let why = match (mode(&before), mode(&after)) {
            _ if before == after => return Ok(()),
            (Some(NodeMode::Restrictive), Some(NodeMode::Restrictive)) => return Ok(()),
            (before, after) if before == after => {
                "change of nodeset for running domain requires restrictive numa mode"
            }
            _ => "can't change numatune mode for running domain",
        };
        Err(self.error(ApiErrorCode::WrongState, why))
    }

    pub(super) fn checked(&self, domain: &Domain) -> Result<(), ApiError> {
        let checked = domain.validate();
        checked.map_err(|error| self.error(ApiErrorCode::InvalidArgument, error))
    }
}
