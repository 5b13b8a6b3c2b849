use std::collections::BTreeSet;
use std::sync::Mutex;

use proptest::prelude::*;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::request::{ANSWER_BYTES, REQUEST_BYTES};
use super::*;
use crate::event::Event;
use crate::memory::GuestRam;
use crate::memory::followers::Follower;
use crate::shared::lock;
use crate::testing::RecordWake;
use crate::virtio::rig::Rig;
use crate::virtio::testing::{Driver, RecordInterrupts, into, out};

const BLOCK: u64 = 2 << 20;
const START: u64 = 4 << 30;
const COUNT: u64 = 8;
/// Where requests and their answers are.
const DATA: u64 = 0x1000;
const ANSWER: u64 = 0x2000;
const RINGS: u64 = 0x8000;

const ACK: u16 = 0;
const NACK: u16 = 1;
const BUSY: u16 = 2;
const ERROR: u16 = 3;

const PLUG: u16 = 0;
const UNPLUG: u16 = 1;
const UNPLUG_ALL: u16 = 2;
const STATE: u16 = 3;

/// Which blocks are RAM, as the worker process would know it, and that none becomes so twice.
#[derive(Debug, Default)]
struct Host {
    there: Mutex<BTreeSet<u64>>,
    calls: Mutex<Vec<(bool, u64, u64)>>,
    refuses: Mutex<bool>,
}

impl Host {
    fn change(&self, plug: bool, address: u64, len: u64) -> io::Result<()> {
        lock(&self.calls).push((plug, address, len));
        if *lock(&self.refuses) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        assert!(len > 0 && address % BLOCK == 0 && len % BLOCK == 0);
        assert!(address >= START && address + len <= START + COUNT * BLOCK);
        let mut there = lock(&self.there);
        for block in 0..len / BLOCK {
            let address = address + block * BLOCK;
            match plug {
                true => assert!(there.insert(address), "plugged twice"),
                false => assert!(there.remove(&address), "unplugged what was not there"),
            }
        }
        Ok(())
    }

    fn calls(&self) -> Vec<(bool, u64, u64)> {
        std::mem::take(&mut lock(&self.calls))
    }
}

impl BlockBacking for Host {
    fn plug(&self, address: u64, len: u64) -> io::Result<()> {
        self.change(true, address, len)
    }

    fn unplug(&self, address: u64, len: u64) -> io::Result<()> {
        self.change(false, address, len)
    }
}

struct Guest {
    ram: GuestRam,
    host: Arc<Host>,
    device: Mem,
    control: Arc<MemControl>,
    changed: Arc<RecordWake>,
    interrupts: Arc<RecordInterrupts>,
    driver: Driver,
    kick: Option<Arc<Event>>,
    rig: Option<Rig>,
}

fn at(block: u64) -> u64 {
    START + block * BLOCK
}

fn request(kind: u16, address: u64, blocks: u16) -> [u8; REQUEST_BYTES] {
    let mut bytes = [0xaa; REQUEST_BYTES];
    bytes[..2].copy_from_slice(&kind.to_le_bytes());
    bytes[8..16].copy_from_slice(&address.to_le_bytes());
    bytes[16..18].copy_from_slice(&blocks.to_le_bytes());
    bytes
}

impl Guest {
    fn off() -> Self {
        let blocks = Arc::new(Blocks::new(START, COUNT * BLOCK, BLOCK).expect("whole blocks"));
        let size = usize::try_from(COUNT * BLOCK).expect("small");
        let ranges = [(GuestAddress(0), 0x1_0000), (GuestAddress(START), size)];
        let map = GuestMemoryMmap::from_ranges(&ranges).expect("memory for a test");
        let ram = GuestRam::with_blocks(map, Arc::clone(&blocks));
        let (host, changed) = (Arc::new(Host::default()), Arc::new(RecordWake::default()));
        let device = Mem::new(blocks, host.clone(), changed.clone());
        Self {
            driver: Driver::new(&ram, RINGS, QUEUE_SIZES[0]),
            control: device.control(),
            ram,
            host,
            device,
            changed,
            interrupts: Arc::new(RecordInterrupts::default()),
            kick: None,
            rig: None,
        }
    }

