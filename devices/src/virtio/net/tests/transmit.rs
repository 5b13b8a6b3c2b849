//! Tests of frames from the guest.

use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::super::features::{F_CSUM, F_HOST_TSO4};
use super::super::header::MAX_FRAME;
use super::super::*;
use super::rig::{BUFFERS, Rig, config, port, take};
use crate::virtio::testing::{Buffer, into, out};

fn rig(features: u64) -> (Rig, OwnedFd) {
    let (port, host) = port();
    (Rig::new(config(), vec![port], features), host)
}

/// A frame of `len` bytes with a segment of TCP over IPv4.
fn tcp(len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..251).cycle().take(len).collect();
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6]);
    frame
}

#[test]
fn a_frame_is_sent_with_its_header_checked_and_rebuilt() {
    let (mut rig, host) = rig(F_CSUM | F_HOST_TSO4);
    let header = [1, 1, 54, 0, 168, 5, 34, 0, 16, 0, 9, 9];
    rig.ram.write(BUFFERS, &header).expect("in RAM");
    let frame = tcp(3000);
    rig.ram.write(BUFFERS + 0x1000, &frame).expect("in RAM");
    rig.drivers[1].add(&[out(BUFFERS, 12), out(BUFFERS + 0x1000, 3000)]);
    rig.kick(1);
    let sent = take(&host).expect("a frame");
    assert_eq!(sent[..12], [1, 1, 54, 0, 168, 5, 34, 0, 16, 0, 0, 0]);
    assert_eq!(sent[12..], frame);
    assert_eq!(rig.drivers[1].take_used(), [(0, 0)]);
    let counters = rig.handle.counters().tx;
    assert_eq!((counters.packets, counters.bytes), (1, 3000));
}

#[test]
fn the_header_and_the_frame_may_lie_in_the_same_buffer_or_be_split_anywhere() {
    for buffers in [
        vec![out(BUFFERS, 112)],
        vec![out(BUFFERS, 5), out(BUFFERS + 5, 107)],
        vec![out(BUFFERS, 1), out(BUFFERS + 1, 12), out(BUFFERS + 13, 99)],
    ] {
        let (mut rig, host) = rig(0);
        let frame: Vec<u8> = (0..100).collect();
        rig.ram.write(BUFFERS, &[0; 12]).expect("in RAM");
        rig.ram.write(BUFFERS + 12, &frame).expect("in RAM");
        rig.drivers[1].add(&buffers);
        rig.kick(1);
        assert_eq!(take(&host).expect("a frame")[12..], frame);
    }
}

#[test]
fn a_bad_frame_is_dropped_and_counted_and_its_buffer_given_back() {
    let good = [0; 12];
    let checksum_outside = [1, 0, 0, 0, 0, 0, 99, 0, 0, 0, 0, 0];
    let not_negotiated = [1, 5, 42, 0, 0, 5, 34, 0, 6, 0, 0, 0];
    // Of nothing that the frame has, in a long one and in a short one.
    let checksum_elsewhere = [1, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0];
    for (header, buffers) in [
        (checksum_outside, vec![out(BUFFERS, 112)]),
        (not_negotiated, vec![out(BUFFERS, 112)]),
        (checksum_elsewhere, vec![out(BUFFERS, 112)]),
        (checksum_elsewhere, vec![out(BUFFERS, 1512)]),
        (good, vec![out(BUFFERS, 11)]),
        (good, vec![out(BUFFERS, 12)]),
        (good, vec![out(BUFFERS, 12 + 13)]),
        (good, vec![out(BUFFERS, 12 + 65_551)]),
        (good, vec![into(BUFFERS, 112)]),
        (good, vec![out(BUFFERS, 112), into(BUFFERS + 0x1000, 8)]),
    ] {
        let (mut rig, host) = rig(F_CSUM | F_HOST_TSO4);
        rig.ram.write(BUFFERS, &header).expect("in RAM");
        rig.drivers[1].add(&buffers);
        rig.kick(1);
        assert_eq!(take(&host), None, "{buffers:?}");
        assert_eq!(rig.drivers[1].take_used(), [(0, 0)]);
        assert_eq!(rig.handle.counters().tx.errors, 1);
        assert!(!rig.interrupts.broken());
    }
}

#[test]
fn a_frame_with_a_checksum_to_fill_in_is_sent_whole_however_it_is_split() {
    for len in [60, 255, 256, 257, 1514, 60_000] {
        for first in [12, 13, 66, 11 + 256, 12 + 256, 13 + 256] {
            let (mut rig, host) = rig(F_CSUM | F_HOST_TSO4);
            let header = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
            let frame = tcp(len);
            rig.ram.write(BUFFERS, &header).expect("in RAM");
            rig.ram.write(BUFFERS + 12, &frame).expect("in RAM");
            let whole = 12 + u32::try_from(len).expect("small");
            if first < whole {
                let rest = out(BUFFERS + u64::from(first), whole - first);
                rig.drivers[1].add(&[out(BUFFERS, first), rest]);
            } else {
                rig.drivers[1].add(&[out(BUFFERS, whole)]);
            }
            rig.kick(1);
            let sent = take(&host).expect("a frame");
            assert_eq!(
                (&sent[..12], &sent[12..]),
                (&header[..], &frame[..]),
                "{len}"
            );
        }
    }
}

