//! What carries the bytes between a client and its session: a socket of this host, or TLS over one to another.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use reeve_ipc::socket::Socket;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::Ready;

use crate::remote::stream::Stream;

/// The client's end of a session.
#[derive(Debug)]
pub(super) enum Transport {
    /// The client is on this host.
    Local(Socket<OwnedFd>),
    /// It is on another.
    Remote(Box<Stream>),
}

impl Transport {
    /// Waits until there is something to read, or nothing ever will be.
    pub(super) async fn readable(&self) -> io::Result<Ready> {
        match self {
            Self::Local(socket) => socket.readable().await,
            Self::Remote(stream) => stream.readable().await,
        }
    }

    /// Waits until there is room.
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Local(socket) => socket.writable().await,
            Self::Remote(stream) => stream.writable().await,
        }
    }

    /// Reads some bytes; `None` where there are none just now, no bytes at the end.
    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Local(socket) => socket.try_read(buffer),
            Self::Remote(stream) => stream.try_read(buffer),
        }
    }

    /// Sends some bytes; how many. Those that are not counted are given again, the same ones.
    pub(super) fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Local(socket) => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                let mut none = SendAncillaryBuffer::default();
                Ok(sendmsg(&*socket, slices, &mut none, flags)?)
            }
            Self::Remote(stream) => stream.try_write(slices),
        }
    }
}
