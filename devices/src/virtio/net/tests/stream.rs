//! Tests of a device whose port is a stream.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::super::features::{F_CSUM, F_GUEST_CSUM, F_HOST_TSO4, F_MRG_RXBUF};
use super::super::header::HEADER_BYTES;
use super::super::*;
use super::rig::{BUFFERS, Rig, config};
use crate::virtio::testing::{into, out};

fn rig() -> (Rig, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (ours, host) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("a socket pair");
    let port = Arc::new(Stream::new(ours).expect("a socket"));
    (Rig::new(config(), vec![port], F_MRG_RXBUF), host)
}

fn framed(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).expect("a frame");
    [&length.to_be_bytes()[..], frame].concat()
}

#[test]
fn nothing_is_left_to_the_other_side() {
    let (rig, _host) = rig();
    assert_eq!(
        rig.net.features() & (F_CSUM | F_GUEST_CSUM | F_HOST_TSO4),
        0
    );
}

#[test]
fn frames_pass_both_ways_without_the_header() {
    let (mut rig, host) = rig();
    rig.drivers[0].add(&[into(BUFFERS, 2048)]);
    rig.kick(0);
    let frame: Vec<u8> = (0..100).collect();
    rustix::io::write(&host, &framed(&frame)).expect("room");
    rig.run();
    assert_eq!(rig.drivers[0].take_used(), [(0, 112)]);
    let header = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(rig.read(BUFFERS, 112), [&header[..], &frame].concat());

    let place = BUFFERS + 0x1000;
    let mut sent = vec![0; HEADER_BYTES];
    sent.extend(&frame);
    rig.ram.write(place, &sent).expect("in RAM");
    rig.drivers[1].add(&[out(place, 112)]);
    rig.kick(1);
    assert_eq!(rig.drivers[1].take_used(), [(0, 0)]);
    let mut got = [0; 200];
    let length = rustix::io::read(&host, &mut got).expect("a frame");
    assert_eq!(got[..length], framed(&frame));
}

#[test]
fn a_host_that_does_not_read_holds_the_guest_up_and_loses_nothing_of_what_it_took() {
    let (mut rig, host) = rig();
    let frame = vec![5; 1500];
    let mut sent = vec![0; HEADER_BYTES];
    sent.extend(&frame);
    rig.ram.write(BUFFERS, &sent).expect("in RAM");
    let mut taken = 0;
    for _ in 0..250 {
        rig.drivers[1].add(&[out(BUFFERS, 1512)]);
        rig.kick(1);
    }
    taken += rig.drivers[1].take_used().len();
    assert!(taken < 250, "it takes all");
    let mut all = Vec::new();
    let mut some = vec![0; 1 << 16];
    while all.len() < 250 * 1504 {
        let length = rustix::io::read(&host, &mut some).expect("more of it");
        all.extend_from_slice(&some[..length]);
        rig.run();
    }
    taken += rig.drivers[1].take_used().len();
    assert_eq!(taken, 250);
    assert!(all.chunks(1504).all(|one| one == framed(&frame)));
}

#[test]
fn a_host_that_says_what_nobody_says_or_goes_costs_the_link_and_no_more() {
    let (mut rig, host) = rig();
    rig.drivers[0].add(&[into(BUFFERS, 2048)]);
    rig.kick(0);
    rustix::io::write(&host, &u32::MAX.to_be_bytes()).expect("room");
    rig.run();
    assert_eq!(rig.drivers[0].take_used(), []);
    drop(host);
    rig.run();
    rig.ram.write(BUFFERS, &[0; 112]).expect("in RAM");
    rig.drivers[1].add(&[out(BUFFERS, 112)]);
    rig.kick(1);
    assert_eq!(rig.drivers[1].take_used(), [(0, 0)]);
    rig.stop();
}
