//! A connection with TLS on it: bytes of the client's in, bytes for it out, never waiting but in the handshake.
//!
//! Invariant: bytes count as sent once all that they became is with the kernel. Until then they are where they came
//! from, which so has something to wait for, and a deadline for a client that does not read.

use std::io::{self, IoSlice, Read as _, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::socket::Socket;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, sendmsg};
use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection};
use tokio::io::Ready;

/// Bytes that are received at a time.
const RECEIVE: usize = 16 << 10;
/// How long a client may take to leave whose handshake has failed.
const LINGER: Duration = Duration::from_millis(500);
/// Bytes that are encrypted at a time.
const SEND: usize = 32 << 10;

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// What the client did, or has not.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The connection.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// The client has closed it.
    #[error("the client left")]
    Left,
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket<OwnedFd>,
    tls: ServerConnection,
    received: Vec<u8>,
    /// What was decrypted and not taken: the first so many bytes were.
    plain: Vec<u8>,
    taken: usize,
    /// Bytes that are encrypted, and not all sent.
    owed: usize,
}

/// What is encrypted, to the kernel.
struct Out<'a>(&'a Socket<OwnedFd>);

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut none = SendAncillaryBuffer::default();
        Ok(sendmsg(self.0, slices, &mut none, flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream {
    /// Takes a connection of which nothing was read.
    pub(super) fn new(
        socket: Socket<OwnedFd>,
        config: Arc<ServerConfig>,
    ) -> Result<Self, StreamError> {
        Ok(Self {
            socket,
            tls: ServerConnection::new(config)?,
            received: vec![0; RECEIVE],
            plain: Vec::new(),
            taken: 0,
            owed: 0,
        })
    }

    /// Goes through the handshake. One that fails is told to the client.
    pub(super) async fn handshake(&mut self) -> Result<(), StreamError> {
        while self.tls.is_handshaking() {
            self.flush().await?;
            if !self.tls.is_handshaking() {
                break;
            }
            self.socket.readable().await?;
            match self.receive() {
                Ok(Some(true)) => return Err(StreamError::Left),
                Ok(_) => {}
                Err(error) => {
                    let _ = self.push();
                    return Err(error);
                }
            }
        }
        self.flush().await?;
        Ok(())
    }

    /// Lets a client whose handshake has failed read that, and leave by itself, if it does so soon. To one that still
    /// speaks when the connection is closed the kernel says no more than that it is gone, and libvirt's client dies of
    /// that without a word.
    pub(super) async fn linger(&mut self) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
        let left = async {
            while self.socket.readable().await.is_ok() {
                if !matches!(
                    self.socket.try_read(&mut self.received),
                    Ok(None | Some(1..))
                ) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, left).await;
    }

    /// The client's certificates, its own first.
    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        self.tls.peer_certificates().unwrap_or_default()
    }

    /// Sends a few bytes, however long that takes.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(bytes)?;
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        loop {
            match self.push() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.writable().await?;
                }
                result => return result,
            }
        }
    }

    /// Gives the kernel what is encrypted.
    fn push(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Out(&self.socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives and decrypts what is there: whether it is the end. `None` where there is nothing.
    fn receive(&mut self) -> Result<Option<bool>, StreamError> {
        let Some(length) = self.socket.try_read(&mut self.received)? else {
            return Ok(None);
        };
        let mut rest = self.received.get(..length).unwrap_or_default();
        let mut over = rest.is_empty();
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest)?;
            let state = self.tls.process_new_packets()?;
            over |= state.peer_has_closed();
            let from = self.plain.len();
            self.plain.resize(from + state.plaintext_bytes_to_read(), 0);
            let room = self.plain.get_mut(from..).unwrap_or_default();
            self.tls.reader().read_exact(room)?;
            if over {
                break;
            }
        }
        Ok(Some(over))
    }

    /// As [`Socket::readable`].
    pub(crate) async fn readable(&self) -> io::Result<Ready> {
        if self.taken < self.plain.len() {
            return Ok(Ready::READABLE);
        }
        self.socket.readable().await
    }

    /// As [`Socket::writable`].
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// As [`Socket::try_read`].
    pub(crate) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let mut over = false;
        if self.taken == self.plain.len() {
            self.plain.clear();
            self.taken = 0;
            over = match self.receive() {
                Ok(None) => return Ok(None),
                Ok(Some(over)) => over,
                Err(StreamError::Socket(error)) => return Err(error),
                Err(error) => {
                    let _ = self.push();
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            };
            // What TLS itself has to answer; what finds no room goes with the next bytes.
            let _ = self.push();
        }
        let waiting = self.plain.get(self.taken..).unwrap_or_default();
        let length = waiting.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(waiting) {
            *to = *from;
        }
        self.taken += length;
        // A record that is not whole, or was none of the client's bytes, is nothing yet.
        Ok((length > 0 || over).then_some(length))
    }

    /// Sends bytes: how many, or that there is no room. Those that it does not count are given again, the same ones.
    pub(crate) fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.push()?;
        if self.owed == 0 {
            for slice in slices {
                let part = slice.get(..slice.len().min(SEND - self.owed));
                let part = part.unwrap_or_default();
                let length = self.tls.writer().write(part)?;
                self.owed += length;
                if length < slice.len() {
                    break;
                }
            }
            self.push()?;
        }
        Ok(std::mem::take(&mut self.owed))
    }
}

impl Drop for Stream {
    /// Tells the client that no more comes, if there is room for it; one that has said nothing yet is told nothing.
    fn drop(&mut self) {
        if !self.tls.is_handshaking() {
            self.tls.send_close_notify();
            let _ = self.push();
        }
    }
}
