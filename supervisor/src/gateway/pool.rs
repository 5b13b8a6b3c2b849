//! The warm processes, and who waits for one.
//!
//! One task. It starts one process at a time, so that as many wait as it was told, and one more for each client
//! that waits; a client gets the one that has waited longest. Where processes die while they wait, or cannot be
//! started, it rests between attempts, longer each time: a program that does not work must not keep a processor busy.
//! Clients of this host go before those of others, and are closed by no failure of a process that was not for them.

use std::collections::VecDeque;
use std::future::pending;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::time::{Duration, Instant};

use reeve_ipc::strays::NoRights;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinSet};
use tokio::time::{Sleep, sleep};

use super::process::{Idle, Process};
use super::remote::{Check, Signing, Stranger, Verifying};
use super::spawner::{Spawner, StartError, Started, Starting};
use crate::api::Serve;
use crate::api::doors::Entry;

/// The first rest.
const FIRST_REST: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// Once nothing has gone wrong for so long the next rest is the first again.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// What has been so for so long is told again.
const TOLD_AGAIN: Duration = Duration::from_secs(3600);

/// Who has use for a process, on the way to one.
pub(super) enum Client<S: Serve> {
    /// A client that was let in.
    Local {
        /// Its connection, of which nothing was read.
        socket: NoRights<OwnedFd>,
        /// Its place and its rights.
        entry: Entry<S>,
    },
    /// One of another host, which has to say who it is.
    Stranger(Stranger<S>),
    /// What signs for one of another host.
    Signing(Signing),
    /// What checks the passwords of one of another host.
    Verifying(Verifying),
    /// Files of TLS that are to hold.
    Check(Check),
}

impl<S: Serve> Client<S> {
    /// Whether it is one of this host.
    const fn is_local(&self) -> bool {
        matches!(self, Self::Local { .. })
    }
}

/// Who waits for a process: those of this host, which go first, and those of others.
#[derive(Debug)]
struct Waiting<C> {
    local: VecDeque<C>,
    others: VecDeque<C>,
    /// Whether one of this host waited when the process began that is being started.
    is_for_local: bool,
}

impl<C> Default for Waiting<C> {
    fn default() -> Self {
        Self {
            local: VecDeque::new(),
            others: VecDeque::new(),
            is_for_local: false,
        }
    }
}

impl<C> Waiting<C> {
    fn len(&self) -> usize {
        self.local.len().saturating_add(self.others.len())
    }

    fn of(&mut self, is_local: bool) -> &mut VecDeque<C> {
        if is_local {
            &mut self.local
        } else {
            &mut self.others
        }
    }

    /// The next that gets a process.
    fn next(&mut self) -> Option<C> {
        self.local.pop_front().or_else(|| self.others.pop_front())
    }

    /// A process begins to be started.
    fn begins(&mut self) {
        self.is_for_local = !self.local.is_empty();
    }

    /// It came to nothing: those of other hosts are closed, and those of this one if it was for them. Gives how many.
    fn failed(&mut self) -> usize {
        let before = self.len();
        self.others.clear();
        if self.is_for_local {
            self.local.clear();
        }
        before.saturating_sub(self.len())
    }
}

/// A process without a client.
struct Warm<S: Serve> {
    task: Id,
    client: oneshot::Sender<Client<S>>,
}

/// The processes of a front door.
pub(super) struct Pool<S: Serve> {
    spawner: Spawner,
    size: usize,
    warm: VecDeque<Warm<S>>,
    waiting: Waiting<Client<S>>,
    /// One task a process.
    keepers: JoinSet<Idle<S>>,
    starting: Option<Starting>,
    /// Failures one after another, and the last of them.
    failures: u32,
    failed: Option<Instant>,
    rest: Option<Pin<Box<Sleep>>>,
    told: Told,
}

/// The reason that was told last of why no process can be started, and when. Where none ever can be, an attempt is
/// made every few seconds for ever.
#[derive(Debug, Default)]
struct Told(Option<(String, Instant)>);

impl Told {
    /// Whether whoever reads the log does not know `reason`, and so has it told.
    fn is_news(&mut self, reason: String, now: Instant) -> bool {
        let known = self.0.as_ref().is_some_and(|(told, since)| {
            *told == reason && now.saturating_duration_since(*since) < TOLD_AGAIN
        });
        if !known {
            self.0 = Some((reason, now));
        }
        !known
    }
}

impl<S: Serve> Pool<S> {
    /// With `size` warm processes.
    pub(super) fn new(spawner: Spawner, size: usize) -> Self {
        Self {
            spawner,
            size,
            warm: VecDeque::new(),
            waiting: Waiting::default(),
            keepers: JoinSet::new(),
            starting: None,
            failures: 0,
            failed: None,
            rest: None,
            told: Told::default(),
        }
    }

