//! Where the guest's connections to the host come from: a socket on which somebody outside is asked
//! for each.
//!
//! The worker process can connect to nothing. On a connected `SOCK_SEQPACKET` socket it sends,
//! little-endian,
//!
//! ```text
//!  id: u32, host port: u32, guest port: u32
//! ```
//!
//! and is answered, in any order and not necessarily,
//!
//! ```text
//!  id: u32, verdict: u32     1 with one descriptor beside it (SCM_RIGHTS): a connected stream socket
//!                            0 without one: refused
//! ```
//!
//! Anything else ends the use of the socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendFlags, recvmsg, sendmsg,
};

use crate::reactor::{Interest, Sources};

/// Bytes of an answer.
const ANSWER_BYTES: usize = 8;

/// What came.
#[derive(Debug)]
pub(super) enum Answer {
    /// The stream for a question, or that there is none.
    Stream(u32, Option<OwnedFd>),
    /// Nothing now.
    Later,
    /// Nothing ever.
    Ended,
}

/// The socket.
#[derive(Debug)]
pub(super) struct Acceptor {
    socket: OwnedFd,
    waiting: bool,
    next_id: u32,
}

impl Acceptor {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            waiting: false,
            next_id: 0,
        }
    }

    /// Asks for a connection; gives the question's id, or `None` if it cannot be asked now.
    pub(super) fn ask(&mut self, host_port: u32, guest_port: u32) -> Option<u32> {
        let id = self.next_id;
        let [i0, i1, i2, i3] = id.to_le_bytes();
        let [h0, h1, h2, h3] = host_port.to_le_bytes();
        let [g0, g1, g2, g3] = guest_port.to_le_bytes();
        let question = [i0, i1, i2, i3, h0, h1, h2, h3, g0, g1, g2, g3];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let mut control = SendAncillaryBuffer::default();
        sendmsg(
            &self.socket,
            &[IoSlice::new(&question)],
            &mut control,
            flags,
        )
        .ok()?;
        self.next_id = id.wrapping_add(1);
        Some(id)
    }

    pub(super) fn receive(&self) -> Answer {
        let mut bytes = [0; ANSWER_BYTES + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let buffers = &mut [IoSliceMut::new(&mut bytes)];
        let message = match recvmsg(self.socket.as_fd(), buffers, &mut control, flags) {
            Ok(message) => message,
            Err(Errno::AGAIN | Errno::INTR) => return Answer::Later,
            Err(_) => return Answer::Ended,
        };
        let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
        let mut streams: Vec<OwnedFd> = Vec::new();
        for item in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = item {
                streams.extend(rights);
            }
        }
        if message.bytes != ANSWER_BYTES || message.flags.intersects(cut) {
            return Answer::Ended;
        }
        let [i0, i1, i2, i3, v0, v1, v2, v3, _] = bytes;
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let stream = streams.pop();
        match (u32::from_le_bytes([v0, v1, v2, v3]), stream) {
            (1, Some(stream)) if streams.is_empty() => {
                match rustix::io::ioctl_fionbio(&stream, true) {
                    Ok(()) => Answer::Stream(id, Some(stream)),
                    Err(_) => Answer::Stream(id, None),
                }
            }
            (0, None) => Answer::Stream(id, None),
            _ => Answer::Ended,
        }
    }

    pub(super) fn listen(&mut self, sources: &Sources<'_>, token: u32) -> rustix::io::Result<()> {
        if !self.waiting {
            sources.add(&self.socket, token, Interest::Read)?;
            self.waiting = true;
        }
        Ok(())
    }

    pub(super) fn leave(&mut self, sources: &Sources<'_>) {
        if std::mem::take(&mut self.waiting) {
            // Nothing to be done about a failure: the descriptor is not in the set.
            let _ = sources.remove(&self.socket);
        }
    }
}
