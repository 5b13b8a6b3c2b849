//! The native API of a real `reeved` over its real socket, with the test driver in the place of KVM:
//! who may do what, what a client can cost, and what becomes of one that goes.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod access;
mod calls;
mod definitions;
mod descriptors;
mod events;
#[expect(
    dead_code,
    reason = "libvirt's front door is tested with the rest of it"
)]
mod harness;
mod host;
mod limits;
mod network_calls;
mod networks;
mod nwfilter_calls;
mod sessions;
mod versions;
