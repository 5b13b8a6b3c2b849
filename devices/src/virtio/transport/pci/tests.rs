use std::sync::Mutex;

use super::super::registers::NoDoorbells;
use super::*;
use crate::event::Event;
use crate::irq::MsiMessage;
use crate::memory::testing::ram;
use crate::virtio::{Executor, Progress, QueueWorker, Remains, Start, StartError, Stopped};

const BAR_ADDRESS: u64 = 0xc000_0000;
const COMMAND: u16 = 4;
const MEMORY: u32 = 2;
const BUS_MASTER: u32 = 4;

#[derive(Debug, Default)]
struct Sent(Mutex<Vec<MsiMessage>>);

impl MsiSink for Sent {
    fn send(&self, message: MsiMessage) -> bool {
        lock(&self.0).push(message);
        true
    }
}

#[derive(Debug)]
struct Nobody;

impl Executor for Nobody {
    fn run(&self, _workers: Vec<Box<dyn QueueWorker>>) {}

    fn stop(&self, done: Stopped) {
        done(Progress::new());
    }

    fn discard(&self, _remains: Remains) {}
}

#[derive(Debug, Default)]
struct Bells(Mutex<Vec<u64>>);

impl Doorbells for Bells {
    fn bind(&self, address: u64, _event: &Event) -> bool {
        lock(&self.0).push(address);
        true
    }

    fn unbind(&self, address: u64, _event: &Event) {
        lock(&self.0).retain(|bound| *bound != address);
    }
}

struct Device;

impl VirtioDevice for Device {
    fn id(&self) -> DeviceId {
        DeviceId::Entropy
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[8, 8]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.fill((offset & 0xff) as u8);
    }

    fn start(&mut self, _start: Start) -> Result<Vec<Box<dyn QueueWorker>>, StartError> {
        Ok(Vec::new())
    }
}

fn function(doorbells: Arc<dyn Doorbells>) -> (VirtioPci, Arc<Sent>) {
    let sent = Arc::new(Sent::default());
    let surroundings = Surroundings {
        ram: ram(0x1_0000),
        messages: Arc::clone(&sent) as _,
        doorbells,
    };
    let function = VirtioPci::new(
        Box::new(Device),
        Arc::new(Nobody),
        surroundings,
        BAR_ADDRESS,
    )
    .expect("eventfds");
    (function, sent)
}

fn read(function: &mut VirtioPci, register: u16) -> u32 {
    let mut data = [0; 4];
    function.read_config(register, &mut data);
    u32::from_le_bytes(data)
}

fn write(function: &mut VirtioPci, register: u16, value: u32) {
    let _ = function.write_config(register, &value.to_le_bytes());
}

/// Lets the device reach memory, sets it up with both queues and lets it run.
fn run(function: &mut VirtioPci) {
    write(function, COMMAND, MEMORY | BUS_MASTER);
    set_up(function);
}

/// Sets the device up with both queues; its driver is ready.
fn set_up(function: &VirtioPci) {
    let registers = function.registers();
    let mut registers = lock(&registers);
    let mut write = |offset: u64, data: &[u8]| {
        registers.write(offset, data).expect("a register");
    };
    write(0x14, &[3]);
    write(0x08, &1_u32.to_le_bytes());
    write(0x0c, &1_u32.to_le_bytes());
    write(0x14, &[11]);
    for queue in 0..2_u16 {
        write(0x16, &queue.to_le_bytes());
        write(0x1a, &queue.to_le_bytes());
        write(0x20, &0x1000_u32.to_le_bytes());
        write(0x24, &0_u32.to_le_bytes());
        write(0x28, &0x2000_u64.to_le_bytes());
        write(0x30, &0x3000_u64.to_le_bytes());
        write(0x1c, &1_u16.to_le_bytes());
    }
    write(0x14, &[15]);
}

#[test]
fn a_driver_finds_the_registers_by_the_capabilities() {
    let (mut function, _) = function(Arc::new(NoDoorbells));
    assert_eq!(read(&mut function, 0), 0x1044_1af4);
    let mut at = (read(&mut function, 0x34) & 0xff) as u16;
    let mut kinds = Vec::new();
    while at != 0 {
        let head = read(&mut function, at);
        if head & 0xff == u32::from(VENDOR_SPECIFIC) {
            let kind = (head >> 24) as u8;
            let place = (read(&mut function, at + 8), read(&mut function, at + 12));
            kinds.push((kind, place.0, place.1));
        }
        at = (head >> 8 & 0xff) as u16;
    }
    assert_eq!(
        kinds,
        [
            (TYPE_COMMON, 0, 0x40),
            (TYPE_ISR, 0x800, 1),
            (TYPE_DEVICE, 0x1000, 0x1000),
            (TYPE_NOTIFY, 0x2000, 0x1000),
            (TYPE_WINDOW, 0, 0),
        ]
    );
}

