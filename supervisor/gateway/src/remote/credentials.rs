//! What the server shows and asks for in a handshake, of the files that came with the client.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use reeve_ipc::gateway::Proof;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;

use super::authorities::Authorities;
use super::signer::DistantKey;

/// Of a certificate.
pub(super) const UNKNOWN_KEY: &str = "tls_certificate: its key is of no kind that is served here: RSA, ECDSA of P-256 or P-384, Ed25519";
/// The most bytes of one file: lists of revoked certificates can be long.
const MAX_FILE_BYTES: usize = 16 << 20;
/// Bytes that are read at a time.
const READ: usize = 64 << 10;

/// The server's side of one handshake, and what checks the client's certificate where it has to have one. No session is
/// ever resumed, so that each connection's certificate is looked at.
///
/// # Errors
/// What is wrong with which file.
pub(super) fn server(
    files: &[OwnedFd],
    signer: OwnedFd,
    proof: Proof,
) -> Result<(Arc<ServerConfig>, Option<Arc<Authorities>>), String> {
    let provider = Arc::new(default_provider());
    let Public { chain, authorities } = Public::read(files, proof, &provider)?;
    let key = DistantKey::of(&chain, signer).ok_or(UNKNOWN_KEY)?;
    let certified = CertifiedKey::new(chain, Arc::new(key));
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?;
    let config = match &authorities {
        Some(authorities) => config.with_client_cert_verifier(Arc::clone(authorities) as _),
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok((Arc::new(config), authorities))
}

/// What the files have that anybody may know.
#[derive(Debug)]
pub(super) struct Public {
    /// The server's certificates.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// What checks clients' where they have to have one.
    pub(super) authorities: Option<Arc<Authorities>>,
}

impl Public {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with which.
    pub(super) fn read(
        files: &[OwnedFd],
        proof: Proof,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let [chain, authorities, revoked @ ..] = files else {
            return Err("its files did not come with it".to_owned());
        };
        let chain = certificates("tls_certificate", chain)?;
        if !proof.has_certificate() {
            return Ok(Self {
                chain,
                authorities: None,
            });
        }
        let authorities = certificates("tls_authorities", authorities)?;
        let revoked = revoked.first().map(lists).transpose()?;
        let provider = Arc::clone(provider);
        let authorities = Authorities::new(&authorities, revoked, provider, UnixTime::now())?;
        Ok(Self {
            chain,
            authorities: Some(Arc::new(authorities)),
        })
    }
}

/// The lists of what was revoked.
fn lists(file: &OwnedFd) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let text = read(file)?;
    let lists = CertificateRevocationListDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("tls_revoked: {error}"))?;
    if lists.is_empty() {
        return Err("tls_revoked: there is no list in it".to_owned());
    }
    Ok(lists)
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
pub(super) fn read(file: &OwnedFd) -> Result<Vec<u8>, String> {
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
