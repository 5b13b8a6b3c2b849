//! What a front end says to a good back end, and that no bad one hangs it, fills it or ends it.

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::script::{Act, BackEnd, FEATURES, PATIENCE, Told, connect, pair, shared_ram, word};
use super::*;
use crate::virtio::queue::QueueProgress;
use crate::virtio::rig::Rig;
use crate::virtio::testing::{Driver, RecordInterrupts};
use crate::virtio::{Interrupts, RunningQueue};

/// A device of two queues, started by its driver.
struct Device {
    rig: Rig,
    interrupts: Arc<RecordInterrupts>,
    kick: Arc<crate::event::Event>,
}

fn queues(interrupts: &Arc<RecordInterrupts>) -> Vec<Option<RunningQueue>> {
    let (ram, _) = shared_ram();
    let queue = |index: u16, base| {
        let driver = Driver::new(&ram, base, 16);
        Some(driver.running(index, interrupts))
    };
    vec![queue(0, 0x1000), queue(1, 0x1_0000_2000)]
}

fn started(vhost: &VhostUser) -> Result<Device, StartError> {
    let interrupts = Arc::new(RecordInterrupts::default());
    let queues = queues(&interrupts);
    let kick = Arc::clone(&queues[1].as_ref().expect("there").kick);
    let start = Start {
        features: F_VERSION_1 | F_EVENT_IDX | 1 << 3 | 1 << 5,
        queues,
        interrupts: Arc::clone(&interrupts) as Arc<dyn Interrupts>,
    };
    let mut workers = vhost.start("test device", start)?;
    let worker = workers.pop().expect("one worker");
    Ok(Device {
        rig: Rig::new(worker),
        interrupts,
        kick,
    })
}

#[test]
fn a_back_end_gets_memory_and_rings_and_gives_them_back() {
    let (mut back_end, vhost) = BackEnd::connected();
    assert_eq!(vhost.features(), FEATURES);
    let mut device = started(&vhost).expect("started");
    back_end.wait_for(Request::SetVringEnable, 2);
    {
        let told = lock(&back_end.told);
        let of = |request| told.iter().filter(move |told: &&Told| told.is(request));
        let features = of(Request::SetFeatures).next().expect("told");
        // What the back end does not offer is left out.
        let wanted = F_VERSION_1 | F_EVENT_IDX | 1 << 3 | F_PROTOCOL_FEATURES;
        assert_eq!(features.body, wanted.to_le_bytes());
        let memory = of(Request::SetMemTable).next().expect("told");
        assert_eq!(memory.descriptors.len(), 2);
        let words: Vec<u64> = memory
            .body
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("8")))
            .collect();
        let (low, high) = (0, 0x1_0000_0000);
        assert_eq!(
            words,
            [2, low, 0x2_0000, low, 0, high, 0x1_0000, high, 0x2_0000]
        );
        let addresses = of(Request::SetVringAddr).nth(1).expect("told");
        assert_eq!(addresses.body[8..16], 0x1_0000_2000_u64.to_le_bytes());
        let order: Vec<u32> = told.iter().map(|told| told.request).skip(6).collect();
        assert_eq!(order, [8, 10, 9, 13, 12, 18, 8, 10, 9, 13, 12, 18]);
    }
    // A notification goes to the back end.
    device.kick.signal();
    device.rig.run();
    assert!(back_end.event(Request::SetVringKick, 1).take());
    // And its interrupts to the driver.
    back_end.event(Request::SetVringCall, 1).signal();
    device.rig.run();
    assert_eq!(device.interrupts.take_queue(), 1);
    // One that comes while it stops is not lost: each queue has one more.
    back_end.event(Request::SetVringCall, 0).signal();
    let at = |next_available| QueueProgress {
        next_available,
        next_used: 0,
    };
    assert_eq!(device.rig.stop(), [(0, at(7)), (1, at(7))]);
    assert_eq!(device.interrupts.take_queue(), 2);
    assert!(!device.interrupts.broken());
    // And it serves again.
    let again = started(&vhost).expect("started again");
    back_end.wait_for(Request::SetVringEnable, 4);
    drop(again);
    drop(vhost);
    back_end.join();
}

