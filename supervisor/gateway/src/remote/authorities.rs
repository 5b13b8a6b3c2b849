//! Whose certificates hold: the authorities, what they have revoked, and whether a client's is one of theirs.
//!
//! A list of what was revoked stays as it came and is looked through for each client, once: taken apart it would be many
//! times as large, in a process that needs it no more once its client is known.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage,
    RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};

use super::authority::{self, Fault};

/// What a client's certificate is checked against.
#[derive(Debug)]
pub(super) struct Authorities {
    roots: Vec<TrustAnchor<'static>>,
    /// Those that sign nothing, and why.
    unusable: Vec<Fault>,
    /// What was revoked, where that is looked at.
    revoked: Option<Vec<CertificateRevocationListDer<'static>>>,
    provider: Arc<CryptoProvider>,
}

impl Authorities {
    /// With these authorities, of which those are left out that sign nothing now, and these lists.
    ///
    /// # Errors
    /// What is wrong with which file, all authorities being left out among it.
    pub(super) fn new(
        authorities: &[CertificateDer<'static>],
        revoked: Option<Vec<CertificateRevocationListDer<'static>>>,
        provider: Arc<CryptoProvider>,
        now: UnixTime,
    ) -> Result<Self, String> {
        let mut roots = Vec::new();
        let mut unusable = Vec::new();
        for certificate in authorities {
            if let Err(fault) = authority::check(certificate, now) {
                unusable.push(fault);
                continue;
            }
            let anchor = anchor_from_trusted_cert(certificate).map_err(|error| {
                format!("tls_authorities: a certificate cannot be used: {error}")
            })?;
            roots.push(anchor.to_owned());
        }
        if roots.is_empty() {
            let why = unusable
                .first()
                .map_or("there is none", |fault| fault.text());
            return Err(format!("tls_authorities: no authority can be used: {why}"));
        }
        for list in revoked.iter().flatten() {
            BorrowedCertRevocationList::from_der(list)
                .map_err(|error| format!("tls_revoked: {error}"))?;
        }
        Ok(Self {
            roots,
            unusable,
            revoked,
            provider,
        })
    }

    /// What was revoked, as certificates are asked for in it.
    ///
    /// # Errors
    /// It is no list.
    pub(super) fn lists(&self) -> Result<Vec<CertRevocationList<'_>>, Error> {
        self.revoked
            .iter()
            .flatten()
            .map(|list| BorrowedCertRevocationList::from_der(list).map(CertRevocationList::from))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::InvalidCertificate(fault(error)))
    }

    /// Whether the first of these certificates is a client's that holds, with the others between it and its authority,
    /// and none is in `lists`, which are those of [`Self::lists`].
    ///
    /// # Errors
    /// Why not.
    pub(super) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        lists: &[CertRevocationList<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let of = |error| Error::InvalidCertificate(fault(error));
        let lists: Vec<&CertRevocationList<'_>> = lists.iter().collect();
        // An authority without a list of its own has revoked none. A list that is out of date says nothing any more.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        EndEntityCert::try_from(end_entity)
            .and_then(|certificate| {
                certificate
                    .verify_for_usage(
                        self.provider.signature_verification_algorithms.all,
                        &self.roots,
                        intermediates,
                        now,
                        KeyUsage::client_auth(),
                        revocation,
                        None,
                    )
                    .map(drop)
            })
            .map_err(of)
    }

    /// Why an authority of the file signs nothing, if there is such a one.
    pub(super) fn unusable(&self) -> Option<&'static str> {
        self.unusable.first().map(|fault| fault.text())
    }
}

impl ClientCertVerifier for Authorities {
    /// None: a client that is told which authorities there are shows no certificate of another, and nobody would ever
    /// know why it is refused.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, &self.lists()?, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What TLS calls it, and the client is told.
fn fault(error: webpki::Error) -> CertificateError {
    match error {
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::CertRevoked => CertificateError::Revoked,
        webpki::Error::CrlExpired { .. } => CertificateError::ExpiredRevocationList,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            CertificateError::BadEncoding
        }
        error => CertificateError::Other(rustls::OtherError(Arc::new(error))),
    }
}
