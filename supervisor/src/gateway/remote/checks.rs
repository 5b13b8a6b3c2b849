//! Files that were read again, on their way to the process that looks at them before they hold.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use reeve_ipc::codec;
use reeve_ipc::gateway::Chain;
use tokio::sync::{mpsc, oneshot};

use super::credentials::{Credentials, again, sealed};

/// What is said of them: which of the certificates do not hold with them, by their order; or why they cannot be used.
pub(super) type Verdict = Result<Vec<u32>, String>;

/// Files that are to hold, and the certificates of those who are in.
#[derive(Debug)]
pub struct Check {
    pub(super) credentials: Arc<Credentials>,
    /// As [`reeve_ipc::gateway::HandOver::Check`] has them.
    pub(super) chains: OwnedFd,
    pub(super) verdict: oneshot::Sender<Verdict>,
}

/// Where they come to the front door.
pub type Checks = mpsc::Receiver<Check>;

/// Has files looked at.
#[derive(Debug)]
pub struct Checker {
    checks: mpsc::Sender<Check>,
    /// The other end, until the front door has it.
    door: Mutex<Option<Checks>>,
}

impl Default for Checker {
    fn default() -> Self {
        // There is one reload at a time.
        let (checks, door) = mpsc::channel(1);
        Self {
            checks,
            door: Mutex::new(Some(door)),
        }
    }
}

impl Checker {
    /// The front door's end, once.
    #[must_use]
    pub fn door(&self) -> Option<Checks> {
        self.door
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Has files looked at, and the certificates of those who are in: which do not hold, by their order. Where there is no
    /// front door nobody is in. Waits for it, on a thread that may.
    ///
    /// # Errors
    /// Why they cannot be used, or not be looked at.
    pub fn check(
        &self,
        credentials: &Arc<Credentials>,
        chains: &[(u64, Chain)],
    ) -> Result<Vec<u32>, String> {
        let chains = file(chains).map_err(|error| format!("they cannot be looked at: {error}"))?;
        let (verdict, comes) = oneshot::channel();
        let check = Check {
            credentials: Arc::clone(credentials),
            chains,
            verdict,
        };
        if self.checks.blocking_send(check).is_err() {
            return Ok(Vec::new());
        }
        comes
            .blocking_recv()
            .unwrap_or_else(|_| Err("no process could look at them; the log says why".to_owned()))
    }
}

/// A file of certificates.
fn file(chains: &[(u64, Chain)]) -> io::Result<OwnedFd> {
    let mut bytes = Vec::new();
    for (_, chain) in chains {
        let one = codec::encode(chain).map_err(io::Error::other)?;
        let length = u32::try_from(one.len()).map_err(io::Error::other)?;
        bytes.write_all(&length.to_le_bytes())?;
        bytes.write_all(&one)?;
    }
    // It is read from its beginning.
    again(&sealed(&bytes)?)
}
