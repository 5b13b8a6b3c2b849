//! What the supervisor says to a process that serves one client of libvirt's protocol, and how that process
//! is started.
//!
//! ```text
//!   supervisor                                             reeve-gateway
//!   ──────────                                             ─────────────
//!   starts it, with one socket and
//!     the number of its changes     ──────────────────────►  closes its jail, and waits
//!   a client comes; its rights are decided
//!   HandOver {access}               ──────────────────────►  serves the client by the native API
//!     with the client's socket and one end of a session
//!                                   ◄──────────────────────  words, should it fail; denial reports
//! ```
//!
//! The socket for this is a `SOCK_SEQPACKET` one. One message comes down it, once. What comes up is text for a
//! log, or a record of its sandbox, and as hostile as whatever a worker says. Either end that closes ends the
//! process.

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

/// A client, for the process to serve: with it come two descriptors, the client's socket and one end of a
/// session of the native API, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOver {
    /// What the client may do. The supervisor holds the session to it whatever the process believes.
    pub access: Access,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};

    #[test]
    fn a_hand_over_comes_as_it_was_sent() {
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let bytes = encode(&HandOver { access }).unwrap();
            assert_eq!(decode::<HandOver>(&bytes).unwrap(), HandOver { access });
        }
        assert!(decode::<HandOver>(b"\x07").is_err());
    }
}
