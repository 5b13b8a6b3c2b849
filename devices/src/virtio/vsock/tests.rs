use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use proptest::prelude::*;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::engine::{
    HOST_CID, LARGE_WINDOW, MAX_CONNECTIONS, MAX_GREETINGS, MAX_QUESTIONS, MAX_STRAY,
};
use super::packet::{
    HEADER_BYTES, Header, Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, STREAM,
};
use super::*;
use crate::memory::GuestRam;
use crate::memory::testing::ram;
use crate::virtio::rig::Rig;
use crate::virtio::testing::{Driver, RecordInterrupts, into, out};

const CID: u32 = 42;
const RINGS: u64 = 0x10_0000;
/// Where the driver's buffers are: 256 to receive into, and one to send from.
const BUFFERS: u64 = 0x20_0000;
const BUFFER: u32 = 4096;
const OUTGOING: u64 = 0x40_0000;

/// What a well-behaved driver has room for.
const ROOM: u32 = 64 * 1024;

/// The host's end of an acceptor.
struct Host(OwnedFd);

impl Host {
    /// The next question: its id, the host's port and the guest's.
    fn question(&self) -> Option<(u32, u32, u32)> {
        let mut bytes = [0; 32];
        let len = rustix::io::read(&self.0, &mut bytes).ok()?;
        assert_eq!(len, 12);
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        Some((number(0), number(4), number(8)))
    }

    fn answer(&self, bytes: &[u8], streams: &[&UnixStream]) {
        let fds: Vec<_> = streams.iter().map(|stream| stream.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); 128];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        let flags = SendFlags::empty();
        sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, flags).expect("room");
    }

    fn accept(&self, id: u32) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        self.answer(&verdict(id, 1), &[&theirs]);
        ours.set_nonblocking(true).expect("a socket");
        ours
    }
}

fn verdict(id: u32, verdict: u32) -> Vec<u8> {
    [id.to_le_bytes(), verdict.to_le_bytes()].concat()
}

struct Guest {
    ram: GuestRam,
    device: Vsock,
    control: VsockControl,
    interrupts: Arc<RecordInterrupts>,
    drivers: Vec<Driver>,
    kicks: Vec<Arc<Event>>,
    rig: Option<Rig>,
}

impl Guest {
    fn off() -> Self {
        let ram = ram(6 << 20);
        let device = Vsock::new(CID).expect("a device");
        let queues = (0..).zip(QUEUE_SIZES);
        Self {
            drivers: queues
                .map(|(i, size)| Driver::new(&ram, RINGS + i * 0x1_0000, *size))
                .collect(),
            control: device.control(),
            ram,
            device,
            interrupts: Arc::new(RecordInterrupts::default()),
            kicks: Vec::new(),
            rig: None,
        }
    }

    fn new() -> Self {
        let mut guest = Self::off();
        guest.start();
        guest
    }

    fn start(&mut self) {
        self.kicks.clear();
        let mut queues = Vec::new();
        for (index, driver) in (0..).zip(&self.drivers) {
            let queue = driver.running(index, &self.interrupts);
            self.kicks.push(queue.kick.clone());
            queues.push(Some(queue));
        }
        let start = Start {
            features: F_STREAM,
            queues,
            interrupts: self.interrupts.clone(),
        };
        let mut workers = self.device.start(start).expect("a worker");
        self.rig = Some(Rig::new(workers.remove(0)));
    }

    fn with_host() -> (Self, Host) {
        let mut guest = Self::new();
        let host = guest.new_host();
        (guest, host)
    }

    fn new_host(&mut self) -> Host {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None).expect("sockets");
        self.control.set_acceptor(Some(ours)).expect("a socket");
        self.run();
        Host(theirs)
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

    /// Stops the worker; the next starts with new rings.
    fn stop(&mut self) {
        self.rig().stop();
        self.rig = None;
        self.device.stopped();
        self.ram.write(RINGS, &[0; 0x3_0000]).expect("in RAM");
        let queues = (0..).zip(QUEUE_SIZES);
        self.drivers = queues
            .map(|(i, size)| Driver::new(&self.ram, RINGS + i * 0x1_0000, *size))
            .collect();
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        self.ram.write(OUTGOING, bytes).expect("in RAM");
        let driver = &mut self.drivers[usize::from(TRANSMIT)];
        driver.reuse();
        driver.add(&[out(OUTGOING, u32::try_from(bytes.len()).expect("small"))]);
        self.kick(TRANSMIT);
        let used = self.drivers[usize::from(TRANSMIT)].take_used();
        assert_eq!(used.len(), 1);
    }

    fn send(&mut self, packet: Header, data: &[u8]) {
        let mut bytes = packet.encode().to_vec();
        bytes.extend_from_slice(data);
        self.send_bytes(&bytes);
    }

    /// Gives the device `count` buffers.
    fn add_buffers(&mut self, count: u16) {
        let driver = &mut self.drivers[usize::from(RECEIVE)];
        driver.reuse();
        for index in 0..count {
            let address = BUFFERS + u64::from(index) * u64::from(BUFFER);
            driver.add(&[into(address, BUFFER)]);
        }
        self.kick(RECEIVE);
    }

