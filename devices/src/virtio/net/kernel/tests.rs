//! A device whose pairs the kernel serves, with a kernel that is the test's.

use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::super::features::{F_CTRL_VQ, F_MQ, F_MRG_RXBUF, F_STATUS};
use super::super::tests::rig::{BUFFERS, Rig, config, give, port, take};
use super::super::{Bandwidth, Net, NetError};
use super::fake::Fake;
use super::*;
use crate::memory::blocks::Blocks;
use crate::virtio::queue::QueueProgress;
use crate::virtio::testing::{Driver, RecordInterrupts, into, out};
use crate::virtio::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, StartError, VirtioDevice};

/// Where commands of the control queue are, and their answers.
const COMMAND: u64 = BUFFERS + 0x2_0000;
const STATUS: u64 = COMMAND + 0x100;

fn net(link_up: bool, pairs: usize) -> (Net, Vec<Fake>, Vec<OwnedFd>) {
    let (ports, hosts): (Vec<_>, Vec<_>) = (0..pairs).map(|_| port()).unzip();
    let ports = ports.into_iter().map(|port| port as _).collect();
    let config = crate::virtio::net::NetConfig {
        link_up,
        ..config()
    };
    let fakes: Vec<_> = (0..pairs).map(|_| Fake::new()).collect();
    let calls = fakes.iter().map(|fake| Box::new(fake.clone()) as _);
    let net = Net::new(config, ports).expect("a good configuration");
    let net = net.with_engines(calls.collect()).expect("one for each");
    (net, fakes, hosts)
}

/// A device of one pair that runs.
fn running() -> (Rig, Fake, OwnedFd) {
    let (net, mut fakes, mut hosts) = net(true, 1);
    let rig = Rig::of(net, F_MRG_RXBUF | F_STATUS | F_CTRL_VQ);
    (rig, fakes.pop().expect("one"), hosts.pop().expect("one"))
}

/// The kernel has given back so many chains of a queue.
fn use_up(rig: &Rig, fake: &Fake, queue: usize, count: u16) {
    let used = rig.drivers[queue].layout.used + 2;
    rig.ram.write(used, &count.to_le_bytes()).expect("in RAM");
    fake.next[queue].store(count, Ordering::Relaxed);
}

fn limit() -> Option<Bandwidth> {
    Some(Bandwidth {
        average: NonZeroU64::new(100_000_000)?,
        peak: None,
        burst: 0,
    })
}

#[test]
fn the_kernel_is_told_of_memory_and_rings_before_it_is_handed_any() {
    let (net, fakes, _hosts) = net(true, 1);
    let rig = Rig::of(net, F_MRG_RXBUF | F_STATUS | F_CTRL_VQ);
    let rings: Vec<u64> = rig.drivers.iter().map(|d| d.layout.descriptors).collect();
    let mut wanted = vec![
        "owner".to_owned(),
        format!("features {F_MRG_RXBUF:#x}"),
        "memory 1".to_owned(),
    ];
    for ring in [0, 1] {
        let addresses = rings[ring];
        wanted.extend([
            format!("size {ring} 256"),
            format!("base {ring} 0"),
            format!("addresses {ring} {addresses:#x}"),
            format!("call {ring}"),
            format!("error {ring}"),
            format!("kick {ring}"),
        ]);
    }
    wanted.extend(["port 0 on".to_owned(), "port 1 on".to_owned()]);
    assert_eq!(fakes[0].told(), wanted);
    assert!(
        rig.kicks[0].take() && rig.kicks[1].take(),
        "for what waited"
    );
}

#[test]
fn of_what_was_negotiated_the_kernel_is_told_how_rings_and_headers_are() {
    let all = F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX | F_MRG_RXBUF;
    assert_eq!(FEATURES, all);
    let (fake, engine) = engine();
    let mut kernel = Kernel::new(engine, u64::MAX);
    kernel.open().expect("it is nobody's");
    kernel.open().expect("and is this process'");
    assert_eq!(
        fake.told(),
        ["owner".to_owned(), format!("features {all:#x}")]
    );
}

