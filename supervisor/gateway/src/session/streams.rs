//! The streams of a connection: bytes that pass both ways behind a call, under its serial.
//!
//! ```text
//!   client ── Continue, data ──► Streams ── input, bounded ──► a task ──► descriptor
//!   client ◄─ Continue, data ─── outbox ◄── said, bounded ──── a task ◄── descriptor
//!   client ── Ok, empty ───────► what is left of the input is written, then Ok back
//!   client ── Error, empty ────► the task ends, then Ok back
//! ```
//!
//! What is uploaded to a volume has no task until its end, when one waits for the bytes to be on stable storage: each
//! packet is passed on as it comes.
//!
//! Neither side can make the other's bytes pile up: a task reads its descriptor only while there is a place
//! among what was said, which is taken only while the client reads; and a stream ends with an error whose
//! descriptor does not take what its client sends. There is no way to have a client wait with one stream alone:
//! were no more read from it, every other call and stream of its connection would wait as well.

mod console;
mod file;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use self::file::Sink;
use crate::calls::failure::{Code, Failure, Origin};
use crate::calls::storage::Transfer;
use crate::wire::frame::{Header, Hole, Status};
use crate::wire::xdr::decode;

/// Streams of one connection.
pub(super) const MAX_STREAMS: usize = 16;
/// Bytes of a client that one stream holds.
pub(super) const MOST: usize = 1 << 20;
/// Packets of a client that one stream holds, however small.
const PACKETS: usize = 8192;

/// What became of a stream's other end.
#[derive(Debug)]
pub(super) enum What {
    /// It said this.
    Data(Vec<u8>),
    /// It said so many zeros.
    Hole(u64),
    /// It says nothing more.
    End,
    /// It has taken all that there was for it, and the client had ended it.
    Finished,
    /// It broke.
    Failed(Failure),
}

/// What a stream's task has to tell.
#[derive(Debug)]
pub(super) struct Said {
    /// The serial.
    pub(super) serial: u32,
    /// What.
    pub(super) what: What,
}

/// Input of one stream that its descriptor has not taken.
type Queued = Arc<AtomicUsize>;

#[derive(Debug)]
struct Open {
    header: Header,
    input: Option<mpsc::Sender<Vec<u8>>>,
    queued: Queued,
    /// What takes the client's bytes at once.
    sink: Option<Sink>,
    /// The client has ended an upload, and its task tells how that went.
    ending: bool,
    _task: Option<Task>,
}

impl Open {
    /// One that has neither a task nor a volume.
    fn new(header: Header) -> Self {
        Self {
            header,
            input: None,
            queued: Queued::default(),
            sink: None,
            ending: false,
            _task: None,
        }
    }
}

/// A task that ends when this is dropped.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is to be sent for what a client or a task said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing.
    Nothing,
    /// Data; none for its end.
    Data(Header, Vec<u8>),
    /// So many zeros.
    Hole(Header, i64),
    /// That the stream is over.
    Over(Header),
    /// That it failed.
    Failed(Header, Failure),
}

/// Every stream of a connection.
#[derive(Debug)]
pub(super) struct Streams {
    open: HashMap<u32, Open>,
    say: mpsc::Sender<Said>,
    said: mpsc::Receiver<Said>,
}

impl Streams {
    pub(super) fn new() -> Self {
        // One place for each: a task holds one while it reads.
        let (say, said) = mpsc::channel(MAX_STREAMS);
        Self {
            open: HashMap::new(),
            say,
            said,
        }
    }

    /// Whether a stream may be opened behind the call of that header.
    ///
    /// # Errors
    /// There are too many, or there is one of that serial.
    pub(super) fn check(&self, header: Header) -> Result<(), Failure> {
        let refuse = |why: &str| Failure::of(Origin::Streams, Code::OperationFailed, why);
        if self.open.contains_key(&header.serial) {
            return Err(refuse("a stream of this serial is open already"));
        }
        if self.open.len() >= MAX_STREAMS {
            return Err(refuse("too many streams are open on this connection"));
        }
        Ok(())
    }

    /// Opens a stream to a console's descriptor, behind the call of that header, whose reply is on its way.
    ///
    /// # Errors
    /// The descriptor is no socket.
    pub(super) fn open_console(&mut self, header: Header, fd: OwnedFd) -> Result<(), Failure> {
        let broken = |error: std::io::Error| Failure::new(Code::SystemError, error.to_string());
        let socket = std::os::unix::net::UnixStream::from(fd);
        socket.set_nonblocking(true).map_err(broken)?;
        let socket = UnixStream::from_std(socket).map_err(broken)?;
        let (input, typed) = mpsc::channel(PACKETS);
        let queued = Queued::default();
        let console = console::Console {
            socket,
            serial: header.serial,
            typed,
            queued: Arc::clone(&queued),
            say: self.say.clone(),
        };
        let task = tokio::spawn(console.run()).abort_handle();
        let open = Open {
            input: Some(input),
            queued,
            _task: Some(Task(task)),
            ..Open::new(header)
        };
        self.open.insert(header.serial, open);
        Ok(())
    }