    fn take_packets(&mut self) -> Vec<(Header, Vec<u8>)> {
        let used = self.drivers[usize::from(RECEIVE)].take_used();
        let packets = used.into_iter().map(|(head, len)| {
            let address = BUFFERS + u64::from(head) * u64::from(BUFFER);
            let mut bytes = vec![0; len as usize];
            self.ram.read(address, &mut bytes).expect("in RAM");
            let header = Header::decode(bytes.first_chunk().expect("a header"));
            assert_eq!(header.len as usize, bytes.len() - HEADER_BYTES);
            assert_eq!(header.source_cid, HOST_CID);
            assert_eq!(header.destination_cid, u64::from(CID));
            (header, bytes.split_off(HEADER_BYTES))
        });
        packets.collect()
    }

    /// Everything the device has to say, with buffers for one packet at a time.
    fn receive(&mut self) -> Vec<(Header, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            let packets = self.take_packets();
            if packets.is_empty() {
                let driver = &self.drivers[usize::from(RECEIVE)];
                if waiting(driver) > 0 {
                    return all;
                }
                self.add_buffers(1);
            }
            all.extend(packets);
        }
    }

    fn ops(&mut self) -> Vec<Op> {
        let packets = self.receive();
        packets.into_iter().map(|(header, _)| header.op).collect()
    }

    /// Makes a connection of the guest's to port 80.
    fn connect(&mut self, host: &Host, guest_port: u32) -> UnixStream {
        self.send(packet(80, guest_port, Op::Request), &[]);
        let (id, port, asked_by) = host.question().expect("a question");
        assert_eq!((port, asked_by), (80, guest_port));
        let stream = host.accept(id);
        self.run();
        assert_eq!(self.ops(), [Op::Response]);
        stream
    }

    fn connections(&self) -> usize {
        self.control.connections()
    }
}

/// Chains that were not given back.
fn waiting(driver: &Driver) -> u16 {
    let read = |address| {
        let mut index = [0; 2];
        driver.ram.read(address, &mut index).expect("in RAM");
        u16::from_le_bytes(index)
    };
    read(driver.layout.available + 2).wrapping_sub(read(driver.layout.used + 2))
}

fn packet(host_port: u32, guest_port: u32, op: Op) -> Header {
    Header {
        source_cid: CID.into(),
        destination_cid: HOST_CID,
        source_port: guest_port,
        destination_port: host_port,
        len: 0,
        kind: STREAM,
        op,
        flags: 0,
        buf_alloc: ROOM,
        fwd_cnt: 0,
    }
}

fn data(host_port: u32, guest_port: u32, len: usize) -> Header {
    let len = u32::try_from(len).expect("small");
    Header {
        len,
        ..packet(host_port, guest_port, Op::Data)
    }
}

fn shut(host_port: u32, guest_port: u32, flags: u32) -> Header {
    Header {
        flags,
        ..packet(host_port, guest_port, Op::Shutdown)
    }
}

fn read_all(stream: &mut UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut chunk) {
        all.extend_from_slice(&chunk[..len]);
    }
    all
}

fn is_closed(stream: &mut UnixStream) -> bool {
    matches!(stream.read(&mut [0; 1]), Ok(0))
}

