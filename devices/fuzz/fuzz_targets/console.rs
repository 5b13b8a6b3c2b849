//! A console, its driver and who is at its ports.
#![no_main]

use reeve_devices_fuzz::{console, guest};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    guest::run::<console::Terminals>(bytes);
});
