//! A volume's stream on one side ([`reeve_ipc::volume_stream`]), the connection's on the other. The file is held by a
//! process of the supervisor's, which writes what comes, or sends what is there.
//!
//! What a client sends is passed on where it comes, a packet at a time: a disk that takes long over one lets this
//! connection wait, and no other. What it is sent, and that an upload is on stable storage, a task waits for.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};

use reeve_ipc::volume_stream::{self, FRAME_BYTES, Frame, MAX_DATA_BYTES};
use rustix::io::Errno;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::{Said, What};
use crate::calls::failure::{Code, Failure, Origin};
use crate::calls::storage::Transfer;
use crate::wire::frame::STREAM_CHUNK;

/// Bytes of `length`, at most `most`, that are passed on at once.
fn chunk(length: u64, most: usize) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX).min(most)
}

fn broken(what: &str, error: &io::Error) -> Failure {
    let why = format!("{what}: {error}");
    Failure::of(Origin::Streams, Code::SystemError, why)
}

fn not_written(error: &io::Error) -> Failure {
    broken("cannot write to stream", error)
}

/// What an upload goes to.
#[derive(Debug)]
pub(super) struct Sink {
    socket: OwnedFd,
    /// The most bytes that it still takes.
    room: u64,
    holes: bool,
}

impl Sink {
    pub(super) fn new(to: Transfer, holes: bool) -> Self {
        Self {
            socket: to.stream,
            room: to.length,
            holes,
        }
    }

    /// Whether holes pass, which was said when the stream was opened.
    pub(super) const fn takes_holes(&self) -> bool {
        self.holes
    }

    /// Passes on what comes next.
    ///
    /// # Errors
    /// There is no room for it, or the file does not take it.
    pub(super) fn data(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.pass(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
        let most = usize::try_from(MAX_DATA_BYTES).unwrap_or(usize::MAX);
        for part in bytes.chunks(most) {
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            self.send(Frame::Data(length), part)?;
        }
        Ok(())
    }

    /// Passes on that so many zeros come next.
    ///
    /// # Errors
    /// As for [`Self::data`].
    pub(super) fn hole(&mut self, length: u64) -> Result<(), Failure> {
        self.pass(length)?;
        self.send(Frame::Hole(length), &[])
    }

    fn pass(&mut self, length: u64) -> Result<(), Failure> {
        let room = self.room.checked_sub(length);
        self.room = room.ok_or_else(|| not_written(&Errno::NOSPC.into()))?;
        Ok(())
    }

    fn send(&self, frame: Frame, payload: &[u8]) -> Result<(), Failure> {
        volume_stream::send(self.socket.as_fd(), frame, payload).map_err(|errno| {
            if errno == Errno::AGAIN {
                // The file has taken nothing for so long that nothing else is heard of either.
                return not_written(&ErrorKind::TimedOut.into());
            }
            // The other end is closed, which may have said why.
            let why = match volume_stream::next(self.socket.as_fd()) {
                Ok(Some(Frame::Failed(number))) => io::Error::from_raw_os_error(number),
                _ => errno.into(),
            };
            not_written(&why)
        })
    }

    /// Passes on that this was all; then what is left to be heard.
    ///
    /// # Errors
    /// As for [`Self::data`].
    pub(super) fn end(self) -> Result<Outcome, Failure> {
        self.send(Frame::End, &[])?;
        let socket = asynchronous(self.socket).map_err(|error| not_written(&error))?;
        Ok(Outcome(socket))
    }
}

fn asynchronous(socket: OwnedFd) -> io::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// An upload whose bytes are sent, and perhaps not written.
#[derive(Debug)]
pub(super) struct Outcome(UnixStream);

impl Outcome {
    /// Says how it went, once that is known.
    pub(super) async fn run(self, serial: u32, say: mpsc::Sender<Said>) {
        let what = match frame(&self.0).await {
            Ok(Frame::End) => What::Finished,
            Ok(Frame::Failed(errno)) => {
                What::Failed(not_written(&io::Error::from_raw_os_error(errno)))
            }
            Ok(_) => What::Failed(not_written(&ErrorKind::InvalidData.into())),
            Err(error) => What::Failed(not_written(&error)),
        };
        let _ = say.send(Said { serial, what }).await;
    }
}

async fn frame(socket: &UnixStream) -> io::Result<Frame> {
    let mut bytes = [0; FRAME_BYTES];
    fill(socket, &mut bytes).await?;
    Frame::decode(bytes).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// Waits for as many bytes as there is room for.
async fn fill(socket: &UnixStream, mut room: &mut [u8]) -> io::Result<()> {
    while !room.is_empty() {
        socket.readable().await?;
        match socket.try_read(room) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => room = room.get_mut(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a download comes from.
#[derive(Debug)]
struct Source {
    socket: UnixStream,
    /// The bytes that may still come.
    left: u64,
    /// Whether holes are told of, and not sent.
    holes: bool,
    /// Bytes that were announced and have not come.
    announced: u64,
    /// Zeros that are to be sent.
    zeros: u64,
}

impl Source {
    /// What comes next.
    async fn next(&mut self) -> io::Result<What> {
        while self.announced == 0 && self.zeros == 0 {
            match frame(&self.socket).await? {
                Frame::Data(length) => {
                    self.announced = length.into();
                    self.pass(length.into())?;
                }
                Frame::Hole(length) => {
                    self.pass(length)?;
                    if self.holes && length > 0 {
                        return Ok(What::Hole(length));
                    }
                    self.zeros = length;
                }
                Frame::End => return Ok(What::End),
                Frame::Failed(errno) => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        let length = self.announced.max(self.zeros);
        let mut bytes = vec![0; chunk(length, STREAM_CHUNK)];
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.zeros > 0 {
            self.zeros = self.zeros.saturating_sub(length);
        } else {
            fill(&self.socket, &mut bytes).await?;
            self.announced = self.announced.saturating_sub(length);
        }
        Ok(What::Data(bytes))
    }

    fn pass(&mut self, length: u64) -> io::Result<()> {
        let left = self.left.checked_sub(length);
        self.left = left.ok_or(ErrorKind::InvalidData)?;
        Ok(())
    }
}

/// Says what is in a file, and then that there is nothing more: a packet when there is a place for it, and not
/// before.
pub(super) async fn download(from: Transfer, holes: bool, serial: u32, say: mpsc::Sender<Said>) {
    let failed = |error: &io::Error| What::Failed(broken("cannot read from stream", error));
    let mut source = match asynchronous(from.stream) {
        Ok(socket) => Source {
            socket,
            left: from.length,
            holes,
            announced: 0,
            zeros: 0,
        },
        Err(error) => {
            let what = failed(&error);
            let _ = say.send(Said { serial, what }).await;
            return;
        }
    };
    loop {
        let Ok(permit) = say.reserve().await else {
            return;
        };
        let what = source.next().await.unwrap_or_else(|error| failed(&error));
        let more = matches!(what, What::Data(_) | What::Hole(_));
        permit.send(Said { serial, what });
        if !more {
            return;
        }
    }
}