/// Says so when it goes.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_is_sent_of_a_frame_that_its_guest_changes_meanwhile_is_what_was_looked_at() {
    let (mut rig, host) = rig(F_CSUM | F_HOST_TSO4);
    let header = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    rig.ram.write(BUFFERS, &header).expect("in RAM");
    rig.ram.write(BUFFERS + 12, &tcp(1500)).expect("in RAM");
    let ram = rig.ram.clone();
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        scope.spawn(|| {
            // TCP with a header of 20 bytes, or of 60, or ICMP.
            let kinds = [(0x45, 6), (0x4f, 6), (0x45, 1)];
            for (length, protocol) in kinds.into_iter().cycle() {
                ram.write(BUFFERS + 12 + 14, &[length]).expect("in RAM");
                ram.write(BUFFERS + 12 + 23, &[protocol]).expect("in RAM");
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        // Also where an assertion ends it.
        let _ends = Ends(&stop);
        let mut sent = 0;
        for _ in 0..20_000 {
            rig.drivers[1].add(&[out(BUFFERS, 12 + 1500)]);
            rig.kick(1);
            assert_eq!(rig.drivers[1].take_used(), [(0, 0)]);
            rig.drivers[1].reuse();
            if let Some(frame) = take(&host) {
                assert_eq!((frame[12 + 14], frame[12 + 23]), (0x45, 6));
                sent += 1;
            }
        }
        sent
    });
    let counters = rig.handle.counters().tx;
    assert_eq!((counters.packets, counters.errors), (sent, 20_000 - sent));
}

#[test]
fn buffers_of_gigabytes_are_only_a_bad_frame() {
    let (mut rig, host) = rig(0);
    // 1,000 pieces of 4 MiB each: more than fits in 32 bits.
    let table = 0x8_0000;
    for index in 0..1000_u16 {
        let more = u16::from(index < 999);
        rig.drivers[1].descriptor_in(table, index, 0, 0x50_0000, more, index + 1);
    }
    rig.drivers[1].descriptor(0, table, 1000 * 16, 4, 0);
    rig.drivers[1].offer(0);
    rig.kick(1);
    assert_eq!(take(&host), None);
    assert_eq!(rig.drivers[1].take_used(), [(0, 0)]);
    assert_eq!(rig.handle.counters().tx.errors, 1);
}

#[test]
fn a_frame_of_as_many_pieces_as_a_chain_may_have_is_sent() {
    let (mut rig, host) = rig(0);
    let table = 0x8_0000;
    // The header ends inside the first one, and takes an entry of its own.
    for index in 0..1023_u16 {
        let more = u16::from(index < 1022);
        rig.drivers[1].descriptor_in(table, index, BUFFERS, 13, more, index + 1);
    }
    rig.drivers[1].descriptor(0, table, 1023 * 16, 4, 0);
    rig.drivers[1].offer(0);
    rig.kick(1);
    assert_eq!(take(&host).expect("a frame").len(), 1023 * 13);
    assert_eq!(rig.drivers[1].take_used(), [(0, 0)]);
}

#[test]
fn a_broken_chain_breaks_the_queue_and_only_this_one() {
    let (mut rig, host) = rig(F_MRG_RXBUF);
    rig.drivers[1].add(&[out(0xffff_0000_0000, 100)]);
    rig.kick(1);
    assert!(rig.interrupts.broken());
    assert_eq!(rig.kick(1), 1, "kicks are taken and nothing else");
    rig.drivers[0].add(&[into(BUFFERS, 2000)]);
    rig.kick(0);
    super::rig::give(&host, 60, 0);
    rig.run();
    assert_eq!(rig.drivers[0].take_used(), [(0, 72)]);
}

#[test]
fn a_host_without_room_is_waited_for_and_nothing_is_lost() {
    let (mut rig, host) = rig(0);
    rig.ram.write(BUFFERS, &[0; 60_012]).expect("in RAM");
    for _ in 0..60 {
        rig.drivers[1].add(&[out(BUFFERS, 60_012)]);
    }
    rig.kick(1);
    let first = rig.drivers[1].take_used().len();
    assert!(first < 60, "the socket has room for everything");
    assert_eq!(rig.run(), 0, "it does not spin");
    let mut received = 0;
    for _ in 0..1000 {
        received += usize::from(take(&host).is_some());
        rig.run();
    }
    assert_eq!(received, 60);
    assert_eq!(first + rig.drivers[1].take_used().len(), 60);
    assert_eq!(rig.handle.counters().tx.packets, 60);
}

#[test]
fn frames_that_wait_for_room_are_given_back_when_the_port_goes_away() {
    let (mut rig, host) = rig(0);
    rig.ram.write(BUFFERS, &[0; 60_012]).expect("in RAM");
    for _ in 0..200 {
        rig.drivers[1].add(&[out(BUFFERS, 60_012)]);
    }
    rig.kick(1);
    let first = rig.drivers[1].take_used().len();
    assert!(first < 200, "the socket has room for everything");
    drop(host);
    rig.run();
    assert_eq!(first + rig.drivers[1].take_used().len(), 200);
    assert_eq!(rig.run(), 0, "it does not spin");
}

