//! What the panic port tells, how often, and what of it is saved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

#[derive(Debug, Default)]
struct Heard {
    panics: AtomicU32,
    offs: AtomicU32,
    wakes: AtomicU32,
}

impl PanicSink for Heard {
    fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }
}

impl PowerSink for Heard {
    fn power_off(&self) {
        self.offs.fetch_add(1, Ordering::Relaxed);
    }

    fn reset(&self) {
        unreachable!("the port resets nothing");
    }
}

impl Wake for Heard {
    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }
}

impl Heard {
    /// Panics, shutdowns, wakes.
    fn counts(&self) -> (u32, u32, u32) {
        let count = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
        (count(&self.panics), count(&self.offs), count(&self.wakes))
    }
}

fn port() -> (PvPanic, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    let port = PvPanic::new(PvPanicParams {
        panic: heard.clone(),
        power: heard.clone(),
        news: heard.clone(),
    });
    (port, heard)
}

fn write(port: &mut PvPanic, byte: u8) {
    port.write(0, &[byte]).unwrap();
}

#[test]
fn a_read_gives_what_is_understood() {
    let (mut port, _) = port();
    let mut byte = [0];
    port.read(0, &mut byte).unwrap();
    assert_eq!(byte, [0b111]);
}

#[test]
fn a_guest_that_panics_in_a_loop_is_told_of_once_until_it_is_reset() {
    let (mut port, heard) = port();
    for byte in 0..=u8::MAX {
        write(&mut port, byte | PANICKED | CRASH_LOADED);
    }
    let (panics, _, wakes) = heard.counts();
    assert_eq!((panics, wakes), (1, 1));
    assert!(port.take_crash_kernel());
    assert!(!port.take_crash_kernel());
    port.reset();
    for _ in 0..1000 {
        write(&mut port, PANICKED);
    }
    assert_eq!(heard.counts().0, 2);
}

#[test]
fn a_crash_kernel_is_no_panic_and_a_shutdown_is_one_by_acpi() {
    let (mut port, heard) = port();
    write(&mut port, CRASH_LOADED);
    assert_eq!(heard.counts(), (0, 0, 1));
    write(&mut port, SHUTDOWN);
    assert_eq!(heard.counts(), (0, 1, 1));
    write(&mut port, PANICKED | SHUTDOWN);
    assert_eq!(heard.counts(), (1, 1, 1), "a panic is the stronger word");
    write(&mut port, 0xF8);
    assert_eq!(heard.counts(), (1, 1, 1), "unknown bits mean nothing");
}

#[test]
fn wide_and_empty_accesses_are_refused() {
    let (mut port, heard) = port();
    for width in [0, 2, 4, 8] {
        let bytes = [0xFF; 8];
        assert_eq!(port.write(0, &bytes[..width]), Err(AccessError));
        assert_eq!(port.read(0, &mut [0; 8][..width]), Err(AccessError));
    }
    assert_eq!(heard.counts(), (0, 0, 0));
}

#[test]
fn what_nobody_has_heard_of_yet_is_heard_of_after_a_restore() {
    let (mut port, _) = port();
    write(&mut port, CRASH_LOADED);
    port.reset();
    let saved = port.save();
    let (mut other, heard) = self::port();
    other.restore(1, &saved).unwrap();
    assert_eq!(other.save(), saved);
    assert_eq!(heard.counts(), (0, 0, 1));
    assert!(other.take_crash_kernel());
}

#[test]
fn records_that_no_port_writes_are_refused() {
    let (mut port, _) = port();
    write(&mut port, CRASH_LOADED);
    let before = port.save();
    for record in [&[4, 0][..], &[0, 2], &[0], &[0, 0, 0]] {
        assert!(port.restore(1, record).is_err(), "{record:?}");
        assert_eq!(port.save(), before);
    }
    assert!(port.restore(2, &before).is_err());
}