    fn new() -> Self {
        let mut guest = Self::off();
        guest.start();
        guest
    }

    fn start(&mut self) {
        let queue = self.driver.running(REQUESTS, &self.interrupts);
        self.kick = Some(queue.kick.clone());
        let start = Start {
            features: self.device.features(),
            queues: vec![Some(queue)],
            interrupts: self.interrupts.clone(),
        };
        let mut workers = self.device.start(start).expect("a worker");
        self.rig = Some(Rig::new(workers.remove(0)));
    }

    /// As a driver that resets the device and begins again.
    fn restart(&mut self) {
        self.rig.take().expect("running").stop();
        self.device.stopped();
        self.device.reset();
        self.ram.write(RINGS, &[0; 0x4000]).expect("in RAM");
        self.driver = Driver::new(&self.ram, RINGS, QUEUE_SIZES[0]);
        self.start();
    }

    fn run(&mut self) -> Vec<(u32, u32)> {
        self.kick.as_ref().expect("started").signal();
        self.rig.as_mut().expect("running").run();
        self.driver.take_used()
    }

    /// The type of the answer, and the state in it.
    fn ask(&mut self, kind: u16, address: u64, blocks: u16) -> (u16, u16) {
        self.ram
            .write(DATA, &request(kind, address, blocks))
            .expect("in RAM");
        self.ram
            .write(ANSWER, &[0xff; ANSWER_BYTES])
            .expect("in RAM");
        self.driver.reuse();
        let head = self.driver.add(&[
            out(DATA, u32::try_from(REQUEST_BYTES).expect("small")),
            into(ANSWER, u32::try_from(ANSWER_BYTES).expect("small")),
        ]);
        assert_eq!(self.run(), [(head.into(), 10)]);
        self.read_answer(ANSWER)
    }

    fn read_answer(&self, address: u64) -> (u16, u16) {
        let mut reply = [0; ANSWER_BYTES];
        self.ram.read(address, &mut reply).expect("in RAM");
        assert_eq!(reply[2..8], [0; 6], "nothing of the device's own is told");
        let word = |at: usize| u16::from_le_bytes([reply[at], reply[at + 1]]);
        (word(0), word(8))
    }

    fn config(&self) -> [u64; 7] {
        let mut bytes = [0; CONFIG_BYTES];
        self.device.read_config(0, &mut bytes);
        let mut fields = [0; 7];
        for (field, bytes) in fields.iter_mut().zip(bytes.chunks_exact(8)) {
            *field = u64::from_le_bytes(bytes.try_into().expect("eight"));
        }
        fields
    }
}

#[test]
fn the_configuration_says_where_memory_can_be_and_how_much_is_wanted() {
    let mut guest = Guest::new();
    let region = COUNT * BLOCK;
    assert_eq!(guest.config(), [BLOCK, 0, START, region, region, 0, 0]);
    assert_eq!(guest.control.request(3 * BLOCK), 3 * BLOCK);
    assert_eq!(guest.interrupts.take_config(), 1);
    assert_eq!(guest.ask(PLUG, at(2), 2), (ACK, 0));
    let now = [BLOCK, 0, START, region, region, 2 * BLOCK, 3 * BLOCK];
    assert_eq!(guest.config(), now);
    // What is beyond reads as zero, and nothing can be written.
    let mut beyond = [0xff; 12];
    guest
        .device
        .read_config(CONFIG_BYTES as u64 - 4, &mut beyond);
    assert_eq!(beyond, [0; 12]);
    guest.device.write_config(48, &[0xff; 8]);
    assert_eq!(guest.config(), now);
}

