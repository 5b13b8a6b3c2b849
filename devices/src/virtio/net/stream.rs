//! Frames over a stream socket, each behind its length: how passt(1) is spoken to, and whoever speaks as QEMU's
//! `-netdev stream` does.
//!
//! ```text
//!   length, 4 bytes, big endian │ frame │ length │ frame │ ...
//! ```
//!
//! There is no header of virtio's in it, so that nothing can be left to the other side: frames are whole and have
//! their checksums. What of a frame the socket does not take at once is kept, and goes before the next; what of one
//! has come is kept until the rest has. The other side may say anything: a length that no frame has ends the stream,
//! and costs the guest its link and nothing else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, retry_on_intr, write};

use super::features::Offloads;
use super::header::{MAX_FRAME, MIN_FRAME};
use super::tap::Port;
use crate::shared::lock;

/// Bytes of a length.
const LENGTH_BYTES: usize = 4;
/// How long the rest of a frame is waited for, both ways, when the port is given up.
const PATIENCE: Duration = Duration::from_millis(100);

/// One end of such a socket, the only port of its device.
#[derive(Debug)]
pub struct Stream {
    socket: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of a frame that comes: its length and what of it is here.
    incoming: Vec<u8>,
    /// Of a frame that goes: what of it has not gone.
    outgoing: Vec<u8>,
    /// It was heard saying what nobody says, or is at its end.
    over: bool,
}

impl Stream {
    /// The port behind a connected stream socket, between two frames.
    ///
    /// # Errors
    /// The host's: no such descriptor.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let flags = fcntl_getfl(&socket)?;
        fcntl_setfl(&socket, flags | OFlags::NONBLOCK)?;
        Ok(Self {
            socket,
            state: Mutex::default(),
        })
    }

    /// The next frame, into the beginning of `frame`; gives its length.
    ///
    /// # Errors
    /// `WouldBlock` where there is none yet; otherwise the stream is over.
    pub(super) fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        let mut state = lock(&self.state);
        let length = state.read(&self.socket)?;
        let whole = state.incoming.get(LENGTH_BYTES..).unwrap_or_default();
        let place = frame.get_mut(..length).ok_or(io::ErrorKind::InvalidData)?;
        place.copy_from_slice(whole);
        state.incoming.clear();
        Ok(length)
    }

    /// Sends a frame, or all of it that there is room for: the rest is kept.
    ///
    /// # Errors
    /// `WouldBlock` where one of before is still kept; otherwise the stream is over.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.flush(&self.socket)?;
        let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
        state.outgoing.extend(length.to_be_bytes());
        state.outgoing.extend(frame);
        match state.flush(&self.socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result,
        }
    }

    /// Sends what is kept; whether nothing is kept any more.
    pub(super) fn flush(&self) -> bool {
        let mut state = lock(&self.state);
        match state.flush(&self.socket) {
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            Ok(()) => true,
        }
    }

    /// Waits, for [`PATIENCE`] at most, until it stands between two frames both ways: what is kept goes, and a frame
    /// that has come in part is taken whole and lost. Whoever has the socket next begins with a length.
    pub(super) fn settle(&self) {
        let mut state = lock(&self.state);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let flushed = !matches!(
                state.flush(&self.socket),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock
            );
            let comes = !state.over
                && !state.incoming.is_empty()
                && matches!(
                    state.read(&self.socket),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock
                );
            let left = deadline.saturating_duration_since(Instant::now());
            if flushed && !comes {
                state.incoming.clear();
                return;
            }
            // What is kept goes on with whoever uses this port next: half a frame lost would be the end of the stream.
            if left.is_zero() {
                return;
            }
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::OUT, !flushed);
            wanted.set(PollFlags::IN, comes);
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: left.subsec_nanos().into(),
            };
            let _ = poll(&mut [PollFd::new(&self.socket, wanted)], Some(&timeout));
        }
    }
}

