//! All devices on their buses, driven by a string of bytes: the guest, the host's input, the clock
//! and the control thread in any order. Shared by the fuzz targets and `tests/machine.rs`.
//!
//! Every step checks what must hold whatever the guest does: nothing panics, memory stays bounded,
//! a timed event is never early, and what `save` writes can be restored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use reeve_devices::bus::{MmioAddress, MmioBus, Port, PortBus};
use reeve_devices::clock::{MonotonicClock, TimedDevice, WallClock};
use reeve_devices::console::{ConsoleReader, ConsoleRing};
use reeve_devices::ioapic::{Ioapic, Route, RouteSink};
use reeve_devices::irq::{MsiMessage, MsiSink};
use reeve_devices::legacy::acpi_pm::{AcpiPm, AcpiPmParams, PmTimerWidth};
use reeve_devices::legacy::cmos::{Cmos, CmosMemory, CmosParams};
use reeve_devices::legacy::i8042::{self, I8042};
use reeve_devices::legacy::pvpanic::{PanicSink, PvPanic, PvPanicParams};
use reeve_devices::legacy::reset::ResetControl;
use reeve_devices::legacy::serial::Serial;
use reeve_devices::pci::PciFunction;
use reeve_devices::power::{PowerSink, Reset};
use reeve_devices::shared::{Shared, Wake, lock, share};
use reeve_devices::state::Saveable;
use reeve_devices::watchdog::{Watchdog, WatchdogFunction, WatchdogParams};

const IOAPIC: u64 = 0xfec0_0000;
const RING: usize = 512;
/// Where the watchdog's registers are, a page of them.
const WATCHDOG: u64 = 0xc000_0000;

/// The worker's side of everything.
#[derive(Debug, Default)]
pub struct World {
    nanoseconds: AtomicU64,
    wakes: AtomicUsize,
    messages: AtomicUsize,
    resets: AtomicUsize,
    power_offs: AtomicUsize,
    panics: AtomicUsize,
}

impl World {
    fn count(counter: &AtomicUsize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(0);
        self.nanoseconds.fetch_add(by, Ordering::Relaxed);
    }
}

impl WallClock for World {
    fn now(&self) -> Duration {
        Duration::from_secs(1_795_355_158) + self.elapsed()
    }
}

impl MonotonicClock for World {
    fn now(&self) -> Duration {
        self.elapsed()
    }
}

impl Wake for World {
    fn wake(&self) {
        Self::count(&self.wakes);
    }
}

impl PowerSink for World {
    fn power_off(&self) {
        Self::count(&self.power_offs);
    }

    fn reset(&self) {
        Self::count(&self.resets);
    }
}

impl PanicSink for World {
    fn panicked(&self) {
        Self::count(&self.panics);
    }
}

impl MsiSink for World {
    fn send(&self, message: MsiMessage) -> bool {
        assert_eq!(message.address & 0xffff_ffff_fff0_0000, 0xfee0_0000);
        Self::count(&self.messages);
        true
    }
}

impl RouteSink for World {
    fn route_changed(&self, pin: u8, _route: Option<Route>) {
        assert!(pin < 24);
    }
}

/// A machine of all devices.
#[derive(Debug)]
pub struct Machine {
    world: Arc<World>,
    ports: PortBus,
    mmio: MmioBus,
    ioapic: Shared<Ioapic>,
    serial: Shared<Serial>,
    cmos: Shared<Cmos>,
    pm: Shared<AcpiPm>,
    reset_control: Shared<ResetControl>,
    panic_port: Shared<PvPanic>,
    watchdog: Shared<Watchdog>,
    watchdog_function: Shared<WatchdogFunction>,
    console: Arc<ConsoleRing>,
    reader: ConsoleReader,
}

