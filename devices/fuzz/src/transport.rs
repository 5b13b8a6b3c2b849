//! Configuration space, BARs, MSI-X and the common configuration of several functions on one bus, by
//! accesses of any width to any place.

use std::sync::Arc;
use std::time::Instant;

use reeve_devices::memory::GuestRam;
use reeve_devices::pci::{PciFunction, Slot};
use reeve_devices::power::Reset;
use reeve_devices::reactor::Sources;
use reeve_devices::shared::{Shared, lock, share};
use reeve_devices::state::{Saveable, StateError};
use reeve_devices::virtio::chain::Chain;
use reeve_devices::virtio::transport::pci::{Surroundings, VirtioPci};
use reeve_devices::virtio::transport::registers::{BAR_BYTES, COMMON};
use reeve_devices::virtio::{
    BrokenQueue, DeviceId, Progress, QueueWorker, RunningQueue, Start, StartError, VirtioDevice,
};

use super::bus::{Bus, ECAM, RAM, WINDOW, WINDOW_BYTES, WINDOW_HIGH, ram};
use super::input::Input;
use super::thread::Thread;

/// The most steps of one input.
const STEPS: usize = 400;
/// Functions, in the slots from the first on.
const FUNCTIONS: u8 = 3;

/// A device that gives back what it takes.
struct Echo {
    sizes: &'static [u16],
    config: [u8; 16],
}

impl VirtioDevice for Echo {
    fn id(&self) -> DeviceId {
        DeviceId::Entropy
    }

    fn features(&self) -> u64 {
        0x8000_0000_0000_0001
    }

    fn queue_sizes(&self) -> &[u16] {
        self.sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        assert!(matches!(data.len(), 1 | 2 | 4 | 8));
        for (byte, at) in data.iter_mut().zip(offset..) {
            let at = usize::try_from(at).expect("an offset");
            *byte = self.config.get(at).copied().unwrap_or(0);
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        for (byte, at) in data.iter().zip(offset..) {
            let at = usize::try_from(at).expect("an offset");
            if let Some(place) = self.config.get_mut(at) {
                *place = *byte;
            }
        }
    }

    fn start(&mut self, start: Start) -> Result<Vec<Box<dyn QueueWorker>>, StartError> {
        // All that the driver has agreed to was offered.
        let transport = 1 << 28 | 1 << 29 | 1 << 32;
        assert_eq!(start.features & !(self.features() | transport), 0);
        let queues: Vec<_> = start.queues.into_iter().flatten().collect();
        if queues.is_empty() {
            return Err(StartError::MissingQueue(0));
        }
        Ok(queues
            .into_iter()
            .map(|queue| Box::new(EchoWorker(queue, BrokenQueue::new("echo"))) as _)
            .collect())
    }

    fn save(&self) -> Vec<u8> {
        self.config.to_vec()
    }

    fn restore(&mut self, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        assert_eq!(version, 1);
        let field = "config";
        self.config = bytes
            .try_into()
            .map_err(|_| StateError::Invalid { field })?;
        Ok(())
    }

    fn reset(&mut self) {
        self.config = [0; 16];
    }
}

struct EchoWorker(RunningQueue, BrokenQueue);

impl QueueWorker for EchoWorker {
    fn start(&mut self, sources: &Sources<'_>) {
        self.0.listen(sources, 0, &mut self.1);
    }

    fn ready(&mut self, _token: u32, _hung_up: bool, sources: &Sources<'_>) {
        let result = self.0.turn(&mut Chain::new(), |_, _| Ok(Some(0)));
        self.1.note(result, &*self.0.interrupts);
        if self.1.is_broken() {
            self.0.deafen(sources);
        }
    }

    fn stop(self: Box<Self>, sources: &Sources<'_>) -> Progress {
        self.0.deafen(sources);
        vec![(self.0.index, self.0.queue.progress())]
    }
}

/// A function, in its slot or out of it.
struct Place {
    function: Shared<VirtioPci>,
    thread: Arc<Thread>,
    is_in: bool,
}

struct Machine {
    bus: Bus,
    ram: GuestRam,
    places: Vec<Place>,
    eager: bool,
    /// One function has more vectors than a word of pending bits, which takes time.
    wide: bool,
}

fn slot(number: usize) -> Slot {
    u8::try_from(number + 1)
        .ok()
        .and_then(Slot::new)
        .expect("few functions")
}

impl Machine {
    fn new(input: &mut Input<'_>) -> Self {
        let options = input.u8();
        let mut machine = Self {
            bus: Bus::new(options & 1 != 0),
            ram: ram(),
            places: Vec::new(),
            eager: options & 2 != 0,
            wide: options & 0xc == 0xc,
        };
        for number in 0..FUNCTIONS.into() {
            let place = machine.make(number);
            machine.places.push(place);
            machine.insert(number);
        }
        machine
    }