fn is_open(stream: &mut UnixStream) -> bool {
    let nothing = stream.read(&mut [0; 1]);
    nothing.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("reeve-vsock-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    fn listen(&self, guest: &mut Guest) -> PathBuf {
        let path = self.0.join("vsock");
        let listener = UnixListener::bind(&path).expect("a socket");
        guest
            .control
            .set_listener(Some(listener.into()))
            .expect("a socket");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn client(path: &PathBuf) -> UnixStream {
    let stream = UnixStream::connect(path).expect("a listener");
    stream.set_nonblocking(true).expect("a socket");
    stream
}

#[test]
fn the_guest_learns_its_address() {
    let guest = Guest::off();
    let mut config = [0xff; 12];
    guest.device.read_config(0, &mut config);
    assert_eq!(config, [42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    guest.device.read_config(u64::MAX, &mut config);
    assert_eq!(config, [0; 12]);
    for cid in [0, 1, 2, u32::MAX] {
        assert_eq!(Vsock::new(cid).err(), Some(VsockError::Cid(cid)));
    }
}

#[test]
fn a_connection_of_the_guests_carries_bytes_both_ways_and_ends() {
    let (mut guest, host) = Guest::with_host();
    let mut stream = guest.connect(&host, 1000);
    assert_eq!(guest.connections(), 1);
    guest.send(data(80, 1000, 5), b"hello");
    assert_eq!(read_all(&mut stream), b"hello");
    stream.write_all(b"world").expect("room");
    guest.run();
    let packets = guest.receive();
    assert_eq!(packets.len(), 1);
    let (header, bytes) = &packets[0];
    assert_eq!((header.op, &bytes[..]), (Op::Data, &b"world"[..]));
    assert_eq!((header.source_port, header.destination_port), (80, 1000));
    assert_eq!((header.buf_alloc, header.fwd_cnt), (LARGE_WINDOW, 5));
    guest.send(shut(80, 1000, SHUTDOWN_BOTH), &[]);
    assert_eq!(guest.ops(), [Op::Reset]);
    assert!(is_closed(&mut stream));
    assert_eq!(guest.connections(), 0);
    assert!(!guest.interrupts.broken());
}

#[test]
fn a_connection_of_the_hosts_is_greeted_and_answered() {
    let mut guest = Guest::new();
    let directory = Directory::new();
    let path = directory.listen(&mut guest);
    let mut stream = client(&path);
    stream.write_all(b"CONNECT 52\nearly").expect("room");
    guest.run();
    let packets = guest.receive();
    assert_eq!(packets.len(), 1);
    let header = packets[0].0;
    assert_eq!((header.op, header.destination_port), (Op::Request, 52));
    let host_port = header.source_port;
    assert_eq!(read_all(&mut stream), b"", "the guest has not answered");
    guest.send(packet(host_port, 52, Op::Response), &[]);
    assert_eq!(
        String::from_utf8(read_all(&mut stream)).expect("text"),
        format!("OK {host_port}\n")
    );
    let packets = guest.receive();
    assert_eq!(packets[0].1, b"early");
    guest.send(data(host_port, 52, 2), b"hi");
    assert_eq!(read_all(&mut stream), b"hi");
    guest.send(packet(host_port, 52, Op::Reset), &[]);
    assert!(is_closed(&mut stream));
}

#[test]
fn a_client_whose_port_the_guest_refuses_is_closed() {
    let mut guest = Guest::new();
    let directory = Directory::new();
    let path = directory.listen(&mut guest);
    let mut refused = client(&path);
    refused.write_all(b"CONNECT 9\n").expect("room");
    let mut rude = client(&path);
    rude.write_all(b"GET / HTTP/1.1\n").expect("room");
    guest.run();
    assert!(is_closed(&mut rude));
    let port = guest.receive()[0].0.source_port;
    guest.send(packet(port, 9, Op::Reset), &[]);
    assert!(is_closed(&mut refused));
    assert_eq!(guest.connections(), 0);
}

#[test]
fn silent_clients_are_few_and_the_others_wait() {
    let mut guest = Guest::new();
    let directory = Directory::new();
    let path = directory.listen(&mut guest);
    let mut clients: Vec<_> = (0..MAX_GREETINGS + 10).map(|_| client(&path)).collect();
    assert!(
        guest.rig().run() < 100,
        "it spins on clients it cannot take"
    );
    let last = clients.last_mut().expect("one");
    last.write_all(b"CONNECT 1\n").expect("room");
    guest.run();
    assert_eq!(guest.connections(), 0);
    clients.drain(..20);
    guest.run();
    assert_eq!(guest.connections(), 1);
}

#[test]
fn without_anybody_to_ask_the_guest_is_refused() {
    let mut guest = Guest::new();
    guest.send(packet(80, 1000, Op::Request), &[]);
    let packets = guest.receive();
    assert_eq!(packets.len(), 1);
    let header = packets[0].0;
    assert_eq!(
        (header.op, header.source_port, header.destination_port),
        (Op::Reset, 80, 1000)
    );
}

#[test]
fn whoever_is_asked_may_refuse() {
    let (mut guest, host) = Guest::with_host();
    guest.send(packet(80, 1000, Op::Request), &[]);
    let (id, ..) = host.question().expect("a question");
    host.answer(&verdict(id, 0), &[]);
    guest.run();
    assert_eq!(guest.ops(), [Op::Reset]);
    assert_eq!(guest.connections(), 0);
}

#[test]
fn an_answer_for_a_connection_that_is_gone_is_closed() {
    let (mut guest, host) = Guest::with_host();
    guest.send(packet(80, 1000, Op::Request), &[]);
    let (id, ..) = host.question().expect("a question");
    guest.send(packet(80, 1000, Op::Reset), &[]);
    guest.send(packet(80, 1000, Op::Request), &[]);
    let mut late = host.accept(id);
    let mut never = host.accept(id + 77);
    guest.run();
    assert!(
        is_closed(&mut late),
        "the ports are the same, not the connection"
    );
    assert!(is_closed(&mut never));
    assert_eq!(guest.ops(), []);
    let (id, ..) = host.question().expect("a question");
    let _stream = host.accept(id);
    guest.run();
    assert_eq!(guest.ops(), [Op::Response]);
}

#[test]
fn nonsense_from_whoever_is_asked_ends_it_and_refuses_what_was_open() {
    let (one, two) = UnixStream::pair().expect("sockets");
    for (bytes, streams) in [
        (verdict(0, 1), vec![]),
        (verdict(0, 0), vec![&one]),
        (verdict(0, 1), vec![&one, &two]),
        (verdict(0, 2), vec![&one]),
        (vec![0; 7], vec![]),
        (vec![0; 9], vec![]),
    ] {
        let (mut guest, host) = Guest::with_host();
        guest.send(packet(80, 1000, Op::Request), &[]);
        host.answer(&bytes, &streams);
        guest.run();
        assert_eq!(guest.ops(), [Op::Reset], "{bytes:?}");
        guest.send(packet(80, 1001, Op::Request), &[]);
        assert_eq!(guest.ops(), [Op::Reset]);
        // Another may come in its place.
        let host = guest.new_host();
        guest.connect(&host, 1002);
    }
}

#[test]
fn whoever_is_asked_may_go_and_nothing_spins() {
    let (mut guest, host) = Guest::with_host();
    guest.send(packet(80, 1000, Op::Request), &[]);
    drop(host);
    assert!(guest.rig().run() < 10);
    assert_eq!(guest.ops(), [Op::Reset]);
}

#[test]
fn open_questions_are_bounded() {
    let (mut guest, host) = Guest::with_host();
    let most = u32::try_from(MAX_QUESTIONS).expect("small");
    for port in 0..most + 1 {
        guest.send(packet(80, port, Op::Request), &[]);
    }
    let packets = guest.receive();
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].0.destination_port, most);
    let mut streams = Vec::new();
    while let Some((id, ..)) = host.question() {
        streams.push(host.accept(id));
    }
    assert_eq!(streams.len(), MAX_QUESTIONS);
    guest.run();
    assert_eq!(guest.ops(), vec![Op::Response; MAX_QUESTIONS]);
}

#[test]
fn a_connection_that_is_spoilt_while_it_is_asked_for_stays_so_and_its_question_is_forgotten() {
    let (mut guest, host) = Guest::with_host();
    for port in 0..2 * u32::try_from(MAX_QUESTIONS).expect("small") {
        guest.send(packet(80, port, Op::Request), &[]);
        // More than is there.
        let mut header = data(80, port, 5);
        header.len = 6;
        guest.send(header, b"hello");
        let (id, ..) = host.question().expect("a question");
        // The answer comes before the driver has a buffer for the reset.
        let mut late = host.accept(id);
        guest.run();
        assert!(is_closed(&mut late));
        assert_eq!(guest.ops(), [Op::Reset]);
        assert_eq!(guest.connections(), 0);
    }
    guest.connect(&host, 1000);
}

#[test]
fn a_guest_that_opens_and_resets_without_end_fills_one_socket_and_no_more() {
    let (mut guest, host) = Guest::with_host();
    let mut refused = 0;
    for round in 0..5000 {
        guest.send(packet(80, round % 7, Op::Request), &[]);
        guest.send(packet(80, round % 7, Op::Reset), &[]);
        assert_eq!(guest.connections(), 0);
        refused += guest.ops().len();
    }
    assert!(guest.rig().run() < 10, "it spins");
    // What was asked and is waited for no more is answered all the same, and closed.
    let mut asked = 0;
    while let Some((id, ..)) = host.question() {
        asked += 1;
        assert!(is_closed(&mut {
            let stream = host.accept(id);
            guest.run();
            stream
        }));
    }
    assert_eq!(asked + refused, 5000);
    assert!(asked < 1000, "{asked} wait in the socket");
    guest.connect(&host, 1000);
}

#[test]
fn another_acceptor_takes_the_place_of_one_that_has_gone() {
    let (mut guest, host) = Guest::with_host();
    let mut stream = guest.connect(&host, 1000);
    guest.send(packet(80, 1001, Op::Request), &[]);
    drop(host);
    guest.run();
    assert_eq!(guest.ops(), [Op::Reset], "nobody will answer");
    // Also while no driver runs it.
    guest.stop();
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let kind = SocketType::SEQPACKET;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None).expect("sockets");
    guest.control.set_acceptor(Some(ours)).expect("a socket");
    guest.start();
    guest.connect(&Host(theirs), 1002);
    assert!(is_open(&mut stream), "what there was stays");
}

#[test]
fn connections_that_end_before_they_are_heard_of_leave_nothing_behind() {
    let (mut guest, host) = Guest::with_host();
    // No buffer takes the answer, so that each connection waits for its turn when it is reset.
    for port in 0..200 {
        guest.send(packet(80, port, Op::Request), &[]);
        let (id, ..) = host.question().expect("a question");
        drop(host.accept(id));
        guest.run();
        guest.send(packet(80, port, Op::Reset), &[]);
    }
    assert_eq!(guest.connections(), 0);
    guest.rig().stop();
    let home = lock(&guest.device.home);
    let engine = home.engine.as_ref().expect("it is back");
    assert_eq!(engine.waiting_connections(), 0);
}

#[test]
fn connections_are_bounded() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("within the limit");
    let (mut guest, host) = Guest::with_host();
    let most = u32::try_from(MAX_CONNECTIONS).expect("small");
    let mut windows = Vec::new();
    for port in 0..most {
        guest.send(packet(80, port, Op::Request), &[]);
        let (id, ..) = host.question().expect("a question");
        // The other ends are closed at once, which the guest does not acknowledge.
        drop(host.accept(id));
        guest.run();
        let packets = guest.receive();
        let mut responses = packets
            .iter()
            .filter(|(header, _)| header.op == Op::Response);
        windows.push(responses.next().expect("a response").0.buf_alloc);
    }
    assert_eq!(guest.connections(), MAX_CONNECTIONS);
    assert!(windows.iter().map(|w| u64::from(*w)).sum::<u64>() < 64 << 20);
    guest.send(packet(80, most, Op::Request), &[]);
    assert_eq!(guest.ops().last(), Some(&Op::Reset));
    assert!(host.question().is_none());
}

