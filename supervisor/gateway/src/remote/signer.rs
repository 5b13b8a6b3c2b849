//! The private key, in a process of its own: what asks it, and what answers.
//!
//! A gateway that a client has taken over before it was let in must not have the key, or the client could be this
//! server for ever after. So the key is in another process, which signs once, and nothing but what a server of TLS
//! 1.3 signs (RFC 8446, 4.4.3): of no use for anything else than a handshake.
//!
//! Which handshake it cannot see, as a hash is all there is. A gateway that was taken over can have it sign that of
//! somebody else's, one for each connection, and so be this server to a client whose connection its master holds at
//! that moment; not without asking here each time.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use reeve_ipc::codec;
use reeve_ipc::gateway::{MAX_SIGNATURE_BYTES, MAX_SIGNED_BYTES, Signature, SignatureRequest};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::socket::Socket;
use rustix::fs::OFlags;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use webpki::EndEntityCert;

/// What a server of TLS 1.3 signs begins with so many spaces ...
const SPACES: usize = 64;
/// ... and what it is, and a zero byte. A hash follows.
const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";
/// SHA-256 or SHA-384.
const HASHES: [usize; 2] = [32, 48];
/// Room for the messages between the two.
const ROOM: usize = MAX_SIGNATURE_BYTES + MAX_SIGNED_BYTES;
/// The algorithm identifiers of keys (RFC 5480, RFC 8017, RFC 8410) and what signs with them in TLS 1.3, the best
/// first.
const KEYS: &[(&[u8], SignatureAlgorithm, &[SignatureScheme])] = &[
    (
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01",
        SignatureAlgorithm::RSA,
        &[
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA256,
        ],
    ),
    (
        b"\x2a\x86\x48\xce\x3d\x03\x01\x07",
        SignatureAlgorithm::ECDSA,
        &[SignatureScheme::ECDSA_NISTP256_SHA256],
    ),
    (
        b"\x2b\x81\x04\x00\x22",
        SignatureAlgorithm::ECDSA,
        &[SignatureScheme::ECDSA_NISTP384_SHA384],
    ),
    (
        b"\x2b\x65\x70",
        SignatureAlgorithm::ED25519,
        &[SignatureScheme::ED25519],
    ),
];
/// An algorithm identifier is within so many bytes of the beginning of a public key.
const IDENTIFIER_BYTES: usize = 32;

/// A key that is elsewhere, for one signature.
#[derive(Debug)]
pub(super) struct DistantKey {
    algorithm: SignatureAlgorithm,
    schemes: &'static [SignatureScheme],
    signer: Arc<Mutex<Option<OwnedFd>>>,
}

