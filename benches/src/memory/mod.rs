//! Memory of processes and of the host, from `/proc`.

mod host;
mod process;

pub use host::host_used_kib;
pub use process::ProcessMemory;
