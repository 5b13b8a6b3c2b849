//! Tests of frames to the guest.

use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::Duration;

use proptest::prelude::*;

use super::super::features::F_MRG_RXBUF;
use super::super::header::{HEADER_BYTES, MAX_FRAME};
use super::super::*;
use super::rig::{BUFFERS, MAC, QUEUE_SIZE, Rig, config, give, port};
use crate::virtio::testing::{into, out};

fn rig(features: u64) -> (Rig, OwnedFd) {
    let (port, host) = port();
    (Rig::new(config(), vec![port], features), host)
}

/// The frame in what the driver got back, put together again from buffers whose addresses `place`
/// tells.
fn frame(rig: &Rig, used: &[(u32, u32)], place: impl Fn(u32) -> u64) -> (Vec<u8>, Vec<u8>) {
    let mut bytes = Vec::new();
    for (head, len) in used {
        bytes.extend(rig.read(place(*head), *len as usize));
    }
    let frame = bytes.split_off(HEADER_BYTES);
    (bytes, frame)
}

#[test]
fn a_frame_is_received_in_one_buffer() {
    let (mut rig, host) = rig(F_MRG_RXBUF);
    rig.drivers[0].add(&[into(BUFFERS, 2048)]);
    rig.kick(0);
    let sent = give(&host, 100, 0);
    rig.run();
    let used = rig.drivers[0].take_used();
    assert_eq!(used, [(0, 112)]);
    let (header, received) = frame(&rig, &used, |_| BUFFERS);
    assert_eq!(header, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(received, sent);
    assert_eq!(rig.interrupts.take_queue(), 1);
    let counters = rig.handle.counters().rx;
    assert_eq!((counters.packets, counters.bytes), (1, 100));
}

#[test]
fn a_long_frame_appears_at_once_in_as_many_buffers_as_it_needs() {
    let (mut rig, host) = rig(F_MRG_RXBUF);
    for at in 0..64 {
        rig.drivers[0].add(&[into(BUFFERS + at * 2048, 1536)]);
    }
    rig.kick(0);
    let sent = give(&host, MAX_FRAME, 0);
    rig.run();
    let used = rig.drivers[0].take_used();
    assert_eq!(used.len(), 43);
    assert!(used[..42].iter().all(|(_, len)| *len == 1536));
    let (header, received) = frame(&rig, &used, |head| BUFFERS + u64::from(head) * 2048);
    assert_eq!(header[10..], [43, 0]);
    assert!(received == sent);
    // The buffers it did not need are there for the next one.
    let next = give(&host, 60, 7);
    rig.run();
    let used = rig.drivers[0].take_used();
    assert_eq!(used, [(43, 72)]);
    let place = |head| BUFFERS + u64::from(head) * 2048;
    assert_eq!(frame(&rig, &used, place).1, next);
}

#[test]
fn a_frame_longer_than_the_buffers_at_hand_waits_for_more_and_loses_nothing() {
    let (mut rig, host) = rig(F_MRG_RXBUF);
    rig.drivers[0].add(&[into(BUFFERS, 1000)]);
    rig.kick(0);
    let sent = give(&host, 3000, 0);
    rig.run();
    assert_eq!(rig.drivers[0].take_used(), []);
    rig.drivers[0].add(&[into(BUFFERS + 0x1000, 1000)]);
    rig.kick(0);
    assert_eq!(rig.drivers[0].take_used(), []);
    rig.drivers[0].add(&[into(BUFFERS + 0x2000, 100), into(BUFFERS + 0x2064, 1000)]);
    rig.kick(0);
    let used = rig.drivers[0].take_used();
    assert_eq!(used, [(0, 1000), (1, 1000), (2, 1012)]);
    let place = |head| BUFFERS + u64::from(head) * 0x1000;
    let (header, received) = frame(&rig, &used, place);
    assert_eq!(header[10..], [3, 0]);
    assert!(received == sent);
}

#[test]
fn a_frame_that_no_queue_could_hold_is_dropped_and_the_next_one_received() {
    let (mut rig, host) = rig(F_MRG_RXBUF);
    for at in 0..u64::from(QUEUE_SIZE) {
        rig.drivers[0].add(&[into(BUFFERS + at * 64, 64)]);
    }
    rig.kick(0);
    give(&host, 20_000, 0);
    let sent = give(&host, 90, 1);
    rig.run();
    let used = rig.drivers[0].take_used();
    assert_eq!(used, [(0, 64), (1, 38)]);
    let place = |head| BUFFERS + u64::from(head) * 64;
    assert_eq!(frame(&rig, &used, place).1, sent);
    assert_eq!(rig.handle.counters().rx.drops, 1);
}

#[test]
fn without_mergeable_buffers_a_frame_must_fit_in_one_chain() {
    let (mut rig, host) = rig(0);
    rig.drivers[0].add(&[into(BUFFERS, 12), into(BUFFERS + 0x100, 100)]);
    rig.drivers[0].add(&[into(BUFFERS + 0x1000, 2000)]);
    rig.kick(0);
    give(&host, 101, 0);
    let sent = give(&host, 100, 1);
    rig.run();
    // The buffer that was too small is used for the frame it is large enough for.
    assert_eq!(rig.drivers[0].take_used(), [(0, 112)]);
    assert_eq!(rig.read(BUFFERS + 10, 2), [1, 0]);
    assert_eq!(rig.read(BUFFERS + 0x100, 100), sent);
    assert_eq!(rig.handle.counters().rx.drops, 1);
}

#[test]
fn a_chain_of_more_pieces_than_one_read_takes_is_filled_whole() {
    let (mut rig, host) = rig(0);
    let table = 0x8_0000;
    for index in 0..1023_u16 {
        let last = index == 1022;
        let address = BUFFERS + u64::from(index) * 16;
        let flags = 2 | u16::from(!last);
        rig.drivers[0].descriptor_in(table, index, address, 2, flags, index + 1);
    }
    rig.drivers[0].descriptor(0, table, 1023 * 16, 4, 0);
    rig.drivers[0].offer(0);
    rig.kick(0);
    let sent = give(&host, 2046 - HEADER_BYTES, 0);
    rig.run();
    assert_eq!(rig.drivers[0].take_used(), [(0, 2046)]);
    let bytes: Vec<u8> = (0..1023)
        .flat_map(|at| rig.read(BUFFERS + at * 16, 2))
        .collect();
    assert_eq!(bytes[HEADER_BYTES..], sent);
}

#[test]
fn without_buffers_the_host_is_not_waited_for_and_nothing_spins() {
    let (mut rig, host) = rig(F_MRG_RXBUF);
    for seed in 0..4 {
        give(&host, 60, seed);
    }
    // The port is ready all the time.
    assert_eq!(rig.run(), 0);
    assert_eq!(rig.kick(0), 1);
    assert_eq!(rig.drivers[0].used_flags(), 0, "the driver is to notify");
    for at in 0..4 {
        rig.drivers[0].add(&[into(BUFFERS + at * 0x1000, 1536)]);
    }
    rig.kick(0);
    assert_eq!(rig.drivers[0].take_used().len(), 4);
    assert_eq!(rig.handle.counters().rx.drops, 0);
}

#[test]
fn frames_are_whole_whether_those_before_were_short_or_long() {
    let (mut rig, host) = rig(F_MRG_RXBUF);
    for at in 0..QUEUE_SIZE {
        rig.drivers[0].add(&[into(BUFFERS + u64::from(at) * 2048, 1536)]);
    }
    rig.kick(0);
    // Short ones until they are expected, then both kinds.
    let lengths = std::iter::repeat_n(60, 130).chain([256, 257, 60, 9000, 14, 1514, 60]);
    for (seed, len) in (0..=u8::MAX).zip(lengths) {
        let sent = give(&host, len, seed);
        rig.run();
        let used = rig.drivers[0].take_used();
        let (header, received) = frame(&rig, &used, |head| BUFFERS + u64::from(head) * 2048);
        assert_eq!(received, sent, "{len} bytes");
        assert_eq!(usize::from(header[10]), used.len(), "{len} bytes");
    }
    assert_eq!(rig.handle.counters().rx.drops, 0);
}

#[test]
fn a_flood_is_taken_in_turns_that_end() {
    let (mut rig, host) = rig(F_MRG_RXBUF);
    for at in 0..200 {
        rig.drivers[0].add(&[into(BUFFERS + at * 0x1000, 1536)]);
    }
    let mut given = 0;
    while given < 150 && rustix::io::write(&host, &[0; 72]).is_ok() {
        given += 1;
    }
    rig.kicks[0].signal();
    let sources = rig.reactor.sources(0);
    rig.workers[0].ready(worker::RX_KICK, false, &sources);
    assert_eq!(rig.drivers[0].take_used().len(), given.min(64));
    rig.run();
    assert_eq!(rig.drivers[0].take_used().len(), given - given.min(64));
}

#[test]
fn a_buffer_that_holds_no_header_or_is_not_to_be_written_breaks_the_queue() {
    for buffers in [
        vec![into(BUFFERS, 11)],
        vec![out(BUFFERS, 2000)],
        vec![out(BUFFERS, 8), into(BUFFERS, 2000)],
    ] {
        let (mut rig, host) = rig(F_MRG_RXBUF);
        rig.drivers[0].add(&buffers);
        give(&host, 60, 0);
        rig.kick(0);
        assert!(rig.interrupts.broken(), "{buffers:?}");
        assert_eq!(rig.drivers[0].take_used(), []);
        // The transmit queue is not broken.
        rig.ram.write(BUFFERS, &[0; 100]).expect("in RAM");
        rig.drivers[1].add(&[out(BUFFERS, 100)]);
        rig.kick(1);
        assert_eq!(rig.drivers[1].take_used(), [(0, 0)]);
    }
}

#[test]
fn a_frame_with_an_offload_the_driver_did_not_agree_to_is_not_shown_to_it() {
    for (features, header, shown) in [
        (0, [1, 0, 0, 0, 0, 0, 14, 0, 6, 0, 0, 0], false),
        (F_GUEST_CSUM, [1, 0, 0, 0, 0, 0, 14, 0, 6, 0, 0, 0], true),
        (F_GUEST_CSUM, [1, 1, 54, 0, 0, 1, 14, 0, 6, 0, 0, 0], false),
        (
            F_GUEST_CSUM | F_GUEST_TSO4,
            [1, 1, 54, 0, 0, 1, 14, 0, 6, 0, 0, 0],
            true,
        ),
    ] {
        let (mut rig, host) = rig(F_MRG_RXBUF | features);
        rig.drivers[0].add(&[into(BUFFERS, 2000)]);
        rig.kick(0);
        let mut bytes = header.to_vec();
        bytes.extend([5; 200]);
        rustix::io::write(&host, &bytes).expect("room");
        rig.run();
        assert_eq!(
            rig.drivers[0].take_used().len(),
            usize::from(shown),
            "{header:?}"
        );
        assert_eq!(rig.handle.counters().rx.drops, u64::from(!shown));
    }
}

#[test]
fn what_is_no_frame_is_counted_and_forgotten() {
    let (mut rig, host) = rig(F_MRG_RXBUF);
    rig.drivers[0].add(&[into(BUFFERS, 2000)]);
    rig.kick(0);
    rustix::io::write(&host, &[0; 25]).expect("room");
    rustix::io::write(&host, &[0; 12 + MAX_FRAME + 1]).expect("room");
    rig.run();
    assert_eq!(rig.drivers[0].take_used(), []);
    let counters = rig.handle.counters().rx;
    assert_eq!((counters.errors, counters.drops), (1, 1));
}

#[test]
fn while_the_link_is_down_nothing_is_received_nor_afterwards_what_came_then() {
    let (mut rig, host) = rig(F_MRG_RXBUF);
    for at in 0..4 {
        rig.drivers[0].add(&[into(BUFFERS + at * 0x1000, 1536)]);
    }
    rig.kick(0);
    rig.handle.set_link(false);
    rig.run();
    give(&host, 60, 1);
    assert_eq!(rig.run(), 0);
    rig.handle.set_link(true);
    rig.run();
    let sent = give(&host, 60, 2);
    rig.run();
    assert_eq!(rig.drivers[0].take_used(), [(0, 72)]);
    assert_eq!(rig.read(BUFFERS + 12, 60), sent);
    assert_eq!(rig.handle.counters().rx.drops, 1);
}

#[test]
fn a_limit_holds_frames_back_without_spinning_and_lets_them_through_in_time() {
    let (mut rig, host) = rig(F_MRG_RXBUF);
    for at in 0..100 {
        rig.drivers[0].add(&[into(BUFFERS + at * 0x1_0000, 0x1_0000)]);
    }
    rig.kick(0);
    // The least burst is the longest frame.
    rig.handle.set_inbound(Some(Bandwidth {
        average: NonZeroU64::new(50_000).expect("not zero"),
        peak: None,
        burst: 0,
    }));
    rig.run();
    give(&host, 60_000, 1);
    give(&host, 20_000, 2);
    give(&host, 60, 3);
    rig.run();
    assert_eq!(rig.drivers[0].take_used().len(), 2);
    assert_eq!(rig.run(), 0, "the port is ready, and not waited for");
    assert!(rig.workers[0].next_event().is_some());
    rig.tick(Duration::from_secs(10));
    assert_eq!(rig.drivers[0].take_used().len(), 1);

    // Lifting a limit does not wait for it.
    give(&host, 60_000, 1);
    give(&host, 60_000, 1);
    give(&host, 60, 2);
    rig.run();
    rig.handle.set_inbound(None);
    rig.run();
    assert_eq!(rig.drivers[0].take_used().len(), 3);
}

#[test]
fn an_interface_that_disappears_is_let_go_of() {
    let (mut rig, host) = rig(F_MRG_RXBUF);
    rig.drivers[0].add(&[into(BUFFERS, 2000)]);
    rig.kick(0);
    drop(host);
    rig.run();
    assert_eq!(rig.run(), 0);
    assert!(!rig.interrupts.broken());
    rig.drivers[1].add(&[out(BUFFERS, 100)]);
    rig.kick(1);
    assert_eq!(rig.drivers[1].take_used(), [(0, 0)]);
}

#[test]
fn buffers_that_were_not_used_are_the_drivers_again_after_a_stop() {
    let (mut rig, host) = rig(F_MRG_RXBUF);
    for at in 0..10 {
        rig.drivers[0].add(&[into(BUFFERS + at * 0x1000, 1000)]);
    }
    rig.kick(0);
    give(&host, 60, 1);
    rig.run();
    assert_eq!(rig.drivers[0].take_used().len(), 1);
    let progress = rig.stop();
    let (_, rx) = progress.iter().find(|(index, _)| *index == 0).expect("it");
    assert_eq!((rx.next_available, rx.next_used), (1, 1));
    assert_eq!(rig.handle.mac(), MAC);

    rig.start(&progress);
    let sent = give(&host, 1500, 2);
    rig.run();
    let used = rig.drivers[0].take_used();
    assert_eq!(used, [(1, 1000), (2, 512)]);
    let place = |head| BUFFERS + u64::from(head) * 0x1000;
    assert_eq!(frame(&rig, &used, place).1, sent);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn frames_of_any_length_come_whole_and_in_order_through_buffers_of_any_size(
        sizes in prop::collection::vec(12..5000_u32, 1..QUEUE_SIZE as usize / 2),
        lengths in prop::collection::vec(14..9000_usize, 1..12),
        early in any::<bool>(),
    ) {
        let (mut rig, host) = rig(F_MRG_RXBUF);
        let mut places = std::collections::HashMap::new();
        let add = |rig: &mut Rig, places: &mut std::collections::HashMap<u32, u64>| {
            for (at, size) in (0..).zip(&sizes) {
                let address = BUFFERS + at * 0x2000;
                let half = size / 2;
                let buffers = [into(address, half), into(address + u64::from(half), size - half)];
                let head = rig.drivers[0].add(&buffers);
                places.insert(u32::from(head), address);
            }
            rig.kick(0);
        };
        if early {
            add(&mut rig, &mut places);
        }
        let mut sent = Vec::new();
        for (length, seed) in lengths.iter().zip(0..) {
            sent.push(give(&host, *length, seed));
        }
        rig.run();
        if !early {
            add(&mut rig, &mut places);
        }
        let used = rig.drivers[0].take_used();
        let mut used = used.as_slice();
        let mut sent = sent.into_iter();
        while let Some((first, _)) = used.first() {
            let count = rig.read(places[first] + 10, 2);
            let count = usize::from(u16::from_le_bytes([count[0], count[1]]));
            let (now, later) = used.split_at(count);
            let (_, received) = frame(&rig, now, |head| places[&head]);
            prop_assert_eq!(Some(received), sent.next());
            used = later;
        }
        prop_assert!(!rig.interrupts.broken());
        prop_assert_eq!(rig.handle.counters().rx.errors, 0);
    }
}