#[test]
fn what_is_requested_is_whole_blocks_of_the_region() {
    let guest = Guest::off();
    for (asked, requested) in [
        (0, 0),
        (BLOCK - 1, 0),
        (BLOCK + 1, BLOCK),
        (COUNT * BLOCK, COUNT * BLOCK),
        (u64::MAX, COUNT * BLOCK),
    ] {
        assert_eq!(guest.control.request(asked), requested);
        assert_eq!(guest.control.info().requested_bytes, requested);
    }
    assert_eq!(guest.interrupts.take_config(), 0, "there is no driver");
}

#[test]
fn what_is_requested_while_the_device_stands_is_told_when_it_goes_on_and_once() {
    let mut guest = Guest::new();
    drop(guest.rig.take().expect("running").stop());
    guest.device.stopped();
    guest.control.request(2 * BLOCK);
    assert_eq!(guest.interrupts.take_config(), 0, "it stands");
    for told in [1, 0] {
        guest.start();
        assert_eq!(guest.interrupts.take_config(), told);
        drop(guest.rig.take().expect("running").stop());
        guest.device.stopped();
    }
}

#[test]
fn a_guest_plugs_what_is_requested_and_no_block_more() {
    let mut guest = Guest::new();
    assert_eq!(guest.ask(PLUG, at(0), 1), (NACK, 0), "nothing is requested");
    guest.control.request(3 * BLOCK);
    assert_eq!(guest.ask(PLUG, at(0), 4), (NACK, 0));
    assert_eq!(guest.host.calls(), [], "the host was not troubled");
    assert_eq!(guest.ask(PLUG, at(5), 2), (ACK, 0));
    assert_eq!(guest.host.calls(), [(true, at(5), 2 * BLOCK)]);
    assert_eq!(guest.ask(PLUG, at(0), 2), (NACK, 0));
    assert_eq!(guest.ask(PLUG, at(0), 1), (ACK, 0));
    assert_eq!(guest.ask(PLUG, at(1), 1), (NACK, 0));
    assert_eq!(guest.control.info().plugged_bytes, 3 * BLOCK);
    assert_eq!(guest.changed.take(), 2);
}

#[test]
fn a_plugged_block_is_ram_to_devices_and_an_unplugged_one_is_none() {
    let mut guest = Guest::new();
    guest.control.request(COUNT * BLOCK);
    assert!(!guest.ram.contains(at(1), 1));
    guest.ask(PLUG, at(1), 2);
    assert!(guest.ram.contains(at(1), 2 * BLOCK));
    guest.ask(UNPLUG, at(1), 1);
    assert!(!guest.ram.contains(at(1), 1) && guest.ram.contains(at(2), BLOCK));
}

#[test]
fn the_state_of_blocks_is_all_none_or_some() {
    let mut guest = Guest::new();
    guest.control.request(COUNT * BLOCK);
    guest.ask(PLUG, at(2), 3);
    assert_eq!(guest.ask(STATE, at(2), 3), (ACK, 0));
    assert_eq!(guest.ask(STATE, at(0), 2), (ACK, 1));
    assert_eq!(guest.ask(STATE, at(1), 2), (ACK, 2));
    assert_eq!(guest.ask(STATE, at(0), 8), (ACK, 2));
    assert_eq!(guest.ask(STATE, at(0), 9), (ERROR, 0));
}

#[test]
fn blocks_that_are_not_all_in_the_other_state_are_left_alone() {
    let mut guest = Guest::new();
    guest.control.request(COUNT * BLOCK);
    guest.ask(PLUG, at(2), 2);
    guest.host.calls();
    for (kind, first, blocks) in [
        (PLUG, 2, 2),
        (PLUG, 1, 2),
        (PLUG, 3, 2),
        (UNPLUG, 0, 1),
        (UNPLUG, 1, 2),
        (UNPLUG, 3, 2),
        (UNPLUG, 0, 8),
    ] {
        let answer = guest.ask(kind, at(first), blocks);
        assert_eq!(answer, (ERROR, 0), "{kind} of {blocks} at {first}");
    }
    assert_eq!(guest.host.calls(), []);
    assert_eq!(guest.control.info().plugged_bytes, 2 * BLOCK);
}

