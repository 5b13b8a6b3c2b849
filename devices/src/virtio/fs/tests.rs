//! What a driver reads of the device, and what it must have set up before it may start it.

use std::sync::Arc;

use super::*;
use crate::virtio::testing::{Driver, RecordInterrupts};
use crate::virtio::vhost_user::script::{BackEnd, shared_ram};

#[test]
fn the_configuration_space_has_the_tag_and_one_request_queue() {
    let (_back_end, vhost) = BackEnd::connected();
    let device = Fs::new("shared", vhost).expect("a good tag");
    let mut space = [0xff; 48];
    device.read_config(0, &mut space);
    assert_eq!(&space[..8], b"shared\0\0");
    assert_eq!(space[8..36], [0; 28]);
    assert_eq!(space[36..40], [1, 0, 0, 0]);
    assert_eq!(space[40..], [0; 8], "and nothing beyond");
    let mut part = [0xff; 4];
    device.read_config(u64::MAX, &mut part);
    assert_eq!(part, [0; 4]);
}

#[test]
fn a_tag_fits_into_its_field() {
    for (tag, good) in [
        ("", false),
        ("a\0b", false),
        ("x", true),
        (&"x".repeat(36), true),
        (&"x".repeat(37), false),
    ] {
        let (_back_end, vhost) = BackEnd::connected();
        assert_eq!(Fs::new(tag, vhost).is_ok(), good, "{tag}");
    }
}

#[test]
fn a_driver_that_leaves_a_queue_out_does_not_start_it() {
    let (_back_end, vhost) = BackEnd::connected();
    let mut device = Fs::new("x", vhost).expect("a good tag");
    let interrupts = Arc::new(RecordInterrupts::default());
    let (ram, _) = shared_ram();
    let queue = Driver::new(&ram, 0x1000, 16).running(0, &interrupts);
    let start = Start {
        features: 0,
        queues: vec![Some(queue), None],
        interrupts,
    };
    let refused = device.start(start).map(drop);
    assert!(matches!(refused, Err(StartError::MissingQueue(1))));
}

#[test]
fn there_is_no_state_to_restore() {
    let (_back_end, vhost) = BackEnd::connected();
    let mut device = Fs::new("x", vhost).expect("a good tag");
    assert!(device.restore(1, &[]).is_err());
}
