//! libvirt's remote protocol as bytes: packets, XDR, procedures with their arguments and replies. Knows nothing of
//! what they mean.
//!
//! ```text
//!   bytes ─► frame::Assembler ─► Packet { header, payload } ─► xdr::decode ─► a Call's arguments
//!   bytes ◄─ frame::{reply, event, failure, stream_data} ◄─ xdr::Encode ◄─ its Reply, an Event, an ErrorBody
//! ```
//!
//! All of it is a client's word, so nothing here panics, loops or allocates by a number in it: a length
//! is held against its bound and against the bytes that are there before anything is made of it.
//!
//! ## Decisions
//!
//! 1. (2026-11-30) The XDR codec is ours. Those published read XDR as RFC 4506 has it, and libvirt's is
//!    what rpcgen makes of C: `char` is a word of four bytes (so a `char[32]` takes 128), so are
//!    `unsigned char` and `unsigned short`, and any discriminator but zero means that an optional value
//!    is there. `xdr-codec` reads from an `io::Read`, is of 2017 and brings `error-chain`; `serde-xdr` is
//!    under the GPL and has no place for a bound per field; those within NFS and ONC RPC crates know
//!    only their own protocols' types.
//! 2. (2026-11-30) Text is UTF-8 without NUL or the message is refused: the model and XML hold nothing
//!    else, and a C program would see another name than we did.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used)
)]

pub mod call;
pub mod error;
pub mod frame;
pub mod procedures;
#[cfg(test)]
mod sample;
pub mod types;
pub mod xdr;
