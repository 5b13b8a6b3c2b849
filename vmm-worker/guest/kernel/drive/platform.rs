//! `mode=panic`, `mode=crash-kernel`, `mode=watchdog`, `mode=watchdog-attack` and `mode=generation`: the
//! devices of the platform, as a stock kernel's drivers use them, and as none does.

use super::memory::Registers;
use super::options::Options;
use super::pci::{Bus, Function, IDENTITY};
use super::{Clock, Problem, say};
use crate::boot::Boot;
use crate::machine::{self, COM1, PM1_STATUS, in8, in16, out8};
use crate::random::XorShift;
use crate::ring0::Interrupt;
use crate::{acpi, console, time};

/// QEMU's pvpanic on the ISA bus.
const PANIC_PORT: u16 = 0x505;
const PANICKED: u8 = 1 << 0;
const CRASH_LOADED: u8 = 1 << 1;

/// How long a mode waits for what is done about it, in milliseconds.
const PATIENCE: u64 = 60_000;

/// Says that the kernel panicked, again and again.
pub fn panic(options: &Options) -> Result<(), Problem> {
    say("panic-port", in8(PANIC_PORT).into());
    for _ in 0..options.count.unwrap_or(1) {
        out8(PANIC_PORT, PANICKED);
    }
    Err("a panicked guest runs on")
}

/// Says that the crash kernel starts, again and again, and goes on.
pub fn crash_kernel(options: &Options) -> Result<(), Problem> {
    for _ in 0..options.count.unwrap_or(1) {
        out8(PANIC_PORT, CRASH_LOADED);
    }
    Ok(())
}

/// An Intel 6300ESB.
#[derive(Clone, Copy)]
struct Watchdog {
    function: Function,
    registers: Registers,
}

const IDENTITY_6300ESB: u32 = 0x25ab_8086;
/// In configuration space.
const CONFIG: u16 = 0x60;
const LOCK: u16 = 0x68;
const ENABLE: u8 = 1 << 1;
/// In memory.
const TIMER_1: u64 = 0;
const TIMER_2: u64 = 4;
const RELOAD: u64 = 12;
const RELOAD_NOW: u16 = 1 << 8;
const TIMED_OUT: u16 = 1 << 9;

impl Watchdog {
    fn find(bus: Bus) -> Result<Self, Problem> {
        let function = bus
            .slots()
            .find(|function| function.read_u32(IDENTITY) == IDENTITY_6300ESB)
            .ok_or("no watchdog")?;
        function.enable();
        let registers = function.registers(0, 0, 16).ok_or("no registers")?;
        Ok(Self {
            function,
            registers,
        })
    }

    fn unlock(self) {
        self.registers.write_u16(RELOAD, 0x80);
        self.registers.write_u16(RELOAD, 0x86);
    }

    fn reload(self) {
        self.unlock();
        self.registers.write_u16(RELOAD, RELOAD_NOW);
    }

    /// Enables it, to expire after so many milliseconds: two stages of half of them.
    fn arm(self, milliseconds: u64) {
        // No interrupt, output on, 33 MHz / 2^15.
        self.function.write_u16(CONFIG, 3);
        self.function.write_u8(LOCK, 0);
        let stage = (milliseconds.saturating_mul(33_000) / 2) >> 15;
        for timer in [TIMER_1, TIMER_2] {
            self.unlock();
            self.registers.write_u32(timer, stage as u32);
        }
        self.reload();
        self.function.write_u8(LOCK, ENABLE);
    }
}

/// Enables the watchdog, reloads it `count` times in time, and then no more.
pub fn watchdog(bus: Bus, clock: &Clock, options: &Options) -> Result<(), Problem> {
    let watchdog = Watchdog::find(bus)?;
    if watchdog.registers.read_u16(RELOAD) & TIMED_OUT != 0 {
        console::print(b"watchdog: has expired before\n");
        return Ok(());
    }
    watchdog.arm(options.milliseconds);
    console::print(b"watchdog: armed\n");
    for _ in 0..options.count.unwrap_or(0) {
        let next = clock.after(options.milliseconds / 2);
        while time::cycles() < next {
            core::hint::spin_loop();
        }
        watchdog.reload();
    }
    // An NMI may come as soon as that is said.
    let nmis = Interrupt::Nmi.count();
    console::print(b"watchdog: left alone\n");
    let end = clock.after(PATIENCE);
    let mut expired = false;
    while time::cycles() < end {
        if !expired && watchdog.registers.read_u16(RELOAD) & TIMED_OUT != 0 {
            expired = true;
            console::print(b"watchdog: has expired\n");
        }
        if Interrupt::Nmi.count() != nmis {
            console::print(b"watchdog: NMI\n");
            return Ok(());
        }
        if in16(PM1_STATUS) & 1 << 8 != 0 {
            console::print(b"watchdog: power button\n");
            return Ok(());
        }
        if asked_to_end() {
            return Ok(());
        }
    }
    Err("nothing was done")
}

/// Random accesses to the watchdog, with random times between.
pub fn attack(bus: Bus, clock: &Clock, options: &Options) -> Result<(), Problem> {
    let watchdog = Watchdog::find(bus)?;
    let mut random = XorShift::new(options.seed);
    for _ in 0..options.count.unwrap_or(5_000) {
        let choice = random.next();
        let value = random.next() as u32;
        let offset = choice >> 8 & 0x1f;
        match choice & 0xf {
            0 | 1 => watchdog.registers.write_u32(offset, value),
            2 => watchdog.registers.write_u16(offset, value as u16),
            3 => drop(watchdog.registers.read_u32(offset)),
            4 | 5 => {
                watchdog.unlock();
                watchdog.registers.write_u32(offset & 0xc, value & 0x0030_03ff);
            }
            6 => watchdog.function.write_u16(CONFIG, value as u16),
            7 => watchdog.function.write_u8(LOCK, value as u8 & !1),
            8 => watchdog.arm(u64::from(value & 3)),
            9 => watchdog.function.write_u32(0x10, value),
            10 => watchdog.function.write_u16(4, value as u16),
            11 => {
                let next = time::cycles() + clock.cycles(u64::from(value & 0x3ff));
                while time::cycles() < next {
                    core::hint::spin_loop();
                }
            }
            _ => watchdog.function.write_u32((offset as u16) << 2, value),
        }
    }
    console::print(b"watchdog-attack: survived\n");
    Ok(())
}

/// Prints the generation id, and again when the guest is told that it has changed, until a `q`.
pub fn generation(boot: &Boot) -> Result<(), Problem> {
    const GPE_STATUS: u16 = 0x60c;
    const GPE_ENABLE: u16 = 0x60e;
    const CHANGED: u8 = 1 << 3;
    let address = acpi::generation_id(boot).ok_or("no generation id")?;
    let show = |when: &str| {
        console::line()
            .text("generation ")
            .text(when)
            .text(": ")
            .hex(machine::read_u64(address))
            .text(" ")
            .hex(machine::read_u64(address + 8))
            .end();
    };
    out8(GPE_STATUS, CHANGED);
    out8(GPE_ENABLE, CHANGED);
    show("at the start");
    loop {
        if in8(GPE_STATUS) & CHANGED != 0 {
            out8(GPE_STATUS, CHANGED);
            show("is another");
        }
        match typed() {
            Some(b'q') => return Ok(()),
            Some(_) => show("now"),
            None => {}
        }
    }
}

fn asked_to_end() -> bool {
    typed() == Some(b'q')
}

/// What was typed on COM1, if anything was.
pub fn typed() -> Option<u8> {
    (in8(COM1 + 5) & 1 != 0).then(|| in8(COM1))
}
