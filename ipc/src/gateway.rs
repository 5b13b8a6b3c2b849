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
//!                                   ◄── at the door:  FromStranger::Proved {name}
//!   the name's rights are decided
//!   Admitted {access}, a session's end ─────────►  serves the client by the native API
//! ```
//!
//! The door and the way to the signer are `SOCK_SEQPACKET` socket pairs too.

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
pub const MAX_STRANGER_BYTES: usize = 4096;
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
    /// to the signer, and files of text, to be read from their beginning: the server's certificates, the
    /// authorities that clients' must be signed by, and, where there is one, the list of those that were revoked.
    Remote,
    /// Sign once, for a client's handshake. With it comes the socket on which the request comes.
    Signer {
        /// The private key, as its file has it (PEM): at most [`MAX_KEY_BYTES`].
        key: Vec<u8>,
    },
}

impl std::fmt::Debug for HandOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Local { .. } => "Local",
            Self::Remote => "Remote",
            // Nothing of the key is ever in a log.
            Self::Signer { .. } => "Signer",
        })
    }
}

/// What a stranger's gateway says at its door, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromStranger {
    /// The client has a certificate of an authority, and the key of it.
    Proved {
        /// Whose it is: the subject, as text; at most [`MAX_NAME_BYTES`].
        name: String,
    },
    /// It has not.
    Refused {
        /// Why, for the log.
        reason: String,
    },
}

/// The answer to [`FromStranger::Proved`], with one end of a session of the native API. Where the client is not let
/// in, the door is closed instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// What the client may do. The supervisor holds the session to it whatever the process believes.
    pub access: Access,
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
        assert!(decode::<HandOver>(b"\x07").is_err());
    }
}