impl Machine {
    /// The legacy devices of machine type reeve-1.0.
    pub fn new() -> Self {
        let world = Arc::new(World::default());
        let ioapic = share(Ioapic::new(world.clone(), world.clone()));
        let line = |pin| Ioapic::irq_line(&ioapic, pin).expect("pin exists");
        let console = Arc::new(ConsoleRing::new(RING, world.clone()));
        let serial = share(Serial::new(line(4), console.clone(), world.clone()));
        let cmos = share(Cmos::new(CmosParams {
            clock: world.clone(),
            irq: line(8),
            timer: world.clone(),
            memory: CmosMemory {
                below_4g: 3 << 30,
                above_4g: 1 << 30,
            },
        }));
        let pm = share(AcpiPm::new(AcpiPmParams {
            timer_width: PmTimerWidth::Bits24,
            clock: world.clone(),
            sci: line(9),
            power: world.clone(),
            timer: world.clone(),
            gpes: Vec::new(),
        }));
        let reset_control = share(ResetControl::new(world.clone()));
        let keyboard = share(I8042::new(world.clone()));
        let panic_port = share(PvPanic::new(PvPanicParams {
            panic: world.clone(),
            power: world.clone(),
            news: world.clone(),
        }));
        let params = WatchdogParams {
            clock: world.clone(),
            irq: line(10),
            timer: world.clone(),
            news: world.clone(),
        };
        let function = WatchdogFunction::new(params, WATCHDOG, 10).expect("a place");
        let watchdog = function.watchdog();
        lock(&watchdog).go_on();
        let (ports, mmio) = (PortBus::new(), MmioBus::new());
        let placed = ports
            .insert(Port(0x3f8), Serial::PORTS, serial.clone())
            .and_then(|()| ports.insert(Port(0x70), Cmos::PORTS, cmos.clone()))
            .and_then(|()| ports.insert(Port(0x600), AcpiPm::PORTS, pm.clone()))
            .and_then(|()| ports.insert(Port(0xcf9), ResetControl::PORTS, reset_control.clone()))
            .and_then(|()| ports.insert_at(Port(0x60), 1, i8042::DATA, keyboard.clone()))
            .and_then(|()| ports.insert_at(Port(0x64), 1, i8042::COMMAND, keyboard))
            .and_then(|()| ports.insert(Port(0x505), PvPanic::PORTS, panic_port.clone()))
            .and_then(|()| mmio.insert(MmioAddress(IOAPIC), Ioapic::MMIO_LEN, ioapic.clone()))
            .and_then(|()| mmio.insert(MmioAddress(WATCHDOG), 0x1000, watchdog.clone()));
        placed.expect("the fixed layout has no overlap");
        let reader = console.reader();
        Self {
            world,
            ports,
            mmio,
            ioapic,
            serial,
            cmos,
            pm,
            reset_control,
            panic_port,
            watchdog,
            watchdog_function: share(function),
            console,
            reader,
        }
    }

    /// Carries out the steps that `bytes` spell, five bytes each.
    pub fn run(&mut self, bytes: &[u8]) {
        for step in bytes.chunks_exact(5) {
            if let [op, place, low, high, last] = *step {
                self.step(op, place, u32::from_le_bytes([low, high, last, place]));
            }
        }
    }

    fn step(&mut self, op: u8, place: u8, value: u32) {
        match op & 0x0f {
            14 => {
                let chunk = self.reader.read(&mut [0; 64]);
                assert!(chunk.len <= 64);
            }
            15 => match place {
                0..32 => self.reset(),
                32..64 => self.save_and_restore(),
                64..96 => lock(&self.watchdog).hold(),
                96..128 => lock(&self.watchdog).go_on(),
                // Pins that no device here drives, and some that do not exist.
                _ => lock(&self.ioapic).set_line(11 + place % 20, value & 1 != 0),
            },
            13 => self.wait_for_next_event(),
            _ => self.access(op, place, value),
        }
        let panics = self.world.panics.load(Ordering::Relaxed);
        assert!(panics <= 1, "told more than once");
        let stats = self.console.stats();
        assert!(stats.written - stats.discarded <= RING as u64);
    }

    /// What several threads may do at once: accesses, EOIs, input, the button, the clock.
    pub fn access(&self, op: u8, place: u8, value: u32) {
        let width = 1 << (op >> 6);
        let [v0, v1, v2, v3] = value.to_le_bytes();
        let data = [v0, v1, v2, v3, v3, v2, v1, v0];
        let data = data.get(..width).unwrap_or_default();
        let mut buffer = [0; 8];
        let buffer = buffer.get_mut(..width).unwrap_or_default();
        match op & 0x0f {
            0..=2 => drop(self.ports.write(port(place), data)),
            3..=5 => drop(self.ports.read(port(place), buffer)),
            6 => {
                // Index and data at once, as guests do it.
                let index = u32::from(place & 0x3f).to_le_bytes();
                self.mmio.write(MmioAddress(IOAPIC), &index);
                self.mmio
                    .write(MmioAddress(IOAPIC + 0x10), &value.to_le_bytes());
            }
            7 => drop(
                self.mmio
                    .write(MmioAddress(IOAPIC + u64::from(place)), data),
            ),
            8 => drop(
                self.mmio
                    .read(MmioAddress(IOAPIC + u64::from(place)), buffer),
            ),
            9 if place & 1 == 0 => self.access_watchdog(place >> 1, value),
            9 => lock(&self.ioapic).end_of_interrupt(place),
            10 => {
                let accepted = lock(&self.serial).enqueue(&[v0; 40]);
                assert!(accepted <= 16);
            }
            11 => lock(&self.pm).press_power_button(),
            12 => self
                .world
                .advance(Duration::from_micros(u64::from(value >> 6))),
            _ => {
                lock(&self.cmos).tick();
                lock(&self.pm).tick();
                lock(&self.watchdog).tick();
            }
        }
    }