impl DistantKey {
    /// The key of the first of these certificates. `None` where it is of no kind that is known.
    pub(super) fn of(chain: &[CertificateDer<'_>], signer: OwnedFd) -> Option<Self> {
        let (algorithm, schemes) = kind(chain)?;
        Some(Self {
            algorithm,
            schemes,
            signer: Arc::new(Mutex::new(Some(signer))),
        })
    }

    /// Whether the first of these certificates has a key of a kind that is known.
    pub(super) fn is_of(chain: &[CertificateDer<'_>]) -> bool {
        kind(chain).is_some()
    }
}

/// The kind of the first certificate's key.
fn kind(chain: &[CertificateDer<'_>]) -> Option<(SignatureAlgorithm, &'static [SignatureScheme])> {
    let certificate = EndEntityCert::try_from(chain.first()?).ok()?;
    let public = certificate.subject_public_key_info();
    let beginning = public.get(..IDENTIFIER_BYTES)?;
    let (_, algorithm, schemes) = KEYS.iter().find(|(identifier, ..)| {
        beginning
            .windows(identifier.len())
            .any(|part| part == *identifier)
    })?;
    Some((*algorithm, schemes))
}

impl SigningKey for DistantKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = self
            .schemes
            .iter()
            .copied()
            .find(|scheme| offered.contains(scheme))?;
        Some(Box::new(DistantSigner {
            scheme,
            signer: Arc::clone(&self.signer),
        }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }
}

#[derive(Debug)]
struct DistantSigner {
    scheme: SignatureScheme,
    signer: Arc<Mutex<Option<OwnedFd>>>,
}

impl Signer for DistantSigner {
    /// Waits for the signature: there is nothing else to do meanwhile, and the supervisor ends a handshake that
    /// takes long.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed =
            |error: &dyn std::fmt::Display| Error::General(format!("no signature: {error}"));
        let signer = self
            .signer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let signer = signer.ok_or_else(|| failed(&"there is one only"))?;
        let request = SignatureRequest {
            scheme: self.scheme.into(),
            message: message.to_vec(),
        };
        let request = codec::encode(&request).map_err(|error| failed(&error))?;
        let flags = rustix::fs::fcntl_getfl(&signer).map_err(|error| failed(&error))?;
        rustix::fs::fcntl_setfl(&signer, flags - OFlags::NONBLOCK)
            .map_err(|error| failed(&error))?;
        scm::send(signer.as_fd(), &request, &[]).map_err(|error| failed(&error))?;
        let mut answer = [0; ROOM];
        let (length, _) = scm::receive_waiting(signer.as_fd(), &mut answer)
            .map_err(|_| failed(&"the signer has none; what it said is in the log"))?;
        let answer: Signature = codec::decode(answer.get(..length).unwrap_or_default())
            .map_err(|error| failed(&error))?;
        Ok(answer.0)
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The file of the key.
    #[error("tls_key: {0}")]
    Key(String),
    /// Whoever asks does not ask as a gateway does.
    #[error("a signature was asked for that no handshake needs")]
    Request,
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] ScmError),
}

/// The whole work of a signer: one request on `socket`, and the signature with the key of that PEM text. Nobody who
/// asks is an end in good order.
///
/// # Errors
/// [`SignerError`].
pub async fn serve(socket: OwnedFd, key: &[u8]) -> Result<(), SignerError> {
    let wrong = |error: &dyn std::fmt::Display| SignerError::Key(error.to_string());
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong(&error))?;
    let key = any_supported_type(&key).map_err(|error| wrong(&error))?;
    let socket = Socket::new(socket).map_err(|_| SignerError::Socket(ScmError::Closed))?;
    let mut buffer = [0; ROOM];
    let received = socket
        .receive(|socket| scm::receive(socket, &mut buffer))
        .await;
    let length = match received {
        Ok((length, _)) => length,
        Err(ScmError::Closed) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let signature = sign(key.as_ref(), buffer.get(..length).unwrap_or_default())?;
    let bytes = codec::encode(&signature).map_err(|_| SignerError::Request)?;
    match scm::send(socket.as_fd(), &bytes, &[]) {
        Err(ScmError::Closed) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Signs what a request asks for, if a server of TLS 1.3 signs such.
fn sign(key: &dyn SigningKey, request: &[u8]) -> Result<Signature, SignerError> {
    let request: SignatureRequest = codec::decode(request).map_err(|_| SignerError::Request)?;
    if !is_of_a_handshake(&request.message) {
        return Err(SignerError::Request);
    }
    let scheme = SignatureScheme::from(request.scheme);
    let signer = key.choose_scheme(&[scheme]).ok_or_else(|| {
        SignerError::Key("it is not the key of tls_certificate: of another kind".to_owned())
    })?;
    let signature = signer.sign(&request.message);
    signature.map(Signature).map_err(|_| SignerError::Request)
}

/// Whether a server of TLS 1.3 signs that in a handshake, and nobody anywhere else.
fn is_of_a_handshake(message: &[u8]) -> bool {
    let Some((spaces, rest)) = message.split_at_checked(SPACES) else {
        return false;
    };
    let hash = rest.strip_prefix(CONTEXT);
    spaces.iter().all(|&byte| byte == b' ') && hash.is_some_and(|hash| HASHES.contains(&hash.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made for this test.
    const KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----\n\
MC4CAQAwBQYDK2VwBCIEILhEe/gRj/1XCuHTTwLIsUe4wvbGytTiCPVNNdPJ4oQ6\n\
-----END PRIVATE KEY-----\n\n";

    async fn ask(scheme: SignatureScheme, message: &[u8]) -> (Result<(), SignerError>, Vec<u8>) {
        let (ours, theirs) = scm::pair().unwrap();
        let request = SignatureRequest {
            scheme: scheme.into(),
            message: message.to_vec(),
        };
        scm::send(ours.as_fd(), &codec::encode(&request).unwrap(), &[]).unwrap();
        let result = serve(theirs, KEY).await;
        let answer = scm::receive_message(ours.as_fd()).unwrap_or_default().0;
        (result, answer)
    }

    #[tokio::test]
    async fn only_what_a_handshake_needs_is_signed() {
        let of = |context: &[u8], hash: usize| {
            let parts = [&[b' '; SPACES][..], context, &vec![7; hash]];
            parts.concat()
        };
        let (result, answer) = ask(SignatureScheme::ED25519, &of(CONTEXT, 48)).await;
        result.unwrap();
        let Signature(signature) = codec::decode(&answer).unwrap();
        assert_eq!(signature.len(), 64);
        for message in [
            Vec::new(),
            b"an update of the firmware".to_vec(),
            of(CONTEXT, 31),
            of(CONTEXT, 33),
            of(b"TLS 1.3, client CertificateVerify\0", 32),
            [&b"x"[..], &of(CONTEXT, 32)].concat(),
        ] {
            let (result, answer) = ask(SignatureScheme::ED25519, &message).await;
            assert!(matches!(result, Err(SignerError::Request)), "{message:?}");
            assert!(answer.is_empty());
        }
        let (result, _) = ask(SignatureScheme::RSA_PSS_SHA256, &of(CONTEXT, 32)).await;
        let error = result.unwrap_err().to_string();
        assert!(error.contains("not the key of tls_certificate"), "{error}");
    }

    #[tokio::test]
    async fn one_whom_nobody_asks_ends() {
        let (ours, theirs) = scm::pair().unwrap();
        drop(ours);
        serve(theirs, KEY).await.unwrap();
        let (_ours, theirs) = scm::pair().unwrap();
        let error = serve(theirs, b"no key").await.unwrap_err().to_string();
        assert!(error.starts_with("tls_key: "), "{error}");
    }
}