fn engine() -> (Fake, Arc<Engine>) {
    let fake = Fake::new();
    let engine = Engine::new(Box::new(fake.clone())).expect("events");
    (fake, Arc::new(engine))
}

#[test]
fn what_the_kernel_serves_the_worker_leaves_alone() {
    let (mut rig, fake, host) = running();
    fake.told();
    rig.drivers[0].add(&[into(BUFFERS, 2000)]);
    rig.drivers[1].add(&[out(BUFFERS, 100)]);
    give(&host, 60, 1);
    assert_eq!(rig.kick(0) + rig.kick(1), 0, "nobody here is told");
    assert_eq!(rig.drivers[0].take_used(), []);
    assert_eq!(rig.drivers[1].take_used(), []);
    assert_eq!(take(&host), None);
    assert_eq!(fake.told(), Vec::<String>::new());
}

#[test]
fn the_kernel_s_interrupts_are_the_driver_s() {
    let (mut rig, fake, _host) = running();
    rig.interrupts.take_queue();
    for ring in [0, 1] {
        fake.signal(ring);
        fake.signal(ring);
        assert_eq!(rig.run(), 1);
        assert_eq!(rig.interrupts.take_queue(), 1, "{ring}");
    }
    assert!(!rig.interrupts.broken());
}

#[test]
fn a_device_that_stops_has_its_queues_from_the_kernel_and_goes_on_from_there() {
    let (mut rig, fake, _host) = running();
    fake.told();
    use_up(&rig, &fake, 0, 7);
    use_up(&rig, &fake, 1, 0xfffe);
    // Taken by the kernel, and not given back.
    fake.next[0].store(9, Ordering::Relaxed);
    let mut progress = rig.stop();
    let at = |next_available, next_used| QueueProgress {
        next_available,
        next_used,
    };
    progress.sort_by_key(|(index, _)| *index);
    assert_eq!(
        progress,
        [(0, at(9, 7)), (1, at(0xfffe, 0xfffe)), (2, at(0, 0))]
    );
    let ends = [
        "port 0 off",
        "port 1 off",
        "base of 0",
        "base of 1",
        "nobody's",
    ];
    assert_eq!(fake.told(), ends);
    assert!(
        rig.interrupts.take_queue() >= 2,
        "for what it gave back last"
    );

    rig.start(&progress);
    let told = fake.told();
    assert!(told.contains(&"base 0 9".to_owned()), "{told:?}");
    assert!(told.contains(&"base 1 65534".to_owned()), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("port 1 on"));
}

#[test]
fn while_the_link_is_down_the_worker_serves_and_drops() {
    let (mut rig, fake, host) = running();
    fake.told();
    rig.handle.set_link(false);
    rig.run();
    assert_eq!(fake.served(), [Some(false); 2]);
    rig.drivers[0].add(&[into(BUFFERS, 2000)]);
    rig.drivers[1].add(&[out(BUFFERS, 100)]);
    rig.kick(1);
    assert_eq!(rig.drivers[1].take_used().len(), 1);
    assert_eq!((take(&host), rig.handle.counters().tx.drops), (None, 1));
    give(&host, 60, 1);
    give(&host, 60, 2);
    rig.run();

    // What waited in the tap meanwhile is dropped first.
    fake.next[1].store(1, Ordering::Relaxed);
    rig.handle.set_link(true);
    rig.run();
    assert_eq!(rig.handle.counters().rx.drops, 2);
    assert_eq!(rig.drivers[0].take_used(), []);
    let told = fake.told();
    assert!(told.contains(&"base 0 0".to_owned()), "{told:?}");
    assert!(told.contains(&"base 1 1".to_owned()), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("port 1 on"));
    assert_eq!(rig.kick(1), 0, "the kernel is told");
    assert!(!rig.interrupts.broken());
}

