//! One datagram with its descriptors, on a `SOCK_SEQPACKET` socket (unix(7), `SCM_RIGHTS`).
//!
//! A datagram keeps its boundary; one that was cut, or whose descriptors did not all fit, is an
//! error and never half a message. Received descriptors are close-on-exec.
//!
//! Closing a descriptor of a stranger's can take for ever. So a socket whose other end is hostile and
//! has none to send is a [`NoRights`](crate::strays::NoRights), and is read by the `receive_bare`
//! functions: what comes all the same is closed by another thread.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, UCred, recvmsg,
    sendmsg, socketpair,
};

use crate::{MAX_MESSAGE_BYTES, MAX_MESSAGE_FDS, strays};

/// Room for the descriptors of one message.
const ANCILLARY_BYTES: usize = rustix::cmsg_space!(ScmRights(MAX_MESSAGE_FDS), ScmCredentials(1));
/// The most descriptors that the kernel lets ride with a datagram (`SCM_MAX_FD`).
const KERNEL_MAX_FDS: usize = 253;
/// Room for all of them: the kernel closes what does not fit, in the thread that receives.
const STRAY_BYTES: usize = rustix::cmsg_space!(ScmRights(KERNEL_MAX_FDS), ScmCredentials(1));
/// Whether a socket takes descriptors (`asm-generic/socket.h`, Linux 6.16).
const SO_PASSRIGHTS: libc::c_int = 83;

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

/// Tells the kernel that `socket` takes no descriptors: whoever sends it some gets `EPERM`. A listening
/// socket hands this on to those that are accepted from it. Gives whether the kernel can do so; one
/// before Linux 6.16 cannot.
#[expect(unsafe_code, reason = "no library has SO_PASSRIGHTS")]
pub fn refuse_rights(socket: BorrowedFd<'_>) -> bool {
    let no: libc::c_int = 0;
    let length = libc::socklen_t::try_from(size_of_val(&no)).unwrap_or_default();
    // SAFETY: `no` has `length` bytes and lives through the call, which only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const no).cast(),
            length,
        )
    };
    result == 0
}

/// What one call of recvmsg(2) gives.
pub(crate) struct Datagram {
    pub(crate) length: usize,
    pub(crate) fds: Vec<OwnedFd>,
    credentials: Option<UCred>,
    cut: bool,
    unexpected: bool,
}

impl Datagram {
    /// Receives into `buffer`, with `ROOM` bytes for what rides along.
    fn receive<const ROOM: usize>(
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
        waiting: RecvFlags,
    ) -> Result<Self, ScmError> {
        let mut space = [MaybeUninit::uninit(); ROOM];
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
        let truncated = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
        let mut datagram = Self {
            length: message.bytes,
            fds: Vec::new(),
            credentials: None,
            cut: message.flags.intersects(truncated),
            unexpected: false,
        };
        for item in control.drain() {
            match item {
                RecvAncillaryMessage::ScmRights(rights) => datagram.fds.extend(rights),
                RecvAncillaryMessage::ScmCredentials(sender) => {
                    datagram.credentials = Some(sender);
                }
                _ => datagram.unexpected = true,
            }
        }
        Ok(datagram)
    }

    /// Of an end that may send no descriptors.
    pub(crate) fn receive_bare(
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
    ) -> Result<Self, ScmError> {
        Self::receive::<STRAY_BYTES>(socket, buffer, RecvFlags::DONTWAIT)
    }

    /// The descriptors of one that came whole.
    fn whole(self) -> Result<(usize, Vec<OwnedFd>, Option<UCred>), ScmError> {
        // The room for control data is padded, so one descriptor too many may fit it.
        if self.cut || self.fds.len() > MAX_MESSAGE_FDS {
            return Err(ScmError::Oversized);
        }
        if self.unexpected {
            return Err(ScmError::UnexpectedControlData);
        }
        if self.length == 0 && self.fds.is_empty() {
            // A sequenced-packet peer that closed reads as an empty datagram; nobody sends one.
            return Err(ScmError::Closed);
        }
        Ok((self.length, self.fds, self.credentials))
    }

