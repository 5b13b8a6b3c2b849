//! The bytes of a volume on their way between a client and the process that has the volume's file open.
//!
//! ```text
//!   upload    client ── Data, Hole .. End ──► process     writes, synchronises
//!             client ◄── End | Failed ─────── process     it is on stable storage, or it is not
//!   download  client ◄── Data, Hole .. End ── process     or Failed, in place of what is left
//! ```
//!
//! The descriptor that comes with the answer to [`VolumeUpload`](crate::api::call::VolumeUpload) or
//! [`VolumeDownload`](crate::api::call::VolumeDownload) is a stream socket (`SOCK_STREAM`, blocking). On it pass
//! frames: a byte that says which, eight that are a number (little endian), and behind [`Frame::Data`] so many
//! bytes. Whoever closes it without [`Frame::End`] gave up. Neither end trusts the other: every number is
//! checked where it is used, and no more than [`MAX_DATA_BYTES`] come at once.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, recvmsg, sendmsg,
};

/// The most bytes that one [`Frame::Data`] announces.
pub const MAX_DATA_BYTES: u32 = 128 << 10;
/// Bytes of a frame, without what [`Frame::Data`] announces.
pub const FRAME_BYTES: usize = 9;

/// What passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// So many bytes follow; at least one, [`MAX_DATA_BYTES`] at most.
    Data(u32),
    /// So many zeros, which do not follow.
    Hole(u64),
    /// That was all; from whoever writes the file: and it is on stable storage.
    End,
    /// It broke, with this number of the kernel's (`errno`).
    Failed(i32),
}

impl Frame {
    /// As it passes.
    #[must_use]
    pub const fn encode(self) -> [u8; FRAME_BYTES] {
        let (kind, number) = match self {
            Self::Data(bytes) => (0, bytes as u64),
            Self::Hole(bytes) => (1, bytes),
            Self::End => (2, 0),
            Self::Failed(errno) => (3, u32::from_ne_bytes(errno.to_ne_bytes()) as u64),
        };
        let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
        [kind, a, b, c, d, e, f, g, h]
    }

    /// What has this form, if anything.
    #[must_use]
    pub fn decode(bytes: [u8; FRAME_BYTES]) -> Option<Self> {
        let [kind, number @ ..] = bytes;
        let number = u64::from_le_bytes(number);
        Some(match (kind, number) {
            (0, 1..) => {
                let bytes = u32::try_from(number).ok();
                Self::Data(bytes.filter(|bytes| *bytes <= MAX_DATA_BYTES)?)
            }
            (1, bytes) => Self::Hole(bytes),
            (2, 0) => Self::End,
            (3, _) => {
                let errno = i32::try_from(number).ok();
                Self::Failed(errno.filter(|errno| (1..4096).contains(errno))?)
            }
            _ => return None,
        })
    }
}

/// Sends a frame and the bytes that it announces, waiting for room.
///
/// # Errors
/// The kernel's; `EPIPE` and `ECONNRESET` where the other end is closed, which may have said why
/// ([`next`]).
pub fn send(to: BorrowedFd<'_>, frame: Frame, payload: &[u8]) -> Result<(), Errno> {
    debug_assert!(match frame {
        Frame::Data(bytes) => usize::try_from(bytes) == Ok(payload.len()),
        _ => payload.is_empty(),
    });
    let head = frame.encode();
    let (mut head, mut payload) = (head.as_slice(), payload);
    while !head.is_empty() || !payload.is_empty() {
        let parts = [IoSlice::new(head), IoSlice::new(payload)];
        let mut nothing = SendAncillaryBuffer::default();
        let sent =
            rustix::io::retry_on_intr(|| sendmsg(to, &parts, &mut nothing, SendFlags::NOSIGNAL))?;
        let of_head = sent.min(head.len());
        head = head.get(of_head..).unwrap_or_default();
        payload = payload.get(sent - of_head..).unwrap_or_default();
    }
    Ok(())
}

/// Waits for the next frame; `None` where the other end is closed instead.
///
/// # Errors
/// The kernel's; `EBADMSG` for what is no frame.
pub fn next(from: BorrowedFd<'_>) -> Result<Option<Frame>, Errno> {
    let mut bytes = [0; FRAME_BYTES];
    let first = receive(from, &mut bytes)?;
    if first == 0 {
        return Ok(None);
    }
    fill(from, bytes.get_mut(first..).unwrap_or_default())?;
    Frame::decode(bytes).map(Some).ok_or(Errno::BADMSG)
}

/// Waits for as many bytes as there is room for.
///
/// # Errors
/// The kernel's; `ECONNRESET` where the other end is closed before.
pub fn fill(from: BorrowedFd<'_>, mut room: &mut [u8]) -> Result<(), Errno> {
    while !room.is_empty() {
        match receive(from, room)? {
            0 => return Err(Errno::CONNRESET),
            count => room = room.get_mut(count..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// Receives what is there. A descriptor that comes along is closed by the kernel.
fn receive(from: BorrowedFd<'_>, room: &mut [u8]) -> Result<usize, Errno> {
    loop {
        let mut nothing = RecvAncillaryBuffer::default();
        let mut parts = [IoSliceMut::new(room)];
        match recvmsg(from, &mut parts, &mut nothing, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => return Ok(received.bytes),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_frame_comes_as_it_was_sent_and_nothing_else_is_one() {
        let frames = [
            Frame::Data(1),
            Frame::Data(MAX_DATA_BYTES),
            Frame::Hole(0),
            Frame::Hole(u64::MAX),
            Frame::End,
            Frame::Failed(28),
        ];
        for frame in frames {
            assert_eq!(Frame::decode(frame.encode()), Some(frame));
        }
        for frame in [
            Frame::Data(0),
            Frame::Data(MAX_DATA_BYTES + 1),
            Frame::Failed(0),
            Frame::Failed(-1),
        ] {
            assert_eq!(Frame::decode(frame.encode()), None, "{frame:?}");
        }
        assert_eq!(Frame::decode([4, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Frame::decode([2, 1, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Frame::Data(258).encode(), [0, 2, 1, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn frames_pass_a_socket_whole_and_one_that_is_cut_off_is_told_from_the_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let payload = vec![7; 128 << 10];
        let sent = payload.clone();
        let sender = std::thread::spawn(move || {
            let length = u32::try_from(sent.len()).unwrap();
            send(theirs.as_fd(), Frame::Data(length), &sent).unwrap();
            send(theirs.as_fd(), Frame::Hole(9), &[]).unwrap();
        });
        let Some(Frame::Data(length)) = next(ours.as_fd()).unwrap() else {
            panic!("no data");
        };
        let mut read = vec![0; usize::try_from(length).unwrap()];
        fill(ours.as_fd(), &mut read).unwrap();
        assert!(read == payload);
        assert_eq!(next(ours.as_fd()), Ok(Some(Frame::Hole(9))));
        assert_eq!(next(ours.as_fd()), Ok(None));
        sender.join().unwrap();
        assert_eq!(send(ours.as_fd(), Frame::End, &[]), Err(Errno::PIPE));
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[0, 1, 0]).unwrap();
        drop(theirs);
        assert_eq!(next(ours.as_fd()), Err(Errno::CONNRESET));
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[9; FRAME_BYTES]).unwrap();
        assert_eq!(next(ours.as_fd()), Err(Errno::BADMSG));
    }
}
