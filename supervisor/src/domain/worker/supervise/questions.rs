//! What the supervision asks a worker by itself: whether it is back, and where it has devices.
//!
//! The answers go the way of everything else that the worker tells, so that the actor has them in order:
//! what the worker had told when it answered comes first.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use reeve_ipc::client::CallError;
use reeve_ipc::device::DeviceReport;
use reeve_ipc::request::{DeviceQuery, Query, Status, VcpusQuery};
use reeve_ipc::vcpus::VcpuStanding;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Heard, Supervision};
use crate::domain::driver::Notice;
use crate::domain::worker::{CALL_DEADLINE, devices};

/// How long a silent worker may take to come back before it is asked again.
const PROBE_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);
/// When a worker is asked again that has refused to say where it has devices: it may be handing its machine
/// over.
const AGAIN: Duration = Duration::from_secs(1);

/// A question to a worker that went silent; its answer says that it is back.
type Probe = Pin<Box<dyn Future<Output = Result<Status, CallError>> + Send>>;

/// Where it has devices, and which vCPUs it has.
type Listing =
    Pin<Box<dyn Future<Output = Result<(Vec<DeviceReport>, VcpuStanding), CallError>> + Send>>;

/// The questions that are not answered yet.
#[derive(Default)]
pub(super) struct Questions {
    pub(super) probe: Option<Probe>,
    pub(super) listing: Option<Listing>,
    /// By which number the devices were asked for last.
    pub(super) asked: u64,
    /// When they are asked for again.
    pub(super) again: Option<Instant>,
    /// Whether the worker has told which ports are open since it was asked for the devices.
    pub(super) ports_told: bool,
}

impl Supervision {
    /// A call was not answered in time: one question waits from now on for the worker to be back.
    pub(super) fn silent(&self, heard: &mut Heard) {
        let (Some(_), Some(client)) = (&self.tell, self.link.get()) else {
            return;
        };
        let (domain, uuid) = (&self.name, self.uuid);
        tracing::warn!(%domain, %uuid, "the worker does not answer");
        heard.outbox.push(Notice::Silent);
        let client = client.clone();
        heard.questions.probe = Some(Box::pin(async move {
            client.call(Query {}, PROBE_DEADLINE).await
        }));
    }

    pub(super) fn answered(&self, heard: &mut Heard, answer: Result<Status, CallError>) {
        heard.questions.probe = None;
        match answer {
            Ok(status) => {
                let (domain, uuid) = (&self.name, self.uuid);
                tracing::info!(%domain, %uuid, "the worker answers again");
                // Whoever hears it asks for the devices: what it was asked for and did not answer it has done
                // by now, or not.
                heard.outbox.push(Notice::Responsive {
                    phase: status.phase,
                    resets: status.resets,
                    end: None,
                });
            }
            // Closed: that is heard of elsewhere. Anything else: the next missed call asks again.
            Err(error) => tracing::debug!(%error, "a silent worker was not asked"),
        }
    }

    /// The number by which the actor wants the devices, where that is another than `asked`.
    pub(super) async fn wanted(wanted: &mut watch::Receiver<u64>, asked: u64) -> u64 {
        let number = wanted.wait_for(|number| *number != asked).await;
        match number.ok().map(|number| *number) {
            Some(number) => number,
            None => std::future::pending().await,
        }
    }

    /// Asks for the devices.
    pub(super) fn list(&self, heard: &mut Heard, number: u64) {
        heard.questions.asked = number;
        heard.questions.again = None;
        heard.questions.ports_told = false;
        // One that was found and has said nothing is asked when it has.
        let Some(client) = self.link.get().cloned() else {
            return;
        };
        heard.questions.listing = Some(Box::pin(async move {
            let devices = client.call(DeviceQuery {}, CALL_DEADLINE).await?;
            let vcpus = client.call(VcpusQuery {}, CALL_DEADLINE).await?;
            Ok((devices, vcpus))
        }));
    }

    pub(super) fn listed(
        &self,
        heard: &mut Heard,
        listed: Result<(Vec<DeviceReport>, VcpuStanding), CallError>,
    ) {
        heard.questions.listing = None;
        match listed {
            Ok((reports, vcpus)) => {
                let places = devices::places(&reports)
                    .and_then(|places| devices::vcpus_of(&vcpus).map(|()| places));
                match places {
                    Ok(places) => {
                        let number = heard.questions.asked;
                        // It may have changed while nobody heard. What was told meanwhile may be newer than the
                        // answer.
                        if !heard.questions.ports_told {
                            heard.has_ports(devices::ports_of(&reports));
                        }
                        self.notify(heard, Notice::Devices(number, places));
                        self.notify(heard, Notice::Vcpus(vcpus));
                    }
                    Err(rule) => self.violated(heard, rule),
                }
            }
            // When it is back it is asked again.
            Err(CallError::Deadline(..)) => self.process.missed.notify_one(),
            Err(CallError::Refused(_) | CallError::Busy) => {
                heard.questions.again = Some(Instant::now() + AGAIN);
            }
            Err(error) => tracing::debug!(%error, "a worker did not say where it has devices"),
        }
    }
}
