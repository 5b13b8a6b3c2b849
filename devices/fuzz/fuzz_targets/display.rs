//! A display.
#![no_main]

use reeve_devices_fuzz::display;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    display::run(bytes);
});
