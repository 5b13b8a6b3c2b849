//! Tests of the control queue. Commands go through a whole device.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::super::features::F_CTRL_VQ;
use super::super::tests::rig::{BUFFERS, FakePort, MAC, Rig, config, port};
use super::super::{F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6, VirtioDevice};
use super::*;
use crate::virtio::testing::{into, out};

const ALL: u64 = !F_MQ;

fn rig(features: u64, mac_may_change: bool) -> (Rig, Arc<FakePort>) {
    let (port, _host) = port();
    let config = super::super::NetConfig {
        mac_may_change,
        ..config()
    };
    (
        Rig::new(config, vec![Arc::clone(&port) as _], features),
        port,
    )
}

/// Sends a command; gives the answer, or `None` if there was none.
fn command(rig: &mut Rig, bytes: &[u8]) -> Option<u8> {
    rig.ram.write(BUFFERS, bytes).expect("in RAM");
    rig.ram.write(BUFFERS + 0x1_0000, &[0x55]).expect("in RAM");
    let len = u32::try_from(bytes.len()).expect("a short command");
    let head = len.min(2);
    let rest = len - head;
    let mut buffers = vec![out(BUFFERS, head)];
    if rest > 0 {
        buffers.push(out(BUFFERS + u64::from(head), rest));
    }
    buffers.push(into(BUFFERS + 0x1_0000, 1));
    rig.drivers[2].add(&buffers);
    rig.kick(2);
    let used = rig.drivers[2].take_used();
    (used.len() == 1).then(|| {
        assert_eq!(used[0].1, 1);
        rig.read(BUFFERS + 0x1_0000, 1)[0]
    })
}

#[test]
fn receive_modes_are_remembered() {
    let (mut rig, _port) = rig(ALL, false);
    for mode in 0..6 {
        assert_eq!(command(&mut rig, &[0, mode, 1]), Some(OK));
    }
    assert_eq!(command(&mut rig, &[0, 1, 0]), Some(OK));
    assert_eq!(lock(&rig.handle.0.control).modes, 0b11_1101);
    rig.stop();
    rig.net.reset();
    assert_eq!(lock(&rig.handle.0.control).modes, 0);
}

#[test]
fn a_command_that_is_not_exactly_as_specified_is_refused() {
    let (mut rig, _port) = rig(ALL, true);
    for bytes in [
        &[0][..],
        &[0, 0],
        &[0, 0, 2],
        &[0, 0, 1, 1],
        &[0, 6, 1],
        &[1, 1, 2, 0, 0, 0, 0],
        &[1, 1, 2, 0, 0, 0, 0, 1, 0],
        // A group's address, and none.
        &[1, 1, 1, 0, 0, 0, 0, 1],
        &[1, 1, 0, 0, 0, 0, 0, 0],
        &[1, 2, 0],
        &[2, 0, 1, 0],
        &[3, 0, 0],
        &[3, 1],
        &[4, 0, 1, 0],
        &[5, 0, 0, 0, 0, 0, 0, 0, 0],
        // An offload that is none.
        &[5, 0, 0, 8, 0, 0, 0, 0, 0, 0],
        &[255, 255],
    ] {
        assert_eq!(command(&mut rig, bytes), Some(ERR), "{bytes:?}");
    }
    assert_eq!(rig.handle.mac(), MAC);
    assert!(!rig.interrupts.broken());
}

#[test]
fn what_was_not_negotiated_is_refused() {
    let (mut rig, _port) = rig(F_CTRL_VQ, false);
    for bytes in [
        &[0, 0, 1][..],
        &[0, 2, 1],
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[1, 1, 2, 0, 0, 0, 0, 1],
        &[3, 0],
        &[4, 0, 1, 0],
        &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        assert_eq!(command(&mut rig, bytes), Some(ERR), "{bytes:?}");
    }
}

#[test]
fn an_address_is_set_only_if_that_is_allowed() {
    let set = [1, 1, 2, 0, 0, 0, 0, 1];
    let (mut allowed, _port) = rig(ALL, true);
    assert_eq!(command(&mut allowed, &set), Some(OK));
    assert_eq!(allowed.handle.mac(), [2, 0, 0, 0, 0, 1]);
    let mut shown = [0; 6];
    allowed.net.read_config(0, &mut shown);
    assert_eq!(shown, [2, 0, 0, 0, 0, 1]);

    let (mut refused, _port) = rig(ALL, false);
    assert_eq!(refused.net.features() & F_CTRL_MAC_ADDR, 0);
    assert_eq!(command(&mut refused, &set), Some(ERR));
    assert_eq!(refused.handle.mac(), MAC);
}

fn tables(unicast: u32, multicast: u32) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    for (count, first) in [(unicast, 2), (multicast, 1)] {
        bytes.extend(count.to_le_bytes());
        for index in 0..count {
            bytes.extend([first, 0]);
            bytes.extend(index.to_be_bytes());
        }
    }
    bytes
}

