use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::message::{FromDriver, ToDriver};
use super::*;
use crate::console::{ConsoleRing, ConsoleSink};
use crate::memory::GuestRam;
use crate::memory::testing::ram;
use crate::testing::{RecordConsole, RecordWake};
use crate::virtio::rig::Rig;
use crate::virtio::testing::{Driver, RecordInterrupts, into, out};

/// Ports of the test device, and queues.
const PORTS: u32 = 4;
const QUEUES: u16 = 10;
const RINGS: u64 = 0x10_0000;
/// Each queue has 64 buffers of a page here.
const DATA: u64 = 0x20_0000;
const PAGE: u32 = 4096;

const TELL: u16 = 2;
const HEAR: u16 = 3;

fn receive_queue(port: u32) -> u16 {
    u16::try_from(first_queue(port)).expect("small")
}

fn transmit_queue(port: u32) -> u16 {
    receive_queue(port) + 1
}

struct Guest {
    ram: GuestRam,
    device: Console,
    control: ConsoleControl,
    opened: Arc<RecordWake>,
    interrupts: Arc<RecordInterrupts>,
    drivers: Vec<Driver>,
    kicks: Vec<Arc<Event>>,
    rig: Option<Rig>,
}

impl Guest {
    /// Powered off.
    fn off() -> Self {
        let ram = ram(4 << 20);
        let opened = Arc::new(RecordWake::default());
        let device = Console::new(PORTS, (80, 25), opened.clone()).expect("a console");
        Self {
            drivers: (0..QUEUES)
                .map(|i| Driver::new(&ram, RINGS + u64::from(i) * 0x4000, QUEUE_SIZE))
                .collect(),
            control: device.control(),
            ram,
            device,
            opened,
            interrupts: Arc::new(RecordInterrupts::default()),
            kicks: Vec::new(),
            rig: None,
        }
    }

    fn start(&mut self, features: u64) {
        self.kicks.clear();
        let mut queues = Vec::new();
        for (index, driver) in (0..).zip(&self.drivers) {
            let queue = driver.running(index, &self.interrupts);
            self.kicks.push(queue.kick.clone());
            queues.push(Some(queue));
        }
        let start = Start {
            features,
            queues,
            interrupts: self.interrupts.clone(),
        };
        let mut workers = self.device.start(start).expect("a worker");
        self.rig = Some(Rig::new(workers.remove(0)));
    }

    /// With a driver that has made every port of `specs` ready and opened it.
    fn with(specs: Vec<PortSpec>) -> Self {
        let mut guest = Self::off();
        let ids: Vec<u32> = specs.iter().map(|spec| spec.id).collect();
        for spec in specs {
            guest.control.attach(spec).expect("a port");
        }
        guest.start(F_MULTIPORT | F_SIZE);
        guest.say(0, 0, 1);
        guest.listen();
        for id in ids {
            guest.say(id, 3, 1);
            guest.say(id, 6, 1);
        }
        guest.listen();
        guest
    }

    fn rig(&mut self) -> &mut Rig {
        self.rig.as_mut().expect("running")
    }

    fn run(&mut self) {
        self.rig().run();
    }

    fn kick(&mut self, queue: u16) {
        self.kicks[usize::from(queue)].signal();
        self.run();
    }

    fn driver(&mut self, queue: u16) -> &mut Driver {
        &mut self.drivers[usize::from(queue)]
    }

    fn buffer(queue: u16, index: u16) -> u64 {
        DATA + u64::from(queue) * 0x2_0000 + u64::from(index % 16) * u64::from(PAGE)
    }

    /// Says something on the control queue.
    fn say(&mut self, id: u32, event: u16, value: u16) {
        let mut message = id.to_le_bytes().to_vec();
        message.extend(event.to_le_bytes());
        message.extend(value.to_le_bytes());
        self.send_on(HEAR, &message);
        assert_eq!(self.driver(HEAR).take_used().len(), 1);
    }

    fn send_on(&mut self, queue: u16, bytes: &[u8]) {
        let address = Self::buffer(queue, 0);
        self.ram.write(address, bytes).expect("in RAM");
        let driver = self.driver(queue);
        driver.reuse();
        driver.add(&[out(address, u32::try_from(bytes.len()).expect("small"))]);
        self.kick(queue);
    }

    /// Puts `count` buffers of a page into a queue and gives what comes in them.
    fn read_on(&mut self, queue: u16, count: u16) -> Vec<Vec<u8>> {
        self.driver(queue).reuse();
        for index in 0..count {
            let address = Self::buffer(queue, index);
            self.driver(queue).add(&[into(address, PAGE)]);
        }
        self.kick(queue);
        self.read_used(queue)
    }

    fn read_used(&mut self, queue: u16) -> Vec<Vec<u8>> {
        let used = self.driver(queue).take_used();
        let read = used.into_iter().map(|(head, len)| {
            let address = Self::buffer(queue, u16::try_from(head).expect("a head"));
            let mut bytes = vec![0; len as usize];
            self.ram.read(address, &mut bytes).expect("in RAM");
            bytes
        });
        read.collect()
    }

    /// The next buffer that is filled, at some time.
    fn await_input(&mut self, queue: u16) -> Vec<u8> {
        let driver = &mut self.drivers[usize::from(queue)];
        let rig = self.rig.as_mut().expect("running");
        rig.run_until(|| driver.queue_done() > 0);
        self.read_used(queue).concat()
    }

