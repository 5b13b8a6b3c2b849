//! Certificates that were read again, looked at before they hold: in a process of its own, since the supervisor reads
//! none.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reeve_ipc::codec;
use reeve_ipc::gateway::{Chain, Checked, Proof};
use reeve_ipc::scm::{self, ScmError};
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;

use super::authorities::Authorities;
use super::credentials::{Public, UNKNOWN_KEY, read};
use super::signer::DistantKey;

/// How long the certificates of open connections may take together: clients choose them.
const BUDGET: Duration = Duration::from_secs(5);

/// Looks at `files` and their key, and then at the certificates of open connections in `chains`; says what there is to
/// say on `socket`. What it says of the files does not wait for what clients have shown.
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
    let authorities = match judge(files, key, proof) {
        Ok(authorities) => authorities,
        Err(mut reason) => {
            reeve_ipc::error::truncate(&mut reason, super::MAX_REASON_BYTES);
            return tell(socket, &Checked::Unusable { reason });
        }
    };
    tell(socket, &Checked::Usable { ended: Vec::new() })?;
    let Some(authorities) = authorities else {
        return tell(socket, &Checked::Usable { ended: Vec::new() });
    };
    let looked_at = read(chains).and_then(|chains| {
        let lists = authorities.lists().map_err(|error| error.to_string())?;
        let holds = |own: &CertificateDer<'_>, others: &[CertificateDer<'_>]| {
            let now = UnixTime::now();
            authorities.verify(own, others, &lists, now).is_ok()
        };
        Ok(ended(&split(&chains)?, Instant::now() + BUDGET, holds))
    });
    match looked_at {
        Ok(ended) => tell(socket, &Checked::Usable { ended }),
        Err(why) => {
            tracing::error!("the certificates of open connections cannot be looked at: {why}");
            Ok(())
        }
    }
}

fn tell(socket: &OwnedFd, checked: &Checked) -> Result<(), ScmError> {
    let bytes = codec::encode(checked).map_err(|_| ScmError::Oversized)?;
    scm::send(socket.as_fd(), &bytes, &[])
}

/// Whether the files can be used; gives what checks clients' certificates by them, where they have to have one.
fn judge(files: &[OwnedFd], key: &[u8], proof: Proof) -> Result<Option<Arc<Authorities>>, String> {
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
    Ok(authorities)
}

/// The chains of a file, encoded.
fn split(mut bytes: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut chains = Vec::new();
    while let Some((length, behind)) = bytes.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (one, behind) = behind
            .split_at_checked(length)
            .ok_or("what came with it is not whole")?;
        chains.push(one);
        bytes = behind;
    }
    Ok(chains)
}

/// Which of them do not hold, by their order, or had no turn until `deadline`.
fn ended(
    chains: &[&[u8]],
    deadline: Instant,
    holds: impl Fn(&CertificateDer<'_>, &[CertificateDer<'_>]) -> bool,
) -> Vec<u32> {
    let does = |one: &[u8]| {
        let Ok(Chain(certificates)) = codec::decode(one) else {
            return false;
        };
        let certificates: Vec<_> = certificates.into_iter().map(CertificateDer::from).collect();
        let parts = certificates.split_first();
        parts.is_some_and(|(own, others)| holds(own, others))
    };
    let mut ended = Vec::new();
    let mut late = 0_usize;
    for (number, one) in (0..).zip(chains) {
        let is_late = Instant::now() >= deadline;
        late += usize::from(is_late);
        if is_late || !does(one) {
            ended.push(number);
        }
    }
    if late > 0 {
        tracing::warn!("{late} open connections end whose certificates were not looked at in time");
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_looked_at_in_time_and_whose_certificates_are_none_does_not_stay() {
        let mut bytes = Vec::new();
        let chain = |own: &[u8]| codec::encode(&Chain(vec![own.to_vec()])).unwrap();
        let empty = codec::encode(&Chain(Vec::new())).unwrap();
        for one in [chain(b"good"), chain(b"bad"), vec![0xff; 3], empty] {
            bytes.extend(u32::try_from(one.len()).unwrap().to_le_bytes());
            bytes.extend(one);
        }
        let chains = split(&bytes).unwrap();
        let holds = |own: &CertificateDer<'_>, _: &[CertificateDer<'_>]| own.as_ref() == b"good";
        let now = Instant::now();
        assert_eq!(ended(&chains, now + BUDGET, holds), [1, 2, 3]);
        assert_eq!(ended(&chains, now, holds), [0, 1, 2, 3]);
        bytes.pop();
        split(&bytes).unwrap_err();
    }
}
