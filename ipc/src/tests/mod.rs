//! Tests of the boundary: its bytes, its refusals, its rules. One file a concern; what needs only
//! the public interface and a process of its own sits in `ipc/tests/`.

mod api;
mod arbitrary;
mod codec;
mod device_samples;
mod devices;
mod endpoint;
mod fd;
mod golden;
mod model;
mod network;
mod nwfilter;
mod phase;
mod plug;
mod plug_samples;
mod scm;
mod service;
mod storage;