impl State {
    /// Reads until a frame is whole; gives its length.
    fn read(&mut self, socket: &OwnedFd) -> io::Result<usize> {
        loop {
            if self.over {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let length = match self.incoming.first_chunk() {
                Some(length) => {
                    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                    if !(MIN_FRAME..=MAX_FRAME).contains(&length) {
                        self.over = true;
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    Some(length)
                }
                None => None,
            };
            let wanted = LENGTH_BYTES + length.unwrap_or(0);
            let here = self.incoming.len();
            if let Some(length) = length.filter(|_| here == wanted) {
                return Ok(length);
            }
            self.incoming.resize(wanted, 0);
            let place = self.incoming.get_mut(here..).unwrap_or_default();
            let got = retry_on_intr(|| read(socket, &mut *place));
            self.incoming.truncate(here + *got.as_ref().unwrap_or(&0));
            match got {
                Ok(0) => {
                    self.over = true;
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                Ok(_) => {}
                Err(errno) => {
                    self.over |= errno != Errno::AGAIN;
                    return Err(errno.into());
                }
            }
        }
    }

    fn flush(&mut self, socket: &OwnedFd) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            // Whoever goes is told of by an error: this process ignores the signal.
            let sent = retry_on_intr(|| write(socket, &self.outgoing));
            match sent {
                Ok(sent) => drop(self.outgoing.drain(..sent)),
                Err(errno) => {
                    if errno != Errno::AGAIN {
                        self.outgoing.clear();
                    }
                    return Err(errno.into());
                }
            }
        }
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Port for Stream {
    fn cuts_udp(&self) -> bool {
        false
    }

    fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        // None was offered.
        if offloads == Offloads::default() {
            return Ok(());
        }
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_attached(&self, attached: bool) -> io::Result<()> {
        if attached {
            return Ok(());
        }
        Err(io::ErrorKind::Unsupported.into())
    }

    fn stream(&self) -> Option<&Stream> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (Stream, OwnedFd) {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        (Stream::new(ours).unwrap(), theirs)
    }

    fn kind(error: io::Result<usize>) -> io::ErrorKind {
        error.unwrap_err().kind()
    }

    #[test]
    fn frames_come_whole_however_they_are_cut() {
        let (stream, host) = pair();
        let frame: Vec<u8> = (0..200).collect();
        let mut bytes = 200_u32.to_be_bytes().to_vec();
        bytes.extend(&frame);
        let twice = [&bytes[..], &bytes[..]].concat();
        let mut place = [0; MAX_FRAME];
        for (index, byte) in twice.iter().enumerate() {
            assert_eq!(kind(stream.receive(&mut place)), io::ErrorKind::WouldBlock);
            rustix::io::write(&host, &[*byte]).unwrap();
            if index % bytes.len() == bytes.len() - 1 {
                assert_eq!(stream.receive(&mut place).unwrap(), 200);
                assert_eq!(place[..200], frame);
            }
        }
        // And two at once, one after the other.
        rustix::io::write(&host, &twice).unwrap();
        assert_eq!(stream.receive(&mut place).unwrap(), 200);
        assert_eq!(stream.receive(&mut place).unwrap(), 200);
    }

    #[test]
    fn a_length_that_no_frame_has_ends_the_stream_and_nothing_is_allocated_for_it() {
        for length in [0, 1, MAX_FRAME + 1, usize::try_from(u32::MAX).unwrap()] {
            let (stream, host) = pair();
            let length = u32::try_from(length).unwrap();
            rustix::io::write(&host, &length.to_be_bytes()).unwrap();
            let mut place = [0; MAX_FRAME];
            assert_eq!(kind(stream.receive(&mut place)), io::ErrorKind::InvalidData);
            assert_eq!(kind(stream.receive(&mut place)), io::ErrorKind::BrokenPipe);
            assert!(lock(&stream.state).incoming.capacity() < 100);
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_kept_and_goes_first() {
        let (stream, host) = pair();
        let frame = vec![7; 60_000];
        let mut sent = 0;
        loop {
            match stream.send(&frame) {
                Ok(()) => sent += 1,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    break;
                }
            }
            assert!(sent < 1000, "it takes all");
        }
        assert!(!stream.flush());
        let total = sent * (frame.len() + LENGTH_BYTES);
        let mut all: Vec<u8> = Vec::new();
        while all.len() < total {
            let mut some = vec![0; 1 << 20];
            let got = rustix::io::read(&host, &mut some).unwrap();
            all.extend(&some[..got]);
            stream.flush();
        }
        assert!(stream.flush());
        for whole in all.chunks(frame.len() + LENGTH_BYTES) {
            assert_eq!(whole[..LENGTH_BYTES], 60_000_u32.to_be_bytes());
            assert_eq!(whole[LENGTH_BYTES..], frame);
        }
    }

    #[test]
    fn whoever_comes_next_begins_with_a_length() {
        let (stream, host) = pair();
        rustix::io::write(&host, &100_u32.to_be_bytes()).unwrap();
        rustix::io::write(&host, &[1; 50]).unwrap();
        let mut place = [0; MAX_FRAME];
        assert_eq!(kind(stream.receive(&mut place)), io::ErrorKind::WouldBlock);
        let late = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(10));
            rustix::io::write(&host, &[1; 50]).unwrap();
            host
        });
        stream.settle();
        let host = late.join().unwrap();
        let frame = [&60_u32.to_be_bytes()[..], &[9; 60]].concat();
        rustix::io::write(&host, &frame).unwrap();
        assert_eq!(stream.receive(&mut place).unwrap(), 60);
        // Nor is a host that never ends its frame waited for for long.
        rustix::io::write(&host, &100_u32.to_be_bytes()).unwrap();
        assert_eq!(kind(stream.receive(&mut place)), io::ErrorKind::WouldBlock);
        let begin = Instant::now();
        stream.settle();
        assert!(begin.elapsed() < 10 * PATIENCE);
        drop(host);
        assert_eq!(kind(stream.receive(&mut place)), io::ErrorKind::BrokenPipe);
    }
}
