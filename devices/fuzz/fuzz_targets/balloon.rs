//! The balloon.
#![no_main]

use reeve_devices_fuzz::{balloon, guest};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    guest::run::<balloon::Lent>(bytes);
});
