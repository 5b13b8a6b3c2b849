//! The memory device.
#![no_main]

use reeve_devices_fuzz::{guest, mem};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    guest::run::<mem::Memory>(bytes);
});
