//! Limits, on a clock that the tests move.

use super::*;

fn bytes(rate: u64, burst: u64, burst_seconds: u32) -> Throttle {
    Throttle::new(Limits {
        total_bytes: Limit {
            rate,
            burst,
            burst_seconds,
        },
        ..Limits::default()
    })
}

/// How many units of `size` bytes get through in `time` to one who asks again when told to.
fn amount(throttle: &Throttle, size: u64, start: Instant, time: Duration) -> u64 {
    let mut now = start;
    let mut done = 0;
    while now < start + time {
        match throttle.admit(Direction::Read, size, now) {
            Ok(()) => done += size,
            Err(time) => {
                assert!(time > now, "a time that has passed is no time to wait for");
                now = time;
            }
        }
    }
    done
}

#[test]
fn without_limits_nothing_waits() {
    let throttle = Throttle::default();
    let now = Instant::now();
    for _ in 0..1000 {
        assert_eq!(throttle.admit(Direction::Write, u64::MAX, now), Ok(()));
    }
}

#[test]
fn over_time_the_rate_is_kept() {
    for size in [100, 512, 4096, 1 << 20] {
        let throttle = bytes(1 << 20, 0, 0);
        let done = amount(&throttle, size, Instant::now(), Duration::from_secs(10));
        let (least, most) = (9 << 20, (11 << 20) + size);
        assert!((least..=most).contains(&done), "{done} by {size}");
    }
}

#[test]
fn an_operation_larger_than_the_rate_goes_through_and_is_waited_for() {
    let throttle = bytes(1000, 0, 0);
    let now = Instant::now();
    assert_eq!(throttle.admit(Direction::Read, 10_000, now), Ok(()));
    let wait = throttle.admit(Direction::Read, 1, now).expect_err("wait") - now;
    assert_eq!(wait, Duration::from_millis(9900));
    assert_eq!(throttle.admit(Direction::Read, 1, now + wait), Ok(()));
}

#[test]
fn a_burst_lasts_as_long_as_it_may() {
    let throttle = bytes(1000, 5000, 3);
    let start = Instant::now();
    let first = amount(&throttle, 100, start, Duration::from_secs(2));
    assert!((9000..=11_000).contains(&first), "{first}");
    let later = start + Duration::from_secs(2);
    let rest = amount(&throttle, 100, later, Duration::from_secs(20));
    // What is left of the burst's 15000, then 1000 a second.
    assert!((22_000..=28_000).contains(&rest), "{rest}");
    let rested = later + Duration::from_secs(60);
    let again = amount(&throttle, 100, rested, Duration::from_secs(2));
    assert!((9000..=11_000).contains(&again), "{again}");
}

#[test]
fn operations_and_directions_are_limited_each_for_itself() {
    let limit = |rate| Limit {
        rate,
        ..Limit::default()
    };
    let throttle = Throttle::new(Limits {
        read_operations: limit(10),
        write_bytes: limit(1000),
        ..Limits::default()
    });
    let now = Instant::now();
    let mut reads = 0;
    while throttle.admit(Direction::Read, 1 << 30, now).is_ok() {
        reads += 1;
    }
    assert_eq!(reads, 2);
    assert_eq!(throttle.admit(Direction::Write, 500, now), Ok(()));
    assert!(throttle.admit(Direction::Write, 1, now).is_err());
    let later = now + Duration::from_millis(100);
    assert_eq!(throttle.admit(Direction::Read, 1, later), Ok(()));
    assert!(throttle.admit(Direction::Write, 1, later).is_err());
}

#[test]
fn a_large_operation_counts_as_several_where_that_is_wanted() {
    let throttle = Throttle::new(Limits {
        total_operations: Limit {
            rate: 10,
            ..Limit::default()
        },
        operation_bytes: 4096,
        ..Limits::default()
    });
    let now = Instant::now();
    assert_eq!(throttle.admit(Direction::Read, 10 * 4096, now), Ok(()));
    let wait = throttle.admit(Direction::Read, 0, now).expect_err("wait") - now;
    assert_eq!(wait, Duration::from_millis(900));
}

#[test]
fn a_refusal_costs_nothing() {
    let throttle = bytes(1000, 0, 0);
    let now = Instant::now();
    assert_eq!(throttle.admit(Direction::Read, 200, now), Ok(()));
    let time = throttle.admit(Direction::Read, 1, now).expect_err("wait");
    for _ in 0..100 {
        assert_eq!(throttle.admit(Direction::Read, 1, now), Err(time));
    }
}

#[test]
fn extreme_limits_neither_overflow_nor_stall_for_ever() {
    let now = Instant::now();
    let throttle = bytes(u64::MAX, u64::MAX, u32::MAX);
    for _ in 0..100 {
        if let Err(time) = throttle.admit(Direction::Read, u64::MAX, now) {
            assert!(time > now && time <= now + LONGEST_WAIT);
        }
    }
    let throttle = bytes(1, 0, 0);
    assert_eq!(throttle.admit(Direction::Read, u64::MAX, now), Ok(()));
    let time = throttle.admit(Direction::Read, 1, now).expect_err("wait");
    assert_eq!(time, now + LONGEST_WAIT);
}

#[test]
fn limits_set_anew_wake_those_who_wait_and_forget_what_was() {
    let throttle = bytes(1, 0, 0);
    let event = Arc::new(Event::new().expect("an eventfd"));
    throttle.watch(&event);
    let now = Instant::now();
    assert_eq!(throttle.admit(Direction::Read, 1 << 20, now), Ok(()));
    assert!(throttle.admit(Direction::Read, 1, now).is_err());
    let limits = Limits {
        total_bytes: Limit {
            rate: 1 << 30,
            ..Limit::default()
        },
        ..Limits::default()
    };
    throttle.set(limits);
    assert!(event.take());
    assert_eq!(throttle.limits(), limits);
    assert_eq!(throttle.admit(Direction::Read, 1, now), Ok(()));
}

#[test]
fn whoever_watches_again_and_again_is_one_and_whoever_is_gone_is_none() {
    let throttle = bytes(1, 0, 0);
    let event = Arc::new(Event::new().expect("an eventfd"));
    for _ in 0..100 {
        throttle.watch(&event);
    }
    assert_eq!(lock(&throttle.waiting).len(), 1);
    let other = Arc::new(Event::new().expect("an eventfd"));
    throttle.watch(&other);
    assert_eq!(lock(&throttle.waiting).len(), 2);
    drop(event);
    throttle.watch(&other);
    assert_eq!(lock(&throttle.waiting).len(), 1);
    throttle.set(Limits::default());
    assert!(other.take());
}
