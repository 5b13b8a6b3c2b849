//! A guest with one virtio device on PCI: its driver, good or bad, the host's side of the device, and
//! the control thread, in whatever order the input says.
//!
//! Every device runs as it does in a worker process, but for its thread, which is driven step by step.
//! What must hold whatever happens: nothing panics, the device's thread comes to rest, no more chains
//! are given back than were taken, and what `save` writes can be restored and is then saved again.

use std::sync::Arc;
use std::time::Instant;

use reeve_devices::memory::GuestRam;
use reeve_devices::pci::{PciFunction, Slot};
use reeve_devices::shared::{Shared, lock, share};
use reeve_devices::state::Saveable;
use reeve_devices::virtio::VirtioDevice;
use reeve_devices::virtio::transport::negotiation::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK};
use reeve_devices::virtio::transport::pci::{Surroundings, VirtioPci};
use reeve_devices::virtio::transport::registers::{
    BAR_BYTES, COMMON, CONFIG, MSIX_TABLE, NOTIFY, NOTIFY_STRIDE, Registers,
};

use super::bus::{Bus, WINDOW, ram};
use super::driver::{DATA, Driver, Piece, address};
use super::input::Input;
use super::thread::Thread;

/// The most steps of one input.
const STEPS: usize = 600;
/// `VIRTIO_F_VERSION_1`.
const VERSION_1: u64 = 1 << 32;

