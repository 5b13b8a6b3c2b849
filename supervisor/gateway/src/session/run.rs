//! The loop of a connection.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reeve_ipc::api::client::Client;
use reeve_ipc::api::event::{Cursor, Event};
use reeve_ipc::changes::Changes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::callbacks::Callbacks;
use super::dispatch::Done;
use super::keepalive::{Due, Keepalive};
use super::outbox::Outbox;
use super::pace::Pace;
use super::streams::Streams;
use super::transport::Transport;
use super::watch::Watch;
use super::{Rights, SessionError};
use crate::calls::Context;
use crate::wire::frame::{self, Assembler};

/// Calls in flight, beyond which nothing more is read.
pub(super) const MAX_CALLS: usize = 20;
/// Bytes of calls in flight, beyond which nothing more is read.
const MAX_HELD: usize = 8 << 20;
/// Bytes that are read at a time.
const READ: usize = 32 << 10;
/// Packets that are handled before calls have their turn.
const TURN: usize = 32;
/// How often it is seen whether a client that is not read from is still there.
const LOOK: Duration = Duration::from_secs(1);
/// How long the last answers may take when the supervisor is gone.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was not opened.
    New,
    /// It is being opened: everything else waits.
    Opening,
    /// It is open.
    Open,
    /// The client has closed it and is owed the last answers.
    Leaving,
    /// The supervisor is gone; what is owed to the client is sent until then.
    Gone(Instant),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) socket: Transport,
    pub(super) api: Client,
    pub(super) rights: Rights,
    pub(super) changes: Arc<Changes>,
    pub(super) standing: Standing,
    pub(super) context: Option<Arc<Context>>,
    pub(super) assembler: Assembler,
    pub(super) outbox: Outbox,
    pub(super) keepalive: Keepalive,
    pub(super) calls: JoinSet<Done>,
    /// Bytes of calls in flight.
    pub(super) held: usize,
    pub(super) streams: Streams,
    pub(super) watch: Watch,
    pub(super) callbacks: Callbacks,
    pace: Pace,
    buffer: Vec<u8>,
}

/// What the loop woke up for.
enum Woken {
    Readable(io::Result<()>),
    Writable(io::Result<()>),
    Done(Result<Done, tokio::task::JoinError>),
    Said(super::streams::Said),
    Told(Option<super::watch::Told>),
    Time,
    Again,
}

impl Session {
    pub(super) fn new(
        socket: Transport,
        api: Client,
        events: mpsc::Receiver<(Cursor, Event)>,
        rights: Rights,
        changes: Changes,
    ) -> Self {
        Self {
            socket,
            rights,
            changes: Arc::new(changes),
            standing: Standing::New,
            context: None,
            assembler: Assembler::default(),
            outbox: Outbox::default(),
            keepalive: Keepalive::new(Instant::now()),
            calls: JoinSet::new(),
            held: 0,
            streams: Streams::new(),
            watch: Watch::start(api.clone(), events),
            callbacks: Callbacks::default(),
            pace: Pace::default(),
            buffer: vec![0; READ],
            api,
        }
    }

    /// Serves until the client has closed the connection, or must be given up.
    pub(super) async fn run(self) -> Result<(), SessionError> {
        match self.serve().await {
            // It left, and what was on its way to it was not read.
            Err(SessionError::Socket(error)) if is_end(&error) => Ok(()),
            end => end,
        }
    }

    async fn serve(mut self) -> Result<(), SessionError> {
        loop {
            let more = self.handle()?;
            self.flush()?;
            match self.standing {
                Standing::Leaving if self.outbox.is_empty() => return Ok(()),
                Standing::Gone(_) if self.outbox.is_empty() && self.calls.is_empty() => {
                    return Err(SessionError::Supervisor);
                }
                _ => {}
            }
            match self.next(more).await {
                Woken::Readable(ready) => {
                    ready?;
                    self.pace.called(Instant::now());
                    if self.read()? == 0 {
                        return Ok(());
                    }
                }
                // What waits is sent with the next turn.
                Woken::Writable(ready) => ready?,
                Woken::Done(Ok(done)) => {
                    self.pace.answered(Instant::now());
                    self.done(done);
                }
                // Given up with the connection.
                Woken::Done(Err(error)) if error.is_cancelled() => {}
                Woken::Done(Err(error)) => return Err(error.into()),
                Woken::Said(said) => {
                    let answer = self.streams.tell(said);
                    self.stream(answer);
                }
                Woken::Told(Some(told)) => {
                    let now = Instant::now();
                    for packet in self.callbacks.packets(&told) {
                        self.outbox.push(packet, now);
                    }
                }
                Woken::Told(None) => self.supervisor_gone(),
                Woken::Time => {
                    if self.time().await? {
                        return Ok(());
                    }
                }
                Woken::Again => {}
            }
        }
    }

