//! Clients of other hosts: TLS with them, and who they are.
//!
//! ```text
//!   connection ─► TLS 1.3 (rustls), a certificate of one of the authorities ─► Proved {name} ─► the supervisor
//!                   │ one signature                                                               │ decides
//!                   ▼                                                                             ▼
//!                 the signer, another process: the private key is there and nowhere else     a session, or the end
//! ```
//!
//! As libvirt's transport `tls` has it, the client is told by one byte, inside TLS and before any packet, that it is
//! let in; one that is not is told by the end of the connection. Nothing of libvirt's protocol is read before that.
//!
//! What lives here: the handshake, the stream after it, and the signer's process. What may not: which names may
//! do what, which the supervisor alone decides.

mod credentials;
pub mod name;
pub mod signer;
pub(crate) mod stream;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use reeve_ipc::gateway::{Admitted, FromStranger, MAX_STRANGER_BYTES};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::socket::Socket;
use reeve_ipc::{codec, error};
use rustls::{CertificateError, Error};

use self::stream::{Stream, StreamError};

/// What libvirt's client waits for before it says anything.
const LET_IN: u8 = 1;
/// The longest reason that is told.
const MAX_REASON_BYTES: usize = 512;

/// What comes with a stranger.
#[derive(Debug)]
pub struct Stranger {
    /// The connection: a TCP socket, non-blocking, of which nothing was read.
    pub connection: OwnedFd,
    /// Where it is said who the client is: `SOCK_SEQPACKET`.
    pub door: OwnedFd,
    /// The way to the signer: `SOCK_SEQPACKET`.
    pub signer: OwnedFd,
    /// The server's certificates, the authorities, and perhaps the revoked: files of PEM text.
    pub files: Vec<OwnedFd>,
}

/// A client that is let in.
#[derive(Debug)]
pub struct Guest {
    /// Its connection.
    pub(crate) stream: Stream,
    /// One end of a session of the native API.
    pub api: OwnedFd,
    /// What it may do there.
    pub admitted: Admitted,
}

/// Finds out who a client is, and has the supervisor decide about it. `None` where it is not let in, which the
/// supervisor then knows.
pub async fn admit(stranger: Stranger) -> Option<Guest> {
    let Stranger {
        connection,
        door,
        signer,
        files,
    } = stranger;
    let (mut stream, name) = match prove(connection, signer, &files).await {
        Ok(proved) => proved,
        Err(mut reason) => {
            error::truncate(&mut reason, MAX_REASON_BYTES);
            tell(&door, &FromStranger::Refused { reason });
            return None;
        }
    };
    drop(files);
    tell(&door, &FromStranger::Proved { name });
    let door = Socket::new(door).ok()?;
    let mut buffer = [0; MAX_STRANGER_BYTES];
    let received = door.receive(|door| scm::receive(door, &mut buffer)).await;
    // The door is closed for one that is not let in.
    let (length, fds) = match received {
        Ok(received) => received,
        Err(ScmError::Closed) => return None,
        Err(error) => {
            tracing::error!("what the door said: {error}");
            return None;
        }
    };
    let admitted = codec::decode(buffer.get(..length)?).ok()?;
    let [api] = <[OwnedFd; 1]>::try_from(fds).ok()?;
    stream.send(&[LET_IN]).await.ok()?;
    Some(Guest {
        stream,
        api,
        admitted,
    })
}

/// The handshake; gives the client's name.
async fn prove(
    connection: OwnedFd,
    signer: OwnedFd,
    files: &[OwnedFd],
) -> Result<(Stream, String), String> {
    let failed = |error: io::Error| format!("its connection failed: {error}");
    let connection = Socket::new(connection).map_err(failed)?;
    // The files can be long: they are nobody's to have read who says nothing.
    connection.readable().await.map_err(failed)?;
    let config = credentials::server(files, signer)?;
    let mut stream = Stream::new(connection, config).map_err(|error| error.to_string())?;
    if let Err(error) = stream.handshake().await {
        stream.linger().await;
        return Err(match error {
            StreamError::Tls(error) => reason(&error),
            StreamError::Socket(error) => failed(error),
            StreamError::Left => "it left before it had said who it is".to_owned(),
        });
    }
    let certificate = stream.certificate().ok_or("it has no certificate")?;
    let name = name::subject(certificate)
        .ok_or("its certificate has no name that could be told from others")?;
    Ok((stream, name))
}

/// Says something at the door; a supervisor that is gone need not know.
fn tell(door: &OwnedFd, words: &FromStranger) {
    match codec::encode(words) {
        Ok(bytes) => drop(scm::send(door.as_fd(), &bytes, &[])),
        Err(error) => tracing::error!("not told at the door: {error}"),
    }
}

/// Why a handshake failed, for an administrator.
fn reason(error: &Error) -> String {
    let reason = match error {
        Error::NoCertificatesPresented => "it has no certificate",
        Error::InvalidMessage(_) => "what it sent is no TLS",
        Error::AlertReceived(alert) => {
            return format!(
                "it ended the handshake, for this server's certificate perhaps: {alert:?}"
            );
        }
        Error::PeerIncompatible(why) => {
            return format!("it does not speak TLS 1.3 as it is spoken here: {why:?}");
        }
        Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet"
            }
            CertificateError::Revoked => "its certificate was revoked",
            CertificateError::UnknownIssuer => {
                "its certificate is signed by no authority of tls_authorities"
            }
            CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => {
                "the list of revoked certificates is out of date: renew the file of tls_revoked, \
                 and reload"
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "its certificate is not one for clients"
            }
            why => return format!("its certificate is not accepted: {why:?}"),
        },
        error => return format!("the handshake failed: {error}"),
    };
    reason.to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn no_file_is_read_for_a_client_that_says_nothing() {
        let (mut client, connection) = UnixStream::pair().unwrap();
        connection.set_nonblocking(true).unwrap();
        let (_signs, signer) = scm::pair().unwrap();
        // Files that are wrong as soon as they are read.
        let files = [0; 2].map(|_| OwnedFd::from(File::open("/dev/null").unwrap()));
        let mut proved = pin!(prove(connection.into(), signer, &files));
        for _ in 0..8 {
            tokio::select! {
                biased;
                result = &mut proved => panic!("{:?}", result.err()),
                () = tokio::task::yield_now() => {}
            }
        }
        client.write_all(&[22]).unwrap();
        let error = proved.await.err().unwrap();
        assert!(error.starts_with("tls_certificate: "), "{error}");
    }
}
