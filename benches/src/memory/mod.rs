//! Memory of processes and of the host, from `/proc`.

mod host;
mod process;

pub use host::{HostMemory, own_anonymous_kib};
pub use process::{ProcessMemory, pss_kib, resident_kib};
