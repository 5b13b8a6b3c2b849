//! Tests of several pairs of queues.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::features::{F_CTRL_VQ, F_MRG_RXBUF};
use super::super::*;
use super::rig::{BUFFERS, FakePort, Rig, config, give, port, take};
use crate::virtio::testing::{into, out};

const STATUS: u64 = BUFFERS + 0x1_0000;

fn rig(pairs: usize, features: u64) -> (Rig, Vec<Arc<FakePort>>, Vec<OwnedFd>) {
    let (ports, hosts): (Vec<_>, Vec<_>) = (0..pairs).map(|_| port()).unzip();
    let dynamic = ports.iter().map(|port| Arc::clone(port) as _).collect();
    (Rig::new(config(), dynamic, features), ports, hosts)
}

fn set_pairs(rig: &mut Rig, pairs: u16) -> u8 {
    let [low, high] = pairs.to_le_bytes();
    rig.ram.write(BUFFERS, &[4, 0, low, high]).expect("in RAM");
    let control = rig.drivers.len() - 1;
    rig.drivers[control].add(&[out(BUFFERS, 4), into(STATUS, 1)]);
    rig.kick(control);
    assert_eq!(rig.drivers[control].take_used().len(), 1);
    rig.read(STATUS, 1)[0]
}

fn attached(ports: &[Arc<FakePort>]) -> Vec<bool> {
    ports
        .iter()
        .map(|port| port.attached.load(Ordering::Relaxed))
        .collect()
}

#[test]
fn pairs_are_served_once_they_are_set_and_no_longer_than_that() {
    let (mut rig, ports, hosts) = rig(3, F_MQ | F_CTRL_VQ | F_MRG_RXBUF);
    assert_eq!(rig.workers.len(), 3);
    assert_eq!(attached(&ports), [true, false, false]);

    rig.ram.write(BUFFERS, &[0; 100]).expect("in RAM");
    rig.drivers[2].add(&[into(BUFFERS + 0x1000, 2000)]);
    rig.drivers[3].add(&[out(BUFFERS, 100)]);
    rig.kick(2);
    rig.kick(3);
    give(&hosts[1], 60, 1);
    rig.run();
    assert_eq!(rig.drivers[2].take_used(), []);
    assert_eq!(rig.drivers[3].take_used(), []);

    // What waits is served without another kick.
    assert_eq!(set_pairs(&mut rig, 2), 0);
    assert_eq!(attached(&ports), [true, true, false]);
    assert_eq!(rig.drivers[2].take_used(), [(0, 72)]);
    assert_eq!(rig.drivers[3].take_used(), [(0, 0)]);
    assert!(take(&hosts[1]).is_some());

    assert_eq!(set_pairs(&mut rig, 1), 0);
    assert_eq!(attached(&ports), [true, false, false]);
    rig.drivers[2].add(&[into(BUFFERS + 0x2000, 2000)]);
    rig.kick(2);
    give(&hosts[1], 60, 1);
    assert_eq!(rig.run(), 0, "a detached port is not waited for");
    assert_eq!(rig.drivers[2].take_used(), []);
}

#[test]
fn no_pair_and_more_than_there_are_are_refused() {
    let (mut rig, ports, _hosts) = rig(3, F_MQ | F_CTRL_VQ);
    for pairs in [0, 4, 0x8000, u16::MAX] {
        assert_eq!(set_pairs(&mut rig, pairs), 1, "{pairs}");
    }
    assert_eq!(set_pairs(&mut rig, 3), 0);
    let switched: usize = ports
        .iter()
        .map(|port| port.switched.load(Ordering::Relaxed))
        .sum();
    assert_eq!(switched, 4, "away at the start, and here again");
    assert_eq!(set_pairs(&mut rig, 3), 0);
}

#[test]
fn without_multiqueue_the_control_queue_is_the_third() {
    let (mut rig, ports, _hosts) = rig(3, F_CTRL_VQ);
    assert_eq!(rig.workers.len(), 1);
    assert_eq!(attached(&ports), [true, false, false]);
    assert_eq!(set_pairs(&mut rig, 1), 1, "it is answered: refused");
}

#[test]
fn pairs_behind_a_gap_cannot_be_used_and_keep_their_progress() {
    let (mut rig, ports, _hosts) = rig(3, F_MQ | F_CTRL_VQ);
    rig.stop();
    let queues = rig
        .drivers
        .iter()
        .zip(0..)
        .map(|(driver, index)| (index != 3).then(|| driver.running(index, &rig.interrupts)))
        .collect();
    let start = Start {
        features: rig.features,
        queues,
        interrupts: Arc::clone(&rig.interrupts) as _,
    };
    rig.workers = rig.net.start(start).expect("the first pair is there");
    assert_eq!(rig.workers.len(), 1);
    rig.workers[0].start(&rig.reactor.sources(0));
    rig.run();
    assert_eq!(attached(&ports), [true, false, false]);
    let mut stopped: Vec<u16> = rig.stop().into_iter().map(|(index, _)| index).collect();
    stopped.sort_unstable();
    assert_eq!(stopped, [0, 1, 2, 4, 5, 6]);
}

#[test]
fn pairs_in_use_stay_so_over_a_pause_and_not_over_a_reset() {
    let (mut rig, ports, _hosts) = rig(2, F_MQ | F_CTRL_VQ);
    assert_eq!(set_pairs(&mut rig, 2), 0);
    let progress = rig.stop();
    assert_eq!(progress.len(), 5);
    let before = ports[1].switched.load(Ordering::Relaxed);
    rig.start(&progress);
    assert_eq!(attached(&ports), [true, true]);
    assert_eq!(ports[1].switched.load(Ordering::Relaxed), before);
    let progress = rig.stop();
    rig.net.reset();
    rig.start(&progress);
    assert_eq!(attached(&ports), [true, false]);
}
