use super::*;
use crate::memory::testing::ram;
use crate::virtio::testing::{Driver, into, out};

const SIZE: u16 = 8;

fn driver() -> Driver {
    Driver::new(&ram(0x2_0000), 0x1_0000, SIZE)
}

fn pop(queue: &mut Queue) -> Result<Option<Chain>, QueueFault> {
    let mut chain = Chain::new();
    queue.pop(&mut chain).map(|some| some.then_some(chain))
}

#[test]
fn a_chain_comes_out_as_it_was_put_in_and_goes_back() {
    let mut driver = driver();
    let mut queue = driver.queue();
    assert!(pop(&mut queue).expect("sound").is_none());
    let head = driver.add(&[out(0, 16), out(0x100, 4), into(0x200, 512), into(0x400, 1)]);
    let chain = pop(&mut queue).expect("sound").expect("there is one");
    assert_eq!(chain.head(), head);
    assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (20, 513));
    assert_eq!(chain.readable().len(), 2);
    assert_eq!(
        chain.writable(),
        [
            Span {
                address: 0x200,
                len: 512
            },
            Span {
                address: 0x400,
                len: 1
            },
        ]
    );
    assert!(pop(&mut queue).expect("sound").is_none());
    queue.push(head, 77).expect("in RAM");
    assert_eq!(driver.take_used(), [(u32::from(head), 77)]);
    assert_eq!(queue.out(), 0);
}

#[test]
fn layouts_that_no_driver_may_choose_are_refused() {
    let driver = driver();
    let good = driver.layout;
    let build = |layout| {
        Queue::new(
            driver.ram.clone(),
            layout,
            SIZE,
            RingFeatures::default(),
            QueueProgress::default(),
        )
    };
    assert!(build(good).is_ok());
    for size in [0, 3, 16, u16::MAX] {
        assert!(build(QueueLayout { size, ..good }).is_err(), "size {size}");
    }
    for wrong in [1, 0x1_fff8, 0x2_0000, u64::MAX - 15, 1 << 63] {
        for layout in [
            QueueLayout {
                descriptors: wrong,
                ..good
            },
            QueueLayout {
                available: wrong | 1,
                ..good
            },
            QueueLayout {
                available: 0x1_ffff & !1,
                ..good
            },
            QueueLayout {
                used: wrong | 1,
                ..good
            },
            QueueLayout {
                used: 0x1_fffc,
                ..good
            },
        ] {
            assert!(build(layout).is_err(), "{layout:x?}");
        }
    }
}

type Case = (&'static str, &'static dyn Fn(&mut Driver));

#[test]
fn malformed_chains_break_the_queue() {
    let cases: [Case; 11] = [
        ("head beyond the table", &|d| d.offer(SIZE)),
        ("next beyond the table", &|d| {
            d.descriptor(0, 0, 1, NEXT, SIZE);
            d.offer(0);
        }),
        ("circle", &|d| {
            d.descriptor(0, 0, 1, NEXT, 0);
            d.offer(0);
        }),
        ("no byte", &|d| {
            d.add(&[out(0, 0)]);
        }),
        ("wrong order", &|d| {
            d.add(&[into(0, 1), out(0, 1)]);
        }),
        ("outside RAM", &|d| {
            d.add(&[out(0xfee0_0000, 4)]);
        }),
        ("across the end of RAM", &|d| {
            d.add(&[out(0x1_ffff, 2)]);
        }),
        ("wraps", &|d| {
            d.add(&[out(u64::MAX, 2)]);
        }),
        ("indirect in indirect", &|d| {
            d.descriptor(0, 0x1000, 32, INDIRECT, 0);
            d.descriptor_in(0x1000, 0, 0x2000, 32, INDIRECT, 0);
            d.offer(0);
        }),
        ("indirect table of half a descriptor", &|d| {
            d.descriptor(0, 0x1000, 24, INDIRECT, 0);
            d.offer(0);
        }),
        ("indirect with a next one", &|d| {
            d.descriptor(0, 0x1000, 32, INDIRECT | NEXT, 1);
            d.offer(0);
        }),
    ];
    for (name, prepare) in cases {
        let mut driver = driver();
        let mut queue = driver.queue();
        prepare(&mut driver);
        assert!(pop(&mut queue).is_err(), "{name}");
    }
}

