//! What the actor of a pool is asked and told, and how to reach it.

use std::sync::Arc;

use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::storage::{PoolSummary, Volume};
use reeve_ipc::model::{NewVolume, Pool, VolumeName};
use tokio::sync::{mpsc, oneshot, watch};

use super::admission::PoolAct;
use super::change::Change;
use super::end::End;
use super::holds::{CopyHold, Starting, Wanted};
use super::make::Making;
use super::scan::Scan;
use super::stream::Begun;
use super::view::{Entry, View};
use crate::store::PoolRecord;

/// What is asked of a pool.
#[derive(Debug, Clone)]
pub enum Request {
    /// Keep a definition, whose directory is no other pool's meanwhile.
    Define(Box<Pool>, Option<Wanted>),
    /// Make its directory.
    Build,
    /// Make it active.
    Start {
        /// With this definition, where none is kept.
        transient: Option<Box<Pool>>,
        /// Make its directory first.
        build: bool,
    },
    /// Make it inactive.
    Stop,
    /// Remove its directory.
    Delete,
    /// Forget its definition.
    Undefine,
    /// Whether it starts with the host.
    Autostart(bool),
    /// Look what is in its directory.
    Refresh,
}

impl Request {
    pub(super) const fn act(&self) -> PoolAct {
        match self {
            Self::Define(..) => PoolAct::Define,
            Self::Build => PoolAct::Build,
            Self::Start { .. } => PoolAct::Start,
            Self::Stop => PoolAct::Stop,
            Self::Delete => PoolAct::Delete,
            Self::Undefine => PoolAct::Undefine,
            Self::Autostart(_) => PoolAct::Autostart,
            Self::Refresh => PoolAct::Refresh,
        }
    }
}

/// What is asked of a volume.
#[derive(Debug)]
pub enum VolumeRequest {
    /// Make it; of what is held meanwhile, where it is a copy. It is given up when its client goes.
    Make(Box<NewVolume>, Making, Option<CopyHold>),
    /// Let nobody change it while another is made of it, by the work of that end, until [`Message::CopyEnd`].
    CopyBegin(VolumeName, End),
    /// Change it.
    Change(VolumeName, Change),
    /// Open it for a client.
    Open {
        /// Which.
        name: VolumeName,
        /// The client writes it.
        write: bool,
        /// From there on.
        offset: u64,
        /// So many bytes.
        length: u64,
    },
}

/// An answer about a pool.
pub type PoolReply = oneshot::Sender<Result<PoolSummary, ApiError>>;
/// An answer about a volume.
pub type VolumeReply = oneshot::Sender<Result<VolumeAnswer, ApiError>>;

/// What comes of a [`VolumeRequest`].
#[derive(Debug)]
pub enum VolumeAnswer {
    /// Nothing to tell.
    Done,
    /// The volume as it is.
    Volume(Box<Volume>),
    /// A stream of its bytes.
    Stream(Begun),
}

/// What an actor is told.
#[derive(Debug)]
pub enum Message {
    /// By a client, of the pool.
    Pool(Request, PoolReply),
    /// By a client, of a volume.
    Volume(VolumeRequest, VolumeReply),
    /// By whoever looked at a volume for itself, since that [`View::changes`].
    Seen(u64, VolumeName, Option<Arc<Entry>>),
    /// Whether the pool's file system answers, which a stop had looked at.
    Answers(bool),
    /// A copy is made, or given up, by the work of that number.
    CopyEnd(u64),
    /// The client that had a pool started whose definition is not kept has gone.
    Left,
    /// By a thread: the work of that number on the pool is done.
    PoolDone(u64, Result<Outcome, ApiError>),
    /// By a thread: the work of that number on a volume is done.
    VolumeDone(u64, Worked, VolumeReply),
    /// The work of that number was told to end, and had time to.
    Overdue(u64),
}

/// What came of work on a pool.
#[derive(Debug)]
pub enum Outcome {
    /// The definition is kept.
    Defined(PoolRecord, Option<Wanted>),
    /// Its directory is there; whether it was made now.
    Built(bool),
    /// Its directory is there and was read, and whether it was made now; that it is active is to be noted.
    Found(Box<Pool>, Scan, bool),
    /// It is active.
    Started(Box<Pool>, Scan, bool),
    /// It is not, any more.
    Stopped,
    /// Its directory is gone.
    Deleted,
    /// Its definition is gone.
    Undefined,
    /// Noted.
    Autostart(PoolRecord),
    /// Its directory was read.
    Refreshed(Scan),
    /// Its directory could not be read.
    Unreadable(ApiError),
}

/// What came of work on a volume.
#[derive(Debug)]
pub enum Worked {
    /// It is made, or not.
    Made(Result<Arc<Entry>, ApiError>),
    /// It was changed, or may have been; what it is now.
    Changed(Result<Option<Arc<Entry>>, ApiError>),
}

/// How to reach an actor.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) messages: mpsc::Sender<Message>,
    /// What it published.
    pub view: watch::Receiver<Arc<View>>,
}

impl Handle {
    /// Asks something of the pool.
    ///
    /// # Errors
    /// The actor's.
    pub async fn ask(&self, request: Request) -> Result<PoolSummary, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Pool(request, reply))?;
        answer.await.map_err(|_| self.gone())?
    }

    /// Asks something of a volume.
    ///
    /// # Errors
    /// The actor's.
    pub async fn ask_volume(&self, request: VolumeRequest) -> Result<VolumeAnswer, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Volume(request, reply))?;
        answer.await.map_err(|_| self.gone())?
    }

    /// Tells what a volume is, which was looked at after the pool had `changes`; lost is lost.
    pub fn seen(&self, changes: u64, name: VolumeName, entry: Option<Arc<Entry>>) {
        let _ = self.messages.try_send(Message::Seen(changes, name, entry));
    }

    /// Has a volume copied by the work of `end`, until what this gives is dropped.
    ///
    /// # Errors
    /// The actor's.
    pub async fn hold_copy(&self, name: VolumeName, end: &End) -> Result<CopyHold, ApiError> {
        let hold = CopyHold::new(self.messages.clone(), end);
        self.ask_volume(VolumeRequest::CopyBegin(name, end.clone()))
            .await?;
        Ok(hold)
    }

    /// Tells, when it is dropped, that whoever had a pool started has gone.
    #[must_use]
    pub fn starting(&self) -> Starting {
        Starting::new(self.messages.clone())
    }

    fn send(&self, message: Message) -> Result<(), ApiError> {
        self.messages.try_send(message).map_err(|error| {
            let name = self.view.borrow().pool.name.clone();
            match error {
                mpsc::error::TrySendError::Full(_) => ApiError::new(
                    ApiErrorCode::Busy,
                    format!("pool '{name}': too much is asked of it at once"),
                ),
                mpsc::error::TrySendError::Closed(_) => self.gone(),
            }
        })
    }

    fn gone(&self) -> ApiError {
        let name = self.view.borrow().pool.name.clone();
        ApiError::new(
            ApiErrorCode::NoPool,
            format!("there is no pool '{name}' any more"),
        )
    }
}
