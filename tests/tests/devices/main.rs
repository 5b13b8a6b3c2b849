//! Virtio devices of `reeve run` under stock Linux guests, in the lab: what the guest's own drivers
//! and tools make of them, and what the host's tools find afterwards.

mod balloon;
mod disk;
mod domain;
mod guest;
mod kill;
mod net;
mod plug;
mod ports;
mod running;
mod share;
mod throughput;
mod transport;
mod vhost;