#[test]
fn an_available_index_that_jumps_breaks_the_queue() {
    let mut driver = driver();
    let mut queue = driver.queue();
    driver.set_available(SIZE + 1);
    assert_eq!(
        pop(&mut queue).expect_err("a jump"),
        QueueFault::AvailableIndex { from: 0, to: 9 }
    );
    assert!(queue.enable_notifications().is_err());
}

#[test]
fn one_head_again_and_again_without_end_breaks_the_queue() {
    let mut driver = driver();
    let mut queue = driver.queue();
    driver.add(&[out(0, 1)]);
    let mut taken = 0;
    let fault = loop {
        match pop(&mut queue) {
            Ok(_) => taken += 1,
            Err(fault) => break fault,
        }
        driver.offer(0);
    };
    assert_eq!((taken, fault), (SIZE, QueueFault::TooManyChains));
}

#[test]
fn indirect_descriptors_are_followed_once_negotiated() {
    let mut driver = driver();
    driver.descriptor(0, 0x1000, 48, INDIRECT, 0);
    driver.descriptor_in(0x1000, 0, 0x100, 4, NEXT, 2);
    driver.descriptor_in(0x1000, 2, 0x200, 8, WRITE, 0);
    driver.offer(0);
    let chain = pop(&mut driver.queue()).expect("sound").expect("one");
    assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (4, 8));
    driver.features.indirect = false;
    assert_eq!(
        pop(&mut driver.queue()).expect_err("not negotiated"),
        QueueFault::Indirect
    );
}

#[test]
fn a_table_may_follow_ordinary_descriptors_and_its_own_direction_says_nothing() {
    let mut driver = driver();
    driver.descriptor(0, 0x100, 4, NEXT, 1);
    driver.descriptor(1, 0x200, 8, NEXT, 2);
    driver.descriptor(2, 0x1000, 32, INDIRECT | WRITE, 7);
    driver.descriptor_in(0x1000, 0, 0x300, 16, NEXT, 1);
    driver.descriptor_in(0x1000, 1, 0x400, 32, WRITE, 0);
    driver.offer(0);
    let chain = pop(&mut driver.queue()).expect("sound").expect("one");
    assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (28, 32));
    assert_eq!(chain.spans.len(), 4);
}

#[test]
fn the_order_of_buffers_holds_across_a_table() {
    let mut driver = driver();
    driver.descriptor(0, 0x100, 4, NEXT | WRITE, 1);
    driver.descriptor(1, 0x1000, 16, INDIRECT, 0);
    driver.descriptor_in(0x1000, 0, 0x300, 16, 0, 0);
    driver.offer(0);
    assert_eq!(
        pop(&mut driver.queue()).expect_err("readable behind writable"),
        QueueFault::Order
    );
}

#[test]
fn a_chain_may_have_as_many_buffers_as_the_limit_says_and_no_more() {
    let limit = u16::try_from(MAX_CHAIN).expect("small");
    // Buffers before the table, and in it.
    for (before, inside, whole) in [
        (0, limit, true),
        (2, limit - 2, true),
        (2, limit - 1, false),
    ] {
        let mut driver = driver();
        for index in 0..before {
            driver.descriptor(index, 0x100, 1, NEXT, index + 1);
        }
        driver.descriptor(before, 0x8000, u32::from(inside) * 16, INDIRECT, 0);
        for index in 0..inside {
            let next = if index + 1 < inside { NEXT } else { 0 };
            driver.descriptor_in(0x8000, index, 0x100, 1, next, index + 1);
        }
        driver.offer(0);
        let result = pop(&mut driver.queue()).map(|chain| chain.expect("one").spans.len());
        let expected = if whole {
            Ok(MAX_CHAIN)
        } else {
            Err(QueueFault::ChainLength)
        };
        assert_eq!(result, expected, "{before} and {inside}");
    }
    // A circle in a table ends there too.
    let mut driver = driver();
    driver.descriptor(0, 0x8000, 16, INDIRECT, 0);
    driver.descriptor_in(0x8000, 0, 0x100, 1, NEXT, 0);
    driver.offer(0);
    let fault = pop(&mut driver.queue()).expect_err("a circle");
    assert_eq!(fault, QueueFault::ChainLength);
}