#[test]
fn ranges_that_are_no_blocks_and_requests_there_are_not_are_errors() {
    let mut guest = Guest::new();
    guest.control.request(COUNT * BLOCK);
    for kind in [PLUG, UNPLUG, STATE] {
        for (address, blocks) in [
            (at(0), 0),
            (at(0) + 4096, 1),
            (at(0) - BLOCK, 1),
            (at(COUNT), 1),
            (at(COUNT - 1), 2),
            (at(0), u16::MAX),
            (0, 1),
            (0x1000, 1),
            (u64::MAX, u16::MAX),
            (u64::MAX - BLOCK + 1, u16::MAX),
        ] {
            let answer = guest.ask(kind, address, blocks);
            assert_eq!(answer, (ERROR, 0), "{kind} of {blocks} at {address:#x}");
        }
    }
    for kind in [4, 5, 0x100, u16::MAX] {
        assert_eq!(guest.ask(kind, at(0), 1), (ERROR, 0));
    }
    assert_eq!(guest.host.calls(), []);
    assert!(!guest.interrupts.broken());
}

#[test]
fn everything_is_unplugged_at_once_and_again() {
    let mut guest = Guest::new();
    guest.control.request(COUNT * BLOCK);
    guest.ask(PLUG, at(0), 2);
    guest.ask(PLUG, at(5), 1);
    guest.host.calls();
    assert_eq!(guest.ask(UNPLUG_ALL, u64::MAX, u16::MAX), (ACK, 0));
    let gone = [(false, at(0), 2 * BLOCK), (false, at(5), BLOCK)];
    assert_eq!(guest.host.calls(), gone);
    assert_eq!(guest.ask(UNPLUG_ALL, 0, 0), (ACK, 0));
    assert_eq!(guest.host.calls(), []);
}

#[test]
fn a_host_that_cannot_is_busy_and_nothing_has_changed() {
    let mut guest = Guest::new();
    guest.control.request(COUNT * BLOCK);
    guest.ask(PLUG, at(0), 2);
    *lock(&guest.host.refuses) = true;
    assert_eq!(guest.ask(PLUG, at(4), 1), (BUSY, 0));
    assert_eq!(guest.ask(UNPLUG, at(0), 1), (BUSY, 0));
    assert_eq!(guest.ask(UNPLUG_ALL, 0, 0), (BUSY, 0));
    assert_eq!(guest.ask(STATE, at(0), 2), (ACK, 0));
    assert!(!guest.ram.contains(at(4), 1) && guest.ram.contains(at(0), 2 * BLOCK));
    *lock(&guest.host.refuses) = false;
    assert_eq!(guest.ask(UNPLUG, at(0), 2), (ACK, 0));
}

/// Somebody who was told what is plugged.
#[derive(Debug)]
struct Follows {
    ram: GuestRam,
    host: Arc<Host>,
    refuses: Mutex<bool>,
    /// Blocks that were there, and blocks he was told of.
    told: Mutex<Vec<(u64, u64)>>,
}

impl Follower for Follows {
    fn follow(&self) -> io::Result<()> {
        let pieces = self.ram.pieces(64);
        let blocks = pieces.iter().filter(|(start, ..)| *start >= START);
        let bytes: u64 = blocks.map(|(_, len, _)| len).sum();
        let there = lock(&self.host.there).len() as u64;
        lock(&self.told).push((there, bytes / BLOCK));
        match *lock(&self.refuses) {
            true => Err(io::ErrorKind::OutOfMemory.into()),
            false => Ok(()),
        }
    }
}

