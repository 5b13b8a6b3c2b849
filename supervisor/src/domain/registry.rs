//! Every domain of one instance: names them, finds them, and passes on what clients ask.
//!
//! The registry owns the index of names and the handles of the actors; it holds its lock for look-ups
//! only, never while anything is awaited. Reads come from the actors' views and wake nobody.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reeve_ipc::MAX_MESSAGE_BYTES;
use reeve_ipc::api::MAX_PAGE;
use reeve_ipc::api::call::{DomainPage, DomainRef, StartOptions};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::view::{DomainDefinition, DomainSummary};
use reeve_ipc::model::{Domain, DomainName, DomainUuid, Nic};
use tokio::sync::oneshot;

use super::actor::{Request, SessionId};
use super::index::Index;
use super::operation;
use super::shell::{Handle, Mail, Shell, View};
use super::world::{Status, World};
use crate::crash::{self, Moment};

/// Room for everything of a page but its domains.
const PAGE_MARGIN: usize = 4096;
/// What a summary takes at most beside its texts.
const SUMMARY_BYTES: usize = 112;

/// Every domain.
#[derive(Debug, Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    world: Arc<World>,
    domains: Mutex<Domains>,
    /// How many domains there may be; what an earlier supervisor left comes beside.
    most: usize,
}

#[derive(Debug, Default)]
struct Domains {
    index: Index,
    /// In one order whatever came before, so that a simulated schedule replays.
    handles: BTreeMap<DomainUuid, Handle>,
    /// Connections to which a domain was bound: the end of any other concerns no actor.
    bound: HashSet<SessionId>,
}

impl Shared {
    fn domains(&self) -> MutexGuard<'_, Domains> {
        // Nothing panics while it is held.
        self.domains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an earlier supervisor left of one domain.
#[derive(Debug, Clone)]
pub struct Remains {
    /// The domain.
    pub uuid: DomainUuid,
    /// What is kept of it.
    pub record: Option<DomainDefinition>,
    /// What is known of a worker.
    pub status: Option<Status>,
}

impl Remains {
    /// What records and statuses say of the same domains, in the order of UUIDs.
    #[must_use]
    pub fn join(records: Vec<DomainDefinition>, statuses: Vec<(DomainUuid, Status)>) -> Vec<Self> {
        let mut domains: BTreeMap<DomainUuid, Self> = BTreeMap::new();
        let none = |uuid| Self {
            uuid,
            record: None,
            status: None,
        };
        for record in records {
            let uuid = record.domain.uuid;
            domains.entry(uuid).or_insert_with(|| none(uuid)).record = Some(record);
        }
        for (uuid, status) in statuses {
            domains.entry(uuid).or_insert_with(|| none(uuid)).status = Some(status);
        }
        domains.into_values().collect()
    }
}

impl Registry {
    /// No domain yet.
    #[must_use]
    pub fn new(world: Arc<World>) -> Self {
        Self::bounded(world, usize::MAX)
    }

