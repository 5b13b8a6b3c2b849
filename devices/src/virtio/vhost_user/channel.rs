//! The socket to a back end. Nothing is waited for without a deadline, and nothing of a length that the
//! other end chooses is read.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

use super::BackEndError;
use super::memory::MAX_REGIONS;
use super::message::{HEADER_BYTES, Request, header, is_answer};

/// Bytes of the only kind of answer that is ever asked for.
const ANSWER_BYTES: usize = 8;

#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
}

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends a message with descriptors, at most [`MAX_REGIONS`] of them. Waits for nothing.
    pub(super) fn send(
        &self,
        request: Request,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), BackEndError> {
        let header = header(request, body.len());
        let parts = [IoSlice::new(&header), IoSlice::new(body)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_REGIONS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(BackEndError::Host(Errno::MFILE));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = rustix::io::retry_on_intr(|| sendmsg(&self.socket, &parts, &mut control, flags));
        match sent {
            Ok(sent) if sent == HEADER_BYTES + body.len() => Ok(()),
            Ok(_) | Err(Errno::AGAIN) => Err(BackEndError::Full),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(BackEndError::Gone),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Asks what is answered with one word.
    pub(super) fn ask(&mut self, request: Request, deadline: Instant) -> Result<u64, BackEndError> {
        self.ask_with(request, &[], deadline)
    }

    /// As [`ask`](Self::ask), with a body.
    pub(super) fn ask_with(
        &mut self,
        request: Request,
        body: &[u8],
        deadline: Instant,
    ) -> Result<u64, BackEndError> {
        self.send(request, body, &[])?;
        let mut header = [0; HEADER_BYTES];
        self.receive(&mut header, deadline)?;
        is_answer(header, request).map_err(BackEndError::Protocol)?;
        let mut answer = [0; ANSWER_BYTES];
        self.receive(&mut answer, deadline)?;
        Ok(u64::from_le_bytes(answer))
    }

    /// Fills `buffer`. Descriptors that come with it are dropped by the kernel, as no room is offered for
    /// them.
    fn receive(&self, buffer: &mut [u8], deadline: Instant) -> Result<(), BackEndError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match recv(&self.socket, rest, RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::CONNRESET) => return Err(BackEndError::Gone),
                Ok((got, _)) => filled += got,
                Err(Errno::AGAIN) => self.wait(deadline)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn wait(&self, deadline: Instant) -> Result<(), BackEndError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(BackEndError::Silent);
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(
            &mut [PollFd::new(&self.socket, PollFlags::IN)],
            Some(&timeout),
        ) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
