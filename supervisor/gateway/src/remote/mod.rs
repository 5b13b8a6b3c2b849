//! Clients of other hosts: TLS with them, and who they are.
//!
//! ```text
//!   connection ─► TLS 1.3 (rustls), a certificate of one of the authorities ─► Proved {name} ─► the supervisor
//!                   │ one signature                                                               │ decides
//!                   ▼                                                                             ▼
//!                 the signer, another process: the private key is there and nowhere else     a session, or the end
//!
//!   and where it has to have a password:
//!                 AUTH_SASL_* of libvirt's protocol ─► the verifier, another process ─► {user} ─► the supervisor
//! ```
//!
//! As libvirt's transport `tls` has it, the client is told by one byte, inside TLS and before any packet, that it is
//! let in; one that is not is told by the end of the connection. Nothing of libvirt's protocol is read before that, and
//! nothing but a login before who has to have a password has logged in.
//!
//! What lives here: the handshake, the stream after it, logins, and the processes of the signer, the verifier and what
//! looks at certificates that were read again. What may not: which names may do what, which the supervisor alone decides.

mod authorities;
mod authority;
pub mod check;
mod credentials;
mod der;
mod login;
pub mod name;
pub mod signer;
pub(crate) mod stream;
pub mod verifier;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use reeve_ipc::api::Access;
use reeve_ipc::gateway::{Certificate, Chain, FromStranger, MAX_CHAIN_BYTES, Proof, ToStranger};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::socket::Socket;
use reeve_ipc::{codec, error};
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, Error};

use self::authorities::Authorities;
use self::stream::{Stream, StreamError};

/// What libvirt's client waits for before it says anything.
const LET_IN: u8 = 1;
/// The longest reason that is told.
const MAX_REASON_BYTES: usize = 512;

/// What comes with a stranger.
#[derive(Debug)]
pub struct Stranger {
    /// How it says who it is.
    pub proof: Proof,
    /// The connection: a TCP socket, non-blocking, of which nothing was read.
    pub connection: OwnedFd,
    /// Where it is said who the client is: `SOCK_SEQPACKET`.
    pub door: OwnedFd,
    /// The way to the signer: `SOCK_SEQPACKET`.
    pub signer: OwnedFd,
    /// The way to the verifier, where it has to have a password: `SOCK_SEQPACKET`.
    pub verifier: Option<OwnedFd>,
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
    pub access: Access,
}

/// Finds out who a client is, and has the supervisor decide about it. `None` where it is not let in, which the
/// supervisor then knows.
pub async fn admit(stranger: Stranger) -> Option<Guest> {
    let Stranger {
        proof,
        connection,
        door,
        signer,
        verifier,
        files,
    } = stranger;
    let refuse = |door: &OwnedFd, mut reason: String| {
        error::truncate(&mut reason, MAX_REASON_BYTES);
        tell(door, &FromStranger::Refused { reason });
    };
    let (mut stream, certificate) = match prove(connection, signer, &files, proof).await {
        Ok(proved) => proved,
        Err(reason) => {
            refuse(&door, reason);
            return None;
        }
    };
    drop(files);
    tell(&door, &FromStranger::Proved { certificate });
    let again = rustix::io::fcntl_dupfd_cloexec(&door, 0).ok()?;
    let door = Socket::new(door).ok()?;
    let (answer, mut fds) = hear(&door).await?;
    stream.send(&[LET_IN]).await.ok()?;
    let access = match answer {
        ToStranger::Admitted { access } => access,
        ToStranger::Authenticate => {
            let logged_in = match login::log_in(&mut stream, verifier?).await {
                Ok(logged_in) => logged_in,
                Err(error) => {
                    refuse(&again, error.to_string());
                    stream.linger().await;
                    return None;
                }
            };
            let Some((ToStranger::Admitted { access }, more)) = hear(&door).await else {
                // As a wrong password is answered: the time must not tell that this one holds.
                tokio::time::sleep(verifier::PAUSE).await;
                logged_in.refuse(&mut stream).await.ok()?;
                stream.linger().await;
                return None;
            };
            fds = more;
            logged_in.tell(&mut stream).await.ok()?;
            access
        }
    };
    let [api] = <[OwnedFd; 1]>::try_from(fds).ok()?;
    Some(Guest {
        stream,
        api,
        access,
    })
}

/// What the supervisor says; nothing where it has closed the door to one that is not let in.
async fn hear(door: &Socket<OwnedFd>) -> Option<(ToStranger, Vec<OwnedFd>)> {
    let mut buffer = [0; 64];
    let received = door.receive(|door| scm::receive(door, &mut buffer)).await;
    let (length, fds) = match received {
        Ok(received) => received,
        Err(ScmError::Closed) => return None,
        Err(error) => {
            tracing::error!("what the door said: {error}");
            return None;
        }
    };
    let said = codec::decode(buffer.get(..length)?).ok()?;
    Some((said, fds))
}

/// The handshake; gives whom the client has shown to be, where that is asked for.
async fn prove(
    connection: OwnedFd,
    signer: OwnedFd,
    files: &[OwnedFd],
    proof: Proof,
) -> Result<(Stream, Option<Certificate>), String> {
    let failed = |error: io::Error| format!("its connection failed: {error}");
    let connection = Socket::new(connection).map_err(failed)?;
    // The files can be long: they are nobody's to have read who says nothing.
    connection.readable().await.map_err(failed)?;
    let (config, authorities) = credentials::server(files, signer, proof)?;
    let mut stream = Stream::new(connection, config).map_err(|error| error.to_string())?;
    if let Err(error) = stream.handshake().await {
        stream.linger().await;
        return Err(match error {
            StreamError::Tls(error) => reason(&error, authorities.as_deref()),
            StreamError::Socket(error) => failed(error),
            StreamError::Left => "it left before it had said who it is".to_owned(),
        });
    }
    let certificate = authorities
        .is_some()
        .then(|| certificate(stream.certificates()))
        .transpose()?;
    Ok((stream, certificate))
}

/// Whom these certificates show their client to be.
fn certificate(chain: &[CertificateDer<'_>]) -> Result<Certificate, String> {
    let own = chain.first().ok_or("it has no certificate")?;
    let name =
        name::subject(own).ok_or("its certificate has no name that could be told from others")?;
    let length: usize = chain.iter().map(|certificate| certificate.len()).sum();
    if length > MAX_CHAIN_BYTES {
        return Err(format!(
            "its certificates have more than {MAX_CHAIN_BYTES} bytes"
        ));
    }
    let chain = chain.iter().map(|certificate| certificate.to_vec());
    Ok(Certificate {
        name,
        chain: Chain(chain.collect()),
    })
}

/// Says something at the door; a supervisor that is gone need not know.
fn tell(door: &OwnedFd, words: &FromStranger) {
    match codec::encode(words) {
        Ok(bytes) => drop(scm::send(door.as_fd(), &bytes, &[])),
        Err(error) => tracing::error!("not told at the door: {error}"),
    }
}

/// Why a handshake failed, for an administrator.
fn reason(error: &Error, authorities: Option<&Authorities>) -> String {
    let unusable = authorities.and_then(Authorities::unusable);
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
                let why = unusable.map(|why| format!("; of one that is there {why}"));
                return format!(
                    "its certificate is signed by no authority of tls_authorities{}",
                    why.unwrap_or_default()
                );
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
        let mut proved = pin!(prove(connection.into(), signer, &files, Proof::Certificate));
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