#[test]
fn the_bar_can_be_reached_through_configuration_space() {
    let (mut function, _) = function(Arc::new(NoDoorbells));
    let window = function.window;
    write(&mut function, window + WINDOW_OFFSET, 0x12);
    write(&mut function, window + WINDOW_LENGTH, 2);
    assert_eq!(read(&mut function, window + WINDOW_DATA), 2, "two queues");
    write(&mut function, window + WINDOW_OFFSET, 0x14);
    write(&mut function, window + WINDOW_LENGTH, 1);
    write(&mut function, window + WINDOW_DATA, 1);
    assert_eq!(lock(&function.registers).negotiation().status(), 1);
    // Nonsense reaches nothing.
    for (offset, length) in [
        (0x7fff, 2),
        (u32::MAX, 4),
        (0, 3),
        (0, u32::MAX),
        (0x8000, 1),
    ] {
        write(&mut function, window + WINDOW_OFFSET, offset);
        write(&mut function, window + WINDOW_LENGTH, length);
        assert_eq!(read(&mut function, window + WINDOW_DATA), 0);
        write(&mut function, window + WINDOW_DATA, u32::MAX);
    }
}

#[test]
fn notifications_are_bound_where_the_bar_is_while_the_device_runs() {
    let bells = Arc::new(Bells::default());
    let (mut function, _) = function(Arc::clone(&bells) as _);
    function.bar_moved(BAR, Some(BAR_ADDRESS));
    assert!(lock(&bells.0).is_empty());
    run(&mut function);
    assert_eq!(
        *lock(&bells.0),
        [BAR_ADDRESS + 0x2000, BAR_ADDRESS + 0x2004]
    );
    function.bar_moved(BAR, Some(0xd000_0000));
    assert_eq!(*lock(&bells.0), [0xd000_2000, 0xd000_2004]);
    function.bar_moved(BAR, None);
    assert!(lock(&bells.0).is_empty());
    function.bar_moved(BAR, Some(BAR_ADDRESS));
    lock(&function.registers)
        .write(0x14, &[0])
        .expect("a register");
    assert!(lock(&bells.0).is_empty());
}

#[test]
fn a_notification_that_no_doorbell_takes_signals_the_queue() {
    let (mut function, _) = function(Arc::new(NoDoorbells));
    run(&mut function);
    let registers = function.registers();
    let mut registers = lock(&registers);
    for (offset, data) in [(0x2004, 1_u16), (0x2ffc, 0xffff), (0x2008, 2)] {
        registers
            .write(offset, &data.to_le_bytes())
            .expect("a register");
    }
    let negotiation = registers.negotiation();
    assert!(!negotiation.kick(0).expect("there").take());
    assert!(negotiation.kick(1).expect("there").take());
}

#[test]
fn a_driver_that_is_ready_first_is_served_once_the_device_may_reach_memory() {
    let bells = Arc::new(Bells::default());
    let (mut function, _) = function(Arc::clone(&bells) as _);
    function.bar_moved(BAR, Some(BAR_ADDRESS));
    write(&mut function, COMMAND, MEMORY);
    set_up(&function);
    let registers = function.registers();
    let status = |registers: &Shared<Registers>| lock(registers).negotiation().status();
    assert!(!lock(&registers).negotiation().is_running());
    assert_eq!(status(&registers), 15);
    lock(&registers)
        .write(0x2000, &0_u16.to_le_bytes())
        .expect("a register");
    write(&mut function, COMMAND, MEMORY | BUS_MASTER);
    assert!(lock(&registers).negotiation().is_running());
    assert_eq!(status(&registers), 15);
    assert_eq!(lock(&bells.0).len(), 2);
    let kick = lock(&registers).negotiation().kick(0).cloned();
    assert!(kick.expect("there").take(), "made up for");
}

#[test]
fn a_device_that_may_not_reach_memory_any_more_stops() {
    let bells = Arc::new(Bells::default());
    let (mut function, _) = function(Arc::clone(&bells) as _);
    function.bar_moved(BAR, Some(BAR_ADDRESS));
    run(&mut function);
    let registers = function.registers();
    write(&mut function, COMMAND, MEMORY);
    assert!(!lock(&registers).negotiation().is_running());
    assert!(lock(&bells.0).is_empty());
    lock(&registers)
        .write(0x2004, &1_u16.to_le_bytes())
        .expect("a register");
    assert!(!lock(&registers).negotiation().is_running());
    write(&mut function, COMMAND, MEMORY | BUS_MASTER);
    assert!(lock(&registers).negotiation().is_running());
    assert_eq!(lock(&bells.0).len(), 2);
    // As the kernel that was begun by kexec finds it.
    write(&mut function, COMMAND, 0);
    lock(&registers).write(0x14, &[0]).expect("a register");
    write(&mut function, COMMAND, MEMORY | BUS_MASTER);
    assert!(!lock(&registers).negotiation().is_running());
    run(&mut function);
    assert!(lock(&registers).negotiation().is_running());
    function.reset();
    set_up(&function);
    assert!(
        !lock(&registers).negotiation().is_running(),
        "after power-on it may not"
    );
}