#[test]
fn a_guest_that_sends_more_than_it_may_is_reset() {
    let (mut guest, host) = Guest::with_host();
    let mut stream = guest.connect(&host, 1000);
    let chunk = [7; 60 * 1024];
    let mut sent = 0;
    let op = loop {
        guest.send(data(80, 1000, chunk.len()), &chunk);
        sent += chunk.len();
        let ops = guest.ops();
        if ops.contains(&Op::Reset) {
            break ops;
        }
        assert!(sent < 4 << 20, "the host does not read, and nobody minds");
    };
    assert_eq!(op, [Op::Reset]);
    let got = read_all(&mut stream).len();
    assert!(got < sent && got < 1 << 20);
    assert_eq!(guest.connections(), 0);
}

#[test]
fn a_guest_that_keeps_to_its_credit_loses_nothing_however_slow_the_host() {
    let (mut guest, host) = Guest::with_host();
    let mut stream = guest.connect(&host, 1000);
    let (mut sent, mut forwarded, mut got) = (0_u32, 0_u32, Vec::new());
    let total = 3 << 20;
    let mut rounds = 0;
    while got.len() < total {
        rounds += 1;
        assert!(rounds < 10_000, "it stalls after {} bytes", got.len());
        let left = LARGE_WINDOW - sent.wrapping_sub(forwarded);
        let len = left
            .min(30_000)
            .min(u32::try_from(total).expect("small") - sent);
        if len > 0 {
            let bytes: Vec<u8> = (sent..sent + len).map(|n| n.to_le_bytes()[0]).collect();
            guest.send(data(80, 1000, bytes.len()), &bytes);
            sent += len;
        } else {
            let mut chunk = [0; 5000];
            if let Ok(len) = stream.read(&mut chunk) {
                got.extend_from_slice(&chunk[..len]);
            }
            guest.run();
        }
        for (header, _) in guest.receive() {
            assert_eq!(header.op, Op::CreditUpdate);
            forwarded = header.fwd_cnt;
        }
    }
    let in_order = (0..)
        .zip(&got)
        .all(|(n, byte): (u32, _)| n.to_le_bytes()[0] == *byte);
    assert!(in_order);
}

