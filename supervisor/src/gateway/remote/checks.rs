//! Files that were read again, on their way to the process that looks at them before they hold.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use reeve_ipc::codec;
use reeve_ipc::gateway::{Chain, MAX_CHAINS, MAX_CHAINS_BYTES};
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
    /// How many there are in it.
    pub(super) number: u32,
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

    /// Has files looked at, and the certificates of those who are in: which do not hold, by their order, or could not be
    /// looked at, which is no reason for the files not to hold. Where there is no
    /// front door nobody is in. Waits for it, on a thread that may.
    ///
    /// # Errors
    /// Why they cannot be used, or not be looked at.
    pub fn check(
        &self,
        credentials: &Arc<Credentials>,
        chains: &[(u64, Chain)],
    ) -> Result<Vec<u32>, String> {
        let all = u32::try_from(chains.len()).unwrap_or(u32::MAX);
        let (chains, number) =
            file(chains).map_err(|error| format!("they cannot be looked at: {error}"))?;
        let (verdict, comes) = oneshot::channel();
        let check = Check {
            credentials: Arc::clone(credentials),
            chains,
            number,
            verdict,
        };
        if self.checks.blocking_send(check).is_err() {
            return Ok(Vec::new());
        }
        let verdict = comes
            .blocking_recv()
            .unwrap_or_else(|_| Err("no process could look at them; the log says why".to_owned()));
        // Those for which there was no room were not looked at.
        verdict.map(|ended| ended.into_iter().chain(number..all).collect())
    }
}

/// A file of certificates, of as many as one may have; gives how many those are.
fn file(chains: &[(u64, Chain)]) -> io::Result<(OwnedFd, u32)> {
    let mut bytes = Vec::new();
    let mut number = 0;
    for (_, chain) in chains.iter().take(MAX_CHAINS) {
        let one = codec::encode(chain).map_err(io::Error::other)?;
        let length = u32::try_from(one.len()).map_err(io::Error::other)?;
        if bytes.len() + size_of_val(&length) + one.len() > MAX_CHAINS_BYTES {
            break;
        }
        bytes.write_all(&length.to_le_bytes())?;
        bytes.write_all(&one)?;
        number += 1;
    }
    // It is read from its beginning.
    Ok((again(&sealed(&bytes)?)?, number))
}

#[cfg(test)]
mod tests {
    use reeve_ipc::gateway::{MAX_CHAIN_BYTES, Proof};

    use super::super::credentials::Files;
    use super::*;

    #[test]
    fn those_for_whom_there_is_no_room_end_and_the_files_hold() {
        let many = |bytes: usize, number: u64| -> Vec<_> {
            let chain = || Chain(vec![vec![0; bytes]]);
            (0..number).map(|one| (one, chain())).collect()
        };
        let (_, fit) = file(&many(1, 10_000)).unwrap();
        assert_eq!(usize::try_from(fit).unwrap(), MAX_CHAINS);
        let large = many(MAX_CHAIN_BYTES, 600);
        let (_, fit) = file(&large).unwrap();
        assert!((500..512).contains(&fit), "{fit}");

        let checker = Checker::default();
        let mut door = checker.door().unwrap();
        let answers = std::thread::spawn(move || {
            let check = door.blocking_recv().unwrap();
            check.verdict.send(Ok(vec![7])).unwrap();
        });
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "").unwrap();
        let files = Files {
            certificate: path.clone(),
            key: path.clone(),
            authorities: path.clone(),
            revoked: None,
            users: path,
            proof: Proof::Certificate,
        };
        let credentials = Arc::new(Credentials::read(&files).unwrap());
        let ended = checker.check(&credentials, &large).unwrap();
        answers.join().unwrap();
        let expected: Vec<u32> = std::iter::once(7).chain(fit..600).collect();
        assert_eq!(ended, expected);
    }
}