    /// Has its descriptors closed elsewhere, and gives whether it had any.
    fn bare(mut self) -> Result<(usize, bool, Option<UCred>), ScmError> {
        let strays = strays::close(std::mem::take(&mut self.fds));
        match self.whole() {
            Err(ScmError::Closed) if strays => Ok((0, true, None)),
            Err(error) => Err(error),
            Ok((length, _, credentials)) => Ok((length, strays, credentials)),
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
    take(socket, buffer, RecvFlags::DONTWAIT)
}

/// As [`receive`], and waits for a datagram where the socket is a blocking one.
///
/// # Errors
/// As for [`receive`].
pub fn receive_waiting(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>), ScmError> {
    take(socket, buffer, RecvFlags::empty())
}

fn take(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    waiting: RecvFlags,
) -> Result<(usize, Vec<OwnedFd>), ScmError> {
    match Datagram::receive::<ANCILLARY_BYTES>(socket, buffer, waiting)?.whole()? {
        (length, fds, None) => Ok((length, fds)),
        (_, _, Some(_)) => Err(ScmError::UnexpectedControlData),
    }
}

/// Receives one datagram, or some bytes of a stream, from an end that may send no descriptors; gives
/// its length, and whether some came all the same: those are closed elsewhere. Does not block.
///
/// # Errors
/// As for [`receive`].
pub fn receive_bare(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, bool), ScmError> {
    match Datagram::receive_bare(socket, buffer)?.bare()? {
        (length, strays, None) => Ok((length, strays)),
        (_, _, Some(_)) => Err(ScmError::UnexpectedControlData),
    }
}

/// As [`receive_bare`], and what does not fit `buffer` is cut off.
///
/// # Errors
/// As for [`receive_bare`], but not for a datagram that is too large.
pub fn receive_bare_cut(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, bool), ScmError> {
    let mut datagram = Datagram::receive_bare(socket, buffer)?;
    datagram.cut = false;
    let (length, strays, _) = datagram.bare()?;
    Ok((length, strays))
}

/// Receives one datagram into a buffer of its own size: a connection that waits holds no buffer.
/// Does not block. One reader a socket.
///
/// # Errors
/// As for [`receive`]; a datagram over [`MAX_MESSAGE_BYTES`] is [`ScmError::Oversized`] before
/// anything is allocated for it.
pub fn receive_message(socket: BorrowedFd<'_>) -> Result<(Vec<u8>, Vec<OwnedFd>), ScmError> {
    let mut bytes = room_for_next(socket)?;
    let (length, fds) = take(socket, &mut bytes, RecvFlags::DONTWAIT)?;
    bytes.truncate(length);
    Ok((bytes, fds))
}

/// A message, whether descriptors came with it and, where they were asked for, its sender's
/// credentials.
pub type BareMessage = (Vec<u8>, bool, Option<UCred>);

/// As [`receive_message`], from an end that may send no descriptors; those that come all the same are
/// closed elsewhere. With the sender's credentials where the socket asks the kernel for them (unix(7),
/// `SO_PASSCRED`).
///
/// # Errors
/// As for [`receive_message`].
pub fn receive_bare_message(socket: BorrowedFd<'_>) -> Result<BareMessage, ScmError> {
    let mut bytes = room_for_next(socket)?;
    let (length, strays, credentials) = Datagram::receive_bare(socket, &mut bytes)?.bare()?;
    bytes.truncate(length);
    Ok((bytes, strays, credentials))
}

/// Room for the datagram that comes next.
fn room_for_next(socket: BorrowedFd<'_>) -> Result<Vec<u8>, ScmError> {
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
    Ok(vec![0; length])
}
