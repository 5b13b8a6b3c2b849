//! Whether a network's server does what it is there for: one that hangs has not ended, and nothing tells of it.
//!
//! It is asked for its own version (`version.bind`, RFC 4892), which it knows without asking anybody, as a guest would
//! ask. Only one that has answered before is missed, so that a build that says nothing to this is left alone; one
//! that is stopped (SIGSTOP) is missed in any case. It has to be missed twice: a guest that floods it is not to have it
//! started again and again.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reeve_ipc::model::{Network, NetworkUuid};

use super::NetworkHostError;
use super::server;
use crate::network::host::ServerProcess;

/// How often it is missed before it is ended.
const MISSED: u32 = 2;
/// How often it is asked each time, in case a question or an answer is lost.
const QUESTIONS: u32 = 3;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(1);
/// The port of names.
const PORT: u16 = 53;
/// What is asked: one question, for the text (16) `version.bind` of the class of servers themselves (3).
const QUESTION: &[u8] =
    b"\x52\x76\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07version\x04bind\x00\x00\x10\x00\x03";

#[derive(Debug)]
struct Heard {
    server: ServerProcess,
    has_answered: bool,
    missed: u32,
}

/// What has been heard of servers.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<BTreeMap<NetworkUuid, Heard>>);

impl Answers {
    /// Asks a network's server, and ends it where it has been missed too often.
    pub(super) fn check(
        &self,
        network: &Network,
        server: &ServerProcess,
    ) -> Result<(), NetworkHostError> {
        if server::watch(server).is_none() {
            // It has ended, which is told otherwise.
            return Ok(());
        }
        let stopped = is_stopped(server.pid);
        let own = network.addresses.first().map(|on| on.address);
        let answers = match own.filter(|_| network.dns.enabled) {
            _ if stopped => false,
            Some(own) => answers(own),
            // It gives out addresses alone, and nobody here can ask for one.
            None => true,
        };
        if !self.is_missed(network.uuid, server, answers, stopped) {
            return Ok(());
        }
        tracing::warn!(
            network = %network.name,
            pid = server.pid,
            "the server of a network does not answer, and is ended"
        );
        server::end(server)
    }

    /// Notes whether it answers; gives whether it has been missed too often.
    fn is_missed(
        &self,
        uuid: NetworkUuid,
        server: &ServerProcess,
        answers: bool,
        stopped: bool,
    ) -> bool {
        // Nothing panics while it is held.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Heard {
            server: server.clone(),
            has_answered: false,
            missed: 0,
        };
        let heard = all.entry(uuid).or_insert_with(new);
        if heard.server != *server {
            *heard = new();
        }
        if answers {
            heard.has_answered = true;
            heard.missed = 0;
        } else if heard.has_answered || stopped {
            heard.missed += 1;
        }
        heard.missed >= MISSED
    }

    /// The network is not active any more.
    pub(super) fn forget(&self, uuid: NetworkUuid) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&uuid);
    }
}

/// Whether a process is stopped (proc(5), `state`); one that is being debugged is not.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind its name, which may be anything.
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| state.starts_with('T'))
}

/// Whether the server at that address says anything. Where it cannot be asked it is taken to.
fn answers(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let ask = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, PORT))?;
        socket.set_read_timeout(Some(ANSWER))?;
        Ok::<_, std::io::Error>(socket)
    };
    let Ok(socket) = ask() else {
        return true;
    };
    (0..QUESTIONS).any(|_| {
        // Refused is that nobody listens there, and no answer either.
        socket.send(QUESTION).is_ok() && socket.recv(&mut [0; 512]).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_answered_is_missed_and_only_the_second_time() {
        let (all, uuid) = (Answers::default(), NetworkUuid(uuid::Uuid::from_u128(1)));
        let process = |pid| ServerProcess { pid, start_time: 3 };
        let (one, other) = (process(1), process(2));
        for _ in 0..5 {
            assert!(
                !all.is_missed(uuid, &one, false, false),
                "it never answered"
            );
        }
        assert!(!all.is_missed(uuid, &one, true, false));
        assert!(!all.is_missed(uuid, &one, false, false));
        assert!(!all.is_missed(uuid, &one, true, false));
        assert!(!all.is_missed(uuid, &one, false, false));
        assert!(all.is_missed(uuid, &one, false, false));
        assert!(!all.is_missed(uuid, &other, false, true), "it is another");
        assert!(all.is_missed(uuid, &other, false, true), "it is stopped");
        all.forget(uuid);
        assert!(!all.is_missed(uuid, &other, false, true));
    }

    #[test]
    fn this_process_is_not_stopped() {
        assert!(!is_stopped(std::process::id()));
        assert!(!is_stopped(0));
    }
}
