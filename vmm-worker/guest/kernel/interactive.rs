//! Modes that live until they are told to stop: `mode=echo` and `mode=clock`.
//!
//! Both sleep between interrupts, and both power off by the power button.

use crate::acpi::Tables;
use crate::boot::Boot;
use crate::machine::{COM1, PM1_STATUS, in8, out8, out16};
use crate::ring0::{self, Interrupt};
use crate::{acpi, apic, console, time};

/// PM1 power-button status and enable (ACPI 6.5, 4.8.3.1.1).
const POWER_BUTTON: u16 = 1 << 8;

/// Gives back what comes in on COM1 until a `q`.
pub fn echo(boot: &Boot) {
    const INTERRUPT_ENABLE: u16 = COM1 + 1;
    const FIFO_CONTROL: u16 = COM1 + 2;
    const MODEM_CONTROL: u16 = COM1 + 4;
    const LINE_STATUS: u16 = COM1 + 5;
    const COM1_GSI: u32 = 4;
    let Some(tables) = listen_for_power_button(boot) else {
        return;
    };
    apic::route_edge(&tables, COM1_GSI, Interrupt::Serial);
    out8(FIFO_CONTROL, 1);
    out8(MODEM_CONTROL, 0b1011); // OUT2 lets the interrupt through
    out8(INTERRUPT_ENABLE, 1);
    console::print(b"echo: ready, q powers off\n");
    loop {
        // Counted before the last look, so that what arrives in between is not slept over.
        let seen = Interrupt::Serial.count();
        while in8(LINE_STATUS) & 1 != 0 {
            let byte = in8(COM1);
            if byte == b'q' {
                console::print(b"power off\n");
                return;
            }
            console::print(&[byte]);
        }
        if power_button_pressed() {
            return;
        }
        Interrupt::Serial.wait(seen);
    }
}

/// A line every 100 ms with its number and the microseconds since the last.
pub fn clock(boot: &Boot) {
    if listen_for_power_button(boot).is_none() {
        return;
    }
    let Some(tsc_khz) = time::measure_tsc_khz() else {
        return;
    };
    let mut seen = Interrupt::Timer.count();
    let mut last = time::cycles();
    let mut number = 0;
    apic::start_periodic(100 * apic::TICKS_PER_MS);
    while !power_button_pressed() {
        Interrupt::Timer.wait(seen);
        let count = Interrupt::Timer.count();
        if count == seen {
            continue;
        }
        seen = count;
        number += 1;
        let now = time::cycles();
        let passed = now.wrapping_sub(last) * 1000 / tsc_khz.max(1);
        last = now;
        console::line()
            .text("tick ")
            .decimal(number)
            .text(": ")
            .decimal(passed)
            .text(" us")
            .end();
    }
}

/// Enables the button and its interrupt. Says so and gives `None` if ACPI is unusable.
pub fn listen_for_power_button(boot: &Boot) -> Option<Tables> {
    let tables = acpi::read(boot)?;
    apic::enable();
    out16(PM1_STATUS, POWER_BUTTON);
    out16(PM1_STATUS + 2, POWER_BUTTON);
    apic::route_system_control(&tables);
    Some(tables)
}

/// Whether the button was pressed; says so if it was.
pub fn power_button_pressed() -> bool {
    let pressed = ring0::take_power_events() & POWER_BUTTON != 0;
    if pressed {
        console::print(b"power button\n");
    }
    pressed
}
