//! Tests of what the driver negotiates with, and of saved state.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::*;
use super::rig::{MAC, Rig, config, port, port_on};
use crate::virtio::testing::{Driver, RecordInterrupts};

fn ports(count: usize) -> Vec<Arc<dyn Port>> {
    (0..count).map(|_| port().0 as Arc<dyn Port>).collect()
}

#[test]
fn the_configuration_space_is_as_the_specification_lays_it_out() {
    let full = NetConfig {
        mtu: Some(9000),
        speed: Some(10_000),
        ..config()
    };
    let net = Net::new(full, ports(4)).expect("a good configuration");
    let mut space = [0xff; 24];
    net.read_config(0, &mut space);
    let expected = [
        0x52, 0x54, 0, 1, 2, 3, 1, 0, 4, 0, 0x28, 0x23, 0x10, 0x27, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(space, expected);
    let mut part = [0xff; 2];
    net.read_config(10, &mut part);
    assert_eq!(part, [0x28, 0x23]);
    net.read_config(u64::MAX, &mut part);
    assert_eq!(part, [0, 0]);
    assert_eq!(
        net.features() & (F_MQ | F_MTU | F_SPEED_DUPLEX),
        F_MQ | F_MTU | F_SPEED_DUPLEX
    );
    assert_eq!(net.queue_sizes().len(), 9);
}

#[test]
fn only_what_the_device_has_is_offered() {
    let net = Net::new(config(), ports(1)).expect("a good configuration");
    let absent = F_MQ | F_MTU | F_SPEED_DUPLEX | F_CTRL_MAC_ADDR;
    assert_eq!(net.features() & absent, 0);
    // ECN in both directions and UFO in both, which nobody has any more.
    assert_eq!(net.features() & (1 << 9 | 1 << 10 | 1 << 13 | 1 << 14), 0);
}

#[test]
fn what_is_offered_does_not_depend_on_the_host() {
    let net = |udp_segmentation, can| {
        let config = NetConfig {
            udp_segmentation,
            ..config()
        };
        let ports: Vec<Arc<dyn Port>> = vec![port().0, port_on(can).0];
        Net::new(config, ports).map(|net| net.features())
    };
    let udp = F_HOST_USO | F_GUEST_USO4 | F_GUEST_USO6;
    let plain = net(false, true).expect("a good configuration");
    assert_eq!(plain & udp, 0);
    assert_eq!(net(false, false).expect("a good configuration"), plain);
    // Asked for, it is there, or the device is not.
    assert_eq!(net(true, true).expect("the host can"), plain | udp);
    assert!(net(true, false).is_err());
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    for (bad, count) in [
        (
            NetConfig {
                mac: [0; 6],
                ..config()
            },
            1,
        ),
        (
            NetConfig {
                mac: [1; 6],
                ..config()
            },
            1,
        ),
        (
            NetConfig {
                mtu: Some(67),
                ..config()
            },
            1,
        ),
        (
            NetConfig {
                queue_size: 0,
                ..config()
            },
            1,
        ),
        (
            NetConfig {
                queue_size: 100,
                ..config()
            },
            1,
        ),
        (
            NetConfig {
                queue_size: 2048,
                ..config()
            },
            1,
        ),
        (config(), 0),
        (config(), MAX_PAIRS + 1),
    ] {
        let result = Net::new(bad, ports(count));
        assert!(matches!(result, Err(NetError::Config(_))), "{bad:?}");
    }
}

#[test]
fn the_link_shows_in_the_status_and_tells_of_its_changes_once() {
    let mut rig = Rig::new(config(), ports(1), u64::MAX);
    rig.handle.set_link(false);
    rig.handle.set_link(false);
    assert_eq!(rig.interrupts.take_config(), 1);
    let mut status = [0xff; 2];
    rig.net.read_config(6, &mut status);
    assert_eq!(status, [0, 0]);
    rig.stop();
    // Nobody is there to be told.
    rig.handle.set_link(true);
    assert_eq!(rig.interrupts.take_config(), 0);
    rig.net.read_config(6, &mut status);
    assert_eq!(status, [1, 0]);
}

#[test]
fn a_driver_without_status_is_not_told_of_the_link() {
    let rig = Rig::new(config(), ports(1), !F_STATUS);
    rig.handle.set_link(false);
    assert_eq!(rig.interrupts.take_config(), 0);
}

#[test]
fn a_device_without_its_first_queues_does_not_start() {
    let ram = crate::memory::testing::ram(0x10_0000);
    let driver = Driver::new(&ram, 0, 256);
    let interrupts = Arc::new(RecordInterrupts::default());
    for (rx, tx, missing) in [(false, true, 0), (true, false, 1)] {
        let mut net = Net::new(config(), ports(1)).expect("a good configuration");
        let queues = vec![
            rx.then(|| driver.running(0, &interrupts)),
            tx.then(|| driver.running(1, &interrupts)),
            None,
        ];
        let start = Start {
            features: 0,
            queues,
            interrupts: Arc::clone(&interrupts) as _,
        };
        let error = net.start(start).err().expect("it cannot");
        assert!(matches!(error, StartError::MissingQueue(index) if index == missing));
    }
}

#[test]
fn saved_state_comes_back_and_is_the_same_again() {
    let mut one = Net::new(config(), ports(4)).expect("a good configuration");
    one.handle().set_link(false);
    {
        let mut control = lock(&one.link.control);
        control.modes = 5;
        control.pairs = 3;
        control.offloads = Some(F_GUEST_CSUM);
        control.unicast.addresses.push([2; 6]);
        control.multicast.addresses = vec![[1; 6]; 64];
        control.multicast.overflow = true;
    }
    let saved = one.save();
    let mut other = Net::new(config(), ports(4)).expect("a good configuration");
    assert_eq!(other.restore(1, &saved), Ok(()));
    assert!(!other.handle().link());
    assert_eq!(other.save(), saved);

    assert!(other.restore(2, &saved).is_err());
    let mut small = Net::new(config(), ports(2)).expect("a good configuration");
    let before = small.save();
    assert_eq!(
        small.restore(1, &saved),
        Err(StateError::Invalid { field: "pairs" })
    );
    assert_eq!(small.save(), before);
    for len in 0..saved.len() {
        assert!(one.restore(1, &saved[..len]).is_err(), "{len} bytes");
    }
    one.reset();
    assert_eq!(lock(&one.link.control).pairs, 1);
    assert!(!one.handle().link(), "the link is the host's");
}

#[test]
fn an_address_of_the_drivers_own_is_restored_only_where_it_may_have_one() {
    let free = NetConfig {
        mac_may_change: true,
        ..config()
    };
    let one = Net::new(free, ports(1)).expect("a good configuration");
    lock(&one.link.control).mac = [2, 0, 0, 0, 0, 9];
    let saved = one.save();
    let mut other = Net::new(free, ports(1)).expect("a good configuration");
    assert_eq!(other.restore(1, &saved), Ok(()));
    let mut bound = Net::new(config(), ports(1)).expect("a good configuration");
    assert_eq!(
        bound.restore(1, &saved),
        Err(StateError::Invalid { field: "mac" })
    );
    assert_eq!(bound.handle().mac(), MAC);
}

proptest! {
    #[test]
    fn whatever_state_is_accepted_is_what_a_save_writes(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        flip in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        let mut net = Net::new(config(), ports(2)).expect("a good configuration");
        let mut good = net.save();
        let at = flip.index(good.len());
        good[at] = to;
        for bytes in [bytes, good] {
            if net.restore(1, &bytes).is_ok() {
                prop_assert_eq!(net.save(), bytes);
            }
        }
    }
}