#[test]
fn who_notifies_before_the_worker_s_first_turn_does_not_write_to_the_back_end_s_event() {
    let (mut back_end, vhost) = BackEnd::connected();
    let interrupts = Arc::new(RecordInterrupts::default());
    let queues = queues(&interrupts);
    let kick = Arc::clone(&queues[1].as_ref().expect("there").kick);
    let start = Start {
        features: F_VERSION_1,
        queues,
        interrupts: interrupts as Arc<dyn Interrupts>,
    };
    let mut workers = vhost.start("test device", start).expect("started");
    // Its thread has yet to run, and may hand the event over at any moment from here on.
    kick.signal();
    let mut written = [PollFd::new(&*kick, PollFlags::IN)];
    assert_eq!(poll(&mut written, Some(&Timespec::default())), Ok(0));
    // The notification is not lost.
    let mut rig = Rig::new(workers.pop().expect("one worker"));
    back_end.wait_for(Request::SetVringEnable, 2);
    rig.run();
    assert!(back_end.event(Request::SetVringKick, 1).take());
    rig.stop();
    drop(vhost);
    back_end.join();
}

#[test]
fn a_back_end_that_fills_its_events_and_has_them_wait_holds_up_nobody() {
    let (mut back_end, vhost) = BackEnd::connected();
    let mut device = started(&vhost).expect("started");
    back_end.wait_for(Request::SetVringEnable, 2);
    let theirs = back_end.event(Request::SetVringKick, 1);
    let flags = rustix::fs::fcntl_getfl(&theirs).expect("flags");
    let waiting = flags - rustix::fs::OFlags::NONBLOCK;
    let full = (u64::MAX - 1).to_ne_bytes();
    rustix::io::write(&theirs, &full).expect("room");
    rustix::fs::fcntl_setfl(&theirs, waiting).expect("ours as well as theirs");
    let kick = Arc::clone(&device.kick);
    let thread = std::thread::spawn(move || {
        // A register write, a reset, and what a device does that goes on.
        kick.signal();
        assert!(!kick.take(), "it is the back end's to take");
        kick.signal();
        device.rig.run();
        device.rig.stop().len()
    });
    let begin = Instant::now();
    while !thread.is_finished() {
        assert!(begin.elapsed().as_secs() < 10, "it waits for its back end");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(thread.join().expect("no panic"), 2);
    drop(vhost);
    back_end.join();
}

#[test]
fn a_back_end_without_what_every_device_needs_is_refused() {
    for (bit, name) in NEEDED {
        let (_back_end, socket) = BackEnd::start(move |told| {
            if told.is(Request::GetFeatures) {
                return Act::Send(word(1, FEATURES & !bit));
            }
            Act::Keep
        });
        assert_eq!(connect(socket).map(drop), Err(BackEndError::Lacks(name)));
    }
}

#[test]
fn a_silent_back_end_is_waited_for_no_longer_than_the_deadline() {
    let (_back_end, socket) = BackEnd::start(|_| Act::Silence);
    let begun = Instant::now();
    assert_eq!(connect(socket).map(drop), Err(BackEndError::Silent));
    assert!((PATIENCE..PATIENCE * 20).contains(&begun.elapsed()));
    // One that begins an answer and does not end it is as silent.
    let (_back_end, socket) = BackEnd::start(|told| match told.is(Request::GetFeatures) {
        true => Act::Send(word(1, FEATURES)[..15].to_vec()),
        false => Act::Silence,
    });
    assert_eq!(connect(socket).map(drop), Err(BackEndError::Silent));
}

#[test]
fn a_back_end_that_leaves_or_lies_is_refused() {
    let (_back_end, socket) = BackEnd::start(|_| Act::Leave);
    assert_eq!(connect(socket).map(drop), Err(BackEndError::Gone));
    let header = |parts: [u32; 3]| {
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_le_bytes()).collect();
        bytes.extend([0; 8]);
        bytes
    };
    for parts in [
        [2, 5, 8],
        [1, 1, 8],
        [1, 4, 8],
        [1, 6, 8],
        [1, 5, 0],
        [1, 5, 9],
        // No length of its own choice is read, nor room made for it.
        [1, 5, u32::MAX],
    ] {
        let (_back_end, socket) = BackEnd::start(move |told| match told.is(Request::GetFeatures) {
            true => Act::Send(header(parts)),
            false => Act::Keep,
        });
        let refused = connect(socket).map(drop);
        assert!(
            matches!(refused, Err(BackEndError::Protocol(_))),
            "{parts:?}: {refused:?}"
        );
    }
}

