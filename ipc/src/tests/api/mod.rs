//! Tests of the native API's messages: their bytes, their refusals, the rules of its clients.

mod arbitrary;
mod codec;
pub(in crate::tests) mod device_samples;
mod golden;
mod interface_samples;
mod judge;
pub(in crate::tests) mod network_samples;
pub(in crate::tests) mod nwfilter_samples;
mod samples;
mod storage_samples;
mod supervisor_samples;
