//! Memory of processes and of the host, from `/proc`.

mod host;
mod process;

pub use host::{host_used_kib, wait_until_settled};
pub use process::ProcessMemory;
