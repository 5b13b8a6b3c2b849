//! What the actor of a network is asked and told, and how to reach it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use reeve_ipc::api::call::LabelChange;
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::event::NetworkEventKind;
use reeve_ipc::model::{Network, NetworkEdit, PortUuid};
use tokio::sync::{mpsc, oneshot, watch};

use super::admission::NetworkAct;
use super::claims::Wanted;
use super::host::NetworkResources;
use super::view::View;
use crate::store::NetworkRecord;

/// What is asked of a network.
#[derive(Debug)]
pub enum Request {
    /// Keep a definition, whose bridge is no other network's meanwhile.
    Define(Box<Network>, Option<Wanted>),
    /// Make it active with this definition, which is not kept for that.
    Create(Box<Network>, Option<Wanted>),
    /// Make it active.
    Start,
    /// Make it inactive.
    Stop,
    /// Forget its definition.
    Undefine,
    /// Whether it starts with the host.
    Autostart(bool),
    /// Change it.
    Change {
        /// What.
        change: Change,
        /// In the definition that is active.
        live: bool,
        /// In the one that is kept.
        persistent: bool,
    },
}

/// A change of a definition.
#[derive(Debug, Clone)]
pub enum Change {
    /// Of a part of it, which what is made follows.
    Part(Box<NetworkEdit>),
    /// Of what people and programs noted.
    Label(LabelChange),
}

impl Request {
    pub(super) const fn act(&self) -> NetworkAct {
        match self {
            Self::Define(..) => NetworkAct::Define,
            Self::Create(..) | Self::Start => NetworkAct::Start,
            Self::Stop => NetworkAct::Stop,
            Self::Undefine => NetworkAct::Undefine,
            Self::Autostart(_) => NetworkAct::Autostart,
            Self::Change {
                live, persistent, ..
            } => NetworkAct::Change {
                live: *live,
                persistent: *persistent,
            },
        }
    }
}

/// An answer.
pub type Reply = oneshot::Sender<Result<(), ApiError>>;

/// What an actor is told.
#[derive(Debug)]
pub enum Message {
    /// By a client.
    Asked(Request, Reply),
    /// Connect an interface that was made for an earlier start of the network.
    Connect(PortUuid),
    /// By a thread: the work is done.
    Done(Box<Result<Outcome, ApiError>>),
    /// The server that was watched by that number has ended.
    ServerEnded(u64),
    /// It is time to start it again.
    Retry(u64),
    /// It is time to look whether all of it works, and nothing else has been watched since that number.
    Check(u64),
}

/// What came of work.
#[derive(Debug)]
pub enum Outcome {
    /// The definition is kept.
    Defined(NetworkRecord),
    /// It is active.
    Started(Box<Network>, Made),
    /// It is not, any more.
    Stopped,
    /// Its definition is gone.
    Undefined,
    /// Noted.
    Autostart(NetworkRecord),
    /// Its definitions are other.
    Changed {
        /// The one that it is active with, and what is made by it.
        active: Option<(Box<Network>, Made)>,
        /// The one that is kept.
        record: Option<NetworkRecord>,
        /// What is told of it.
        event: NetworkEventKind,
    },
    /// They are as before, and why; what the one that it is active with is made of may be other.
    NotChanged(Made, ApiError),
    /// What was made is there, all of it.
    Adopted(Made),
    /// An interface is connected, as far as that goes.
    Connected,
    /// What an earlier supervisor had begun is gone.
    Undone,
    /// All of it works, as far as was seen.
    Checked,
}

/// What is made for an active network.
#[derive(Debug)]
pub struct Made {
    /// What it is.
    pub resources: NetworkResources,
    /// What becomes readable when its server ends; none where that has ended, or there is none.
    pub watch: Option<OwnedFd>,
}

/// How to reach an actor.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) messages: mpsc::Sender<Message>,
    /// What it published.
    pub view: watch::Receiver<Arc<View>>,
}

impl Handle {
    /// Asks something of the network.
    ///
    /// # Errors
    /// The actor's.
    pub async fn ask(&self, request: Request) -> Result<(), ApiError> {
        let (reply, answer) = oneshot::channel();
        let asked = self.messages.try_send(Message::Asked(request, reply));
        asked.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                let name = self.view.borrow().network.name.clone();
                ApiError::new(
                    ApiErrorCode::Busy,
                    format!("network '{name}': too much is asked of it at once"),
                )
            }
            mpsc::error::TrySendError::Closed(_) => self.gone(),
        })?;
        answer.await.map_err(|_| self.gone())?
    }

    /// Connects an interface that was made for an earlier start; lost is lost with the network.
    pub fn connect(&self, port: PortUuid) {
        if self.messages.try_send(Message::Connect(port)).is_err() {
            let name = self.view.borrow().network.name.clone();
            tracing::error!(network = %name, %port, "an interface could not be connected again");
        }
    }

    fn gone(&self) -> ApiError {
        let name = self.view.borrow().network.name.clone();
        ApiError::new(
            ApiErrorCode::NoNetwork,
            format!("there is no network '{name}' any more"),
        )
    }
}
