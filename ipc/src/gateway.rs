//! What the supervisor says to a process that serves one client of libvirt's protocol, and how that process
//! is started.
//!
//! ```text
//!   supervisor                                             reeve-gateway
//!   ──────────                                             ─────────────
//!   starts it, with one socket and
//!     the number of its changes     ──────────────────────►  closes its jail, and waits
//!   a client comes; its rights are decided
//!   HandOver::Local {access}        ──────────────────────►  serves the client by the native API
//!     with the client's socket and one end of a session
//!                                   ◄──────────────────────  words, should it fail; denial reports
//! ```
//!
//! The socket for this is a `SOCK_SEQPACKET` one. One message comes down it, once. What comes up is text for a
//! log, or a record of its sandbox, and as hostile as whatever a worker says. Either end that closes ends the
//! process.
//!
//! A client that comes from another host has to say who it is before it has any rights, and is served by two such
//! processes until it has:
//!
//! ```text
//!   supervisor                                     reeve-gateway                          reeve-gateway, the signer
//!   HandOver::Signer {key}          ─────────────────────────────────────────────────►  waits for one request
//!   HandOver::Remote                ────────────►  TLS with the client
//!     with the connection, a door,                     SignatureRequest  ─────────────►  signs it, if it is of the
//!     a way to the signer, the certificates                     ◄──────────  Signature     one form there is; ends
//!                                   ◄── at the door:  FromStranger::Proved {certificate}
//!   the name's rights are decided
//!   ToStranger::Admitted {access}, a session's end ──►  serves the client by the native API
//! ```
//!
//! Where clients have passwords there is a third process. It alone knows what checks them, and it tells the supervisor
//! itself whose password it was, so that a gateway that a stranger has taken over can claim no user:
//!
//! ```text
//!   supervisor                                     reeve-gateway                          reeve-gateway, the verifier
//!   HandOver::Verifier              ─────────────────────────────────────────────────►  reads the file of users
//!                                   ◄── at the door:  FromStranger::Proved {certificate, if it has one}
//!   ToStranger::Authenticate        ────────────►  libvirt's AUTH_SASL_* and nothing else
//!                                                      SaslRequest       ─────────────►  SCRAM
//!                                                               ◄──────────  SaslAnswer
//!                                   ◄── at the verifier's door:  FromVerifier {user}  ──
//!   the user's rights are decided
//!   ToStranger::Admitted {access}, a session's end ──►  serves the client by the native API
//! ```
//!
//! The doors and the ways to the signer and the verifier are `SOCK_SEQPACKET` socket pairs too.
//!
//! When the certificates are read again one more process looks at them before they hold, since the supervisor reads none
//! ([`HandOver::Check`]).

use serde::{Deserialize, Serialize};

use crate::api::Access;

/// The process' first argument.
pub const NAME: &std::ffi::CStr = c"reeve-gateway";
/// The number of the socket's descriptor in that process.
pub const CONTROL_FD: i32 = 4;
/// The number of the descriptor of [`crate::changes::ChangeCount::file`] in that process.
pub const CHANGES_FD: i32 = 5;
/// The most bytes of one message that comes up.
pub const MAX_WORDS_BYTES: usize = 512;

/// The most bytes of a private key, as its file has them.
pub const MAX_KEY_BYTES: usize = 32 << 10;
/// The most bytes of what a stranger's gateway says at its door.
pub const MAX_STRANGER_BYTES: usize = 40 << 10;
/// The most bytes of all the certificates that a client shows.
pub const MAX_CHAIN_BYTES: usize = 32 << 10;
/// The most [`Chain`]s that are looked at when the files are read again: [`Checked`] has room for the numbers of all.
pub const MAX_CHAINS: usize = 8192;
/// The most bytes of them all.
pub const MAX_CHAINS_BYTES: usize = 16 << 20;
/// The most bytes of one message of SASL.
pub const MAX_SASL_BYTES: usize = 4096;
/// How often a client may try to log in on one connection.
pub const MAX_LOGINS: u32 = 3;
/// The most bytes of the name in a certificate.
pub const MAX_NAME_BYTES: usize = 1024;
/// The most bytes of a message that is to be signed, and more than there ever are.
pub const MAX_SIGNED_BYTES: usize = 256;
/// The most bytes of a signature: an RSA key of 16384 bits makes 2048.
pub const MAX_SIGNATURE_BYTES: usize = 2048;

