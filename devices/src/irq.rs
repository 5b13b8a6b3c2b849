//! Interrupts as devices see them: a line to assert, or a message to send.
//!
//! A device never learns its interrupt number or who listens. The worker supplies the backing: in
//! split mode a pin of our [`Ioapic`](crate::ioapic::Ioapic), with the in-kernel controller an
//! ioctl. Backings and sinks are leaves of the lock order: they are called with device locks held
//! and must not call back into a device.

use std::fmt::Debug;
use std::sync::Arc;

/// What drives one interrupt input of an interrupt controller.
pub trait IrqBacking: Debug + Send + Sync {
    /// Sets the logical level of the input: `true` is asserted, whatever the electrical polarity.
    fn set_level(&self, asserted: bool);
}

/// An interrupt line of one device.
#[derive(Debug, Clone)]
pub struct IrqLine(Arc<dyn IrqBacking>);

impl IrqLine {
    /// A line driven through `backing`.
    pub fn new(backing: Arc<dyn IrqBacking>) -> Self {
        Self(backing)
    }

    /// A line that leads nowhere, for a device the machine gives no interrupt.
    pub fn disconnected() -> Self {
        Self(Arc::new(Disconnected))
    }

    /// Raises the line; it stays up until [`deassert`](IrqLine::deassert).
    pub fn assert(&self) {
        self.0.set_level(true);
    }

    /// Lowers the line.
    pub fn deassert(&self) {
        self.0.set_level(false);
    }

    /// Sets the line to `asserted`.
    pub fn set(&self, asserted: bool) {
        self.0.set_level(asserted);
    }

    /// One edge: up and down again.
    pub fn pulse(&self) {
        self.assert();
        self.deassert();
    }
}

#[derive(Debug)]
struct Disconnected;

impl IrqBacking for Disconnected {
    fn set_level(&self, _asserted: bool) {}
}

/// A message-signalled interrupt: what a device writes, and where (SDM vol. 3, 12.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiMessage {
    /// Guest-physical address of the write: 0xFEE0_0000 plus destination and hints.
    pub address: u64,
    /// The data written: vector, delivery mode, level and trigger mode.
    pub data: u32,
}

/// Where messages go: the local APICs.
pub trait MsiSink: Debug + Send + Sync {
    /// Delivers `message`; true if at least one local APIC took it.
    fn send(&self, message: MsiMessage) -> bool;
}