#[test]
fn who_goes_by_what_is_plugged_is_never_told_of_a_block_that_is_not_there() {
    let mut guest = Guest::new();
    guest.control.request(COUNT * BLOCK);
    let follower = Arc::new(Follows {
        ram: guest.ram.clone(),
        host: guest.host.clone(),
        refuses: Mutex::new(false),
        told: Mutex::default(),
    });
    guest.ram.follow(&(follower.clone() as _));
    let told = || std::mem::take(&mut *lock(&follower.told));
    assert_eq!(guest.ask(PLUG, at(0), 2), (ACK, 0));
    assert_eq!(told(), [(2, 2)], "once it is there");
    assert_eq!(guest.ask(UNPLUG, at(0), 1), (ACK, 0));
    assert_eq!(told(), [(2, 1)], "before it is gone");

    // Where he does not follow, nothing changes.
    *lock(&follower.refuses) = true;
    assert_eq!(guest.ask(PLUG, at(4), 1), (BUSY, 0));
    assert_eq!(told(), [(2, 2), (2, 1)]);
    assert_eq!(guest.ask(UNPLUG, at(1), 1), (BUSY, 0));
    assert_eq!(told(), [(1, 0), (1, 1)]);
    assert_eq!(guest.ask(STATE, at(1), 1), (ACK, 0));
    assert_eq!(guest.ask(STATE, at(4), 1), (ACK, 1));
    assert_eq!(lock(&guest.host.there).len(), 1);
    *lock(&follower.refuses) = false;

    // Nor does he stay told of what the host could not take away.
    *lock(&guest.host.refuses) = true;
    assert_eq!(guest.ask(UNPLUG, at(1), 1), (BUSY, 0));
    assert_eq!(told(), [(1, 0), (1, 1)]);
    *lock(&guest.host.refuses) = false;
    guest.control.take_out_all().expect("a willing host");
    assert_eq!(told(), [(1, 0)]);
}

#[test]
fn every_change_of_a_field_that_is_read_in_halves_is_one_of_the_generation() {
    let mut guest = Guest::new();
    let before = guest.device.config_changes();
    guest.control.request(COUNT * BLOCK);
    assert_eq!(guest.device.config_changes(), before.wrapping_add(1));
    guest.ask(STATE, at(0), 1);
    guest.ask(PLUG, at(COUNT), 1);
    assert_eq!(guest.device.config_changes(), before.wrapping_add(1));
    guest.ask(PLUG, at(0), 2);
    guest.ask(UNPLUG, at(0), 1);
    assert_eq!(guest.device.config_changes(), before.wrapping_add(3));
}

#[test]
fn what_is_plugged_stays_when_the_driver_begins_again() {
    let mut guest = Guest::new();
    guest.control.request(4 * BLOCK);
    guest.ask(PLUG, at(1), 2);
    guest.restart();
    assert_eq!(guest.ask(STATE, at(1), 2), (ACK, 0));
    assert_eq!(guest.config()[5..], [2 * BLOCK, 4 * BLOCK]);
}

#[test]
fn a_reset_of_the_machine_unplugs_everything_and_asks_for_as_much_as_before() {
    let mut guest = Guest::new();
    guest.control.request(4 * BLOCK);
    guest.ask(PLUG, at(1), 2);
    guest.rig.take().expect("running").stop();
    guest.device.stopped();
    guest.control.take_out_all().expect("a willing host");
    guest.device.reset();
    assert!(lock(&guest.host.there).is_empty());
    assert_eq!(guest.config()[5..], [0, 4 * BLOCK]);
}

#[test]
fn a_driver_that_would_read_what_is_not_plugged_is_not_served() {
    let mut guest = Guest::off();
    let queue = guest.driver.running(REQUESTS, &guest.interrupts);
    let start = |features, queue| Start {
        features,
        queues: vec![queue],
        interrupts: guest.interrupts.clone(),
    };
    let without = guest.device.start(start(0, Some(queue)));
    assert!(matches!(without, Err(StartError::Feature(_))));
    let all = guest.device.features();
    let missing = guest.device.start(start(all, None));
    assert!(matches!(missing, Err(StartError::MissingQueue(0))));
}

