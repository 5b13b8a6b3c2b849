//! What the server shows and asks for in a handshake, of the files that came with the client.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};

use super::signer::DistantKey;

/// The most bytes of one file: lists of revoked certificates can be long.
const MAX_FILE_BYTES: usize = 16 << 20;
/// Bytes that are read at a time.
const READ: usize = 64 << 10;

/// The server's side of one handshake. The client must have a certificate; no session is ever resumed, so that each
/// connection's certificate is looked at.
///
/// # Errors
/// What is wrong with which file.
pub(super) fn server(files: &[OwnedFd], signer: OwnedFd) -> Result<Arc<ServerConfig>, String> {
    let [chain, authorities, revoked @ ..] = files else {
        return Err("its files did not come with it".to_owned());
    };
    let chain = certificates("tls_certificate", chain)?;
    let mut roots = RootCertStore::empty();
    for authority in certificates("tls_authorities", authorities)? {
        roots
            .add(authority)
            .map_err(|error| format!("tls_authorities: a certificate cannot be used: {error}"))?;
    }
    let provider = Arc::new(default_provider());
    let mut verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            // A client that is told which authorities there are shows no certificate of another, and nobody would
            // ever know why it is refused.
            .clear_root_hint_subjects();
    if let Some(revoked) = revoked.first() {
        let text = read(revoked)?;
        let lists = CertificateRevocationListDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("tls_revoked: {error}"))?;
        if lists.is_empty() {
            return Err("tls_revoked: there is no list in it".to_owned());
        }
        // An authority without a list of its own has revoked none. A list that is out of date says nothing any more.
        verifier = verifier
            .with_crls(lists)
            .allow_unknown_revocation_status()
            .enforce_revocation_expiration();
    }
    let verifier = verifier
        .build()
        .map_err(|error| format!("tls_authorities, tls_revoked: {error}"))?;
    let key = DistantKey::of(&chain, signer)
        .ok_or("tls_certificate: its key is of no kind that is served here: RSA, ECDSA of P-256 or P-384, Ed25519")?;
    let certified = CertifiedKey::new(chain, Arc::new(key));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certificates(setting: &str, file: &OwnedFd) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(file)?;
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("{setting}: {error}"))?;
    if certificates.is_empty() {
        return Err(format!("{setting}: there is no certificate in it"));
    }
    Ok(certificates)
}

/// All of a file, from where it stands.
fn read(file: &OwnedFd) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let mut part = vec![0; READ];
    loop {
        let length = rustix::io::retry_on_intr(|| rustix::io::read(file, &mut part[..]))
            .map_err(|errno| format!("its files cannot be read: {errno}"))?;
        if length == 0 {
            return Ok(text);
        }
        text.extend_from_slice(part.get(..length).unwrap_or_default());
        if text.len() > MAX_FILE_BYTES {
            return Err(format!(
                "a file of its has more than {MAX_FILE_BYTES} bytes"
            ));
        }
    }
}
