//! An input device.
#![no_main]

use reeve_devices_fuzz::{guest, input_device};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    guest::run::<input_device::Device>(bytes);
});