#[test]
fn a_device_whose_link_is_down_at_first_is_not_the_kernel_s() {
    let (net, fakes, _hosts) = net(false, 1);
    let mut rig = Rig::of(net, F_MRG_RXBUF | F_STATUS);
    assert_eq!(fakes[0].told(), Vec::<String>::new());
    rig.handle.set_link(true);
    rig.run();
    assert_eq!(fakes[0].served(), [Some(true); 2]);
}

#[test]
fn a_refusal_once_the_link_is_up_leaves_frames_to_the_worker_at_once() {
    let (net, fakes, hosts) = net(false, 1);
    fakes[0].refuse(&["port 1 on"]);
    let mut rig = Rig::of(net, F_MRG_RXBUF | F_STATUS);
    rig.drivers[0].add(&[into(BUFFERS, 2000)]);
    give(&hosts[0], 60, 1);
    rig.handle.set_link(true);
    rig.run();
    assert_eq!(fakes[0].served(), [Some(false); 2]);
    give(&hosts[0], 60, 2);
    rig.run();
    assert_eq!(rig.drivers[0].take_used(), [(0, 72)], "without a kick");
    assert_eq!(rig.handle.counters().rx.drops, 1, "what was there before");
}

#[test]
fn a_driver_that_starts_its_device_without_end_is_served_by_the_worker() {
    let (mut rig, fake, host) = running();
    let mut progress = Vec::new();
    for _ in 0..200 {
        progress = rig.stop();
        rig.start(&progress);
    }
    let told = fake.told();
    let owned = told.iter().filter(|told| *told == "owner").count();
    assert!((64..100).contains(&owned), "{owned}");
    rig.drivers[1].add(&[out(BUFFERS, 100)]);
    rig.kick(1);
    assert!(take(&host).is_some());
    assert!(!rig.interrupts.broken());
    drop(progress);
}

#[test]
fn while_there_is_a_rate_the_worker_serves_and_keeps_to_it() {
    let (mut rig, fake, host) = running();
    for set in [
        super::super::NetHandle::set_inbound,
        super::super::NetHandle::set_outbound,
    ] {
        fake.told();
        set(&rig.handle, limit());
        rig.run();
        assert_eq!(fake.served(), [Some(false); 2]);
        set(&rig.handle, None);
        rig.run();
        assert_eq!(fake.served(), [Some(true); 2]);
    }
    use_up(&rig, &fake, 0, 0);
    rig.handle.set_outbound(limit());
    rig.run();
    rig.drivers[0].add(&[into(BUFFERS, 2000)]);
    rig.drivers[1].add(&[out(BUFFERS + 0x1000, 100)]);
    give(&host, 60, 1);
    rig.kick(1);
    rig.kick(0);
    rig.tick(Duration::from_secs(1));
    assert_eq!(rig.drivers[0].take_used(), [(0, 72)]);
    assert_eq!(rig.drivers[1].take_used(), [(0, 0)]);
    assert!(take(&host).is_some());
}

fn set_pairs(rig: &mut Rig, pairs: u16) {
    let [low, high] = pairs.to_le_bytes();
    rig.ram.write(COMMAND, &[4, 0, low, high]).expect("in RAM");
    let control = rig.drivers.len() - 1;
    rig.drivers[control].add(&[out(COMMAND, 4), into(STATUS, 1)]);
    rig.kick(control);
    assert_eq!(rig.drivers[control].take_used().len(), 1);
    assert_eq!(rig.read(STATUS, 1), [0]);
}

#[test]
fn the_kernel_serves_the_pairs_that_are_in_use() {
    let (net, fakes, _hosts) = net(true, 2);
    let mut rig = Rig::of(net, F_MQ | F_CTRL_VQ | F_MRG_RXBUF);
    assert_eq!(fakes[0].served(), [Some(true); 2]);
    assert_eq!(fakes[1].served(), [None; 2]);
    set_pairs(&mut rig, 2);
    assert_eq!(fakes[1].served(), [Some(true); 2]);
    set_pairs(&mut rig, 1);
    assert_eq!(fakes[1].served(), [Some(false); 2]);
    assert_eq!(fakes[0].served(), [None; 2]);
    assert_eq!(rig.stop().len(), 5);
    assert_eq!(fakes[1].told(), ["nobody's"]);
}

