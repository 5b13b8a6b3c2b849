//! The entropy device.
#![no_main]

use reeve_devices_fuzz::{guest, rng};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    guest::run::<rng::Rng>(bytes);
});
