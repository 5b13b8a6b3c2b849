//! Arguments, replies and events of the procedures we know what to do with, a file for each family. What is
//! not here is answered without being read.
//!
//! The bounds are libvirt's own: a client never sends more, and refuses more.

pub mod connect;
pub mod device;
pub mod event;
pub mod guest;
pub mod handles;
pub mod host;
pub mod inspect;
pub mod lifecycle;
pub mod network;
pub mod params;
pub mod qemu;
pub mod save;
pub mod storage;
#[cfg(test)]
mod tests;
pub mod tuning;

use super::frame::Program;
use super::xdr::XdrError;

/// The most domains in a list, and their ids, names and statistics.
pub const DOMAINS_MAX: usize = 16_384;

/// The most networks, pools, volumes, interfaces, filters, secrets or snapshots in a list.
pub const OBJECTS_MAX: usize = 16_384;

/// The most node devices in a list.
pub const NODE_DEVICES_MAX: usize = 65_536;

/// The longest map of CPUs, in bytes.
pub const CPU_MAP_MAX: usize = 2_048;

/// The longest row of maps of CPUs, in bytes.
pub const CPU_MAPS_MAX: usize = 8_388_608;

/// The most NUMA cells, and what is asked of them.
pub const CELLS_MAX: usize = 1_024;

/// The most that a peek at a disk or at memory gives, in bytes.
pub const PEEK_MAX: usize = 4_194_304;

/// Reads the arguments of a procedure and writes them again: how those who attack the decoder reach
/// every procedure by its number. Nothing, if it is none of those declared here.
#[must_use]
pub fn arguments(
    program: Program,
    number: i32,
    payload: &[u8],
) -> Option<Result<Vec<u8>, XdrError>> {
    type Family = fn(i32, &[u8]) -> Option<Result<Vec<u8>, XdrError>>;
    const REMOTE: [Family; 11] = [
        connect::arguments,
        device::arguments,
        event::arguments,
        guest::arguments,
        host::arguments,
        inspect::arguments,
        lifecycle::arguments,
        network::arguments,
        save::arguments,
        storage::arguments,
        tuning::arguments,
    ];
    match program {
        Program::Remote => REMOTE.iter().find_map(|family| family(number, payload)),
        Program::Qemu => qemu::arguments(number, payload),
        Program::Lxc | Program::Admin | Program::Keepalive => None,
    }
}