#[test]
fn a_request_that_is_cut_or_has_no_room_for_its_answer_breaks_the_queue() {
    let short = [
        vec![out(DATA, 23), into(ANSWER, 10)],
        vec![out(DATA, 24), into(ANSWER, 9)],
        vec![out(DATA, 24)],
        vec![into(ANSWER, 64)],
    ];
    for buffers in short {
        let mut guest = Guest::new();
        guest.control.request(COUNT * BLOCK);
        guest
            .ram
            .write(DATA, &request(PLUG, at(0), 1))
            .expect("in RAM");
        guest.driver.add(&buffers);
        assert_eq!(guest.run(), []);
        assert!(guest.interrupts.broken(), "{buffers:?}");
        assert_eq!(guest.host.calls(), [], "it is not carried out");
    }
}

#[test]
fn a_request_in_pieces_is_a_request() {
    let mut guest = Guest::new();
    guest.control.request(COUNT * BLOCK);
    let bytes = request(PLUG, at(3), 1);
    guest.ram.write(DATA, &bytes[..9]).expect("in RAM");
    guest.ram.write(DATA + 0x100, &bytes[9..]).expect("in RAM");
    guest.driver.add(&[
        out(DATA, 9),
        out(DATA + 0x100, 64),
        into(ANSWER, 1),
        into(ANSWER + 1, 64),
    ]);
    assert_eq!(guest.run(), [(0, 10)]);
    assert_eq!(guest.read_answer(ANSWER), (ACK, 0));
    assert_eq!(guest.host.calls(), [(true, at(3), BLOCK)]);
}

#[test]
fn an_answer_for_memory_that_the_request_takes_away_is_dropped() {
    let mut guest = Guest::new();
    guest.control.request(COUNT * BLOCK);
    guest.ask(PLUG, at(0), 1);
    guest
        .ram
        .write(DATA, &request(UNPLUG, at(0), 1))
        .expect("in RAM");
    guest.driver.reuse();
    guest.driver.add(&[out(DATA, 24), into(at(0), 10)]);
    assert_eq!(guest.run(), [(0, 0)], "nothing was written");
    assert!(!guest.interrupts.broken());
    // A request that lies there is outside RAM from then on.
    guest.driver.reuse();
    guest.driver.add(&[out(at(0), 24), into(ANSWER, 10)]);
    assert_eq!(guest.run(), []);
    assert!(guest.interrupts.broken());
}

#[test]
fn a_flood_of_changes_is_served_in_turns() {
    let mut guest = Guest::new();
    guest.control.request(COUNT * BLOCK);
    guest
        .ram
        .write(DATA, &request(PLUG, at(0), 8))
        .expect("in RAM");
    guest
        .ram
        .write(DATA + 0x100, &request(UNPLUG, at(0), 8))
        .expect("in RAM");
    for request in 0..32_u64 {
        let which = DATA + (request % 2) * 0x100;
        guest.driver.add(&[out(which, 24), into(ANSWER, 10)]);
    }
    guest.kick.as_ref().expect("started").signal();
    let events = guest.rig.as_mut().expect("running").run();
    assert!(events >= 4, "{events} turns for 256 blocks");
    assert_eq!(guest.driver.take_used().len(), 32);
    assert!(lock(&guest.host.there).is_empty());
}

#[test]
fn what_is_requested_and_what_is_plugged_are_saved_apart() {
    let mut guest = Guest::new();
    guest.control.request(4 * BLOCK);
    guest.ask(PLUG, at(1), 2);
    guest.ask(PLUG, at(7), 1);
    let (state, blocks) = (guest.device.save(), guest.control.save_blocks());

    let mut other = Guest::off();
    let control = &other.control;
    control.restore_blocks(1, &blocks).expect("its own");
    let came = [(true, at(1), 2 * BLOCK), (true, at(7), BLOCK)];
    assert_eq!(other.host.calls(), came);
    other.device.restore(1, &state).expect("its own");
    assert_eq!(other.config(), guest.config());
    // Again, and over another state: only what differs comes and goes.
    control.restore_blocks(1, &blocks).expect("its own");
    assert_eq!(other.host.calls(), []);
    let none = Guest::off().control.save_blocks();
    control.restore_blocks(1, &none).expect("its own");
    assert_eq!(other.host.calls().len(), 2);
    assert_eq!(control.info().plugged_bytes, 0);
}