#[test]
fn the_death_of_a_back_end_costs_the_guest_the_device_and_nothing_else() {
    let (mut back_end, vhost) = {
        let (back_end, socket) = BackEnd::start(|told| match told.is(Request::SetVringEnable) {
            true => Act::Leave,
            false => Act::Keep,
        });
        (back_end, connect(socket).expect("good so far"))
    };
    let mut device = started(&vhost).expect("started");
    back_end.join();
    let interrupts = Arc::clone(&device.interrupts);
    device.rig.run_until(|| interrupts.broken());
    assert_eq!(device.rig.run(), 0, "it is not told of for ever");
    // The driver resets, and is told again when it tries.
    let progress = device.rig.stop();
    assert_eq!(progress.len(), 2);
    let again = started(&vhost);
    assert!(matches!(again, Err(StartError::Host(why)) if why.contains("gone")));
}

#[test]
fn one_that_dies_while_no_driver_uses_it_is_noticed_by_the_next() {
    let (back_end, socket) = BackEnd::start(|told| match told.is(Request::SetProtocolFeatures) {
        true => Act::Leave,
        false => Act::Keep,
    });
    let vhost = connect(socket).expect("good so far");
    let mut back_end = back_end;
    back_end.join();
    let device = started(&vhost).expect("nothing is waited for here");
    assert!(device.interrupts.broken());
}

#[test]
fn a_queue_that_is_not_given_back_in_time_is_given_up() {
    for lie in [
        None,
        // Another queue's; an entry that no queue has.
        Some(word(11, 1)),
        Some(word(11, 0x1_0000 << 32)),
    ] {
        let (_back_end, socket) =
            BackEnd::start(move |told| match (told.is(Request::GetVringBase), &lie) {
                (true, None) => Act::Silence,
                (true, Some(lie)) => Act::Send(lie.clone()),
                _ => Act::Keep,
            });
        let vhost = connect(socket).expect("good so far");
        let mut device = started(&vhost).expect("started");
        let begun = Instant::now();
        assert_eq!(device.rig.stop().len(), 2);
        assert!(begun.elapsed() < Duration::from_millis(3900));
        assert!(device.interrupts.broken());
        assert!(started(&vhost).is_err());
    }
}

#[test]
fn a_back_end_that_does_not_read_is_not_waited_for() {
    let (ours, theirs) = pair();
    let script = std::thread::spawn(move || {
        // Just enough to be believed.
        for answer in [word(1, FEATURES), word(15, 0)] {
            rustix::io::write(&theirs, &answer).expect("room");
        }
        theirs
    });
    let theirs = script.join().expect("written");
    let vhost = connect(ours.try_clone().expect("a descriptor")).expect("believed");
    rustix::io::ioctl_fionbio(&ours, true).expect("non-blocking");
    while rustix::io::write(&ours, &[0; 4096]).is_ok() {}
    while rustix::io::write(&ours, &[0; 1]).is_ok() {}
    let device = started(&vhost).expect("nothing is waited for");
    assert!(device.interrupts.broken());
    drop(theirs);
}

#[test]
fn what_a_back_end_says_to_people_costs_no_more_than_its_share() {
    let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
    let (_back_end, socket) = BackEnd::good();
    let (_, map) = shared_ram();
    let memory = SharedMemory::new(&map).expect("shared");
    let vhost = VhostUser::connect(socket, memory, 2, Some(reader), PATIENCE).expect("good");
    let mut device = started(&vhost).expect("started");
    let mut writer = std::fs::File::from(writer);
    for _ in 0..40 {
        writer.write_all(&[b'x'; 1000]).expect("room");
        writer.write_all(b"\n").expect("room");
    }
    device.rig.run();
    drop(writer);
    device.rig.run();
    assert_eq!(device.rig.run(), 0, "its end is told of once");
    assert!(!device.interrupts.broken());
    device.rig.stop();
}

#[test]
fn memory_of_this_process_alone_is_not_shared() {
    let private =
        vm_memory::GuestMemoryMmap::<()>::from_ranges(&[(vm_memory::GuestAddress(0), 0x1000)]);
    let private = private.expect("memory for a test");
    assert_eq!(SharedMemory::new(&private).map(drop), Err(NotShared));
    let (_, shared) = shared_ram();
    let shared = SharedMemory::new(&shared).expect("shared");
    assert_eq!(shared.files().len(), 2);
    assert!(
        shared
            .files()
            .iter()
            .all(|file| rustix::fs::fstat(file.as_fd()).is_ok())
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_of_a_back_end_do_more_than_end_the_session(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let (ours, theirs) = pair();
        rustix::io::write(&theirs, &bytes).expect("room");
        rustix::net::shutdown(&theirs, rustix::net::Shutdown::Write).expect("a socket");
        prop_assert!(connect(ours).is_err());
    }
}
