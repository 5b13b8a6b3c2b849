//! A kept worker as the domain's actor asks it: deadlines here, and no wait for what is silent.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use reeve_ipc::api::figures::{DomainUsage, VcpuFigures};
use reeve_ipc::api::view::{DomainStats, VcpuStats, WorkerDetails};
use reeve_ipc::client::CallError;
use reeve_ipc::device::{DeviceFigures, DeviceReport};
use reeve_ipc::model::Domain;
use reeve_ipc::request::{DiskQuery, NmiInject, Peek, PeekPlace};
use reeve_ipc::spec::{MAX_VCPUS, PciSlot};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::hand_over::{Heir, hand_over};
use super::log::quoted;
use super::planner::Planner;
use super::{AttachError, CALL_DEADLINE, Worker, devices};
use crate::domain::driver::{
    CallFailure, DeviceCall, DeviceLedger, DeviceResources, Instance, Later, SuccessionLedger,
    WorkerCall,
};
use crate::host::filter::TapFilters;
use crate::host::identity::Level;
use crate::host::{Host, process, vcpus};

/// Queries of clients that may wait for one worker: half of the calls that its connection takes, so
/// that the domain's own jobs find room beside them. Each console among them holds two descriptors.
const MAX_QUERIES: usize = 32;
/// Questions for figures that a worker may owe an answer. Who asks every few seconds does not wait for long, and asks
/// again: a worker that is slow has no more to answer for that.
const MAX_FIGURES: usize = 4;

/// One kept worker. Dropping it leaves the process alone.
#[derive(Debug)]
pub(super) struct KvmInstance {
    /// Another after the machine was handed over.
    current: Arc<Mutex<Arc<Worker>>>,
    /// To whom the machine is being handed.
    heir: Heir,
    host: Arc<Host>,
    /// Places for queries.
    queries: Arc<Semaphore>,
    /// Places for figures, which the worker owes an answer.
    figures: Arc<Semaphore>,
    /// Opens what a device needs.
    planner: Planner,
}

impl KvmInstance {
    pub(super) fn new(worker: Worker, host: Arc<Host>, planner: Planner) -> Self {
        Self {
            planner,
            current: Arc::new(Mutex::new(Arc::new(worker))),
            heir: Heir::default(),
            host,
            queries: Arc::new(Semaphore::new(MAX_QUERIES)),
            figures: Arc::new(Semaphore::new(MAX_FIGURES)),
        }
    }

    /// The worker that has the machine.
    fn worker(&self) -> Arc<Worker> {
        // Nothing panics while it is held.
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A place for a query, which must not wait for one: a worker that is silent would have its
    /// clients hold descriptors and memory without end.
    fn place(&self) -> Result<OwnedSemaphorePermit, CallFailure> {
        let place = Arc::clone(&self.queries).try_acquire_owned();
        place.map_err(|_| CallFailure::Busy)
    }
}

impl KvmInstance {
    /// Asks the worker outside of the domain's jobs.
    fn query<T: 'static, F, A>(&self, ask: F) -> Later<Result<T, CallFailure>>
    where
        F: FnOnce(Arc<Worker>) -> A + Send + 'static,
        A: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let (worker, place) = (self.worker(), self.place());
        Box::pin(async move {
            let _place = place?;
            let asked = ask(Arc::clone(&worker)).await;
            asked.map_err(|error| failure(&worker, error))
        })
    }
}

/// With what the worker does not see, for which the kernel is asked where there is a network interface.
async fn counted(
    worker: &Worker,
    filters: TapFilters,
    mut reports: Vec<DeviceReport>,
) -> Result<Vec<DeviceReport>, CallFailure> {
    let is_nic = |report: &DeviceReport| matches!(report.figures, DeviceFigures::Nic(_));
    if !reports.iter().any(is_nic) {
        return Ok(reports);
    }
    let taps = worker.taps.clone();
    let counting = tokio::task::spawn_blocking(move || {
        taps.count(&filters, &mut reports);
        reports
    });
    counting.await.map_err(|_| CallFailure::Gone)
}

