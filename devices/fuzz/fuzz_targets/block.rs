//! A disk, its driver and its limits.
#![no_main]

use reeve_devices_fuzz::{block, guest};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    guest::run::<block::Disk>(bytes);
});