    /// What the driver is told.
    fn listen(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            // Buffers left from before are filled first.
            let used = self.read_used(TELL);
            if used.is_empty() {
                let waiting = self.driver(TELL).queue_waiting();
                if waiting > 0 {
                    return all;
                }
                let more = self.read_on(TELL, 1);
                if more.is_empty() {
                    return all;
                }
                all.extend(more);
            } else {
                all.extend(used);
            }
        }
    }

    fn status(&self, id: u32) -> PortStatus {
        let ports = self.control.ports();
        let port = ports.into_iter().find(|port| port.id == id);
        port.expect("there is such a port")
    }
}

impl Driver {
    /// Chains that were given back and not looked at.
    fn queue_done(&self) -> usize {
        self.clone().take_used().len()
    }

    /// Chains that were not given back.
    fn queue_waiting(&self) -> u16 {
        let mut index = [0; 2];
        let read = |address, index: &mut [u8; 2]| {
            self.ram.read(address, index).expect("in RAM");
            u16::from_le_bytes(*index)
        };
        let available = read(self.layout.available + 2, &mut index);
        available.wrapping_sub(read(self.layout.used + 2, &mut index))
    }
}

fn told(id: u32, message: ToDriver<'_>) -> Vec<u8> {
    let (bytes, len) = message.encode(id);
    bytes[..len].to_vec()
}

fn channel(id: u32, end: PortEnd) -> PortSpec {
    PortSpec {
        id,
        name: "org.example.agent".into(),
        console: false,
        end,
    }
}

fn console(id: u32, end: PortEnd) -> PortSpec {
    PortSpec {
        id,
        name: String::new(),
        console: true,
        end,
    }
}

fn ring(
    control: &ConsoleControl,
) -> (PortEnd, Arc<RecordConsole>, Arc<PortInput>, Arc<RecordWake>) {
    let sink = Arc::new(RecordConsole::default());
    let room = Arc::new(RecordWake::default());
    let input = control.input(room.clone());
    let end = PortEnd::Ring {
        sink: sink.clone(),
        input: input.clone(),
    };
    (end, sink, input, room)
}

fn pair() -> (PortEnd, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    theirs.set_nonblocking(true).expect("a socket");
    (PortEnd::Stream(ours.into()), theirs)
}

fn read_all(stream: &mut UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut chunk) {
        all.extend_from_slice(&chunk[..len]);
    }
    all
}

