//! Benchmarks of Reeve beside the floor and the installed peers.
//!
//! Every figure is taken in rounds: one sample of each contender a round, so that what the machine
//! does meanwhile meets all of them alike. The guest is the built-in one for all, with 128 MiB and
//! one vCPU. One file a figure ([`figure`]), one a contender ([`contender`]); each says what exactly
//! is timed. The floor is `bin/floor.rs`: our own program with the least system calls that run the
//! same guest. Ratios to it say more than milliseconds, since they hardly depend on the machine.
//!
//! What concerns the daemon alone is measured on instances of it ([`daemon`]), each in directories of
//! its own.
//!
//! What a guest gets through its devices is measured on Reeve and QEMU by turns ([`io`]): with the same
//! guest, whose driver notes how long each operation takes, and by the CPU time of the monitors' processes.
//!
//! What a client of libvirt's waits for is measured at Reeve's door and at libvirtd's in turns ([`libvirt`]).
//!
//! `make bench` prints the table and writes `target/bench.json`; `bench --help` lists the options.

pub mod contender;
pub mod daemon;
pub mod figure;
pub mod io;
pub mod libvirt;
pub mod load;
pub mod memory;
pub mod report;
pub mod stats;

/// The memory of every guest here, in bytes.
pub const GUEST_MEMORY_BYTES: usize = 128 << 20;