/// A kind of device, and the host's side of one.
pub trait Subject {
    /// Chooses what the device is like.
    fn new(input: &mut Input<'_>) -> Self;

    /// A device in its power-on state, on the host's side there is now. The one made before is not
    /// used any more, nor its end of the host's side.
    fn device(&mut self, ram: &GuestRam) -> Box<dyn VirtioDevice>;

    /// A request as a driver would make it for queue `queue`, or nearly.
    fn request(&mut self, queue: usize, input: &mut Input<'_>) -> Vec<Piece>;

    /// Something happens on the host's side.
    fn host(&mut self, input: &mut Input<'_>);

    /// What must hold at any time.
    fn check(&mut self);
}

/// Any chain.
pub fn pieces(input: &mut Input<'_>) -> Vec<Piece> {
    let count = input.below(9);
    let mut pieces: Vec<_> = (0..count)
        .map(|_| match input.u8() & 3 {
            0 | 1 => Piece::Out(input.short().to_vec()),
            _ => Piece::In(input.len()),
        })
        .collect();
    // Mostly in the order that there must be.
    if input.u8() & 7 != 0 {
        pieces.sort_by_key(|piece| matches!(piece, Piece::In(_)));
    }
    pieces
}

/// The machine.
struct Guest<S> {
    subject: S,
    bus: Bus,
    ram: GuestRam,
    slot: Slot,
    function: Shared<VirtioPci>,
    registers: Shared<Registers>,
    thread: Arc<Thread>,
    eager: bool,
    drivers: Vec<Driver>,
    place: u64,
}

/// Drives a device of kind `S` by `bytes`.
pub fn run<S: Subject>(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut guest = Guest::<S>::new(&mut input);
    guest.bring_up(&mut input);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        guest.step(&mut input);
    }
    guest.end();
}

fn function(
    subject: &mut impl Subject,
    bus: &Bus,
    ram: &GuestRam,
    thread: &Arc<Thread>,
) -> VirtioPci {
    let surroundings = Surroundings {
        ram: ram.clone(),
        messages: bus.world.clone(),
        doorbells: bus.world.clone(),
    };
    let device = subject.device(ram);
    VirtioPci::new(device, thread.clone(), surroundings, WINDOW).expect("a function")
}

impl<S: Subject> Guest<S> {
    fn new(input: &mut Input<'_>) -> Self {
        let options = input.u8();
        let eager = options & 1 != 0;
        let (bus, ram) = (Bus::new(options & 2 != 0), ram());
        let thread = Arc::new(Thread::new(eager));
        let mut subject = S::new(input);
        let function = function(&mut subject, &bus, &ram, &thread);
        let registers = function.registers();
        let function = share(function);
        let slot = Slot::new(1).expect("a slot");
        bus.root.insert(slot, function.clone()).expect("it is free");
        Self {
            subject,
            bus,
            ram,
            slot,
            function,
            registers,
            thread,
            eager,
            drivers: Vec::new(),
            place: DATA,
        }
    }

    /// Where the BAR is, if it is.
    fn bar(&self) -> Option<u64> {
        let [Some(bar), ..] = lock(&self.function).bars() else {
            return None;
        };
        bar.address
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some(bar) = self.bar() {
            self.bus.write(bar + offset, data);
        }
    }

    fn read_u32(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        if let Some(bar) = self.bar() {
            self.bus.read(bar + offset, &mut data);
        }
        u32::from_le_bytes(data)
    }

    fn set_status(&self, status: u8) {
        self.write(COMMON + 0x14, &[status]);
    }

    /// What a driver does to use the device, with some of the features and queues there are.
    fn bring_up(&mut self, input: &mut Input<'_>) {
        let how = input.u8();
        // Memory space and bus master, and MSI-X with all vectors masked but the first.
        self.bus.write_config(self.slot, 4, &[6, 0]);
        self.bus.write_config(self.slot, 0x42, &[0, 0x80]);
        self.write(MSIX_TABLE + 12, &[0; 4]);
        self.set_status(0);
        self.thread.run();
        self.set_status(ACKNOWLEDGE);
        self.set_status(ACKNOWLEDGE | DRIVER);
        let mask = if how & 1 == 0 { u64::MAX } else { input.u64() };
        for half in 0..2_u8 {
            self.write(COMMON, &[half, 0, 0, 0]);
            self.write(COMMON + 8, &[half, 0, 0, 0]);
            let wanted = (mask | VERSION_1) >> (32 * half) & u64::from(u32::MAX);
            let wanted = u32::try_from(wanted).unwrap_or(0);
            let features = self.read_u32(COMMON + 4) & wanted;
            self.write(COMMON + 0xc, &features.to_le_bytes());
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        let unused = if how & 2 == 0 { 0 } else { input.u16() };
        self.drivers.clear();
        let sizes = lock(&self.registers)
            .negotiation()
            .device()
            .queue_sizes()
            .to_vec();
        for (index, size) in sizes.into_iter().enumerate() {
            let driver = Driver::new(index, size >> (how >> 6));
            let layout = driver.layout;
            let number = u8::try_from(index).unwrap_or(u8::MAX);
            self.ram
                .write(layout.available, &[0; 4])
                .and_then(|()| self.ram.write(layout.used, &[0; 4]))
                .expect("rings are in RAM");
            self.write(COMMON + 0x16, &[number, 0]);
            self.write(COMMON + 0x18, &layout.size.to_le_bytes());
            self.write(COMMON + 0x1a, &[0; 2]);
            self.write(COMMON + 0x20, &layout.descriptors.to_le_bytes());
            self.write(COMMON + 0x28, &layout.available.to_le_bytes());
            self.write(COMMON + 0x30, &layout.used.to_le_bytes());
            if unused >> (index & 15) & 1 == 0 {
                self.write(COMMON + 0x1c, &[1, 0]);
            }
            self.drivers.push(driver);
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        self.thread.run();
    }

    fn kick(&self, queue: usize) {
        self.write(NOTIFY + queue as u64 * NOTIFY_STRIDE, &[0; 2]);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let op = input.u8();
        // What is not followed at once by the device's thread comes together with what is next.
        let follow = op & 0x80 == 0;
        match op & 0x1f {
            0..=9 => {
                let place = input.u8();
                let queue = usize::from(place) % self.drivers.len();
                let pieces = if op & 0x40 == 0 {
                    self.subject.request(queue, input)
                } else {
                    pieces(input)
                };
                let (ram, place, indirect) = (&self.ram, &mut self.place, place & 0x80 != 0);
                self.drivers[queue].submit(ram, place, &pieces, indirect);
                self.kick(queue);
            }
            10..=15 => self.subject.host(input),
            16 | 17 => {
                let queue = input.below(self.drivers.len());
                self.drivers[queue].misbehave(&self.ram, input);
                if op & 0x40 == 0 {
                    self.kick(queue);
                }
            }
            18 => {
                let place = address(input);
                let _ = self.ram.write(place, input.short());
            }
            19 => self.kick(input.u16().into()),
            20 => self.access_config(input),
            21..=23 => self.access_bar(input),
            24 => self.set_status(input.u8()),
            25 => self.bring_up(input),
            26 => {
                self.pause();
                self.bus.reset();
            }
            27 => {
                self.pause();
                if op & 0x40 != 0 {
                    self.subject.host(input);
                }
                self.resume();
            }
            28 => {
                self.pause();
                self.save_and_restore();
                self.resume();
            }
            29 => {
                self.pause();
                self.restore_hostile(input);
                self.resume();
            }
            _ => {
                let (offset, mut data) = (CONFIG + u64::from(input.u8()), [0; 8]);
                let data = &mut data[..1 << input.below(4)];
                if let Some(bar) = self.bar() {
                    self.bus.read(bar + offset, data);
                    if op & 0x40 != 0 {
                        self.bus.write(bar + offset, input.bytes(data.len()));
                    }
                }
            }
        }
        if follow {
            self.thread.run();
        }
        self.subject.check();
    }

    fn access_config(&self, input: &mut Input<'_>) {
        let (register, how) = (u16::from(input.u8()), input.u8());
        let register = register | u16::from(how & 0x40) << 4;
        let mut data = [0; 8];
        let data = &mut data[..usize::from(how & 7)];
        if how & 0x80 == 0 {
            self.bus
                .write_config(self.slot, register, input.bytes(data.len()));
        } else {
            self.bus.read_config(self.slot, register, data);
        }
    }

    fn access_bar(&self, input: &mut Input<'_>) {
        let Some(bar) = self.bar() else { return };
        let (place, how) = (u64::from(input.u16()), input.u8());
        // Half of the accesses go to the registers that there are most of.
        let offset = if how & 0x40 == 0 {
            COMMON + (place & 0x3f)
        } else {
            place % (BAR_BYTES + 8)
        };
        let mut data = [0; 8];
        let data = &mut data[..1 << (how & 3)];
        if how & 0x80 == 0 {
            self.bus.write(bar + offset, input.bytes(data.len()));
        } else {
            self.bus.read(bar + offset, data);
        }
    }

    /// As the control thread does it.
    fn pause(&self) {
        lock(&self.registers).negotiation().order_stop();
        self.thread.run();
        let mut registers = lock(&self.registers);
        assert!(registers.negotiation().stop(Instant::now()));
        registers.rebind();
        let saveable = registers.negotiation().device().check_saveable();
        assert_eq!(saveable, Ok(()));
        drop(registers);
        self.thread.run();
        assert!(self.thread.is_idle());
    }

    fn resume(&self) {
        let mut registers = lock(&self.registers);
        registers.negotiation().resume();
        registers.rebind();
    }

    /// A machine that is not this one, and its device.
    fn other(&mut self) -> (Arc<Thread>, VirtioPci) {
        let thread = Arc::new(Thread::new(self.eager));
        let function = function(&mut self.subject, &self.bus, &self.ram, &thread);
        (thread, function)
    }

    fn replace(&mut self, (thread, function): (Arc<Thread>, VirtioPci)) {
        self.bus.root.remove(self.slot).expect("the device");
        self.thread = thread;
        self.registers = function.registers();
        self.function = share(function);
        let function = self.function.clone();
        self.bus
            .root
            .insert(self.slot, function)
            .expect("it is free");
    }

    fn save_and_restore(&mut self) {
        let (version, saved) = {
            let function = lock(&self.function);
            (function.schema().version, function.save())
        };
        let mut other = self.other();
        let taken = other.1.restore(version, &saved);
        assert_eq!(taken, Ok(()), "what was saved can be restored");
        assert_eq!(other.1.save(), saved);
        self.replace(other);
    }

    /// Takes saved state in which bytes were changed, if the device does.
    fn restore_hostile(&mut self, input: &mut Input<'_>) {
        let (version, mut saved) = {
            let function = lock(&self.function);
            (function.schema().version, function.save())
        };
        for _ in 0..=input.below(4) {
            // From the end, where the device's own state is.
            let at = saved
                .len()
                .wrapping_sub(1 + usize::from(input.u16() & 0x1ff));
            match saved.get_mut(at) {
                Some(byte) => *byte = input.u8(),
                None => saved.truncate(saved.len().saturating_sub(input.u8().into())),
            }
        }
        let mut other = self.other();
        let before = other.1.save();
        match other.1.restore(version, &saved) {
            Ok(()) => {
                let taken = other.1.save();
                let mut third = self.other();
                assert_eq!(third.1.restore(version, &taken), Ok(()));
                assert_eq!(third.1.save(), taken);
                self.replace(third);
            }
            Err(_) => {
                assert_eq!(other.1.save(), before, "what is refused changes nothing");
                self.replace(other);
            }
        }
    }

    fn end(mut self) {
        self.thread.run();
        self.subject.check();
        self.pause();
        self.save_and_restore();
        self.subject.check();
        self.bus.check();
        self.bus.reset();
    }
}
