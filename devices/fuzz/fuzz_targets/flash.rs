//! A flash with a variable store.
#![no_main]

use reeve_devices_fuzz::flash;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    flash::run(bytes);
});