    /// Waits for what comes next.
    async fn next(&mut self, more: bool) -> Woken {
        let awake = self.pace.waits(self.calls.len(), Instant::now());
        if awake {
            std::thread::yield_now();
        }
        let again = more || awake;
        if again {
            tokio::task::yield_now().await;
        }
        let listens = self.listens();
        let waits = !self.outbox.is_empty();
        let deadline = self.deadline(listens);
        let has_room = self.outbox.has_room_for_news();
        let gone = matches!(self.standing, Standing::Gone(_));
        let Self {
            socket,
            calls,
            streams,
            watch,
            ..
        } = self;
        tokio::select! {
            ready = socket.readable(), if listens => Woken::Readable(ready.map(drop)),
            ready = socket.writable(), if waits => Woken::Writable(ready),
            Some(done) = calls.join_next() => Woken::Done(done),
            said = streams.next(), if has_room => Woken::Said(said),
            told = watch.next(), if has_room && !gone => Woken::Told(told),
            () = at(deadline) => Woken::Time,
            () = std::future::ready(()), if again => Woken::Again,
        }
    }

    /// Whether packets are taken and bytes are read.
    fn listens(&self) -> bool {
        matches!(self.standing, Standing::New | Standing::Open)
            && self.calls.len() < MAX_CALLS
            && self.held < MAX_HELD
            && self.outbox.has_room()
    }

    fn deadline(&self, listens: bool) -> Option<Instant> {
        let look = (!listens).then(|| Instant::now() + LOOK);
        let gone = match self.standing {
            Standing::Gone(until) => Some(until),
            _ => None,
        };
        let times = [
            self.keepalive.deadline(),
            self.outbox.deadline(),
            look,
            gone,
        ];
        times.into_iter().flatten().min()
    }

    /// Does what is due; whether the client has left.
    async fn time(&mut self) -> Result<bool, SessionError> {
        let now = Instant::now();
        if let Standing::Gone(until) = self.standing {
            if now >= until {
                return Err(SessionError::Supervisor);
            }
        }
        if self
            .outbox
            .deadline()
            .is_some_and(|deadline| now >= deadline)
        {
            return Err(SessionError::Stalled);
        }
        if !self.listens() {
            // What it sends is not read, so that its silence means nothing; but it may be gone.
            self.keepalive.heard(now);
            let closed = tokio::select! {
                biased;
                ready = self.socket.readable() => ready?.is_read_closed(),
                () = std::future::ready(()) => false,
            };
            return Ok(closed);
        }
        match self.keepalive.due(now) {
            Some(Due::Ping) => self.send(|out| frame::keepalive(out, super::dispatch::PING)),
            Some(Due::Dead) => return Err(SessionError::Silent),
            None => {}
        }
        Ok(false)
    }

    /// Reads what is there; how many bytes, and none at the end. Gives one where there is nothing after all.
    fn read(&mut self) -> Result<usize, SessionError> {
        match self.socket.try_read(&mut self.buffer) {
            Ok(Some(length)) => {
                let bytes = self.buffer.get(..length).unwrap_or_default();
                self.assembler.push(bytes);
                self.keepalive.heard(Instant::now());
                Ok(length)
            }
            Ok(None) => Ok(1),
            Err(error) => Err(error.into()),
        }
    }

    /// Handles packets that are whole, a turn's worth; whether there may be more.
    fn handle(&mut self) -> Result<bool, SessionError> {
        for _ in 0..TURN {
            if !self.listens() {
                return Ok(false);
            }
            // Taken out, for the packet borrows it.
            let mut assembler = std::mem::take(&mut self.assembler);
            let taken = match assembler.take() {
                Ok(Some(packet)) => {
                    self.packet(packet);
                    Ok(true)
                }
                Ok(None) => Ok(false),
                Err(error) => Err(error),
            };
            self.assembler = assembler;
            if !taken? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends what the client takes just now.
    fn flush(&mut self) -> Result<(), SessionError> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let Self { socket, outbox, .. } = self;
        outbox.flush(Instant::now(), |slices| socket.try_write(slices))?;
        if outbox.is_overfull() {
            return Err(SessionError::Stalled);
        }
        Ok(())
    }

    /// Puts a packet into the outbox. One that cannot be written is none that anybody waits for.
    pub(super) fn send(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), crate::wire::xdr::XdrError>,
    ) {
        let mut packet = Vec::new();
        match write(&mut packet) {
            Ok(()) => self.outbox.push(packet, Instant::now()),
            Err(error) => tracing::error!("a packet is not sent: {error}"),
        }
    }

    fn supervisor_gone(&mut self) {
        tracing::warn!("the supervisor is gone");
        self.standing = Standing::Gone(Instant::now() + LAST_WORDS);
        if let Some(packet) = self.callbacks.closed() {
            self.outbox.push(packet, Instant::now());
        }
    }
}

/// Whether it only says that the other end is gone.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