#[test]
fn tables_are_remembered_up_to_their_bound() {
    let (mut rig, _port) = rig(ALL, false);
    assert_eq!(command(&mut rig, &tables(2, 1)), Some(OK));
    {
        let control = lock(&rig.handle.0.control);
        assert_eq!(
            control.unicast.addresses,
            [[2, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 1]]
        );
        assert_eq!(control.multicast.addresses, [[1, 0, 0, 0, 0, 0]]);
        assert!(!control.unicast.overflow && !control.multicast.overflow);
    }
    assert_eq!(command(&mut rig, &tables(5000, 65)), Some(OK));
    {
        let control = lock(&rig.handle.0.control);
        for table in [&control.unicast, &control.multicast] {
            assert_eq!(table.addresses.len(), MAX_ADDRESSES);
            assert!(table.overflow);
        }
    }
    assert_eq!(command(&mut rig, &tables(0, 64)), Some(OK));
    let control = lock(&rig.handle.0.control);
    assert_eq!(control.unicast, MacTable::default());
    assert!(!control.multicast.overflow);
}

#[test]
fn a_table_whose_count_lies_is_refused_and_changes_nothing() {
    let (mut rig, _port) = rig(ALL, false);
    assert_eq!(command(&mut rig, &tables(1, 1)), Some(OK));
    let before = lock(&rig.handle.0.control).clone();
    for count in [2_u32, 3, u32::MAX, u32::MAX / 6, 0x8000_0000] {
        let mut bytes = tables(1, 1);
        bytes[2..6].copy_from_slice(&count.to_le_bytes());
        assert_eq!(command(&mut rig, &bytes), Some(ERR), "{count}");
    }
    let mut swapped = tables(1, 1);
    swapped[6] = 1;
    assert_eq!(command(&mut rig, &swapped), Some(ERR));
    assert_eq!(*lock(&rig.handle.0.control), before);
}

#[test]
fn offloads_are_switched_among_those_negotiated() {
    let features = F_CTRL_VQ | F_CTRL_GUEST_OFFLOADS | F_GUEST_CSUM | F_GUEST_TSO4;
    let (mut rig, port) = rig(features, false);
    let set = |bits: u64| {
        let mut bytes = vec![5, 0];
        bytes.extend(bits.to_le_bytes());
        bytes
    };
    assert_eq!(command(&mut rig, &set(F_GUEST_CSUM)), Some(OK));
    assert_eq!(
        command(&mut rig, &set(F_GUEST_CSUM | F_GUEST_TSO6)),
        Some(ERR)
    );
    port.refuses.store(true, Ordering::Relaxed);
    assert_eq!(command(&mut rig, &set(0)), Some(ERR));
    assert_eq!(rig.handle.0.offload_bits(), F_GUEST_CSUM);
    port.refuses.store(false, Ordering::Relaxed);
    // After a pause it is as the driver left it, and after a reset as negotiated.
    let progress = rig.stop();
    rig.start(&progress);
    let progress = rig.stop();
    rig.net.reset();
    rig.start(&progress);
    let set: Vec<(bool, bool)> = lock(&port.offloads)
        .iter()
        .map(|offloads| (offloads.checksum, offloads.tcp4))
        .collect();
    assert_eq!(
        set,
        [(true, true), (true, false), (true, false), (true, true)]
    );
}

#[test]
fn a_driver_gets_only_so_many_changes_of_the_host() {
    let (mut rig, port) = rig(ALL, false);
    let answers: Vec<u8> = (0..80_u64)
        .filter_map(|round| {
            let mut bytes = vec![5, 0];
            bytes.extend(((round & 1) * F_GUEST_CSUM).to_le_bytes());
            command(&mut rig, &bytes)
        })
        .collect();
    assert!(answers[..64].iter().all(|answer| *answer == OK));
    assert!(answers[64..].contains(&ERR));
    // One is the start's; a slow machine earns a few more meanwhile.
    let done = lock(&port.offloads).len();
    assert!((65..81).contains(&done), "{done}");
}

#[test]
fn an_announcement_is_asked_for_until_the_driver_says_that_it_made_it() {
    let (mut rig, _port) = rig(ALL, false);
    assert!(rig.handle.announce());
    assert_eq!(rig.interrupts.take_config(), 1);
    let status = |rig: &Rig| {
        let mut status = [0; 2];
        rig.net.read_config(6, &mut status);
        status[0]
    };
    assert_eq!(status(&rig), 3);
    assert_eq!(command(&mut rig, &[3, 0]), Some(OK));
    assert_eq!(status(&rig), 1);
    rig.stop();
    assert!(!rig.handle.announce(), "nobody is there to be asked");
}

#[test]
fn a_command_without_room_for_its_answer_breaks_the_queue() {
    let (mut rig, _port) = rig(ALL, false);
    rig.ram.write(BUFFERS, &[0, 0, 1]).expect("in RAM");
    rig.drivers[2].add(&[out(BUFFERS, 3)]);
    rig.kick(2);
    assert!(rig.interrupts.broken());
    assert_eq!(command(&mut rig, &[0, 0, 1]), None);
}

proptest! {
    #[test]
    fn every_command_is_answered_whatever_its_bytes(
        class in 0..7_u8,
        kind in 0..8_u8,
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        small in any::<bool>(),
    ) {
        let (mut rig, _port) = rig(ALL, true);
        let mut all = vec![class, kind];
        all.extend(bytes.iter().map(|byte| if small { byte & 1 } else { *byte }));
        let answer = command(&mut rig, &all);
        prop_assert!(matches!(answer, Some(OK | ERR)));
        let control = lock(&rig.handle.0.control).clone();
        prop_assert!(is_unicast(control.mac));
        prop_assert!(control.unicast.addresses.len() <= MAX_ADDRESSES);
        let saved = rig.net.save();
        prop_assert_eq!(rig.net.restore(1, &saved), Ok(()));
        prop_assert_eq!(&*lock(&rig.handle.0.control), &control);
    }
}