    /// Configuration space, registers behind those that unlock them, and what the worker takes.
    fn access_watchdog(&self, place: u8, value: u32) {
        let bytes = value.to_le_bytes();
        let register = |offset: u8| MmioAddress(WATCHDOG + u64::from(offset));
        match place & 7 {
            0 => drop(lock(&self.watchdog_function).write_config(0x60, &bytes[..2])),
            1 => drop(lock(&self.watchdog_function).write_config(0x68, &bytes[..1])),
            2 => {
                let mut read = bytes;
                let place = u16::from(place >> 3) << 2;
                lock(&self.watchdog_function).read_config(0x50 + place, &mut read);
            }
            3 => drop(lock(&self.watchdog).take_expired()),
            4 => drop(lock(&self.panic_port).take_crash_kernel()),
            5 => drop(self.mmio.write(register(place >> 2), &bytes)),
            _ => {
                self.mmio.write(register(12), &[0x80, 0]);
                self.mmio.write(register(12), &[0x86, 0]);
                self.mmio.write(register(place >> 3 & 0xc), &bytes);
            }
        }
    }

    fn wait_for_next_event(&self) {
        let timed: [&std::sync::Mutex<dyn TimedDevice>; 3] =
            [&*self.cmos, &*self.pm, &*self.watchdog];
        let next = timed
            .iter()
            .filter_map(|device| lock(device).next_event())
            .min();
        let Some(wait) = next else { return };
        assert!(wait <= Duration::from_secs(86_401));
        self.world.advance(wait);
        timed.iter().for_each(|device| lock(device).tick());
        // What was waited for has happened: nothing is still due.
        for device in timed {
            assert_ne!(lock(device).next_event(), Some(Duration::ZERO));
        }
    }

    fn saveable(&self) -> [Shared<dyn Saveable>; 7] {
        [
            self.ioapic.clone(),
            self.serial.clone(),
            self.cmos.clone(),
            self.pm.clone(),
            self.reset_control.clone(),
            self.panic_port.clone(),
            self.watchdog_function.clone(),
        ]
    }

    fn save_and_restore(&mut self) {
        let other = Self::new();
        other.world.advance(self.world.elapsed());
        let panics = self.world.panics.load(Ordering::Relaxed);
        other.world.panics.store(panics, Ordering::Relaxed);
        for (ours, theirs) in self.saveable().iter().zip(other.saveable()) {
            let saved = lock(ours).save();
            let version = lock(ours).schema().version;
            let taken = lock(&theirs).restore(version, &saved);
            assert_eq!(taken, Ok(()), "what was saved can be restored");
            assert_eq!(saved, lock(&theirs).save());
        }
        let console = (self.console.clone(), self.reader.position());
        *self = other;
        assert!(console.0.stats().written >= console.1);
    }

    fn reset(&self) {
        self.world.panics.store(0, Ordering::Relaxed);
        let devices: [Shared<dyn Reset>; 7] = [
            self.ioapic.clone(),
            self.serial.clone(),
            self.cmos.clone(),
            self.pm.clone(),
            self.reset_control.clone(),
            self.panic_port.clone(),
            self.watchdog_function.clone(),
        ];
        devices.iter().for_each(|device| lock(device).reset());
        assert_eq!(lock(&self.ioapic).routes(), [None; 24]);
    }

    /// Offers hostile saved state to the device that the first byte names: its own state with as
    /// many bytes changed as the second byte says, each by a pair of position and value, or (255)
    /// the rest of `bytes` as it is. Taken or not, the device works on; the rest drives it.
    pub fn restore(&mut self, bytes: &[u8]) {
        let [unit, changes, rest @ ..] = bytes else {
            return;
        };
        let devices = self.saveable();
        let Some(device) = devices.get(usize::from(*unit)) else {
            return;
        };
        let before = lock(device).save();
        let (changes, rest) = rest.split_at(rest.len().min(2 * usize::from(*changes)));
        let state = if bytes[1] == 255 {
            changes.to_vec()
        } else {
            patch(&before, changes)
        };
        let version = lock(device).schema().version;
        let taken = lock(device).restore(version, &state).is_ok();
        let after = lock(device).save();
        assert_eq!(after.len(), before.len());
        if !taken {
            assert_eq!(after, before);
        }
        // It may say that nothing was told yet.
        self.world.panics.store(0, Ordering::Relaxed);
        self.wait_for_next_event();
        self.run(rest);
        self.save_and_restore();
    }
}

/// `state` with bytes replaced; a position beyond the end cuts it off or makes it longer.
fn patch(state: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut state = state.to_vec();
    for change in changes.chunks_exact(2) {
        let (at, value) = (usize::from(change[0]), change[1]);
        match state.get_mut(at) {
            Some(byte) => *byte = value,
            None if value < 16 => state.truncate(state.len() - usize::from(value).min(state.len())),
            None => state.push(value),
        }
    }
    state
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

/// All ports with a device, and some without.
fn port(place: u8) -> Port {
    let place = u16::from(place);
    Port(match place {
        0x00..0x40 => 0x3f8 + (place & 7),
        0x40..0x80 => 0x70 + (place & 1),
        0x80..0xc0 => 0x600 + (place & 0xf),
        0xc0..0xd8 => 0x60 + (place & 7),
        0xd8..0xe0 => 0x504 + (place & 3),
        0xe0..0xf0 => 0xcf8 + (place & 7),
        _ => 0xfff0 + (place & 0xf),
    })
}
