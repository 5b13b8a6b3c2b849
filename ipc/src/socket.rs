//! A socket on tokio's loop that is woken by what there is to read, and by nothing else.
//!
//! tokio's own sockets are watched both ways. A UNIX socket has room again each time its other end has read,
//! and the kernel tells of it: where two processes speak by turns, each message would wake its sender once
//! more, for nothing, just as the other works at the answer.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use crate::scm::ScmError;
use crate::strays::NoRights;

/// How long one waits for room that it cannot watch for.
const MOMENT: Duration = Duration::from_millis(10);

/// What holds one descriptor, open, for as long as it lives.
pub trait Holds: AsFd + one::Descriptor {}

impl<S: AsFd + one::Descriptor> Holds for S {}

mod one {
    /// What promises it: types of this crate's choice alone.
    pub trait Descriptor {}
}

impl one::Descriptor for OwnedFd {}
impl one::Descriptor for NoRights<OwnedFd> {}

/// What tokio knows a descriptor by.
#[derive(Debug)]
struct Numbered<S>(S);

impl<S: Holds> AsRawFd for Numbered<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A non-blocking socket.
#[derive(Debug)]
pub struct Socket<S: Holds> {
    watched: AsyncFd<Numbered<S>>,
}

impl<S: Holds> AsFd for Socket<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watched.get_ref().0.as_fd()
    }
}

impl<S: Holds> Socket<S> {
    /// Takes a socket, which must be non-blocking. Called on a runtime that does I/O.
    ///
    /// # Errors
    /// The kernel has no room to watch it.
    pub fn new(socket: S) -> io::Result<Self> {
        let watched = watch(Numbered(socket), Interest::READABLE)?;
        Ok(Self { watched })
    }

    /// Waits until there is something to read, or nothing ever will be.
    ///
    /// # Errors
    /// The runtime ends.
    pub async fn readable(&self) -> io::Result<Ready> {
        Ok(self.watched.ready(Interest::READABLE).await?.ready())
    }

    /// Waits until there is room. A second descriptor is watched for that, while this waits; where there is none to
    /// be had, this waits for a moment and says that there may be room.
    ///
    /// # Errors
    /// The runtime ends.
    pub async fn writable(&self) -> io::Result<()> {
        let Ok(again) = self.as_fd().try_clone_to_owned() else {
            tokio::time::sleep(MOMENT).await;
            return Ok(());
        };
        let watched = watch(Numbered(again), Interest::WRITABLE)?;
        watched.writable().await?.retain_ready();
        Ok(())
    }