#[test]
fn where_the_kernel_refuses_the_worker_serves() {
    for (refused, owned) in [
        ("owner", false),
        ("features", true),
        ("memory", true),
        ("addresses 1", true),
        ("port 0 on", true),
        ("port 1 on", true),
    ] {
        let (net, fakes, hosts) = net(true, 1);
        fakes[0].refuse(&[refused]);
        let mut rig = Rig::of(net, F_MRG_RXBUF | F_STATUS);
        rig.drivers[0].add(&[into(BUFFERS, 2000)]);
        rig.drivers[1].add(&[out(BUFFERS + 0x1000, 100)]);
        give(&hosts[0], 60, 1);
        rig.kick(0);
        rig.kick(1);
        assert_eq!(rig.drivers[0].take_used(), [(0, 72)], "{refused}");
        assert_eq!(rig.drivers[1].take_used(), [(0, 0)], "{refused}");
        assert!(take(&hosts[0]).is_some(), "{refused}");
        rig.stop();
        let told = fakes[0].told();
        let ended = told.iter().filter(|told| *told == "nobody's").count();
        assert_eq!(ended, usize::from(owned), "{refused}");
        assert_eq!(told.last().is_some_and(|told| told == "nobody's"), owned);
        assert!(!rig.interrupts.broken(), "{refused}");
        // The next driver has another try.
        fakes[0].refuse(&[]);
        rig.start(&[]);
        assert_eq!(fakes[0].served(), [Some(true); 2], "{refused}");
    }
}

#[test]
fn a_ring_that_the_kernel_finds_fault_with_costs_the_driver_a_reset_and_no_more() {
    let (mut rig, fake, host) = running();
    fake.told();
    fake.signal(2);
    rig.run();
    assert!(rig.interrupts.broken());
    assert_eq!(fake.served(), [Some(false); 2]);
    // Nobody serves it any more, whatever comes.
    rig.drivers[1].add(&[out(BUFFERS, 100)]);
    rig.kick(1);
    fake.signal(2);
    fake.signal(0);
    give(&host, 60, 1);
    rig.run();
    rig.handle.set_link(false);
    rig.run();
    rig.handle.set_link(true);
    rig.run();
    assert_eq!(rig.drivers[1].take_used(), []);
    assert_eq!(take(&host), None);
    assert_eq!(rig.stop().len(), 3);
    assert_eq!(fake.told(), ["nobody's"]);

    // What it had signalled before is not the next driver's.
    fake.signal(2);
    rig.start(&[]);
    assert_eq!(fake.served(), [Some(true); 2]);
}

#[test]
fn a_kernel_that_keeps_queues_to_itself_costs_the_device() {
    let (mut rig, fake, _host) = running();
    fake.told();
    fake.refuse(&["port 1 off"]);
    rig.handle.set_link(false);
    rig.run();
    assert_eq!(fake.told(), ["port 0 off", "port 1 off", "nobody's"]);
    assert!(!rig.interrupts.broken(), "it has let go");
    rig.stop();

    fake.refuse(&[]);
    rig.handle.set_link(true);
    rig.start(&[]);
    assert_eq!(fake.served(), [Some(true); 2]);
    fake.refuse(&["port 1 off", "nobody's"]);
    assert_eq!(rig.stop().len(), 3);
    assert!(rig.interrupts.broken());
    let start = crate::virtio::Start {
        features: 0,
        queues: Vec::new(),
        interrupts: Arc::clone(&rig.interrupts) as _,
    };
    let refused = rig.net.start(start).map(drop);
    assert!(matches!(refused, Err(StartError::Host(_))));
}

/// Queues in memory of which blocks come and go, and a kernel that serves them.
struct Growing {
    blocks: Arc<Blocks>,
    queues: [RunningQueue; 2],
    kernel: Kernel,
    fake: Fake,
    port: Arc<super::super::tests::rig::FakePort>,
}

