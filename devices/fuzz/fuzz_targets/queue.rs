//! A split virtqueue over hostile guest memory.
#![no_main]

use reeve_devices_fuzz::queue;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    queue::run(bytes);
});
