//! What one worker says to another that takes its machine over, on a socket that the supervisor made for
//! the two and keeps no end of.
//!
//! ```text
//!   giver (HandOver)                                   taker (TakeOver)
//!   Machine(spec, counts) ──────────────────────────►  what is to come is bounded by it
//!   Descriptors {count}  × n, with descriptors ─────►  in the order of the specification's slots
//!   Console(bytes)       × n ───────────────────────►  output that clients may still ask for
//!   Records(bytes)       × n ───────────────────────►  builds the machine, which stands
//!                                                      ... SwitchOver ...
//!   ends                 ◄─────────────────────────── Taken
//! ```
//!
//! The giver stands meanwhile. If its end closes without [`Taken`], the taker is gone or could not build
//! the machine, and the giver goes on. So exactly one of the two goes on, whoever else dies on the way;
//! and since the two are one domain, neither gains anything by lying.

use serde::{Deserialize, Serialize};

use crate::fd::FdSlot;
use crate::spec::{MachineSpec, PciSlot};
use crate::{BuildId, ProtocolVersion};

/// Bytes of one piece of console output or records, at most.
pub const PIECE_BYTES: usize = 32 << 10;
/// Clients of the console that go along, at most; the oldest stay behind.
pub const MAX_CONSOLE_CLIENTS: usize = 64;

/// From the giver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and it is not kept"
)]
pub enum Transfer {
    /// The first message: the machine, and how much follows.
    Machine(TransferredMachine),
    /// Descriptors ride with this: 1 to [`crate::MAX_MESSAGE_FDS`].
    Descriptors {
        /// How many.
        count: u16,
    },
    /// The next piece of the console's output, 1 to [`PIECE_BYTES`] bytes.
    Console(Vec<u8>),
    /// The next piece of the machine's records, 1 to [`PIECE_BYTES`] bytes.
    Records(Vec<u8>),
}

/// A machine that is handed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransferredMachine {
    /// The protocol of these messages.
    pub protocol: ProtocolVersion,
    /// The giver's build, for the log.
    pub build: BuildId,
    /// The machine as it is now. Its slots count the descriptors that follow, but for `kvm`, which the
    /// taker has from the supervisor; it names no console, whose clients are below.
    pub spec: MachineSpec,
    /// Whether its vCPUs ran.
    pub running: bool,
    /// When they were told to stand, in nanoseconds of the host's monotonic clock.
    pub stood_since_ns: u64,
    /// Devices that the guest was asked to let go of.
    pub leaving: Vec<PciSlot>,
    /// How many descriptors follow, at most [`crate::fd::FdTable::MAX`].
    pub descriptors: u16,
    /// Its console.
    pub console: TransferredConsole,
    /// How many bytes of records follow.
    pub records_bytes: u64,
}

/// A console that is handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferredConsole {
    /// Bytes the guest has written so far.
    pub written: u64,
    /// How many of the last of them follow.
    pub held: u32,
    /// Its clients, at most [`MAX_CONSOLE_CLIENTS`].
    pub clients: Vec<TransferredClient>,
}

/// A client of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferredClient {
    /// Its stream.
    pub stream: FdSlot,
    /// Whether its bytes reach the guest.
    pub input: bool,
    /// The next byte of the output that it gets.
    pub position: u64,
}

/// From the taker: the machine is its own from now on. There is nothing else to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Taken {
    /// That.
    Taken,
}