    /// Opens a stream whose bytes a volume takes, behind the call of that header, whose reply is on its way; where
    /// `holes` says so, with holes.
    pub(super) fn open_upload(&mut self, header: Header, to: Transfer, holes: bool) {
        let open = Open {
            sink: Some(Sink::new(to, holes)),
            ..Open::new(header)
        };
        self.open.insert(header.serial, open);
    }

    /// Opens a stream that says what is in a volume, as [`Self::open_upload`].
    pub(super) fn open_download(&mut self, header: Header, from: Transfer, holes: bool) {
        let download = file::download(from, holes, header.serial, self.say.clone());
        let open = Open {
            _task: Some(Task(tokio::spawn(download).abort_handle())),
            ..Open::new(header)
        };
        self.open.insert(header.serial, open);
    }

    /// Takes a packet of a client's. One of no stream is nothing to answer.
    pub(super) fn take(&mut self, header: Header, payload: &[u8]) -> Answer {
        if header.status == Status::Continue {
            if let Some(answer) = self.write(header, |sink| sink.data(payload)) {
                return answer;
            }
        }
        let Some(open) = self.open.get_mut(&header.serial) else {
            return Answer::Nothing;
        };
        match header.status {
            Status::Continue => {
                // A task that is gone takes nothing more, nor one that was told of the end.
                let input = open.input.as_ref().filter(|input| !input.is_closed());
                let Some(input) = input.filter(|_| !payload.is_empty()) else {
                    return Answer::Nothing;
                };
                let queued = open.queued.fetch_add(payload.len(), Ordering::Relaxed);
                let fits = queued + payload.len() <= MOST;
                if fits && input.try_send(payload.to_vec()).is_ok() {
                    return Answer::Nothing;
                }
                let why = "the other end does not take what is sent to it";
                let failure = Failure::of(Origin::Streams, Code::OperationFailed, why);
                self.failed(header.serial, failure)
            }
            Status::Ok if open.ending => Answer::Nothing,
            Status::Ok => {
                if let Some(sink) = open.sink.take() {
                    return self.finish(header.serial, sink);
                }
                let waits = open.input.take().is_some_and(|input| !input.is_closed());
                if waits {
                    return Answer::Nothing;
                }
                self.close(header.serial)
            }
            Status::Error => self.close(header.serial),
        }
    }

    /// Takes a packet of a client's that says how many zeros there are, as [`Self::take`].
    pub(super) fn take_hole(&mut self, header: Header, payload: &[u8]) -> Answer {
        let unexpected = || Failure::of(Origin::Rpc, Code::Rpc, "Unexpected stream hole");
        let length = match decode(payload) {
            Ok(Hole { length, flags: 0 }) => u64::try_from(length).map_err(|_| unexpected()),
            _ => Err(unexpected()),
        };
        let written = self.write(header, |sink| match length {
            Ok(length) if sink.takes_holes() => sink.hole(length),
            _ => Err(unexpected()),
        });
        written.unwrap_or_else(|| self.failed(header.serial, unexpected()))
    }

    /// Gives something to the volume of a stream; none, where it has none.
    fn write(
        &mut self,
        header: Header,
        write: impl FnOnce(&mut Sink) -> Result<(), Failure>,
    ) -> Option<Answer> {
        let sink = self.open.get_mut(&header.serial)?.sink.as_mut()?;
        match write(sink) {
            Ok(()) => Some(Answer::Nothing),
            Err(failure) => Some(self.failed(header.serial, failure)),
        }
    }

    /// Has a task wait for how an upload went, all of which its client has sent.
    fn finish(&mut self, serial: u32, sink: Sink) -> Answer {
        let outcome = match sink.end() {
            Ok(outcome) => outcome,
            Err(failure) => return self.failed(serial, failure),
        };
        if let Some(open) = self.open.get_mut(&serial) {
            let task = tokio::spawn(outcome.run(serial, self.say.clone()));
            open.ending = true;
            open._task = Some(Task(task.abort_handle()));
        }
        Answer::Nothing
    }

    /// What the next task has to tell. One is always there to come.
    pub(super) async fn next(&mut self) -> Said {
        match self.said.recv().await {
            Some(said) => said,
            // There is always the sender of this very object.
            None => std::future::pending().await,
        }
    }

    /// Takes what a task had to tell. One of a stream that is gone is nothing to answer.
    pub(super) fn tell(&mut self, said: Said) -> Answer {
        let Some(open) = self.open.get(&said.serial) else {
            return Answer::Nothing;
        };
        match said.what {
            What::Data(data) => Answer::Data(open.header, data),
            What::End => Answer::Data(open.header, Vec::new()),
            What::Finished => self.close(said.serial),
            What::Hole(length) => {
                Answer::Hole(open.header, i64::try_from(length).unwrap_or(i64::MAX))
            }
            What::Failed(failure) => self.failed(said.serial, failure),
        }
    }

    fn failed(&mut self, serial: u32, failure: Failure) -> Answer {
        match self.close(serial) {
            Answer::Over(header) => Answer::Failed(header, failure),
            other => other,
        }
    }

    fn close(&mut self, serial: u32) -> Answer {
        match self.open.remove(&serial) {
            Some(open) => Answer::Over(open.header),
            None => Answer::Nothing,
        }
    }
}
