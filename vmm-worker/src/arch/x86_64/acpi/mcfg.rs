//! The MCFG (PCI Firmware 3.3, 4.1.2): where PCI Express' configuration space is.

use zerocopy::byteorder::little_endian::{U16, U64};
use zerocopy::{Immutable, IntoBytes};

/// The revision of the table.
pub(super) const REVISION: u8 = 1;

/// The table behind its header, with the one range there is.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Mcfg {
    reserved: U64,
    /// Of the first bus of the segment, whether it is in the range or not.
    address: U64,
    segment: U16,
    first_bus: u8,
    last_bus: u8,
    reserved2: [u8; 4],
}

/// The table without its header; configuration space is at `ecam`.
pub(super) fn body(ecam: u64) -> Vec<u8> {
    let mcfg = Mcfg {
        reserved: 0.into(),
        address: ecam.into(),
        segment: 0.into(),
        first_bus: 0,
        last_bus: 0,
        reserved2: [0; 4],
    };
    mcfg.as_bytes().to_vec()
}