    /// No domain yet, and never more than `most`.
    #[must_use]
    pub fn bounded(world: Arc<World>, most: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                world,
                domains: Mutex::new(Domains::default()),
                most,
            }),
        }
    }

    /// What its domains act upon.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.shared.world
    }

    /// Takes up what an earlier supervisor left. Each receiver is told once its worker is taken over
    /// or found gone, and whether it lives.
    ///
    /// # Errors
    /// [`ApiErrorCode::DomainExists`]: its name is another domain's; it is left alone.
    pub fn recover(&self, remains: Remains) -> Result<oneshot::Receiver<bool>, ApiError> {
        let Remains {
            uuid,
            record,
            status,
        } = remains;
        let mut domains = self.shared.domains();
        let live = status.as_ref().map(|status| &status.record.definition.name);
        let kept = record.as_ref().map(|record| &record.domain.name);
        if let Some(name) = kept.or(live) {
            domains.index.reserve(uuid, name)?;
        }
        let world = Arc::clone(&self.shared.world);
        let (handle, recovered) =
            Shell::spawn_recovered(world, uuid, record, status, self.retirement(uuid));
        domains.handles.insert(uuid, handle);
        Ok(recovered)
    }

    fn retirement(&self, uuid: DomainUuid) -> impl FnOnce() + Send + 'static {
        let shared = Arc::downgrade(&self.shared);
        move || {
            if let Some(shared) = shared.upgrade() {
                let mut domains = shared.domains();
                domains.handles.remove(&uuid);
                domains.index.release(uuid);
                drop(domains);
                shared.world.changes.raise();
            }
        }
    }

    /// A domain's view.
    ///
    /// # Errors
    /// [`ApiErrorCode::NoDomain`].
    pub fn view(&self, domain: &DomainRef) -> Result<Arc<View>, ApiError> {
        let (_, handle) = self.find(domain)?;
        let view = handle.view.borrow().clone();
        view.ok_or_else(|| unknown(domain))
    }

    /// One page of summaries, in the order of names.
    #[must_use]
    pub fn page(&self, after: Option<&DomainName>, active_only: bool) -> DomainPage {
        let domains = self.shared.domains();
        let mut page = DomainPage {
            domains: Vec::new(),
            more: false,
        };
        let mut room = MAX_MESSAGE_BYTES - PAGE_MARGIN;
        for (_, uuid) in domains.index.after(after) {
            let Some(view) = domains
                .handles
                .get(&uuid)
                .map(|handle| handle.view.borrow())
            else {
                continue;
            };
            let Some(view) = view.as_ref() else { continue };
            let summary = &view.details.summary;
            if active_only && !summary.state.is_active() {
                continue;
            }
            let bytes = size(summary);
            if page.domains.len() >= MAX_PAGE || bytes > room {
                page.more = true;
                break;
            }
            room -= bytes;
            page.domains.push(summary.clone());
        }
        page
    }

    /// Up to `most` views behind `after`, in the order of names, and whether there are more.
    #[must_use]
    pub fn some(
        &self,
        after: Option<&DomainName>,
        active_only: bool,
        most: usize,
    ) -> (Vec<Arc<View>>, bool) {
        let domains = self.shared.domains();
        let handles = domains
            .index
            .after(after)
            .filter_map(|(_, uuid)| domains.handles.get(&uuid));
        let mut views = handles
            .filter_map(|handle| handle.view.borrow().clone())
            .filter(|view| !active_only || view.details.summary.state.is_active());
        let some = views.by_ref().take(most).collect();
        (some, views.next().is_some())
    }

    /// How many domains have a worker, and how many have none.
    #[must_use]
    pub fn count(&self) -> (u32, u32) {
        let domains = self.shared.domains();
        let (mut active, mut inactive) = (0_u32, 0_u32);
        for handle in domains.handles.values() {
            match handle.view.borrow().as_ref() {
                Some(view) if view.details.summary.state.is_active() => active += 1,
                Some(_) => inactive += 1,
                None => {}
            }
        }
        (active, inactive)
    }

    /// Every view, in the order of names.
    #[must_use]
    pub fn views(&self) -> Vec<Arc<View>> {
        let domains = self.shared.domains();
        let handles = domains
            .index
            .after(None)
            .filter_map(|(_, uuid)| domains.handles.get(&uuid));
        handles
            .filter_map(|handle| handle.view.borrow().clone())
            .collect()
    }

    /// Keeps a definition.
    ///
    /// # Errors
    /// It is not valid, its name or UUID is another's, or it could not be written.
    pub async fn define(&self, domain: Domain, only_new: bool) -> Result<DomainSummary, ApiError> {
        let domain = accepted(domain)?;
        let uuid = domain.uuid;
        loop {
            let handle = self.claim(&domain)?;
            let request = Request::Define {
                domain: Box::new(domain.clone()),
                only_new,
            };
            if let Some(result) = ask(&handle, request).await {
                return result.and_then(|()| summary(&handle, uuid));
            }
            // It ended between two look-ups; there is room for a new one now.
        }
    }

    /// Starts a domain without keeping its definition.
    ///
    /// # Errors
    /// It is not valid, runs already, or does not start; its name or UUID is another's.
    pub async fn create(
        &self,
        domain: Domain,
        options: StartOptions,
        session: SessionId,
    ) -> Result<DomainSummary, ApiError> {
        let domain = accepted(domain)?;
        self.bind(options, session);
        let uuid = domain.uuid;
        loop {
            let handle = self.claim(&domain)?;
            let request = Request::Create(Box::new(domain.clone()), options, session);
            if let Some(result) = ask(&handle, request).await {
                return result.and_then(|()| summary(&handle, uuid));
            }
        }
    }

    /// Asks anything else of one domain.
    ///
    /// # Errors
    /// [`ApiErrorCode::NoDomain`], or the actor's own.
    pub async fn ask(&self, domain: &DomainRef, request: Request) -> Result<(), ApiError> {
        let (_, handle) = self.find(domain)?;
        ask(&handle, request)
            .await
            .unwrap_or_else(|| Err(unknown(domain)))
    }

    /// Starts a domain whose definition is kept.
    ///
    /// # Errors
    /// As for [`Self::ask`].
    pub async fn start(
        &self,
        domain: &DomainRef,
        options: StartOptions,
        session: SessionId,
    ) -> Result<DomainSummary, ApiError> {
        let (uuid, handle) = self.find(domain)?;
        self.bind(options, session);
        let result = ask(&handle, Request::Start(options, session)).await;
        result.unwrap_or_else(|| Err(unknown(domain)))?;
        summary(&handle, uuid)
    }

    /// Gives a domain another name.
    ///
    /// # Errors
    /// The name is taken, or as for [`Self::ask`].
    pub async fn rename(&self, domain: &DomainRef, name: DomainName) -> Result<(), ApiError> {
        let (uuid, handle) = {
            let mut domains = self.shared.domains();
            let (uuid, handle) = domains.find(domain)?;
            domains.index.reserve_rename(uuid, &name)?;
            (uuid, handle)
        };
        // Settled even where whoever asked goes away while it is written.
        let shared = Arc::clone(&self.shared);
        let renaming = tokio::spawn(async move {
            let result = ask(&handle, Request::Rename(name.clone())).await;
            let mut domains = shared.domains();
            let before = domains.index.name(uuid).cloned();
            match (&result, before) {
                // It ended meanwhile, and both names with it.
                (_, None) => {}
                (Some(Ok(())), Some(_)) => domains.index.settle(uuid, &name),
                (_, Some(before)) => domains.index.settle(uuid, &before),
            }
            drop(domains);
            shared.world.changes.raise();
            result
        });
        match renaming.await {
            Ok(result) => result.unwrap_or_else(|| Err(unknown(domain))),
            Err(_) => Err(ApiError::new(
                ApiErrorCode::ShuttingDown,
                "the supervisor is ending",
            )),
        }
    }

    /// A client's connection ended: what was bound to it goes.
    pub async fn session_ended(&self, session: SessionId) {
        let handles: Vec<Handle> = {
            let mut domains = self.shared.domains();
            if !domains.bound.remove(&session) {
                return;
            }
            domains.handles.values().cloned().collect()
        };
        for handle in handles {
            let _ = handle.mailbox.send(Mail::SessionEnded(session)).await;
        }
    }

    fn bind(&self, options: StartOptions, session: SessionId) {
        if options.auto_destroy {
            self.shared.domains().bound.insert(session);
        }
    }

    fn find(&self, domain: &DomainRef) -> Result<(DomainUuid, Handle), ApiError> {
        self.shared.domains().find(domain)
    }

    /// The actor of a definition's domain, made if there is none.
    fn claim(&self, domain: &Domain) -> Result<Handle, ApiError> {
        let mut domains = self.shared.domains();
        if !domains.handles.contains_key(&domain.uuid) && domains.handles.len() >= self.shared.most
        {
            return Err(full(self.shared.most));
        }
        domains.index.reserve(domain.uuid, &domain.name)?;
        if let Some(handle) = domains.handles.get(&domain.uuid) {
            return Ok(handle.clone());
        }
        let world = Arc::clone(&self.shared.world);
        let handle = Shell::spawn(world, domain.uuid, self.retirement(domain.uuid));
        domains.handles.insert(domain.uuid, handle.clone());
        Ok(handle)
    }
}

