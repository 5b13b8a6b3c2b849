//! What a client may be told, in which order: pure, and shared by the blocking and the async client.

use std::collections::HashMap;

use super::call::{AnswerBody, Operation};
use super::error::ApiError;
use super::event::{Cursor, Event};
use super::message::{CallId, ToClient};
use super::{API, Access, ApiVersion};
use crate::BuildId;

/// What the supervisor said when the connection was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The version both speak.
    pub api: ApiVersion,
    /// The supervisor's build.
    pub build: BuildId,
    /// What this connection may do.
    pub access: Access,
}

/// Why a connection was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GreetingError {
    /// The supervisor refused it.
    #[error(transparent)]
    Refused(ApiError),
    /// It speaks another version.
    #[error("the supervisor speaks version {0} of the API, this program version {ours}; install both of one build", ours = API.0)]
    Version(u16),
    /// It is no supervisor.
    #[error("no supervisor answers there: its first message is none of a supervisor's")]
    Protocol,
}

/// Judges the first message.
///
/// # Errors
/// [`GreetingError`].
pub fn greeting(message: ToClient) -> Result<Greeting, GreetingError> {
    match message {
        ToClient::Welcome { api, .. } if api != API => Err(GreetingError::Version(api.0)),
        ToClient::Welcome { api, build, access } => Ok(Greeting { api, build, access }),
        ToClient::Refused(error) => Err(GreetingError::Refused(error)),
        ToClient::Reply { .. } | ToClient::Event { .. } => Err(GreetingError::Protocol),
    }
}

/// A message after the first.
#[derive(Debug)]
pub enum Told<T> {
    /// The answer to one of our calls.
    Answer(T, Result<AnswerBody, ApiError>),
    /// An answer to a call that was given up.
    Late,
    /// An event.
    Event(Cursor, Event),
}

/// The calls that wait, each with what its caller left to be found again.
#[derive(Debug)]
pub struct Waiting<T> {
    calls: HashMap<CallId, (Operation, Option<T>)>,
    next: u64,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            calls: HashMap::new(),
            next: 1,
        }
    }
}

impl<T> Waiting<T> {
    /// Notes a call and names it.
    pub fn begin(&mut self, operation: Operation, left: T) -> CallId {
        let id = CallId(self.next);
        self.next += 1;
        self.calls.insert(id, (operation, Some(left)));
        id
    }

    /// Nobody waits for its answer any more; it may come all the same.
    pub fn give_up(&mut self, id: CallId) {
        if let Some((_, left)) = self.calls.get_mut(&id) {
            *left = None;
        }
    }

    /// It was never sent.
    pub fn forget(&mut self, id: CallId) {
        self.calls.remove(&id);
    }

    /// Judges a message.
    ///
    /// # Errors
    /// The rule it breaks.
    pub fn judge(&mut self, message: ToClient) -> Result<Told<T>, String> {
        match message {
            ToClient::Event { cursor, event } => Ok(Told::Event(cursor, event)),
            ToClient::Reply { id, result } => {
                let Some((operation, left)) = self.calls.remove(&id) else {
                    return Err(format!("an answer to call {}, which nobody made", id.0));
                };
                if let Ok(body) = &result {
                    if body.operation() != operation {
                        return Err(format!(
                            "'{}' was answered as '{}'",
                            operation.name(),
                            body.operation().name()
                        ));
                    }
                }
                Ok(left.map_or(Told::Late, |left| Told::Answer(left, result)))
            }
            ToClient::Welcome { .. } | ToClient::Refused(_) => {
                Err("a second first message".to_owned())
            }
        }
    }
}
