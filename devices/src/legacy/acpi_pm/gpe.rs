//! GPE0: the status and enable registers of the general-purpose events (ACPI 6.5 4.8.4.1).

/// One block of 16 events.
#[derive(Debug, Default)]
pub(super) struct GpeBlock {
    pub(super) status: u16,
    pub(super) enable: u16,
}

impl GpeBlock {
    pub(super) fn raise(&mut self, number: u8) {
        self.status |= Self::bit(number);
    }

    pub(super) fn enabled(&self, number: u8) -> bool {
        self.enable & Self::bit(number) != 0
    }

    pub(super) fn wants_sci(&self) -> bool {
        self.status & self.enable != 0
    }

    /// Both registers in the order of their offsets.
    pub(super) fn image(&self) -> [u8; 4] {
        let [s0, s1] = self.status.to_le_bytes();
        let [e0, e1] = self.enable.to_le_bytes();
        [s0, s1, e0, e1]
    }

    /// Writes one byte; guests write these registers byte by byte.
    pub(super) fn write(&mut self, offset: u64, value: u8) {
        let [status_low, status_high] = self.status.to_le_bytes();
        let [enable_low, enable_high] = self.enable.to_le_bytes();
        match offset {
            0 => self.status = u16::from_le_bytes([status_low & !value, status_high]),
            1 => self.status = u16::from_le_bytes([status_low, status_high & !value]),
            2 => self.enable = u16::from_le_bytes([value, enable_high]),
            3 => self.enable = u16::from_le_bytes([enable_low, value]),
            _ => {}
        }
    }

    pub(super) fn bit(number: u8) -> u16 {
        1_u16.checked_shl(number.into()).unwrap_or(0)
    }
}