#[test]
fn the_host_is_read_only_as_the_guest_has_credit_and_nothing_spins() {
    let (mut guest, host) = Guest::with_host();
    let mut stream = guest.connect(&host, 1000);
    let mut update = packet(80, 1000, Op::CreditUpdate);
    update.buf_alloc = 100;
    guest.send(update, &[]);
    stream.write_all(&[1; 250]).expect("room");
    guest.run();
    let packets = guest.receive();
    let ops: Vec<_> = packets.iter().map(|(header, _)| header.op).collect();
    assert_eq!(ops, [Op::Data, Op::CreditRequest]);
    assert_eq!(packets[0].1.len(), 100);
    stream.write_all(&[1; 50]).expect("room");
    assert_eq!(guest.rig().run(), 0, "nobody waits for what cannot be sent");
    update.fwd_cnt = 100;
    guest.send(update, &[]);
    let ops: Vec<_> = guest.receive().iter().map(|(h, _)| (h.op, h.len)).collect();
    assert_eq!(ops, [(Op::Data, 100), (Op::CreditRequest, 0)]);
    update.buf_alloc = 1000;
    guest.send(update, &[]);
    let ops: Vec<_> = guest.receive().iter().map(|(h, _)| (h.op, h.len)).collect();
    assert_eq!(ops, [(Op::Data, 100)]);
    stream.write_all(&[1; 10]).expect("room");
    guest.run();
    assert_eq!(guest.ops(), [Op::Data], "it is waited for again");
}

#[test]
fn a_hung_up_host_without_credit_does_not_spin_and_loses_nothing() {
    let (mut guest, host) = Guest::with_host();
    let mut stream = guest.connect(&host, 1000);
    let mut update = packet(80, 1000, Op::CreditUpdate);
    update.buf_alloc = 10;
    guest.send(update, &[]);
    stream.write_all(&[1; 30]).expect("room");
    drop(stream);
    assert!(guest.rig().run() < 10);
    assert_eq!(guest.ops(), [Op::Data, Op::CreditRequest]);
    update.buf_alloc = 1000;
    update.fwd_cnt = 10;
    guest.send(update, &[]);
    let packets = guest.receive();
    assert_eq!(packets[0].1, [1; 20]);
    assert_eq!(
        (packets[1].0.op, packets[1].0.flags),
        (Op::Shutdown, SHUTDOWN_BOTH)
    );
    guest.send(packet(80, 1000, Op::Reset), &[]);
    assert_eq!(guest.connections(), 0);
}

#[test]
fn without_buffers_everything_waits_and_nothing_spins() {
    let (mut guest, host) = Guest::with_host();
    let mut streams: Vec<_> = (0..3).map(|port| guest.connect(&host, port)).collect();
    // The buffer that waits takes the first.
    for stream in &mut streams {
        stream.write_all(&[9; 5000]).expect("room");
    }
    assert!(guest.rig().run() < 20);
    let mut left = vec![5000; 3];
    let mut order = Vec::new();
    for (header, bytes) in guest.receive() {
        order.push(header.destination_port);
        left[header.destination_port as usize] -= bytes.len();
    }
    assert_eq!(left, [0; 3]);
    // The first was sent alone, with the buffer that was there.
    let mut turn = order[1..4].to_vec();
    turn.sort_unstable();
    assert_eq!(turn, [0, 1, 2], "each has its turn: {order:?}");
}

