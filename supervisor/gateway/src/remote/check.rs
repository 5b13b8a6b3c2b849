//! Certificates that were read again, looked at before they hold: in a process of its own, since the supervisor reads
//! none.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use reeve_ipc::codec;
use reeve_ipc::gateway::{Chain, Checked, Proof};
use reeve_ipc::scm::{self, ScmError};
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;

use super::credentials::{Public, UNKNOWN_KEY, read};
use super::signer::DistantKey;

/// Looks at `files` and their key, and at the certificates of open connections in `chains`; says what there is to say on
/// `socket`.
///
/// # Errors
/// The socket's.
pub fn serve(
    socket: &OwnedFd,
    chains: &OwnedFd,
    files: &[OwnedFd],
    key: &[u8],
    proof: Proof,
) -> Result<(), ScmError> {
    let checked = match check(chains, files, key, proof) {
        Ok(ended) => Checked::Usable { ended },
        Err(mut reason) => {
            reeve_ipc::error::truncate(&mut reason, super::MAX_REASON_BYTES);
            Checked::Unusable { reason }
        }
    };
    let bytes = codec::encode(&checked).map_err(|_| ScmError::Oversized)?;
    scm::send(socket.as_fd(), &bytes, &[])
}

fn check(
    chains: &OwnedFd,
    files: &[OwnedFd],
    key: &[u8],
    proof: Proof,
) -> Result<Vec<u32>, String> {
    let provider = Arc::new(default_provider());
    let Public { chain, authorities } = Public::read(files, proof, &provider)?;
    if !DistantKey::is_of(&chain) {
        return Err(UNKNOWN_KEY.to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("tls_key: {error}"))?;
    let key = any_supported_type(&key).map_err(|error| format!("tls_key: {error}"))?;
    CertifiedKey::new(chain, key)
        .keys_match()
        .map_err(|_| "tls_key is not the key of tls_certificate".to_owned())?;
    let Some(authorities) = authorities else {
        return Ok(Vec::new());
    };
    let mut ended = Vec::new();
    let bytes = read(chains)?;
    let mut rest = &bytes[..];
    for number in 0.. {
        let Some((length, behind)) = rest.split_first_chunk() else {
            break;
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (one, behind) = behind
            .split_at_checked(length)
            .ok_or("what came with it is not whole")?;
        rest = behind;
        let Chain(certificates) = codec::decode(one).map_err(|error| error.to_string())?;
        let certificates: Vec<_> = certificates.into_iter().map(CertificateDer::from).collect();
        let holds = certificates
            .split_first()
            .is_some_and(|(own, others)| authorities.verify(own, others, UnixTime::now()).is_ok());
        if !holds {
            ended.push(number);
        }
    }
    Ok(ended)
}