    /// Receives, where the last look said that there is something; `None` where there is nothing.
    ///
    /// # Errors
    /// What `receive` gives.
    pub fn try_receive<R>(
        &self,
        receive: impl FnOnce(BorrowedFd<'_>) -> Result<R, ScmError>,
    ) -> Result<Option<R>, ScmError> {
        let attempt = |socket: &Numbered<S>| match receive(socket.0.as_fd()) {
            Err(ScmError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            result => Ok(result),
        };
        match self.watched.try_io(Interest::READABLE, attempt) {
            Ok(result) => result.map(Some),
            // Nothing else is an error of the attempt's.
            Err(_) => Ok(None),
        }
    }

    /// Receives, once there is something.
    ///
    /// # Errors
    /// What `receive` gives; [`ScmError::Closed`] when the runtime ends.
    pub async fn receive<R>(
        &self,
        mut receive: impl FnMut(BorrowedFd<'_>) -> Result<R, ScmError>,
    ) -> Result<R, ScmError> {
        loop {
            self.readable().await.map_err(|_| ScmError::Closed)?;
            if let Some(received) = self.try_receive(&mut receive)? {
                return Ok(received);
            }
        }
    }

    /// Reads some bytes of a stream; `None` where there are none just now, no bytes at the end.
    ///
    /// # Errors
    /// The socket's.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let attempt = |socket: &Numbered<S>| {
            let (_, length) =
                rustix::net::recv(socket.0.as_fd(), buffer, rustix::net::RecvFlags::DONTWAIT)?;
            Ok(length)
        };
        match self.watched.try_io(Interest::READABLE, attempt) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[expect(
    unsafe_code,
    reason = "tokio watches by number whatever says to have one"
)]
fn watch<S: Holds>(socket: Numbered<S>, interest: Interest) -> io::Result<AsyncFd<Numbered<S>>> {
    // SAFETY: what [`Holds`] names owns its one descriptor and closes it when it is dropped; it is moved into
    // the `AsyncFd`, which gives out shared references alone.
    let watched = unsafe { AsyncFd::register_with_interest(socket, interest) };
    Ok(watched?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scm;

    const SOON: Duration = Duration::from_secs(10);

    fn pair() -> (Socket<OwnedFd>, OwnedFd) {
        let (ours, theirs) = scm::pair().unwrap();
        (Socket::new(ours).unwrap(), theirs)
    }

    #[tokio::test]
    async fn what_comes_is_received_and_then_there_is_nothing() {
        let (ours, theirs) = pair();
        for text in [&b"one"[..], b"two"] {
            scm::send(theirs.as_fd(), text, &[]).unwrap();
        }
        for text in [&b"one"[..], b"two"] {
            let received = ours.receive(scm::receive_message);
            let (bytes, _) = tokio::time::timeout(SOON, received).await.unwrap().unwrap();
            assert_eq!(bytes, text);
        }
        let more = ours.try_receive(scm::receive_message);
        assert!(more.unwrap().is_none());
    }

    #[tokio::test]
    async fn the_end_is_told() {
        let (ours, theirs) = pair();
        drop(theirs);
        let received = ours.receive(scm::receive_message);
        let end = tokio::time::timeout(SOON, received).await.unwrap();
        assert!(matches!(end, Err(ScmError::Closed)), "{end:?}");
    }

    #[tokio::test]
    async fn one_that_waits_for_room_is_woken_when_the_other_end_reads() {
        let (ours, theirs) = pair();
        while scm::send(ours.as_fd(), &[0; 1000], &[]).is_ok() {}
        let waiting = ours.writable();
        tokio::pin!(waiting);
        let still = tokio::time::timeout(Duration::from_millis(20), &mut waiting).await;
        assert!(still.is_err(), "there is no room");
        while scm::receive_message(theirs.as_fd()).is_ok() {}
        tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
        scm::send(ours.as_fd(), &[0; 1000], &[]).unwrap();
    }

    #[tokio::test]
    async fn room_alone_wakes_nobody_who_waits_to_read() {
        let (ours, theirs) = pair();
        scm::send(ours.as_fd(), b"asked", &[]).unwrap();
        scm::receive_message(theirs.as_fd()).unwrap();
        let waiting = ours.readable();
        let woken = tokio::time::timeout(Duration::from_millis(20), waiting).await;
        assert!(woken.is_err(), "nothing was sent");
    }

    #[tokio::test]
    async fn a_stream_is_read_to_its_end() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = Socket::new(OwnedFd::from(ours)).unwrap();
        let mut buffer = [0; 8];
        for text in [&b"short"[..], b"just 8 b", b"again"] {
            rustix::io::write(&theirs, text).unwrap();
            tokio::time::timeout(SOON, ours.readable())
                .await
                .unwrap()
                .unwrap();
            let length = ours.try_read(&mut buffer).unwrap().unwrap();
            assert_eq!(&buffer[..length], text);
        }
        assert_eq!(ours.try_read(&mut buffer).unwrap(), None);
        drop(theirs);
        let ready = tokio::time::timeout(SOON, ours.readable()).await.unwrap();
        assert!(ready.unwrap().is_read_closed());
        assert_eq!(ours.try_read(&mut buffer).unwrap(), Some(0));
    }
}
