//! KVM's interrupt controllers and timer as they are at power-on, which no reset of ours would bring back otherwise.

use std::sync::Arc;

use crate::kvm::{InterruptController, KvmError};
use crate::state::IrqchipStateV1;

/// Masks every line of a PIC.
const ALL_MASKED: u8 = 0xff;

/// Their state at power-on.
#[derive(Debug)]
pub struct PowerOn {
    interrupts: Arc<dyn InterruptController>,
    chips: Option<IrqchipStateV1>,
}

impl PowerOn {
    /// That of `interrupts`, which nobody has used yet.
    ///
    /// A PIC delivers nothing before it is initialised. KVM's does: it has its lines open, and its timer ticks from
    /// the start. So the lines are masked here, until firmware initialises the PICs or the guest opens them.
    ///
    /// # Errors
    /// An ioctl failed.
    pub fn of(interrupts: &Arc<dyn InterruptController>) -> Result<Self, KvmError> {
        let mut chips = interrupts.kernel_chips()?;
        for pic in chips.iter_mut().flat_map(|chips| &mut chips.pics) {
            pic.imr = ALL_MASKED;
        }
        Ok(Self {
            interrupts: Arc::clone(interrupts),
            chips,
        })
    }

    /// Puts them into that state. No vCPU runs.
    ///
    /// # Errors
    /// An ioctl failed.
    pub fn put_back(&self) -> Result<(), KvmError> {
        match &self.chips {
            Some(chips) => self.interrupts.set_kernel_chips(chips),
            None => Ok(()),
        }
    }
}
