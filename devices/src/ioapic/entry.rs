//! One entry of the redirection table (82093AA 3.2.4) and the message it stands for.

use crate::irq::MsiMessage;

/// Destination mode, bit 11 of the low half; 0 is physical.
const DESTINATION_LOGICAL: u64 = 1 << 11;
const POLARITY_LOW: u64 = 1 << 13;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// Bits of the low half that the guest writes: not delivery status and remote IRR.
const WRITABLE_LOW: u64 = 0xfff | POLARITY_LOW | LEVEL | MASKED;
/// Destination (bits 56..=63), and above it, where the hypervisor advertises 15-bit destinations,
/// bits 8..=14 of it in bits 49..=55.
const WRITABLE_HIGH: u64 = 0xfffe_0000_0000_0000;

/// Lowest vector a local APIC takes (SDM vol. 3, 12.5.2).
const FIRST_VECTOR: u8 = 16;

const MSI_BASE: u64 = 0xfee0_0000;
const MSI_DESTINATION_LOGICAL: u64 = 1 << 2;
const MSI_DATA_LEVEL: u32 = 1 << 15;

/// How an interrupt input reaches the local APICs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The message an interrupt on this input is sent as.
    pub message: MsiMessage,
    /// The local APIC's EOI has to come back to the IOAPIC.
    pub level_triggered: bool,
}

/// A redirection entry as the guest reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RedirectionEntry(u64);

impl RedirectionEntry {
    /// The state after reset: masked, all else clear.
    pub(super) const RESET: Self = Self(MASKED);

    /// Takes an entry from saved state, unless no sequence of writes and interrupts leads to it.
    pub(super) fn from_saved(bits: u64) -> Option<Self> {
        let entry = Self(bits);
        let known = bits & !(WRITABLE_LOW | WRITABLE_HIGH | REMOTE_IRR) == 0;
        (known && (entry.is_level() || !entry.remote_irr())).then_some(entry)
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    pub(super) fn low(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    pub(super) fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) fn set_low(&mut self, value: u32) {
        self.0 = self.0 & !WRITABLE_LOW | u64::from(value) & WRITABLE_LOW;
        // Switching to edge clears remote IRR: the way out that kernels use when an EOI was lost.
        if !self.is_level() {
            self.0 &= !REMOTE_IRR;
        }
    }

    pub(super) fn set_high(&mut self, value: u32) {
        self.0 = self.0 & !WRITABLE_HIGH | u64::from(value) << 32 & WRITABLE_HIGH;
    }

    pub(super) fn is_masked(self) -> bool {
        self.0 & MASKED != 0
    }

    pub(super) fn is_level(self) -> bool {
        self.0 & LEVEL != 0
    }

    pub(super) fn remote_irr(self) -> bool {
        self.0 & REMOTE_IRR != 0
    }

    pub(super) fn set_remote_irr(&mut self, set: bool) {
        self.0 = if set {
            self.0 | REMOTE_IRR
        } else {
            self.0 & !REMOTE_IRR
        };
    }

    pub(super) fn vector(self) -> u8 {
        (self.0 & 0xff) as u8
    }

    /// The message for this entry, masked or not; `None` if it names a delivery that does not
    /// exist here: SMI and ExtINT (no SMM, no PIC), reserved modes, vectors below 16.
    pub(super) fn message(self) -> Option<MsiMessage> {
        let mode = (self.0 >> 8 & 0b111) as u32;
        let vector = self.vector();
        match mode {
            // Fixed and lowest priority.
            0 | 1 if vector >= FIRST_VECTOR => {}
            // NMI and INIT ignore the vector.
            4 | 5 => {}
            _ => return None,
        }
        let destination = self.0 >> 56 << 12 | (self.0 >> 49 & 0x7f) << 5;
        let logical = if self.0 & DESTINATION_LOGICAL != 0 {
            MSI_DESTINATION_LOGICAL
        } else {
            0
        };
        let trigger = if self.is_level() { MSI_DATA_LEVEL } else { 0 };
        Some(MsiMessage {
            address: MSI_BASE | destination | logical,
            data: u32::from(vector) | mode << 8 | trigger,
        })
    }

    /// The route to program for this entry; see [`RouteSink`](super::RouteSink).
    pub(super) fn route(self) -> Option<Route> {
        let level_triggered = self.is_level();
        if self.is_masked() && !level_triggered {
            return None;
        }
        self.message().map(|message| Route {
            message,
            level_triggered,
        })
    }
}
