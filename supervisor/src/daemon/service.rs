//! What each call of the native API does: from its arguments to the registry, and back.
//!
//! Reads are answered at once from the published views; everything else awaits its actor or its
//! worker in a task of the call's own. Access was checked before a call comes here.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use reeve_ipc::api::call::{AnswerBody, CallBody, ConsoleStream, DomainRef, LogKind};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::view::{DomainDefinition, SupervisorInfo};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::figures::device_stats;
use super::{Daemon, Driven};
use crate::api::{Answer, Answered, Serve, Served};
use crate::domain::actor::{Request, SessionId};
use crate::domain::driver::{CallFailure, Instance, Later};
use crate::domain::shell::View;
use crate::host::reason;

/// Room for the lines of refused files in a message.
const REFUSED_BYTES: usize = 32 * 1024;
/// What a message takes for a text beside its bytes, at most.
const LENGTH_BYTES: usize = 8;

fn now(result: Result<AnswerBody, ApiError>) -> Answer {
    Answer::Now(result.map(|answer| (answer, Vec::new())))
}

impl Serve for Daemon {
    fn serve(self: Arc<Self>, session: SessionId, call: CallBody) -> Answer {
        match self.of_test_networks(call) {
            Ok(answer) => answer,
            Err(call) => self.answer(session, call),
        }
    }

    fn session_ended(self: Arc<Self>, session: SessionId) {
        self.streams.end(session);
        tokio::spawn(async move {
            self.registry.session_ended(session).await;
            if let Some(test) = self.test.get() {
                test.registry.session_ended(session).await;
            }
        });
    }

    fn clients(&self, count: u32) {
        self.clients.store(count, Ordering::Relaxed);
    }

    fn test_hypervisor(self: Arc<Self>) -> Later<Result<Served<Self>, ApiError>> {
        Box::pin(async move {
            let test = match self.settings.driven {
                // Nothing that it has is real.
                Driven::Test | Driven::TestHypervisor => self,
                Driven::Kvm => self.beside().await?,
            };
            let events = Arc::clone(&test.events);
            Ok((test, events))
        })
    }
}

impl Daemon {
    fn answer(self: &Arc<Self>, session: SessionId, call: CallBody) -> Answer {
        use AnswerBody as A;
        use CallBody as C;
        match call {
            C::SupervisorInfoGet(_) => now(Ok(A::SupervisorInfoGet(self.info()))),
            C::ConfigReload(_) => {
                let daemon = Arc::clone(self);
                later(async move { daemon.reload().await.map(A::ConfigReload) })
            }
            C::LogFilterSet(set) => now(self.set_log_filter(&set.filter).map(A::LogFilterSet)),
            C::DomainList(list) => {
                let page = self.registry.page(list.after.as_ref(), list.active_only);
                now(Ok(A::DomainList(page)))
            }
            C::DomainGet(get) => now(self
                .registry
                .view(&get.domain)
                .map(|view| A::DomainGet(view.details.clone()))),
            C::DomainDefinitionGet(get) => now(self
                .registry
                .view(&get.domain)
                .and_then(|view| definition(&view, get.persistent))
                .map(|definition| A::DomainDefinitionGet(Box::new(definition)))),
            C::DomainStatsGet(get) => self.with_worker(&get.domain, |instance| async move {
                let stats = instance.stats().await.map_err(failed)?;
                Ok((A::DomainStatsGet(stats), Vec::new()))
            }),
            C::DomainDeviceStatsGet(get) => match self.registry.view(&get.domain) {
                Ok(view) => self.with_worker(&get.domain, |instance| async move {
                    let reports = instance.device_reports().await.map_err(failed)?;
                    let stats = device_stats(&view, &reports);
                    Ok((A::DomainDeviceStatsGet(stats), Vec::new()))
                }),
                Err(error) => now(Err(error)),
            },
            C::DomainVcpuStatsGet(get) => self.with_worker(&get.domain, |instance| async move {
                let stats = instance.vcpu_stats().await.map_err(failed)?;
                Ok((A::DomainVcpuStatsGet(stats), Vec::new()))
            }),
            C::DomainConsole(console) => {
                let input = console.input;
                self.with_worker(&console.domain, move |instance| async move {
                    let (stream, position) = instance.console(None, input).await.map_err(failed)?;
                    let answer = A::DomainConsole(ConsoleStream { position });
                    Ok((answer, vec![stream]))
                })
            }
            // What a guest wrote is for those who may change it; a log says too much as well.
            C::DomainLog(log) => Answer::Now(
                self.registry
                    .view(&log.domain)
                    .and_then(|view| self.open_log(&view, log.log))
                    .map(|file| (A::DomainLog(()), vec![file])),
            ),
            // The session does these itself.
            C::EventsSubscribe(_) | C::EventsUnsubscribe(_) | C::TestHypervisorUse(_) => {
                now(Err(ApiError::new(
                    ApiErrorCode::Unsupported,
                    "this is for a connection to do, which has not",
                )))
            }
            C::DomainFiguresList(list) => self.figures(session, list),
            C::DomainNmiInject(call) => self.with_worker(&call.domain, |instance| async move {
                instance.inject_nmi().await.map_err(failed)?;
                Ok((A::DomainNmiInject(()), Vec::new()))
            }),
            C::DomainPeek(peek) => self.peek(peek),
            C::DomainDiskSizeGet(get) => self.disk_size(session, get),
            C::DomainChannel(call) => self.channel(session, call),
            call => match self.of_host(session, call) {
                Ok(answer) => answer,
                Err(call) => match self.of_storage(session, call) {
                    Ok(answer) => answer,
                    Err(call) => match self.of_networks(call) {
                        Ok(answer) => answer,
                        Err(call) => match self.of_nwfilters(call) {
                            Ok(answer) => answer,
                            Err(change) => self.change(session, change),
                        },
                    },
                },
            },
        }
    }