#[test]
fn half_a_connection_can_be_shut_down() {
    let (mut guest, host) = Guest::with_host();
    // The host has said all, and still listens.
    let mut stream = guest.connect(&host, 1000);
    stream.write_all(b"all").expect("room");
    stream
        .shutdown(std::net::Shutdown::Write)
        .expect("a socket");
    guest.run();
    let packets = guest.receive();
    assert_eq!(packets[0].1, b"all");
    assert_eq!(
        (packets[1].0.op, packets[1].0.flags),
        (Op::Shutdown, SHUTDOWN_SEND)
    );
    guest.send(data(80, 1000, 6), b"answer");
    assert_eq!(read_all(&mut stream), b"answer");
    guest.send(shut(80, 1000, SHUTDOWN_BOTH), &[]);
    assert!(is_closed(&mut stream));
    assert_eq!(guest.ops(), [Op::Reset]);
    // The guest has.
    let mut stream = guest.connect(&host, 1001);
    guest.send(data(80, 1001, 3), b"end");
    guest.send(shut(80, 1001, SHUTDOWN_SEND), &[]);
    assert_eq!(read_all(&mut stream), b"end");
    assert!(is_closed(&mut stream));
    stream.write_all(b"reply").expect("room");
    guest.run();
    assert_eq!(guest.receive()[0].1, b"reply");
    // And does not keep to it.
    guest.send(data(80, 1001, 1), b"x");
    assert_eq!(guest.ops(), [Op::Reset]);
    // The guest listens no more.
    let mut stream = guest.connect(&host, 1002);
    guest.send(shut(80, 1002, SHUTDOWN_RECEIVE), &[]);
    assert!(stream.write_all(b"x").is_err());
    guest.send(data(80, 1002, 1), b"y");
    assert_eq!(read_all(&mut stream), b"y");
    drop(stream);
    assert!(guest.rig().run() < 10);
    assert_eq!(guest.receive()[0].0.flags, SHUTDOWN_BOTH);
}

#[test]
fn what_the_guest_left_is_delivered_after_its_reset() {
    let (mut guest, host) = Guest::with_host();
    let mut stream = guest.connect(&host, 1000);
    let mut sent = 0;
    // Until the socket is full, and some is held.
    for _ in 0..7 {
        guest.send(data(80, 1000, 60_000), &[3; 60_000]);
        sent += 60_000;
    }
    guest.send(shut(80, 1000, SHUTDOWN_BOTH), &[]);
    guest.send(packet(80, 1000, Op::Reset), &[]);
    assert_eq!(guest.connections(), 1);
    guest.send(packet(80, 1000, Op::Reset), &[]);
    guest.send(packet(80, 1000, Op::Request), &[]);
    let resets = guest.ops().into_iter().filter(|op| *op == Op::Reset);
    assert_eq!(resets.count(), 1, "the ports are not free yet");
    let mut got = 0;
    for _ in 0..100 {
        got += read_all(&mut stream).len();
        guest.run();
    }
    assert_eq!(got, sent);
    assert!(is_closed(&mut stream));
    assert_eq!(guest.connections(), 0);
}

#[test]
fn a_host_that_is_gone_does_not_hold_the_guest_up() {
    let (mut guest, host) = Guest::with_host();
    let stream = guest.connect(&host, 1000);
    drop(stream);
    guest.run();
    for _ in 0..10 {
        guest.send(data(80, 1000, 60_000), &[3; 60_000]);
    }
    let packets = guest.receive();
    assert!(packets.iter().any(|(h, _)| h.flags == SHUTDOWN_BOTH));
    assert!(packets.iter().all(|(h, _)| h.op != Op::Reset));
    let told = packets.last().expect("one").0.fwd_cnt;
    assert!(told > 400_000, "{told} bytes are let go");
}

#[test]
fn packets_of_no_connection_are_answered_by_resets() {
    let (mut guest, _host) = Guest::with_host();
    for op in [
        Op::Response,
        Op::Data,
        Op::Shutdown,
        Op::CreditUpdate,
        Op::CreditRequest,
        Op::Unknown,
    ] {
        guest.send(packet(80, 7, op), &[]);
        assert_eq!(guest.ops(), [Op::Reset], "{op:?}");
    }
    guest.send(packet(80, 7, Op::Reset), &[]);
    assert_eq!(guest.ops(), [], "a reset is not answered by one");
    let mut other = packet(80, 7, Op::Request);
    other.kind = 2;
    guest.send(other, &[]);
    let packets = guest.receive();
    assert_eq!((packets[0].0.op, packets[0].0.kind), (Op::Reset, 2));
}

#[test]
fn packets_out_of_turn_reset_the_connection() {
    for op in [Op::Request, Op::Response, Op::Unknown] {
        let (mut guest, host) = Guest::with_host();
        let mut stream = guest.connect(&host, 1000);
        guest.send(packet(80, 1000, op), &[]);
        assert_eq!(guest.ops(), [Op::Reset], "{op:?}");
        assert!(is_closed(&mut stream));
    }
    for op in [Op::Request, Op::Response, Op::Data, Op::Shutdown] {
        let (mut guest, host) = Guest::with_host();
        guest.send(packet(80, 1000, Op::Request), &[]);
        guest.send(packet(80, 1000, op), &[]);
        assert_eq!(guest.ops(), [Op::Reset], "{op:?}");
        let (id, ..) = host.question().expect("a question");
        host.accept(id);
        guest.run();
        assert_eq!(guest.ops(), []);
    }
}

