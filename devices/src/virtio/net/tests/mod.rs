//! Tests of the whole device, with a driver and a host that are the test's.

mod front;
mod pairs;
mod receive;
pub(super) mod rig;
mod stream;
mod tap;
mod transmit;