#[test]
fn an_interrupt_is_raised_only_when_the_driver_wants_it() {
    let mut driver = driver();
    let mut queue = driver.queue();
    assert_eq!(queue.wants_interrupt(), Ok(false));
    for _ in 0..2 {
        driver.add(&[out(0, 1)]);
    }
    let first = pop(&mut queue).expect("sound").expect("one");
    queue.push(first.head(), 0).expect("in RAM");
    driver.set_no_interrupt(true);
    assert_eq!(queue.wants_interrupt(), Ok(false));
    let second = pop(&mut queue).expect("sound").expect("one");
    queue.push(second.head(), 0).expect("in RAM");
    driver.set_no_interrupt(false);
    assert_eq!(queue.wants_interrupt(), Ok(true));
    assert_eq!(queue.wants_interrupt(), Ok(false));
}

#[test]
fn event_indexes_suppress_interrupts_and_notifications() {
    let mut driver = driver();
    driver.features.event_index = true;
    let mut queue = driver.queue();
    driver.set_used_event(1);
    for expected in [false, true, false] {
        driver.add(&[out(0, 1)]);
        let chain = pop(&mut queue).expect("sound").expect("one");
        queue.push(chain.head(), 0).expect("in RAM");
        assert_eq!(queue.wants_interrupt(), Ok(expected));
    }
    assert_eq!(queue.enable_notifications(), Ok(false));
    assert_eq!(driver.available_event(), 3);
    driver.add(&[out(0, 1)]);
    assert_eq!(queue.enable_notifications(), Ok(true));
}

#[test]
fn notifications_are_turned_off_and_on_by_flag_without_event_indexes() {
    let driver = driver();
    let mut queue = driver.queue();
    queue.disable_notifications().expect("in RAM");
    assert_eq!(driver.used_flags(), NO_NOTIFY);
    queue.enable_notifications().expect("in RAM");
    assert_eq!(driver.used_flags(), 0);
}

#[test]
fn several_entries_are_shown_at_once() {
    let mut driver = driver();
    let mut queue = driver.queue();
    driver.add(&[out(0, 1)]);
    driver.add(&[out(0, 1)]);
    pop(&mut queue).expect("sound").expect("one");
    pop(&mut queue).expect("sound").expect("one");
    queue.fill(0, 1, 5).expect("in RAM");
    queue.fill(1, 0, 6).expect("in RAM");
    assert!(driver.take_used().is_empty());
    queue.show(2).expect("in RAM");
    assert_eq!(driver.take_used(), [(1, 5), (0, 6)]);
}

#[test]
fn indexes_wrap() {
    let mut driver = driver();
    let mut queue = Queue::new(
        driver.ram.clone(),
        driver.layout,
        SIZE,
        driver.features,
        QueueProgress {
            next_available: u16::MAX,
            next_used: u16::MAX,
        },
    )
    .expect("good");
    driver.set_available(u16::MAX);
    assert_eq!(queue.waiting(), Ok(0));
    driver.offer(0);
    driver.descriptor(0, 0, 1, 0, 0);
    assert!(pop(&mut queue).expect("sound").is_some());
    queue.push(0, 0).expect("in RAM");
    assert_eq!(queue.progress(), QueueProgress::default());
    assert!(passed(u16::MAX, 0, u16::MAX));
    assert!(!passed(0, 0, u16::MAX));
}

proptest::proptest! {
    /// Whatever is in the rings, taking and giving back neither panics nor goes on for ever.
    #[test]
    fn no_ring_content_breaks_the_device(
        rings in proptest::collection::vec(proptest::prelude::any::<u8>(), 300),
        event_index: bool,
        indirect: bool,
    ) {
        let mut driver = driver();
        driver.features = RingFeatures { indirect, event_index };
        driver.ram.write(0x1_0000, &rings).expect("in RAM");
        let mut queue = driver.queue();
        let mut chain = Chain::new();
        let mut rounds = 0;
        while let Ok(true) = queue.pop(&mut chain) {
            let total: u64 = chain.spans.iter().map(|span| u64::from(span.len)).sum();
            proptest::prop_assert_eq!(total, chain.readable_bytes() + chain.writable_bytes());
            let mut data = [0; 64];
            chain.read_at(&driver.ram, 0, &mut data);
            chain.write_at(&driver.ram, 0, &data);
            if queue.push(chain.head(), 1).is_err() {
                break;
            }
            let _ = queue.wants_interrupt();
            rounds += 1;
            if rounds > 1000 {
                break;
            }
        }
    }
}