#[test]
fn packets_from_or_to_others_are_dropped() {
    let (mut guest, host) = Guest::with_host();
    for (source, destination) in [(43, 2), (2, 2), (42, 3), (42, 42), (42 | 1 << 32, 2)] {
        let mut packet = packet(80, 1000, Op::Request);
        packet.source_cid = source;
        packet.destination_cid = destination;
        guest.send(packet, &[]);
    }
    guest.send_bytes(&[0; HEADER_BYTES - 1]);
    assert_eq!(guest.ops(), []);
    assert!(host.question().is_none());
    assert!(!guest.interrupts.broken());
}

#[test]
fn a_length_beyond_the_buffer_or_64_kib_resets_the_connection() {
    for len in [6, 64 * 1024 + 1, u32::MAX] {
        let (mut guest, host) = Guest::with_host();
        let mut stream = guest.connect(&host, 1000);
        let mut header = data(80, 1000, 5);
        header.len = len;
        guest.send(header, b"hello");
        assert_eq!(guest.ops(), [Op::Reset], "{len}");
        assert_eq!(read_all(&mut stream), b"");
    }
    let (mut guest, host) = Guest::with_host();
    let mut stream = guest.connect(&host, 1000);
    guest.send(data(80, 1000, 2), b"hello");
    assert_eq!(
        read_all(&mut stream),
        b"he",
        "what is beyond is not its data"
    );
}

#[test]
fn a_flood_of_stray_packets_waits_in_the_guests_own_queue() {
    let mut guest = Guest::new();
    let bytes = packet(80, 7, Op::Data).encode();
    guest.ram.write(OUTGOING, &bytes).expect("in RAM");
    let mut used = 0;
    for _ in 0..4 {
        let driver = &mut guest.drivers[usize::from(TRANSMIT)];
        let free = 256 - waiting(driver);
        driver.reuse();
        if free == 256 {
            driver.add(&[out(OUTGOING, 44)]);
        }
        for _ in 0..free - u16::from(free == 256) {
            driver.offer(0);
        }
        guest.kick(TRANSMIT);
        used += guest.drivers[usize::from(TRANSMIT)].take_used().len();
    }
    assert_eq!(used, MAX_STRAY);
    let answers = guest.receive().len();
    used += guest.drivers[usize::from(TRANSMIT)].take_used().len();
    assert_eq!(answers, used);
    assert_eq!(used, 512, "all were taken when there was room again");
}

#[test]
fn connections_survive_a_pause() {
    let (mut guest, host) = Guest::with_host();
    let mut stream = guest.connect(&host, 1000);
    guest.send(packet(80, 1001, Op::Request), &[]);
    guest.stop();
    stream.write_all(b"meanwhile").expect("room");
    let (id, ..) = host.question().expect("a question");
    let mut other = host.accept(id);
    guest.start();
    guest.run();
    let packets = guest.receive();
    let ops: Vec<_> = packets.iter().map(|(header, _)| header.op).collect();
    assert_eq!(ops.len(), 2, "{ops:?}");
    assert!(ops.contains(&Op::Data) && ops.contains(&Op::Response));
    guest.send(data(80, 1001, 2), b"ok");
    assert_eq!(read_all(&mut other), b"ok");
}

#[test]
fn a_reset_closes_connections_and_keeps_those_who_listen() {
    let (mut guest, host) = Guest::with_host();
    let directory = Directory::new();
    let path = directory.listen(&mut guest);
    let mut stream = guest.connect(&host, 1000);
    guest.stop();
    guest.device.reset();
    assert!(is_open(&mut stream), "a reset closes nothing itself");
    drop(guest.device.take_remains().expect("a connection"));
    assert!(is_closed(&mut stream));
    guest.device.reset();
    assert!(guest.device.take_remains().is_none());
    assert_eq!(guest.connections(), 0);
    guest.start();
    guest.connect(&host, 1000);
    let mut caller = client(&path);
    caller.write_all(b"CONNECT 1\n").expect("room");
    guest.run();
    assert_eq!(guest.ops().last(), Some(&Op::Request));
}

#[test]
fn a_restored_driver_is_told_once_that_its_connections_are_gone() {
    let (mut guest, host) = Guest::with_host();
    let mut stream = guest.connect(&host, 1000);
    guest.stop();
    let saved = guest.device.save();
    guest.device.restore(1, &saved).expect("good state");
    assert!(is_open(&mut stream), "a restore closes nothing itself");
    drop(guest.device.take_remains());
    assert!(is_closed(&mut stream));
    assert!(guest.device.restore(2, &saved).is_err());
    assert!(guest.device.restore(1, &[0]).is_err());
    guest.start();
    guest.run();
    // The driver has no buffer for it yet.
    guest.ram.write(BUFFERS, &[0xff; 8]).expect("in RAM");
    let driver = &mut guest.drivers[usize::from(EVENT)];
    driver.add(&[into(BUFFERS, 4)]);
    driver.add(&[into(BUFFERS, 4)]);
    guest.kick(EVENT);
    assert_eq!(guest.drivers[usize::from(EVENT)].take_used(), [(0, 4)]);
    let mut event = [0; 5];
    guest.ram.read(BUFFERS, &mut event).expect("in RAM");
    assert_eq!(event, [0, 0, 0, 0, 0xff]);
    guest.send(data(80, 1000, 1), b"x");
    assert_eq!(guest.ops(), [Op::Reset], "there is no such connection");
    guest.connect(&host, 1001);
}