impl Growing {
    fn new() -> Self {
        const BLOCK: u64 = 2 << 20;
        const START: u64 = 4 << 30;
        let blocks = Arc::new(Blocks::new(START, 4 * BLOCK, BLOCK).expect("whole blocks"));
        let ranges = [(GuestAddress(0), 0x1_0000), (GuestAddress(START), 4 << 21)];
        let map = GuestMemoryMmap::from_ranges(&ranges).expect("memory for a test");
        let ram = GuestRam::with_blocks(map, Arc::clone(&blocks));
        let interrupts = Arc::new(RecordInterrupts::default());
        let queues = [0x1000, 0x4000].map(|base| Driver::new(&ram, base, 16));
        let queues = [0, 1].map(|index| queues[usize::from(index)].running(index, &interrupts));
        let (fake, engine) = engine();
        let mut growing = Self {
            blocks,
            queues,
            kernel: Kernel::new(engine, FEATURES),
            fake,
            port: port().0,
        };
        growing.serve();
        growing
    }

    fn serve(&mut self) {
        let [receive, transmit] = &self.queues;
        let served = self.kernel.serve([receive, transmit], self.port.as_fd());
        served.expect("a willing kernel");
    }

    /// Plugs or unplugs a block; gives what the kernel was told of it.
    fn set(&self, block: u64, plugged: bool) -> (io::Result<()>, Vec<String>) {
        self.fake.told();
        let address = self.blocks.range().start + block * self.blocks.block_bytes();
        let run = self.blocks.run(address, 1).expect("a block");
        self.blocks.set(&run, plugged);
        (self.blocks.tell_followers(), self.fake.told())
    }
}

#[test]
fn the_kernel_is_told_of_memory_that_comes_and_goes_while_it_serves_and_only_then() {
    let mut growing = Growing::new();
    assert!(growing.fake.told().contains(&"memory 1".to_owned()));
    for (block, plugged, pieces) in [(0, true, 2), (2, true, 3), (1, true, 2), (0, false, 2)] {
        let (told, calls) = growing.set(block, plugged);
        told.expect("a willing kernel");
        assert_eq!(calls, [format!("memory {pieces}")], "{block}");
    }
    growing.fake.refuse(&["memory"]);
    assert!(
        growing.set(3, true).0.is_err(),
        "whoever plugs it learns of it"
    );
    growing.fake.refuse(&[]);

    growing.kernel.take_back();
    let (told, calls) = growing.set(1, false);
    told.expect("nobody is told");
    assert_eq!(calls, Vec::<String>::new());
    growing.serve();
    assert!(growing.fake.told().contains(&"memory 2".to_owned()));
    growing.kernel.close();
    assert_eq!(
        growing.set(1, true).1,
        Vec::<String>::new(),
        "it is nobody's"
    );
}

#[test]
fn a_kernel_that_keeps_queues_to_itself_is_told_of_memory_all_the_same() {
    let mut growing = Growing::new();
    growing.fake.refuse(&["port 1 off", "nobody's"]);
    growing.kernel.take_back();
    assert!(growing.kernel.is_stuck());
    assert_eq!(growing.set(0, true).1, ["memory 2"]);

    let mut growing = Growing::new();
    growing.fake.refuse(&["port 1 off"]);
    growing.kernel.take_back();
    assert!(!growing.kernel.is_stuck(), "it has let go in the end");
    assert_eq!(growing.set(0, true).1, Vec::<String>::new());
}

#[test]
fn a_worker_that_is_dropped_takes_the_queues_back() {
    let (mut rig, fake, _host) = running();
    fake.told();
    rig.workers.clear();
    assert_eq!(fake.told().last().map(String::as_str), Some("nobody's"));
}

#[test]
fn each_pair_has_its_own_vhost_net() {
    let (port, _host) = port();
    let net = Net::new(config(), vec![port]).expect("a good configuration");
    let fakes = vec![Box::new(Fake::new()) as _, Box::new(Fake::new()) as _];
    assert!(matches!(net.with_engines(fakes), Err(NetError::Config(_))));
}