#[test]
fn a_restored_function_reaches_memory_only_if_it_could() {
    let (mut from, _) = function(Arc::new(NoDoorbells));
    run(&mut from);
    write(&mut from, COMMAND, MEMORY);
    let record = from.save();
    let (mut to, _) = function(Arc::new(NoDoorbells));
    to.restore(2, &record).expect("our own record");
    let registers = to.registers();
    lock(&registers).negotiation().resume();
    assert!(!lock(&registers).negotiation().is_running());
    write(&mut to, COMMAND, MEMORY | BUS_MASTER);
    assert!(lock(&registers).negotiation().is_running());
}

#[test]
fn an_interrupt_is_the_message_of_its_vector() {
    let (mut function, sent) = function(Arc::new(NoDoorbells));
    run(&mut function);
    let entry = MSIX_TABLE + 16;
    let registers = function.registers();
    for (offset, value) in [(0, 0xfee0_1000_u32), (8, 0x41), (12, 0)] {
        lock(&registers)
            .write(entry + offset, &value.to_le_bytes())
            .expect("the table");
    }
    let line = Arc::clone(lock(&registers).negotiation().line());
    use crate::virtio::Interrupts;
    line.queue(1);
    assert!(lock(&sent.0).is_empty(), "MSI-X is off");
    let capability = u16::from(function.msix_capability);
    let control = read(&mut function, capability);
    write(&mut function, capability, control | 1 << 31);
    write(&mut function, COMMAND, 6);
    line.queue(1);
    let messages = lock(&sent.0);
    // The one that was pending, and the new one.
    assert_eq!(messages.len(), 2);
    assert!(messages.iter().all(|message| message.data == 0x41));
}

#[test]
fn a_saved_function_comes_back() {
    let (mut from, _) = function(Arc::new(NoDoorbells));
    run(&mut from);
    let record = from.save();
    let (mut to, _) = function(Arc::new(NoDoorbells));
    to.restore(2, &record).expect("our own record");
    assert_eq!(read(&mut to, COMMAND) & 0xffff, 6);
    let registers = to.registers();
    lock(&registers).negotiation().resume();
    assert!(lock(&registers).negotiation().is_running());
    assert_eq!(
        to.bars()[0].as_ref().and_then(|bar| bar.address),
        Some(BAR_ADDRESS)
    );
    for end in 0..record.len() {
        let (mut other, _) = function(Arc::new(NoDoorbells));
        assert!(other.restore(2, &record[..end]).is_err(), "{end}");
    }
    assert!(to.restore(3, &record).is_err());
    // The first version is the same but for the generation.
    let (mut to, _) = function(Arc::new(NoDoorbells));
    to.restore(1, &record[1..]).expect("an earlier record");
    assert_eq!(read(&mut to, COMMAND) & 0xffff, 6);
}

#[test]
fn the_configuration_generation_goes_on_over_any_number_of_restores() {
    use crate::virtio::Interrupts;
    let (mut current, _) = function(Arc::new(NoDoorbells));
    run(&mut current);
    let generation = |function: &VirtioPci| {
        let registers = function.registers();
        let mut registers = lock(&registers);
        registers.negotiation().config_generation()
    };
    for told in 1..=4 {
        let registers = current.registers();
        lock(&registers).negotiation().line().config();
        let record = current.save();
        let (mut next, _) = function(Arc::new(NoDoorbells));
        next.restore(2, &record).expect("our own record");
        assert_eq!(next.save(), record);
        current = next;
        // A driver that has read a half of a field reads the other of the same, or another generation.
        assert_eq!(generation(&current), told);
    }
}

proptest::proptest! {
    /// Any access to any register, of any width, in any order.
    #[test]
    fn no_access_breaks_the_registers(
        accesses in proptest::collection::vec(
            (0_u64..0x8010, 0_usize..4, proptest::prelude::any::<u64>(), proptest::prelude::any::<bool>()),
            0..300,
        ),
    ) {
        let (function, _) = function(Arc::new(NoDoorbells));
        let registers = function.registers();
        for (offset, width, value, is_write) in accesses {
            // Most of what matters is at the start.
            let offset = if value & 3 == 0 { offset } else { offset % 0x40 };
            let width = 1 << width;
            let mut data = value.to_le_bytes();
            let mut registers = lock(&registers);
            let _ = if is_write {
                registers.write(offset, &data[..width])
            } else {
                registers.read(offset, &mut data[..width])
            };
        }
    }
}