#[test]
fn buffers_without_room_ask_for_a_reset() {
    let mut guest = Guest::new();
    guest.send(packet(80, 7, Op::Data), &[]);
    guest.drivers[usize::from(RECEIVE)].add(&[into(BUFFERS, 44)]);
    guest.kick(RECEIVE);
    assert!(guest.interrupts.broken());
    assert_eq!(guest.rig().next_event(), None);
    assert_eq!(guest.rig().stop().len(), 3);
}

#[test]
fn questions_and_calls_that_nobody_answers_are_given_up() {
    use std::time::Instant;
    let (mut guest, host) = Guest::with_host();
    let directory = Directory::new();
    let path = directory.listen(&mut guest);
    guest.send(packet(80, 1000, Op::Request), &[]);
    let (id, ..) = host.question().expect("a question");
    let mut caller = client(&path);
    caller.write_all(b"CONNECT 1\n").expect("room");
    let mut silent = client(&path);
    guest.run();
    assert_eq!(guest.ops(), [Op::Request]);
    guest.stop();
    // Time does not wait for a test: the engine is asked directly.
    let reactor = crate::reactor::Reactor::new().expect("an epoll instance");
    let sources = reactor.sources(0);
    let mut home = lock(&guest.device.home);
    let engine = home.engine.as_mut().expect("at home");
    engine.enter(&sources);
    engine.tick(Instant::now(), &sources);
    let due = engine.due().expect("deadlines");
    assert!(due > Instant::now());
    engine.tick(Instant::now(), &sources);
    assert_eq!(engine.connections(), 2, "too early");
    let later = Instant::now() + std::time::Duration::from_secs(11);
    engine.tick(later, &sources);
    let mut ops = Vec::new();
    while let Some((header, _)) = engine.next(100, &sources) {
        ops.push(header.op);
    }
    assert_eq!(ops, [Op::Reset, Op::Reset]);
    assert_eq!(engine.connections(), 0);
    assert!(engine.due().is_none_or(|due| due > later));
    engine.leave(&sources);
    drop(home);
    assert!(is_closed(&mut caller));
    assert!(is_closed(&mut silent));
    let mut late = host.accept(id);
    guest.start();
    guest.run();
    assert!(is_closed(&mut late));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is in the rings, the device neither panics nor spins.
    #[test]
    fn no_ring_content_breaks_it(
        rings in proptest::collection::vec(any::<u8>(), 6800),
        queue in 0_u16..3,
    ) {
        let (mut guest, _host) = Guest::with_host();
        guest.send(packet(80, 7, Op::Data), &[]);
        guest.ram.write(RINGS + u64::from(queue) * 0x1_0000, &rings).expect("in RAM");
        let size = QUEUE_SIZES[usize::from(queue)];
        guest.drivers[usize::from(queue)].set_available(size);
        guest.kick(queue);
        guest.rig().stop();
    }

    /// Whatever packets come in whatever order, and whatever the host does, nothing panics, spins
    /// or grows, and the device goes on.
    #[test]
    fn no_order_of_packets_breaks_it(
        steps in proptest::collection::vec(
            (0_u8..12, 0_u16..9, 0_u32..3, any::<u32>(), 0_u32..70_000, any::<u32>()),
            0..80,
        ),
    ) {
        let (mut guest, host) = Guest::with_host();
        let directory = Directory::new();
        let path = directory.listen(&mut guest);
        let mut streams = Vec::new();
        let mut host_port = 80;
        for (step, op, port, flags, len, credit) in steps {
            match step {
                0 => {
                    while let Some((id, ..)) = host.question() {
                        match flags % 3 {
                            0 => host.answer(&verdict(id, 0), &[]),
                            _ => streams.push(host.accept(id)),
                        }
                    }
                }
                1 => drop(streams.pop()),
                2 => {
                    let mut stream = client(&path);
                    let _ = stream.write_all(format!("CONNECT {port}\n").as_bytes());
                    streams.push(stream);
                }
                3 => {
                    for stream in &mut streams {
                        let _ = stream.write(&vec![1; len as usize % 9000]);
                    }
                }
                4 => streams.iter_mut().for_each(|stream| drop(read_all(stream))),
                5 => {
                    for (header, _) in guest.receive() {
                        if header.op == Op::Request {
                            host_port = header.source_port;
                        }
                    }
                }
                _ => {
                    let mut bytes = packet(0, port, Op::Unknown);
                    bytes.destination_port = if step % 2 == 0 { 80 } else { host_port };
                    bytes.flags = flags;
                    bytes.len = len;
                    bytes.buf_alloc = credit;
                    bytes.fwd_cnt = flags % 10;
                    let mut bytes = bytes.encode().to_vec();
                    bytes[30] = u8::try_from(op).expect("small");
                    bytes.extend(std::iter::repeat_n(5, len as usize % 66_000));
                    guest.send_bytes(&bytes);
                }
            }
            guest.run();
            prop_assert!(!guest.interrupts.broken());
        }
        guest.receive();
        guest.rig().stop();
    }
}
