//! A network's server, watched: when it ends it is started again, later each time. What does not tell by itself that it
//! does not work, a server that hangs or a bridge that somebody deleted, is looked for now and then.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::handle::Message;
use crate::host::watch;

/// How long is waited before a server is started again.
#[derive(Debug, Clone, Copy)]
pub struct Delays {
    /// The first time; twice as long each time after.
    pub first: Duration,
    /// At most; and a server that lived longer begins anew with the first.
    pub longest: Duration,
    /// How often an active network is looked after.
    pub check: Duration,
}

/// How often that is where nobody says otherwise: two of them find a server that hangs, which is as long as a client
/// of DHCP asks before it gives up.
const CHECK: Duration = Duration::from_secs(30);

/// The same; in builds for tests what the environment says, in milliseconds.
fn check_period() -> Duration {
    #[cfg(feature = "fault-points")]
    if let Some(said) = std::env::var("REEVE_NETWORK_CHECK")
        .ok()
        .and_then(|text| text.parse().ok())
    {
        return Duration::from_millis(said);
    }
    CHECK
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
            check: check_period(),
        }
    }
}

/// What becomes of a network's server.
#[derive(Debug)]
pub(super) enum Watched {
    /// There is none.
    Nothing,
    /// It has ended.
    Ended,
    /// It ends when this becomes readable.
    Runs(OwnedFd),
}

/// Comes back when it has ended.
async fn end_of(watched: Watched) {
    match watched {
        Watched::Nothing => std::future::pending().await,
        Watched::Ended => {}
        Watched::Runs(descriptor) => match watch::watch(Arc::new(descriptor)) {
            Ok(watched) => drop(watched.readable().await),
            Err(error) => {
                tracing::error!(%error, "the server of a network cannot be watched");
                std::future::pending().await
            }
        },
    }
}

/// Who looks after a network's server.
#[derive(Debug)]
pub(super) struct Server {
    delays: Delays,
    /// The wait before the next start.
    delay: Duration,
    /// When it was started last.
    since: Instant,
    task: Option<AbortHandle>,
}

impl Server {
    pub(super) fn new(delays: Delays) -> Self {
        Self {
            delays,
            delay: delays.first,
            since: Instant::now(),
            task: None,
        }
    }

    /// Tells `own` when it ends, by the number of this watch, and when it is time to look after the network. Without a
    /// descriptor it has ended.
    pub(super) fn watch(&mut self, number: u64, watched: Watched, own: mpsc::WeakSender<Message>) {
        self.since = Instant::now();
        let period = self.delays.check;
        self.take(tokio::spawn(async move {
            let mut ended = std::pin::pin!(end_of(watched));
            loop {
                tokio::select! {
                    () = &mut ended => break,
                    () = tokio::time::sleep(period) => tell(&own, Message::Check(number)).await,
                }
            }
            tell(&own, Message::ServerEnded(number)).await;
        }));
    }

    /// Tells `own` when it is time for another start; how long that is.
    pub(super) fn wait(&mut self, number: u64, own: mpsc::WeakSender<Message>) -> Duration {
        if self.since.elapsed() > self.delays.longest {
            self.delay = self.delays.first;
        }
        let delay = self.delay;
        self.delay = (delay * 2).min(self.delays.longest);
        self.take(tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            tell(&own, Message::Retry(number)).await;
        }));
        delay
    }

    fn take<T>(&mut self, task: tokio::task::JoinHandle<T>) {
        if let Some(before) = self.task.replace(task.abort_handle()) {
            before.abort();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn tell(own: &mpsc::WeakSender<Message>, message: Message) {
    if let Some(own) = own.upgrade() {
        // Its actor is gone, and the network with it.
        let _ = own.send(message).await;
    }
}
