//! The object model of Reeve, and what crosses the boundary between the supervisor and a worker.
//!
//! This is the only crate both sides share. It knows plain data, its codec, the passing of
//! descriptors, and one number on a page that is shared ([`changes`]); it knows no KVM, no XML, no XDR, and tokio only behind the `client` feature.
//!
//! ```text
//!   supervisor (privileged)                                worker (jailed, hostile)
//!   ───────────────────────                                ────────────────────────
//!   Welcome {protocol, build}  ───────────────────────────►  checks both, or exits
//!   Request {id, Launch(spec)} ───────────────────────────►  phase check, effect
//!     with its descriptors                                   kept in an FdTable
//!                              ◄───────────────────────────  Hello {protocol, build, jail}
//!                              ◄───────────────────────────  Reply {id, Launched | WireError}
//!                              ◄───────────────────────────  Event {number, ..}
//! ```
//!
//! Every message is one datagram on a `SOCK_SEQPACKET` socketpair: at most [`MAX_MESSAGE_BYTES`]
//! bytes and [`MAX_MESSAGE_FDS`] descriptors. The supervisor queues its first messages before
//! the worker has even been executed; the worker reads none of them before its sandbox is closed.
//!
//! **Trust.** The supervisor believes nothing a worker says: each message is bounded before it is
//! decoded, decoded without recursion, and consumed to its last byte; a reply must answer a pending
//! request with that request's own type; anything else is a protocol violation, which ends that
//! worker and only that. The worker trusts the supervisor's messages for meaning, not for form.
//!
//! **Versions.** Encoding is positional: any change of a type in [`spec`], [`request`], [`event`]
//! or [`error`] raises [`PROTOCOL`]. Golden bytes in the tests hold each message's form.
//!
//! # Glossary
//! - *domain*: a virtual machine as its owner knows it, by name and UUID.
//! - *model*: a domain as its definition says it ([`model`]); *spec*: what one worker must build
//!   ([`spec::MachineSpec`]), with descriptors in place of paths.
//! - *phase*: where a worker stands ([`phase::Phase`]); *event*: what a worker says unasked.
//! - *request*, *reply*: one call and its only possible answer ([`request::Request`]).
//!
//! ## Decisions
//! 1. (2026-11) bincode 2.0.1 through serde, named in `codec.rs` alone: the crate is unmaintained,
//!    so the format is held by golden bytes and can be served by another codec.
//! 2. (2026-11) The supervisor speaks first and queues everything: a round trip before Launch would
//!    cost a wake-up on each side, a tenth of the whole start.

pub mod acceptor;
pub mod api;
pub mod changes;
pub mod codec;
pub mod device;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod exit_code;
pub mod fd;
pub mod gateway;
pub mod image;
pub mod leases;
pub mod local;
pub mod message;
pub mod model;
pub mod phase;
#[cfg(feature = "client")]
mod reading;
pub mod request;
pub mod scm;
#[cfg(feature = "client")]
pub mod socket;
pub mod spec;
pub mod strays;
pub mod transfer;
pub mod users;

pub mod vcpus;
pub mod volume_stream;

#[cfg(feature = "client")]
pub mod client;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// The most bytes one message may have.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The most descriptors one message may carry.
pub const MAX_MESSAGE_FDS: usize = 64;

/// The control socket's number in a worker at its start: the first one that the sandbox leaves
/// free (0 to 2 are `/dev/null`, 3 is the sandbox's own).
pub const CONTROL_FD: i32 = 4;

/// The log socket's number in a worker at its start. Each datagram on it is one log line
/// (`LEVEL target: message`, at most 1 KiB) or one of the sandbox's denial records.
pub const LOG_FD: i32 = 5;

/// Version of the worker protocol. The previous version is accepted only from workers that outlived
/// an upgrade ([`accepts`]); there is none before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProtocolVersion(pub u16);

/// The protocol this build speaks.
pub const PROTOCOL: ProtocolVersion = ProtocolVersion(1);

/// Whether a worker and a supervisor of different builds can talk, at an adoption: a worker that
/// outlived an upgrade is of the build before. A worker that was just spawned is of the same build,
/// or something is wrong. When [`PROTOCOL`] is raised, the types of the version before are frozen in
/// a module of their own, and it is accepted here.
#[must_use]
pub const fn accepts(protocol: ProtocolVersion) -> bool {
    protocol.0 == PROTOCOL.0
}

/// Names one build: supervisor and worker ship together and must be of the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildId(String);

impl BuildId {
    /// The most bytes a build id may have.
    pub const MAX_BYTES: usize = 128;

    /// This build's own id: the crate's version, and the revision where the build was told one.
    #[must_use]
    pub fn this() -> Self {
        let version = env!("CARGO_PKG_VERSION");
        match option_env!("REEVE_REVISION") {
            Some(revision) => Self(format!("{version}+{revision}")),
            None => Self(version.to_owned()),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
