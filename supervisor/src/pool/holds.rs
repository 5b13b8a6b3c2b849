//! What is held while something is asked of a pool, and given back wherever the asking ends: by an answer, by a refusal,
//! or because the client has gone.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use reeve_ipc::model::{Pool, PoolUuid};
use tokio::sync::mpsc;

use super::end::End;
use super::handle::Message;

/// The directories that pools are about to have.
pub type WantedTargets = Arc<Mutex<Vec<(PoolUuid, PathBuf)>>>;

/// That a directory is about to be a pool's; until the last of its clones is dropped.
#[derive(Debug, Clone)]
pub struct Wanted {
    _entry: Arc<WantedEntry>,
}

#[derive(Debug)]
struct WantedEntry {
    of: (PoolUuid, PathBuf),
    all: WantedTargets,
}

impl Wanted {
    /// Notes it.
    #[must_use]
    pub fn new(all: &WantedTargets, pool: &Pool) -> Self {
        let of = (pool.uuid, pool.target.clone());
        // Nothing panics while it is held, here and below.
        let mut noted = all.lock().unwrap_or_else(PoisonError::into_inner);
        noted.push(of.clone());
        let all = Arc::clone(all);
        Self {
            _entry: Arc::new(WantedEntry { of, all }),
        }
    }
}

impl Drop for WantedEntry {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|of| *of == self.of) {
            all.swap_remove(at);
        }
    }
}

/// What is copied is held until this is dropped, which the work does that copies it.
#[derive(Debug)]
pub struct CopyHold {
    messages: mpsc::Sender<Message>,
    end: End,
}

impl CopyHold {
    pub(super) fn new(messages: mpsc::Sender<Message>, end: &End) -> Self {
        Self {
            messages,
            end: end.clone(),
        }
    }

    /// The end of the work that copies.
    pub(super) const fn end(&self) -> &End {
        &self.end
    }
}

impl Drop for CopyHold {
    fn drop(&mut self) {
        // With the actor its jobs are gone.
        let Err(mpsc::error::TrySendError::Full(message)) =
            self.messages.try_send(Message::CopyEnd(self.end.number()))
        else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let messages = self.messages.clone();
            runtime.spawn(async move {
                let _ = messages.send(message).await;
            });
        }
    }
}

/// A client waits for a pool to start.
#[derive(Debug)]
pub struct Starting(Option<mpsc::Sender<Message>>);

impl Starting {
    pub(super) const fn new(messages: mpsc::Sender<Message>) -> Self {
        Self(Some(messages))
    }

    /// It has its answer.
    pub fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(messages) = &self.0 {
            // One that is overwhelmed has clients enough that wait.
            let _ = messages.try_send(Message::Left);
        }
    }
}
