//! What only a machine with firmware has.
#![no_main]

use reeve_devices_fuzz::firmware;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    firmware::run(bytes);
});