#[test]
fn a_driver_of_one_port_has_a_console() {
    let mut guest = Guest::off();
    let (end, sink, input, _) = ring(&guest.control);
    guest.control.attach(console(0, end)).expect("a port");
    guest.start(0);
    guest.send_on(1, b"hello");
    assert_eq!(guest.driver(1).take_used(), [(0, 0)]);
    assert_eq!(sink.take(), b"hello");
    assert_eq!(input.enqueue(b"ls\n"), 3);
    guest.run();
    assert_eq!(guest.read_on(0, 1), [b"ls\n".to_vec()]);
    guest.control.resize(132, 43);
    assert_eq!(guest.interrupts.take_config(), 1);
    let mut config = [0; 12];
    guest.device.read_config(0, &mut config);
    assert_eq!(config, [132, 0, 43, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_driver_of_several_ports_is_told_of_each_in_order() {
    let mut guest = Guest::off();
    let (end, ..) = ring(&guest.control);
    guest.control.attach(console(0, end)).expect("a port");
    let (end, _client) = pair();
    guest.control.attach(channel(2, end)).expect("a port");
    guest.start(F_MULTIPORT);
    assert_eq!(guest.listen(), Vec::<Vec<u8>>::new(), "it is not ready yet");
    guest.say(0, 0, 1);
    assert_eq!(
        guest.listen(),
        [told(0, ToDriver::Add), told(2, ToDriver::Add)]
    );
    guest.say(2, 3, 1);
    assert_eq!(
        guest.listen(),
        [
            told(2, ToDriver::Name("org.example.agent")),
            told(2, ToDriver::Open(true))
        ]
    );
    guest.say(0, 3, 1);
    let (columns, rows) = (80, 25);
    assert_eq!(
        guest.listen(),
        [
            told(0, ToDriver::Console),
            told(0, ToDriver::Resize { columns, rows }),
            told(0, ToDriver::Open(true)),
        ]
    );
    guest.control.resize(100, 30);
    let (columns, rows) = (100, 30);
    guest.run();
    assert_eq!(
        guest.listen(),
        [told(0, ToDriver::Resize { columns, rows })]
    );
    assert_eq!(guest.interrupts.take_config(), 0);
}

#[test]
fn messages_are_the_bytes_of_the_specification() {
    assert_eq!(told(7, ToDriver::Add), [7, 0, 0, 0, 1, 0, 1, 0]);
    assert_eq!(told(7, ToDriver::Remove), [7, 0, 0, 0, 2, 0, 1, 0]);
    assert_eq!(told(0, ToDriver::Console), [0, 0, 0, 0, 4, 0, 1, 0]);
    let (columns, rows) = (80, 25);
    assert_eq!(
        told(0, ToDriver::Resize { columns, rows }),
        [0, 0, 0, 0, 5, 0, 0, 0, 80, 0, 25, 0]
    );
    assert_eq!(told(1, ToDriver::Open(false)), [1, 0, 0, 0, 6, 0, 0, 0]);
    assert_eq!(
        told(1, ToDriver::Name("ab")),
        [1, 0, 0, 0, 7, 0, 1, 0, b'a', b'b']
    );
    assert_eq!(
        FromDriver::decode([9, 0, 0, 0, 6, 0, 1, 0]),
        Some((9, FromDriver::PortOpen(true)))
    );
    assert_eq!(FromDriver::decode([9, 0, 0, 0, 1, 0, 1, 0]), None);
}

#[test]
fn a_channel_carries_bytes_both_ways() {
    let (end, mut client) = pair();
    let mut guest = Guest::with(vec![channel(1, end)]);
    guest.send_on(transmit_queue(1), b"to the host");
    assert_eq!(read_all(&mut client), b"to the host");
    client.write_all(b"to the guest").expect("room");
    guest.run();
    assert_eq!(
        guest.read_on(receive_queue(1), 2),
        [b"to the guest".to_vec()]
    );
    client.write_all(b"again").expect("room");
    guest.run();
    assert_eq!(guest.read_used(receive_queue(1)), [b"again".to_vec()]);
}

#[test]
fn what_a_client_does_not_read_stays_in_the_guests_own_queue() {
    let (end, mut client) = pair();
    let mut guest = Guest::with(vec![channel(1, end)]);
    let queue = transmit_queue(1);
    let mut sent = Vec::new();
    for (index, byte) in (0_u16..60).zip(0_u8..) {
        let address = DATA + 0x10_0000 + u64::from(index) * u64::from(PAGE);
        guest.ram.write(address, &[byte; 4096]).expect("in RAM");
        guest
            .driver(queue)
            .add(&[out(address, PAGE), out(address, 1000)]);
        sent.extend([byte; 5096]);
        if index == 30 {
            // The rest would be beyond the descriptors there are.
            break;
        }
    }
    guest.kick(queue);
    let mut received = Vec::new();
    let mut used = guest.driver(queue).take_used().len();
    assert!(used < 31, "all fits the socket's buffer");
    for _ in 0..1000 {
        received.extend(read_all(&mut client));
        guest.run();
        used += guest.driver(queue).take_used().len();
    }
    assert_eq!(used, 31);
    received.extend(read_all(&mut client));
    assert!(received == sent, "no byte is lost, doubled or moved");
}

#[test]
fn what_the_guest_does_not_read_stays_in_the_clients_socket() {
    let (end, mut client) = pair();
    let mut guest = Guest::with(vec![channel(1, end)]);
    let mut sent = 0;
    for _ in 0..1000 {
        match client.write(&[7; 4096]) {
            Ok(len) => sent += len,
            Err(_) => break,
        }
        guest.run();
    }
    assert!(
        sent < 1 << 20,
        "{sent} bytes were taken from a client for nobody"
    );
    assert_eq!(guest.rig().run(), 0, "a full socket wakes nobody");
    let mut got = 0;
    for _ in 0..1000 {
        got += guest.read_on(receive_queue(1), 16).concat().len();
        if got == sent {
            return;
        }
    }
    panic!("{got} of {sent} bytes came");
}

#[test]
fn nothing_is_read_for_a_channel_that_is_closed_in_the_guest() {
    let (end, mut client) = pair();
    let mut guest = Guest::with(vec![channel(1, end)]);
    assert!(guest.status(1).guest_open);
    guest.opened.take();
    guest.say(1, 6, 0);
    assert_eq!(guest.opened.take(), 1);
    assert!(!guest.status(1).guest_open);
    client.write_all(b"early").expect("room");
    assert_eq!(guest.read_on(receive_queue(1), 1), Vec::<Vec<u8>>::new());
    guest.say(1, 6, 1);
    assert_eq!(guest.read_used(receive_queue(1)), [b"early".to_vec()]);
}

#[test]
fn a_client_that_hangs_up_is_read_to_its_end_and_then_closed() {
    let (end, mut client) = pair();
    let mut guest = Guest::with(vec![channel(1, end)]);
    client.write_all(b"last words").expect("room");
    drop(client);
    assert!(
        guest.rig().run() < 10,
        "a peer that is gone is told of for ever"
    );
    assert_eq!(guest.listen(), [told(1, ToDriver::Open(false))]);
    assert!(!guest.status(1).host_open);
    assert_eq!(guest.read_on(receive_queue(1), 2), [b"last words".to_vec()]);
    guest.send_on(transmit_queue(1), b"for nobody");
    assert_eq!(guest.driver(transmit_queue(1)).take_used().len(), 1);
    assert_eq!(guest.rig().run(), 0);
}

#[test]
fn a_client_that_has_sent_all_still_gets_its_answer() {
    let (end, mut client) = pair();
    let mut guest = Guest::with(vec![channel(1, end)]);
    client.write_all(b"question").expect("room");
    client
        .shutdown(std::net::Shutdown::Write)
        .expect("a socket");
    guest.run();
    assert_eq!(guest.read_on(receive_queue(1), 2), [b"question".to_vec()]);
    assert!(guest.status(1).host_open);
    guest.send_on(transmit_queue(1), b"answer");
    assert_eq!(read_all(&mut client), b"answer");
    assert_eq!(guest.rig().run(), 0);
}

#[test]
fn output_for_a_client_that_is_gone_is_dropped() {
    let (end, client) = pair();
    let mut guest = Guest::with(vec![channel(1, end)]);
    let queue = transmit_queue(1);
    for _ in 0..32 {
        let address = Guest::buffer(queue, 0);
        guest
            .driver(queue)
            .add(&[out(address, PAGE), out(address, PAGE)]);
    }
    for _ in 0..31 {
        guest.driver(queue).offer(0);
    }
    guest.kick(queue);
    let used = guest.driver(queue).take_used().len();
    assert!(used < 63);
    drop(client);
    guest.run();
    assert_eq!(used + guest.driver(queue).take_used().len(), 63);
}

#[test]
fn a_listener_serves_one_client_after_the_other() {
    let directory = tempdir();
    let path = directory.join("agent");
    let listener = UnixListener::bind(&path).expect("a socket");
    let mut guest = Guest::with(vec![channel(1, PortEnd::Listener(listener.into()))]);
    assert!(!guest.status(1).host_open);
    let mut first = UnixStream::connect(&path).expect("a listener");
    let mut second = UnixStream::connect(&path).expect("a listener");
    second.set_nonblocking(true).expect("a socket");
    guest.run();
    assert_eq!(guest.listen(), [told(1, ToDriver::Open(true))]);
    first.set_nonblocking(true).expect("a socket");
    guest.send_on(transmit_queue(1), b"1");
    assert_eq!(read_all(&mut first), b"1");
    second.write_all(b"two").expect("room");
    assert_eq!(guest.read_on(receive_queue(1), 1), Vec::<Vec<u8>>::new());
    drop(first);
    guest.run();
    assert_eq!(
        guest.listen(),
        [
            told(1, ToDriver::Open(false)),
            told(1, ToDriver::Open(true))
        ]
    );
    assert_eq!(guest.read_used(receive_queue(1)), [b"two".to_vec()]);
    guest.driver(transmit_queue(1)).take_used();
    guest.send_on(transmit_queue(1), b"2");
    assert_eq!(read_all(&mut second), b"2");
    std::fs::remove_dir_all(directory).expect("ours");
}

fn tempdir() -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("reeve-console-{}-{count}", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::create_dir(&path).expect("a directory");
    path
}

#[test]
fn a_console_nobody_looks_at_never_holds_the_guest_up() {
    let mut guest = Guest::with(vec![console(0, PortEnd::Nothing)]);
    let mut expected = Vec::new();
    for byte in 0..40 {
        guest.send_on(1, &[byte; 4096]);
        assert_eq!(guest.driver(1).take_used().len(), 1);
        expected.extend([byte; 4096]);
    }
    let (end, mut client) = pair();
    guest.control.connect(0, end).expect("a port");
    let mut seen = Vec::new();
    for _ in 0..100 {
        guest.run();
        seen.extend(read_all(&mut client));
    }
    let kept = expected.len() - ConsoleRing::DEFAULT_CAPACITY;
    assert!(seen == expected[kept..], "the newest ringful is shown");
    guest.send_on(1, b"$ ");
    assert_eq!(read_all(&mut client), b"$ ");
}

#[test]
fn a_slow_client_of_a_console_loses_the_oldest_output() {
    let (end, mut client) = pair();
    let mut guest = Guest::with(vec![console(0, end)]);
    for _ in 0..500 {
        guest.send_on(1, &[b'x'; 4096]);
        assert_eq!(guest.driver(1).take_used().len(), 1);
    }
    guest.send_on(1, b"end");
    let mut seen = Vec::new();
    for _ in 0..1000 {
        seen.extend(read_all(&mut client));
        guest.run();
    }
    assert!(seen.ends_with(b"end"));
    assert!(seen.len() < 500 * 4096);
}

#[test]
fn offered_input_is_bounded_and_room_is_told_once() {
    let mut guest = Guest::off();
    let (end, _, input, room) = ring(&guest.control);
    guest.control.attach(console(0, end)).expect("a port");
    guest.start(0);
    assert_eq!(input.enqueue(&[1; 5000]), 4096);
    assert_eq!(input.enqueue(&[1; 10]), 0);
    guest.run();
    assert_eq!(room.take(), 0);
    assert_eq!(guest.read_on(0, 2).concat(), [1; 4096]);
    assert_eq!(room.take(), 1);
    assert_eq!(input.enqueue(&[2; 10]), 10);
    guest.run();
    assert_eq!(guest.read_used(0), [vec![2; 10]]);
    assert_eq!(room.take(), 0);
}

#[test]
fn ports_come_and_go_while_the_guest_runs() {
    let mut guest = Guest::with(vec![console(0, PortEnd::Nothing)]);
    let (end, mut client) = pair();
    guest.control.attach(channel(3, end)).expect("a port");
    guest.run();
    assert_eq!(guest.listen(), [told(3, ToDriver::Add)]);
    guest.say(3, 3, 1);
    guest.say(3, 6, 1);
    assert_eq!(guest.listen().len(), 2);
    guest.send_on(transmit_queue(3), b"new");
    assert_eq!(read_all(&mut client), b"new");
    let (end, mut other) = pair();
    assert_eq!(
        guest.control.attach(channel(3, end)),
        Err(PortError::Id(3)),
        "there is one"
    );
    assert!(other.write_all(b"x").is_err(), "the descriptor is closed");

    guest.control.detach(3).expect("a port");
    // Before the driver knows, another comes at its place.
    let (end, mut next) = pair();
    guest.control.attach(channel(3, end)).expect("a port");
    guest.run();
    assert!(client.write_all(b"x").is_err(), "the old end is closed");
    assert_eq!(
        guest.listen(),
        [told(3, ToDriver::Remove), told(3, ToDriver::Add)]
    );
    guest.say(3, 3, 1);
    guest.say(3, 6, 1);
    guest.send_on(transmit_queue(3), b"next");
    assert_eq!(read_all(&mut next), b"next");
    guest.control.detach(3).expect("a port");
    guest.control.detach(0).expect("a port");
    guest.run();
    guest.send_on(1, b"to a port that is gone");
    assert_eq!(guest.driver(1).queue_waiting(), 0, "it is dropped");
    assert!(!guest.interrupts.broken());
}

#[test]
fn what_waits_for_the_client_of_a_port_that_is_taken_comes_back_to_the_driver() {
    let (end, mut client) = pair();
    let mut guest = Guest::with(vec![channel(2, end)]);
    let queue = transmit_queue(2);
    // More than a socket takes of a client that reads nothing.
    for index in 0..QUEUE_SIZE {
        let address = Guest::buffer(queue, index);
        guest.driver(queue).add(&[out(address, 1 << 16)]);
    }
    guest.kick(queue);
    let waiting = guest.driver(queue).queue_waiting();
    assert!(waiting > 0, "the client has all of it");
    guest.control.detach(2).expect("a port");
    guest.run();
    assert_eq!(guest.driver(queue).queue_waiting(), 0);
    read_all(&mut client);
    assert!(client.write_all(b"x").is_err(), "the end is closed");
    assert_eq!(guest.listen(), [told(2, ToDriver::Remove)]);
    assert!(!guest.interrupts.broken());
}

#[test]
fn a_driver_that_waits_for_a_console_that_is_taken_gets_its_chain_back() {
    let mut guest = Guest::with(vec![console(0, PortEnd::Nothing)]);
    guest.control.detach(0).expect("a port");
    // The worker has not heard of it, nor has the driver, which waits with interrupts off.
    guest.send_on(transmit_queue(0), b"the last words");
    assert_eq!(guest.driver(transmit_queue(0)).queue_waiting(), 0);
    assert_eq!(guest.listen(), [told(0, ToDriver::Remove)]);
}

#[test]
fn what_was_said_of_the_port_before_opens_none_in_its_place() {
    let (end, _client) = pair();
    let mut guest = Guest::with(vec![channel(1, end)]);
    guest.control.detach(1).expect("a port");
    let (end, _next) = pair();
    guest.control.attach(channel(1, end)).expect("a port");
    guest.say(1, 6, 1);
    assert!(!guest.status(1).guest_open, "it meant the one before");
    assert!(guest.status(1).connected);
    assert_eq!(
        guest.listen(),
        [told(1, ToDriver::Remove), told(1, ToDriver::Add)]
    );
    guest.say(1, 6, 1);
    assert!(!guest.status(1).guest_open, "it is not ready");
    guest.say(1, 3, 1);
    guest.say(1, 6, 1);
    assert!(guest.status(1).guest_open);
}

#[test]
fn a_port_gets_nothing_of_the_one_before_it_until_the_driver_has_made_it_ready() {
    for console_next in [false, true] {
        let (end, _client) = pair();
        let mut guest = Guest::with(vec![channel(1, end)]);
        let (receive, transmit) = (receive_queue(1), transmit_queue(1));
        // Buffers that the driver of the port before leaves behind.
        assert!(guest.read_on(receive, 2).is_empty());
        guest.control.detach(1).expect("a port");
        let (end, mut next) = pair();
        let spec = match console_next {
            true => console(1, end),
            false => channel(1, end),
        };
        guest.control.attach(spec).expect("a port");
        next.write_all(b"secret").expect("room");
        guest.run();
        guest.kick(receive);
        assert!(guest.read_used(receive).is_empty(), "they are not its own");
        guest.send_on(transmit, b"meant for another");
        assert_eq!(guest.driver(transmit).take_used().len(), 1, "and come back");
        assert!(read_all(&mut next).is_empty());
        assert_eq!(
            guest.listen(),
            [told(1, ToDriver::Remove), told(1, ToDriver::Add)]
        );
        guest.send_on(transmit, b"meant for another");
        guest.driver(transmit).take_used();
        assert!(read_all(&mut next).is_empty());
        // Ready, and opened.
        guest.say(1, 3, 1);
        guest.say(1, 6, 1);
        assert_eq!(guest.read_used(receive), [b"secret"]);
        guest.send_on(transmit, b"its own");
        assert_eq!(read_all(&mut next), b"its own");
        assert!(!guest.interrupts.broken());
    }
}

#[test]
fn what_is_said_right_behind_making_a_port_ready_is_not_lost() {
    let (end, mut client) = pair();
    let mut guest = Guest::off();
    guest.control.attach(channel(1, end)).expect("a port");
    guest.start(F_MULTIPORT | F_SIZE);
    guest.say(0, 0, 1);
    assert_eq!(guest.listen(), [told(1, ToDriver::Add)]);
    // Both lie there before either is looked at, and the port's queue is looked at first.
    let ready = [1_u32.to_le_bytes(), [3, 0, 1, 0]].concat();
    let at = Guest::buffer(HEAR, 1);
    guest.ram.write(at, &ready).expect("in RAM");
    guest.driver(HEAR).reuse();
    guest.driver(HEAR).add(&[out(at, 8)]);
    guest.send_on(transmit_queue(1), b"first words");
    assert_eq!(read_all(&mut client), b"first words");
}

#[test]
fn a_driver_that_was_suspended_goes_on_with_the_ports_that_it_knew() {
    let (end, mut client) = pair();
    let mut guest = Guest::with(vec![console(0, PortEnd::Nothing), channel(1, end)]);
    drop(guest.rig.take().expect("running").stop());
    guest.device.stopped();
    guest.device.reset();
    guest.start(F_MULTIPORT | F_SIZE);
    for id in [0, 1] {
        // As Linux has it, which says of itself nothing again.
        guest.say(id, 3, 1);
    }
    guest.say(1, 6, 1);
    guest.listen();
    guest.send_on(transmit_queue(1), b"hi");
    assert_eq!(read_all(&mut client), b"hi");
    client.write_all(b"yo").expect("room");
    guest.run();
    assert_eq!(guest.read_on(receive_queue(1), 1), [b"yo".to_vec()]);
}

#[test]
fn a_driver_that_goes_has_closed_its_channels_which_is_told() {
    let mut guest = Guest::with(vec![
        console(0, PortEnd::Nothing),
        channel(1, PortEnd::Nothing),
    ]);
    drop(guest.rig.take().expect("running").stop());
    guest.device.stopped();
    guest.opened.take();
    guest.device.reset();
    assert_eq!(guest.opened.take(), 1);
    assert!(guest.status(0).guest_open && !guest.status(1).guest_open);
    guest.device.reset();
    assert_eq!(guest.opened.take(), 0, "nothing was open");
}

#[test]
fn ports_that_cannot_be_had_are_refused() {
    let guest = Guest::off();
    let attach = |spec| guest.control.attach(spec);
    assert_eq!(
        attach(channel(PORTS, PortEnd::Nothing)),
        Err(PortError::Id(PORTS))
    );
    assert_eq!(
        attach(channel(u32::MAX, PortEnd::Nothing)),
        Err(PortError::Id(u32::MAX))
    );
    for name in ["x".repeat(256), "a\nb".into(), "\0".into()] {
        let mut spec = channel(1, PortEnd::Nothing);
        spec.name = name;
        assert_eq!(attach(spec), Err(PortError::Name));
    }
    assert_eq!(guest.control.detach(1), Err(PortError::Missing(1)));
    assert_eq!(
        guest.control.connect(1, PortEnd::Nothing),
        Err(PortError::Missing(1))
    );
}

#[test]
fn a_new_client_in_place_of_the_old_is_told_as_closed_and_opened() {
    let (end, mut old) = pair();
    let mut guest = Guest::with(vec![channel(1, end)]);
    let (end, mut new) = pair();
    guest.control.connect(1, end).expect("a port");
    guest.run();
    assert!(old.write_all(b"x").is_err());
    assert_eq!(
        guest.listen(),
        [
            told(1, ToDriver::Open(false)),
            told(1, ToDriver::Open(true))
        ]
    );
    guest.send_on(transmit_queue(1), b"hi");
    assert_eq!(read_all(&mut new), b"hi");
}

#[test]
fn a_client_that_is_replaced_under_a_thread_that_is_gone_is_closed_with_the_device() {
    let (end, mut old) = pair();
    let mut guest = Guest::with(vec![channel(1, end)]);
    let (end, _new) = pair();
    guest.control.connect(1, end).expect("a port");
    assert!(old.write_all(b"x").is_err());
    // Its thread is gone without a turn.
    drop(guest.rig.take());
    guest.device.stopped();
    assert!(lock(&guest.control.ports).retired.is_empty());
}

#[test]
fn a_port_that_is_taken_away_is_over_at_once_for_whoever_uses_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("port");
    let listener = UnixListener::bind(&path).expect("a socket");
    let mut guest = Guest::with(vec![channel(1, PortEnd::Listener(listener.into()))]);
    let mut client = UnixStream::connect(&path).expect("it is listened on");
    guest.run();
    guest.control.detach(1).expect("a port");
    // The worker has not had its turn yet.
    assert_eq!(client.read(&mut [0]).expect("an end"), 0);
    let refused = UnixStream::connect(&path).expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    // What is heard of it yet is nothing of the next one's.
    let (end, mut next) = pair();
    guest.control.attach(channel(1, end)).expect("a port");
    guest.run();
    assert!(guest.status(1).connected);
    assert!(next.write_all(b"x").is_ok());
}

#[test]
fn what_goes_when_the_worker_has_ended_or_its_queues_are_broken_is_closed_at_once() {
    let (end, mut old) = pair();
    let mut guest = Guest::with(vec![channel(1, end)]);
    guest.rig.take().expect("running").stop();
    // The front has not heard of it.
    let (end, mut new) = pair();
    guest.control.connect(1, end).expect("a port");
    assert!(old.write_all(b"x").is_err());
    guest.control.detach(1).expect("a port");
    assert!(new.write_all(b"x").is_err());

    let (end, mut client) = pair();
    let mut guest = Guest::with(vec![channel(1, end)]);
    let queue = receive_queue(1);
    guest.driver(queue).add(&[out(Guest::buffer(queue, 0), 8)]);
    guest.kick(queue);
    assert!(guest.interrupts.broken());
    let (end, mut other) = pair();
    guest.control.attach(channel(2, end)).expect("a port");
    for id in [1, 2] {
        guest.control.detach(id).expect("a port");
    }
    assert!(client.write_all(b"x").is_err());
    assert!(other.write_all(b"x").is_err());
}

fn open_pty() -> (OwnedFd, std::path::PathBuf) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pty");
    grantpt(&master).expect("a pty");
    unlockpt(&master).expect("a pty");
    let name = ptsname(&master, Vec::new()).expect("a name");
    (master, name.to_str().expect("a path").into())
}

fn open_terminal(path: &std::path::Path) -> std::fs::File {
    let file = std::fs::OpenOptions::new();
    let terminal = { file }.read(true).write(true).open(path).expect("a pty");
    let mut settings = rustix::termios::tcgetattr(&terminal).expect("a terminal");
    settings.make_raw();
    let now = rustix::termios::OptionalActions::Now;
    rustix::termios::tcsetattr(&terminal, now, &settings).expect("a terminal");
    rustix::io::ioctl_fionbio(&terminal, true).expect("a terminal");
    terminal
}

/// Reads `len` bytes: what goes through a pty takes its time.
fn read_some(terminal: &mut std::fs::File, len: usize) -> Vec<u8> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut all = Vec::new();
    while all.len() < len && Instant::now() < deadline {
        let mut chunk = [0; 64];
        match terminal.read(&mut chunk) {
            Ok(got) => all.extend_from_slice(&chunk[..got]),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    all
}

#[test]
fn a_pty_without_another_side_is_looked_at_now_and_then() {
    let (master, path) = open_pty();
    let mut terminal = open_terminal(&path);
    let mut guest = Guest::with(vec![console(0, PortEnd::Pty(master))]);
    guest.send_on(1, b"login: ");
    assert_eq!(read_some(&mut terminal, 7), b"login: ");
    assert_eq!(guest.read_on(0, 3), Vec::<Vec<u8>>::new());
    terminal.write_all(b"root").expect("room");
    assert_eq!(guest.await_input(0), b"root");
    drop(terminal);
    assert!(
        guest.rig().run() < 10,
        "a pty that hung up is told of for ever"
    );
    let due = guest.rig().next_event().expect("another look");
    assert!(due > Instant::now() && due < Instant::now() + Duration::from_secs(2));
    guest.driver(1).take_used();
    guest.send_on(1, b"missed");
    assert_eq!(guest.driver(1).take_used().len(), 1);

    let mut terminal = open_terminal(&path);
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
    guest.rig().tick();
    guest.run();
    assert_eq!(read_some(&mut terminal, 6), b"missed");
    terminal.write_all(b"again").expect("room");
    assert_eq!(guest.await_input(0), b"again");
}

#[test]
fn a_huge_chain_is_taken_in_turns_without_an_allocation_of_its_size() {
    let mut guest = Guest::off();
    #[derive(Debug, Default)]
    struct Count(std::sync::atomic::AtomicUsize);
    impl ConsoleSink for Count {
        fn push(&self, bytes: &[u8]) {
            assert!(bytes.len() <= 4096);
            self.0
                .fetch_add(bytes.len(), std::sync::atomic::Ordering::Relaxed);
        }
    }
    let sink = Arc::new(Count::default());
    let end = PortEnd::Ring {
        sink: sink.clone(),
        input: guest.control.input(Arc::new(RecordWake::default())),
    };
    guest.control.attach(console(0, end)).expect("a port");
    guest.start(0);
    let all = [out(0, 0x40_0000); 4];
    guest.driver(1).add(&all);
    guest.kick(1);
    assert_eq!(guest.driver(1).take_used(), [(0, 0)]);
    assert_eq!(sink.0.load(std::sync::atomic::Ordering::Relaxed), 16 << 20);
}

#[test]
fn nonsense_on_the_control_queue_is_ignored() {
    let mut guest = Guest::with(vec![console(0, PortEnd::Nothing)]);
    for (id, event, value) in [
        (u32::MAX, 3, 1),
        (PORTS, 6, 1),
        (1, 3, 1),
        (0, 99, 1),
        (0, 3, 0),
        (0, 0, 0),
        (2, 6, 1),
    ] {
        guest.say(id, event, value);
    }
    guest.send_on(HEAR, &[1, 2, 3]);
    assert!(!guest.interrupts.broken());
}

#[test]
fn bad_buffers_ask_for_a_reset() {
    let mut guest = Guest::off();
    guest
        .control
        .attach(console(0, PortEnd::Nothing))
        .expect("a port");
    guest.start(F_MULTIPORT);
    guest.say(0, 0, 1);
    guest.driver(TELL).add(&[into(0x1000, 7)]);
    guest.kick(TELL);
    assert!(guest.interrupts.broken());
    guest.send_on(1, b"x");
    assert_eq!(guest.driver(1).queue_waiting(), 1);
    assert_eq!(guest.rig().stop().len(), usize::from(QUEUES));

    let mut guest = Guest::with(vec![console(0, PortEnd::Nothing)]);
    guest.driver(0).add(&[out(0x1000, 7)]);
    guest.kick(0);
    assert!(guest.interrupts.broken());
}

#[test]
fn connections_survive_a_pause_and_a_reset() {
    let (end, mut client) = pair();
    let mut guest = Guest::with(vec![channel(1, end)]);
    guest.rig().stop();
    guest.device.stopped();
    client.write_all(b"meanwhile").expect("room");
    guest.device.reset();
    guest.ram.write(RINGS, &[0; 0x4_0000]).expect("in RAM");
    guest.drivers = (0..QUEUES)
        .map(|i| Driver::new(&guest.ram, RINGS + u64::from(i) * 0x4000, QUEUE_SIZE))
        .collect();
    guest.start(F_MULTIPORT);
    guest.say(0, 0, 1);
    assert_eq!(guest.listen(), [told(1, ToDriver::Add)]);
    guest.say(1, 3, 1);
    assert_eq!(guest.listen().len(), 2);
    guest.say(1, 6, 1);
    assert_eq!(guest.read_on(receive_queue(1), 1), [b"meanwhile".to_vec()]);
}

#[test]
fn a_restored_driver_is_told_that_its_old_clients_are_gone() {
    let (end, _client) = pair();
    let mut guest = Guest::with(vec![channel(1, end), console(0, PortEnd::Nothing)]);
    guest.rig().stop();
    let saved = guest.device.save();

    let mut other = Guest::off();
    assert!(
        other.device.restore(1, &saved).is_err(),
        "it has no such port"
    );
    for spec in [channel(1, PortEnd::Nothing), console(0, PortEnd::Nothing)] {
        other.control.attach(spec).expect("a port");
    }
    other.device.restore(1, &saved).expect("good state");
    assert_eq!(other.device.save(), saved);
    other.start(F_MULTIPORT);
    assert_eq!(other.listen(), [told(1, ToDriver::Open(false))]);
    assert!(other.status(1).guest_open);
}

const GOLDEN: [u8; 34] = [
    80, 0, 25, 0, 1, 2, 0, 0, 0, 0, 0x3b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x3b, 0, 0, 0, 0,
    0, 0, 0, 0, 0,
];

#[test]
fn version_1_state_is_these_bytes() {
    let (end, _client) = pair();
    let mut guest = Guest::with(vec![console(0, PortEnd::Nothing), channel(1, end)]);
    guest.rig().stop();
    assert_eq!(guest.device.save(), GOLDEN);
}

#[test]
fn impossible_state_is_refused_and_changes_nothing() {
    let mut guest = Guest::off();
    for spec in [channel(1, PortEnd::Nothing), console(0, PortEnd::Nothing)] {
        guest.control.attach(spec).expect("a port");
    }
    let before = guest.device.save();
    for (at, value) in [
        (4, 2),     // neither true nor false
        (5, 1),     // too few ports
        (5, 3),     // too many
        (6, 1),     // twice the same port
        (6, 9),     // out of order
        (20, 3),    // no such port
        (10, 0x38), // neither there nor gone
        (10, 0x3f), // known and gone
        (10, 0x39), // ready, and not known
        (10, 0x23), // open, and not ready
        (11, 2),    // no such flag
    ] {
        let mut bytes = GOLDEN;
        bytes[at] = value;
        assert!(guest.device.restore(1, &bytes).is_err(), "{value} at {at}");
    }
    assert!(guest.device.restore(2, &GOLDEN).is_err());
    assert_eq!(guest.device.save(), before);
    guest.device.restore(1, &GOLDEN).expect("good state");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is in the rings, the device neither panics nor spins.
    #[test]
    fn no_ring_content_breaks_it(
        rings in proptest::collection::vec(any::<u8>(), 1800),
        queue in 0..QUEUES,
        multiport: bool,
    ) {
        let mut guest = Guest::off();
        let (end, mut client) = pair();
        guest.control.attach(channel(1, end)).expect("a port");
        guest.control.attach(console(0, PortEnd::Nothing)).expect("a port");
        client.write_all(&[1; 1000]).expect("room");
        guest.ram.write(RINGS + u64::from(queue) * 0x4000, &rings).expect("in RAM");
        guest.driver(queue).set_available(64);
        guest.start(if multiport { F_MULTIPORT } else { 0 });
        guest.kick(queue);
        guest.rig().stop();
    }

    /// Whatever is said on the control queue and done on the host, in any order, the driver is told
    /// no more than there is to tell, and state can be saved and restored.
    #[test]
    fn no_order_of_events_is_too_much(
        steps in proptest::collection::vec((0_u8..8, 0..PORTS + 1, 0_u16..9, 0_u16..2), 0..60),
    ) {
        let mut guest = Guest::with(vec![console(0, PortEnd::Nothing)]);
        let mut clients = Vec::new();
        for (step, id, event, value) in steps {
            match step {
                0 => {
                    let (end, client) = pair();
                    if guest.control.attach(channel(id, end)).is_ok() {
                        clients.push(client);
                    }
                }
                1 => drop(guest.control.detach(id)),
                2 => {
                    let (end, client) = pair();
                    clients.push(client);
                    let _ = guest.control.connect(id, end);
                }
                3 => drop(clients.pop()),
                4 => prop_assert!(guest.listen().len() < 40),
                _ => guest.say(id, event, value),
            }
            guest.run();
        }
        prop_assert!(!guest.interrupts.broken());
        guest.rig().stop();
        guest.device.stopped();
        let saved = guest.device.save();
        guest.device.restore(1, &saved).expect("its own state");
    }
}

/// Counts what is logged.
struct Lines(Arc<std::sync::atomic::AtomicUsize>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, _metadata: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}

    fn event(&self, _event: &tracing::Event<'_>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn enter(&self, _span: &tracing::span::Id) {}

    fn exit(&self, _span: &tracing::span::Id) {}
}

#[test]
fn a_driver_that_complains_without_end_does_not_fill_the_log() {
    let mut ports = super::ports::Ports::new(PORTS, (80, 25));
    assert!(ports.add(PortParams {
        id: 0,
        name: String::new(),
        console: false,
        end: End::Nothing,
    }));
    ports.hear(0, FromDriver::DeviceReady(true));
    ports.told(0);
    let lines = Arc::default();
    tracing::subscriber::with_default(Lines(Arc::clone(&lines)), || {
        for _ in 0..1000 {
            ports.hear(0, FromDriver::PortReady(false));
            ports.hear(0, FromDriver::DeviceReady(false));
        }
    });
    // One more a second is allowed, should this take long.
    let lines = lines.load(std::sync::atomic::Ordering::Relaxed);
    assert!(lines <= 100, "{lines} lines");
}
