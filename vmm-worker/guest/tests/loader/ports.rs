//! The test machine's devices: COM1, CMOS, ACPI power management. Just what the guest uses.

use std::collections::VecDeque;
use std::time::Instant;

/// What a port write means for the machine.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing beyond the device.
    None,
    /// S5 was entered.
    PowerOff,
    /// A reset was asked for.
    Reset,
}

/// Device state. Interrupt lines are levels, read off after each change.
#[derive(Debug)]
pub struct Devices {
    /// All bytes printed.
    pub output: Vec<u8>,
    /// When the first byte was printed.
    pub first_byte: Option<Instant>,
    input: VecDeque<u8>,
    serial_interrupts: u8,
    cmos: [u8; 128],
    cmos_index: u8,
    pm_status: u16,
    pm_enable: u16,
    started: Instant,
}

const POWER_BUTTON: u16 = 1 << 8;

impl Devices {
    pub fn new() -> Self {
        let mut cmos = [0; 128];
        // 2024-02-29 23:58:07 in BCD, 24-hour clock.
        for (index, value) in [
            (0, 0x07),
            (2, 0x58),
            (4, 0x23),
            (7, 0x29),
            (8, 0x02),
            (9, 0x24),
            (0x32, 0x20),
        ] {
            cmos[index] = value;
        }
        cmos[0x0b] = 2;
        Self {
            output: Vec::new(),
            first_byte: None,
            input: VecDeque::new(),
            serial_interrupts: 0,
            cmos,
            cmos_index: 0,
            pm_status: 0,
            pm_enable: 0,
            started: Instant::now(),
        }
    }

    pub fn write(&mut self, port: u16, data: &[u8]) -> Effect {
        let first = data.first().copied().unwrap_or(0);
        match (port, data.len()) {
            (0x3f8, _) => {
                self.first_byte.get_or_insert_with(Instant::now);
                self.output.extend_from_slice(data);
            }
            (0x3f9, 1) => self.serial_interrupts = first,
            (0x70, 1) => self.cmos_index = first & 0x7f,
            (0x71, 1) => self.cmos[usize::from(self.cmos_index)] = first,
            (0x64, 1) if first == 0xfe => return Effect::Reset,
            (0xcf9, 1) if first == 6 => return Effect::Reset,
            (0x600, 2) => self.pm_status &= !word(data),
            (0x602, 2) => self.pm_enable = word(data),
            (0x604, 2) if word(data) == 0x3400 => return Effect::PowerOff,
            _ => {}
        }
        Effect::None
    }

    pub fn read(&mut self, port: u16, data: &mut [u8]) {
        let value: u32 = match port {
            0x3f8 => u32::from(self.input.pop_front().unwrap_or(0)),
            0x3fd => 0x60 | u32::from(!self.input.is_empty()),
            0x71 => u32::from(self.cmos[usize::from(self.cmos_index)]),
            0x600 => u32::from(self.pm_status),
            0x602 => u32::from(self.pm_enable),
            0x608 => {
                let ticks = self.started.elapsed().as_nanos() * 3_579_545 / 1_000_000_000;
                u32::try_from(ticks & 0xff_ffff).expect("24 bits fit")
            }
            _ => u32::MAX,
        };
        for (byte, source) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = source;
        }
    }

    pub fn type_in(&mut self, text: &[u8]) {
        self.input.extend(text);
    }

    pub fn press_power_button(&mut self) {
        self.pm_status |= POWER_BUTTON;
    }

    /// Levels of the interrupt lines 4 and 9.
    pub fn lines(&self) -> [(u32, bool); 2] {
        [
            (4, self.serial_interrupts & 1 != 0 && !self.input.is_empty()),
            (9, self.pm_status & self.pm_enable & POWER_BUTTON != 0),
        ]
    }
}

fn word(data: &[u8]) -> u16 {
    u16::from_le_bytes([data[0], data[1]])
}