    fn make(&self, number: usize) -> Place {
        let thread = Arc::new(Thread::new(self.eager));
        let surroundings = Surroundings {
            ram: self.ram.clone(),
            messages: self.bus.world.clone(),
            doorbells: self.bus.world.clone(),
        };
        let last: &[u16] = if self.wide { &[2; 70] } else { &[2; 5] };
        let echo = Echo {
            sizes: [&[8, 16][..], &[1024], last][number % 3],
            config: [0; 16],
        };
        let bar = WINDOW + number as u64 * BAR_BYTES;
        let function = VirtioPci::new(Box::new(echo), thread.clone(), surroundings, bar);
        Place {
            function: share(function.expect("a function")),
            thread,
            is_in: false,
        }
    }

    fn insert(&mut self, number: usize) {
        let place = &mut self.places[number];
        let function = place.function.clone();
        let taken = self.bus.root.insert(slot(number), function);
        assert_eq!(taken.is_ok(), !place.is_in);
        place.is_in = true;
    }

    fn bar(&self, number: usize) -> Option<u64> {
        let [Some(bar), ..] = lock(&self.places[number].function).bars() else {
            return None;
        };
        bar.address
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let (op, place) = (input.u8(), input.u8());
        let number = usize::from(place) % self.places.len();
        let mut data = [0; 16];
        // Widths that there are, and some that there are not.
        let width = [1, 2, 4, 8, 4, 3, 0, 16][usize::from(op >> 5)];
        match op & 31 {
            0..=3 => {
                let register = u16::from(input.u8()) | u16::from(place & 0xc0) << 4;
                self.bus
                    .write_config(slot(number), register, input.bytes(width));
            }
            4 | 5 => {
                let register = u16::from(input.u8()) | u16::from(place & 0xc0) << 4;
                self.bus
                    .read_config(slot(number), register, &mut data[..width]);
            }
            6 => {
                let address = ECAM + u64::from(input.u32() & 0x3f_ffff);
                self.bus.write(address, input.bytes(width));
                self.bus.read(address, &mut data[..width]);
            }
            7 => {
                let port = 0xcf8 + u16::from(place & 15);
                self.bus.out(port, input.bytes(width));
                self.bus.input(port, &mut data[..width]);
            }
            8 => {
                // Address and data at once, as guests do it.
                let (register, bus) = (input.u8(), input.u8() & 1);
                let address = [register, place & 0x1f, bus, 0x80];
                self.bus.out(0xcf8, &address);
                let port = 0xcfc + u16::from(place >> 6);
                self.bus.input(port, &mut data[..width]);
                self.bus.out(port, input.bytes(width));
            }
            // The BAR, somewhere in a window or around it.
            9 | 10 => {
                let at = u32::from(input.u16()) << 12;
                let low = u32::try_from(WINDOW).expect("32 bits").wrapping_add(at);
                let high = match place >> 6 {
                    0..=2 => [0; 4],
                    _ => [u8::from(at & 0x1000 != 0) << 7, 0, 0, 0],
                };
                self.bus
                    .write_config(slot(number), 0x10, &low.to_le_bytes());
                self.bus.write_config(slot(number), 0x14, &high);
                self.bus.write_config(slot(number), 4, &[6, 0]);
            }
            11..=18 => {
                let Some(bar) = self.bar(number) else { return };
                let offset = match place >> 6 {
                    0 | 1 => COMMON + u64::from(input.u8() & 0x3f),
                    2 => 0x3000 + u64::from(input.u16() & 0x17ff),
                    _ => u64::from(input.u16()) % (BAR_BYTES + 8),
                };
                if op & 3 == 3 {
                    self.bus.read(bar + offset, &mut data[..width]);
                } else {
                    self.bus.write(bar + offset, input.bytes(width));
                }
            }
            19 => self.set_up(number, input.u8()),
            20 => {
                let window = [WINDOW, WINDOW_HIGH][usize::from(place >> 7)];
                let address = window + u64::from(input.u32()) % (WINDOW_BYTES + 16);
                self.bus.write(address, input.bytes(width));
                self.bus.read(address, &mut data[..width]);
            }
            21 => {
                let address = u64::from(input.u16()) << 2;
                let _ = self.ram.write(address % RAM, input.short());
            }
            22 | 23 => self.places[number].thread.run(),
            24 => {
                self.pause(number);
                let function = &self.places[number].function;
                let registers = lock(function).registers();
                let mut registers = lock(&registers);
                registers.negotiation().resume();
                registers.rebind();
            }
            25 => {
                self.pause(number);
                self.save_and_restore(number);
            }
            26 => {
                let taken = self.bus.root.remove(slot(number));
                assert_eq!(taken.is_some(), self.places[number].is_in);
                self.places[number].is_in = false;
            }
            27 => self.insert(number),
            28 => {
                (0..self.places.len()).for_each(|number| self.pause(number));
                // Those that are out are reset by who put them there.
                for place in self.places.iter().filter(|place| !place.is_in) {
                    lock(&place.function).reset();
                }
                self.bus.reset();
            }
            29 => self.restore_hostile(number, input),
            // The registers' window in configuration space.
            _ => {
                let offset = u32::from(input.u16()).to_le_bytes();
                let window = self.window(number);
                self.bus.write_config(slot(number), window + 4, &[0]);
                self.bus.write_config(slot(number), window + 8, &offset);
                let len = [u8::try_from(width).unwrap_or(0), 0, 0, 0];
                self.bus.write_config(slot(number), window + 12, &len);
                self.bus
                    .read_config(slot(number), window + 16, &mut data[..4]);
                self.bus
                    .write_config(slot(number), window + 16, input.bytes(4));
            }
        }
        self.check(number);
    }