#[test]
fn frames_that_were_not_sent_are_sent_after_a_restart() {
    let (mut rig, host) = rig(0);
    rig.ram.write(BUFFERS, &[0; 60_012]).expect("in RAM");
    for _ in 0..60 {
        rig.drivers[1].add(&[out(BUFFERS, 60_012)]);
    }
    rig.kick(1);
    let progress = rig.stop();
    let mut received = 0;
    while take(&host).is_some() {
        received += 1;
    }
    rig.start(&progress);
    for _ in 0..1000 {
        received += usize::from(take(&host).is_some());
        rig.run();
    }
    assert_eq!(received, 60);
    assert_eq!(rig.drivers[1].take_used().len(), 60);
}

#[test]
fn a_turn_ends_after_its_budget_and_is_asked_for_again() {
    let (mut rig, _host) = rig(0);
    rig.handle.set_link(false);
    rig.run();
    rig.ram.write(BUFFERS, &[0; 100]).expect("in RAM");
    for _ in 0..200 {
        rig.drivers[1].add(&[out(BUFFERS, 100)]);
    }
    let sources = rig.reactor.sources(0);
    rig.workers[0].ready(worker::TX_KICK, false, &sources);
    assert_eq!(rig.drivers[1].take_used().len(), 64);
    rig.run();
    assert_eq!(rig.drivers[1].take_used().len(), 136);
    assert_eq!(rig.handle.counters().tx.drops, 200);
}

#[test]
fn while_the_link_is_down_frames_are_dropped() {
    let (mut rig, host) = rig(0);
    rig.handle.set_link(false);
    rig.run();
    rig.ram.write(BUFFERS, &[0; 100]).expect("in RAM");
    rig.drivers[1].add(&[out(BUFFERS, 100)]);
    rig.kick(1);
    assert_eq!(rig.drivers[1].take_used(), [(0, 0)]);
    assert_eq!(take(&host), None);
    assert_eq!(rig.handle.counters().tx.drops, 1);
}

#[test]
fn a_limit_holds_frames_back_and_lets_them_through_in_time() {
    let (mut rig, host) = rig(0);
    rig.handle.set_outbound(Some(Bandwidth {
        average: NonZeroU64::new(50_000).expect("not zero"),
        peak: NonZeroU64::new(2_000_000),
        burst: 0,
    }));
    rig.run();
    rig.ram.write(BUFFERS, &[0; 40_012]).expect("in RAM");
    for _ in 0..3 {
        rig.drivers[1].add(&[out(BUFFERS, 40_012)]);
    }
    rig.kick(1);
    assert_eq!(rig.drivers[1].take_used().len(), 2);
    assert_eq!(rig.run(), 0);
    rig.tick(Duration::from_secs(10));
    assert_eq!(rig.drivers[1].take_used().len(), 1);
    assert_eq!((0..4).filter_map(|_| take(&host)).count(), 3);
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    address: u64,
    len: u32,
    writable: bool,
}

prop_compose! {
    fn piece()(
        address in prop_oneof![
            4 => BUFFERS..BUFFERS + 0x1_0000,
            1 => any::<u64>(),
            1 => 0x7f_0000..0x81_0000_u64,
        ],
        len in prop_oneof![6 => 0..3000_u32, 1 => any::<u32>(), 1 => 60_000..70_000_u32],
        writable in prop::bool::weighted(0.1),
    ) -> Piece {
        Piece { address, len, writable }
    }
}

proptest! {
    #[test]
    fn no_chain_and_no_header_breaks_the_device(
        chains in prop::collection::vec(prop::collection::vec(piece(), 1..6), 1..20),
        memory in prop::collection::vec(any::<u8>(), 4096),
        features in any::<u64>(),
    ) {
        let (mut rig, host) = rig(features & !F_MQ);
        for at in 0..16 {
            rig.ram.write(BUFFERS + at * 4096, &memory).expect("in RAM");
        }
        let mut added = 0;
        for chain in &chains {
            let buffers: Vec<Buffer> = chain
                .iter()
                .map(|piece| Buffer {
                    address: piece.address,
                    len: piece.len,
                    writable: piece.writable,
                })
                .collect();
            rig.drivers[1].add(&buffers);
            added += 1;
            rig.kick(1);
            while let Some(frame) = take(&host) {
                prop_assert!((12 + 14..=12 + MAX_FRAME).contains(&frame.len()));
            }
        }
        let used = rig.drivers[1].take_used();
        prop_assert!(used.iter().all(|(_, written)| *written == 0));
        // Everything comes back unless the queue is broken, and then nothing behind the fault does.
        prop_assert!(rig.interrupts.broken() || used.len() == added);
        let counters = rig.handle.counters().tx;
        let counted = counters.packets + counters.errors + counters.drops;
        prop_assert_eq!(counted, used.len() as u64);
    }
}