/// What the actor is told; a deadline that passed is told to the supervision too.
pub(super) fn failure(worker: &Worker, error: CallError) -> CallFailure {
    match error {
        CallError::Refused(error) => CallFailure::Refused(quoted(&error.message)),
        CallError::Deadline(..) => {
            worker.process.missed.notify_one();
            CallFailure::Deadline
        }
        CallError::Closed(_) | CallError::Socket(_) => CallFailure::Gone,
        CallError::Busy => CallFailure::Busy,
        error @ CallError::Codec(_) => CallFailure::Refused(error.to_string()),
    }
}

impl Instance for KvmInstance {
    fn call(&self, call: WorkerCall) -> Later<Result<(), CallFailure>> {
        let worker = self.worker();
        Box::pin(async move {
            let result = match call {
                WorkerCall::Pause => worker.pause().await,
                WorkerCall::Resume => worker.resume().await,
                WorkerCall::PowerButton => worker.power_button().await,
                WorkerCall::Reset => worker.reset().await,
                WorkerCall::Stop => {
                    // It ends, by itself or not; the supervision tells when.
                    let _ = worker.stop().await;
                    Ok(())
                }
            };
            result.map_err(|error| failure(&worker, error))
        })
    }

    fn kill(&self) {
        self.heir.kill();
        self.worker().kill();
    }

    fn console(
        &self,
        from: Option<u64>,
        input: bool,
    ) -> Later<Result<(OwnedFd, u64), CallFailure>> {
        let worker = self.worker();
        let place = self.place();
        Box::pin(async move {
            let _place = place?;
            match worker.console_from(from, input).await {
                Ok((stream, position)) => Ok((stream.into(), position)),
                Err(AttachError::Call(error)) => Err(failure(&worker, error)),
                Err(error) => Err(CallFailure::Refused(error.to_string())),
            }
        })
    }

    fn stats(&self) -> Later<Result<DomainStats, CallFailure>> {
        let worker = self.worker();
        let place = self.place();
        Box::pin(async move {
            let _place = place?;
            let status = worker.query().await;
            let status = status.map_err(|error| failure(&worker, error))?;
            let usage = usage(&worker)?;
            Ok(DomainStats {
                cpu_time_ns: usage.cpu_time_ns,
                resident_bytes: usage.resident_bytes,
                console_dropped_bytes: status.console_dropped_bytes,
                console_clients: status.console_clients,
                log_dropped: status.log_dropped,
            })
        })
    }

    fn device(
        &self,
        call: DeviceCall,
        ledger: Arc<dyn DeviceLedger>,
    ) -> Later<Result<(), CallFailure>> {
        let (worker, planner) = (self.worker(), self.planner.clone());
        Box::pin(async move { devices::ask(&worker, &planner, call, ledger.as_ref()).await })
    }

    fn hand_over(
        &self,
        domain: Domain,
        ledger: Arc<dyn SuccessionLedger>,
    ) -> Later<Result<(), CallFailure>> {
        let (old, host, heir) = (self.worker(), Arc::clone(&self.host), self.heir.clone());
        let planner = self.planner.clone();
        let current = Arc::clone(&self.current);
        Box::pin(async move {
            // Not to be dropped half way, whatever becomes of whoever waits for it.
            let task = tokio::spawn(async move {
                let handing = hand_over((&host, &planner), &domain, &old, ledger.as_ref(), &heir);
                let handed = handing.await.map(|worker| {
                    let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
                    *current = Arc::new(worker);
                });
                heir.forget();
                handed
            });
            task.await.unwrap_or(Err(CallFailure::Gone))
        })
    }

    fn ask_devices(&self, number: u64) {
        self.worker().process.wanted.send_replace(number);
    }

    fn release(&self, device: DeviceResources) {
        devices::release(&self.worker(), device);
    }

    fn device_reports(&self) -> Later<Result<Vec<DeviceReport>, CallFailure>> {
        let worker = self.worker();
        let place = self.place();
        let filters = self.host.network.filters.clone();
        Box::pin(async move {
            let _place = place?;
            let reports = devices::reports(&worker).await?;
            counted(&worker, filters, reports).await
        })
    }

    fn usage(&self) -> Result<DomainUsage, CallFailure> {
        usage(&self.worker())
    }

    fn vcpu_figures(&self) -> Vec<VcpuFigures> {
        let worker = self.worker();
        let figures = vcpus::figures(worker.pid(), MAX_VCPUS);
        match process::has_ended(worker.process.pidfd.as_fd()) {
            true => Vec::new(),
            false => figures,
        }
    }