    /// The calls that change something, each awaited by a task of its own.
    fn change(self: &Arc<Self>, session: SessionId, call: CallBody) -> Answer {
        use AnswerBody as A;
        use CallBody as C;
        let daemon = Arc::clone(self);
        let ask = |domain: DomainRef, request: Request, answer: AnswerBody| {
            let daemon = Arc::clone(self);
            later(async move {
                daemon.registry.ask(&domain, request).await?;
                Ok(answer)
            })
        };
        match call {
            C::DomainDefine(define) => later(async move {
                let registry = &daemon.registry;
                let summary = registry.define(*define.definition, define.only_new).await?;
                Ok(A::DomainDefine(summary))
            }),
            C::DomainCreate(create) => later(async move {
                let registry = &daemon.registry;
                let started = registry.create(*create.definition, create.options, session);
                Ok(A::DomainCreate(started.await?))
            }),
            C::DomainStart(start) => later(async move {
                let registry = &daemon.registry;
                let started = registry.start(&start.domain, start.options, session);
                Ok(A::DomainStart(started.await?))
            }),
            C::DomainRename(rename) => later(async move {
                daemon.registry.rename(&rename.domain, rename.name).await?;
                Ok(A::DomainRename(()))
            }),
            C::DomainUndefine(call) => ask(call.domain, Request::Undefine, A::DomainUndefine(())),
            C::DomainShutdown(call) => {
                let request = Request::Shutdown {
                    destroy_after_ms: call.destroy_after_ms,
                    for_host: call.for_host,
                };
                ask(call.domain, request, A::DomainShutdown(()))
            }
            C::DomainReboot(call) => ask(call.domain, Request::Reboot, A::DomainReboot(())),
            C::DomainReset(call) => ask(call.domain, Request::Reset, A::DomainReset(())),
            C::DomainPause(call) => ask(call.domain, Request::Pause, A::DomainPause(())),
            C::DomainResume(call) => ask(call.domain, Request::Resume, A::DomainResume(())),
            C::DomainDestroy(call) => ask(call.domain, Request::Destroy, A::DomainDestroy(())),
            C::DomainAutostartSet(call) => {
                let request = Request::SetAutostart(call.order);
                ask(call.domain, request, A::DomainAutostartSet(()))
            }
            C::DomainLabelSet(call) => {
                let request = Request::SetLabel {
                    change: call.label,
                    live: call.live,
                    persistent: call.persistent,
                };
                ask(call.domain, request, A::DomainLabelSet(()))
            }
            C::DomainDeviceAttach(call) => {
                let request = Request::Attach {
                    device: call.device,
                    live: call.live,
                    persistent: call.persistent,
                };
                ask(call.domain, request, A::DomainDeviceAttach(()))
            }
            C::DomainDeviceDetach(call) => {
                let request = Request::Detach {
                    device: call.device,
                    force: call.force,
                    live: call.live,
                    persistent: call.persistent,
                };
                ask(call.domain, request, A::DomainDeviceDetach(()))
            }
            C::DomainDeviceUpdate(call) => {
                let request = Request::Update {
                    device: call.device,
                    change: call.change,
                    live: call.live,
                    persistent: call.persistent,
                };
                ask(call.domain, request, A::DomainDeviceUpdate(()))
            }
            C::DomainMediumChange(call) => {
                let request = Request::ChangeMedium {
                    device: call.device,
                    medium: call.medium,
                    live: call.live,
                    persistent: call.persistent,
                };
                ask(call.domain, request, A::DomainMediumChange(()))
            }
            C::DomainPortTagsSet(call) => {
                let request = Request::ChangeTags {
                    device: call.device,
                    vlan: call.vlan,
                    live: call.live,
                    persistent: call.persistent,
                };
                ask(call.domain, request, A::DomainPortTagsSet(()))
            }
            C::DomainNicFilterSet(call) => {
                let request = Request::ChangeFilter {
                    device: call.device,
                    filter: call.filter,
                    live: call.live,
                    persistent: call.persistent,
                };
                ask(call.domain, request, A::DomainNicFilterSet(()))
            }
            C::DomainUpgrade(call) => ask(call.domain, Request::Upgrade, A::DomainUpgrade(())),
            C::DomainMemorySet(call) => {
                let request = Request::SetMemory {
                    memory: call.memory,
                    live: true,
                    persistent: false,
                };
                ask(call.domain, request, A::DomainMemorySet(()))
            }
            C::DomainCurrentMemorySet(call) => {
                let request = Request::SetMemory {
                    memory: call.memory,
                    live: call.live,
                    persistent: call.persistent,
                };
                ask(call.domain, request, A::DomainCurrentMemorySet(()))
            }
            C::DomainMaxMemorySet(call) => {
                let request = Request::SetMaxMemory(call.memory);
                ask(call.domain, request, A::DomainMaxMemorySet(()))
            }
            C::DomainTune(call) => {
                let request = Request::Tune {
                    changes: call.changes,
                    live: call.live,
                    persistent: call.persistent,
                };
                ask(call.domain, request, A::DomainTune(()))
            }
            C::DomainVcpusSet(call) => {
                let request = Request::SetVcpus {
                    vcpus: call.vcpus,
                    live: call.live,
                    persistent: call.persistent,
                };
                ask(call.domain, request, A::DomainVcpusSet(()))
            }
            C::DomainAgentTimeoutSet(call) => {
                let request = Request::SetAgentTimeout(call.timeout);
                ask(call.domain, request, A::DomainAgentTimeoutSet(()))
            }
            other => now(Err(unsupported(other.operation().name()))),
        }
    }