/// What the process is to do.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandOver {
    /// Serve a client of this host. With it come two descriptors, the client's socket and one end of a session of
    /// the native API, in this order.
    Local {
        /// What the client may do. The supervisor holds the session to it whatever the process believes.
        access: Access,
    },
    /// Serve a client of another host, once it has proved who it is. With it come the connection, the door, the way
    /// to the signer, the way to the verifier where there is a password to be proved, and files of text, to be read
    /// from their beginning: the server's certificates, the authorities that clients' must be signed by, and, where
    /// there is one, the list of those that were revoked.
    Remote {
        /// How the client says who it is.
        proof: Proof,
    },
    /// Sign once, for a client's handshake. With it comes the socket on which the request comes.
    Signer {
        /// The private key, as its file has it (PEM): at most [`MAX_KEY_BYTES`].
        key: Vec<u8>,
    },
    /// Check the passwords of one client. With it come the socket to its gateway, the door at which the user's name
    /// is told, and the file of users ([`crate::users`]), to be read from its beginning.
    Verifier,
    /// Look at certificates that are to hold from now on. With it come a socket for the answers, [`Checked`], a
    /// file with [`Chain`]s of open connections, encoded one behind the other, each behind its length (four bytes,
    /// little endian), at most [`MAX_CHAINS`] and [`MAX_CHAINS_BYTES`], and the files of [`HandOver::Remote`]. The first
    /// answer is about the files alone, and comes before any chain is looked at; where they can be used a second one says
    /// which of the connections end.
    Check {
        /// The private key, as its file has it (PEM): at most [`MAX_KEY_BYTES`].
        key: Vec<u8>,
        /// How clients say who they are.
        proof: Proof,
    },
}

/// How a client says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// By a certificate.
    #[default]
    Certificate,
    /// By a name and a password (SASL), over TLS without a certificate of the client's.
    Sasl,
    /// By both.
    Both,
}

impl Proof {
    /// Whether it has to have a certificate.
    #[must_use]
    pub const fn has_certificate(self) -> bool {
        matches!(self, Self::Certificate | Self::Both)
    }

    /// Whether it has to have a password.
    #[must_use]
    pub const fn has_password(self) -> bool {
        matches!(self, Self::Sasl | Self::Both)
    }
}

impl std::fmt::Debug for HandOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Local { .. } => "Local",
            Self::Remote { .. } => "Remote",
            // Nothing of the key is ever in a log.
            Self::Signer { .. } => "Signer",
            Self::Verifier => "Verifier",
            Self::Check { .. } => "Check",
        })
    }
}

/// What a stranger's gateway says at its door: the one or the other, and the other even after the one where it has to
/// log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromStranger {
    /// The handshake is over.
    Proved {
        /// Whom it has shown to be. `None` where no certificate is asked for.
        certificate: Option<Certificate>,
    },
    /// It is not who may come.
    Refused {
        /// Why, for the log.
        reason: String,
    },
}

/// A certificate of an authority whose key the client has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Whose it is: the subject, as text; at most [`MAX_NAME_BYTES`].
    pub name: String,
    /// All that it has shown.
    pub chain: Chain,
}

/// Certificates as they came (DER), the client's own first; at most [`MAX_CHAIN_BYTES`] together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain(pub Vec<Vec<u8>>);

/// What is said to a stranger's gateway. Where the client is not let in, the door is closed instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToStranger {
    /// Have the client log in; the verifier tells the supervisor who it is.
    Authenticate,
    /// Serve it. With it comes one end of a session of the native API.
    Admitted {
        /// What the client may do. The supervisor holds the session to it whatever the process believes.
        access: Access,
    },
}

/// What is asked of the verifier: one message of SASL.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaslRequest {
    /// Whether it begins a login.
    pub begins: bool,
    /// What the client said: at most [`MAX_SASL_BYTES`].
    pub data: Vec<u8>,
}

impl std::fmt::Debug for SaslRequest {
    /// Without what the client said.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SaslRequest")
            .field("begins", &self.begins)
            .finish_non_exhaustive()
    }
}

/// What the verifier says to that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslAnswer {
    /// The login goes on.
    Continue(Vec<u8>),
    /// It is who it says. The supervisor was told.
    Complete(Vec<u8>),
    /// It is not, or nobody by that name is.
    Failed,
}

/// What the verifier says at its door, once: whose password it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromVerifier {
    /// The user's name.
    pub user: String,
}

/// What there is to say of certificates that are to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Checked {
    /// They can be used.
    Usable {
        /// Which of the connections, by their order, have a certificate that does not hold with them, or that could
        /// not be looked at; none in the first answer.
        ended: Vec<u32>,
    },
    /// They cannot.
    Unusable {
        /// Why, for the log.
        reason: String,
    },
}

/// What is to be signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureRequest {
    /// How: a `SignatureScheme` of TLS (RFC 8446, 4.2.3).
    pub scheme: u16,
    /// What is signed in TLS 1.3 by a server (RFC 8446, 4.4.3): at most [`MAX_SIGNED_BYTES`].
    pub message: Vec<u8>,
}

/// The signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature(pub Vec<u8>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};

    #[test]
    fn a_hand_over_comes_as_it_was_sent() {
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let message = HandOver::Local { access };
            let bytes = encode(&message).unwrap();
            assert_eq!(decode::<HandOver>(&bytes).unwrap(), message);
        }
        let key = b"a key".to_vec();
        let message = HandOver::Signer { key };
        assert_eq!(
            decode::<HandOver>(&encode(&message).unwrap()).unwrap(),
            message
        );
        assert_eq!(format!("{message:?}"), "Signer");
        let request = SaslRequest {
            begins: true,
            data: b"secret".to_vec(),
        };
        assert!(!format!("{request:?}").contains("115"), "{request:?}");
        assert!(decode::<HandOver>(b"\x07").is_err());
    }
}
