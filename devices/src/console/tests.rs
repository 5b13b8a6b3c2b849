//! Tests of the console ring.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Default)]
struct CountWakes(AtomicUsize);

impl Wake for CountWakes {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn ring(capacity: usize) -> (Arc<ConsoleRing>, Arc<CountWakes>) {
    let wakes = Arc::new(CountWakes::default());
    (Arc::new(ConsoleRing::new(capacity, wakes.clone())), wakes)
}

fn drain(reader: &mut ConsoleReader) -> (Vec<u8>, u64) {
    let (mut all, mut skipped) = (Vec::new(), 0);
    let mut buffer = [0; 3];
    loop {
        let chunk = reader.read(&mut buffer);
        skipped += chunk.skipped;
        all.extend_from_slice(&buffer[..chunk.len]);
        if chunk.len == 0 {
            return (all, skipped);
        }
    }
}

#[test]
fn every_reader_sees_all_output_at_its_own_pace() {
    let (ring, _) = ring(16);
    let mut early = ring.reader();
    ring.push(b"hello ");
    assert_eq!(drain(&mut early), (b"hello ".to_vec(), 0));
    let mut now = ring.reader_from_now();
    ring.push(b"world");
    let mut late = ring.reader();
    assert_eq!(drain(&mut early), (b"world".to_vec(), 0));
    assert_eq!(drain(&mut late), (b"hello world".to_vec(), 0));
    assert_eq!(drain(&mut now), (b"world".to_vec(), 0));
}

#[test]
fn a_full_ring_drops_the_oldest_and_the_reader_sees_the_gap() {
    let (ring, _) = ring(8);
    let mut reader = ring.reader();
    ring.push(b"0123456789");
    ring.push(b"ab");
    assert_eq!(drain(&mut reader), (b"456789ab".to_vec(), 4));
    assert_eq!(
        ring.stats(),
        ConsoleStats {
            written: 12,
            discarded: 4
        }
    );
    assert_eq!(reader.position(), 12);
}

#[test]
fn a_client_that_takes_a_part_gets_the_rest_later() {
    let (ring, _) = ring(8);
    let mut reader = ring.reader();
    ring.push(b"abcdef");
    let mut buffer = [0; 8];
    assert_eq!(reader.peek(&mut buffer), Chunk { len: 6, skipped: 0 });
    reader.consume(2);
    assert_eq!(drain(&mut reader), (b"cdef".to_vec(), 0));
}

#[test]
fn a_flood_wakes_the_io_thread_once() {
    let (ring, wakes) = ring(64);
    let mut reader = ring.reader();
    ring.push(b"before anyone waited");
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
    drain(&mut reader);
    for _ in 0..10_000 {
        ring.push(b"x");
    }
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    drain(&mut reader);
    ring.push(b"y");
    assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
}

#[test]
fn a_slow_reader_does_not_keep_a_fast_one_from_being_woken() {
    let (ring, wakes) = ring(64);
    let _slow = ring.reader();
    let mut fast = ring.reader();
    for round in 1..5 {
        drain(&mut fast);
        ring.push(b"line");
        assert_eq!(wakes.0.load(Ordering::Relaxed), round);
    }
}

#[test]
fn pushing_never_reallocates() {
    let (ring, _) = ring(1000);
    let before = lock(&ring.ring).bytes.as_ptr();
    for _ in 0..100 {
        ring.push(&[b'x'; 77]);
    }
    ring.push(&[b'y'; 5000]);
    assert_eq!(lock(&ring.ring).bytes.as_ptr(), before);
    assert_eq!(lock(&ring.ring).bytes.len(), 1000);
}

#[test]
fn concurrent_writers_and_a_reader_lose_nothing_that_is_not_counted() {
    let (ring, _) = ring(256);
    let mut reader = ring.reader();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let ring = ring.clone();
            std::thread::spawn(move || (0..5_000).for_each(|_| ring.push(b"abc")))
        })
        .collect();
    let mut seen = 0;
    while writers.iter().any(|writer| !writer.is_finished()) {
        let (bytes, skipped) = drain(&mut reader);
        seen += bytes.len() as u64 + skipped;
    }
    for writer in writers {
        writer.join().unwrap();
    }
    let (bytes, skipped) = drain(&mut reader);
    assert_eq!(seen + bytes.len() as u64 + skipped, 4 * 5_000 * 3);
}

proptest! {
    #[test]
    fn the_ring_holds_exactly_the_newest_output(
        capacity in 1usize..40,
        writes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..20),
    ) {
        let (ring, _) = ring(capacity);
        let mut reader = ring.reader();
        let all = writes.concat();
        for bytes in &writes {
            ring.push(bytes);
        }
        let kept = all.len().min(capacity);
        let lost = all.len() - kept;
        prop_assert_eq!(drain(&mut reader), (all[lost..].to_vec(), lost as u64));
        prop_assert_eq!(lock(&ring.ring).bytes.capacity(), capacity);
    }
}

proptest! {
    #[test]
    fn a_ring_goes_on_where_another_stood(
        before in proptest::collection::vec(any::<u8>(), 0..100),
        after in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let (first, _) = ring(16);
        first.push(&before);
        let (written, held) = first.held();
        prop_assert_eq!(written, before.len() as u64);
        prop_assert!(before.ends_with(&held));
        let (second, _) = ring(16);
        second.go_on_from(written, &held);
        prop_assert_eq!(second.held(), (written, held));
        first.push(&after);
        second.push(&after);
        prop_assert_eq!(drain(&mut second.reader()), drain(&mut first.reader()));
        prop_assert_eq!(second.stats(), first.stats());
    }
}