impl Domains {
    fn find(&self, domain: &DomainRef) -> Result<(DomainUuid, Handle), ApiError> {
        let uuid = match domain {
            DomainRef::Uuid(uuid) => Some(*uuid),
            DomainRef::Name(name) => self.index.uuid(name),
            DomainRef::Id(id) => self.handles.iter().find_map(|(uuid, handle)| {
                let view = handle.view.borrow();
                let found = view.as_ref()?.details.summary.id == Some(*id);
                found.then_some(*uuid)
            }),
        };
        uuid.and_then(|uuid| Some((uuid, self.handles.get(&uuid)?.clone())))
            .ok_or_else(|| unknown(domain))
    }
}

/// The actor's answer; `None` if the domain ended before it was asked.
async fn ask(handle: &Handle, request: Request) -> Option<Result<(), ApiError>> {
    let operation = operation::requested(&request);
    let (reply, answer) = oneshot::channel();
    handle
        .mailbox
        .send(Mail::Request(request, reply))
        .await
        .ok()?;
    let answer = answer.await.ok()?;
    if answer.is_ok() {
        crash::point(operation, Moment::BeforeAnswer);
    }
    Some(answer)
}

fn summary(handle: &Handle, uuid: DomainUuid) -> Result<DomainSummary, ApiError> {
    let view = handle.view.borrow();
    match view.as_ref() {
        Some(view) => Ok(view.details.summary.clone()),
        // It ended in this instant.
        None => Err(unknown(&DomainRef::Uuid(uuid))),
    }
}

fn full(most: usize) -> ApiError {
    let message =
        format!("there are {most} domains, the most that there can be here; undefine one");
    ApiError::new(ApiErrorCode::Host, message)
}

fn unknown(domain: &DomainRef) -> ApiError {
    ApiError::new(
        ApiErrorCode::NoDomain,
        format!("there is no domain {domain}; 'reeve list --all' shows those there are"),
    )
}

/// A definition of a client's, checked, with what it may leave out filled in.
fn accepted(mut domain: Domain) -> Result<Domain, ApiError> {
    // What was given is not for a client to say.
    domain.devices.nics.iter_mut().for_each(Nic::forget_port);
    let checked = domain.accept().and_then(|()| domain.complete());
    match checked {
        Ok(()) => Ok(domain),
        Err(error) => {
            let message = format!("domain '{}': {error}", domain.name);
            Err(ApiError::new(ApiErrorCode::InvalidArgument, message))
        }
    }
}

/// The most bytes that a summary takes in a message.
pub(crate) fn size(summary: &DomainSummary) -> usize {
    let title = summary.title.as_ref().map_or(0, String::len);
    SUMMARY_BYTES + summary.name.as_str().len() + title
}
