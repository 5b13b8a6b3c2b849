//! An image that says anything.
#![no_main]

use reeve_devices_fuzz::qcow2;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    qcow2::run(bytes);
});