    fn device_figures(&self) -> Later<Result<Vec<DeviceReport>, CallFailure>> {
        let worker = self.worker();
        // Whoever asks waits for a place as for the answer.
        let place = Arc::clone(&self.figures).acquire_owned();
        let filters = self.host.network.filters.clone();
        Box::pin(async move {
            let place = place.await.map_err(|_| CallFailure::Busy)?;
            let asked = Arc::clone(&worker);
            let (tell, told) = oneshot::channel();
            // Goes on where whoever asked does not wait any more: the place is taken until there is an answer.
            tokio::spawn(async move {
                let reports = devices::reports_late(&asked).await;
                let balloon = reports
                    .as_ref()
                    .ok()
                    .and_then(|reports| devices::to_poll(reports));
                let _ = tell.send(reports);
                if let Some(slot) = balloon {
                    devices::poll(&asked, slot).await;
                }
                drop(place);
            });
            let reports = told.await.unwrap_or(Err(CallFailure::Gone))?;
            counted(&worker, filters, reports).await
        })
    }

    fn vcpu_stats(&self) -> Later<Result<Vec<VcpuStats>, CallFailure>> {
        let worker = self.worker();
        let place = self.place();
        Box::pin(async move {
            let place = place?;
            // A machine may have a thousand.
            let reading = tokio::task::spawn_blocking(move || {
                let stats = vcpus::stats(worker.pid(), MAX_VCPUS);
                drop(place);
                // As for the whole of it.
                match process::has_ended(worker.process.pidfd.as_fd()) {
                    true => Err(CallFailure::Gone),
                    false => Ok(stats),
                }
            });
            reading.await.unwrap_or(Err(CallFailure::Gone))
        })
    }

    fn inject_nmi(&self) -> Later<Result<(), CallFailure>> {
        self.query(|worker| async move { worker.call(NmiInject {}, CALL_DEADLINE).await })
    }

    fn peek(&self, at: PeekPlace, offset: u64, length: u32) -> Later<Result<Vec<u8>, CallFailure>> {
        let peek = Peek { at, offset, length };
        let (worker, place) = (self.worker(), self.place());
        Box::pin(async move {
            let _place = place?;
            let asked = worker.call(peek, devices::DEVICE_DEADLINE).await;
            // Storage that is slow is no refusal: who asks again has them.
            let bytes = asked.map_err(|error| devices::late_failure(&worker, error))?;
            match u32::try_from(bytes.len()) == Ok(length) {
                true => Ok(bytes),
                false => Err(CallFailure::Refused(
                    "the worker told of another number of bytes".to_owned(),
                )),
            }
        })
    }

    fn disk_bytes(&self, slot: PciSlot) -> Later<Result<u64, CallFailure>> {
        let query = DiskQuery { slot };
        self.query(|worker| async move { worker.call(query, CALL_DEADLINE).await })
    }

    fn details(&self) -> WorkerDetails {
        let worker = self.worker();
        let facts = worker.facts();
        WorkerDetails {
            pid: worker.pid(),
            uid: facts.uid,
            own_uid: facts.level == Level::System,
            cgroup: facts
                .cgroup
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned()),
            landlock_abi: worker.view().jail.map(|jail| jail.landlock_abi),
            adopted: facts.adopted,
        }
    }
}

/// What a worker uses of the host, of the kernel's own books.
fn usage(worker: &Worker) -> Result<DomainUsage, CallFailure> {
    let account = process::process_account(worker.pid());
    // What was read is of this very process if it still lives.
    let ended = process::has_ended(worker.process.pidfd.as_fd());
    let account = account.filter(|_| !ended).ok_or(CallFailure::Gone)?;
    // A cgroup counts on where the machine goes to another process.
    let cgroup = worker.facts().cgroup.as_deref();
    let times = cgroup.and_then(process::cgroup_times);
    let (user_ns, system_ns) = times.unwrap_or((account.user_ns, account.system_ns));
    Ok(DomainUsage {
        cpu_time_ns: user_ns.saturating_add(system_ns),
        user_ns,
        system_ns,
        resident_bytes: account.resident_bytes,
    })
}