    /// Asks the worker of a domain, outside of its actor.
    pub(super) fn with_worker<F, W>(&self, domain: &DomainRef, ask: F) -> Answer
    where
        F: FnOnce(Arc<dyn Instance>) -> W,
        W: Future<Output = Answered> + Send + 'static,
    {
        let view = match self.registry.view(domain) {
            Ok(view) => view,
            Err(error) => return Answer::Now(Err(error)),
        };
        let name = view.details.summary.name.clone();
        let Some(instance) = view.instance.clone() else {
            return Answer::Now(Err(ApiError::new(
                ApiErrorCode::WrongState,
                format!("domain '{name}': it is not running; start it first"),
            )));
        };
        let asked = ask(instance);
        Answer::Later(Box::pin(async move {
            asked.await.map_err(|error| {
                ApiError::new(error.code, format!("domain '{name}': {}", error.message))
            })
        }))
    }

    /// Reads the configuration again, on a thread that may wait for a file system.
    pub(super) async fn reload(self: Arc<Self>) -> Result<Vec<String>, ApiError> {
        let reloading = tokio::task::spawn_blocking(move || self.settings.configured.reload());
        let Ok(reloaded) = reloading.await else {
            // The runtime ends, and this with it.
            return std::future::pending().await;
        };
        reloaded.map_err(|error| ApiError::new(ApiErrorCode::InvalidArgument, error.to_string()))
    }

