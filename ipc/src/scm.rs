//! One datagram with its descriptors, on a `SOCK_SEQPACKET` socket (unix(7), `SCM_RIGHTS`).
//!
//! A datagram keeps its boundary; one that was cut, or whose descriptors did not all fit, is an
//! error and never half a message. Received descriptors are close-on-exec.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, UCred, recvmsg,
    sendmsg, socketpair,
};

use crate::{MAX_MESSAGE_BYTES, MAX_MESSAGE_FDS};

/// Room for the descriptors of one message.
const ANCILLARY_BYTES: usize = rustix::cmsg_space!(ScmRights(MAX_MESSAGE_FDS), ScmCredentials(1));

/// Why a datagram did not come whole, or did not go.
#[derive(Debug, thiserror::Error)]
pub enum ScmError {
    /// The other end is closed.
    #[error("the other end of the socket is closed")]
    Closed,
    /// Nothing there, or no room, on a non-blocking socket.
    #[error("the socket is not ready")]
    WouldBlock,
    /// More bytes or descriptors than a message may have.
    #[error("a datagram exceeded {MAX_MESSAGE_BYTES} bytes or {MAX_MESSAGE_FDS} descriptors")]
    Oversized,
    /// Something other than descriptors came beside a datagram.
    #[error("unexpected control data beside a datagram")]
    UnexpectedControlData,
    /// The kernel refused.
    #[error("socket error: {0}")]
    Os(#[source] Errno),
}

impl From<Errno> for ScmError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN => Self::WouldBlock,
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Self::Closed,
            Errno::MSGSIZE | Errno::TOOMANYREFS => Self::Oversized,
            other => Self::Os(other),
        }
    }
}

/// A connected pair, both ends non-blocking and close-on-exec.
///
/// # Errors
/// [`ScmError::Os`] when the kernel has no room for sockets.
pub fn pair() -> Result<(OwnedFd, OwnedFd), ScmError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// Sends `bytes` and `fds` as one datagram, without blocking and without `SIGPIPE`.
///
/// # Errors
/// [`ScmError::WouldBlock`] when there is no room now, [`ScmError::Closed`],
/// [`ScmError::Oversized`].
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ScmError> {
    if bytes.len() > MAX_MESSAGE_BYTES || fds.len() > MAX_MESSAGE_FDS {
        return Err(ScmError::Oversized);
    }
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(ScmError::Oversized);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Receives one datagram into `buffer`; gives its length and its descriptors. Does not block.
///
/// # Errors
/// [`ScmError::WouldBlock`] when there is none, [`ScmError::Closed`] at the end,
/// [`ScmError::Oversized`] when it was cut (its descriptors are closed),
/// [`ScmError::UnexpectedControlData`].
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>), ScmError> {
    match receive_any(socket, buffer, RecvFlags::DONTWAIT)? {
        (length, fds, None) => Ok((length, fds)),
        (_, _, Some(_)) => Err(ScmError::UnexpectedControlData),
    }
}

/// As [`receive`], and waits for a datagram where the socket is a blocking one.
///
/// # Errors
/// As for [`receive`].
pub fn receive_waiting(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>), ScmError> {
    match receive_any(socket, buffer, RecvFlags::empty())? {
        (length, fds, None) => Ok((length, fds)),
        (_, _, Some(_)) => Err(ScmError::UnexpectedControlData),
    }
}

fn receive_any(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    waiting: RecvFlags,
) -> Result<(usize, Vec<OwnedFd>, Option<UCred>), ScmError> {
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | waiting;
    let message = loop {
        match recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            flags,
        ) {
            Ok(message) => break message,
            // A peer that closed with our words unread is reported once, ahead of what it said
            // itself; that is still queued, and the end follows it.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    let mut fds = Vec::new();
    let mut credentials = None;
    let mut unexpected = false;
    for item in control.drain() {
        match item {
            RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
            RecvAncillaryMessage::ScmCredentials(sender) => credentials = Some(sender),
            _ => unexpected = true,
        }
    }
    // The room for control data is padded, so one descriptor too many may fit it.
    let truncated = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
    if message.flags.intersects(truncated) || fds.len() > MAX_MESSAGE_FDS {
        return Err(ScmError::Oversized);
    }
    if unexpected {
        return Err(ScmError::UnexpectedControlData);
    }
    if message.bytes == 0 && fds.is_empty() {
        // A sequenced-packet peer that closed reads as an empty datagram; nobody sends one.
        return Err(ScmError::Closed);
    }
    Ok((message.bytes, fds, credentials))
}

/// Receives one datagram into a buffer of its own size: a connection that waits holds no buffer.
/// Does not block. One reader a socket.
///
/// # Errors
/// As for [`receive`]; a datagram over [`MAX_MESSAGE_BYTES`] is [`ScmError::Oversized`] before
/// anything is allocated for it.
pub fn receive_message(socket: BorrowedFd<'_>) -> Result<(Vec<u8>, Vec<OwnedFd>), ScmError> {
    match receive_with_credentials(socket)? {
        (bytes, fds, None) => Ok((bytes, fds)),
        (_, _, Some(_)) => Err(ScmError::UnexpectedControlData),
    }
}

/// A message with its descriptors and, where they were asked for, its sender's credentials.
pub type Credited = (Vec<u8>, Vec<OwnedFd>, Option<UCred>);

/// As [`receive_message`], with the sender's credentials where the socket asks the kernel for them
/// (unix(7), `SO_PASSCRED`).
///
/// # Errors
/// As for [`receive_message`].
pub fn receive_with_credentials(socket: BorrowedFd<'_>) -> Result<Credited, ScmError> {
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    let length = loop {
        match rustix::net::recv(socket, &mut [0_u8; 1], flags) {
            Ok((_, length)) => break length,
            // As in [`receive`].
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    if length > MAX_MESSAGE_BYTES {
        return Err(ScmError::Oversized);
    }
    let mut bytes = vec![0; length];
    let (received, fds, credentials) = receive_any(socket, &mut bytes, RecvFlags::DONTWAIT)?;
    bytes.truncate(received);
    Ok((bytes, fds, credentials))
}
