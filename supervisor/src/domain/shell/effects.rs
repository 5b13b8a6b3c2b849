//! What the actor wants done, begun: each effect at once, what has to be awaited as a small task.

use std::sync::Arc;

use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::view::JobKind;
use reeve_ipc::model::{Domain, DomainName, DomainUuid};

use super::ports::{give_back, tell_of_taps};
use super::{Outcome, Shell, Start};
use crate::crash::{self, Moment, Operation};
use crate::domain::actor::{Adopted, Done, Effect, Input, LiveRecord, Timer};
use crate::domain::driver::{
    CallFailure, DeviceCall, DeviceLedger, Instance, StartFailure, StartFailureKind, StartOrder,
    SuccessionLedger,
};
use crate::domain::operation;
use crate::domain::world::StatusWriter;

impl<F: FnOnce() + Send + 'static> Shell<F> {
    pub(super) fn execute(&mut self, effect: Effect) {
        match effect {
            Effect::Answer(ticket, result) => {
                if let Some(reply) = self.tickets.remove(&ticket) {
                    if self.actor.is_retired() {
                        // Who hears of its end finds its name free.
                        self.parting.push((reply, result));
                    } else {
                        // A client that has gone needs no answer.
                        let _ = reply.send(result);
                    }
                }
            }
            Effect::WriteRecord(serial, record) => {
                let write = self.world.storage.write_record(*record);
                self.outcomes
                    .spawn(async move { Outcome::Done(serial, Done::Written(write.await)) });
            }
            Effect::RemoveRecord(serial) => {
                let remove = self.world.storage.remove_record(self.uuid);
                self.outcomes
                    .spawn(async move { Outcome::Done(serial, Done::Written(remove.await)) });
            }
            Effect::WriteStatus(serial, _, record) => self.write_status(serial, *record),
            Effect::RemoveStatus => {
                self.disconnect_all();
                match self.status.take() {
                    Some(status) => status.remove(self.doing),
                    None => self.world.storage.remove_status(self.uuid),
                }
                self.found = None;
            }
            Effect::Start {
                serial,
                id,
                record,
                paused,
            } => self.start(serial, id, *record, paused),
            Effect::Adopt { serial, id, record } => self.adopt(serial, id, *record),
            Effect::Call(serial, id, call) => {
                let instance = self.instance(id);
                let operation = operation::called(call, self.actor.job_kind());
                self.outcomes.spawn(async move {
                    let result = match instance {
                        Some(instance) => crash::around(operation, instance.call(call)).await,
                        None => Err(CallFailure::Gone),
                    };
                    Outcome::Done(serial, Done::Called(result))
                });
            }
            Effect::Device(serial, id, call) => self.ask_device(serial, id, call),
            Effect::HandOver(serial, id, domain) => self.hand_over(serial, id, *domain),
            Effect::AskDevices(number, id) => {
                if let Some(instance) = self.instance(id) {
                    instance.ask_devices(number);
                }
            }
            Effect::Release(id, place) => {
                let held = self.status.as_ref().map(|s| s.take_device(place));
                if let Some(instance) = self.instance(id) {
                    let held = held.into_iter().flatten();
                    held.for_each(|device| instance.release(device));
                }
                self.disconnect(place);
            }
            Effect::Kill(id) => self.kill(id),
            Effect::SetTimer(timer, after_ms) => {
                let sleep = self.world.clock.sleep_ms(after_ms);
                let task = self.outcomes.spawn(async move {
                    sleep.await;
                    Outcome::Input(Input::Timer(timer))
                });
                if matches!(timer, Timer::ShutdownDeadline { .. }) {
                    if let Some(before) = self.deadline.replace(task) {
                        before.abort();
                    }
                }
            }
            Effect::Event(kind) => {
                if let Some(name) = &self.name {
                    match &self.world.logs {
                        Some(_) => tell_log(name, self.uuid, &kind),
                        // What names a domain and its UUID goes into a log of its own, and here are none.
                        None => {
                            tracing::debug!(of = %name, event = ?kind, "domain event, not logged")
                        }
                    }
                    self.world.events.domain_event(self.uuid, name, kind);
                }
            }
            // The loop ends by it.
            Effect::Retire => {}
        }
    }

    fn ask_device(&mut self, serial: u64, id: u32, mut call: DeviceCall) {
        let mut connected = Vec::new();
        if let DeviceCall::Attach { domain, place } = &mut call {
            let given = self.connect(id, domain, Some(*place)).and_then(|given| {
                let noted = match &self.status {
                    Some(status) if !given.is_empty() => status.set_devices(domain),
                    _ => Ok(()),
                };
                noted.map(|()| given).map_err(|message| StartFailure {
                    kind: StartFailureKind::Host,
                    message,
                })
            });
            match given {
                Ok(given) => connected = given,
                Err(failure) => {
                    self.disconnect(*place);
                    let refused = Done::Called(Err(CallFailure::NotMade(failure)));
                    self.inputs.push_back(Input::Done(serial, refused));
                    return;
                }
            }
        }
        let networks = self.world.networks.clone();
        let asked = self.instance(id).zip(self.status.clone());
        // What is taken back for a job that has failed: nobody waits for the answer.
        let taken_back = matches!(call, DeviceCall::Filter { .. } | DeviceCall::Tags { .. });
        let of = self.name.clone().filter(|_| taken_back && serial == 0);
        let uuid = self.uuid;
        // A look changes nothing that a crash could leave half way.
        let tunes = self.actor.job_kind() == Some(JobKind::Tune) && !call.is_look();
        self.outcomes.spawn(async move {
            let result = match asked {
                Some((instance, status)) => {
                    let ledger: Arc<dyn DeviceLedger> = Arc::clone(&status) as _;
                    let asked = instance.device(call, ledger);
                    let result = match tunes {
                        true => crash::around(Operation::Tune, asked).await,
                        false => asked.await,
                    };
                    match (&networks, &result) {
                        (Some(networks), Ok(())) => tell_of_taps(networks, &status, &connected),
                        // It may have the device, or get it yet: that is found out.
                        (_, Err(CallFailure::Deadline)) | (None, _) => {}
                        (Some(networks), Err(_)) => give_back(networks.as_ref(), &connected),
                    }
                    if let (Some(domain), Err(error)) = (&of, &result) {
                        tracing::error!(
                            %domain, %uuid,
                            "an interface has not the filter or the tags of its definition, since what a failed change \
                             of them has done cannot be taken back: {error}"
                        );
                    }
                    result
                }
                None => {
                    if let Some(networks) = &networks {
                        give_back(networks.as_ref(), &connected);
                    }
                    Err(CallFailure::Gone)
                }
            };
            Outcome::Done(serial, Done::Called(result))
        });
    }

    fn hand_over(&mut self, serial: u64, id: u32, domain: Domain) {
        let asked = self.instance(id).zip(self.status.clone());
        self.outcomes.spawn(async move {
            let result = match asked {
                Some((instance, status)) => {
                    let ledger: Arc<dyn SuccessionLedger> = status;
                    instance.hand_over(domain, ledger).await
                }
                None => Err(CallFailure::Gone),
            };
            Outcome::Done(serial, Done::Called(result))
        });
    }

    fn instance(&self, id: u32) -> Option<Arc<dyn Instance>> {
        let worker = self.worker.as_ref().filter(|worker| worker.id == id)?;
        Some(Arc::clone(&worker.instance))
    }

    fn write_status(&mut self, serial: Option<u64>, record: LiveRecord) {
        let operation = operation::noted(&record, self.actor.job_kind());
        let result = match &self.status {
            Some(status) => status.set_record(operation, record),
            None => Ok(()),
        };
        match serial {
            Some(serial) => self
                .inputs
                .push_back(Input::Done(serial, Done::Written(result))),
            None => {
                if let Err(error) = result {
                    tracing::warn!(uuid = %self.uuid, error, "the status could not be written");
                }
            }
        }
    }

    fn start(&mut self, serial: u64, id: u32, mut record: LiveRecord, paused: bool) {
        self.doing = Operation::Start;
        if let Err(failure) = self.connect(id, &mut record.definition, None) {
            self.outcomes
                .spawn(async move { Outcome::Started(serial, id, Err(failure)) });
            return;
        }
        let domain = record.definition.clone();
        let storage = Arc::clone(&self.world.storage);
        let status = Arc::new(StatusWriter::new(self.uuid, Arc::clone(&storage), record));
        self.status = Some(Arc::clone(&status));
        let (driver, uuid) = (Arc::clone(&self.world.driver), self.uuid);
        let task = self.outcomes.spawn(async move {
            let result = match storage.directory(uuid) {
                Ok(directory) => {
                    let order = StartOrder {
                        domain,
                        paused,
                        directory,
                    };
                    driver.start(order, status).await
                }
                Err(message) => Err(StartFailure {
                    kind: StartFailureKind::Host,
                    message,
                }),
            };
            Outcome::Started(serial, id, result)
        });
        self.start = Some(Start { id, serial, task });
    }

    fn adopt(&mut self, serial: u64, id: u32, record: LiveRecord) {
        let Some(found) = self.found.take() else {
            let gone = Adopted::Gone("no status was found".to_owned());
            self.inputs
                .push_back(Input::Done(serial, Done::Adopted(gone)));
            return;
        };
        self.doing = Operation::Adopt;
        let resources = found.resources.clone();
        let storage = Arc::clone(&self.world.storage);
        self.status = Some(Arc::new(StatusWriter::found(self.uuid, storage, found)));
        let adoption = self.world.driver.adopt(record.definition, resources);
        self.outcomes
            .spawn(async move { Outcome::Adopted(serial, id, Box::new(adoption.await)) });
    }

    fn kill(&mut self, id: u32) {
        self.doing = Operation::Destroy;
        if let Some(instance) = self.instance(id) {
            crash::point(Operation::Destroy, Moment::BeforeCall);
            instance.kill();
            crash::point(Operation::Destroy, Moment::AfterCall);
            return;
        }
        if let Some(start) = self.start.as_ref().filter(|start| start.id == id) {
            // Dropping its future undoes it. If it ended this instant, its outcome comes all the
            // same, and the actor kills the worker then.
            start.task.abort();
        }
    }
}

/// A guest changes its balloon, its vCPUs and its channels as often as it likes, which fills no log.
fn tell_log(domain: &DomainName, uuid: DomainUuid, event: &EventKind) {
    match event {
        EventKind::BalloonChanged { .. }
        | EventKind::VcpusChanged { .. }
        | EventKind::ChannelChanged { .. } => {
            tracing::debug!(%domain, %uuid, ?event, "domain event");
        }
        event => tracing::info!(%domain, %uuid, ?event, "domain event"),
    }
}
