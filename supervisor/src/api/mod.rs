//! The native API's server: who may connect, what each may call, and what a client can cost.
//!
//! ```text
//!   Listener ── accept ─► access (SO_PEERCRED, SO_PEERGROUPS) ─► Session, one task a connection
//!   libvirt's front door ─► the same, for the end of a gateway ─►  │  decode, access of the call, limits
//!                                                                  ▼
//!                                            Serve::serve ─► Now(answer) | Later(future)
//! ```
//!
//! Clients are not trusted: every message is bounded before it is decoded, a client that breaks the
//! form loses its connection, one that does not read loses it too, and none makes the supervisor hold
//! more than a fixed amount for it. What calls mean is not known here.

pub mod access;
pub mod doors;
pub mod events;
pub mod listener;
mod session;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use reeve_ipc::api::call::{AnswerBody, CallBody};
use reeve_ipc::api::error::ApiError;

use self::access::Policy;
use self::doors::Doors;
use self::events::EventLog;
use crate::domain::actor::SessionId;
use crate::domain::driver::Later;

/// An answer with the descriptors that ride with it.
pub type Answered = Result<(AnswerBody, Vec<OwnedFd>), ApiError>;

/// What serves a connection, and what happens there.
pub type Served<S> = (Arc<S>, Arc<EventLog>);

/// How a call is answered.
#[expect(
    clippy::large_enum_variant,
    reason = "made once a call, and used where it is made"
)]
pub enum Answer {
    /// At once.
    Now(Answered),
    /// When this is done.
    Later(Later<Answered>),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now(_) => "Now",
            Self::Later(_) => "Later",
        })
    }
}

/// What serves the calls.
pub trait Serve: Send + Sync + 'static {
    /// Serves one call, whose access was checked. Does not block.
    fn serve(self: Arc<Self>, session: SessionId, call: CallBody) -> Answer;

    /// A connection has ended.
    fn session_ended(self: Arc<Self>, session: SessionId);

    /// So many are connected now.
    fn clients(&self, count: u32);

    /// The test hypervisor, for a connection that asks for it.
    ///
    /// # Errors
    /// There is none.
    fn test_hypervisor(self: Arc<Self>) -> Later<Result<Served<Self>, ApiError>>;
}

/// What clients may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all; a few more for root and the supervisor's own user, so that there is always a
    /// place for them.
    pub clients: usize,
    /// Connections of one user, of all users but root and the supervisor's own.
    pub clients_per_user: usize,
    /// Calls of one connection that are not answered yet.
    pub calls_in_flight: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 512,
            clients_per_user: 32,
            calls_in_flight: 64,
        }
    }
}

/// What every connection shares.
#[derive(Debug)]
pub struct Shared<S> {
    /// What serves.
    pub service: Arc<S>,
    /// What happened.
    pub events: Arc<EventLog>,
    /// Who may connect; changed by a reload.
    pub policy: Arc<std::sync::RwLock<Policy>>,
    /// What clients may cost; changed by a reload, for connections made after it.
    pub limits: Arc<std::sync::RwLock<Limits>>,
    /// Who is inside.
    pub doors: Doors,
}
