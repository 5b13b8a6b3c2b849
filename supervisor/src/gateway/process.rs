//! One gateway, from its start to its end: idle, then one client's, then reaped.

use std::future::pending;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::api::Access;
use reeve_ipc::gateway::{HandOver, MAX_WORDS_BYTES};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::strays::NoRights;
use reeve_ipc::{codec, exit_code};
use reeve_sandbox::seccomp::denial::Denial;
use rustix::net::{Shutdown, shutdown};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::pool::Client;
use super::spawner::Started;
use crate::api::Serve;
use crate::api::doors::Entry;
use crate::host::identity::Identity;
use crate::host::watch::watch;
use crate::logging::seldom::Seldom;

/// How long a gateway may take to end once its client or its session has: then it is killed.
const GRACE: Duration = Duration::from_secs(1);
/// What is logged at once of the words of one gateway; beyond that a line each such time.
const LINES: u32 = 16;
const LINE_EACH: Duration = Duration::from_secs(1);

/// A process that was started, watched on the runtime.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    pidfd: AsyncFd<Arc<OwnedFd>>,
    control: NoRights<UnixStream>,
    /// What is left of the lines that may be logged.
    lines: u32,
    /// Whether it can say nothing any more.
    silent: bool,
    /// The pid and the uid of its client.
    client: Option<(i32, u32)>,
    /// The address of its client, where that is on another host.
    address: Option<String>,
    /// The lines of all strangers, while it serves one: whoever was not let in can have a process of its own say the same
    /// as often as he likes.
    strangers: Option<Arc<Seldom>>,
    reaped: bool,
    /// Nobody else's until the process is reaped.
    _identity: Identity,
}

/// What there is to hear of a process.
enum Heard {
    Words(Vec<u8>),
    /// A line may be logged again.
    Later,
    /// Nothing any more.
    End,
}

/// What became of a process that had no client.
pub(super) enum Idle<S: Serve> {
    /// It has ended by itself.
    Died,
    /// It had ended when a client came for it: the client is another's to serve.
    Missed(Client<S>),
    /// It has served one, and is gone.
    Served,
}

impl Process {
    /// # Errors
    /// The runtime cannot watch it; it is killed.
    pub(super) fn new(started: Started) -> io::Result<Self> {
        let pid = started.child.pid.as_raw_nonzero().get().unsigned_abs();
        let kill = |error, pidfd: &OwnedFd| {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
            error
        };
        let pidfd = Arc::new(started.child.pidfd);
        let watched = watch(Arc::clone(&pidfd)).map_err(|error| kill(error, &pidfd))?;
        let control =
            UnixStream::from_std(started.control.into()).map_err(|error| kill(error, &pidfd))?;
        Ok(Self {
            pid,
            pidfd: watched,
            control: NoRights::new(control),
            lines: LINES,
            silent: false,
            client: None,
            address: None,
            strangers: None,
            reaped: false,
            _identity: started.identity,
        })
    }

    /// Its pid.
    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Keeps it until it is gone; `client` gives the one it is to serve.
    pub(super) async fn keep<S: Serve>(mut self, client: oneshot::Receiver<Client<S>>) -> Idle<S> {
        tokio::pin!(client);
        loop {
            tokio::select! {
                biased;
                client = &mut client => return match client {
                    Ok(Client::Local { socket, entry }) => self.serve(socket, entry).await,
                    Ok(Client::Stranger(stranger)) => self.serve_stranger(stranger).await,
                    Ok(Client::Signing(signing)) => self.serve_signing(signing).await,
                    Ok(Client::Verifying(verifying)) => self.serve_verifying(verifying).await,
                    Ok(Client::Check(check)) => self.serve_check(check).await,
                    // The pool is gone, and the process with the thread that made it.
                    Err(_) => Idle::Served,
                },
                words = self.hear() => self.heard(words),
                _ = self.pidfd.readable() => {
                    self.reap();
                    tracing::warn!(gateway = self.pid, "a gateway has ended that had no client");
                    return Idle::Died;
                }
            }
        }
    }

    async fn serve<S: Serve>(mut self, socket: NoRights<OwnedFd>, entry: Entry<S>) -> Idle<S> {
        let (pid, uid) = (entry.peer().pid, entry.peer().uid);
        self.client = Some((pid, uid));
        let session = match self.hand_over(&socket, entry.access()) {
            Ok(session) => session,
            Err(ScmError::Closed) => {
                self.end().await;
                return Idle::Missed(Client::Local { socket, entry });
            }
            Err(error) => {
                tracing::error!(
                    pid,
                    uid,
                    "a client of libvirt's protocol was closed: {error}"
                );
                drop(socket);
                self.end().await;
                return Idle::Served;
            }
        };
        tracing::debug!(pid, uid, access = %entry.access(), gateway = self.pid, "libvirt client");
        socket.hand_on();
        self.attend(entry, session, pending()).await;
        Idle::Served
    }

    /// Serves the session of its client until that ends, or `put_out` does, and sees to its end.
    pub(super) async fn attend<S: Serve>(
        &mut self,
        entry: Entry<S>,
        session: NoRights<OwnedFd>,
        put_out: impl Future<Output = ()>,
    ) {
        let attending = entry.attend(session, None);
        tokio::pin!(attending);
        tokio::pin!(put_out);
        let ended = self
            .until(async {
                tokio::select! {
                    place = &mut attending => Some(place),
                    () = &mut put_out => None,
                }
            })
            .await;
        self.end().await;
        // Ends with the process, as that has the other end.
        let place = match ended {
            Some(place) => place,
            None => attending.await,
        };
        // No client has its place before the process of this one is gone.
        drop(place);
    }