#[test]
fn a_record_that_no_device_wrote_changes_nothing() {
    let mut guest = Guest::off();
    let too_much = ((COUNT + 1) * BLOCK).to_le_bytes();
    let half = (BLOCK / 2).to_le_bytes();
    for (version, bytes) in [
        (1, &too_much[..]),
        (1, &half),
        (1, &[0; 7]),
        (1, &[0; 9]),
        (2, &[0; 8]),
    ] {
        assert!(guest.device.restore(version, bytes).is_err(), "{bytes:?}");
    }
    let good = guest.control.save_blocks();
    let control = &guest.control;
    assert!(control.restore_blocks(2, &good).is_err());
    assert!(control.restore_blocks(1, &good[1..]).is_err());
    *lock(&guest.host.refuses) = true;
    let mut plugged = good;
    plugged[24] = 1;
    let refused = control.restore_blocks(1, &plugged);
    assert!(matches!(refused, Err(RestoreBlocksError::Host(_))));
    assert_eq!(guest.config()[5..], [0, 0]);
}

proptest! {
    /// Whatever a guest asks for, the device agrees with a list of blocks, and never has more than is
    /// requested at the moment of a plug.
    #[test]
    fn any_requests_leave_the_device_as_a_list_of_blocks_says(
        steps in proptest::collection::vec(
            (0_u16..6, 0_u64..COUNT + 2, prop_oneof![0_u16..5, any::<u16>()], 0_u64..=COUNT),
            1..60,
        ),
    ) {
        let mut guest = Guest::new();
        let mut there = BTreeSet::new();
        for (kind, first, blocks, requested) in steps {
            let requested = guest.control.request(requested * BLOCK);
            let range = first..first + u64::from(blocks);
            let valid = blocks > 0 && range.end <= COUNT;
            let held = range.clone().filter(|block| there.contains(block)).count() as u64;
            let all = u64::from(blocks);
            let after = (there.len() as u64 + all).saturating_mul(BLOCK);
            let expected = match kind {
                PLUG if !valid => (ERROR, 0),
                PLUG if after > requested => (NACK, 0),
                PLUG if held > 0 => (ERROR, 0),
                PLUG => {
                    there.extend(range.clone());
                    (ACK, 0)
                }
                UNPLUG if !valid || held < all => (ERROR, 0),
                UNPLUG => {
                    there.retain(|block| !range.contains(block));
                    (ACK, 0)
                }
                UNPLUG_ALL => {
                    there.clear();
                    (ACK, 0)
                }
                STATE if !valid => (ERROR, 0),
                STATE if held == all => (ACK, 0),
                STATE if held == 0 => (ACK, 1),
                STATE => (ACK, 2),
                _ => (ERROR, 0),
            };
            prop_assert_eq!(guest.ask(kind, at(first), blocks), expected);
            let host: Vec<u64> = lock(&guest.host.there).iter().copied().collect();
            let wanted: Vec<u64> = there.iter().map(|block| at(*block)).collect();
            prop_assert_eq!(host, wanted);
            let plugged = there.len() as u64 * BLOCK;
            prop_assert_eq!(guest.control.info().plugged_bytes, plugged);
        }
    }

    /// Any bytes in any two buffers end in an answer or in a broken queue.
    #[test]
    fn any_bytes_are_answered_or_break_the_queue(
        bytes in proptest::collection::vec(any::<u8>(), 1..64),
        room in 1_u32..64,
    ) {
        let mut guest = Guest::new();
        guest.control.request(COUNT * BLOCK);
        guest.ram.write(DATA, &bytes).expect("in RAM");
        let len = u32::try_from(bytes.len()).expect("small");
        guest.driver.add(&[out(DATA, len), into(ANSWER, room)]);
        let used = guest.run();
        prop_assert_eq!(used.is_empty(), guest.interrupts.broken());
        prop_assert_eq!(used.is_empty(), len < 24 || room < 10);
    }
}