    fn set_log_filter(&self, filter: &str) -> Result<(), ApiError> {
        let set = self.settings.configured.log.set_filter(filter);
        set.map_err(|error| ApiError::new(ApiErrorCode::InvalidArgument, error.to_string()))
    }

    fn open_log(&self, view: &View, log: LogKind) -> Result<OwnedFd, ApiError> {
        let summary = &view.details.summary;
        let Some(files) = &self.registry.world().logs else {
            let message = format!("domain '{}': no log of it is kept", summary.name);
            return Err(ApiError::new(ApiErrorCode::Unsupported, message));
        };
        let paths = files.paths(&summary.name, summary.uuid);
        let path = match log {
            LogKind::Domain => paths.log,
            LogKind::Console => paths.console,
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| {
            let why = match errno {
                Errno::NOENT => "nothing has been logged yet".to_owned(),
                errno => format!("cannot open {}: {}", path.display(), reason(errno)),
            };
            ApiError::new(
                ApiErrorCode::Host,
                format!("domain '{}': {why}", summary.name),
            )
        })
    }

    /// How the supervisor stands.
    fn info(&self) -> SupervisorInfo {
        let (active, inactive) = self.registry.count();
        let recovery = self.recovery();
        SupervisorInfo {
            build: reeve_ipc::BuildId::this().as_str().to_owned(),
            pid: std::process::id(),
            started_ms: self.started_ms,
            state_directory: self.settings.state_directory.display().to_string(),
            run_directory: self.settings.run_directory.display().to_string(),
            active,
            inactive,
            adopted: recovery.adopted,
            adopted_within_us: recovery.within_us,
            clients: self.connected(),
            refused: fitting(recovery.refused),
        }
    }
}

/// As many lines as fit a message, the last of them for all that do not; the log has them all.
fn fitting(mut lines: Vec<String>) -> Vec<String> {
    let mut room = REFUSED_BYTES;
    let fit = lines.iter().take_while(|line| {
        let left = room.checked_sub(line.len() + LENGTH_BYTES);
        room = left.unwrap_or(0);
        left.is_some()
    });
    let fit = fit.count();
    let more = lines.len() - fit;
    if more > 0 {
        lines.truncate(fit);
        lines.push(format!("and {more} more; the log has them all"));
    }
    lines
}

fn unsupported(what: &str) -> ApiError {
    let message = format!("cannot {what}: this build does not do it");
    ApiError::new(ApiErrorCode::Unsupported, message)
}

fn later<W>(work: W) -> Answer
where
    W: Future<Output = Result<AnswerBody, ApiError>> + Send + 'static,
{
    Answer::Later(Box::pin(async move {
        work.await.map(|answer| (answer, Vec::new()))
    }))
}

pub(super) fn failed(failure: CallFailure) -> ApiError {
    let code = match failure {
        CallFailure::Deadline | CallFailure::Late(_) => ApiErrorCode::Timeout,
        CallFailure::Busy => ApiErrorCode::Busy,
        CallFailure::Refused(_) | CallFailure::Gone | CallFailure::NotMade(_) => {
            ApiErrorCode::Worker
        }
    };
    ApiError::new(code, failure.to_string())
}

fn definition(view: &View, persistent: bool) -> Result<DomainDefinition, ApiError> {
    let kept = view.record.as_deref();
    let live = view.live.as_deref().filter(|_| !persistent);
    match (live, kept) {
        (Some(domain), kept) => Ok(DomainDefinition {
            domain: domain.clone(),
            autostart: kept.and_then(|record| record.autostart),
        }),
        (None, Some(record)) => Ok(record.clone()),
        (None, None) => Err(ApiError::new(
            ApiErrorCode::WrongState,
            format!(
                "domain '{}': it is transient and no definition of it is kept",
                view.details.summary.name
            ),
        )),
    }
}