    /// Gives each client a process, until nobody can bring one any more. As many wait here as have places.
    pub(super) async fn serve(mut self, mut clients: mpsc::Receiver<Client<S>>) {
        loop {
            self.give();
            self.start_next();
            tokio::select! {
                client = clients.recv() => match client {
                    Some(client) => self.waiting.of(client.is_local()).push_back(client),
                    None => return,
                },
                started = come(&mut self.starting) => self.started(started),
                Some(ended) = self.keepers.join_next_with_id() => match ended {
                    Ok((id, idle)) => self.ended(id, idle),
                    // A keeper that panicked has killed its process.
                    Err(error) => self.ended(error.id(), Idle::Died),
                },
                () = over(&mut self.rest) => self.rest = None,
            }
        }
    }

    /// Gives processes that wait to clients that wait.
    fn give(&mut self) {
        while self.waiting.len() > 0 {
            let Some(warm) = self.warm.pop_front() else {
                return;
            };
            let Some(client) = self.waiting.next() else {
                return;
            };
            if let Err(client) = warm.client.send(client) {
                self.waiting.of(client.is_local()).push_front(client);
            }
        }
    }

    fn start_next(&mut self) {
        let wanted = self.size.saturating_add(self.waiting.len());
        if self.starting.is_some() || self.rest.is_some() || self.warm.len() >= wanted {
            return;
        }
        self.waiting.begins();
        match self.spawner.spawn() {
            Ok(starting) => self.starting = Some(starting),
            Err(error) => self.failed(&error),
        }
    }

    fn started(&mut self, started: Result<Started, StartError>) {
        self.starting = None;
        let process = match started {
            Ok(started) => Process::new(started),
            Err(error) => return self.failed(&error),
        };
        let process = match process {
            Ok(process) => process,
            Err(error) => return self.failed(&error),
        };
        tracing::debug!(gateway = process.pid(), "a gateway waits");
        self.told = Told::default();
        let (client, comes) = oneshot::channel();
        let task = self.keepers.spawn(process.keep(comes)).id();
        self.warm.push_back(Warm { task, client });
    }

    fn failed(&mut self, error: &dyn std::fmt::Display) {
        let clients = self.waiting.failed();
        let error = error.to_string();
        if self.told.is_news(error.clone(), Instant::now()) {
            tracing::error!(
                clients,
                "no process for clients of libvirt's protocol; those that wait are closed, until one can be started: \
                 {error}"
            );
        } else {
            tracing::debug!(
                clients,
                "still no process for clients of libvirt's protocol: {error}"
            );
        }
        self.rest();
    }

    fn ended(&mut self, task: Id, idle: Idle<S>) {
        self.warm.retain(|warm| warm.task != task);
        match idle {
            Idle::Served => {}
            Idle::Died => self.rest(),
            Idle::Missed(client) => {
                self.waiting.of(client.is_local()).push_front(client);
                self.rest();
            }
        }
    }

    /// Rests before the next is started.
    fn rest(&mut self) {
        let now = Instant::now();
        let before = self.failed.replace(now);
        if before.is_some_and(|before| now - before > FORGOTTEN) {
            self.failures = 0;
        }
        let rest = FIRST_REST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.rest = Some(Box::pin(sleep(rest.min(LONGEST_REST))));
    }
}

/// The process that is being started, if there is one.
async fn come(starting: &mut Option<Starting>) -> Result<Started, StartError> {
    match starting {
        Some(starting) => starting.await.unwrap_or(Err(StartError::Gone)),
        None => pending().await,
    }
}

async fn over(rest: &mut Option<Pin<Box<Sleep>>>) {
    match rest {
        Some(rest) => rest.await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_this_host_go_first_and_no_failure_of_strangers_closes_them() {
        let mut waiting = Waiting::default();
        for (name, is_local) in [("s1", false), ("l1", true), ("s2", false), ("l2", true)] {
            waiting.of(is_local).push_back(name);
        }
        assert_eq!(waiting.next(), Some("l1"));
        waiting.of(true).push_front("l1");
        let order: Vec<_> = std::iter::from_fn(|| waiting.next()).collect();
        assert_eq!(order, ["l1", "l2", "s1", "s2"]);

        waiting.of(false).push_back("s1");
        waiting.begins();
        waiting.of(true).push_back("l1");
        waiting.of(false).push_back("s2");
        assert_eq!(waiting.failed(), 2);
        assert_eq!((waiting.len(), waiting.local.front()), (1, Some(&"l1")));
        waiting.begins();
        waiting.of(false).push_back("s3");
        assert_eq!(waiting.failed(), 2);
        assert_eq!(waiting.next(), None);
    }

    #[test]
    fn what_stays_as_it_is_is_told_once_and_again_much_later() {
        let mut told = Told::default();
        let begin = Instant::now();
        let mut is_news = |reason: &str, after| told.is_news(reason.to_owned(), begin + after);
        assert!(is_news("no namespaces", Duration::ZERO));
        for attempt in 1..100 {
            assert!(!is_news("no namespaces", LONGEST_REST * attempt));
        }
        assert!(is_news("no uid", LONGEST_REST * 100));
        assert!(is_news("no namespaces", LONGEST_REST * 101));
        assert!(is_news("no namespaces", LONGEST_REST * 101 + TOLD_AGAIN));
    }
}