    /// Waits for that, and hears what the process says meanwhile.
    pub(super) async fn until<T>(&mut self, done: impl Future<Output = T>) -> T {
        tokio::pin!(done);
        loop {
            tokio::select! {
                done = &mut done => return done,
                words = self.hear() => self.heard(words),
            }
        }
    }

    /// Waits until it has ended by itself, and hears what it says meanwhile.
    pub(super) async fn until_gone(&mut self) {
        loop {
            let heard = tokio::select! {
                _ = self.pidfd.readable() => return,
                words = self.hear() => words,
            };
            self.heard(heard);
        }
    }

    /// Its client is at that address.
    pub(super) fn serves(&mut self, address: String) {
        self.address = Some(address);
    }

    /// It is a stranger's from now on: what it says is among those lines.
    pub(super) fn is_strangers(&mut self, lines: Arc<Seldom>) {
        self.strangers = Some(lines);
    }

    /// Its client was let in.
    pub(super) fn is_admitted(&mut self) {
        self.strangers = None;
    }

    /// How many lines were left out before one that may be logged; `None` where it may not.
    fn may_log(&self) -> Option<u64> {
        let lines = self.strangers.as_ref();
        lines.map_or(Some(0), |lines| lines.may())
    }

    /// The socket to it.
    pub(super) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Gives the process its client; gives our end of the session.
    fn hand_over(
        &self,
        client: &NoRights<OwnedFd>,
        access: Access,
    ) -> Result<NoRights<OwnedFd>, ScmError> {
        let (ours, theirs) = scm::pair()?;
        // Before the other end is anybody's.
        let ours = NoRights::new(ours);
        let message =
            codec::encode(&HandOver::Local { access }).map_err(|_| ScmError::Oversized)?;
        let handed = [client.as_fd(), theirs.as_fd()];
        scm::send(self.control.as_fd(), &message, &handed)?;
        Ok(ours)
    }

    /// Waits for its end, not for long, then kills it; and reaps it.
    pub(super) async fn end(&mut self) {
        // It ends by itself when it sees this; what it said last can be heard still.
        let _ = shutdown(&self.control, Shutdown::Write);
        if timeout(GRACE, self.gone()).await.is_err() {
            let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
            self.gone().await;
        }
        self.reap();
    }

    async fn gone(&self) {
        if self.pidfd.readable().await.is_err() {
            // The runtime ends, and so does the process.
            pending::<()>().await;
        }
    }

    /// Takes the exit status of a process that has ended.
    fn reap(&mut self) {
        let id = || WaitId::PidFd(self.pidfd.get_ref().as_fd());
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = rustix::io::retry_on_intr(|| waitid(id(), options));
        self.reaped = !matches!(status, Ok(None));
        // What it said last is there still.
        while self.lines > 0 && !self.silent {
            self.heard(receive(&self.control).map_or(Heard::End, Heard::Words));
        }
        let how = match status
            .ok()
            .flatten()
            .map(|status| (status.exit_status(), status.terminating_signal()))
        {
            Some((Some(code), _)) if code == i32::from(exit_code::ORDERLY) => return,
            Some((Some(code), _)) => format!("ended with exit code {code}"),
            Some((None, Some(signal))) => format!("was ended by signal {signal}"),
            Some((None, None)) | None => return,
        };
        if let Some(left_out) = self.may_log() {
            let left_out = (left_out > 0).then_some(left_out);
            tracing::warn!(gateway = self.pid, left_out, "a gateway {how}");
        }
    }

    /// What it says next; where it has said much, later.
    async fn hear(&self) -> Heard {
        if self.silent {
            return pending().await;
        }
        if self.lines == 0 {
            sleep(LINE_EACH).await;
            return Heard::Later;
        }
        let attempt = || match receive(&self.control) {
            Err(ScmError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            result => Ok(result),
        };
        let heard = self.control.async_io(Interest::READABLE, attempt).await;
        match heard {
            Ok(Ok(words)) => Heard::Words(words),
            _ => Heard::End,
        }
    }

    /// Logs what it says: bounded, and with nothing in it that a terminal would obey.
    fn heard(&mut self, heard: Heard) {
        let words = match heard {
            Heard::Words(words) => words,
            Heard::Later => {
                self.lines += 1;
                return;
            }
            // Its end is seen by its pidfd, and its session's.
            Heard::End => {
                self.silent = true;
                return;
            }
        };
        self.lines = self.lines.saturating_sub(1);
        let Some(left_out) = self.may_log() else {
            return;
        };
        let left_out = (left_out > 0).then_some(left_out);
        let gateway = self.pid;
        let (pid, uid) = self.client.unzip();
        let address = self.address.as_deref();
        if let Ok(denial) = Denial::decode(&words) {
            tracing::error!(
                gateway,
                pid,
                uid,
                address,
                left_out,
                "a gateway made a {denial}"
            );
            return;
        }
        let words = String::from_utf8_lossy(&words);
        tracing::info!(
            gateway,
            pid,
            uid,
            address,
            left_out,
            "a gateway says: {}",
            words.escape_debug()
        );
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            // Nobody waits for it: the supervisor ends, and whoever inherits it reaps it.
            let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
        }
    }
}

fn receive(control: &NoRights<UnixStream>) -> Result<Vec<u8>, ScmError> {
    let mut words = [0; MAX_WORDS_BYTES];
    let (length, _) = scm::receive_bare_cut(control.as_fd(), &mut words)?;
    Ok(words.get(..length).unwrap_or_default().to_vec())
}
