//! The calls about the host itself: answered from what was read of late where that does, on a thread that may
//! wait for the kernel otherwise.

use std::sync::Arc;

use reeve_ipc::api::call::{AnswerBody, CallBody, DomainRef};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::host::{HostDriver, HostInfo};
use rustix::io::Errno;
use uuid::Uuid;

use super::start::Driven;
use super::{Daemon, Settings};
use crate::api::Answer;
use crate::domain::actor::SessionId;
use crate::host::interfaces::Beside;
use crate::host::node::{Books, HostBooks, Node};
use crate::host::reason;
use crate::store::StateDir;

/// What the host is known by: of its firmware or its system, else what is kept of an earlier draw.
pub(super) fn uuid(state: &StateDir) -> Uuid {
    Books::default().uuid().unwrap_or_else(|| {
        let drawn = Uuid::new_v4();
        state.host_uuid(drawn).unwrap_or_else(|error| {
            tracing::warn!(%error, "the host has no UUID, and the one that was drawn is not kept");
            drawn
        })
    })
}

/// The host as this instance tells of it.
pub(super) fn node(settings: &Settings, uuid: Uuid) -> Node {
    let driver = match settings.driven {
        Driven::Kvm => HostDriver::Kvm,
        Driven::Test | Driven::TestHypervisor => HostDriver::Test,
    };
    Node::new(Books::default(), uuid, driver)
}

impl Daemon {
    /// Answers `call`, if it is about the host.
    #[expect(
        clippy::result_large_err,
        reason = "not an error: the call, for whoever serves it"
    )]
    pub(super) fn of_host(
        self: &Arc<Self>,
        session: SessionId,
        call: CallBody,
    ) -> Result<Answer, CallBody> {
        use AnswerBody as A;
        use CallBody as C;
        let info = |info: &HostInfo| A::HostInfoGet(Box::new(info.clone()));
        Ok(match call {
            C::HostInfoGet(_) => match self.node.known() {
                Some(known) => Answer::Now(Ok((info(&known), Vec::new()))),
                None => self.look(session, move |node| info(&node.fresh())),
            },
            C::HostCpuList(list) => {
                self.look(session, move |node| A::HostCpuList(node.cpus(list.after)))
            }
            C::HostCpuStatsGet(get) => self.look(session, move |node| {
                A::HostCpuStatsGet(node.cpu_stats(get.first, get.count))
            }),
            C::HostMemoryStatsGet(_) => {
                self.look(session, |node| A::HostMemoryStatsGet(node.memory_stats()))
            }
            C::HostFreePagesGet(_) => {
                self.look(session, |node| A::HostFreePagesGet(node.free_pages()))
            }
            C::HostInterfaceList(list) => self.look_at_links(session, move |node| {
                let page = node.interfaces(list.after.as_deref());
                page.map(A::HostInterfaceList)
            }),
            C::DomainNeighboursGet(get) => match self.interfaces_of(&get.domain) {
                Ok(beside) => self.look_at_links(session, move |node| {
                    node.neighbours(beside).map(A::DomainNeighboursGet)
                }),
                Err(error) => Answer::Now(Err(error)),
            },
            C::HostCpuidGet(_) => self.look(session, |node| A::HostCpuidGet(node.cpuid())),
            other => return Err(other),
        })
    }

    /// The interfaces of a domain that runs, and the links that they are behind.
    fn interfaces_of(&self, domain: &DomainRef) -> Result<Vec<Beside>, ApiError> {
        let view = self.registry.view(domain)?;
        let Some(live) = view.live.as_ref().filter(|_| view.instance.is_some()) else {
            let name = &view.details.summary.name;
            let why = format!("domain '{name}': it is not running");
            return Err(ApiError::new(ApiErrorCode::WrongState, why));
        };
        let beside = live.devices.nics.iter().filter_map(|nic| {
            let slot = nic.address?;
            let (_, tap) = view.taps.iter().find(|(at, _)| *at == slot)?;
            Some(Beside {
                mac: nic.mac?,
                tap: tap.clone(),
                bridge: nic.bridge().cloned(),
            })
        });
        Ok(beside.collect())
    }

    /// Looks at the links of the host, of which the kernel may refuse to tell.
    fn look_at_links(
        &self,
        session: SessionId,
        look: impl FnOnce(&dyn HostBooks) -> Result<AnswerBody, Errno> + Send + 'static,
    ) -> Answer {
        let (node, books) = (Arc::clone(&self.node), self.looks.books.clone());
        Answer::Later(Box::pin(async move {
            let looked = books.look(session, move || look(&*node)).await?;
            let answer = looked.map_err(|errno| {
                let why = format!("cannot read the links of the host: {}", reason(errno));
                ApiError::new(ApiErrorCode::Host, why)
            })?;
            Ok((answer, Vec::new()))
        }))
    }

    /// Looks at the host on a thread that may wait.
    fn look(
        &self,
        session: SessionId,
        look: impl FnOnce(&dyn HostBooks) -> AnswerBody + Send + 'static,
    ) -> Answer {
        let (node, books) = (Arc::clone(&self.node), self.looks.books.clone());
        Answer::Later(Box::pin(async move {
            let answer = books.look(session, move || look(&*node)).await?;
            Ok((answer, Vec::new()))
        }))
    }
}