    /// Where the capability of the window is: the last of the list.
    fn window(&self, number: usize) -> u16 {
        let mut at = [0x34];
        let mut last = 0;
        lock(&self.places[number].function).read_config(0x34, &mut at);
        while at[0] != 0 {
            last = at[0].into();
            lock(&self.places[number].function).read_config(last + 1, &mut at);
        }
        last
    }

    /// A driver that does as it should, as far as `how` says.
    fn set_up(&self, number: usize, how: u8) {
        self.bus.write_config(slot(number), 4, &[6, 0]);
        self.bus.write_config(slot(number), 0x42, &[0, 0x80]);
        let Some(bar) = self.bar(number) else { return };
        let write = |offset, data: &[u8]| self.bus.write(bar + COMMON + offset, data);
        write(0x14, &[0]);
        self.places[number].thread.run();
        write(0x14, &[3]);
        write(0x08, &[1, 0, 0, 0]);
        write(0x0c, &[how & 1 ^ 1, 0, 0, 0]);
        write(0x14, &[0xb]);
        for queue in 0..how >> 4 {
            write(0x16, &[queue, 0]);
            write(0x18, &[2, 0]);
            let base = 0x1000 * (u64::from(queue) + 1);
            for (register, offset) in [(0x20, 0), (0x28, 0x100), (0x30, 0x200)] {
                write(register, &(base + offset).to_le_bytes());
            }
            write(0x1a, &[queue, 0]);
            write(0x1c, &[1, 0]);
        }
        write(0x14, &[0xf]);
        self.places[number].thread.run();
    }

    fn pause(&self, number: usize) {
        let place = &self.places[number];
        let registers = lock(&place.function).registers();
        lock(&registers).negotiation().order_stop();
        place.thread.run();
        let mut registers = lock(&registers);
        assert!(registers.negotiation().stop(Instant::now()));
        registers.rebind();
    }

    fn replace(&mut self, number: usize, new: Place) {
        let was_in = self.places[number].is_in;
        if was_in {
            self.bus.root.remove(slot(number)).expect("the function");
        }
        self.places[number] = new;
        if was_in {
            self.insert(number);
        }
    }

    fn save_and_restore(&mut self, number: usize) {
        let (version, saved) = {
            let function = lock(&self.places[number].function);
            (function.schema().version, function.save())
        };
        let new = self.make(number);
        assert_eq!(lock(&new.function).restore(version, &saved), Ok(()));
        assert_eq!(lock(&new.function).save(), saved);
        self.replace(number, new);
    }

    fn restore_hostile(&mut self, number: usize, input: &mut Input<'_>) {
        self.pause(number);
        let (version, mut saved) = {
            let function = lock(&self.places[number].function);
            (function.schema().version, function.save())
        };
        for _ in 0..=input.below(4) {
            let at = usize::from(input.u16() & 0x7ff);
            match saved.get_mut(at) {
                Some(byte) => *byte = input.u8(),
                None => saved.truncate(saved.len().saturating_sub(input.u8().into())),
            }
        }
        let new = self.make(number);
        let before = lock(&new.function).save();
        let taken = lock(&new.function).restore(version, &saved);
        if taken.is_err() {
            assert_eq!(lock(&new.function).save(), before);
        }
        self.replace(number, new);
    }

    /// What a guest cannot change is as it was.
    fn check(&self, number: usize) {
        let mut id = [0; 4];
        self.bus.read_config(slot(number), 0, &mut id);
        let there = self.places[number].is_in;
        assert_eq!(
            id,
            if there {
                [0xf4, 0x1a, 0x44, 0x10]
            } else {
                [0xff; 4]
            }
        );
        let mut class = [0; 4];
        self.bus.read_config(slot(number), 8, &mut class);
        assert_eq!(class, if there { [1, 0, 0, 0xff] } else { [0xff; 4] });
        if let Some(bar) = self.bar(number) {
            assert_eq!(bar % BAR_BYTES, 0);
        }
    }
}

/// Drives the functions by `bytes`.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut machine = Machine::new(&mut input);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        machine.step(&mut input);
    }
    for number in 0..machine.places.len() {
        machine.pause(number);
        machine.save_and_restore(number);
    }
    for place in machine.places.iter().filter(|place| !place.is_in) {
        lock(&place.function).reset();
    }
    machine.bus.check();
    machine.bus.reset();
}
