//! One end of a worker's control socket as typed messages, without blocking and without a runtime.
//!
//! The worker's control thread owns one and polls [`Endpoint::as_fd`]. What cannot be sent now waits
//! in a bounded outbox; when that is full the oldest droppable message (an event) goes, so that a
//! supervisor that does not read costs the worker no memory.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, CodecError};
use crate::scm::{self, ScmError};

/// Why a message did not go or come.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The datagram itself.
    #[error(transparent)]
    Socket(#[from] ScmError),
    /// Its content.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The outbox is full of messages that may not be dropped.
    #[error("the other end does not read: {0} messages wait")]
    Stalled(usize),
}

/// Whether a message may be dropped when the other end does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Must arrive, or the connection fails.
    Reliable,
    /// May be dropped, oldest first.
    Droppable,
}

/// One end: sends `Out`, receives `In`.
#[derive(Debug)]
pub struct Endpoint<Out, In> {
    socket: OwnedFd,
    outbox: VecDeque<(Delivery, Vec<u8>)>,
    types: PhantomData<fn(Out) -> In>,
}

/// The most messages that wait to be sent.
const MAX_OUTBOX: usize = 64;

impl<Out: Serialize, In: DeserializeOwned> Endpoint<Out, In> {
    /// Takes a connected `SOCK_SEQPACKET` socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            outbox: VecDeque::new(),
            types: PhantomData,
        }
    }

    /// Sends `message`, or keeps it until [`Self::flush`] finds room.
    ///
    /// # Errors
    /// [`EndpointError::Stalled`] when the outbox is full of reliable messages; socket and codec
    /// errors.
    pub fn send(&mut self, message: &Out, delivery: Delivery) -> Result<(), EndpointError> {
        let bytes = codec::encode(message)?;
        self.flush()?;
        if self.outbox.is_empty() {
            match scm::send(self.socket.as_fd(), &bytes, &[]) {
                Ok(()) => return Ok(()),
                Err(ScmError::WouldBlock) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.outbox.len() >= MAX_OUTBOX {
            let droppable = self
                .outbox
                .iter()
                .position(|(kind, _)| *kind == Delivery::Droppable);
            match (droppable, delivery) {
                (Some(index), _) => {
                    self.outbox.remove(index);
                }
                (None, Delivery::Droppable) => return Ok(()),
                (None, Delivery::Reliable) => {
                    return Err(EndpointError::Stalled(self.outbox.len()));
                }
            }
        }
        self.outbox.push_back((delivery, bytes));
        Ok(())
    }

    /// Sends what waits, as far as there is room.
    ///
    /// # Errors
    /// Socket errors other than "no room".
    pub fn flush(&mut self) -> Result<(), EndpointError> {
        while let Some((_, bytes)) = self.outbox.front() {
            match scm::send(self.socket.as_fd(), bytes, &[]) {
                Ok(()) => {
                    self.outbox.pop_front();
                }
                Err(ScmError::WouldBlock) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether messages wait for room: poll for writing then.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The next message with its descriptors, or `None` when none waits.
    ///
    /// # Errors
    /// [`ScmError::Closed`] at the end; codec errors for a malformed message.
    pub fn receive(&mut self) -> Result<Option<(In, Vec<OwnedFd>)>, EndpointError> {
        match scm::receive_message(self.socket.as_fd()) {
            Ok((bytes, fds)) => Ok(Some((codec::decode(&bytes)?, fds))),
            Err(ScmError::WouldBlock) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl<Out, In> AsFd for Endpoint<Out, In> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
